"""The rows of a request, as they are written: JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from serving.rows import NUMBER

BATCH_LIMIT = 1000
"""Rows in a request: a few milliseconds of work, during which no other request is answered."""

# The model computes in single precision; a larger number would become infinite.
_LARGEST = float(np.finfo(np.float32).max)
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]


def _one_or_many(value: Any) -> str:
    return "rows" if isinstance(value, list) and value and isinstance(value[0], list) else "row"


class PredictRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"features": [5.3, 3.5, 1.4, 0.2]}, {"features": [[5.3, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5]]}]
        },
    )

    features: Annotated[
        Annotated[list[Number | None], Tag("row")]
        | Annotated[list[list[Number | None]], Field(max_length=BATCH_LIMIT), Tag("rows")],
        Discriminator(_one_or_many),
    ]


def features(body: bytes) -> list[Any]:
    """The row, or the rows, of a request in JSON. Raises ValidationError."""
    asked: list[Any] = PredictRequest.model_validate_json(body).features
    return asked


def lines(body: bytes) -> list[Any]:
    """The rows of CSV without a head, an empty cell being null. Raises ValidationError, and ValueError when it is no
    CSV."""
    try:
        found = [line for line in csv.reader(io.StringIO(body.decode(), newline=""), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"not CSV in UTF-8: {error}") from None
    # A text that is no number is left for the model of the request, which says where it stands.
    asked: list[Any] = PredictRequest.model_validate({"features": [[*map(_cell, line)] for line in found]}).features
    return asked


def _cell(text: str) -> float | str | None:
    text = text.strip()
    return float(text) if NUMBER.fullmatch(text) else text or None


PARSERS: dict[str, Callable[[bytes], list[Any]]] = {"application/json": features, "text/csv": lines}
"""By content type."""

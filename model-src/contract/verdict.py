"""verdict.json: what a check for drift found in a window of the request log of one version."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, ConfigDict, Field, FiniteFloat

from contract import strict

FILE = "verdict.json"

Count = Annotated[int, Field(ge=0)]


class _Open(strict.Strict):
    # A field that is new decides nothing for a reader that does not know it.
    model_config = ConfigDict(extra="ignore")


class CheckOut(_Open):
    column: str
    of: Literal["values", "missing", "range"]
    test: str
    statistic: FiniteFloat
    p_value: FiniteFloat
    threshold: FiniteFloat
    drifted: bool


class Measured(_Open):
    current: FiniteFloat
    reference: FiniteFloat


class Quality(_Open):
    rows: Annotated[int, Field(ge=1)]
    """Rows of the window whose truth is known."""
    metrics: dict[str, Measured]


class Verdict(_Open):
    format: Literal[1] = Field(alias="schema")
    environment: str | None
    app: str | None
    model: str
    version: str
    digest: str
    since: AwareDatetime
    """Of the first row of the window."""
    until: AwareDatetime
    """Of its last row."""
    rows: Annotated[int, Field(ge=1)]
    reference_rows: Count
    malformed_lines: Count
    drifted: bool
    drifted_columns: list[str]
    columns: Annotated[int, Field(ge=1)]
    """Inputs, and the prediction."""
    checks: list[CheckOut]
    quality: Quality | None
    """None where no label is known."""


def parse(text: bytes, source: str) -> Verdict:
    """Raises Refused, one line a fault and each naming `source` and the field, unless `text` is a verdict."""
    return strict.parse(Verdict, text, source)

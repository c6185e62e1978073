"""How files of the contract are read: JSON in one spelling, types as they are, a line for each fault."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.errors import Refused


class Strict(BaseModel):
    # The regex engine is Python's because the pattern of a path looks ahead.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, regex_engine="python-re")


Form = TypeVar("Form", bound=BaseModel)


def parse(form: type[Form], text: bytes, source: str) -> Form:
    """Raises Refused, one line a fault and each naming `source` and the field, unless `text` is JSON of this form.

    JSON is what all readers take for the same: UTF-8 without a byte order mark, finite numbers, and no field twice.
    """
    try:
        json.loads(text.decode(), parse_constant=_finite, parse_float=_finite, object_pairs_hook=once)
        return form.model_validate_json(text)
    except ValidationError as error:
        raise Refused(*faults(source, error)) from None
    except ValueError as error:
        raise Refused(f"{source}: not JSON: {error}") from None
    except RecursionError:
        raise Refused(f"{source}: not JSON: nested too deeply") from None


def faults(source: str, error: ValidationError) -> list[str]:
    """One line a fault: source, field, what is wrong."""
    lines = []
    for fault in error.errors(include_url=False):
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
        said = fault["msg"].removeprefix("Value error, ")
        shown = "" if fault["type"] in ("missing", "value_error", "json_invalid") else f", not {fault['input']!r:.80}"
        lines.append(f"{source}: {f'{field}: ' if field else ''}{said}{shown}")
    return lines


def _finite(text: str) -> float:
    """Infinity, which 1e999 is too, and NaN are not JSON, and what is made of them would not be either."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a JSON object. Raises ValueError where one stands twice: readers differ on which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} stands twice")
    return found

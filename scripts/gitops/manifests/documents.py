"""Files with a JSON Schema of their own."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema


def schema_faults(data: Any, schema: Path) -> list[str]:
    """`field: fault` for everything in `data` that breaks the JSON Schema of a file."""
    return [
        f"{'.'.join(map(str, fault.absolute_path)) or 'the whole file'}: {fault.message}"
        for fault in sorted(_validator(schema).iter_errors(data), key=lambda fault: list(map(str, fault.absolute_path)))
    ]


@cache
def _validator(schema: Path) -> Any:
    # To JSON Schema 1.0 is an integer; to Python, and to other readers of these files, it is not.
    types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    strict: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
        jsonschema.Draft202012Validator, type_checker=types
    )
    return strict(json.loads(schema.read_text()))

"""Whole files: those with a JSON Schema of their own, and the text of new ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml


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


class _Written(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _in_line(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    flow = all(isinstance(item, str) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flow)


_Written.add_representer(list, _in_line)


def text(items: Iterable[Any]) -> str:
    """Documents as people write them: lists of words in one line, others below their key and further in."""
    return yaml.dump_all(items, Dumper=_Written, sort_keys=False, width=1000)

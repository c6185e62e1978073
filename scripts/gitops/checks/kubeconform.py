"""Schema checks with kubeconform, strict and against closed schemas; nothing may be skipped."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema

from gitops.checks.framework import Finding
from gitops.manifests import kinds, schemas
from gitops.manifests.objects import Object, identity
from gitops.programs import manifests

from contract.errors import Refused


def check(renders: Mapping[str, Sequence[Object]], closed: Path | None = None) -> list[Finding]:
    """What kubeconform finds in the objects of these folders, one finding a fault; `closed` is the folder of the
    schemas, those of this repository if it is not given.

    Raises Refused when kubeconform did not look at every object: a check that was skipped is a failure.
    """
    closed = closed or schemas.folder()
    items = [(folder, item) for folder, listed in renders.items() for item in listed]
    answer = manifests.ask(
        {"schemas": f"{closed}/{schemas.LOCATION}", "objects": [json.dumps(item) for _, item in items]}
    )
    results = answer["results"] or []
    if answer["failed"] or len(results) != len(items):
        raise Refused(f"kubeconform: {answer['words'] or f'{len(items)} objects were given, {len(results)} answered'}")
    found = []
    for (folder, item), result in zip(items, results, strict=True):
        if not result["valid"]:
            where = f"{folder}: {identity(item)}"
            for fault in _faults(item, closed) or [result["words"]]:
                found.append(Finding("schema", where, " ".join(fault.split()), (folder,)))
    return sorted(found)


def _faults(item: Object, closed: Path) -> list[str]:
    """`field: fault` for every fault of an object that kubeconform refused; its own words end where faults part ways.

    Empty when only kubeconform sees one.
    """
    group, _, version = str(item.get("apiVersion")).rpartition("/")
    kind = str(item.get("kind"))
    file = closed / schemas.name(group, version, kind)
    if not file.is_file():
        return [f"apiVersion: {item.get('apiVersion')}: {_unknown(schemas.called(group, kind), version, closed)}"]
    faults = jsonschema.Draft7Validator(json.loads(file.read_text())).iter_errors(item)
    try:
        return [f"{'.'.join(map(str, fault.absolute_path)) or 'the object'}: {_words(fault)}" for fault in faults]
    except re.error:  # a pattern that Go has and Python has not
        return []


def _unknown(name: str, version: str, closed: Path) -> str:
    """The message about a kind without a schema of the object's version."""
    known = schemas.kinds(closed)
    versions = known[name]["versions"] if name in known else []
    if versions and version not in versions:
        return f"no version of {name} that is served; write {' or '.join(versions)}"
    return f"has no such kind in the versions that tools/schemas/go.mod pins{kinds.remedy(name, closed)}"


def _words(fault: Any) -> str:
    if fault.validator != "additionalProperties":
        return str(fault.message)
    fields = fault.schema.get("properties", {})
    unknown = [name for name in fault.instance if name not in fields]
    meant = [f"'{near}'" for name in unknown for near in difflib.get_close_matches(name, fields, n=1)]
    words = f"additional properties {', '.join(map(repr, unknown))} not allowed"
    return f"{words}; did you mean {', '.join(meant)}?" if meant else words

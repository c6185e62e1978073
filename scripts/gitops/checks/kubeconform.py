"""Schema checks with kubeconform, strict and against closed schemas; nothing may be skipped."""

from __future__ import annotations

import difflib
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema

from gitops.checks.framework import Finding
from gitops.manifests import schemas
from gitops.manifests.objects import Object, identity
from gitops.programs import tools

from contract.errors import Refused


def check(renders: Mapping[str, Sequence[Object]], closed: Path | None = None) -> list[Finding]:
    """What kubeconform finds in the objects of these folders, one finding a fault; `closed` is the folder of the
    schemas, those of this repository if it is not given.

    Raises Refused when kubeconform did not look at every object: a check that was skipped is a failure.
    """
    try:
        program = tools.KUBECONFORM.require()
    except tools.ToolError as error:
        raise Refused(str(error)) from None
    closed = closed or schemas.folder()
    items = [(folder, item) for folder, listed in renders.items() for item in listed]
    with tempfile.TemporaryDirectory(prefix="gitops-kubeconform-") as work:
        for number, (_, item) in enumerate(items):
            (Path(work) / f"{number}.json").write_text(json.dumps(item))
        # One after the other: most of the time goes into compiling schemas, and each worker would compile its own.
        done = subprocess.run(
            [program, "-n", "1", "-strict", "-verbose", "-output", "json", "-schema-location",
             f"{closed}/{schemas.LOCATION}", work],
            capture_output=True, text=True,
        )  # fmt: skip
    try:
        results = json.loads(done.stdout)["resources"] or []
    except (ValueError, KeyError):
        words = done.stderr.strip().splitlines()[-5:] or ["no result"]
        raise Refused(*[f"kubeconform: {line}" for line in words]) from None
    if len(results) != len(items) or any(result["status"] == "statusSkipped" for result in results):
        raise Refused(f"kubeconform: {len(items)} objects were given, {len(results)} answered or some were skipped")
    found = []
    for result in results:
        if result["status"] != "statusValid":
            folder, item = items[int(Path(result["filename"]).stem)]
            where = f"{folder}: {identity(item)}"
            for fault in _faults(item, closed) or [result["msg"]]:
                found.append(Finding("schema", where, " ".join(fault.split()), (folder,)))
    return sorted(found)


def _faults(item: Object, closed: Path) -> list[str]:
    """`field: fault` for every fault of an object that kubeconform refused; its own words end where faults part ways.

    Empty when only kubeconform sees one.
    """
    group, _, version = str(item.get("apiVersion")).rpartition("/")
    file = closed / schemas.name(group, version, str(item.get("kind")))
    if not file.is_file():
        return [
            f"apiVersion: {item.get('apiVersion')}: has no such kind in the versions that tools/schemas/go.mod pins"
        ]
    faults = jsonschema.Draft7Validator(json.loads(file.read_text())).iter_errors(item)
    return [f"{'.'.join(map(str, fault.absolute_path)) or 'the object'}: {_words(fault)}" for fault in faults]


def _words(fault: Any) -> str:
    if fault.validator != "additionalProperties":
        return str(fault.message)
    fields = fault.schema.get("properties", {})
    unknown = [name for name in fault.instance if name not in fields]
    meant = [f"'{near}'" for name in unknown for near in difflib.get_close_matches(name, fields, n=1)]
    words = f"additional properties {', '.join(map(repr, unknown))} not allowed"
    return f"{words}; did you mean {', '.join(meant)}?" if meant else words

"""Schema checks with kubeconform, strict and against closed schemas; nothing may be skipped."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from gitops import kustomize, schemas, tools
from gitops.cli import Refused
from gitops.kustomize import Object
from gitops.rules import Finding


def check(renders: Mapping[str, Sequence[Object]]) -> list[Finding]:
    """What kubeconform says against the objects of these folders, one finding a fault.

    Raises Refused when kubeconform did not look at every object: a check that was skipped is a failure.
    """
    try:
        program = tools.KUBECONFORM.require()
    except tools.ToolError as error:
        raise Refused(str(error)) from None
    items = {f"{folder}#{at}": item for folder, listed in renders.items() for at, item in enumerate(listed)}
    with tempfile.TemporaryDirectory(prefix="gitops-kubeconform-") as name:
        work = Path(name)
        files = {}
        for number, (place, item) in enumerate(items.items()):
            file = work / f"{number}.yaml"
            file.write_text(yaml.dump(item))
            files[str(file)] = place
        done = subprocess.run(
            [program, "-strict", "-verbose", "-output", "json", "-schema-location",
             f"{schemas.folder()}/{schemas.LOCATION}", name],
            capture_output=True, text=True,
        )  # fmt: skip
    try:
        results = json.loads(done.stdout)["resources"]
    except (ValueError, KeyError):
        words = done.stderr.strip().splitlines()[-5:] or ["no result"]
        raise Refused(*[f"kubeconform: {line}" for line in words]) from None
    if len(results) != len(items) or any(result["status"] == "statusSkipped" for result in results):
        raise Refused(f"kubeconform: {len(items)} objects were given, {len(results)} answered or some were skipped")
    found = []
    for result in results:
        place = files[result["filename"]]
        where = f"{place.partition('#')[0]}: {kustomize.identity(items[place])}"
        if result["status"] != "statusValid":
            faults = [_words(fault) for fault in result.get("validationErrors") or []] or [
                " ".join(result["msg"].split())
            ]
            found += [Finding("schema", where, fault) for fault in faults]
    return sorted(found)


def _words(fault: dict[str, str]) -> str:
    path = fault.get("path", "").strip("/").replace("/", ".")
    return f"{path or 'the object'}: {fault.get('msg', '')}"

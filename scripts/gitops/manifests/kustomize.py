"""Rendering with kustomize."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from gitops.manifests import closure
from gitops.manifests.closure import LOADER
from gitops.manifests.objects import Object
from gitops.programs import tools

from contract.errors import Refused

# Kustomize leaves `=` and `<<` unquoted where they are values. They are strings, whatever PyYAML makes of them.
_RENDERED: Any = type("Rendered", (LOADER,), {
    "yaml_implicit_resolvers": {
        first: [pair for pair in pairs if pair[0] not in ("tag:yaml.org,2002:value", "tag:yaml.org,2002:merge")]
        for first, pairs in LOADER.yaml_implicit_resolvers.items()
    }
})  # fmt: skip


def build(root: Path, folder: str) -> str:
    """What plain `kustomize build FOLDER` prints, run from `root`. Raises Refused with kustomize's words."""
    try:
        program = tools.KUSTOMIZE.require()
    except tools.ToolError as error:
        raise Refused(str(error)) from None
    root = root.resolve()
    if faults := closure.foreign(root, folder):
        raise Refused(*faults)
    # It lives for a moment: a fifth of its work would be to collect garbage.
    env = os.environ | {"GOGC": "400"}
    done = subprocess.run([program, "build", folder], cwd=root, env=env, capture_output=True, text=True)
    if done.returncode:
        # Of files that are not YAML kustomize does not name the place.
        raise Refused(*(_not_yaml(root, folder) or [f"{folder}: {line}" for line in _said(done.stderr, root)]))
    return done.stdout


_FROM = re.compile(
    r"accumulating resources: accumulation err='accumulating resources from '[^']*': '[^']*' must resolve to a file': "
    r"(?:recursed accumulation of path|couldn't make target for path) '([^']*)': "
)


def _said(stderr: str, root: Path) -> list[str]:
    """Kustomize's words, without what it tried and how it got there."""
    text = stderr.replace(f"{root}/", "").replace(str(root), ".").strip().removeprefix("Error: ")
    return _FROM.sub(r"\1: ", text).splitlines() or ["kustomize gave no reason"]


def _not_yaml(root: Path, folder: str) -> list[str]:
    found = []
    for name in sorted(closure.closure(root, folder)):
        if name.endswith((".yaml", ".yml")) and (root / name).is_file():
            try:
                for _ in yaml.parse((root / name).read_bytes(), LOADER):
                    pass
            except yaml.YAMLError as error:
                found.append(f"{name}: {closure.fault(error)}")
    return found


def build_all(root: Path, folders: Iterable[str]) -> dict[str, str]:
    """The renders of several folders, side by side. Raises Refused with the faults of all of them."""
    listed = list(folders)
    faults: list[str] = []
    renders: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for folder, future in [(folder, pool.submit(build, root, folder)) for folder in listed]:
            try:
                renders[folder] = future.result()
            except Refused as refused:
                faults += refused.lines
    if faults:
        raise Refused(*dict.fromkeys(faults))  # what several folders share has the same fault in each
    return renders


def objects(render: str) -> list[Object]:
    """The objects of a render."""
    return [document for document in yaml.load_all(render, _RENDERED) if document]

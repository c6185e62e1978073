"""Rendering with kustomize."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gitops.manifests import closure
from gitops.manifests.closure import LOADER
from gitops.manifests.objects import Object
from gitops.programs import manifests

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
    root = root.resolve()
    if faults := closure.foreign(root, folder):
        raise Refused(*faults)
    done = manifests.ask({"root": str(root), "folder": folder})
    if done["failed"]:
        # Of files that are not YAML kustomize does not name the place.
        raise Refused(*(_not_yaml(root, folder) or [f"{folder}: {line}" for line in _said(done["words"], root)]))
    return str(done["output"])


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
    # Where there are few, one process has rendered them before a second one is there.
    processes = os.cpu_count() if len(listed) > 6 else 1
    with ThreadPoolExecutor(processes) as pool:
        for folder, future in [(folder, pool.submit(build, root, folder)) for folder in listed]:
            try:
                renders[folder] = future.result()
            except Refused as refused:
                faults += refused.lines
    if faults:
        raise Refused(*dict.fromkeys(faults))  # what several folders share has the same fault in each
    return renders


def once(root: Path, folder: str) -> list[Object]:
    """The objects of a render, remembered while the files that it reads have the same bytes. Raises Refused, and
    OSError for a file that cannot be read."""
    files = sorted(closure.closure(root, folder))
    return _remembered(root, folder, tuple((root / file).read_bytes() for file in files))


@cache
def _remembered(root: Path, folder: str, sources: tuple[bytes, ...]) -> list[Object]:
    return objects(build(root, folder))


def objects(render: str) -> list[Object]:
    """The objects of a render."""
    return [document for document in yaml.load_all(render, _RENDERED) if document]

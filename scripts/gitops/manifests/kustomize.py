"""Rendering with kustomize."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from gitops.manifests import closure
from gitops.manifests.closure import LOADER, Files
from gitops.manifests.objects import Object
from gitops.programs import manifests

from contract.errors import Refused

T = TypeVar("T")
# Kustomize leaves `=` and `<<` unquoted where they are values. They are strings, whatever PyYAML makes of them.
_RENDERED: Any = type("Rendered", (LOADER,), {
    "yaml_implicit_resolvers": {
        first: [pair for pair in pairs if pair[0] not in ("tag:yaml.org,2002:value", "tag:yaml.org,2002:merge")]
        for first, pairs in LOADER.yaml_implicit_resolvers.items()
    }
})  # fmt: skip


def build(root: Path, folder: str) -> str:
    """What plain `kustomize build FOLDER` prints, run from `root`. Raises Refused with kustomize's words."""
    return str(_ask(root, folder, parsed=False)["output"])


def rendered(root: Path, folder: str, files: Files | None = None) -> list[Object]:
    """The objects that it prints, without a detour over their text; `files` has what is known of those of `root`.
    Raises Refused with kustomize's words."""
    return [item for item in _ask(root, folder, files, parsed=True)["parsed"] or [] if item]


def _ask(root: Path, folder: str, files: Files | None = None, *, parsed: bool) -> dict[str, Any]:
    root = root.resolve()
    if faults := closure.foreign(files or root, folder):
        raise Refused(*faults)
    done = manifests.ask({"root": str(root), "folder": folder, "parsed": parsed})
    if done["failed"]:
        # Of files that are not YAML kustomize does not name the place.
        raise Refused(*(_not_yaml(root, folder) or [f"{folder}: {line}" for line in _said(done["words"], root)]))
    return done


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
    """The texts of several folders, rendered side by side. Raises Refused with the faults of all of them."""
    return _all(build, root, folders)


def rendered_all(root: Path, folders: Iterable[str], files: Files | None = None) -> dict[str, list[Object]]:
    """The objects of several folders, rendered side by side. Raises Refused with the faults of all of them."""
    return _all(partial(rendered, files=files), root, folders)


def those_that_render(root: Path, folders: Iterable[str]) -> dict[str, list[Object]]:
    """The objects of each folder that renders."""
    found = _each(rendered, root, folders)
    return {folder: item for folder, item in found.items() if not isinstance(item, Refused)}


def _all(render: Callable[[Path, str], T], root: Path, folders: Iterable[str]) -> dict[str, T]:
    found = _each(render, root, folders)
    faults = [line for item in found.values() if isinstance(item, Refused) for line in item.lines]
    if faults:
        raise Refused(*dict.fromkeys(faults))  # what several folders share has the same fault in each
    return {folder: item for folder, item in found.items() if not isinstance(item, Refused)}


def _each(render: Callable[[Path, str], T], root: Path, folders: Iterable[str]) -> dict[str, T | Refused]:
    """What each folder renders, or why it does not."""
    listed = list(folders)
    # Where there are few, one process has rendered them before a second one is there.
    processes = os.cpu_count() if len(listed) > 6 else 1
    with ThreadPoolExecutor(processes) as pool:
        return dict(zip(listed, pool.map(lambda folder: _or_reason(render, root, folder), listed), strict=True))


def _or_reason(render: Callable[[Path, str], T], root: Path, folder: str) -> T | Refused:
    try:
        return render(root, folder)
    except Refused as refused:
        return refused


_once: dict[str, list[Object]] = {}


def once(files: Files, folders: Iterable[str]) -> dict[str, list[Object] | Refused]:
    """The objects of each folder, or why it does not render, remembered while the files that it reads have the same
    bytes."""
    found: dict[str, list[Object] | Refused] = {}
    keys: dict[str, str] = {}
    for folder in folders:
        try:
            keys[folder] = key(files, folder)
        except Refused as refused:
            found[folder] = refused
    missing = [folder for folder, name in keys.items() if name not in _once]
    new = _each(partial(rendered, files=files), Path(files.root), missing)
    _once.update((keys[folder], item) for folder, item in new.items() if not isinstance(item, Refused))
    return found | {folder: new[folder] if folder in new else _once[name] for folder, name in keys.items()}


def key(files: Files, folder: str) -> str:
    """The SHA-256, in hex digits, of all that decides a render: the program, the folder, and each file that is read.
    Raises Refused for a file that cannot be read."""
    digest = hashlib.sha256(f"{manifests.built().name}\n{folder}\n".encode(errors="surrogateescape"))
    for name in sorted(closure.closure(files, folder)):
        try:
            text = files.read(f"{files.root}/{name}")
        except OSError as error:
            raise Refused(f"{name}: {error.strerror}") from None
        digest.update(f"{name}\n{len(text)}\n".encode(errors="surrogateescape") + text)
    return digest.hexdigest()


def objects(render: str) -> list[Object]:
    """The objects of a text in the form of a render."""
    return [document for document in yaml.load_all(render, _RENDERED) if document]

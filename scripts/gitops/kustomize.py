"""Rendering with kustomize, which files a render reads, and renders compared as objects."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gitops import tools
from gitops.cli import Refused

Object = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FILE = "kustomization.yaml"


def build(root: Path, folder: str) -> str:
    """What plain `kustomize build FOLDER` prints, run from `root`. Raises Refused with kustomize's words."""
    try:
        program = tools.KUSTOMIZE.require()
    except tools.ToolError as error:
        raise Refused(str(error)) from None
    done = subprocess.run([program, "build", folder], cwd=root, capture_output=True, text=True)
    if done.returncode:
        words = done.stderr.replace(f"{root}/", "").strip().splitlines() or ["kustomize gave no reason"]
        raise Refused(*[f"{folder}: {line.removeprefix('Error: ')}" for line in words])
    return done.stdout


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
        raise Refused(*faults)
    return renders


def objects(render: str) -> list[Object]:
    """The objects of a render."""
    return [document for document in yaml.load_all(render, _LOADER) if document]


@dataclass(frozen=True, order=True)
class Identity:
    """What makes an object this object in a cluster."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        kind = f"{self.kind}.{self.group}" if self.group else self.kind
        return f"{kind} {self.namespace + '/' if self.namespace else ''}{self.name}"


def identity(item: Object) -> Identity:
    """An object moves between API versions without becoming another one, so only the group counts."""
    group, slash, _ = item.get("apiVersion", "").rpartition("/")
    named = item.get("metadata") or {}
    return Identity(group if slash else "", item.get("kind", ""), named.get("namespace", ""), named.get("name", ""))


# Which files a render reads


def closure(root: Path, folder: str) -> set[str]:
    """Every file below `root` that `kustomize build FOLDER` may read, relative to `root`.

    Any string of a kustomization that names an existing file or folder counts as read. That is more than kustomize's
    own fields would give and never less, and needs no list of them.
    """
    found: set[str] = set()
    _collect(root.resolve(), (root / folder).resolve(), found)
    return found


def _collect(root: Path, folder: Path, found: set[str]) -> None:
    file = folder / FILE
    name = os.path.relpath(file, root)
    if name in found or not file.is_file():
        return
    found.add(name)
    try:
        text = yaml.load(file.read_text(), _LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    for word in _strings(text):
        for candidate in {word, word.rpartition("=")[2]}:
            if not candidate or "\n" in candidate or len(candidate) > 1000:
                continue
            path = Path(os.path.normpath(folder / candidate))
            if path == folder or root not in path.parents:
                continue
            if path.is_dir():
                _collect(root, path, found)
            elif path.is_file():
                found.add(os.path.relpath(path, root))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def readers(root: Path, folders: Iterable[str], files: Iterable[str]) -> list[str]:
    """Those of `folders` whose render may read one of `files`; a file that is gone counts where its folder was."""
    changed = set(files)
    gone = {str(Path(file).parent) for file in changed if not (root / file).exists()}
    found = []
    for folder in folders:
        read = closure(root, folder)
        if read & changed or {str(Path(file).parent) for file in read} & gone:
            found.append(folder)
    return found


# Comparing


@dataclass(frozen=True)
class Difference:
    """One value that differs between two renders; `before` or `after` is None where it is absent."""

    identity: Identity
    path: str
    before: Any
    after: Any


def differences(before: Iterable[Object], after: Iterable[Object]) -> list[Difference]:
    """Every leaf that differs, as objects: order of documents and keys, quoting and layout do not count."""
    old, new = ({identity(item): leaves(item) for item in items} for items in (before, after))
    found = []
    for key in sorted(old.keys() | new.keys()):
        left, right = old.get(key, {}), new.get(key, {})
        found += [
            Difference(key, path, left.get(path), right.get(path))
            for path in sorted(left.keys() | right.keys())
            if left.get(path) != right.get(path) or (path in left) != (path in right)
        ]
    return found


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Scalars by path. Items of a list go by their `name` where each has one of its own, else by position."""
    items: list[tuple[str, Any]]
    if isinstance(value, dict) and value:
        items = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value:
        names = [item.get("name") if isinstance(item, dict) else None for item in value]
        by_name = None not in names and len(set(names)) == len(names)
        items = [(f"{path}[{names[at] if by_name else at}]", item) for at, item in enumerate(value)]
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for name, item in items:
        found |= leaves(item, name)
    return found

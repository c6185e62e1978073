"""Rendering with kustomize, which files a render reads, and renders compared as objects."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gitops import tools
from gitops.cli import Refused

Object = dict[str, Any]
FILE = "kustomization.yaml"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Kustomize leaves `=` and `<<` unquoted where they are values. They are strings, whatever PyYAML makes of them.
_RENDERED: Any = type("Rendered", (_LOADER,), {
    "yaml_implicit_resolvers": {
        first: [pair for pair in pairs if pair[0] not in ("tag:yaml.org,2002:value", "tag:yaml.org,2002:merge")]
        for first, pairs in _LOADER.yaml_implicit_resolvers.items()
    }
})  # fmt: skip


def build(root: Path, folder: str) -> str:
    """What plain `kustomize build FOLDER` prints, run from `root`. Raises Refused with kustomize's words."""
    try:
        program = tools.KUSTOMIZE.require()
    except tools.ToolError as error:
        raise Refused(str(error)) from None
    root = root.resolve()
    if faults := _foreign(root, folder):
        raise Refused(*faults)
    done = subprocess.run([program, "build", folder], cwd=root, capture_output=True, text=True)
    if done.returncode:
        # Of files that are not YAML kustomize does not say where.
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
    for name in sorted(closure(root, folder)):
        if name.endswith((".yaml", ".yml")) and (root / name).is_file():
            try:
                for _ in yaml.parse((root / name).read_bytes(), _LOADER):
                    pass
            except yaml.YAMLError as error:
                found.append(f"{name}: {_fault(error)}")
    return found


def _fault(error: yaml.YAMLError) -> str:
    mark, what = (
        getattr(error, "problem_mark", None),
        getattr(error, "problem", None) or getattr(error, "reason", ""),
    )
    return f"{f'line {mark.line + 1}: ' if mark else ''}not YAML: {what}"


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
    group = str(item.get("apiVersion")).rpartition("/")[0]
    named = item.get("metadata") or {}
    return Identity(group, str(item.get("kind")), str(named.get("namespace") or ""), str(named.get("name")))


# Which files a render reads

_PLUGINS = ("generators", "transformers", "validators")
_FILES = ("bases", "components", "configurations", "crds", "patchesStrategicMerge", "resources", *_PLUGINS)
_WITH_PATH = ("openapi", "patches", "patchesJson6902", "replacements")
_GENERATED = ("configMapGenerator", "secretGenerator")


def closure(root: Path, folder: str) -> set[str]:
    """Every file below `root` that `kustomize build FOLDER` may read, relative to `root`.

    Any string of a kustomization that names an existing file or folder counts as read. That is more than kustomize's
    own fields would give and never less, and needs no list of them.
    """
    return set(_sources(root.resolve(), folder))


def _sources(root: Path, folder: str) -> dict[str, Any]:
    """The files of a closure, each kustomization among them with what it says, the others with None."""
    found: dict[str, Any] = {}
    _collect(root, (root / folder).resolve(), found)
    return found


def _collect(root: Path, folder: Path, found: dict[str, Any]) -> None:
    file = folder / FILE
    name = os.path.relpath(file, root)
    if name in found or not file.is_file():
        return
    try:
        found[name] = _documents(file.read_bytes())
    except yaml.YAMLError as error:
        raise Refused(f"{name}: {_fault(error)}") from None
    _follow(root, folder, found[name], found)


def _follow(root: Path, folder: Path, value: Any, found: dict[str, Any]) -> None:
    for word in _strings(value):
        if "\n" in word:  # an inline patch, or an inline transformer that names a file
            with contextlib.suppress(yaml.YAMLError):  # kustomize says so, if it is of any matter
                _follow(root, folder, _documents(word.encode()), found)
            continue
        for candidate in {word, word.rpartition("=")[2]} - {"", "."}:
            path = os.path.normpath(folder / candidate)
            if not os.path.exists(path):  # noqa: PTH110 - Path.exists() raises for a word that is too long for a name
                continue
            real = Path(path).resolve()
            if root not in real.parents:
                continue
            if path != str(real):
                found[os.path.relpath(path, root)] = None  # a link is a file of the repository too
            if real.is_dir():
                _collect(root, real, found)
            elif (name := os.path.relpath(real, root)) not in found:
                found[name] = None
                if b"builtin" in (text := real.read_bytes()):  # a transformer in a file of its own may name more
                    with contextlib.suppress(yaml.YAMLError):
                        _follow(root, folder, _documents(text), found)


@cache
def _documents(text: bytes) -> Any:
    return list(yaml.load_all(text, _LOADER))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _foreign(root: Path, folder: str) -> list[str]:
    """A line for everything that the kustomizations of a render name and that is not in this repository.

    Kustomize would fetch some of it from the network, where no commit and no check reaches.
    """
    faults = []
    for name, text in _sources(root, folder).items():
        for field, word in _named(text):
            path = ((root / name).parent / word).resolve()
            wanted = "file" if field in _PLUGINS else f"file, or folder with a {FILE},"
            if root in path.parents and (path.is_file() or (field not in _PLUGINS and (path / FILE).is_file())):
                continue
            faults.append(f"{name}: {field}: {word!r}: no {wanted} of this repository; nothing else would be checked")
    return faults


def _named(kustomization: Any) -> Iterator[tuple[str, str]]:
    """(field, path) for every file or folder that a kustomization names by kustomize's own fields."""
    fields = kustomization[0] if kustomization and isinstance(kustomization[0], dict) else {}
    for field, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            words: list[Any] = []
            if field in _FILES:
                words = [item]
            elif field in _WITH_PATH and isinstance(item, dict):
                words = [item.get("path")]
            elif field in _GENERATED and isinstance(item, dict):
                words = list(_strings([item.get(name) for name in ("files", "envs", "env")]))
                words = [word.rpartition("=")[2] for word in words]
            yield from ((field, word) for word in words if isinstance(word, str) and word and "\n" not in word)


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
    """Scalars by path. Items of a list go by their `name`, or their predictor's, where each has one of its own, else
    by position."""
    items: list[tuple[str, Any]]
    if isinstance(value, dict) and value:
        items = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value:
        names = [_name(item) for item in value]
        by_name = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
        items = [(f"{path}[{names[at] if by_name else at}]", item) for at, item in enumerate(value)]
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for name, item in items:
        found |= leaves(item, name)
    return found


def _name(item: Any) -> Any:
    if not isinstance(item, dict):
        return None
    predictor = item.get("predictor")
    return item.get("name", predictor.get("name") if isinstance(predictor, dict) else None)

"""Which files a render reads, and what of them is not in this repository."""

# Thousands of words are looked up in a run, which takes seconds with pathlib.
# ruff: noqa: PTH112, PTH113, PTH118, PTH119, PTH120

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import yaml

from gitops.manifests.objects import KUSTOMIZATION

from contract.errors import Refused

# A `=` is text to Kubernetes, and a tag of somebody's own is of no matter for what is read.
LOADER: Any = type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
LOADER.add_constructor("tag:yaml.org,2002:value", LOADER.construct_yaml_str)
LOADER.add_multi_constructor("!", lambda loader, _, node: _untagged(loader, node))
_PLUGINS = ("generators", "transformers", "validators")
_FILES = ("bases", "components", "configurations", "crds", "patchesStrategicMerge", "resources", *_PLUGINS)
_WITH_PATH = ("openapi", "patches", "patchesJson6902", "replacements")
_GENERATED = ("configMapGenerator", "secretGenerator")


class Files(Protocol):
    """Where the files of a repository are: in a folder, or in a commit of which no copy was made. Paths are absolute,
    below `root`. `steps` has what was found of folders, for as long as their files stay as they are."""

    @property
    def root(self) -> str: ...
    @property
    def steps(self) -> dict[str, Step | None]: ...
    def isdir(self, path: str) -> bool: ...
    def isfile(self, path: str) -> bool: ...
    def realpath(self, path: str) -> str: ...
    def read(self, path: str) -> bytes: ...


@dataclass(frozen=True)
class Step:
    """What one kustomization names: files, relative to `root`, and folders. None in `steps` is a folder without one."""

    name: str
    documents: Any
    files: dict[str, None]
    folders: dict[str, None]


class Searched(Files, Protocol):
    """Files that can be searched at once, and none of which is a link."""

    def mentioning(self, words: Sequence[bytes]) -> dict[str, bytes]:
        """The files, relative to `root`, whose bytes have one of these words."""

    @property
    def kustomizations(self) -> Iterable[str]:
        """All of them, relative to `root`."""


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = str(root.resolve())
        self.steps: dict[str, Step | None] = {}

    def isdir(self, path: str) -> bool:
        return os.path.isdir(path)

    def isfile(self, path: str) -> bool:
        return os.path.isfile(path)

    def realpath(self, path: str) -> str:
        return os.path.realpath(path)

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()


def _files(root: Path | Files) -> Files:
    return _Folder(root) if isinstance(root, Path) else root


def closure(root: Path | Files, folder: str) -> set[str]:
    """Every file below `root` that `kustomize build FOLDER` may read, relative to `root`.

    Any string of a kustomization that names an existing file or folder counts as read. That is more than kustomize's
    own fields would give and never less, and needs no list of them.
    """
    return set(_sources(_files(root), folder))


def _sources(files: Files, folder: str) -> dict[str, Any]:
    """The files of a closure, each kustomization among them with its documents, the others with None."""
    found: dict[str, Any] = {}
    _collect(files, files.realpath(os.path.join(files.root, folder)), found, set())
    return found


def _collect(files: Files, folder: str, found: dict[str, Any], seen: set[str]) -> None:
    if folder in seen:
        return
    seen.add(folder)
    if folder not in files.steps:
        files.steps[folder] = _step(files, folder)
    if step := files.steps[folder]:
        found |= dict.fromkeys(file for file in step.files if file not in found)
        found[step.name] = step.documents
        for inner in step.folders:
            _collect(files, inner, found, seen)


def _step(files: Files, folder: str) -> Step | None:
    file = os.path.join(folder, KUSTOMIZATION)
    if not files.isfile(file):
        return None
    name, text = os.path.relpath(file, files.root), files.read(file)
    try:
        step = Step(name, _documents(text), {}, {})
    except yaml.YAMLError as error:
        raise Refused(f"{name}: {fault(error)}") from None
    _follow(files, folder, _words(text), step)
    return step


def _follow(files: Files, folder: str, words: Iterable[str], step: Step) -> None:
    root = files.root
    for word in words:
        if "\n" in word:  # an inline patch, or an inline transformer that names a file
            with contextlib.suppress(yaml.YAMLError):  # kustomize refuses it, if it is of any matter
                _follow(files, folder, _words(word.encode()), step)
            continue
        for candidate in {word, word.rpartition("=")[2]} - {"", "."}:
            path = os.path.normpath(os.path.join(folder, candidate))
            if not (files.isdir(path) or files.isfile(path)):
                continue
            real = files.realpath(path)
            if not real.startswith(f"{root}/"):
                continue
            if path != real:
                step.files[os.path.relpath(path, root)] = None  # a link is a file of the repository too
            if files.isdir(real):
                step.folders[real] = None
            elif (name := real[len(root) + 1 :]) not in step.files:
                step.files[name] = None
                if b"builtin" in (text := files.read(real)):  # a transformer in a file of its own may name more
                    with contextlib.suppress(yaml.YAMLError):
                        _follow(files, folder, _words(text), step)


def _untagged(loader: Any, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


@cache
def _words(text: bytes) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_strings(_documents(text))))


@cache
def _documents(text: bytes) -> Any:
    return list(yaml.load_all(text, LOADER))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def foreign(root: Path | Files, folder: str) -> list[str]:
    """A line for everything that the kustomizations of a render name and that is not in this repository.

    Kustomize would fetch some of it from the network, where no commit and no check reaches.
    """
    faults, files = [], _files(root)
    for name, text in _sources(files, folder).items():
        for field, word in _named(text):
            path = files.realpath(os.path.normpath(os.path.join(files.root, os.path.dirname(name), word)))
            if path.startswith(f"{files.root}/") and (
                files.isfile(path) or files.isfile(os.path.join(path, KUSTOMIZATION))
            ):
                continue
            wanted = f"file, or folder with a {KUSTOMIZATION},"
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


def readers(root: Path | Files, folders: Iterable[str], files: Iterable[str]) -> list[str]:
    """Those of `folders` whose render may read one of `files`; a file that is gone counts where its folder was."""
    there, changed = _files(root), set(files)
    gone = {os.path.dirname(file) for file in changed if not there.isfile(os.path.join(there.root, file))}
    found = []
    for folder in folders:
        read = closure(there, folder)
        if read & changed or {os.path.dirname(file) for file in read} & gone:
            found.append(folder)
    return found


# A word can be written so that its bytes are not in the text: by an escape, and in UTF-16.
_WRITTEN_OTHERWISE = (b"\\", b"\xff\xfe", b"\xfe\xff")


def suspects(files: Searched, folders: Iterable[str], changed: Iterable[str]) -> list[str]:
    """Those of `folders` that readers() may find, and maybe others, told without a look at most of them.

    What names a file names its folder, or is processed in that folder or below it. So each text that has the name of
    the folder is suspected, as are all kustomizations in the folder and below; and whatever names those in turn.
    """
    suspected: set[str] = set()
    named: set[str] = set()
    at: set[str] = set()
    new = set(changed)
    while new:
        suspected |= new
        places = {os.path.dirname(file) for file in new} - at
        at |= places
        names = {os.path.basename(place) for place in places} - named
        named |= names
        words = _encoded(names)
        new = {path for path in files.kustomizations if _is_below(os.path.dirname(path), places)}
        if words:
            new |= files.mentioning(words).keys()
            new |= {path for path, text in files.mentioning(_WRITTEN_OTHERWISE).items() if _has_word(text, names)}
        new -= suspected
    return [folder for folder in folders if _is_below(folder, at)]


def foresee(files: Searched, names: Iterable[str]) -> None:
    """Asks what `suspects` asks of all files when files change in folders of these names. The answers are kept."""
    _ = files.kustomizations
    files.mentioning(_WRITTEN_OTHERWISE)
    files.mentioning(_encoded(names))


def _encoded(names: Iterable[str]) -> list[bytes]:
    return [name.encode(errors="surrogateescape") for name in sorted(names) if name]


def _has_word(text: bytes, names: Iterable[str]) -> bool:
    try:
        words = "\n".join(_words(text))
    except yaml.YAMLError:
        return False
    return "\\" in words or any(name in words for name in names)


def _is_below(folder: str, places: Iterable[str]) -> bool:
    """Whether a folder is one of these or in one of them."""
    return any(f"{folder}/".startswith(f"{place}/") or not place for place in places)


def fault(error: yaml.YAMLError) -> str:
    """The line, if it is known, and what is wrong there."""
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", "")
    return f"{f'line {mark.line + 1}: ' if mark else ''}not YAML: {what}"

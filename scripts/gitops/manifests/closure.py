"""Which files a render reads, and what of them is not in this repository."""

# Thousands of words are looked up in a run, which takes seconds with pathlib.
# ruff: noqa: PTH110, PTH112, PTH113, PTH118

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gitops.manifests.objects import KUSTOMIZATION

from contract.errors import Refused

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
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
    """The files of a closure, each kustomization among them with its documents, the others with None."""
    found: dict[str, Any] = {}
    _collect(str(root), os.path.realpath(root / folder), found)
    return found


def _collect(root: str, folder: str, found: dict[str, Any]) -> None:
    file = os.path.join(folder, KUSTOMIZATION)
    name = os.path.relpath(file, root)
    if name in found or not os.path.isfile(file):
        return
    text = Path(file).read_bytes()
    try:
        found[name] = _documents(text)
    except yaml.YAMLError as error:
        raise Refused(f"{name}: {fault(error)}") from None
    _follow(root, folder, _words(text), found)


def _follow(root: str, folder: str, words: Iterable[str], found: dict[str, Any]) -> None:
    for word in words:
        if "\n" in word:  # an inline patch, or an inline transformer that names a file
            with contextlib.suppress(yaml.YAMLError):  # kustomize refuses it, if it is of any matter
                _follow(root, folder, _words(word.encode()), found)
            continue
        for candidate in {word, word.rpartition("=")[2]} - {"", "."}:
            path = os.path.normpath(os.path.join(folder, candidate))
            if not os.path.exists(path):
                continue
            real = os.path.realpath(path)
            if not real.startswith(f"{root}/"):
                continue
            if path != real:
                found[os.path.relpath(path, root)] = None  # a link is a file of the repository too
            if os.path.isdir(real):
                _collect(root, real, found)
            elif (name := real[len(root) + 1 :]) not in found:
                found[name] = None
                if b"builtin" in (text := Path(real).read_bytes()):  # a transformer in a file of its own may name more
                    with contextlib.suppress(yaml.YAMLError):
                        _follow(root, folder, _words(text), found)


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


def foreign(root: Path, folder: str) -> list[str]:
    """A line for everything that the kustomizations of a render name and that is not in this repository.

    Kustomize would fetch some of it from the network, where no commit and no check reaches.
    """
    faults = []
    for name, text in _sources(root, folder).items():
        for field, word in _named(text):
            path = ((root / name).parent / word).resolve()
            wanted = "file" if field in _PLUGINS else f"file, or folder with a {KUSTOMIZATION},"
            if root in path.parents and (
                path.is_file() or (field not in _PLUGINS and (path / KUSTOMIZATION).is_file())
            ):
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


def fault(error: yaml.YAMLError) -> str:
    """The line, if it is known, and what is wrong there."""
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", "")
    return f"{f'line {mark.line + 1}: ' if mark else ''}not YAML: {what}"

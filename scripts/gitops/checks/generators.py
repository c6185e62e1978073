"""Which folders the generators of argocd/ find, and when Argo CD renders them again.

manifest-generate-paths: Argo CD renders an Application again only when a file below one of these paths changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from gitops.checks import framework
from gitops.checks.framework import Finding, Repository
from gitops.manifests import closure
from gitops.manifests.objects import KUSTOMIZATION, Object, at, identity, listed, matches
from gitops.releases import release
from gitops.repo.layout import ARGOCD, PLATFORM
from gitops.repo.policy import POLICY_FILE

_PATHS = ("metadata", "annotations", "argocd.argoproj.io/manifest-generate-paths")
_ACTION = re.compile(r"\{\{-?\s*(?:(?P<path>\.path\.path)|index \.path\.segments (?P<segment>[0-9]+))\s*-?\}\}")


def check_generate_paths(repository: Repository) -> Iterator[Finding]:
    """Argo CD renders just what is checked here, once, and again whenever a file changes that the render reads."""
    rule = "generate-paths"
    rendered: dict[str, str] = {}
    for item in repository.renders.get(ARGOCD, []):
        mine, written = str(identity(item)), str(at(_application(item), *_PATHS) or "")
        missed: dict[str, list[str]] = {}
        for folder, origin in _folders(repository.root, item):
            if folder not in repository.renders:
                message = (
                    f"{mine} finds it, and nothing here renders it;"
                    f" it needs a {KUSTOMIZATION} and an environment of {POLICY_FILE}"
                )
                yield Finding(rule, folder, message)
                continue
            if (other := rendered.setdefault(folder, mine)) != mine:
                yield framework.finding(
                    rule, ARGOCD, item, f"renders {folder}, and so does {other}; one has to go", folder
                )
            for parent in _uncovered(repository.root, folder, _expand(written, origin)) if written else ["all"]:
                missed.setdefault(parent, []).append(folder)
        for parent, folders in sorted(missed.items()):
            if written:
                what = f"{written!r} does not cover {parent}, read by {', '.join(folders)}; add it"
            else:
                what = "missing; without it every commit renders every Application again"
            yield framework.finding(rule, ARGOCD, item, f"{'.'.join(_PATHS)}: {what}", *folders)
    for folder in repository.renders:
        if folder not in rendered and folder != PLATFORM:  # whose Application a control plane of one machine leaves out
            message = "no Application renders it; a generator in argocd/ has to match it, or the overlay has to go"
            yield Finding(rule, folder, message, (ARGOCD, folder))


def _uncovered(root: Path, folder: str, paths: str) -> list[str]:
    """The folders of the files that a render reads and the annotation leaves out."""
    covered = {_resolve(path.strip(), folder) for path in paths.split(";") if path.strip()}
    missed = {
        file
        for file in closure.closure(root, folder)
        if not any(place == "." or file == place or file.startswith(f"{place}/") for place in covered)
    }
    return sorted({str(Path(file).parent) for file in missed})


def _application(item: Object) -> Any:
    """What an object of argocd/ is or generates: an Application, or the template of many."""
    return at(item, "spec", "template") if item.get("kind") == "ApplicationSet" else item


def _folders(root: Path, item: Object) -> Iterator[tuple[str, str]]:
    """(folder that is rendered, folder that a generator found) for each Application that an object is or generates."""
    if item.get("kind") not in ("Application", "ApplicationSet"):
        return
    path = at(_application(item), "spec", "source", "path")
    if not isinstance(path, str):
        return  # of a chart, or of several sources
    if item["kind"] == "Application":
        yield path, path
    for generator in listed(at(item, "spec", "generators")):
        for folder in sorted(_found(root, generator)):
            yield _expand(path, folder), folder


def _found(root: Path, generator: Any) -> set[str]:
    """The folders that a generator finds by git: those of its files and its directories, less the excluded ones.

    What a selector leaves out for being unreleased is found all the same: it will be, with its first release.
    """
    expressions = listed(at(generator, "selector", "matchExpressions"))
    selected = [each for each in expressions if at(each, "values") != [release.UNRELEASED]]
    chosen: set[str] = set()
    excluded: set[str] = set()
    for field in ("files", "directories"):
        for entry in listed(at(generator, "git", field)):
            places = [place for place in matching(root, at(entry, "path")) if place.is_dir() != (field == "files")]
            if field == "files" and selected:
                places = [p for p in places if all(matches(each, parameters(p.read_bytes())) for each in selected)]
            folders = {os.path.relpath(place.parent if field == "files" else place, root) for place in places}
            (excluded if at(entry, "exclude") else chosen).update(folders)
    return chosen - excluded


@cache
def parameters(text: bytes) -> Mapping[str, str]:
    """What a generator of files makes of a file: its scalars by their keys and positions, joined by dots.

    Source: https://argo-cd.readthedocs.io/en/stable/operator-manual/applicationset/Generators-Git/
    """
    found: dict[str, str] = {}

    def add(value: Any, path: str) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if pairs is None:
            found[path] = str(value)
        for key, item in pairs or ():
            add(item, f"{path}.{key}" if path else str(key))

    try:
        add(yaml.load(text, closure.LOADER), "")
    except yaml.YAMLError:
        return MappingProxyType({})  # kustomize refuses it
    return MappingProxyType(found)


def matching(root: Path, pattern: Any) -> list[Path]:
    try:
        return list(root.glob(str(pattern).strip("/")))
    except ValueError:
        return []  # no pattern, so it finds nothing


def _expand(template: str, folder: str) -> str:
    parts = folder.split("/")

    def value(match: re.Match[str]) -> str:
        if match["path"]:
            return folder
        return parts[int(match["segment"])] if int(match["segment"]) < len(parts) else match[0]

    return _ACTION.sub(value, template)


def _resolve(path: str, folder: str) -> str:
    """A path of the annotation relative to the repository: absolute ones start at its top, others at the folder."""
    return os.path.normpath(path.removeprefix("/") if path.startswith("/") else f"{folder}/{path}")

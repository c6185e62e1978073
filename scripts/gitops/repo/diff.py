"""Differences between rendered manifests, for people to read, and which environments they reach."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gitops.manifests import closure, kustomize
from gitops.manifests.objects import KUSTOMIZATION
from gitops.repo import layout, snapshot
from gitops.repo.git import Git

from contract.errors import Refused

_FEW = 10


def rendered_diffs(git: Git, old: str, new: str | None, folders: Iterable[str]) -> dict[str, str]:
    """Unified diffs of what differs when rendered, by folder, between two commits or trees; `new` None is the
    working tree. A folder that one side lacks counts as rendering nothing there.

    Raises Refused when the new side of what may differ does not render. The old side may fail: its repair must be
    possible to show.
    """
    # A tree that is as it was committed is read from Git, which tells what may have changed without a look at the rest.
    new = git.commit("HEAD") if new is None and git.is_committed(*snapshot.head(git).folders) else new
    folders = list(folders)
    if len(folders) > _FEW:
        folders = _affected(git, old, new, folders)
    with snapshot.at(git, old).copied(folders) as before, snapshot.at(git, new).copied(folders) as after:
        changed = [folder for folder in folders if _sources(after, folder) != _sources_or_none(before, folder)]
        right = kustomize.build_all(after, _there(after, changed))
        try:
            left = kustomize.build_all(before, _there(before, changed))
        except Refused:
            left = {folder: _render_or_reason(before, folder) for folder in _there(before, changed)}
    found = {}
    for folder in changed:
        pair = (left.get(folder, "").splitlines(keepends=True), right.get(folder, "").splitlines(keepends=True))
        if diff := "".join(difflib.unified_diff(*pair, f"{folder} before", f"{folder} after", n=2)):
            found[folder] = diff
    return found


def _affected(git: Git, old: str, new: str | None, folders: list[str]) -> list[str]:
    """Those of the folders whose render may differ, and maybe others."""
    changed = git.changed(old, new)

    def suspects(rev: str | None) -> list[str]:
        side = snapshot.at(git, rev).commit
        return closure.suspects(side, folders, changed) if side else folders

    with ThreadPoolExecutor(2) as pool:
        suspected = set().union(*pool.map(suspects, (old, new)))
    return [folder for folder in folders if folder in suspected]


def reached(folders: Iterable[str], environments: Sequence[str]) -> list[str]:
    """The environments that a change of these renders reaches, in the order given, and after them those that it lacks.
    What keeps the cluster and the projects reaches all."""
    listed = set(folders)
    found = {folder.split("/")[1] for folder in listed if folder.startswith("overlays/")}
    known = [name for name in environments if name in found or any(map(layout.is_of_argocd, listed))]
    return [*known, *sorted(found - set(environments))]


def _sources(tree: Path, folder: str) -> dict[str, bytes]:
    return {file: (tree / file).read_bytes() for file in closure.closure(tree, folder)}


def _sources_or_none(tree: Path, folder: str) -> dict[str, bytes] | None:
    try:
        return _sources(tree, folder)
    except Refused:
        return None


def _there(tree: Path, folders: Iterable[str]) -> list[str]:
    return [folder for folder in folders if (tree / folder / KUSTOMIZATION).is_file()]


def _render_or_reason(tree: Path, folder: str) -> str:
    try:
        return kustomize.build(tree, folder)
    except Refused as refused:
        return "".join(f"could not be rendered: {line}\n" for line in refused.lines)

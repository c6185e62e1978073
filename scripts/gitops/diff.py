"""Differences between rendered manifests, for people to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from gitops import kustomize
from gitops.apply import tree_of
from gitops.git import Git


def rendered_diffs(git: Git, old: str, new: str | None, folders: Iterable[str]) -> dict[str, str]:
    """Unified diffs of what differs when rendered, by folder, between two commits or trees; `new` None is the
    working tree. A folder that one side lacks counts as rendering nothing there."""
    listed = list(folders)
    with tree_of(git, old) as before, tree_of(git, new) as after:
        changed = [folder for folder in listed if _sources(before, folder) != _sources(after, folder)]
        left, right = _renders(before, changed), _renders(after, changed)
    found = {}
    for folder in changed:
        pair = (left.get(folder, "").splitlines(keepends=True), right.get(folder, "").splitlines(keepends=True))
        if diff := "".join(difflib.unified_diff(*pair, f"{folder} before", f"{folder} after", n=2)):
            found[folder] = diff
    return found


def _sources(tree: Path, folder: str) -> dict[str, bytes]:
    return {file: (tree / file).read_bytes() for file in kustomize.closure(tree, folder)}


def _renders(tree: Path, folders: Iterable[str]) -> dict[str, str]:
    return kustomize.build_all(tree, [folder for folder in folders if (tree / folder / kustomize.FILE).is_file()])

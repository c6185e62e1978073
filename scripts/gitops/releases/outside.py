"""Releases that a command gives to AWS itself, and no Argo CD."""

from __future__ import annotations

from collections.abc import Collection

from gitops.manifests import closure, workloads, yamledit
from gitops.manifests.objects import mapping
from gitops.releases import release_file
from gitops.releases.release import Target
from gitops.repo import layout
from gitops.repo.git import Git
from gitops.repo.policy import POLICY_FILE
from gitops.repo.snapshot import Snapshot

Place = tuple[str, str]
"""(app, environment)."""


def released(there: Snapshot, kind: tuple[str, str]) -> list[Place]:
    """Where something is released by a patch of this group and kind, in the order of the environments."""
    found = []
    for folder in layout.overlays_of(there.deployed(), there.policy):
        _, environment, app = folder.split("/")
        file = layout.release_paths(app, environment)[0]
        if (text := there.read(file)) is None or workloads.kind_of(mapping(yamledit.load(text, file))) != kind:
            continue
        if release_file.read(text, Target(app, environment), file).released:
            found.append((app, environment))
    return found


def changed(
    git: Git, there: Snapshot, base: str, places: Collection[Place], everywhere: Collection[str] = ()
) -> list[Place]:
    """Those whose renders may differ from a commit's: all of them where the policy or a file of `everywhere` does."""
    files, folders = git.changed(base, there.rev or "HEAD"), [layout.overlay(*place) for place in places]
    if not {POLICY_FILE, *everywhere}.isdisjoint(files):
        return list(places)
    with there.copied(folders) as tree:
        read = closure.readers(tree, folders, files)
    return [place for place in places if layout.overlay(*place) in read]

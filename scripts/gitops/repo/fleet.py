"""What a commit deploys, rendered: most of it was rendered before, when another commit had the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitops.manifests import closure, kustomize, remembered
from gitops.manifests.objects import Object
from gitops.programs import manifests
from gitops.repo import layout, snapshot
from gitops.repo.git import Git
from gitops.repo.snapshot import InCommit

from contract.errors import Refused


@dataclass(frozen=True)
class Fleet:
    """The folders that render, each with the files that it reads and with its objects."""

    reads: Mapping[str, Sequence[str]]
    renders: Mapping[str, list[Object]]


def at(git: Git, rev: str) -> Fleet | None:
    """What a commit deploys; None where it has links, of which a copy of the commit is needed."""
    there = snapshot.at(git, rev)
    if there.commit is None:
        return None
    name = _name(git, rev, there.commit.folders)
    known: dict[str, tuple[str, list[str]]] = remembered.get([name]).get(name) or {}
    listed = [*layout.deployed(there.deployed(), there.policy), *layout.of_clusters(there.policy)]
    new = known or _sources(there.commit, listed)
    renders = remembered.get([key for key, _ in new.values()])
    missing = [folder for folder, (key, _) in new.items() if key not in renders]
    if missing:
        with there.copied(missing) as tree:
            made = {new[folder][0]: items for folder, items in kustomize.those_that_render(tree, missing).items()}
        remembered.put(made)
        renders |= made
    found = {folder: entry for folder, entry in new.items() if entry[0] in renders}
    if found != known:
        remembered.put({name: found})
    return Fleet(
        {folder: files for folder, (_, files) in found.items()},
        {folder: renders[key] for folder, (key, _) in found.items()},
    )


def _name(git: Git, rev: str, folders: Iterable[str]) -> str:
    """By all that decides it: the program, the code that tells what it reads, and what is deployed."""
    sources = (closure.__file__, kustomize.__file__, remembered.__file__, __file__)
    codes = [hashlib.sha256(Path(source).read_bytes()).hexdigest() for source in sources]
    trees = git.trees(rev, *folders)
    return hashlib.sha256("\n".join([manifests.built().name, *codes, *trees]).encode()).hexdigest()


def _sources(commit: InCommit, folders: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
    """The key and the files of each render, but for those of which it cannot be told."""
    commit.read_all()
    found = {}
    for folder in folders:
        try:
            found[folder] = (kustomize.key(commit, folder), sorted(closure.closure(commit, folder)))
        except Refused:
            continue
    return found

"""Releases in the history of the repository: what ran where, since when, and what may run where next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from gitops.releases import hold, release_file
from gitops.releases.judgement import Moment, Place
from gitops.releases.release import Release, Target
from gitops.repo import layout, snapshot
from gitops.repo.git import Git

from contract.errors import Refused


def history(git: Git, rev: str, target: Target) -> Iterator[tuple[str, Release]]:
    """(commit, release) for every release that this target had up to `rev`, newest first.

    What a merged branch tried on its way never ran: a merge counts as one commit, the one in which it arrived.
    """
    paths = layout.release_paths(target.app, target.environment)
    for commit in git.text("log", "--first-parent", "--format=%H", rev, "--", *paths).split():
        try:
            if found := release_file.find(snapshot.at(git, commit).read, target.app, target.environment):
                yield commit, release_file.read(found[1], target, found[0])
        except Refused:
            continue  # an older form of the file; it names no release that could be compared


def ever(git: Git, rev: str) -> set[Release]:
    """What any target ever ran up to `rev`, canaries and apps that are gone included, without the file."""
    listed = git.text("log", "--first-parent", "-m", "--name-only", "--no-renames", "--format=", rev, "--", "overlays")
    places = set(filter(None, map(layout.place, listed.splitlines())))
    found: set[Release] = set()
    for app, environment in places:
        paths = layout.release_paths(app, environment)
        for commit in git.text("log", "--first-parent", "--format=%H", rev, "--", *paths).split():
            with contextlib.suppress(Refused):  # an older form of the file, as in `history`
                ran = release_file.read_all(snapshot.at(git, commit).read, app, environment)
                found.update(item for item in ran if item.released)
    return found


def moments(git: Git, rev: str, target: Target) -> list[Moment]:
    """What a target ran from each commit up to `rev` on, with the hold of its app, oldest first. Commits of merged
    branches do not count, as in `history`."""
    place = target.app, target.environment
    paths = [*layout.release_paths(*place), hold.path(*place)]
    commits = git.text("log", "--first-parent", "--reverse", "--format=%H", rev, "--", *paths).split()
    names = [f"{commit}:{path}" for commit in commits for path in paths]
    files = dict(zip(names, git.show_all(names), strict=True))
    found = []
    for commit in commits:
        show = partial(_show, files, commit)
        with contextlib.suppress(Refused):  # an older form of the file, as in `history`
            there = release_file.find(show, *place)
            item = release_file.read(there[1], target, there[0]) if there else None
            found.append(Moment(item if item and item.released else None, show(paths[-1])))
    return found


def _show(files: Mapping[str, bytes | None], commit: str, path: str) -> bytes | None:
    return files[f"{commit}:{path}"]


def introduced(git: Git, base: str, head: str) -> list[tuple[str, Release]]:
    """(commit, release) of what each commit of `head` that `base` lacks releases and none of its parents had. Raises
    Refused for a path that git prints in quotes."""
    command = ("log", "--full-history", "-m", "--no-renames", "--name-only", "--format=%x00%H %P")
    listed = git.text(*command, f"{base}..{head}", "--", "overlays")
    changed: dict[str, set[Place]] = {}
    for block in filter(None, listed.split("\0")):
        commits, *paths = block.splitlines()
        if quoted := [path for path in paths if path.startswith('"')]:
            raise Refused(f"{quoted[0]}: no name that a file of a release can have; make the branch anew without it")
        changed.setdefault(commits, set()).update(filter(None, map(layout.place, paths)))
    found = []
    for commits, places in changed.items():
        commit, *parents = commits.split()
        for place in sorted(places):
            before = {
                item for parent in parents for item in release_file.readable(snapshot.at(git, parent).read, *place)
            }
            after = release_file.readable(snapshot.at(git, commit).read, *place)
            found += [(commit, item) for item in after if item not in before]
    return found


def all_at(git: Git, rev: str) -> list[Release]:
    """Every release that a commit names, unreleased ones included, in the order of the environments."""
    there = snapshot.at(git, rev)
    policy = there.policy
    found = []
    for app, environment in dict.fromkeys(filter(None, map(layout.place, there.files("overlays")))):
        if environment in policy.environments:
            found += release_file.read_all(there.read, app, environment)
    return sorted(found, key=lambda r: (policy.environments.index(r.environment), r.app))


@dataclass(frozen=True)
class Since:
    """The commit of the deployed branch that brought a release; a merge counts as the moment it arrived."""

    commit: str
    date: str
    author: str


def since(git: Git, rev: str, release: Release) -> Since:
    """Since when `release` is what `rev` names. A commit that changed something else of its file does not count."""
    arrived = rev
    for commit, earlier in history(git, rev, release.target):
        if earlier != release:
            break
        arrived = commit
    return Since(*git.text("log", "-1", "--format=%H%x00%cI%x00%an", arrived).split("\0"))

"""What a change must satisfy against the commit it is based on, whoever wrote it: rules that one state cannot show."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gitops.checks import serving
from gitops.checks.framework import Finding
from gitops.manifests.objects import Object, identity
from gitops.releases import history, hold, release_file, retired
from gitops.releases.release import Release
from gitops.repo import layout, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import Policy
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

RULES = ("order", "hold", "removal", "immutable")


def check(
    git: Git,
    base: str,
    root: Path,
    policy: Policy,
    before: Mapping[str, Sequence[Object]],
    after: Mapping[str, Sequence[Object]],
) -> list[Finding]:
    """The findings for the working tree at `root` against the commit `base`, given the renders of both by folder."""
    changed = list(_changed_releases(git, base, root, policy))
    return [
        *_order(git, base, policy, changed),
        *_holds(git, base, root, changed),
        *_removals(git, base, root, before, after),
        *_immutable(before, after),
    ]


def _changed_releases(git: Git, base: str, root: Path, policy: Policy) -> Iterator[Release]:
    here, there = Snapshot(root).read, snapshot.at(git, base).read
    for folder in layout.overlays(root, policy):
        _, environment, app = folder.split("/")
        if all(here(path) == there(path) for path in layout.release_paths(app, environment)):
            continue
        before: list[Release] = []
        with contextlib.suppress(Refused):  # what could not be read is new
            before = release_file.read_all(there, app, environment)
        yield from (item for item in release_file.read_all(here, app, environment) if item not in before)


def _order(git: Git, base: str, policy: Policy, changed: Sequence[Release]) -> Iterator[Finding]:
    """A release reaches an environment only through the one before it."""
    for item in changed:
        if item.released:
            try:
                history.require_order(git, base, policy, item)
            except Refused as refused:
                yield _finding("order", refused)


def _holds(git: Git, base: str, root: Path, changed: Sequence[Release]) -> Iterator[Finding]:
    """A release that was held is changed only together with its hold."""
    for item in changed:
        path = hold.path(item.app, item.environment)
        old = git.show(base, path)
        if old is not None and Snapshot(root).read(path) == old:
            try:
                hold.require_none(root, item.app, item.environment)
            except Refused as refused:
                yield _finding("hold", refused)


def _removals(git: Git, base: str, root: Path, before: serving.Renders, after: serving.Renders) -> Iterator[Finding]:
    """What serves goes on serving after the sync, unless it is retired, which leaves a record."""
    for loss in sorted(serving.lost(before, after), key=lambda loss: (loss.folder, loss.state)):
        _, environment, app = loss.folder.split("/")
        path = retired.path(environment)
        new = retired.read(Snapshot(root).read(path), path)
        old = retired.read(git.show(base, path), path)
        if new[app] <= old[app]:
            message = (
                f"{loss}; to remove it on purpose, run `python scripts/retire_app.py --app {app} --env {environment}`,"
                f" or where the app stays, add an entry for it to {path}"
            )
            yield Finding("removal", loss.folder, message)


def _immutable(before: serving.Renders, after: serving.Renders) -> Iterator[Finding]:
    """No change of what the API server refuses to change: Argo CD could apply nothing more of the app."""
    for folder, item, path in serving.frozen(before, after):
        message = (
            f"{path}: changed, which the API server refuses once the object is there; give the object another name, or"
            " retire the app and add it anew"
        )
        yield Finding("immutable", f"{folder}: {identity(item)}", message)


def _finding(rule: str, refused: Refused) -> Finding:
    where, _, message = refused.lines[0].partition(": ")
    return Finding(rule, where, message)

"""Places that were moved: an app to another folder of its environment, or an environment to another name. What ran
there before the move ran in the same place."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from gitops.releases import release_file
from gitops.releases.release import Release, Target
from gitops.repo import layout, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import Policy

from contract.errors import Refused


def origin(git: Git, commit: str, item: Release, policy: Policy) -> tuple[str, Target] | None:
    """Where a release was, which is the first of its place and came with this commit: the commit before, and the target
    there. None where it was nowhere else, or at several places.

    It was in a place that is gone with that commit and ran this very release there: of another app in the same
    environment, or of the same app in an environment that the policy does not have any more. Releases must have come to
    that one through all that the new one comes after: who would make a history of the first environment one of
    the last one, by taking the first away, has skipped what is between.
    """
    [whole] = git.changes(commit, "overlays", most=1)
    gone = {place for path, blob in whole.files.items() if blob is None and (place := layout.place(path))}
    others = [place for place in gone if (place[0] == item.app) != (place[1] == item.environment)]
    line = git.line(commit)[:2] if others else []
    if len(line) < 2:
        return None
    before = line[1]
    show, after = snapshot.at(git, before).read, snapshot.at(git, commit).read
    found = [
        old.target
        for place in others
        if place[0] != item.app or _same(git, before, commit, place[1], item.environment, policy)
        if not release_file.readable(after, *place)
        for old in release_file.readable(show, *place)
        if old.canary == item.canary and is_same(old, item)
    ]
    return (before, found[0]) if len(found) == 1 else None


def is_same(old: Release, new: Release) -> bool:
    """Whether both are one release, whatever the place and the name of the app are."""
    return old.released and replace(old.unit, app=new.app) == new.unit


def _same(git: Git, before: str, commit: str, old: str, new: str, policy: Policy) -> bool:
    """Whether one environment took the place of another, by the policies before and after the commit."""
    if old in policy.environments:
        return False
    with contextlib.suppress(Refused):
        then, now = (snapshot.at(git, rev).policy for rev in (before, commit))
        judge = now if new in now.environments else policy
        if old in then.environments and new in judge.environments:
            return judge.through(new) - {old} <= then.through(old)
    return False

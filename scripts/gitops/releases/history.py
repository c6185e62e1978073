"""Releases in the history of the repository: what ran where, since when, and what may run where next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from gitops.releases import release_file
from gitops.releases.release import Release, Target
from gitops.repo import layout, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import Policy

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
    overlays = {tuple(path.split("/")[1:3]) for path in listed.splitlines() if path.count("/") == 3}
    found: set[Release] = set()
    for environment, app in overlays:
        paths = layout.release_paths(app, environment)
        for commit in git.text("log", "--first-parent", "--format=%H", rev, "--", *paths).split():
            with contextlib.suppress(Refused):  # an older form of the file, as in `history`
                ran = release_file.read_all(snapshot.at(git, commit).read, app, environment)
                found.update(item for item in ran if item.released)
    return found


def require_order(git: Git, rev: str, policy: Policy, release: Release) -> None:
    """Raises Refused when a release has never run in the environment before its own, and not as a canary only."""
    previous = policy.before(release.environment)
    if previous is None:
        return
    for _, earlier in history(git, rev, Target(release.app, previous)):
        if earlier.released and earlier.same_as(release):
            return
    canary = f" --canary {release.canary}" if release.canary else ""
    raise Refused(
        f"{release.file}: {release.version} has never been released in"
        f" {previous}, which comes before {release.environment}; release it there first, then run"
        f" `python scripts/promote_model.py --app {release.app} --to {release.environment}{canary}`"
    )


def all_at(git: Git, rev: str) -> list[Release]:
    """Every release that a commit names, unreleased ones included, in the order of the environments."""
    there = snapshot.at(git, rev)
    policy = there.policy
    overlays = dict.fromkeys(tuple(path.split("/")[1:3]) for path in there.files("overlays") if path.count("/") == 3)
    found = []
    for environment, app in overlays:
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

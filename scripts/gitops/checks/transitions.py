"""What a change must satisfy against the commit it is based on, whoever wrote it: rules that one state cannot show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from gitops.checks import serving
from gitops.checks.framework import Finding
from gitops.manifests.objects import Object, identity
from gitops.releases import effect, history, hold, judgement, release_file, retired, withdrawn
from gitops.releases.judgement import Place, Proposal, State
from gitops.releases.release import Release, Target
from gitops.repo import layout, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import Policy
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

RULES = (*judgement.RULES, "removal", "immutable")
Renders = Mapping[str, Sequence[Object]]
Show = Callable[[str], bytes | None]


def check(git: Git, base: str, root: Path, policy: Policy, before: Renders, after: Renders) -> list[Finding]:
    """The findings for the working tree at `root` against the commit `base`, given the renders of both by folder and
    the policy of the working tree. Everything is judged by the policy of `base`."""
    faults = judgement.judge(proposal(git, base, root, policy, before, after))
    return [
        *(Finding(fault.rule, fault.where, fault.message) for fault in faults),
        *_removals(git, base, root, before, after),
        *_immutable(before, after),
    ]


def proposal(git: Git, base: str, root: Path, policy: Policy, before: Renders, after: Renders) -> Proposal:
    """The change as data."""
    paths = git.changed(base)
    here, there = Snapshot(root), snapshot.at(git, base)
    # What did not change is read from the working tree, and not by a process a file.
    old = _unless(set(paths), here.read, there.read)

    return Proposal(
        there.policy,
        _state(old, _places(there), before, readable=True),
        _state(here.read, _places(here), after),
        cache(history.Ran(git, base, there.policy.environments)),
        history.introduced(git, base, "HEAD"),
        paths,
        policy,
    )


def _unless(changed: set[str], here: Show, there: Show) -> Show:
    return lambda path: there(path) if path in changed else here(path)


def _places(tree: Snapshot) -> list[Place]:
    found = dict.fromkeys(filter(None, map(layout.place, tree.files("overlays"))))
    return [place for place in found if place[0] not in layout.OF_ENVIRONMENT]


def _state(show: Show, places: Sequence[Place], renders: Renders, readable: bool = False) -> State:
    """What the overlays run. Of the commit before, what could not be read is nothing: all that follows it is new."""
    releases: dict[Target, Release] = {}
    images: dict[Place, frozenset[str]] = {}
    for place in places:
        with contextlib.suppress(*[Refused] if readable else []):
            releases |= {item.target: item for item in release_file.read_all(show, *place)}
        mine = releases.get(Target(*place))
        # No Application is made of what is unreleased; other folders are deployed as they are.
        if mine is None or mine.released:
            images[place] = effect.images(renders.get(layout.overlay(*place), []))
    holds = {place: text for place in places if (text := show(hold.path(*place))) is not None}
    return State(releases, holds, images, withdrawn.read(show(layout.WITHDRAWN)))


def _removals(git: Git, base: str, root: Path, before: Renders, after: Renders) -> Iterator[Finding]:
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

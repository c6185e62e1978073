"""What a change must satisfy against the commit it is based on, whoever wrote it: rules that one state cannot show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from gitops.checks import serving
from gitops.checks.framework import Finding
from gitops.manifests.objects import Object, identity
from gitops.releases import effect, history, judgement, retired, state
from gitops.releases.judgement import Place, Proposal
from gitops.repo import layout, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import Policy
from gitops.repo.snapshot import Snapshot

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
        state.of(old, _places(there), _images(before), readable=True),
        state.of(here.read, _places(here), _images(after)),
        cache(history.Ran(git, base, there.policy.environments)),
        history.introduced(git, base, "HEAD"),
        paths,
        policy,
    )


def _unless(changed: set[str], here: Show, there: Show) -> Show:
    return lambda path: there(path) if path in changed else here(path)


def _images(renders: Renders) -> Callable[[Place], frozenset[str]]:
    return lambda place: effect.images(renders.get(layout.overlay(*place), []))


def _places(tree: Snapshot) -> list[Place]:
    found = dict.fromkeys(filter(None, map(layout.place, tree.files("overlays"))))
    return [place for place in found if place[0] not in layout.OF_ENVIRONMENT]


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

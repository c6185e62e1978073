"""What a change must satisfy against the commit it is based on, whoever wrote it: rules that one state cannot show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from gitops.checks import serving
from gitops.checks.framework import Finding, Repository
from gitops.manifests import ack, workloads
from gitops.manifests.objects import Object, identity
from gitops.releases import effect, history, judgement, release, release_file, retired, state
from gitops.releases.judgement import Place, Proposal
from gitops.releases.release import Release
from gitops.repo import layout, snapshot
from gitops.repo.git import Git
from gitops.repo.mainline import BRANCH
from gitops.repo.policy import Policy
from gitops.repo.snapshot import Snapshot

RULES = (*judgement.RULES, "removal", "immutable")
PUSHED = "history"
"""The rule of a push, which no pull request can break."""
Renders = Mapping[str, Sequence[Object]]
Show = Callable[[str], bytes | None]


def check(
    git: Git,
    base: str,
    paths: Sequence[str],
    repository: Repository,
    before: Renders,
    ran: history.Ran,
    *,
    pushed: bool = False,
    now: datetime | None = None,
) -> list[Finding]:
    """The findings for a working tree against the commit `base`, its renders by folder and what ran up to it, given the
    files that differ. Everything is judged by the policy of `base`; `pushed` is what is on the branch already, with
    `base` before it; `now` is the time, that of the clock where none is given."""
    after = repository.renders
    change = proposal(git, base, paths, repository, before, ran, now)
    if pushed and base not in git.text("rev-list", "--first-parent", "HEAD").split():
        # It was merged, and by no rebase: what it tried on its way has not run.
        change = replace(change, introduced=())
    faults = judgement.judge(change)
    return [
        *(_hidden(git, base) if pushed else ()),
        *(Finding(fault.rule, fault.where, fault.message) for fault in faults),
        *(
            found
            for one, other in _on_each_cluster(change.policy, before, repository.policy, after)
            for found in (*_removals(git, base, repository, one, other), *_immutable(one, other))
        ),
    ]


def ran_until(git: Git, base: str, paths: Iterable[str]) -> history.Ran:
    """What targets ran up to a commit. The apps whose files differ are read while the caller does something else."""
    apps = [place[0] for path in paths if (place := layout.place(path)) and place[0] not in layout.OF_ENVIRONMENT]
    return history.Ran(git, base, snapshot.at(git, base).policy, apps)


def _on_each_cluster(
    policy: Policy, before: Renders, new_policy: Policy, after: Renders
) -> Iterator[tuple[Renders, Renders]]:
    """What each cluster had and has of environments: two clusters may have objects of one namespace and name."""
    one, other = _by_cluster(policy, before), _by_cluster(new_policy, after)
    yield from ((one.get(cluster, {}), other.get(cluster, {})) for cluster in sorted({*one, *other}))


def _by_cluster(policy: Policy, renders: Renders) -> dict[str, dict[str, Sequence[Object]]]:
    found: dict[str, dict[str, Sequence[Object]]] = {}
    for folder, items in renders.items():
        if not layout.is_of_argocd(folder):
            found.setdefault(policy.at(folder.split("/")[1]).cluster, {})[folder] = items
    return found


def proposal(
    git: Git,
    base: str,
    paths: Sequence[str],
    repository: Repository,
    before: Renders,
    ran: history.Ran,
    now: datetime | None = None,
) -> Proposal:
    """The change as data."""
    policy, after = repository.policy, repository.renders
    here, there = Snapshot(repository.root), snapshot.at(git, base)
    # What did not change is read from the working tree, and not by a process a file.
    old = _unless(set(paths), here.read, there.read)
    introduced = history.introduced(git, base, "HEAD")
    environments = dict.fromkeys([*there.policy.environments, *policy.environments])
    places = _touched(paths, before, after, introduced, environments)
    # All releases of a version name one manifest, and what did not change names it there too.
    files = repository.files.regular()
    head = state.of(here.read, _there(files, places), _images(after))
    versions = {item.version for item in head.released().values()}
    places |= history.naming(there, versions)
    return Proposal(
        there.policy,
        state.of(old, _there(there.deployed(), places), _images(before), readable=True),
        state.of(here.read, _there(files, places), _images(after)),
        ran,
        introduced,
        paths,
        policy,
        {*there.folders, *repository.files.folders}.difference(layout.DEPLOYED),
        now or datetime.now(UTC),
    )


def _touched(
    paths: Iterable[str],
    before: Renders,
    after: Renders,
    introduced: Iterable[tuple[str, Release]],
    environments: Iterable[str],
) -> set[Place]:
    """Where a change can have changed what runs, and the same apps in all environments, through which it comes."""
    folders = {folder for folder in {**before, **after} if before.get(folder) is not after.get(folder)}
    found = {place for path in paths if (place := layout.place(path))}
    found |= {place for folder in folders if (place := layout.place(f"{folder}/"))}
    found |= {(item.app, item.environment) for _, item in introduced}
    return {(app, environment) for app, _ in found for environment in environments} | found


def _unless(changed: set[str], here: Show, there: Show) -> Show:
    return lambda path: there(path) if path in changed else here(path)


def _images(renders: Renders) -> Callable[[Place], frozenset[str]]:
    return lambda place: effect.images(renders.get(layout.overlay(*place), []))


def _there(files: Iterable[str], places: Collection[Place]) -> list[Place]:
    """Those of these places of apps at which there is a file."""
    found = set(filter(None, map(layout.place, files))).intersection(places)
    return [place for place in found if place[0] not in layout.OF_ENVIRONMENT]


def _hidden(git: Git, base: str) -> Iterator[Finding]:
    """After a push, the history that commands read has what the branch was at before."""
    if base not in git.line("HEAD"):
        message = (
            f"{base[:12]} was its tip before this push, and the parents of a merge that came with the push hide it and"
            " what ran until then; put it first by one more merge"
        )
        yield Finding(PUSHED, BRANCH, message)


def _removals(git: Git, base: str, repository: Repository, before: Renders, after: Renders) -> Iterator[Finding]:
    """What serves goes on serving after the sync, unless it is retired, which leaves a record, or goes with an
    environment in which it was never released, or not any more."""
    root, there = repository.root, snapshot.at(git, base)
    for loss in sorted(serving.lost(before, after), key=lambda loss: (loss.folder, loss.state)):
        _, environment, app = loss.folder.split("/")
        if environment not in repository.policy.environments and _is_unreleased(there, app, environment):
            continue
        path = retired.path(environment)
        new = retired.read(Snapshot(root).read(path), path)
        old = retired.read(git.show(base, path), path)
        if new[app] <= old[app]:
            message = (
                f"{loss}; to remove it on purpose, run `python scripts/retire_app.py --app {app} --env {environment}`,"
                f" or where the app stays, add an entry for it to {path}"
            )
            yield Finding("removal", loss.folder, message)


def _is_unreleased(there: Snapshot, app: str, environment: str) -> bool:
    """Whether an app has a place for a release, and none there."""
    found = release_file.readable(there.read, app, environment)
    return bool(found) and not any(each.released for each in found)


def _immutable(before: serving.Renders, after: serving.Renders) -> Iterator[Finding]:
    """No change of what the API server refuses to change: Argo CD could apply nothing more of the app."""
    for folder, item, path in serving.frozen(before, after):
        message = (
            f"{path}: changed, which the API server refuses once the object is there; give the object another name, or"
            " retire the app and add it anew"
        )
        if workloads.kind_of(item) in ack.REPLACED:
            message = (
                f"{path}: changed, which ACK refuses once the object is there; put a number behind"
                f" {release.ANNOTATION}name in {folder}/{layout.RELEASE_FILE}, as in `{item['metadata']['name']}-2`, or"
                " make the change together with a release"
            )
        yield Finding("immutable", f"{folder}: {identity(item)}", message)

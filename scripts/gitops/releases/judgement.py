"""What may run where: one verdict on data alone, for the commands and for the check of a change.

A release comes to the first environment freely. To each other one it comes when it came through all environments that
this one comes after and ran in each for as long as that one's soak, or when it ran in this one already: a rollback
needs nobody's leave. An environment in which an app has no place lets nothing of it through: else what was retired
there, or never added, would be a way around it. A withdrawn version comes nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from gitops.manifests import kinds
from gitops.releases import hold, moved, retired, withdrawn
from gitops.releases.image import identity, parse
from gitops.releases.release import Release, Target
from gitops.repo import layout
from gitops.repo.policy import POLICY_FILE, Policy, written

RULES = ("order", "soak", "hold", "withdrawn", "intermediate", "mixed", "manifest")
Place = tuple[str, str]
"""An app, or another folder with a render of its own, and its environment."""

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Fault:
    rule: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass(frozen=True)
class Moment:
    """What a target had from one commit of its history on; no release where it ran nothing."""

    release: Release | None
    hold: bytes | None = None
    since: datetime | None = field(default=None, compare=False)
    """The commit's own time, as its committer's clock had it, of the branch's mainline: of a merge, when it arrived.
    Whoever pushes to the branch without a pull request may write any; None where that is no time."""


@dataclass
class Run:
    """What stands, and for how long it ran since it came last."""

    release: Release | None
    since: datetime | None = None
    until: datetime | None = None
    """When another took its place; None while it is there."""


@dataclass(frozen=True)
class State:
    """What the overlays of one commit run."""

    releases: Mapping[Target, Release] = field(default_factory=dict)
    """Unreleased ones included."""
    holds: Mapping[Place, bytes] = field(default_factory=dict)
    images: Mapping[Place, frozenset[str]] = field(default_factory=dict)
    """Every image of a render that is deployed."""
    withdrawn: Mapping[str, str] = field(default_factory=dict)
    """Reasons, by the keys of `withdrawn.key`."""

    def released(self) -> dict[Target, Release]:
        return {target: item for target, item in self.releases.items() if item.released}

    def at(self, place: Place) -> dict[Target, Release]:
        return {target: item for target, item in self.releases.items() if (target.app, target.environment) == place}


@dataclass(frozen=True)
class Proposal:
    """A change of what is deployed, and what it is judged by: the policy and the history of the commit before."""

    policy: Policy
    base: State
    head: State
    ran: Callable[[Target], Sequence[Moment]]
    """What a target had up to the commit before, oldest first."""
    introduced: Sequence[tuple[str, Release]] = ()
    """(commit, release) of what commits of the change release, on their way to its end."""
    paths: Sequence[str] = ()
    """The files that change."""
    new_policy: Policy | None = None
    folders: Collection[str] = ()
    """The folders at the top to which renders lead, beside those that every repository has."""
    now: datetime = _NEVER
    """When it is judged; without that, nothing has run for any time."""


def judge(proposal: Proposal) -> list[Fault]:
    """Everything that speaks against a change."""
    return [
        *_order(proposal),
        *_places(proposal),
        *_soak(proposal),
        *_images(proposal),
        *_holds(proposal),
        *_withdrawn(proposal),
        *_intermediate(proposal),
        *_mixed(proposal),
        *_manifests(proposal),
    ]


def standing(moments: Iterable[Moment]) -> list[Release | None]:
    """What a target ran and was not taken back there, oldest first.

    Going back to one of these takes back all that came after it, whether by a rollback, a revert or a retirement.
    Where the change sets a hold, what ran until then is taken back too.
    """
    return [run.release for run in runs(moments)]


def runs(moments: Iterable[Moment]) -> list[Run]:
    """The same, with the times. What comes back has run since then alone."""
    found: dict[Release | None, Run] = {None: Run(None)}
    held = None
    for moment in moments:
        unit, now = moment.release and moment.release.unit, next(reversed(found))
        if unit != now:
            found[now].until = moment.since
            if unit in found:
                while next(reversed(found)) != unit:
                    found.popitem()
            elif now is not None and moment.hold not in (None, held):
                found.popitem()
            found[unit] = Run(moment.release, moment.since)
        # One of the old form may come back with the SHA-256 of its manifest.
        found[unit].release = moment.release
        held = moment.hold
    return list(found.values())


def _order(proposal: Proposal) -> Iterator[Fault]:
    """A release reaches an environment only through all that this one comes after."""
    for item in _new(proposal):
        for message in _too_early(proposal, item):
            yield Fault("order", item.file, message)


def _new(proposal: Proposal) -> list[Release]:
    return [item for target, item in proposal.head.released().items() if proposal.base.releases.get(target) != item]


def _too_early(proposal: Proposal, item: Release) -> Iterator[str]:
    if item.environment not in proposal.policy.environments:
        yield f"{item.environment!r}: {_UNKNOWN}"
    elif not _was_here(proposal, item):
        for previous in proposal.policy.after(item.environment):
            # What ran there as a canary only has not come through.
            before = proposal.ran(Target(item.app, previous))
            if not _among(item, standing(before)):
                yield _missing(item, previous, before)


def _was_here(proposal: Proposal, item: Release) -> bool:
    """Whether a release ran in its place already, for all callers or as the canary that it is of, or in the place that
    becomes this one."""
    own = {replace(item.target, canary=None), item.target}
    return _among(item, [one.release for target in own for one in proposal.ran(target)]) or _is_moved(proposal, item)


def _missing(item: Release, previous: str, before: Sequence[Moment]) -> str:
    """What is wrong with a release that has not come through an environment, which had `before`."""
    canary = f" --canary {item.canary}" if item.canary else ""
    what, happened, again = item.version, "has never been released", ""
    if _among(item, [one.release for one in before]):
        happened, again = "was taken back", " again, if it is good after all"
    elif any(one.release and replace(one.release.unit, image=item.image) == item.unit for one in before):
        # The version ran there, and it is the image that did not.
        what = f"{item.version} with the image {item.image}"
    return (
        f"{what} {happened} in {previous}, which comes before {item.environment}; release it there"
        f" first{again}, then run"
        f" `python scripts/promote_model.py --app {item.app} --to {item.environment}{canary}`"
    )


def _soak(proposal: Proposal) -> Iterator[Fault]:
    """A release ran in each environment that it came through for at least that one's soak."""
    for item in _new(proposal):
        if item.environment in proposal.policy.environments and not _was_here(proposal, item):
            for previous in proposal.policy.after(item.environment):
                if message := _too_soon(proposal, item, previous):
                    yield Fault("soak", item.file, message)


def _too_soon(proposal: Proposal, item: Release, previous: str) -> str | None:
    """What has not come through at all is a matter of the order."""
    soak = proposal.policy.at(previous).soak
    there = runs(proposal.ran(Target(item.app, previous))) if soak else []
    run = next((each for each in there if each.release and item.same_as(each.release)), None)
    if run is None or (run.since and min(run.until or proposal.now, proposal.now) - run.since >= soak):
        return None
    rule = f"where a release runs for {written(soak)} before it comes to {item.environment}"
    if not run.since:
        return f"{item.version}: came to {previous} at no time that can be read, {rule}; release it there again"
    if run.until:
        ran = f"ran in {previous} from {_shown(run.since)} to {_shown(run.until)}"
        return f"{item.version}: {ran}, {rule}; release it there again, or promote what runs there now"
    from_then = _shown(run.since + soak)
    return f"{item.version}: has run in {previous} since {_shown(run.since)}, {rule}; it may from {from_then} on"


def _shown(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _places(proposal: Proposal) -> Iterator[Fault]:
    """No environment comes to the place of another one: what runs in it would run there without having come there."""
    policy, new = proposal.policy, proposal.new_policy or proposal.policy
    for name in policy.environments:
        other = _took(proposal, name)
        if name in new.environments and other not in (None, name):
            yield Fault(
                "order",
                POLICY_FILE,
                f"environments: {name}: namespace: {new.namespace(name)} on {new.at(name).cluster} was that of {other}"
                f" before this change, where nothing comes by a move of {name}; give {name} another, or take {other}"
                " away by a pull request of its own first",
            )


def _took(proposal: Proposal, environment: str) -> str | None:
    """The environment of the policy before the change that had the cluster and the namespace which this one has now."""
    policy, new = proposal.policy, proposal.new_policy
    if new is None or environment not in new.environments:
        return None
    place = _place(new, environment)
    return next((name for name in policy.environments if _place(policy, name) == place), None)


def _place(policy: Policy, environment: str) -> tuple[str, str]:
    return policy.at(environment).cluster, policy.namespace(environment)


def _is_moved(proposal: Proposal, item: Release) -> bool:
    """Whether a new app takes its release from another one of the same environment, which is gone then."""
    return item.target not in proposal.base.releases and any(
        old.environment == item.environment and old.canary == item.canary and moved.is_same(old, item)
        for target, old in proposal.base.releases.items()
        if target != item.target and target not in proposal.head.releases
    )


def _among(item: Release, ran: Iterable[Release | None]) -> bool:
    return any(one and item.same_as(one) for one in ran)


_UNKNOWN = (
    f"no environment of {POLICY_FILE} as it was before this change, which judges it; add the environment by a pull"
    " request of its own first"
)


def _images(proposal: Proposal) -> Iterator[Fault]:
    """An image that no release names, of a sidecar, takes the same way, by the renders; it waits for nothing."""
    base = proposal.base
    for (app, environment), images in proposal.head.images.items():
        named = {identity(item.image) for item in proposal.head.at((app, environment)).values()}
        for image in sorted(images - named - base.images.get((app, environment), frozenset())):
            for message in _early_image(proposal, app, environment, image):
                yield Fault("order", layout.overlay(app, environment), f"{image}: {message}")


def _early_image(proposal: Proposal, app: str, environment: str, image: str) -> Iterator[str]:
    policy, images = proposal.policy, proposal.base.images
    if environment not in policy.environments:
        if proposal.new_policy is None or environment not in proposal.new_policy.environments:
            yield f"{environment!r}: {_UNKNOWN}"
            return
        # One that takes the place of another is that one, under another name.
        if (other := _took(proposal, environment)) and image in images.get((app, other), ()):
            return
        environment = other or environment
    way = _way(proposal, environment)
    if not way and not policy.owns(image):
        yield (
            f"from no registry of {POLICY_FILE} as it was before this change; add the registry by a pull request of its"
            " own first"
        )
    for previous in way:
        if not _runs(image, images.get((app, previous), ()), policy):
            yield (
                f"no release names it, and {layout.overlay(app, previous)} does not run it yet; add it to"
                f" {policy.first} first and then to one environment after the other, each by a pull request of its own"
            )


def _way(proposal: Proposal, environment: str) -> list[str]:
    """The environments that what is new in one has to run in before; none for the first. For one that the change adds
    they are those of the new policy, and another new one among these stands for those that it comes after itself."""
    policy, new = proposal.policy, proposal.new_policy
    if environment in policy.environments or new is None:
        return list(policy.after(environment))
    found: dict[str, None] = {}
    for name in new.after(environment):
        own = [] if name in policy.environments else _way(proposal, name)
        found |= dict.fromkeys(own or [name])
    return list(found)


def _runs(image: str, there: Collection[str], policy: Policy) -> bool:
    """Whether an image is among those that run, or its digest is, from another of the owner's registries: a region may
    have one of its own."""
    found = parse(image)
    digests = {other.digest for other in map(parse, there) if other}
    return image in there or (policy.owns(image) and bool(found and found.digest in digests - {""}))


def _holds(proposal: Proposal) -> Iterator[Fault]:
    """What was held is changed only together with its hold, canaries and all."""
    base, head = proposal.base, proposal.head
    for place, text in base.holds.items():
        if head.holds.get(place) == text and head.at(place) != base.at(place):
            yield Fault("hold", hold.path(*place), hold.told(text, *place))


def _withdrawn(proposal: Proposal) -> Iterator[Fault]:
    """A withdrawn version comes nowhere where it does not run, and remains withdrawn."""
    base, head = proposal.base, proposal.head
    for name, entry in base.withdrawn.items():
        if head.withdrawn.get(name) != entry:
            what = "changed" if name in head.withdrawn else "gone"
            message = f"data.{name}: {what}; what was withdrawn remains so, put back {entry!r}"
            yield Fault("withdrawn", layout.WITHDRAWN, message)
    entries = {**head.withdrawn, **base.withdrawn}
    for item in _new(proposal):
        before, name = base.releases.get(item.target), withdrawn.key(item.uri)
        if name in entries and (before is None or withdrawn.key(before.uri) != name):
            message = f"{item.version} is withdrawn: {entries[name]}; release another version"
            yield Fault("withdrawn", item.file, message)


def _intermediate(proposal: Proposal) -> Iterator[Fault]:
    """Git cannot tell later which commits were the tip of the branch, and so what ever ran."""
    for commit, item in proposal.introduced:
        ends = [state.releases.get(item.target) for state in (proposal.base, proposal.head)]
        if item.released and item not in ends:
            yield Fault(
                "intermediate",
                item.file,
                f"{item.version}: released by commit {commit[:12]} and not by the end of this change; merged by rebase"
                " it would count as having run; squash the commits into one",
            )


def _manifests(proposal: Proposal) -> Iterator[Fault]:
    """A version has exactly one manifest, and a release that changes names it."""
    stated: dict[str | None, set[str | None]] = {}
    for state in (proposal.base, proposal.head):
        for one in state.released().values():
            stated.setdefault(withdrawn.key(one.uri), set()).add(one.manifest)
    for item in _new(proposal):
        if item.manifest is None:
            if item not in [one.release for one in proposal.ran(item.target)]:
                message = (
                    f"{item.version}: names no manifest; only bump_model.py, promote_model.py and rollback_model.py"
                )
                yield Fault("manifest", item.file, f"{message} write a release, with the SHA-256 of the manifest")
            elif (now := proposal.base.releases.get(item.target)) and now.manifest and now.same_as(item):
                message = f"{item.version}: lost its manifest {now.manifest}; put the line back"
                yield Fault("manifest", item.file, message)
            continue
        places = [Target(item.app, name) for name in proposal.policy.environments]
        there = [one.release for place in places for one in proposal.ran(place) if one.release]
        key = withdrawn.key(item.uri)
        others = (
            {*stated.get(key, ()), *(one.manifest for one in there if withdrawn.key(one.uri) == key)} if key else set()
        )
        if others := others - {None, item.manifest}:
            message = (
                f"{item.version}: manifest {item.manifest}, but another release of it names {min(map(str, others))}"
            )
            yield Fault(
                "manifest",
                item.file,
                f"{message}; a version has one manifest, find out who wrote the other;"
                " withdraw the version and train anew if that cannot be told",
            )


def _mixed(proposal: Proposal) -> Iterator[Fault]:
    """A change is of releases, of the policy or of the engine, so that none is judged by what comes with it."""
    parts = {
        "the engine": [
            path for path in proposal.paths if layout.is_engine(path) and path.partition("/")[0] not in proposal.folders
        ],
        "the policy": _policy_paths(proposal),
        "releases": _release_paths(proposal),
    }
    # They follow the policy, and an update of the engine may bring new ones.
    followers = [path for path in proposal.paths if path in layout.FOLLOWS_POLICY]
    if followers and not parts["the engine"]:
        parts["the policy"] += followers
    if len(found := {part: paths[0] for part, paths in parts.items() if paths}) > 1:
        listed = ", ".join(f"{part} ({path})" for part, path in found.items())
        yield Fault(
            "mixed",
            next(reversed(found.values())),
            f"changes together: {listed}; a pull request changes releases, the policy or the engine, and never two of"
            " them: split it",
        )


def _policy_paths(proposal: Proposal) -> list[str]:
    asked = [policy.signing for policy in (proposal.policy, proposal.new_policy) if policy and policy.signing]
    keys = {signer.public_key for signer in asked}
    changed = [POLICY_FILE] if proposal.new_policy not in (None, proposal.policy) else []
    # What a kind may have is the owner's to say, as all that others are judged by.
    return changed + [path for path in proposal.paths if path in keys or path.startswith(f"{kinds.FOLDER}/")]


def _release_paths(proposal: Proposal) -> list[str]:
    base, head = proposal.base, proposal.head
    before, after = base.released(), head.released()
    found = [item.file for target, item in (before | after).items() if before.get(target) != after.get(target)]
    found += [
        hold.path(*place) for place in {**base.holds, **head.holds} if base.holds.get(place) != head.holds.get(place)
    ]
    found += [layout.WITHDRAWN] if base.withdrawn != head.withdrawn else []
    # With an environment goes its record, without which nothing that still serves there may go.
    kept = (proposal.new_policy or proposal.policy).environments
    gone = {retired.path(name) for name in proposal.policy.environments if name not in kept}
    return sorted(found) + [path for path in proposal.paths if layout.is_retirements(path) and path not in gone]

"""What may run where: one verdict on data alone, for the commands and for the check of a change.

A release comes to the first environment freely. To each other one it comes when it came through the environment
before, or when it ran in this one already: a rollback needs nobody's leave. A withdrawn version comes nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gitops.manifests import kinds
from gitops.releases import hold, moved, withdrawn
from gitops.releases.image import identity, parse
from gitops.releases.release import Release, Target
from gitops.repo import layout
from gitops.repo.policy import POLICY_FILE, Policy

RULES = ("order", "hold", "withdrawn", "intermediate", "mixed", "manifest")
Place = tuple[str, str]
"""An app, or another folder with a render of its own, and its environment."""


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


def judge(proposal: Proposal) -> list[Fault]:
    """Everything that speaks against a change."""
    return [
        *_order(proposal),
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
    found: dict[Release | None, Release | None] = {None: None}
    held = None
    for moment in moments:
        unit = moment.release and moment.release.unit
        if unit in found:
            while next(reversed(found)) != unit:
                found.popitem()
        elif moment.hold not in (None, held):
            found.popitem()
        # One of the old form may come back with the SHA-256 of its manifest.
        found[unit] = moment.release
        held = moment.hold
    return list(found.values())


def _order(proposal: Proposal) -> Iterator[Fault]:
    """A release reaches an environment only through the one before it."""
    for item in _new(proposal):
        if message := _too_early(proposal, item):
            yield Fault("order", item.file, message)


def _new(proposal: Proposal) -> list[Release]:
    return [item for target, item in proposal.head.released().items() if proposal.base.releases.get(target) != item]


def _too_early(proposal: Proposal, item: Release) -> str | None:
    if item.environment not in proposal.policy.environments:
        return f"{item.environment!r}: {_UNKNOWN}"
    previous = proposal.policy.before(item.environment)
    own = {replace(item.target, canary=None), item.target}
    if previous is None or _among(item, [one.release for target in own for one in proposal.ran(target)]):
        return None
    # What ran there as a canary only has not come through.
    before = proposal.ran(Target(item.app, previous))
    if _among(item, standing(before)) or _is_moved(proposal, item):
        return None
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
    """An image that no release names, of a sidecar, takes the same way, by the renders."""
    policy, base = proposal.policy, proposal.base
    for (app, environment), images in proposal.head.images.items():
        named = {identity(item.image) for item in proposal.head.at((app, environment)).values()}
        for image in sorted(images - named - base.images.get((app, environment), frozenset())):
            where = layout.overlay(app, environment)
            if environment not in policy.environments:
                yield Fault("order", where, f"{image}: {environment!r}: {_UNKNOWN}")
                continue
            previous = policy.before(environment)
            if previous is None:
                if not policy.owns(image):
                    yield Fault(
                        "order",
                        where,
                        f"{image}: from no registry of {POLICY_FILE} as it was before this change; add the registry by"
                        " a pull request of its own first",
                    )
            elif not _runs(image, base.images.get((app, previous), ()), policy):
                yield Fault(
                    "order",
                    where,
                    f"{image}: no release names it, and {layout.overlay(app, previous)} does not run it yet; add it to"
                    f" {policy.environments[0]} first and then to one environment after the other, each by a pull"
                    " request of its own",
                )


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
    followers = [path for path in proposal.paths if layout.follows_policy(path)]
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
    return sorted(found) + [path for path in proposal.paths if layout.is_retirements(path)]

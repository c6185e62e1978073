"""What may run where, on data: every way around an invariant that somebody tried, and what is legitimate beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from worlds import API, ENGINE, FOLLOWER, SK, hold_of, key_of, release_of, sidecar, version

from gitops.releases import judgement, stack, withdrawn
from gitops.releases.judgement import Moment, Proposal, State
from gitops.releases.release import Release, Target
from gitops.repo import layout
from gitops.repo.policy import Environment, Policy, SigningPolicy

from contract.errors import Refused

DEV, STAGING, PROD = (Target(API, environment) for environment in ("dev", "staging", "prod"))
CANARY = Target(SK, "prod", "next")
POLICY = Policy("mlops-prod", ("registry.example.org",), ("dev", "staging", "prod"))
ONE, TWO, THREE = (1, 1), (2, 1), (3, 1)
NOTHING = (0, 0)
HOLD = {(API, "staging"): hold_of((API, "staging"), 1)}


def releases(**of: tuple[int, int]) -> dict[Target, Release]:
    """Those of API, by environment."""
    return {
        Target(API, environment): release_of(Target(API, environment), content) for environment, content in of.items()
    }


def ran(target: Target, *contents: tuple[int, int], held: Sequence[int] = ()) -> dict[Target, list[Moment]]:
    """A history of these releases; the places in `held` have come with a hold."""
    return {
        target: [
            Moment(release_of(target, content) if content[0] else None, b"%d" % at if at in held else None)
            for at, content in enumerate(contents)
        ]
    }


EMPTY = State()


def rules(
    base: State = EMPTY,
    head: State = EMPTY,
    history: Mapping[Target, Sequence[Moment]] | None = None,
    policy: Policy = POLICY,
    **more: object,
) -> list[str]:
    proposal = Proposal(policy, base, head, lambda target: (history or {}).get(target, []), **more)  # type: ignore[arg-type]
    return [fault.rule for fault in judgement.judge(proposal)]


# Order


@pytest.mark.parametrize(
    ("contents", "held", "standing"),
    [
        ([ONE], [], [ONE]),
        ([ONE, TWO, THREE], [], [ONE, TWO, THREE]),
        ([ONE, ONE, TWO], [], [ONE, TWO]),
        ([ONE, TWO, ONE], [], [ONE]),
        ([ONE, TWO, ONE], [2], [ONE]),
        ([ONE, TWO, THREE, ONE], [3], [ONE]),
        ([ONE, TWO, THREE, TWO], [3], [ONE, TWO]),
        ([ONE, TWO, ONE, TWO], [2], [ONE, TWO]),
        ([ONE, NOTHING], [], []),
        ([ONE, NOTHING, TWO], [], [TWO]),
        # A hold that comes with what never ran here is a hold on what did.
        ([ONE, TWO, THREE], [2], [ONE, THREE]),
        # Rolled back, and that rolled back again.
        ([ONE, TWO, ONE, TWO], [2, 3], [TWO]),
        ([ONE, TWO, THREE, ONE, THREE, TWO], [3, 4, 5], [TWO]),
    ],
)
def test_what_stands_ran_and_was_not_taken_back(
    contents: list[tuple[int, int]], held: list[int], standing: list[tuple[int, int]]
) -> None:
    [moments] = ran(STAGING, *contents, held=held).values()

    found = judgement.standing(moments)

    assert [item.version for item in found if item] == [version(number) for number, _ in standing]


CAME = ran(STAGING, ONE, TWO)


@pytest.mark.parametrize(
    ("history", "content", "allowed"),
    [
        (CAME, TWO, True),
        (CAME, ONE, True),
        ({}, ONE, False),
        (CAME, THREE, False),
        # The same version with another image is another release.
        (CAME, (2, 2), False),
        # Rolled back and held in the environment before; taken back by a revert; gone from there.
        (ran(STAGING, ONE, TWO, ONE, held=[2]), TWO, False),
        (ran(STAGING, ONE, TWO, ONE), TWO, False),
        (ran(STAGING, TWO, NOTHING), TWO, False),
        (ran(STAGING, ONE, TWO, THREE, ONE, held=[3]), TWO, False),
        (ran(STAGING, ONE, TWO, ONE, TWO, held=[2]), TWO, True),
        # What ran here may run here again, whatever became of it elsewhere.
        (ran(STAGING, ONE, TWO, ONE, held=[2]) | ran(PROD, TWO, ONE), TWO, True),
        (ran(PROD, TWO, ONE, held=[1]), TWO, True),
        # Of the environment before the last but one nothing follows.
        (ran(DEV, ONE, TWO), TWO, False),
        # As a canary only.
        ({Target(API, "staging", "next"): ran(STAGING, TWO)[STAGING]}, TWO, False),
    ],
)
def test_a_release_comes_through_the_environment_before(
    history: dict[Target, list[Moment]], content: tuple[int, int], allowed: bool
) -> None:
    head = State(releases(prod=content))

    assert rules(State(releases(prod=THREE if content != THREE else ONE)), head, history) == (
        [] if allowed else ["order"]
    )


def test_a_canary_may_run_what_all_callers_had_and_all_callers_not_what_a_canary_had() -> None:
    stable, canary = Target(SK, "prod"), CANARY
    two = {Target(SK, "prod"): [Moment(release_of(stable, (2, 0)))]}

    assert rules(head=State({canary: release_of(canary, (2, 0))}), history=two) == []
    as_canary = {canary: [Moment(release_of(canary, (2, 0)))]}
    assert rules(head=State({stable: release_of(stable, (2, 0))}), history=as_canary) == ["order"]


def test_everything_is_free_in_the_first_environment_of_the_policy_before_the_change() -> None:
    assert rules(head=State(releases(dev=TWO))) == []
    reordered = replace(POLICY, environments=("prod", "dev", "staging"))
    assert rules(head=State(releases(prod=TWO)), new_policy=reordered) == ["order", "mixed"]


def test_an_environment_that_the_policy_before_does_not_know_gets_no_release() -> None:
    target = Target(API, "qa")

    assert rules(head=State({target: release_of(target, ONE)})) == ["order"]
    assert rules(head=State({target: release_of(target, NOTHING)})) == []
    assert rules(head=State(images={("environment", "qa"): frozenset({"registry.example.org/agent:1"})})) == ["order"]


def test_where_a_version_ran_with_another_image_it_is_the_image_that_never_did() -> None:
    head = State(releases(prod=(1, 2)))
    proposal = Proposal(POLICY, EMPTY, head, lambda target: ran(STAGING, ONE).get(target, []))

    [fault] = judgement.judge(proposal)

    assert fault.message.startswith(
        f"{version(1)} with the image {release_of(PROD, (1, 2)).image} has never been released in staging, which"
    )


def test_one_of_the_old_form_that_comes_back_takes_back_what_came_after_it() -> None:
    one, two = release_of(STAGING, ONE), release_of(STAGING, TWO)
    moments = [Moment(one), Moment(two), Moment(replace(one, manifest=None))]

    assert [item.version for item in judgement.standing(moments) if item] == [one.version]
    assert stack.of(moments) == [replace(one, manifest=None)]


def test_an_app_that_moves_to_another_name_takes_its_release_along() -> None:
    old, new = release_of(PROD, ONE), replace(release_of(PROD, ONE), app="other")
    base, blank = State({PROD: old}), release_of(PROD, NOTHING)
    taken = {new.target: new}

    assert rules(base, State(taken)) == []
    # It stays; another release or another environment; an app that is there already.
    assert rules(base, State(taken | {PROD: old})) == ["order"]
    assert rules(base, State(taken | {PROD: blank})) == ["order"]
    assert rules(base, State({new.target: replace(new, image="registry.example.org/api:2")})) == ["order"]
    assert rules(State({STAGING: release_of(STAGING, ONE)}), State(taken)) == ["order"]
    assert rules(State({PROD: old, new.target: replace(blank, app="other")}), State(taken)) == ["order"]


# A graph of environments


PLAIN = {"dev": (), "perf": ("dev",), "canary": ("dev",), "eu": ("canary", "perf"), "us": ("canary", "perf")}


def graph(after: Mapping[str, tuple[str, ...]], **places: str) -> Policy:
    """A policy with these environments; `places` are namespaces that they have in the place of their own."""
    made = {name: Environment(name, before, places.get(name, f"ml-{name}")) for name, before in after.items()}
    return replace(POLICY, environments=tuple(after), graph=made)


GRAPH = graph(PLAIN)


def came(**of: Sequence[tuple[int, int]]) -> dict[Target, list[Moment]]:
    """What API ran, by environment."""
    found = [ran(Target(API, environment), *contents) for environment, contents in of.items()]
    return {target: moments for one in found for target, moments in one.items()}


@pytest.mark.parametrize(
    ("history", "missing"),
    [
        (came(perf=[ONE, TWO], canary=[TWO]), []),
        (came(perf=[TWO]), ["never been released in canary"]),
        (came(canary=[TWO]), ["never been released in perf"]),
        (came(dev=[TWO]), ["never been released in canary", "never been released in perf"]),
        (came(perf=[ONE, TWO, ONE], canary=[ONE, TWO]), ["taken back in perf"]),
        (came(perf=[TWO, NOTHING], canary=[ONE]), ["never been released in canary", "taken back in perf"]),
        (came(perf=[TWO], canary=[(2, 2)]), ["never been released in canary"]),
        # What ran here may run here again; what ran beside it may not.
        (came(eu=[TWO, ONE]), []),
        (came(us=[TWO]), ["never been released in canary", "never been released in perf"]),
    ],
)
def test_a_release_comes_through_all_that_its_environment_comes_after(
    history: dict[Target, list[Moment]], missing: list[str]
) -> None:
    proposal = Proposal(GRAPH, EMPTY, State(releases(eu=TWO)), lambda target: history.get(target, []))

    faults = judgement.judge(proposal)

    assert [
        re.findall(r"(never been released|taken back) in (\w+), which comes before eu;", str(each)) for each in faults
    ] == [[tuple(line.split(" in "))] for line in missing]


def test_an_app_that_an_environment_lacks_does_not_come_past_it() -> None:
    """Else retiring it there, or never adding it, would be a way around."""
    history = came(dev=[TWO], perf=[TWO])

    assert rules(head=State(releases(us=TWO)), history=history, policy=GRAPH) == ["order"]


@pytest.mark.parametrize(
    ("base", "head", "found"),
    [
        ({"canary": 1, "perf": 1}, {"eu": 1}, []),
        ({"canary": 1}, {"eu": 1}, ["order"]),
        ({"perf": 1}, {"eu": 1}, ["order"]),
        ({"dev": 1}, {"eu": 1, "us": 1}, ["order"] * 4),
        ({"dev": 1}, {"canary": 1, "perf": 1}, []),
        ({"us": 1}, {"us": 1}, []),
        # The registry is a matter of the first alone.
        ({}, {"dev": 2}, ["order"]),
    ],
)
def test_a_sidecar_comes_through_all_that_its_environment_comes_after(
    base: dict[str, int], head: dict[str, int], found: list[str]
) -> None:
    images = {1: "registry.example.org/agent:1", 2: "docker.io/agent:1"}
    before, after = (
        State(images={(API, name): frozenset({images[number]}) for name, number in each.items()})
        for each in (base, {**base, **head})
    )

    assert rules(before, after, policy=GRAPH) == found


AGENT = "registry.example.org/agent:1"


def agents(*environments: str, app: str = "environment") -> State:
    return State(images={(app, name): frozenset({AGENT}) for name in environments})


@pytest.mark.parametrize(
    ("new", "base", "head", "found"),
    [
        # By what it comes after in the new policy, as that ran before.
        ({"qa": ("perf",)}, ["perf"], ["perf", "qa"], []),
        ({"qa": ("perf",)}, ["dev"], ["dev", "qa"], ["order"]),
        ({"qa": ("perf",)}, ["dev"], ["dev", "perf", "qa"], ["order"]),
        ({"qa": ("canary", "perf")}, ["canary"], ["canary", "qa"], ["order"]),
        # Several new ones, one after the other.
        ({"qa": ("perf",), "uat": ("qa",)}, ["perf"], ["perf", "qa", "uat"], []),
        ({"qa": ("perf",), "uat": ("qa", "canary")}, ["perf"], ["perf", "qa", "uat"], ["order"]),
        ({"qa": ("perf",), "uat": ("qa", "canary")}, ["perf", "canary"], ["perf", "canary", "qa", "uat"], []),
        # One that neither policy has.
        ({}, ["dev"], ["dev", "other"], ["order"]),
    ],
)
def test_what_a_new_environment_runs_beside_releases_comes_by_the_new_policy(
    new: dict[str, tuple[str, ...]], base: list[str], head: list[str], found: list[str]
) -> None:
    policy = graph({**PLAIN, **new})

    assert rules(agents(*base), agents(*head), policy=GRAPH, new_policy=policy) == found


def test_a_new_environment_that_is_the_first_is_free_within_the_registries_of_the_old_policy_and_nothing_after_it() -> (
    None
):
    wider = replace(graph({"lab": (), "lab2": ("lab",), **PLAIN, "dev": ("lab",)}), image_registries=("docker.io",))
    foreign = State(images={("environment", "lab"): frozenset({"docker.io/agent:1"})})

    assert rules(head=agents("lab"), policy=GRAPH, new_policy=wider) == []
    assert rules(head=foreign, policy=GRAPH, new_policy=wider) == ["order"]
    assert rules(head=agents("lab", "lab2"), policy=GRAPH, new_policy=wider) == ["order"]


def test_a_new_environment_gets_no_release_with_the_policy_that_adds_it() -> None:
    new, target = graph({**PLAIN, "qa": ("perf",)}), Target(API, "qa")
    history = came(dev=[ONE], perf=[ONE])

    blank, released = (State({target: release_of(target, content)}) for content in (NOTHING, ONE))
    assert rules(head=blank, history=history, policy=GRAPH, new_policy=new) == []
    assert rules(head=released, history=history, policy=GRAPH, new_policy=new) == ["order", "mixed"]
    assert rules(head=released, history=history, policy=new) == []


@pytest.mark.parametrize(
    "new",
    [
        graph({**PLAIN, "eu": ("dev",)}),
        graph({**PLAIN, "eu": ("perf",)}),
        graph({name: after for name, after in {**PLAIN, "eu": ("perf",), "us": ("perf",)}.items() if name != "canary"}),
        graph({"eu": (), **{name: after for name, after in PLAIN.items() if name != "eu"}}),
        None,
    ],
)
def test_no_change_of_the_graph_lets_its_own_releases_through(new: Policy | None) -> None:
    history, base = came(dev=[ONE], perf=[ONE]), agents("dev", "perf", app=API)
    head = State(releases(eu=ONE), images=agents("dev", "perf", "eu", app=API).images)

    found = rules(base, head, history, GRAPH, new_policy=new)

    assert found == ["order", "order"] + (["mixed"] if new else [])


@pytest.mark.parametrize(
    ("places", "gone", "found"),
    [
        # Two change places; one takes that of another, which moves or goes; one moves to where nothing was.
        ({"dev": "ml-eu", "eu": "ml-dev"}, [], ["order", "order"]),
        ({"dev": "ml-eu", "eu": "elsewhere"}, [], ["order"]),
        ({"canary": "ml-us"}, ["us"], ["order"]),
        ({"eu": "elsewhere"}, [], []),
        ({}, ["us"], []),
    ],
)
def test_no_environment_is_moved_to_the_place_of_another(
    places: dict[str, str], gone: list[str], found: list[str]
) -> None:
    new = graph({name: after for name, after in PLAIN.items() if name not in gone}, **places)

    assert rules(policy=GRAPH, new_policy=new) == found


def test_an_environment_on_another_cluster_is_in_another_place() -> None:
    us = Environment("us", PLAIN["us"], "ml-eu", "us")
    there = replace(GRAPH, graph={**GRAPH.graph, "us": us})
    eu = replace(GRAPH.graph["eu"], namespace="elsewhere")
    taken = replace(there, graph={**there.graph, "us": replace(us, cluster="in-cluster"), "eu": eu})

    assert rules(policy=GRAPH, new_policy=there) == []
    assert rules(policy=there, new_policy=taken) == ["order"]


def test_a_new_environment_in_the_place_of_one_that_goes_is_judged_as_that_one() -> None:
    """A new name, with an `after` that the change makes up, in the namespace of production."""
    new = graph({"dev": (), "perf": ("dev",), "canary": ("dev",), "us": PLAIN["us"], "live": ("dev",)}, live="ml-eu")

    assert rules(agents("dev"), agents("dev", "live"), policy=GRAPH, new_policy=new) == ["order", "order"]
    assert rules(agents("eu"), agents("live"), policy=GRAPH, new_policy=new) == []
    assert rules(agents("canary", "perf"), agents("canary", "perf", "live"), policy=GRAPH, new_policy=new) == []


# How long a release runs before it goes on


SOAKING = replace(GRAPH, graph={**GRAPH.graph, "perf": replace(GRAPH.graph["perf"], soak=timedelta(hours=24))})
MONDAY = datetime(2026, 11, 23, 12, tzinfo=UTC)


def timed(*contents: tuple[int, int], hours: Sequence[float | None], held: Sequence[int] = ()) -> list[Moment]:
    """A history of perf, with the hours since Monday of each commit; None for a date that is none."""
    [moments] = ran(Target(API, "perf"), *contents, held=held).values()
    times = [None if hour is None else MONDAY + timedelta(hours=hour) for hour in hours]
    return [replace(moment, since=time) for moment, time in zip(moments, times, strict=True)]


@pytest.mark.parametrize(
    ("moments", "now", "fault"),
    [
        (timed(TWO, hours=[0]), 24, None),
        (timed(TWO, hours=[0]), 23.99, "since 2026-11-23T12:00:00Z, .*; it may from 2026-11-24T12:00:00Z on"),
        # A hold that comes later, or the old form of the file, is no other release.
        (timed(TWO, TWO, hours=[0, 23], held=[1]), 24, None),
        # Another image is another release.
        (timed((2, 2), TWO, hours=[0, 23]), 24, "since 2026-11-24T11:00:00Z"),
        # It came back, by a rollback or after it had been retired.
        (timed(TWO, THREE, TWO, hours=[0, 1, 2], held=[2]), 25, "since 2026-11-23T14:00:00Z"),
        (timed(TWO, THREE, TWO, hours=[0, 1, 2], held=[2]), 26, None),
        (timed(TWO, NOTHING, TWO, hours=[0, 20, 21]), 44, "since 2026-11-24T09:00:00Z"),
        # Another has taken its place: what counts is how long it ran.
        (timed(TWO, THREE, hours=[0, 24]), 24, None),
        (timed(TWO, THREE, hours=[0, 23]), 99, "ran in perf from 2026-11-23T12:00:00Z to 2026-11-24T11:00:00Z"),
        (timed(TWO, THREE, hours=[0, 99]), 23, "ran in perf"),
        # Clocks that go wrong.
        (timed(TWO, hours=[48]), 24, "since 2026-11-25T12:00:00Z, .*; it may from 2026-11-26T12:00:00Z on"),
        (timed(TWO, TWO, hours=[0, 0]), 24, None),
        (timed(TWO, THREE, hours=[5, 4]), 99, "ran in perf from 2026-11-23T17:00:00Z to 2026-11-23T16:00:00Z"),
        (timed(TWO, hours=[None]), 99, "came to perf at no time that can be read"),
    ],
)
def test_a_release_goes_on_when_it_has_run_for_the_soak(moments: list[Moment], now: float, fault: str | None) -> None:
    history = came(canary=[TWO]) | {Target(API, "perf"): moments}
    base, head = State(releases(eu=ONE)), State(releases(eu=TWO))
    time = MONDAY + timedelta(hours=now)

    faults = judgement.judge(Proposal(SOAKING, base, head, lambda target: history.get(target, []), now=time))

    assert [each.rule for each in faults] == ([] if fault is None else ["soak"])
    assert fault is None or re.search(fault, faults[0].message)


def test_what_ran_in_the_target_waits_for_nothing_and_neither_does_the_first_environment_or_a_sidecar() -> None:
    history = came(eu=[TWO, ONE], canary=[TWO]) | {Target(API, "perf"): timed(TWO, hours=[0])}
    base, images = State(releases(eu=ONE)), agents("canary", "perf", app=API).images

    assert rules(base, State(releases(eu=TWO)), history, SOAKING, now=MONDAY) == []
    assert rules(head=State(releases(dev=TWO, perf=NOTHING)), history=history, policy=SOAKING, now=MONDAY) == []
    assert rules(State(images=images), State(images={**images, (API, "eu"): frozenset({AGENT})}), policy=SOAKING) == []


def test_a_canary_waits_for_what_all_callers_get_where_it_comes_from() -> None:
    stable, canary = Target(API, "perf"), Target(API, "eu", "next")
    history = came(canary=[TWO]) | {stable: timed(TWO, hours=[0])}
    head = State({canary: release_of(canary, TWO)})

    assert rules(head=head, history=history, policy=SOAKING, now=MONDAY + timedelta(hours=23)) == ["soak"]
    assert rules(head=head, history=history, policy=SOAKING, now=MONDAY + timedelta(hours=24)) == []


def test_without_a_time_nothing_has_run_for_any() -> None:
    history = came(canary=[TWO]) | {Target(API, "perf"): timed(TWO, hours=[0])}

    assert rules(head=State(releases(eu=TWO)), history=history, policy=SOAKING) == ["soak"]


def test_what_has_not_come_through_is_told_by_the_order_alone() -> None:
    assert rules(head=State(releases(eu=TWO)), history=came(canary=[TWO]), policy=SOAKING) == ["order"]


# Images that no release names


OURS, FOREIGN = "registry.example.org/agent:1", "docker.io/agent:1"
# The registries of two regions, which have one image by its digest.
REGIONS = replace(POLICY, image_registries=("registry.example.org", "us.example.org/team"))
HERE = f"registry.example.org/agent:1@sha256:{'1' * 64}"
THERE = f"us.example.org/team/agent@sha256:{'1' * 64}"


def beside(**images: str) -> dict[tuple[str, str], frozenset[str]]:
    return {(API, environment): frozenset({image}) for environment, image in images.items()}


@pytest.mark.parametrize(
    ("base", "head", "found"),
    [
        ({}, beside(dev=OURS), []),
        ({}, beside(dev=FOREIGN), ["order"]),
        ({}, beside(staging=OURS), ["order"]),
        (beside(dev=OURS), beside(dev=OURS, staging=OURS), []),
        (beside(dev=OURS), beside(dev=OURS, prod=OURS), ["order"]),
        ({}, beside(dev=OURS, staging=OURS), ["order"]),
        # What runs stays, though the environment before has lost it.
        (beside(prod=OURS), beside(prod=OURS), []),
        (beside(staging=OURS), beside(prod=OURS), []),
        # Another folder of the environment before is another one.
        ({("environment", "dev"): frozenset({OURS})}, beside(staging=OURS), ["order"]),
    ],
)
def test_a_sidecar_goes_from_one_environment_to_the_next(
    base: dict[tuple[str, str], frozenset[str]], head: dict[tuple[str, str], frozenset[str]], found: list[str]
) -> None:
    assert rules(State(images=base), State(images=head)) == found


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        (HERE, THERE, []),
        (THERE, HERE, []),
        (HERE, THERE.replace("1" * 64, "2" * 64), ["order"]),
        (HERE, THERE.replace("/team", ""), ["order"]),
        # A tag may be of another image in each registry.
        (OURS, "us.example.org/team/agent:1", ["order"]),
        (HERE, "us.example.org/team/agent:1", ["order"]),
    ],
)
def test_a_sidecar_may_come_from_the_registry_of_its_region(before: str, now: str, found: list[str]) -> None:
    base, head = State(images=beside(dev=before)), State(images=beside(dev=before, staging=now))

    assert rules(base, head, policy=REGIONS) == found


def test_the_image_of_a_release_takes_the_way_of_the_release() -> None:
    item = releases(prod=ONE)

    head = State(item, images={(API, "prod"): frozenset({str(item[PROD].image)})})

    assert rules(head=head, history=ran(STAGING, ONE)) == []


# Holds


def held(head: dict[Target, Release], holds: Mapping[tuple[str, str], bytes] = HOLD) -> list[str]:
    base = State(releases(staging=ONE), HOLD)
    return rules(base, State(head, holds), ran(DEV, ONE, TWO))


def test_what_is_held_changes_only_with_its_hold() -> None:
    assert held(releases(staging=ONE)) == []
    assert held(releases(staging=TWO)) == ["hold"]
    assert held(releases(staging=NOTHING)) == ["hold"]
    assert held({}) == ["hold"]
    assert held(releases(staging=TWO), {}) == []
    assert held(releases(staging=TWO), {(API, "staging"): b"another"}) == []


def test_a_hold_is_on_the_canaries_too() -> None:
    place = (SK, "prod")
    stable = {Target(*place): release_of(Target(*place), (1, 0))}
    both = stable | {CANARY: release_of(CANARY, (1, 0))}
    holds = {place: hold_of(place, 1)}

    for base, head in ((stable, both), (both, stable)):
        found = rules(State(base, holds), State(head, holds), {Target(*place): [Moment(stable[Target(*place)])]})
        assert found == ["hold"]


def test_a_hold_that_cannot_be_read_holds() -> None:
    holds = {(API, "dev"): b"[broken"}

    assert rules(State(releases(dev=ONE), holds), State(releases(dev=TWO), holds)) == ["hold"]


# Withdrawn versions


BAD = {key_of(2): "leaked labels"}


@pytest.mark.parametrize(
    ("base", "head", "found"),
    [
        (State(withdrawn=BAD), State(releases(dev=TWO), withdrawn=BAD), ["withdrawn"]),
        (State(releases(dev=ONE), withdrawn=BAD), State(releases(dev=TWO), withdrawn=BAD), ["withdrawn"]),
        # In the same change.
        (State(), State(releases(dev=TWO), withdrawn=BAD), ["withdrawn"]),
        # Where it runs it stays, with another image as well, and elsewhere it does not come by that.
        (State(releases(dev=TWO)), State(releases(dev=TWO), withdrawn=BAD), []),
        (State(releases(dev=TWO), withdrawn=BAD), State(releases(dev=(2, 2)), withdrawn=BAD), []),
        (State(releases(dev=TWO), withdrawn=BAD), State(releases(dev=ONE), withdrawn=BAD), []),
        (
            State(releases(dev=TWO, staging=ONE), withdrawn=BAD),
            State(releases(dev=TWO, staging=TWO), withdrawn=BAD),
            ["withdrawn"],
        ),
        # What is on record stays there, word by word.
        (State(withdrawn=BAD), State(), ["withdrawn"]),
        (State(withdrawn=BAD), State(withdrawn={key_of(2): "never mind"}), ["withdrawn"]),
        (State(withdrawn=BAD), State(withdrawn=BAD | {key_of(3): "worse"}), []),
        (State(withdrawn=BAD), State(releases(dev=TWO)), ["withdrawn", "withdrawn"]),
    ],
)
def test_a_withdrawn_version_comes_nowhere(base: State, head: State, found: list[str]) -> None:
    assert rules(base, head, ran(DEV, ONE, TWO)) == found


def test_not_even_as_a_rollback() -> None:
    base, head = (State(releases(prod=content), withdrawn=BAD) for content in (ONE, TWO))

    assert rules(base, head, ran(PROD, TWO, ONE)) == ["withdrawn"]


RECORD = b"# A comment.\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: model-withdrawn\n  namespace: argocd\n"


def test_the_record_is_only_ever_added_to() -> None:
    one = withdrawn.add(RECORD, key_of(1), "bad: 'quoted', #1 (me <me@example.org>, 2026-02-01T12:00:00Z)")
    two = withdrawn.add(one, key_of(2), "bad")

    assert two.startswith(one) and one.startswith(RECORD)
    assert list(withdrawn.read(two)) == [key_of(1), key_of(2)]
    assert withdrawn.read(two)[key_of(1)].startswith("bad: 'quoted', #1 (me")
    assert withdrawn.read(None) == withdrawn.read(RECORD) == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (RECORD.replace(b"model-withdrawn", b"other"), "not the ConfigMap model-withdrawn of argocd with `data` alone"),
        (RECORD + b"immutable: true\n", "not the ConfigMap model-withdrawn of argocd with `data` alone"),
        (b"[]\n", "not the ConfigMap model-withdrawn of argocd with `data` alone"),
        (RECORD + b"data:\n  lily: bad\n", "data.lily: 'bad': not MODEL.VERSION and a reason"),
        (RECORD + f"data:\n  {key_of(1)}: ''\n".encode(), f"data.{key_of(1)}: '': not MODEL.VERSION and a reason"),
        (RECORD + f"data:\n  {key_of(1)}: [a]\n".encode(), f"data.{key_of(1)}: ['a']: not MODEL.VERSION and a reason"),
    ],
)
def test_a_record_that_is_none_is_refused(text: bytes, fault: str) -> None:
    with pytest.raises(Refused) as refused:
        withdrawn.read(text)

    assert refused.value.lines[0].startswith(f"{layout.WITHDRAWN}: {fault}")


def test_nothing_is_added_to_a_record_that_does_not_end_in_its_entries() -> None:
    text = b"data:\n  " + key_of(1).encode() + b": bad\n" + RECORD

    with pytest.raises(Refused, match="no entry can be added at its end"):
        withdrawn.add(text, key_of(2), "bad")


# What was released on the way


@pytest.mark.parametrize(
    ("introduced", "found"),
    [
        ([], []),
        ([TWO], []),
        ([ONE], []),
        ([TWO, ONE], []),
        ([THREE], ["intermediate"]),
        ([THREE, ONE], ["intermediate"]),
        ([(2, 2), TWO], ["intermediate"]),
        ([NOTHING, TWO], []),
    ],
)
def test_what_a_branch_releases_on_its_way_is_in_its_end(introduced: list[tuple[int, int]], found: list[str]) -> None:
    listed = [("c0de" * 10, release_of(DEV, content)) for content in introduced]

    assert rules(State(releases(dev=ONE)), State(releases(dev=TWO)), introduced=listed) == found


def test_on_the_way_counts_by_place() -> None:
    """What the end has in one environment was tried in another one; an environment that nobody knows yet counts too."""
    for target in (Target(API, "staging"), Target(API, "qa"), Target(API, "dev", "next"), Target(SK, "dev")):
        listed = [("c0de" * 10, release_of(target, TWO))]
        assert rules(State(releases(dev=ONE)), State(releases(dev=TWO)), introduced=listed) == ["intermediate"]


# One part at a time


KEY = "base/api/signed/model-signing.pub"
SIGNED = replace(POLICY, signing=SigningPolicy(public_key=KEY))
RELEASE = (State(releases(dev=ONE)), State(releases(dev=TWO)))
SAME = (State(releases(dev=ONE)), State(releases(dev=ONE)))


@pytest.mark.parametrize(
    ("states", "paths", "mixed"),
    [
        (SAME, [ENGINE, ".github/workflows/ci.yml", "tools/kustomize/go.mod", "tests/test_x.py"], False),
        (SAME, [ENGINE, FOLLOWER, "base/api/deployment.yaml", "argocd/root.yaml", "apps/a/kustomization.yaml"], False),
        (RELEASE, ["base/api/deployment.yaml", "apps/a/kustomization.yaml", "argocd/project-dev.yaml"], False),
        (RELEASE, ["README.md", "docs/notes.md", "model-src/models/lily/model.py"], False),
        (RELEASE, [ENGINE], True),
        (RELEASE, ["tests/test_x.py"], True),
        (RELEASE, ["model-src/contract/digest.py"], True),
        (RELEASE, ["argocd/platform/admission/releases.yaml"], True),
        (RELEASE, ["argocd/platform/admission/new.yaml"], True),
        (RELEASE, ["argocd/platform/storage/container.yaml"], True),
        (RELEASE, [".github/workflows/ci.yml"], True),
        (RELEASE, ["Makefile"], True),
        (RELEASE, [FOLLOWER], True),
        (SAME, [ENGINE, "overlays/dev/retired.yaml"], True),
        ((State(holds=HOLD), State()), [ENGINE], True),
        ((State(), State(withdrawn=BAD)), [ENGINE], True),
        ((State(releases(dev=TWO)), State()), [ENGINE], True),
        # A new app is no release, and an update brings an empty record.
        ((State(), State(releases(dev=NOTHING))), [ENGINE, layout.WITHDRAWN], False),
    ],
)
def test_a_change_is_of_one_part(states: tuple[State, State], paths: list[str], mixed: bool) -> None:
    assert rules(*states, paths=paths, new_policy=POLICY) == (["mixed"] if mixed else [])


@pytest.mark.parametrize(
    ("policy", "new", "states", "paths", "mixed"),
    [
        (POLICY, replace(POLICY, image_registries=("elsewhere",)), SAME, [FOLLOWER, "argocd/project-qa.yaml"], False),
        (POLICY, replace(POLICY, image_registries=("elsewhere",)), RELEASE, [], True),
        (POLICY, replace(POLICY, model_bucket="elsewhere"), SAME, [ENGINE], True),
        (POLICY, SIGNED, SAME, [KEY, FOLLOWER], False),
        (SIGNED, POLICY, RELEASE, [], True),
        # The key is what the policy asks for, whatever file it is in.
        (SIGNED, SIGNED, RELEASE, [KEY], True),
        (SIGNED, SIGNED, SAME, [KEY, ENGINE], True),
        (POLICY, POLICY, RELEASE, [KEY], False),
    ],
)
def test_the_policy_is_a_part(
    policy: Policy, new: Policy, states: tuple[State, State], paths: list[str], mixed: bool
) -> None:
    assert rules(*states, policy=policy, paths=paths, new_policy=new) == (["mixed"] if mixed else [])


def test_the_record_of_retirements_goes_with_its_environment() -> None:
    new = graph({name: after for name, after in PLAIN.items() if name != "us"})

    assert rules(paths=["overlays/us/retired.yaml"], policy=GRAPH, new_policy=new) == []
    assert rules(paths=["overlays/eu/retired.yaml"], policy=GRAPH, new_policy=new) == ["mixed"]
    assert rules(State(releases(us=ONE)), paths=["overlays/us/retired.yaml"], policy=GRAPH, new_policy=new) == ["mixed"]


def test_what_is_mixed_is_named_with_the_remedy() -> None:
    proposal = Proposal(POLICY, *RELEASE, lambda target: [], paths=[ENGINE], new_policy=POLICY)

    assert [str(fault) for fault in judgement.judge(proposal)] == [
        f"overlays/dev/api/release.yaml: changes together: the engine ({ENGINE}), releases"
        " (overlays/dev/api/release.yaml); a pull request changes releases, the policy or the engine, and never two of"
        " them: split it"
    ]


def test_what_comes_too_early_is_told_what_to_do() -> None:
    base, head = State(images=beside(dev=OURS)), State(releases(prod=TWO), images=beside(prod=sidecar(0)))
    history = ran(STAGING, ONE, TWO, ONE)

    faults = judgement.judge(Proposal(POLICY, base, head, lambda target: history.get(target, [])))

    assert [str(fault) for fault in faults] == [
        f"overlays/prod/api/release.yaml: {version(2)} was taken back in staging, which comes before prod; release it"
        " there first again, if it is good after all, then run"
        " `python scripts/promote_model.py --app api --to prod`",
        f"overlays/prod/api: {sidecar(0)}: no release names it, and overlays/staging/api does not run it yet; add it to"
        " dev first and then to one environment after the other, each by a pull request of its own",
    ]


# A version has one manifest


def with_manifest(item: Release, manifest: str | None) -> Release:
    return replace(item, manifest=manifest)


A, B = (f"sha256:{letter * 64}" for letter in "ab")


@pytest.mark.parametrize(
    ("before", "after", "ran_as", "found"),
    [
        (None, A, [], []),
        (None, None, [], ["manifest"]),
        # What ran here may come back as it was; what had one keeps it.
        (None, None, [None], []),
        (A, None, [None, A], ["manifest"]),
        (None, A, [None], []),
        (A, B, [A], ["manifest"]),
        (None, B, [A], ["manifest"]),
    ],
)
def test_a_release_that_changes_names_its_manifest_and_no_other_than_before(
    before: str | None, after: str | None, ran_as: list[str | None], found: list[str]
) -> None:
    one = release_of(DEV, ONE)
    base = State({DEV: with_manifest(one, before)} if ran_as else {})
    history = {DEV: [Moment(with_manifest(one, manifest), None) for manifest in ran_as]}
    head = State({DEV: with_manifest(one, after)})
    if base == head:
        base = State({DEV: release_of(DEV, TWO)})

    assert rules(base, head, history) == found


@pytest.mark.parametrize(("theirs", "found"), [(A, []), (None, []), (B, ["manifest"])])
def test_another_app_with_the_same_version_has_the_same_manifest(theirs: str | None, found: list[str]) -> None:
    other = with_manifest(release_of(Target(SK, "dev"), ONE), theirs)
    new = with_manifest(release_of(DEV, ONE), A)

    assert rules(State({other.target: other}), State({other.target: other, DEV: new})) == found


@pytest.mark.parametrize(
    ("before", "wanted", "found"),
    [
        (A, A, []),
        (None, A, []),
        # The other way around nothing tells that it is the same: a command never makes it.
        (A, None, ["order", "manifest"]),
        (A, B, ["order", "manifest"]),
    ],
)
def test_a_release_of_the_former_form_comes_through_with_a_manifest_and_no_other_loses_its_own(
    before: str | None, wanted: str | None, found: list[str]
) -> None:
    one = with_manifest(release_of(DEV, ONE), before)
    new = with_manifest(release_of(STAGING, ONE), wanted)

    assert rules(State({DEV: one}), State({DEV: one, STAGING: new}), {DEV: [Moment(one, None)]}) == found

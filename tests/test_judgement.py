"""What may run where, on data: every way around an invariant that somebody tried, and what is legitimate beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from worlds import API, ENGINE, FOLLOWER, SK, hold_of, key_of, release_of, sidecar, version

from gitops.releases import judgement, stack, withdrawn
from gitops.releases.judgement import Moment, Proposal, State
from gitops.releases.release import Release, Target
from gitops.repo import layout
from gitops.repo.policy import Policy, SigningPolicy

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

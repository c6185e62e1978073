"""Sequences of pull requests, legitimate and hostile, against a plain model of what may run where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from worlds import STEPS, Data, Model, Real, Request, Step, commits

# The targets of `worlds`: those of the app API, in the order of the environments, and the last of all.
DEV, STAGING, PROD, CANARY = 0, 1, 2, 8
# Histories to start from: two versions of one app come as far as they may, and one of them is taken back; another app
# gets a canary and is held.
STARTS = (
    [
        Step("release", DEV, 0, 0), Step("promote", STAGING, 0, 0), Step("promote", PROD, 0, 0),
        Step("release", DEV, 1, 1), Step("promote", STAGING, 0, 0), Step("roll back", STAGING, 0, 0),
        Step("unhold", STAGING, 0, 0), Step("release", DEV, 2, 0), Step("promote", STAGING, 0, 0),
        Step("roll back", STAGING, 1, 0), Step("sidecar", DEV, 0, 0),
    ],
    [
        Step("release", DEV + 3, 0, 0), Step("promote", STAGING + 3, 0, 0), Step("promote", PROD + 3, 0, 0),
        Step("release", CANARY, 0, 0), Step("release", DEV + 3, 1, 0), Step("promote", STAGING + 3, 0, 0),
        Step("release", CANARY, 1, 0), Step("promote", PROD + 3, 0, 0), Step("roll back", PROD + 3, 0, 0),
    ],
)  # fmt: skip
# What random steps seldom come to.
ATTACKS = [
    (Step("engine", 0, 1, 0), Step("follower", 0, 1, 0)),
    (Step("withdraw", 0, 1, 0), Step("release", DEV, 1, 0)),
    (Step("release", STAGING, 1, 0), Step("restore", 0, 0, 0)),
    (Step("reorder", 0, 5, 0), Step("release", PROD, 2, 0)),
    (Step("release", CANARY, 1, 0),),
    (Step("stop", CANARY, 0, 0),),
    (Step("release", PROD, 1, 1),),
    (Step("roll back", STAGING, 0, 0),),
    (Step("roll back", PROD, 0, 0), Step("unhold", PROD, 0, 0)),
    (Step("sidecar", DEV, 0, 0),),
    (Step("sidecar", STAGING, 0, 0),),
    (Step("withdraw", 0, 1, 0), Step("forget", 0, 1, 0)),
]
TARGETS = st.sampled_from([*range(9), DEV, STAGING, STAGING, PROD, PROD])
NUMBERS = st.integers(0, 2)
KINDS = st.sampled_from(["release", "promote"] * 3 + ["roll back"] * 2 + list(STEPS))
STEP = st.builds(Step, KINDS, TARGETS, NUMBERS, NUMBERS)
STEPS_OF_ONE = st.one_of(st.lists(STEP, min_size=1, max_size=2).map(tuple), st.sampled_from(ATTACKS))
REQUESTS: st.SearchStrategy[Request] = st.tuples(STEPS_OF_ONE, st.sampled_from(["merge", "squash", "rebase", "pull"]))


def sequences(size: int) -> st.SearchStrategy[list[Request]]:
    """Some of a history to start from, and then what comes."""

    def begun(start: list[Step], length: int) -> list[Request]:
        return [((step,), "merge") for step in start[:length]]

    first = st.builds(begun, st.sampled_from(STARTS), st.integers(0, max(map(len, STARTS))))
    return st.builds(lambda one, then: [*one, *then], first, st.lists(REQUESTS, min_size=2, max_size=size))


QUIET: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    # To shrink what fails takes minutes.
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=2000, **QUIET)
@given(sequences(8))
def test_the_verdict_on_data_is_that_of_a_plain_model(requests: Sequence[Request]) -> None:
    model, data = Model(), Data()
    for steps, how in requests:
        trees = commits(model.tips[-1], steps, model.tips)
        verdict = data.verdict(trees)
        assert {rule for rule, _ in verdict} == model.rules(trees)
        if not verdict:
            data.merge(trees, how)
            model.merge(trees[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sequences")


CACHE: dict[Any, Any] = {}


@settings(max_examples=50, **QUIET)
@given(requests=sequences(4))
def test_real_git_and_kustomize_give_the_verdict_on_data(folder: Path, requests: Sequence[Request]) -> None:
    model, data, real = Model(), Data(), Real(folder / "repository", CACHE)
    for steps, how in requests:
        trees = commits(model.tips[-1], steps, model.tips)
        verdict = data.verdict(trees)
        assert real.verdict(trees) == verdict
        if verdict:
            real.drop()
            continue
        for world in (data, real):
            world.merge(trees, how)
        model.merge(trees[-1])

"""Sequences of pull requests, legitimate and hostile, to any graph of environments, against a plain model of what may
run where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from worlds import (
    ENVIRONMENTS,
    MOST,
    START,
    STEPS,
    TARGETS,
    Data,
    Graph,
    Model,
    Real,
    Request,
    Step,
    Tree,
    arrived,
    commits,
    graph_of,
)

OTHER, CANARY = len(ENVIRONMENTS), 2 * len(ENVIRONMENTS)
"""In the targets of `worlds`, where those of the second app begin, and its canaries."""


def steps_from(graph: Graph) -> list[list[Step]]:
    """Histories to start from: two versions of one app come as far as they may, and one of them is taken back; another
    app gets a canary and is held."""
    first, second, *others = map(ENVIRONMENTS.index, graph.order)
    last = others[-1]
    climb = [Step("promote", to, 0, 0) for to in (second, *others)]
    return [
        [
            Step("release", first, 0, 0), *climb, Step("release", first, 1, 1), Step("promote", second, 0, 0),
            Step("roll back", second, 0, 0), Step("unhold", second, 0, 0), Step("release", first, 2, 0),
            Step("promote", second, 0, 0), Step("roll back", second, 1, 0),
            *(Step("sidecar", to, 0, 0) for to in (first, second, last)),
        ],
        [
            Step("release", first + OTHER, 0, 0),
            *(replace(step, target=step.target + OTHER) for step in climb),
            Step("release", last + CANARY, 0, 0), Step("release", first + OTHER, 1, 0),
            *(replace(step, target=step.target + OTHER) for step in climb[:-1]),
            Step("release", last + CANARY, 1, 0), Step("promote", last + OTHER, 0, 0),
            Step("roll back", last + OTHER, 0, 0),
        ],
        # Version after version, before the one before it is everywhere.
        [step for number in range(3) for step in (Step("release", first, number, 0), *climb)],
        # By hand: what another has replaced; what came back; what was taken back for what had been taken back.
        [Step("release", first, 0, 0), Step("release", first, 1, 0), Step("release", second, 0, 0)],
        [*(Step("release", first, number, 0) for number in (0, 1, 0)), Step("release", second, 0, 0)],
        [
            Step("release", first, 0, 0), Step("release", first, 1, 0), Step("roll back", first, 0, 0),
            Step("unhold", first, 0, 0), Step("release", first, 2, 0), Step("roll back", first, 1, 0),
            Step("release", second, 2, 0),
        ],
    ]  # fmt: skip


# What random steps seldom come to, on the environments in their order.
FIRST, SECOND, LAST = 0, 1, len(ENVIRONMENTS) - 1
ATTACKS = [
    (Step("engine", 0, 1, 0), Step("follower", 0, 1, 0)),
    (Step("withdraw", 0, 1, 0), Step("release", FIRST, 1, 0)),
    (Step("release", SECOND, 1, 0), Step("restore", 0, 0, 0)),
    (Step("reorder", 0, 2, 5), Step("release", LAST, 2, 0)),
    (Step("release", LAST + CANARY, 1, 0),),
    (Step("stop", LAST + CANARY, 0, 0),),
    (Step("stop", SECOND, 0, 0), Step("restore", 0, 0, 0)),
    (Step("release", LAST, 1, 1),),
    (Step("roll back", SECOND, 0, 0),),
    (Step("roll back", LAST, 0, 0), Step("unhold", LAST, 0, 0)),
    (Step("sidecar", FIRST, 0, 0),),
    (Step("sidecar", SECOND, 0, 0),),
    (Step("withdraw", 0, 1, 0), Step("forget", 0, 1, 0)),
]
NUMBERS = st.integers(0, 2)
KINDS = st.sampled_from(["release", "promote", "promote"] * 3 + ["roll back"] * 2 + list(STEPS))
STEP = st.builds(Step, KINDS, st.sampled_from(range(len(TARGETS))), NUMBERS, NUMBERS)
STEPS_OF_ONE = st.one_of(st.lists(STEP, min_size=1, max_size=2).map(tuple), st.sampled_from(ATTACKS))
WAYS = st.sampled_from(["merge", "squash", "rebase", "pull"])
REQUESTS: st.SearchStrategy[Request] = st.tuples(STEPS_OF_ONE, WAYS, st.integers(0, MOST))


def sequences(size: int) -> st.SearchStrategy[tuple[Tree, list[Request]]]:
    """A graph, and on it some of a history to start from, and then what comes."""

    def begun(seed: int, start: int, length: int, hours: int, then: list[Request]) -> tuple[Tree, list[Request]]:
        graph = graph_of(seed)
        first: list[Request] = [((step,), "merge", hours) for step in steps_from(graph)[start][:length]]
        return replace(START, graph=graph), [*first, *then]

    later = st.lists(REQUESTS, min_size=2, max_size=size)
    return st.builds(
        begun,
        st.integers(0, 10**6),
        st.sampled_from([0, 0, 1, 1, 2, 2, 3, 4, 5]),
        st.integers(0, 20),
        st.integers(1, MOST),
        later,
    )


QUIET: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    # To shrink what fails takes minutes.
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=1000, **QUIET)
@given(sequences(8))
def test_the_verdict_on_data_is_that_of_a_plain_model(drawn: tuple[Tree, Sequence[Request]]) -> None:
    start, requests = drawn
    model, data, now = Model(start), Data(start), 0
    for steps, how, hours in requests:
        now += hours
        trees = commits(model.tips[-1], steps, model.tips)
        verdict = data.verdict(trees, now)
        assert {rule for rule, _ in verdict} == model.rules(trees, now)
        if not verdict:
            data.merge(trees, how, now)
            for tree in arrived(trees, how):
                model.merge(tree, now)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sequences")


CACHE: dict[Any, Any] = {}


@settings(max_examples=25, **QUIET)
@given(drawn=sequences(4))
def test_real_git_and_kustomize_give_the_verdict_on_data(folder: Path, drawn: tuple[Tree, Sequence[Request]]) -> None:
    start, requests = drawn
    model, data, real, now = Model(start), Data(start), Real(folder / "repository", CACHE, start), 0
    for steps, how, hours in requests:
        now += hours
        trees = commits(model.tips[-1], steps, model.tips)
        verdict = data.verdict(trees, now)
        assert real.verdict(trees, now) == verdict
        if verdict:
            real.drop()
            continue
        for world in (data, real):
            world.merge(trees, how, now)
        for tree in arrived(trees, how):
            model.merge(tree, now)

"""Sequences of pull requests, legitimate and hostile, against a plain model of what may run where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from worlds import STEPS, Data, Model, Real, Request, Step, commits

NUMBERS = st.integers(0, 8)
# What makes a history is drawn more often than what is nearly always refused.
KINDS = st.sampled_from(["release", "promote"] * 4 + ["roll back", "restore", "unhold"] * 2 + list(STEPS))
REQUESTS: st.SearchStrategy[Request] = st.tuples(
    st.lists(st.builds(Step, KINDS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=3).map(tuple),
    st.sampled_from(["merge", "squash", "rebase"]),
)
QUIET: dict[str, Any] = {
    "deadline": None, "derandomize": True, "database": None, "phases": [Phase.generate], "suppress_health_check": list(HealthCheck),
}  # fmt: skip


@settings(max_examples=2000, **QUIET)
@given(st.lists(REQUESTS, min_size=4, max_size=8))
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
@given(requests=st.lists(REQUESTS, min_size=4, max_size=6))
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

"""Whether what was trained is as good as its metrics say, and as its problem asks for."""

from __future__ import annotations

import json

import pytest
from conftest import Repository
from project import PROJECT

from lifecycle import evaluating, settings, tables
from lifecycle.model import Model
from models.lily.model import MODEL as LILY
from models.sugar.model import MODEL as SUGAR

# They are written with six digits.
SAME = 1e-5


@pytest.fixture(params=[LILY, SUGAR], ids=lambda model: model.name)
def model(request: pytest.FixtureRequest) -> Model:
    found: Model = request.param
    return found


@pytest.fixture
def repository(model: Model, request: pytest.FixtureRequest) -> Repository:
    found: Repository = request.getfixturevalue("trained" if model is LILY else "trained_sugar")
    return found


def test_the_metrics_are_those_of_the_manifest(model: Model, repository: Repository) -> None:
    made = json.loads((repository.source / "models" / model.name / "metrics.json").read_text())

    for name, one in made.items():
        assert repository.manifest(model.name).metrics[name] == one["value"]


def test_the_models_are_as_good_as_their_problem_asks(model: Model, repository: Repository) -> None:
    """Measured here from the predictions themselves; and no part of the data is far below the whole."""
    metric = settings.read(PROJECT / "models" / model.name / "problem.yaml", settings.Problem).metric
    predictions = tables.read(repository.source / "models" / model.name / "build/predictions.csv")
    held_out = predictions[predictions.held_out]

    measured = evaluating.measure(held_out, model)[metric.name]

    said = json.loads((repository.source / "models" / model.name / "metrics.json").read_text())[metric.name]
    assert measured == pytest.approx(said["value"], rel=SAME)
    assert metric.holds(measured), f"{metric.name} {measured:.4f}, {metric.words}"
    for name, part in evaluating.per_slice(held_out, model).items():
        if metric.name in part:
            allowed = 0.15 if model is LILY else 15
            assert metric.gain(measured, part[metric.name]) > -allowed, (name, part)


def test_the_models_know_more_than_a_guess(model: Model, repository: Repository) -> None:
    """The most frequent label, or the mean, of the rows that were learned from."""
    predictions = tables.read(repository.source / "models" / model.name / "build/predictions.csv")
    learned, held_out = predictions[~predictions.held_out], predictions[predictions.held_out]

    if model is LILY:
        guess = (held_out[model.target] == learned[model.target].mode()[0]).mean()
        assert evaluating.measure(held_out, model)["accuracy"] > 2 * guess
    else:
        guess = (held_out[model.target] - learned[model.target].mean()).abs().mean()
        assert evaluating.measure(held_out, model)["mae"] < 0.75 * guess

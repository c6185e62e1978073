from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
import tarfile
from dataclasses import replace
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import warm
from conftest import Repository, succeeds, wanted
from packaging.specifiers import SpecifierSet
from project import PROJECT
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline

from contract import manifest
from contract.digest import version_digest
from contract.errors import Refused
from lifecycle import comparing, evaluating, preparing, reporting, settings, tables, training, tuning, validation
from lifecycle.model import Model
from models.lily.model import MODEL as LILY
from models.sugar.model import MODEL as SUGAR
from packing import pack
from serving import model as serving

MODELS = {"lily": LILY, "sugar": SUGAR}
FAMILIES = [(model, family) for model in (LILY, SUGAR) for family in model.families]


@pytest.fixture(scope="module")
def data(raw: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """By model, its rows."""
    folder = tmp_path_factory.mktemp("data")
    for name, content in raw.items():
        (folder / name).write_text(content)
    return {name: validation.read(folder / name, model)[0] for name, model in MODELS.items()}


def params_of(name: str) -> settings.Params:
    return settings.read(PROJECT / "models" / name / "params.yaml", settings.Params)


def problem_of(name: str) -> settings.Problem:
    return settings.read(PROJECT / "models" / name / "problem.yaml", settings.Problem)


# Settings


def test_the_settings_of_the_repository_are_right() -> None:
    assert params_of("lily").tune.trials == params_of("sugar").tune.trials == 4
    for name, model in MODELS.items():
        assert list(params_of(name).families) == list(model.families)
        assert problem_of(name).metric.name in settings.METRICS[model.kind]


C = "C: {low: 0.01, high: 100.0, log: true}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  test_size: 0.3", "  test_size: 1.0", "prepare.test_size: Input should be less than 1, not 1.0"),
        ("  test_size: 0.3", "  test_size: .nan", "prepare.test_size: Input should be less than 1, not nan"),
        ("  test_size: 0.3", "  test_size: '0.3'", "prepare.test_size: Input should be a valid number, not '0.3'"),
        ("  test_size: 0.3", "  test_size: 0.3\n  x: 1", "prepare.x: Extra inputs are not permitted, not 1"),
        ("  trials: 4", "  trials: 0", "tune.trials: Input should be greater than or equal to 1, not 0"),
        ("  trials: 4", "  trials: 2", "tune.trials: 2 are too few to try each of 3 families"),
        ("  trials: 4", "  trials: true", "tune.trials: Input should be a valid integer, not True"),
        ("  folds: 3", "  folds: 1", "tune.folds: Input should be greater than or equal to 2, not 1"),
        ("train:\n  seed: 42", "train:\n  seed: -1", "train.seed: Input should be greater than or equal to 0, not -1"),
        ("train:\n  seed: 42", "train:\n  seed: 4294967296", "train.seed: Input should be less than 4294967296, not 4"),
        ("  resamples: 100", "  resamples: 10", "evaluate.resamples: Input should be greater than or equal to 100, "),
        ("  confidence: 0.95", "  confidence: 95", "evaluate.confidence: Input should be less than 1, not 95"),
        (C, "C: {low: 5, high: 2}", "families.logistic_regression.C.span: low 5 is not below high 2"),
        (C, "C: {low: 0, high: 2, log: true}", "families.logistic_regression.C.span: low 0 is not above 0, which log"),
        (C, "C: {low: x, high: 2}", "families.logistic_regression.C.span.low: a number is needed, not 'x'"),
        (C, "C: {low: 1, high: true}", "families.logistic_regression.C.span.high: a number is needed, not True"),
        (C, "C: {low: 1}", "families.logistic_regression.C.span.high: Field required"),
        (C, "C: []", "families.logistic_regression.C.list: List should have at least 1 item"),
        (C, "C: [1, [2]]", "families.logistic_regression.C.list[1]: a number is needed, not [2]"),
        (C, "C: .inf", "families.logistic_regression.C.value: a number is needed, not inf"),
        ("evaluate:", "evaluation:", "evaluate: Field required\n* evaluation: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_parameter_is_one_line_that_names_it(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (PROJECT / "models/lily/params.yaml").read_text()
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new))

    with pytest.raises(Refused) as refused:
        settings.read(tmp_path / "params.yaml", settings.Params)

    wanted = message.split("\n* ")
    assert len(refused.value.lines) == len(wanted)
    for line, start in zip(refused.value.lines, wanted, strict=True):
        assert line.startswith(f"{tmp_path / 'params.yaml'}: {start}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("at_least: 0.85", "at_most: 0.85", "metric: accuracy needs at_least, and no other limit"),
        ("at_least: 0.85", "at_least: 0.8\n  at_most: 1", "metric: accuracy needs at_least, and no other limit"),
        ("at_least: 0.85", "", "metric: accuracy needs at_least, and no other limit"),
        ("name: accuracy", "name: rmse", "metric: rmse needs at_most, and no other limit"),
        ("name: accuracy", "name: auc", "metric.name: Input should be 'accuracy', 'macro_f1', 'mae', 'rmse' or 'r2'"),
        ("tolerance: 0.05", "tolerance: -1", "metric.tolerance: Input should be greater than or equal to 0, not -1"),
        ("tolerance: 0.05", "tolerance: .nan", "metric.tolerance: Input should be"),
        ("owner: ml-team@example.com", "owner: ''", "owner: String should have at least 1 character, not ''"),
        ("owner: ml-team@example.com", "", "owner: Field required"),
    ],
)
def test_a_wrong_problem_is_one_line_that_names_the_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (PROJECT / "models/lily/problem.yaml").read_text()
    assert old in text
    (tmp_path / "problem.yaml").write_text(text.replace(old, new))

    with pytest.raises(Refused) as refused:
        settings.read(tmp_path / "problem.yaml", settings.Problem)

    (line,) = refused.value.lines
    assert line.startswith(f"{tmp_path / 'problem.yaml'}: {message}")


@pytest.mark.parametrize(("content", "message"), [("", "Input should be a valid dictionary"), ("{", "not YAML: ")])
def test_what_is_no_settings_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(content)

    with pytest.raises(Refused, match=rf"params.yaml: {message}"):
        settings.read(tmp_path / "params.yaml", settings.Params)
    with pytest.raises(Refused, match=r"absent.yaml: No such file or directory; every model has one, see models/"):
        settings.read(tmp_path / "absent.yaml", settings.Params)


@pytest.mark.parametrize(
    ("stage", "file", "old", "new", "message"),
    [
        ("tune", "problem", "name: mae", "name: accuracy", "models/sugar/problem.yaml: metric.name: accuracy is"),
        ("tune", "params", "  ridge:", "  rigde:", "models/sugar/params.yaml: families.rigde: no such family"),
        ("tune", "params", "alpha: {", "alhpa: {", "models/sugar/params.yaml: families.ridge.alhpa: Ridge has no"),
        ("tune", "params", "alpha: {low: 0.1, high: 100.0, log: true}", "alpha: none",
         "models/sugar/params.yaml: families.ridge: {'alpha': 'none'}: The 'alpha' parameter of "),
        ("prepare", "params", "test_size: 0.25", "test_size: 0.9999",
         "models/sugar/params.yaml: prepare.test_size: 0.9999: too few rows to hold out: "),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_model_are_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], stage: str, file: str, old: str, new: str, message: str
) -> None:
    from lifecycle.__main__ import main

    path = workspace / f"models/sugar/{file}.yaml"
    text = path.read_text()
    assert old in text
    if file == "problem":
        text = text.replace("at_most: 52", "at_least: 0.5")
    if stage == "tune":
        assert main(["prepare", "sugar"]) == 0
        capsys.readouterr()
    path.write_text(text.replace(old, new))

    assert main([stage, "sugar"]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("name", "limit", "better", "worse"), [("accuracy", 0.8, 0.9, 0.7), ("mae", 50, 40, 60), ("r2", 0.4, 0.5, 0.3)]
)
def test_a_metric_knows_its_better_side(name: Any, limit: float, better: float, worse: float) -> None:
    given = {"at_most" if name == "mae" else "at_least": limit}
    metric = settings.Metric(name=name, tolerance=0, **given)

    assert metric.holds(better) and metric.holds(limit) and not metric.holds(worse)
    assert metric.gain(worse, better) > 0 > metric.gain(better, worse)
    assert metric.words == f"at {'most' if name == 'mae' else 'least'} {limit:g}"
    assert not metric.holds(float("nan"))


# Preparing


@pytest.mark.parametrize("name", MODELS)
def test_the_split_is_whole_disjoint_and_the_same_again(name: str, data: dict[str, pd.DataFrame]) -> None:
    model, rows = MODELS[name], data[name]
    train, held_out = preparing.split(rows, model, params_of(name).prepare)
    again, _ = preparing.split(rows, model, params_of(name).prepare)
    other, _ = preparing.split(rows, model, settings.Prepare(test_size=0.3, seed=1))

    assert tables.to_csv(train) == tables.to_csv(again) != tables.to_csv(other)
    both = pd.concat([train, held_out])
    assert not both.duplicated().any()
    assert len(both) == len(rows.drop_duplicates())
    if name == "lily":
        assert held_out.species.value_counts().tolist() == [15, 15, 15]


def test_equal_rows_are_kept_once() -> None:
    """Equal measurements of two species are no duplicates: they are what the model cannot know."""
    cells = {feature: [1.0, 1.0, 1.0, *map(float, range(2, 12))] for feature in LILY.features}
    species = ["setosa", "virginica", "setosa", *["setosa"] * 5, *["virginica"] * 5]
    parts = preparing.split(pd.DataFrame(cells | {"species": species}), LILY, settings.Prepare(test_size=0.5, seed=0))

    both = pd.concat(parts)
    assert sorted(both[both.petal_width == 1].species) == ["setosa", "virginica"]
    assert len(both) == 12


# Tuning


ACCURACY = settings.Metric(name="accuracy", at_least=0.5, tolerance=0)
MAE = settings.Metric(name="mae", at_most=100, tolerance=0)


def candidate(family: str, *scores: float) -> tuning.Candidate:
    return tuning.Candidate(family, {"score": scores[0]}, list(scores))


@pytest.mark.parametrize(
    ("metric", "candidates", "chosen"),
    [
        # Within one standard error of the best, on the same folds: the order of the families decides.
        (ACCURACY, [candidate("b", 0.9, 1.0, 0.9), candidate("a", 0.9, 0.9, 0.9)], ("a", 0.9)),
        # 0.1 behind on every fold: the error of that distance is 0.
        (ACCURACY, [candidate("b", 0.9, 1.0, 0.8), candidate("a", 0.8, 0.9, 0.7)], ("b", 0.9)),
        (MAE, [candidate("b", 40, 50, 45), candidate("a", 40, 51, 45)], ("a", 40)),
        (MAE, [candidate("b", 40, 50, 45), candidate("a", 41, 51, 46)], ("b", 40)),
        # Within a family the best one counts, and the first of equals.
        (ACCURACY, [candidate("a", 0.5, 0.5), candidate("a", 0.7, 0.9), candidate("a", 0.8, 0.8)], ("a", 0.7)),
        # A family without a candidate is no choice.
        (ACCURACY, [candidate("b", 0.5, 0.6)], ("b", 0.5)),
    ],
)
def test_the_first_family_that_is_as_good_as_any_is_chosen(
    metric: settings.Metric, candidates: list[tuning.Candidate], chosen: tuple[str, float]
) -> None:
    found = tuning.choose(candidates, ["a", "b"], metric)

    assert (found.family, found.parameters["score"]) == chosen


@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")
def test_the_search_tries_every_family_in_its_budget_and_its_space(data: dict[str, pd.DataFrame]) -> None:
    params = params_of("lily").model_copy(update={"tune": settings.Tune(trials=5, folds=2, seed=3)})
    small = {name: {**space, "n_estimators": 3} for name, space in params.families.items() if "n_estimators" in space}
    params = params.model_copy(update={"families": params.families | small})
    seen: list[int] = []

    def search() -> list[tuning.Candidate]:
        return list(tuning.search(data["lily"], LILY, params, ACCURACY, lambda number, one: seen.append(number)))

    found = search()

    assert seen == [0, 1, 2, 3, 4]
    assert [one.family for one in found[:3]] == list(LILY.families)
    assert all(len(one.scores) == 2 for one in found)
    for one in found:
        assert one.parameters.keys() == params.families[one.family].keys()
        assert 2 <= one.parameters.get("max_depth", 2) <= 8
        assert 0.01 <= one.parameters.get("C", 1) <= 100
    assert search() == found
    table = tuning.table(found)
    assert table.trial.tolist() == [0, 1, 2, 3, 4]
    assert {"family", "score", "spread", "logistic_regression.C"} <= set(table.columns)


# Training and the flavours of every family


def fitted(model: Model, family: str, rows: pd.DataFrame) -> Pipeline:
    small = {"n_estimators": 30} if "forest" in family or "trees" in family or "boosting" in family else {}
    pipeline = tuning.build(model, family, small, seed=1)
    return pipeline.fit(rows[model.features].to_numpy(), rows[model.target].to_numpy())


@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")
@pytest.mark.parametrize(("model", "family"), FAMILIES, ids=lambda value: getattr(value, "name", value))
def test_every_family_can_be_a_version(
    model: Model, family: str, data: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    """ONNX answers as scikit-learn does, also where cells are missing; MLflow's types suffice; the file is a copy."""
    from skops import io as skops

    from lifecycle.tracking import TRUSTED_TYPES

    rows = data[model.name]
    pipeline = fitted(model, family, rows)
    joblib.dump(pipeline, tmp_path / "model.joblib")
    inputs = rows[model.features].to_numpy()

    parity = pack.write_flavours(tmp_path, tmp_path / "model.joblib", pipeline, inputs, inputs)

    assert parity.rows == len(rows) + 20_000
    assert parity.worst_error < 1e-5
    assert np.isnan(inputs).any() == (model is SUGAR)
    assert (tmp_path / "sklearn/model.joblib").read_bytes() == (tmp_path / "model.joblib").read_bytes()
    untrusted = skops.get_untrusted_types(data=skops.dumps(pipeline))
    assert set(untrusted) <= set(TRUSTED_TYPES)


DUMP = """
import hashlib, io, os, sys
from lifecycle import stages
stages.same_arithmetic()
import joblib
from lifecycle import model, tables, tuning
os.chdir(sys.argv[1])
for name in model.names():
    found = model.load(name)
    rows = tables.read(model.Files(name).raw)
    for family in found.families:
        small = {"n_estimators": 5} if "n_estimators" in found.families[family](1)[-1].get_params() else {}
        pipeline = tuning.build(found, family, small, seed=1)
        pipeline.fit(rows[found.features].to_numpy(), rows[found.target].to_numpy())
        written = io.BytesIO()
        joblib.dump(pipeline, written)
        print(name, family, hashlib.sha256(written.getvalue()).hexdigest())
"""


def test_the_joblib_bytes_of_every_family_are_the_same_in_another_process(
    workspace: Path, environment: dict[str, str]
) -> None:
    """In two new ones: where another model was loaded before, pickle shares other strings, and writes other bytes."""
    dump = ["-c", DUMP, str(workspace)]
    variables = environment | {"PYTHONHASHSEED": "6", "PYTHONPATH": str(PROJECT)}
    # The first one has the hashes of PYTHONHASHSEED=1.
    both = (
        warm.run(dump, PROJECT, environment),
        subprocess.run(
            [sys.executable, "-W", "ignore", *dump], cwd=PROJECT, env=variables, capture_output=True, text=True
        ),
    )
    said = [succeeds(one) for one in both]

    assert said[0] == said[1]
    assert {tuple(line.split()[:2]) for line in said[0].splitlines()} == {(one.name, name) for one, name in FAMILIES}


@pytest.mark.parametrize("name", MODELS)
def test_no_prediction_was_made_by_a_pipeline_that_had_seen_the_row(name: str, data: dict[str, pd.DataFrame]) -> None:
    """A single tree remembers its rows: seen ones it would answer without an error."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    tree = DecisionTreeClassifier if name == "lily" else DecisionTreeRegressor
    model = replace(MODELS[name], families={"tree": lambda seed: Pipeline([("model", tree(random_state=seed))])})
    rows = data[name].drop_duplicates(ignore_index=True)
    train, held_out = preparing.split(rows, model, params_of(name).prepare)
    pipeline = training.fit(train, model, {"family": "tree", "parameters": {}}, params_of(name))

    predicted = training.unseen(pipeline, train, held_out, model, params_of(name))

    assert pipeline.score(train[model.features].to_numpy(), train[model.target].to_numpy()) > 0.99
    for where in (True, False):
        part = predicted[predicted.held_out == where]
        assert (part.prediction != part[model.target]).any()
    assert predicted.held_out.sum() == len(held_out)
    assert predicted[model.features].equals(pd.concat([train, held_out])[model.features].reset_index(drop=True))


class Trap:
    """A pickle that is no model and would do something when it is loaded, here: raise."""

    def __reduce__(self) -> Any:
        return (pickle.loads, (b"no pickle",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"not a model: EOFError"),
        (b"garbage", r"not a model: "),
        (b"\x80\x04", r"not a model: "),
        (pickle.dumps({"a": 1}), r"a dict, not a scikit-learn Pipeline"),
        (pickle.dumps(Ridge()), r"a Ridge, not a scikit-learn Pipeline"),
        (pickle.dumps(Trap()), r"not a model: UnpicklingError"),
        (b"cnowhere\nNothing\n.", r"not a model: ModuleNotFoundError"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "model.joblib").write_bytes(content)

    with pytest.raises(Refused, match=rf"model.joblib: {said}.*; `dvc repro` makes it again") as refused:
        training.load(tmp_path / "model.joblib")

    assert len(refused.value.lines) == 1 and "\n" not in refused.value.lines[0]


def test_a_cut_model_and_one_of_another_scikit_learn_are_refused(
    data: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.joblib"
    pipeline = fitted(LILY, "random_forest", data["lily"])
    joblib.dump(pipeline, file)
    assert training.load(file).classes_.tolist() == ["setosa", "versicolor", "virginica"]
    whole = file.read_bytes()

    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refused, match=r"not a model: "):
        training.load(file)

    monkeypatch.setattr("sklearn.base.__version__", "1.4.2")
    joblib.dump(pipeline, file)
    monkeypatch.undo()
    with pytest.raises(Refused, match=r"InconsistentVersionWarning: .* from version 1.4.2 when using version 1.5"):
        training.load(file)


def test_a_table_of_another_stage_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = pd.DataFrame({"a": [0.1 + 0.2, 1e-300, np.nan], "b": ["NA", "null", "x,y"], "c": [True, False, True]})
    tables.write(tmp_path / "table.csv", written)

    pd.testing.assert_frame_equal(tables.read(tmp_path / "table.csv"), written)
    (tmp_path / "table.csv").write_bytes(b"")
    with pytest.raises(Refused, match=r"table.csv: not a table: .*; `dvc repro` makes it again"):
        tables.read(tmp_path / "table.csv")
    with pytest.raises(Refused, match=r"absent.csv: No such file or directory; `dvc repro` makes it"):
        tables.read(tmp_path / "absent.csv")


# Evaluating


def flowers(truth: str, said: str, sure: float = 0.8) -> pd.DataFrame:
    """Rows from initials: their species, and what was predicted with the probability `sure`."""
    names = {"s": "setosa", "v": "versicolor", "w": "virginica"}
    rows = pd.DataFrame({"species": [names[t] for t in truth], "prediction": [names[s] for s in said]})
    for name in names.values():
        rows[f"p_{name}"] = np.where(rows.prediction == name, sure, (1 - sure) / 2)
    return rows


def test_the_measures_of_a_classifier_are_those_of_their_definitions() -> None:
    found = evaluating.measure(flowers("ssvvww", "ssvwww"), LILY)

    assert found["accuracy"] == pytest.approx(5 / 6)
    # setosa 1, versicolor 2 * 1 * 0.5 / 1.5, virginica 2 * (2/3) * 1 / (5/3)
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0.8) / 3)
    assert found["log_loss"] == pytest.approx(-(5 * np.log(0.8) + np.log(0.1)) / 6)


def test_the_measures_of_a_regression_are_those_of_their_definitions() -> None:
    rows = pd.DataFrame({"progression": [100.0, 200, 300], "prediction": [110.0, 190, 330]})
    found = evaluating.measure(rows, SUGAR)

    assert found == pytest.approx({"mae": 50 / 3, "rmse": np.sqrt(1100 / 3), "r2": 1 - 1100 / 20000})
    constant = pd.DataFrame({"progression": [5.0, 5], "prediction": [5.0, 6]})
    assert evaluating.measure(constant, SUGAR)["r2"] == 0


def test_a_label_that_is_never_predicted_counts_as_the_worst() -> None:
    assert evaluating.measure(flowers("sv", "ss"), LILY)["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert evaluating.per_class(flowers("sv", "ss"), LILY)["versicolor"] == {
        "precision": 0, "recall": 0, "f1": 0, "rows": 1,
    }  # fmt: skip


def test_a_probability_of_0_for_the_truth_is_a_large_loss_and_a_finite_one() -> None:
    assert 30 < evaluating.measure(flowers("s", "v", sure=1.0), LILY)["log_loss"] < 40


def test_an_interval_holds_the_value_and_is_the_same_again() -> None:
    rows = flowers("ssssvvvvwwww" * 5, "ssssvvvwwwwv" * 5)
    params = settings.Evaluate(resamples=200, confidence=0.95, seed=1)
    found = evaluating.intervals(rows, LILY, params)

    assert evaluating.intervals(rows, LILY, params) == found
    assert evaluating.intervals(rows, LILY, params.model_copy(update={"seed": 2})) != found
    for one in found.values():
        assert one["low"] < one["value"] < one["high"]
    # The normal approximation of a share: 1.96 * sqrt(p (1 - p) / n), within a few rows of 60.
    spread = 1.96 * np.sqrt(found["accuracy"]["value"] * (1 - found["accuracy"]["value"]) / 60)
    assert found["accuracy"]["value"] - found["accuracy"]["low"] == pytest.approx(spread, abs=3 / 60)
    narrow = evaluating.intervals(rows, LILY, params.model_copy(update={"confidence": 0.6}))["accuracy"]
    assert found["accuracy"]["low"] < narrow["low"] <= narrow["high"] < found["accuracy"]["high"]
    perfect = evaluating.intervals(flowers("svw", "svw"), LILY, params)["accuracy"]
    assert perfect == {"value": 1, "low": 1, "high": 1}


def test_parts_of_the_data_are_measured_by_themselves(data: dict[str, pd.DataFrame]) -> None:
    rows = data["sugar"].assign(prediction=data["sugar"].progression + 10)
    rows.loc[rows.age >= 60, "prediction"] += 20

    found = evaluating.per_slice(rows, SUGAR)

    assert found.keys() == SUGAR.slices.keys()
    assert found["age below 40"] == {
        "rows": int((rows.age < 40).sum()),
        "mae": 10,
        "rmse": 10,
        "r2": found["age below 40"]["r2"],
    }
    assert found["age 60 and above"]["mae"] == 30
    assert found["sex 1"]["rows"] + found["sex 2"]["rows"] == len(rows)
    assert 0 < found["something missing"]["rows"] < len(rows)
    # Too few to say anything.
    assert evaluating.per_slice(rows[rows.age >= 60].head(4), SUGAR)["age 60 and above"] == {"rows": 4}


def test_calibration_and_confusion_count_every_row() -> None:
    rows = flowers("sssvvvwwww", "ssvvvvwwww", sure=0.9)

    calibration = evaluating.calibration(rows, LILY)
    confusion = evaluating.confusion(rows, LILY)

    assert calibration.rows.sum() == 30
    assert calibration.iloc[-1].tolist() == [0.9, 0.9, 10]
    assert calibration.iloc[0].tolist() == [0.05, 0.05, 20]
    assert confusion.rows.sum() == 10
    assert confusion[(confusion.actual == "setosa") & (confusion.predicted == "versicolor")].rows.tolist() == [1]


def test_what_the_model_does_not_look_at_is_unimportant(data: dict[str, pd.DataFrame]) -> None:
    rows = data["lily"].copy()
    rows["sepal_width"] = 3.0
    pipeline = fitted(LILY, "random_forest", rows)

    found = evaluating.importance(pipeline, rows, LILY, ACCURACY, seed=1)

    assert found.feature.tolist()[-1] == "sepal_width" or found.importance.iloc[-1] <= 0
    assert found.set_index("feature").importance["sepal_width"] == 0
    assert found.importance.is_monotonic_decreasing
    assert found.importance.iloc[0] > 0.1


# Comparing


@pytest.fixture(scope="module")
def served(artifacts: Path) -> serving.Model:
    described = manifest.parse((artifacts / "manifest.json").read_bytes(), "manifest.json")
    return serving.load(wanted(artifacts / "onnx", described.digest))


@pytest.fixture
def held_out(trained: Repository) -> pd.DataFrame:
    return tables.read(trained.source / "models/lily/build/evaluation.csv")


class Other:
    """A version that answers what it is told to."""

    def __init__(self, described: manifest.Manifest, answers: list[str]) -> None:
        self.manifest, self.labels, self._answers = described, described.signature.labels, answers

    def predict(self, rows: Any) -> list[serving.Prediction]:
        assert rows.dtype == np.float32
        given = {True: 0.8, False: 0.1}
        return [serving.Prediction(one, {name: given[name == one] for name in self.labels}) for one in self._answers]


def compared(old: Any, new: Any, rows: pd.DataFrame) -> comparing.Comparison:
    params = settings.Evaluate(resamples=100, confidence=0.95, seed=1)
    return comparing.compare(old, new, rows, LILY, problem_of("lily"), params)


def test_a_version_is_as_good_as_itself(served: serving.Model, held_out: pd.DataFrame) -> None:
    found = compared(served, served, held_out)

    assert (found.gain, found.low, found.high) == (0, 0, 0)
    assert found.old == found.new == served.manifest.metrics["accuracy"]
    assert found.same_evaluation_set and found.rows == 45
    comparing.refuse_worse(found, problem_of("lily"))
    assert f"| new version | {served.manifest.version} |" in comparing.table(found)


def test_a_worse_version_is_refused_and_a_better_one_is_not(served: serving.Model, held_out: pd.DataFrame) -> None:
    truth = held_out.species.tolist()
    described = served.manifest.model_copy(update={"version": "2026-03-01-0123456789ab"})
    perfect, worse = Other(described, truth), Other(described, ["setosa"] * 45)

    better = compared(served, perfect, held_out)
    comparing.refuse_worse(better, problem_of("lily"))
    assert better.gain == pytest.approx(1 - served.manifest.metrics["accuracy"], abs=1e-6)
    assert better.low <= better.gain <= better.high

    lost = compared(served, worse, held_out)
    with pytest.raises(Refused) as refused:
        comparing.refuse_worse(lost, problem_of("lily"))
    assert refused.value.lines == (
        f"accuracy: 2026-03-01-0123456789ab has 0.333333 on 45 held-out rows, {served.manifest.version} has"
        " 0.911111: worse by 0.577778, and 0.05 is allowed (problem.yaml: metric.tolerance)",
    )


def test_what_is_allowed_to_be_worse_is_not_refused(served: serving.Model, held_out: pd.DataFrame) -> None:
    """Two of 45 rows are 0.044 of accuracy, three are 0.067; 0.05 is allowed."""
    truth = held_out.species.tolist()
    other = {"setosa": "virginica", "versicolor": "setosa", "virginica": "setosa"}

    def wrong(count: int) -> Other:
        return Other(served.manifest, [*(other[one] for one in truth[:count]), *truth[count:]])

    comparing.refuse_worse(compared(wrong(0), wrong(2), held_out), problem_of("lily"))
    with pytest.raises(Refused, match=r"worse by 0.066667"):
        comparing.refuse_worse(compared(wrong(0), wrong(3), held_out), problem_of("lily"))


def test_other_evaluation_rows_are_told_apart(served: serving.Model, held_out: pd.DataFrame) -> None:
    described = served.manifest.model_copy(update={"evaluation_set_digest": "sha256:" + "0" * 64})

    found = compared(Other(described, held_out.species.tolist()), served, held_out)

    assert not found.same_evaluation_set
    assert found.evaluation_set_digest == served.manifest.evaluation_set_digest


def relabel(new: dict[str, Any], label: str) -> None:
    (given,) = new["signature"]["outputs"]
    given["labels"].append(label)
    given["shape"][1] += 1


def regress(new: dict[str, Any], quantity: str) -> None:
    given = {"name": "value", "datatype": "FP32", "shape": [-1, 1], "quantity": quantity}
    new["signature"]["outputs"] = [given]


def resign(new: dict[str, Any]) -> None:
    """Gives the version the signature.json, and with it the digest, of its signature."""
    text = manifest.dump_signature(manifest.Signature.model_validate(new["signature"]))
    (listed,) = (file for file in new["files"] if file["path"] == manifest.SIGNATURE)
    listed.update(sha256=hashlib.sha256(text).hexdigest(), size=len(text))
    new["digest"] = version_digest((file["path"], file["sha256"]) for file in new["files"])
    new["version"] = manifest.version_name(new["version"][:10], new["digest"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda new: new.update(model="rose"), r"^rose 20.*: not the same model as lily 20"),
        (lambda new: new["signature"]["inputs"].pop(), r"^signature.inputs: .* its callers would be answered wrongly"),
        (lambda new: new["signature"]["inputs"].reverse(), r"^signature.inputs: .* takes petal_width, petal_length"),
        (lambda new: relabel(new, "daisy"), r"^signature.outputs: .*virginica, daisy"),
        (lambda new: regress(new, "length"), r"^signature.outputs: .* answers length, "),
    ],
)
def test_a_version_that_callers_could_not_call_is_refused(artifacts: Path, change: Any, said: str) -> None:
    old = json.loads((artifacts / "manifest.json").read_text())
    new = json.loads(json.dumps(old))
    change(new)
    resign(new)
    before, after = (manifest.parse(json.dumps(one).encode(), "manifest.json") for one in (old, new))

    with pytest.raises(Refused, match=said):
        comparing.refuse_incompatible(before, after)
    comparing.refuse_incompatible(before, before)


def test_an_input_may_become_nullable_and_not_the_other_way(artifacts: Path) -> None:
    strict = json.loads((artifacts / "manifest.json").read_text())
    loose = json.loads(json.dumps(strict))
    loose["signature"]["inputs"][1]["nullable"] = True
    resign(loose)
    before, after = (manifest.parse(json.dumps(one).encode(), "manifest.json") for one in (strict, loose))

    comparing.refuse_incompatible(before, after)
    with pytest.raises(Refused, match=r"needs sepal_width, which callers of .* may leave out; deploy it as an app"):
        comparing.refuse_incompatible(after, before)


# Reporting


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_no_other_file_and_passes_no_html_on() -> None:
    """Names come from people's code: a label or a part of the data may be called anything."""
    found = reporting.html("# A <b> & c\n\n| a |\n| --- |\n| <script>x</script> |\n", {'<i>"plot"': b"\x89PNG"})
    page = Page()
    page.feed(found)

    assert not {"script", "b", "i", "link", "iframe"} & set(page.tags)
    assert page.addresses == ["data:image/png;base64,iVBORw=="]
    assert "<title>A &lt;b&gt; &amp; c</title>" in found
    assert 'alt="&lt;i&gt;&quot;plot&quot;"' in found
    assert {"table", "th", "td", "h1", "h2", "img"} <= set(page.tags)


def test_a_cell_cannot_end_its_column() -> None:
    facts = {"model": "lily", "version": "v"}
    evaluated = {
        "held_out_rows": 9, "confidence": 0.95, "metrics": {"accuracy": {"value": 1.0, "low": 1.0, "high": 1.0}},
        "per_class": {}, "per_slice": {"a|b": {"rows": 1}, "c": {"rows": 5, "accuracy": 1.0}}, "importance": [],
    }  # fmt: skip

    lines = reporting.report(facts, problem_of("lily"), evaluated).splitlines()

    assert r"| a\|b | 1 | - |" in lines
    assert "| c | 5 | 1.0000 |" in lines
    assert "| accuracy | 1.0000 | 1.0000 | 1.0000 |" in lines


# SageMaker


CONTAINER = """
import importlib.util, json, sys
class Only:
    # The container has what requirements.txt says, and its own Python's library.
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in "sklearn pandas scipy joblib onnx pydantic packing serving lifecycle".split():
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Only())
spec = importlib.util.spec_from_file_location("inference", "code/inference.py")
inference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inference)
model = inference.model_fn(".")
for body in json.load(sys.stdin):
    try:
        said = inference.output_fn(inference.predict_fn(inference.input_fn(body, "application/json"), model), "*/*")
    except Exception as error:
        said = [f"{type(error).__name__}: {error}"]
    print(json.dumps(said))
"""


def ask_container(folder: Path, bodies: list[str]) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CONTAINER],
        cwd=folder, input=json.dumps(bodies), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", MODELS)
def test_sagemakers_container_answers_as_the_service_does(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, data: dict[str, pd.DataFrame]
) -> None:
    from fastapi.testclient import TestClient

    from serving.app import create_app
    from serving.state import State

    repository: Repository = request.getfixturevalue("trained" if name == "lily" else "trained_sugar")
    version = repository.source / "artifacts" / name
    with tarfile.open(version / "sagemaker/model.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    assert sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()) == [
        "code/inference.py", "code/requirements.txt", "model.onnx", "signature.json",
    ]  # fmt: skip
    assert [line.partition("==")[0] for line in (tmp_path / "code/requirements.txt").read_text().split()] == [
        "numpy", "onnxruntime",
    ]  # fmt: skip
    rows = data[name][MODELS[name].features].head(40)
    cells = [[None if pd.isna(cell) else cell for cell in row] for row in rows.to_numpy().tolist()]
    assert any(None in row for row in cells) == (name == "sugar")
    wrong = [
        "{}", "[]", '{"features": 1}', '{"features": []}', json.dumps({"features": cells[0][1:]}),
        json.dumps({"features": [cells[0], 1]}), json.dumps({"features": [None, *cells[0][1:]]}),
        json.dumps({"features": [True, *cells[0][1:]]}), json.dumps({"features": ["1", *cells[0][1:]]}),
        json.dumps({"features": [float("nan"), *cells[0][1:]]}), json.dumps({"features": [1e39, *cells[0][1:]]}),
        json.dumps({"features": [10**400, *cells[0][1:]]}),
    ]  # fmt: skip
    bodies = [json.dumps({"features": cells}), json.dumps({"features": cells[0]}), *wrong]

    batch, one, *refused = ask_container(tmp_path, bodies)

    described = repository.manifest(name)
    state = State()
    state.model = serving.load(wanted(version / "onnx", described.digest))
    with TestClient(create_app(state)) as client:
        answers = [client.post("/predict", content=body.encode()) for body in bodies]
    for mine, served in zip((batch, one), answers, strict=False):
        expected = served.json()
        assert expected.pop("model_version") == described.version
        assert [json.loads(mine[0]), mine[1]] == [expected, "application/json"]
    assert [served.status_code for served in answers[2:]] == [422] * len(wrong)
    assert all(said[0].startswith("ValueError: ") for said in refused), refused


def test_what_the_container_installs_is_made_for_its_python(artifacts: Path) -> None:
    """That of the image in docs/sagemaker.md; older ones fail on the requirements."""
    with tarfile.open(artifacts / "sagemaker/model.tar.gz") as archive:
        needed = archive.extractfile("code/requirements.txt")
        assert needed
        pins = dict(line.decode().split("==") for line in needed.read().splitlines())

    for name, pin in pins.items():
        described = metadata.metadata(name)
        assert described["Version"] == pin
        assert SpecifierSet(described["Requires-Python"]).contains("3.12")
        assert not SpecifierSet(described["Requires-Python"]).contains("3.9")


def test_another_content_type_is_refused() -> None:
    from packing.sagemaker import inference

    with pytest.raises(ValueError, match=r"Content-Type: 'text/csv' is not application/json"):
        inference.input_fn("1,2", "text/csv")
    assert inference.input_fn('{"features": [1]}', "application/json; charset=utf-8") == [1]


def test_the_archive_has_the_same_bytes_twice(artifacts: Path, tmp_path: Path) -> None:
    described = manifest.parse((artifacts / "manifest.json").read_bytes(), "manifest.json")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_bytes((artifacts / "onnx/model.onnx").read_bytes())

    pack.write_sagemaker(tmp_path, described.signature)

    content = (tmp_path / "sagemaker/model.tar.gz").read_bytes()
    assert content == (artifacts / "sagemaker/model.tar.gz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert {(one.mtime, one.uid, one.uname, one.mode) for one in archive} == {(0, 0, "", 0o644)}

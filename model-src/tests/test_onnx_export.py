from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from contract.errors import Refused
from packing import labels, onnx_export

FEATURES, TARGET = load_iris(return_X_y=True)
SPECIES = np.array(["setosa", "versicolor", "virginica"])[TARGET]


def fitted(*steps: Any) -> Pipeline:
    forest = RandomForestClassifier(n_estimators=20, random_state=0, n_jobs=1)
    return Pipeline([*((f"step{i}", step) for i, step in enumerate(steps)), ("forest", forest)]).fit(FEATURES, SPECIES)


@pytest.mark.parametrize("steps", [(), (VarianceThreshold(),), (VarianceThreshold(0.3),)])
def test_selection_and_a_forest_agree_on_every_row(steps: tuple[Any, ...]) -> None:
    pipeline = fitted(*steps)
    rows = np.vstack([FEATURES, onnx_export.generated_rows(pipeline, FEATURES)])

    parity = onnx_export.check_parity(pipeline, onnx_export.export(pipeline, 4), rows)

    assert parity.rows == 20_150
    assert parity.worst_error < 1e-6


def test_the_bytes_do_not_depend_on_the_order_of_a_set() -> None:
    """The converter collects the operator sets in one."""
    model = onnx.load_from_string(onnx_export.export(fitted(), 4))

    assert [opset.domain for opset in model.opset_import] == ["", "ai.onnx.ml"]


def test_arithmetic_before_trees_is_refused() -> None:
    """A scaler in single precision moves rows across thresholds."""
    pipeline = fitted(StandardScaler())
    rows = onnx_export.generated_rows(pipeline, FEATURES)

    with pytest.raises(Refused, match=r"disagree on \d+ of 20000 rows, \d+ with another label; worst .* do no arith"):
        onnx_export.check_parity(pipeline, onnx_export.export(pipeline, 4), rows)


@pytest.mark.parametrize("scaled", [False, True])
def test_only_arithmetic_in_some_columns_of_a_regression_is_refused(scaled: bool) -> None:
    """Where cells are missing, and beside a column of codes."""
    random = np.random.default_rng(0)
    features = np.column_stack([FEATURES[:, :3], random.integers(1, 3, len(FEATURES))])
    features[random.random(len(features)) < 0.1, 1] = np.nan
    numbers = Pipeline([("fill", SimpleImputer()), *([("scale", StandardScaler())] if scaled else [])])
    prepare = ColumnTransformer([("numbers", numbers, [0, 1, 2]), ("codes", OneHotEncoder(), [3])])
    model = GradientBoostingRegressor(n_estimators=20, random_state=0)
    pipeline = Pipeline([("prepare", prepare), ("model", model)]).fit(features, FEATURES[:, 3])
    rows = onnx_export.generated_rows(pipeline, features)

    assert np.isnan(rows[:, 1]).any() and not np.isnan(rows[:, 0]).any()
    assert set(rows[:, 3]) == {1, 2}
    if scaled:
        with pytest.raises(
            Refused, match=r"disagree on \d+ of 20000 rows; worst difference, as a share of the largest"
        ):
            onnx_export.check_parity(pipeline, onnx_export.export(pipeline, 4), rows)
    else:
        assert onnx_export.check_parity(pipeline, onnx_export.export(pipeline, 4), rows).worst_error < 1e-6


def test_half_of_the_numbers_in_every_second_row_lie_at_a_threshold() -> None:
    pipeline = fitted(VarianceThreshold(0.3))
    rows = onnx_export.generated_rows(pipeline, FEATURES)
    trees = [tree.tree_ for tree in pipeline[-1].estimators_]
    # Column 1, sepal width, varies least and is not selected; column 2 is the forest's second.
    thresholds = np.concatenate([tree.threshold[tree.feature == 1] for tree in trees])

    exact = np.isin(rows[:, 2], thresholds)

    assert 0 < exact[::2].mean() < 0.5
    assert not exact[1::2].any()


def test_the_model_takes_features_and_gives_strings() -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_export.export(fitted(), 4), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    label, probabilities = session.get_outputs()

    assert (given.name, given.type, given.shape) == ("features", "tensor(float)", [None, 4])
    assert (label.name, label.type) == ("label", "tensor(string)")
    assert (probabilities.name, probabilities.type) == ("probabilities", "tensor(float)")


def test_a_tie_goes_to_the_first_class() -> None:
    """Also when rounding has moved the second one ahead by less than the tolerance."""
    probabilities = np.array([[0.5, 0.5, 0], [0.499_999, 0.500_001, 0], [0.4, 0.6, 0], [0, 0.5, 0.5]])

    assert labels.choose(probabilities).tolist() == [0, 0, 1, 1]

"""What Evidently makes of a window: the scores that are judged, and the HTML for people."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from evidently import BinaryClassification, DataDefinition, Dataset, MulticlassClassification, Regression, Report
from evidently.legacy.calculations.stattests import StatTest
from evidently.legacy.calculations.stattests.registry import register_stattest
from evidently.legacy.core import ColumnType
from evidently.metrics import (
    MAE,
    RMSE,
    Accuracy,
    F1Score,
    MissingValueCount,
    OutRangeValueCount,
    ValueDrift,
)
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, root_mean_squared_error

from monitoring import drift
from monitoring.drift import ALPHA, PREDICTION, TARGET, Check, Outcome

HTML, QUALITY_HTML = "report.html", "quality.html"


def _contingency(
    reference: pd.Series, current: pd.Series, feature_type: ColumnType, threshold: float
) -> tuple[float, bool]:
    p_value = drift.contingency(reference, current)[1]
    return p_value, p_value <= threshold


register_stattest(
    StatTest("contingency", "chi-square test of homogeneity, p-value", [ColumnType.Categorical]), _contingency
)


def judge(
    reference: pd.DataFrame, current: pd.DataFrame, inputs: Sequence[str], *, labels: bool, out: Path
) -> list[Check]:
    """The checks of `monitoring.drift` by Evidently's scores and counts, and report.html in `out`.

    Frames as for `drift.compare`.
    """
    checks = drift.number_of_checks(len(inputs))
    threshold = ALPHA / checks
    test = "contingency" if labels else "ks"
    metrics: list[ValueDrift | MissingValueCount | OutRangeValueCount] = [
        ValueDrift(column=PREDICTION, method=test, threshold=threshold)
    ]
    for name in inputs:
        metrics.append(MissingValueCount(column=name))
        # Evidently refuses a column without any value; that it has none is found by the check of missing values.
        if drift.has_values(current, name) and drift.has_values(reference, name):
            least, greatest = float(reference[name].min()), float(reference[name].max())
            metrics += [
                ValueDrift(column=name, method="ks", threshold=threshold),
                OutRangeValueCount(column=name, left=least, right=greatest),
            ]
    columns = {"numerical_columns": [*inputs], "categorical_columns": []}
    columns["categorical_columns" if labels else "numerical_columns"].append(PREDICTION)
    definition = DataDefinition(**columns)
    run = Report(metrics).run(_dataset(current, definition), _dataset(reference, definition))
    run.save_html(str(out / HTML))
    outcomes = []
    for metric, result in zip(metrics, run.dict()["metrics"], strict=True):
        name, value = metric.column, result["value"]
        if isinstance(metric, ValueDrift):
            function = drift.contingency if metric.method == "contingency" else drift.ks
            statistic, _ = function(reference[name], current[name])
            outcomes.append(Outcome(name, "values", str(metric.method), statistic, float(value)))
        elif isinstance(metric, MissingValueCount):
            outcomes.append(drift.missing(name, reference, int(value["count"]), len(current)))
        else:
            outcomes.append(drift.outside(name, reference, int(value["count"]), int(current[name].notna().sum())))
    return drift.decide(outcomes, checks)


def measure(reference: pd.DataFrame, current: pd.DataFrame, *, labels: bool, out: Path) -> dict[str, dict[str, float]]:
    """The quality of the rows of `current`, all of which have a target, and of the reference: by metric, `current` and
    `reference`. `accuracy` and `macro_f1` of labels, `mae` and `rmse` of numbers. Writes quality.html into `out`."""
    now, before = (
        frame[[PREDICTION, TARGET]].astype(str if labels else float).reset_index(drop=True)
        for frame in (current, reference)
    )
    _quality(before, now, labels=labels).save_html(str(out / QUALITY_HTML))
    functions: dict[str, Any] = {"mae": mean_absolute_error, "rmse": root_mean_squared_error}
    if labels:
        # A label that was neither predicted nor true in these rows is no part of the mean.
        functions = {"accuracy": accuracy_score, "macro_f1": partial(f1_score, average="macro", zero_division=0)}
    return {
        name: {
            place: float(function(frame[TARGET], frame[PREDICTION]))
            for place, frame in (("current", now), ("reference", before))
        }
        for name, function in functions.items()
    }


def _quality(before: pd.DataFrame, now: pd.DataFrame, *, labels: bool) -> Any:
    """Evidently's run of a quality report."""
    columns = [PREDICTION, TARGET]
    if not labels:
        definition = DataDefinition(
            numerical_columns=columns, regression=[Regression(target=TARGET, prediction=PREDICTION)]
        )
        return Report([MAE(), RMSE()]).run(_dataset(now, definition), _dataset(before, definition))
    found, known = ({*frame[PREDICTION], *frame[TARGET]} for frame in (now, before))
    # Rows in which two labels occur are a binary question to Evidently, however many the model has, and it cannot
    # compare them with rows in which there are others.
    task: BinaryClassification | MulticlassClassification
    if len(found) == 2:
        task = BinaryClassification(target=TARGET, prediction_labels=PREDICTION, pos_label=max(found))
    else:
        task = MulticlassClassification(target=TARGET, prediction_labels=PREDICTION)
    compared = found == known or 2 not in (len(found), len(known))
    definition = DataDefinition(categorical_columns=columns, classification=[task])
    return Report([Accuracy(), F1Score()]).run(
        _dataset(now, definition), _dataset(before, definition) if compared else None
    )


def _dataset(frame: pd.DataFrame, definition: DataDefinition) -> Dataset:
    wanted = [*(definition.numerical_columns or []), *(definition.categorical_columns or [])]
    return Dataset.from_pandas(frame[wanted], data_definition=definition)

"""What is measured on the held-out rows.

Confidence intervals are percentiles of the metric over resamples of the held-out rows, drawn with replacement
(B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics

from lifecycle.model import Model
from lifecycle.settings import Evaluate, Metric
from lifecycle.training import PREDICTION, PROBABILITY

Measures = dict[str, float]
FEWEST_IN_SLICE = 5
"""A slice with fewer held-out rows is counted and not measured."""


def measure(rows: pd.DataFrame, model: Model) -> Measures:
    """Of rows with predictions. A classifier: accuracy, macro_f1, log_loss (natural logarithm); a regression: mae,
    rmse in the target's unit, and r2."""
    return _measures(model)(rows)


def _measures(model: Model) -> Callable[[pd.DataFrame], Measures]:
    if model.kind == "regression":
        return lambda rows: _regression(rows[model.target].to_numpy(), rows[PREDICTION].to_numpy())
    return lambda rows: _classification(rows, model.target)


def _classification(rows: pd.DataFrame, target: str) -> Measures:
    names = labels_of(rows)
    truth, said = rows[target].to_numpy(), rows[PREDICTION].to_numpy()
    probabilities = rows[[f"{PROBABILITY}{name}" for name in names]].to_numpy()
    # A probability of 0 for what is true would be an infinite loss.
    true_ones = probabilities[np.arange(len(rows)), [names.index(name) for name in truth]].clip(1e-15)
    # A part of the data may have rows of some labels only.
    counted = [((truth == name) & (said == name), (truth == name).sum() + (said == name).sum()) for name in names]
    return {
        "accuracy": float((truth == said).mean()),
        # 2 TP / (2 TP + FP + FN). A label that is never predicted has 0: the worst, so that no gate takes it for good.
        # In numpy: it is done a thousand times for an interval, and scikit-learn takes a millisecond each time.
        "macro_f1": float(np.mean([2 * right.sum() / count for right, count in counted if count])),
        "log_loss": float(-np.log(true_ones).mean()),
    }


def _regression(truth: NDArray[np.float64], said: NDArray[np.float64]) -> Measures:
    errors = said - truth
    spread = float(((truth - truth.mean()) ** 2).sum())
    return {
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
        "r2": 1 - float((errors**2).sum()) / spread if spread else 0.0,
    }


def labels_of(rows: pd.DataFrame) -> list[str]:
    """The labels of a classifier's predictions, in the order of its probabilities."""
    return [str(name).removeprefix(PROBABILITY) for name in rows.columns if str(name).startswith(PROBABILITY)]


def intervals(rows: pd.DataFrame, model: Model, params: Evaluate) -> dict[str, dict[str, float]]:
    """By metric, its `value`, and `low` and `high` of its confidence interval."""
    random = np.random.default_rng(params.seed)
    drawn = [measure(rows.iloc[random.integers(len(rows), size=len(rows))], model) for _ in range(params.resamples)]
    outside = (1 - params.confidence) / 2 * 100
    found = {}
    for name, value in measure(rows, model).items():
        low, high = np.percentile([one[name] for one in drawn], [outside, 100 - outside])
        found[name] = {"value": _rounded(value), "low": _rounded(low), "high": _rounded(high)}
    return found


def per_class(rows: pd.DataFrame, model: Model) -> dict[str, dict[str, float]]:
    names = labels_of(rows)
    scores = metrics.precision_recall_fscore_support(
        rows[model.target], rows[PREDICTION], labels=names, zero_division=0.0
    )
    columns = ("precision", "recall", "f1", "rows")
    return {
        name: {
            column: int(scores[position][index]) if column == "rows" else _rounded(scores[position][index])
            for position, column in enumerate(columns)
        }
        for index, name in enumerate(names)
    }


def per_slice(rows: pd.DataFrame, model: Model) -> dict[str, dict[str, float]]:
    found = {}
    for name, belongs in model.slices.items():
        part = rows[belongs(rows)]
        measured = measure(part, model) if len(part) >= FEWEST_IN_SLICE else {}
        found[name] = {"rows": len(part), **{metric: _rounded(value) for metric, value in measured.items()}}
    return found


def calibration(rows: pd.DataFrame, model: Model, parts: int = 5) -> pd.DataFrame:
    """How often a label is true where it is given a probability: cells by parts of the probability, over all labels."""
    names = labels_of(rows)
    given = rows[[f"{PROBABILITY}{name}" for name in names]].to_numpy().ravel()
    true = (rows[model.target].to_numpy()[:, None] == np.array(names)[None, :]).ravel()
    part = np.minimum((given * parts).astype(int), parts - 1)
    return pd.DataFrame(
        [
            {"probability": _rounded(given[part == p].mean()), "share_true": _rounded(true[part == p].mean()),
             "rows": int((part == p).sum())}
            for p in range(parts) if (part == p).any()
        ]
    )  # fmt: skip


def confusion(rows: pd.DataFrame, model: Model) -> pd.DataFrame:
    """A row for each pair of true and predicted label, with how many held-out rows there are of it."""
    names = labels_of(rows)
    counts = metrics.confusion_matrix(rows[model.target], rows[PREDICTION], labels=names)
    return pd.DataFrame(
        [
            {"actual": actual, "predicted": predicted, "rows": int(counts[i, j])}
            for i, actual in enumerate(names)
            for j, predicted in enumerate(names)
        ]
    )


def importance(pipeline: Any, rows: pd.DataFrame, model: Model, metric: Metric, seed: int) -> pd.DataFrame:
    """By how much the problem's metric gets worse when a column is shuffled among the held-out rows, the most
    important first: a measure that every family of models has (L. Breiman, "Random forests", Machine Learning 45,
    2001). Mean and standard deviation of 10 shuffles."""
    from sklearn.inspection import permutation_importance

    from lifecycle.tuning import SCORINGS

    found = permutation_importance(
        pipeline, rows[model.features].to_numpy(), rows[model.target].to_numpy(),
        scoring=SCORINGS[metric.name], n_repeats=10, random_state=seed,
    )  # fmt: skip
    table = pd.DataFrame(
        {
            "feature": model.features,
            "importance": [_rounded(value) for value in found.importances_mean],
            "spread": [_rounded(value) for value in found.importances_std],
        }
    )
    return table.sort_values(["importance", "feature"], ascending=[False, True], ignore_index=True)


def _rounded(value: float) -> float:
    """To what is worth comparing: the digits beyond differ between machines."""
    return round(float(value), 6)


def residuals(rows: pd.DataFrame, model: Model) -> pd.DataFrame:
    """A regression's held-out rows: the true value, the predicted one."""
    found = rows[[model.target, PREDICTION]].round(6)
    return found.rename(columns={model.target: "actual", PREDICTION: "predicted"})

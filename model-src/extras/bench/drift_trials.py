"""How often drift is found where there is some, and where there is none: our checks beside other ways.

Each trial is a window of 200 rows of flowers and a reference of 150, both with a forest's predictions; in every second
one, one measurement of the window is shifted by one standard deviation, up or down. Trials are seeded by their number.

  fisher   the reference is Fisher's flowers, the window draws from them with replacement
  fresh    both are drawn anew from three normal distributions with Fisher's means and covariances, to a millimetre:
           then the reference has its own chance in it

  python -m extras.bench.drift_trials
  python -m extras.bench.drift_trials --trials 1000 --rows 100
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from monitoring import drift

FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
SPECIES = ["setosa", "versicolor", "virginica"]
# In centimetres. The original measurements are rounded to it, and none is smaller.
MILLIMETRE = 0.1

REFERENCE_ROWS, WINDOW_ROWS = 150, 200
DATA = ("fisher", "fresh")

Way = Callable[[pd.DataFrame, pd.DataFrame], bool]


class Flowers:
    def __init__(self) -> None:
        self.features, target = load_iris(return_X_y=True)
        self._forest = RandomForestClassifier(20, max_depth=6, min_samples_leaf=2, random_state=0)
        self._forest.fit(self.features, target)
        kinds = [self.features[target == kind] for kind in range(len(SPECIES))]
        self._means = np.array([kind.mean(axis=0) for kind in kinds])
        self._roots = np.array([np.linalg.cholesky(np.cov(kind.T)) for kind in kinds])

    def trial(self, data: str, seed: int, rows: int, *, shifted: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
        """A reference and a window."""
        random = np.random.default_rng(seed)
        reference = self.features if data == "fisher" else self._fresh(random, REFERENCE_ROWS)
        drawn = random.integers(len(self.features), size=rows)
        window = self.features[drawn] if data == "fisher" else self._fresh(random, rows)
        if shifted:
            window = window.copy()
            # Each measurement in each direction equally often.
            column, sign = seed % len(FEATURES), 1 if seed // len(FEATURES) % 2 else -1
            moved = window[:, column] + sign * self.features[:, column].std()
            window[:, column] = moved.round(1)
        return self._frame(reference), self._frame(window)

    def _fresh(self, random: np.random.Generator, rows: int) -> NDArray[np.float64]:
        kinds = random.integers(len(self._means), size=rows)
        noise = random.normal(size=(rows, len(FEATURES)))
        drawn = self._means[kinds] + np.einsum("rij,rj->ri", self._roots[kinds], noise)
        fresh: NDArray[np.float64] = np.clip(drawn.round(1), MILLIMETRE, None)
        return fresh

    def _frame(self, features: NDArray[np.float64]) -> pd.DataFrame:
        frame = pd.DataFrame(features, columns=FEATURES)
        frame[drift.PREDICTION] = np.array(SPECIES)[self._forest.predict(features)]
        return frame


def ours(reference: pd.DataFrame, window: pd.DataFrame) -> bool:
    return any(check.drifted for check in drift.compare(reference, window, FEATURES, labels=True))


def ks_bonferroni(reference: pd.DataFrame, window: pd.DataFrame) -> bool:
    return _least_p_value(reference, window) <= 0.05 / len(FEATURES)


def ks_uncorrected(reference: pd.DataFrame, window: pd.DataFrame) -> bool:
    return _least_p_value(reference, window) <= 0.05


def evidently_defaults(reference: pd.DataFrame, window: pd.DataFrame) -> bool:
    """What Evidently chooses by itself for samples of this size: KS, and a chi-square test of the prediction that takes
    the reference's shares for the truth, each at 0.05."""
    labels = sorted({*reference[drift.PREDICTION]})
    before, now = (
        (frame[drift.PREDICTION].value_counts().reindex(labels, fill_value=0)) for frame in (reference, window)
    )
    expected = before * now.sum() / before.sum()
    return min(_least_p_value(reference, window), float(stats.chisquare(now, expected).pvalue)) <= 0.05


def _least_p_value(reference: pd.DataFrame, window: pd.DataFrame) -> float:
    return min(drift.ks(reference[name], window[name])[1] for name in FEATURES)


WAYS: Mapping[str, Way] = {
    "ours, 13 checks in all at 0.01": ours,
    "KS, in all at 0.05 (Bonferroni)": ks_bonferroni,
    "KS, each at 0.05": ks_uncorrected,
    "Evidently's defaults, any column": evidently_defaults,
}


def rates(
    flowers: Flowers, data: str, trials: int, rows: int, ways: Mapping[str, Way] = WAYS
) -> dict[str, tuple[float, float]]:
    """By way: the share of trials without a shift that raise an alarm, and of those with one."""
    alarms = {way: [0, 0] for way in ways}
    for seed in range(trials):
        for shifted in (False, True):
            frames = flowers.trial(data, seed, rows, shifted=shifted)
            for name, way in ways.items():
                alarms[name][shifted] += way(*frames)
    return {name: (false / trials, found / trials) for name, (false, found) in alarms.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m extras.bench.drift_trials",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trials", type=int, default=200, help="with a shift, and as many without (%(default)s)")
    parser.add_argument("--rows", type=int, default=WINDOW_ROWS, help="in a window (%(default)s)")
    args: Any = parser.parse_args(argv)
    flowers = Flowers()
    print(f"{'data':7} {'way':33} false alarms  detected")
    for data in DATA:
        for way, (false, found) in rates(flowers, data, args.trials, args.rows).items():
            print(f"{data:7} {way:33} {false:12.1%} {found:9.1%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

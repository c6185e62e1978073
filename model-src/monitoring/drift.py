"""The statistics: which columns of a window differ from the reference by more than chance.

Every check gives a p-value: how often two samples of one source would differ as much. An alarm is any check at or below
its threshold, and the thresholds share ALPHA equally among all checks (Bonferroni), so that a window in which nothing
has changed raises a false alarm with a probability of at most ALPHA, however many columns there are and however they
depend on each other.

The tests take both samples for what they are, samples: with a reference of 150 rows, a test that takes its shares for
the truth (as Evidently's `chisquare` does) is alarmed by the reference's own chance in 6 to 16 of 100 windows. Ties,
which measurements rounded to a millimetre have many of, make all of them more cautious and never less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

ALPHA = 0.01
"""Probability of a false alarm in a window, at most."""
MIN_ROWS = 100
"""A shift of one standard deviation in one measurement of flowers is found in 99 of 100 windows of so many rows, and in
93 of 100 windows of 50 (`python -m extras.bench.drift_trials`)."""
PREDICTION, TARGET = "prediction", "target"
_EXPECTED = 5
"""The least expected count for which the chi-square approximation is taken (Cochran, "Some methods for strengthening
the common chi-square tests", Biometrics 10, 1954)."""
_RESAMPLES = 19_999


@dataclass(frozen=True)
class Outcome:
    """What one check found in one column, before it is known how many others there are."""

    column: str
    of: str
    """`values`, `missing` (how many are missing) or `range` (how many lie outside the range of the reference)."""
    test: str
    statistic: float
    p_value: float


@dataclass(frozen=True)
class Check(Outcome):
    threshold: float
    drifted: bool


def decide(outcomes: Sequence[Outcome], checks: int, alpha: float = ALPHA) -> list[Check]:
    """`checks` is how many there are for a window of this model, whether or not each could be made."""
    threshold = alpha / checks
    return [Check(**vars(found), threshold=threshold, drifted=found.p_value <= threshold) for found in outcomes]


def number_of_checks(inputs: int) -> int:
    """Values, missing and range of every input, and the values of the prediction."""
    return 3 * inputs + 1


def compare(reference: pd.DataFrame, current: pd.DataFrame, inputs: Sequence[str], *, labels: bool) -> list[Check]:
    """All checks of a window, without Evidently.

    Both frames have the columns `inputs` (float64, NaN where missing) and `prediction`, which is a label or, if not
    `labels`, a number.
    """
    outcomes = []
    for name in inputs:
        if has_values(current, name) and has_values(reference, name):
            outcomes.append(Outcome(name, "values", "ks", *ks(reference[name], current[name])))
        outcomes += [
            missing(name, reference, int(current[name].isna().sum()), len(current)),
            outside(name, reference, *_outside(reference[name], current[name])),
        ]
    test, function = ("contingency", contingency) if labels else ("ks", ks)
    outcomes.append(Outcome(PREDICTION, "values", test, *function(reference[PREDICTION], current[PREDICTION])))
    return decide(outcomes, number_of_checks(len(inputs)))


def has_values(frame: pd.DataFrame, name: str) -> bool:
    return bool(frame[name].notna().any())


def ks(reference: pd.Series, current: pd.Series) -> tuple[float, float]:
    """Statistic and p-value of the two-sample Kolmogorov-Smirnov test, missing values left out."""
    found = stats.ks_2samp(reference.dropna(), current.dropna())
    return float(found.statistic), float(found.pvalue)


def contingency(reference: pd.Series, current: pd.Series) -> tuple[float, float]:
    """Statistic and p-value of the chi-square test of homogeneity: two samples of labels have the same shares.

    Where a label is too rare for the approximation, the p-value comes from seeded random tables with the same margins.
    """
    table = _counts(reference, current)
    if table.shape[1] < 2:
        return 0.0, 1.0
    rare = bool((stats.contingency.expected_freq(table) < _EXPECTED).any())
    method = stats.MonteCarloMethod(n_resamples=_RESAMPLES, rng=np.random.default_rng(0)) if rare else None
    found = stats.chi2_contingency(table, correction=False, method=method)
    return float(found.statistic), float(found.pvalue)


def _counts(reference: pd.Series, current: pd.Series) -> NDArray[np.int64]:
    labels = sorted({*reference, *current})
    return np.array([[int((column == label).sum()) for label in labels] for column in (reference, current)])


def missing(name: str, reference: pd.DataFrame, count: int, rows: int) -> Outcome:
    """Fisher's exact test of how many of the window's `rows` miss this column; the statistic is their share."""
    before = int(reference[name].isna().sum())
    table = [[before, len(reference) - before], [count, rows - count]]
    return Outcome(name, "missing", "fisher", count / rows, float(stats.fisher_exact(table).pvalue))


def outside(name: str, reference: pd.DataFrame, count: int, values: int) -> Outcome:
    """Whether more of the window's `values` lie outside the range of the reference's n than chance puts there.

    If both are samples of one source, the share of it below the least and above the greatest of n values follows the
    distribution Beta(2, n - 1), so the count follows the beta-binomial one (Wilks, "Statistical prediction with special
    reference to the problem of tolerance limits", Annals of Mathematical Statistics 13, 1942). The statistic is the
    share.
    """
    known = int(reference[name].notna().sum())
    if not values or known < 2:
        return Outcome(name, "range", "beta-binomial", 0.0, 1.0)
    p_value = float(stats.betabinom.sf(count - 1, values, 2, known - 1))
    return Outcome(name, "range", "beta-binomial", count / values, p_value)


def _outside(reference: pd.Series, current: pd.Series) -> tuple[int, int]:
    known = current.dropna()
    return int((~known.between(reference.min(), reference.max())).sum()), len(known)

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from extras.bench.drift_trials import DATA, WINDOW_ROWS, Flowers, ours, rates
from monitoring import drift

TRIALS = 200


@pytest.fixture(scope="module")
def flowers() -> Flowers:
    return Flowers()


@pytest.mark.parametrize("data", DATA)
def test_drift_is_found_where_it_is_and_seldom_where_it_is_not(flowers: Flowers, data: str) -> None:
    """Any alarm in a window without a shift is a false one; a shift is one standard deviation of one measurement."""
    [(false, found)] = rates(flowers, data, TRIALS, WINDOW_ROWS, {"ours": ours}).values()

    assert false <= 0.02
    assert found >= 0.95


def test_the_checks_share_the_false_alarms() -> None:
    found = drift.decide([drift.Outcome("a", "values", "ks", 0.1, p) for p in (0.0009, 0.0011)], checks=10)

    assert [(check.threshold, check.drifted) for check in found] == [(0.001, True), (0.001, False)]


def test_a_prediction_is_compared_as_a_sample_with_a_sample() -> None:
    reference, current = labels(50, 50, 50), labels(90, 60, 50)

    statistic, p_value = drift.contingency(reference, current)

    expected = stats.chi2_contingency([[50, 50, 50], [90, 60, 50]], correction=False)
    assert (statistic, p_value) == pytest.approx((expected.statistic, expected.pvalue))
    # Evidently's own test takes the reference for the truth, and is surer than it may be.
    assert p_value > 10 * stats.chisquare([90, 60, 50], np.full(3, 200 / 3)).pvalue


def labels(*counts: int) -> pd.Series:
    return pd.Series([name for name, count in zip("abcdef", counts, strict=False) for _ in range(count)])


def test_rare_labels_are_compared_by_tables_at_random() -> None:
    """Fisher's exact test says what is right for two labels."""
    reference, current = labels(148, 2), labels(180, 20)

    _, p_value = drift.contingency(reference, current)

    exact = stats.fisher_exact([[148, 2], [180, 20]]).pvalue
    assert exact / 2 < p_value < exact * 2
    assert drift.contingency(reference, current)[1] == p_value
    assert drift.contingency(labels(10), labels(20)) == (0.0, 1.0)


def test_a_label_that_is_new_is_drift() -> None:
    assert drift.contingency(labels(75, 75), labels(80, 80, 40))[1] < 1e-6


def test_the_range_is_left_as_often_as_chance_says() -> None:
    """The p-value of one draw is the share of draws that leave the range at least as often."""
    random = np.random.default_rng(1)
    before, now = random.normal(size=(4000, 150)), random.normal(size=(4000, 200))
    outside = ((now < before.min(axis=1)[:, None]) | (now > before.max(axis=1)[:, None])).sum(axis=1)

    for count in (1, 5, 10):
        found = drift.outside("a", pd.DataFrame({"a": before[0]}), count, 200)
        assert found.p_value == pytest.approx(float((outside >= count).mean()), abs=0.03)


def test_missing_values_that_become_more_are_drift() -> None:
    reference = pd.DataFrame({"a": [1.0] * 140 + [None] * 10})

    assert drift.missing("a", reference, 14, 200).p_value > 0.5
    assert drift.missing("a", reference, 60, 200).p_value < 1e-6


@pytest.mark.parametrize("empty", ["reference", "current"])
def test_a_column_without_values_is_judged_by_what_is_missing(empty: str) -> None:
    frame = pd.DataFrame({"a": np.linspace(0, 1, 150), drift.PREDICTION: ["x"] * 150})
    frames = {"reference": frame, "current": frame} | {empty: frame.assign(a=np.nan)}

    checks = drift.compare(frames["reference"], frames["current"], ["a"], labels=True)

    assert [(check.column, check.of) for check in checks if check.drifted] == [("a", "missing")]

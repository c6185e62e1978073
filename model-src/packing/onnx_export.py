"""A scikit-learn pipeline as ONNX, and the proof that both answer alike.

The joblib file is for servers that run scikit-learn, the ONNX file for the one that does not; a version holds both,
so they have to be one model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import Refused
from packing import labels

# Fixed, so that neither a newer skl2onnx nor a newer onnx changes a model's bytes; the oldest that covers it is the
# one that most runtimes read.
OPSET = {"": 18, "ai.onnx.ml": 3}
GENERATED_ROWS = 20_000
CODES = 10
"""A column with at most so many different values holds codes, not measurements."""


@dataclass(frozen=True)
class Parity:
    """What was compared, and the worst difference: of a probability, or of a value as a share of the largest one."""

    rows: int
    worst_error: float


def is_classifier(pipeline: Any) -> bool:
    return hasattr(pipeline, "predict_proba")


def export(pipeline: Any, inputs: int) -> bytes:
    """The fitted `pipeline` as an ONNX model, the same bytes for the same pipeline.

    Input `features`, float32 of shape [rows, `inputs`], NaN where a value is missing. Outputs of a classifier:
    `label`, strings of shape [rows], and `probabilities`, float32 of shape [rows, classes] in the order of
    `pipeline.classes_`; of a regression: `value`, float32 of shape [rows, 1].
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    classifier = is_classifier(pipeline)
    model = convert_sklearn(
        pipeline,
        # A graph without a name gets a random one.
        name="model",
        initial_types=[("features", FloatTensorType([None, inputs]))],
        final_types=[("label", None), ("probabilities", None)] if classifier else [("value", None)],
        options={"zipmap": False} if classifier else None,
        target_opset=OPSET,
    )
    # The converter keeps them in a set, whose order changes with PYTHONHASHSEED.
    opsets = sorted(model.opset_import, key=lambda opset: str(opset.domain))
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return bytes(model.SerializeToString(deterministic=True))


def check_parity(pipeline: Any, model: bytes, rows: NDArray[np.float64]) -> Parity:
    """Compares the pipeline and its ONNX model on `rows`, of shape [rows, inputs].

    Each gets a row as its server gets it from the same JSON: scikit-learn in double precision, ONNX in single.
    Raises Refused when a probability differs by more than `labels.TOLERANCE` or a label, chosen on both sides by
    `labels.choose`, at all; or when a value differs by more than that share of the largest value.
    """
    from packing import runtime

    session = runtime.session(model)
    classifier = is_classifier(pipeline)
    (got,) = session.run(["probabilities" if classifier else "value"], {"features": rows.astype(np.float32)})
    if classifier:
        expected = pipeline.predict_proba(rows)
        scale = 1.0
        relabelled = labels.choose(expected) != labels.choose(got)
    else:
        expected = pipeline.predict(rows).reshape(-1, 1)
        scale = float(np.abs(expected).max()) or 1.0
        relabelled = np.zeros(len(rows), dtype=bool)
    errors = np.abs(expected - got).max(axis=1) / scale
    # Written so that a NaN on either side is a disagreement.
    wrong = ~(errors <= labels.TOLERANCE) | relabelled
    if wrong.any():
        other = (
            f", {int(relabelled.sum())} with another label; worst difference of a probability"
            if classifier
            else ("; worst difference, as a share of the largest value,")
        )
        raise Refused(
            f"ONNX and scikit-learn disagree on {int(wrong.sum())} of {len(rows)} rows{other} {errors.max():.2g},"
            f" allowed {labels.TOLERANCE:g}. Trees compare float32 numbers: do no arithmetic on features before them"
        )
    return Parity(len(rows), float(errors.max()))


def generated_rows(pipeline: Any, data: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Rows to compare on, of shape [GENERATED_ROWS, inputs]: spread over the ranges of `data` and a tenth beyond. A
    column with few different values has no others; one with missing values misses a tenth.

    Where the pipeline ends in trees, half of the numbers in every second row are a threshold of some tree or its
    float32 neighbour, which is where a tree in single precision goes the wrong way first.
    """
    random = np.random.default_rng(seed)
    low, high = np.nanmin(data, axis=0), np.nanmax(data, axis=0)
    margin = (high - low) / 10
    low, high = low - margin, high + margin
    rows = random.uniform(low, high, (GENERATED_ROWS, data.shape[1]))
    known = [np.unique(column[~np.isnan(column)]) for column in data.T]
    for column, values in enumerate(known):
        if len(values) <= CODES:
            rows[:, column] = random.choice(values, GENERATED_ROWS)
            # No thresholds are looked for between codes: an encoder may refuse one that it does not know.
            low[column] = high[column] = values[0]
    # A view: what is written into it is written into the rows.
    every_second = rows[::2]
    for column, near in _near_thresholds(pipeline, low, high).items():
        chosen = random.random(len(every_second)) < 0.5
        every_second[chosen, column] = random.choice(near, int(chosen.sum()))
    missing = np.isnan(data).any(axis=0)
    rows[(random.random(rows.shape) < 0.1) & missing] = np.nan
    return rows


def _near_thresholds(
    pipeline: Any, low: NDArray[np.float64], high: NDArray[np.float64]
) -> dict[int, NDArray[np.float64]]:
    """By input column, the numbers between `low` and `high` that the steps before the trees bring to a threshold, and
    their neighbours in single precision."""
    trees = [tree.tree_ for tree in np.ravel(getattr(pipeline[-1], "estimators_", []))]
    if not trees:
        return {}
    transform = pipeline[:-1].transform if len(pipeline) > 1 else np.array
    features = np.concatenate([tree.feature for tree in trees])
    thresholds = np.concatenate([tree.threshold for tree in trees])
    found: dict[int, NDArray[np.float64]] = {}
    for column in range(len(low)):
        ends = np.array([low, low])
        ends[1, column] = high[column]
        least, most = transform(ends)
        for position in np.flatnonzero(least != most):
            aims = np.unique(thresholds[features == position])
            aims = aims[(aims > min(least[position], most[position])) & (aims < max(least[position], most[position]))]
            exact = _preimages(transform, low, high, column, int(position), aims)
            single = exact.astype(np.float32)
            near = [exact, single, *(np.nextafter(single, np.float32(towards)) for towards in (-np.inf, np.inf))]
            found[column] = np.concatenate([found.get(column, np.empty(0)), *near])
    return {column: near for column, near in found.items() if len(near)}


def _preimages(
    transform: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    column: int,
    position: int,
    aims: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The numbers in `column` of a row that `transform` brings to `aims` in `position`, by bisection: to the last digit
    where it rises or falls throughout."""
    rows = np.tile(low, (len(aims), 1))
    below, above = np.full(len(aims), low[column]), np.full(len(aims), high[column])
    rises = transform(np.array([low]))[0, position] < (aims[0] if len(aims) else 0)
    # So many halvings end at two neighbouring doubles.
    for _ in range(64 if len(aims) else 0):
        rows[:, column] = (below + above) / 2
        short = (transform(rows)[:, position] <= aims) == rises
        below, above = np.where(short, rows[:, column], below), np.where(short, above, rows[:, column])
    return below

"""A scikit-learn pipeline as ONNX, and the proof that both answer alike.

The joblib file is for servers that run scikit-learn, the ONNX file for the one that does not; a version holds both,
so they have to be one model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing import Refused, labels

# Fixed, so that neither a newer skl2onnx nor a newer onnx changes a model's bytes; the oldest that covers it is the
# one that most runtimes read.
OPSET = {"": 18, "ai.onnx.ml": 3}
GENERATED_ROWS = 20_000


@dataclass(frozen=True)
class Parity:
    """What was compared, and the worst difference of a probability."""

    rows: int
    worst_error: float


def export(pipeline: Any, inputs: int) -> bytes:
    """The fitted classifier `pipeline` as an ONNX model, the same bytes for the same pipeline.

    Input `features`, float32 of shape [rows, `inputs`]; outputs `label`, strings of shape [rows], and
    `probabilities`, float32 of shape [rows, classes] in the order of `pipeline.classes_`.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    model = convert_sklearn(
        pipeline,
        # A graph without a name gets a random one.
        name="model",
        initial_types=[("features", FloatTensorType([None, inputs]))],
        final_types=[("label", None), ("probabilities", None)],
        options={"zipmap": False},
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
    `labels.choose`, at all.
    """
    from onnxruntime import InferenceSession

    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    (got,) = session.run(["probabilities"], {"features": rows.astype(np.float32)})
    expected = pipeline.predict_proba(rows)
    errors = np.abs(expected - got).max(axis=1)
    relabelled = labels.choose(expected) != labels.choose(got)
    # Written so that a NaN on either side is a disagreement.
    wrong = ~(errors <= labels.TOLERANCE) | relabelled
    if wrong.any():
        raise Refused(
            f"ONNX and scikit-learn disagree on {int(wrong.sum())} of {len(rows)} rows, {int(relabelled.sum())} with"
            f" another label; worst difference of a probability {errors.max():.2g}, allowed {labels.TOLERANCE:g}."
            " Trees compare float32 numbers: do no arithmetic on features before them"
        )
    return Parity(len(rows), float(errors.max()))


def generated_rows(pipeline: Any, data: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Rows to compare on, of shape [GENERATED_ROWS, inputs]: spread over the ranges of `data` and a tenth beyond.

    Where the pipeline ends in trees, half of the numbers in every second row are a threshold of some tree or its
    float32 neighbour, which is where a tree in single precision goes the wrong way first.
    """
    random = np.random.default_rng(seed)
    low, high = data.min(axis=0), data.max(axis=0)
    margin = (high - low) / 10
    rows = random.uniform(low - margin, high + margin, (GENERATED_ROWS, data.shape[1]))
    trees = [tree.tree_ for tree in getattr(pipeline[-1], "estimators_", [])]
    before = pipeline[:-1]
    # Thresholds are numbers of the last step's input; rows are the first step's.
    if trees and (len(before) == 0 or hasattr(before, "inverse_transform")):
        features = np.concatenate([tree.feature for tree in trees])
        thresholds = np.concatenate([tree.threshold for tree in trees])
        inner = rows[::2] if len(before) == 0 else before.transform(rows[::2])
        for column in range(inner.shape[1]):
            known = np.unique(thresholds[features == column])
            if len(known) == 0:
                continue
            near = np.concatenate([known, *(np.nextafter(known.astype(np.float32), np.float32(x)) for x in (0, 1e9))])
            chosen = random.random(len(inner)) < 0.5
            inner[chosen, column] = random.choice(near, int(chosen.sum()))
        rows[::2] = inner if len(before) == 0 else before.inverse_transform(inner)
    return rows

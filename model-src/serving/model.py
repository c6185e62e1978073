"""A model version that was verified, and what it predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract import version
from contract.digest import MANIFEST
from contract.errors import Refused
from contract.manifest import Manifest
from packing import labels, runtime
from serving.settings import Wanted
from serving.source import open_source

MODEL_FILE = "model.onnx"
NO_ANSWER = "the model has no finite answer for this row; are its numbers in the right units?"
# What single precision and ONNX Runtime's sums may leave of a probability.
_SLACK = 1e-3


@dataclass(frozen=True)
class Prediction:
    answer: str | float
    """A label, or the number that a regression gives."""
    probabilities: dict[str, float] | None
    """By label; None for a regression."""


class _Misshapen(ValueError):
    """What the model gives is not what its signature has."""


class Model:
    """An ONNX model with the manifest of its version."""

    def __init__(self, described: Manifest, content: bytes) -> None:
        """Raises Refused unless `content` is an ONNX model with the manifest's signature."""
        self.manifest = described
        self.kind = described.kind
        self.labels = described.signature.labels
        self.inputs = len(described.signature.inputs)
        try:
            # One row takes microseconds: handing it to other threads costs more than it saves.
            self._session = runtime.session(content, threads=1)
            # Not one row alone: a logarithm has no answer for zero.
            tried = self.predict(np.outer([0, 0.5, 1, 100], np.ones(self.inputs)).astype(np.float32))
        except _Misshapen:
            needed = "a probability for each label" if self.labels else "one number a row, the value"
            raise Refused(f"{MODEL_FILE}: does not give {needed} of the signature in {MANIFEST}") from None
        # onnxruntime's exceptions have no common base of their own.
        except Exception as error:
            raise Refused(f"{MODEL_FILE}: not a model that can be run: {' '.join(str(error).split())}") from None
        if not any(tried):
            raise Refused(f"{MODEL_FILE}: has no finite answer for any of {len(tried)} rows; train another")

    def predict(self, rows: NDArray[np.float32]) -> list[Prediction | None]:
        """One prediction a row; `rows` has shape [rows, inputs], in the signature's order. None where the model gives
        infinity or NaN, or what is no distribution of probabilities: that would be an answer to nothing."""
        name, width = ("probabilities", len(self.labels)) if self.labels else ("value", 1)
        (given,) = self._session.run([name], {"features": rows})
        if given.shape != (len(rows), width):
            raise _Misshapen(f"{name} of shape {given.shape}, not {(len(rows), width)}")
        if not self.labels:
            # Of the seven digits of a float32 the last one depends on how many rows are asked for at once.
            return [
                Prediction(float(f"{value:.6g}"), None) if math.isfinite(value) else None
                for value in given[:, 0].tolist()
            ]
        return [
            # The digits that packing has compared with scikit-learn's, and no more.
            Prediction(self.labels[chosen], {k: round(v, 5) for k, v in zip(self.labels, row, strict=True)})
            if sound
            else None
            for chosen, row, sound in zip(labels.choose(given), given.tolist(), _sound(given), strict=True)
        ]


def _sound(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Of each row whether it is a distribution; `probabilities` has shape [rows, labels]."""
    # With NaN in it, each of these is false.
    within = ((probabilities >= -_SLACK) & (probabilities <= 1 + _SLACK)).all(axis=1)
    answer: NDArray[np.bool_] = within & (np.abs(probabilities.sum(axis=1) - 1) <= _SLACK)
    return answer


def load(wanted: Wanted) -> Model:
    """The model of a version, once every byte of it is known to belong to the version that is wanted.

    Nothing is believed before it is checked: the manifest must be signed with the key, if there is one, its list of
    files must give the digest, its version must be the one that the place names, and the model's bytes must have the
    size and the SHA-256 of the list. Raises Refused when they do not, and Unavailable, from the source, when it
    is worth trying again.
    """
    source = open_source(wanted.uri, wanted.replica)
    described = version.read_manifest(source.read, wanted.expected, source.uri)
    path = f"{source.flavour}/{MODEL_FILE}"
    if not described.file(path):
        raise Refused(f"{MANIFEST}: lists no {path}; MODEL_URI has to end in the folder of the ONNX model")
    return Model(described, version.read_file(source.read, described, path))

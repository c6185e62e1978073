"""A model version that was verified, and what it predicts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from packing import Refused, labels, manifest
from packing.digest import MANIFEST
from packing.manifest import Manifest
from serving import signature
from serving.signature import Key
from serving.source import Source

MODEL_FILE = "model.onnx"
MANIFEST_LIMIT = 1 << 20
"""Bytes. A manifest has a few thousand; what is larger is not read."""


@dataclass(frozen=True)
class Prediction:
    answer: str | float
    """A label, or the number that a regression gives."""
    probabilities: dict[str, float] | None
    """By label; None for a regression."""


class _Misshapen(ValueError):
    """What the model gives is not what its signature says."""


class Model:
    """An ONNX model with the manifest of its version."""

    def __init__(self, described: Manifest, content: bytes) -> None:
        """Raises Refused unless `content` is an ONNX model with the manifest's signature."""
        self.manifest = described
        self.kind = described.kind
        self.labels = described.signature.outputs.labels or []
        self.inputs = len(described.signature.inputs)
        options = onnxruntime.SessionOptions()
        # One row takes microseconds: handing it to other threads costs more than it saves.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self.predict(np.zeros((1, self.inputs), dtype=np.float32))
        except _Misshapen:
            needed = "a probability for each label" if self.labels else "one number a row, the value"
            raise Refused(f"{MODEL_FILE}: does not give {needed} of the signature in {MANIFEST}") from None
        # onnxruntime's exceptions have no common base of their own.
        except Exception as error:
            raise Refused(f"{MODEL_FILE}: not a model that can be run: {' '.join(str(error).split())}") from None

    def predict(self, rows: NDArray[np.float32]) -> list[Prediction]:
        """One prediction a row; `rows` has shape [rows, inputs], in the signature's order."""
        name, width = ("probabilities", len(self.labels)) if self.labels else ("value", 1)
        (given,) = self._session.run([name], {"features": rows})
        if given.shape != (len(rows), width):
            raise _Misshapen(f"{name} of shape {given.shape}, not {(len(rows), width)}")
        if not self.labels:
            # Of the seven digits of a float32 the last one depends on how many rows are asked for at once.
            return [Prediction(float(f"{value:.6g}"), None) for value in given[:, 0].tolist()]
        return [
            # The digits that packing has compared with scikit-learn's, and no more.
            Prediction(self.labels[chosen], {k: round(v, 5) for k, v in zip(self.labels, row, strict=True)})
            for chosen, row in zip(labels.choose(given), given.tolist(), strict=True)
        ]


def load(source: Source, digest: str, key: Key | None = None) -> Model:
    """The model in `source`, once every byte of it is known to belong to the version with this digest.

    Nothing is believed before it is checked: the manifest must be signed with `key`, if one is given, its list of files
    must give `digest`, its version must be the one that the place names, and the model's bytes must have the size and
    the SHA-256 that the list says. Raises Refused when they do not, and Unavailable, from the source, when it is worth
    trying again.
    """
    text = source.read(MANIFEST, MANIFEST_LIMIT)
    if len(text) > MANIFEST_LIMIT:
        raise Refused(f"{MANIFEST}: larger than {MANIFEST_LIMIT} bytes, so it is none")
    if key:
        signature.require(source, text, key)
    described = manifest.parse(text, MANIFEST)
    # parse() has compared the digest in the manifest with its list of files.
    if described.digest != digest:
        raise Refused(
            f"{MANIFEST}: the version's digest is {described.digest}, but MODEL_DIGEST is {digest};"
            " the release and the stored version disagree, so it is not served"
        )
    if source.place and source.place != (described.model, described.version):
        raise Refused(
            f"{MANIFEST}: is of {described.model} {described.version}, but MODEL_URI names {' '.join(source.place)}"
        )
    path = f"{source.flavour}/{MODEL_FILE}"
    listed = described.file(path)
    if not listed:
        raise Refused(f"{MANIFEST}: lists no {path}; MODEL_URI has to end in the folder of the ONNX model")
    content = source.read(path, listed.size)
    if len(content) != listed.size:
        found = f"more than {listed.size}" if len(content) > listed.size else str(len(content))
        raise Refused(f"{path}: size: {found} bytes, but {MANIFEST} says {listed.size}; it was altered or cut short")
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != listed.sha256:
        raise Refused(f"{path}: sha256: {sha256}, but {MANIFEST} says {listed.sha256}; it was altered")
    return Model(described, content)

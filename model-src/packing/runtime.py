"""ONNX Runtime, which is imported here and nowhere else."""

from __future__ import annotations

import os

# Read when it is imported; without it, it makes an identifier of this machine and sends what it counts.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnxruntime import InferenceSession, SessionOptions


def session(model: bytes, threads: int = 0) -> InferenceSession:
    """Runs an ONNX model on the CPU, with as many threads as the machine has cores if 0. Raises what ONNX Runtime does,
    whose exceptions have no common base of their own, when `model` is none."""
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])

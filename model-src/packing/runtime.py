"""ONNX Runtime, which is imported here and nowhere else."""

from __future__ import annotations

import os

# Read when it is imported; without it, it makes an identifier of this machine and sends what it counts.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnxruntime import InferenceSession, SessionOptions

# No folder can be here. ONNX Runtime looks for data outside the model's bytes nowhere else, so what no digest covers is
# never read; without it, initializers of subgraphs and sparse ones come from the working folder.
NOWHERE = "/dev/null/none"


def session(model: bytes, threads: int = 0) -> InferenceSession:
    """Runs an ONNX model on the CPU, with as many threads as the machine has cores if 0. Raises what ONNX Runtime does,
    whose exceptions have no common base of their own, when `model` is none or keeps data in other files."""
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NOWHERE)
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])

"""What SageMaker's scikit-learn container runs: the four functions that it looks for, over the ONNX model.

The container brings a scikit-learn of another line than the model's, and an older Python; ONNX depends on neither.
Requests and answers are those of the HTTP service.
"""

import json
import os
from pathlib import Path
from typing import Any, Tuple

import numpy as np

# Read when it is imported, and without it ONNX Runtime sends what it counts.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

# As packing/labels.py: classes within this distance of the best one are tied, and the first one counts.
TOLERANCE = 1e-5
LARGEST = float(np.finfo(np.float32).max)


def model_fn(model_dir: str) -> Any:
    folder = Path(model_dir)
    signature = json.loads((folder / "signature.json").read_text())
    options = onnxruntime.SessionOptions()
    # As packing/runtime.py: no folder can be here, so nothing outside the model's bytes is read.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/dev/null/none")
    model = (folder / "model.onnx").read_bytes()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), signature


def input_fn(body: Any, content_type: str) -> Any:
    if content_type.partition(";")[0].strip() != "application/json":
        raise ValueError(f"Content-Type: {content_type!r} is not application/json")
    request = json.loads(body)
    if not isinstance(request, dict) or not isinstance(request.get("features"), list):
        raise ValueError('the body has to be {"features": [...]}, with one row or a list of rows')
    return request["features"]


def predict_fn(features: Any, model: Any) -> Any:
    session, signature = model
    single = not (features and isinstance(features[0], list))
    rows = [features] if single else features
    width = len(signature["inputs"])
    for row in rows:
        if not isinstance(row, list):
            raise ValueError(f"features: {row!r:.80} among rows, not a row")
        if len(row) != width:
            raise ValueError(f"features: {len(row)} numbers, but the model takes {width}")
        for column, value in zip(signature["inputs"], row):
            if value is None and not column["nullable"]:
                raise ValueError(f"features: null, but the model needs a number for {column['name']}")
            if value is not None and not _is_number(value):
                raise ValueError(f"features: {value!r:.80} for {column['name']}, not a number")
    array = np.array(rows, dtype=np.float32)
    labels = signature["outputs"][0].get("labels")
    if labels:
        (given,) = session.run(["probabilities"], {"features": array})
        chosen = (given >= given.max(axis=1, keepdims=True) - TOLERANCE).argmax(axis=1)
        answers = [
            {"prediction": labels[index], "probabilities": {k: round(v, 5) for k, v in zip(labels, row)}}
            for index, row in zip(chosen, given.tolist())
        ]
    else:
        (given,) = session.run(["value"], {"features": array})
        answers = [{"prediction": float(f"{value:.6g}")} for value in given[:, 0].tolist()]
    return answers[0] if single else {"predictions": answers}


def _is_number(value: Any) -> bool:
    """Whether single precision has it: json reads NaN, Infinity and 1e39 too."""
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST


def output_fn(answer: Any, accept: str) -> Tuple[str, str]:
    return json.dumps(answer), "application/json"

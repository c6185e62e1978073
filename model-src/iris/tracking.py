"""The MLflow run of a training."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from packing import Refused

EXPERIMENT = "iris_rf_experiment"
REGISTERED_MODEL = "IrisRFModel"

# skops, the format that MLflow writes a scikit-learn model in, loads only types that are named. This one is what a
# forest is made of.
TRUSTED_TYPES = ["sklearn.tree._tree.Tree"]


def record(
    pipeline: Pipeline,
    example: NDArray[np.float64],
    params: dict[str, Any],
    metrics: dict[str, float],
    tags: dict[str, str],
    texts: dict[str, str],
    requirements: list[str],
    registered_as: str | None,
) -> str:
    """Records one run in the tracking server of MLFLOW_TRACKING_URI, or in mlflow.db, and returns its id.

    `example`, of shape [rows, inputs], shows what the model takes; `texts` are artifacts by file name; `requirements`
    are what loading the model needs (left to itself MLflow finds out by running it, for ten seconds). The model
    becomes a version of the registered model `registered_as`, with the same tags. Raises Refused when MLflow fails.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    with _quiet():
        import mlflow
        import mlflow.sklearn
        from mlflow.exceptions import MlflowException
        from mlflow.models import infer_signature

        try:
            mlflow.set_tracking_uri(uri)
            mlflow.set_experiment(EXPERIMENT)
            with mlflow.start_run(run_name=tags["version"], tags=tags) as run:
                mlflow.log_params(params)
                mlflow.log_metrics(metrics)
                for name, text in texts.items():
                    mlflow.log_text(text, name)
                logged = mlflow.sklearn.log_model(
                    pipeline,
                    name="model",
                    signature=infer_signature(example, pipeline.predict(example)),
                    input_example=example,
                    pip_requirements=requirements,
                    serialization_format="skops",
                    skops_trusted_types=TRUSTED_TYPES,
                )
            if registered_as:
                mlflow.register_model(logged.model_uri, registered_as, tags=tags)
        except MlflowException as error:
            raise Refused(f"MLflow at {uri} (MLFLOW_TRACKING_URI): {' '.join(str(error).split())}") from None
    return str(run.info.run_id)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what MLflow says about itself off the terminal; failures are exceptions."""
    # Read on import. Nobody who trains a model has agreed to be counted.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A server that is away is reported within seconds instead of minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)

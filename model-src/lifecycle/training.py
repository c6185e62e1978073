"""The chosen pipeline, fitted on the training rows, and what it predicts of rows that it has not seen."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline

from contract.errors import Refused
from lifecycle import tuning
from lifecycle.model import Model
from lifecycle.settings import Params
from packing import labels

# Beside the columns of the data in predictions.csv.
HELD_OUT, PREDICTION, PROBABILITY = "held_out", "prediction", "p_"


def fit(train: pd.DataFrame, model: Model, tuned: dict[str, Any], params: Params) -> Pipeline:
    pipeline = tuning.build(model, tuned["family"], tuned["parameters"], params.train.seed)
    pipeline.fit(train[model.features].to_numpy(), train[model.target].to_numpy())
    return pipeline


def answers(pipeline: Pipeline, rows: NDArray[np.float64], model: Model) -> pd.DataFrame:
    """What the service answers to `rows`, of shape [rows, inputs]: the prediction and, of a classifier, a column with
    the probability of each label."""
    if model.kind == "regression":
        return pd.DataFrame({PREDICTION: pipeline.predict(rows)})
    return _classified(pipeline.predict_proba(rows), pipeline.classes_)


def _classified(probabilities: NDArray[np.float64], classes: NDArray[np.str_]) -> pd.DataFrame:
    predicted = {PREDICTION: classes[labels.choose(probabilities)]}
    return pd.DataFrame(predicted | {f"{PROBABILITY}{name}": probabilities[:, i] for i, name in enumerate(classes)})


def unseen(
    pipeline: Pipeline, train: pd.DataFrame, held_out: pd.DataFrame, model: Model, params: Params
) -> pd.DataFrame:
    """All rows with what is predicted of each by a pipeline that was not fitted on it: the training rows by
    cross-validation, the held-out rows by `pipeline` itself."""
    cuts = tuning.folds(model, params.tune.folds, params.tune.seed)
    features, target = train[model.features].to_numpy(), train[model.target].to_numpy()
    if model.kind == "regression":
        crossed = pd.DataFrame({PREDICTION: cross_val_predict(pipeline, features, target, cv=cuts)})
    else:
        probabilities = cross_val_predict(pipeline, features, target, cv=cuts, method="predict_proba")
        crossed = _classified(probabilities, pipeline.classes_)
    parts = [(train, crossed, False), (held_out, answers(pipeline, held_out[model.features].to_numpy(), model), True)]
    return pd.concat(
        [
            pd.concat([rows.reset_index(drop=True), predicted], axis=1).assign(**{HELD_OUT: where})
            for rows, predicted, where in parts
        ],
        ignore_index=True,
    )


def load(path: Path) -> Pipeline:
    """A pipeline that the stage `train` has written. Raises Refused when the file is none, or one of another
    scikit-learn."""
    remedy = "`dvc repro` makes it again"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            found = joblib.load(path)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; {remedy}") from None
    # An unpickler fails in as many ways as there are wrong bytes.
    except Exception as error:
        raise Refused(
            f"{path}: not a model: {type(error).__name__}: {' '.join(str(error).split())}; {remedy}"
        ) from None
    if not isinstance(found, Pipeline):
        raise Refused(f"{path}: a {type(found).__name__}, not a scikit-learn Pipeline; {remedy}")
    return found

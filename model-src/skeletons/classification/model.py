"""What may be learned from the data, and how it is measured. To be written: families and slices for your own data."""

from __future__ import annotations

from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from lifecycle.model import Model
from models.NAME.schema import SCHEMA

# Nothing is computed from the measurements before trees: they compare float32 numbers, and arithmetic before them
# rounds differently in scikit-learn and in ONNX, which moves rows across thresholds. Trees gain nothing from it anyway.


def random_forest(seed: int) -> Pipeline:
    # n_jobs is written into the joblib file: the number of this machine's cores must not change its bytes.
    return Pipeline([("model", RandomForestClassifier(random_state=seed, n_jobs=1))])


def extra_trees(seed: int) -> Pipeline:
    return Pipeline([("model", ExtraTreesClassifier(random_state=seed, n_jobs=1))])


def logistic_regression(seed: int) -> Pipeline:
    return Pipeline(
        [("scale", StandardScaler()), ("model", LogisticRegression(max_iter=1000, random_state=seed, n_jobs=1))]
    )


MODEL = Model(
    name="NAME",
    kind="classification",
    target="species",
    schema=SCHEMA,
    families={
        "random_forest": random_forest,
        "extra_trees": extra_trees,
        "logistic_regression": logistic_regression,
    },
    slices={
        "long petals": lambda rows: rows["petal_length"] > 4.5,
        "narrow sepals": lambda rows: rows["sepal_width"] < 3.0,
    },
)

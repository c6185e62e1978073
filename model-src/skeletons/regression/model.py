"""What may be learned from the data, and how it is measured. To be written: families and slices for your own data."""

from __future__ import annotations

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lifecycle.model import Model
from models.NAME.schema import SCHEMA

TARGET = "progression"
INPUTS = [name for name in SCHEMA.columns if name != TARGET]
CODED = [INPUTS.index("sex")]
NUMBERS = [position for position in range(len(INPUTS)) if position not in CODED]


def _prepared(*, scaled: bool) -> ColumnTransformer:
    """Missing numbers become the median; trees get all others as they are, because arithmetic before trees rounds
    differently in scikit-learn and in ONNX."""
    steps = [("fill", SimpleImputer(strategy="median")), *([("scale", StandardScaler())] if scaled else [])]
    return ColumnTransformer(
        [
            ("numbers", Pipeline(steps), NUMBERS),
            ("codes", OneHotEncoder(categories=[[1.0, 2.0]], handle_unknown="ignore", sparse_output=False), CODED),
        ]
    )


def ridge(seed: int) -> Pipeline:
    return Pipeline([("prepare", _prepared(scaled=True)), ("model", Ridge(random_state=seed))])


def random_forest(seed: int) -> Pipeline:
    return Pipeline(
        [("prepare", _prepared(scaled=False)), ("model", RandomForestRegressor(random_state=seed, n_jobs=1))]
    )


def gradient_boosting(seed: int) -> Pipeline:
    return Pipeline([("prepare", _prepared(scaled=False)), ("model", GradientBoostingRegressor(random_state=seed))])


MODEL = Model(
    name="NAME",
    kind="regression",
    target=TARGET,
    schema=SCHEMA,
    families={"ridge": ridge, "random_forest": random_forest, "gradient_boosting": gradient_boosting},
    slices={
        "age below 40": lambda rows: rows["age"] < 40,
        "age 60 and above": lambda rows: rows["age"] >= 60,
        "sex 1": lambda rows: rows["sex"] == 1,
        "sex 2": lambda rows: rows["sex"] == 2,
        "something missing": lambda rows: rows[INPUTS].isna().any(axis=1),
    },
)

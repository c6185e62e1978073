"""What a model's own code says of it; everything else about the lifecycle is the same for all models."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packing import Refused
from packing.manifest import Kind

if TYPE_CHECKING:
    import pandas as pd
    from pandera.pandas import DataFrameSchema
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True)
class Model:
    """One learning problem. It is named MODEL in `<name>/model.py`."""

    name: str
    kind: Kind
    target: str
    """The column that is predicted; every other one of the schema is an input, in the schema's order."""
    schema: DataFrameSchema
    """One row of raw data: types, ranges, categories, which cells may be empty, how many rows may be equal."""
    families: Mapping[str, Callable[[int], Pipeline]]
    """By name, what makes a pipeline of this family, not fitted, from a seed. Its last step is called `model`."""
    slices: Mapping[str, Callable[[pd.DataFrame], pd.Series[bool]]]
    """By name, which rows belong to a part of the data that is measured by itself."""

    @property
    def features(self) -> list[str]:
        return [name for name in self.schema.columns if name != self.target]

    def nullable(self, feature: str) -> bool:
        return bool(self.schema.columns[feature].nullable)


@dataclass(frozen=True)
class Files:
    """Where a model's files lie, relative to model-src/, where every command runs."""

    model: str

    def __getattr__(self, name: str) -> Path:
        try:
            return Path(self.model) / _FILES[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def version(self) -> Path:
        return Path("artifacts") / self.model

    @property
    def reports(self) -> Path:
        return Path("reports") / self.model


_FILES = {
    "problem": "problem.yaml",
    "params": "params.yaml",
    "pipeline": "dvc.yaml",
    "accepted": "accepted.json",
    "dictionary": "data_dictionary.md",
    "raw": "data/raw.csv",
    "validation": "build/validation.json",
    "train": "build/train.csv",
    "evaluation": "build/evaluation.csv",
    "tuned": "build/tuned.json",
    "trials": "plots/trials.csv",
    "fitted": "build/model.joblib",
    "predictions": "build/predictions.csv",
    "evaluated": "build/evaluation.json",
    "metrics": "metrics.json",
    "plots": "plots",
    "package": "build/package",
}


def names() -> list[str]:
    """The models of this project."""
    return sorted(file.parent.name for file in Path().glob("*/problem.yaml"))


def load(name: str) -> Model:
    """Raises Refused unless there is such a model here."""
    if name not in names():
        known = ", ".join(names()) or "none; run the command in model-src/"
        raise Refused(f"{name!r}: no such model here; there is {known}")
    found = importlib.import_module(f"{name}.model").MODEL
    assert isinstance(found, Model)
    return found

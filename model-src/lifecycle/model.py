"""What a model's own code says of it; everything else about the lifecycle is the same for all models."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import Refused
from contract.manifest import Kind, Signature, signature_of

if TYPE_CHECKING:
    import pandas as pd
    from pandera.pandas import DataFrameSchema
    from sklearn.pipeline import Pipeline


ROOM = Path("models")
"""The models' folder, and the package that they are in."""


@dataclass(frozen=True)
class Model:
    """One learning problem. It is named MODEL in `models/<name>/model.py`."""

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

    def signature(self, labels: Sequence[str]) -> Signature:
        """What a version takes and gives; `labels` in the order of a classifier's probabilities."""
        inputs = [(name, bool(self.schema.columns[name].nullable)) for name in self.features]
        return signature_of(inputs, quantity=self.target) if self.kind == "regression" else signature_of(inputs, labels)


class Files:
    """Where a model's files lie, relative to model-src/, where every command runs."""

    def __init__(self, model: str) -> None:
        folder = ROOM / model
        self.schema = folder / "schema.py"
        self.problem = folder / "problem.yaml"
        self.params = folder / "params.yaml"
        self.pipeline = folder / "dvc.yaml"
        self.accepted = folder / "accepted.json"
        self.dictionary = folder / "data_dictionary.md"
        self.raw = folder / "data/raw.csv"
        self.validation = folder / "build/validation.json"
        self.train = folder / "build/train.csv"
        self.evaluation = folder / "build/evaluation.csv"
        self.tuned = folder / "build/tuned.json"
        self.trials = folder / "plots/trials.csv"
        self.fitted = folder / "build/model.joblib"
        self.predictions = folder / "build/predictions.csv"
        self.evaluated = folder / "build/evaluation.json"
        self.metrics = folder / "metrics.json"
        self.plots = folder / "plots"
        self.package = folder / "build/package"
        self.version = Path("artifacts") / model
        self.reports = Path("reports") / model


def names() -> list[str]:
    """The models of this project."""
    return sorted(file.parent.name for file in ROOM.glob("*/problem.yaml"))


def load(name: str) -> Model:
    """Raises Refused unless there is such a model here."""
    if name not in names():
        known = ", ".join(names()) or "none; run the command in model-src/"
        raise Refused(f"{name!r}: no such model here; there is {known}")
    found = importlib.import_module(f"{ROOM}.{name}.model").MODEL
    assert isinstance(found, Model)
    return found

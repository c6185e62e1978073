"""What is measured on the held-out rows, and the report of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import classification_report, confusion_matrix, log_loss
from sklearn.pipeline import Pipeline

from iris.dataset import Dataset
from packing import labels


@dataclass(frozen=True)
class Evaluation:
    metrics: dict[str, float]
    """accuracy, macro_f1, log_loss (natural logarithm), and precision_<species> and recall_<species>."""
    species: list[str]
    confusion: list[list[int]]
    """Held-out rows counted by true species (row) and predicted one (column), in the order of `species`."""


def evaluate(pipeline: Pipeline, held_out: Dataset) -> Evaluation:
    """Measures the fitted pipeline; labels are chosen as the service chooses them, by `packing.labels`."""
    species = [str(name) for name in pipeline.classes_]
    probabilities: NDArray[np.float64] = pipeline.predict_proba(held_out.features)
    predicted = pipeline.classes_[labels.choose(probabilities)]
    # A species that is never predicted has precision 0: the worst, so that no gate takes it for good.
    scores = classification_report(held_out.species, predicted, labels=species, output_dict=True, zero_division=0.0)
    metrics = {
        "accuracy": float((held_out.species == predicted).mean()),
        "macro_f1": float(scores["macro avg"]["f1-score"]),
        "log_loss": float(log_loss(held_out.species, probabilities, labels=species)),
    }
    for name in species:
        metrics[f"precision_{name}"] = float(scores[name]["precision"])
        metrics[f"recall_{name}"] = float(scores[name]["recall"])
    return Evaluation(metrics, species, confusion_matrix(held_out.species, predicted, labels=species).tolist())


def report_json(evaluation: Evaluation, facts: dict[str, Any]) -> str:
    """The report for machines. `facts`: where the model comes from."""
    content = facts | {
        "metrics": evaluation.metrics,
        "confusion_matrix": {"labels": evaluation.species, "rows": evaluation.confusion},
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def report_markdown(evaluation: Evaluation, facts: dict[str, Any]) -> str:
    """The report for people."""
    metrics, species = evaluation.metrics, evaluation.species
    parts = [
        f"# Evaluation of {facts['model']} {facts['version']}",
        _table(["", ""], [[name.replace("_", " "), f"`{value}`"] for name, value in facts.items()]),
        "## Metrics",
        _table(
            ["metric", "value"],
            [[name.replace("_", " "), f"{metrics[name]:.4f}"] for name in ("accuracy", "macro_f1", "log_loss")],
        ),
        _table(
            ["species", "precision", "recall", "held-out rows"],
            [
                [name, f"{metrics[f'precision_{name}']:.4f}", f"{metrics[f'recall_{name}']:.4f}", str(sum(counts))]
                for name, counts in zip(species, evaluation.confusion, strict=True)
            ],
        ),
        "## Confusion matrix",
        _table(
            ["true \\ predicted", *species],
            [[name, *map(str, counts)] for name, counts in zip(species, evaluation.confusion, strict=True)],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

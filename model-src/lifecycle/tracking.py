"""MLflow: what was tried, what came out, and the model registry.

Runs go to the server of MLFLOW_TRACKING_URI, or to mlflow.db in model-src/. MLflow no longer wants stages: which
version is in staging or production stands in aliases, which `scripts/sync_registry.py` sets from Git.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from sklearn.pipeline import Pipeline

from contract import temporary
from contract.errors import Refused
from lifecycle import server
from lifecycle.tuning import Candidate

# skops, the format that MLflow writes a scikit-learn model in, loads only types that are named: what the families of
# the models here are made of, beyond scikit-learn's own estimators.
TRUSTED_TYPES = ["numpy.dtype", "sklearn.tree._tree.Tree"]


@contextlib.contextmanager
def experiment(name: str) -> Iterator[Any]:
    """The module `mlflow` with this experiment chosen, quiet; what fails inside becomes Refused."""
    with server.quiet():
        import mlflow

        try:
            mlflow.set_tracking_uri(server.uri())
            mlflow.set_experiment(name)
            yield mlflow
        # Where MLflow keeps artifacts in S3 or behind HTTP, their clients' own exceptions come through.
        except Exception as error:
            said = " ".join(server.shown(str(error)).split())
            raise Refused(f"MLflow at {server.shown(server.uri())} (MLFLOW_TRACKING_URI): {said}") from None


@dataclass(frozen=True)
class Outcome:
    """Everything that the run of a version records."""

    pipeline: Pipeline
    data: pd.DataFrame
    """The raw data, with the target."""
    target: str
    features: list[str]
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    files: Mapping[str, bytes]
    """Artifacts by file name."""
    requirements: list[str]
    """What loading the model needs; left to itself, MLflow finds out by running it, for ten seconds."""
    tuning: str | None
    """The digest of tuned.json, by which the run of the search is found."""


@dataclass(frozen=True)
class Recorded:
    run: str
    """The run's id, 32 hex digits."""
    model: str
    """The address of the recorded model, by which it is registered."""


def record(outcome: Outcome, into: str) -> Recorded:
    """Records the run of a version in an experiment. Raises Refused when MLflow fails."""
    with experiment(into) as mlflow:
        import mlflow.sklearn
        from mlflow.models import infer_signature

        example = outcome.data[outcome.features].head(2)
        with mlflow.start_run(run_name=outcome.tags["version"], tags=dict(outcome.tags)) as run:
            if outcome.tuning and (search := _search(mlflow, outcome.tuning)):
                mlflow.set_tag("tuning_run", search)
            mlflow.log_params(dict(outcome.params))
            mlflow.log_metrics(dict(outcome.metrics))
            dataset = mlflow.data.from_pandas(
                outcome.data,
                name=outcome.tags["model"],
                targets=outcome.target,
                digest=outcome.tags["data_digest"][7:19],
            )
            mlflow.log_input(dataset, context="training")
            for name, content in outcome.files.items():
                _log(mlflow, name, content)
            logged = mlflow.sklearn.log_model(
                outcome.pipeline,
                name="model",
                signature=infer_signature(example.to_numpy(), outcome.pipeline.predict(example.to_numpy())),
                input_example=example.to_numpy(),
                pip_requirements=outcome.requirements,
                serialization_format="skops",
                skops_trusted_types=TRUSTED_TYPES,
            )
    return Recorded(str(run.info.run_id), str(logged.model_uri))


def register(recorded: Recorded, into: str, name: str, tags: Mapping[str, str]) -> None:
    """Makes the recorded model the next version of the registered model `name`. Raises Refused when MLflow fails."""
    with experiment(into) as mlflow:
        mlflow.register_model(recorded.model, name, tags=dict(tags))


def record_search(
    candidates: Sequence[Candidate], chosen: Candidate, metric: str, tuned: str, into: str, model: str
) -> None:
    """Records one run a candidate below one for the search, which is found again by the digest of tuned.json. Raises
    Refused when MLflow fails."""
    with experiment(into) as mlflow:
        tags = {"model": model, "stage": "tune", "tuned": tuned}
        with mlflow.start_run(run_name=f"{model} search", tags=tags):
            mlflow.log_params({"trials": len(candidates), "family": chosen.family, **chosen.parameters})
            mlflow.log_metric(metric, chosen.score)
            for number, one in enumerate(candidates):
                name = f"{model} {number + 1} {one.family}"
                with mlflow.start_run(run_name=name, nested=True, tags={"model": model, "stage": "trial"}):
                    mlflow.log_params({"family": one.family, **one.parameters})
                    mlflow.log_metrics({metric: one.score, "spread": one.spread})


def _log(mlflow: Any, name: str, content: bytes) -> None:
    # log_text would write it with this machine's line ends, and log_image wants no PNG.
    with temporary.folder("model-artifact-") as folder:
        file = folder / name
        file.write_bytes(content)
        mlflow.log_artifact(str(file))


def _search(mlflow: Any, tuned: str) -> str | None:
    found = mlflow.search_runs(filter_string=f"tags.tuned = '{tuned}'", output_format="list", max_results=1)
    return str(found[0].info.run_id) if found else None

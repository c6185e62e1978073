"""From the outcome of the pipeline to a model version that may be uploaded.

DVC makes the same bytes wherever the same commit runs; what differs from run to run, the MLflow run and the manifest
that names it, is added here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contract import digest, manifest
from contract.errors import Refused
from lifecycle import reporting, tables, tracking, training, validation
from lifecycle.model import Files, Model
from lifecycle.settings import Params, Problem
from packing import lineage, pack
from storage import files

TAGS = ("model", "version", "digest", "code_commit", "data_digest", "evaluation_set_digest", "family", "draft")
"""By which an MLflow run is found."""


def make(
    model: Model, problem: Problem, params: Params, source: Path, say: Callable[[str], None], *, draft: bool
) -> str:
    """Writes the version's folder and the reports, records the run, and returns the version's name.

    Raises Refused, and then leaves the folder as it was: when the code or dvc.lock is not committed (unless `draft`),
    when DVC would run a stage again, when MLflow fails.
    """
    paths = Files(model.name)
    pack.refuse_foreign(paths.version)
    code = lineage.find(source, model.name, draft=draft)
    refuse_outdated(paths)
    return write(model, problem, params, code, say, draft=draft)


def write(
    model: Model, problem: Problem, params: Params, code: lineage.Code, say: Callable[[str], None], *, draft: bool
) -> str:
    """The same of what the stages have just made, by code that is known to be of this commit."""
    paths = Files(model.name)
    pipeline = training.load(paths.fitted)
    predictions = tables.read(paths.predictions)
    evaluated, tuned = tables.read_json(paths.evaluated), tables.read_json(paths.tuned)
    raw, _ = validation.read(paths.raw, model)

    with files.staged_folder(paths.version) as folder:
        shutil.copytree(paths.package, folder, dirs_exist_ok=True)
        hashed = digest.hash_folder(folder)
        version_digest = digest.version_digest((file.path, file.sha256) for file in hashed)
        version = manifest.version_name(code.date, version_digest)
        facts = {
            "model": model.name,
            "version": version,
            "digest": version_digest,
            "code_commit": code.commit,
            "data_digest": tables.digest(paths.raw.read_bytes()),
            "evaluation_set_digest": tables.digest(paths.evaluation.read_bytes()),
            "family": tuned["family"],
            "draft": draft,
        }
        reports = _reports(model, problem, facts, evaluated, predictions, paths)
        parameters = {"family": tuned["family"], **tuned["parameters"], **params.model_dump(exclude={"families"})}
        frameworks = pack.frameworks()
        say("recording the run in MLflow")
        tags = {name: str(facts[name]) for name in TAGS}
        recorded = tracking.record(
            tracking.Outcome(
                pipeline=pipeline,
                data=raw,
                target=model.target,
                features=model.features,
                params=_flat(parameters),
                metrics=metrics(evaluated),
                tags=tags,
                files=reports,
                requirements=[f"{name}=={frameworks[name]}" for name in ("scikit-learn", "numpy")],
                tuning=tables.digest(paths.tuned.read_bytes()),
            ),
            problem.experiment,
        )
        described = manifest.Manifest(
            schema=2,
            model=model.name,
            version=version,
            digest=version_digest,
            files=[manifest.File(**file._asdict()) for file in hashed],
            metrics=metrics(evaluated),
            parameters=parameters,
            signature=pack.read_signature(folder),
            code_commit=code.commit,
            data_digest=facts["data_digest"],
            evaluation_set_digest=facts["evaluation_set_digest"],
            mlflow_run=recorded.run,
            frameworks=frameworks,
            draft=draft,
        )
        files.write_atomically(folder / digest.MANIFEST, manifest.dump(described))
        # This takes a while: somebody may have put something there meanwhile.
        pack.refuse_foreign(paths.version)
        # Last, so that the registry names no version that was not made; and none that cannot be deployed.
        if not draft:
            tracking.register(recorded, problem.experiment, problem.registered_as, tags)
    for name, content in reports.items():
        files.write_atomically(paths.reports / name, content)
    say(f"report in {paths.reports}")
    return version


def refuse_outdated(paths: Files) -> None:
    """Raises Refused unless everything that the pipeline makes is what its lock has."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    command = f"dvc repro {paths.pipeline}"
    try:
        with Repo() as repo:
            changed = repo.status([str(paths.pipeline)])
    except DvcException as error:
        raise Refused(f"{paths.pipeline}: {' '.join(str(error).split())}; run `{command}`") from None
    if changed:
        stages = ", ".join(name.rpartition(":")[2] for name in changed)
        raise Refused(f"{paths.pipeline}: not up to date: {stages}; run `{command}` and commit its lock")


def metrics(evaluated: dict[str, Any]) -> dict[str, float]:
    """Every metric by name, its interval beside it, and each label's own: `recall_setosa`."""
    found: dict[str, float] = {}
    for name, one in evaluated["metrics"].items():
        found |= {name: one["value"], f"{name}_low": one["low"], f"{name}_high": one["high"]}
    for label, scores in evaluated["per_class"].items():
        found |= {f"{score}_{label}": scores[score] for score in ("precision", "recall")}
    return found


def _reports(
    model: Model, problem: Problem, facts: dict[str, Any], evaluated: dict[str, Any], predictions: Any, paths: Files
) -> dict[str, bytes]:
    plots = reporting.plots(model, predictions, evaluated)
    markdown = reporting.report(facts, problem, evaluated)
    dictionary = validation.dictionary(model)
    titled = {name.replace("_", " ").capitalize(): image for name, image in plots.items()}
    return {
        "report.json": tables.to_json({**facts, **evaluated}),
        "report.md": markdown.encode(),
        "report.html": reporting.html(markdown, titled).encode(),
        "model_card.md": reporting.model_card(facts, problem, evaluated, dictionary).encode(),
        "data_dictionary.md": dictionary.encode(),
        "evaluation_set.csv": paths.evaluation.read_bytes(),
        "feature_importance.csv": (paths.plots / "importance.csv").read_bytes(),
        **{f"{name}.png": image for name, image in plots.items()},
    }


def _flat(parameters: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found

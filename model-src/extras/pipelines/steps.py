"""What runs in a component: one stage of the lifecycle in a working folder of its own.

No two components share a disk. Each gets the files that its stage reads, by their names in `lifecycle.model.Files`,
and hands on those that the stage writes; the model's code comes with the image, or with the checkout.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contract import command, temporary
from contract.errors import Refused
from lifecycle import stages
from lifecycle.model import Files
from lifecycle.settings import Params

SOURCE = Path(__file__).resolve().parents[2]
# What the stages read that is part of the code.
COMMITTED = ("problem", "params", "accepted")


def run(stage: str, model: str, reads: Mapping[str, str], writes: Mapping[str, str], mlflow: str = "") -> None:
    """`python -m lifecycle STAGE MODEL` on the files `reads`; what it makes is copied to `writes`. Both are paths by
    their names in `Files`. `mlflow`: the tracking server, unless it is empty. Exits with 1 when the stage refuses, and
    then writes nothing."""
    stages.same_arithmetic()
    _track(mlflow)
    with folder(stage, model, reads, writes):
        if command.run(lambda: stages.STAGES[stage](model), f"interrupted; {stage} has handed on nothing"):
            _stop(stage, model)


def search(model: str, family: str, train: str, candidates: str) -> None:
    """Tries one family, with its share of the budget, on the table `train`; writes its candidates as JSON."""
    stages.same_arithmetic()
    from lifecycle import model as models
    from lifecycle import settings, tables, tuning

    with folder("search", model, {"train": train}, {}) as files, _refusals("search", model):
        params = share(settings.read(files.params, settings.Params), family, f"{files.params}")
        metric = settings.read(files.problem, settings.Problem).metric
        found = list(
            tuning.search(tables.read(files.train), models.load(model), params, metric, lambda number, one: None)
        )
        best = tuning.choose(found, [family], metric)
        print(f"{family}: the best {metric.name} of {len(found)} is {best.score:.4f}", file=sys.stderr)
        Path(candidates).write_text(json.dumps([asdict(one) for one in found]))


def choose(model: str, candidates: Sequence[str], tuned: str, trials: str, mlflow: str = "") -> None:
    """The end of the stage `tune`, for candidates that several searches have written."""
    stages.same_arithmetic()
    _track(mlflow)
    from lifecycle import tuning

    found = [tuning.Candidate(**one) for file in candidates for one in json.loads(Path(file).read_text())]
    with folder("choose", model, {}, {"tuned": tuned, "trials": trials}), _refusals("choose", model):
        stages.end_search(model, found)


def share(params: Params, family: str, file: str) -> Params:
    """The parameters of a search of one family: every family has the same part of the budget, the first ones in
    params.yaml what is left over, and none less than one trial. Raises Refused when there is no such family."""
    families = list(params.families)
    if family not in families:
        raise Refused(
            f"{file}: families.{family}: no such family in this image; there is {', '.join(families)};"
            " compile the pipeline from the commit of the image"
        )
    whole, left = divmod(params.tune.trials, len(families))
    trials = max(1, whole + (families.index(family) < left))
    return params.model_copy(
        update={
            "families": {family: params.families[family]},
            "tune": params.tune.model_copy(update={"trials": trials}),
        }
    )


def metrics(evaluated: str) -> dict[str, float]:
    """Every metric of evaluation.json by name, as the manifest has them."""
    from lifecycle import tables, versioning

    return versioning.metrics(tables.read_json(Path(evaluated)))


def confusion(evaluated: str) -> tuple[list[str], list[list[int]]]:
    """The labels, and the held-out rows of each by what was predicted of them."""
    from lifecycle import tables

    found = tables.read_json(Path(evaluated))
    labels = list(found["per_class"])
    return labels, [[one["rows"] for one in found["confusion"] if one["actual"] == label] for label in labels]


def digest(package: str) -> str:
    """The digest of the version that these files are."""
    from contract import digest as digests

    return digests.version_digest((file.path, file.sha256) for file in digests.hash_folder(Path(package)))


def report(model: str, reads: Mapping[str, str], version_digest: str, html: str, card: str) -> None:
    """The evaluation as a page with its plots, and the model card, in Markdown."""
    from lifecycle import model as models
    from lifecycle import reporting, settings, tables, validation

    with folder("report", model, reads, {}) as files, _refusals("report", model):
        found, problem = models.load(model), settings.read(files.problem, settings.Problem)
        evaluated = tables.read_json(files.evaluated)
        facts: dict[str, Any] = {
            "model": model,
            # A version's name begins with the date of a commit, of which the image knows nothing.
            "version": version_digest[7:19],
            "digest": version_digest,
            "data_digest": tables.read_json(files.validation)["data_digest"],
            "evaluation_set_digest": tables.digest(files.evaluation.read_bytes()),
            "family": tables.read_json(files.tuned)["family"],
        }
        plots = reporting.plots(found, tables.read(files.predictions), evaluated)
        titled = {name.replace("_", " ").capitalize(): image for name, image in plots.items()}
        Path(html).write_text(reporting.html(reporting.report(facts, problem, evaluated), titled))
        Path(card).write_text(reporting.model_card(facts, problem, evaluated, validation.dictionary(found)))


@contextlib.contextmanager
def folder(step: str, model: str, reads: Mapping[str, str], writes: Mapping[str, str]) -> Iterator[Files]:
    """A folder as the stages expect model-src/ to be, and the current one within the block."""
    files = Files(model)
    if not (SOURCE / files.problem).exists():
        command.print_errors(f"{model}: no such model in this image")
        _stop(step, model)
    given = {getattr(files, name): SOURCE / getattr(files, name) for name in COMMITTED}
    # Absolute, because the current folder changes.
    given |= {getattr(files, name): Path(source).absolute() for name, source in reads.items()}
    taken = {getattr(files, name): Path(target).absolute() for name, target in writes.items()}
    with temporary.folder("model-step-") as here, contextlib.chdir(here):
        for place, source in given.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            # Stages replace files and never change one, so what a link leads to stays as it is.
            place.symlink_to(source)
        yield files
        for made, target in taken.items():
            if made.is_dir():
                shutil.copytree(made, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(made, target)


@contextlib.contextmanager
def _refusals(step: str, model: str) -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        command.print_errors(*refused.lines)
        _stop(step, model)


def _stop(step: str, model: str) -> None:
    # A refusal is no defect of the component: no traceback.
    raise SystemExit(f"error: {model}: {step} failed; no later step is run")


def _track(mlflow: str) -> None:
    if mlflow:
        os.environ["MLFLOW_TRACKING_URI"] = mlflow

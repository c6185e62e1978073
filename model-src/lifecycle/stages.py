"""What the stages in the life of a model do. Each takes the name of a model, reads and writes its files, and raises
Refused when what it found is not good enough; then what it makes is as it was."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import Refused
from storage import files

if TYPE_CHECKING:
    from lifecycle.tuning import Candidate

# What takes seconds to import is imported where it is used, so that --help and a refusal are quick.

UNRELEASED = "s3://unreleased"
"""What a release file names before its first release."""
SOURCE = Path(__file__).resolve().parents[1]


def same_arithmetic() -> None:
    """To be called before numpy is imported. The last digits of a sum depend on the processor that OpenBLAS recognises
    and on the number of threads, and a version's digest depends on them. Any x86 processor of the last ten years can do
    what this one could."""
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def validate(name: str) -> None:
    from lifecycle import model, validation

    found, paths = model.load(name), model.Files(name)
    checked = validation.validate(paths.raw, paths.accepted, found)
    _write_json(paths.validation, checked)
    files.write_atomically(paths.dictionary, validation.dictionary(found).encode())
    _say(f"{paths.raw}: {checked['rows']} rows, as {paths.schema} and {paths.accepted} say")


def accept(name: str) -> None:
    from lifecycle import model, validation

    found, paths = model.load(name), model.Files(name)
    frame, faults = validation.read(paths.raw, found)
    if faults:
        raise Refused(f"{paths.raw}: {paths.schema} does not hold:", *validation.table(faults))
    _write_json(paths.accepted, validation.describe(frame))
    _say(f"{paths.accepted}: how {len(frame)} rows are distributed; commit it")


def prepare(name: str) -> None:
    from lifecycle import model, preparing, tables, validation

    found, paths, params = model.load(name), model.Files(name), _params(name)
    frame, faults = validation.read(paths.raw, found)
    if faults:
        raise Refused(f"{paths.raw}: {paths.schema} does not hold; `dvc repro` shows where")
    train, held_out = preparing.split(frame, found, params.prepare)
    tables.write(paths.train, train)
    tables.write(paths.evaluation, held_out)
    duplicates = len(frame) - len(train) - len(held_out)
    _say(f"{len(train)} rows to learn from, {len(held_out)} held out, {duplicates} duplicates left out")


def tune(name: str) -> None:
    from lifecycle import model, tables, tuning

    found, paths, params = model.load(name), model.Files(name), _params(name)
    metric, train = _problem(found).metric, tables.read(paths.train)

    def seen(number: int, one: tuning.Candidate) -> None:
        shown = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in one.parameters.items()
        )
        _say(f"trial {number + 1} of {params.tune.trials}: {metric.name} {one.score:.4f}  {one.family}: {shown}")

    end_search(name, list(tuning.search(train, found, params, metric, seen)))


def end_search(name: str, candidates: list[Candidate]) -> None:
    """Chooses, records and writes, whoever searched. Raises Refused when the best candidate is not good enough."""
    from lifecycle import model, tables, tracking, tuning

    found, paths, params = model.load(name), model.Files(name), _params(name)
    problem = _problem(found)
    metric = problem.metric
    chosen = tuning.choose(candidates, params.families, metric)
    if not metric.holds(chosen.score):
        raise Refused(
            f"{paths.train}: {found.target} does not follow from the other columns: the best {metric.name} of"
            f" {len(candidates)} candidates, cross-validated, is {chosen.score:.4f}, and it has to be {metric.words}"
            f" ({paths.problem}: metric); are the values of {found.target} those of their rows?"
        )
    record = tables.to_json(tuning.record(chosen, metric, len(candidates)))
    tracking.record_search(candidates, chosen, metric.name, tables.digest(record), problem.experiment, found.name)
    tables.write(paths.trials, tuning.table(candidates))
    files.write_atomically(paths.tuned, record)
    _say(f"chosen: {chosen.family} {chosen.parameters}")


def train(name: str) -> None:
    import io

    import joblib

    from lifecycle import model, tables, training

    found, paths, params = model.load(name), model.Files(name), _params(name)
    rows, held_out = tables.read(paths.train), tables.read(paths.evaluation)
    pipeline = training.fit(rows, found, tables.read_json(paths.tuned), params)
    fitted = io.BytesIO()
    joblib.dump(pipeline, fitted)
    files.write_atomically(paths.fitted, fitted.getvalue())
    tables.write(paths.predictions, training.unseen(pipeline, rows, held_out, found, params))
    _say(f"fitted on {len(rows)} rows")


def evaluate(name: str) -> None:
    from lifecycle import evaluating, model, tables, training

    found, paths, params = model.load(name), model.Files(name), _params(name)
    problem = _problem(found)
    predictions = tables.read(paths.predictions)
    held_out = predictions[predictions[training.HELD_OUT]]
    classifier = found.kind == "classification"
    importance = evaluating.importance(
        training.load(paths.fitted), held_out, found, problem.metric, params.evaluate.seed
    )
    evaluated: dict[str, Any] = {
        "held_out_rows": len(held_out),
        "confidence": params.evaluate.confidence,
        "metrics": evaluating.intervals(held_out, found, params.evaluate),
        "per_class": evaluating.per_class(held_out, found) if classifier else {},
        "per_slice": evaluating.per_slice(held_out, found),
        "importance": importance.to_dict("records"),
    }
    plots = {"importance": importance}
    if classifier:
        plots |= {
            "confusion": evaluating.confusion(held_out, found),
            "calibration": evaluating.calibration(held_out, found),
        }
        evaluated |= {kind: plots[kind].to_dict("records") for kind in ("confusion", "calibration")}
    else:
        plots["residuals"] = evaluating.residuals(held_out, found)
    for kind, plot in plots.items():
        tables.write(paths.plots / f"{kind}.csv", plot)
    _write_json(paths.metrics, evaluated["metrics"])
    metric = problem.metric
    value = evaluated["metrics"][metric.name]["value"]
    if not metric.holds(value):
        raise Refused(
            f"{paths.metrics}: {metric.name}: {value:.4f} on {len(held_out)} held-out rows, and it has to be"
            f" {metric.words} ({paths.problem}: metric); the model is not packaged"
        )
    _write_json(paths.evaluated, evaluated)
    _say(f"{metric.name} {value:.4f} on {len(held_out)} held-out rows, {metric.words} is asked for")


def package(name: str) -> None:
    from lifecycle import model, tables, training
    from packing import pack

    found, paths = model.load(name), model.Files(name)
    pipeline = training.load(paths.fitted)
    predictions = tables.read(paths.predictions)
    inputs = predictions[found.features].to_numpy()
    held_out = inputs[predictions[training.HELD_OUT].to_numpy()]
    reference = predictions[[*found.features, training.PREDICTION, found.target]].rename(
        columns={found.target: "target"}
    )
    with files.staged_folder(paths.package) as folder:
        parity = pack.write_flavours(folder, paths.fitted, pipeline, inputs, held_out)
        signature = found.signature(list(tables.read_json(paths.evaluated)["per_class"]))
        pack.write_signature(folder, signature)
        pack.write_sagemaker(folder, signature)
        tables.write(folder / pack.REFERENCE, reference)
    _say(f"ONNX and scikit-learn agree on {parity.rows} rows, to {parity.worst_error:.1g}")


def version(name: str, *, draft: bool = False) -> None:
    from lifecycle import model, versioning

    found, paths = model.load(name), model.Files(name)
    made = versioning.make(found, _problem(found), _params(name), SOURCE, _say, draft=draft)
    print(paths.version, made)


def compare(name: str, other: str) -> None:
    from lifecycle import comparing, model, tables

    found, paths, params = model.load(name), model.Files(name), _params(name)
    problem = _problem(found)
    if other.rstrip("/") == UNRELEASED:
        _say("nothing to compare with: no version is released there yet")
        return
    if not paths.version.exists():
        raise Refused(f"{paths.version}: no such version; `python -m lifecycle version {name}` makes it")
    held_out = paths.reports / "evaluation_set.csv"
    rows = tables.read(held_out)
    old, new = comparing.served(other), comparing.served(str(paths.version))
    if tables.digest(held_out.read_bytes()) != new.manifest.evaluation_set_digest:
        raise Refused(f"{held_out}: not the rows that {paths.version} was evaluated on; run `dvc repro` and `version`")
    result = comparing.compare(old, new, rows, found, problem, params.evaluate)
    shown = comparing.table(result)
    files.write_atomically(paths.reports / "comparison.md", shown.encode())
    _write_json(paths.reports / "comparison.json", asdict(result))
    print(shown, end="")
    comparing.refuse_worse(result, problem)


def _params(name: str) -> Any:
    from lifecycle import model, settings

    return settings.read(model.Files(name).params, settings.Params)


def _problem(found: Any) -> Any:
    from lifecycle import model, settings

    path = model.Files(found.name).problem
    problem = settings.read(path, settings.Problem)
    if problem.metric.name not in (known := settings.METRICS[found.kind]):
        raise Refused(
            f"{path}: metric.name: {problem.metric.name} is not measured of a {found.kind}; choose one of"
            f" {', '.join(known)}"
        )
    return problem


def _write_json(path: Path, record: Any) -> None:
    from lifecycle import tables

    files.write_atomically(path, tables.to_json(record))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


STAGES: dict[str, Callable[[str], None]] = {
    stage.__name__: stage for stage in (validate, prepare, tune, train, evaluate, package)
}
"""In their order. `dvc repro` runs them by these names."""

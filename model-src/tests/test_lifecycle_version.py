from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from conftest import SAMPLE, Repository, wait_until
from project import PROJECT

import lifecycle.__main__ as command
from contract import manifest
from contract.digest import hash_folder, version_digest
from lifecycle import stages, tables, tracking, training, versioning
from models.sugar.schema import SCHEMA as PATIENT
from packing import onnx_export
from storage import files

KINDS = {"lily": "trained", "sugar": "trained_sugar"}
FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def of(name: str, request: pytest.FixtureRequest) -> Repository:
    repository: Repository = request.getfixturevalue(KINDS[name])
    return repository


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", KINDS)
def test_the_version_is_complete_and_says_where_it_comes_from(name: str, request: pytest.FixtureRequest) -> None:
    repository = of(name, request)
    described, folder = repository.manifest(name), repository.source / "artifacts" / name
    data = repository.source / "models" / name / "data/raw.csv"

    assert sorted(contents(folder)) == [
        "manifest.json", "onnx/model.onnx", "reference/reference.csv", "sagemaker/model.tar.gz", "signature.json",
        "sklearn/model.joblib",
    ]  # fmt: skip
    assert [file.model_dump() for file in described.files] == [file._asdict() for file in hash_folder(folder)]
    assert described.digest == version_digest((file.path, file.sha256) for file in described.files)
    assert described.version == f"2026-02-01-{described.digest[7:19]}"
    assert described.code_commit == repository.git("rev-parse", "HEAD")
    assert described.data_digest == "sha256:" + hashlib.sha256(data.read_bytes()).hexdigest()
    evaluation = repository.source / "models" / name / "build/evaluation.csv"
    assert described.evaluation_set_digest == "sha256:" + hashlib.sha256(evaluation.read_bytes()).hexdigest()
    assert set(described.frameworks) == {
        "python", "scikit-learn", "numpy", "onnx", "onnxruntime", "skl2onnx", "joblib",
    }  # fmt: skip
    assert described.draft is False
    tuned = json.loads((repository.source / "models" / name / "build/tuned.json").read_text())
    assert described.parameters["family"] == tuned["family"]
    assert tuned["parameters"].items() <= described.parameters.items()
    assert described.parameters["tune"] == {"trials": 4, "folds": 3, "seed": 42}


def test_the_signature_says_what_the_model_takes_and_gives(request: pytest.FixtureRequest) -> None:
    flowers, patients = of("lily", request).manifest().signature, of("sugar", request).manifest("sugar").signature

    assert [(one.name, one.nullable) for one in flowers.inputs] == [(feature, False) for feature in FEATURES]
    assert flowers.labels == ["setosa", "versicolor", "virginica"]
    assert [one.name for one in patients.inputs if not one.nullable] == ["age", "sex"]
    assert [*(one.name for one in patients.inputs), patients.quantity] == list(PATIENT.columns)
    assert patients.labels == []


@pytest.mark.parametrize("name", KINDS)
def test_the_reference_is_every_prepared_row_with_an_unseen_prediction(
    name: str, request: pytest.FixtureRequest
) -> None:
    repository = of(name, request)
    found = tables.read(repository.source / "artifacts" / name / "reference/reference.csv")
    inputs = [one.name for one in repository.manifest(name).signature.inputs]
    prepared = [
        tables.read(repository.source / "models" / name / f"build/{part}.csv") for part in ("train", "evaluation")
    ]

    assert list(found.columns) == [*inputs, "prediction", "target"]
    assert len(found) == sum(map(len, prepared))
    assert sorted(map(str, found.target)) == sorted(str(value) for part in prepared for value in part.iloc[:, -1])
    assert found[inputs].isna().any().any() == (name == "sugar")
    if name == "lily":
        assert 0.85 < (found.prediction == found.target).mean() < 1


@pytest.mark.parametrize("name", KINDS)
def test_the_reports_agree_with_the_manifest(name: str, request: pytest.FixtureRequest) -> None:
    repository = of(name, request)
    reports, described = repository.source / "reports" / name, repository.manifest(name)
    report = json.loads((reports / "report.json").read_text())

    plots = {"lily": ["calibration.png", "confusion_matrix.png"], "sugar": ["predicted_and_true.png"]}[name]
    assert sorted(file.name for file in reports.iterdir()) == sorted([
        "data_dictionary.md", "evaluation_set.csv", "feature_importance.csv", "feature_importance.png",
        "model_card.md", "report.html", "report.json", "report.md", *plots,
    ])  # fmt: skip
    for fact in ("version", "digest", "code_commit", "data_digest", "evaluation_set_digest", "draft"):
        assert report[fact] == getattr(described, fact)
    assert versioning.metrics(report) == described.metrics
    assert {f"{one}{end}" for one in report["metrics"] for end in ("", "_low", "_high")} <= described.metrics.keys()
    assert tables.digest((reports / "evaluation_set.csv").read_bytes()) == described.evaluation_set_digest
    assert f"# Evaluation of {name} {described.version}\n" in (reports / "report.md").read_text()
    page = (reports / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(plots) + 1
    for plot in (*plots, "feature_importance.png"):
        assert (reports / plot).read_bytes().startswith(b"\x89PNG\r\n")
    importance = list(csv.DictReader((reports / "feature_importance.csv").open()))
    assert {row["feature"] for row in importance} == {one.name for one in described.signature.inputs}
    card = (reports / "model_card.md").read_text()
    problem = (PROJECT / "models" / name / "problem.yaml").read_text()
    for field in ("title", "objective", "owner", "out_of_scope"):
        (line,) = (line for line in problem.splitlines() if line.startswith(f"{field}: "))
        assert line.partition(": ")[2] in card
    assert f"version `{described.version}`" in card
    assert (repository.source / "models" / name / "data_dictionary.md").read_text().partition("\n")[2].strip() in card
    if name == "lily":
        assert sum(one["rows"] for one in report["confusion"]) == report["held_out_rows"] == 45
        assert [report["per_class"][label]["rows"] for label in report["per_class"]] == [15, 15, 15]
        assert described.metrics["recall_setosa"] == report["per_class"]["setosa"]["recall"]


# MLflow


def client_of(repository: Repository) -> Any:
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{repository.source / 'mlflow.db'}")


@pytest.mark.parametrize(
    ("name", "experiment", "registered_as"),
    [("lily", "lily_experiment", "LilyModel"), ("sugar", "sugar_experiment", "SugarModel")],
)
def test_the_run_is_recorded(name: str, experiment: str, registered_as: str, request: pytest.FixtureRequest) -> None:
    repository = of(name, request)
    described, client = repository.manifest(name), client_of(repository)
    run = client.get_run(described.mlflow_run)

    assert client.get_experiment(run.info.experiment_id).name == experiment
    assert (run.info.status, run.info.run_name) == ("FINISHED", described.version)
    assert run.data.params["family"] == described.parameters["family"]
    assert run.data.params["tune.trials"] == "4"
    assert run.data.metrics == pytest.approx(described.metrics)
    for tag in ("model", "version", "digest", "code_commit", "data_digest", "evaluation_set_digest"):
        assert run.data.tags[tag] == getattr(described, tag)
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == (name, described.data_digest[7:19])
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        file.name for file in (repository.source / "reports" / name).iterdir()
    }

    (registered,) = client.search_model_versions(f"name='{registered_as}'")
    assert registered.run_id == run.info.run_id
    assert {key: registered.tags[key] for key in versioning.TAGS} == {
        key: run.data.tags[key] for key in versioning.TAGS
    }


@pytest.mark.parametrize("name", KINDS)
def test_every_trial_is_a_run_below_that_of_the_search(name: str, request: pytest.FixtureRequest) -> None:
    repository = of(name, request)
    client, described = client_of(repository), repository.manifest(name)
    run = client.get_run(described.mlflow_run)
    search = client.get_run(run.data.tags["tuning_run"])
    tuned = (repository.source / "models" / name / "build/tuned.json").read_bytes()
    chosen = json.loads(tuned)

    trials = client.search_runs(
        [search.info.experiment_id], f"tags.mlflow.parentRunId = '{search.info.run_id}'", max_results=100
    )

    assert search.data.tags["tuned"] == tables.digest(tuned)
    assert search.data.metrics[chosen["metric"]] == pytest.approx(chosen["score"])
    assert len(trials) == 4 == int(search.data.params["trials"])
    assert {one.data.params["family"] for one in trials} == set(chosen_families(repository, name))
    assert any(one.data.metrics[chosen["metric"]] == pytest.approx(chosen["score"]) for one in trials)
    assert {one.info.status for one in (search, *trials)} == {"FINISHED"}
    assert all({chosen["metric"], "spread"} == one.data.metrics.keys() for one in trials)


def chosen_families(repository: Repository, name: str) -> list[str]:
    with (repository.source / "models" / name / "plots/trials.csv").open() as table:
        return sorted({row["family"] for row in csv.DictReader(table)})


@pytest.mark.parametrize("name", KINDS)
def test_the_recorded_model_loads_with_its_signature(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    import joblib
    import mlflow

    repository = of(name, request)
    monkeypatch.chdir(repository.source)
    mlflow.set_tracking_uri(f"sqlite:///{repository.source / 'mlflow.db'}")
    (registered,) = client_of(repository).search_model_versions(f"run_id='{repository.manifest(name).mlflow_run}'")
    loaded = mlflow.pyfunc.load_model(registered.source)
    rows = tables.read(Path("models") / name / "build/evaluation.csv").iloc[:, :-1].to_numpy()

    assert loaded.metadata.signature is not None
    assert loaded.input_example is not None
    assert np.array_equal(loaded.predict(rows), joblib.load(f"artifacts/{name}/sklearn/model.joblib").predict(rows))
    if name == "lily":
        assert list(loaded.predict(np.array([SAMPLE]))) == ["setosa"]


STOCK_SERVER = """
import sys
for blocked in ("skl2onnx", "onnx", "mlflow", "models", "contract", "lifecycle", "packing"):
    sys.modules[blocked] = None
import joblib
for file, rows in zip(sys.argv[1::2], sys.argv[2::2]):
    print(joblib.load(file).predict(eval(rows)).tolist())
"""


def test_a_stock_scikit_learn_server_loads_the_joblib(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Of a classifier and of a regression, without any code of ours, as KServe's does it, from the plain lists of a
    request."""
    asked = {
        "lily": "[[5.3, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]",
        "sugar": "[[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87], [30, 1, float('nan')] + [float('nan')] * 7]",
    }
    given = [(of(name, request).source / "artifacts" / name / "sklearn/model.joblib", asked[name]) for name in KINDS]
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", STOCK_SERVER, *itertools.chain(*given)],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip

    assert done.stderr == ""
    flowers, patients = done.stdout.splitlines()
    assert flowers == "['setosa', 'virginica']"
    first, second = json.loads(patients)
    assert 150 < first < 250
    assert 50 < second < 200


# What is refused, and what it leaves


@pytest.fixture
def repository(trained: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A copy of the trained repository to run commands in, in this process, which is quicker."""
    copy = trained.copy(tmp_path / "repository")
    monkeypatch.setattr(stages, "SOURCE", copy.source)
    monkeypatch.chdir(copy.source)
    # Absolute, because MLflow keeps a connection for each address in a process; and runs recorded here stay here.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy.source / 'mlflow.db'}")
    put_artifacts(copy, str(copy.source / "mlruns"))
    return copy


def put_artifacts(repository: Repository, location: str) -> None:
    database = sqlite3.connect(repository.source / "mlflow.db")
    with contextlib.closing(database), database:
        database.execute("UPDATE experiments SET artifact_location = ?", (location,))


def unchanged(repository: Repository) -> Callable[[], bool]:
    """Whether no version, no report and no registered model has come or gone since."""

    def seen() -> Any:
        registered = [(one.name, one.version) for one in client_of(repository).search_model_versions("")]
        version = [contents(repository.source / folder) for folder in ("artifacts", "reports")]
        return registered, version, sorted((repository.source / "artifacts").iterdir())

    before = seen()
    return lambda: bool(seen() == before)


def refusal(capsys: pytest.CaptureFixture[str], *args: str, code: int = 1) -> list[str]:
    """The error lines of a command that must be refused."""
    assert command.main(list(args)) == code
    out, err = capsys.readouterr()
    assert out == ""
    return [line for line in err.splitlines() if line.startswith("error: ")]


def test_a_draft_is_marked_and_not_registered(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """Code that is not committed: the point of a draft."""
    code = repository.source / "models/lily/model.py"
    same = unchanged(repository)
    (repository.source / "lifecycle/new.py").write_text("# not committed\n")

    assert refusal(capsys, "version", "lily") == [
        "error: model-src/lifecycle/new.py: untracked, not committed",
        "error: commit the model's code first, or try it out with --draft (a draft cannot be uploaded)",
    ]
    assert same()

    assert command.main(["version", "lily", "--draft"]) == 0

    described, client = repository.manifest(), client_of(repository)
    assert capsys.readouterr().out == f"artifacts/lily {described.version}\n"
    assert described.draft is True
    assert len(client.search_model_versions("")) == 1
    assert client.get_run(described.mlflow_run).data.tags["draft"] == "True"

    code.write_text(code.read_text() + "# changed\n")
    (line,) = refusal(capsys, "version", "lily", "--draft")
    assert line == (
        "error: models/lily/dvc.yaml: not up to date: tune, train, evaluate, package;"
        " run `dvc repro models/lily/dvc.yaml` and commit its lock"
    )


def test_outputs_that_were_altered_or_lost_make_no_version(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    same, build = unchanged(repository), repository.source / "models/lily/build"
    (build / "package/onnx/model.onnx").write_bytes((build / "package/onnx/model.onnx").read_bytes()[:1000])
    (build / "predictions.csv").unlink()

    assert refusal(capsys, "version", "lily") == [
        "error: models/lily/dvc.yaml: not up to date: train, evaluate, package;"
        " run `dvc repro models/lily/dvc.yaml` and commit its lock"
    ]
    assert same()


def test_a_shallow_clone_is_refused_before_any_work(
    trained: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = trained.clone(tmp_path / "clone")
    other.commit("Second")
    subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", f"file://{other.root}", tmp_path / "shallow"], check=True
    )
    monkeypatch.setattr(stages, "SOURCE", tmp_path / "shallow/model-src")
    monkeypatch.chdir(tmp_path / "shallow/model-src")

    (line,) = refusal(capsys, "version", "lily")

    assert line.endswith(": a shallow clone, which hides the model's code commit; run `git fetch --unshallow`")


def test_a_folder_with_other_peoples_files_is_refused(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any work, and again at the end of it."""
    notes = repository.source / "artifacts/lily/onnx/notes.txt"
    same = unchanged(repository)
    record = tracking.record

    def slow(*args: Any) -> tracking.Recorded:
        notes.touch()
        return record(*args)

    monkeypatch.setattr(tracking, "record", slow)

    for _ in range(2):
        assert refusal(capsys, "version", "lily") == [
            "error: artifacts/lily/onnx/notes.txt: not part of the model version there; move it away"
        ]
    notes.unlink()
    assert same()


@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")
@pytest.mark.parametrize("stage", ["tune", "version"])
def test_an_unreachable_tracking_server_is_named(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """A stage that fails has written nothing; DVC has taken its outputs away before."""
    same = unchanged(repository)
    tuned = repository.source / "models/lily/build/tuned.json"
    if stage == "tune":
        tuned.unlink()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    (line,) = refusal(capsys, stage, "lily")

    assert line.startswith("error: MLflow at http://127.0.0.1:9 (MLFLOW_TRACKING_URI): ")
    assert same()
    assert tuned.exists() == (stage == "version")


def test_a_store_of_artifacts_that_goes_away_midway_is_named(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow itself is there; what it says in S3 fails with boto3's exceptions."""
    same = unchanged(repository)
    put_artifacts(repository, "s3://absent/mlflow")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    (line,) = refusal(capsys, "version", "lily")

    assert line.startswith(f"error: MLflow at sqlite:///{repository.source}/mlflow.db (MLFLOW_TRACKING_URI): ")
    assert "127.0.0.1:9" in line
    assert same()
    client = client_of(repository)
    experiments = [one.experiment_id for one in client.search_experiments()]
    (failed,) = client.search_runs(experiments, "attributes.status = 'FAILED'")
    assert failed.data.tags["model"] == "lily"


def test_a_registry_that_goes_away_midway_leaves_the_old_version(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last thing before the version takes its place is to register it."""
    import mlflow

    same = unchanged(repository)

    def away(*args: Any, **options: Any) -> None:
        raise mlflow.exceptions.MlflowException("the connection was lost")

    monkeypatch.setattr(mlflow, "register_model", away)

    (line,) = refusal(capsys, "version", "lily")

    assert line == (
        f"error: MLflow at sqlite:///{repository.source}/mlflow.db (MLFLOW_TRACKING_URI): the connection was lost"
    )
    assert same()


@pytest.mark.parametrize(
    ("stage", "place", "name"),
    [("version", manifest, "dump"), ("package", onnx_export, "check_parity"), ("train", files, "write_atomically")],
)
def test_an_interruption_leaves_what_was_there(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    stage: str, place: Any, name: str,
) -> None:  # fmt: skip
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    same, before = unchanged(repository), contents(repository.source / "models/lily")
    monkeypatch.setattr(place, name, interrupted)

    assert refusal(capsys, stage, "lily", code=130) == [
        f"error: interrupted; what {stage} makes is as it was",
    ]
    assert contents(repository.source / "models/lily") == before
    assert same()


def test_flavours_that_disagree_are_not_packed(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(repository.source / "models/lily")
    export = onnx_export.export

    def exported(pipeline: Any, inputs: int) -> bytes:
        # What a converter with an error in it might do: the trees of some other forest.
        pipeline[-1].estimators_ = pipeline[-1].estimators_[:3]
        pipeline[-1].n_estimators = 3
        try:
            return export(pipeline, inputs)
        finally:
            pipeline[-1].estimators_ = whole

    pipeline = training.load(Path("models/lily/build/model.joblib"))
    whole = pipeline[-1].estimators_
    monkeypatch.setattr(training, "load", lambda path: pipeline)
    monkeypatch.setattr(onnx_export, "export", exported)

    (line,) = refusal(capsys, "package", "lily")

    assert line.startswith("error: ONNX and scikit-learn disagree on ")
    assert contents(repository.source / "models/lily") == before


@pytest.mark.parametrize(("sig", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_search_that_is_stopped_leaves_the_old_outcome(
    repository: Repository, tmp_path: Path, sig: signal.Signals, code: int
) -> None:
    params = repository.source / "models/lily/params.yaml"
    # A search that is certainly not done when it is stopped.
    params.write_text(params.read_text().replace("trials: 4 ", "trials: 3000 "))
    before = contents(repository.source / "models/lily")
    log = tmp_path / "log"
    log.touch()
    process = warm.Process(
        ["-m", "lifecycle", "tune", "lily"], repository.source, repository.environment, Path(os.devnull), log
    )
    wait_until(lambda: "trial 2 of 3000" in log.read_text() or process.poll() is not None, "the search has begun")
    process.send_signal(sig)

    assert process.wait(60) == code
    if sig == signal.SIGINT:
        assert log.read_text().splitlines()[-1] == "error: interrupted; what tune makes is as it was"
        assert "Traceback" not in log.read_text()
    assert contents(repository.source / "models/lily") == before


def test_two_at_once_leave_one_whole_package(repository: Repository, tmp_path: Path) -> None:
    package = repository.source / "models/lily/build/package"
    before = contents(package)
    shutil.rmtree(package)

    both = [
        warm.Process(
            ["-m", "lifecycle", "package", "lily"],
            repository.source, repository.environment, Path(os.devnull), tmp_path / name,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    codes = [process.wait(60) for process in both]

    assert 0 in codes
    for process, code in zip(both, codes, strict=True):
        lines = process.stderr.read_text()
        assert code == 0 or (code == 1 and lines.count("error: ") == 1), lines
    assert contents(package) == before
    assert sorted(file.name for file in package.parent.iterdir() if file.name.startswith(".")) == []


# Comparing with another version


def test_a_version_is_compared_with_one_in_a_folder(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["compare", "lily", "--with", "artifacts/lily/"]) == 0

    out = capsys.readouterr().out
    found = json.loads(Path("reports/lily/comparison.json").read_text())
    assert (found["gain"], found["same_evaluation_set"], found["rows"]) == (0, True, 45)
    assert out == Path("reports/lily/comparison.md").read_text()
    assert f"| old version | {repository.manifest().version} |" in out


def test_before_the_first_release_there_is_nothing_to_compare_with(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a release file has then."""
    assert command.main(["compare", "lily", "--with", "s3://unreleased/"]) == 0
    assert capsys.readouterr() == ("", "nothing to compare with: no version is released there yet\n")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("absent", "absent/manifest.json: No such file or directory; is --with right?"),
        ("s3://bucket/lily", "--with s3://bucket/lily: not a folder, and not s3://BUCKET/models/MODEL/VERSION/"),
        ("s3://bucket/models/lily/2026-02-01-0123456789ab/", "is the network there, and AWS_ENDPOINT_URL_S3 right?"),
    ],
)
def test_a_version_that_is_not_there_is_named(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, other: str, said: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")

    (line,) = refusal(capsys, "compare", "lily", "--with", other)

    assert said in line


def test_a_version_of_other_rows_is_not_compared(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    file = repository.source / "reports/lily/evaluation_set.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")

    (line,) = refusal(capsys, "compare", "lily", "--with", "artifacts/lily")

    assert line == (
        "error: reports/lily/evaluation_set.csv: not the rows that artifacts/lily was evaluated on;"
        " run `dvc repro` and `version`"
    )

    shutil.rmtree("artifacts/lily")
    (line,) = refusal(capsys, "compare", "lily", "--with", "x")
    assert line == "error: artifacts/lily: no such version; `python -m lifecycle version lily` makes it"


def test_an_altered_version_is_not_compared(
    repository: Repository, version: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (version / "onnx/model.onnx").open("ab") as file:
        file.write(b"\0")

    (line,) = refusal(capsys, "compare", "lily", "--with", str(version))

    assert line.startswith("error: onnx/model.onnx: size: ")


# The command


@pytest.mark.parametrize("module", ["lifecycle", "models.lily.generate_data", "models.sugar.generate_data", "serving"])
def test_help_is_quick_and_has_examples(module: str, environment: dict[str, str]) -> None:
    heavy = "sklearn|mlflow|pandas|skl2onnx|pandera|optuna|dvc"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, "--help"],
        cwd=PROJECT, env=environment, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0
    assert f"python -m {module}" in done.stdout.split("\n\n", 2)[-1]
    assert not [name for name in heavy.split("|") if f" {name}\n" in done.stderr]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--surprise"], "the following arguments are required"),
        (["deploy", "lily"], "invalid choice: 'deploy'"),
        (["train"], "the following arguments are required: model"),
        (["train", "lily", "--draft"], "--draft is an option of version, not of train"),
        (["compare", "lily"], "compare needs --with, and nothing else takes it"),
        (["train", "lily", "--with", "x"], "compare needs --with, and nothing else takes it"),
    ],
)
def test_wrong_usage_is_exit_2(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(args)

    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_full_disk_is_one_line(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Path, "replace", full)

    assert refusal(capsys, "prepare", "lily") == ["error: No space left on device"]
    assert not [file for file in Path("models/lily/build").iterdir() if file.name.startswith(".")]

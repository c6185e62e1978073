"""The pipelines, as `dvc` runs them, in real clones and with a real S3 server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import warm
from conftest import STAGES as STAGES_IN_ONE
from conftest import Repository, succeeds, wait_until
from moto.server import ThreadedMotoServer
from project import PROJECT, SOURCE

import lifecycle.__main__ as command
from lifecycle import stages
from packing import lineage

LILY = "models/lily/dvc.yaml"
# Where the project's own configuration keeps data.
BUCKET = re.findall(r"s3://([^/]+)/", (SOURCE / ".dvc/config").read_text())[0]
STAGES = ["generate", "validate", "prepare", "tune", "train", "evaluate", "package"]


def stages_run(said: str) -> list[str]:
    """The stages that `dvc repro` has run, in order."""
    return re.findall(r"^Running stage '\S+:(\w+)'", said, re.MULTILINE)


def files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def cloned(trained: Repository, folder: Path) -> Repository:
    """With MLflow's database, which Git ignores, because a new one takes a second."""
    clone = trained.clone(folder / "another folder")
    shutil.copy(trained.source / "mlflow.db", clone.source)
    return clone


def same_as(made: Repository, trained: Repository, model: str) -> bool:
    """Whether every byte of what the stages make is the same, and Git sees nothing new."""
    folder = f"models/{model}"
    assert made.git("status", "--porcelain") == ""
    assert not [file for file in (made.source / folder / "build").iterdir() if file.name.startswith(".")]
    found, expected = files(made.source / folder), files(trained.source / folder)
    assert {"dvc.lock", "metrics.json", "plots/trials.csv", "data_dictionary.md", "build/package/onnx/model.onnx"} <= {
        *found
    }
    return found == expected


def test_a_clean_clone_makes_the_committed_lock_again(trained: Repository, tmp_path: Path) -> None:
    """With every byte of all outputs, though each stage is a process of its own, with other hashes, and in another
    folder. Its first run is interrupted in the search: that leaves nothing that the next run takes for done."""
    clone = cloned(trained, tmp_path)
    # With 1, as the trained repository has it, and 6 a set of the ONNX converter's has its two members in different
    # orders.
    variables = {**clone.variables, "PYTHONHASHSEED": "6"}
    params = clone.source / "models/lily/params.yaml"
    committed = params.read_text()
    # A search that is certainly not done when it is interrupted.
    endless = committed.replace("trials: 4 ", "trials: 3000 ")
    assert endless != committed
    params.write_text(endless)
    out, err = tmp_path / "out", tmp_path / "err"
    err.touch()
    process = warm.Process(["-m", "dvc", "repro", LILY], clone.source, variables, out, err)
    try:
        # Three stages come before it, each a process that imports for itself.
        wait_until(
            lambda: "trial 1 of 3000" in err.read_text() or process.poll() is not None, "the search has begun", 120
        )
        refused = clone.run("dvc", "repro", LILY)
    finally:
        # As Ctrl-C does it: the stage and DVC at once.
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0

    assert stages_run(out.read_text()) == STAGES[:4]
    # The one that came second: what the first one writes is busy.
    assert refused.returncode != 0
    assert "busy" in refused.stderr or "lock" in refused.stderr
    assert not (clone.source / "models/lily/build/tuned.json").exists()

    params.write_text(committed)
    said = succeeds(clone.run("dvc", "repro", LILY, PYTHONHASHSEED="6"))

    assert stages_run(said) == STAGES[3:]
    assert same_as(clone, trained, "lily")


def test_a_regression_is_the_same_again(trained_sugar: Repository, tmp_path: Path) -> None:
    clone = cloned(trained_sugar, tmp_path)

    succeeds(clone.python("-c", STAGES_IN_ONE, "sugar", PYTHONHASHSEED="6"))

    assert same_as(clone, trained_sugar, "sugar")


def test_a_second_run_does_nothing(trained: Repository) -> None:
    said = succeeds(trained.run("dvc", "repro", LILY))

    assert stages_run(said) == []
    assert [line for line in said.splitlines() if line.endswith("didn't change, skipping")] == [
        f"Stage '{LILY}:{stage}' didn't change, skipping" for stage in STAGES
    ]


@pytest.fixture(scope="module")
def changed(trained: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository where evaluation alone was changed and repeated; it is not committed."""
    repository = trained.copy(tmp_path_factory.mktemp("changed") / "repository")
    params = repository.source / "models/lily/params.yaml"
    params.write_text(params.read_text().replace("resamples: 100 ", "resamples: 200 "))
    said = succeeds(repository.run("dvc", "repro", LILY))
    assert stages_run(said) == ["evaluate", "package"]
    return repository


def test_one_changed_parameter_runs_only_what_follows(changed: Repository, trained: Repository) -> None:
    """The evaluation is another one, the model is the same: its intervals differ, and no byte of the version."""
    before, after = (json.loads((one.source / "models/lily/metrics.json").read_text()) for one in (trained, changed))
    assert {name: one["value"] for name, one in after.items()} == {name: one["value"] for name, one in before.items()}
    assert after != before
    assert files(changed.source / "models/lily/build/package") == files(trained.source / "models/lily/build/package")


def test_metrics_and_plots_are_compared_with_a_commit(changed: Repository) -> None:
    metrics = json.loads(succeeds(changed.run("dvc", "metrics", "diff", "--json")))
    ((path, differing),) = metrics["diff"].items() if "diff" in metrics else metrics.items()

    assert path == "models/lily/metrics.json"
    assert {"accuracy.low", "accuracy.high"} & differing.keys()
    assert not any(name.endswith(".value") for name in differing)

    shown = json.loads(succeeds(changed.run("dvc", "plots", "show", "--json", "models/lily/plots/confusion.csv")))
    assert "models/lily/plots/confusion.csv" in json.dumps(shown)
    compared = json.loads(
        succeeds(changed.run("dvc", "plots", "diff", "--json", "--targets", "models/lily/plots/trials.csv"))
    )
    assert "models/lily/plots/trials.csv" in json.dumps(compared)


def test_what_is_not_up_to_date_or_not_committed_makes_no_version(
    changed: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """First a lock that is not committed, then one that is not that of the parameters."""
    monkeypatch.setattr(stages, "SOURCE", changed.source)
    monkeypatch.chdir(changed.source)
    before, lock = files(changed.source / "artifacts/lily"), changed.source / "models/lily/dvc.lock"

    assert command.main(["version", "lily"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: model-src/models/lily/dvc.lock: changed, not committed",
        "error: model-src/models/lily/metrics.json: changed, not committed",
        "error: model-src/models/lily/params.yaml: changed, not committed",
        "error: commit the model's code first, or try it out with --draft (a draft cannot be uploaded)",
    ]

    kept = lock.read_bytes()
    lock.write_text(changed.git("show", "HEAD:model-src/models/lily/dvc.lock") + "\n")
    code = command.main(["version", "lily", "--draft"])
    lock.write_bytes(kept)

    assert (code, capsys.readouterr().err) == (
        1,
        f"error: {LILY}: not up to date: evaluate, package; run `dvc repro {LILY}` and commit its lock\n",
    )
    assert files(changed.source / "artifacts/lily") == before


@pytest.fixture(scope="module")
def store(environment: dict[str, str]) -> Iterator[str]:
    """An S3 server with the bucket that .dvc/config names."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    client.create_bucket(Bucket=BUCKET)
    yield url
    server.stop()


def test_what_is_pushed_from_one_clone_is_pulled_in_another_and_is_the_same_version(
    trained: Repository, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the standard variable and by DVC's own configuration, which Git ignores."""
    succeeds(trained.run("dvc", "push", LILY, AWS_ENDPOINT_URL_S3=store))
    other = trained.clone(tmp_path / "another folder")
    shutil.copytree(trained.source / "artifacts", other.source / "artifacts")
    succeeds(other.run("dvc", "remote", "modify", "--local", "models", "endpointurl", store))

    succeeds(other.run("dvc", "pull", LILY))

    assert other.git("status", "--porcelain") == ""
    assert files(other.source / "models/lily/build") == files(trained.source / "models/lily/build")
    assert (other.source / "models/lily/data/raw.csv").read_bytes() == (
        trained.source / "models/lily/data/raw.csv"
    ).read_bytes()

    monkeypatch.setattr(stages, "SOURCE", other.source)
    monkeypatch.chdir(other.source)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other.source / 'mlflow.db'}")
    assert command.main(["version", "lily"]) == 0

    out, err = capsys.readouterr()
    assert out == f"artifacts/lily {trained.manifest().version}\n"
    assert err.splitlines() == ["recording the run in MLflow", "report in reports/lily"]
    mine, theirs = files(other.source / "artifacts/lily"), files(trained.source / "artifacts/lily")
    assert mine.pop("manifest.json") != theirs.pop("manifest.json")
    assert mine == theirs
    assert other.manifest().model_dump(exclude={"mlflow_run"}) == trained.manifest().model_dump(exclude={"mlflow_run"})
    for report in ("report.json", "report.md", "report.html", "model_card.md", "evaluation_set.csv"):
        assert (other.source / "reports/lily" / report).read_bytes() == (
            trained.source / "reports/lily" / report
        ).read_bytes()
    assert other.git("status", "--porcelain") == ""


def test_a_store_that_is_away_is_named_and_nothing_is_pulled(trained: Repository, tmp_path: Path) -> None:
    other = trained.clone(tmp_path / "clone")

    done = other.run("dvc", "pull", LILY, AWS_ENDPOINT_URL_S3="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1")

    assert done.returncode != 0
    assert f"http://127.0.0.1:9/{BUCKET}/dvc/" in done.stderr
    assert not (other.source / "models/lily/build/model.joblib").exists()
    assert other.git("status", "--porcelain") == ""


def test_the_data_of_sugar_are_those_that_its_dvc_file_names(trained_sugar: Repository) -> None:
    """`generate_data` wrote raw.csv there: DVC takes it for the tracked file, by its hash."""
    file = "models/sugar/data/raw.csv.dvc"
    assert (trained_sugar.source / file).read_bytes() == (PROJECT / file).read_bytes()
    status = json.loads(succeeds(trained_sugar.run("dvc", "status", "--json", file)))

    assert status == {}
    assert trained_sugar.git("check-ignore", "model-src/models/sugar/data/raw.csv") != ""


def test_new_data_arrives_by_its_dvc_file(trained_sugar: Repository, tmp_path: Path) -> None:
    """A commit of the `.dvc` file is a change of the model's code; faulty data stops before anything learns from it."""
    repository = trained_sugar.copy(tmp_path / "repository")
    file = repository.source / "models/sugar/data/raw.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, "200,1.0,25.0,90.0,180.0,110.0,50.0,4.0,4.6,90.0,150.0"]) + "\n")
    succeeds(repository.run("dvc", "add", "models/sugar/data/raw.csv"))
    assert repository.git("status", "--porcelain") == "M model-src/models/sugar/data/raw.csv.dvc"

    done = repository.run("dvc", "repro", "models/sugar/dvc.yaml")

    assert done.returncode != 0
    assert stages_run(done.stdout) == ["validate"]
    said = [" ".join(line.split()) for line in done.stderr.splitlines()]
    assert "error: age from 18 to 100 200 0.2% line 444" in said

    file.write_text("\n".join([*lines, "20.0,1.0,25.0,90.0,180.0,110.0,50.0,4.0,4.6,90.0,150.0"]) + "\n")
    succeeds(repository.run("dvc", "add", "models/sugar/data/raw.csv"))

    said_now = succeeds(repository.run("dvc", "repro", "models/sugar/dvc.yaml:prepare"))

    assert stages_run(said_now) == ["validate", "prepare"]
    commit = repository.commit("Take new patients", date="2026-03-01T12:00:00+00:00")
    assert lineage.find(repository.source, "sugar") == lineage.Code(commit, "2026-03-01")

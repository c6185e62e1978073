from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLE, Repository

from iris import dataset, train
from packing import Refused, lineage, onnx_export
from packing.digest import hash_folder, version_digest


def test_the_version_is_complete_and_says_where_it_comes_from(trained: Repository, artifacts: Path) -> None:
    described = trained.manifest()
    data = trained.source / "data/iris.csv"

    assert sorted(file.relative_to(artifacts).as_posix() for file in artifacts.rglob("*") if file.is_file()) == [
        "manifest.json", "onnx/model.onnx", "sklearn/model.joblib",
    ]  # fmt: skip
    assert [file.model_dump() for file in described.files] == [file._asdict() for file in hash_folder(artifacts)]
    assert described.digest == version_digest((file.path, file.sha256) for file in described.files)
    assert described.version == f"2026-02-01-{described.digest[7:19]}"
    assert described.code_commit == trained.git("rev-parse", "HEAD")
    assert described.data_digest == "sha256:" + hashlib.sha256(data.read_bytes()).hexdigest()
    assert described.signature.outputs.labels == ["setosa", "versicolor", "virginica"]
    assert described.parameters["n_estimators"] == 100
    assert described.metrics["accuracy"] > 0.9
    assert set(described.frameworks) == {
        "python", "scikit-learn", "numpy", "onnx", "onnxruntime", "skl2onnx", "joblib",
    }  # fmt: skip
    assert described.draft is False


def test_the_reports_agree_with_the_manifest(trained: Repository) -> None:
    reports, described = trained.source / "reports/iris", trained.manifest()
    report = json.loads((reports / "report.json").read_text())
    held_out = (reports / "evaluation_set.csv").read_bytes()

    assert report["metrics"] == described.metrics
    assert report["version"] == described.version
    assert sum(map(sum, report["confusion_matrix"]["rows"])) == report["held_out_rows"] == 45
    assert report["duplicate_rows"] == 1
    assert described.evaluation_set_digest == "sha256:" + hashlib.sha256(held_out).hexdigest()
    assert dataset.read(reports / "evaluation_set.csv")[0].species.tolist().count("setosa") == 15
    assert f"# Evaluation of iris {described.version}\n" in (reports / "report.md").read_text()
    importance = list(csv.DictReader((reports / "feature_importance.csv").open()))
    assert {row["feature"] for row in importance} == set(dataset.FEATURES)
    assert sum(float(row["importance"]) for row in importance) == pytest.approx(1)


def test_the_same_commit_and_data_give_the_same_bytes(trained: Repository, tmp_path: Path) -> None:
    """In another folder, another process, with other hashes; and the second run replaces the first."""
    second = Repository(tmp_path / "another folder", trained._environment)
    subprocess.run(["git", "clone", "--quiet", trained.root, second.root], check=True)
    shutil.copytree(trained.source / "data", second.source / "data")
    shutil.copytree(trained.source / "artifacts", second.source / "artifacts")

    # With 1 and 6 a set of the ONNX converter's has its two members in different orders.
    done = second.run("iris.train", PYTHONHASHSEED="6")

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"artifacts/iris {trained.manifest().version}\n"
    assert done.stderr.splitlines() == [
        "reading data/iris.csv",
        "training on 104 rows, 45 held out",
        "packing: comparing ONNX with scikit-learn",
        "recording the run in MLflow",
        "report in reports/iris",
    ]
    assert second.manifest().files == trained.manifest().files
    assert second.manifest().mlflow_run != trained.manifest().mlflow_run
    for report in ("report.json", "report.md", "evaluation_set.csv", "feature_importance.csv"):
        assert (second.source / "reports/iris" / report).read_bytes() == (
            trained.source / "reports/iris" / report
        ).read_bytes()
    # What a run leaves is ignored by git.
    assert second.git("status", "--porcelain") == ""


def test_a_draft_is_marked_and_not_registered(repository: Repository) -> None:
    """Fewer trees, in a file that is not committed: half the point of a draft."""
    params = repository.source / "iris/params.yaml"
    params.write_text(params.read_text().replace("n_estimators: 100", "n_estimators: 5"))
    assert repository.run("iris.generate_data").returncode == 0

    assert repository.run("iris.train").stderr.startswith("error: model-src/iris/params.yaml: changed, not committed\n")

    done = repository.run("iris.train", "--draft")

    assert done.returncode == 0, done.stderr
    assert repository.manifest().draft is True
    assert repository.manifest().parameters["n_estimators"] == 5
    client = mlflow_client(repository)
    assert client.search_registered_models() == []
    assert client.get_run(repository.manifest().mlflow_run).data.tags["draft"] == "True"


def mlflow_client(repository: Repository):  # type: ignore[no-untyped-def]
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{repository.source / 'mlflow.db'}")


def test_the_run_is_recorded(trained: Repository) -> None:
    described, client = trained.manifest(), mlflow_client(trained)
    run = client.get_run(described.mlflow_run)

    assert client.get_experiment(run.info.experiment_id).name == "iris_rf_experiment"
    assert run.info.status == "FINISHED"
    assert run.data.params["n_estimators"] == "100"
    assert run.data.metrics["accuracy"] == described.metrics["accuracy"]
    for tag in ("version", "digest", "code_commit", "data_digest"):
        assert run.data.tags[tag] == getattr(described, tag)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {
        "report.json", "report.md", "feature_importance.csv", "evaluation_set.csv",
    }  # fmt: skip
    (registered,) = client.search_model_versions("name='IrisRFModel'")
    assert registered.tags["version"] == described.version
    assert registered.run_id == run.info.run_id


def test_the_recorded_model_loads_with_its_signature(trained: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.chdir(trained.source)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    (registered,) = mlflow_client(trained).search_model_versions("name='IrisRFModel'")
    model = mlflow.pyfunc.load_model(registered.source)

    assert model.metadata.signature is not None
    assert list(model.predict(np.array([SAMPLE]))) == ["setosa"]


STOCK_SERVER = """
import sys
for blocked in ("skl2onnx", "onnx", "mlflow", "iris", "packing"):
    sys.modules[blocked] = None
import joblib
model = joblib.load(sys.argv[1])
print(model.predict([[5.3, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]).tolist())
"""


def test_a_stock_scikit_learn_server_loads_the_joblib(artifacts: Path, tmp_path: Path) -> None:
    """Without any code of ours, as KServe's does it, from the plain lists of a request."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", STOCK_SERVER, artifacts / "sklearn/model.joblib"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip

    assert done.stderr == ""
    assert done.stdout == "['setosa', 'virginica']\n"


@pytest.fixture
def options(trained: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Options for a run in this process, which is quicker, on the trained repository's code."""
    monkeypatch.setattr(train, "SOURCE", trained.source)
    monkeypatch.chdir(tmp_path)
    return {
        "--data": str(trained.source / "data/iris.csv"),
        "--params": str(trained.source / "iris/params.yaml"),
        "--out": str(tmp_path / "out"),
        "--reports": str(tmp_path / "reports"),
    }


def refusal(options: dict[str, str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The error lines of a run that must be refused and must write nothing."""
    before = sorted(Path().rglob("*"))

    assert train.main([part for option in options.items() for part in option]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert sorted(Path().rglob("*")) == before
    return [line for line in err.splitlines() if line.startswith("error: ")]


def test_missing_data_is_refused(options: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refusal(options | {"--data": "absent.csv"}, capsys)

    assert line == ("error: absent.csv: No such file or directory; `python -m iris.generate_data` makes data/iris.csv")


def test_missing_parameters_are_refused(options: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refusal(options | {"--params": "absent.yaml"}, capsys)

    assert line.startswith("error: absent.yaml: No such file or directory; --params names the file")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 42", "seed: -1", "seed: Input should be greater than or equal to 0, not -1"),
        ("min_variance: 0.0", "min_variance: 99.0", "No feature in X meets the variance threshold 99.00000"),
        ("test_size: 0.3", "test_size: 0.001", "too few rows to hold out 0.001 of each species"),
    ],
)
def test_parameters_that_cannot_work_are_refused(
    options: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path, old: str, new: str, message: str
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(Path(options["--params"]).read_text().replace(old, new))

    (line,) = refusal(options | {"--params": str(params)}, capsys)

    assert message in line


def test_a_folder_with_other_peoples_files_is_refused(
    options: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").touch()

    (line,) = refusal(options, capsys)

    assert "out: not empty, and no model version (manifest.json is missing); choose another --out" in line


def test_flavours_that_disagree_are_not_packed(
    options: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a version nor a report nor a run: the pipeline gets a step that rounds differently in ONNX."""
    from sklearn.preprocessing import StandardScaler

    build = train.build

    def scaled(params: object):  # type: ignore[no-untyped-def]
        pipeline = build(params)  # type: ignore[arg-type]
        pipeline.steps.insert(0, ("scale", StandardScaler()))
        return pipeline

    monkeypatch.setattr(train, "build", scaled)

    (line,) = refusal(options, capsys)

    assert line.startswith("error: ONNX and scikit-learn disagree on ")


def test_an_interruption_leaves_the_old_version(
    options: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, version: Path
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_export, "check_parity", interrupted)
    before = {file: file.read_bytes() for file in version.rglob("*") if file.is_file()}

    assert train.main(["--data", options["--data"], "--params", options["--params"], "--out", str(version)]) == 130

    assert capsys.readouterr().err.endswith("error: interrupted; no version was written\n")
    assert {file: file.read_bytes() for file in version.rglob("*") if file.is_file()} == before
    assert [path.name for path in version.parent.iterdir()] == ["version"]


def test_an_unreachable_tracking_server_is_named(
    options: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    (line,) = refusal(options, capsys)

    assert line.startswith("error: MLflow at http://127.0.0.1:9 (MLFLOW_TRACKING_URI): ")


def test_shallow_clones_are_refused_before_any_work(
    options: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shallow(*args: object, **more: object) -> None:
        raise Refused("a shallow clone")

    monkeypatch.setattr(lineage, "find", shallow)

    assert refusal(options | {"--data": "absent.csv"}, capsys) == ["error: a shallow clone"]


@pytest.mark.parametrize("command", ["iris.train", "iris.generate_data", "serving"])
def test_help_is_quick_and_has_examples(trained: Repository, command: str) -> None:
    heavy = "sklearn|mlflow|pandas|skl2onnx"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", command, "--help"],
        cwd=Path(__file__).parents[1], capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0
    assert f"python -m {command}" in done.stdout.split("\n\n", 2)[-1]
    assert not [name for name in heavy.split("|") if f" {name}\n" in done.stderr]


def test_wrong_usage_is_exit_2() -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--surprise"])

    assert stopped.value.code == 2

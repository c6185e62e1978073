"""A training job of SageMaker, from what is in the image, on the folders that SageMaker makes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import warm
from conftest import Repository
from test_pipelines import INSTRUCTIONS, image

from contract import digest
from contract.manifest import parse
from packing import lineage


@dataclass(frozen=True)
class Job:
    app: Path
    """The folder /app of the image."""
    ml: Path
    """What is /opt/ml in a container."""
    environment: dict[str, str]

    def run(self) -> subprocess.CompletedProcess[str]:
        variables = {**self.environment, "ML_FOLDER": str(self.ml), "PYTHONPATH": str(self.app)}
        return warm.run(["-m", "extras.pipelines.job"], self.app, variables)

    @property
    def failure(self) -> str:
        return (self.ml / "output/failure").read_text()

    def ask(self, **changed: str) -> None:
        file = self.ml / "input/config/hyperparameters.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))


@pytest.fixture
def job(tmp_path: Path, trained: Repository, environment: dict[str, str]) -> Job:
    """As `train_sagemaker.py` asks for it."""
    code = lineage.find(trained.source, "lily")
    raw, ml = trained.source / "models/lily/data/raw.csv", tmp_path / "ml"
    asked = {
        "model": "lily", "code_commit": code.commit, "date": code.date,
        "code": lineage.code_digest(committed(trained, code.commit)), "data": hashlib.md5(raw.read_bytes()).hexdigest(),
    }  # fmt: skip
    for folder in ("input/config", "input/data/raw", "model", "output"):
        (ml / folder).mkdir(parents=True)
    (ml / "input/config/hyperparameters.json").write_text(json.dumps(asked))
    # By the name that DVC gives its object.
    shutil.copy(raw, ml / "input/data/raw" / asked["data"][2:])
    app = image(tmp_path / "app")
    # Committed with the model, as in a checkout that the image is built from.
    for path in trained.git("ls-files", "model-src/models/lily").splitlines():
        target = app / path.removeprefix("model-src/")
        if lineage.is_code(path.removeprefix("model-src/")):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(trained.root / path, target)
    return Job(app, ml, environment)


def committed(repository: Repository, commit: str) -> list[tuple[str, bytes]]:
    paths = [f"model-src/{path}" for path in lineage.made_from("lily")]
    names = repository.git("ls-tree", "-r", "--name-only", commit, "--", *paths).splitlines()
    return [
        (name.removeprefix("model-src/"), subprocess.run(
            ["git", "show", f"{commit}:{name}"], cwd=repository.root, capture_output=True, check=True).stdout)
        for name in names
    ]  # fmt: skip


def test_the_version_is_the_one_that_is_made_here(job: Job, trained: Repository) -> None:
    done = job.run()

    assert done.returncode == 0, done.stderr
    made, here = parse((job.ml / "model/manifest.json").read_bytes(), "manifest.json"), trained.manifest()
    assert made.digest == here.digest
    fields = set(json.loads(made.text)) - {"mlflow_run"}
    assert {name: json.loads(made.text)[name] for name in fields} == {
        name: json.loads(here.text)[name] for name in fields
    }
    assert [(file.path, file.sha256) for file in digest.hash_folder(job.ml / "model")] == [
        (file.path, file.sha256) for file in here.files
    ]
    assert done.stdout == f"lily {here.version}\n"
    assert (job.ml / "output/data/report.html").is_file()
    assert not (job.ml / "output/failure").exists()


def unasked(job: Job) -> None:
    job.ask(code_commit="main")


def other_code(job: Job) -> None:
    with (job.app / "models/lily/model.py").open("a") as file:
        file.write("\n# Not committed.\n")


def more_code(job: Job) -> None:
    (job.app / "lifecycle/extra.py").touch()


def other_data(job: Job) -> None:
    [file] = (job.ml / "input/data/raw").iterdir()
    file.write_text(file.read_text().replace("setosa", "virginica"))


def no_data(job: Job) -> None:
    shutil.rmtree(job.ml / "input/data/raw")


def bad_data(job: Job) -> None:
    other_data(job)
    [file] = (job.ml / "input/data/raw").iterdir()
    job.ask(data=hashlib.md5(file.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (unasked, "hyperparameters.json: code_commit: String should match"),
        (other_code, "lily: the code in this image is sha256:"),
        (more_code, "lily: the code in this image is sha256:"),
        (other_data, "but dvc.lock has "),
        (no_data, "0 files, and the raw data is one"),
        (bad_data, "models/lily/data/raw.csv: "),
    ],
)
def test_a_job_that_cannot_be_done_says_why_and_makes_nothing(
    job: Job, change: Callable[[Job], None], said: str
) -> None:
    change(job)

    done = job.run()

    assert done.returncode == 1
    assert said in job.failure
    assert len(job.failure) <= 1024
    assert "Traceback" not in done.stderr
    assert not list((job.ml / "model").iterdir())


def test_a_defect_is_shown_as_well(job: Job) -> None:
    (job.ml / "input/config/hyperparameters.json").unlink()

    assert job.run().returncode == 1
    assert job.failure.startswith("FileNotFoundError: ")


def test_the_target_of_the_image_starts_it_as_root() -> None:
    """Kubeflow's, the last one, has a user of its own, and a component brings its own command."""
    stages: list[list[list[str]]] = []
    for instruction in INSTRUCTIONS:
        if instruction[0] == "FROM":
            stages.append([])
        stages[-1].append(instruction)
    by_name = {stage[0][1]: stage[1:] for stage in stages}

    assert by_name["code AS sagemaker"] == [["ENTRYPOINT", '["python", "-m", "extras.pipelines.job"]']]
    assert by_name["code"] == [["USER", "10001:10001"]]
    assert not any(name == "USER" for name, _ in by_name["python:3.12-slim AS code"])

"""What can be known of the image without building it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SAMPLE, SOURCE, Repository, Service

DOCKERFILE = (SOURCE / "Dockerfile").read_text().replace("\\\n", " ")
INSTRUCTIONS = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
# The last stage: what runs.
FINAL = INSTRUCTIONS[max(i for i, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM") :]


def values(name: str) -> list[str]:
    return [value for instruction, value in FINAL if instruction == name]


def build(folder: Path) -> None:
    """Does to `folder` what the final stage's COPY lines do to /app."""
    for value in values("COPY"):
        if value.startswith("--from="):
            continue
        *sources, destination = value.split()
        for source in sources:
            if (SOURCE / source).is_dir():
                shutil.copytree(SOURCE / source, folder / destination, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (folder / destination).mkdir(exist_ok=True)
                shutil.copy(SOURCE / source, folder / destination)


def test_what_is_copied_is_enough_to_serve(
    tmp_path: Path, serve: Callable[..., Service], artifacts: Path, trained: Repository
) -> None:
    """Started as the image starts it, and without writing a file, as on a read-only file system."""
    assert values("ENTRYPOINT") == ['["python", "-m", "serving"]']
    # What SageMaker adds to the entry point would take its place.
    assert not values("CMD")
    app = tmp_path / "app"
    app.mkdir()
    build(app)
    files = sorted(app.rglob("*"))

    service = serve(artifacts / "onnx", trained.manifest().digest, folder=app)
    answer = service.ready().post("/predict", json={"features": SAMPLE})

    assert answer.json()["prediction"] == "setosa"
    assert sorted(app.rglob("*")) == files


def test_what_is_copied_is_enough_to_score_a_batch(
    tmp_path: Path, artifacts: Path, trained: Repository, environment: dict[str, str]
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    build(app)
    (tmp_path / "in.csv").write_text("sepal_length,sepal_width,petal_length,petal_width\n5.3,3.5,1.4,0.2\n")
    given = {"MODEL_URI": f"{artifacts}/onnx", "MODEL_DIGEST": trained.manifest().digest}

    done = subprocess.run(
        [sys.executable, "-m", "serving.batch", "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv"],
        cwd=app, env=environment | given, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "setosa" in (tmp_path / "out.csv").read_text()


def test_nothing_is_copied_that_serving_does_not_need(tmp_path: Path) -> None:
    build(tmp_path)

    text = "".join(file.read_text() for file in tmp_path.rglob("*.py"))

    for module in ("sklearn", "mlflow", "joblib", "skl2onnx", "pandas"):
        assert f"import {module}" not in text
        assert f"from {module}" not in text
    for file in (tmp_path / "packing").glob("*.py"):
        assert file.stem == "__init__" or re.search(rf"packing(\.| import .*){file.stem}\b", text), file.name


def test_onnx_runtime_sends_nothing_whoever_imports_it_first(environment: dict[str, str]) -> None:
    """It decides when it is imported, which only one module does."""
    code = [file for file in SOURCE.glob("*/*.py") if file.parent.name != "tests"]
    assert [file.name for file in code if re.search(r"^ *(import|from) onnxruntime", file.read_text(), re.M)] == [
        "runtime.py"
    ]
    script = "import os; assert 'ORT_DISABLE_TELEMETRY' not in os.environ; import serving.model;"
    done = subprocess.run(
        [sys.executable, "-c", f"{script} print(os.environ['ORT_DISABLE_TELEMETRY'])"],
        cwd=SOURCE, env={k: v for k, v in environment.items() if k != "ORT_DISABLE_TELEMETRY"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "1\n", done.stderr


def test_the_ignore_file_lets_through_what_is_copied_and_no_more() -> None:
    lines = (SOURCE / ".dockerignore").read_text().splitlines()
    allowed = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    copied = {
        source.rstrip("/")
        for name, value in INSTRUCTIONS
        if name == "COPY" and "--from" not in value
        for source in value.split()[:-1]
    }

    assert "*" in lines
    assert allowed - {"packing"} == copied
    assert "packing/*" in lines


@pytest.mark.parametrize(
    ("instruction", "value"),
    [("FROM", "python:3.12-slim"), ("USER", "10001:10001"), ("EXPOSE", "5001 8080"), ("WORKDIR", "/app")],
)
def test_the_final_stage_is_as_promised(instruction: str, value: str) -> None:
    assert values(instruction) == [value]


def test_packages_come_from_the_lock_alone() -> None:
    installs = [value for name, value in INSTRUCTIONS if name == "RUN" and "install" in value]

    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert "-r requirements-serve.txt" in installs[0]
    assert "curl" not in DOCKERFILE
    assert "ADD" not in {name for name, _ in INSTRUCTIONS}


def test_the_locks_agree_and_name_no_place() -> None:
    pins = {}
    for name in ("serve", "train", "test"):
        text = (SOURCE / f"requirements-{name}.txt").read_text()
        assert text.splitlines()[1].strip() == "#    python scripts/lock.py"
        assert not re.search(r"://|--index|--find-links|(?<![\w-])/\w", text)
        pins[name] = set(re.findall(r"^([a-z0-9.-]+(?:\[.*\])?==[^ \\]+)", text, re.MULTILINE))

    assert pins["serve"] < pins["train"] < pins["test"]

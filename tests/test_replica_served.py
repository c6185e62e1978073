"""A version is served where only a replica can be reached, and a wrong byte there by nothing: each reader as a process,
between two real S3 servers of which the model bucket's has stopped."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import BUCKET, REPLICA, ROOT, S3, Version, make_checkout, name_replica, package, s3_running, write_profile

from contract.digest import MANIFEST, version_digest

PYTHON = ROOT / "model-src/.venv/bin/python"
# One number, and the probabilities of two labels for it.
TINY = """
import numpy, onnx, sys
from onnx import TensorProto, helper, numpy_helper
shaped = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])
nodes = [
    helper.make_node("MatMul", ["features", "weights"], ["sums"]),
    helper.make_node("Softmax", ["sums"], ["probabilities"]),
]
weights = numpy_helper.from_array(numpy.array([[1, -1]], numpy.float32), "weights")
graph = helper.make_graph(nodes, "tiny", [shaped("features", 1)], [shaped("probabilities", 2)], [weights])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), sys.argv[1])
"""


def real(folder: Path) -> Version:
    """A packaged model that can be run."""
    made = package(folder)
    subprocess.run([PYTHON, "-c", TINY, folder / "onnx/model.onnx"], check=True)
    content = (folder / "onnx/model.onnx").read_bytes()
    [file] = [file for file in made.data["files"] if file["path"] == "onnx/model.onnx"]
    file |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    digest = version_digest((each["path"], each["sha256"]) for each in made.data["files"])
    version = f"{made.version[:10]}-{digest[7:19]}"
    data = made.data | {"digest": digest, "version": version}
    (folder / MANIFEST).write_text(json.dumps(data))
    return replace(made, digest=digest, version=version, uri=made.uri.replace(made.version, version), data=data)


@pytest.fixture(scope="module")
def copied(
    template: Path, replica_server: S3, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[Version]:
    """A version that a command has copied to the replica, before the model bucket's server stopped."""
    folder = tmp_path_factory.mktemp("copied")
    clone = make_checkout(template, folder)
    name_replica(clone, "prod")
    clone.commit()
    made = real(folder / "artifacts")
    write_profile(folder / "aws-config", replica_server)
    with s3_running(folder / "main", environment) as main, pytest.MonkeyPatch.context() as patch:
        for name, value in (environment | main.variables | {"AWS_CONFIG_FILE": str(folder / "aws-config")}).items():
            patch.setenv(name, value)
        assert main.upload(made) == made.uri
        done = clone.run("replicate_models", "--all")
        assert done.code == 0, done.err
    yield made
    replica_server.empty()


@pytest.fixture
def variables(copied: Version, replica_server: S3, environment: dict[str, str]) -> dict[str, str]:
    """What a pod has where the replica is."""
    told = {"MODEL_URI": f"{copied.uri}onnx/", "MODEL_DIGEST": copied.digest, "MODEL_MANIFEST": copied.manifest}
    return environment | replica_server.variables | told | {"MODEL_REPLICA": REPLICA, "PORT": "0"}


def serve(variables: dict[str, str]) -> str:
    """What the service prints, up to whether it serves."""
    command = [PYTHON, "-m", "serving"]
    with subprocess.Popen(
        command, cwd=ROOT / "model-src", env=variables, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("serving "):
                process.kill()
    return "".join(lines)


def score(variables: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "in.csv").write_text("sepal_length\n3\n-3\n")
    files = ("--input", folder / "in.csv", "--output", folder / "out.csv")
    command = [PYTHON, "-m", "serving.batch", *files]
    return subprocess.run(command, cwd=ROOT / "model-src", env=variables, capture_output=True, text=True)


def fetch(variables: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    uri = variables["MODEL_URI"].replace("/onnx/", "/sklearn/")
    command = [sys.executable, "-c", (ROOT / "argocd/platform/storage/fetch.py").read_text(), uri, folder]
    return subprocess.run(command, env=variables, capture_output=True, text=True)


def test_service_batch_and_storage_container_read_from_the_replica_alone(
    copied: Version, variables: dict[str, str], tmp_path: Path, replica_server: S3
) -> None:
    models = tmp_path / "models"
    models.mkdir()

    assert f"serving lily {copied.version}\n" in serve(variables)
    done = score(variables, tmp_path)
    assert done.returncode == 0, done.stderr
    answers = [line.split(",")[1] for line in (tmp_path / "out.csv").read_text().splitlines()]
    assert answers == ["prediction", "setosa", "versicolor"]
    done = fetch(variables, models)
    assert done.returncode == 0, done.stderr
    assert (models / "model.joblib").read_text() == "joblib one"

    for path in ("onnx/model.onnx", "sklearn/model.joblib"):
        content = (copied.folder / path).read_bytes()
        wrong = bytes([content[0] ^ 1]) + content[1:]
        key = copied.uri.removeprefix(f"s3://{BUCKET}/") + path
        replica_server.client.put_object(Bucket=REPLICA, Key=key, Body=wrong)
    said = serve(variables)
    assert "error: onnx/model.onnx: sha256: " in said
    assert "serving lily" not in said
    done = score(variables, tmp_path)
    assert (done.returncode, done.stderr.startswith("error: onnx/model.onnx: sha256: ")) == (1, True)
    done = fetch(variables, models)
    assert (done.returncode, list(models.iterdir())) == (1, [])
    assert "sklearn/model.joblib: sha256 " in done.stderr

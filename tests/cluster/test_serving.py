"""What the live pods say is started as it stands, and answers with the released version."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import pytest
from conftest import BUCKET, IMAGE, ROOT, git, run, wait_until

from gitops.programs import tools

from contract.digest import MANIFEST
from contract.manifest import parse as parse_manifest
from contract.uri import parse_uri

from .conftest import SERVICE, World

MODEL_PYTHON = ROOT / "model-src/.venv/bin/python"
SAMPLE = {"features": [5.3, 3.5, 1.4, 0.2]}


@pytest.fixture
def trained(world: World, environment: dict[str, str]) -> str:
    """The URI of a model that was really trained, and that both apps run in dev."""
    folder = world.plane.clone / "model-src"
    env = environment | {"PATH": f"{MODEL_PYTHON.parent}:{environment['PATH']}"}
    # A version is of committed code. That this code was trained is told to nobody else, so no branch is moved.
    subprocess.run([MODEL_PYTHON, "-m", "dvc", "repro", "models/lily/dvc.yaml"], cwd=folder, env=env, check=True)
    for args in (["checkout", "-q", "--detach"], ["add", "models/lily"], ["commit", "-qm", "Train"]):
        git(folder, *args)
    subprocess.run([MODEL_PYTHON, "-m", "lifecycle", "version", "lily"], cwd=folder, env=env, check=True)
    git(folder, "checkout", "-q", "-")
    uploaded = run("upload_model", "--root", folder.parent, "--model", "lily", "--artifacts", folder / "artifacts/lily")
    assert uploaded.code == 0, uploaded.err
    uri = uploaded.out.strip()
    world.done(
        "bump_model", "--release", f"lily-api:dev={uri},{IMAGE}", "--release", f"lily-sklearn:dev={uri}", "--push"
    )  # fmt: skip
    world.pull()
    for app in ("lily-api", "lily-sklearn"):
        world.live(app, "dev")
    return uri


def pod(world: World, app: str) -> dict[str, Any]:
    found = world.cluster.list("v1", "Pod", "ml-dev", f"app.kubernetes.io/name={app}")
    return max(found, key=lambda item: str(item["metadata"]["creationTimestamp"]))


def test_our_service_answers_as_the_live_pod_says(
    world: World, trained: str, environment: dict[str, str], tmp_path: Path
) -> None:
    [container] = pod(world, "lily-api")["spec"]["containers"]
    # What differs from a pod: where it listens, and which S3 it reads with which credentials.
    env = environment | {item["name"]: item["value"] for item in container["env"]} | world.variables
    command = [str(MODEL_PYTHON), *container["command"][1:]]
    log = tmp_path / "log"
    with log.open("w") as out, subprocess.Popen(
        command, cwd=ROOT / "model-src", env=env | {"HOST": "127.0.0.1", "PORT": "0"}, stderr=out
    ) as process:  # fmt: skip
        try:
            wait_until(lambda: "listening on " in log.read_text(), "the service listens")
            url = log.read_text().partition("listening on ")[2].split()[0]
            wait_until(lambda: answers(f"{url}/readyz"), "the service is ready")
            asked = urllib.request.Request(
                f"{url}/predict", json.dumps(SAMPLE).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(asked, timeout=10) as answer:
                said = json.load(answer)
        finally:
            process.terminate()

    assert (said["prediction"], said["model_version"]) == ("setosa", trained.rstrip("/").rpartition("/")[2])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def test_what_the_live_pod_fetches_is_loaded_by_stock_scikit_learn(
    world: World, trained: str, environment: dict[str, str], tmp_path: Path
) -> None:
    live = pod(world, "lily-sklearn")
    [container] = [item for item in live["spec"]["initContainers"] if item["name"] == "storage-initializer"]
    asked = {
        item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"].split("'")[1]
        for item in container["env"]
        if item["name"].startswith("MODEL_")
    }
    assert asked == {"MODEL_DIGEST": "model.mlops/digest", "MODEL_MANIFEST": "model.mlops/manifest"}
    uri, folder = container["args"]
    assert (uri, folder) == (f"{trained}sklearn/", "/mnt/models")

    # As the kubelet gives them to the container: what KServe put into the pod.
    annotations = live["metadata"]["annotations"]
    env = environment | world.variables | {name: annotations[annotation] for name, annotation in asked.items()}
    fetched = subprocess.run(
        [sys.executable, *container["command"][1:], uri, tmp_path], env=env, capture_output=True, text=True
    )  # fmt: skip
    assert fetched.returncode == 0, fetched.stderr
    code = "import joblib, sys, sklearn; print(sklearn.__version__)\n"
    code += "print(joblib.load(sys.argv[1]).predict([[5.3, 3.5, 1.4, 0.2]])[0])"
    loaded = subprocess.run(
        [MODEL_PYTHON, "-c", code, tmp_path / "model.joblib"], env=environment, capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr
    version, said = loaded.stdout.split()
    assert version.startswith("1.5.")
    assert said in ("setosa", "0")


FETCH = "import sys; from kserve_storage import Storage; print(Storage.download(*sys.argv[1:]))"
# As KServe's sklearnserver does it: the one file of the folder that has a name of this kind, and the rows of a request.
STOCK_SERVER = """
import sys
for blocked in ("skl2onnx", "onnx", "mlflow", "models", "contract", "lifecycle", "packing", "serving"):
    sys.modules[blocked] = None
import json, pathlib
import joblib, numpy, sklearn
[file] = [file for file in pathlib.Path(sys.argv[1]).iterdir() if file.suffix in (".joblib", ".pkl", ".pickle")]
said = joblib.load(file).predict(numpy.array(json.loads(sys.argv[2])))
print(json.dumps({"scikit-learn": sklearn.__version__, "predictions": said.tolist()}))
"""


def test_kserves_own_library_fetches_what_the_live_service_names_and_stock_scikit_learn_predicts_with_it(
    world: World, trained: str, environment: dict[str, str], tmp_path: Path
) -> None:
    live = world.cluster.get(*SERVICE, "lily-sklearn", "ml-dev")
    assert live is not None
    uri, released = live["spec"]["predictor"]["model"]["storageUri"], live["metadata"]["annotations"]

    # It first asks for the bucket, in an answer to which no S3 but AWS's names the region that it should have used.
    env = environment | world.variables | {"AWS_DEFAULT_REGION": world.variables["AWS_REGION"]}
    fetched = subprocess.run(
        [sys.executable, "-c", FETCH, uri, tmp_path / "model"],
        env=env | {"PYTHONPATH": str(tools.KSERVE_STORAGE.require())}, capture_output=True, text=True,
    )  # fmt: skip

    assert (fetched.returncode, fetched.stdout) == (0, f"{tmp_path}/model\n"), fetched.stderr
    key = f"{parse_uri(trained).prefix}{MANIFEST}"
    stored = boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    manifest = parse_manifest(stored, key)  # which refuses files that do not give the digest
    assert (uri, released["model.mlops/digest"]) == (f"{trained}sklearn/", manifest.digest)
    here = {
        f"sklearn/{file.relative_to(tmp_path / 'model')}": hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (tmp_path / "model").rglob("*")
    }
    assert here == {file.path: file.sha256 for file in manifest.files if file.path.startswith("sklearn/")}

    rows = json.dumps([SAMPLE["features"], [6.3, 3.3, 6.0, 2.5]])
    served = subprocess.run(
        [MODEL_PYTHON, "-I", "-W", "error", "-c", STOCK_SERVER, tmp_path / "model", rows],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert (served.returncode, served.stderr) == (0, "")
    said = json.loads(served.stdout)
    assert said["scikit-learn"].startswith("1.5.")
    assert said["predictions"] == ["setosa", "virginica"]

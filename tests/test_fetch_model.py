"""The container that fetches models for stock KServe servers, as a process, from a real S3 server."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import BUCKET, DATE, ROOT, S3, Version

from gitops.manifests import kustomize
from gitops.manifests.objects import Object
from gitops.repo import layout

from contract.digest import counts

Fetch = Callable[[str, Path, str], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def container(manifests: Path) -> Object:
    """What the platform renders of it."""
    items = kustomize.objects(kustomize.build(manifests, layout.PLATFORM))
    [found] = [item for item in items if item["kind"] == "ClusterStorageContainer"]
    return found


@pytest.fixture
def fetch(container: Object, s3: S3, environment: dict[str, str]) -> Fetch:
    """Runs what the container runs: (URI, folder, digest)."""
    *start, script = container["spec"]["container"]["command"]
    assert start == ["python", "-c"]

    def run(uri: str, folder: Path, digest: str) -> subprocess.CompletedProcess[str]:
        folder.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, "-c", script, uri, folder],
            env=environment | s3.variables | {"MODEL_DIGEST": digest}, capture_output=True, text=True,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_files_of_the_flavour_are_fetched(version: Version, fetch: Fetch, tmp_path: Path, slash: str) -> None:
    done = fetch(f"{version.uri}sklearn{slash}", tmp_path / "models", version.digest)

    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model.joblib"]
    expected = (version.folder / "sklearn/model.joblib").read_bytes()
    assert (tmp_path / "models/model.joblib").read_bytes() == expected


def tampered(s3: S3, version: Version) -> None:
    key = f"{version.uri.removeprefix(f's3://{BUCKET}/')}sklearn/model.joblib"
    s3.client.put_object(Bucket=BUCKET, Key=key, Body=b"evil")


def swapped_manifest(s3: S3, version: Version) -> None:
    key = f"{version.uri.removeprefix(f's3://{BUCKET}/')}manifest.json"
    text = (version.folder / "manifest.json").read_text()
    s3.client.put_object(Bucket=BUCKET, Key=key, Body=text.replace('"sha256": "', '"sha256": "0', 1).encode())


def missing(s3: S3, version: Version) -> None:
    s3.client.delete_object(Bucket=BUCKET, Key=f"{version.uri.removeprefix(f's3://{BUCKET}/')}sklearn/model.joblib")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (tampered, "sklearn/model.joblib: sha256 "),
        (swapped_manifest, "was released"),
        (missing, "NoSuchKey"),
    ],
)
def test_other_bytes_than_those_that_were_released_are_refused_and_nothing_is_left(
    s3: S3,
    version: Version,
    fetch: Fetch,
    tmp_path: Path,
    harm: Callable[[S3, Version], None],
    words: str,
) -> None:
    harm(s3, version)

    done = fetch(f"{version.uri}sklearn/", tmp_path / "models", version.digest)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert list((tmp_path / "models").iterdir()) == []


CASES = json.loads((ROOT / "model-src/tests/digests.json").read_text())


def test_the_digest_is_that_of_the_cases_which_the_model_code_is_tested_with(
    s3: S3, fetch: Fetch, tmp_path: Path
) -> None:
    uri, none = f"s3://{BUCKET}/models/lily/{DATE}-{'0' * 12}/", f"sha256:{'0' * 64}"
    for case in CASES:
        files = [
            {"path": path, "sha256": hashlib.sha256(text.encode()).hexdigest()}
            for path, text in case["files"].items()
            if counts(path)
        ]
        key = f"{uri.removeprefix(f's3://{BUCKET}/')}manifest.json"
        s3.client.put_object(Bucket=BUCKET, Key=key, Body=json.dumps({"files": files}).encode())

        done = fetch(f"{uri}onnx/", tmp_path / "models", none)

        said = f"error: {uri}onnx/: the manifest lists files of the digest {case['digest']}, and {none} was released\n"
        assert (case["name"], done.stderr) == (case["name"], said)


@pytest.mark.parametrize(
    ("folder", "digest", "line"),
    [
        ("sklearn/", "", "MODEL_DIGEST: '': no digest; the annotation model.mlops/digest of the pod names it"),
        (
            "sklearn/",
            "unreleased",
            "MODEL_DIGEST: 'unreleased': no digest; the annotation model.mlops/digest of the pod",
        ),
        ("tensorflow/", None, "the version has no such folder"),
        ("", None, "not the folder of a model version"),
    ],
)
def test_what_names_no_released_model_is_refused(
    version: Version, fetch: Fetch, tmp_path: Path, folder: str, digest: str | None, line: str
) -> None:
    given = version.digest if digest is None else digest

    done = fetch(f"{version.uri}{folder}", tmp_path / "models", given)

    assert done.returncode == 1
    assert line in done.stderr


def test_inference_services_ask_for_this_container_and_run_where_pods_are_restricted(
    manifests: Path, container: Object
) -> None:
    base = yaml.safe_load((manifests / "base/inference-service/inferenceservice.yaml").read_text())

    assert base["spec"]["predictor"]["storageContainerName"] == container["metadata"]["name"]
    assert container["spec"]["container"]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }

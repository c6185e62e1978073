"""The container that fetches models for stock KServe servers, as a process, from a real S3 server."""

from __future__ import annotations

import hashlib
import json
import socketserver
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BUCKET, REPLICA, ROOT, S3, Version, package

from gitops.manifests import kustomize
from gitops.manifests.objects import Object
from gitops.repo import layout

from contract.digest import MANIFEST, counts, version_digest

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


def missing(s3: S3, version: Version) -> None:
    s3.client.delete_object(Bucket=BUCKET, Key=f"{version.uri.removeprefix(f's3://{BUCKET}/')}sklearn/model.joblib")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (tampered, "sklearn/model.joblib: sha256 "),
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
    s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = package(tmp_path / "packaged")
    none = f"sha256:{'0' * 64}"
    for case in CASES:
        files = [
            {"path": path, "sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text.encode())}
            for path, text in sorted(case["files"].items())
            if counts(path)
        ]
        key = f"models/lily/{made.version}/{MANIFEST}"
        s3.client.put_object(
            Bucket=BUCKET, Key=key, Body=json.dumps(made.data | {"schema": 1, "files": files}).encode()
        )

        assert fetched(tmp_path / "models", replace(made, digest=none)) == 1

        found = f"error: {MANIFEST}: lists files of the digest {case['digest']}, and {none} was released\n"
        assert (case["name"], capsys.readouterr().err) == (case["name"], found)


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


# The same program in this process


program: Any = types.ModuleType("fetch")
exec((ROOT / "argocd/platform/storage/fetch.py").read_text(), vars(program))


def fetched(folder: Path, version: Version, manifest: str = "", **more: str) -> int:
    """The exit code of the container's program, with more variables."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ({"MODEL_DIGEST": version.digest, "MODEL_MANIFEST": manifest} | more).items():
            patch.setenv(name, value)
        code: int = program.main([f"{version.uri}sklearn/", str(folder)])
    assert code == 0 or not list(folder.iterdir()), "something is left"
    return code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def put(tmp_path: Path, s3: S3) -> Callable[..., Version]:
    """A function that packages a version and stores it, its manifest altered by a function of its data."""

    def stored(alter: Callable[[dict[str, Any]], object] = lambda data: None, **more: Any) -> Version:
        version = package(tmp_path / "packaged", **more)
        alter(version.data)
        (version.folder / MANIFEST).write_text(json.dumps(version.data))
        for file in version.folder.rglob("*"):
            if file.is_file():
                key = f"models/lily/{version.version}/{file.relative_to(version.folder)}"
                s3.client.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
        return version

    return stored


def test_only_the_flavour_is_there_whatever_a_killed_try_has_left(put: Callable[..., Version], folder: Path) -> None:
    version = put(more={"sklearn/deep/er.txt": "more"})
    (folder / "model.pkl").write_text("of a try that was killed")

    assert fetched(folder, version, version.manifest) == 0

    found = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
    assert found == {"model.joblib": "joblib one", "deep/er.txt": "more"}


def test_a_release_of_the_former_form_names_no_manifest(put: Callable[..., Version], folder: Path) -> None:
    assert fetched(folder, put()) == 0


ALTERED: dict[str, Callable[[dict[str, Any]], object]] = {
    name: lambda data, name=name, value=value: data.update({name: value})  # type: ignore[misc]
    for name, value in {
        "metrics": {"accuracy": 1.0}, "parameters": {}, "code_commit": "a" * 40, "data_digest": f"sha256:{'a' * 64}",
        "evaluation_set_digest": f"sha256:{'a' * 64}", "mlflow_run": "a" * 32, "frameworks": {}, "signature": {},
        "draft": True, "model": "rose", "version": "2020-01-01-000000000000", "schema": 1,
    }.items()
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_manifest_is_refused_by_its_hash(
    name: str, put: Callable[..., Version], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package(tmp_path / "packaged")
    released = f"sha256:{hashlib.sha256((tmp_path / 'packaged' / MANIFEST).read_bytes()).hexdigest()}"
    version = put(ALTERED[name])

    assert fetched(folder, version, released) == 1
    assert f"{released} was released; it was altered" in capsys.readouterr().err


def merged(data: dict[str, Any]) -> None:
    """Two lines of the digest as the path of one file: the same digest from fewer files."""
    first, second, *rest = sorted(data["files"], key=lambda file: f"{file['sha256']}  {file['path']}\n")
    path = f"{first['path']}\n{second['sha256']}  {second['path']}"
    data["files"] = sorted([{"path": path, "sha256": first["sha256"], "size": 3}, *rest], key=lambda file: file["path"])
    listed = ((file["path"], file["sha256"]) for file in data["files"])
    assert version_digest(listed) == data["digest"]


def sized(size: Any) -> Callable[[dict[str, Any]], None]:
    def alter(data: dict[str, Any]) -> None:
        [file] = [file for file in data["files"] if file["path"] == "sklearn/model.joblib"]
        file["size"] = size

    return alter


NOT_EACH = "files: not each a path, a sha256 and a size"
MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "merged": (merged, NOT_EACH),
    "true": (sized(True), NOT_EACH),
    "fraction": (sized(10.0), NOT_EACH),
    "negative": (sized(-1), NOT_EACH),
    "huge": (sized(1 << 80), NOT_EACH),
    "nan": (lambda data: data["metrics"].update(accuracy=float("nan")), "not JSON: NaN is not a number"),
    "larger": (sized(11), "sklearn/model.joblib: sha256"),
    "smaller": (sized(9), "sklearn/model.joblib: larger than the 9 bytes of the manifest"),
    "unknown": (lambda data: data.update(more=1), "its fields are not code_commit, "),
    "missing": (lambda data: data.pop("draft"), "its fields are not code_commit, "),
    "schema": (lambda data: data.update(schema=3), "schema: 3, not 1 or 2"),
    "schema-true": (lambda data: data.update(schema=True), "schema: True, not 1 or 2"),
    "former": (lambda data: data.update(schema=1), "files: signature.json is of schema 2, and only of it"),
    "model": (lambda data: data.update(model="rose"), "is of ('rose', "),
    "digest": (lambda data: data.update(digest=f"sha256:{'0' * 64}"), "is of ('lily', "),
    "order": (lambda data: data["files"].reverse(), "files: not sorted by path, or a path stands twice"),
    "twice": (lambda data: data["files"].insert(0, data["files"][0]), "files: not sorted by path, or a path"),
    "list": (lambda data: data.update(files={}), NOT_EACH),
    "more-in-a-file": (lambda data: data["files"][0].update(more=1), NOT_EACH),
    "fewer": (lambda data: data["files"].pop(), "lists files of the digest"),
    "none": (lambda data: data.update(files=[]), "files: signature.json is of schema 2"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_manifest_of_another_form_is_refused_before_a_byte_is_written(
    name: str, put: Callable[..., Version], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alter, fault = MALFORMED[name]

    assert fetched(folder, put(alter)) == 1
    assert fault in (error := capsys.readouterr().err), error


@pytest.mark.parametrize("manifest", ["sha256:", "unreleased", "0" * 64, f"sha256:{'0' * 64}\n"])
def test_what_is_no_hash_is_not_taken_for_none(
    manifest: str, put: Callable[..., Version], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetched(folder, put(), manifest) == 1
    assert f"MODEL_MANIFEST: {manifest!r}: no SHA-256" in capsys.readouterr().err


def test_larger_bytes_than_listed_are_not_written(
    put: Callable[..., Version], folder: Path, s3: S3, capsys: pytest.CaptureFixture[str]
) -> None:
    version = put()
    s3.client.put_object(
        Bucket=BUCKET, Key=f"models/lily/{version.version}/sklearn/model.joblib", Body=b"x" * (8 << 20)
    )

    assert fetched(folder, version, version.manifest) == 1
    assert "sklearn/model.joblib: larger than the 10 bytes of the manifest" in capsys.readouterr().err


# A replica


@pytest.fixture
def copied(version: Version, s3: S3, replica: S3, monkeypatch: pytest.MonkeyPatch) -> Version:
    """A version in the replica, whose server is the only one that can be reached: it has no model bucket."""
    for key, (body, _) in s3.objects().items():
        replica.client.put_object(Bucket=REPLICA, Key=key, Body=body)
    for name, value in replica.variables.items():
        monkeypatch.setenv(name, value)
    return version


def test_a_version_is_fetched_where_only_the_replica_can_be_reached(copied: Version, folder: Path) -> None:
    assert fetched(folder, copied, copied.manifest) == 1
    assert fetched(folder, copied, copied.manifest, MODEL_REPLICA=REPLICA) == 0
    assert (folder / "model.joblib").read_text() == "joblib one"


@pytest.mark.parametrize("path", ["manifest.json", "sklearn/model.joblib"])
def test_a_wrong_byte_in_the_replica_is_never_served_although_the_bucket_has_the_right_ones(
    path: str, version: Version, folder: Path, s3: S3, capsys: pytest.CaptureFixture[str]
) -> None:
    (s3.files.parent / "beside").mkdir(exist_ok=True)
    for key, (body, _) in s3.objects().items():
        wrong = body.replace(b"joblib one", b"joblib 0ne").replace(b"0.9556", b"0.9999")
        s3.client.put_object(Bucket="beside", Key=key, Body=wrong if key.endswith(path) else body)

    assert fetched(folder, version, version.manifest, MODEL_REPLICA="beside") == 1
    assert f"{path}: " in (error := capsys.readouterr().err)
    assert "was released" in error


@pytest.mark.parametrize(
    ("replica", "manifest", "fault"),
    [
        ("", True, "MODEL_REPLICA: '': no bucket; name the one to read in the place of mlops-prod"),
        ("s3://beside", True, "MODEL_REPLICA: 's3://beside': no bucket; name the one"),
        ("beside", False, "MODEL_MANIFEST: missing, and MODEL_REPLICA is 'beside'; release s3://mlops-prod/"),
    ],
)
def test_a_replica_is_a_bucket_that_is_believed_by_the_hash_of_the_manifest(
    replica: str, manifest: bool, fault: str, version: Version, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetched(folder, version, version.manifest if manifest else "", MODEL_REPLICA=replica) == 1
    assert capsys.readouterr().err.startswith(f"error: {fault}")


class Dripping(socketserver.BaseRequestHandler):
    """A server that answers, with a byte now and then and no end."""

    def handle(self) -> None:
        self.request.recv(1 << 16)
        self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        stopped = self.server.stopped  # type: ignore[attr-defined]
        while not stopped.wait(0.05):
            try:
                self.request.sendall(b"{")
            except OSError:
                return


def test_a_server_that_drips_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch, s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = package(tmp_path / "packaged")
    monkeypatch.setattr(program, "WAIT", 0.5)
    monkeypatch.setattr(program, "RATE", 1e7)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping) as server:
        server.stopped = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_address[1]}")
        try:
            assert fetched(folder, version) == 1
        finally:
            server.stopped.set()  # type: ignore[attr-defined]
            server.shutdown()

    assert "manifest.json: slower than 10000000.0 bytes a second" in capsys.readouterr().err

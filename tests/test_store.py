"""The bucket: what reading it finds out, and how a local server keeps it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from conftest import BUCKET, ROOT, S3, SAMPLE, Result, Version, listens, package, s3_running, wait_until
from dripping import LONG, OK, dripping

from gitops.models import store
from gitops.models.s3 import Store

from contract import waiting
from contract.errors import Refused
from contract.manifest import File, Manifest
from contract.uri import parse_uri


def refusal(call: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.lines


def verify(uri: str) -> Manifest:
    return store.verify(Store(BUCKET), parse_uri(uri), None)


def key(version: Version, path: str) -> str:
    return version.uri.removeprefix(f"s3://{BUCKET}/") + path


def listed(version: Version) -> list[File]:
    return [File(**file) for file in version.data["files"]]


# Verification


def test_a_version_as_it_was_uploaded_is_verified(version: Version) -> None:
    manifest = verify(version.uri)

    assert json.loads(manifest.text) == version.data
    assert manifest.text == (version.folder / "manifest.json").read_bytes()


def test_a_byte_that_flipped_on_the_servers_disk_is_reported_as_damage(version: Version, s3: S3) -> None:
    for path in ("onnx/model.onnx", "sklearn/model.joblib"):
        file = s3.files / key(version, path)
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])

    assert refusal(lambda: verify(version.uri)) == tuple(
        f"{version.uri}{path}: the stored bytes do not match the checksum they were stored with;"
        " the object is damaged, do not release it"
        for path in ("onnx/model.onnx", "sklearn/model.joblib")
    )


def test_a_damaged_manifest_is_reported_as_damage(version: Version, s3: S3) -> None:
    file = s3.files / key(version, "manifest.json")
    file.write_bytes(file.read_bytes().replace(b"0.9556", b"0.9999"))

    assert refusal(lambda: verify(version.uri)) == (
        f"{version.uri}manifest.json: the stored bytes do not match the checksum they were stored with;"
        " the object is damaged, do not release it",
    )


def test_an_object_that_was_replaced_together_with_its_checksum_is_found(version: Version, s3: S3) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=key(version, "onnx/model.onnx"), Body=b"replaced")
    was, sha256 = listed(version)[0], hashlib.sha256(b"replaced").hexdigest()
    assert was.size == 8

    assert refusal(lambda: verify(version.uri)) == (
        f"{version.uri}onnx/model.onnx: sha256 {sha256}, the manifest has {was.sha256};"
        " versions are never overwritten: find out who wrote that object, do not release it",
    )


def test_a_replaced_object_with_a_manifest_that_follows_it_does_not_fit_the_versions_name(
    version: Version, tmp_path: Path, s3: S3
) -> None:
    """The name holds the digest: whoever rewrites a version whole cannot keep its URI."""
    other = package(tmp_path / "other", content="two", version=version.version)
    for path in ("onnx/model.onnx", "sklearn/model.joblib", "manifest.json"):
        s3.client.upload_file(other.folder / path, BUCKET, key(version, path))

    assert refusal(lambda: verify(version.uri)) == (
        f"{version.uri}manifest.json: version: {version.version} does not end in the first 12 digits of {other.digest}",
    )


def test_a_version_under_the_name_of_another_is_refused(version: Version, tmp_path: Path, s3: S3) -> None:
    other = package(tmp_path / "other", content="two")
    for path in ("onnx/model.onnx", "sklearn/model.joblib", "manifest.json"):
        s3.client.upload_file(other.folder / path, BUCKET, key(version, path))

    assert refusal(lambda: verify(version.uri)) == (
        f"{version.uri}manifest.json: names lily/{other.version}, not lily/{version.version}",
    )


def test_missing_and_foreign_objects_are_found_together(version: Version, s3: S3) -> None:
    s3.client.delete_object(Bucket=BUCKET, Key=key(version, "sklearn/model.joblib"))
    for path in ("sklearn/model.pkl", "onnx/sub/manifest.json", "onnx/model.onnx.sig"):
        s3.client.put_object(Bucket=BUCKET, Key=key(version, path), Body=b"foreign")

    assert refusal(lambda: verify(version.uri)) == (
        f"{version.uri}sklearn/model.joblib: missing; the version is incomplete, do not release it",
        f"{version.uri}onnx/sub/manifest.json: not in the manifest; remove the object, a model server might load it",
        f"{version.uri}sklearn/model.pkl: not in the manifest; remove the object, a model server might load it",
    )


def test_without_a_manifest_there_is_no_version(version: Version, s3: S3) -> None:
    s3.client.delete_object(Bucket=BUCKET, Key=key(version, "manifest.json"))

    assert refusal(lambda: verify(version.uri)) == (
        f"{version.uri}: no such version in the bucket; `list_versions.py --model lily` lists what is there",
    )


def test_a_draft_that_somebody_put_into_the_bucket_is_refused(version: Version, s3: S3) -> None:
    draft = json.dumps(version.data | {"draft": True}).encode()
    s3.client.put_object(Bucket=BUCKET, Key=key(version, "manifest.json"), Body=draft)

    assert refusal(lambda: verify(version.uri)) == (
        f"{version.uri}manifest.json: draft: true; a draft is never released, train from a commit and upload that",
    )


def test_an_object_larger_than_what_is_read_at_once_is_hashed_whole(s3: S3) -> None:
    body = os.urandom(3 * (1 << 20) + 7)
    s3.client.put_object(Bucket=BUCKET, Key="large", Body=body)

    assert Store(BUCKET).sha256("large", len(body)) == (hashlib.sha256(body).hexdigest(), len(body))


def test_an_object_is_added_once(s3: S3) -> None:
    one, two = (hashlib.sha256(body).hexdigest() for body in (b"one", b"two"))

    assert [Store(BUCKET).add("key", b"one", one), Store(BUCKET).add("key", b"two", two)] == [True, False]
    assert Store(BUCKET).read("key", 3) == b"one"


def test_what_is_not_there_is_none(s3: S3) -> None:
    assert (Store(BUCKET).read("nothing", 1), Store(BUCKET).sha256("nothing", 1), Store(BUCKET).keys("no")) == (
        None,
        None,
        [],
    )


def test_more_keys_than_one_answer_holds_are_all_listed(s3: S3) -> None:
    (s3.files / "many").mkdir()
    for number in range(1001):
        (s3.files / f"many/{number:04}").touch()

    assert Store(BUCKET).keys("many/") == [f"many/{number:04}" for number in range(1001)]


@pytest.mark.parametrize("length", [0, 7, 9, 1 << 20])
def test_an_object_of_another_size_is_told_by_its_size(version: Version, s3: S3, length: int) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=key(version, "onnx/model.onnx"), Body=bytes(length))

    assert refusal(lambda: verify(version.uri)) == (
        f"{version.uri}onnx/model.onnx: size: {length} bytes, the manifest has 8; versions are never overwritten: find"
        " out who wrote that object, do not release it",
    )


@pytest.mark.parametrize("answer", [LONG, OK + b"\r\n"], ids=["which says its length", "which does not"])
def test_no_more_is_read_of_an_object_than_shows_that_it_is_too_large(
    answer: bytes, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither has an end: read whole, they would be waited for."""
    monkeypatch.setenv(waiting.VARIABLE, "600")
    with dripping(answer) as server:
        server.drop = bytes(1 << 16)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        sha256, size = Store(BUCKET).sha256("key", 8) or ("", 0)

    assert sha256 is None
    assert size > 8


def test_a_manifest_without_end_is_none(version: Version, s3: S3) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=key(version, "manifest.json"), Body=b" " * (1 << 21))

    assert refusal(lambda: verify(version.uri)) == (
        f"{version.uri}manifest.json: larger than 1048576 bytes, so it is none; find out who wrote that object",
    )


# A local server


def test_the_printed_variables_lead_a_client_to_the_bucket_and_the_data_stays_for_the_next_run(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(b"body").hexdigest()
    stored = []
    for _ in range(2):
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials it found first
        with s3_running(tmp_path / "data", environment) as server, monkeypatch.context() as patch:
            for name, value in server.variables.items():
                patch.setenv(name, value)
            stored.append((Store(BUCKET).add("key", b"body", sha256), Store(BUCKET).sha256("key", 4)))

    assert stored == [(True, (sha256, 4)), (False, (sha256, 4))]


def start(data: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts/local_s3.py", "--root", SAMPLE, "--data", data, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_command_ends_the_server_and_frees_its_port(sent: signal.Signals, tmp_path: Path) -> None:
    with start(tmp_path / "data", "--region", "eu-central-1") as process:
        lines = [process.stdout.readline() for _ in range(4)] if process.stdout else []
        port = int(lines[0].strip().rpartition(":")[2])
        wait_until(lambda: listens(port), "the server listens")
        process.send_signal(sent)

        process.wait(30)

    assert not listens(port)
    assert lines == [
        f"export AWS_ENDPOINT_URL_S3=http://127.0.0.1:{port}\n",
        "export AWS_ACCESS_KEY_ID=local\n",
        "export AWS_SECRET_ACCESS_KEY=local-secret\n",
        "export AWS_REGION=eu-central-1\n",
    ]


def refused(data: Path, *args: str) -> Result:
    with start(data, *args) as process:
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    return Result(process.returncode, out, err)


def test_a_port_in_use_is_refused_and_makes_no_folder(tmp_path: Path, s3_server: S3) -> None:
    port = s3_server.url.rpartition(":")[2]

    assert refused(tmp_path / "data", "--port", port) == Result(
        1, "", f"error: --port {port}: Address already in use; choose another, or leave it out for one that is free\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_none_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "data", "--port", "70000") == Result(
        1, "", "error: --port 70000: not a port; choose another, or leave it out for one that is free\n"
    )


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert refused(tmp_path / "file") == Result(1, "", f"error: {tmp_path}/file/buckets/{BUCKET}: Not a directory\n")

"""upload_model.py against a real S3 server: what it stores, what it skips, and what it refuses."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from conftest import BUCKET, DATE, ROOT, S3, SAMPLE, Result, Version, interrupted_add, package, run, wait_until

from gitops.models.s3 import Store

FILES = ["onnx/model.onnx", "signature.json", "sklearn/model.joblib"]


@pytest.fixture(autouse=True)
def _policy(manifests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template's policy, whatever that of a fork asks for."""
    monkeypatch.setattr("gitops.cli.ROOT", manifests)


@pytest.fixture
def packaged(tmp_path: Path, s3: S3) -> Version:
    """A model version that is not in the bucket yet."""
    return package(tmp_path / "packaged")


def upload(version: Version, *args: str, model: str = "lily", bucket: str = f"s3://{BUCKET}") -> Result:
    return run("upload_model", "--model", model, "--artifacts", version.folder, "--bucket", bucket, *args)


def keys(s3: S3) -> list[str]:
    return s3.keys()


def prefix(version: Version) -> str:
    return version.uri.removeprefix(f"s3://{BUCKET}/")


def complete(version: Version) -> dict[str, bytes]:
    return {f"{prefix(version)}{path}": (version.folder / path).read_bytes() for path in [*FILES, "manifest.json"]}


def stored(s3: S3) -> dict[str, bytes]:
    return {key: body for key, (body, _) in s3.objects().items()}


def refuses(done: Result, *lines: str) -> None:
    assert done.errors == list(lines)
    assert done.err.count("\n") == len(lines)
    assert (done.code, done.out) == (1, "")


# What is stored


def test_an_upload_stores_every_file_and_prints_the_uri_alone(packaged: Version, s3: S3) -> None:
    done = upload(packaged)

    assert done == Result(0, f"{packaged.uri}\n", "uploaded 4 objects\n")
    assert stored(s3) == complete(packaged)


def test_the_bucket_of_the_policy_is_the_default(packaged: Version) -> None:
    done = run("upload_model", "--model", "lily", "--artifacts", packaged.folder, "--json")

    assert json.loads(done.out) == {"uri": packaged.uri, "digest": packaged.digest, "added": 4, "dry_run": False}


@pytest.mark.parametrize("there", [[], FILES[:1], FILES])
def test_a_dry_run_counts_what_is_missing_and_stores_nothing(there: list[str], packaged: Version, s3: S3) -> None:
    for path in there:
        s3.client.upload_file(packaged.folder / path, BUCKET, f"{prefix(packaged)}{path}")
    before = s3.objects()

    done = upload(packaged, "--dry-run")

    assert done == Result(0, f"{packaged.uri}\n", f"would upload {4 - len(there)} objects\n")
    assert s3.objects() == before


def test_the_same_version_again_is_skipped(packaged: Version, s3: S3) -> None:
    s3.upload(packaged)
    before = s3.objects()

    done = upload(packaged)

    assert done == Result(0, f"{packaged.uri}\n", "these files are a version already, complete and unchanged\n")
    assert s3.objects() == before


@pytest.mark.parametrize("date", [DATE, "2026-01-31", "2026-03-04"])
def test_the_same_files_from_another_run_or_commit_stay_the_version_that_was_first(
    date: str, packaged: Version, tmp_path: Path, s3: S3
) -> None:
    s3.upload(packaged)
    before = s3.objects()
    version = f"{date}-{packaged.version[11:]}"
    again = package(tmp_path / "again", version=version, code_commit="beef" * 10, mlflow_run="a" * 32)

    done = upload(again)

    assert done == Result(0, f"{packaged.uri}\n", "these files are a version already, complete and unchanged\n")
    assert s3.objects() == before


def test_other_files_are_another_version(packaged: Version, tmp_path: Path, s3: S3) -> None:
    other = package(tmp_path / "other", content="two")

    assert [s3.upload(packaged), s3.upload(other)] == [packaged.uri, other.uri]
    assert stored(s3) == complete(packaged) | complete(other)


def test_signatures_beside_the_files_are_neither_uploaded_nor_in_the_way(packaged: Version, s3: S3) -> None:
    (packaged.folder / "onnx/model.onnx.sig").write_text("signature")
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(packaged)}manifest.json.sigstore.json", Body=b"signature")

    assert upload(packaged).code == 0
    assert complete(packaged).items() <= stored(s3).items()
    assert f"{prefix(packaged)}onnx/model.onnx.sig" not in keys(s3)


# Interruptions and races


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_an_upload_interrupted_at_any_object_is_no_version_until_the_next_completes_it(
    moment: str, number: int, packaged: Version, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", interrupted_add(number, moment))
        done = upload(packaged)

    put = [f"{prefix(packaged)}{path}" for path in [*FILES, "manifest.json"]][: number + (moment == "after")]
    assert done == Result(130, "", "error: interrupted; run the same command again to complete it\n")
    assert keys(s3) == sorted(put)

    before = s3.objects()
    assert upload(packaged).out == f"{packaged.uri}\n"
    assert stored(s3) == complete(packaged)
    assert before.items() <= s3.objects().items()


def process(version: Version) -> subprocess.Popen[str]:
    command = [
        sys.executable, ROOT / "scripts/upload_model.py", "--root", SAMPLE, "--model", "lily",
        "--artifacts", version.folder,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("path", FILES)
def test_an_upload_killed_when_an_object_is_there_is_completed_by_the_next(
    path: str, packaged: Version, s3: S3
) -> None:
    with process(packaged) as killed:
        wait_until(lambda: (s3.files / prefix(packaged) / path).exists(), f"{path} is stored")
        killed.kill()

    assert upload(packaged).out == f"{packaged.uri}\n"
    assert stored(s3) == complete(packaged)


def test_uploads_of_one_version_at_once_end_in_one_complete_version(packaged: Version, s3: S3) -> None:
    processes = [process(packaged) for _ in range(3)]
    ended = [(one.communicate()[0], one.returncode) for one in processes]

    assert ended == [(f"{packaged.uri}\n", 0)] * 3
    assert stored(s3) == complete(packaged)


@pytest.mark.parametrize("path", [*FILES, "manifest.json"])
def test_an_object_that_somebody_else_stores_meanwhile_is_compared_and_not_overwritten(
    path: str, packaged: Version, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Store.add

    def overtaken(store: Store, key: str, body: Any, sha256: str) -> bool:
        if key.endswith(path):
            s3.client.put_object(Bucket=BUCKET, Key=key, Body=b"[]")
        return add(store, key, body, sha256)

    monkeypatch.setattr(Store, "add", overtaken)

    done = upload(packaged)

    assert [line.startswith(f"{packaged.uri}{path}: ") for line in done.errors] == [True]
    assert (done.code, done.out) == (1, "")
    assert stored(s3)[f"{prefix(packaged)}{path}"] == b"[]"
    assert (f"{prefix(packaged)}manifest.json" in keys(s3)) == (path == "manifest.json")


# What is in the bucket already and does not fit


def test_an_object_with_other_bytes_is_refused_and_stays(packaged: Version, s3: S3) -> None:
    listed = packaged.data["files"][0]
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(packaged)}{FILES[0]}", Body=b"")

    done = upload(packaged)

    refuses(
        done,
        f"{packaged.uri}{FILES[0]}: size: 0 bytes, the manifest has {listed['size']};"
        " versions are never overwritten: find out who wrote that object, do not release it",
    )
    assert stored(s3)[f"{prefix(packaged)}{FILES[0]}"] == b""
    assert f"{prefix(packaged)}manifest.json" not in keys(s3)


def test_a_foreign_object_keeps_the_version_from_existing(packaged: Version, s3: S3) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(packaged)}onnx/other.onnx", Body=b"foreign")

    done = upload(packaged)

    refuses(
        done,
        f"{packaged.uri}onnx/other.onnx: not in the manifest; remove the object, a model server might load it",
    )
    assert f"{prefix(packaged)}manifest.json" not in keys(s3)


def test_a_version_that_was_damaged_since_is_not_called_complete(packaged: Version, s3: S3) -> None:
    s3.upload(packaged)
    s3.client.delete_object(Bucket=BUCKET, Key=f"{prefix(packaged)}{FILES[1]}")
    before = s3.objects()

    refuses(upload(packaged), f"{packaged.uri}{FILES[1]}: missing; the version is incomplete, do not release it")
    assert s3.objects() == before


def test_a_stored_manifest_that_is_none_is_refused_and_stays(packaged: Version, s3: S3) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(packaged)}manifest.json", Body=b"{}")
    before = s3.objects()

    done = upload(packaged)

    assert done.errors[0] == f"{packaged.uri}manifest.json: schema: Field required"
    assert (done.code, done.out) == (1, "")
    assert s3.objects() == before


# What is in the folder and does not fit


def test_a_draft_is_refused(tmp_path: Path, s3: S3) -> None:
    draft = package(tmp_path / "draft", draft=True)

    refuses(
        upload(draft),
        f"{draft.folder}/manifest.json: draft: true; commit the model code and train again without --draft",
    )
    assert keys(s3) == []


def test_missing_foreign_and_altered_files_are_each_named(packaged: Version, s3: S3) -> None:
    (packaged.folder / FILES[0]).unlink()
    (packaged.folder / FILES[1]).write_text("altered")
    (packaged.folder / "onnx/notes.txt").write_text("foreign")
    altered = "4aa009153649a0a7c1425387f3da9c72330ad069ea9f69ce1640abe46f92a83b"

    refuses(
        upload(packaged),
        f"{packaged.folder}/onnx/notes.txt: not in manifest.json; remove it",
        f"{packaged.folder}/{FILES[0]}: missing, manifest.json lists it; train again",
        f"{packaged.folder}/{FILES[1]}: sha256 {altered}, manifest.json has {packaged.data['files'][1]['sha256']};"
        " train again",
    )
    assert keys(s3) == []


def test_a_file_that_changes_during_the_upload_is_refused_by_the_server(
    packaged: Version, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Store.add

    def altered(store: Store, key: str, body: Any, sha256: str) -> bool:
        return add(store, key, b"altered" if key.endswith(FILES[0]) else body, sha256)

    monkeypatch.setattr(Store, "add", altered)

    done = upload(packaged)

    assert [line.partition(": ")[0] for line in done.errors] == [f"s3://{BUCKET}/{prefix(packaged)}{FILES[0]}"]
    assert (done.code, done.out, keys(s3)) == (1, "", [])


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path, s3: S3) -> None:
    refuses(
        run("upload_model", "--model", "lily", "--artifacts", tmp_path / "none"),
        f"{tmp_path}/none/manifest.json: missing; --artifacts names the folder that training wrote",
    )


def test_a_manifest_that_is_wrong_is_refused(packaged: Version, s3: S3) -> None:
    (packaged.folder / "manifest.json").write_text("{")

    refuses(
        upload(packaged),
        f"{packaged.folder}/manifest.json: not JSON: Expecting property name enclosed in double quotes:"
        " line 1 column 2 (char 1)",
    )


def test_another_model_than_the_manifests_is_refused(packaged: Version, s3: S3) -> None:
    refuses(upload(packaged, model="wine"), f"{packaged.folder}/manifest.json: model: 'lily', but --model is 'wine'")
    assert keys(s3) == []


# The bucket and the way to it


@pytest.mark.parametrize(
    "bucket",
    ["", "mlops-prod", "s3://", "s3:///", "s3://mlops-prod/models", "s3://Mlops", "s3://a b", "https://mlops-prod"],
)
def test_a_malformed_bucket_is_refused(bucket: str, packaged: Version, s3: S3) -> None:
    refuses(
        upload(packaged, bucket=bucket),
        f"--bucket {bucket!r}: write it as s3://BUCKET; the place in the bucket follows from the model",
    )


def test_a_slash_after_the_bucket_does_not_matter(packaged: Version, s3: S3) -> None:
    assert upload(packaged, bucket=f"s3://{BUCKET}/").out == f"{packaged.uri}\n"


def test_a_bucket_that_does_not_exist_is_refused(packaged: Version, s3: S3) -> None:
    refuses(upload(packaged, bucket="s3://nowhere"), "s3://nowhere: no such bucket; create it, or correct the name")


def test_without_credentials_an_upload_is_refused(packaged: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials it found first
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    refuses(
        upload(packaged),
        f"s3://{BUCKET}/models/lily/: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
        " or AWS_PROFILE",
    )


@pytest.mark.parametrize(
    ("name", "code"), [("AWS_ACCESS_KEY_ID", "XAdminUserNotFound"), ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch")]
)
def test_with_wrong_credentials_an_upload_is_refused(
    name: str, code: str, packaged: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv(name, "wrong")

    refuses(
        upload(packaged),
        f"s3://{BUCKET}/models/lily/: refused by the server ({code}); check the credentials and their rights",
    )


def test_a_server_that_is_away_is_reported_in_one_line(packaged: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)

    done = upload(packaged)

    assert (done.code, done.out, len(done.errors), done.err.count("\n")) == (1, "", 1, 1)
    assert done.errors[0].startswith(f"s3://{BUCKET}/models/lily/: cannot be reached (")
    assert url in done.errors[0]
    assert done.errors[0].endswith("; check the network and AWS_ENDPOINT_URL_S3")


def test_an_endpoint_that_is_no_url_is_refused(packaged: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "localhost:9000")

    refuses(upload(packaged), f"s3://{BUCKET}: Invalid endpoint: localhost:9000; check AWS_ENDPOINT_URL_S3")


def test_a_profile_that_does_not_exist_is_refused(packaged: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    refuses(
        upload(packaged),
        f"s3://{BUCKET}/: The config profile (nobody) could not be found; check the AWS variables and files",
    )

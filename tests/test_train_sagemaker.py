"""train_sagemaker.py on moto, whose jobs are over at once and make nothing: what one would have left is put there. That
a job makes the version that is made here is asked in model-src/tests/test_training_job.py."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from conftest import BUCKET, REGISTRY, Checkout, Result, Version, package
from moto import mock_aws
from moto.sagemaker.models import sagemaker_backends

import train_sagemaker
from gitops.models import s3, sagemaker
from gitops.repo.git import Git

from packing import lineage

ACCOUNT, REGION = "111122223333", "eu-west-1"
IMAGE = f"{REGISTRY}/train@sha256:{'1' * 64}"
MD5 = "0123456789abcdef" * 2
LOCK = "model-src/models/lily/dvc.lock"


@functools.cache
def client(service: str, region: str = REGION) -> Any:
    return boto3.Session("test", "test").client(service, region)


@pytest.fixture
def statuses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An account on moto; what a job has as its status, once for each look, before moto's own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("MOTO_ACCOUNT_ID", ACCOUNT)
    monkeypatch.setattr(sagemaker, "POLL", 0)
    found, real = list[str](), s3.call

    def call(used: Any, operation: str, **given: Any) -> Any:
        answer = real(used, operation, **given)
        if operation == "describe_training_job" and answer and found:
            answer["TrainingJobStatus"] = found.pop(0)
        return answer

    monkeypatch.setattr(s3, "client", client)
    monkeypatch.setattr(s3, "call", call)
    with mock_aws():
        boto3.client("s3", REGION).create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        yield found


@pytest.fixture
def checkout(whole_checkout: Checkout) -> Checkout:
    """With the data of lily in its lock."""
    lock = {"schema": "2.0", "stages": {"generate": {"outs": [{"path": "models/lily/data/raw.csv", "md5": MD5}]}}}
    whole_checkout.write(LOCK, json.dumps(lock))
    whole_checkout.commit("Train lily")
    return whole_checkout


def train(checkout: Checkout, *args: str, image: str = IMAGE) -> Result:
    out = checkout.root.parent / "out"
    return checkout.run("train_sagemaker", "--model", "lily", "--image", image, "--out", out, *args)


def jobs() -> dict[str, Any]:
    return dict(sagemaker_backends[ACCOUNT][REGION].training_jobs)


def leave(job: str, files: dict[str, bytes], kind: bytes = tarfile.REGTYPE, archive: str = "model") -> None:
    """What a job leaves in S3."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(content))
    put(job, packed.getvalue(), archive)


def put(job: str, content: bytes, archive: str = "model") -> None:
    key = f"training/lily/{job}/output/{archive}.tar.gz"
    boto3.client("s3", REGION).put_object(Bucket=BUCKET, Key=key, Body=content)


def files_of(version: Version) -> dict[str, bytes]:
    found = {file.relative_to(version.folder).as_posix(): file for file in version.folder.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in found.items()}


@pytest.fixture
def made(checkout: Checkout, tmp_path: Path) -> Version:
    """A version of the code that is checked out."""
    code = lineage.find(checkout.root / "model-src", "lily")
    named = package(tmp_path / "named").version
    return package(tmp_path / "made", code_commit=code.commit, version=f"{code.date}{named[10:]}")


def planned(checkout: Checkout, *args: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(train(checkout, "--dry-run", "--json", *args).out)
    return told


def test_a_job_is_told_all_that_its_version_is_made_from(statuses: list[str], checkout: Checkout) -> None:
    statuses += ["InProgress"]

    done = train(checkout, "--json")

    assert done.code == 0, done.err
    told = json.loads(done.out)
    [(name, job)] = jobs().items()
    code = lineage.find(checkout.root / "model-src", "lily")
    assert (name, told["status"], told["request"]["TrainingJobName"]) == (told["job"], "InProgress", name)
    assert name.startswith(f"ml-lily-{code.commit[:8]}-")
    assert job.hyper_parameters == {
        "model": "lily", "code_commit": code.commit, "date": code.date, "data": MD5,
        "code": lineage.code_digest_of(checkout.root / "model-src", "lily"),
    }  # fmt: skip
    source = job.input_data_config[0]["DataSource"]["S3DataSource"]["S3Uri"]
    assert source == f"s3://{BUCKET}/dvc/files/md5/{MD5[:2]}/{MD5[2:]}"
    assert job.role_arn == f"arn:aws:iam::{ACCOUNT}:role/ml-sagemaker-training"
    assert job.algorithm_specification["TrainingImage"] == IMAGE
    assert job.algorithm_specification["ContainerEntrypoint"] == ["python", "-m", "extras.pipelines.job"]
    assert job.enable_network_isolation


def test_the_same_is_trained_once_and_its_version_fetched(
    statuses: list[str], checkout: Checkout, made: Version
) -> None:
    name = planned(checkout)["job"]
    leave(name, files_of(made))
    statuses += ["InProgress"]
    assert train(checkout).code == 0

    statuses += ["InProgress", "InProgress", "InProgress"]
    done = train(checkout, "--wait")

    assert done.code == 0, done.err
    out = checkout.root.parent / "out"
    assert {name: (out / name).read_bytes() for name in files_of(made)} == files_of(made)
    assert f"upload_model.py --model lily --artifacts {out} --expect {made.manifest}" in done.err
    assert list(jobs()) == [name]


def test_the_reports_are_fetched_for_who_asks_for_them(
    statuses: list[str], checkout: Checkout, made: Version, tmp_path: Path
) -> None:
    name, reports = planned(checkout)["job"], tmp_path / "reports"
    leave(name, files_of(made))

    missing = train(checkout, "--wait", "--reports", str(reports))
    assert (missing.code, reports.exists()) == (1, False)
    assert f"training/lily/{name}/output/output.tar.gz: missing" in missing.err

    leave(name, {"evaluation_set.csv": b"1\n", "report.md": b"# Lily\n"}, archive="output")
    done = train(checkout, "--wait", "--reports", str(reports))
    assert done.code == 0, done.err
    assert {file.name: file.read_bytes() for file in reports.iterdir()} == {
        "evaluation_set.csv": b"1\n", "report.md": b"# Lily\n",
    }  # fmt: skip


def test_a_dry_run_starts_nothing(statuses: list[str], checkout: Checkout) -> None:
    done = train(checkout, "--dry-run")

    assert (done.code, jobs()) == (0, {})
    assert done.err.startswith("would start ml-lily-")


def test_what_failed_is_told_and_another_attempt_has_a_name_of_its_own(statuses: list[str], checkout: Checkout) -> None:
    statuses += ["InProgress", "Failed"]

    done = train(checkout, "--wait")

    assert done.code == 1
    assert "Failed: see its log in CloudWatch" in done.errors[0]
    assert planned(checkout, "--attempt", "2")["job"] == f"{planned(checkout)['job']}-2"


def other(made: Version, **changed: Any) -> dict[str, bytes]:
    data = made.data | changed
    return files_of(made) | {"manifest.json": json.dumps(data).encode()}


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (lambda made: other(made, code_commit="0" * 40), "manifest.json: code_commit: 000"),
        (lambda made: other(made, version=f"2030-01-01-{made.version[11:]}"), "manifest.json: date: 2030-01-01, not "),
        (lambda made: files_of(made) | {"onnx/model.onnx": b"other"}, "onnx/model.onnx: sha256 "),
        (lambda made: files_of(made) | {"more.txt": b""}, "more.txt: not in manifest.json"),
        (lambda made: {"../outside": b"", **files_of(made)}, "'../outside': no plain file of a version"),
        (lambda made: {}, "manifest.json: missing"),
    ],
    ids=["another commit", "another day", "another file", "a file more", "outside", "nothing"],
)
def test_what_is_not_the_version_of_this_commit_is_not_written(
    statuses: list[str], checkout: Checkout, made: Version, left: Callable[[Version], dict[str, bytes]], said: str
) -> None:
    leave(planned(checkout)["job"], left(made))

    done = train(checkout, "--wait")

    assert done.code == 1
    assert said in done.err
    assert not (checkout.root.parent / "out").exists()
    assert not (checkout.root.parent / "outside").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_is_no_file_of_a_version(statuses: list[str], checkout: Checkout, kind: bytes) -> None:
    leave(planned(checkout)["job"], {"manifest.json": b""}, kind)

    assert "'manifest.json': no plain file" in train(checkout, "--wait").errors[0]


def test_what_is_no_tar_and_what_is_not_there_are_told(statuses: list[str], checkout: Checkout) -> None:
    assert "model.tar.gz: missing" in train(checkout, "--wait").errors[0]

    put(planned(checkout)["job"], b"\x1f\x8b cut short")
    assert "not a tar.gz that can be read" in train(checkout, "--wait").errors[0]


def no_lock(checkout: Checkout) -> None:
    checkout.git("rm", "-q", LOCK)
    checkout.commit("No lock")


def elsewhere(checkout: Checkout) -> None:
    checkout.replace("model-src/.dvc/config", "s3://mlops-prod/dvc", "/mnt/dvc")
    checkout.commit("A folder")


def uncommitted(checkout: Checkout) -> None:
    checkout.write("model-src/models/lily/model.py", "")


@pytest.mark.parametrize(
    ("change", "image", "said"),
    [
        (no_lock, IMAGE, "no md5 of models/lily/data/raw.csv; run `dvc repro"),
        (elsewhere, IMAGE, "remote 'models': url '/mnt/dvc': not in S3"),
        (uncommitted, IMAGE, "changed, not committed"),
        (lambda _: None, f"{REGISTRY}/train:1", "a tag may change"),
        (lambda _: None, f"docker.io/train@sha256:{'1' * 64}", "not in one of the registries"),
    ],
)
def test_what_cannot_be_traced_is_not_trained(
    statuses: list[str], checkout: Checkout, change: Callable[[Checkout], None], image: str, said: str
) -> None:
    change(checkout)

    done = train(checkout, image=image)

    assert (done.code, jobs()) == (1, {})
    assert said in done.err


def test_data_that_no_stage_makes_has_a_file_of_its_own(checkout: Checkout) -> None:
    checkout.git("rm", "-q", LOCK)
    checkout.write("model-src/models/lily/data/raw.csv.dvc", f"outs:\n- md5: {MD5}\n  path: raw.csv\n")
    checkout.git("add", "-f", "model-src/models/lily/data/raw.csv.dvc")
    checkout.commit("Data from elsewhere")

    assert train_sagemaker.data(Git(checkout.root), "lily")[1] == MD5


def test_credentials_of_another_account_are_refused(
    statuses: list[str], checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train_sagemaker.values.find", lambda _, name: {"account": "444455556666"}.get(name, REGION))

    done = train(checkout)

    assert (done.code, jobs()) == (1, {})
    assert done.errors[0].startswith(f"lily: account 444455556666, but the credentials are arn:aws:sts::{ACCOUNT}:")

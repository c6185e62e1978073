"""replicate_models.py between two real S3 servers: what it copies, what it leaves, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    BUCKET,
    IMAGE,
    POLICY,
    REPLICA,
    ROOT,
    S3,
    Checkout,
    Result,
    Version,
    interrupted_add,
    make_checkout,
    name_replica,
    package,
    s3_running,
    wait_until,
    write_profile,
)

from gitops.models.s3 import Store

FILES = ["onnx/model.onnx", "signature.json", "sklearn/model.joblib"]
ALL = [*FILES, "manifest.json"]


@pytest.fixture(scope="module")
def clone(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A repository with a replica, which nothing here changes."""
    made = make_checkout(template, tmp_path_factory.mktemp("clone"))
    name_replica(made, "prod")
    made.commit(push=True)
    return made


def there(version: Version) -> str:
    """Its URI in the replica."""
    return version.uri.replace(BUCKET, REPLICA)


def prefix(version: Version) -> str:
    return version.uri.removeprefix(f"s3://{BUCKET}/")


def asked(version: Version) -> tuple[str, ...]:
    return "--model", "lily", "--version", version.version


def copy(clone: Checkout, version: Version, *args: str) -> Result:
    return clone.run("replicate_models", *asked(version), *args)


def complete(version: Version) -> dict[str, bytes]:
    return {f"{prefix(version)}{path}": (version.folder / path).read_bytes() for path in ALL}


def stored(server: S3) -> dict[str, bytes]:
    return {key: body for key, (body, _) in server.objects().items()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# What is copied


def test_every_object_is_copied_and_the_place_is_printed(clone: Checkout, version: Version, replica: S3) -> None:
    assert copy(clone, version) == Result(0, f"{there(version)}\n", "copied 4 objects\n")
    assert stored(replica) == complete(version)


def test_the_same_again_changes_nothing(clone: Checkout, version: Version, replica: S3) -> None:
    copy(clone, version)
    before = replica.objects()

    done = copy(clone, version)

    assert done == Result(0, f"{there(version)}\n", "complete already, every byte as in the manifest\n")
    assert replica.objects() == before


@pytest.mark.parametrize("present", [[], FILES[:1], FILES])
def test_a_dry_run_counts_what_is_missing_and_stores_nothing(
    clone: Checkout, version: Version, replica: S3, present: list[str]
) -> None:
    for path in present:
        replica.client.upload_file(version.folder / path, REPLICA, f"{prefix(version)}{path}")
    before = replica.objects()

    assert copy(clone, version, "--dry-run").err == f"would copy {4 - len(present)} objects\n"
    row = {"uri": version.uri, "replica": there(version), "added": 4 - len(present), "dry_run": True}
    assert json.loads(copy(clone, version, "--dry-run", "--json").out) == [row]
    assert replica.objects() == before


def test_signatures_come_with_the_files_and_later_ones_by_the_next_run(
    clone: Checkout, version: Version, s3: S3, replica: S3
) -> None:
    names = [f"manifest.json.{version.manifest[7:19]}.{digit * 12}.sig" for digit in "12"]
    of_another = f"manifest.json.{'0' * 12}.{'1' * 12}.sig"
    for number, name in enumerate([names[0], of_another, names[1]]):
        s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(version)}{name}", Body=name.encode())
        if number:
            assert copy(clone, version).err.startswith(("copied 5", "copied 1 ")[number - 1])

    signed = {f"{prefix(version)}{name}": name.encode() for name in names}
    assert stored(replica) == complete(version) | signed

    replica.client.put_object(Bucket=REPLICA, Key=f"{prefix(version)}{names[1]}", Body=b"other")
    assert copy(clone, version).errors == [
        f"{there(version)}{names[1]}: sha256 {sha256(b'other')}, and {version.uri}{names[1]} has"
        f" {sha256(names[1].encode())}; signatures are never overwritten: find out who wrote them, and remove the wrong"
        " one"
    ]


def test_without_an_option_what_is_released_is_copied_and_with_all_the_rest(
    template: Path, version: Version, tmp_path: Path, s3: S3, replica: S3
) -> None:
    (tmp_path / "own").mkdir()
    own = make_checkout(template, tmp_path / "own")
    name_replica(own, "prod")
    own.commit(push=True)
    other = package(tmp_path / "other", "two", "rose")
    s3.upload(other)
    place = ("--app", "lily-api", "--env", "dev")
    done = own.run("bump_model", *place, "--model-uri", version.uri, "--image", IMAGE, "--push")
    assert done.code == 0, done.err

    assert own.run("replicate_models").out == f"{there(version)}\n"
    assert own.run("replicate_models", "--all").out == f"{there(version)}\n{there(other)}\n"

    # Whoever replaces a manifest after the release has it copied nowhere.
    replica.empty()
    text = json.dumps(version.data)
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(version)}manifest.json", Body=text.encode())
    assert own.run("replicate_models").errors == [
        f"{version.uri}manifest.json: sha256:{sha256(text.encode())}, but lily-api in dev was released with"
        f" {version.manifest}; versions are never overwritten: find out who wrote that object, do not release it"
    ]
    assert replica.keys() == []


# Interruptions and races


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [0, 2, 3])
def test_a_copy_interrupted_at_any_object_is_no_version_until_the_next_completes_it(
    clone: Checkout, version: Version, replica: S3, monkeypatch: pytest.MonkeyPatch, moment: str, number: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", interrupted_add(number, moment))
        done = copy(clone, version)

    put = ALL[: number + (moment == "after")]
    assert done == Result(130, "", "error: interrupted; run the same command again to complete it\n")
    assert replica.keys() == sorted(f"{prefix(version)}{path}" for path in put)

    before = replica.objects()
    assert copy(clone, version).out == f"{there(version)}\n"
    assert stored(replica) == complete(version)
    assert before.items() <= replica.objects().items()


def process(clone: Checkout, version: Version) -> subprocess.Popen[str]:
    command = [sys.executable, ROOT / "scripts/replicate_models.py", "--root", clone.root, *asked(version)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_copy_that_is_killed_is_completed_by_the_next(clone: Checkout, version: Version, replica: S3) -> None:
    with process(clone, version) as killed:
        wait_until((replica.files / prefix(version) / FILES[0]).exists, "the first object is there")
        killed.kill()

    assert copy(clone, version).out == f"{there(version)}\n"
    assert stored(replica) == complete(version)


def test_two_at_once_end_in_one_complete_version(clone: Checkout, version: Version, replica: S3) -> None:
    processes = [process(clone, version) for _ in range(2)]
    ended = [(one.communicate()[0], one.returncode) for one in processes]

    assert ended == [(f"{there(version)}\n", 0)] * 2
    assert stored(replica) == complete(version)


@pytest.mark.parametrize("path", ALL)
def test_an_object_that_somebody_else_stores_meanwhile_is_compared_and_not_overwritten(
    clone: Checkout, version: Version, replica: S3, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    add = Store.add

    def overtaken(store: Store, key: str, body: Any, sha256: str) -> bool:
        if key.endswith(path):
            replica.client.put_object(Bucket=REPLICA, Key=key, Body=b"[]")
        return add(store, key, body, sha256)

    monkeypatch.setattr(Store, "add", overtaken)

    done = copy(clone, version)

    assert [line.startswith(f"{there(version)}{path}: ") for line in done.errors] == [True]
    assert (done.code, done.out) == (1, "")
    assert stored(replica)[f"{prefix(version)}{path}"] == b"[]"
    assert (f"{prefix(version)}manifest.json" in stored(replica)) == (path == "manifest.json")


def test_a_replica_that_goes_away_ends_the_run_and_the_next_goes_on(
    clone: Checkout, version: Version, tmp_path: Path, s3: S3, replica: S3, monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
) -> None:  # fmt: skip
    other = package(tmp_path / "other", "two")
    s3.upload(other)
    first, second = sorted([version, other], key=lambda each: each.uri)
    data, add = tmp_path / "away", Store.add
    (data / "buckets" / REPLICA).mkdir(parents=True)
    running = partial(s3_running, data, environment, REPLICA, "--region", "us-east-1")

    with ExitStack() as stack, monkeypatch.context() as patch:
        write_profile(tmp_path / "aws-config", stack.enter_context(running()))

        def gone(store: Store, key: str, *args: Any) -> bool:
            if key == f"{prefix(second)}{FILES[1]}":
                stack.close()
            return add(store, key, *args)

        patch.setattr(Store, "add", gone)
        done = clone.run("replicate_models", "--model", "lily")

    assert (done.code, done.out) == (1, f"{there(first)}\n")
    assert [line.startswith(f"{there(second)}{FILES[1]}: cannot be reached") for line in done.errors] == [True]
    with running() as server:
        write_profile(tmp_path / "aws-config", server)
        assert f"{prefix(second)}manifest.json" not in stored(server)
        assert clone.run("replicate_models", "--model", "lily").code == 0
        assert stored(server) == complete(version) | complete(other)


def test_a_replica_that_is_away_keeps_no_other_from_being_copied_to(
    template: Path, version: Version, tmp_path: Path, s3: S3, replica: S3
) -> None:
    s3.upload(package(tmp_path / "other", "two"))
    clone = make_checkout(template, tmp_path / "clone")
    name_replica(clone)
    clone.replace(POLICY, "replicas:\n", "replicas:\n  - bucket: away\n    region: us-east-2\n")
    clone.commit(push=True)

    done = clone.run("replicate_models", "--all")

    assert (done.code, len(done.out.splitlines())) == (1, 2)
    assert done.errors == ["s3://away: no such bucket; create it, or correct the name"]
    assert complete(version).items() <= stored(replica).items()


# Wrong bytes


def test_a_wrong_byte_in_the_source_is_found_and_not_copied(
    clone: Checkout, version: Version, s3: S3, replica: S3
) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(version)}{FILES[0]}", Body=b"onnx 0ne")
    listed = version.data["files"][0]["sha256"]

    done = copy(clone, version)

    assert done.errors == [
        f"{version.uri}{FILES[0]}: sha256 {sha256(b'onnx 0ne')}, the manifest has {listed};"
        " versions are never overwritten: find out who wrote that object, do not release it"
    ]
    assert (done.code, done.out, replica.keys()) == (1, "", [])


@pytest.mark.parametrize("whole", [True, False])
def test_a_wrong_byte_in_the_replica_is_found_and_stays(
    clone: Checkout, version: Version, replica: S3, whole: bool
) -> None:
    if whole:
        copy(clone, version)
    replica.client.put_object(Bucket=REPLICA, Key=f"{prefix(version)}{FILES[0]}", Body=b"onnx 0ne")
    listed = version.data["files"][0]["sha256"]

    done = copy(clone, version)

    assert done.errors == [
        f"{there(version)}{FILES[0]}: sha256 {sha256(b'onnx 0ne')}, the manifest has {listed};"
        " versions are never overwritten: find out who wrote that object, do not release it"
    ]
    assert stored(replica)[f"{prefix(version)}{FILES[0]}"] == b"onnx 0ne"
    assert (f"{prefix(version)}manifest.json" in stored(replica)) == whole


def test_an_object_that_somebody_removed_from_the_replica_comes_again(
    clone: Checkout, version: Version, replica: S3
) -> None:
    copy(clone, version)
    replica.client.delete_object(Bucket=REPLICA, Key=f"{prefix(version)}{FILES[0]}")

    assert copy(clone, version).err == "copied 1 objects\n"
    assert stored(replica) == complete(version)


def test_an_older_manifest_in_the_replica_is_refused_and_stays(clone: Checkout, version: Version, replica: S3) -> None:
    older = json.dumps(version.data | {"metrics": {"accuracy": 0.1}}).encode()
    replica.client.put_object(Bucket=REPLICA, Key=f"{prefix(version)}manifest.json", Body=older)

    done = copy(clone, version)

    assert done.errors == [
        f"{there(version)}manifest.json: sha256:{sha256(older)}, and {version.uri}manifest.json has {version.manifest};"
        " versions are never overwritten: find out who wrote that object, then remove that version there and copy it"
        f" with `python scripts/replicate_models.py --to {REPLICA} --model lily --version {version.version}`"
    ]
    assert stored(replica) == {f"{prefix(version)}manifest.json": older}


def test_one_version_that_is_wrong_keeps_no_other_from_being_copied(
    clone: Checkout, version: Version, tmp_path: Path, s3: S3, replica: S3
) -> None:
    other = package(tmp_path / "other", "two")
    s3.upload(other)
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(version)}{FILES[0]}", Body=b"onnx 0ne")

    done = clone.run("replicate_models", "--all")

    assert (done.code, done.out, len(done.errors)) == (1, f"{there(other)}\n", 1)


# What is asked for


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ("--to", "other"),
            "--to 'other': no bucket of `replicas` in overlays/promotion.yaml; those are mlops-us",
        ),
        (("--model", "rose"), f"--model 'rose': s3://{BUCKET} has no version of it; check the name"),
    ],
)
def test_what_is_not_there_is_refused(clone: Checkout, replica: S3, args: tuple[str, ...], line: str) -> None:
    done = clone.run("replicate_models", *args)

    assert (done.code, done.out, done.errors) == (1, "", [line])


def test_a_repository_without_replicas_has_nothing_to_copy(checkout: Checkout, version: Version) -> None:
    done = checkout.run("replicate_models", "--all")

    words = "overlays/promotion.yaml names no replicas; every environment takes its models from s3://mlops-prod\n"
    assert done == Result(0, "", words)


@pytest.mark.parametrize("args", [("--version", "2026-02-01-3f2a9c1b7d10"), ("--model", "lily", "--version", "latest")])
def test_a_version_is_of_a_model_and_named_as_one(clone: Checkout, args: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        clone.run("replicate_models", *args)
    assert caught.value.code == 2

"""Places in S3 and here, by the same calls, on a real S3 server."""

from __future__ import annotations

import hashlib
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from conftest import SOURCE, free_port

from contract.errors import Refused
from storage import Unavailable
from storage.places import Place, open_place
from storage.s3 import ONE_TRY, PATIENT, S3, Policy


@pytest.fixture(params=["s3", "here"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty place; for S3 there is one that has almost its name."""
    if request.param == "here":
        return open_place(f"file://{tmp_path}/place/", "--place", ONE_TRY)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    bucket = "storage-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    boto3.client("s3").create_bucket(Bucket=bucket)
    boto3.client("s3").put_object(Bucket=bucket, Key="placed/other", Body=b"")
    return open_place(f"s3://{bucket}/place", "--place", ONE_TRY)


def test_what_was_added_is_listed_and_read(place: Place) -> None:
    before = datetime.now(UTC)
    for name in ("top", "a/one", "a/two", "a/deep/three"):
        place.add(name, name.encode())

    assert place.uri.endswith("/place/")
    assert sorted(place.folders("")) == ["a"]
    assert (place.folders("a/"), place.folders("absent/"), place.objects("absent/")) == (["deep"], [], [])
    assert sorted(found.name for found in place.objects("a/")) == ["a/one", "a/two"]
    assert all(abs(found.stored - before) < timedelta(minutes=1) for found in place.objects("a/"))
    assert place.read("a/deep/three") == b"a/deep/three"


@pytest.mark.parametrize(("limit", "length"), [(None, 4 << 20), (4 << 20, 4 << 20), (10, 11), (0, 1)])
def test_no_more_is_read_than_the_limit_and_one_byte(place: Place, limit: int | None, length: int) -> None:
    place.add("large", b"x" * (4 << 20))

    assert len(place.read("large", limit)) == length


def test_the_same_again_is_no_fault(place: Place) -> None:
    """An answer can be lost after the file was stored."""
    place.add("file", b"same")
    place.add("file", b"same")

    assert place.read("file") == b"same"


def test_what_is_not_there_is_refused_by_its_place_and_option(place: Place) -> None:
    with pytest.raises(Refused, match=rf"{re.escape(place.uri)}absent: .*--place"):
        place.read("absent")


def test_a_client_works_on_and_is_replaced_after_a_fault(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address stands for what is read with each session, the credentials too."""
    s3 = S3(ONE_TRY)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="s3://bucket/key: "), s3.calls("s3://bucket/key", "") as client:
        client.list_buckets()

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    with s3.calls("s3://bucket/key", "") as first:
        first.list_buckets()
    with s3.calls("s3://bucket/key", "") as second:
        assert second is first


@pytest.mark.parametrize("policy", [ONE_TRY, PATIENT])
def test_a_client_has_the_times_and_tries_of_its_policy(policy: Policy) -> None:
    with S3(policy).calls("s3://bucket/key", "") as client:
        config = client.meta.config

    assert (config.connect_timeout, config.read_timeout) == (policy.connect_timeout, policy.read_timeout)
    assert config.retries == {"mode": "standard", "total_max_attempts": policy.tries}


def importing(modules: str) -> set[str]:
    """The files of this project, tests apart, that import something of that form."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=SOURCE, check=True, capture_output=True, text=True,
    )  # fmt: skip
    statement = re.compile(rf"^\s*(import|from) .*\b{modules}\b", re.MULTILINE)
    files = [file for file in listed.stdout.splitlines() if not file.startswith("tests/")]
    assert len(files) > 50
    return {file for file in files if statement.search((SOURCE / file).read_text())}


def test_only_this_room_talks_to_s3() -> None:
    others = {file for file in importing("(boto3|botocore)") if not file.startswith("storage/")}
    # It talks to CloudWatch.
    assert others == {"serving/journal.py"}


def test_no_module_imports_a_program() -> None:
    """What a `__main__` does is called by the interpreter alone; what others need is in a module beside it."""
    assert importing("__main__") == set()

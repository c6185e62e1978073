"""prune_versions.py: what nothing needs any more, and that nothing else goes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BUCKET, IMAGE, REPLICA, S3, Checkout, Result, Version, git, name_replica, package

from gitops.models.s3 import Store

YEARS = 3 * 365 * 86400


@pytest.fixture
def stored(checkout: Checkout, tmp_path: Path, s3: S3) -> Callable[[str], Version]:
    """Puts a version into the bucket, three years ago."""

    def store(content: str) -> Version:
        made = package(tmp_path / content, content)
        s3.upload(made)
        age(s3)
        return made

    return store


def age(s3: S3) -> None:
    """Makes all that is in the bucket three years old, which the server reads from its files."""
    for file in s3.files.rglob("*"):
        os.utime(file, (time.time() - YEARS, time.time() - YEARS))


def release(checkout: Checkout, version: Version, app: str = "lily-sklearn", years: float = 0, *more: str) -> None:
    """Releases a version in the first environment, so many years ago."""
    when = f"@{int(time.time() - years * 365 * 86400)} +0000"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_COMMITTER_DATE", when)
        patch.setenv("GIT_AUTHOR_DATE", when)
        done = checkout.run("bump_model", "--app", app, "--env", "dev", "--model-uri", version.uri, *more, "--push")
    assert done.code == 0, done.err


def pruned(checkout: Checkout, *options: str) -> set[str]:
    done = checkout.run("prune_versions", "--json", *options)
    assert done.code == 0, done.err
    return {row["version"] for row in json.loads(done.out)["unneeded"]}


@pytest.fixture
def old(checkout: Checkout) -> Checkout:
    """A clone whose every commit is four years old."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_COMMITTER_DATE", f"{int(time.time() - 4 * 365 * 86400)} +0000")
        checkout.git("commit", "--amend", "--no-edit", "-q")
    checkout.git("push", "-q", "--force", "origin", "cicd")
    return checkout


def test_what_no_release_names_is_listed_and_what_one_named_lately_is_not(
    old: Checkout, stored: Callable[[str], Version], s3: S3
) -> None:
    never, first, second, third, last = map(stored, ("never", "first", "second", "third", "last"))
    release(old, first, years=3)
    release(old, second, years=2)
    release(old, third, years=0.5)
    release(old, last)

    # The second still ran at the beginning of the year, and a rollback goes back to the third.
    assert pruned(old) == {never.version, first.version}
    assert pruned(old, "--days", "100") == {never.version, first.version, second.version}
    assert pruned(old, "--days", "1500") == set()
    assert len(s3.keys()) == 5 * 4


def test_what_a_rollback_goes_back_to_stays_however_old_it_is(old: Checkout, stored: Callable[[str], Version]) -> None:
    first, second, third = map(stored, ("first", "second", "third"))
    for version, years in ((first, 3.5), (second, 3), (third, 2.5)):
        release(old, version, years=years)

    assert pruned(old) == {first.version}

    old.run("withdraw_version", "lily", second.version, "--reason", "bad", "--push")

    assert pruned(old) == {second.version}


def test_a_commit_whose_date_is_no_time_counts_as_new(old: Checkout, stored: Callable[[str], Version]) -> None:
    first, second, third, fourth = map(stored, ("first", "second", "third", "fourth"))
    release(old, first, years=3.5)
    release(old, second, years=3)
    release(old, third, years=-8000)  # a year of five digits
    release(old, fourth, years=2)

    assert pruned(old) == {first.version}


def test_an_app_with_an_image_a_canary_and_a_branch_that_is_not_merged_keep_their_versions(
    old: Checkout, stored: Callable[[str], Version]
) -> None:
    of_image, escaped, proposed, new = map(stored, ("image", "escaped", "proposed", "new"))
    release(old, of_image, "lily-api", 3, "--image", IMAGE)
    assert pruned(old) == {escaped.version, proposed.version, new.version}

    done = old.run("bump_model", "--app", "lily-sklearn", "--env", "dev", "--model-uri", proposed.uri, "--pull-request")
    assert done.code == 0, done.err
    path = "overlays/dev/lily-sklearn/release.yaml"
    text = old.read(path).decode().replace("s3://unreleased/", f'"s3://x/\\x32{escaped.version[1:]}/"')
    old.write(path, text)
    old.commit("By hand", push=True)

    assert pruned(old) == {new.version}


def test_deleting_takes_the_version_and_nothing_else_and_the_rest_of_an_interrupted_deletion_later(
    old: Checkout, stored: Callable[[str], Version], s3: S3
) -> None:
    gone, stays = stored("gone"), stored("stays")
    release(old, stays, years=2)

    done = old.run("prune_versions", "--delete")

    assert done.code == 0, done.err
    assert "took away 1 of 1 versions" in done.err
    assert {key.split("/")[2] for key in list(s3.keys())} == {stays.version}
    s3.client.put_object(Bucket=BUCKET, Key=f"models/lily/{gone.version}/onnx/model.onnx", Body=b"rest")
    assert pruned(old) == set()
    age(s3)
    assert pruned(old) == {gone.version}


def test_replicas_are_pruned_after_the_model_bucket_by_the_same_rule(
    old: Checkout, stored: Callable[[str], Version], s3: S3, replica: S3
) -> None:
    gone, stays = stored("gone"), stored("stays")
    release(old, stays, years=2)
    name_replica(old)
    old.commit("Name a replica", push=True)
    for key in list(s3.keys()):
        body = s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        replica.client.put_object(Bucket=REPLICA, Key=key, Body=body)
    age(replica)

    found = json.loads(old.run("prune_versions", "--json").out)["unneeded"]

    assert [(row["bucket"], row["version"]) for row in found] == [(BUCKET, gone.version), (REPLICA, gone.version)]

    done = old.run("prune_versions", "--delete", "--bucket", f"s3://{REPLICA}")

    assert (done.code, "took away 1 of 1 versions" in done.err) == (0, True), done.err
    assert {key.split("/")[2] for key in list(replica.keys())} == {stays.version}
    assert {key.split("/")[2] for key in list(s3.keys())} == {gone.version, stays.version}

    assert old.run("prune_versions", "--delete").code == 0

    assert {key.split("/")[2] for key in (*s3.keys(), *replica.keys())} == {stays.version}


def other(checkout: Checkout, tmp_path: Path) -> Checkout:
    """The clone of somebody else."""
    remote = checkout.git("remote", "get-url", "origin")
    git(tmp_path, "clone", "-q", "-b", "cicd", remote, "other")
    return Checkout(tmp_path / "other", Path(remote))


@pytest.mark.parametrize("after", [False, True], ids=["before it goes", "while it goes"])
def test_what_is_released_meanwhile_is_not_lost(
    old: Checkout,
    stored: Callable[[str], Version],
    s3: S3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    wanted = stored("wanted")
    somebody, keys, real = other(old, tmp_path), s3.keys(), getattr(Store, "delete" if after else "read")
    done: list[Result] = []

    def first_released(store: Store, *given: object) -> object:
        """The manifest is what is read, and goes, first: right before that, somebody releases the version."""
        if not done:
            done.append(Result(0, "", ""))
            release(somebody, wanted)
        return real(store, *given)

    monkeypatch.setattr(Store, "delete" if after else "read", first_released)

    result = old.run("prune_versions", "--delete")

    assert result.code == 1
    assert result.errors == [f"{wanted.uri}: named while it was to go; its manifest is back, and nothing of it is gone"]
    assert s3.keys() == keys


def test_what_is_released_between_the_list_and_the_deletion_stays(
    old: Checkout, stored: Callable[[str], Version], s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = stored("wanted")
    somebody, keys, real = other(old, tmp_path), s3.keys(), Store.objects

    def then_released(store: Store, prefix: str) -> object:
        found = real(store, prefix)
        if prefix == "models/":
            monkeypatch.setattr(Store, "objects", real)
            release(somebody, wanted)
        return found

    monkeypatch.setattr(Store, "objects", then_released)

    result = old.run("prune_versions", "--delete")

    assert result.code == 0, result.err
    assert f"{wanted.uri}: named meanwhile; it stays" in result.err
    assert s3.keys() == keys


def test_too_few_days_and_a_remote_that_is_away_are_refused(old: Checkout, stored: Callable[[str], Version]) -> None:
    stored("one")

    few = old.run("prune_versions", "--days", "89")
    old.git("remote", "set-url", "origin", "/nowhere")
    away = old.run("prune_versions", "--delete")

    assert (few.code, few.errors) == (1, ["--days 89: a version stays for 90 days at least; write that or more"])
    assert away.code == 1
    assert "origin: not reached" in away.err

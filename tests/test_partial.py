"""Clones that were made without all blobs, and clones that have lost one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Checkout, Version

from gitops.repo import publish
from gitops.repo.git import Git, GitError
from gitops.repo.snapshot import InCommit

PATHS = ["README.md", "overlays/dev/note.txt", "model-src/models/lily/train.py"]
READS: dict[str, Callable[[Git, Path], object]] = {
    "show": lambda git, _: git.show("HEAD", PATHS[0]),
    "show_all": lambda git, _: git.show_all([f"HEAD:{path}" for path in [*PATHS, "none"]]),
    "blobs": lambda git, _: git.blobs(blob for _, blob, _ in git.entries("HEAD")),
    "mentioning": lambda git, _: git.mentioning("HEAD", [b"train", b"note"], "overlays", "model-src"),
    "export": lambda git, folder: [
        git.export("HEAD", folder, "overlays", "model-src"),
        sorted((path.name, path.read_bytes()) for path in folder.rglob("*.*") if path.is_file()),
    ],
    "files of a commit": lambda git, _: InCommit(git, "HEAD", ["overlays"]).get(PATHS[1]),
}


def blobless(remote: Path, target: Path, *options: str) -> Path:
    """A clone without any blob, but with those of its checkout where `options` ask for one."""
    for name in ("allowFilter", "allowAnySHA1InWant"):
        Git(target.parent / "clone").text("-C", str(remote), "config", f"uploadpack.{name}", "true")
    Git(target.parent / "clone").text(
        "clone", "-q", "-b", "cicd", "--filter=blob:none", *(options or ["--no-checkout"]), remote.as_uri(), str(target)
    )
    return target


@pytest.fixture
def fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often blobs were asked for since the last call."""
    trace = tmp_path / "trace"
    monkeypatch.setenv("GIT_TRACE", str(trace))

    def count() -> int:
        lines = trace.read_text(errors="replace").splitlines() if trace.exists() else []
        trace.unlink(missing_ok=True)
        return sum("built-in: git fetch" in line and "--filter=blob:none" in line for line in lines)

    return count


@pytest.fixture
def partial(plain: Checkout, tmp_path: Path, fetches: Callable[[], int]) -> Git:
    found = Git(blobless(plain.remote, tmp_path / "partial"))
    fetches()
    return found


@pytest.mark.parametrize("read", READS)
def test_what_is_missing_is_asked_for_once_and_together(
    plain: Checkout, partial: Git, tmp_path: Path, fetches: Callable[[], int], read: str
) -> None:
    whole = READS[read](Git(plain.root), tmp_path / "whole")
    assert fetches() == 0

    assert (READS[read](partial, tmp_path / "one"), fetches()) == (whole, 1)
    assert (READS[read](partial, tmp_path / "two"), fetches()) == (whole, 0)


@pytest.mark.parametrize("read", READS)
def test_what_cannot_be_fetched_is_refused_and_no_file_that_is_not_there(
    plain: Checkout, partial: Git, tmp_path: Path, read: str
) -> None:
    plain.remote.rename(tmp_path / "away")

    with pytest.raises(GitError) as refused:
        READS[read](partial, tmp_path / "out")

    first, *words = refused.value.lines
    assert first.endswith(
        ": missing in this repository; the clone was made without all blobs, and origin did not give it; check the"
        " network and the access to it, then run the command again"
    )
    assert any("does not appear to be a git repository" in line for line in words)
    assert not (tmp_path / "out").exists()
    assert partial.show("HEAD", "none") is partial.show("HEAD", "overlays") is partial.show("none", PATHS[0]) is None
    assert partial.show_all(["HEAD:none", "HEAD:overlays", "none:README.md"]) == [None, None, None]


@pytest.mark.parametrize("read", READS)
def test_a_file_whose_blob_is_lost_is_not_taken_for_none(plain: Checkout, tmp_path: Path, read: str) -> None:
    git = Git(plain.root)
    for _, blob, _ in git.entries("HEAD"):
        (plain.root / ".git/objects" / blob[:2] / blob[2:]).unlink()

    with pytest.raises(GitError, match=r"missing in this repository; `git fsck`|git grep: error: .* unable to read"):
        READS[read](git, tmp_path / "out")


def test_a_remote_that_has_them_is_found_behind_one_that_has_not(plain: Checkout, partial: Git, tmp_path: Path) -> None:
    config = partial.root / ".git/config"
    away = f'[remote "away"]\nurl = {(tmp_path / "away").as_uri()}\npromisor\n[remote "other"]\npromisor = false\n'
    config.write_text(away + config.read_text())

    found = Git(partial.root)

    assert found.promisors == ["away", "origin"]
    assert found.mentioning("HEAD", [b"train"], "model-src") == PATHS[2:]


def test_a_commit_is_made_and_pushed_without_the_blobs_that_it_leaves_alone(
    plain: Checkout, partial: Git, fetches: Callable[[], int]
) -> None:
    base = publish.tip(partial)
    tree = partial.tree_with(base, {"overlays/dev/note.txt": b"new\n"})
    partial.push("origin", partial.commit_tree(tree, base, "New\n"), "cicd")

    # To send a difference, git's push gets the old blob.
    assert fetches() <= 1
    left = partial.text("rev-list", "--objects", "--missing=print", "--no-walk", base).splitlines()
    assert sum(line.startswith("?") for line in left) >= 2
    plain.git("pull", "-q", "origin", "cicd")
    assert [plain.read(path) for path in PATHS] == [b"README.md\n", b"new\n", b"model-src/models/lily/train.py\n"]


def test_commands_do_the_same_in_a_clone_without_blobs(
    checkout: Checkout, version: Version, tmp_path: Path, fetches: Callable[[], int]
) -> None:
    bump = ("bump_model", "--app", "lily-sklearn", "--env", "dev", "--model-uri", version.uri, "--commit", "--push")
    promote = ("promote_model", "--app", "lily-sklearn", "--to", "staging", "--dry-run")
    looks = [("releases", "--json"), ("releases", "--app", "lily-sklearn"), promote]
    partial = Checkout(blobless(checkout.remote, tmp_path / "partial", "--sparse"), checkout.remote)
    fetches()

    done = partial.run(*bump)
    assert (done.code, fetches() < 8) == (0, True), done.err
    checkout.git("pull", "-q", "origin", "cicd")
    for look in looks:
        assert (partial.run(*look).out, fetches() < 8) == (checkout.run(*look).out, True), look

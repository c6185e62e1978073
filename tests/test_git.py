from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Checkout, wait_until

from gitops.repo.git import Git, GitError

from contract.errors import Refused


@pytest.fixture
def repo(plain: Checkout) -> Git:
    return Git(plain.root)


def lines_of(call: pytest.ExceptionInfo[Refused]) -> tuple[str, ...]:
    return call.value.lines


# Which repository


def test_a_folder_in_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        Git(tmp_path)

    assert lines_of(refused) == (f"{tmp_path}: not a git repository; clone one, or name it with --root",)


def test_a_folder_inside_a_repository_is_refused_with_its_top(plain: Checkout) -> None:
    with pytest.raises(Refused) as refused:
        Git(plain.root / "overlays")

    top = plain.root
    assert lines_of(refused) == (f"{top / 'overlays'}: not the top of its git repository; use --root {top}",)


def test_a_bare_repository_is_refused_in_the_words_of_git(plain: Checkout) -> None:
    with pytest.raises(Refused) as refused:
        Git(plain.remote)

    assert lines_of(refused) == (f"{plain.remote}: fatal: this operation must be run in a work tree",)


def test_a_repository_of_another_user_is_refused_with_the_remedy_of_git(
    plain: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(Refused) as refused:
        Git(plain.root)

    first, *_, last = lines_of(refused)
    assert first == f"{plain.root}: fatal: detected dubious ownership in repository at '{plain.root}'"
    assert last == f"{plain.root}: git config --global --add safe.directory {plain.root}"


def test_a_machine_without_git_is_told_so(plain: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Refused) as refused:
        Git(plain.root)

    assert lines_of(refused) == ("git: not installed; install it",)


@pytest.mark.parametrize(
    "name",
    ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_QUARANTINE_PATH"],
)
def test_what_a_hook_sets_leads_no_call_to_another_repository(
    plain: Checkout, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    git = Git(plain.root)

    git.advance("new", None, git.commit_tree(git.tree_with("HEAD", {"a": b"a"}), "HEAD", "Add a"))

    assert git.files("new") == sorted([*git.files("HEAD"), "a"])


# Looking


def test_bytes_are_given_as_committed_whatever_the_checkout_converts(plain: Checkout, repo: Git) -> None:
    plain.git("config", "core.autocrlf", "true")
    plain.write("crlf.txt", "a\r\n")

    plain.commit()

    assert repo.show("HEAD", "crlf.txt") == b"a\n"
    assert repo.show("HEAD", "none.txt") is None


def test_changed_files_are_named_whole_and_only_where_asked_for(plain: Checkout, repo: Git) -> None:
    plain.write("overlays/dev/a file.txt", "untracked")
    plain.write("overlays/dev/größe.txt", "staged")
    plain.git("add", "overlays/dev/größe.txt")
    plain.git("mv", "overlays/dev/note.txt", "overlays/dev/moved.txt")
    plain.write("README.md", "changed\n")

    assert sorted(repo.dirty("overlays")) == [
        "overlays/dev/a file.txt",
        "overlays/dev/größe.txt",
        "overlays/dev/moved.txt",
        "overlays/dev/note.txt",
    ]


def test_what_is_read_from_the_log_does_not_depend_on_settings_that_print_more(
    plain: Checkout, repo: Git, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    for name, value in {"gpg.format": "ssh", "user.signingkey": f"{key}.pub", "commit.gpgsign": "true"}.items():
        plain.git("config", name, value)
    plain.git("config", "log.showSignature", "true")

    commit = repo.commit_tree(repo.tree_with("HEAD", {}), "HEAD", "Signed\n\nMain-Commit: abc\n")

    assert "\ngpgsig -----BEGIN SSH SIGNATURE-----" in repo.text("cat-file", "commit", commit)
    assert repo.text("log", "-1", "--format=%s", commit) == "Signed"
    assert repo.trailers(commit, "Main-Commit") == ["abc"]


def test_a_shallow_clone_is_refused_with_the_remedy(plain: Checkout, tmp_path: Path) -> None:
    plain.write("README.md", "second\n")
    plain.commit(push=True)
    shallow = tmp_path / "shallow"
    plain.git("clone", "-q", "--depth", "1", f"file://{plain.remote}", str(shallow))
    with pytest.raises(Refused) as refused:
        Git(shallow).require_full_history()

    assert lines_of(refused) == (
        f"{shallow}: shallow clone, so history cannot be trusted; run `git fetch --unshallow`",
    )


# Building


def test_a_tree_is_made_beside_the_users_index_and_files_and_modes_stay(plain: Checkout, repo: Git) -> None:
    plain.write("run.sh", "echo\n")
    (plain.root / "run.sh").chmod(0o755)
    plain.commit()
    plain.write("README.md", "edited\n")
    before = plain.state()

    tree = repo.tree_with("HEAD", {"run.sh": b"echo 2\r\n", "new/file": b"new", "overlays/dev/note.txt": None})

    assert repo.text("diff", "--name-status", "HEAD", tree).splitlines() == [
        "A\tnew/file",
        "D\toverlays/dev/note.txt",
        "M\trun.sh",
    ]
    assert repo.text("ls-tree", tree, "run.sh").startswith("100755 ")
    assert repo.text("ls-tree", "-r", tree, "new/file").startswith("100644 ")
    assert repo.show(tree, "run.sh") == b"echo 2\r\n"
    assert plain.state() == before


@pytest.mark.parametrize("folder", ["model-src", "overlays"])
def test_a_folder_is_taken_over_with_its_deletions_or_where_there_was_none(
    plain: Checkout, repo: Git, folder: str
) -> None:
    source = repo.text("rev-parse", "HEAD")
    plain.git("rm", "-qr", "overlays")
    plain.write("model-src/other/extra.py", "gone after the import")
    plain.commit()

    tree = repo.tree_with_folder("HEAD", folder, source)

    assert repo.text("rev-parse", f"{tree}:{folder}") == repo.text("rev-parse", f"{source}:{folder}")
    assert repo.text("diff", "--name-only", "HEAD", tree, "--", f":!{folder}") == ""


def test_an_export_has_every_file_also_from_a_sparse_checkout(plain: Checkout, repo: Git, tmp_path: Path) -> None:
    plain.git("sparse-checkout", "set", "model-src")
    assert not (plain.root / "overlays").exists()

    repo.export("HEAD", tmp_path / "out", "overlays", "model-src")

    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert found == ["model-src/models/lily/train.py", "overlays/dev/note.txt"]


def test_a_message_may_quote_one_that_is_no_utf_8(repo: Git) -> None:
    quoted = b"caf\xe9".decode(errors="surrogateescape")

    commit = repo.commit_tree(repo.tree_with("HEAD", {}), "HEAD", f"Import {quoted}\n")

    assert repo.raw("cat-file", "commit", commit).endswith("\n\nImport café\n".encode())


def test_a_commit_without_an_identity_fails_in_the_words_of_git_without_blank_lines(
    plain: Checkout, repo: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.git("config", "user.useConfigOnly", "true")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{role}_NAME")
        monkeypatch.delenv(f"GIT_{role}_EMAIL")
    with pytest.raises(GitError) as failed:
        repo.commit_tree(repo.tree_with("HEAD", {}), "HEAD", "A change\n")

    assert lines_of(failed)[0] == "git commit-tree: Author identity unknown"
    assert 'git commit-tree: git config --global user.email "you@example.com"' in lines_of(failed)
    assert all(line.removeprefix("git commit-tree:").strip() for line in lines_of(failed))


# Publishing


def test_a_branch_that_the_remote_lacks_is_named_with_the_remedy(repo: Git) -> None:
    with pytest.raises(Refused) as refused:
        repo.fetch("origin", "none")

    assert lines_of(refused) == (
        "origin: no branch none there; look at `git remote get-url origin`, a new fork gets its branches"
        " by `make init`",
    )


@pytest.mark.parametrize("checked_out", [True, False])
def test_a_branch_moves_on_with_its_working_tree_and_edits_elsewhere_stay(
    plain: Checkout, repo: Git, checked_out: bool
) -> None:
    old = repo.text("rev-parse", "cicd")
    new = repo.commit_tree(repo.tree_with(old, {"overlays/dev/note.txt": b"new\n"}), old, "Change the note\n")
    if not checked_out:
        plain.git("checkout", "-q", "--detach")
    plain.write("README.md", "staged\n")
    plain.git("add", "README.md")
    plain.write("README.md", "edited\n")

    repo.advance("cicd", old, new)

    assert repo.text("rev-parse", "cicd") == new
    assert plain.read("overlays/dev/note.txt") == (b"new\n" if checked_out else b"overlays/dev/note.txt\n")
    assert plain.git("status", "--porcelain") == "MM README.md"


@pytest.mark.parametrize("checked_out", [True, False])
def test_a_branch_that_somebody_else_moved_meanwhile_is_not_moved(
    plain: Checkout, repo: Git, checked_out: bool
) -> None:
    old = repo.text("rev-parse", "cicd")
    new = repo.commit_tree(repo.tree_with(old, {"a": b"a"}), old, "Mine\n")
    plain.write("b", "b")
    theirs = plain.commit("Theirs")
    if not checked_out:
        plain.git("checkout", "-q", "--detach")
    with pytest.raises(GitError):
        repo.advance("cicd", old, new)

    assert repo.text("rev-parse", "cicd") == theirs


def test_another_worktree_with_the_branch_is_found_unless_its_folder_is_gone(
    plain: Checkout, repo: Git, tmp_path: Path
) -> None:
    plain.git("checkout", "-q", "--detach")
    other = tmp_path / "other tree"
    plain.git("worktree", "add", "-q", str(other), "cicd")

    assert repo.checked_out_elsewhere("cicd") == other
    assert Git(other).checked_out_elsewhere("cicd") is None
    subprocess.run(["rm", "-r", other], check=True)
    assert repo.checked_out_elsewhere("cicd") is None


def test_many_files_are_read_at_once(repo: Git, plain: Checkout) -> None:
    plain.write("empty file", "")
    plain.write("two lines", "HEAD:none missing\n\n")
    plain.commit()

    names = ["README.md", "none", "empty file", "overlays", "two lines"]
    found = repo.show_all([f"HEAD:{name}" for name in names])

    assert found == [b"README.md\n", None, b"", None, b"HEAD:none missing\n\n"]
    assert repo.show_all([]) == []
    with pytest.raises(Refused, match="a line break in a file's name"):
        repo.show_all(["HEAD:a\nb"])


def test_a_lock_is_told_by_whether_git_still_runs(plain: Checkout, tmp_path: Path) -> None:
    """A merge that waits for a filter, which is a real git that holds the index, and then is killed."""
    old = plain.git("rev-parse", "HEAD")
    plain.write("overlays/dev/note.txt", "new")
    new = plain.commit()
    plain.git("reset", "-q", "--hard", old)
    (plain.root / ".git/info").mkdir(exist_ok=True)
    (plain.root / ".git/info/attributes").write_text("note.txt filter=slow\n")
    waits = f"touch '{tmp_path}/waits'; sleep 1000"
    advance = (
        "import sys; from pathlib import Path; from gitops.repo.git import Git;"
        " Git(Path(sys.argv[1])).advance('cicd', *sys.argv[2:])"
    )
    plain.git("config", "filter.slow.smudge", waits)
    with subprocess.Popen(
        [sys.executable, "-c", advance, plain.root, old, new], cwd=ROOT / "scripts", start_new_session=True
    ) as process:
        try:
            wait_until((tmp_path / "waits").exists, "the filter runs")
            plain.git("config", "--unset", "filter.slow.smudge")
            with pytest.raises(GitError) as living:
                Git(plain.root).advance("cicd", old, new)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    with pytest.raises(GitError) as dead:
        Git(plain.root).advance("cicd", old, new)

    lock = f"git merge: {plain.root}/.git/index.lock: "
    [line] = living.value.lines
    told = rf"{re.escape(lock)}git runs here \(process [0-9, ]+\); when it has ended, run this again"
    assert re.fullmatch(told, line)
    assert dead.value.lines == (
        f"{lock}left by a git that was killed, none runs here; remove the file, then run this again",
    )
    (plain.root / ".git/index.lock").unlink()
    plain.git("reset", "-q", "--hard")
    Git(plain.root).advance("cicd", old, new)
    assert plain.git("rev-parse", "cicd") == new


def test_the_lock_of_a_ref_is_named(plain: Checkout) -> None:
    new = plain.git("commit-tree", "-p", "HEAD", "-m", "New", "HEAD^{tree}")
    plain.git("checkout", "-q", "--detach")
    lock = plain.root / ".git/refs/heads/cicd.lock"
    lock.touch()

    with pytest.raises(GitError) as refused:
        Git(plain.root).advance("cicd", plain.git("rev-parse", "cicd"), new)

    assert refused.value.lines == (
        f"git update-ref: {lock}: left by a git that was killed, none runs here; remove the file, then run this again",
    )

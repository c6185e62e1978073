"""How commits reach the deployed branch: races, refusals, interruptions. By real pushes to a real remote."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import IMAGE, ROOT, S3, SAMPLE, Checkout, Version, clone, git, hook, package, wait_until

from gitops.manifests import kustomize
from gitops.manifests.closure import Files
from gitops.manifests.objects import Object
from gitops.repo import publish
from gitops.repo.git import Git, GitError
from gitops.repo.publish import Asked, Draft, Way

from contract.errors import Refused

NOTE = "overlays/dev/note.txt"
API = "overlays/dev/lily-api/release.yaml"
SKLEARN = "overlays/dev/lily-sklearn/release.yaml"


def adding(checkout: Checkout, name: str, before: Callable[[], object] = lambda: None) -> Callable[[str], str]:
    """A change that adds a file to whatever the tip is. `before` happens while the first commit is being built."""
    repo, calls = Git(checkout.root), []

    def build(base: str) -> str:
        if not calls:
            before()
        calls.append(base)
        return repo.commit_tree(repo.tree_with(base, {name: b"x"}), base, f"Add {name}\n")

    return build


def publishing(
    checkout: Checkout, build: Callable[[str], str | None], *, push: bool = True, way: Way | None = None
) -> str | None:
    """The commit that was published; by default in the deployed branch."""
    git = Git(checkout.root)

    def draft(base: str) -> Draft | None:
        commit = build(base)
        if commit in (None, base):
            return None
        return Draft(git.tree(str(commit)), f"{git.text('log', '-1', '--format=%B', str(commit))}\n")

    asked = Asked(way or (Way.PUSH if push else Way.COMMIT), "python scripts/some_command.py --app lily")
    return publish.publish(git, draft, asked, lambda: "some/branch").commit


def files(checkout: Checkout) -> set[str]:
    """The files of the remote's cicd that tests add."""
    return {name for name in git(checkout.remote, "ls-tree", "--name-only", "cicd").split() if name in "abc"}


# Races


def test_another_push_meanwhile_makes_the_change_be_built_again_on_it(plain: Checkout) -> None:
    other = clone(plain.remote, "other")

    commit = publishing(plain, adding(plain, "a", before=lambda: publishing(other, adding(other, "b"))))

    assert commit == plain.tip()
    assert files(plain) == {"a", "b"}
    assert plain.git("rev-parse", "HEAD") == commit
    assert plain.git("status", "--porcelain") == ""


@pytest.mark.parametrize("checked_out", ["cicd", "main"])
def test_another_commit_here_meanwhile_is_built_upon_and_never_lost(plain: Checkout, checked_out: str) -> None:
    plain.git("checkout", "-q", checked_out)

    def others() -> None:
        publishing(plain, adding(plain, "b"), push=False)

    commit = publishing(plain, adding(plain, "a", before=others), push=False)

    assert plain.git("rev-parse", "cicd") == commit
    assert plain.git("log", "--format=%s", "cicd").splitlines() == ["Add a", "Add b", "Start"]


def test_a_lost_race_is_told_by_the_branch_whatever_the_server_says(plain: Checkout) -> None:
    other = clone(plain.remote, "other")
    other.git("push", "-q", "origin", f"{adding(other, 'b')(other.tip())}:refs/heads/theirs")
    hook(
        plain.remote,
        "pre-receive",
        "unset GIT_QUARANTINE_PATH; test -e late && exit 0; touch late; git update-ref refs/heads/cicd theirs; exit 1",
    )

    publishing(plain, adding(plain, "a"))

    assert files(plain) == {"a", "b"}


def test_a_ref_that_another_push_holds_locked_is_tried_again(plain: Checkout) -> None:
    lock = plain.remote / "refs/heads/cicd.lock"
    lock.touch()
    bases: list[str] = []
    build = adding(plain, "a")

    def unlocking(base: str) -> str:
        bases.append(base)
        if len(bases) == 2:
            lock.unlink()
        return build(base)

    publishing(plain, unlocking)

    assert len(bases) == 2
    assert files(plain) == {"a"}


def test_who_is_always_overtaken_gives_up_with_the_words_of_the_server(
    plain: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "ATTEMPTS", 2)
    (plain.remote / "refs/heads/cicd.lock").touch()
    before = plain.state()

    with pytest.raises(Refused) as refused:
        publishing(plain, adding(plain, "a"))

    assert refused.value.lines[0] == "branch cicd: 2 attempts were overtaken by others; run the command again"
    assert any("! [remote rejected]" in line and "failed to update ref" in line for line in refused.value.lines)
    assert plain.state() == before


@pytest.mark.parametrize(
    "reason",
    [
        "cannot lock ref 'refs/heads/cicd': is at 1f2 but expected 3f4",
        "failed to update ref",
        "failed to lock",
        "incorrect old value provided",
    ],
)
def test_servers_word_a_locked_ref_in_many_ways(reason: str) -> None:
    verdict = f"git push: ! [remote rejected] 1f2 -> cicd ({reason})"

    assert publish._locked(GitError("git push: To example.org", verdict))
    assert not publish._locked(GitError(f"git push: remote: {reason}", "git push: ! [remote rejected] (hook declined)"))


# Refusals


@pytest.mark.parametrize("unpushed", [False, True])
def test_a_push_that_a_hook_refuses_is_told_in_its_words_and_tried_once(plain: Checkout, unpushed: bool) -> None:
    hook(
        plain.remote,
        "pre-receive",
        "echo tried >> tries; echo 'GH006: Protected branch update failed, cannot lock ref'; exit 1",
    )
    if unpushed:
        publishing(plain, adding(plain, "b"), push=False)
    before = plain.state()

    with pytest.raises(Refused) as refused:
        publishing(plain, adding(plain, "a"))

    first, *said = refused.value.lines
    assert first == "origin/cicd: the push was refused although nobody else had pushed:"
    assert "git push: remote: GH006: Protected branch update failed, cannot lock ref" in said
    assert (plain.remote / "tries").read_text() == "tried\n"
    assert plain.state() == before
    assert said[-1] == (
        "if cicd takes pull requests alone, propose the same with"
        " `python scripts/some_command.py --app lily --pull-request`"
    )


def test_a_push_that_landed_though_the_connection_broke_has_landed(plain: Checkout) -> None:
    hook(plain.remote, "post-receive", "kill -9 $PPID")

    commit = publishing(plain, adding(plain, "a"))

    assert commit == plain.tip() == plain.git("rev-parse", "cicd")


@pytest.mark.parametrize("push", [True, False])
def test_branches_that_diverged_are_left_to_a_person(plain: Checkout, push: bool) -> None:
    other = clone(plain.remote, "other")
    publishing(other, adding(other, "b"))
    publishing(plain, adding(plain, "c"), push=False)
    plain.git("fetch", "-q", "origin")
    before = plain.state()

    with pytest.raises(Refused) as refused:
        publishing(plain, adding(plain, "a"), push=push)

    local, remote = plain.git("rev-parse", "cicd", "origin/cicd").split()
    assert refused.value.lines == (
        f"branch cicd: the local branch at {local[:12]} and origin/cicd at {remote[:12]} have diverged; rebase the"
        " local one with `git rebase origin/cicd cicd`, or drop what it has with `git checkout -B cicd origin/cicd`",
    )
    assert plain.state() == before


@pytest.mark.parametrize("new", [False, True], ids=["taken back", "made anew"])
@pytest.mark.parametrize("own", [False, True], ids=["as it was", "with a commit of its own"])
def test_what_was_taken_out_of_the_history_is_not_brought_back(plain: Checkout, *, new: bool, own: bool) -> None:
    other = clone(plain.remote, "other")
    kept = plain.tip()
    gone = publishing(plain, adding(plain, "gone"))
    assert gone
    if own:
        publishing(plain, adding(plain, "own"), push=False)
    other.git("fetch", "-q")
    other.git("checkout", "-q", "-B", "cicd", kept)
    if new:
        other.write("new", "x")
        other.commit()
    other.git("push", "-q", "--force", "origin", "cicd")

    for push in (True, False):
        with pytest.raises(Refused) as refused:
            publishing(plain, adding(plain, "a"), push=push)
        [line] = refused.value.lines
        assert line.startswith(
            f"branch cicd: the history of origin/cicd was rewritten, and no longer has {gone[:12]}, which the local"
        )
    assert plain.tip() == other.git("rev-parse", "cicd")
    plain.git(*line.split("`")[1].split()[1:])
    publishing(plain, adding(plain, "a"))

    files = plain.git("ls-tree", "--name-only", plain.tip()).split()
    assert {"a", "gone", "new", "own"} & {*files} == {"a", *(["new"] if new else []), *(["own"] if own else [])}


def test_a_clone_that_only_follows_takes_the_rewritten_history(plain: Checkout) -> None:
    kept = plain.tip()
    publishing(plain, adding(plain, "gone"))
    plain.git("checkout", "-q", "--detach")
    plain.git("branch", "-q", "-D", "cicd")
    plain.git("push", "-q", "--force", "origin", f"{kept}:cicd")

    commit = publishing(plain, adding(plain, "a"))

    assert plain.git("rev-parse", f"{commit}^") == kept


def test_a_branch_checked_out_in_another_worktree_is_written_there(plain: Checkout, tmp_path: Path) -> None:
    plain.git("checkout", "-q", "main")
    tree = tmp_path / "tree"
    plain.git("worktree", "add", "-q", str(tree), "cicd")
    before = plain.state()

    with pytest.raises(Refused) as refused:
        publishing(plain, adding(plain, "a"))

    assert refused.value.lines == (f"branch cicd: checked out in {tree}; run the command there, with --root {tree}",)
    assert plain.state() == before
    there = Checkout(tree, plain.remote)
    assert publishing(there, adding(there, "a")) == plain.tip() == there.git("rev-parse", "HEAD")
    assert there.read("a") == b"x"


def test_files_that_are_edited_here_are_not_overwritten_by_what_others_pushed(plain: Checkout) -> None:
    other = clone(plain.remote, "other")
    other.write("README.md", "theirs\n")
    other.commit(push=True)
    plain.write("README.md", "mine\n")
    old = plain.git("rev-parse", "cicd")
    plain.git("fetch", "-q", "origin")

    with pytest.raises(Refused) as refused:
        publishing(plain, adding(plain, "a"), push=False)

    assert "git merge: README.md" in refused.value.lines
    assert publishing(plain, adding(plain, "a")) == plain.tip()
    assert (plain.git("rev-parse", "cicd"), plain.read("README.md")) == (old, b"mine\n")
    assert files(plain) == {"a"}


def test_a_failed_courtesy_after_the_push_is_a_remark(plain: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    other = clone(plain.remote, "other")
    other.write("README.md", "theirs\n")
    other.commit(push=True)
    plain.write("README.md", "mine\n")

    publishing(plain, adding(plain, "a"))

    assert capsys.readouterr().err.startswith("the local branch cicd stays behind: git merge: ")


# Merged in another form. The remote's cicd goes on, as people's do.


def land(checkout: Checkout, commit: str, how: str) -> None:
    """Merges a commit into the remote's cicd as a button of a pull request does, between changes of others."""
    tree = checkout.root.parent / "button"
    if not tree.exists():
        clone(checkout.remote, tree.name)
    git(tree, "fetch", "-q", "origin", commit)
    git(tree, "pull", "-q", "--ff-only")
    (tree / "between").write_text(f"{how} {commit}\n")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "Between")
    if how == "rebase":
        git(tree, "cherry-pick", f"HEAD^..{commit}")
    else:
        git(tree, "merge", "-q", f"--{'squash' if how == 'squash' else 'no-ff'}", commit)
        git(tree, "commit", "-qm", "Merged by a button", "--allow-empty")
    git(tree, "push", "-q", "origin", "cicd")


def afterwards(checkout: Checkout, files: dict[str, str]) -> None:
    """What comes to the remote's cicd after that."""
    tree = checkout.root.parent / "button"
    for path, text in files.items():
        (tree / path).write_text(text)
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "Afterwards")
    git(tree, "push", "-q", "origin", "cicd")


@pytest.mark.parametrize("how", ["squash", "rebase", "merge"])
@pytest.mark.parametrize("checked_out", ["cicd", "main"])
def test_own_commits_that_were_merged_in_another_form_are_not_in_the_way(
    plain: Checkout, how: str, checked_out: str
) -> None:
    publishing(plain, adding(plain, "a"), push=False)
    publishing(plain, adding(plain, "b"), push=False)
    plain.git("push", "-q", "origin", "cicd:proposed")
    land(plain, plain.git("rev-parse", "cicd"), how)
    # The same files are changed again, so that merging at the newest commit would conflict.
    afterwards(plain, {"a": "changed since", "b": "changed since"})
    plain.git("checkout", "-q", checked_out)

    commit = publishing(plain, adding(plain, "c"))

    assert commit == plain.tip() == plain.git("rev-parse", "cicd")
    assert files(plain) == {"a", "b", "c"}
    assert plain.git("status", "--porcelain") == ""
    assert plain.git("log", "--format=%s", "-2", "cicd").splitlines() == ["Add c", "Afterwards"]


@pytest.mark.parametrize("way", [Way.COMMIT, Way.BRANCH])
def test_they_are_not_in_the_way_of_what_stays_here_either(plain: Checkout, way: Way) -> None:
    own = publishing(plain, adding(plain, "a"), push=False)
    assert own
    plain.git("push", "-q", "origin", "cicd:proposed")
    land(plain, own, "squash")
    plain.git("fetch", "-q")

    commit = publishing(plain, adding(plain, "c"), way=way)

    assert plain.git("rev-parse", f"{commit}^") == plain.tip()
    assert plain.git("rev-parse", "cicd") == (commit if way is Way.COMMIT else own)
    assert plain.git("status", "--porcelain") == ""


def test_where_following_would_lose_an_edit_the_branch_stays_behind(
    plain: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    own = publishing(plain, adding(plain, "a"), push=False)
    assert own
    plain.git("push", "-q", "origin", "cicd:proposed")
    land(plain, own, "squash")
    plain.write("README.md", "edited\n")
    plain.git("add", "README.md")
    status = plain.git("status", "--porcelain")

    commit = publishing(plain, adding(plain, "c"))

    assert commit == plain.tip()
    assert (plain.git("rev-parse", "cicd"), plain.git("status", "--porcelain")) == (own, status)
    assert "the local branch cicd stays behind: branch cicd: checked out with" in capsys.readouterr().err
    with pytest.raises(Refused, match="checked out with uncommitted changes; commit them, or `git stash` them"):
        publishing(plain, adding(plain, "d"), push=False)


def test_an_untracked_file_is_not_overwritten_by_following(plain: Checkout) -> None:
    own = publishing(plain, adding(plain, "a"), push=False)
    assert own
    plain.git("push", "-q", "origin", "cicd:proposed")
    land(plain, own, "squash")
    plain.write("between", "mine\n")

    publishing(plain, adding(plain, "c"))

    assert plain.read("between") == b"mine\n"


@pytest.mark.parametrize("more", [{"d": "own"}, {"a": "another text"}], ids=["one more file", "another text"])
def test_what_was_not_merged_is_never_dropped(plain: Checkout, more: dict[str, str]) -> None:
    own = publishing(plain, adding(plain, "a"), push=False)
    assert own
    plain.git("push", "-q", "origin", "cicd:proposed")
    land(plain, own, "squash")
    for path, text in more.items():
        plain.write(path, text)
    kept = plain.commit("My own")
    plain.git("fetch", "-q")

    for push in (True, False):
        with pytest.raises(Refused, match="have diverged; rebase the local one with"):
            publishing(plain, adding(plain, "c"), push=push)

    assert plain.git("rev-parse", "cicd") == kept


@pytest.mark.parametrize("checked_out", ["cicd", "main"])
@pytest.mark.parametrize("remedy", [0, 1], ids=["rebase", "drop"])
def test_both_remedies_of_a_diverged_branch_work_as_they_stand(plain: Checkout, checked_out: str, remedy: int) -> None:
    other = clone(plain.remote, "other")
    publishing(other, adding(other, "b"))
    publishing(plain, adding(plain, "c"), push=False)
    plain.git("fetch", "-q")
    plain.git("checkout", "-q", checked_out)
    with pytest.raises(Refused) as refused:
        publishing(plain, adding(plain, "a"))

    plain.git(*refused.value.lines[0].split("`")[1 + 2 * remedy].split()[1:])
    publishing(plain, adding(plain, "a"))

    assert files(plain) == {"a", "b", *(["c"] if remedy == 0 else [])}


def test_who_reads_gets_the_remotes_where_the_local_branch_has_diverged(
    plain: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    other = clone(plain.remote, "other")
    publishing(other, adding(other, "b"))
    own = publishing(plain, adding(plain, "c"), push=False)
    assert own
    plain.git("fetch", "-q")
    before = plain.state()

    assert publish.tip(Git(plain.root)) == plain.tip()

    said = capsys.readouterr().err
    assert said.startswith("warning: what follows is of origin/cicd alone: branch cicd: the local branch at")
    assert own[:12] in said and plain.tip()[:12] in said
    assert plain.state() == before


# A branch of its own


def proposing(checkout: Checkout, name: str = "a") -> str:
    """The commit on the branch some/branch at the remote, whatever it was."""
    commit = publishing(checkout, adding(checkout, name), way=Way.PULL_REQUEST)
    assert commit == checkout.tip("some/branch") == checkout.git("rev-parse", "some/branch")
    return str(commit)


def test_the_same_proposed_twice_is_one_branch_from_whatever_clone(
    plain: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = clone(plain.remote, "other")
    first = proposing(plain)
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2030-01-01T00:00:00Z")
    before = plain.state()
    assert proposing(plain) == first
    assert plain.state() == before
    publishing(other, adding(other, "b"))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Another")

    assert proposing(other) == first


@pytest.mark.parametrize("how", ["squash", "rebase", "merge"])
@pytest.mark.parametrize("kept", [True, False], ids=["the branch is still there", "the branch is gone"])
def test_a_branch_that_was_merged_is_not_in_the_way_of_the_next_of_its_name(
    plain: Checkout, how: str, *, kept: bool
) -> None:
    first = proposing(plain)
    plain.git("checkout", "-q", "some/branch")
    land(plain, first, how)
    afterwards(plain, {"a": "changed since"})
    if not kept:
        git(plain.remote, "branch", "-qD", "some/branch")

    second = proposing(plain)

    assert plain.git("rev-parse", f"{second}^") == plain.tip()
    assert plain.read("a") == b"x"
    assert plain.git("status", "--porcelain") == ""


def test_a_branch_that_another_worktree_has_checked_out_is_left_as_it_is(
    plain: Checkout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = proposing(plain)
    land(plain, first, "squash")
    afterwards(plain, {"a": "changed since"})
    plain.git("worktree", "add", "-q", str(tmp_path / "tree"), "some/branch")

    commit = publishing(plain, adding(plain, "a"), way=Way.PULL_REQUEST)

    assert (plain.tip("some/branch"), plain.git("rev-parse", "some/branch")) == (commit, first)
    assert "the local branch some/branch stays behind: branch some/branch: checked out in " in capsys.readouterr().err
    assert git(tmp_path / "tree", "status", "--porcelain") == ""


def test_a_branch_that_was_brought_up_to_date_is_the_same(plain: Checkout) -> None:
    proposing(plain)
    other = clone(plain.remote, "other")
    publishing(other, adding(other, "b"))
    other.git("checkout", "-q", "some/branch")
    other.git("merge", "-q", "--no-ff", "-m", "Merge cicd", "origin/cicd")
    other.git("push", "-q", "origin", "some/branch")

    assert proposing(plain) == other.git("rev-parse", "HEAD")


def test_a_commit_that_comes_while_a_merged_branch_is_made_anew_is_not_lost(
    plain: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(plain, proposing(plain), "squash")
    afterwards(plain, {"a": "changed since"})
    other = clone(plain.remote, "other")
    other.git("checkout", "-q", "some/branch")
    other.write("theirs", "x")
    theirs = other.commit("Theirs")
    push = Git.push

    def late(self: Git, remote: str, commit: str, branch: str, instead_of: str | None = None) -> None:
        other.git("push", "-q", "origin", "some/branch")
        push(self, remote, commit, branch, instead_of)

    monkeypatch.setattr(Git, "push", late)
    with pytest.raises(Refused) as refused:
        proposing(plain)

    assert refused.value.lines[0] == "origin/some/branch: the push was refused:"
    assert plain.tip("some/branch") == theirs


def test_a_clone_of_one_branch_alone_proposes_as_others_do(plain: Checkout) -> None:
    git(plain.root.parent, "clone", "-q", "--single-branch", "-b", "cicd", str(plain.remote), "single")
    single = Checkout(plain.root.parent / "single", plain.remote)
    first = proposing(single)
    assert proposing(single) == first
    land(plain, first, "squash")
    afterwards(plain, {"a": "changed since"})

    assert proposing(single) != first


def test_what_was_merged_already_has_nothing_to_propose(plain: Checkout) -> None:
    land(plain, proposing(plain), "squash")

    assert publishing(plain, lambda base: base, way=Way.PULL_REQUEST) is None


@pytest.mark.parametrize("place", ["origin", "here", "here and checked out"])
def test_a_branch_with_a_commit_of_somebody_is_left_alone_and_its_remedy_works(plain: Checkout, place: str) -> None:
    proposing(plain)
    plain.git("checkout", "-q", "some/branch")
    plain.write("a", "something else")
    plain.commit("Somebody's", push=place == "origin")
    if place != "here and checked out":
        plain.git("checkout", "-q", "cicd")
    if place == "origin":
        plain.git("branch", "-qD", "some/branch")
    before = plain.state()

    with pytest.raises(Refused) as refused:
        publishing(plain, adding(plain, "a"), way=Way.PULL_REQUEST)

    [line] = refused.value.lines
    where = "at origin" if place == "origin" else "here"
    assert line.startswith(f"branch some/branch: exists {where} with other content, by Test, 20")
    assert plain.state() == before
    subprocess.run(["bash", "-ec", line.split("`")[-2]], cwd=plain.root, check=True, capture_output=True)
    proposing(plain)


def test_a_commit_that_was_amended_is_somebodys_though_its_message_is_the_same(plain: Checkout) -> None:
    proposing(plain)
    plain.git("checkout", "-q", "some/branch")
    plain.write("a", "amended")
    # Whoever amends a commit within the second it was made leaves no trace in it.
    env = os.environ | {"GIT_COMMITTER_DATE": "2030-01-01T00:00:00Z"}
    subprocess.run(["git", "commit", "-qa", "--amend", "--no-edit"], cwd=plain.root, env=env, check=True)
    plain.git("push", "-qf", "origin", "some/branch")

    with pytest.raises(Refused, match="with other content"):
        publishing(plain, adding(plain, "a"), way=Way.PULL_REQUEST)


@pytest.mark.parametrize("taken", ["some", "some/branch/below"])
@pytest.mark.parametrize("place", ["origin", "here"])
def test_a_name_that_leaves_no_room_is_refused_and_its_remedy_works(plain: Checkout, taken: str, place: str) -> None:
    if place == "origin":
        plain.git("push", "-q", "origin", f"cicd:refs/heads/{taken}")
    else:
        plain.git("branch", "-q", taken)
    before = plain.state()

    with pytest.raises(Refused) as refused:
        publishing(plain, adding(plain, "a"), way=Way.PULL_REQUEST)

    [line] = refused.value.lines
    assert line.startswith(f"branch {taken}: ")
    assert plain.state() == before
    plain.git(*line.split("`")[-2].split()[1:])
    proposing(plain)


def test_a_branch_needs_no_cicd_here_and_takes_nothing_along(plain: Checkout) -> None:
    publishing(plain, adding(plain, "b"), push=False)
    commit = proposing(plain)

    assert plain.git("diff", "--name-only", "origin/cicd", commit) == "a"
    plain.git("checkout", "-q", "main")
    plain.git("branch", "-qD", "cicd")
    assert proposing(plain) == commit


def test_a_remote_without_any_branch_says_how_it_gets_one(plain: Checkout) -> None:
    git(plain.remote.parent, "init", "-q", "--bare", "empty.git")
    plain.git("remote", "set-url", "origin", str(plain.remote.parent / "empty.git"))

    for way in (Way.PUSH, Way.PULL_REQUEST):
        with pytest.raises(Refused) as refused:
            publishing(plain, adding(plain, "a"), way=way)
        assert refused.value.lines == (
            "origin: no branch cicd there; look at `git remote get-url origin`, a new fork gets its branches by"
            " `make init`",
        )


# What there is to publish


def test_what_was_committed_and_not_pushed_is_pushed_although_nothing_changes(
    plain: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = publishing(plain, adding(plain, "a"), push=False)

    assert publishing(plain, lambda base: base) is None
    assert plain.tip() == commit
    assert capsys.readouterr().err == "pushed what cicd had here before\n"


@pytest.mark.parametrize("local", [True, False])
def test_a_push_needs_no_local_branch_and_makes_none(plain: Checkout, local: bool) -> None:
    plain.git("checkout", "-q", "main")
    if not local:
        plain.git("branch", "-qD", "cicd")

    commit = publishing(plain, adding(plain, "a"))

    assert plain.tip() == commit
    assert Git(plain.root).commit("refs/heads/cicd") == (commit if local else None)
    assert plain.git("status", "--porcelain") == ""


@pytest.mark.parametrize("ahead", ["local", "remote"])
def test_the_newest_tip_that_the_clone_knows_is_built_upon(plain: Checkout, ahead: str) -> None:
    publishing(plain, adding(plain, "b"), push=ahead == "remote")
    if ahead == "remote":
        plain.git("reset", "-q", "--hard", "HEAD~1")

    commit = publishing(plain, adding(plain, "a"), push=False)

    assert commit == plain.git("rev-parse", "HEAD")
    assert {"a", "b"} <= set(plain.git("ls-files").split())


def test_a_clone_without_the_branch_is_told_how_to_get_it(plain: Checkout) -> None:
    plain.git("checkout", "-q", "main")
    plain.git("branch", "-qD", "cicd")
    plain.git("update-ref", "-d", "refs/remotes/origin/cicd")

    with pytest.raises(Refused) as refused:
        publishing(plain, adding(plain, "a"), push=False)

    assert refused.value.lines == (
        "branch cicd: not in this clone; fetch it with `git fetch origin cicd`, or start it with `make init`",
    )


# Two commands at once. A hook of the clone holds the one that is about to push.


@pytest.fixture
def second(tmp_path: Path, s3: S3, version: Version) -> Version:
    made = package(tmp_path / "second", "two")
    s3.upload(made)
    return made


def bump(version: Version, app: str, *more: str) -> list[str]:
    image = ["--image", IMAGE] if app == "lily-api" else []
    return ["--app", app, "--env", "dev", "--model-uri", version.uri, *image, *more]


def start(checkout: Checkout, *args: str) -> subprocess.Popen[str]:
    """bump_model.py as a process and a group of its own, which Ctrl-C interrupts also where it does not us."""
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts/bump_model.py", "--root", checkout.root, *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


class Gate:
    """A hook of a clone that waits, the first time it runs, until the test opens it."""

    def __init__(self, checkout: Checkout, name: str) -> None:
        self.fifo = checkout.root / ".git/gate"
        os.mkfifo(self.fifo)
        hook(checkout.root / ".git", name, f"test -e {self.fifo} && read -r _ < {self.fifo}; rm -f {self.fifo}; exit 0")

    def reached(self) -> int:
        """Waits until the hook runs, and returns a descriptor; closing that opens the gate."""
        found: list[int] = []

        def opened() -> bool:
            try:
                found.append(os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return False
            return True

        wait_until(opened, "the hook runs")
        return found[0]


def test_two_bumps_of_two_apps_from_two_clones_at_once_both_land(checkout: Checkout, version: Version) -> None:
    other = clone(checkout.remote, "other")
    gates = [Gate(checkout, "pre-push"), Gate(other, "pre-push")]
    processes = [
        start(checkout, *bump(version, "lily-api", "--push")),
        start(other, *bump(version, "lily-sklearn", "--push")),
    ]

    for gate in [gate.reached() for gate in gates]:
        os.close(gate)

    results = [(*process.communicate(), process.returncode) for process in processes]
    assert [code for *_, code in results] == [0, 0], results
    assert {out.strip() for out, *_ in results} == set(git(checkout.remote, "rev-list", "-2", "cicd").split())
    for file in (API, SKLEARN):
        assert f"model.mlops/version: {version.version}" in git(checkout.remote, "show", f"cicd:{file}")


def bumped_meanwhile(checkout: Checkout, *args: str) -> Checkout:
    """Prepares a bump in another clone, which is pushed the moment this clone is about to push."""
    other = clone(checkout.remote, "other")
    done = other.run("bump_model", *args, "--commit")
    assert done.code == 0, done.err
    push_meanwhile(checkout, other)
    return other


def push_meanwhile(checkout: Checkout, other: Checkout) -> None:
    once = checkout.root / ".git/once"
    hook(
        checkout.root / ".git",
        "pre-push",
        f"test -e {once} && exit 0; touch {once}; git -C {other.root} push -q origin cicd",
    )


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        (
            "overlays/dev/lily-sklearn/hold.yaml",
            "reason: wrong answers\nby: Ann\nsince: '2026-02-01T12:00:00Z'\n",
            "overlays/dev/lily-sklearn/hold.yaml: held by Ann since 2026-02-01T12:00:00Z: wrong answers; ",
        ),
        (
            "overlays/promotion.yaml",
            "model_bucket: other\nimage_registries: [example.org]\nenvironments: [{name: dev}]\n",
            "URI: bucket 'mlops-prod'; overlays/promotion.yaml names the model bucket 'other'",
        ),
        (
            "apps/lily-sklearn/kustomization.yaml",
            (SAMPLE / "apps/lily-sklearn/kustomization.yaml").read_text().replace("flavour=sklearn", "flavour=other"),
            "URI: has no folder other/, which the app serves; package that flavour too",
        ),
    ],
    ids=["hold", "policy", "app"],
)
def test_what_others_changed_meanwhile_is_checked_again(
    checkout: Checkout, version: Version, path: str, text: str, line: str
) -> None:
    other = clone(checkout.remote, "other")
    other.write(path, text)
    other.commit()
    push_meanwhile(checkout, other)

    done = checkout.run("bump_model", *bump(version, "lily-sklearn", "--push"))

    assert (done.code, done.out) == (1, "")
    assert done.errors[0].startswith(line.replace("URI", version.uri))
    assert checkout.tip() == other.git("rev-parse", "cicd")


def test_the_same_release_changed_meanwhile_is_refused(checkout: Checkout, version: Version, second: Version) -> None:
    other = bumped_meanwhile(checkout, *bump(second, "lily-sklearn"))

    done = checkout.run("bump_model", *bump(version, "lily-sklearn", "--push"))

    assert (done.code, done.out) == (1, "")
    assert done.errors == [
        f"{SKLEARN}: changed meanwhile, to {second.version}; look at that release, then run the command again"
    ]
    assert checkout.tip() == other.git("rev-parse", "cicd")
    assert checkout.git("status", "--porcelain") == ""


def test_the_same_release_made_meanwhile_by_somebody_else_is_nothing_to_change(
    checkout: Checkout, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bumped_meanwhile(checkout, *bump(version, "lily-sklearn"))
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Another")  # or both would make the very same commit

    done = checkout.run("bump_model", *bump(version, "lily-sklearn", "--push"))

    assert (done.code, done.out, done.err) == (0, "", "nothing to change: this is what is released already\n")
    assert checkout.tip() == other.git("rev-parse", "cicd") == checkout.git("rev-parse", "cicd")


# Interruptions


def test_a_bump_killed_before_its_push_leaves_the_old_and_the_same_command_completes_it(
    checkout: Checkout, version: Version
) -> None:
    gate = Gate(checkout, "pre-push")
    before = checkout.state()
    process = start(checkout, *bump(version, "lily-api", "--push"))

    descriptor = gate.reached()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    os.close(descriptor)
    gate.fifo.unlink()

    assert checkout.state() == before
    done = checkout.run("bump_model", *bump(version, "lily-api", "--push"))
    assert (done.code, done.out) == (0, f"{checkout.tip()}\n")
    assert checkout.git("rev-parse", "HEAD") == checkout.tip()
    assert checkout.git("status", "--porcelain") == ""


def test_a_bump_killed_while_git_pushes_leaves_the_new_and_the_same_command_completes_it(
    checkout: Checkout, version: Version
) -> None:
    gate = Gate(checkout, "pre-push")
    old = checkout.tip()
    process = start(checkout, *bump(version, "lily-api", "--push"))

    descriptor = gate.reached()
    process.kill()
    process.wait()
    os.close(descriptor)
    wait_until(lambda: checkout.tip() != old, "git completes the push by itself")
    process.communicate()

    done = checkout.run("bump_model", *bump(version, "lily-api", "--push"))
    assert (done.code, done.err) == (0, "nothing to change: this is what is released already\n")
    assert checkout.git("rev-parse", "HEAD", "cicd").split() == [checkout.tip()] * 2
    assert checkout.git("status", "--porcelain") == ""


def test_an_interruption_while_the_working_tree_moves_waits_until_it_has_moved(
    checkout: Checkout, version: Version
) -> None:
    hook(checkout.root / ".git", "reference-transaction", 'test "$1" = prepared && kill -INT 0; exit 0')
    process = start(checkout, *bump(version, "lily-api", "--commit"))

    _, err = process.communicate()

    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted; run the same command again to complete it"
    assert checkout.git("diff", "--name-only", "origin/cicd", "cicd") == API
    assert checkout.git("status", "--porcelain") == ""


def test_an_interruption_while_the_bytes_are_verified_leaves_everything_as_it_was(
    checkout: Checkout, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gitops.models.store.verify", interrupted)
    before = checkout.state()

    done = checkout.run("bump_model", *bump(version, "lily-api", "--push"))

    assert (done.code, done.out) == (130, "")
    assert done.errors == ["interrupted; run the same command again to complete it"]
    assert checkout.state() == before


def test_a_writer_that_lost_a_race_to_another_app_does_not_render_again(
    checkout: Checkout, version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But does when what it was checked with changed."""
    others = clone(checkout.remote, "others")
    renders: list[str] = []
    rendered, push = kustomize.rendered, Git.push

    def counted(root: Path, folder: str, files: Files | None = None) -> list[Object]:
        renders.append(folder)
        return rendered(root, folder, files)

    monkeypatch.setattr(kustomize, "rendered", counted)

    def overtaken(change: Callable[[], object]) -> int:
        """How many renders a bump takes when `change` gets in between."""
        waiting = [change]

        def late(self: Git, remote: str, commit: str, branch: str) -> None:
            if waiting:
                waiting.pop()()
                renders.clear()
            push(self, remote, commit, branch)

        monkeypatch.setattr(Git, "push", late)
        done = checkout.run("bump_model", "--app", "lily-sklearn", "--env", "dev", "--model-uri", uris.pop(), "--push")
        assert done.code == 0, done.err
        return len(renders)

    made = package(tmp_path / "second", "second")
    assert checkout.run("upload_model", "--model", "lily", "--artifacts", made.folder).code == 0
    uris = [version.uri, made.uri]

    def another_app() -> None:
        others.git("pull", "-q")
        others.replace(API, "mlflow-run: unreleased", "mlflow-run: none")
        others.commit(push=True)

    def a_base() -> None:
        others.git("pull", "-q")
        others.replace("base/inference-service/poddisruptionbudget.yaml", "maxUnavailable: 1", "maxUnavailable: 2")
        others.commit(push=True)

    assert overtaken(another_app) == 0
    assert overtaken(a_base) > 0

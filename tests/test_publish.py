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
from conftest import IMAGE, ROOT, S3, SAMPLE, Checkout, Version, git, hook, package, wait_until

from gitops.manifests import kustomize
from gitops.manifests.closure import Files
from gitops.manifests.objects import Object
from gitops.repo import publish
from gitops.repo.git import Git, GitError

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


def publishing(checkout: Checkout, build: Callable[[str], str | None], *, push: bool = True) -> str | None:
    return publish.publish(Git(checkout.root), build, push=push)


def clone(checkout: Checkout, name: str) -> Checkout:
    """Another clone of the same remote, with cicd checked out."""
    folder = checkout.root.parent / name
    git(folder.parent, "clone", "-q", "-b", "cicd", str(checkout.remote), str(folder))
    return Checkout(folder, checkout.remote)


def files(checkout: Checkout) -> set[str]:
    """The files of the remote's cicd that tests add."""
    return {name for name in git(checkout.remote, "ls-tree", "--name-only", "cicd").split() if name in "abc"}


# Races


def test_another_push_meanwhile_makes_the_change_be_built_again_on_it(plain: Checkout) -> None:
    other = clone(plain, "other")

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
    other = clone(plain, "other")
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
    (plain.remote / "hooks/pre-receive").unlink()
    command = said[-1].split("`")[1]
    plain.git(*command.split()[1:])
    assert plain.git("ls-tree", "--name-only", f"origin/{command.partition('refs/heads/')[2]}", "a") == "a"


def test_a_push_that_landed_though_the_connection_broke_has_landed(plain: Checkout) -> None:
    hook(plain.remote, "post-receive", "kill -9 $PPID")

    commit = publishing(plain, adding(plain, "a"))

    assert commit == plain.tip() == plain.git("rev-parse", "cicd")


@pytest.mark.parametrize("push", [True, False])
def test_branches_that_diverged_are_left_to_a_person(plain: Checkout, push: bool) -> None:
    other = clone(plain, "other")
    publishing(other, adding(other, "b"))
    publishing(plain, adding(plain, "c"), push=False)
    plain.git("fetch", "-q", "origin")
    before = plain.state()

    with pytest.raises(Refused) as refused:
        publishing(plain, adding(plain, "a"), push=push)

    assert refused.value.lines == (
        "branch cicd: the local branch and origin/cicd have diverged; rebase the local one with"
        " `git rebase origin/cicd cicd`, or drop it with `git branch -D cicd`",
    )
    assert plain.state() == before


@pytest.mark.parametrize("new", [False, True], ids=["taken back", "made anew"])
@pytest.mark.parametrize("own", [False, True], ids=["as it was", "with a commit of its own"])
def test_what_was_taken_out_of_the_history_is_not_brought_back(plain: Checkout, *, new: bool, own: bool) -> None:
    other = clone(plain, "other")
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
    other = clone(plain, "other")
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
    other = clone(plain, "other")
    other.write("README.md", "theirs\n")
    other.commit(push=True)
    plain.write("README.md", "mine\n")

    publishing(plain, adding(plain, "a"))

    assert capsys.readouterr().err.startswith("pushed, but the local branch cicd stays behind: git merge: ")


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
    other = clone(checkout, "other")
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
    other = clone(checkout, "other")
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
    other = clone(checkout, "other")
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
    others = clone(checkout, "others")
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

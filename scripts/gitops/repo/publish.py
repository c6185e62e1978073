"""How a change reaches the branch that Argo CD watches: built beside the user's checkout, published by one ref
update, never forced; a writer that loses a race builds its change again on the new tip."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from gitops.cli import say
from gitops.repo import snapshot
from gitops.repo.git import Git, GitError

from contract.errors import Refused

BRANCH = "cicd"
REMOTE = "origin"
# Somebody lands in every round, so a writer among twenty waits some twenty rounds, now and then several times that.
ATTEMPTS = 100
# What servers answer of a ref that another push holds locked at this moment.
_LOCKED = ("cannot lock ref", "failed to lock", "failed to update ref", "incorrect old value")


def tip(git: Git, branch: str = BRANCH) -> str:
    """The commit that this clone knows as the newest of a branch, without asking the remote."""
    local = git.commit(f"refs/heads/{branch}")
    remote = git.commit(f"refs/remotes/{REMOTE}/{branch}")
    if local and remote:
        if git.is_ancestor(local, remote):
            return remote
        if dropped := git.dropped(REMOTE, branch):
            raise Refused(
                f"branch {branch}: the history of {REMOTE}/{branch} was rewritten, and no longer has {dropped[:12]},"
                " which the local branch has; take over what is new there alone with"
                f" `git rebase --onto {REMOTE}/{branch} {dropped[:12]} {branch}`"
            )
        if git.is_ancestor(remote, local):
            return local
        raise Refused(
            f"branch {branch}: the local branch and {REMOTE}/{branch} have diverged;"
            f" rebase the local one with `git rebase {REMOTE}/{branch} {branch}`,"
            f" or drop it with `git branch -D {branch}`"
        )
    if found := local or remote:
        return found
    start = f", or start it with `git branch {BRANCH} main`" if branch == BRANCH else ""
    raise Refused(f"branch {branch}: not in this clone; fetch it with `git fetch {REMOTE} {branch}`{start}")


def require_clean(git: Git, *folders: str) -> None:
    """Refuses when what is deployed has uncommitted changes: they would not be in the commit that is written."""
    git.require_clean(*snapshot.head(git).folders, *folders)


def require_remote(git: Git) -> None:
    if not git.has_remote(REMOTE):
        raise Refused(f"--push: no remote `{REMOTE}`; add one with `git remote add {REMOTE} URL`, or leave --push out")


def base_of_branch(git: Git, *, push: bool) -> str:
    """The tip of the deployed branch, to start a branch for a pull request from. Raises Refused when the pull request
    would carry more than is on its branch."""
    if push:
        require_remote(git)
        git.fetch(REMOTE, BRANCH)
    base = tip(git)
    if push and base != git.commit(f"refs/remotes/{REMOTE}/{BRANCH}"):
        raise Refused(
            f"branch {BRANCH}: has commits that are not at {REMOTE}, a pull request would carry them"
            f" along; push them first with `git push {REMOTE} {BRANCH}`"
        )
    return base


def publish(git: Git, build: Callable[[str], str | None], *, push: bool) -> str | None:
    """Publishes the commit that `build(tip)` makes on the deployed branch, and returns it; None if it made none.

    `build` returns the tip itself when there is nothing to change: what an earlier call committed and did not push is
    pushed then. It returns None for a dry run. It may be called several times, each time with a newer tip. Raises
    Refused when the branch cannot be written.
    """
    if elsewhere := git.checked_out_elsewhere(BRANCH):
        raise Refused(f"branch {BRANCH}: checked out in {elsewhere}; run the command there, with --root {elsewhere}")
    if push:
        require_remote(git)
    said: tuple[str, ...] = ()
    for attempt in range(ATTEMPTS):
        if push:
            git.fetch(REMOTE, BRANCH)
        local, remote = git.commit(f"refs/heads/{BRANCH}"), git.commit(f"refs/remotes/{REMOTE}/{BRANCH}")
        base = tip(git)
        commit = build(base)
        if commit is None or (commit == base and not push):
            return None
        try:
            if not push:
                git.advance(BRANCH, local, commit)
            elif commit != remote:
                git.push(REMOTE, commit, BRANCH)
        except GitError as error:
            now = git.remote_tip(REMOTE, BRANCH) if push else git.commit(f"refs/heads/{BRANCH}")
            if now == (remote if push else local) and not _locked(error):
                raise _refused(error, commit, push) from None
            if now != commit:
                said = error.lines
                time.sleep(random.uniform(0, min(0.05 * 2**attempt, 5)))
                continue
        if push:
            _follow(git, local, commit)
            if commit == base != remote:
                say(f"pushed what {BRANCH} had here before")
        return None if commit == base else commit
    raise Refused(f"branch {BRANCH}: {ATTEMPTS} attempts were overtaken by others; run the command again", *said)


def _locked(error: GitError) -> bool:
    """Whether the server answers that another push was at it; a hook's own words, which may be any, do not count."""
    verdicts = [line for line in error.lines if "! [remote rejected]" in line]
    return any(words in line for line in verdicts for words in _LOCKED)


def _refused(error: GitError, commit: str, push: bool) -> Refused:
    if push:
        return Refused(
            f"{REMOTE}/{BRANCH}: the push was refused although nobody else had pushed:",
            *error.lines,
            f"if {BRANCH} takes pull requests alone, run `git push {REMOTE} {commit}:refs/heads/proposed/{commit[:12]}`"
            " and open one",
        )
    return error


def _follow(git: Git, local: str | None, commit: str) -> None:
    """Moves the local branch, if there is one, to what was pushed: a courtesy, the point was the push."""
    if local in (None, commit):
        return
    try:
        git.advance(BRANCH, local, commit)
    except GitError as error:
        say(f"pushed, but the local branch {BRANCH} stays behind: {error.lines[0]}")

"""How a change reaches the branch that Argo CD watches: built beside the user's checkout, published by one ref
update, never forced; a writer that loses a race builds its change again on the new tip."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from gitops.cli import Refused, say
from gitops.git import Git, GitError

BRANCH = "cicd"
REMOTE = "origin"
DEPLOYED = ("base", "apps", "overlays", "argocd")
ATTEMPTS = 20


def tip(git: Git) -> str:
    """The commit that this clone knows as the newest of the deployed branch, without asking the remote."""
    local = git.commit(f"refs/heads/{BRANCH}")
    remote = git.commit(f"refs/remotes/{REMOTE}/{BRANCH}")
    if local and remote:
        if git.is_ancestor(remote, local):
            return local
        if git.is_ancestor(local, remote):
            return remote
        raise Refused(
            f"branch {BRANCH}: the local branch and {REMOTE}/{BRANCH} have diverged;"
            f" rebase the local one with `git rebase {REMOTE}/{BRANCH} {BRANCH}`,"
            f" or drop it with `git branch -D {BRANCH}`"
        )
    if found := local or remote:
        return found
    raise Refused(
        f"branch {BRANCH}: not in this clone; fetch it with `git fetch {REMOTE} {BRANCH}`,"
        f" or start it with `git branch {BRANCH} main`"
    )


def require_clean(git: Git, *folders: str) -> None:
    """Refuses when what is deployed has uncommitted changes: they would not be in the commit that is written."""
    if changed := git.dirty(*DEPLOYED, *folders):
        raise Refused(
            *[f"{path}: uncommitted change; commit it, or put it away with `git stash`" for path in changed[:10]]
        )


def require_remote(git: Git) -> None:
    if not git.has_remote(REMOTE):
        raise Refused(f"--push: no remote `{REMOTE}`; add one with `git remote add {REMOTE} URL`, or leave --push out")


def publish(git: Git, build: Callable[[str], str | None], *, push: bool) -> str | None:
    """Publishes the commit that `build(tip)` makes on the deployed branch, and returns it; None if it made none.

    `build` may be called several times, each time with a newer tip. Raises Refused when the branch cannot be written.
    """
    if elsewhere := git.checked_out_elsewhere(BRANCH):
        raise Refused(f"branch {BRANCH}: checked out in {elsewhere}; run the command there, with --root {elsewhere}")
    if push:
        require_remote(git)
    for attempt in range(ATTEMPTS):
        if push:
            git.fetch(REMOTE, BRANCH)
        base = tip(git)
        commit = build(base)
        if commit is None:
            return None
        if push:
            try:
                git.push(REMOTE, commit, BRANCH)
            except GitError as error:
                if not _raced(git, base, error):
                    raise Refused(
                        f"{REMOTE}/{BRANCH}: the push was refused although nobody else had pushed:", *error.lines
                    ) from None
                time.sleep(random.uniform(0, min(0.05 * 2**attempt, 5)))
                continue
        _follow(git, commit, pushed=push)
        return commit
    raise Refused(f"{REMOTE}/{BRANCH}: {ATTEMPTS} attempts were overtaken by other pushes; run the command again")


def _raced(git: Git, base: str, error: GitError) -> bool:
    """Whether another push was the reason. Servers word a lost race in many ways, so the branch itself is asked; only
    a ref that another push holds locked at this moment has to be told by its message."""
    locked = ("cannot lock ref", "failed to update ref", "incorrect old value")
    return git.remote_tip(REMOTE, BRANCH) != base or any(words in line for line in error.lines for words in locked)


def _follow(git: Git, commit: str, *, pushed: bool) -> None:
    """Moves the local branch to the published commit. After a push that is a courtesy, before one it is the point."""
    local = git.commit(f"refs/heads/{BRANCH}")
    if pushed and (local is None or not git.is_ancestor(local, commit)):
        return
    try:
        git.advance(BRANCH, local, commit)
    except GitError as error:
        if not pushed:
            raise
        say(f"pushed, but the local branch {BRANCH} stays behind: {error.lines[0]}")

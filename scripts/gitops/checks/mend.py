"""The commands that take back a change which is on the deployed branch and should not be there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from gitops.checks import transitions
from gitops.checks.framework import Finding
from gitops.repo.mainline import MENDED
from gitops.repo.publish import BRANCH, REMOTE

# Here the files of before may not be put back: a release that is held changes only with its hold.
_RELEASES = ("hold", "order", "intermediate", "withdrawn")
_OVERLAY = re.compile(r"overlays/([^/]+)/([^/]+)/")


def commands(base: str, commit: str, found: Iterable[Finding]) -> Iterator[str]:
    """A shell command a fault, for `commit`, which is on the branch, with `base` before it; each ends with a branch for
    a pull request, but for what only a push to the branch itself can mend."""
    for finding in found:
        if finding.rule == transitions.PUSHED:
            yield _put_first(base)
            continue
        overlay = _OVERLAY.match(finding.where) if finding.rule in _RELEASES else None
        yield _roll_back(overlay[1], overlay[2], commit) if overlay else take_back(base, commit)


def _roll_back(environment: str, app: str, commit: str) -> str:
    return (
        f"git fetch {REMOTE} && git checkout -B {BRANCH} {REMOTE}/{BRANCH}"
        f' && python scripts/rollback_model.py --app {app} --env {environment} --reason "take back {commit[:12]}"'
        f" && git push {REMOTE} {BRANCH}:refs/heads/rollback/{environment}/{app}-{commit[:12]}"
    )


def _put_first(base: str) -> str:
    tip = f"{REMOTE}/{BRANCH}"
    return (
        f"git fetch {REMOTE} && git push {REMOTE}"
        f' "$(git commit-tree -p {base} -p {tip} -m "{MENDED}" {tip}^{{tree}})":refs/heads/{BRANCH}'
    )


def take_back(base: str, commit: str) -> str:
    """All files as they were before, on top of the commit, whether that is a merge or not."""
    return (
        f"git fetch {REMOTE} && git checkout --detach {commit}"
        f' && git restore --source={base} --staged --worktree :/ && git commit -m "Take back {commit[:12]}"'
        f" && git push {REMOTE} HEAD:refs/heads/take-back/{commit[:12]}"
    )

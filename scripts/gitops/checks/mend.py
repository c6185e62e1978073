"""The commands that take back a change which is on the deployed branch and should not be there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from gitops.checks import transitions
from gitops.checks.framework import Finding
from gitops.releases import release_file
from gitops.releases.release import Release
from gitops.repo import snapshot
from gitops.repo.git import Git
from gitops.repo.mainline import MENDED
from gitops.repo.publish import BRANCH, REMOTE

# Here the files of before may not be put back: a release that is held changes only with its hold.
_RELEASES = ("hold", "order", "intermediate", "withdrawn")
_OVERLAY = re.compile(r"overlays/([^/]+)/([^/]+)/")


def commands(git: Git, base: str, commit: str, found: Iterable[Finding]) -> Iterator[str]:
    """A shell command a fault, for `commit`, which is on the branch, with `base` before it; each ends with a branch for
    a pull request, but for what only a push to the branch itself can mend."""
    for finding in found:
        if finding.rule == transitions.PUSHED:
            yield _put_first(base)
            continue
        overlay = _OVERLAY.match(finding.where) if finding.rule in _RELEASES else None
        changed = _changed(git, base, commit, overlay[2], overlay[1]) if overlay else []
        yield from [_roll_back(old, commit) for old in changed] or [take_back(base, commit)]


def _changed(git: Git, base: str, commit: str, app: str, environment: str) -> list[Release]:
    """What ran in a place before the commit and was replaced by it."""
    before, after = (release_file.readable(snapshot.at(git, rev).read, app, environment) for rev in (base, commit))
    now = {item.target: item for item in after}
    return [old for old in before if old.released and old.target in now and now[old.target].unit != old.unit]


def _roll_back(old: Release, commit: str) -> str:
    which = f"--app {old.app} --env {old.environment}" + (f" --canary {old.canary}" if old.canary else "")
    what = f"--to {old.version}" + (f" --image {old.image}" if old.image else "")
    return f'python scripts/rollback_model.py {which} {what} --reason "take back {commit[:12]}" --pull-request'


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

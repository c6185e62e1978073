"""The commits that a branch was at, from its tip back: its mainline, as git's options call the parent that was there.

Of a merge that was made on the branch, as a pull request is merged, that is the first parent. Of one that somebody
made on commits of their own, it is another: `git pull` merges what the branch had meanwhile into these, and once that
is pushed, `git log --first-parent` shows what they tried and hides what ran (a "foxtrot merge"). Which commits were the
tip of a branch is recorded nowhere in a clone. Two signs distinguish such a merge from all others:

1. the clone's reflog: another parent was the tip of the remote's branch, and not the first one;
2. the merge's subject: git writes which branch it merged, and what merges the deployed branch into something, and is
   on the way from its tip back, was made beside it. The subject of a merge that GitHub made does not count: whoever
   presses the button may change it, and there the branch is the first parent.

A subject can be left out or made up. So a push is judged from the commit that was there before, which the event
names; a command that writes compares with what it has of the remote; and both put such a merge right with one more, of
the same tree, whose first parent is what the branch was.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass

BRANCH = "cicd"
REMOTE = "origin"
MENDED = f"Put what {BRANCH} was before first"
"""The subject of the merge that puts another right."""
FORGES = ("noreply@github.com",)
# Source of the form: fmt_merge_msg_title in git's fmt-merge-msg.c. GitLab quotes what it merges into, and git does not.
_TITLE = re.compile(r"Merge (?P<what>.+?)(?: into [^' ]+)?")
_KIND = re.compile(r"(remote-tracking branch|branch|tag|commit)(?:es|s)? ('[^']*'(?:(?:, | and )'[^']*')*)")

_NAME = re.compile("'([^']*)'")


@dataclass(frozen=True)
class Merge:
    commit: str
    parents: Sequence[str]
    committer: str
    """The address of whoever made it."""
    subject: str


def parent(merge: Merge, seen: Container[str]) -> str:
    """The parent that was the tip of the branch before; `seen` are commits that the remote's branch has been at."""
    first, *others = merge.parents
    if merge.subject == MENDED:
        return first
    if first not in seen and (known := [commit for commit in others if commit in seen]):
        return known[0]
    names = _merged(merge.subject) if merge.committer not in FORGES else []
    if len(names) == len(others) and names.count(BRANCH) == 1:
        return others[names.index(BRANCH)]
    return first


def _merged(subject: str) -> list[str]:
    """What git's own words name as merged, in the order of the parents, where it can be told; a branch of a remote by
    its own name."""
    title = _TITLE.fullmatch(subject)
    if title is None or " into '" in subject:
        return []
    kinds = _KIND.findall(title["what"])
    # Those of a kind are together, in whatever order the parents are.
    return [_own(kind, name) for kind, listed in kinds for name in _NAME.findall(listed)] if len(kinds) == 1 else []


def _own(kind: str, name: str) -> str:
    if kind == "branch":
        return name
    return name.partition("/")[2] if kind.startswith("remote") else ""

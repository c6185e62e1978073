"""What a newer template brings to a fork.

It is a three-way merge of files: of the old template, the new one and the fork, where both templates have the fork's
values, so that these conflict with nothing. No common history is needed: the commit that the fork started from, or was
updated to last, stands in the file RECORD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from gitops.repo import layout, snapshot, values
from gitops.repo.git import Git
from gitops.repo.policy import POLICY_FILE

from contract.errors import Refused

RECORD = ".template"
REMOTE = "template"
_HEAD = "# Written by init_fork.py and update_template.py: the template's commit in this fork, and the fork's values.\n"
# A folder that means something only as a whole: an app, a shape, a model, an overlay, a part of the platform. Of an
# environment also its files in argocd/.
_UNIT = re.compile(
    r"(?:(?:apps|base|model-src/models|argocd/platform)/[^/]+|argocd/clusters/[^/]+|overlays/[^/]+/[^/]+)(?=/)"
    r"|argocd/(?:applicationset|project|sagemaker)-[^/]+\.yaml"
)
# Where a new one of these is the fork's to make.
_MADE_BY_FORK = (
    "apps/", "overlays/", "model-src/models/", "argocd/applicationset-", "argocd/clusters/",
    "argocd/project-", "argocd/sagemaker-",
)  # fmt: skip
_OWN_FILES = (POLICY_FILE, layout.CODEOWNERS, layout.WITHDRAWN)
_OWN_NAMES = (layout.RELEASE_FILE, "hold.yaml", "retired.yaml")

Tree = Mapping[str, tuple[str, str]]
"""The files of a commit: (mode, id of the blob) by path."""


@dataclass(frozen=True)
class Record:
    """What a fork was made of."""

    commit: str
    """Of the template; after `make init` also one of the fork's own on top of it."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Those that the owner chose, by the names of values.TEMPLATE."""

    @property
    def text(self) -> bytes:
        return (_HEAD + yaml.safe_dump({"commit": self.commit, "values": dict(self.values)}, sort_keys=False)).encode()


def read_record(data: bytes | None) -> Record | None:
    """The content of RECORD; None where there is no such file. Raises Refused for one that is not as it was written."""
    if data is None:
        return None
    try:
        found: Any = yaml.safe_load(data)
        record = Record(found["commit"], {str(name): str(value) for name, value in found["values"].items()})
    except (yaml.YAMLError, AttributeError, TypeError, KeyError):
        record = Record("")
    if record.text != data or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", str(record.commit)):
        raise Refused(f"{RECORD}: not as it was written; take the last good one out of `git log -p -- {RECORD}`")
    return record


# The common commit


def start(git: Git, tip: str, newest: str, given: str | None = None) -> str:
    """The newest commit of the template that a branch of the fork has, by its record or by its history, or else
    `given`. Raises Refused where none of them is in the history of the template's commit `newest`."""
    record = read_record(git.show(tip, RECORD))
    if record and git.commit(record.commit) is None:
        raise Refused(
            f"{RECORD}: commit: {record.commit}: not in this clone; {REMOTE}/main does not have it (any more), so name"
            f" there the newest commit of {REMOTE}/main that this fork has"
        )
    known = [record.commit, tip] if record else [tip]
    bases = [base for rev in known if (base := git.merge_base(rev, newest))]
    whole = [base for base in bases if all(git.is_ancestor(other, base) for other in bases)]
    found = next(iter(whole or bases), None) or _same_files(git, known, newest) or given
    if found is None:
        raise Refused(
            f"{RECORD}: missing in {tip[:12]}, which has no commit of {REMOTE}/main either; name the newest one that"
            " this fork has with --base COMMIT"
        )
    if not git.is_ancestor(found, newest):
        raise Refused(f"--base {found}: not in the history of {REMOTE}/main; name the newest one that this fork has")
    return found


def _same_files(git: Git, revs: list[str], newest: str) -> str | None:
    """The commit of the template whose files are those of one of these commits, or of the first commits before them: a
    repository that was made as a copy has none of the template's history."""
    first = git.text("rev-list", "--max-parents=0", *revs).split()
    trees = {git.tree(rev) for rev in (*revs, *first)}
    listed = (line.split() for line in git.text("log", "--format=%H %T", newest).splitlines())
    return next((commit for commit, tree in listed if tree in trees), None)


# The two sides


def fork_values(git: Git, tip: str) -> dict[str, str]:
    """The fork's values, as its files have them, or else as they were given to `make init`."""
    tree = snapshot.at(git, tip)
    record = read_record(git.show(tip, RECORD))
    found = dict(record.values if record else {}) | values.found(tree)
    return found | ({"owners": own} if (own := values.owners(tree)) else {})


def templates_values(git: Git, commit: str) -> dict[str, str]:
    return values.TEMPLATE | values.found(snapshot.at(git, commit))


def tree_of(git: Git, commit: str) -> dict[str, tuple[str, str]]:
    return {path: (mode, blob) for mode, blob, path in git.entries(commit)}


def valued(git: Git, commit: str, current: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The files of a commit of the template, with wanted values in the place of its own."""
    tree = tree_of(git, commit)
    owned = {path: blob for path, (mode, blob) in tree.items() if layout.owned_by_fork(path) and mode != "120000"}
    texts, replaced = git.blobs(owned.values()), values.replacing(current, wanted)
    new = {path: data for path, blob in owned.items() if (data := replaced(texts[blob])) != texts[blob]}
    blobs = zip(new, git.written(new.values()), strict=True)
    return tree | {path: (tree[path][0], blob) for path, blob in blobs}


def sides(
    old: Tree, new: Tree, fork: Tree, renamed: Mapping[str, str], own: tuple[str, ...] = ()
) -> tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]]:
    """What is common to the fork and the old template, and what the new one makes of that.

    What the fork has deleted is in neither, so it stays deleted; `renamed` has the old path of what the template
    renamed. An app, a model, a shape or the like that the template deleted stays, and a new app, model or environment
    of the template does not come. Releases, the policy and what lies below `own` change in no way.
    """
    units = {_unit(path) for path in new}
    base = {path: entry for path, entry in old.items() if path in fork}
    stays = {path for path in base if _is_own(path, own) or (layout.owned_by_fork(path) and _unit(path) not in units)}
    theirs = {
        path: entry
        for path, entry in new.items()
        if not _is_own(path, own) and _comes(path, renamed.get(path, path), old, fork)
    }
    return base, theirs | {path: base[path] for path in stays}


def _is_own(path: str, own: tuple[str, ...]) -> bool:
    name = path.rpartition("/")[2]
    return path in _OWN_FILES or path.startswith(own) or (path.startswith("overlays/") and name in _OWN_NAMES)


def _comes(path: str, source: str, old: Tree, fork: Tree) -> bool:
    """Whether a file of the new template is for this fork."""
    if source in old and source not in fork:
        return False
    if path in old or not layout.owned_by_fork(path):
        return True
    unit = _unit(path)
    if _has(old, unit):
        return _has(fork, unit)
    return not path.startswith(_MADE_BY_FORK)


def _unit(path: str) -> str:
    found = _UNIT.match(path)
    return found[0] if found else path.rpartition("/")[0]


def _has(tree: Tree, unit: str) -> bool:
    return unit in tree or any(path.startswith(f"{unit}/") for path in tree)


def left_out(old: Tree, new: Tree, fork: Tree) -> list[str]:
    """What the template changed and the fork has, of which an update brings nothing: releases and the policy."""
    return sorted(path for path in old.keys() & fork.keys() if _is_own(path, ()) and new.get(path) != old[path])


# The merge


@dataclass(frozen=True)
class Update:
    """The step from one commit of the template to another, for one commit of the fork."""

    tree: str
    """Of the merge; with conflicts it has their markers."""
    conflicts: Mapping[str, set[int]]
    """The files that conflict, with the stages that `Git.merged` gives."""
    change: str
    """A commit whose change of its parent is the update: the fork's own branch can pick it."""
    left_out: list[str]


def merge(git: Git, tip: str, old: str, new: str, message: str, own: tuple[str, ...] = ()) -> Update:
    """What the commit `tip` becomes when the template goes from `old` to `new`; what lies below `own` stays."""
    fork, record = tree_of(git, tip), read_record(git.show(tip, RECORD))
    current, wanted = templates_values(git, old), fork_values(git, tip)
    before, after = (valued(git, commit, current, wanted) for commit in (old, new))
    base, theirs = sides(before, after, fork, git.renamed(old, new), own)
    chosen = record.values if record else {name: value for name, value in wanted.items() if value != current.get(name)}
    [written] = git.written([Record(new, chosen).text])
    base |= {RECORD: fork[RECORD]} if RECORD in fork else {}
    theirs[RECORD] = ("100644", written)
    common = git.draft(git.tree_of(base), None, "The template before\n")
    change = git.draft(git.tree_of(theirs), common, message)
    ours = git.draft(git.tree(tip), common, "The fork\n")
    tree, conflicts = git.merged(ours, change)
    return Update(tree, conflicts, change, left_out(before, after, fork))

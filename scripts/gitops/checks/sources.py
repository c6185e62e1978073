"""Whether the files of a checkout are those that its commit has, for whoever reads them: this program, Git's history
and Argo CD, which checks out the branch by itself. Asked before any of them is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from gitops.checks.framework import Finding
from gitops.manifests import closure
from gitops.repo.git import Git
from gitops.repo.layout import CODEOWNERS, DEPLOYED
from gitops.repo.policy import POLICY_FILE, Policy

from contract.errors import Refused

RULE = "sources"
# By gitattributes(5), what makes the bytes of a checkout others than those of the commit.
_CONVERTING = ("filter", "ident", "working-tree-encoding", "eol=crlf")


def require(root: Path, git: Git | None = None) -> None:
    """Raises Refused, a line a fault; the submodules are known only of a git repository."""
    found = [*_links(root), *_attributes(root), *_submodules(root, git)]
    if found:
        raise Refused(*map(str, found))


def require_deployed(root: Path, policy: Policy, folders: Iterable[str]) -> None:
    """Raises Refused for what a render or the policy names beside the folders that are looked at and compared with
    what was there before."""
    read = {name: folder for folder in folders for name in closure.closure(root, folder)}
    outside = {name: folder for name, folder in read.items() if name.partition("/")[0] not in DEPLOYED}
    found = [
        Finding(RULE, folder, f"reads {name}, which is in none of {', '.join(DEPLOYED)}; put a copy into one of them")
        for name, folder in sorted(outside.items())
    ]
    found += _key(root, policy)
    if found:
        raise Refused(*map(str, found))


def _key(root: Path, policy: Policy) -> Iterator[Finding]:
    path = policy.signing.public_key if policy.signing else ""
    if (root / path).resolve() != root.resolve() / path:
        yield Finding(RULE, path, "reached by a symbolic link; put a file in its place")


def _links(root: Path) -> Iterator[Finding]:
    """A link is read here as what it leads to, and in the history as its own few bytes."""
    for name in (*DEPLOYED, POLICY_FILE, CODEOWNERS):
        for path in (root / name, *(root / name).rglob("*")):
            if path.is_symlink():
                where = path.relative_to(root).as_posix()
                yield Finding(RULE, where, f"a symbolic link to {path.readlink()}; put a file in its place")


def _attributes(root: Path) -> Iterator[Finding]:
    files = [root / ".gitattributes", *(file for name in DEPLOYED for file in (root / name).rglob(".gitattributes"))]
    for file in files:
        text = file.read_text(errors="surrogateescape") if file.is_file() else ""
        for number, line in enumerate(text.splitlines(), 1):
            pattern, *attributes = line.split() or [""]
            elsewhere = file.parent == root and _elsewhere(pattern)
            wrong = [word for word in attributes if _converts(word)]
            if wrong and not elsewhere and not pattern.startswith("#"):
                where = file.relative_to(root).as_posix()
                yield Finding(
                    RULE,
                    where,
                    f"line {number}: {wrong[0]}: what is deployed would be another file than the one that is committed;"
                    f" take it out, or name a folder outside {', '.join(DEPLOYED)} before the pattern",
                )


def _converts(word: str) -> bool:
    return any(word == name or word.startswith(f"{name}=") for name in _CONVERTING)


def _elsewhere(pattern: str) -> bool:
    """Whether a pattern of the top folder names a folder in which nothing is deployed."""
    first, slash, _ = pattern.removeprefix("/").partition("/")
    plain = not set('*?[\\"') & set(first)
    return bool(first and slash) and plain and first not in DEPLOYED


def _submodules(root: Path, git: Git | None) -> Iterator[Finding]:
    """Argo CD fetches them too, and nothing of them is here to be checked."""
    found = [".gitmodules"] if (root / ".gitmodules").exists() or (root / ".gitmodules").is_symlink() else []
    for where in [*found, *(git.submodules() if git else [])]:
        yield Finding(RULE, where, "a submodule; commit the files themselves")

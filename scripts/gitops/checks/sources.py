"""Whether the files of a checkout are those that its commit has, for whoever reads them: this program, Git's history
and Argo CD, which checks out the branch by itself. Asked before any of them is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from gitops.checks.framework import Finding
from gitops.manifests import kinds
from gitops.repo.git import Git
from gitops.repo.layout import CODEOWNERS, DEPLOYED, may_be_deployed
from gitops.repo.policy import POLICY_FILE, Policy
from gitops.repo.snapshot import OnDisk

from contract.errors import Refused

RULE = "sources"
# By gitattributes(5), what makes the bytes of a checkout others than those of the commit.
_CONVERTING = ("filter", "ident", "working-tree-encoding", "eol=crlf")


def require(files: OnDisk, git: Git | None = None) -> None:
    """Raises Refused, a line a fault; the submodules are known only of a git repository."""
    root = Path(files.root)
    found = [*_links(root, files), *_attributes(root, files), *_submodules(root, git)]
    if found:
        raise Refused(*map(str, found))


def require_deployed(files: OnDisk, policy: Policy, reads: Mapping[str, Collection[str]]) -> None:
    """Raises Refused for what a render, by the files that it reads, or the policy names beside the folders that are
    looked at and compared with what was there before."""
    read = {name: folder for folder, names in reads.items() for name in names}
    outside = {name: folder for name, folder in read.items() if name.partition("/")[0] not in files.folders}
    found = [
        Finding(RULE, folder, f"reads {name}, {_why(name)}; put a copy into {DEPLOYED[0]}/")
        for name, folder in sorted(outside.items())
    ]
    found += _key(Path(files.root), policy)
    if found:
        raise Refused(*map(str, found))


def _why(name: str) -> str:
    if not may_be_deployed(name.partition("/")[0]) or "/" not in name:
        return "which is no manifest of this repository's"
    return "by a path that is not written as ../FOLDER from the folder that names it, as all others can be found"


def _key(root: Path, policy: Policy) -> Iterator[Finding]:
    path = policy.signing.public_key if policy.signing else ""
    if (root / path).resolve() != root.resolve() / path:
        yield Finding(RULE, path, "reached by a symbolic link; put a file in its place")


def _links(root: Path, files: OnDisk) -> Iterator[Finding]:
    """A link is read here as what it leads to, and in the history as its own few bytes."""
    for where in dict.fromkeys((*files.links, POLICY_FILE, CODEOWNERS)):
        if (root / where).is_symlink():
            yield Finding(RULE, where, f"a symbolic link to {(root / where).readlink()}; put a file in its place")


def _attributes(root: Path, files: OnDisk) -> Iterator[Finding]:
    there = [root / path for path in files.files if path.endswith("/.gitattributes")]
    there.append(root / kinds.FOLDER / ".gitattributes")
    for file in (root / ".gitattributes", *there):
        text = file.read_text(errors="surrogateescape") if file.is_file() else ""
        for number, line in enumerate(text.splitlines(), 1):
            pattern, *attributes = line.split() or [""]
            elsewhere = file.parent == root and _elsewhere(pattern, files.folders)
            wrong = [word for word in attributes if _converts(word)]
            if wrong and not elsewhere and not pattern.startswith("#"):
                where = file.relative_to(root).as_posix()
                yield Finding(
                    RULE,
                    where,
                    f"line {number}: {wrong[0]}: what is deployed would be another file than the one that is committed;"
                    f" take it out, or name a folder outside {', '.join(files.folders)} before the pattern",
                )


def _converts(word: str) -> bool:
    return any(word == name or word.startswith(f"{name}=") for name in _CONVERTING)


def _elsewhere(pattern: str, folders: Collection[str]) -> bool:
    """Whether a pattern of the top folder names a folder in which nothing is deployed."""
    first, slash, _ = pattern.removeprefix("/").partition("/")
    plain = not set('*?[\\"') & set(first)
    return bool(first and slash) and plain and first not in (*folders, kinds.FOLDER)


def _submodules(root: Path, git: Git | None) -> Iterator[Finding]:
    """Argo CD fetches them too, and nothing of them is here to be checked."""
    found = [".gitmodules"] if (root / ".gitmodules").exists() or (root / ".gitmodules").is_symlink() else []
    for where in [*found, *(git.submodules() if git else [])]:
        yield Finding(RULE, where, "a submodule; commit the files themselves")

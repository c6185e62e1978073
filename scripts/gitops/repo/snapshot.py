"""The files of the repository at a commit, or as they are in the working tree."""

# As in closure.py.
# ruff: noqa: PTH112, PTH113, PTH119, PTH120

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from gitops.manifests import closure
from gitops.manifests.objects import KUSTOMIZATION
from gitops.repo import policy
from gitops.repo.git import ID, Git
from gitops.repo.layout import DEPLOYED, may_be_deployed
from gitops.repo.policy import POLICY_FILE, Policy

from contract import temporary
from contract.errors import Refused


def _led_to(
    candidates: Iterable[str], mentioning: Callable[[list[bytes], Sequence[str]], Iterable[bytes]]
) -> list[str]:
    """What is deployed: the folders of DEPLOYED, and those at the top to which a file in them leads, by `../NAME`, or
    one in those. `mentioning(words, folders)` gives the bytes of the files there that have one of the words.

    A path that is written in another way leads nowhere: the rule `sources` refuses what a render reads beside these.
    """
    found, new, left = list(DEPLOYED), list(DEPLOYED), set(filter(may_be_deployed, candidates))
    while new and left:
        named = {name: re.compile(rb"\.\./" + re.escape(os.fsencode(name)) + rb"(?![\w.-])") for name in left}
        texts = list(mentioning([b"../" + os.fsencode(name) for name in left], new))
        new = sorted(name for name, path in named.items() if any(path.search(text) for text in texts))
        left -= set(new)
        found += new
    return found


def folders(root: Path) -> list[str]:
    """The folders at the top of a working tree that are deployed."""
    with os.scandir(root) as entries:
        beside = [entry.name for entry in entries if entry.is_dir() and may_be_deployed(entry.name)]

    def mentioning(words: list[bytes], places: Sequence[str]) -> Iterator[bytes]:
        for file in (file for place in places for file in (root / place).rglob("*.y*ml") if file.is_file()):
            text = file.read_bytes()
            if any(word in text for word in words):
                yield text

    return _led_to(beside, mentioning)


@dataclass(frozen=True)
class Snapshot:
    """A folder as it is, or with a repository and a revision, what that has."""

    root: Path
    git: Git | None = None
    rev: str | None = None

    def read(self, path: str) -> bytes | None:
        """The bytes of a file, at a commit without any conversion; None if there is no such file."""
        if self.git and self.rev:
            return self.git.show(self.rev, path)
        return (self.root / path).read_bytes() if (self.root / path).is_file() else None

    def files(self, *folders: str) -> list[str]:
        """The files below these folders, sorted."""
        if self.git and self.rev:
            return sorted(self.git.files(self.rev, *folders))
        found = [file for folder in folders for file in (self.root / folder).rglob("*") if file.is_file()]
        return sorted(file.relative_to(self.root).as_posix() for file in found)

    def mentioning(self, words: Sequence[bytes], *folders: str) -> list[str]:
        """The files below these folders whose bytes have one of the words."""
        if not words:
            return []
        if self.git and self.rev:
            return self.git.mentioning(self.rev, words, *folders)
        return [path for path in self.files(*folders) if any(word in (self.root / path).read_bytes() for word in words)]

    @cached_property
    def policy(self) -> Policy:
        """Raises Refused with one line per fault of the file."""
        return policy.parse_policy(self.read(POLICY_FILE))

    @cached_property
    def commit(self) -> InCommit | None:
        """What is deployed, for closures without a copy; None for a working tree, and where there are links."""
        found = InCommit(self.git, self.rev, self.folders) if self.git and self.rev else None
        return None if found is None or found.links else found

    @cached_property
    def folders(self) -> list[str]:
        """The folders at the top that are deployed."""
        return _folders_of(self.git, self.rev) if self.git and self.rev else folders(self.root)

    def deployed(self) -> Collection[str]:
        """The paths of all files of what is deployed."""
        if self.commit:
            return self.commit.files
        return set(self.files(*self.folders)) if self.rev else set(OnDisk(self.root).regular())

    @contextmanager
    def copied(self, folders: Iterable[str]) -> Iterator[Path]:
        """A throw-away copy of what the renders of these folders read, or of more."""
        with temporary.folder("model-gitops-tree-") as tree:
            if self._copy(folders, tree):
                yield tree
                return
        with self.exported() as whole:
            yield whole

    def _copy(self, folders: Iterable[str], tree: Path) -> bool:
        """Whether it could be told what these renders read, and was copied."""
        there = self.commit or (None if self.rev else self.root.resolve())
        if there is None:
            return False
        try:
            read = sorted(set().union(*(closure.closure(there, folder) for folder in folders)))
        except Refused:
            return False
        if isinstance(there, InCommit):
            there.write(tree, read)
            return True
        if any(path.resolve() != path for path in (there / name for name in read)):
            return False
        for name in read:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there / name, tree / name)
        return True

    @contextmanager
    def exported(self) -> Iterator[Path]:
        """A throw-away copy of what is deployed."""
        with temporary.folder("model-gitops-tree-") as tree:
            if self.git and self.rev:
                self.git.export(self.rev, tree, *self.folders)
            else:
                for name in self.folders:
                    if (self.root / name).is_dir():
                        shutil.copytree(self.root / name, tree / name, symlinks=True)
            yield tree


class OnDisk:
    """The files of a folder, of which those that are deployed are listed once, and each is read once."""

    def __init__(self, root: Path) -> None:
        self.root = str(root.resolve())
        self.files: list[str] = []
        """The paths, in the repository, of all that is deployed and no folder, as `git ls-files` lists it."""
        self.links: list[str] = []
        self.steps: dict[str, closure.Step | None] = {}
        self._files, self._folders = set[str](), set[str]()
        self._read: dict[str, bytes] = {}
        self.folders = folders(root)
        """Those at the top that are deployed."""
        for name in self.folders:
            if (root / name).is_symlink():
                self.links.append(name)
            elif (root / name).is_dir():
                self._list(f"{self.root}/{name}", name)
            elif (root / name).exists():
                self.files.append(name)

    def _list(self, folder: str, name: str) -> None:
        self._folders.add(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                path = f"{name}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    self._list(entry.path, path)
                    continue
                self.files.append(path)
                if entry.is_symlink():
                    self.links.append(path)
                elif entry.is_file():
                    self._files.add(entry.path)

    def regular(self) -> Collection[str]:
        """Those of `files` that have bytes, links to such included."""
        if not self.links:
            return [path[len(self.root) + 1 :] for path in self._files]
        return [path for path in self.files if os.path.isfile(f"{self.root}/{path}")]

    def _is_listed(self, path: str) -> bool:
        return not self.links and path[len(self.root) + 1 :].partition("/")[0] in self.folders

    def isfile(self, path: str) -> bool:
        return path in self._files if self._is_listed(path) else os.path.isfile(path)

    def isdir(self, path: str) -> bool:
        return path in self._folders if self._is_listed(path) else os.path.isdir(path)

    def realpath(self, path: str) -> str:
        return path if self._is_listed(path) else os.path.realpath(path)

    def read(self, path: str) -> bytes:
        if path not in self._read:
            self._read[path] = Path(path).read_bytes()
        return self._read[path]


def _folders_of(git: Git, rev: str) -> list[str]:
    def mentioning(words: list[bytes], places: Sequence[str]) -> Iterator[bytes]:
        paths = git.mentioning(rev, words, *places)
        yield from (text for text in git.show_all([f"{rev}:{path}" for path in paths]) if text is not None)

    return _led_to(git.folders(rev), mentioning)


# Reading that many folders takes as long as reading all.
_MANY = 20


class InCommit:
    """The deployed files of a commit, those of a folder read together when the first of them is."""

    root = "/commit"

    def __init__(self, git: Git, rev: str, folders: list[str]) -> None:
        self._git, self._rev = git, rev
        self.steps: dict[str, closure.Step | None] = {}
        self.folders = folders
        """Those at the top that are deployed."""
        entries = git.entries(rev, *self.folders)
        self.links = any(mode == "120000" for mode, _, _ in entries)
        self._ids = {f"{self.root}/{path}": blob for _, blob, path in entries}
        self._folders: dict[str, list[str]] = {self.root: []}
        for path in self._ids:
            self._folders.setdefault(os.path.dirname(path), []).append(path)
        for folder in list(self._folders):
            while (folder := os.path.dirname(folder)) not in self._folders:
                self._folders[folder] = []
        self._read: dict[str, bytes] = {}
        self._asked = 0
        self._mentioning: dict[tuple[bytes, ...], dict[str, bytes]] = {}

    @cached_property
    def files(self) -> set[str]:
        """Their paths in the repository."""
        return {path.removeprefix(f"{self.root}/") for path in self._ids}

    def isfile(self, path: str) -> bool:
        return path in self._ids

    def isdir(self, path: str) -> bool:
        return path in self._folders

    def realpath(self, path: str) -> str:
        return path

    def read(self, path: str) -> bytes:
        if path not in self._read:
            if not self._read:
                # Better all at once than those of each folder.
                self._git.fetch_missing(self._ids.values())
            self._asked += 1
            if self._asked > _MANY:
                self.read_all()
                return self._read[path]
            beside = self._folders[os.path.dirname(path)]
            blobs = self._git.blobs(self._ids[name] for name in beside)
            self._read |= {name: blobs[self._ids[name]] for name in beside}
        return self._read[path]

    def read_all(self) -> None:
        """Reads what has not been read, by one process."""
        blobs = self._git.blobs(self._ids.values())
        self._read = {path: blobs[blob] for path, blob in self._ids.items()}

    def get(self, path: str) -> bytes | None:
        """The bytes of a file by its path in the repository, if any."""
        return self.read(f"{self.root}/{path}") if path in self.files else None

    def write(self, tree: Path, files: Iterable[str]) -> None:
        """Writes files into `tree`, where they are not there."""
        for path in files:
            if not (tree / path).exists():
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_bytes(self.read(f"{self.root}/{path}"))

    @cached_property
    def kustomizations(self) -> list[str]:
        return [path for path in self.files if os.path.basename(path) == KUSTOMIZATION]

    def mentioning(self, words: Sequence[bytes]) -> dict[str, bytes]:
        if (asked := tuple(words)) not in self._mentioning:
            paths = self._git.mentioning(self._rev, words, *self.folders)
            blobs = self._git.blobs(self._ids[f"{self.root}/{path}"] for path in paths)
            self._mentioning[asked] = {path: blobs[self._ids[f"{self.root}/{path}"]] for path in paths}
        return self._mentioning[asked]


def at(git: Git, rev: str | None) -> Snapshot:
    """The files of a commit, or (None) of the working tree."""
    return _commit(git, rev) if rev and ID.fullmatch(rev) else Snapshot(git.root, git, rev)


def head(git: Git) -> Snapshot:
    """The commit that is checked out. While the working tree is as it has it, both deploy the same folders."""
    return at(git, git.commit("HEAD"))


@lru_cache(maxsize=8)
def _commit(git: Git, commit: str) -> Snapshot:
    # It is asked for again and again, and what it lists and reads stays as it is.
    return Snapshot(git.root, git, commit)

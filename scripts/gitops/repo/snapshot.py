"""The files of the repository at a commit, or as they are in the working tree."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gitops.repo import policy
from gitops.repo.git import Git
from gitops.repo.layout import DEPLOYED
from gitops.repo.policy import POLICY_FILE, Policy

from contract import temporary


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

    @cached_property
    def policy(self) -> Policy:
        """Raises Refused with one line per fault of the file."""
        return policy.parse_policy(self.read(POLICY_FILE))

    @contextmanager
    def exported(self) -> Iterator[Path]:
        """A throw-away copy of what is deployed."""
        with temporary.folder("model-gitops-tree-") as tree:
            if self.git and self.rev:
                self.git.export(self.rev, tree, *DEPLOYED)
            else:
                for name in DEPLOYED:
                    if (self.root / name).is_dir():
                        shutil.copytree(self.root / name, tree / name, symlinks=True)
            yield tree


def at(git: Git, rev: str | None) -> Snapshot:
    """The files of a commit, or (None) of the working tree."""
    return Snapshot(git.root, git, rev)

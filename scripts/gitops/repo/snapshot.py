"""What is deployed at a commit, or in the working tree."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gitops.repo.git import Git
from gitops.repo.layout import DEPLOYED


@contextmanager
def tree_of(git: Git, rev: str | None) -> Iterator[Path]:
    """A throw-away copy of what is deployed, from a commit or (None) from the working tree."""
    with tempfile.TemporaryDirectory(prefix="gitops-tree-") as folder:
        tree = Path(folder)
        if rev:
            git.export(rev, tree, *DEPLOYED)
        else:
            for name in DEPLOYED:
                if (git.root / name).is_dir():
                    shutil.copytree(git.root / name, tree / name, symlinks=True)
        yield tree

"""Temporary folders and files that the next command removes when their process was killed.

Whoever uses one holds a lock (flock(2)) on it, which ends with the process however that ends. What can be locked is
therefore dead; a process's number would not tell, as numbers come again and containers share folders.

What is to take the place of a target is made beside it, as `.<target>.writing-XXXXXXXX`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# What tempfile.mkdtemp puts behind a prefix.
_RANDOM = re.compile(r"[a-z0-9_]{8}")
_MARK = ".writing-"
_SIBLING = re.compile(rf"\.(?P<target>.+){re.escape(_MARK)}{_RANDOM.pattern}", re.S)
OLD = "old"
"""The name of the target in a sibling_folder() while the new one takes its place."""


@contextlib.contextmanager
def folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder in `parent` (default: $TMPDIR), removed at the end; what killed processes left with this prefix is
    removed before. Raises OSError if none can be made."""
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    sweep(prefix, parent)
    made, lock = _locked(prefix, parent)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def sweep(prefix: str, parent: Path) -> None:
    """Removes this user's folders `<prefix>XXXXXXXX` that no process holds. No link is followed."""
    with contextlib.suppress(OSError):
        for found in parent.iterdir():
            if found.name.startswith(prefix) and _RANDOM.fullmatch(found.name.removeprefix(prefix)):
                _remove_dead(found)


@contextlib.contextmanager
def sibling_folder(target: Path) -> Iterator[Path]:
    """As folder(), beside a target. What is in it as OLD comes back as the target when the process is killed while
    there is none."""
    sweep_siblings(target.parent)
    with folder(f".{target.name}{_MARK}", target.parent) as made:
        yield made


def sibling_file(target: Path) -> IO[bytes]:
    """A new file beside a target, for its owner alone. It is the caller's to give it the target's name or to remove it,
    both before it is closed: then the next command may remove it. Raises OSError if none can be made."""
    sweep_siblings(target.parent)
    while True:
        made = tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}{_MARK}", delete=False)  # noqa: SIM115
        fcntl.flock(made.fileno(), fcntl.LOCK_EX)
        # As in _locked().
        if Path(made.name).exists():
            return made
        made.close()


def sweep_siblings(parent: Path) -> None:
    """Removes what killed processes of this user left beside targets in a folder."""
    with contextlib.suppress(OSError):
        for found in parent.iterdir():
            sweep_sibling(found)


def sweep_sibling(found: Path) -> None:
    """Removes it, if it is what a killed process of this user left beside a target."""
    if _SIBLING.fullmatch(found.name):
        _remove_dead(found)


def _remove_dead(found: Path) -> None:
    """Removes a folder, and beside a target also a file, that is this user's and that no process holds."""
    beside = _SIBLING.fullmatch(found.name)
    with contextlib.suppress(OSError):
        # A pipe would wait for its writer.
        lock = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(lock)
            if status.st_uid != os.geteuid():
                return
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISDIR(status.st_mode):
                if beside and not (target := found.with_name(beside["target"])).exists():
                    with contextlib.suppress(FileNotFoundError):
                        (found / OLD).rename(target)
                shutil.rmtree(found, ignore_errors=True)
            elif beside and stat.S_ISREG(status.st_mode):
                found.unlink()
        finally:
            os.close(lock)


def _locked(prefix: str, parent: Path) -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        # Another process may take it for dead before it is locked, and then it is gone.
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if made.is_dir():
                return made, lock
            os.close(lock)

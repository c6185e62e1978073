"""Temporary folders that the next command removes when their process was killed.

Whoever uses a folder holds a lock (flock(2)) on it, which ends with the process however that ends. A folder that can be
locked is therefore dead; a process's number would not tell, as numbers come again and containers share folders.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# What tempfile.mkdtemp puts behind a prefix.
_RANDOM = re.compile(r"[a-z0-9_]{8}")


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


def _remove_dead(found: Path) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(found, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(found, ignore_errors=True)
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

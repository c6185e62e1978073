"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from contract import temporary


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a sibling and renames it, so that a reader sees the old file or the new one. Makes missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.sibling_file(path) as sibling:
        try:
            sibling.write(content)
            sibling.flush()
            share(sibling)
            Path(sibling.name).replace(path)
        except BaseException:
            Path(sibling.name).unlink()
            raise


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends well, and is removed when it does not.

    A folder cannot be renamed over another, so the old one is first renamed aside: when the process is killed between
    the two renames, the next one brings it back.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary.sibling_folder(target) as holder:
        new, old = holder / "new", holder / temporary.OLD
        new.mkdir()
        yield new
        try:
            if target.exists():
                target.rename(old)
            new.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise


def share(file: IO[bytes]) -> None:
    """Gives a temporary file, which is the owner's alone, the rights that open() would have given it."""
    # The mask can only be read by setting it.
    umask = os.umask(0o022)
    os.umask(umask)
    os.fchmod(file.fileno(), 0o666 & ~umask)

"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a sibling and renames it, so that a reader sees the old file or the new one. Makes missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as sibling:
        try:
            sibling.write(content)
            share(sibling)
            sibling.close()
            Path(sibling.name).replace(path)
        except BaseException:
            Path(sibling.name).unlink()
            raise


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends well, and is removed when it does not.

    A folder cannot be renamed over another, so the old one is first renamed aside: a process killed between the two
    renames leaves both complete, beside the target in `.<name>.*/`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    new, old = holder / "new", holder / "old"
    try:
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
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def share(file: IO[bytes]) -> None:
    """Gives a temporary file, which is the owner's alone, the rights that open() would have given it."""
    # The mask can only be read by setting it.
    umask = os.umask(0o022)
    os.umask(umask)
    os.fchmod(file.fileno(), 0o666 & ~umask)

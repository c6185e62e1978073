"""Fails what looks at those files of this checkout that a fork owns: no test of the engine may depend on them.

Every Python process that a test starts has it too, by PYTHONPATH. Of other programs the arguments are looked at.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

OWNED, SHIPPED = "TESTS_OWNED_BY_FORK", "TESTS_SHIPPED_BY_ENGINE"
_lifted = False


def variables(root: Path, owned: Sequence[str], shipped: Sequence[str]) -> dict[str, str]:
    """The environment of processes that look at nothing in the folders `owned` of `root` but `shipped`."""
    return {
        "PYTHONPATH": str(Path(__file__).parent),
        OWNED: os.pathsep.join(str(root / path) + "/" for path in owned),
        SHIPPED: os.pathsep.join(str(root / path) for path in shipped),
    }


def unguarded() -> dict[str, str]:
    """The environment for a process that may look at everything."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", OWNED, SHIPPED)}


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """For the tests that judge what a fork owns, in this process."""
    global _lifted
    _lifted = True
    try:
        yield
    finally:
        _lifted = False


def install(env: dict[str, str]) -> None:
    """From now on, and for good, as an audit hook cannot be removed."""
    owned, shipped = tuple(env[OWNED].split(os.pathsep)), tuple(env[SHIPPED].split(os.pathsep))

    def look(path: Any, folder: Any = None) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        with contextlib.suppress(FileNotFoundError):  # the working directory is gone
            full = os.path.abspath(os.path.join(os.fsdecode(folder or "."), os.fsdecode(path))) + "/"  # noqa: PTH100, PTH118
            if full.startswith(owned) and not full.startswith(shipped):
                raise AssertionError(f"{full.rstrip('/')}: a fork owns it, and a test of the engine looks at it")

    def absolute(path: Any) -> bool:
        return isinstance(path, (str, bytes, os.PathLike)) and os.path.isabs(path)  # noqa: PTH117

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir"):
            # A name that os.open() gets may be relative to another folder's descriptor, which no event tells.
            by_descriptor = event == "open" and args[1] is None and not absolute(args[0])
            if not _lifted and not by_descriptor:
                look(args[0])
        elif event == "subprocess.Popen" and not _lifted:
            _, command, folder, _ = args
            look(folder or ".")
            for word in [command] if isinstance(command, (str, bytes)) else command:
                look(word, folder)

    sys.addaudithook(hook)

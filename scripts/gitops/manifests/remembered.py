"""What was made of sources before, kept outside the checkout under the SHA-256 of all that decides it.

Each entry has a SHA-256 of its own as well: what is half written, altered or another entry's is as good as not there.
So is a file that is no database, or that cannot be written. Whoever can write it can write the programs beside it too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gitops.programs import tools

T = TypeVar("T")
KEPT = 30_000
"""The entries that are kept, of which those of a fleet of a thousand apps are one in ten."""
_AT_ONCE = 500
_TABLE = "CREATE TABLE IF NOT EXISTS kept (number INTEGER PRIMARY KEY, name TEXT UNIQUE, sum TEXT, text TEXT)"


def file() -> Path:
    """$MODEL_GITOPS_RENDERS if it is set, else beside the programs that were built."""
    return Path(os.environ.get("MODEL_GITOPS_RENDERS") or tools.cache() / "renders.sqlite")


def get(names: Sequence[str]) -> dict[str, Any]:
    """Those of the entries that are there, by their names, which are SHA-256s in hex digits."""

    def read(database: sqlite3.Connection) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            asked = f"SELECT name, sum, text FROM kept WHERE name IN ({', '.join('?' * len(some))})"
            for name, digest, text in database.execute(asked, some):
                if digest == _sum(name, text):
                    found[name] = json.loads(text)
        return found

    return _tried(read) or {}


def put(entries: Mapping[str, Any]) -> None:
    """Keeps values of JSON, in the place of the oldest."""
    texts = {name: json.dumps(value) for name, value in entries.items()}
    rows = [(name, _sum(name, text), text) for name, text in texts.items()]

    def write(database: sqlite3.Connection) -> None:
        with database:
            database.executemany("INSERT OR REPLACE INTO kept (name, sum, text) VALUES (?, ?, ?)", rows)
            database.execute("DELETE FROM kept WHERE number <= (SELECT max(number) FROM kept) - ?", (KEPT,))

    if rows:
        _tried(write)


def _sum(name: str, text: str) -> str:
    return hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()


def _tried(work: Callable[[sqlite3.Connection], T]) -> T | None:
    try:
        with contextlib.closing(sqlite3.connect(file())) as database:
            # What a crash of the machine breaks is found broken.
            database.execute("PRAGMA synchronous = OFF")
            database.execute(_TABLE)
            return work(database)
    except sqlite3.OperationalError as error:  # another process is at it for long, or it cannot be written
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # a table of another form
            _remove()
    except sqlite3.DatabaseError:
        _remove()
    return None


def _remove() -> None:
    with contextlib.suppress(OSError):
        file().unlink()

"""What stages hand to one another: tables as CSV, numbers in the shortest form that reads back the same, and records
as JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from contract.errors import Refused
from storage.files import write_atomically


def to_csv(frame: pd.DataFrame) -> bytes:
    text = frame.to_csv(index=False, lineterminator="\n")
    assert isinstance(text, str)
    return text.encode()


def write(path: Path, frame: pd.DataFrame) -> None:
    write_atomically(path, to_csv(frame))


def read(path: Path) -> pd.DataFrame:
    """A table that another stage has written. Raises Refused when it is not there."""
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""], float_precision="round_trip")
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; `dvc repro` makes it") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise Refused(f"{path}: not a table: {' '.join(str(error).split())}; `dvc repro` makes it again") from None


def to_json(record: Any) -> bytes:
    return f"{json.dumps(record, indent=2, allow_nan=False)}\n".encode()


def read_json(path: Path) -> dict[str, Any]:
    """A record that another stage has written. Raises Refused when it is not there, or none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; `dvc repro` makes it") from None
    except ValueError as error:
        raise Refused(f"{path}: not JSON: {error}; `dvc repro` makes it again") from None
    return found


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"

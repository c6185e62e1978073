"""The tables that stages hand to one another: CSV files, numbers in the shortest form that reads back the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from packing import Refused
from packing.files import write_atomically


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


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"

"""Tables as text: their rows with what the model takes of them, and the same rows with its predictions."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np

from contract.errors import Refused
from contract.manifest import Input, Manifest
from serving.model import Prediction

LINE_LIMIT = 1 << 20
"""Bytes of a line: one line is held in memory as a whole."""
# The model computes in single precision; a larger number would become infinite.
_LARGEST = float(np.finfo(np.float32).max)
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Row:
    line: int
    """Its first, counted from 1."""
    values: list[float]
    """In the signature's order; NaN where there is none."""
    cells: list[str]
    """As they were read: of CSV all cells, of JSON lines the one text."""
    text: str
    """Its lines."""


@dataclass(frozen=True)
class BadRow:
    """A row that the model cannot be asked about."""

    line: int
    text: str
    faults: list[str]
    """Column, value, what is wrong, what to do."""


class Table(Protocol):
    def head(self) -> bytes:
        """What is written before any row."""

    def rows(self) -> Iterator[Row | BadRow]: ...

    def write(self, rows: Iterable[Row], predictions: Iterable[Prediction]) -> bytes: ...


def open_table(uri: str, stream: BinaryIO, manifest: Manifest) -> Table:
    """The table in a stream, of the format that the end of its URI names.

    Raises Refused when it has no columns for the model, or is not text of this format: then nobody knows where the
    next row begins. What is wrong with one row is in a BadRow.
    """
    return FORMATS[suffix(uri)](uri, stream, manifest)


def suffix(uri: str) -> str:
    """The format of a file, or an empty text where there is none."""
    return next((known for known in FORMATS if uri.endswith(known)), "")


def added(manifest: Manifest) -> list[str]:
    """The columns that the output has and the input has not."""
    labels = manifest.signature.labels
    return ["prediction", *(f"probability_{label}" for label in labels), "model_version"]


class _Lines:
    """The lines of a text, and the last ones that were read of it."""

    def __init__(self, uri: str, stream: BinaryIO) -> None:
        self.uri, self._stream = uri, stream
        self.number, self.taken = 0, list[str]()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(LINE_LIMIT + 1)
        if not raw:
            raise StopIteration
        self.number += 1
        if len(raw) > LINE_LIMIT:
            raise Refused(f"{self.uri}: line {self.number}: longer than {LINE_LIMIT} bytes; write a row on a line")
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            where = f"{self.uri}: line {self.number}: byte {error.start + 1}"
            raise Refused(f"{where}: 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8") from None
        # What some programs write before the first column's name.
        self.taken.append(text.removeprefix("\ufeff") if self.number == 1 else text)
        return self.taken[-1]


class _Csv:
    """Comma-separated values as RFC 4180 has them, with the columns' names in the first line."""

    def __init__(self, uri: str, stream: BinaryIO, manifest: Manifest) -> None:
        self._lines, self._manifest = _Lines(uri, stream), manifest
        self._reader = csv.reader(self._lines, strict=True)
        self._names = self._next() or []
        there = ", ".join(self._names) or "none"
        faults = [
            f"{uri}: {column.name}: no such column; the model needs it, and the first line has {there}"
            for column in manifest.signature.inputs
            if column.name not in self._names
        ]
        faults += [
            f"{uri}: {name}: a column of this name is in the output; rename or remove it in the input"
            for name in added(manifest)
            if name in self._names
        ]
        twice = dict.fromkeys(name for name in self._names if self._names.count(name) > 1)
        faults += [f"{uri}: {name}: two columns have this name; rename or remove one" for name in twice]
        if faults:
            raise Refused(*faults)
        self._positions = [(self._names.index(column.name), column) for column in manifest.signature.inputs]

    def head(self) -> bytes:
        return _csv([[*self._names, *added(self._manifest)]])

    def rows(self) -> Iterator[Row | BadRow]:
        while True:
            self._lines.taken.clear()
            line = self._lines.number + 1
            if (cells := self._next()) is None:
                return
            if not cells:
                continue  # an empty line, which the last one often is
            faults, values = [], []
            if len(cells) != len(self._names):
                faults.append(
                    f"{len(cells)} cells, but the first line names {len(self._names)} columns;"
                    " quote a cell that has a comma in it"
                )
            else:
                for position, column in self._positions:
                    text = cells[position].strip()
                    number = float(text) if NUMBER.fullmatch(text) else text
                    values.append(_value(column, number if text else None, text, faults))
            text = "".join(self._lines.taken)
            yield BadRow(line, text, faults) if faults else Row(line, values, cells, text)

    def write(self, rows: Iterable[Row], predictions: Iterable[Prediction]) -> bytes:
        version = self._manifest.version
        return _csv(
            [*row.cells, prediction.answer, *(prediction.probabilities or {}).values(), version]
            for row, prediction in zip(rows, predictions, strict=True)
        )

    def _next(self) -> list[str] | None:
        try:
            return next(self._reader, None)
        except csv.Error as error:
            raise Refused(
                f"{self._lines.uri}: line {self._lines.number}: not CSV: {error}; quote cells as RFC 4180 has it"
            ) from None


class _JsonLines:
    """An object of JSON on each line, with the columns' names as keys. It is passed through as it is written, because a
    number may have more digits than this program would keep."""

    def __init__(self, uri: str, stream: BinaryIO, manifest: Manifest) -> None:
        self._lines, self._manifest, self._added = _Lines(uri, stream), manifest, added(manifest)

    def head(self) -> bytes:
        return b""

    def rows(self) -> Iterator[Row | BadRow]:
        for text in self._lines:
            self._lines.taken.clear()
            if not (text := text.strip()):
                continue
            faults, values = [], []
            try:
                data = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
                if not isinstance(data, dict):
                    raise ValueError("not an object with the columns' names as keys")
                faults += [
                    f"{name}: a column of this name is in the output; rename or remove it"
                    for name in self._added
                    if name in data
                ]
                for column in self._manifest.signature.inputs:
                    if column.name in data:
                        values.append(_value(column, data[column.name], data[column.name], faults))
                    else:
                        faults.append(
                            f"{column.name}: missing; write {'null where it is not known' if column.nullable else 'it'}"
                        )
            # The second is of an object in an object in an object, a thousand times.
            except (ValueError, RecursionError) as error:
                faults.append(f"not JSON that can be read: {error}; write one object a line")
            line = self._lines.number
            yield BadRow(line, text, faults) if faults else Row(line, values, [text], text)

    def write(self, rows: Iterable[Row], predictions: Iterable[Prediction]) -> bytes:
        out = []
        for row, prediction in zip(rows, predictions, strict=True):
            answers = [prediction.answer, *(prediction.probabilities or {}).values(), self._manifest.version]
            more = json.dumps(dict(zip(self._added, answers, strict=True)), ensure_ascii=False)
            # No object is empty here: the inputs are in it.
            out.append(f"{row.cells[0][:-1].rstrip()}, {more[1:]}\n")
        return "".join(out).encode()


FORMATS: dict[str, type[_Csv] | type[_JsonLines]] = {".csv": _Csv, ".jsonl": _JsonLines, ".ndjson": _JsonLines}


def _value(column: Input, given: Any, written: Any, faults: list[str]) -> float:
    """The number that the model gets, NaN for none; what is wrong with it is added to `faults`."""
    if given is None:
        if not column.nullable:
            faults.append(f"{column.name}: empty, but the model needs a number; fill it in")
    elif isinstance(given, bool) or not isinstance(given, int | float):
        faults.append(f"{column.name}: {_short(written)}: not a number; write digits, with a point before decimals")
    elif not -_LARGEST <= given <= _LARGEST:
        faults.append(f"{column.name}: {_short(written)}: beyond single precision; is it in the right unit?")
    else:
        return float(given)
    return math.nan


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _csv(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()

"""The data: one flower a row, measured in centimetres.

The measurements are R. A. Fisher's, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7
(1936), as scikit-learn ships them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from packing import Refused

FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
TARGET = "species"
COLUMNS = (*FEATURES, TARGET)
SPECIES = ("setosa", "versicolor", "virginica")

# No iris has a part of a metre: a number beyond it is a slip of the unit or of the decimal point.
LARGEST = 100.0


@dataclass(frozen=True)
class Dataset:
    features: NDArray[np.float64]
    """Shape [rows, 4], centimetres, in the order of FEATURES."""
    species: NDArray[np.str_]
    """Shape [rows]."""

    def __len__(self) -> int:
        return len(self.species)

    def take(self, rows: NDArray[np.intp]) -> Dataset:
        return Dataset(self.features[rows], self.species[rows])


def read(path: Path) -> tuple[Dataset, str]:
    """The data in the CSV file `path`, and `sha256:` with the digest of the file's bytes.

    Raises Refused, one line a fault and each naming line and column, unless the header is COLUMNS and every row holds
    four numbers above 0 and at most LARGEST and a known species.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; `python -m iris.generate_data` makes data/iris.csv") from None
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise Refused(f"{path}: line 1: the header is {','.join(header) or 'missing'}, not {','.join(COLUMNS)}")
        # A blank line is no row.
        lines = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise Refused(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    except csv.Error as error:
        raise Refused(f"{path}: line {reader.line_num}: {error}; quote fields as RFC 4180 says") from None
    faults = [f"{path}: line {number}: {fault}" for number, row in lines for fault in _faults(row)]
    if faults:
        shown = faults[:10]
        raise Refused(*shown, *([f"{path}: {len(faults) - 10} more faults"] if len(faults) > len(shown) else []))
    if not lines:
        raise Refused(f"{path}: no rows below the header; `python -m iris.generate_data` makes data/iris.csv")
    features = np.array([[float(cell) for cell in row[:-1]] for _, row in lines])
    return Dataset(features, np.array([row[-1] for _, row in lines])), digest(content)


def _faults(row: list[str]) -> Iterable[str]:
    if len(row) != len(COLUMNS):
        yield f"{len(row)} fields, not {len(COLUMNS)}; correct or remove the row"
        return
    for name, cell in zip(FEATURES, row, strict=False):
        try:
            number = float(cell)
        except ValueError:
            yield f"{name}: {cell!r} is not a number; correct or remove the row"
            continue
        if not (math.isfinite(number) and 0 < number <= LARGEST):
            yield f"{name}: {cell} is not above 0 and at most {LARGEST:g} (centimetres); correct or remove the row"
    if row[-1] not in SPECIES:
        yield f"{TARGET}: {row[-1]!r} is not one of {', '.join(SPECIES)}; correct or remove the row"


def without_duplicates(data: Dataset) -> Dataset:
    """Each distinct row once, in order of first appearance.

    Measurements are rounded to a millimetre, so equal rows can be different flowers; but if one of them were held out
    and its twin trained on, the evaluation would count a remembered answer as a learned one.
    """
    first: dict[tuple[object, ...], int] = {}
    for index, row in enumerate(_rows(data)):
        first.setdefault(row, index)
    return data.take(np.array(list(first.values()), dtype=np.intp))


def to_csv(data: Dataset) -> bytes:
    """Canonical CSV: the header, then a row a line, numbers in the shortest form that reads back the same."""
    lines = [",".join(COLUMNS), *(",".join([*map(repr, row[:-1]), row[-1]]) for row in _rows(data))]
    return "".join(f"{line}\n" for line in lines).encode()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _rows(data: Dataset) -> list[tuple[float, float, float, float, str]]:
    return [(*row, species) for row, species in zip(data.features.tolist(), data.species.tolist(), strict=True)]

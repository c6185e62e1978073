"""The reference of a version: the data it was made from, beside what it predicted of each row without having seen it.

`reference/reference.csv` of a version: a header with the signature's inputs in order, `prediction` and `target`; a line
a row, a missing input is an empty cell.
"""

from __future__ import annotations

import io

import pandas as pd

from contract import version
from contract.digest import MANIFEST
from contract.errors import Refused
from contract.manifest import Manifest
from contract.version import Expected
from monitoring.drift import PREDICTION, TARGET
from storage.places import Place

FILE = "reference/reference.csv"


def read(place: Place, expected: Expected) -> tuple[Manifest, pd.DataFrame]:
    """The manifest of a version and its reference: the inputs (float64, NaN where missing), `prediction` and `target`,
    both str for a classification and float64 for a regression.

    Raises Refused unless the version is the expected one and every byte of the reference is part of it.
    """
    try:
        described = version.read_manifest(place.read, expected)
        if not described.file(FILE):
            raise Refused(f"{MANIFEST}: lists no {FILE}, so there is nothing to compare with; train anew")
        content = version.read_file(place.read, described, FILE)
    except Refused as refused:
        raise Refused(*(f"{place.uri}: {line}" for line in refused.lines)) from None
    return described, parse(content, described, f"{place.uri}{FILE}")


def parse(content: bytes, described: Manifest, source: str) -> pd.DataFrame:
    """Raises Refused, naming `source`, unless the bytes are a reference of this model."""
    inputs = described.signature.names
    answers = str if described.kind == "classification" else float
    try:
        frame = pd.read_csv(
            io.BytesIO(content),
            dtype=dict.fromkeys(inputs, float) | {PREDICTION: answers, TARGET: answers},
            keep_default_na=False,
            na_values={name: [""] for name in inputs},
            # To the last bit: a number that is off by it would no longer tie with the same one of the log.
            float_precision="round_trip",
        )
    except ValueError as error:
        raise Refused(f"{source}: {' '.join(str(error).split())}; package the model again") from None
    if [*frame.columns] != [*inputs, PREDICTION, TARGET]:
        raise Refused(
            f"{source}: the header is {','.join(frame.columns)}, not {','.join([*inputs, PREDICTION, TARGET])}"
        )
    if not len(frame):
        raise Refused(f"{source}: no rows; package the model again")
    return frame

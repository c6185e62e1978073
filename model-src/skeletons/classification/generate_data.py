"""Write the data as CSV. To be written: where your own data comes from, or a data/raw.csv.dvc in the place of this.

The example is Fisher's 150 flowers, or a seeded variation of them, as params.yaml says under `data`.

A variation draws rows with replacement and adds noise to the measurements. The same parameters give the same bytes.

  python -m models.NAME.generate_data
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from contract import command
from contract.errors import Refused

FOLDER = Path("models/NAME")
# The original measurements are rounded to it, and none is smaller.
MILLIMETRE = 0.1


class Data(BaseModel):
    """The part `data` of params.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    seed: Annotated[int, Field(ge=0)] | None
    rows: Annotated[int, Field(ge=1)]
    noise: Annotated[FiniteFloat, Field(ge=0)]
    """Centimetres."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m models.NAME.generate_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--params", type=Path, default=FOLDER / "params.yaml", help="the parameters (%(default)s)")
    add("--out", type=Path, default=FOLDER / "data/raw.csv", help="the file to write (%(default)s)")
    args = parser.parse_args(argv)

    def work() -> None:
        rows = generate(args.out, read(args.params))
        print(f"wrote {rows} rows", file=sys.stderr)
        print(args.out)

    return command.run(work, "interrupted; the file is as it was")


def read(params: Path) -> Data:
    from contract.strict import faults
    from lifecycle import settings

    try:
        return Data.model_validate(settings.read(params, settings.Params).data)
    except ValidationError as error:
        raise Refused(*faults(f"{params}: data", error)) from None


def generate(out: Path, data: Data) -> int:
    """Writes the file and returns its number of rows. Raises Refused when it cannot be written."""
    import numpy as np
    import pandas as pd
    from sklearn.datasets import load_iris

    from lifecycle import tables
    from models.NAME.schema import SCHEMA, SPECIES

    features, target = load_iris(return_X_y=True)
    if data.seed is not None:
        random = np.random.default_rng(data.seed)
        drawn = random.integers(len(features), size=data.rows)
        noisy = features[drawn] + random.normal(0, data.noise, (data.rows, features.shape[1]))
        features, target = noisy.round(1).clip(MILLIMETRE), target[drawn]
    *measured, species = SCHEMA.columns
    table = pd.DataFrame(features, columns=measured).assign(**{species: np.array(SPECIES)[target]})
    try:
        tables.write(out, table)
    except OSError as error:
        raise Refused(f"--out {out}: {error.strerror}") from None
    return len(table)


if __name__ == "__main__":
    raise SystemExit(main())

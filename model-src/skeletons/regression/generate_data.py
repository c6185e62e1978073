"""Write the data as CSV. To be written: where your own data comes from; data/raw.csv.dvc names the bytes.

The example is the 442 patients of a study, one in twenty laboratory values left out.

The study has no missing values; real records do. The file is the one that data/raw.csv.dvc names: where its store
cannot be reached, this makes the same bytes.

  python -m models.NAME.generate_data
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from contract import command
from contract.errors import Refused

OUT = Path("models/NAME/data/raw.csv")
SEED = 2004
LEFT_OUT = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m models.NAME.generate_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write (%(default)s)")
    args = parser.parse_args(argv)

    def work() -> None:
        rows = generate(args.out)
        print(f"wrote {rows} rows", file=sys.stderr)
        print(args.out)

    return command.run(work, "interrupted; the file is as it was")


def generate(out: Path) -> int:
    """Writes the file and returns its number of rows. Raises Refused when it cannot be written."""
    import numpy as np
    import pandas as pd
    from sklearn.datasets import load_diabetes

    from lifecycle import tables
    from models.NAME.schema import SCHEMA

    features, progression = load_diabetes(return_X_y=True, scaled=False)
    names = list(SCHEMA.columns)
    data = pd.DataFrame(np.column_stack([features, progression]), columns=names)
    nullable = [name for name in names if SCHEMA.columns[name].nullable]
    left_out = np.random.default_rng(SEED).random((len(data), len(nullable))) < LEFT_OUT
    data[nullable] = data[nullable].mask(left_out)
    try:
        tables.write(out, data)
    except OSError as error:
        raise Refused(f"--out {out}: {error.strerror}") from None
    return len(data)


if __name__ == "__main__":
    raise SystemExit(main())

"""Write the iris data as CSV: Fisher's 150 flowers, or a seeded variation of them.

A variation draws rows with replacement and adds noise to the measurements. The same options give the same bytes.

  python -m iris.generate_data
  python -m iris.generate_data --out data/more.csv --seed 7 --rows 600 --noise 0.15
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from packing import Refused

# The original measurements are rounded to it, and none is smaller.
MILLIMETRE = 0.1


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m iris.generate_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("data/iris.csv"), help="the file to write (%(default)s)")
    parser.add_argument("--seed", type=int, help="make a variation, the same one for the same seed")
    parser.add_argument("--rows", type=int, default=150, help="with --seed: how many rows to draw (%(default)s)")
    parser.add_argument(
        "--noise", type=float, default=0.0, metavar="SIGMA",
        help="with --seed: standard deviation of the noise, in centimetres (%(default)s)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.seed is None and (args.rows != 150 or args.noise):
        parser.error("--rows and --noise make a variation: they need --seed")
    if args.seed is not None and args.seed < 0:
        parser.error(f"--seed {args.seed}: not 0 or above")
    if args.rows < 1:
        parser.error(f"--rows {args.rows}: not 1 or above")
    if not (math.isfinite(args.noise) and args.noise >= 0):
        parser.error(f"--noise {args.noise}: not 0 or above")
    try:
        rows = generate(args.out, args.seed, args.rows, args.noise)
    except Refused as refused:
        for line in refused.lines:
            print(f"error: {line}", file=sys.stderr)
        return 1
    print(f"wrote {rows} rows", file=sys.stderr)
    print(args.out)
    return 0


def generate(out: Path, seed: int | None, rows: int, noise: float) -> int:
    """Writes the file and returns its number of rows. Raises Refused when it cannot be written."""
    import numpy as np
    from sklearn.datasets import load_iris

    from iris.dataset import LARGEST, SPECIES, Dataset, to_csv
    from packing.files import write_atomically

    features, target = load_iris(return_X_y=True)
    data = Dataset(features, np.array(SPECIES)[target])
    if seed is not None:
        random = np.random.default_rng(seed)
        drawn = data.take(random.integers(len(data), size=rows))
        noisy = drawn.features + random.normal(0, noise, drawn.features.shape)
        data = Dataset(np.clip(noisy.round(1), MILLIMETRE, LARGEST), drawn.species)
    try:
        write_atomically(out, to_csv(data))
    except OSError as error:
        raise Refused(f"--out {out}: {error.strerror}") from None
    return len(data)


if __name__ == "__main__":
    raise SystemExit(main())

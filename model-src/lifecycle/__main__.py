"""One stage in the life of a model; `dvc repro` calls them in order, and only those that something has changed for.

  python -m lifecycle validate wine     is the raw data fit to learn from?
  python -m lifecycle prepare wine      rows to learn from, rows held out
  python -m lifecycle tune wine         the search for a family and its parameters
  python -m lifecycle train wine        the chosen pipeline, fitted
  python -m lifecycle evaluate wine     what it is worth on the held-out rows
  python -m lifecycle package wine      its files, once ONNX and scikit-learn answer alike

These are called by people and CI, after `dvc repro`:

  python -m lifecycle version wine      record the run in MLflow and write the version to artifacts/wine
  python -m lifecycle version wine --draft
  python -m lifecycle compare wine --with s3://BUCKET/models/wine/VERSION/
  python -m lifecycle accept wine       take the data as it is distributed now for normal
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from contract import command
from lifecycle import stages

COMMANDS = (*stages.STAGES, "version", "compare", "accept")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lifecycle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("stage", choices=COMMANDS)
    add("model", help="a folder of models/, for example wine")
    add("--draft", action="store_true", help="version: although the code is not committed; it cannot be uploaded")
    add(
        "--with",
        dest="other",
        metavar="URI",
        help="compare: the other version's folder or URI, or what a release names",
    )
    args = parser.parse_args(argv)
    if args.draft and args.stage != "version":
        parser.error(f"--draft is an option of version, not of {args.stage}")
    if (args.other is None) != (args.stage != "compare"):
        parser.error("compare needs --with, and nothing else takes it")
    stages.same_arithmetic()
    return command.run(lambda: _run(args), f"interrupted; what {args.stage} makes is as it was")


def _run(args: argparse.Namespace) -> None:
    if args.stage == "version":
        stages.version(args.model, draft=args.draft)
    elif args.stage == "compare":
        stages.compare(args.model, args.other)
    elif args.stage == "accept":
        stages.accept(args.model)
    else:
        stages.STAGES[args.stage](args.model)


if __name__ == "__main__":
    raise SystemExit(main())

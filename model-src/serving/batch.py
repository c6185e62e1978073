"""Score a file, or every new file of a folder, with one model version.

A file is CSV or JSON lines (.csv, .jsonl, .ndjson), here or in S3. Its columns are found by the names of the model's
inputs, in any order; others are passed through. The output has the same rows with `prediction`, `probability_<label>`
for a classifier, and `model_version`. It appears whole or not at all, and is never overwritten: the same again is the
same file, and anything else is refused.

With a slash at their ends, --input and --output are folders: every file of the one that has no output of this version
yet is scored, to OUTPUT/VERSION/. {date} in either is the day, by UTC or --date.

The model is named as for the service, by MODEL_URI, MODEL_DIGEST, MODEL_MANIFEST and MODEL_REPLICA, and has to be
signed with MODEL_PUBLIC_KEY if that is set. BATCH_INPUT, BATCH_OUTPUT, BATCH_MAX_BAD_ROWS and BATCH_DATE stand for the
options. Exit codes: 0 done, 1 refused, 2 wrong usage, 75 worth trying again.

  python -m serving.batch --input flowers.csv --output scored.csv
  python -m serving.batch --input s3://mlops-prod/batch/in/ --output s3://mlops-prod/batch/out/ --max-bad-rows 10
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from itertools import islice

import numpy as np

from contract.errors import Refused
from serving import model, rows, settings
from serving.model import NO_ANSWER, Model, Prediction
from serving.rows import BadRow, Row
from storage import Unavailable, streams

CHUNK = 1000
"""Rows that are held in memory and given to the model together."""
FAULTS_SHOWN = 10
TRY_AGAIN = 75
"""The exit code for a temporary failure in sysexits.h, by which a Job knows that another pod may succeed."""


def main(argv: Sequence[str] | None = None) -> int:
    # Before anything is written, so that nothing is left; the first process of a container ignores it otherwise.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = _arguments(argv)
    try:
        loaded = model.load(settings.read_model(os.environ))
    except (Refused, Unavailable) as failure:
        return _fail(failure)
    except KeyboardInterrupt:
        return 130
    code = 0
    try:
        # One bad file is no reason to leave the others, and the code of what may pass by itself is the last word.
        for given_uri, output in list(work(args.input, args.output, loaded.manifest.version)):
            try:
                score(loaded, given_uri, output, args.max_bad_rows)
            except (Refused, Unavailable) as failure:
                code = max(code, _fail(failure))
    except (Refused, Unavailable) as failure:
        return _fail(failure)
    except KeyboardInterrupt:
        return 130
    return code


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.batch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    today = datetime.now(UTC).date().isoformat()
    for name, default, meaning in (
        ("input", "", "a file or, with a slash at its end, a folder; a path or s3://BUCKET/KEY"),
        ("output", "", "where the predictions go; a file or a folder as the input is"),
        ("max-bad-rows", "0", "rows of a file that may be left out, to OUTPUT.rejected with their faults (default 0)"),
        ("date", today, "what {date} stands for (default: today by UTC)"),
    ):
        variable = f"BATCH_{name.replace('-', '_').upper()}"
        parser.add_argument(f"--{name}", default=os.environ.get(variable) or default, help=meaning)
    args = parser.parse_args(argv)
    for name in ("input", "output"):
        if not getattr(args, name):
            parser.error(f"--{name} or BATCH_{name.upper()}: name a file or a folder")
    if not re.fullmatch("[0-9]{1,9}", args.max_bad_rows):
        parser.error(f"--max-bad-rows {args.max_bad_rows!r}: not a number of rows")
    try:
        date.fromisoformat(args.date)
    except ValueError:
        parser.error(f"--date {args.date!r}: not a day; write YYYY-MM-DD")
    args.max_bad_rows = int(args.max_bad_rows)
    args.input, args.output = (text.replace("{date}", args.date) for text in (args.input, args.output))
    if args.input.endswith("/") != args.output.endswith("/"):
        parser.error(f"--input {args.input}, --output {args.output}: one is a folder and the other is not")
    if not args.input.endswith("/") and not rows.suffix(args.input) == rows.suffix(args.output) != "":
        parser.error(
            f"--input {args.input}, --output {args.output}: not both of one format; the formats are"
            f" {', '.join(rows.FORMATS)}"
        )
    if args.input.endswith("/") and args.output.startswith(args.input):
        parser.error(f"--output {args.output}: in the folder of the input, which it would become a part of")
    return args


def work(given: str, output: str, version: str) -> Iterator[tuple[str, str]]:
    """(input, output) of each file that is to be scored."""
    if not given.endswith("/"):
        yield given, output
        return
    if not streams.is_s3(given) and not os.path.isdir(given):  # noqa: PTH112 - no Path has the slash at its end
        raise Refused(f"{given}: no such folder; check the path")
    done = streams.find(f"{output}{version}/")
    found = {uri: changed for uri, changed in streams.find(given).items() if rows.suffix(uri)}
    if not found:
        _say(f"{given}: no file that ends in {', '.join(rows.FORMATS)}; there is nothing to score")
    for uri, changed in found.items():
        target = f"{output}{version}/{uri.removeprefix(given)}"
        # An input that was changed since is scored again, and refused if that makes other predictions.
        if changed >= done.get(target, changed):
            yield uri, target


def score(loaded: Model, given: str, output: str, max_bad_rows: int) -> None:
    """Scores one file. Raises Refused, with nothing written, when more rows are bad or the output is there already
    with other bytes, and Unavailable when it is worth trying again."""
    good_rows = bad_rows = 0
    scored, rejected = streams.writer(output), streams.writer(f"{output}.rejected")
    try:
        with streams.reading(given) as stream:
            table = rows.open_table(given, stream, loaded.manifest)
            scored.write(table.head())
            found = table.rows()
            while chunk := list(islice(found, CHUNK)):
                good, predictions, bad = _predicted(loaded, chunk)
                bad_rows += len(bad)
                if bad_rows > max_bad_rows:
                    raise Refused(*_shown(given, bad, max_bad_rows))
                for row in bad:
                    line = {"line": row.line, "faults": row.faults, "row": row.text}
                    rejected.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                good_rows += len(good)
                scored.write(table.write(good, predictions))
                if sys.stderr.isatty():
                    print(f"\r{given}: {good_rows + bad_rows} rows", end="", file=sys.stderr, flush=True)
        # Who sees the output sees all that belongs to it.
        if bad_rows:
            rejected.publish()
        new = scored.publish()
    finally:
        scored.drop()
        rejected.drop()
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
    left_out = f", {bad_rows} left out, see {output}.rejected" if bad_rows else ""
    _say(f"{output}: {good_rows} rows of {given} by {loaded.manifest.version}{left_out}{'' if new else ' (as before)'}")


def _predicted(loaded: Model, chunk: Sequence[Row | BadRow]) -> tuple[list[Row], list[Prediction], list[BadRow]]:
    """The rows that have a prediction, those predictions, and the rows that have none, in the order of the file."""
    asked = [row for row in chunk if isinstance(row, Row)]
    values = np.array([row.values for row in asked], dtype=np.float32).reshape(len(asked), loaded.inputs)
    answers = iter(loaded.predict(values) if asked else [])
    good, predictions, bad = list[Row](), list[Prediction](), list[BadRow]()
    for row in chunk:
        if isinstance(row, BadRow):
            bad.append(row)
        elif answer := next(answers):
            good.append(row)
            predictions.append(answer)
        else:
            bad.append(BadRow(row.line, row.text, [NO_ANSWER]))
    return good, predictions, bad


def _shown(given: str, bad: Sequence[BadRow], max_bad_rows: int) -> Iterator[str]:
    lines = [f"{given}: line {row.line}: {fault}" for row in bad for fault in row.faults]
    yield from lines[:FAULTS_SHOWN]
    yield (
        f"{given}: more than {max_bad_rows} bad rows, so nothing was written; correct them, or leave them out with a"
        " larger --max-bad-rows"
    )


def _fail(failure: Refused | Unavailable) -> int:
    lines = failure.lines if isinstance(failure, Refused) else (f"{failure}; try again",)
    for line in lines:
        _say(f"error: {' '.join(line.split())}")
    return 1 if isinstance(failure, Refused) else TRY_AGAIN


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

"""Judge a window of the request log of one model version against the version's reference.

Writes report.html, quality.html (where labels are known), drift.prom for Prometheus' textfile collector and, last,
verdict.json into --out. The exit code is 0 without drift, and 1 with drift or without a verdict; stderr has why. With
fewer rows than --min-rows there is no verdict.

With MODEL_PUBLIC_KEY, the version has to be signed with it, as for the service.

  python -m monitoring --version s3://mlops-prod/models/wine/2026-02-01-3f2a9c1b7d10/ --digest sha256:... \\
      --log s3://mlops-prod/requests/prod/ --window 24h --out reports/drift/prod/wine-api
  python -m monitoring --version s3://mlops-prod/models/wine/2026-02-01-3f2a9c1b7d10/ --digest sha256:... \\
      --log s3://mlops-prod/requests/prod/ --endpoint captured/ml-prod-wine-sagemaker --out reports/drift/prod/endpoint
  python -m monitoring --version artifacts/wine --digest sha256:... --log log --rows 500 --out drift
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from contract import command
from contract.errors import Refused
from storage import Unavailable

if TYPE_CHECKING:
    from contract.verdict import CheckOut, Verdict
    from storage.places import Place

SHOWN = 10
"""Malformed lines that are named."""
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--version", required=True, metavar="URI", help="the version's folder, in S3 or local")
    add("--digest", required=True, help="the digest that the version has to have")
    add("--log", required=True, metavar="URI", help="REQUEST_LOG_URI of the service")
    add("--endpoint", default="", metavar="FOLDER", help="in --log, the folder of a SageMaker endpoint that captures")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--window", type=duration, default="24h", help="so long until now, as 90m, 24h or 7d (24h)")
    chosen.add_argument("--rows", type=positive, help="the last so many rows instead")
    add("--min-rows", type=positive, metavar="N", help="no verdict on fewer rows (100)")
    add("--out", type=Path, required=True, metavar="DIR", help="where the reports go")
    add("--environment", help="to be named in the verdict")
    add("--app", help="to be named in the verdict")
    add("--json", action="store_true", help="print the verdict")
    args = parser.parse_args(argv)

    def work() -> int:
        try:
            return judge(args)
        except Unavailable as error:
            raise Refused(f"{error}; try again") from None

    return command.run(work, "interrupted; there is no verdict")


def duration(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90m, 24h or 7d")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def positive(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows above 0")
    return int(text)


def judge(args: argparse.Namespace) -> int:
    from contract.verdict import FILE, CheckOut, Measured, Quality, Verdict
    from contract.version import expected
    from monitoring import drift, log, reference, verdict

    # Whatever happens from here on, an earlier verdict is not this one.
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / FILE).unlink(missing_ok=True)
    described, before = reference.read(_place(args.version, "--version"), expected(args.digest, os.environ))
    now = datetime.now(UTC)
    window = log.Window(now, rows=args.rows) if args.rows else log.Window(now, since=now - args.window)
    found = log.read(_place(args.log, "--log"), described, window, args.endpoint)
    for line in found.malformed[:SHOWN]:
        print(f"left out: {line}", file=sys.stderr)
    if len(found.malformed) > SHOWN:
        print(f"left out: {len(found.malformed) - SHOWN} more lines", file=sys.stderr)
    current, wanted = found.frame, args.min_rows or drift.MIN_ROWS
    if len(current) < wanted:
        raise Refused(
            f"--log {args.log}: {len(current)} rows of {described.model} {described.version} in the window, at least"
            f" {wanted} are needed: there is no verdict; take a longer --window"
        )

    inputs = described.signature.names
    labels = described.kind == "classification"
    known = current[current[drift.TARGET].notna()]
    # What libraries print for their programmers is no reason of ours.
    with warnings.catch_warnings(action="ignore"):
        # Only now: it takes seconds to import.
        from monitoring import report

        checks = report.judge(before, current, inputs, labels=labels, out=args.out)
        (args.out / report.QUALITY_HTML).unlink(missing_ok=True)
        quality = report.measure(before, known, labels=labels, out=args.out) if len(known) else None
    made = Verdict(
        schema=1,
        environment=args.environment,
        app=args.app,
        model=described.model,
        version=described.version,
        digest=described.digest,
        since=current["time"].iloc[0].to_pydatetime(),
        until=current["time"].iloc[-1].to_pydatetime(),
        rows=len(current),
        reference_rows=len(before),
        malformed_lines=len(found.malformed),
        drifted=any(check.drifted for check in checks),
        drifted_columns=[*dict.fromkeys(check.column for check in checks if check.drifted)],
        columns=len(inputs) + 1,
        checks=[CheckOut(**vars(check)) for check in checks],
        quality=Quality(rows=len(known), metrics={name: Measured(**values) for name, values in quality.items()})
        if quality
        else None,
    )
    verdict.write(args.out, made)
    if args.json:
        print(made.model_dump_json(by_alias=True, indent=2))
    else:
        say(made, args.out)
    for check in made.checks:
        if check.drifted:
            print(f"error: {described.model} {described.version}: {sentence(check)}", file=sys.stderr)
    return 1 if made.drifted else 0


def _place(uri: str, option: str) -> Place:
    from storage import s3
    from storage.places import Folder, open_place

    place = open_place(uri, option, s3.PATIENT)
    if isinstance(place, Folder) and not place.root.is_dir():
        raise Refused(f"{option} {place.root}: no such folder")
    return place


def say(made: Verdict, out: Path) -> None:
    drifted = ", ".join(made.drifted_columns) or "none"
    print(f"{made.model} {made.version}: {made.rows} rows against {made.reference_rows} of the reference")
    print(f"drifted columns: {drifted}, of {made.columns}")
    for name, measured in (made.quality.metrics if made.quality else {}).items():
        print(f"{name}: {measured.current:.4f}, on the reference {measured.reference:.4f}")
    print(out / "report.html")


def sentence(check: CheckOut) -> str:
    what = {
        "values": f"differ from the reference ({check.test} {check.statistic:.3f})",
        "missing": f"are missing in {check.statistic:.1%} of the rows",
        "range": f"lie outside the range of the reference in {check.statistic:.1%} of the rows",
    }[check.of]
    return f"{check.column}: its values {what}: p-value {check.p_value:.2g}, drift at {check.threshold:.2g} or below"


if __name__ == "__main__":
    raise SystemExit(main())

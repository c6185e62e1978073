"""Judge what the apps of an environment were asked lately against the data of their running versions.

Finds in Git which version an app runs and where its service logs its predictions, or its endpoint of SageMaker captures
them, and has model-src/monitoring compare the two, with the Python of model-src/.venv-monitor or model-src/.venv. The
reports go to --out/APP/: report.html for people, verdict.json for check_retrain.py, drift.prom for Prometheus. The exit
code is 1 when something has drifted or could not be judged; stderr has what.

  python scripts/check_drift.py --app wine-api --env prod
  python scripts/check_drift.py --app wine-api --env prod --rows 500 --out drift
  python scripts/check_drift.py --env prod --window 7d --json     every app of the environment that writes a log
  python scripts/check_drift.py --env prod --part 2/5             the second of five parts of them, for a job of its own
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gitops import cli
from gitops.manifests import ack, kustomize, workloads
from gitops.manifests.objects import Object, at, mapping, mappings
from gitops.programs import model_python
from gitops.programs.model_python import ModelPython
from gitops.releases import history
from gitops.releases.release import Release
from gitops.repo import layout, publish, snapshot
from gitops.repo.git import Git

from contract.errors import Refused
from contract.uri import parse_flavour

VARIABLE = "REQUEST_LOG_URI"
Log = tuple[str, str]
"""Where predictions are logged, and in that place the folder of the endpoint that captures them; empty where it is the
service itself that writes."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    add = parser.add_argument
    add("--env", help="the environment (default: the last of the policy's production)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--app", help="only this app")
    only.add_argument("--part", type=part, default=(1, 1), metavar="I/N", help="only those of the I-th of N parts")
    window = parser.add_mutually_exclusive_group()
    window.add_argument(
        "--window", type=duration, metavar="TIME", help="so long until now, as 90m, 24h or 7d (default: 24h)"
    )
    window.add_argument("--rows", type=positive, metavar="N", help="the last so many rows instead")
    add("--min-rows", type=positive, metavar="N", help="no verdict on fewer rows (default: 100)")
    add("--log", metavar="URI", help=f"s3://BUCKET/PREFIX/ or a folder (default: {VARIABLE} of the app's container)")
    add("--out", type=Path, metavar="DIR", help=f"default: {layout.DRIFT_REPORTS}/ENV")
    return cli.run(check, parser.parse_args(argv))


def duration(text: str) -> str:
    if not re.fullmatch("[1-9][0-9]{0,5}[mhd]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90m, 24h or 7d")
    return text


def part(text: str) -> tuple[int, int]:
    """I and N of `I/N`."""
    number, slash, count = text.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise argparse.ArgumentTypeError(f"{text!r} is not a part such as 1/3, 2/3 or 3/3")


def positive(text: str) -> str:
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows above 0")
    return text


def check(args: argparse.Namespace) -> int:
    git = Git(args.root)
    tip = publish.tip(git)
    policy = snapshot.at(git, tip).policy
    environments = policy.environments
    args.env = args.env or policy.production[-1]
    items = _chosen(git, tip, environments, args)
    logs = {item.app: (_address(args.log), "") for item in items} if args.log else _logs(git, tip, items)
    if args.app and not logs[args.app]:
        raise Refused(
            f"{layout.overlay(args.app, args.env)}: no container with the variable {VARIABLE}, and no endpoint"
            " that captures requests and answers; --log names a log that is elsewhere"
        )
    for item in items:
        if not logs[item.app]:
            cli.say(f"{item.app} in {args.env} writes no request log")
    python = model_python.find(args.root, model_python.EVIDENTLY)
    out = (args.out or args.root / layout.DRIFT_REPORTS / args.env).absolute()
    rows, failed = [], False
    for item in items:
        if log := logs[item.app]:
            cli.progress(f"judging {item.target}")
            code, verdict = _judge(python, args, item, log, out / item.app)
            failed |= code != 0
            rows.append({"app": item.app, "version": item.version, "out": str(out / item.app), "verdict": verdict})
    cli.progress("")
    if args.json:
        cli.print_json({"tip": tip, "environment": args.env, "apps": rows})
    elif rows:
        print(cli.table([_shown(row) for row in rows]))
        print(out)
    return 1 if failed else 0


def _chosen(git: Git, tip: str, environments: Sequence[str], args: argparse.Namespace) -> list[Release]:
    """The released apps that were asked for; of each its own release, not those of canaries."""
    places = [place for place, _ in history.files_at(git, tip) if place[1] == args.env]
    apps = [app for app, _ in places]
    for option, name, known in (("--env", args.env, environments), ("--app", args.app, apps)):
        if name is not None and name not in known:
            raise Refused(f"{option} {name}: nothing of that name on {publish.BRANCH}; there is {', '.join(known)}")
    asked = {place for place in places if args.app in (None, place[0])}
    listed = [item for item in history.all_at(git, tip, asked) if item.canary is None]
    released = [item for item in listed if item.released]
    if args.app and not released:
        raise Refused(f"{listed[0].file}: {args.app} is not released in {args.env}, so there is nothing to judge")
    number, count = args.part
    return released[number - 1 :: count]


def _logs(git: Git, tip: str, items: Sequence[Release]) -> dict[str, Log | None]:
    """Where each app's service logs, by the app, according to what is rendered."""
    folders = {layout.overlay(item.app, item.environment): item.app for item in items}
    with snapshot.at(git, tip).copied(folders) as tree:
        renders = kustomize.rendered_all(tree, folders)
        return {folders[folder]: _written(items) or _captured(items) for folder, items in renders.items()}


def _written(items: Sequence[Object]) -> Log | None:
    found = (value for item in items for value in workloads.variables(item, VARIABLE).values() if value)
    return next(((value, "") for value in found), None)


def _captured(items: Sequence[Object]) -> Log | None:
    """Where an endpoint captures what it is asked and what it answers. The place itself lies in that of the labels."""
    kinds = {workloads.kind_of(item): mapping(item.get("spec")) for item in items}
    given = at(kinds.get(ack.CONFIG), "dataCaptureConfig")
    uri, name = at(given, "destinationS3URI"), at(kinds.get(ack.ENDPOINT), "endpointName")
    modes = {str(each.get("captureMode")) for each in mappings(at(given, "captureOptions"))}
    if (
        not uri
        or at(given, "enableCapture") is False
        or not ({"Input", "Output"} <= modes or "InputAndOutput" in modes)
    ):
        return None
    place, _, folder = str(uri).rstrip("/").rpartition("/")
    return f"{place}/", f"{folder}/{name}"


def _address(uri: str) -> str:
    """The monitoring runs in another folder: a relative path would be another one there."""
    return uri if "://" in uri else str(Path(uri).absolute())


def _judge(
    python: ModelPython, args: argparse.Namespace, item: Release, log: Log, out: Path
) -> tuple[int, Mapping[str, Any] | None]:
    """The exit code of the monitoring, and its verdict if there is one."""
    version = parse_flavour(item.uri)[0]
    uri, endpoint = log
    options = {"endpoint": endpoint or None, "window": args.window, "rows": args.rows, "min-rows": args.min_rows}
    with python.running(
        "monitoring", "--version", str(version), "--digest", item.digest, "--log", uri, "--out", out,
        "--environment", item.environment, "--app", item.app,
        *(word for name, value in options.items() if value is not None for word in (f"--{name}", value)),
    ) as process:  # fmt: skip
        _, errors = process.communicate()
    for line in errors.splitlines():
        said, _, rest = line.partition(": ")
        print(f"{said}: {item.target}: {rest}" if said == "error" else line, file=sys.stderr)
    file = out / layout.VERDICT_FILE
    return process.returncode, json.loads(file.read_text()) if file.is_file() else None


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    verdict = row["verdict"]
    shown = {"app": row["app"], "version": row["version"]}
    if not verdict:
        return shown | {"rows": "-", "drifted": "not judged", "quality": "-"}
    measured = (verdict["quality"] or {}).get("metrics", {})
    return shown | {
        "rows": str(verdict["rows"]),
        "drifted": ", ".join(verdict["drifted_columns"]) or "none",
        "quality": ", ".join(f"{name} {values['current']:.4f}" for name, values in measured.items()) or "-",
    }


if __name__ == "__main__":
    raise SystemExit(main())

"""Judge what the apps of an environment were asked lately against what their running versions were made from.

Finds in Git which version an app runs and where its service logs its predictions, and has model-src/monitoring compare
the two, with the Python of model-src/.venv-monitor or model-src/.venv. The reports go to --out/APP/: report.html for
people, verdict.json for check_retrain.py, drift.prom for Prometheus. The exit code is 1 when something has drifted or
could not be judged; stderr says what.

  python scripts/check_drift.py --app iris-api --env prod
  python scripts/check_drift.py --app iris-api --env prod --rows 500 --out drift
  python scripts/check_drift.py --env prod --window 7d --json     every app of the environment that writes a log
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gitops import cli
from gitops.cli import Refused
from gitops.manifests import kustomize, workloads
from gitops.manifests.objects import Object
from gitops.models import versions
from gitops.releases import history
from gitops.releases.release import Release
from gitops.repo import layout, publish, snapshot
from gitops.repo.git import Git

VARIABLE = "REQUEST_LOG_URI"
ENVIRONMENTS = ("model-src/.venv-monitor", "model-src/.venv")
SET_UP = "python scripts/setup.py monitor"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    add = parser.add_argument
    add("--env", required=True, help="the environment")
    add("--app", help="only this app")
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


def positive(text: str) -> str:
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows above 0")
    return text


def check(args: argparse.Namespace) -> int:
    git = Git(args.root)
    tip = publish.tip(git)
    items = _chosen(history.all_at(git, tip), args)
    logs = {item.app: _address(args.log) for item in items} if args.log else _logs(git, tip, items)
    if args.app and not logs[args.app]:
        raise Refused(
            f"{layout.overlay(args.app, args.env)}: no container with the variable {VARIABLE}; only our own service"
            " writes a request log, --log names one that is elsewhere"
        )
    for item in items:
        if not logs[item.app]:
            cli.say(f"{item.app} in {args.env} writes no request log")
    python = _python(args.root)
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


def _chosen(listed: Sequence[Release], args: argparse.Namespace) -> list[Release]:
    """The released apps that were asked for; of each its own release, not those of canaries."""
    listed = [item for item in listed if item.canary is None]
    for option, field, name in (("--env", "environment", args.env), ("--app", "app", args.app)):
        known = dict.fromkeys(getattr(item, field) for item in listed)
        if name is not None and name not in known:
            raise Refused(f"{option} {name}: nothing of that name on {publish.BRANCH}; there is {', '.join(known)}")
        listed = [item for item in listed if name in (None, getattr(item, field))]
    released = [item for item in listed if item.released]
    if args.app and not released:
        raise Refused(f"{listed[0].file}: {args.app} is not released in {args.env}, so there is nothing to judge")
    return released


def _logs(git: Git, tip: str, items: Sequence[Release]) -> dict[str, str | None]:
    """Where each app's service logs, by the app, according to what is rendered."""
    with snapshot.at(git, tip).exported() as tree:
        folders = {layout.overlay(item.app, item.environment): item.app for item in items}
        texts = kustomize.build_all(tree, [*folders])
        return {folders[folder]: _variable(kustomize.objects(text)) for folder, text in texts.items()}


def _variable(items: Sequence[Object]) -> str | None:
    return next((value for item in items for value in workloads.variables(item, VARIABLE).values() if value), None)


def _address(uri: str) -> str:
    """The monitoring runs in another folder: a relative path would be another one there."""
    return uri if "://" in uri else str(Path(uri).absolute())


def _python(root: Path) -> Path:
    """The interpreter that has the monitoring's packages. Raises Refused with the set-up command."""
    for folder in ENVIRONMENTS:
        python = root / folder / "bin/python"
        # Importing it takes seconds, looking for it does not.
        look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('evidently') is None)"
        if python.exists() and not subprocess.run([python, "-c", look], capture_output=True).returncode:
            return python
    raise Refused(f"{' and '.join(ENVIRONMENTS)}: neither has the packages of the monitoring; run `{SET_UP}`")


def _judge(
    python: Path, args: argparse.Namespace, item: Release, log: str, out: Path
) -> tuple[int, Mapping[str, Any] | None]:
    """The exit code of the monitoring, and its verdict if there is one."""
    version = versions.parse_uri(item.uri.rstrip("/").rpartition("/")[0])
    options = {"window": args.window, "rows": args.rows, "min-rows": args.min_rows}
    done = subprocess.run(
        [
            python, "-m", "monitoring", "--version", str(version), "--digest", item.digest, "--log", log, "--out", out,
            "--environment", item.environment, "--app", item.app,
            *(word for name, value in options.items() if value is not None for word in (f"--{name}", value)),
        ],
        cwd=args.root / "model-src", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in done.stderr.splitlines():
        said, _, rest = line.partition(": ")
        print(f"{said}: {item.target}: {rest}" if said == "error" else line, file=sys.stderr)
    file = out / layout.VERDICT_FILE
    return done.returncode, json.loads(file.read_text()) if file.is_file() else None


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

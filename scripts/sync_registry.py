"""Keep MLflow's model registry in step with what runs where by Git.

For every model that an app serves, the registered versions get an alias for each environment (`production` for the
one that the policy calls so),
tags that name the apps that run them, and the tag `stage`: Production, Staging, Archived or None. MLflow's own stages
are deprecated and left alone. What each of them means is in model-src/lifecycle/registry.py, which this runs with the
Python of model-src/.venv. The registry is that of MLFLOW_TRACKING_URI, or model-src/mlflow.db.

All changes are computed before the first is made; running it again changes nothing. A released version that the
registry does not know is named, and the exit code is then 1, after the rest was set.

  python scripts/sync_registry.py --dry-run
  python scripts/sync_registry.py --model wine --json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gitops import cli
from gitops.manifests import yamledit
from gitops.programs import model_python
from gitops.programs.model_python import ModelPython
from gitops.releases import history
from gitops.releases.release import Release
from gitops.repo import publish, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import Policy

from contract.errors import Refused
from contract.uri import parse_flavour

PROBLEM = re.compile(r"model-src/models/[^/]+/problem\.yaml")
LOCAL = "sqlite:///{}/model-src/mlflow.db"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--model", help="only this model")
    return cli.run(sync, parser.parse_args(argv))


def sync(args: argparse.Namespace) -> None:
    python = model_python.find(cli.ROOT, model_python.MLFLOW)
    git = Git(args.root)
    git.require_full_history()
    tip = publish.tip(git)
    running = newest_first(git, tip)
    names, faults = registered_names(git, tip, running, args.model)
    asked = wanted(snapshot.at(git, tip).policy, names, running, history.ever(git, tip))

    told, made = ask(python, asked, args)
    if args.json:
        cli.print_json({"tip": tip, "dry_run": args.dry_run} | told)
    count = len(told["changes"])
    verb = "would make" if args.dry_run else "made"
    what = f"{verb} {count if args.dry_run else made} changes" if count else "nothing to change"
    cli.say(f"{what} in {told['registry']}, according to {publish.BRANCH} at {tip[:12]}")
    if faults := faults + unknown_faults(told, running):
        raise Refused(*faults)


def newest_first(git: Git, tip: str) -> list[Release]:
    """What runs, the release that came last first. Those of one commit are in the order of environments and apps."""
    order = {commit: place for place, commit in enumerate(git.line(tip))}
    running = [item for item in history.all_at(git, tip) if item.released]
    came = {item: order[since.commit] for item, since in zip(running, history.since(git, tip, running), strict=True)}
    return sorted(running, key=came.__getitem__)


def model_of(item: Release) -> str:
    return parse_flavour(item.uri)[0].model


def registered_names(
    git: Git, tip: str, running: Sequence[Release], chosen: str | None
) -> tuple[dict[str, str], list[str]]:
    """By model, its name in the registry, for those that have one and, if given, for the chosen one; and a fault for
    each that runs and has none. Raises Refused where two models have the same, and when nothing is known of `chosen`.
    """
    files = [path for path in git.files(tip, "model-src/models") if PROBLEM.fullmatch(path)]
    texts = git.show_all([f"{tip}:{path}" for path in files])
    said = {path.split("/")[2]: _registered_as(path, text or b"") for path, text in zip(files, texts, strict=True)}
    names = {model: name for model, name in sorted(said.items()) if name}
    known = sorted({*names, *map(model_of, running)})
    if chosen is not None and chosen not in known:
        raise Refused(f"--model {chosen}: no such model on {publish.BRANCH}; there is {', '.join(known)}")
    for name in names.values():
        if len(same := [model for model in names if names[model] == name]) > 1:
            raise Refused(
                f"model-src/models/{same[1]}/problem.yaml: registered_as: {name} is the name of {same[0]} already"
            )
    faults = [
        f"model-src/models/{model}/problem.yaml: registered_as: missing on {publish.BRANCH}, and {model} runs; name it"
        " as MLflow's registry does"
        for model in known
        if model not in names and chosen in (None, model)
    ]
    return {model: name for model, name in names.items() if chosen in (None, model)}, faults


def _registered_as(file: str, text: bytes) -> str | None:
    data = yamledit.load(text, file)
    name = data.get("registered_as") if isinstance(data, dict) else None
    return name if isinstance(name, str) else None


def wanted(
    policy: Policy, names: Mapping[str, str], running: Sequence[Release], ever: Collection[Release]
) -> dict[str, Any]:
    """What model-src/lifecycle/registry.py is told, by registered name."""
    fields = ("environment", "app", "canary", "version", "digest", "mlflow_run")
    releases: dict[str, list[dict[str, Any]]] = {}
    for item in running:
        releases.setdefault(model_of(item), []).append({field: getattr(item, field) for field in fields})
    ran: dict[str | None, set[tuple[str, str]]] = {}
    for item in ever:
        ran.setdefault(_named(item, names), set()).add((item.version, item.digest))
    return {
        name: {
            "environments": policy.environments,
            "production": policy.production,
            "releases": releases.get(model, []),
            # What a model of another name ran may have been this one, before it was renamed.
            "ran": sorted(ran.get(model, set()) | ran.get(None, set())),
        }
        for model, name in names.items()
    }


def _named(item: Release, names: Mapping[str, str]) -> str | None:
    """The model of an old release, if it is one of these."""
    try:
        return model if (model := model_of(item)) in names else None
    except Refused:
        return None


def ask(python: ModelPython, asked: Mapping[str, Any], args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """What has to change in the registry, shown before it is changed, and how many changes were made."""
    env = {"MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI") or LOCAL.format(args.root)}
    options = ["--dry-run"] if args.dry_run else []
    with python.running("lifecycle.registry", *options, stdin=subprocess.PIPE, env=env) as process:
        assert process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError):  # it ended at once, and its errors have why
            json.dump(asked, process.stdin)
            process.stdin.close()
        first = process.stdout.readline()
        told: dict[str, Any] = json.loads(first) if first else {}
        if first and told["changes"] and not args.json:
            print(cli.table([_row(change) for change in told["changes"]]), flush=True)
        second, errors = process.stdout.read(), process.stderr.read() if process.stderr else ""
    if process.returncode:
        lines = [line.removeprefix("error: ") for line in errors.splitlines() if line.startswith("error: ")]
        end = f"ended with {process.returncode}: {errors.strip()[-300:]}"
        raise Refused(*lines or [f"`python -m lifecycle.registry` in {python.source} {end}"])
    return told, int(json.loads(second)["made"])


def _row(change: Mapping[str, Any]) -> dict[str, str]:
    return {
        "registered model": change["model"],
        "number": str(change["number"]),
        "version": change["version"],
        "what": f"{change['kind']} {change['name']}",
        "before": change["before"] or "-",
        "after": change["after"] or "-",
    }


def unknown_faults(told: Mapping[str, Any], running: Sequence[Release]) -> list[str]:
    """A line for each release that the registry does not know."""
    files = {(item.environment, item.app, item.canary): item.file for item in running}
    return [
        f"{files[item['environment'], item['app'], item['canary']]}: {item['version']} runs, and {item['model']} in"
        f" {told['registry']} has no version with the tags version and digest of it; was its run {item['mlflow_run']}"
        " recorded in another registry? Name that with MLFLOW_TRACKING_URI"
        for item in told["unknown"]
    ]


if __name__ == "__main__":
    raise SystemExit(main())

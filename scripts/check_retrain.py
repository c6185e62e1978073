"""Whether a model is due to be trained again, by the rules of model-src/models/MODEL/retraining.yaml on cicd.

Looks at the version that runs in an environment: how long ago it was first released, and what check_drift.py found of
it. Prints `retrain: true` or `retrain: false` and why, and exits with 0 in both cases; where it cannot tell, it prints
nothing and exits with 1. A rule that needs a verdict is not judged without one.

  python scripts/check_retrain.py --model wine --env prod
  python scripts/check_retrain.py --model wine --env prod --verdict drift/wine-api/verdict.json
  python scripts/check_retrain.py --env prod --json     every model that runs there
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gitops import cli, models
from gitops.manifests import yamledit
from gitops.manifests.documents import schema_faults
from gitops.models import s3, store
from gitops.releases import history
from gitops.releases.release import Release
from gitops.repo import layout, publish, snapshot
from gitops.repo.git import Git

from contract import verdict
from contract.errors import Refused
from contract.manifest import Manifest
from contract.uri import VersionURI, parse_flavour
from contract.verdict import Verdict

POLICY_FILE = "retraining.yaml"
_SCHEMAS = Path(models.__file__).parent


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument("--env", help="the environment (default: the last of the policy's production)")
    parser.add_argument("--model", help="only this model")
    parser.add_argument(
        "--verdict", type=Path, action="append", metavar="FILE",
        help=f"what check_drift.py wrote, once or more (default: all {layout.VERDICT_FILE} in"
        f" {layout.DRIFT_REPORTS}/ENV that are of running versions)",
    )  # fmt: skip
    return cli.run(decide, parser.parse_args(argv))


@dataclass(frozen=True)
class Reason:
    """What one rule finds. `due` is None where it cannot be judged."""

    rule: str
    due: bool | None
    why: str


def decide(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    tip = publish.tip(git)
    promotion = snapshot.at(git, tip).policy
    environments = promotion.environments
    args.env = args.env or promotion.production[-1]
    places = {place for place, _ in history.files_at(git, tip) if place[1] == args.env}
    running = _running(history.all_at(git, tip, places), environments, args)
    verdicts = _verdicts(args, running)
    rows: list[dict[str, Any]] = []
    paths = [f"model-src/models/{model}/{POLICY_FILE}" for model in running]
    texts = git.show_all([f"{tip}:{path}" for path in paths])
    policies = [read_policy(text, path) for text, path in zip(texts, paths, strict=True)]
    # Training with the same code gives a version of the same date.
    came = history.first_released(git, tip, {item.digest for items in running.values() for item in items})
    born = {digest: datetime.fromisoformat(change.date) for digest, change in came.items()}
    for (model, items), policy in zip(running.items(), policies, strict=True):
        # Where apps run several versions, the newest gives the model's age.
        newest = max(items, key=lambda item: born[item.digest])
        trained = _manifest(newest).metrics
        reasons = [*judge(policy, (datetime.now(UTC) - born[newest.digest]).days, verdicts[model], trained)]
        rows.append(
            {
                "model": model,
                "version": newest.version,
                "retrain": any(reason.due for reason in reasons),
                "reasons": [asdict(reason) for reason in reasons],
            }
        )
    retrain = any(row["retrain"] for row in rows)
    if args.json:
        cli.print_json({"tip": tip, "environment": args.env, "retrain": retrain, "models": rows})
        return
    print(f"retrain: {str(retrain).lower()}")
    for row in rows:
        for reason in row["reasons"]:
            found = {True: "due", False: "not due", None: "not judged"}[reason["due"]]
            print(f"- {row['model']} {row['version']}: {reason['rule']}: {found}: {reason['why']}")


def judge(
    policy: Mapping[str, Any], age: int, verdicts: Sequence[Verdict], trained: Mapping[str, float]
) -> Iterator[Reason]:
    """What each rule of a policy finds of a version that was first released `age` days ago. `verdicts` are those of the
    apps that run the model, `trained` the metrics of the version's manifest."""
    if rule := policy.get("schedule"):
        most = rule["max_age_days"]
        yield Reason("schedule", age > most, f"first released {age} days ago, at most {most}")
    for found in verdicts:
        if rule := policy.get("performance"):
            yield _performance(rule, found, trained)
        if rule := policy.get("drift"):
            yield _drift(rule, found)
    if not verdicts:
        for name in ("performance", "drift"):
            if name in policy:
                yield Reason(name, None, "there is no verdict of check_drift.py")


def _performance(rule: Mapping[str, Any], found: Verdict, trained: Mapping[str, float]) -> Reason:
    metric, quality = rule["metric"], found.quality
    known = quality.rows if quality else 0
    if quality is None or known < rule["min_labels"]:
        return Reason("performance", None, f"{known} rows with a label, at least {rule['min_labels']} are needed")
    if metric not in quality.metrics:
        return Reason("performance", None, f"{metric} is not among {', '.join(quality.metrics)}")
    value = quality.metrics[metric].current
    bound = rule.get("below", rule.get("above"))
    due = value < bound if "below" in rule else value > bound
    then = f", {trained[metric]:.4f} when it was trained" if metric in trained else ""
    wanted = f"due {'below' if 'below' in rule else 'above'} {bound:g}"
    return Reason("performance", due, f"{metric} {value:.4f} on {known} rows, {wanted}{then}")


def _drift(rule: Mapping[str, Any], found: Verdict) -> Reason:
    drifted, columns = found.drifted_columns, found.columns
    due = len(drifted) >= rule["columns"] if "columns" in rule else len(drifted) / columns >= rule["share"]
    wanted = f"{rule['columns']} columns" if "columns" in rule else f"a share of {rule['share']:g}"
    named = f": {', '.join(drifted)}" if drifted else ""
    until = found.until.isoformat().replace("+00:00", "Z")
    return Reason(
        "drift",
        due,
        f"{len(drifted)} of {columns} columns until {until}, due from {wanted} on{named}",
    )


def read_policy(text: bytes | None, path: str) -> dict[str, Any]:
    """Raises Refused, one line a fault, unless the file is a policy."""
    if text is None:
        raise Refused(f"{path}: missing on {publish.BRANCH}; it has the rules for training the model again")
    data = yamledit.load(text, path)
    if faults := schema_faults(data, _SCHEMAS / "retraining.schema.json"):
        raise Refused(*[f"{path}: {fault}" for fault in faults])
    return dict(data)


def _running(
    listed: Sequence[Release], environments: Sequence[str], args: argparse.Namespace
) -> dict[str, list[Release]]:
    """The releases of an environment by the model that they run, those of canaries left out."""
    if args.env not in environments:
        raise Refused(f"--env {args.env}: nothing of that name on {publish.BRANCH}; there is {', '.join(environments)}")
    found: dict[str, list[Release]] = {}
    for item in listed:
        if item.released and item.canary is None:
            found.setdefault(_uri(item).model, []).append(item)
    if args.model and args.model not in found:
        raise Refused(f"--model {args.model}: runs nowhere in {args.env}; there is {', '.join(found) or 'nothing'}")
    return {model: items for model, items in sorted(found.items()) if args.model in (None, model)}


def _uri(item: Release) -> VersionURI:
    return parse_flavour(item.uri)[0]


def _manifest(item: Release) -> Manifest:
    uri = _uri(item)
    manifest = store.read_manifest(s3.Store(uri.bucket), uri)
    if manifest.digest != item.digest:
        raise Refused(f"{item.file}: digest: {item.digest}, but {uri} has {manifest.digest}; find out who changed it")
    return manifest


def _verdicts(args: argparse.Namespace, running: Mapping[str, Sequence[Release]]) -> dict[str, list[Verdict]]:
    """By model. Raises Refused for a file that is no verdict and, if it was named, for one that is not of a version
    that runs in the environment."""
    found: dict[str, list[Verdict]] = {model: [] for model in running}
    folder = args.root / layout.DRIFT_REPORTS / args.env
    for file in args.verdict or sorted(folder.glob(f"*/{layout.VERDICT_FILE}")):
        judged = verdict.parse(file.read_bytes(), str(file))
        model, version = judged.model, judged.version
        items = running.get(model, ())
        fault = None
        if judged.environment != args.env:
            fault = f"of {judged.environment}, not of {args.env}"
        elif version not in {item.version for item in items}:
            fault = f"of {model} {version}, which is not what runs in {args.env}"
        if fault and args.verdict:
            raise Refused(f"{file}: {fault}; run `python scripts/check_drift.py --env {args.env}` again")
        if fault:
            cli.say(f"{file}: {fault}")
        else:
            found[model].append(judged)
    return found


if __name__ == "__main__":
    raise SystemExit(main())

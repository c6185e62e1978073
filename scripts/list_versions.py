"""List the versions of a model in the bucket, with their metrics, their lineage and where each runs.

The metrics are those of the manifests; the one that the model's problem.yaml has a limit for comes first, with it.
Where the policy asks for signatures, it also shows whether each has one: valid, by another (key or identity), no, or
invalid.
--verify downloads and hashes every file of every version and names what does not match, in the replicas of the policy
too, which it lists where they have a version.

  python scripts/list_versions.py --model wine
  python scripts/list_versions.py --model wine --verify
  python scripts/list_versions.py --model wine --json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from gitops import cli
from gitops.manifests import yamledit
from gitops.models import s3, signing, store
from gitops.models.s3 import Store
from gitops.models.signing import Signer
from gitops.releases import history, verification, withdrawn
from gitops.repo import layout, publish, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import POLICY_FILE, Policy
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused
from contract.manifest import Manifest
from contract.uri import VersionURI


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--bucket", metavar="s3://BUCKET", help=f"default: the bucket of {POLICY_FILE}")
    parser.add_argument("--verify", action="store_true", help="hash every stored file again")
    return cli.run(show, parser.parse_args(argv))


def show(args: argparse.Namespace) -> None:
    source = s3.model_bucket(args.bucket, args.root)
    git = Git(args.root)
    tip = publish.tip(git)
    policy = snapshot.at(git, tip).policy
    own = args.verify and source.bucket == policy.model_bucket
    replicas = [s3.replica(policy, bucket) for bucket in policy.replicas] if own else []
    found = store.list_versions(source, args.model)
    running = _running(git, tip, [uri.version for uri in found])
    named = verification.named(git, tip) if args.verify else {}
    bad = withdrawn.read(git.show(tip, layout.WITHDRAWN))
    signer = signing.asked(Snapshot(args.root))
    faults: list[str] = []
    rows: list[dict[str, Any]] = []
    if not found and args.model not in layout.models(args.root):
        raise Refused(
            f"--model {args.model!r}: no such model: model-src/ has {', '.join(layout.models(args.root)) or 'none'},"
            f" and s3://{source.bucket} has no version of it"
        )
    for uri in found:
        try:
            manifest = store.read_manifest(source, uri)
            if args.verify:
                faults += store.file_faults(source, uri, manifest)
                faults += verification.manifest_faults(uri, manifest, named)
            where = {replica.bucket: _is_there(replica, uri, manifest, signer, faults) for replica in replicas}
            faults += _lacking(policy, uri, where, running.get(manifest.digest, []))
            signed = {"signed": _signed(source, uri, manifest, signer, faults)} if signer else {}
        except Refused as refused:
            faults += refused.lines
            continue
        known: dict[str, Any] = {
            "runs_in": running.get(manifest.digest, []),
            "withdrawn": bad.get(f"{uri.model}.{uri.version}"),
        }
        known |= {"manifest": manifest.sha256} | ({"replicas": where} if replicas else {})
        rows.append({"uri": str(uri)} | known | signed | json.loads(manifest.text))
    if args.json:
        cli.print_json(rows)
    elif rows:
        metrics = _shown(rows, _gate(snapshot.at(git, tip), args.model))
        print(cli.table([_row(row, metrics) for row in rows]))
    if not found:
        cli.say(f"no version of {args.model} in s3://{source.bucket}; upload_model.py adds one")
    if faults:
        raise Refused(*faults)
    if args.verify:
        cli.say(f"{len(rows)} versions verified, every stored byte as in its manifest")


def _running(git: Git, tip: str, versions: Sequence[str]) -> dict[str, list[str]]:
    """`app in environment` by the digest that runs there, according to Git."""
    found: dict[str, list[str]] = {}
    for item in history.all_at(git, tip, history.naming(snapshot.at(git, tip), versions)):
        found.setdefault(item.digest, []).append(f"{item.app} in {item.environment}")
    return found


def _is_there(replica: Store, uri: VersionURI, manifest: Manifest, signer: Signer | None, faults: list[str]) -> bool:
    """Whether a replica has a version; what is wrong with it is a fault too."""
    try:
        there = store.is_copied(replica, uri, manifest)
    except s3.Unanswered:
        raise
    except Refused as refused:
        faults += refused.lines
        return True
    faults += verification.copy_faults(replica, uri, manifest, signer) if there else []
    return there


def _lacking(policy: Policy, uri: VersionURI, where: Mapping[str, bool], places: Sequence[str]) -> list[str]:
    """Replicas that lack a version which runs where models are taken from them."""
    environments = dict.fromkeys(place.partition(" in ")[2] for place in places)
    return [
        verification.missing(policy.at(each).replica, uri, each)
        for each in environments
        if where.get(policy.at(each).replica) is False
    ]


def _signed(source: Store, uri: VersionURI, manifest: Manifest, signer: Signer, faults: list[str]) -> str:
    """What the table has of a version's signature; one that does not verify is a fault too."""
    try:
        store.require_signature(source, uri, manifest, signer)
    except signing.Unsigned as unsigned:
        return "by another" if unsigned.others else "no"
    except Refused as refused:
        faults += refused.lines
        return "invalid"
    return "valid"


def _gate(tree: Snapshot, model: str) -> dict[str, str]:
    """The metric that the model's problem.yaml has a limit for, with that limit; none where there is no such file."""
    file = f"model-src/models/{model}/problem.yaml"
    try:
        metric = yamledit.load(tree.read(file) or b"", file)["metric"]
        limit = f">= {metric['at_least']}" if "at_least" in metric else f"<= {metric['at_most']}"
    except (Refused, TypeError, KeyError):
        return {}
    return {str(metric.get("name")): limit}


def _shown(rows: Sequence[dict[str, Any]], gate: dict[str, str]) -> dict[str, str]:
    """The metrics that a line has room for, each with its limit, that of the gate first; bounds of another are none."""
    found = dict.fromkeys([*gate, *(name for row in rows for name in row["metrics"])], "") | gate
    whole = [name for name in found if name in gate or not any(name == f"{one}{end}" for one in found for end in _ENDS)]
    return {name: found[name] for name in whole[:_ROOM]}


# All of them are in --json.
_ROOM, _ENDS = 3, ("_low", "_high")


def _row(row: dict[str, Any], metrics: dict[str, str]) -> dict[str, str]:
    """A line of the table, with a column for each of the metrics, whose header has the limit."""
    return {
        "version": row["version"],
        **{f"{name} {limit}".strip(): _number(row["metrics"].get(name)) for name, limit in metrics.items()},
        "code": row["code_commit"][:12],
        "data": row["data_digest"].removeprefix("sha256:")[:12],
        "mlflow run": row["mlflow_run"][:12],
        **({"signed": row["signed"]} if "signed" in row else {}),
        **({"replicas": _listed(row["replicas"])} if "replicas" in row else {}),
        "runs in": _places(row["runs_in"]) or "-",
        **({"withdrawn": row["withdrawn"]} if row["withdrawn"] else {}),
    }


def _listed(replicas: Mapping[str, bool]) -> str:
    return ", ".join(bucket for bucket, there in replicas.items() if there) or "-"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2e}" if 0 < abs(value) < 0.001 else f"{value:.4f}"


def _places(listed: Sequence[str]) -> str:
    """`app in environment, environment; app in environment`."""
    environments: dict[str, list[str]] = {}
    for app, _, environment in (place.partition(" in ") for place in listed):
        environments.setdefault(app, []).append(environment)
    return "; ".join(f"{app} in {', '.join(names)}" for app, names in environments.items())


if __name__ == "__main__":
    raise SystemExit(main())

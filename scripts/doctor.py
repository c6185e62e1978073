"""List what is missing on this machine or in this fork, with the command that mends it.

Exit code 0 means that everything is there that bump, promote and validate need; --s3 also asks for the model bucket.
--aws compares the account of your credentials with what the stacks of infra/ promise, and changes nothing there.
With a token in GITHUB_TOKEN, GitHub is asked whether its rules for the branches are those that the checks rely on.

  python scripts/doctor.py
  python scripts/doctor.py --s3
  python scripts/doctor.py --aws
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gitops import cli
from gitops.manifests import kustomize
from gitops.models import account, signing
from gitops.models.s3 import Store
from gitops.programs import tools
from gitops.repo import branch_rules, github, layout, publish, stacks
from gitops.repo.git import OLDEST, TOO_OLD, Git
from gitops.repo.policy import Policy, read_policy
from gitops.repo.snapshot import Snapshot

from contract import waiting
from contract.errors import Refused


@dataclass(frozen=True)
class Check:
    """What was looked at, and what to do about it if it is not as it should be."""

    what: str
    remedy: str | None = None
    unknown: bool = False
    """Whether it could not be looked at from here."""

    @property
    def missing(self) -> bool:
        return self.remedy is not None and not self.unknown


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument(
        "--s3", action="store_true", help="also ask for the model bucket and its replicas, with your credentials"
    )
    parser.add_argument("--aws", action="store_true", help="also compare the account on AWS with infra/")
    return cli.run(examine, parser.parse_args(argv))


def examine(args: argparse.Namespace) -> int:
    checks = [*machine(), *repository(args.root), *(bucket(args.root) if args.s3 else [])]
    checks += on_aws(args.root) if args.aws else []
    if args.json:
        cli.print_json([vars(check) for check in checks])
    else:
        for check in checks:
            state = "unknown" if check.unknown else "MISSING" if check.missing else "ok"
            print(f"{state:8} {check.what}")
            if check.remedy:
                print(f"         {check.remedy}")
    return int(any(check.missing for check in checks))


def machine() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Check(f"Python {version}", None if supported else "install Python 3.11, 3.12 or 3.13, then run `make setup`")
    for program in ("git", "make"):
        yield Check(program, None if shutil.which(program) else f"install {program}")
    yield Check("kustomize and kubeconform", None if tools.MANIFESTS.built else "run `make setup`")
    yield Check("the validation of Kubernetes", None if tools.VALIDATION.built else "run `make setup`")
    yield Check("schemas", None if tools.SCHEMAS.path.is_dir() else "run `make setup`")


def repository(root: Path) -> Iterator[Check]:
    try:
        git = Git(root)
        policy = read_policy(root)
    except Refused as refused:
        yield Check(str(root), "; ".join(refused.lines))
        return
    yield Check(f"git {'.'.join(map(str, git.version()))}", TOO_OLD if git.version() < OLDEST else None)
    yield from own_values(root)
    yield Check(f"policy: {', '.join(policy.environments)}; models in s3://{policy.model_bucket}")
    if policy.signing is None:
        yield Check("models need no signature; `python scripts/signing_key.py` makes a key and asks for it")
    else:
        yield _attempt("models are signed", lambda: signing.asked(Snapshot(root)))
    for setting in ("user.name", "user.email"):
        known = git.succeeds("config", setting)
        yield Check(f"git {setting}", None if known else f'run `git config --global {setting} "..."`')
    there = git.has_remote(publish.REMOTE)
    yield Check(f"remote {publish.REMOTE}", None if there else f"run `git remote add {publish.REMOTE} URL`")
    for name, call in (
        ("full history", git.require_full_history),
        (f"branch {publish.BRANCH}", lambda: publish.newest(git)),
        ("nothing uncommitted in what is deployed", lambda: publish.require_clean(git)),
    ):
        yield _attempt(name, call)
    yield from on_github(git, policy)


def own_values(root: Path) -> Iterator[Check]:
    """Before all else: what starts with the template's values would publish them."""
    remedy = "run `make init` with your values first; `python scripts/init_fork.py --check` lists what is left"
    check = [sys.executable, str(cli.ROOT / "scripts/init_fork.py"), "--root", str(root), "--check"]
    left = waiting.run(check, "init_fork.py --check", "run it yourself", capture_output=True).returncode
    yield Check("no value of the template is left", remedy if left else None)


def on_github(git: Git, policy: Policy) -> Iterator[Check]:
    what = "rules of the branches, code owners and environments on GitHub"
    name = github.repository(git)
    if name is None:
        yield Check(f"{what}: {publish.REMOTE} is elsewhere", "look at what the README asks of them there", True)
        return
    connected = github.connect(name)
    if connected is None:
        remedy = "set GITHUB_TOKEN to a token that may read administration and environments of the repository"
        yield Check(f"{what}: not looked at", remedy, True)
        return
    try:
        yield from (
            Check(f"GitHub: {found}", remedy) for found, remedy in branch_rules.examine(connected, git.root, policy)
        )
    except Refused as refused:
        yield Check(what, refused.lines[0])


def bucket(root: Path) -> Iterator[Check]:
    policy = read_policy(root)
    for name, region in ((policy.model_bucket, None), *policy.replicas.items()):
        yield _attempt(f"s3://{name}", partial(_list_models, name, region))


def _list_models(name: str, region: str | None) -> list[str]:
    return Store(name, region).keys("models/")


def on_aws(root: Path) -> Iterator[Check]:
    try:
        tree = Snapshot(root)
        renders = kustomize.rendered_all(root, layout.folders(root, tree.policy))
        for what, remedy, unknown in account.examine(root, stacks.needed(tree, renders)):
            yield Check(what, remedy or None, unknown)
    except Refused as refused:
        yield Check("AWS", refused.lines[0])


def _attempt(what: str, call: Callable[[], object]) -> Check:
    try:
        call()
    except Refused as refused:
        return Check(what, refused.lines[0])
    return Check(what)


if __name__ == "__main__":
    raise SystemExit(main())

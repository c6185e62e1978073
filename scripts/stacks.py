"""List what this repository needs on AWS below the cluster: the stacks of infra/, each with the command that makes it.

They are found by the policy and by what the manifests name: accounts, buckets, clusters, domains, roles and service
accounts. Nothing is asked of AWS and nothing is changed; a stack that breaks a rule is refused.

  python scripts/stacks.py --administrator arn:aws:iam::444455556666:role/platform --callers 203.0.113.0/24
  python scripts/stacks.py --only models,registry,github,reader,batch --json
  python scripts/stacks.py --set Zone=Z0123456789ABCDEFGHIJ     a value of each template that has this parameter
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gitops import cli
from gitops.checks import infra
from gitops.manifests import cloudformation, kustomize
from gitops.manifests.cloudformation import FOLDER, ROLE, Stack
from gitops.manifests.objects import Object
from gitops.repo import layout, stacks
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument("--administrator", metavar="ARN", help="the role of those who administer the clusters")
    parser.add_argument("--callers", metavar="CIDR,...", help="from where the clusters' API servers may be called")
    parser.add_argument("--only", metavar="TEMPLATE,...", help="only the stacks of these templates")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="the value of a parameter")
    return cli.run(show, parser.parse_args(argv))


def show(args: argparse.Namespace) -> None:
    tree = Snapshot(args.root)
    folders = layout.folders(args.root, tree.policy)
    found = stacks.needed(tree, kustomize.rendered_all(args.root, folders))
    chosen = _chosen(found, args)
    templates = {name: cloudformation.read(args.root / FOLDER, name) for name in {each.template for each in chosen}}
    chosen = [_with(each, templates[each.template], _given(args)) for each in chosen]
    faults = [fault for each in chosen for fault in infra.judge(templates[each.template], each)]
    if faults := [*dict.fromkeys(faults), *infra.uncertified(tree.policy, found), *infra.second_zones(chosen)]:
        raise Refused(*faults)
    if args.json:
        cli.print_json([vars(each) | {"command": command(each, templates[each.template])} for each in chosen])
        return
    for each in chosen:
        print(shlex.join(command(each, templates[each.template])))


def _chosen(found: Sequence[Stack], args: argparse.Namespace) -> list[Stack]:
    known = sorted({each.template for each in found})
    only = args.only.split(",") if args.only else known
    if unknown := sorted(set(only) - set(known)):
        raise Refused(f"--only {', '.join(unknown)}: no stack of this repository; the templates are {', '.join(known)}")
    return [each for each in found if each.template in only]


def _given(args: argparse.Namespace) -> dict[str, str]:
    named = {"Administrator": args.administrator, "Callers": args.callers}
    if wrong := [text for text in args.set if "=" not in text]:
        raise Refused(f"--set {wrong[0]}: write NAME=VALUE")
    return {name: value for name, value in named.items() if value} | dict(text.split("=", 1) for text in args.set)


def _with(stack: Stack, template: Object, given: dict[str, Any]) -> Stack:
    own = {name: value for name, value in given.items() if name in template.get("Parameters", {})}
    return replace(stack, parameters=dict(stack.parameters) | own)


def command(stack: Stack, template: Object) -> list[str]:
    """What makes a stack, or changes it to what it has to be, with the credentials of its account."""
    roles = any(item["Type"] == ROLE for item in template["Resources"].values())
    capabilities = ["--capabilities", "CAPABILITY_NAMED_IAM"] if roles else []
    parameters = [f"{name}={value}" for name, value in stack.parameters.items()]
    return [
        "aws", "cloudformation", "deploy", "--region", stack.region, "--stack-name", stack.name,
        "--template-file", f"{FOLDER}/{stack.template}.yaml", *capabilities, "--parameter-overrides", *parameters,
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())

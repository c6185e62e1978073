"""The IAM roles that manifests name: each is one that infra/ makes, for one environment alone. In which account it is,
the rule `places` compares."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gitops.checks import framework
from gitops.checks.framework import Finding, Repository, Rule
from gitops.manifests import cloudformation
from gitops.manifests.cloudformation import FOLDER, ROLE
from gitops.manifests.objects import Object, at
from gitops.repo import stacks
from gitops.repo.stacks import Named


def check_roles(repository: Repository) -> Iterator[Finding]:
    """A role is one of infra/, and one environment's own."""
    known, owners = _made(repository), dict[str, str]()
    for each in stacks.named(repository.renders):
        for fault in _faults(each, known, owners):
            yield framework.finding("roles", each.folder, each.item, f"{each.field}: {each.arn!r}{fault}")


def _faults(each: Named, known: set[str], owners: dict[str, str]) -> Iterator[str]:
    if not each.role:
        yield ": no ARN of a role; write arn:aws:iam::ACCOUNT:role/NAME"
        return
    if not each.environment:
        if at(each.item, "spec", "source", "chart") not in stacks.ADDONS and each.role not in known:
            yield f": no template of {FOLDER}/ makes this role; add one with RoleName {each.role}"
        return
    if each.item.get("kind") != "ServiceAccount":
        yield f": {FOLDER}/ makes roles for service accounts; annotate one"
    if (owner := owners.setdefault(each.arn, each.environment)) != each.environment:
        yield f": the role of {owner} too; give {each.environment} its own"


def _made(repository: Repository) -> set[str]:
    """The names of the roles that templates make whatever the parameters are."""
    files = sorted((repository.root / FOLDER).glob("*.yaml"))
    templates = [cloudformation.read(repository.root / FOLDER, file.stem) for file in files]
    return {name for template in templates for name in _names(template) if re.fullmatch(r"[\w+=,.@-]+", name)}


def _names(template: Object) -> Iterator[str]:
    for item in template["Resources"].values():
        if at(item, "Type") == ROLE:
            yield str(at(item, "Properties", "RoleName") or "")


RULES: dict[str, Rule] = {"roles": check_roles}

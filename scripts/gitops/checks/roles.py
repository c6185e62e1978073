"""The IAM roles that manifests and workflows name: each is one that infra/ makes, for one environment alone. In which
account it is, the rule `places` compares."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gitops.checks import framework
from gitops.checks.framework import Finding, Repository, Rule
from gitops.manifests import cloudformation
from gitops.manifests.cloudformation import FOLDER, ROLE
from gitops.manifests.objects import Object, at, mapping
from gitops.repo import beside, stacks
from gitops.repo.stacks import Named

WORKFLOWS = ".github/workflows"


def check_roles(repository: Repository) -> Iterator[Finding]:
    """A role is one of infra/, and one environment's own."""
    known, owners = _made(repository), dict[str, str]()
    for each in stacks.named(repository.renders):
        for fault in _faults(each, known, owners):
            yield framework.finding("roles", each.folder, each.item, f"{each.field}: {each.arn!r}{fault}")
    yield from _beside_clusters(repository)
    yield from _of_workflows(repository)


def _beside_clusters(repository: Repository) -> Iterator[Finding]:
    """What SageMaker and instances run as: each environment has one role for either. One that is not the environment's
    at all the rules `sagemaker` and `stack` name."""
    for found, template, end, *path in (
        (beside.models(repository.renders), "sagemaker", "sagemaker", "spec", "executionRoleARN"),
        (beside.instances(repository.renders), "vm-roles", "vm", "spec", "parameters", "InstanceProfile"),
    ):
        for each in found:
            namespace, given = repository.policy.namespace(each.environment), str(at(each.item, *path))
            name = given.rpartition("/")[2]
            if name.startswith(f"{namespace}-") and name != f"{namespace}-{end}":
                fault = f"not what {FOLDER}/{template}.yaml makes for {each.environment}; take {namespace}-{end}"
                yield framework.finding("roles", each.folder, each.item, f"{'.'.join(path)}: {given!r}: {fault}")


def _of_workflows(repository: Repository) -> Iterator[Finding]:
    """The variables by which workflows name roles: each is an output of a template, which `variable` tells."""
    known = {variable(name) for template in _templates(repository) for name in mapping(template.get("Outputs"))}
    for file in sorted((repository.root / WORKFLOWS).glob("*.y*ml")):
        asked = re.findall(r"\bvars\.(AWS_[A-Z_]+_ROLE)\b", file.read_text())
        for name in sorted(set(asked) - known):
            where = f"{WORKFLOWS}/{file.name}"
            yield Finding("roles", where, f"vars.{name}: no template of {FOLDER}/ has the output for it; add one")


def variable(output: str) -> str:
    """The variable of the repository on GitHub, or of one of its environments, that has the value of an output."""
    return f"AWS_{re.sub('(?<!^)(?=[A-Z])', '_', output).upper()}"


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
    names = {name for template in _templates(repository) for name in _names(template)}
    return {name for name in names if re.fullmatch(r"[\w+=,.@-]+", name)}


def _templates(repository: Repository) -> list[Object]:
    files = sorted((repository.root / FOLDER).glob("*.yaml"))
    return [cloudformation.read(repository.root / FOLDER, file.stem) for file in files]


def _names(template: Object) -> Iterator[str]:
    for item in template["Resources"].values():
        if at(item, "Type") == ROLE:
            yield str(at(item, "Properties", "RoleName") or "")


RULES: dict[str, Rule] = {"roles": check_roles}

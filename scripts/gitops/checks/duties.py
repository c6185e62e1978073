"""What must hold of a role of infra/: who takes it on, and that it may do its duty and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gitops.manifests import cloudformation, iam
from gitops.manifests.cloudformation import Stack, statements, texts
from gitops.manifests.objects import Object, at, mapping

Faults = Iterator[tuple[str, str]]
"""(field, what is wrong and what to do about it)"""
PRUNE = "ml-model-prune"
PREVIEW = "-preview"
"""Of the environments on GitHub in which pull requests show what they would change, by code that they changed."""
_READS = re.compile(r"[a-z0-9-]+:(BatchCheck|BatchGet|Describe|Get|Head|List)[A-Za-z]*")
_GITHUB, _SUBJECT = "token.actions.githubusercontent.com", r"system:serviceaccount:[a-z0-9-]+:[a-z0-9.-]+"
_ENVIRONMENT = r"repo:[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+:environment:[a-z0-9-]+"
# What takes roles on for us, and whether it tells for whose account: an instance is in one, and has no need to.
_SERVICES = {
    "cloudformation.amazonaws.com": True,
    "ec2.amazonaws.com": False,
    "eks.amazonaws.com": True,
    "sagemaker.amazonaws.com": True,
}
# Of what has no resource, the key of the condition that binds it all the same.
_BOUND_BY = {"cloudwatch:putmetricdata": "cloudwatch:namespace"}
_ONE_ROLE = re.compile(r"arn:aws[a-z-]*:iam::([0-9]{12}|\*):role/[\w+=,.@-]+")
# Types of resources alone, as in autoScalingGroup:*:autoScalingGroupName/*; in S3 they are names.
_ALL_OF_A_KIND = re.compile(r"arn:[^:]+:(?!s3:)[^:]+:[^:]*:[^:]*:([A-Za-z-]+[:/](\*:[A-Za-z]+/)?)?\*")
# What is only made there has no name of ours yet.
_NAMELESS = re.compile(r"(ec2|elasticloadbalancing):Create[A-Za-z]+")
_OF_PREVIEWS = re.compile(r"cloudformation:((Create|Delete)ChangeSet|TagResource)|iam:PassRole", re.IGNORECASE)
# CloudFormation makes with the rights of who asks what it is told by no role.
_BY_A_ROLE = re.compile(r"cloudformation:(CreateChangeSet|(Create|Delete|Update)Stack)", re.IGNORECASE)


def judge(item: Object, stack: Stack) -> Faults:
    """The faults of a role, whose functions are resolved."""
    name = str(at(item, "Properties", "RoleName"))
    if (namespace := stack.parameters.get("Namespace")) and not name.startswith(f"{namespace}-"):
        yield "RoleName", f"{name}: not of {namespace}, as all in this stack; begin it with {namespace}-"
    for each in statements(cloudformation.trust(item)):
        yield from ((f"AssumeRolePolicyDocument: {field}", fault) for field, fault in _trust(each, stack))
    for policy in texts(at(item, "Properties", "ManagedPolicyArns")):
        if re.search(r"(FullAccess|AdministratorAccess|PowerUserAccess)\b", policy):
            yield "ManagedPolicyArns", f"{policy}: allows more than any duty needs; write the actions"
    for document in cloudformation.documents(item):
        for each in statements(document):
            if each.get("Effect") == "Allow":
                yield from (("Policies", fault) for fault in _allowed(each, name))
                for action in texts(each.get("Action")) if _is_for_previews(item) else ():
                    if not _READS.fullmatch(action) and not _OF_PREVIEWS.fullmatch(action):
                        yield "Policies", f"{action}: a pull request would change what runs; remove it"


def _is_for_previews(item: Object) -> bool:
    keys = [at(each, "Condition", "StringEquals", f"{_GITHUB}:sub") for each in statements(cloudformation.trust(item))]
    return any(subject.endswith(PREVIEW) for key in keys for subject in texts(key))


# Who takes it on


def _trust(statement: Object, stack: Stack) -> Faults:
    principal = mapping(statement.get("Principal"))
    if not principal or "*" in [name for names in principal.values() for name in texts(names)]:
        yield "Principal", "everybody in the world may take it on; name one provider or service"
    if "AWS" in principal:
        yield "Principal", f"{', '.join(texts(principal['AWS']))}: roles are for GitHub, service accounts and AWS alone"
    for service in texts(principal.get("Service")):
        yield from _service(service, statement, stack)
    if "Federated" in principal:
        yield from _federated(statement, stack)


def _service(name: str, statement: Object, stack: Stack) -> Faults:
    if name not in _SERVICES and name != "*":
        yield "Principal", f"{name}: nothing here is for this service; write one of {', '.join(_SERVICES)}"
    account = texts(at(statement, "Condition", "StringEquals", "aws:SourceAccount"))
    if _SERVICES.get(name) and account != [stack.account]:
        found = ", ".join(account) or "missing"
        yield "Condition", f"aws:SourceAccount: {found}; write {stack.account}, or {name} takes it on for others"


def _federated(statement: Object, stack: Stack) -> Faults:
    conditions = mapping(statement.get("Condition"))
    if set(conditions) - {"StringEquals"}:
        yield "Condition", f"{', '.join(sorted(conditions))}: compare exactly, by StringEquals alone"
    keys = mapping(conditions.get("StringEquals"))
    audience = [value for key, values in keys.items() if key.endswith(":aud") for value in texts(values)]
    if audience != ["sts.amazonaws.com"]:
        yield "Condition", f"aud: {', '.join(audience) or 'missing'}; write sts.amazonaws.com"
    subjects = [value for key, values in keys.items() if key.endswith(":sub") for value in texts(values)]
    wanted = _ENVIRONMENT if f"{_GITHUB}:sub" in keys else _SUBJECT
    if not subjects or not all(re.fullmatch(wanted, each) for each in subjects):
        form = "repo:OWNER/NAME:environment:NAME" if wanted == _ENVIRONMENT else "system:serviceaccount:NAMESPACE:NAME"
        yield "Condition", f"sub: {', '.join(subjects) or 'missing'}; write {form}, without a wildcard"
    own = stack.parameters.get("Environment")
    for each in subjects:
        if own and each.rpartition(":")[2].removesuffix(PREVIEW) != own:
            yield "Condition", f"sub: {each}: another environment than {own}; write repo:OWNER/NAME:environment:{own}"


# What it may do


def _allowed(statement: Object, role: str) -> Iterator[str]:
    if unknown := sorted(statement.keys() & {"NotAction", "NotResource", "NotPrincipal"}):
        yield f"{', '.join(unknown)}: allows all that it does not name; write what is allowed"
    for action in texts(statement.get("Action")):
        if "*" in action or "?" in action:
            yield f"{action}: a wildcard; write the actions"
        elif not _READS.fullmatch(action):
            yield from _unbound(action, statement)
        plain = action.lower()  # as IAM compares them
        if iam.like(plain, "s3:deleteobjectversion") or (iam.like(plain, "s3:deleteobject") and role != PRUNE):
            yield f"{action}: nobody deletes a model but {PRUNE}, and nobody its bytes; remove it"
        if plain.startswith("sts:assumerole") or (plain == "iam:passrole" and not _is_passed_to_one(statement)):
            yield f"{action}: leads to the rights of other roles; remove it"
    for each in texts(statement.get("Resource")):
        if each.startswith("arn:aws:s3:::*") or re.fullmatch(r"arn:aws:s3:::[^/]+/\*", each):
            yield f"{each}: all of a bucket; name the folder"


def _unbound(action: str, statement: Object) -> Iterator[str]:
    """What changes something of which nothing tells that it is the role's own."""
    conditions = mapping(statement.get("Condition"))
    bound = _BOUND_BY.get(action.lower())
    asked_for = texts(at(conditions, "StringEquals", "cloudformation:RoleArn"))
    if _BY_A_ROLE.fullmatch(action) and not (asked_for and all(map(_ONE_ROLE.fullmatch, asked_for))):
        yield f"{action}: with the rights of whoever asks; add a condition on cloudformation:RoleArn, with one role"
    if "*" in texts(statement.get("Resource")) and (bound is None or not at(conditions, "StringEquals", bound)):
        with_key = f", by a condition on {bound}" if bound else ""
        yield f"{action}: changes any resource; name those that it is for{with_key}"
    for each in texts(statement.get("Resource")):
        if _ALL_OF_A_KIND.fullmatch(each) and not conditions and not _NAMELESS.fullmatch(action):
            yield f"{action}: {each}: changes all of a kind; begin its name with the namespace, or add a condition"


def _is_passed_to_one(statement: Object) -> bool:
    """Whether roles are named one by one, and go to one service of AWS that is known here."""
    services = texts(at(statement, "Condition", "StringEquals", "iam:PassedToService"))
    return (
        len(services) == 1
        and services[0] in _SERVICES
        and texts(statement.get("Action")) == [str(statement.get("Action"))]
        and all(_ONE_ROLE.fullmatch(each) for each in texts(statement.get("Resource")))
    )

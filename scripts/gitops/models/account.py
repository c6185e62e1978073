"""Whether an account on AWS has what the stacks of infra/ make, asked without changing anything.

The parameters are those that each stack has there, where the manifests tell no other. What is compared is what was
promised: the settings and the policy of buckets, who takes on a role and what it may do, the repositories of images,
the certificate, and the alarms of endpoints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gitops.manifests import cloudformation
from gitops.manifests.cloudformation import FOLDER, ROLE, Stack
from gitops.manifests.objects import Object, at, mapping, mappings
from gitops.models.s3 import ask

# Whether the network and the cluster are right, the cluster itself shows.
_NOT_COMPARED = ("cluster", "network")
_ACCOUNT = re.compile(r"arn:aws[a-z-]*:iam::([0-9]{12}):root")
Found = Iterator[tuple[str, str]]
"""(what was looked at, what is wrong with it; empty for nothing)."""


def examine(folder: Path, stacks: Sequence[Stack]) -> Iterator[tuple[str, str, bool]]:
    """(what was looked at, what to do about it, whether it could not be looked at) of all that is compared. Raises
    Refused when AWS does not answer at all."""
    region = stacks[0].region
    own = str((ask("sts", region, "get_caller_identity") or {}).get("Account"))
    stacks = [_as_made(folder, each) if each.account == own else each for each in stacks]
    facts = dict(_facts([each for each in stacks if each.account == own]))
    for stack in stacks:
        if stack.account != own:
            yield f"AWS: {stack.name}", f"in the account {stack.account}; look with credentials of that one", True
            continue
        if stack.template in _NOT_COMPARED:
            continue
        template = cloudformation.read(folder / FOLDER, stack.template)
        for item in _known(cloudformation.resources(template, stack), facts).values():
            for what, fault in _EXAMINERS.get(item["Type"], _nothing)(item["Properties"], stack):
                remedy = f"{fault}; run what `python scripts/stacks.py --only {stack.template}` prints" if fault else ""
                yield f"AWS: {what}", remedy, False


def _as_made(folder: Path, stack: Stack) -> Stack:
    """A stack with the values that it was given where the manifests tell none, such as by --set."""
    known = mapping(cloudformation.read(folder / FOLDER, stack.template).get("Parameters"))
    found = at(
        ask("cloudformation", stack.region, "describe_stacks", StackName=stack.name), "Stacks", "0", "Parameters"
    )
    given = {each["ParameterKey"]: each.get("ParameterValue", "") for each in mappings(found)}
    own = {name: value for name, value in given.items() if name in known}
    return replace(stack, parameters=own | dict(stack.parameters))


def _facts(stacks: Sequence[Stack]) -> Iterator[tuple[str, str]]:
    """What stacks export to others, by how it stands in resolved templates."""
    for stack in stacks:
        if stack.template == "cluster":
            name = stack.parameters["Cluster"]
            issuer = str(
                at(ask("eks", stack.region, "describe_cluster", name=name), "cluster", "identity", "oidc", "issuer")
            )
            address = issuer.partition("//")[2]
            yield f"<{name}-issuer>", address
            yield f"<{name}-issuer-arn>", f"arn:aws:iam::{stack.account}:oidc-provider/{address}"
        if stack.template == "domain":
            domain = stack.parameters["Domain"]
            # The list begins with this name, or where it is missing with the next one.
            asked = ask("route53", stack.region, "list_hosted_zones_by_name", DNSName=domain)
            found = (asked or {}).get("HostedZones", [])
            zones = [each["Id"].rpartition("/")[2] for each in found if each["Name"] == f"{domain}."]
            yield f"<{stack.name}-zone>", zones[0] if zones else "none"


def _known(resources: Mapping[str, Object], facts: Mapping[str, str]) -> dict[str, Object]:
    text = json.dumps(resources)
    for name, value in facts.items():
        text = text.replace(name, value)
    found: dict[str, Object] = json.loads(text)
    return found


def _nothing(_: Object, __: Stack) -> Found:
    yield from ()


def _bucket(wanted: Object, stack: Stack) -> Found:
    name = wanted["BucketName"]

    def setting(operation: str, *keys: str) -> Any:
        return at(ask("s3", stack.region, operation, Bucket=name), *keys)

    if ask("s3", stack.region, "head_bucket", Bucket=name) is None:
        yield f"s3://{name}", "no such bucket"
        return
    lock = wanted["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    kept = setting("get_object_lock_configuration", "ObjectLockConfiguration", "Rule", "DefaultRetention")
    blocked = "PublicAccessBlockConfiguration"
    asked: tuple[tuple[str, Any, Any], ...] = (
        ("versions are kept", setting("get_bucket_versioning", "Status"), "Enabled"),
        ("the lock", {key: value for key, value in mapping(kept).items() if value}, lock | {"Days": int(lock["Days"])}),
        ("the public is shut out", setting("get_public_access_block", blocked), wanted[blocked]),
        ("it is encrypted", bool(setting("get_bucket_encryption", "ServerSideEncryptionConfiguration", "Rules")), True),
    )
    for what, found, right in asked:
        yield f"s3://{name}: {what}", "" if found == right else f"it is {found!r} in place of {right!r}"


def _bucket_policy(wanted: Object, stack: Stack) -> Found:
    found = at(ask("s3", stack.region, "get_bucket_policy", Bucket=wanted["Bucket"]), "Policy")
    yield f"s3://{wanted['Bucket']}: the policy", _compared(found, wanted["PolicyDocument"])


def _compared(found: Any, wanted: Any) -> str:
    """What is wrong with a policy, given as text, where it has to be the one that is wanted; order does not count."""
    if found is None:
        return "missing"
    same = _plain(cloudformation.document(found)) == _plain(cloudformation.document(wanted))
    return "" if same else f"not that of {FOLDER}/"


def _plain(value: Any) -> Any:
    """A policy as IAM understands it: one text is a list of one, the order of lists does not count, and an account may
    stand as its number or, as S3 gives it back, as its root."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    items = value if isinstance(value, list) else [value]
    return sorted((_plain(item) if isinstance(item, dict) else _short(str(item).lower()) for item in items), key=str)


def _short(text: str) -> str:
    match = _ACCOUNT.fullmatch(text)
    return match[1] if match else text


def _role(wanted: Object, stack: Stack) -> Found:
    name = wanted.get("RoleName")
    if name is None:
        return  # of the cluster's own parts, named by CloudFormation
    role = at(ask("iam", stack.region, "get_role", RoleName=name), "Role")
    if role is None:
        yield f"role {name}", "missing"
        return
    trust = role["AssumeRolePolicyDocument"]
    yield f"role {name}: who takes it on", _compared(trust, wanted["AssumeRolePolicyDocument"])
    policies = at(ask("iam", stack.region, "list_role_policies", RoleName=name), "PolicyNames") or []
    right = {each["PolicyName"]: each["PolicyDocument"] for each in wanted["Policies"]}
    attached = at(ask("iam", stack.region, "list_attached_role_policies", RoleName=name), "AttachedPolicies") or []
    more = [*sorted(set(policies) - set(right)), *(each["PolicyName"] for each in attached)]
    yield f"role {name}: it has no other policy", f"it has {', '.join(more)}: detach them" if more else ""
    for policy, document in right.items():
        got = ask("iam", stack.region, "get_role_policy", RoleName=name, PolicyName=policy)
        text = at(got, "PolicyDocument")
        yield f"role {name}: what it may do", _compared(unquote(text) if isinstance(text, str) else text, document)


def _registry(wanted: Object, stack: Stack) -> Found:
    name = wanted["RepositoryName"]
    listed = at(ask("ecr", stack.region, "describe_repositories", repositoryNames=[name]), "repositories")
    if not listed:
        yield f"images {name}", "no such repository"
        return
    fixed, scanned = listed[0]["imageTagMutability"], at(listed[0], "imageScanningConfiguration", "scanOnPush")
    yield f"images {name}: a tag never changes", "" if fixed == "IMMUTABLE" else f"it is {fixed}"
    yield f"images {name}: they are scanned", "" if scanned is True else "they are not"


def _certificate(wanted: Object, stack: Stack) -> Found:
    names = {wanted["DomainName"], *wanted["SubjectAlternativeNames"]}
    listed = at(ask("acm", stack.region, "list_certificates", CertificateStatuses=["ISSUED"]), "CertificateSummaryList")
    for each in listed or []:
        found = at(
            ask("acm", stack.region, "describe_certificate", CertificateArn=each["CertificateArn"]), "Certificate"
        )
        names -= {at(found, "DomainName"), *(at(found, "SubjectAlternativeNames") or [])}
    yield "certificate of all hosts", f"none is issued for {', '.join(sorted(names))}" if names else ""


def _alarm(wanted: Object, stack: Stack) -> Found:
    name = wanted["AlarmName"]
    (found,) = at(ask("cloudwatch", stack.region, "describe_alarms", AlarmNames=[name]), "MetricAlarms") or [{}]
    asked = {"MetricName": wanted["MetricName"], "Threshold": float(wanted["Threshold"])}
    asked |= {key: wanted[key] for key in ("EvaluationPeriods", "Period", "TreatMissingData")}
    other = [
        f"{key} is {found.get(key)!r} in place of {value!r}" for key, value in asked.items() if found.get(key) != value
    ]
    yield f"alarm {name}", "missing" if not found else "; ".join(other)


def _profile(wanted: Object, stack: Stack) -> Found:
    name = wanted["InstanceProfileName"]
    found = at(ask("iam", stack.region, "get_instance_profile", InstanceProfileName=name), "InstanceProfile", "Roles")
    roles = [each["RoleName"] for each in mappings(found)]
    yield (
        f"instance profile {name}",
        "" if roles == wanted["Roles"] else f"its roles are {', '.join(roles) or 'missing'}",
    )


_EXAMINERS: Mapping[str, Callable[[Object, Stack], Found]] = {
    ROLE: _role,
    "AWS::CertificateManager::Certificate": _certificate,
    "AWS::CloudWatch::Alarm": _alarm,
    "AWS::ECR::Repository": _registry,
    "AWS::IAM::InstanceProfile": _profile,
    "AWS::S3::Bucket": _bucket,
    "AWS::S3::BucketPolicy": _bucket_policy,
}

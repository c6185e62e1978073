"""What must hold of a stack of infra/ before it is made, beyond what CloudFormation's own schemas ask.

A rule takes the resources with their parameters in place, so that it judges what would be there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

from gitops.checks import duties, instances
from gitops.checks.duties import PRUNE
from gitops.checks.instances import is_arm as is_arm
from gitops.manifests import cloudformation, iam
from gitops.manifests.cloudformation import ROLE, Stack, statements, texts
from gitops.manifests.objects import Object, at, mapping, mappings, walk
from gitops.repo import values
from gitops.repo.policy import Policy

Resources = Mapping[str, Object]
Faults = Iterator[tuple[str, str]]
"""(field, what is wrong and what to do about it)"""
Judge = Callable[[Object, Stack], Faults]
WRITTEN_ONCE = ("models/", "services/")
"""The folders of a bucket whose objects nobody overwrites: versions, and the archives that instances run."""
LEAST_DAYS = 90
"""For so long prune_versions.py keeps a version that nothing names."""
_GITHUB = "https://token.actions.githubusercontent.com"
_LONGEST_PAUSE = timedelta(hours=1)


def judge(template: Object, stack: Stack) -> list[str]:
    """One line for each fault of a stack, the template's text included."""
    found = cloudformation.resources(template, stack)
    where = f"{cloudformation.FOLDER}/{stack.template}.yaml"
    faults = [f"{where}: {fault}" for fault in _own_values(template)]
    for name, item in found.items():
        for rule in _RULES.get(item["Type"], ()):
            faults += [f"{where}: {name}: {field}: {fault}" for field, fault in rule(item, stack)]
        faults += [f"{where}: {name}: {field}: {fault}" for field, fault in _any(item)]
    return faults


def uncertified(policy: Policy, stacks: Sequence[Stack]) -> Iterator[str]:
    """The hosts of environments that no certificate is for: their load balancers would have no HTTPS."""
    names = [name for stack in stacks if stack.template == "domain" for name in stack.parameters["Names"].split(",")]
    for environment, exposure in policy.exposure.items():
        for host in exposure.hosts:
            if f"*.{host}" not in names:
                yield (
                    f"overlays/promotion.yaml: environments: {environment}: hosts: {host}: no certificate is for"
                    f" *.{host}; add it to the Names of a stack of infra/domain.yaml"
                )


def second_zones(stacks: Sequence[Stack]) -> Iterator[str]:
    """Stacks that would make another zone of a domain which has one in their account."""
    makers: dict[tuple[str, str], Stack] = {}
    for each in stacks:
        if each.template == "domain" and not (each.parameters.get("Zone") or each.parameters.get("ZoneStack")):
            domain = each.parameters["Domain"]
            if (maker := makers.setdefault((each.account, domain), each)) is not each:
                yield (
                    f"stack {each.name} in {each.region}: a second zone of {domain}, beside that of {maker.name} in"
                    f" {maker.region}; make that one first, then give the identifier of its zone by --set Zone=ID"
                )


def _own_values(template: Object) -> Iterator[str]:
    """Every account and region is a parameter: what stands in a template would be somebody else's."""
    for path, value in walk(template):
        if not isinstance(value, str):
            continue
        for name in ("account", "region", "bucket", "domain"):
            if re.search(values.pattern(name, values.TEMPLATE[name]), value):
                yield f"{path}: {values.TEMPLATE[name]!r} is the template's {name}; make it a parameter"
                break
        else:
            if re.search(r"(?<![0-9])[0-9]{12}(?![0-9])", value):
                yield f"{path}: {value!r} names an account; write ${{AWS::AccountId}} or make it a parameter"


def _any(item: Object) -> Faults:
    pause = at(item, "UpdatePolicy", "AutoScalingRollingUpdate", "PauseTime")
    if pause is not None and not _is_pause(str(pause)):
        yield "UpdatePolicy.PauseTime", f"{pause!r}: write a time of at most an hour as ISO 8601 does, such as PT5M"
    if item["Type"] in _KEPT and {item.get("DeletionPolicy"), item.get("UpdateReplacePolicy")} != {"Retain"}:
        yield "DeletionPolicy", "what is in it would go with the stack; write Retain, here and as UpdateReplacePolicy"


_KEPT = ("AWS::ECR::Repository", "AWS::KMS::Key", "AWS::Route53::HostedZone", "AWS::S3::Bucket")


def _is_pause(text: str) -> bool:
    match = re.fullmatch(r"PT(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?", text)
    given = {name: int(value) for name, value in match.groupdict().items() if value} if match else {}
    return bool(given) and timedelta(**given) <= _LONGEST_PAUSE


# Networks


def _ingress(item: Object, _: Stack) -> Faults:
    properties = item["Properties"]
    rules = mappings(properties.get("SecurityGroupIngress")) or [properties]
    for rule in rules:
        for field in ("CidrIp", "CidrIpv6"):
            if rule.get(field) is not None and is_world(rule[field]):
                yield f"SecurityGroupIngress.{field}", f"{rule[field]!r} is open to the world; name the callers"


def is_world(cidr: Any) -> bool:
    """Whether a network is so large that it names nobody."""
    try:
        network = ip_network(str(cidr), strict=False)
    except ValueError:
        return False  # of another stack, or for the schema to refuse
    return network.prefixlen < (8 if network.version == 4 else 16)


# Clusters


def _cluster(item: Object, _: Stack) -> Faults:
    network = mapping(at(item, "Properties", "ResourcesVpcConfig"))
    callers = texts(network.get("PublicAccessCidrs"))
    public = network.get("EndpointPublicAccess") is not False
    if public and (not callers or any(map(is_world, callers))):
        yield "PublicAccessCidrs", f"{', '.join(callers) or 'missing'}: open to the world; name the callers"
    if network.get("EndpointPrivateAccess") is not True:
        yield "EndpointPrivateAccess", "missing; write true, so that nodes need no way through the internet"
    encrypted = [
        name for each in mappings(at(item, "Properties", "EncryptionConfig")) for name in texts(each.get("Resources"))
    ]
    if "secrets" not in encrypted:
        yield "EncryptionConfig", "secrets are not encrypted; name a key of KMS for them"
    access = mapping(at(item, "Properties", "AccessConfig"))
    if access.get("AuthenticationMode") != "API" or access.get("BootstrapClusterCreatorAdminPermissions") is not False:
        yield "AccessConfig", "write AuthenticationMode: API and BootstrapClusterCreatorAdminPermissions: false"
    logged = [
        each.get("Type") for each in mappings(at(item, "Properties", "Logging", "ClusterLogging", "EnabledTypes"))
    ]
    if "audit" not in logged:
        yield "Logging", "no audit log; add the type audit"


def _nodes(item: Object, _: Stack) -> Faults:
    properties = item["Properties"]
    arm = [each for each in texts(properties.get("InstanceTypes")) if is_arm(each)]
    kind = str(properties.get("AmiType"))
    if arm and "x86_64" in kind:
        yield "InstanceTypes", f"{', '.join(arm)}: of Arm, and {kind} is for x86-64; name another type"
    if properties.get("CapacityType") != "ON_DEMAND":
        yield "CapacityType", f"{properties.get('CapacityType')!r}: all nodes may go at once; write ON_DEMAND"
    if "LaunchTemplate" not in properties:
        yield "LaunchTemplate", "missing, so that pods reach the role of their node; name the launch template"


def _key(item: Object, _: Stack) -> Faults:
    if at(item, "Properties", "EnableKeyRotation") is not True:
        yield "EnableKeyRotation", "missing; write true"


def _issuer(item: Object, _: Stack) -> Faults:
    # Else that of the cluster, which is known once it is there.
    url = str(at(item, "Properties", "Url"))
    if url != _GITHUB and not url.startswith("<"):
        yield "Url", f"{url!r}: whoever runs it decides who may take on roles; write {_GITHUB}"
    clients = texts(at(item, "Properties", "ClientIdList"))
    if clients != ["sts.amazonaws.com"]:
        yield "ClientIdList", f"{', '.join(clients) or 'missing'}; write [sts.amazonaws.com], the audience of all roles"


# Buckets, registries, certificates


def _bucket(item: Object, _: Stack) -> Faults:
    properties = item["Properties"]
    blocked = mapping(properties.get("PublicAccessBlockConfiguration"))
    for name in ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"):
        if blocked.get(name) is not True:
            yield f"PublicAccessBlockConfiguration.{name}", "the bucket could be made public; write true"
    if "AccessControl" in properties:
        yield "AccessControl", f"{properties['AccessControl']!r}; remove it, the owner of the bucket owns what is in it"
    if at(properties, "VersioningConfiguration", "Status") != "Enabled":
        yield "VersioningConfiguration", "what is deleted or overwritten could not be brought back; write Enabled"
    if not at(properties, "BucketEncryption", "ServerSideEncryptionConfiguration"):
        yield "BucketEncryption", "missing; write SSEAlgorithm: AES256, or aws:kms with a key"
    yield from _lock(properties)
    rules = mappings(at(properties, "LifecycleConfiguration", "Rules"))
    if not any(at(rule, "AbortIncompleteMultipartUpload") for rule in rules):
        yield "LifecycleConfiguration", "uploads left incomplete stay; add AbortIncompleteMultipartUpload"
    for rule in rules:
        prefix = str(rule.get("Prefix", ""))
        if any(field.startswith("Expiration") for field in rule) and (
            not prefix or "models/".startswith(prefix) or prefix.startswith("models")
        ):
            yield "LifecycleConfiguration", f"the rule {rule.get('Id')!r} would take models away; give it a Prefix"


def _lock(properties: Object) -> Faults:
    kept = mapping(at(properties, "ObjectLockConfiguration", "Rule", "DefaultRetention"))
    if properties.get("ObjectLockEnabled") is not True or not kept:
        yield (
            "ObjectLockConfiguration",
            "missing, so that one call ends the bytes of a version; write a DefaultRetention",
        )
    elif not 0 < int(kept.get("Days", 0)) < LEAST_DAYS:
        yield (
            "ObjectLockConfiguration",
            f"{kept.get('Days')} days: not less than the {LEAST_DAYS} that prune_versions.py keeps a version; lower it",
        )


def _bucket_policy(item: Object, stack: Stack) -> Faults:
    (policy,) = cloudformation.documents(item)
    bucket = f"arn:aws:s3:::{stack.parameters['Bucket']}"
    anybody = f"arn:aws:iam::{stack.account}:role/anybody"
    for each in statements(policy):
        named = texts(at(each, "Principal", "AWS")) or texts(each.get("Principal"))
        if each.get("Effect") == "Allow" and "*" in named:
            yield f"{each.get('Sid')}.Principal", "'*' is everybody in the world; name accounts or roles"
    secure = {"aws:securetransport": "true", "aws:principalarn": anybody}
    plain = secure | {"aws:securetransport": "false"}
    once = secure | {"s3:objectcreationoperation": "true"}
    for folder in WRITTEN_ONCE:
        for promise, action, context in (
            ("refuses no connection without TLS; deny where aws:SecureTransport is false", "s3:GetObject", plain),
            (f"lets an object of {folder} be overwritten; deny s3:PutObject without s3:if-none-match", "s3:PutObject",
             once),
            (f"lets others than {PRUNE} delete below {folder}; deny s3:DeleteObject", "s3:DeleteObject", secure),
            (f"lets the bytes of {folder} be deleted; deny s3:DeleteObjectVersion", "s3:DeleteObjectVersion", secure),
            ("lets the lock be passed; deny s3:BypassGovernanceRetention", "s3:BypassGovernanceRetention", secure),
        ):  # fmt: skip
            if _verdict(policy, action, f"{bucket}/{folder}x/y", anybody, context) is not iam.Verdict.DENIED:
                yield "PolicyDocument", promise
    for what, action, key, context in (
        ("a part of an upload", "s3:PutObject", "models/x/y", secure | {"s3:objectcreationoperation": "false"}),
        ("what DVC stores", "s3:PutObject", "dvc/files/md5/0", once),
    ):
        if _verdict(policy, action, f"{bucket}/{key}", anybody, context) is iam.Verdict.DENIED:
            yield "PolicyDocument", f"refuses {what}; deny s3:PutObject below models/ alone, where an object is made"


def _verdict(policy: Object, action: str, resource: str, caller: str, context: Mapping[str, str]) -> iam.Verdict:
    return iam.verdict(iam.Call(action, resource, caller, context), [], [policy])


def _registry(item: Object, _: Stack) -> Faults:
    properties = item["Properties"]
    if properties.get("ImageTagMutability") != "IMMUTABLE":
        yield "ImageTagMutability", "a tag could become another image; write IMMUTABLE"
    if at(properties, "ImageScanningConfiguration", "ScanOnPush") is not True:
        yield "ImageScanningConfiguration", "images are not scanned; write ScanOnPush: true"
    text = at(properties, "LifecyclePolicy", "LifecyclePolicyText")
    for rule in mappings(json.loads(text or "{}").get("rules")):
        if at(rule, "selection", "tagStatus") != "untagged":
            yield "LifecyclePolicy", "would take away an image that a release may name; select tagStatus untagged alone"
    for policy in cloudformation.documents(item):
        for each in statements(policy):
            if "*" in (texts(at(each, "Principal", "AWS")) or texts(each.get("Principal"))):
                yield "RepositoryPolicyText", "'*' is everybody in the world; name accounts"


def _certificate(item: Object, _: Stack) -> Faults:
    if at(item, "Properties", "ValidationMethod") != "DNS":
        yield "ValidationMethod", "nobody would answer the mail in time; write DNS"


_RULES: Mapping[str, Sequence[Judge]] = {
    **instances.RULES,
    ROLE: (duties.judge,),
    "AWS::CertificateManager::Certificate": (_certificate,),
    "AWS::EC2::SecurityGroup": (_ingress,),
    "AWS::EC2::SecurityGroupIngress": (_ingress,),
    "AWS::ECR::Repository": (_registry,),
    "AWS::EKS::Cluster": (_cluster,),
    "AWS::EKS::Nodegroup": (_nodes,),
    "AWS::IAM::OIDCProvider": (_issuer,),
    "AWS::KMS::Key": (_key,),
    "AWS::S3::Bucket": (_bucket,),
    "AWS::S3::BucketPolicy": (_bucket_policy,),
}

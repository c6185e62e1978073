"""What must hold of instances and load balancers in infra/, and of the alarms that take an update back.

What depends on the environment or the parameters of an app, such as HTTPS, spot instances, zones and sizes, the rule
`stack` judges.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gitops.manifests.cloudformation import Stack
from gitops.manifests.objects import Object, at, listed, mapping, mappings

Faults = Iterator[tuple[str, str]]
"""(field, what is wrong and what to do about it)"""
# Of AWS's names of instance types, those of Arm have a g behind the number of their generation.
_ARM = re.compile(r"[a-z]+[0-9]+g[a-z]*\.")
# While an update rolls, it can be taken back.
_LONGEST_WATCH = 600


def is_arm(instance_type: str) -> bool:
    """Whether instances of a type are of Arm, and not of x86-64."""
    return _ARM.match(instance_type) is not None


def _listener(item: Object, _: Stack) -> Faults:
    properties = item["Properties"]
    if properties.get("Protocol") == "HTTPS" and "TLS13" not in str(properties.get("SslPolicy")):
        yield "SslPolicy", f"{properties.get('SslPolicy')!r}: lets TLS 1.0 do; write one with TLS13 in its name"


def _launch(item: Object, _: Stack) -> Faults:
    data = mapping(at(item, "Properties", "LaunchTemplateData"))
    metadata = mapping(data.get("MetadataOptions"))
    if metadata.get("HttpTokens") != "required" or metadata.get("HttpPutResponseHopLimit") != 1:
        yield "MetadataOptions", "write HttpTokens: required and HttpPutResponseHopLimit: 1"
    disks = mappings(data.get("BlockDeviceMappings"))
    if not disks or any(at(each, "Ebs", "Encrypted") is not True for each in disks):
        yield "BlockDeviceMappings", "a disk is not encrypted; write Encrypted: true"


def _group(item: Object, _: Stack) -> Faults:
    properties, update = item["Properties"], mapping(at(item, "UpdatePolicy", "AutoScalingRollingUpdate"))
    if properties.get("HealthCheckType") != "ELB":
        yield "HealthCheckType", "an instance whose service does not answer would stay; write ELB"
    if not update:
        yield "UpdatePolicy", "missing, so that a new version comes to no instance; write AutoScalingRollingUpdate"
    elif update.get("WaitOnResourceSignals") is not True or _number(update.get("MinInstancesInService")) < 1:
        yield (
            "UpdatePolicy",
            "a version that does not serve would replace all; write WaitOnResourceSignals: true and"
            " MinInstancesInService",
        )


def _number(value: Any) -> int:
    return int(value) if re.fullmatch("[0-9]+", str(value)) else 0


def _alarm(item: Object, stack: Stack) -> Faults:
    """What watches an endpoint of SageMaker takes its updates back, so it has to be sure."""
    properties, endpoint = item["Properties"], stack.parameters.get("Endpoint")
    name = properties.get("AlarmName")
    if name is None:
        yield "AlarmName", "missing; what is told to look at it names it"
    elif endpoint and not str(name).startswith(f"{endpoint}-"):
        yield "AlarmName", f"{name!r}: not of {endpoint}; begin it with {endpoint}-"
    if properties.get("Namespace") != "AWS/SageMaker":
        return
    named = {at(each, "Name"): at(each, "Value") for each in listed(properties.get("Dimensions"))}
    if named.get("EndpointName") != endpoint or "VariantName" not in named:
        missing = "EndpointName" if named.get("EndpointName") != endpoint else "VariantName"
        yield "Dimensions", f"no {missing}; it would watch nothing, or what is not of this endpoint"
    missing = properties.get("TreatMissingData", "missing")
    if missing != "notBreaching":
        yield "TreatMissingData", f"{missing!r}: would take back the update of what nobody asks; write notBreaching"
    periods, seconds = (_number(properties.get(each)) for each in ("EvaluationPeriods", "Period"))
    if periods * seconds > _LONGEST_WATCH:
        yield (
            "EvaluationPeriods",
            f"{periods} times {seconds} seconds: an update is over before; write at most {_LONGEST_WATCH} in all",
        )


def _profile(item: Object, stack: Stack) -> Faults:
    name, namespace = at(item, "Properties", "InstanceProfileName"), stack.parameters.get("Namespace")
    if namespace and not str(name).startswith(f"{namespace}-"):
        yield "InstanceProfileName", f"{name}: not of {namespace}, as all in this stack; begin it with {namespace}-"


def _acl(item: Object, _: Stack) -> Faults:
    properties = item["Properties"]
    if properties.get("Scope") != "REGIONAL":
        yield "Scope", f"{properties.get('Scope')!r}: no load balancer takes it; write REGIONAL"
    rules = mappings(properties.get("Rules"))
    if not any(
        at(each, "Statement", "RateBasedStatement") and "Block" in mapping(each.get("Action")) for each in rules
    ):
        yield "Rules", "none that limits how often one address asks; add a RateBasedStatement that blocks"
    for each in rules:
        if "Count" in mapping(each.get("OverrideAction")) or "Count" in mapping(each.get("Action")):
            yield (
                "Rules",
                f"{each.get('Name')}: counts, and stops nothing; write OverrideAction: {{None: {{}}}}, or Block",
            )


RULES: Mapping[str, tuple[Callable[[Object, Stack], Faults], ...]] = {
    "AWS::AutoScaling::AutoScalingGroup": (_group,),
    "AWS::CloudWatch::Alarm": (_alarm,),
    "AWS::EC2::LaunchTemplate": (_launch,),
    "AWS::ElasticLoadBalancingV2::Listener": (_listener,),
    "AWS::IAM::InstanceProfile": (_profile,),
    "AWS::WAFv2::WebACL": (_acl,),
}

"""What must hold of a Stack: that no cluster would get it, and that AWS may make of it what its template makes.

The resources of the template are judged with the Stack's parameters in their place, so that a rule is about what would
be there. `scripts/deploy_stack.py` asks `judge` again for what it deploys, as admission does in a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from gitops.checks import environments, infra
from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.manifests import cloudformation, stack, yamledit
from gitops.manifests.cloudformation import texts
from gitops.manifests.objects import Object, at, mapping, mappings
from gitops.manifests.stack import is_stack, path
from gitops.releases import image, release
from gitops.repo import layout, values
from gitops.repo.policy import POLICY_FILE, Policy
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

PLACE, RULE = "stack-place", "stack"
Faults = Iterator[tuple[str, str]]
"""(the path of a field, what is wrong and what to do about it)."""
# What stands in a skeleton for an identifier that nobody has filled in.
_TO_FILL_IN = re.compile(r"-0{8}")
# In the place of a release, for a template that asks for one.
_NO_DIGEST = "0" * 64


def check_place(repository: Repository) -> Iterator[Finding]:
    """A Stack is all that its overlay renders, by a release file of that kind: ApplicationSets leave that out, and so
    would nobody apply what is beside it; nowhere else is a Stack, which no cluster knows."""
    for folder, items in repository.of_argocd():
        for item in filter(is_stack, items):
            yield finding(PLACE, folder, item, "kind: no cluster has it, and Argo CD would apply it from here; write it"
                          " into the overlay of an app")  # fmt: skip
    for folder, environment, app, items in repository.overlays():
        own, released = [item for item in items if is_stack(item)], _is_released_so(repository, app, environment)
        file = layout.release_paths(app, environment)[0]
        if own and not released:
            yield finding(PLACE, folder, own[0], f"kind: {file} is no patch of a Stack, so that Argo CD would apply"
                          f" this to a cluster, and none has the kind; write the release as base/{stack.NAME}/skeleton/"
                          " has it")  # fmt: skip
        if released:
            for item in [each for each in items if not is_stack(each)]:
                yield finding(PLACE, folder, item, "rendered beside a Stack, so that nobody would apply it: no cluster"
                              " gets what this overlay renders; move it to the overlay of another app")  # fmt: skip
        for item in own[1:]:
            yield finding(PLACE, folder, item, "kind: a second Stack; an app is one, make the other an app of its own")
        for item in own:
            if at(item, "metadata", "name") != app:
                yield finding(PLACE, folder, item, f"metadata.name: not {app!r}, by which its stack on AWS is called")


def _is_released_so(repository: Repository, app: str, environment: str) -> bool:
    """Whether the release file of an overlay is one that ApplicationSets leave out."""
    file = layout.release_paths(app, environment)[0]
    text = Snapshot(repository.root).read(file)
    try:
        return text is not None and is_stack(mapping(yamledit.load(text, file)))
    except Refused:
        return False


@dataclass(frozen=True)
class Place:
    """Where a Stack is to be, by the policy and the manifests of its environment."""

    environment: str
    account: str
    region: str
    policy: Policy

    @property
    def is_production(self) -> bool:
        return self.environment in self.policy.production

    @property
    def maker(self) -> str:
        """The ARN of the role as which CloudFormation makes the stacks of the environment: infra/ has it."""
        # Source: botocore's partitions.json.
        others = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
        partition = next((name for start, name in others.items() if self.region.startswith(start)), "aws")
        return f"arn:{partition}:iam::{self.account}:role/{self.policy.namespace(self.environment)}-stack"

    @property
    def internet_facing(self) -> bool:
        exposure = self.policy.exposure.get(self.environment)
        return exposure is not None and exposure.internet_facing


def place(tree: Snapshot, environment: str) -> Place:
    """Raises Refused where neither the policy nor the manifests have the account or the region."""
    account, region = (values.of_environment(tree, environment, name) for name in ("account", "region"))
    return Place(environment, account, region, tree.policy)


def named(item: Object) -> str:
    """The name of the stack on AWS, of which an account has one in each region."""
    return f"{at(item, 'metadata', 'namespace')}-{at(item, 'metadata', 'name')}"


def check_stacks(repository: Repository) -> Iterator[Finding]:
    """What a Stack makes is its environment's own, lets in whom the policy lets in, and in production goes on when one
    instance or one zone is gone."""
    found = [
        (folder, environment, item)
        for folder, environment, _, items in repository.overlays()
        for item in items
        if is_stack(item)
    ]
    if not found:
        return
    tree = Snapshot(repository.root)
    try:
        template = cloudformation.parse(tree.read(stack.TEMPLATE), stack.NAME)
    except Refused as refused:
        yield from (Finding(RULE, stack.TEMPLATE, line.partition(": ")[2]) for line in refused.lines)
        return
    for folder, environment, item in found:
        try:
            there = place(tree, environment)
        except Refused as refused:
            yield finding(RULE, folder, item, f"where it is to be cannot be told: {refused.lines[0]}")
            continue
        for field, fault in judge(item, template, there):
            yield finding(RULE, folder, item, f"{field}: {fault}")


def judge(item: Object, template: Object, there: Place) -> Faults:
    """Everything that speaks against what a Stack would make."""
    given = stack.parameters(item)
    yield from _own_faults(given, there)
    if release.unreleased(given.get(stack.SERVICE)):
        given |= _sample(there.policy)
    elif to_fill_in := [name for name, value in given.items() if _TO_FILL_IN.search(value)]:
        for name in to_fill_in:
            yield path(name), f"{given[name]!r}: not filled in, and something is released here; write what AWS has"
    wanted = cloudformation.Stack(named(item), stack.NAME, there.account, there.region, given)
    try:
        resources = cloudformation.resources(template, wanted)
    except Refused as refused:
        yield from map(_of_a_parameter, refused.lines)
        return
    # Callers are a matter of the policy, which may let in the world; whom else the template lets in is not.
    narrow = replace(wanted, parameters=given | {"Callers": "10.0.0.0/16"} if "Callers" in given else given)
    yield from (("spec.template", line) for line in dict.fromkeys(infra.judge(template, narrow)))
    yield from _resource_faults(resources, there)


def _of_a_parameter(line: str) -> tuple[str, str]:
    """What is wrong with the value of a parameter, as a field of the Stack."""
    start = f"{stack.TEMPLATE}: parameter "
    if not line.startswith(start):
        return "spec.template", line
    name, _, fault = line.removeprefix(start).partition(": ")
    return path(name), fault


def _sample(policy: Policy) -> dict[str, str]:
    """What an overlay without a release could have for one."""
    return {
        stack.URI: f"s3://{policy.model_bucket}/models/model/2000-01-01-{_NO_DIGEST[:12]}/onnx/",
        stack.DIGEST: f"sha256:{_NO_DIGEST}",
        stack.MANIFEST: f"sha256:{_NO_DIGEST}",
        stack.SERVICE: f"s3://{policy.model_bucket}/{image.SERVICES}{_NO_DIGEST}{image.ENDING}",
    }


def _own_faults(given: Mapping[str, str], there: Place) -> Faults:
    """What is wrong with the parameters of a Stack, whatever the template makes of them."""
    service = given.get(stack.SERVICE, "")
    archive = image.archive(service)
    if not release.unreleased(service) and (not archive or archive[0] != there.policy.model_bucket):
        bucket = f"s3://{there.policy.model_bucket}/{image.SERVICES}SHA256{image.ENDING}"
        yield path(stack.SERVICE), f"{service!r}: not {bucket}, in the model bucket of {POLICY_FILE}"
    yield from _places(given, there)
    yield from _callers(given, there)
    namespace = there.policy.namespace(there.environment)
    profile = given.get("InstanceProfile", "")
    if not profile.startswith(f"{namespace}-"):
        yield path("InstanceProfile"), f"{profile!r}: not of {there.environment}; take one of {namespace}-..., its own"
    yield from _sizes(given, there)
    kind, processor = given.get("InstanceType", ""), given.get("ImageId", "x86_64")
    if infra.is_arm(kind) != ("arm64" in processor) and ("arm64" in processor or "x86_64" in processor):
        yield path("InstanceType"), f"{kind!r}: of another processor than the image {processor}; name another type"


def _places(given: Mapping[str, str], there: Place) -> Faults:
    """What is in another account or region. Where the policy names them, the rule of places finds it."""
    own = there.policy.at(there.environment)
    for name, value in given.items():
        field = path(name)
        for what, wanted, found, known in (
            ("account", there.account, environments.accounts(field, value), own.account),
            ("region", there.region, environments.regions(value), own.region),
        ):
            for other in [each for each in found if each != wanted and not known][:1]:
                yield field, f"{value!r}: the {what} {other}, and {there.environment} is in {wanted}; write its own"


def _callers(given: Mapping[str, str], there: Place) -> Faults:
    """Who is let in, and by which name."""
    environment, host = there.environment, given.get("Host", "")
    if (owner := there.policy.environment_of(host)) != environment:
        whose = f"of {owner}" if owner else "below no domain of the policy"
        yield path("Host"), f"{host!r}: {whose}; take one below a host of {environment} in {POLICY_FILE}"
    if there.internet_facing:
        return
    why = f"and {environment} has no `internet_facing: true` in {POLICY_FILE}"
    if given.get("Scheme") == "internet-facing":
        yield path("Scheme"), f"'internet-facing': the load balancer would have public addresses, {why}; write internal"
    if infra.is_world(callers := given.get("Callers", "")):
        yield path("Callers"), f"{callers!r}: open to the world, {why}; name the callers"


def _sizes(given: Mapping[str, str], there: Place) -> Faults:
    numbers = {name: int(given[name]) for name in ("MinSize", "MaxSize") if given.get(name, "").isdecimal()}
    least, most = numbers.get("MinSize"), numbers.get("MaxSize")
    if least is not None and most is not None and most <= least:
        yield path("MaxSize"), f"{most}: not more than MinSize, {least}, so that none could be replaced; write more"
    for name in ("Subnets", "LoadBalancerSubnets"):
        subnets = {each for each in given.get(name, "").split(",") if each}
        if len(subnets) < 2:
            yield path(name), f"{given.get(name)!r}: in one zone; name a subnet in each of two zones or more"


def _resource_faults(resources: Mapping[str, Object], there: Place) -> Faults:
    """What the template makes that no Stack may have."""
    for name, item in resources.items():
        properties, field = mapping(item.get("Properties")), f"spec.template: {stack.TEMPLATE}: {name}"
        if item["Type"] == "AWS::ElasticLoadBalancingV2::Listener" and not _is_secure(properties):
            yield field, "callers would be answered without HTTPS; give it a certificate, or redirect them to HTTPS"
        if there.is_production and _is_spot_only(properties):
            yield field, "spot instances alone: all may go at once; production has a base of on-demand ones"
        if there.is_production and item["Type"] == "AWS::AutoScaling::AutoScalingGroup":
            if int(properties.get("MinSize", 0)) < 2:
                yield field, f"MinSize: {properties.get('MinSize')}: production has two instances or more"
            if len(set(texts(properties.get("VPCZoneIdentifier")))) < 2:
                yield field, "VPCZoneIdentifier: one zone; production has instances in two or more"


def _is_secure(listener: Object) -> bool:
    """Whether a listener of a load balancer answers by HTTPS, or does nothing but redirect to it."""
    actions = mappings(listener.get("DefaultActions"))
    leads = bool(actions) and all(at(each, "RedirectConfig", "Protocol") == "HTTPS" for each in actions)
    certified = any(at(each, "CertificateArn") for each in mappings(listener.get("Certificates")))
    return leads or (listener.get("Protocol") == "HTTPS" and certified)


def _is_spot_only(properties: Object) -> bool:
    """Whether a launch template or a group has no instance that stays. Where nothing is said, AWS takes on-demand
    ones."""
    market = at(properties, "LaunchTemplateData", "InstanceMarketOptions", "MarketType")
    shares = mapping(at(properties, "MixedInstancesPolicy", "InstancesDistribution"))
    base, above = shares.get("OnDemandBaseCapacity", 0), shares.get("OnDemandPercentageAboveBaseCapacity", 100)
    return market == "spot" or (str(base), str(above)) == ("0", "0")


RULES: dict[str, Rule] = {RULE: check_stacks}
PLACE_RULES: dict[str, Rule] = {PLACE: check_place}

"""The stacks of infra/ that a repository needs on AWS, by its policy and by what its manifests name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gitops.manifests import workloads
from gitops.manifests.cloudformation import Stack
from gitops.manifests.objects import Object, at, listed, walk
from gitops.repo import beside, values
from gitops.repo.layout import ARGOCD
from gitops.repo.policy import IN_CLUSTER, Policy
from gitops.repo.snapshot import Snapshot

Renders = Mapping[str, Sequence[Object]]
ROLE_ANNOTATION = "eks.amazonaws.com/role-arn"
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::(?P<account>[0-9]{12}):role/(?P<name>[A-Za-z0-9_+=,.@-]+)")
# Which parameter of addons.yaml has the name of the role of which chart.
ADDONS = {
    "applicationautoscaling-chart": "ScalingRole",
    "aws-load-balancer-controller": "LoadBalancersRole",
    "cluster-autoscaler": "AutoscalerRole",
    "external-dns": "ExternalDnsRole",
    "external-secrets": "ExternalSecretsRole",
    "sagemaker-chart": "SagemakerRole",
}
CONTROLLER = "aws-load-balancer-controller"


@dataclass(frozen=True)
class Named:
    """Who names a role, and what else is known of it by the manifests."""

    folder: str
    item: Object
    field: str
    arn: str
    environment: str = ""

    @property
    def account(self) -> str:
        match = ROLE_ARN.fullmatch(self.arn)
        return match["account"] if match else ""

    @property
    def role(self) -> str:
        match = ROLE_ARN.fullmatch(self.arn)
        return match["name"] if match else ""

    @property
    def service_account(self) -> str:
        """NAMESPACE:NAME."""
        return f"{at(self.item, 'metadata', 'namespace')}:{at(self.item, 'metadata', 'name')}"


def named(renders: Renders) -> Iterator[Named]:
    """All that asks IRSA for a role: service accounts, and the values of charts that make one."""
    for folder, items in renders.items():
        environment = folder.split("/")[1] if folder.startswith("overlays/") else ""
        for item in filter(_asks, items):
            for path, value in walk(item):
                if path.endswith(f".{ROLE_ANNOTATION}"):
                    yield Named(folder, item, path, str(value), environment)


def _asks(value: Any) -> bool:
    """Whether the annotation is anywhere below. Nearly all objects go without, and paths take time to write."""
    if isinstance(value, dict):
        return ROLE_ANNOTATION in value or any(map(_asks, value.values()))
    return isinstance(value, list) and any(map(_asks, value))


def needed(tree: Snapshot, renders: Renders) -> list[Stack]:
    """In the order in which they are made, each after those that it needs. Raises Refused where the manifests do not
    have the owner's values."""
    policy = tree.policy
    region = values.find(tree, "region")
    asked = list(named(renders))
    clusters = [replace(each, account=_account(tree, each, asked)) for each in _clusters(policy, renders, region)]
    names = {each.name: each.parameters["Cluster"] for each in clusters}
    roles = list(_roles(policy, renders, asked, names, region))
    pulling = {beside.place(tree, each.environment)[0] for each in beside.models(renders)}
    images = list(_images(policy, renders, pulling | {each.account for each in roles}))
    training = list(_repositories(policy, [beside.TRAINING] if beside.models(renders) else [], set()))
    apart = beside.needed(tree, renders, images, training)
    return [
        *_buckets(tree, region, [*roles, *beside.reading(apart)]),
        *images,
        *training,
        _github(tree, region),
        *_one_zone(
            [
                *(stack for each in clusters for stack in _of_cluster(tree, renders, each, asked)),
                *beside.below(tree, renders, clusters),
            ]
        ),
        *roles,
        *apart,
    ]


def _account(tree: Snapshot, cluster: Stack, asked: Sequence[Named]) -> str:
    """Of a cluster: that of its environments, as their roles name it."""
    on = tree.policy.on(cluster.name)
    return next((each.account for each in asked if each.environment in on and each.role), values.find(tree, "account"))


def _buckets(tree: Snapshot, region: str, roles: Sequence[Stack]) -> Iterator[Stack]:
    account = values.find(tree, "account")
    places = {tree.policy.model_bucket: (account, region)}
    owners = {tree.policy.at(name).replica: tree.policy.at(name).account for name in tree.policy.environments}
    places |= {bucket: (owners.get(bucket) or account, place) for bucket, place in tree.policy.replicas.items()}
    for bucket, place in places.items():
        others = {each.account for each in roles if bucket in _buckets_of(each)} - {place[0]}
        parameters = {"Bucket": bucket, "Accounts": ",".join(sorted(others))}
        parameters |= {"Source": account} if place[0] != account else {}
        yield Stack(f"models-{bucket}", "models", *place, parameters)


def _buckets_of(role: Stack) -> set[str]:
    """Where a service reads its models, and where it logs requests."""
    logs = role.parameters.get("Requests", "").split(",")
    return {role.parameters["Bucket"], *(each.partition("/")[0] for each in logs)}


def _images(policy: Policy, renders: Renders, accounts: set[str]) -> Iterator[Stack]:
    """A repository in each registry of ECR for each app with a server of its own, and for all that endpoints run."""
    apps = {
        folder.split("/")[2]
        for folder, items in renders.items()
        for item in items
        if folder.startswith("overlays/")
        and workloads.kind_of(item) in (("apps", "Deployment"), ("apps", "StatefulSet"))
        and workloads.released(item)
    } | beside.images(renders, policy.image_registries)
    # An endpoint runs the image of a service, where there is one.
    apps = apps or {each.app for each in beside.models(renders)}
    yield from _repositories(policy, apps, accounts)


def _repositories(policy: Policy, names: Iterable[str], accounts: set[str]) -> Iterator[Stack]:
    for registry in policy.image_registries:
        if match := beside.REGISTRY.fullmatch(registry):
            pullers = ",".join(sorted(accounts - {match["account"]}))
            for name in sorted(names):
                parameters = {"Repository": name, "Pullers": pullers}
                yield Stack(f"images-{name}", "registry", match["account"], match["region"], parameters)


def _github(tree: Snapshot, region: str) -> Stack:
    parameters = {"Repository": values.repository(tree), "Bucket": tree.policy.model_bucket}
    parameters |= {"Replicas": ",".join(tree.policy.replicas)} if tree.policy.replicas else {}
    return Stack("github", "github", values.find(tree, "account"), region, parameters)


def _clusters(policy: Policy, renders: Renders, region: str) -> Iterator[Stack]:
    """The clusters on AWS, by the names that Argo CD has for them: those that have the load balancers of AWS."""
    found = {
        str(chart.get("clusterName")): str(chart.get("region", region))
        for folder, items in renders.items()
        if folder.startswith(ARGOCD)
        for item in items
        if at(item, "spec", "source", "chart") == CONTROLLER
        for chart in [at(item, "spec", "source", "helm", "valuesObject") or {}]
    }
    for own, place in found.items():
        name = own if own in policy.clusters else IN_CLUSTER
        yield Stack(name, "cluster", "", place, {"Cluster": own})


def _of_cluster(tree: Snapshot, renders: Renders, cluster: Stack, asked: Sequence[Named]) -> Iterator[Stack]:
    on, own, place = tree.policy.on(cluster.name), cluster.parameters["Cluster"], (cluster.account, cluster.region)
    hosts = sorted(host for name in on if name in tree.policy.exposure for host in tree.policy.exposure[name].hosts)
    domain = values.find(tree, "domain")
    yield Stack(f"{own}-network", "network", *place, {"Cluster": own, "Network": _network(renders, on)})
    yield Stack(own, "cluster", *place, {"Cluster": own})
    certified = ",".join(f"*.{host}" for host in dict.fromkeys([domain, *hosts]))
    yield Stack(f"{own}-domain", "domain", *place, {"Domain": domain, "Names": certified})
    roles = dict.fromkeys(ADDONS.values(), "")
    for each in asked:
        if not each.environment and _destination(each.item) in ("", cluster.name):
            roles |= {
                ADDONS[chart]: each.role for chart in [at(each.item, "spec", "source", "chart")] if chart in ADDONS
            }
    told = {"Cluster": own, "Domain": f"{own}-domain", "Namespaces": ",".join(map(tree.policy.namespace, on))}
    if any(tree.policy.exposure[name].internet_facing for name in on if name in tree.policy.exposure):
        told |= {"Waf": "yes"}
        yield Stack(f"{own}-waf", "waf", *place, {"Cluster": own})
    yield Stack(f"{own}-addons", "addons", *place, told | roles)


def _one_zone(stacks: Iterable[Stack]) -> Iterator[Stack]:
    """The first stack of a domain makes its zone, and those beside it take that one: two zones of one domain would each
    have a part of its names. One of another region cannot import it; `infra.second_zones` tells."""
    makers: dict[tuple[str, str], Stack] = {}
    taken: dict[str, str] = {}
    for each in stacks:
        if each.template == "domain":
            maker = makers.setdefault((each.account, each.parameters["Domain"]), each)
            if maker is not each and maker.region == each.region:
                taken[each.name] = maker.name
                each = replace(each, parameters=dict(each.parameters) | {"ZoneStack": maker.name})
        elif zone := taken.get(each.parameters.get("Domain", "")):
            each = replace(each, parameters=dict(each.parameters) | {"Domain": zone})
        yield each


def _destination(application: Object) -> str:
    """The name of the cluster to which an Application goes; empty where it is named by its address."""
    return str(at(application, "spec", "destination", "name") or "")


def _network(renders: Renders, environments: Sequence[str]) -> str:
    """The addresses from which load balancers reach the pods, as the network policies of the environments have them."""
    rules = (
        at(source, "ipBlock", "cidr")
        for folder, items in renders.items()
        if folder.startswith(tuple(f"overlays/{name}/" for name in environments))
        for item in items
        if item.get("kind") == "NetworkPolicy"
        for rule in listed(at(item, "spec", "ingress"))
        for source in listed(at(rule, "from"))
    )
    return next((str(found) for found in rules if found), "10.0.0.0/16")


def _roles(
    policy: Policy, renders: Renders, asked: Sequence[Named], clusters: Mapping[str, str], region: str
) -> Iterator[Stack]:
    """The role of each service account of an environment, those of one role together."""
    groups: dict[tuple[str, str], list[Named]] = {}
    for each in asked:
        if each.environment and each.role:
            groups.setdefault((each.environment, each.arn), []).append(each)
    for (name, _), group in groups.items():
        if (cluster := clusters.get(policy.at(name).cluster)) is None:
            continue  # it has no IRSA
        told = _told(renders, group)
        requests = told.get("REQUEST_LOG_URI", f"s3://{policy.model_bucket}/requests/{name}/")
        parameters = {
            "Cluster": cluster,
            "Role": group[0].role,
            "ServiceAccounts": ",".join(sorted({each.service_account for each in group})),
            "Bucket": policy.at(name).replica or policy.model_bucket,
            "Requests": requests.removeprefix("s3://"),
        }
        template = "reader"
        if {"BATCH_INPUT", "BATCH_OUTPUT"} <= told.keys():
            template = "batch"
            for end, variable in (("Input", "BATCH_INPUT"), ("Output", "BATCH_OUTPUT")):
                # A day in it is another one every day.
                bucket, _, folder = told[variable].removeprefix("s3://").partition("{")[0].partition("/")
                parameters |= {f"{end}Bucket": bucket, f"{end}Folder": folder[: folder.rfind("/") + 1]}
        yield Stack(group[0].role, template, group[0].account, policy.at(name).region or region, parameters)


def _told(renders: Renders, group: Sequence[Named]) -> dict[str, str]:
    """The variables of the containers that run as one of these service accounts."""
    found: dict[str, Any] = {}
    names = {each.service_account for each in group}
    for folder in {each.folder for each in group}:
        for item in renders[folder]:
            for pod in workloads.pods(item):
                if f"{at(item, 'metadata', 'namespace')}:{pod.spec.get('serviceAccountName')}" in names:
                    found |= {name: value for each in pod.containers for name, value in each.variables if value}
    return {name: str(value) for name, value in found.items()}

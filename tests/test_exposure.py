"""What environments may let in: the legitimate ways, and what no edit of one file shows. Faults are in invalid/."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gitops.checks import exposure, isolation, metadata
from gitops.checks.framework import Repository
from gitops.manifests import kustomize
from gitops.manifests.objects import Object
from gitops.repo import layout
from gitops.repo.policy import Exposure, Policy, read_policy

POLICY = Policy(
    "models",
    ("registry.example.com",),
    ("dev", "prod"),
    exposure={"dev": Exposure(("dev.ml.com",)), "prod": Exposure(("ml.com",), internet_facing=True)},
    ingress_classes=("alb", "nginx"),
    annotations=("nginx.ingress.kubernetes.io/proxy-body-size",),
)
Rule = Callable[[Repository], Any]


def ingress(name: str, *hosts: str | None, path: str = "/predict", **annotations: str) -> Object:
    backend = {"service": {"name": "a", "port": {"number": 80}}}
    rules = [{"host": host, "http": {"paths": [{"path": path, "backend": backend}]}} for host in hosts]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"ingressClassName": "alb", "rules": rules},
    }


def of(kind: str, spec: Any = None, **metadata: Any) -> Object:
    version, _, name = kind.rpartition(" ")
    return {"apiVersion": version, "kind": name, "metadata": {"name": "a", **metadata}, "spec": spec or {}}


def messages(rule: Rule, **renders: Sequence[Object]) -> list[str]:
    """What a rule says of the renders of overlays, named ENVIRONMENT_APP."""
    folders = {f"overlays/{name.replace('_', '/')}": list(items) for name, items in renders.items()}
    return [finding.message for finding in rule(Repository(Path(), POLICY, folders))]


@pytest.mark.parametrize(
    "items",
    [
        {"dev_a": [ingress("a", "a.dev.ml.com")], "prod_a": [ingress("a", "a.ml.com")]},
        {"dev_a": [ingress("a", "new.dev.ml.com", "other.dev.ml.com")]},
        {"dev_a": [ingress("a", "dev.ml.com")]},
        {"dev_a": [ingress("a", "x.dev.ml.com")], "dev_b": [ingress("b", "x.dev.ml.com", path="/other")]},
        {"prod_a": [ingress("a", "mydev.ml.com")]},
    ],
)
def test_an_environment_has_the_hosts_below_its_domains(items: dict[str, list[Object]]) -> None:
    assert messages(exposure.check_hosts, **items) == []


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ("a.ml.com", "'a.ml.com': of prod by overlays/promotion.yaml; write one below dev.ml.com"),
        ("a.notdev.ml.com", "'a.notdev.ml.com': of prod by overlays/promotion.yaml; write one below dev.ml.com"),
        ("a.dev.ml.com.example.org", "'a.dev.ml.com.example.org': of no environment by"),
        ("A.dev.ml.com", "'A.dev.ml.com': not the name of one host"),
        ("a.dev.ml.com.", "'a.dev.ml.com.': not the name of one host"),
        ("*.ml.com", "'*.ml.com': not the name of one host"),
        ("", "missing; it would answer for every host of its load balancer"),
        (None, "missing; it would answer for every host of its load balancer"),
    ],
)
def test_a_host_that_is_not_below_its_environments_domain_is_refused(host: str | None, fault: str) -> None:
    [message] = messages(exposure.check_hosts, dev_a=[ingress("a", host)])

    assert message.startswith(f"spec.rules[0].host: {fault}")


def test_one_path_of_a_host_leads_to_one_app() -> None:
    found = messages(exposure.check_hosts, prod_a=[ingress("a", "x.ml.com")], prod_b=[ingress("b", "x.ml.com")])

    assert found == [
        "spec.rules: x.ml.com/predict: overlays/prod/a: Ingress.networking.k8s.io a has the same; give one of them"
        " another host or path"
    ]


@pytest.mark.parametrize(
    "item",
    [
        ingress("a", "a.ml.com", **{"alb.ingress.kubernetes.io/scheme": "internet-facing"}),
        ingress("a", "a.ml.com", **{"alb.ingress.kubernetes.io/group.name": "ml-prod", "team": "flowers"}),
        ingress("a", "a.ml.com", **{"nginx.ingress.kubernetes.io/proxy-body-size": "8m"}),
        {**ingress("a", "a.ml.com"), "spec": {"ingressClassName": "nginx"}},
        of("v1 Service", {"clusterIP": "None"}),
        of("v1 Service", {"type": "ClusterIP"}, annotations={"prometheus.io/scrape": "true"}),
        of("v1 ConfigMap", {"host": "a"}),
        of("monitoring.coreos.com/v1 ServiceMonitor", {"endpoints": [{"port": "http"}]}),
        of("policy/v1 PodDisruptionBudget", {"maxUnavailable": 1}),
        of("v1 Pod", {"hostname": "a", "containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}),
    ],
)
def test_what_lets_in_no_one_else_is_allowed(item: Object) -> None:
    assert messages(exposure.check_exposure, prod_a=[item]) == []


@pytest.mark.parametrize(
    ("item", "place"),
    [
        (of("gateway.networking.k8s.io/v1 HTTPRoute", {"hostnames": ["a.ml.com"]}), "kind"),
        (of("networking.istio.io/v1 VirtualService", {"hosts": ["a.ml.com"]}), "kind"),
        (of("serving.knative.dev/v1beta1 DomainMapping"), "kind"),
        (of("multicluster.x-k8s.io/v1alpha1 ServiceExport"), "kind"),
        (of("discovery.k8s.io/v1 EndpointSlice"), "kind"),
        (of("elbv2.k8s.aws/v1beta1 TargetGroupBinding"), "kind"),
        (of("externaldns.k8s.io/v1alpha1 DNSEndpoint"), "kind"),
        ({**of("v1 Endpoints"), "subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]}, "subsets"),
        (of("example.com/v1 Site", {"rules": [{"host": "a.ml.com"}]}), "spec.rules[0].host"),
        (of("example.com/v1 Site", {"front": {"hostnames": ["a.ml.com"]}}), "spec.front.hostnames"),
        (of("traefik.io/v1alpha1 IngressRoute", {"routes": []}), "kind"),
        (ingress("a", "a.ml.com", **{"alb.ingress.kubernetes.io/actions.a": "{}"}),
         "metadata.annotations.alb.ingress.kubernetes.io/actions.a"),
        (ingress("a", "a.ml.com", **{"alb.ingress.kubernetes.io/group.name": "production"}),
         "metadata.annotations.alb.ingress.kubernetes.io/group.name"),
        (ingress("a", "a.ml.com", **{"alb.ingress.kubernetes.io/scheme": "Internal"}),
         "metadata.annotations.alb.ingress.kubernetes.io/scheme"),
        ({**ingress("a", "a.ml.com"), "spec": {}}, "spec.ingressClassName"),
        (of("v1 Service", {}, annotations={"service.beta.kubernetes.io/aws-load-balancer-scheme": "internet-facing"}),
         "metadata.annotations.service.beta.kubernetes.io/aws-load-balancer-scheme"),
        (of("v1 Pod", {"containers": [{"name": "a", "ports": [{"name": "b", "hostIP": "10.0.0.1"}]}]}),
         "spec.containers[a].ports[b].hostIP"),
        (of("batch/v1 CronJob", {"jobTemplate": {"spec": {"template": {"spec": {
            "initContainers": [{"name": "a", "ports": [{"hostPort": 80}]}]}}}}}),
         "spec.jobTemplate.spec.template.spec.initContainers[a].ports[None].hostPort"),
    ],
)  # fmt: skip
def test_every_other_way_in_is_refused_by_name(item: Object, place: str) -> None:
    found = messages(exposure.check_exposure, prod_a=[item])

    assert [message.partition(": ")[0] for message in found] == [place]


@pytest.mark.parametrize(
    ("metadata_of", "place"),
    [
        ({"annotations": {"argocd.argoproj.io/sync-options": "Prune=false"}}, "argocd.argoproj.io/sync-options"),
        ({"annotations": {"argocd.argoproj.io/sync-options": "Delete=true"}}, "argocd.argoproj.io/sync-options"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "b"}}, "argocd.argoproj.io/tracking-id"),
        ({"annotations": {"argocd.argoproj.io/ignore-healthcheck": "true"}}, "argocd.argoproj.io/ignore-healthcheck"),
        ({"annotations": {"argocd.argoproj.io/sync-wave": "first"}}, "argocd.argoproj.io/sync-wave"),
        ({"annotations": {"helm.sh/resource-policy": "keep"}}, "helm.sh/resource-policy"),
        ({"annotations": {"internal.serving.kserve.io/anything": "1"}}, "internal.serving.kserve.io/anything"),
        ({"labels": {"networking.kserve.io/visibility": "cluster-local"}}, "networking.kserve.io/visibility"),
        ({"labels": {"networking.knative.dev/visibility": "cluster-local"}}, "networking.knative.dev/visibility"),
        ({"annotations": {"autoscaling.knative.dev/target": "0"}}, "autoscaling.knative.dev/target"),
        ({"finalizers": ["example.com/never"]}, "metadata.finalizers"),
        ({"generateName": "a-"}, "metadata.generateName"),
        ({"deletionGracePeriodSeconds": 0}, "metadata.deletionGracePeriodSeconds"),
        ({"annotations": {"argocd.argoproj.io/sync-wave": "-1"}}, None),
        ({"annotations": {"serving.kserve.io/enable-prometheus-scraping": "true"}}, None),
        ({"annotations": {"notargoproj.io/hook": "1", "example.com/argoproj.io": "1"}}, None),
    ],
)
def test_metadata_has_nothing_by_which_an_object_goes(metadata_of: dict[str, Any], place: str | None) -> None:
    found = messages(metadata.check_metadata, dev_a=[of("apps/v1 Deployment", {"template": {}}, **metadata_of)])

    assert [place in message for message in found if place] == [True] * (place is not None)
    assert place or not found


# Isolation, on the sample's own renders

DEV = "overlays/dev/environment"


@pytest.fixture(scope="module")
def sample(manifests: Path) -> Repository:
    policy = replace(read_policy(manifests), environments=("dev", "prod"))
    folders = layout.overlays(manifests, policy)
    built = kustomize.build_all(manifests, folders)
    return Repository(manifests, policy, {folder: kustomize.objects(text) for folder, text in built.items()})


def isolated(sample: Repository, folder: str, kind: str, change: Callable[[Object], Any], **policy: Any) -> list[str]:
    """What the rule says once the first object of a kind is changed."""
    renders = copy.deepcopy(sample.renders)
    change(next(item for item in renders[folder] if item["kind"] == kind))
    changed = replace(sample, renders=renders, policy=replace(sample.policy, **policy))
    return [finding.message for finding in isolation.check_isolation(changed)]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("ResourceQuota", lambda item: item["spec"]["hard"].update({"pods": "9", "requests.cpu": "500m"})),
        ("ResourceQuota", lambda item: item["spec"]["hard"].update({"count/jobs.batch": "10"})),
        ("LimitRange", lambda item: item["spec"]["limits"][0]["max"].update(memory="16Gi")),
        ("LimitRange", lambda item: item["spec"]["limits"][0]["max"].update(cpu="4")),
    ],
)
def test_an_environment_has_its_own_sizes(sample: Repository, kind: str, change: Callable[[Object], Any]) -> None:
    assert isolated(sample, DEV, kind, change) == []


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("ResourceQuota", lambda item: item["spec"]["hard"].update(pods="0")),
        ("ResourceQuota", lambda item: item["spec"]["hard"].pop("pods")),
        ("ResourceQuota", lambda item: item["spec"]["hard"].update({"services.nodeports": "5"})),
        ("ResourceQuota", lambda item: item["spec"].update(scopes=["BestEffort"])),
        ("LimitRange", lambda item: item["spec"].update(limits=[])),
        ("Namespace", lambda item: item["metadata"].update(labels={})),
        ("Namespace", lambda item: item["metadata"].update(annotations={"scheduler.alpha.kubernetes.io/x": "y"})),
        ("NetworkPolicy", lambda item: item["spec"].update(ingress=[{"from": [{"podSelector": {}}]}])),
    ],
)
def test_an_environment_differs_in_nothing_else(sample: Repository, kind: str, change: Callable[[Object], Any]) -> None:
    assert all("base/environment" in message for message in isolated(sample, DEV, kind, change))
    assert isolated(sample, DEV, kind, change)


def test_an_environment_without_its_own_folder_is_named(sample: Repository) -> None:
    renders = {folder: items for folder, items in sample.renders.items() if folder != DEV}

    assert [str(found) for found in isolation.check_isolation(replace(sample, renders=renders))] == [
        f"{DEV}: missing; nothing separates the environment; list base/environment there [isolation]"
    ]


ANYWHERE = {"ipBlock": {"cidr": "0.0.0.0/0"}}


@pytest.mark.parametrize(
    ("direction", "rule", "fault"),
    [
        ("ingress", {"from": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}, None),
        ("ingress", {"from": [{"podSelector": {}}]}, None),
        ("ingress", {"from": [{"ipBlock": {"cidr": "0.0.0.0/1"}}, {"ipBlock": {"cidr": "128.0.0.0/1"}}]}, "most"),
        ("ingress", {"from": [{"ipBlock": {"cidr": "::/0"}}]}, "most addresses"),
        ("ingress", {"from": []}, "from: missing"),
        ("ingress", {"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}, "another environment's"),
        ("egress", {"to": [ANYWHERE], "ports": [{"port": 443}, {"port": 9000, "endPort": 9100}]}, None),
        ("egress", {"to": [ANYWHERE], "ports": [{"protocol": "TCP"}]}, "ports: missing"),
        ("egress", {"to": [ANYWHERE], "ports": [{"port": 8080}]}, "pods of overlays/prod/"),
        ("egress", {"to": [ANYWHERE], "ports": [{"port": 1, "endPort": 65535}]}, "pods of overlays/prod/"),
        ("egress", {"ports": [{"port": 443}]}, "to: missing"),
        ("egress", {"to": [{"namespaceSelector": {}, "podSelector": {}}]}, "another environment's"),
    ],
)
def test_a_policy_names_whom_it_lets_through(
    sample: Repository, direction: str, rule: Object, fault: str | None
) -> None:
    found = isolated(
        sample, "overlays/dev/lily-api", "NetworkPolicy", lambda item: item["spec"].update({direction: [rule]})
    )

    assert bool(found) == bool(fault)
    assert all(message.startswith(f"spec.{direction}[0].") and str(fault) in message for message in found)


def test_where_the_policy_opens_an_environment_every_address_may_come_in(sample: Repository) -> None:
    exposed = {**sample.policy.exposure, "dev": Exposure(("dev.ml.example.com",), internet_facing=True)}

    def opened(item: Object) -> None:
        item["spec"]["ingress"] = [{"from": [ANYWHERE]}]

    assert isolated(sample, "overlays/dev/lily-api", "NetworkPolicy", opened, exposure=exposed) == []
    assert isolated(sample, "overlays/prod/lily-api", "NetworkPolicy", opened, exposure=exposed) != []

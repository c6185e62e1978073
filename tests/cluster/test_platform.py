"""The charts of the cluster's add-ons: their own templates, with this repository's values, before a real API server.

Two are not in any Go module and are not rendered here: aws-load-balancer-controller and kube-prometheus-stack.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SAMPLE

from gitops.cluster.kube import apply_all
from gitops.manifests import kustomize
from gitops.manifests.objects import KUSTOMIZATION, Object, at, identity
from gitops.programs import tools
from gitops.repo import layout

from contract.errors import Refused

from .conftest import World

NOT_HERE = {
    "ack-applicationautoscaling",
    "ack-sagemaker",
    "aws-load-balancer-controller",
    "cluster-autoscaler",
    "kube-prometheus-stack",
}
CHARTS = {
    "cert-manager": tools.CHARTS.path / "github.com/cert-manager/cert-manager/deploy/charts/cert-manager",
    "external-dns": tools.CHARTS.path / "sigs.k8s.io/external-dns/charts/external-dns",
    "external-secrets": tools.CHARTS.path
    / "github.com/external-secrets/external-secrets/deploy/charts/external-secrets",
    "knative-operator": tools.CHARTS.path / "knative.dev/operator/config/charts/knative-operator",
    "kserve-crd": tools.KSERVE.files / "charts/kserve-crd",
    "kserve-resources": tools.KSERVE.files / "charts/kserve-resources",
    "kserve-runtime-configs": tools.KSERVE.files / "charts/kserve-runtime-configs",
    "metrics-server": tools.CHARTS.path / "sigs.k8s.io/metrics-server/charts/metrics-server",
}


def applications() -> dict[str, Any]:
    """The spec of every add-on, those of Knative included, by its name."""
    files = sorted((SAMPLE / layout.PLATFORM).rglob("*.yaml"))
    documents = [item for file in files for item in yaml.safe_load_all(file.read_text())]
    # A patch is a list, or has no source.
    found = [item for item in documents if isinstance(item, dict) and item.get("kind") == "Application"]
    return {item["metadata"]["name"]: item["spec"] for item in found if "source" in item["spec"]}


ADDONS = applications()


def released(chart: str, version: str, folder: Path) -> Path:
    """The chart as it is released: its source has no version yet, or names charts of which nothing is used here."""
    copy = folder / chart
    shutil.copytree(CHARTS[chart], copy)
    file = copy / "Chart.yaml"
    text = file.read_text().replace("{{ version }}", version).replace("v0.0.0", version)
    about = yaml.safe_load(text)
    assert about["version"].removeprefix("v") == version.removeprefix("v")
    about.pop("dependencies", None)
    file.write_text(yaml.safe_dump(about))
    values = copy / "values.yaml"
    values.write_text(values.read_text().replace("{{ tag }}", version))
    return copy


def rendered(name: str, folder: Path) -> list[Object]:
    """What Argo CD would apply for an add-on."""
    spec = ADDONS[name]
    source, namespace = spec["source"], spec["destination"]["namespace"]
    if name == "argo-cd":
        shutil.copytree(tools.ARGOCD.files / "manifests", folder / "manifests")
        settings = (SAMPLE / layout.PLATFORM / "argo-cd/argocd-cm.yaml").read_text()
        patches = [patch | {"patch": settings} for patch in source["kustomize"]["patches"]]
        (folder / KUSTOMIZATION).write_text(yaml.safe_dump({"resources": [source["path"]], "patches": patches}))
        return kustomize.objects(kustomize.build(folder, "."))
    (folder / "values.yaml").write_text(yaml.safe_dump(at(source, "helm", "valuesObject") or {}))
    chart = released(source["chart"], source["targetRevision"], folder)
    done = subprocess.run(
        [tools.HELM.require(), "template", name, chart, "--namespace", namespace, "--include-crds", "--no-hooks",
         "--values", folder / "values.yaml", "--kube-version", tools.APISERVER.version],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return kustomize.objects(done.stdout)


CLUSTER_KINDS = {
    "APIService", "ClusterRole", "ClusterRoleBinding", "ClusterServingRuntime", "ClusterStorageContainer",
    "CustomResourceDefinition", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
}  # fmt: skip


def allowed() -> tuple[set[tuple[str, str, str]], dict[str, Any]]:
    project = yaml.safe_load((SAMPLE / "argocd/project-addons.yaml").read_text())["spec"]
    kinds = {
        (scope, entry["group"], entry["kind"])
        for scope in ("clusterResourceWhitelist", "namespaceResourceWhitelist")
        for entry in project[scope]
    }
    return kinds, project


@pytest.mark.parametrize("name", sorted(ADDONS.keys() - NOT_HERE))
def test_an_add_on_consists_of_what_its_project_allows_and_the_server_takes(
    name: str, world: World, tmp_path: Path
) -> None:
    items = rendered(name, tmp_path)
    kinds, project = allowed()
    namespaces = {target["namespace"] for target in project["destinations"]}
    namespace = ADDONS[name]["destination"]["namespace"]
    assert items
    for item in items:
        what = identity(item)
        scope = "clusterResourceWhitelist" if what.kind in CLUSTER_KINDS else "namespaceResourceWhitelist"
        assert (scope, what.group, what.kind) in kinds, f"{name}: {what}"
        if scope == "namespaceResourceWhitelist":
            # As Argo CD does for what leaves it out.
            item["metadata"].setdefault("namespace", namespace)
        assert item["metadata"].get("namespace", namespace) in namespaces, f"{name}: {what}"

    faults = []
    for space in {item["metadata"].get("namespace", namespace) for item in items}:
        apply_all(world.cluster, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}])
    for item in items:
        if item["kind"].endswith("WebhookConfiguration"):
            # Those of the control plane's own KServe call it by its address.
            item["metadata"]["name"] += ".rendered"
        try:
            world.cluster.apply(item, dry_run=True, manager="argocd-controller")
        except Refused as refused:
            faults += refused.lines
    # What a chart brings itself, or another one, is not there to be asked.
    foreign = re.compile(r"has no such kind in (cert-manager\.io|monitoring\.coreos\.com)/")
    assert [fault for fault in faults if not foreign.search(fault)] == []


def test_the_project_of_the_add_ons_allows_nothing_that_none_of_them_needs(tmp_path: Path) -> None:
    used = set()
    for name in ADDONS.keys() - NOT_HERE:
        (tmp_path / name).mkdir()
        for item in rendered(name, tmp_path / name):
            what = identity(item)
            scope = "clusterResourceWhitelist" if what.kind in CLUSTER_KINDS else "namespaceResourceWhitelist"
            used.add((scope, what.group, what.kind))
    kinds, project = allowed()

    unused = {(group, kind) for _, group, kind in kinds - used}
    assert unused == {
        # Of the two charts that are not rendered here.
        ("apps", "DaemonSet"),
        ("elbv2.k8s.aws", "IngressClassParams"),
        ("monitoring.coreos.com", "Alertmanager"),
        ("monitoring.coreos.com", "Prometheus"),
        ("monitoring.coreos.com", "PrometheusRule"),
        ("monitoring.coreos.com", "ServiceMonitor"),
        ("networking.k8s.io", "IngressClass"),
    }
    assert set(project["sourceRepos"]) == {spec["source"]["repoURL"] for spec in ADDONS.values()}
    assert {target["namespace"] for target in project["destinations"]} == {
        spec["destination"]["namespace"] for spec in ADDONS.values()
    }

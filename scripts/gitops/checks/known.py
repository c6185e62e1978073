"""Every kind has a schema, an add-on that brings it to the cluster, and a project that allows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.manifests import kinds, schemas
from gitops.manifests.objects import Object, at, identity, mappings
from gitops.repo import layout
from gitops.repo.layout import PLATFORM

RULE = "kinds"
# The charts that bring the kinds of which the engine has schemas. Argo CD's own are there before anything is synced.
_CHARTS = {
    "acme.cert-manager.io": "cert-manager",
    "cert-manager.io": "cert-manager",
    "external-secrets.io": "external-secrets",
    "operator.knative.dev": "knative-operator",
    "serving.kserve.io": "kserve-crd",
}
_LLM, _LOCAL = "kserve-llmisvc-crd", "kserve-localmodel-crd"
_CHARTS_OF_KINDS = {
    "LLMInferenceService.serving.kserve.io": _LLM,
    "LLMInferenceServiceConfig.serving.kserve.io": _LLM,
    "LocalModelCache.serving.kserve.io": _LOCAL,
    "LocalModelNamespaceCache.serving.kserve.io": _LOCAL,
    "LocalModelNode.serving.kserve.io": _LOCAL,
    "LocalModelNodeGroup.serving.kserve.io": _LOCAL,
}
_LISTS = ("namespaceResourceWhitelist", "clusterResourceWhitelist")


def check_kinds(repository: Repository) -> Iterator[Finding]:
    """What a fork adds in schemas/ is installed by an add-on of argocd/platform/, or outside of Git with a reason, and
    so is each kind of an add-on that is used; objects are in a namespace or not, as their kind is; and a project
    allows only kinds of which there is a schema."""
    index = schemas.kinds(repository.schemas)
    clusters = {cluster: _Addons(repository, cluster) for cluster, _, _ in repository.clusters()}
    everywhere = set().union(*(addons.names for addons in clusters.values()))
    for name, entry in repository.kinds.entries.items():
        if name not in index:
            yield Finding(RULE, f"{kinds.INDEX}: {name}", f"no {kinds.path(name)}; `{kinds.command(name)}` adds it",
                          (kinds.FOLDER,))  # fmt: skip
        if "addon" in entry and entry["addon"] not in everywhere:
            yield Finding(RULE, f"{kinds.INDEX}: {name}", f"addon: {entry['addon']!r}: no Application of {PLATFORM}/,"
                          " so that the cluster would not have the kind; add it there, or say by --outside REASON what"
                          " installs it", (PLATFORM, kinds.FOLDER))  # fmt: skip
    for folder, items in repository.folders():
        for item in items:
            name = schemas.called(identity(item).group, identity(item).kind)
            if entry := index.get(name, {}):
                yield from _object_faults(folder, item, name, entry, clusters.get(repository.cluster_of(folder)))
    for instance in repository.instances:
        for item in repository.renders.get(instance.folder, []):
            if item.get("kind") == "AppProject" and at(item, "metadata", "name") != "addons":
                yield from _without_schema(instance.folder, item, repository.schemas)


class _Addons:
    """What the add-ons of a cluster bring."""

    def __init__(self, repository: Repository, cluster: str) -> None:
        found = [item for item in repository.installed(cluster) if item.get("kind") == "Application"]
        self.folders = layout.brought(cluster)
        self.names = {str(at(item, "metadata", "name")).removesuffix(f"-{cluster}") for item in found}
        self._charts = {at(item, "spec", "source", "chart") for item in found}
        self._told = repository.kinds.entries

    def missing(self, name: str) -> str | None:
        """The chart that brings a kind and is not installed."""
        chart = _CHARTS_OF_KINDS.get(name) or _CHARTS.get(name.partition(".")[2])
        return chart if chart not in self._charts and name not in self._told else None


def _object_faults(folder: str, item: Object, name: str, entry: Any, addons: _Addons | None) -> Iterator[Finding]:
    if addons and (chart := addons.missing(name)):
        yield finding(RULE, folder, item, f"kind: {name}: no Application of {addons.folders[0]}/ has the chart {chart},"
                      f" which brings it; add it to {PLATFORM}/addons/, or say what installs it: `python"
                      f" scripts/add_kind.py --kind {name} --outside REASON`", *addons.folders)  # fmt: skip
    if entry["scope"] == "Cluster" and identity(item).namespace:
        yield finding(RULE, folder, item, f"metadata.namespace: {identity(item).namespace!r}: {name} is of the whole"
                      f" cluster and in no namespace; such an object belongs to {PLATFORM}/")  # fmt: skip
    if entry["scope"] == "Namespaced" and not identity(item).namespace and layout.is_of_argocd(folder):
        yield finding(RULE, folder, item, f"metadata.namespace: missing: {name} is in a namespace; name it")


def _without_schema(folder: str, project: Object, closed: Path) -> Iterator[Finding]:
    for field in _LISTS:
        for entry in mappings(at(project, "spec", field)):
            name = schemas.called(str(at(entry, "group")), str(at(entry, "kind")))
            # A wildcard is refused by the rule of projects.
            if name not in schemas.kinds(closed) and "*" not in name:
                message = f"spec.{field}: {name}: there is no schema of it; take it out{kinds.remedy(name, closed)}"
                yield finding(RULE, folder, project, message)


RULES: dict[str, Rule] = {RULE: check_kinds}

"""What is installed on a control plane of this machine: KServe and Argo CD as in their own manifests, what stands in
for what is not there, and the repository that Argo CD watches."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import yaml

from gitops.manifests import kustomize
from gitops.manifests.definitions import read
from gitops.manifests.objects import Object, at, mappings
from gitops.programs import tools
from gitops.repo import layout

_STANDINS = Path(__file__).parent / "standins"
_ALLOWS = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount")


def kserve(address: str, authority: bytes) -> list[Object]:
    """KServe as in its manifests, with a controller that is a process, and webhooks that are called at `address`,
    whose certificate is by this authority. Nothing here routes requests, so it makes no Ingress."""
    files = tools.KSERVE.files
    objects = []
    for item in kustomize.rendered(files, "config/overlays/standalone/kserve"):
        if item["kind"] in ("Certificate", "Issuer", "Deployment"):
            continue
        for webhook in item.get("webhooks", ()):
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {
                "url": f"{address}{path}",
                "caBundle": base64.b64encode(authority).decode(),
            }
        if item["kind"] == "ConfigMap" and item["metadata"]["name"] == "inferenceservice-config":
            for key, changed in (
                ("deploy", {"defaultDeploymentMode": "Standard"}), ("ingress", {"disableIngressCreation": True}),
            ):  # fmt: skip
                item["data"][key] = json.dumps(json.loads(item["data"][key]) | changed)
        objects.append(item)
    return objects


def serving_runtime() -> Object:
    """The stock server that apps of this repository use."""
    files = tools.KSERVE.files
    runtime: Object = yaml.safe_load((files / "config/runtimes/kserve-sklearnserver.yaml").read_text())
    [server] = [each for each in runtime["spec"]["containers"] if each["name"] == "kserve-container"]
    server["image"] = f"kserve/sklearnserver:{tools.KSERVE.version}"
    return runtime


def argocd() -> list[Object]:
    """Argo CD's kinds, its configuration, and what its programs may do."""
    files = tools.ARGOCD.files / "manifests"
    objects = [yaml.safe_load(file.read_text()) for file in sorted((files / "crds").glob("*-crd.yaml"))]
    objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}})
    allowed = [item for item in kustomize.rendered(files, "cluster-install") if item["kind"] in _ALLOWS]
    for item in [*kustomize.rendered(files, "base/config"), *allowed]:
        if not item["kind"].startswith("Cluster"):
            item["metadata"]["namespace"] = "argocd"
        if item["metadata"]["name"] == "argocd-cm":
            item["data"] |= yaml.safe_load((_STANDINS / "argocd-cm.yaml").read_text())["data"]
        objects.append(item)
    return objects


def definitions(root: Path) -> list[Object]:
    """The kinds of add-ons that a project of a checkout allows, and nobody else here installs: those of which the
    engine has the schemas."""
    rendered = kustomize.rendered(root, layout.ARGOCD)
    entries = [entry for item in rendered for entry in mappings(at(item, "spec", "namespaceResourceWhitelist"))
               if item["metadata"]["name"] != "addons"]  # fmt: skip
    allowed = {(at(entry, "group"), at(entry, "kind")) for entry in entries}
    files = [
        file
        for owner in ("cert-manager", "external-secrets")
        for file in sorted(tools.SCHEMAS.path.glob(f"github.com/{owner}/**/*.yaml"))
        if file.name.partition("_")[0] in {group for group, _ in allowed}
    ]
    found: list[Object] = [item for file in files for item in read(file.read_bytes(), file.name)]
    return [item for item in found if (item["spec"]["group"], item["spec"]["names"]["kind"]) in allowed]


def policies(root: Path) -> list[Object]:
    """What a cluster of this repository refuses, verifies and tells Argo CD by itself: argocd/platform/ without its
    add-ons, and the settings that Argo CD would give itself."""
    objects = kustomize.rendered(root, layout.PLATFORM)
    return [settings(root), *(item for item in objects if item["kind"] != "Application")]


def settings(root: Path) -> Object:
    """What Argo CD has to know of the kinds that it syncs, as a part of its own ConfigMap."""
    found: Object = yaml.safe_load((root / layout.PLATFORM / "argo-cd/argocd-cm.yaml").read_text())
    return found


def node() -> Object:
    """The one node, which kwok plays."""
    found: Object = yaml.safe_load((_STANDINS / "node.yaml").read_text())
    return found


def ingress_stage() -> str:
    """What kwok does in the place of a controller that makes load balancers."""
    return (_STANDINS / "ingress-stage.yaml").read_text()

"""How an Argo CD comes into a cluster that it serves from elsewhere: an account there, and a Secret here.

Source of the Secret: https://argo-cd.readthedocs.io/en/stable/operator-manual/declarative-setup/#clusters
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

from gitops.cluster.kube import Cluster, apply_all
from gitops.manifests.objects import Object, at

from contract.errors import Refused

NAMESPACE, ACCOUNT, ROLE = "kube-system", "argocd-manager", "argocd-manager-role"
SECRET = ("v1", "Secret")
_OF_ACCOUNT = {"kubernetes.io/service-account.name": ACCOUNT}
# Add-ons bring roles, and Kubernetes lets nobody give a right that he does not have. What an environment may do is
# less: its project allows its own namespace and a list of kinds.
_RULES = [
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
]
_SECONDS = 30


def register(hub: Cluster, target: Cluster, name: str, role: str = "", *, rotate: bool = False) -> None:
    """Makes a cluster known to the Argo CD of another one by its name. With a `role` of AWS, it comes in by that, which
    an access entry of EKS lets in; else by the token of an account, which is made here unless there is one, or a new
    one in its place is asked for.

    Raises Refused where a server refuses, or makes no token in time.
    """
    if role:
        access: dict[str, Any] = {"awsAuthConfig": {"clusterName": name, "roleARN": role}}
        old = []
    else:
        apply_all(target, account())
        old = tokens(target)
        kept = None if rotate else next(iter(old), None)
        old = [each for each in old if each is not kept]
        access = {"bearerToken": token(target, kept or created(target))}
    access["tlsClientConfig"] = _authority(target)
    hub.apply(secret(name, target.server, access))
    # Only what nobody comes in by any more.
    for each in old:
        target.delete(*SECRET, each["metadata"]["name"], NAMESPACE)


def account() -> list[Object]:
    """As whom Argo CD comes to a cluster that it serves from elsewhere."""
    rights = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}},
        {"apiVersion": f"{rights}/v1", "kind": "ClusterRole", "metadata": {"name": ROLE}, "rules": _RULES},
        {
            "apiVersion": f"{rights}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{ROLE}-binding"},
            "roleRef": {"apiGroup": rights, "kind": "ClusterRole", "name": ROLE},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
        },
    ]


def tokens(target: Cluster) -> list[Object]:
    """The Secrets with a token of the account."""
    return [
        each
        for each in target.list(*SECRET, NAMESPACE)
        if (at(each, "metadata", "annotations") or {}).items() >= _OF_ACCOUNT.items()
    ]


def created(target: Cluster) -> Object:
    """A new one."""
    name = f"{ACCOUNT}-token-{time.time_ns():x}"
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": _OF_ACCOUNT}
    kind = "kubernetes.io/service-account-token"
    return target.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind})


def token(target: Cluster, item: Object) -> str:
    """What a cluster writes into a Secret for an account's token."""
    name, end = item["metadata"]["name"], time.monotonic() + _SECONDS
    while not (found := at(item, "data", "token")):
        if time.monotonic() > end:
            raise Refused(
                f"{target.server}: Secret {name}: no token after {_SECONDS} s; is its controller manager there?"
            )
        time.sleep(0.1)
        item = target.get(*SECRET, name, NAMESPACE) or item
    return base64.b64decode(found).decode()


def secret(name: str, server: str, access: dict[str, Any]) -> Object:
    """By which Argo CD knows a cluster."""
    metadata = {
        "name": f"cluster-{name}", "namespace": "argocd", "labels": {"argocd.argoproj.io/secret-type": "cluster"},
    }  # fmt: skip
    texts = {"name": name, "server": server, "config": json.dumps(access, sort_keys=True)}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in texts.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}


def _authority(target: Cluster) -> dict[str, str]:
    """Whose certificates a cluster's server has, as the kubeconfig tells."""
    file = target.api.configuration.ssl_ca_cert
    if not file:
        return {}
    return {"caData": base64.b64encode(Path(file).read_bytes()).decode()}

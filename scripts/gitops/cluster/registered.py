"""How an Argo CD comes into a cluster that it serves from elsewhere: an account there, and a Secret here.

Source of the Secret: https://argo-cd.readthedocs.io/en/stable/operator-manual/declarative-setup/#clusters
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gitops.cluster import rights
from gitops.cluster.kube import Cluster
from gitops.cluster.rights import ACCOUNT
from gitops.manifests.objects import Object, at
from gitops.repo.applications import NAMESPACE

from contract.errors import Refused

SECRET = ("v1", "Secret")
_TOKEN = "kubernetes.io/service-account-token"
_GROUP = {"kind": "Group", "name": ACCOUNT, "apiGroup": rights.GROUP}
_ACCOUNT = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
_SECONDS = 30


def register(
    hub: Cluster, target: Cluster, name: str, objects: Sequence[Object], role: str = "", *, rotate: bool = False
) -> None:
    """Makes a cluster known to the Argo CD of another one by its name, and lets it do there what the projects among
    these objects allow. With a `role` of AWS, given now or before, an access entry of EKS lets it in, as the group
    `argocd-manager`, and no token does any more; else it is an account there, with the token that it has or, with
    `rotate`, a new one in the place of all before.

    Raises Refused where a server refuses, or makes no token in time, and, before anything is changed, where another
    Secret has the name or the address, or the kubeconfig turns the check of the server's certificate off.
    """
    _require_free(hub, target, name)
    authority = target.authority()
    access: dict[str, Any] = {"tlsClientConfig": {"caData": _encoded(authority)} if authority else {}}
    known = _known(hub, name)
    role = role or str(at(known, "awsAuthConfig", "roleARN") or "")
    rights.grant(target, list(rights.needed(objects, name, _GROUP if role else _ACCOUNT)))
    kept = ""
    if role:
        access["awsAuthConfig"] = {"clusterName": name, "roleARN": role}
    else:
        target.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": rights.named(ACCOUNT, NAMESPACE)})
        kept, token = _fresh(target) if rotate else _kept(target, str(known.get("bearerToken", ""))) or _fresh(target)
        access["bearerToken"] = token
    hub.apply(_secret(target, name, access))
    # Only now, when nobody comes in by them.
    for old in _tokens(target).keys() - {kept} if role or rotate else ():
        target.delete(*SECRET, old, NAMESPACE)


def _require_free(hub: Cluster, target: Cluster, name: str) -> None:
    mine = {"name": name, "server": target.server}
    for item in hub.list(*SECRET, NAMESPACE, "argocd.argoproj.io/secret-type=cluster"):
        other, same = str(at(item, "metadata", "name")), [key for key, text in mine.items() if _text(item, key) == text]
        if other != f"cluster-{name}" and same:
            raise Refused(
                f"Secret {other}: {same[0]}: {mine[same[0]]}, as the cluster {name} has, and Argo CD would take either;"
                f" run `kubectl delete secret {other} -n {NAMESPACE}`, which deletes nothing on that cluster"
            )


def _tokens(target: Cluster) -> dict[str, str]:
    """Those of the account, by the Secret."""
    found = [item for item in target.list(*SECRET, NAMESPACE, rights.SELECTOR) if item.get("type") == _TOKEN]
    return {str(item["metadata"]["name"]): _text(item, "token") for item in found}


def _kept(target: Cluster, known: str) -> tuple[str, str] | None:
    """The Secret of a token, and the token, if it is good there."""
    return next(((name, token) for name, token in _tokens(target).items() if token and token == known), None)


def _fresh(target: Cluster) -> tuple[str, str]:
    """A new Secret, and the token that the cluster has written into it."""
    name, end = f"{ACCOUNT}-{secrets.token_hex(4)}", time.monotonic() + _SECONDS
    metadata = {**rights.named(name, NAMESPACE), "annotations": {"kubernetes.io/service-account.name": ACCOUNT}}
    item = target.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": _TOKEN})
    while not (found := _text(item, "token")):
        if time.monotonic() > end:
            raise Refused(
                f"{target.server}: Secret {name}: no token after {_SECONDS} s; is its controller manager there?"
            )
        time.sleep(0.1)
        item = target.get(*SECRET, name, NAMESPACE) or item
    return name, found


def _known(hub: Cluster, name: str) -> dict[str, Any]:
    """How Argo CD comes in now."""
    config = _text(hub.get(*SECRET, f"cluster-{name}", NAMESPACE), "config")
    return dict(json.loads(config)) if config else {}


def _secret(target: Cluster, name: str, access: Mapping[str, Any]) -> Object:
    """By which Argo CD knows a cluster."""
    metadata = {
        "name": f"cluster-{name}", "namespace": NAMESPACE, "labels": {"argocd.argoproj.io/secret-type": "cluster"},
    }  # fmt: skip
    texts = {"name": name, "server": target.server, "config": json.dumps(access, sort_keys=True)}
    data = {key: _encoded(value.encode()) for key, value in texts.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _text(item: Object | None, key: str) -> str:
    return base64.b64decode(str(at(item, "data", key) or "")).decode(errors="replace")

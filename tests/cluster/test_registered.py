"""How Argo CD comes into a cluster that it serves from elsewhere, asked of an API server that plays both."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import SAMPLE, wait_until

from gitops.cluster import registered, rights
from gitops.cluster.control_plane import ControlPlane
from gitops.cluster.kube import Cluster
from gitops.manifests.objects import Object, at

from contract.errors import Refused

ROLE = "arn:aws:iam::444455556666:role/argocd"
# A kind of the whole cluster, one of an environment, one of the add-ons, and what nobody may do.
PROJECTS = """
kind: AppProject
metadata: {name: prod}
spec:
  destinations: [{name: eu, namespace: ml-prod}, {name: us, namespace: ml-us}, {server: s, namespace: ml-dev}]
  clusterResourceWhitelist: [{group: "", kind: Namespace, name: ml-prod}]
  namespaceResourceWhitelist:
    - {group: apps, kind: Deployment}
    - {group: networking.k8s.io, kind: NetworkPolicy}
    - {group: networking.k8s.io, kind: Ingress}
---
kind: AppProject
metadata: {name: addons}
spec:
  destinations: [{name: eu, namespace: kserve}]
  clusterResourceWhitelist:
    - {group: rbac.authorization.k8s.io, kind: ClusterRole}
    - {group: elbv2.k8s.aws, kind: IngressClassParams}
  namespaceResourceWhitelist: [{group: "", kind: Secret}]
---
kind: AppProject
metadata: {name: us}
spec:
  destinations: [{name: us, namespace: ml-us}]
  clusterResourceWhitelist: [{group: "*", kind: "*"}]
"""
OBJECTS: list[Object] = list(yaml.safe_load_all(PROJECTS))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    made = ControlPlane(SAMPLE, tmp_path_factory.mktemp("bare") / "state")
    try:
        made.start("etcd", "kube-apiserver", "kube-controller-manager")
        yield made
    finally:
        made.down()


def config(cluster: Cluster) -> dict[str, object]:
    found = cluster.get("v1", "Secret", "cluster-eu", "argocd")
    text = base64.b64decode(str(at(found, "data", "config")))
    return dict(json.loads(text))


def versions(cluster: Cluster) -> dict[str, str]:
    """Every object that is written, with its last change, but for what the cluster itself writes into Secrets."""
    kinds = ("ClusterRole", "ClusterRoleBinding", "RoleBinding")
    found = [item for kind in kinds for item in cluster.list(f"{rights.GROUP}/v1", kind, selector=rights.SELECTOR)]
    found += [item for item in cluster.list("v1", "Secret", "argocd") if item["metadata"]["name"] == "cluster-eu"]
    return {f"{item['kind']} {item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in found}


def may(cluster: Cluster, user: str, verb: str, group: str, resource: str, space: str = "", name: str = "") -> bool:
    attributes = {"verb": verb, "group": group, "resource": resource, "namespace": space, "name": name}
    groups = ["system:authenticated", *([user] if ":" not in user else [])]
    review = {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
    }  # fmt: skip
    with cluster._translated("SubjectAccessReview"):
        asked = cluster._kind("authorization.k8s.io/v1", "SubjectAccessReview").create(body=review)
    return bool(asked.to_dict()["status"]["allowed"])


def comes_in(plane: ControlPlane, token: object, folder: Path) -> bool:
    """Whether a token is good."""
    settings = yaml.safe_load(plane.kubeconfig.read_text())
    settings["users"][0]["user"] = {"token": token}
    (folder / "config").write_text(yaml.safe_dump(settings))
    try:
        Cluster(folder / "config").list("v1", "Namespace")
    except Refused:
        return False
    return True


def test_a_cluster_is_registered_once_and_a_token_is_void_after_the_next(plane: ControlPlane, tmp_path: Path) -> None:
    cluster = plane.cluster
    registered.register(cluster, cluster, "eu", OBJECTS)
    first, before, tokens = config(cluster)["bearerToken"], versions(cluster), registered._tokens(cluster)

    registered.register(cluster, cluster, "eu", OBJECTS)
    assert (versions(cluster), registered._tokens(cluster)) == (before, tokens)
    assert comes_in(plane, first, tmp_path)

    registered.register(cluster, cluster, "eu", OBJECTS, rotate=True)
    second = config(cluster)["bearerToken"]
    assert second != first
    assert comes_in(plane, second, tmp_path)
    # The server takes a token again, for ten seconds, that it has just looked up.
    wait_until(lambda: not comes_in(plane, first, tmp_path), "the first token is void")


def test_a_token_that_is_gone_is_made_anew(plane: ControlPlane, tmp_path: Path) -> None:
    cluster = plane.cluster
    registered.register(cluster, cluster, "eu", OBJECTS)
    for name in registered._tokens(cluster):
        cluster.delete("v1", "Secret", name, "argocd")

    registered.register(cluster, cluster, "eu", OBJECTS)

    assert comes_in(plane, config(cluster)["bearerToken"], tmp_path)


def test_on_eks_a_role_comes_in_and_no_token(plane: ControlPlane) -> None:
    cluster = plane.cluster
    registered.register(cluster, cluster, "eu", OBJECTS)

    registered.register(cluster, cluster, "eu", OBJECTS, ROLE)

    assert config(cluster).keys() == {"awsAuthConfig", "tlsClientConfig"}
    assert config(cluster)["awsAuthConfig"] == {"clusterName": "eu", "roleARN": ROLE}
    assert registered._tokens(cluster) == {}
    assert may(cluster, "argocd-manager", "patch", "apps", "deployments", "ml-prod")
    assert not may(cluster, "system:serviceaccount:argocd:argocd-manager", "patch", "apps", "deployments", "ml-prod")

    before = versions(cluster)
    registered.register(cluster, cluster, "eu", OBJECTS)
    assert (versions(cluster), registered._tokens(cluster)) == (before, {})
    # What follows is about tokens again.
    cluster.delete("v1", "Secret", "cluster-eu", "argocd")


@pytest.mark.parametrize(
    ("allowed", "verb", "group", "resource", "space", "name"),
    [
        (True, "patch", "apps", "deployments", "ml-prod", "any"),
        (True, "create", "networking.k8s.io", "networkpolicies", "ml-prod", ""),
        (True, "delete", "networking.k8s.io", "ingresses", "ml-prod", "any"),
        (True, "patch", "", "secrets", "kserve", "any"),
        (True, "patch", "elbv2.k8s.aws", "ingressclassparams", "", "any"),
        (True, "escalate", rights.GROUP, "clusterroles", "", "any"),
        (True, "list", "apps", "deployments", "kube-system", ""),
        (True, "patch", "", "namespaces", "", "ml-prod"),
        (False, "patch", "apps", "deployments", "kserve", "any"),
        (False, "patch", "apps", "deployments", "ml-dev", "any"),
        (False, "patch", "", "secrets", "ml-prod", "any"),
        (False, "patch", "", "secrets", "argocd", "any"),
        (False, "create", "", "pods", "ml-prod", ""),
        (False, "create", "", "pods/exec", "ml-prod", ""),
        (False, "patch", "", "namespaces", "", "kube-system"),
        (False, "delete", "", "namespaces", "", "ml-prod"),
        (False, "impersonate", "", "users", "", ""),
    ],
)
def test_argo_cd_may_do_there_what_its_projects_allow(
    plane: ControlPlane, allowed: bool, verb: str, group: str, resource: str, space: str, name: str
) -> None:
    registered.register(plane.cluster, plane.cluster, "eu", OBJECTS)

    account = "system:serviceaccount:argocd:argocd-manager"
    assert may(plane.cluster, account, verb, group, resource, space, name) == allowed


def test_the_rights_in_a_namespace_go_with_the_project(plane: ControlPlane) -> None:
    cluster = plane.cluster
    registered.register(cluster, cluster, "eu", OBJECTS)

    registered.register(cluster, cluster, "eu", OBJECTS[1:])

    account = "system:serviceaccount:argocd:argocd-manager"
    assert not may(cluster, account, "patch", "apps", "deployments", "ml-prod")
    assert may(cluster, account, "patch", "", "secrets", "kserve")
    assert cluster.get("v1", "Namespace", "ml-prod") is not None


def test_a_cluster_that_argo_cd_has_by_another_secret_is_refused(plane: ControlPlane) -> None:
    cluster = plane.cluster
    registered.register(cluster, cluster, "eu", OBJECTS)
    other = cluster.get("v1", "Secret", "cluster-eu", "argocd")
    assert other is not None
    secret = {field: other[field] for field in ("apiVersion", "kind", "type", "data")}
    labels = {"argocd.argoproj.io/secret-type": "cluster"}
    cluster.apply(secret | {"metadata": {"name": "by-hand", "namespace": "argocd", "labels": labels}})
    try:
        with pytest.raises(Refused) as refused:
            registered.register(cluster, cluster, "eu", OBJECTS)
    finally:
        cluster.delete("v1", "Secret", "by-hand", "argocd")

    assert refused.value.lines == (
        "Secret by-hand: name: eu, as the cluster eu has, and Argo CD would take either; run `kubectl delete secret"
        " by-hand -n argocd`, which deletes nothing on that cluster",
    )


def test_an_address_that_anybody_could_answer_at_is_refused(plane: ControlPlane, tmp_path: Path) -> None:
    settings = yaml.safe_load(plane.kubeconfig.read_text())
    del settings["clusters"][0]["cluster"]["certificate-authority-data"]
    settings["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    (tmp_path / "config").write_text(yaml.safe_dump(settings))

    with pytest.raises(Refused, match="insecure-skip-tls-verify"):
        Cluster(tmp_path / "config").authority()

"""What an Argo CD may do in a cluster that it serves from elsewhere: what its projects allow there.

Two things are wide. It may read all, as Argo CD watches every kind to find what an object of Git has made. And where
add-ons bring roles of their own, it may write any role and bind it, which is as much as an administrator may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gitops.cluster import kube
from gitops.cluster.kube import Cluster
from gitops.manifests.objects import Object, at, mappings
from gitops.repo.applications import NAMESPACE

GROUP = "rbac.authorization.k8s.io"
ACCOUNT = "argocd-manager"
"""The account, its roles, and in EKS the group of its access entry."""
LABELS = {"app.kubernetes.io/part-of": ACCOUNT}
SELECTOR = f"app.kubernetes.io/part-of={ACCOUNT}"
_BINDING = (f"{GROUP}/v1", "RoleBinding")
_READ = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}


def grant(target: Cluster, wanted: Sequence[Object]) -> None:
    """Gives rights, and takes away those in namespaces that no project has any more. A namespace that is there stays as
    it is."""
    kube.apply_all(target, [item for item in wanted if item["kind"] != "Namespace" or _is_new(target, item)])
    kept = {_key(item) for item in wanted}
    for item in target.list(*_BINDING, selector=SELECTOR):
        if _key(item) not in kept:
            target.delete(*_BINDING, *_key(item))


def _is_new(target: Cluster, item: Object) -> bool:
    return target.get(item["apiVersion"], item["kind"], item["metadata"]["name"]) is None


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"]["name"], item["metadata"].get("namespace", "")


def needed(objects: Sequence[Object], cluster: str, subject: Object) -> Iterator[Object]:
    """What gives a subject the rights to apply to a cluster all that the projects among these objects allow: kinds
    of the whole cluster everywhere, all others in the projects' namespaces, which have to be there for it."""
    found = {str(at(item, "metadata", "name")): item["spec"] for item in objects if item["kind"] == "AppProject"}
    projects = {name: spec for name, spec in found.items() if _spaces(spec, cluster)}
    wide = [entry for spec in projects.values() for entry in mappings(spec.get("clusterResourceWhitelist"))]
    yield _namespace(NAMESPACE)
    yield _role(ACCOUNT, [_READ, *_rules(wide)])
    yield _binding("ClusterRoleBinding", ACCOUNT, subject)
    for name, spec in projects.items():
        yield _role(f"{ACCOUNT}-{name}", list(_rules(mappings(spec.get("namespaceResourceWhitelist")))))
        for space in _spaces(spec, cluster):
            yield _namespace(space)
            yield _binding("RoleBinding", f"{ACCOUNT}-{name}", subject, space)


def _spaces(spec: Mapping[str, Any], cluster: str) -> list[str]:
    found = mappings(spec.get("destinations"))
    return sorted({str(each["namespace"]) for each in found if each.get("name") == cluster})


def _rules(entries: Sequence[Mapping[str, Any]]) -> Iterator[Object]:
    """What may be written, by entries of a project's whitelist."""
    for group, kind, name in sorted({(each["group"], each["kind"], each.get("name", "")) for each in entries}):
        what = {"apiGroups": [group], "resources": _resources(kind)}
        # Nobody else may give a right that he does not have.
        more = ["escalate", "bind"] if group == GROUP and kind.endswith("Role") else []
        yield {**what, "verbs": ["create", *more]}
        # With a namespace goes all in it.
        verbs = ["update", "patch"] if (group, kind) == ("", "Namespace") else ["update", "patch", "delete"]
        yield {**what, "verbs": verbs, **({"resourceNames": [name]} if name else {})}


def _resources(kind: str) -> list[str]:
    """The resources of a kind, whose definition may come later, as Kubernetes guesses them; some have no plural.

    Source: `UnsafeGuessKindToResource` in
    https://github.com/kubernetes/apimachinery/blob/v0.36.4/pkg/api/meta/restmapper.go
    """
    word = kind.lower()
    if word.endswith("s"):
        return [word, f"{word}es"]
    return [f"{word[:-1]}ies"] if word.endswith("y") else [f"{word}s"]


def named(name: str, space: str = "") -> dict[str, Any]:
    """The metadata of what belongs to the account."""
    return {"name": name, **({"namespace": space} if space else {}), "labels": LABELS}


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _role(name: str, rules: list[Object]) -> Object:
    return {"apiVersion": f"{GROUP}/v1", "kind": "ClusterRole", "metadata": named(name), "rules": rules}


def _binding(kind: str, name: str, subject: Object, space: str = "") -> Object:
    role = {"kind": "ClusterRole", "name": name, "apiGroup": GROUP}
    made = {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": named(name, space)}
    return {**made, "roleRef": role, "subjects": [subject]}

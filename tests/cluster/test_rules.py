"""What validate.py says of manifests is what a real API server says, with KServe's own webhooks behind it.

On an API server with KServe's controller, and the controllers of Kubernetes for quotas; nothing is stored but the
environments. Every object is asked for by a dry run, and so is every pod that it would make.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import corpus
import pytest
import valid
from conftest import wait_until
from corpus import FIXTURES, Fixture

from gitops.checks import kserve, kubernetes
from gitops.checks.framework import Repository
from gitops.cluster import installed, kube
from gitops.cluster.control_plane import INSTALLER, ControlPlane
from gitops.cluster.kube import Cluster
from gitops.manifests import closure, kinds, kustomize
from gitops.manifests.objects import Object, at, identity
from gitops.repo import layout
from gitops.repo.policy import read_policy

from contract.errors import Refused

from .conftest import create

ENVIRONMENTS = ("dev", "staging", "prod")
# What the controller of KServe says in the status of a service, and no webhook.
BY_CONTROLLER = ("answers-", "kserve-runtime")
ASKED = [
    fixture
    for fixture in FIXTURES
    if fixture.catchers & {"kubernetes", "kserve"} and not fixture.name.startswith(BY_CONTROLLER)
]
# What pods of the corpus refer to, which the administrator of a cluster makes.
CLASSES = [
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "serving"}, "value": 1000},
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "batch"}, "value": 10},
    {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "runsc"},
]


@pytest.fixture(scope="module")
def root(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rules") / "root"
    corpus.copy(manifests, root)
    return root


@pytest.fixture(scope="module")
def before(root: Path) -> dict[str, list[Object]]:
    return kustomize.rendered_all(root, layout.folders(root, read_policy(root)))


@pytest.fixture(scope="module")
def right(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample with two hundred apps."""
    root = tmp_path_factory.mktemp("right")
    valid.copy(manifests, root)
    return root


@pytest.fixture(scope="module")
def server(
    root: Path, right: Path, before: dict[str, list[Object]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """With the kinds that the apps are made of, a fork's own and those of the add-ons."""
    added = [*installed.definitions(right), *kinds.read(right).definitions.values()]
    plane = ControlPlane(root, tmp_path_factory.mktemp("server"))
    try:
        plane.start("etcd", "kube-apiserver", "kube-controller-manager")
        authority = (plane.folder / "certificates/ca.crt").read_bytes()
        objects = installed.kserve(f"https://{plane.address('kserve-webhook')}", authority)
        kube.apply_all(plane.cluster, objects, manager=INSTALLER)
        kube.await_kinds(plane.cluster, objects)
        plane.start("kserve")
        plane.define(added)
        environments = [item for name in ENVIRONMENTS for item in before[f"overlays/{name}/environment"]]
        kube.apply_all(plane.cluster, [*CLASSES, *environments])
        for name in ENVIRONMENTS:
            wait_until(lambda name=name: _counted(plane.cluster, f"ml-{name}"), f"the quota of {name} is in force")  # type: ignore[misc]
        yield plane.cluster
    finally:
        plane.down()


def _counted(cluster: Cluster, space: str) -> bool:
    quota = cluster.get("v1", "ResourceQuota", "environment", space)
    account = cluster.get("v1", "ServiceAccount", "default", space)
    return account is not None and at(quota, "status", "hard") == at(quota, "spec", "hard")


def words(cluster: Cluster, item: Object, unknown: str = "Strict") -> tuple[str, ...]:
    """The server's errors for a new object; none if it would take it. KServe's parts of a pod have other fields."""
    try:
        create(cluster, item, dry_run=True, unknown=unknown)
    except Refused as refused:
        return refused.lines
    return ()


def refused(cluster: Cluster, items: Sequence[Object]) -> dict[str, tuple[str, ...]]:
    """The server's errors for objects and for their pods, by the object."""
    found: dict[str, tuple[str, ...]] = {}
    for item in items:
        said = words(cluster, item)
        for asked in kubernetes.pods([kubernetes.Asked("", item, item)]) if not said else ():
            # Which account a pod runs as is no matter here, and that there is one is.
            spec = asked.made["spec"] | {"serviceAccountName": "default"}
            said += words(cluster, asked.made | {"spec": spec}, "Ignore")
        if said:
            found[str(identity(item))] = said
    return found


def test_the_server_takes_two_hundred_apps(server: Cluster, right: Path) -> None:
    renders = kustomize.rendered_all(right, [f"overlays/{valid.ENVIRONMENT}/{app.name}" for app in valid.APPS])

    said = {folder: refused(server, items) for folder, items in renders.items()}

    assert {folder: found for folder, found in said.items() if found} == {}


@pytest.mark.parametrize("fixture", ASKED, ids=lambda fixture: fixture.name)
def test_the_server_refuses_what_is_refused_here_and_nothing_else(
    server: Cluster, root: Path, before: dict[str, list[Object]], fixture: Fixture
) -> None:
    with fixture.applied(root):
        changed = closure.readers(root, list(before), [fixture.file, *fixture.beside])
        renders = before | kustomize.rendered_all(root, changed)
        repository = Repository(root, read_policy(root), renders, changed)
        found = [*kubernetes.check_kubernetes(repository), *kserve.check_kserve(repository)]

    for folder in changed:
        new = [item for item in renders[folder] if item not in before[folder]]
        here = {finding.where.partition(": ")[2] for finding in found if finding.folders[0] == folder}
        assert refused(server, new).keys() == here

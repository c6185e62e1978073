"""The API server's own verdict on the corpus of faults, with the policies of argocd/platform/ in force.

On an API server alone, which has KServe's kinds and neither its webhooks nor any controller: what it refuses, the
policies refuse. What controllers make on the whole control plane: test_controllers.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import corpus
import pytest
import yaml
from conftest import IMAGE, package, wait_until, write_release
from corpus import FIXTURES, Fixture

from gitops.cluster.control_plane import ControlPlane
from gitops.cluster.kube import Cluster, apply_all
from gitops.manifests import closure, kustomize, workloads
from gitops.manifests.objects import Object, identity
from gitops.programs import tools
from gitops.releases.release import UNRELEASED
from gitops.repo import layout
from gitops.repo.policy import read_policy

from contract.errors import Refused

from .conftest import FLAVOURS, targets

# What a cluster cannot know, because it does not see the files, and where it fills in an empty name by itself.
OTHERWISE = ("release-", "inference-service-required")
# What their findings are about, the cluster judges as well.
ASKED = {"schema", "release", "image", "model-form", "storage", "workloads"}
SPACES = ("ml-dev", "ml-staging", "ml-prod")
KUBERNETES = "system:serviceaccount:kube-system:"
FOREIGN = "docker.io/someone/server:1"


@pytest.fixture(scope="module")
def released_root(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is when every app is released: what is not released is refused whatever else is wrong."""
    root = tmp_path_factory.mktemp("admission") / "root"
    corpus.copy(manifests, root)
    version = package(root.parent / "version")
    for target in targets():
        write_release(root, target, version, FLAVOURS[target.app], IMAGE)
    return root


@pytest.fixture(scope="module")
def server(released_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    plane = ControlPlane(released_root, tmp_path_factory.mktemp("api-server"))
    try:
        plane.start("etcd", "kube-apiserver")
        install(plane.cluster, released_root)
        yield plane.cluster
    finally:
        plane.down()


def install(cluster: Cluster, root: Path) -> None:
    """KServe's kinds, the namespaces and what is in them by default, and the policies, in force."""
    files = sorted((tools.KSERVE.files / "config/crd/full").rglob("serving.kserve.io_*.yaml"))
    kinds = [yaml.safe_load(file.read_text()) for file in files]
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("argocd", *SPACES)]
    apply_all(cluster, [*kinds, *spaces])
    for space in SPACES:
        for name in ("default", *FLAVOURS):
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": space}}
            cluster.apply(account)
    wait_until(lambda: all(cluster.has(kind["spec"]["group"] + "/" + version["name"], kind["spec"]["names"]["kind"])
                           for kind in kinds for version in kind["spec"]["versions"]), "KServe's kinds are served")  # fmt: skip
    policies = [item for item in rendered(root, layout.PLATFORM) if item["kind"] != "Application"]
    apply_all(cluster, policies)
    bindings = [item["metadata"]["name"] for item in policies if item["kind"].endswith("PolicyBinding")]
    for name in bindings:
        wait_until(lambda name=name: name in str(words(cluster, BREAKS[name])), f"{name} is in force")  # type: ignore[misc]


def rendered(root: Path, folder: str) -> list[Object]:
    return kustomize.objects(kustomize.build(root, folder))


def words(cluster: Cluster, item: Object) -> tuple[str, ...]:
    """The server's words against an object; none if it would take it."""
    try:
        cluster.apply(item, dry_run=True)
    except Refused as refused:
        return refused.lines
    return ()


def pod(image: str, **env: str) -> Object:
    variables = [{"name": name, "value": value} for name, value in env.items()]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": "ml-dev"},
        "spec": {"containers": [{"name": "probe", "image": image, "env": variables}]},
    }


# What each of the policies refuses, and no other.
BREAKS = {
    "model-images": pod(FOREIGN),
    "model-releases": pod(IMAGE, MODEL_URI="s3://elsewhere/model/"),
    "model-kinds": {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": "probe", "namespace": "ml-dev"},
        "spec": {"nodes": {"root": {"routerType": "Sequence"}}},
    },
}


def folders(root: Path) -> list[str]:
    return layout.folders(root, read_policy(root))


@pytest.fixture(scope="module")
def before(released_root: Path) -> dict[str, list[Object]]:
    """What the released repository renders, by folder."""
    return {folder: rendered(released_root, folder) for folder in folders(released_root)}


def test_a_released_repository_is_admitted(server: Cluster, before: dict[str, list[Object]]) -> None:
    for folder, items in before.items():
        for item in items if folder.startswith("overlays/") else ():
            assert words(server, item) == (), identity(item)


# Faults


def applicable(fixture: Fixture) -> bool:
    asked = fixture.catchers & ASKED and fixture.file.startswith(("base/", "apps/", "overlays/"))
    # Nothing is unreleased in the repository that is edited here.
    return bool(asked) and not fixture.name.startswith(OTHERWISE) and UNRELEASED not in fixture.old


ADMISSION = [fixture for fixture in FIXTURES if applicable(fixture)]


def test_there_are_faults_of_everything_that_makes_pods() -> None:
    by_policy = [fixture for fixture in ADMISSION if "schema" not in fixture.catchers]
    named = {line.split(": ")[1].split(" ")[0].split(".")[0] for fixture in by_policy for line in fixture.errors}

    assert len(by_policy) >= 60
    assert named >= {kind for _, kind in workloads.PODS} | {"InferenceService"}


@pytest.mark.parametrize("fixture", ADMISSION, ids=lambda fixture: fixture.name)
def test_what_validate_refuses_is_refused_by_the_server_too(
    server: Cluster, released_root: Path, before: dict[str, list[Object]], fixture: Fixture
) -> None:
    with fixture.applied(released_root):
        changed = closure.readers(released_root, list(before), [fixture.file, *fixture.beside])
        items = {folder: rendered(released_root, folder) for folder in changed}

    new = [item for folder in items for item in items[folder] if item not in before[folder]]
    said = [line for item in new for line in words(server, item)]
    assert said
    if "schema" not in fixture.catchers:
        assert all("ValidatingAdmissionPolicy" in line or "has no such kind" in line for line in said), said

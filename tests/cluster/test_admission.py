"""The API server's own verdict on the corpus of faults, with the policies of argocd/platform/ in force."""

from __future__ import annotations

import shutil
from pathlib import Path

import corpus
import pytest
from conftest import IMAGE, REGISTRY, package, wait_until, write_release
from corpus import FIXTURES, Fixture

from gitops.manifests import closure, kustomize, workloads
from gitops.manifests.objects import Object, at
from gitops.releases.release import UNRELEASED
from gitops.repo import layout
from gitops.repo.policy import read_policy

from contract.errors import Refused

from .conftest import FLAVOURS, World, targets

# What a cluster cannot know, because it does not see the files, where it fills in an empty name by itself, and what the
# policies do not look into: they know the predictor alone.
OTHERWISE = ("release-", "inference-service-required", "image-transformer")


@pytest.fixture(scope="module")
def root(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("admission")
    corpus.copy(manifests, folder)
    return folder


@pytest.fixture(scope="module")
def released_root(root: Path) -> Path:
    """The repository as it is when every app is released: what is not released is refused whatever else is wrong."""
    version = package(root / "version")
    for target in targets():
        write_release(root, target, version, FLAVOURS[target.app], IMAGE)
    return root


def verdict(world: World, root: Path, folders: list[str]) -> list[str]:
    """What the server says against the objects that these folders render."""
    said: list[str] = []
    for objects in kustomize.build_all(root, folders).values():
        for item in kustomize.objects(objects):
            try:
                world.cluster.apply(item, dry_run=True)
            except Refused as refused:
                said += refused.lines
    return said


def folders(root: Path) -> list[str]:
    return layout.folders(root, read_policy(root))


def test_a_released_repository_is_admitted(world: World, released_root: Path) -> None:
    assert verdict(world, released_root, folders(released_root)) == []


def workload(root: Path, environment: str, app: str) -> Object:
    rendered = kustomize.objects(kustomize.build(root, f"overlays/{environment}/{app}"))
    [found] = [item for item in rendered if workloads.pod_keys(item)]
    return found


@pytest.mark.parametrize("app", ["lily-api", "lily-batch"])
def test_production_takes_an_image_by_its_digest_alone(world: World, released_root: Path, app: str) -> None:
    for environment in ("dev", "prod"):
        item = workload(released_root, environment, app)
        at(item, *workloads.pod_keys(item), "containers")[0]["image"] = f"{REGISTRY}/lily-api:1.2.3"
        if environment == "dev":
            world.cluster.apply(item, dry_run=True)
        else:
            with pytest.raises(Refused, match="in production an image is named by its digest"):
                world.cluster.apply(item, dry_run=True)


@pytest.mark.parametrize("app", ["lily-api", "lily-batch"])
def test_what_is_not_released_is_refused(world: World, manifests: Path, app: str) -> None:
    item = workload(manifests, "dev", app)
    # Of two policies that refuse, the server names one.
    at(item, *workloads.pod_keys(item), "containers")[0]["image"] = IMAGE
    with pytest.raises(Refused, match="model-releases"):
        world.cluster.apply(item, dry_run=True)


@pytest.mark.parametrize(
    ("api_version", "kind", "admitted"),
    [
        ("serving.kserve.io/v1beta1", "InferenceService", True),
        ("serving.knative.dev/v1", "Revision", True),
        ("apps/v1", "ReplicaSet", False),
    ],
)
def test_what_is_made_of_an_inference_service_is_not_asked_again(
    world: World, released_root: Path, api_version: str, kind: str, admitted: bool
) -> None:
    [item] = [
        item
        for item in kustomize.objects(kustomize.build(released_root, "overlays/prod/lily-api"))
        if item["kind"] == "Deployment"
    ]
    item["metadata"]["name"] = "made"
    item["metadata"]["ownerReferences"] = [{"apiVersion": api_version, "kind": kind, "name": "any", "uid": "any"}]
    del item["metadata"]["annotations"]
    item["spec"]["template"]["spec"]["containers"][0]["image"] = "anything:latest"

    if admitted:
        world.cluster.apply(item, dry_run=True)
    else:
        with pytest.raises(Refused, match="ValidatingAdmissionPolicy"):
            world.cluster.apply(item, dry_run=True)


def test_a_withdrawn_version_comes_nowhere_new_and_freezes_nothing(world: World, released_root: Path) -> None:
    item = workload(released_root, "dev", "lily-api")
    version = item["metadata"]["annotations"]["model.mlops/version"]
    item["metadata"]["name"] = "kept"
    world.cluster.apply(item)
    try:
        world.done("withdraw_version", "lily", version, "--reason", "leaked labels", "--push")
        world.pull()
        world.looked("platform", world.checkout.tip())
        wait_until(lambda: bool(at(world.cluster.get(*RECORD), "data", f"lily.{version}")), "the record is there", 60)

        new = item | {"metadata": item["metadata"] | {"name": "new"}}
        wait_until(lambda: "withdrawn: " in refusal(world, new), "the server refuses the version", 60)
        item["metadata"]["labels"]["example.org/more"] = "yes"
        assert refusal(world, item) == ""
    finally:
        world.cluster.delete("apps/v1", "Deployment", "kept", "ml-dev")


RECORD = ("v1", "ConfigMap", "model-withdrawn", "argocd")


def refusal(world: World, item: Object) -> str:
    """What the server has against an object; empty if it takes it."""
    try:
        world.cluster.apply(item, dry_run=True)
    except Refused as refused:
        return " ".join(refused.lines)
    return ""


def applicable(fixture: Fixture) -> bool:
    asked = fixture.catchers <= {"schema", "release", "image"} and not fixture.name.startswith(OTHERWISE)
    # Nothing is unreleased in the repository that is edited here.
    return asked and UNRELEASED not in fixture.old


@pytest.mark.parametrize("fixture", [f for f in FIXTURES if applicable(f)], ids=lambda fixture: fixture.name)
def test_what_validate_refuses_is_refused_by_the_server_too(
    world: World, released_root: Path, fixture: Fixture, tmp_path: Path
) -> None:
    shutil.copytree(released_root, tmp_path / "root")
    with fixture.applied(tmp_path / "root"):
        changed = closure.readers(tmp_path / "root", folders(tmp_path / "root"), [fixture.file])
        assert verdict(world, tmp_path / "root", changed) != []

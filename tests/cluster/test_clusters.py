"""Several clusters: one that the hub's Argo CD serves, and one with an Argo CD of its own."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, make_checkout, package, run, wait_until
from kubernetes import client

from gitops.cluster.control_plane import ControlPlane
from gitops.cluster.kube import Cluster
from gitops.manifests import workloads
from gitops.manifests.objects import Object, mappings

from contract.errors import Refused

from .conftest import APPLICATION, DEPLOYMENT, World, create, thaw

APP = "lily-api"
REFUSED = ("do not match any of the allowed destinations", "there are no clusters with this name")
REGIONS = {"prod-eu": "eu", "prod-us": "us"}


@pytest.fixture(scope="module")
def clusters(whole_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Production in two more clusters, from nothing: their control planes run, and nothing is handed over yet."""
    checkout = make_checkout(whole_template, tmp_path_factory.mktemp("clusters"))
    thaw(checkout.root)
    for command in (
        ("cluster", "add", "eu", "--argocd", "hub"),
        ("cluster", "add", "us", "--argocd", "own"),
        *(
            ("environment", "add", name, "--after", "staging", "--like", "prod", "--cluster", cluster, "--host",
             f"{cluster}.example.com")
            for name, cluster in REGIONS.items()
        ),
    ):  # fmt: skip
        done = checkout.run(*command, "--commit")
        assert done.code == 0, done.err
    plane = ControlPlane(checkout.root, checkout.root.parent / "state")
    try:
        plane.install()
        made = World(plane)
        made.pull()
        yield made
    finally:
        plane.down()


@pytest.fixture(scope="module")
def versions(clusters: World, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two, of which the first runs everywhere and the second as far as staging."""
    bucket = yaml.safe_load((clusters.plane.clone / "overlays/promotion.yaml").read_text())["model_bucket"]
    made = [package(tmp_path_factory.mktemp("artifacts"), word) for word in ("one", "two")]
    for version, environments in zip(made, (("staging", "prod-eu", "prod-us"), ("staging",)), strict=True):
        options = ("--model", "lily", "--artifacts", version.folder, "--bucket", f"s3://{bucket}")
        with pytest.MonkeyPatch.context() as patch:
            lead(clusters, patch)
            assert run("upload_model", "--root", clusters.plane.root, *options).code == 0
            clusters.release(APP, "dev", version)
            for environment in environments:
                clusters.promote(APP, environment)
    return [version.version for version in made]


@pytest.fixture(autouse=True)
def _s3(clusters: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lead(clusters, monkeypatch)


def lead(world: World, patch: pytest.MonkeyPatch) -> None:
    """Leads S3 clients to the control plane's own server."""
    for name, value in world.variables.items():
        patch.setenv(name, value)


def there(world: World, environment: str) -> Cluster:
    return world.plane.others[REGIONS[environment]].cluster


def served(world: World, environment: str) -> str:
    """The version that the live object names."""
    found = there(world, environment).get(*DEPLOYMENT, APP, f"ml-{environment}")
    return next((uri.split("/")[-3] for uri in workloads.models(found or {}).values()), "")


def rows(text: str) -> dict[str, dict[str, object]]:
    return {row["environment"]: row for row in json.loads(text)["apps"] if row["app"] == APP}


def test_both_are_handed_over_from_nothing(clusters: World) -> None:
    hub, us = clusters.plane, clusters.plane.others["us"]
    for options in ([], ["--cluster", "us"]):
        clusters.done("bootstrap", "--kubeconfig", hub.kubeconfig, "--wait", "120", *options)

    for environment in REGIONS:
        await_environment(clusters, environment)
    assert {"environment-prod-eu", "platform-eu"} <= clusters.applications().keys()
    assert {item["metadata"]["name"] for item in us.cluster.list(*APPLICATION, "argocd")} == {
        "root",
        "environment-prod-us",
    }


def await_environment(world: World, environment: str) -> None:
    quota = ("v1", "ResourceQuota", "environment", f"ml-{environment}")
    wait_until(lambda: there(world, environment).get(*quota) is not None, f"{environment} is there", 60)


def test_a_promotion_goes_live_on_the_cluster_of_its_environment(clusters: World, versions: list[str]) -> None:
    for environment in REGIONS:
        clusters.live(APP, environment)

        assert served(clusters, environment) == versions[0]


@pytest.mark.parametrize(
    ("argocd", "project", "destination"),
    [
        ("hub", "prod-eu", {"server": "https://kubernetes.default.svc", "namespace": "ml-prod"}),
        ("hub", "prod-eu", {"name": "eu", "namespace": "ml-prod-us"}),
        ("hub", "prod-eu", {"name": "in-cluster", "namespace": "ml-prod-eu"}),
        ("hub", "prod", {"name": "eu", "namespace": "ml-prod"}),
        ("us", "prod-us", {"server": "https://kubernetes.default.svc", "namespace": "argocd"}),
        ("us", "prod-us", {"name": "eu", "namespace": "ml-prod-eu"}),
    ],
)
def test_a_project_of_one_cluster_cannot_reach_the_other(
    clusters: World, argocd: str, project: str, destination: dict[str, str]
) -> None:
    cluster = clusters.plane.others[argocd].cluster if argocd != "hub" else clusters.cluster
    source = {
        "repoURL": clusters.plane.remote.as_uri(), "targetRevision": "cicd", "path": f"overlays/{project}/lily-api",
    }  # fmt: skip
    foreign = {
        "apiVersion": APPLICATION[0], "kind": APPLICATION[1],
        "metadata": {"name": "foreign", "namespace": "argocd"},
        "spec": {"project": project, "source": source, "destination": destination},
    }  # fmt: skip

    def said() -> str:
        return json.dumps((cluster.get(*APPLICATION, "foreign", "argocd") or {}).get("status", {}))

    try:
        cluster.apply(foreign)
        wait_until(lambda: any(words in said() for words in REFUSED), "Argo CD refuses it", 60)
    finally:
        cluster.delete(*APPLICATION, "foreign", "argocd")


def test_a_cluster_without_its_hub_goes_on_and_refuses_and_one_with_its_own_argo_cd_misses_nothing(
    clusters: World, versions: list[str]
) -> None:
    hub, eu = clusters.plane, there(clusters, "prod-eu")
    gone = [name for name in hub.parts if name != "s3"]
    running = pods(eu)
    for name in reversed(gone):
        hub.processes.stop(name)
    try:
        for environment in REGIONS:
            clusters.promote(APP, environment)

        clusters.live(APP, "prod-us")
        assert served(clusters, "prod-us") == versions[1]
        assert (served(clusters, "prod-eu"), pods(eu)) == (versions[0], running)
        with pytest.raises(Refused, match="ValidatingAdmissionPolicy"):
            create(eu, of_somebody_else(eu), dry_run=True)
        told = clusters.status("--json")
        assert told.code == 1
        assert rows(told.out)["prod-us"]["faults"] == []
        assert f"{APP} in prod-eu: {hub.cluster.server}: cannot be reached" in told.err
    finally:
        hub.start(*gone)

    clusters.live(APP, "prod-eu")
    assert served(clusters, "prod-eu") == versions[1]


def pods(cluster: Cluster) -> set[str]:
    return {item["metadata"]["uid"] for item in cluster.list("v1", "Pod", "ml-prod-eu")}


def of_somebody_else(cluster: Cluster) -> Object:
    """What runs, under another name and with an image of no registry of the policy's."""
    found = cluster.get(*DEPLOYMENT, APP, "ml-prod-eu")
    assert found is not None
    made = {field: copy.deepcopy(found[field]) for field in ("apiVersion", "kind", "spec")}
    for container in mappings(made["spec"]["template"]["spec"]["containers"]):
        container["image"] = f"docker.io/somebody/else@sha256:{'0' * 64}"  # type: ignore[index]
    return {**made, "metadata": {"name": "else", "namespace": "ml-prod-eu"}}


def test_a_cluster_that_is_away_is_named_and_the_others_are_shown(clusters: World, versions: list[str]) -> None:
    eu = clusters.plane.others["eu"]
    for environment in ("staging", "prod-us"):
        clusters.live(APP, environment)
    eu.processes.stop("kube-apiserver")
    try:
        told = clusters.status("--json")
        again = clusters.run("bootstrap", "--kubeconfig", clusters.plane.kubeconfig, "--wait", "60")
    finally:
        eu.start("kube-apiserver")
    clusters.live(APP, "prod-eu")

    assert told.code == 1
    assert rows(told.out)["prod-us"]["faults"] == rows(told.out)["staging"]["faults"] == []
    assert [line for line in told.errors if APP in line] == [
        line for line in told.errors if line.startswith(f"{APP} in prod-eu: {eu.cluster.server}: cannot")
    ]
    assert again.code == 1
    [line] = again.errors
    assert line.startswith(f"cluster eu: {eu.cluster.server}: cannot be reached")


def test_status_needs_no_more_than_to_read(clusters: World, versions: list[str], tmp_path: Path) -> None:
    [role] = re.findall(
        r"```yaml\n(apiVersion: rbac.authorization.k8s.io/v1\n.+?)```", (ROOT / "README.md").read_text(), re.S
    )
    objects = list(yaml.safe_load_all(role))
    config = yaml.safe_load(clusters.plane.kubeconfig.read_text())
    tokens = {}
    for context in config["contexts"]:
        cluster = Cluster(clusters.plane.kubeconfig, context["name"])
        for item in [*objects, *reader(objects[0]["metadata"]["name"])]:
            cluster.apply(item)
        asked = client.CoreV1Api(cluster.api).create_namespaced_service_account_token("reader", "default", {"spec": {}})
        tokens[context["context"]["user"]] = asked.status.token
    for user in config["users"]:
        user["user"] = {"token": tokens[user["name"]]}
    (tmp_path / "config").write_text(yaml.safe_dump(config))

    told = clusters.run("status", "--kubeconfig", tmp_path / "config", "--app", APP)

    assert told.code == 0, told.err
    with pytest.raises(Refused, match="forbidden"):
        Cluster(tmp_path / "config", "eu").delete(*DEPLOYMENT, APP, "ml-prod-eu")
    with pytest.raises(Refused, match="forbidden"):
        Cluster(tmp_path / "config", "eu").list("v1", "Secret")


def reader(role: str) -> list[Object]:
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": "default"}},
        {
            "apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
        },
    ]  # fmt: skip


def test_a_rollback_is_of_one_region(clusters: World, versions: list[str]) -> None:
    clusters.done("rollback_model", "--app", APP, "--env", "prod-us", "--reason", "slow", "--push")
    clusters.pull()

    clusters.live(APP, "prod-us")
    clusters.live(APP, "prod-eu")
    assert [served(clusters, name) for name in ("prod-us", "prod-eu")] == versions


def test_what_is_retired_in_one_region_is_deleted_there_alone(clusters: World, versions: list[str]) -> None:
    options = ("--app", APP, "--env", "prod-us")
    told = json.loads(clusters.done("retire_app", *options, "--reason", "one region", "--push", "--json").out)
    clusters.checkout.merge(told["branch"])
    clusters.pull()

    clusters.done("retire_app", *options, "--finish", "--kubeconfig", clusters.plane.kubeconfig)

    assert [served(clusters, name) for name in REGIONS] == [versions[1], ""]
    assert there(clusters, "prod-us").get("v1", "Namespace", "ml-prod-us") is not None

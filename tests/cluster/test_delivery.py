"""From a merge to the live object, and what keeps services alive when somebody makes a mistake."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import push_event
import pytest
import yaml
from conftest import IMAGE, Version, wait_until, write_release

from gitops.cluster.control_plane import ControlPlane
from gitops.manifests import kustomize
from gitops.manifests.objects import Object, at, differences
from gitops.releases.release import Target
from gitops.repo import layout
from gitops.repo.policy import read_policy

from .conftest import APPLICATION, CONTROLLER, FLAVOURS, SERVICE, SET, World, targets, uri


def state(item: dict[str, object]) -> tuple[object, object]:
    status: dict = item.get("status") or {}  # type: ignore[type-arg, assignment]
    return (status.get("sync") or {}).get("status"), (status.get("health") or {}).get("status")


# Syncing


def test_before_any_release_the_environments_are_there_and_no_app_is(world: World) -> None:
    expected = {"root", "environment-dev", "environment-staging", "environment-prod"}
    wait_until(
        lambda: all(state(world.applications().get(name, {})) == ("Synced", "Healthy") for name in expected),
        "the root and the environments are synced and healthy",
        90,
    )

    assert set(world.applications()) == expected
    assert world.status().code == 0


def test_every_overlay_passes_a_strict_dry_run_on_the_server(
    world: World, versions: Callable[[str], Version], tmp_path: Path
) -> None:
    tree = world.plane.clone
    for target in targets():
        write_release(tree, target, versions("one"), FLAVOURS[target.app], IMAGE)

    for folder in layout.overlays(tree, read_policy(tree)):
        for item in kustomize.objects(kustomize.build(tree, folder)):
            world.cluster.apply(item, dry_run=True)


def test_a_release_goes_live_in_every_environment_and_argo_cd_renders_what_render_py_does(
    world: World, released: Version
) -> None:
    for app, environment in ((target.app, target.environment) for target in targets()):
        assert world.served(app, environment) == uri(released, app)
        ours = kustomize.objects(world.done("render", layout.overlay(app, environment)).out)
        theirs = manifests(world, f"{app}-{environment}")
        assert differences(ours, theirs) == []


def manifests(world: World, name: str) -> list[Object]:
    """What Argo CD renders, without its own mark."""
    url = f"http://{world.plane.address('argocd-server')}/api/v1/applications/{name}/manifests"
    with urllib.request.urlopen(url, timeout=30) as answer:
        found = [json.loads(text) for text in json.load(answer)["manifests"]]
    for item in found:
        annotations = item["metadata"].get("annotations", {})
        annotations.pop("argocd.argoproj.io/tracking-id", None)
        if not annotations:
            item["metadata"].pop("annotations", None)
    return found


def test_a_rollback_is_live_too(world: World, released: Version, versions: Callable[[str], Version]) -> None:
    second = versions("two")
    world.release("lily-sklearn", "dev", second)
    assert world.live("lily-sklearn", "dev")["live"] == second.version

    world.done("rollback_model", "--app", "lily-sklearn", "--env", "dev", "--reason", "worse", "--push")
    world.pull()

    assert world.live("lily-sklearn", "dev")["live"] == released.version
    world.done("rollback_model", "--app", "lily-sklearn", "--env", "dev", "--release-hold", "--push")


def test_of_a_push_only_what_it_changes_is_compared_and_applied(
    world: World, released: Version, versions: Callable[[str], Version]
) -> None:
    second, before, logged = versions("two"), push_event.tip(world.plane), len(world.log(CONTROLLER))
    world.release("lily-sklearn", "dev", second)
    asked = len(world.log("argocd-server"))

    push_event.send(world.plane, before, push_event.tip(world.plane))

    wait_until(lambda: world.served("lily-sklearn", "dev") == uri(second, "lily-sklearn"), "it is live", 60)
    assert set(re.findall(r"Requested app '(.+)' refresh", world.log("argocd-server")[asked:])) == {"lily-sklearn-dev"}

    wait_until(lambda: has_synced(world, "lily-sklearn-dev", push_event.tip(world.plane)), "the sync", 60)
    wait_until(lambda: bool(world.applied("lily-sklearn-dev", logged)), "the controller's log has its result")
    assert world.applied("lily-sklearn-dev", logged) == {"InferenceService"}
    world.release("lily-sklearn", "dev", released)
    world.live("lily-sklearn", "dev")


def has_synced(world: World, name: str, commit: str) -> bool:
    """Whether the last sync of an Application was of a commit, and has succeeded."""
    operation = at(world.application(name), "status", "operationState")
    return (at(operation, "phase"), at(operation, "syncResult", "revision")) == ("Succeeded", commit)


def test_a_request_to_look_again_is_no_difference_to_what_git_says(world: World, released: Version) -> None:
    asked = "argocd.argoproj.io/application-set-refresh"
    world.cluster.patch(*SET, "apps-dev", "argocd", {"metadata": {"annotations": {asked: "true"}}})
    wait_until(lambda: asked not in application_set(world)["metadata"].get("annotations", {}), "it was looked at")
    assert "template" in application_set(world)["spec"]["generators"][0]["git"]

    before = at(world.application("root"), "status", "reconciledAt")

    def compared() -> bool:
        world.refresh("root")
        return at(world.application("root"), "status", "reconciledAt") != before

    wait_until(compared, "Argo CD compares the root again", 60)
    wait_until(lambda: state(world.application("root")) == ("Synced", "Healthy"), "the root is as in Git")


def application_set(world: World) -> dict[str, Any]:
    return world.cluster.get(*SET, "apps-dev", "argocd") or {}


def test_a_change_by_hand_is_undone(world: World, released: Version) -> None:
    world.cluster.patch(*SERVICE, "lily-sklearn", "ml-dev", {"spec": {"predictor": {"maxReplicas": 17}}})

    def back() -> bool:
        found = world.cluster.get(*SERVICE, "lily-sklearn", "ml-dev")
        return found is not None and found["spec"]["predictor"]["maxReplicas"] != 17

    wait_until(back, "Argo CD takes the change back", 60)


# What Argo CD does not say


def test_a_model_in_the_form_of_a_framework_that_does_not_change_is_reported(
    world: World, released: Version, versions: Callable[[str], Version]
) -> None:
    """KServe moves the field when an object is created, so that what Git has and what runs have other names."""
    tree = world.plane.clone
    file = tree / "overlays/staging/lily-sklearn/release.yaml"
    for path, old, new in (
        ("base/inference-service/inferenceservice.yaml", "    model:\n", "    sklearn:\n"),
        ("base/inference-service/inferenceservice.yaml", "      storageUri: s3://unreleased/\n", ""),
        ("apps/lily-sklearn/runtime.yaml", "      modelFormat:\n        name: sklearn\n", ""),
        ("apps/lily-sklearn/runtime.yaml", "      runtime: kserve-sklearnserver\n", ""),
        ("apps/lily-sklearn/runtime.yaml", "    model:\n", "    sklearn:\n"),
        ("overlays/staging/lily-sklearn/release.yaml", "    model:\n", "    sklearn:\n"),
    ):
        world.checkout.replace(path, old, new)
    world.looked("lily-sklearn-staging", world.force("The form of a framework"))
    world.cluster.delete(*SERVICE, "lily-sklearn", "ml-staging")
    wait_until(lambda: world.served("lily-sklearn", "staging") == uri(released, "lily-sklearn"), "it is made anew", 60)
    second = versions("two")
    text = file.read_text().replace(uri(released, "lily-sklearn"), uri(second, "lily-sklearn"))
    file.write_text(text)
    world.force("Another model")

    said = world.status("--app", "lily-sklearn", "--env", "staging", "--refresh", "--wait", "8")

    assert said.code == 1
    assert world.served("lily-sklearn", "staging") == uri(released, "lily-sklearn")
    assert f"predictor.sklearn.storageUri: the cluster has None, Git has {uri(second, 'lily-sklearn')}" in said.err


def test_a_faulty_manifest_leaves_the_old_version_running_and_status_says_what_is_wrong(
    world: World, released: Version
) -> None:
    file = world.plane.clone / "overlays/staging/lily-api/kustomization.yaml"
    file.write_text(
        file.read_text() + "  - patch: |-\n      apiVersion: apps/v1\n      kind: Deployment\n      metadata:\n"
        "        name: lily-api\n      spec:\n        template:\n          spec:\n            containers:\n"
        "              - name: api\n                imagePullPolicy: Sometimes\n"
    )
    world.force("A value that there is not")

    world.until_told("lily-api", "staging", lambda errors: "imagePullPolicy" in str(errors), "the field")

    assert world.served("lily-api", "staging") == uri(released, "lily-api")


# Mistakes


def alive(world: World, released: Version) -> bool:
    return all(world.served(t.app, t.environment) == uri(released, t.app) for t in targets())


def test_an_emptied_generator_takes_no_service_away(world: World, released: Version) -> None:
    before = set(world.applications())
    file = world.plane.clone / "argocd/applicationset-dev.yaml"
    file.write_text(file.read_text().replace("overlays/dev/*/release.yaml", "overlays/dev/*/nothing.yaml"))

    world.looked("root", world.force("An emptied generator"))
    wait_until(lambda: "nothing.yaml" in json.dumps(application_set(world)), "the set is changed")
    # Its controller takes the request away when it is done with it.
    asked = "argocd.argoproj.io/application-set-refresh"
    world.cluster.patch(*SET, "apps-dev", "argocd", {"metadata": {"annotations": {asked: "true"}}})
    wait_until(lambda: asked not in application_set(world)["metadata"].get("annotations", {}), "it was looked at")

    assert set(world.applications()) == before
    assert alive(world, released)


def test_a_generator_that_fails_takes_no_service_away(world: World, released: Version) -> None:
    before = set(world.applications())
    file = world.plane.clone / "argocd/applicationset-dev.yaml"
    file.write_text(file.read_text().replace("        repoURL: file://", "        repoURL: file:///nowhere"))

    world.looked("root", world.force("A broken address"))
    wait_until(
        lambda: any(
            condition["type"] == "ErrorOccurred" and condition["status"] == "True"
            for condition in application_set(world).get("status", {}).get("conditions", [])
        ),
        "the generator fails",
        60,
    )

    assert set(world.applications()) == before
    assert alive(world, released)


def test_a_deleted_application_set_takes_no_service_away_and_comes_back(world: World, released: Version) -> None:
    old = application_set(world)["metadata"]["uid"]
    world.cluster.delete(*SET, "apps-dev", "argocd")

    wait_until(
        lambda: application_set(world).get("metadata", {}).get("uid") not in (None, old), "the root makes it again", 60
    )

    assert alive(world, released)
    for target in targets():
        wait_until(
            lambda t=target: f"{t.app}-{t.environment}" in world.applications(),  # type: ignore[misc]
            f"the Application of {target} is back",
            60,
        )
    assert alive(world, released)


def test_an_overlay_that_renders_almost_nothing_takes_no_service_away(world: World, released: Version) -> None:
    app = world.plane.clone / "apps/lily-api"
    (app / "left.yaml").write_text("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: left\n")
    (app / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [left.yaml]\n"
    )
    for environment in ("dev", "staging", "prod"):
        overlay = world.plane.clone / f"overlays/{environment}/lily-api/kustomization.yaml"
        overlay.write_text(overlay.read_text().partition("\npatches:")[0].replace("components:\n  - ../shared\n", ""))
    commit = world.force("Almost nothing")

    world.looked("lily-api-prod", commit)

    wait_until(lambda: has_synced(world, "lily-api-prod", commit), "Argo CD has applied what is left", 60)

    assert alive(world, released)
    world.restore(world.baseline)
    left = "lily-api in prod: Argo CD: OutOfSync: no longer in Git and not pruned: ServiceAccount left"
    world.until_told("lily-api", "prod", lambda errors: errors == [left], "what is left")
    for environment in ("dev", "staging", "prod"):
        world.cluster.delete("v1", "ServiceAccount", "left", f"ml-{environment}")


@pytest.mark.parametrize("name", ["lily-sklearn", "lily-batch"])
def test_only_a_finished_retirement_takes_a_service_away(world: World, released: Version, name: str) -> None:
    app = ("--app", name, "--env", "prod")
    early = world.run("retire_app", *app, "--finish", "--kubeconfig", world.plane.kubeconfig)
    told = json.loads(world.done("retire_app", *app, "--reason", "replaced", "--push", "--json").out)
    commit = world.checkout.merge(told["branch"])

    def missed() -> bool:
        world.refresh(f"{name}-prod")
        return "app path does not exist" in json.dumps(world.application(f"{name}-prod")["status"])

    wait_until(missed, f"Argo CD looks for the overlay in {commit}", 60)
    assert world.served(name, "prod") == uri(released, name)

    world.done("retire_app", *app, "--finish", "--kubeconfig", world.plane.kubeconfig)

    assert early.errors == [f"overlays/prod/{name}: still on cicd; merge its retirement first"]
    assert f"{name}-prod" not in world.applications()
    wait_until(lambda: world.served(name, "prod") is None, "the service is gone", 60)
    assert world.served(name, "staging") == uri(released, name)


# Programs that die


@pytest.mark.parametrize("name", ["kube-apiserver", "argocd-repo-server", "argocd-application-controller", "redis"])
def test_a_killed_program_that_is_started_again_catches_up(
    world: World, released: Version, versions: Callable[[str], Version], name: str
) -> None:
    world.release("lily-sklearn", "dev", versions("two"))
    world.refresh("lily-sklearn-dev")

    world.plane.processes.stop(name, signal.SIGKILL)
    world.plane.up()

    assert world.live("lily-sklearn", "dev", 120)["live"] == versions("two").version
    world.release("lily-sklearn", "dev", released)
    world.live("lily-sklearn", "dev", 120)


# Projects


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": {"repoURL": "https://github.com/somebody/else.git"}}, "is not permitted in project"),
        ({"destination": {"namespace": "kube-system"}}, "do not match any of the allowed destinations"),
    ],
)
def test_a_project_refuses_what_is_not_its_own(world: World, change: dict[str, dict[str, str]], words: str) -> None:
    made = {
        "apiVersion": APPLICATION[0],
        "kind": APPLICATION[1],
        "metadata": {"name": "foreign", "namespace": "argocd"},
        "spec": {
            "project": "dev",
            "source": {
                "repoURL": world.plane.remote.as_uri(), "targetRevision": "cicd", "path": "overlays/dev/lily-api",
            } | change.get("source", {}),
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "ml-dev"}
            | change.get("destination", {}),
        },
    }  # fmt: skip
    try:
        world.cluster.apply(made)

        def said() -> str:
            return json.dumps(world.application("foreign").get("status", {}).get("conditions", []))

        wait_until(lambda: words in said(), f"Argo CD says {words!r}", 30)
    finally:
        world.cluster.delete(*APPLICATION, "foreign", "argocd")


def test_a_project_refuses_what_belongs_to_the_whole_cluster(world: World) -> None:
    folder = world.plane.clone / "overlays/dev/environment"
    (folder / "all.yaml").write_text(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: all\n"
        "rules:\n  - apiGroups: ['*']\n    resources: ['*']\n    verbs: ['*']\n"
    )
    file = folder / "kustomization.yaml"
    file.write_text(file.read_text().replace("resources:\n", "resources:\n  - all.yaml\n"))

    world.looked("environment-dev", world.force("Every right for dev"))

    def refused() -> bool:
        return "ClusterRole is not permitted in project dev" in json.dumps(
            world.application("environment-dev")["status"]
        )

    wait_until(refused, "Argo CD refuses it", 60)
    assert world.cluster.get("rbac.authorization.k8s.io/v1", "ClusterRole", "all") is None


CLOSED = """\
  syncWindows:
    - {kind: deny, schedule: '* * * * *', duration: 62h, namespaces: [ml-prod], manualSync: true}
"""


def test_a_closed_window_keeps_production_as_it_is_and_lets_a_person_roll_back(
    world: World, released: Version, versions: Callable[[str], Version]
) -> None:
    file = world.plane.clone / "argocd/project-prod.yaml"
    file.write_text(file.read_text().replace("  destinations:\n", f"{CLOSED}  destinations:\n", 1))
    world.force("Close the window")
    world.looked("root", world.checkout.tip())
    wait_until(
        lambda: "* * * * *" in json.dumps(world.cluster.get("argoproj.io/v1alpha1", "AppProject", "prod", "argocd")),
        "the window is closed",
        60,
    )
    second = versions("two")
    write_release(world.plane.clone, Target("lily-sklearn", "prod"), second, "sklearn")
    commit = world.force("A release on a weekend")

    prevented = "Sync prevented by sync window"
    before = world.log(CONTROLLER).count(prevented)
    world.looked("lily-sklearn-prod", commit)
    wait_until(lambda: world.log(CONTROLLER).count(prevented) > before, "Argo CD keeps to the window", 60)
    assert world.served("lily-sklearn", "prod") == uri(released, "lily-sklearn")

    operation = {"operation": {"initiatedBy": {"username": "on-call"}, "sync": {"revision": commit}}}
    world.cluster.patch(*APPLICATION, "lily-sklearn-prod", "argocd", operation)
    wait_until(lambda: world.served("lily-sklearn", "prod") == uri(second, "lily-sklearn"), "a person's sync", 60)


def test_a_missing_service_account_is_named_by_status(world: World, released: Version) -> None:
    """Argo CD calls it Progressing, for ever."""
    base = world.plane.clone / "base/api"
    for path, old, new in (
        ("deployment.yaml", "serviceAccountName: api", "serviceAccountName: nobody"),
        ("named/kustomization.yaml", "          - spec.template.spec.serviceAccountName\n", ""),
    ):
        text = (base / path).read_text()
        assert old in text
        (base / path).write_text(text.replace(old, new))
    world.force("An account that there is not")

    def told(errors: list[str]) -> bool:
        return any("serviceaccount" in line and "nobody" in line for line in errors)

    world.until_told("lily-api", "dev", told, "the account")

    assert world.served("lily-api", "dev") == uri(released, "lily-api")


def test_handing_a_cluster_over_again_changes_nothing(world: World, released: Version) -> None:
    def generations() -> dict[str, int]:
        """They grow with every change of what is asked for."""
        kinds = [
            ("argoproj.io/v1alpha1", "AppProject"),
            ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
        ]
        found = [item["metadata"] for kind in kinds for item in world.cluster.list(*kind)]
        return {item["name"]: item["generation"] for item in found}

    before = generations()

    done = world.run("bootstrap", "--kubeconfig", world.plane.kubeconfig, "--wait", "60")

    assert done.code == 0, done.err
    assert generations() == before
    assert alive(world, released)


def test_a_cluster_without_argo_cd_is_not_handed_over(world: World, tmp_path: Path) -> None:
    bare = ControlPlane(world.plane.root, tmp_path / "bare")
    try:
        bare.start("etcd", "kube-apiserver")

        done = world.run("bootstrap", "--kubeconfig", bare.kubeconfig)
    finally:
        bare.down()

    source = "https://github.com/argoproj/argo-cd/manifests/cluster-install?ref=v3.6.1"
    assert (done.code, done.errors) == (
        1,
        [f"{bare.cluster.server}: Argo CD is not installed; run `kubectl create namespace argocd; kubectl apply"
         f" --server-side -n argocd -k '{source}'`"],
    )  # fmt: skip


def test_argo_cds_api_is_where_the_command_says(world: World, released: Version) -> None:
    done = world.done("local_cluster", "ui", "--folder", world.plane.folder)

    with urllib.request.urlopen(done.out.strip()) as answer:
        listed = {item["metadata"]["name"] for item in json.load(answer)["items"]}
    assert listed == set(world.applications())


def test_admission_has_the_policys_values(world: World) -> None:
    found = world.cluster.get("v1", "ConfigMap", "model-policy", "argocd")
    policy = yaml.safe_load((world.plane.clone / "overlays/promotion.yaml").read_text())

    assert found is not None
    assert found["data"]["model-bucket"] == policy["model_bucket"]
    assert found["data"]["image-registries"].split() == policy["image_registries"]

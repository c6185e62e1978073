"""Which Applications Argo CD's own ApplicationSet controller makes of a repository, on a plane that syncs none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import IMAGE, Version, package, wait_until, write_release
from kubernetes import client

from gitops.cluster import kube
from gitops.manifests import kustomize
from gitops.manifests.objects import Object, at, mappings
from gitops.releases.release import Target
from gitops.repo import applications, layout

from contract.errors import Refused

from .conftest import APPLICATION, FLAVOURS, SET, World

ENVIRONMENTS = ("dev", "staging", "prod")
# Keys, patterns and projects as they were for all environments together.
BEFORE = Path(__file__).with_name("sets-before.yaml")
RIGHT = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: pwn}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: mallory}]
"""
# Overlays for a project that allows everything, for the platform's, and for production, at depths of all kinds.
HOSTILE = (
    "overlays/default/pwn/x/release.yaml", "overlays/default/pwn/release.yaml", "overlays/platform/pwn/release.yaml",
    "overlays/prod/pwn/x/release.yaml", "overlays/prod/lily-api/x/release.yaml", "overlays/prod/release.yaml",
    "overlays/prod/lily-api/x/y/kustomization.yaml", "overlays/prod.bak/pwn/release.yaml",
    "overlays/prod-eu/pwn/release.yaml", "overlays/Prod/pwn/release.yaml", "overlays/release.yaml",
    "overlays/environment/prod/release.yaml", "overlays/default/environment/kustomization.yaml",
    "overlays/prod/environment/environment/kustomization.yaml", "overlays/dev/lily-batch/lily-batch/release.yaml",
)  # fmt: skip


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return package(tmp_path_factory.mktemp("artifacts"))


def rendered(world: World) -> list[Object]:
    return kustomize.objects(kustomize.build(world.plane.clone, layout.ARGOCD))


def release(world: World, app: str, version: Version, *environments: str) -> None:
    for environment in environments:
        image = None if app == "lily-sklearn" else IMAGE
        write_release(world.plane.clone, Target(app, environment), version, FLAVOURS[app], image)


def look(world: World) -> None:
    """Asks for every set to be generated again from what Git has now."""
    for item in world.cluster.list(*SET, "argocd"):
        change = {"metadata": {"annotations": {"argocd.argoproj.io/application-set-refresh": "true"}}}
        world.cluster.patch(*SET, item["metadata"]["name"], "argocd", change)


def await_applications(world: World, *names: str) -> None:
    def there() -> bool:
        look(world)
        return world.applications().keys() >= set(names)

    wait_until(there, f"Argo CD makes {', '.join(names)}", 120)


def owners(world: World, name: str) -> list[tuple[str, str]]:
    found = mappings(world.application(name)["metadata"].get("ownerReferences"))
    return [(owner["name"], owner["uid"]) for owner in found]


def before(world: World) -> list[Object]:
    text = BEFORE.read_text().replace("REPOSITORY", world.plane.remote.as_uri())
    return list(yaml.safe_load_all(text))


def delete_and_orphan(world: World, name: str) -> None:
    """As `kubectl delete applicationset NAME -n argocd --cascade=orphan` does."""
    client.CustomObjectsApi(world.cluster.api).delete_namespaced_custom_object(
        "argoproj.io", "v1alpha1", "argocd", "applicationsets", name, propagation_policy="Orphan"
    )
    wait_until(lambda: world.cluster.get(*SET, name, "argocd") is None, f"{name} is gone", 60)


def test_applications_of_the_sets_before_move_over_and_stay_the_same_objects(small: World, version: Version) -> None:
    names = [f"{app}-{environment}" for app in ("lily-api", "environment") for environment in ENVIRONMENTS]
    release(small, "lily-api", version, *ENVIRONMENTS)
    small.force("Release")
    sets = [item for item in rendered(small) if item["kind"] == "ApplicationSet"]
    kube.apply_all(small.cluster, [item for item in rendered(small) if item not in sets])
    kube.apply_all(small.cluster, before(small))
    await_applications(small, *names)
    was = small.applications()

    # As when the root has synced the new ones: the Applications belong to others yet.
    kube.apply_all(small.cluster, sets)
    for environment in ENVIRONMENTS:
        # The sample has nothing on SageMaker.
        wait_until(lambda name=f"apps-{environment}": refused(small, name), "the others keep them", 60)  # type: ignore[misc]
    assert {name: owners(small, name)[0][0] for name in names} == {
        name: "environments" if name.startswith("environment-") else "apps" for name in names
    }
    handed = small.run("bootstrap", "--kubeconfig", small.plane.kubeconfig)
    for name in ("apps", "environments"):
        delete_and_orphan(small, name)

    assert (handed.code, [line.partition(";")[0] for line in handed.errors]) == (
        1,
        [f"ApplicationSet {name}: takes from this repository and is not in argocd/, so that nobody checks what it takes"
         for name in ("apps", "environments")],
    )  # fmt: skip
    uids = {item["metadata"]["name"]: item["metadata"]["uid"] for item in small.cluster.list(*SET, "argocd")}
    assert uids.keys() == {
        applications.set_name(environment, which) for environment in ENVIRONMENTS for which in applications.TEMPLATES
    }

    def moved() -> bool:
        look(small)
        wanted = {name: f"apps-{name.rpartition('-')[2]}" for name in names}
        return all(owners(small, name) == [(owner, uids[owner])] for name, owner in wanted.items())

    wait_until(moved, "the new sets take them over", 120)
    now = small.applications()
    assert {name: item["metadata"]["uid"] for name, item in now.items()} == {
        name: item["metadata"]["uid"] for name, item in was.items()
    }
    for name in names:
        assert "deletionTimestamp" not in now[name]["metadata"]
        # What is new in the sets since then.
        was[name]["spec"]["syncPolicy"]["syncOptions"].append("ApplyOutOfSyncOnly=true")
        assert now[name]["spec"] == was[name]["spec"]


def refused(world: World, name: str) -> bool:
    found = world.cluster.get(*SET, name, "argocd")
    return any(
        condition["type"] == "ErrorOccurred" and condition["status"] == "True" and "owned" in condition["message"]
        for condition in mappings(at(found, "status", "conditions"))
    )


def test_no_hostile_overlay_gets_an_application(small: World, version: Version) -> None:
    """What a set makes of one commit is done when an app of the next commit has its Application."""
    kube.apply_all(small.cluster, rendered(small))
    tree = small.plane.clone
    for path in HOSTILE:
        small.checkout.write(path, "images: [{newName: a, newTag: b}]\nkind: anything\n")
        small.checkout.write(str(Path(path).with_name("pwn.yaml")), RIGHT)
        if path.endswith("release.yaml"):
            small.checkout.write(str(Path(path).with_name("kustomization.yaml")), "resources: [pwn.yaml]\n")
    release(small, "lily-batch", version, *ENVIRONMENTS)
    small.force("Hostile overlays, and a release")
    await_applications(small, *(f"lily-batch-{environment}" for environment in ENVIRONMENTS))
    release(small, "lily-sklearn", version, *ENVIRONMENTS)
    small.force("Another release")
    await_applications(small, *(f"lily-sklearn-{environment}" for environment in ENVIRONMENTS))

    found = small.applications()

    legitimate = {applications.name(folder) for environment in ENVIRONMENTS for folder in apps(tree, environment)}
    assert found.keys() <= {"root", "platform"} | legitimate
    for name, item in found.items():
        if name not in ("root", "platform"):
            app, _, environment = name.rpartition("-")
            assert item["spec"]["project"] == environment
            assert item["spec"]["source"]["path"] == f"overlays/{environment}/{app}"
            assert item["spec"]["destination"]["namespace"] == f"ml-{environment}"


def apps(tree: Path, environment: str) -> list[str]:
    names = (*FLAVOURS, "environment")
    assert all((tree / f"overlays/{environment}/{name}").is_dir() for name in names)
    return [f"overlays/{environment}/{name}" for name in names]


def test_an_app_on_sagemaker_has_an_application_that_prunes_and_is_of_no_other_set(
    small: World, version: Version
) -> None:
    """The sets of apps pass over a release that is of a Model."""
    kube.apply_all(small.cluster, rendered(small))
    done = small.run("new_model", "lily", "--shape", "sagemaker", "--only", "app")
    assert done.code == 0, done.err
    release(small, "lily-api", version, *ENVIRONMENTS)
    for environment in ENVIRONMENTS:
        write_release(small.plane.clone, Target("lily-sagemaker", environment), version, "onnx", IMAGE)
    small.force("An app on SageMaker")

    await_applications(small, *(f"{app}-{name}" for app in ("lily-sagemaker", "lily-api") for name in ENVIRONMENTS))

    for environment in ENVIRONMENTS:
        name = f"lily-sagemaker-{environment}"
        policy = small.application(name)["spec"]["syncPolicy"]
        assert [owner for owner, _ in owners(small, name)] == [f"sagemaker-{environment}"]
        assert policy["automated"] == {"prune": True, "selfHeal": True} | {
            key: value for key, value in policy["automated"].items() if key == "allowEmpty" and value is False
        }
        assert "PruneLast=true" in policy["syncOptions"]
        assert [owner for owner, _ in owners(small, f"lily-api-{environment}")] == [f"apps-{environment}"]


def test_by_the_sets_before_such_an_overlay_was_in_a_project_that_allows_everything(small: World) -> None:
    """What the test above keeps away is real: it would find it."""
    [old, _] = before(small)
    old["metadata"]["name"] = old["spec"]["template"]["metadata"]["name"] = "probe"
    old["spec"]["template"]["metadata"]["name"] = "probe-{{ index .path.segments 1 }}-{{ len .path.segments }}"
    old["spec"]["generators"] = old["spec"]["generators"][:1]
    old["spec"]["generators"][0]["git"]["files"] = [{"path": "overlays/default/*/release.yaml"}]
    small.checkout.write("overlays/default/pwn/x/release.yaml", "kind: anything\n")
    small.force("An overlay for the project that allows everything")
    try:
        kube.apply_all(small.cluster, [old])
        await_applications(small, "probe-default-4")

        assert small.application("probe-default-4")["spec"]["project"] == "default"
    finally:
        delete_and_orphan(small, "probe")
        for name in small.applications():
            if name.startswith("probe-"):
                small.cluster.delete(*APPLICATION, name, "argocd")


def test_the_project_that_argo_cd_makes_allows_nothing_any_more(small: World) -> None:
    project = ("argoproj.io/v1alpha1", "AppProject", "default", "argocd")
    wildcard = {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}],
                "clusterResourceWhitelist": [{"group": "*", "kind": "*"}]}  # fmt: skip
    small.cluster.patch(*project, {"spec": wildcard})

    kube.apply_all(small.cluster, rendered(small))

    found = small.cluster.get(*project)
    assert {field: value for field, value in (found or {})["spec"].items() if value} == {}
    assert (found or {})["spec"]["namespaceResourceWhitelist"] == []


def test_a_kind_is_waited_for_until_the_server_serves_it(small: World) -> None:
    """The second definition is never served: the first one has its names."""
    first, second = (
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.example.com"},
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"kind": "Thing", "plural": plural},
                "versions": [
                    {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
                ],
            },
        }
        for plural in ("things", "others")
    )
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "one", "namespace": "argocd"}}

    small.cluster.apply(first)
    kube.await_kinds(small.cluster, [first])
    small.cluster.apply(thing)
    small.cluster.apply(second)
    with pytest.raises(Refused, match=r"others\.example\.com: .* does not serve it after 1 s"):
        kube.await_kinds(small.cluster, [first, second], seconds=1)

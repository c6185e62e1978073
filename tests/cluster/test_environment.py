"""What Argo CD has of an environment that was removed goes by a command of its own, and nothing that runs goes too."""

from __future__ import annotations

import pytest
from conftest import wait_until

from gitops.cluster import kube
from gitops.manifests import kustomize
from gitops.repo import layout

from .conftest import APPLICATION, SET, World

PROJECT = ("argoproj.io/v1alpha1", "AppProject")
RUNS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "runs", "namespace": "ml-perf"}}
FINISH = ("environment", "remove", "perf", "--finish", "--kubeconfig")


@pytest.fixture
def added(small: World) -> World:
    """A plane on which an environment is applied, of which the finalizer would take all along."""
    small.done("environment", "add", "perf", "--after", "dev", "--push")
    small.checkout.merge("environment/add-perf")
    rendered = kustomize.objects(kustomize.build(small.plane.clone, layout.ARGOCD))
    # Of the others, test_sets.py has to be the first.
    kube.apply_all(small.cluster, [item for item in rendered if item["metadata"]["name"] in ("perf", "apps-perf")])
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml-perf"}}
    kube.apply_all(small.cluster, [space, RUNS])
    wait_until(lambda: "environment-perf" in small.applications(), "Argo CD makes environment-perf", 120)
    change = {"metadata": {"finalizers": ["resources-finalizer.argocd.argoproj.io"]}}
    small.cluster.patch(*APPLICATION, "environment-perf", "argocd", change)
    return small


def test_an_environment_is_finished_and_what_runs_there_stays(added: World) -> None:
    config = added.plane.kubeconfig
    early = added.run(*FINISH, config)
    assert early.errors == ["overlays/promotion.yaml: environments: perf: still on cicd; merge its removal first"]
    added.done("environment", "remove", "perf", "--push")
    added.checkout.merge("environment/remove-perf")
    others = {name for name in added.applications() if not name.endswith("-perf")}

    done = added.done(*FINISH, config)

    assert done.out.splitlines() == [
        "- ApplicationSet apps-perf",
        "- Application environment-perf",
        "- AppProject perf",
    ]
    assert done.err == "deleted these; the namespace ml-perf of the cluster in-cluster and all in it stay\n"
    wait_until(lambda: set(added.applications()) == others, "environment-perf is gone", 60)
    for kind, name in ((SET, "apps-perf"), (PROJECT, "perf")):
        assert added.cluster.get(*kind, name, "argocd") is None
    assert added.cluster.get("v1", "ConfigMap", "runs", "ml-perf") is not None
    again = added.done(*FINISH, config)
    assert (again.out, again.err.partition(";")[0]) == ("", "nothing to delete")

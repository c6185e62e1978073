"""A shape of the fork's own: its first app, and what every kind that is released needs elsewhere."""

from __future__ import annotations

import re
import shutil

import yaml
from conftest import IMAGE, ROOT, Checkout, Version

import status
from gitops.manifests import workloads

BATCH = ("batch", "CronJob")


def test_each_kind_that_is_released_is_one_for_admission_and_for_status() -> None:
    """Fails for a new kind of workloads.RELEASED until the policy and status.py have it too."""
    text = (ROOT / "argocd/platform/admission/releases.yaml").read_text()
    [policy] = [item for item in yaml.safe_load_all(text) if item["kind"] == "ValidatingAdmissionPolicy"]
    [released] = [each["expression"] for each in policy["spec"]["variables"] if each["name"] == "released"]

    # The names of variables are in capitals.
    assert set(re.findall(r"'([A-Z][a-z]\w+)'", released)) == {kind for _, kind in workloads.RELEASED}
    assert status.MADE.keys() == {kind for group, kind in workloads.RELEASED if (group, kind) != BATCH}


def test_the_first_app_of_a_new_shape(checkout: Checkout, version: Version) -> None:
    """In a fork without any app."""
    checkout.git("rm", "-rq", "apps", "overlays/*/lily-*")
    shutil.copytree(checkout.root / "base/api", checkout.root / "base/tabular")
    for file in (path for path in (checkout.root / "base/tabular").rglob("*") if path.is_file()):
        file.write_text(file.read_text().replace("name: api", "name: tabular").replace("base/api", "base/tabular"))
    checkout.commit("A shape, and no app")

    done = checkout.run("new_model", "lily", "--shape", "tabular", "--only", "app")

    assert done.code == 0, done.err
    checkout.commit("Its first app", push=True)
    assert checkout.run("validate").errors == []
    bump = ("--app", "lily-tabular", "--env", "dev", "--model-uri", version.uri, "--image", IMAGE, "--push")
    done = checkout.run("bump_model", *bump)
    assert done.code == 0, done.err
    assert checkout.run("validate", "--changed-since", "HEAD^").errors == []
    checkout.git("rm", "-rq", "overlays/dev/lily-tabular")
    checkout.commit()
    assert any(line.endswith("[removal]") for line in checkout.run("validate", "--changed-since", "HEAD^").errors)


def test_a_shape_of_a_kind_without_releases_is_refused_before_its_first_app(checkout: Checkout) -> None:
    shutil.copytree(checkout.root / "base/api/skeleton", checkout.root / "base/daemon/skeleton")
    release = "base/daemon/skeleton/overlay/release.yaml"
    checkout.replace(release, "kind: Deployment", "kind: DaemonSet")
    checkout.commit("A shape")
    before = checkout.state()

    done = checkout.run("new_model", "lily", "--shape", "daemon", "--only", "app")

    assert done.errors == [
        "overlays/dev/lily-daemon/release.yaml: kind: 'DaemonSet' of 'apps/v1': a release is written for a"
        " Deployment, a StatefulSet, a CronJob, an InferenceService, a Model of SageMaker or a Stack"
    ]
    assert checkout.state() == before

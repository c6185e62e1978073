"""Four environments, two of them production in regions of their own: all that is right there is let through."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import valid
from conftest import ENVIRONMENT, IMAGE, REGISTRY, Checkout, Version, make_checkout
from test_release_targets import stateful

from gitops.repo import applications
from gitops.repo.policy import read_policy

ENVIRONMENTS = ("dev", "pre-prod", "prod-eu", "prod-us")
HOSTS = {
    "dev": "dev.ml.example.com", "pre-prod": "pre-prod.ml.example.com", "prod-eu": "ml.example.eu",
    "prod-us": "us.ml.example.com",
}  # fmt: skip
AMERICAN = REGISTRY.replace("111122223333", "444455556666").replace("eu-west-1", "us-east-1")
POLICY = f"""\
model_bucket: mlops-prod
image_registries:
  - {REGISTRY}
  - {AMERICAN}
environments:
"""
# What pods have beside the api, from the registry of their region.
PROXY = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: any
spec:
  template:
    spec:
      initContainers:
        - name: proxy
          image: REGISTRY/proxy@sha256:7777777777777777777777777777777777777777777777777777777777777777
          restartPolicy: Always
          resources:
            requests: {cpu: 10m, memory: 16Mi}
            limits: {memory: 16Mi}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
"""


def copy(checkout: Checkout, old: str, new: str, region: str = "eu-west-1", account: str = "111122223333") -> None:
    """Copies an environment to another name, other hosts, and a region and an account."""
    for file in checkout.copy_environment(old, new):
        text = file.read_text().replace("eu-west-1", region).replace("111122223333", account)
        file.write_text(re.sub(rf"value: (.+)\.({new}\.)?ml\.example\.com", rf"value: \1.{HOSTS[new]}", text))


# With the window of the sample's project, which its copies have, too.
PRODUCTION = """\
    production: true
    freeze:
      - schedule: 0 16 * * 5
        duration: 62h
        time_zone: Europe/Dublin
        reason: weekends
"""


def four(checkout: Checkout) -> None:
    """The sample with the four in the place of its three."""
    [url] = {line.split()[-1] for line in checkout.read("argocd/root.yaml").decode().splitlines() if "repoURL" in line}
    copy(checkout, "staging", "pre-prod")
    copy(checkout, "prod", "prod-eu")
    copy(checkout, "prod", "prod-us", "us-east-1", "444455556666")
    checkout.git("rm", "-rqf", *(place.format(name) for place in ENVIRONMENT for name in ("staging", "prod")))
    for kind in ("applicationset", "project", "sagemaker"):
        old = f"  - {kind}-prod.yaml\n"
        checkout.replace(
            "argocd/kustomization.yaml", old, old.replace("prod", "prod-eu") + old.replace("prod", "prod-us")
        )
        checkout.replace("argocd/kustomization.yaml", f"{kind}-staging.yaml", f"{kind}-pre-prod.yaml")
    entries = [
        f"  - name: {name}\n    hosts: [{HOSTS[name]}]\n"
        + f"    after: [pre-prod]\n{PRODUCTION}" * name.startswith("prod-")
        for name in ENVIRONMENTS
    ]
    checkout.write("overlays/promotion.yaml", POLICY + "".join(entries))
    policy = read_policy(checkout.root)
    for name in ENVIRONMENTS:
        for which, file in applications.set_files(policy, name).items():
            checkout.write(file, applications.text(policy, name, url, which))
    admission = "argocd/platform/admission/"
    spaces = ", ".join(f"ml-{name}" for name in ENVIRONMENTS)
    bindings = checkout.read(f"{admission}bindings.yaml").decode()
    checkout.write(f"{admission}bindings.yaml", bindings.replace("ml-dev, ml-staging, ml-prod", spaces))
    checkout.replace(f"{admission}parameters.yaml", f"registries: {REGISTRY}", f"registries: {REGISTRY} {AMERICAN}")
    checkout.replace(f"{admission}parameters.yaml", "namespaces: ml-prod", "namespaces: ml-prod-eu ml-prod-us")
    patches = "patches:\n"
    entry = "  - path: proxy.yaml\n    target:\n      kind: Deployment\n"
    for name in ENVIRONMENTS:
        shared = f"overlays/{name}/shared"
        checkout.write(f"{shared}/proxy.yaml", PROXY.replace("REGISTRY", AMERICAN if name == "prod-us" else REGISTRY))
        checkout.replace(f"{shared}/kustomization.yaml", patches, patches + entry)


def of_any_environment() -> list[valid.App]:
    """The apps of one part that name no environment."""
    return [app for app in valid.APPS[: len(valid.PARTS)] if not re.search(r"\bdev\b", json.dumps(app.parts[0].data))]


@pytest.fixture(scope="module")
def checkout(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = make_checkout(template, tmp_path_factory.mktemp("regions"))
    four(checkout)
    valid.write(checkout.root, of_any_environment()[::3], ENVIRONMENTS)
    checkout.commit("Four environments", push=True)
    stateful(checkout, ENVIRONMENTS)
    return checkout


def test_four_environments_in_two_regions_are_right(checkout: Checkout) -> None:
    done = checkout.run("validate")

    assert (done.code, done.errors) == (0, [])


@pytest.mark.parametrize(("app", "image"), [("lily-api", IMAGE), ("lily-sklearn", None), ("lily-state", IMAGE)])
def test_a_release_goes_from_the_first_to_the_last(
    checkout: Checkout, version: Version, app: str, image: str | None
) -> None:
    given = ["--image", image] if image else []
    asked = ("bump_model", "--app", app, "--env", "dev", "--model-uri", version.uri, *given, "--pull-request")
    for environment in ENVIRONMENTS:
        done = checkout.run(*asked, "--json")
        assert done.code == 0, done.err
        before = checkout.tip()
        checkout.merge(json.loads(done.out)["branch"])

        checked = checkout.run("validate", "--changed-since", before)

        assert (checked.code, checked.errors) == (0, [])
        following = ENVIRONMENTS[(ENVIRONMENTS.index(environment) + 1) % len(ENVIRONMENTS)]
        asked = ("promote_model", "--app", app, "--to", following, "--pull-request")
    rows = json.loads(checkout.run("releases", "--json").out)["releases"]
    ran = {row["environment"]: (row["version"], row["image"]) for row in rows if row["app"] == app}
    assert ran == dict.fromkeys(ENVIRONMENTS, (version.version, image))

"""Environments are added and removed by one command each, and the checks find nothing to mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import IMAGE, S3, Checkout, make_checkout, package

from gitops.manifests import kustomize
from gitops.repo import layout
from gitops.repo.policy import read_policy

AMERICAN = ("--account", "444455556666", "--region", "us-east-1", "--host", "us.ml.example.com")
US = ("add", "prod-us", "--after", "staging", "--like", "prod", "--production", *AMERICAN)
PERF = ("add", "perf", "--after", "dev", "--before", "staging")


@pytest.fixture(scope="module")
def world(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make_checkout(template, tmp_path_factory.mktemp("environment"))


def changed(checkout: Checkout, *args: str) -> dict[str, Any]:
    """Runs the command for a pull request, merges that, and asks every check of the result and of the change. No render
    of another environment is another than before."""
    renders = rendered(checkout)
    done = checkout.run("environment", *args, "--pull-request", "--json")
    assert done.code == 0, done.err
    told: dict[str, Any] = json.loads(done.out)
    before = checkout.tip()
    checkout.merge(told["branch"])
    for options in ((), ("--changed-since", before)):
        checked = checkout.run("validate", *options)
        assert (checked.code, checked.errors) == (0, [])
    after = rendered(checkout)
    assert {folder: after[folder] for folder in renders if folder in after} == {
        folder: items for folder, items in renders.items() if folder.split("/")[1] != told["environment"]
    }
    return told


def rendered(checkout: Checkout) -> dict[str, str]:
    return kustomize.build_all(checkout.root, layout.overlays(checkout.root, read_policy(checkout.root)))


def admitted(checkout: Checkout) -> str:
    return checkout.read("argocd/platform/admission/bindings.yaml").decode()


def test_two_are_added_and_one_is_removed(world: Checkout) -> None:
    told = changed(world, *US)

    assert told["moved"] == []
    policy = read_policy(world.root)
    assert policy.environments == ("dev", "staging", "prod-us", "prod")
    assert (policy.production, policy.after("prod"), policy.next("staging")) == (
        ("prod-us", "prod"), ("staging",), ("prod-us", "prod"),
    )  # fmt: skip
    assert policy.at("prod-us").freeze == policy.at("prod").freeze
    assert admitted(world).count("[ml-dev, ml-staging, ml-prod-us, ml-prod]") == 4
    assert b'production-namespaces: "ml-prod-us ml-prod"\n' in world.read("argocd/platform/admission/parameters.yaml")
    role = "eks.amazonaws.com/role-arn: arn:aws:iam::444455556666:role/ml-prod-us-model-reader"
    assert f"overlays/prod-us/shared/model-reader.yaml: line 7: {role}" in told["guessed"]
    assert "overlays/prod-us/shared/kustomization.yaml: line 11: - AWS_REGION=us-east-1" in told["guessed"]
    assert "overlays/prod-us/lily-api/kustomization.yaml: line 19: value: lily-api.us.ml.example.com" in told["guessed"]

    told = changed(world, *PERF)

    assert told["moved"] == ["staging now comes after perf."]
    before = world.git("rev-parse", "HEAD^1")
    told = changed(world, "remove", "perf")

    assert told["moved"] == ["staging now comes after dev."]
    assert world.git("diff", "--stat", before, "--", "overlays/dev", "argocd", "overlays/prod") == ""
    assert read_policy(world.root).after("staging") == ("dev",)


def test_then_a_release_goes_through_all_and_back_in_one_region(world: Checkout, tmp_path: Path, s3: S3) -> None:
    versions = [package(tmp_path / name, name) for name in ("one", "two")]
    app = ("--app", "lily-api")
    for version in versions:
        s3.upload(version)
        asked: tuple[str, ...] = ("bump_model", *app, "--env", "dev", "--model-uri", version.uri, "--image", IMAGE)
        for environment in ("staging", "prod-us", "prod", ""):
            done = world.run(*asked, "--commit")
            assert done.code == 0, done.err
            asked = ("promote_model", *app, "--to", environment)
            checked = world.run("validate", "--changed-since", "HEAD^")
            assert (checked.code, checked.errors) == (0, [])
        assert set(ran(world).values()) == {version.version}

    done = world.run("rollback_model", *app, "--env", "prod-us", "--reason", "wrong there", "--commit")

    assert done.code == 0, done.err
    one, two = (version.version for version in versions)
    assert ran(world) == {"dev": two, "staging": two, "prod-us": one, "prod": two}
    refused = world.run("environment", "remove", "prod-us")
    assert refused.errors == [
        f"overlays/prod-us/lily-api: {one} is released; retire it first: python scripts/retire_app.py --app lily-api"
        " --env prod-us --reason REASON"
    ]


def ran(checkout: Checkout) -> dict[str, str]:
    rows = json.loads(checkout.run("releases", "--json").out)["releases"]
    return {row["environment"]: row["version"] for row in rows if row["app"] == "lily-api"}


def test_what_was_retired_there_goes_with_it(world: Checkout) -> None:
    done = world.run("retire_app", "--app", "lily-api", "--env", "prod-us", "--reason", "one region", "--commit")
    assert done.code == 0, done.err
    world.git("push", "-q", "origin", "cicd")

    told = changed(world, "remove", "prod-us")

    assert "overlays/prod-us/retired.yaml" in told["files"]
    assert ran(world).keys() == {"dev", "staging", "prod"}

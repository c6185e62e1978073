from __future__ import annotations

import pytest
import yaml
from conftest import Checkout, Version, merging, write_release

from gitops.releases.release import Target

APP = ("--app", "lily-sklearn", "--env", "dev")
WHY = ("--reason", "lily-api replaces it")
BRANCH = "retire/dev/lily-sklearn"


@pytest.fixture
def released(checkout: Checkout, version: Version) -> Checkout:
    done = checkout.run("bump_model", *APP, "--model-uri", version.uri, "--push")
    assert done.code == 0, done.err
    return checkout


def test_an_app_is_removed_by_a_branch_and_its_removal_recorded(released: Checkout, version: Version) -> None:
    before = released.git("rev-parse", "cicd")

    done = released.run("retire_app", *APP, *WHY, "--push")

    assert done.code == 0, done.err
    assert "- InferenceService.serving.kserve.io ml-dev/lily-sklearn\n" in done.out
    commit = released.git("rev-parse", BRANCH)
    assert done.err.splitlines() == [
        f"pushed {commit[:12]} to {BRANCH} at origin, not merged: take lily-sklearn out of dev",
        f"next: open a pull request of {BRANCH} to cicd and merge it",
        f"or, where cicd takes pushes: {merging(released.root, BRANCH, commit)}",
        "when that is on cicd at origin, delete it from the cluster: python scripts/retire_app.py --app lily-sklearn"
        " --env dev --finish",
    ]
    assert released.tip() == before
    assert released.git("diff", "--name-status", "cicd", BRANCH).split("\n") == [
        "D\toverlays/dev/lily-sklearn/kustomization.yaml",
        "D\toverlays/dev/lily-sklearn/release.yaml",
        "A\toverlays/dev/retired.yaml",
    ]
    [entry] = yaml.safe_load(released.git("show", f"{BRANCH}:overlays/dev/retired.yaml"))
    assert (entry["app"], entry["version"], entry["reason"]) == ("lily-sklearn", version.version, WHY[1])
    assert released.git("log", "-1", "--format=%(trailers:only)", BRANCH).splitlines() == [
        "Retire: lily-sklearn dev",
        f"Model-Version: {version.version}",
    ]


def test_after_the_merge_everything_validates_and_nothing_else_changed(released: Checkout) -> None:
    assert released.run("retire_app", *APP, *WHY, "--push").code == 0
    released.merge(BRANCH)

    assert released.run("validate", "--changed-since", "HEAD^1").code == 0
    assert "lily-sklearn" not in released.run("releases", "--env", "dev").out


def test_a_second_retirement_is_added_to_the_record(released: Checkout) -> None:
    record = b"- app: old\n  version: 'x'   # kept as it is\n"
    released.write("overlays/dev/retired.yaml", record)
    released.commit(push=True)
    assert released.run("retire_app", *APP, *WHY).code == 0

    text = released.git("show", f"{BRANCH}:overlays/dev/retired.yaml")

    assert text.startswith(record.decode().strip())
    assert [item["app"] for item in yaml.safe_load(text)] == ["old", "lily-sklearn"]


def test_the_same_twice_is_one_branch(released: Checkout) -> None:
    assert released.run("retire_app", *APP, *WHY).code == 0
    before = released.state()

    assert released.run("retire_app", *APP, *WHY).code == 0
    assert released.state() == before


def test_an_app_that_a_later_environment_runs_is_not_retired(released: Checkout) -> None:
    assert released.run("promote_model", "--app", "lily-sklearn", "--to", "staging", "--push").code == 0
    [branch] = [b for b in released.git("branch", "--format=%(refname:short)").split() if b.startswith("promote/")]
    released.merge(branch)
    before = released.state()

    done = released.run("retire_app", *APP, *WHY)

    assert done.code == 1
    assert done.errors == [
        "overlays/dev/lily-sklearn: lily-sklearn is in staging too, which dev comes before;"
        " retire it there first, or nothing could reach staging any more"
    ]
    assert released.state() == before


def test_an_environment_beside_this_one_is_no_later_one(released: Checkout, version: Version) -> None:
    released.replace("overlays/promotion.yaml", "  - name: prod\n", "  - name: prod\n    after: [dev]\n")
    for environment in ("staging", "prod"):
        write_release(released.root, Target("lily-sklearn", environment), version, "sklearn")
    released.commit("Release beside each other", push=True)

    assert released.run("retire_app", *APP, *WHY).errors == [
        "overlays/dev/lily-sklearn: lily-sklearn is in staging, prod too, which dev comes before;"
        " retire it there first, or nothing could reach staging any more"
    ]
    assert released.run("retire_app", *APP[:2], "--env", "staging", *WHY).code == 0


def test_a_dry_run_changes_nothing(released: Checkout) -> None:
    before = released.state()

    done = released.run("retire_app", *APP, *WHY, "--dry-run")

    assert (done.code, done.err) == (0, f"would take lily-sklearn out of dev, by the branch {BRANCH}\n")
    assert released.state() == before


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--app", "none", "--env", "dev"), "apps/none: no such app; the apps are lily-api, lily-batch, lily-sklearn"),
        (
            ("--app", "lily-api", "--env", "qa"),
            "overlays/promotion.yaml: environments: no 'qa'; the environments are dev, staging, prod",
        ),
    ],
)
def test_what_is_not_there_is_not_retired(checkout: Checkout, args: tuple[str, ...], line: str) -> None:
    assert checkout.run("retire_app", *args, *WHY).errors == [line]

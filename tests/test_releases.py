from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import IMAGE, Checkout, Version, git, write_release

from gitops.releases import hold
from gitops.releases.release import Target

APPS = ["lily-api", "lily-batch", "lily-sklearn"]
NEVER = {"version": "unreleased", "since": "-", "commit": "-", "code": "-", "image": "-"}


@pytest.fixture
def released(checkout: Checkout, version: Version) -> Checkout:
    """A clone whose dev runs the version in both apps, and whose staging does in lily-api, by a merge."""
    both = ("--release", f"lily-sklearn:dev={version.uri}", "--release", f"lily-api:dev={version.uri},{IMAGE}")
    assert checkout.run("bump_model", *both, "--push").code == 0
    assert checkout.run("promote_model", "--app", "lily-api", "--to", "staging", "--push").code == 0
    checkout.merge(f"promote/staging/lily-api-{version.version}-111111111111")
    return checkout


def table(out: str) -> list[dict[str, str]]:
    """The rows of a printed table, by column."""
    names, _, *rows = out.splitlines()
    return [dict(zip(names.split(), row.split(), strict=True)) for row in rows]


def told(checkout: Checkout, *args: str) -> dict[str, Any]:
    done = checkout.run("releases", "--json", *args)
    assert (done.code, done.err) == (0, "")
    loaded: dict[str, Any] = json.loads(done.out)
    return loaded


def test_what_runs_where_and_since_when(released: Checkout, version: Version) -> None:
    merge, bump = released.tip(), released.git("rev-parse", "cicd^")
    code = version.data["code_commit"][:12]
    since = {rev: released.git("show", "-s", "--format=%cI", rev) for rev in (merge, bump)}

    done = released.run("releases")

    assert (done.code, done.err) == (0, f"according to cicd at {merge[:12]}\n")
    runs = {"version": version.version, "code": code}
    at_dev, image = {"since": since[bump], "commit": bump[:12]}, {"image": "lily-api@111111111111"}
    assert table(done.out) == [
        {"environment": "dev", "app": "lily-api"} | runs | at_dev | image,
        {"environment": "dev", "app": "lily-batch"} | NEVER,
        {"environment": "dev", "app": "lily-sklearn"} | runs | at_dev | {"image": "-"},
        {"environment": "staging", "app": "lily-api"} | runs | {"since": since[merge], "commit": merge[:12]} | image,
        {"environment": "staging", "app": "lily-batch"} | NEVER,
        {"environment": "staging", "app": "lily-sklearn"} | NEVER,
        {"environment": "prod", "app": "lily-api"} | NEVER,
        {"environment": "prod", "app": "lily-batch"} | NEVER,
        {"environment": "prod", "app": "lily-sklearn"} | NEVER,
    ]


def test_json_tells_every_field(released: Checkout, version: Version) -> None:
    tip = released.tip()

    found = told(released, "--env", "staging", "--app", "lily-api")

    assert found == {
        "tip": tip,
        "releases": [
            {
                "app": "lily-api",
                "environment": "staging",
                "version": version.version,
                "digest": version.digest,
                "code_commit": version.data["code_commit"],
                "data_digest": version.data["data_digest"],
                "mlflow_run": version.data["mlflow_run"],
                "uri": f"{version.uri}onnx/",
                "image": IMAGE,
                "canary": None,
                "manifest": version.manifest,
                "revision": "",
                "file": "overlays/staging/lily-api/release.yaml",
                "since": released.git("show", "-s", "--format=%cI", tip),
                "commit": tip,
                "by": "Test",
                "hold": None,
            }
        ],
    }


def test_what_is_asked_for_is_what_is_shown_according_to_the_newest_cicd_known(checkout: Checkout) -> None:
    checkout.git("checkout", "-q", "main")
    checkout.git("rm", "-qr", "overlays")
    checkout.git("branch", "-qD", "cicd")

    names = [(row["environment"], row["app"]) for row in told(checkout)["releases"]]

    assert names == [(env, app) for env in ("dev", "staging", "prod") for app in APPS]
    assert [row["app"] for row in told(checkout, "--env", "prod")["releases"]] == APPS
    assert [row["environment"] for row in told(checkout, "--app", "lily-api")["releases"]] == ["dev", "staging", "prod"]
    assert {row["since"] for row in told(checkout)["releases"]} == {None}


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--env", "qa"), "--env qa: nothing of that name on cicd; there is dev, staging, prod"),
        (("--app", "lily"), "--app lily: nothing of that name on cicd; there is lily-api, lily-batch, lily-sklearn"),
        (
            ("--env", "dev", "--app", ""),
            "--app : nothing of that name on cicd; there is lily-api, lily-batch, lily-sklearn",
        ),
    ],
)
def test_names_that_are_not_there_are_refused_with_those_that_are(
    checkout: Checkout, args: tuple[str, ...], line: str
) -> None:
    done = checkout.run("releases", *args)

    assert (done.code, done.out, done.errors) == (1, "", [line])


def test_a_file_of_cicd_that_is_no_release_is_named(checkout: Checkout) -> None:
    checkout.write("overlays/dev/lily-api/release.yaml", "kind: Service\n")
    checkout.commit()

    assert checkout.run("releases").errors == [
        "overlays/dev/lily-api/release.yaml: kind: 'Service' of None: a release is written for a Deployment, a"
        " StatefulSet, a CronJob, an InferenceService, a Model of SageMaker or a Stack"
    ]


def test_a_shallow_clone_cannot_tell_since_when(checkout: Checkout) -> None:
    (checkout.root / ".git/shallow").write_text(git(checkout.root, "rev-parse", "HEAD") + "\n")

    assert checkout.run("releases").errors == [
        f"{checkout.root}: shallow clone, so history cannot be trusted; run `git fetch --unshallow`"
    ]


def test_what_is_held_is_told_with_who_holds_it_since_when_and_why(released: Checkout) -> None:
    held = hold.Hold("wrong answers", "Ann <ann@example.org>", "2026-02-03T04:05:06Z")
    released.write("overlays/staging/lily-api/hold.yaml", hold.write("lily-api", "staging", held))
    released.write("overlays/dev/lily-sklearn/hold.yaml", "reason: not yet\n")
    released.commit()

    done = released.run("releases")

    shown = {(row["environment"], row["app"]): row["held"] for row in table(done.out.replace("held since", "held"))}
    assert {place: since for place, since in shown.items() if since != "-"} == {
        ("staging", "lily-api"): "2026-02-03T04:05:06Z", ("dev", "lily-sklearn"): "?",
    }  # fmt: skip
    assert done.err.splitlines()[:2] == [
        "overlays/dev/lily-sklearn/hold.yaml: write the texts reason, by, since and nothing else, or remove the file",
        "overlays/staging/lily-api/hold.yaml: held by Ann <ann@example.org> since 2026-02-03T04:05:06Z: wrong answers;"
        " when that is settled, run `python scripts/rollback_model.py --app lily-api --env staging --release-hold`",
    ]
    [one] = told(released, "--env", "staging", "--app", "lily-api")["releases"]
    assert one["hold"] == {"reason": "wrong answers", "by": "Ann <ann@example.org>", "since": "2026-02-03T04:05:06Z"}
    [one] = told(released, "--env", "dev", "--app", "lily-sklearn")["releases"]
    assert one["hold"] == {"reason": "not yet", "by": "", "since": ""}
    assert "held" not in released.run("releases", "--env", "prod").out


def test_an_app_that_was_gone_runs_since_it_came_back(released: Checkout) -> None:
    released.git("rm", "-qr", "overlays/dev/lily-sklearn")
    released.commit("Retire lily-sklearn from dev")
    released.git("revert", "--no-edit", "HEAD")

    [one] = told(released, "--env", "dev", "--app", "lily-sklearn")["releases"]

    assert one["commit"] == released.git("rev-parse", "cicd")


def test_what_somebody_pulled_into_commits_of_their_own_runs_since_it_was_pushed(
    released: Checkout, version: Version
) -> None:
    """The fork's first parents would show a release that was tried here and never pushed, and not the merge."""
    merge = released.tip()
    start = released.git("rev-parse", "cicd~2")
    released.git("checkout", "-q", "-B", "cicd", start)
    write_release(released.root, Target("lily-batch", "dev"), version, "onnx", IMAGE)
    released.commit("Mine")
    released.git("pull", "-q", "--no-rebase", "--no-edit", "origin", "cicd")

    found = {(row["environment"], row["app"]): row["commit"] for row in told(released)["releases"] if row["since"]}

    tip = released.git("rev-parse", "cicd")
    bump = released.git("rev-parse", f"{merge}^1")
    assert found == {
        ("dev", "lily-api"): bump, ("dev", "lily-sklearn"): bump, ("dev", "lily-batch"): tip,
        ("staging", "lily-api"): merge,
    }  # fmt: skip

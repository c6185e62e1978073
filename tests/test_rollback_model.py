from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from conftest import IMAGE, S3, Checkout, Version, package, write_release

from gitops.releases.release import Target

APP = ("--app", "lily-api", "--env", "dev")
WHY = ("--reason", "wrong answers for wide petals")
RELEASE = "overlays/dev/lily-api/release.yaml"
HOLD = "overlays/dev/lily-api/hold.yaml"


@pytest.fixture
def versions(tmp_path: Path, s3: S3, checkout: Checkout) -> list[Version]:
    """Three versions, released in dev one after another."""
    made = [package(tmp_path / name, name) for name in ("one", "two", "three")]
    for version in made:
        s3.upload(version)
        image = ["--image", IMAGE] if version is made[0] else []
        done = checkout.run("bump_model", *APP, "--model-uri", version.uri, *image, "--push")
        assert done.code == 0, done.err
    return made


def runs(checkout: Checkout) -> str:
    """The version that cicd names, as `releases.py` tells it."""
    return checkout.git("show", f"cicd:{RELEASE}").split("model.mlops/version: ")[1].split()[0]


def test_the_release_before_comes_back_byte_by_byte_and_is_held(checkout: Checkout, versions: list[Version]) -> None:
    before = checkout.git("rev-parse", f"cicd~1:{RELEASE}")

    done = checkout.run("rollback_model", *APP, *WHY, "--push")

    assert done.code == 0, done.err
    assert done.err == (
        f"pushed {checkout.tip()[:12]} to cicd at origin: roll back and hold lily-api in dev, from"
        f" {versions[2].version} to {versions[1].version}\n"
    )
    assert done.out == f"{checkout.tip()}\n"
    assert checkout.git("rev-parse", f"cicd:{RELEASE}") == before
    assert checkout.git("diff", "--name-only", "cicd~1", "cicd").split() == [HOLD, RELEASE]
    held = checkout.git("show", f"cicd:{HOLD}")
    assert "reason: wrong answers for wide petals" in held
    assert "by: Test <test@example.org>" in held
    trailers = checkout.git("log", "-1", "--format=%(trailers:only)", "cicd").splitlines()
    assert trailers[0] == "Release: lily-api dev"
    assert f"Model-Version: {versions[1].version}" in trailers
    assert trailers[-2:] == [f"Rolled-Back-From: {versions[2].version}", "Reason: wrong answers for wide petals"]


def test_who_rolls_back_or_releases_in_a_freeze_is_told_so(checkout: Checkout, versions: list[Version]) -> None:
    window = "{schedule: '*/30 * * * *', duration: 1h, reason: audit}"
    checkout.replace("overlays/promotion.yaml", "- name: dev\n", f"- name: dev\n    freeze: [{window}]\n")
    checkout.commit("Freeze dev", push=True)

    back = checkout.run("rollback_model", *APP, *WHY, "--push")
    assert checkout.run("rollback_model", *APP, "--release-hold", "--push").code == 0
    released = checkout.run("bump_model", *APP, "--model-uri", versions[2].uri, "--push")

    for done in (back, released):
        assert done.code == 0, done.err
        assert done.err.splitlines()[-1].startswith("dev is frozen until 20")
        assert done.err.endswith("with `argocd app sync lily-api-dev`\n")


def test_any_release_of_the_history_can_be_chosen(checkout: Checkout, versions: list[Version]) -> None:
    assert checkout.run("rollback_model", *APP, *WHY, "--to", versions[0].version).code == 0

    assert runs(checkout) == versions[0].version


def test_one_rollback_after_another_goes_further_back_and_never_forth(
    checkout: Checkout, versions: list[Version]
) -> None:
    one, two, three = (version.version for version in versions)
    for expected in (two, one):
        assert checkout.run("rollback_model", *APP, "--reason", f"back to {expected}").code == 0
        assert runs(checkout) == expected

    done = checkout.run("rollback_model", *APP, *WHY)

    assert done.errors == [
        f"{RELEASE}: {one} is the first of what lily-api in dev has run and not taken back; there is nothing below it"
        f" to go back to. What was taken back can be named with --to: {two}, {three}"
    ]
    assert checkout.run("rollback_model", *APP, *WHY, "--to", three).code == 0
    assert runs(checkout) == three
    # The hold has taken back what ran until then, too.
    done = checkout.run("rollback_model", *APP, "--reason", "that is bad as well")
    assert done.errors == [
        f"{RELEASE}: {three} is the first of what lily-api in dev has run and not taken back; there is nothing below"
        f" it to go back to. What was taken back can be named with --to: {one}, {two}"
    ]


def test_whoever_went_back_and_however_the_next_rollback_goes_further_back(
    checkout: Checkout, versions: list[Version]
) -> None:
    checkout.git("revert", "--no-edit", "cicd")
    assert runs(checkout) == versions[1].version

    assert checkout.run("rollback_model", *APP, *WHY).code == 0

    assert runs(checkout) == versions[0].version


def test_an_image_is_rolled_back_like_a_version_and_told_as_such(checkout: Checkout, versions: list[Version]) -> None:
    other = IMAGE.replace("1" * 64, "2" * 64)
    latest = versions[2]
    bumped = checkout.run("bump_model", *APP, "--model-uri", latest.uri, "--image", other, "--commit")
    assert bumped.code == 0
    assert checkout.git("log", "-1", "--format=%s", "cicd") == "Release lily-api in dev to image lily-api@222222222222"

    done = checkout.run("rollback_model", *APP, *WHY)

    assert (
        "roll back and hold lily-api in dev, from image lily-api@222222222222 to image lily-api@111111111111,"
        f" with {latest.version}\n"
    ) in done.err
    subject = "Roll back lily-api in dev to image lily-api@111111111111"
    assert checkout.git("log", "-1", "--format=%s", "cicd") == subject
    assert runs(checkout) == latest.version
    again = checkout.run("rollback_model", *APP, "--reason", "another", "--image", other.replace("@", ":v2@"))
    assert again.code == 0, again.err
    assert other in checkout.git("show", f"cicd:{RELEASE}")
    done = checkout.run("rollback_model", *APP, *WHY, "--to", latest.version, "--image", "registry.example.org/x:1")
    assert done.errors == [
        f"--to {latest.version} --image registry.example.org/x:1: never released as lily-api in dev; earlier releases"
        f" are {latest.version}, {versions[1].version}, {versions[0].version}"
    ]


def test_the_same_rollback_again_changes_nothing(checkout: Checkout, versions: list[Version]) -> None:
    assert checkout.run("rollback_model", *APP, *WHY, "--push").code == 0
    before = checkout.state()

    done = checkout.run("rollback_model", *APP, *WHY, "--push")

    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("nothing to change: rolled back and held for this reason already")
    assert checkout.state() == before
    assert json.loads(checkout.run("rollback_model", *APP, *WHY, "--json").out)["releases"] == []


def test_a_held_release_is_changed_by_nobody_until_the_hold_is_released(
    checkout: Checkout, versions: list[Version]
) -> None:
    assert checkout.run("rollback_model", *APP, *WHY, "--push").code == 0
    before = checkout.state()

    done = checkout.run("bump_model", *APP, "--model-uri", versions[2].uri, "--push")

    assert done.code == 1
    [line] = done.errors
    assert line.startswith(f"{HOLD}: held by Test <test@example.org> since 20")
    assert line.endswith(
        "Z: wrong answers for wide petals; when that is settled, run"
        " `python scripts/rollback_model.py --app lily-api --env dev --release-hold`"
    )
    assert checkout.state() == before

    done = checkout.run("rollback_model", *APP, "--release-hold", "--push")
    pushed = f"pushed {checkout.tip()[:12]} to cicd at origin"
    assert (done.code, done.err) == (0, f"{pushed}: release the hold on lily-api in dev\n")
    assert checkout.git("diff", "--name-only", "cicd~1", "cicd") == HOLD
    assert checkout.run("bump_model", *APP, "--model-uri", versions[2].uri, "--push").code == 0


def test_a_promotion_respects_the_hold_of_the_environment_it_goes_to(
    checkout: Checkout, versions: list[Version]
) -> None:
    for _ in range(2):
        assert checkout.run("promote_model", "--app", "lily-api", "--to", "staging", "--push").code == 0
        branch = checkout.git("ls-remote", "origin", "promote/staging/*").splitlines()[-1].split("refs/heads/")[1]
        checkout.merge(branch)
        checkout.git("push", "-q", "origin", "--delete", branch)
        assert checkout.run("bump_model", *APP, "--model-uri", versions[0].uri, "--push").code == 0
    assert checkout.run("rollback_model", "--app", "lily-api", "--env", "staging", *WHY, "--push").code == 0
    assert checkout.run("bump_model", *APP, "--model-uri", versions[1].uri, "--push").code == 0

    done = checkout.run("promote_model", "--app", "lily-api", "--to", "staging")

    assert done.code == 1
    assert done.errors[0].startswith("overlays/staging/lily-api/hold.yaml: held by ")


def test_a_release_whose_bytes_are_gone_or_altered_is_not_restored(
    checkout: Checkout, versions: list[Version], s3: S3
) -> None:
    s3.client.delete_object(Bucket="mlops-prod", Key=f"models/lily/{versions[1].version}/onnx/model.onnx")
    before = checkout.state()

    done = checkout.run("rollback_model", *APP, *WHY)

    assert done.code == 1
    assert done.errors == [f"{versions[1].uri}onnx/model.onnx: missing; the version is incomplete, do not release it"]
    assert checkout.state() == before


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ("--app", "lily-sklearn", "--env", "dev"),
            "overlays/dev/lily-sklearn/release.yaml: no earlier release in the history of cicd;"
            " there is nothing to go back to",
        ),
        (
            (*APP, "--to", "2020-01-01-000000000000"),
            "--to 2020-01-01-000000000000: never released as lily-api in dev; earlier releases are ",
        ),
        (("--app", "none", "--env", "dev"), "apps/none: no such app; the apps are lily-api, lily-batch, lily-sklearn"),
        (
            ("--app", "lily-api", "--env", "qa"),
            "overlays/promotion.yaml: environments: no 'qa'; the environments are dev, staging, prod",
        ),
    ],
)
def test_what_cannot_be_rolled_back_is_refused(
    checkout: Checkout, versions: list[Version], args: tuple[str, ...], line: str
) -> None:
    before = checkout.state()

    done = checkout.run("rollback_model", *args, *WHY)

    assert done.code == 1
    assert done.errors[0].startswith(line)
    assert checkout.state() == before


def test_a_hold_that_is_not_there_cannot_be_released(checkout: Checkout) -> None:
    done = checkout.run("rollback_model", *APP, "--release-hold")

    assert done.code == 1
    assert done.errors == [f"{HOLD}: no such hold; lily-api in dev can be released"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("reason: because\n", "write the texts reason, by, since and nothing else, or remove the file"),
        ("reason: because\nby: me\nsince: 2026-13-01\n", "not YAML: month must be in 1..12"),
    ],
)
def test_a_file_that_is_no_hold_holds_all_the_same(checkout: Checkout, version: Version, text: str, fault: str) -> None:
    checkout.write(HOLD, text)
    checkout.commit()

    done = checkout.run("bump_model", *APP, "--model-uri", version.uri, "--image", IMAGE, "--commit")

    assert done.code == 1
    assert done.errors == [f"{HOLD}: {fault}"]


def test_a_dry_run_changes_nothing(checkout: Checkout, versions: list[Version]) -> None:
    before = checkout.state()

    done = checkout.run("rollback_model", *APP, *WHY, "--dry-run")

    assert done.code == 0
    assert done.err.startswith("would roll back and hold lily-api in dev, from ")
    assert checkout.state() == before


@pytest.mark.parametrize(
    "args",
    [[], ["--release-hold", "--reason", "x"], ["--release-hold", "--to", "x"], ["--release-hold", "--image", "x"]],
)
def test_wrong_usage_is_exit_2(args: list[str]) -> None:
    from conftest import ROOT

    command = [ROOT / ".venv/bin/python", ROOT / "scripts/rollback_model.py", *APP, *args]

    assert subprocess.run(command, capture_output=True).returncode == 2


def test_after_an_environment_was_put_before_it_what_ran_there_may_run_again(
    checkout: Checkout, versions: list[Version]
) -> None:
    """By the rollback's own commit, by a revert, and by hand; and what never ran there may not."""
    for version in versions[:2]:
        for environment in ("staging", "prod"):
            write_release(checkout.root, Target("lily-api", environment), version, "onnx", IMAGE)
            checkout.commit(f"{environment} {version.version}")
    checkout.name_environments("dev", "staging", "perf", "prod")
    # Taken back in the environments before, as well.
    for environment in ("dev", "staging"):
        write_release(checkout.root, Target("lily-api", environment), versions[2], "onnx", IMAGE)
    base = checkout.commit("Another environment")
    assert checkout.run("rollback_model", "--app", "lily-api", "--env", "prod", *WHY).code == 0
    assert order(checkout, base) == []

    rolled = checkout.git("rev-parse", "cicd")
    checkout.git("revert", "--no-edit", "HEAD")
    assert order(checkout, rolled) == []
    write_release(checkout.root, Target("lily-api", "prod"), versions[2], "onnx", IMAGE)
    assert [line.partition(":")[0] for line in order(checkout, rolled)] == ["overlays/prod/lily-api/release.yaml"]


def order(checkout: Checkout, base: str) -> list[str]:
    """What the check of a change finds of the order; the rest of the new environment is not there."""
    return [line for line in checkout.run("validate", "--changed-since", base).errors if line.endswith("[order]")]

"""A version that is bad everywhere: marked once, refused by every command, and named where it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import IMAGE, S3, Checkout, Version, in_folder, package

from gitops.repo import layout

APP = ("--app", "lily-api", "--env", "dev")
WHY = ("--reason", "trained on\nleaked labels")


@pytest.fixture
def two(tmp_path: Path, s3: S3, checkout: Checkout) -> tuple[Version, Version]:
    """Two versions; dev has run the first one and runs the second, and staging runs the first one."""
    one, other = (package(tmp_path / name, name) for name in ("one", "two"))
    for version in (one, other):
        s3.upload(version)
        image = ["--image", IMAGE] if version is one else []
        done(checkout, "bump_model", *APP, "--model-uri", version.uri, *image, "--push")
        if version is one:
            done(checkout, "promote_model", "--app", "lily-api", "--to", "staging", "--push")
            checkout.merge(f"promote/staging/lily-api-{one.version}-111111111111")
    return one, other


def done(checkout: Checkout, *args: str) -> str:
    result = checkout.run(*args)
    assert result.code == 0, result.err
    return result.err


def test_where_it_runs_is_named_with_the_next_command(checkout: Checkout, two: tuple[Version, Version]) -> None:
    one, other = two

    said = done(checkout, "withdraw_version", "lily", other.version, *WHY, "--push")
    again = done(checkout, "withdraw_version", "lily", other.version, *WHY, "--push")

    why = "--reason 'withdrawn: trained on leaked labels' --push"
    step = f"it runs as lily-api in dev; next: python scripts/rollback_model.py --app lily-api --env dev {why}"
    assert said.splitlines() == [
        f"pushed {checkout.tip()[:12]} to cicd at origin: withdraw lily {other.version}",
        step,
    ]
    assert again.splitlines() == [f"nothing to change: lily {other.version} is withdrawn already", step]
    assert checkout.git("diff", "--name-only", "cicd^", "cicd") == layout.WITHDRAWN
    assert checkout.git("log", "-1", "--format=%(trailers:only)", "cicd") == f"Withdrawn: lily {other.version}"
    # The commands are taken at their word, from the last environment to the first.
    done(checkout, "rollback_model", *APP, "--reason", "withdrawn: trained on leaked labels", "--push")
    said = done(checkout, "withdraw_version", "lily", one.version, *WHY, "--push")
    assert said.splitlines()[1:] == [
        f"it runs as lily-api in {environment}; next:"
        f" python scripts/retire_app.py --app lily-api --env {environment} {why}"
        for environment in ("staging", "dev")
    ]
    assert done(checkout, "withdraw_version", "lily", "2026-01-01-aaaaaaaaaaaa", *WHY).splitlines() == [
        f"edited {layout.WITHDRAWN}, not committed: withdraw lily 2026-01-01-aaaaaaaaaaaa",
        "next: "
        + in_folder(checkout.root, f"git commit -m 'Withdraw lily 2026-01-01-aaaaaaaaaaaa' -- {layout.WITHDRAWN}"),
        "it runs nowhere",
    ]  # fmt: skip


def test_nothing_brings_it_to_any_environment_again(checkout: Checkout, two: tuple[Version, Version]) -> None:
    one, other = two
    done(checkout, "withdraw_version", "lily", one.version, *WHY, "--push")

    for refused in (
        ("bump_model", *APP, "--model-uri", one.uri, "--push"),
        ("bump_model", *APP, "--model-uri", one.uri),
        ("rollback_model", *APP, "--reason", "back", "--to", one.version, "--push"),
        ("bump_model", "--app", "lily-batch", "--env", "dev", "--model-uri", one.uri, "--image", IMAGE, "--push"),
        ("promote_model", "--app", "lily-api", "--to", "prod", "--push"),
    ):
        before = checkout.state()
        result = checkout.run(*refused)
        [line] = result.errors
        assert result.code == 1
        assert f": {one.version} is withdrawn: trained on leaked labels (Test <test@example.org>, " in line
        assert line.endswith("; release another version")
        assert checkout.state() == before
    # Without a version a rollback passes over it: nothing else ever ran here.
    [line] = checkout.run("rollback_model", *APP, "--reason", "back", "--push").errors
    assert "all earlier releases are withdrawn" in line
    # And where it runs, everything but its version may change.
    args = (
        "--app",
        "lily-api",
        "--env",
        "staging",
        "--model-uri",
        one.uri,
        "--image",
        IMAGE.replace("1" * 64, "2" * 64),
    )
    [line] = checkout.run("bump_model", *args, "--push").errors
    assert "has never been released in dev" in line
    listed = checkout.run("list_versions", "--model", "lily", "--json")
    entries = {row["version"]: row["withdrawn"] for row in json.loads(listed.out)}
    assert entries[other.version] is None
    assert entries[one.version].startswith("trained on leaked labels (Test")
    assert "trained on leaked labels (Test" in checkout.run("list_versions", "--model", "lily").out


def test_validate_keeps_the_record(checkout: Checkout, two: tuple[Version, Version]) -> None:
    one, _ = two
    done(checkout, "withdraw_version", "lily", one.version, *WHY, "--push")
    checkout.git("checkout", "-q", "cicd")

    checkout.git("checkout", "-q", "HEAD^", "--", layout.WITHDRAWN)
    [line] = checkout.run("validate", "--changed-since", "HEAD").errors

    assert line.startswith(
        f"{layout.WITHDRAWN}: data.lily.{one.version}: gone; what was withdrawn remains so, put back"
    )
    assert line.endswith("[withdrawn]")


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (("lily", "latest", "--reason", "bad"), "lily.latest"),
        (("lily", "2026-02-01-0123456789ab/", "--reason", "bad"), "lily.2026-02-01-0123456789ab/"),
        (("Lily", "2026-02-01-0123456789ab", "--reason", "bad"), "Lily.2026-02-01-0123456789ab"),
        (("lily", "2026-02-01-0123456789ab", "--reason", " "), "--reason: empty"),
    ],
)
def test_what_is_no_version_is_refused(checkout: Checkout, args: tuple[str, ...], fault: str) -> None:
    before = checkout.state()

    result = checkout.run("withdraw_version", *args, "--push")

    assert result.code == 1
    assert fault in result.errors[0]
    assert checkout.state() == before


def test_a_dry_run_changes_nothing(checkout: Checkout) -> None:
    before = checkout.state()

    for how in ([], ["--push"]):
        result = checkout.run("withdraw_version", "lily", "2026-02-01-0123456789ab", *WHY, "--dry-run", *how)
        assert (result.code, result.err) == (0, "would withdraw lily 2026-02-01-0123456789ab\nit runs nowhere\n")
        assert checkout.state() == before

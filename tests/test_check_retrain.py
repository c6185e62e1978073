from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import IMAGE, S3, Checkout, Version, make_checkout, package, write_release

import check_retrain
from gitops.releases import history
from gitops.releases.release import Target
from gitops.repo import layout
from gitops.repo.git import Git

from contract import verdict
from contract.verdict import Verdict

POLICY = {
    "schedule": {"max_age_days": 90},
    "performance": {"metric": "accuracy", "below": 0.9, "min_labels": 50},
    "drift": {"columns": 2},
}


def verdict_of(version: str, drifted: list[str], accuracy: float | None = None, **changed: Any) -> dict[str, Any]:
    quality = None if accuracy is None else measured("accuracy", accuracy)
    return {
        "schema": 1, "environment": "dev", "app": "lily-api", "model": "lily", "version": version,
        "digest": f"sha256:{'0' * 64}", "since": "2026-02-28T00:00:00Z", "until": "2026-03-01T00:00:00Z", "rows": 100,
        "reference_rows": 100, "malformed_lines": 0, "drifted": bool(drifted), "drifted_columns": drifted, "columns": 5,
        "checks": [], "quality": quality,
    } | changed  # fmt: skip


def measured(metric: str, value: float, rows: int = 60) -> dict[str, Any]:
    return {"rows": rows, "metrics": {metric: {"current": value, "reference": value}}}


@pytest.fixture(scope="module")
def kept(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone whose dev runs the version of the fixture `version`."""
    made = make_checkout(template, tmp_path_factory.mktemp("released"))
    version = package(made.root.parent / "artifacts")
    write_release(made.root, Target("lily-api", "dev"), version, "onnx", IMAGE)
    made.commit("Release in dev")
    made.git("tag", "released")
    return made


@pytest.fixture
def released(kept: Checkout, version: Version) -> tuple[Checkout, Version]:
    """For each test as if it were new; released today."""
    kept.git("checkout", "-q", "-f", "-B", "cicd", "released")
    kept.git("clean", "-fdqx")
    return kept, version


def file_of(checkout: Checkout, content: Any, app: str = "lily-api") -> Path:
    """Where check_drift.py leaves it."""
    path = f"{layout.DRIFT_REPORTS}/dev/{app}/{layout.VERDICT_FILE}"
    checkout.write(path, content if isinstance(content, str) else json.dumps(content))
    return checkout.root / path


def parsed(verdicts: list[dict[str, Any]]) -> list[Verdict]:
    return [verdict.parse(json.dumps(each).encode(), "verdict.json") for each in verdicts]


def decided(age: int, verdicts: list[dict[str, Any]], **changed: Any) -> dict[str, bool | None]:
    return {
        reason.rule: reason.due
        for reason in check_retrain.judge(POLICY | changed, age, parsed(verdicts), {"accuracy": 0.95})
    }


# The rules


@pytest.mark.parametrize(("age", "due"), [(0, False), (90, False), (91, True)])
def test_a_version_grows_too_old(age: int, due: bool) -> None:
    assert decided(age, []) == {"schedule": due, "performance": None, "drift": None}


@pytest.mark.parametrize(("accuracy", "due"), [(None, None), (0.95, False), (0.9, False), (0.89, True)])
def test_a_version_answers_too_badly(accuracy: float | None, due: bool | None) -> None:
    assert decided(0, [verdict_of("v", [], accuracy)])["performance"] is due


def test_few_labels_decide_nothing() -> None:
    few = measured("accuracy", 0.1, rows=49)

    [reason] = check_retrain.judge(
        {"performance": POLICY["performance"]}, 0, parsed([verdict_of("v", [], quality=few)]), {}
    )

    assert (reason.due, reason.why) == (None, "49 rows with a label, at least 50 are needed")


@pytest.mark.parametrize(("value", "due"), [(60.0, False), (65.0, False), (65.1, True)])
def test_an_error_is_bad_above_its_bound(value: float, due: bool) -> None:
    rule = {"metric": "rmse", "above": 65, "min_labels": 10}
    bad = verdict_of("v", [], quality=measured("rmse", value))

    assert decided(0, [bad], performance=rule)["performance"] is due


@pytest.mark.parametrize(
    ("rule", "drifted", "due"),
    [
        ({"columns": 2}, 1, False), ({"columns": 2}, 2, True), ({"share": 0.4}, 1, False), ({"share": 0.4}, 2, True),
    ],
)  # fmt: skip
def test_so_many_columns_have_drifted(rule: dict[str, float], drifted: int, due: bool) -> None:
    assert decided(0, [verdict_of("v", ["a", "b"][:drifted])], drift=rule)["drift"] is due


# The command


def test_nothing_is_due(released: tuple[Checkout, Version]) -> None:
    checkout, version = released
    file_of(checkout, verdict_of(version.version, ["petal_width"], 0.95))

    done = checkout.run("check_retrain", "--model", "lily", "--env", "dev")

    assert (done.code, done.err) == (0, "")
    name = f"lily {version.version}"
    assert done.out.splitlines() == [
        "retrain: false",
        f"- {name}: schedule: not due: first released 0 days ago, at most 90",
        f"- {name}: performance: not due: accuracy 0.9500 on 60 rows, due below 0.9, 0.9556 when it was trained",
        f"- {name}: drift: not due: 1 of 5 columns until 2026-03-01T00:00:00Z, due from 2 columns on: petal_width",
    ]


@pytest.mark.parametrize(
    ("drifted", "accuracy", "due"),
    [(["petal_width", "prediction"], 0.95, "drift"), ([], 0.8, "performance")],
)
def test_one_rule_is_enough(released: tuple[Checkout, Version], drifted: list[str], accuracy: float, due: str) -> None:
    checkout, version = released
    file = file_of(checkout, verdict_of(version.version, drifted, accuracy))

    done = checkout.run("check_retrain", "--model", "lily", "--env", "dev", "--verdict", file, "--json")

    assert done.code == 0, done.err
    told = json.loads(done.out)
    [model] = told["models"]
    assert told["retrain"] is model["retrain"] is True
    assert [reason["rule"] for reason in model["reasons"] if reason["due"]] == [due]


def test_age_counts_from_the_first_release_anywhere(released: tuple[Checkout, Version], s3: S3, tmp_path: Path) -> None:
    """Not from the commit of its code, of which later versions may be, nor from a promotion."""
    checkout, version = released
    checkout.git("checkout", "-q", "cicd")
    environment = os.environ | {"GIT_COMMITTER_DATE": "2001-02-03T04:05:06+00:00"}
    subprocess.run(["git", "commit", "-q", "--amend", "--no-edit"], cwd=checkout.root, env=environment, check=True)
    promoted = checkout.run("promote_model", "--app", "lily-api", "--to", "staging")
    assert promoted.code == 0, promoted.err
    checkout.git("merge", "-q", "--no-ff", "--no-edit", f"promote/staging/lily-api-{version.version}-111111111111")
    for env in ("dev", "staging"):
        assert checkout.run("check_retrain", "--env", env).out.startswith("retrain: true\n")

    # The same code again, with other bytes: new since today.
    newer = package(tmp_path / "newer", "two")
    s3.upload(newer)
    done = checkout.run("bump_model", "--app", "lily-api", "--env", "dev", "--model-uri", newer.uri, "--commit")
    assert done.code == 0, done.err
    assert checkout.run("check_retrain", "--env", "dev").out.startswith("retrain: false\n")
    assert checkout.run("check_retrain", "--env", "staging").out.startswith("retrain: true\n")


def test_one_pass_finds_what_each_app_first_released(checkout: Checkout, tmp_path: Path) -> None:
    """With versions that came, went, came back and stand in several apps."""
    first, second, third = (package(tmp_path / word, word) for word in ("first", "second", "third"))
    dates = iter(f"2026-0{month}-01T00:00:00+00:00" for month in range(1, 8))
    for app, environment, version in (
        ("lily-api", "prod", second), ("lily-sklearn", "dev", second), ("lily-sklearn", "staging", third),
        ("lily-sklearn", "dev", first), ("lily-sklearn", "staging", second), ("lily-api", "prod", third),
    ):  # fmt: skip
        flavour, image = ("onnx", IMAGE) if app == "lily-api" else ("sklearn", None)
        write_release(checkout.root, Target(app, environment), version, flavour, image)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GIT_COMMITTER_DATE", next(dates))
            checkout.commit()
    repository, tip = Git(checkout.root), checkout.git("rev-parse", "cicd")
    running = [item for item in history.all_at(repository, tip) if item.released]

    found = history.first_released(repository, tip, {item.digest for item in running})

    assert {digest: change.date[:10] for digest, change in found.items()} == {
        second.digest: "2026-01-01", third.digest: "2026-03-01", first.digest: "2026-04-01",
    }  # fmt: skip


def test_where_nothing_runs_nothing_is_due(released: tuple[Checkout, Version]) -> None:
    done = released[0].run("check_retrain", "--env", "prod")

    assert (done.code, done.out) == (0, "retrain: false\n")


def test_a_verdict_that_was_left_behind_is_not_counted(released: tuple[Checkout, Version]) -> None:
    checkout, _ = released
    file = file_of(checkout, verdict_of("2025-01-01-000000000000", ["a", "b", "c"]))

    done = checkout.run("check_retrain", "--env", "dev")

    assert (done.code, done.out.splitlines()[0]) == (0, "retrain: false")
    assert done.err == f"{file}: of lily 2025-01-01-000000000000, which is not what runs in dev\n"
    named = checkout.run("check_retrain", "--env", "dev", "--verdict", file)
    assert (named.code, named.out) == (1, "")
    assert named.errors == [
        f"{file}: of lily 2025-01-01-000000000000, which is not what runs in dev;"
        " run `python scripts/check_drift.py --env dev` again"
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"schema": 1', "not JSON: "),
        (
            json.dumps(verdict_of("v", []) | {"columns": 0}),
            "columns: Input should be greater than or equal to 1, not 0",
        ),
        (json.dumps({"schema": 1}), "environment: Field required"),
    ],
)
def test_a_file_that_is_no_verdict_is_refused(released: tuple[Checkout, Version], content: str, said: str) -> None:
    checkout, _ = released
    file = file_of(checkout, content)

    done = checkout.run("check_retrain", "--env", "dev")

    assert (done.code, done.out) == (1, "")
    assert done.errors[0].startswith(f"{file}: {said}")


def test_a_verdict_of_another_environment_is_refused(released: tuple[Checkout, Version]) -> None:
    checkout, version = released
    file = file_of(checkout, verdict_of(version.version, [], environment="prod"))

    done = checkout.run("check_retrain", "--env", "dev", "--verdict", file)

    assert (done.code, done.errors) == (
        1, [f"{file}: of prod, not of dev; run `python scripts/check_drift.py --env dev` again"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("schedule: {max_age_days: 0}\n", "schedule.max_age_days: 0 is less than the minimum of 1"),
        ("shedule: {max_age_days: 9}\n", "the whole file: Additional properties are not allowed"),
        ("performance: {metric: rmse, below: 3, min_labels: 5}\n", "performance: "),
        ("drift: {columns: 1, share: 0.5}\n", "drift: "),
        ("{}\n", "the whole file: "),
        ("drift: [\n", "line"),
        (None, "missing on cicd; it has the rules for training the model again"),
    ],
)
def test_a_policy_that_is_none_is_refused(released: tuple[Checkout, Version], policy: str | None, said: str) -> None:
    checkout, _ = released
    path = "model-src/models/lily/retraining.yaml"
    checkout.git("checkout", "-q", "cicd")
    if policy is None:
        (checkout.root / path).unlink()
    else:
        checkout.write(path, policy)
    checkout.commit()

    done = checkout.run("check_retrain", "--env", "dev")

    assert (done.code, done.out) == (1, "")
    assert done.errors[0].startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--env", "qa"], "--env qa: nothing of that name on cicd; there is dev, staging, prod"),
        (["--env", "dev", "--model", "rose"], "--model rose: runs nowhere in dev; there is lily"),
    ],
)
def test_unknown_names_are_refused(released: tuple[Checkout, Version], args: list[str], said: str) -> None:
    assert released[0].run("check_retrain", *args).errors == [said]


def test_an_unreadable_store_decides_nothing(released: tuple[Checkout, Version], s3: S3) -> None:
    checkout, version = released
    s3.client.delete_object(Bucket="mlops-prod", Key=f"models/lily/{version.version}/manifest.json")

    done = checkout.run("check_retrain", "--env", "dev")

    assert (done.code, done.out) == (1, "")
    assert "no such version in the bucket" in done.errors[0]

"""The model registry in step with what runs where: what follows from it, and a real registry that a training filled."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLE, Repository

from lifecycle import registry
from lifecycle.registry import Registered, Release, Wanted

MODEL = "LilyModel"
ORDER = ("dev", "staging", "prod")


def version(number: int, name: str = "", run: str = "", **tags: str) -> Registered:
    known = {"version": name or f"v{number}", "digest": f"sha256:{name or f'v{number}'}"}
    return Registered(number, run or f"run{number}", known | tags)


def runs(place: str, name: str, canary: str | None = None, run: str = "") -> Release:
    """A release; the place is `app environment`."""
    app, environment = place.split()
    return Release(environment, app, canary, name, f"sha256:{name}", run or name.replace("v", "run"))


def planned(
    *releases: Release,
    versions: tuple[Registered, ...] = (version(1), version(2)),
    aliases: dict[str, int] | None = None,
    ran: tuple[str, ...] = (),
    environments: tuple[str, ...] = ORDER,
    production: tuple[str, ...] = (),
) -> dict[tuple[int, str], str | None]:
    """The values that change; `releases` come newest first."""
    wanted = Wanted(
        environments, production or environments[-1:], releases, frozenset((name, f"sha256:{name}") for name in ran)
    )
    changes, _ = registry.plan(MODEL, wanted, versions, aliases or {})
    assert all(change.before != change.after for change in changes)
    return {(0 if change.kind == "alias" else change.number, change.name): change.after for change in changes}


def test_where_nothing_ran_every_stage_is_none() -> None:
    assert planned() == {(1, "stage"): "None", (2, "stage"): "None"}


@pytest.mark.parametrize(
    ("place", "alias", "stage"),
    [("api dev", "dev", "None"), ("api staging", "staging", "Staging"), ("api prod", "production", "Production")],
)
def test_an_environment_is_an_alias_a_tag_and_a_stage(place: str, alias: str, stage: str) -> None:
    tag = f"environment.{place.split()[1]}"

    assert planned(runs(place, "v1"), versions=(version(1),)) == {(0, alias): "1", (1, tag): "api", (1, "stage"): stage}


def test_the_stages_follow_from_the_order_of_the_environments() -> None:
    found = planned(runs("api live", "v1"), runs("api test", "v2"), environments=("test", "live"))

    assert (found[1, "stage"], found[2, "stage"]) == ("Production", "None")
    assert (found[0, "production"], found[0, "test"]) == ("1", "2")
    assert planned(runs("api only", "v1"), environments=("only",))[1, "stage"] == "Production"


def test_each_of_several_productions_is_called_by_its_name_and_the_alias_of_one_goes() -> None:
    environments, production = ("test", "prod-eu", "prod-us"), ("prod-eu", "prod-us")

    found = planned(
        runs("api prod-eu", "v1"), aliases={"prod-us": 2, "live": 2}, environments=environments, production=production
    )

    assert (found[1, "stage"], found[2, "stage"]) == ("Production", "Archived")
    assert (found[0, "prod-eu"], found[0, "prod-us"]) == ("1", None)
    assert (0, "live") not in found and (0, "production") not in found
    assert planned(aliases={"live": 1}, environments=("test", "live"))[0, "live"] is None


def test_the_alias_of_an_environment_with_two_versions_goes_to_the_newest_release() -> None:
    found = planned(runs("web prod", "v1"), runs("api prod", "v2"))

    assert found == {
        (0, "production"): "1",
        (1, "environment.prod"): "web", (1, "stage"): "Production",
        (2, "environment.prod"): "api", (2, "stage"): "Production",
    }  # fmt: skip


def test_a_canary_gets_no_alias_and_is_named() -> None:
    found = planned(runs("api prod", "v2", canary="next"), runs("api prod", "v1"), runs("web prod", "v2"))

    assert found == {
        (0, "production"): "1",
        (1, "environment.prod"): "api", (1, "stage"): "Production",
        (2, "environment.prod"): "api (canary next),web", (2, "stage"): "Production",
    }  # fmt: skip


def test_an_alias_that_points_to_what_runs_no_more_moves_or_goes() -> None:
    before = {"production": 1, "staging": 1, "champion": 1}

    assert planned(runs("api prod", "v2"), aliases=before) == {
        (0, "production"): "2",
        (0, "staging"): None,
        (1, "stage"): "Archived",
        (2, "environment.prod"): "api",
        (2, "stage"): "Production",
    }


@pytest.mark.parametrize("before", [{"ran": ("v1",)}, {"versions": (version(1, stage="Staging"), version(2))}])
def test_what_ran_once_according_to_git_or_to_an_earlier_run_is_archived(before: dict[str, Any]) -> None:
    assert planned(**before) == {(1, "stage"): "Archived", (2, "stage"): "None"}


def test_what_comes_back_is_not_archived() -> None:
    archived = version(1, stage="Archived")

    assert planned(runs("api dev", "v1"), versions=(archived,), ran=("v1",))[1, "stage"] == "None"


def test_a_tag_of_an_environment_that_is_gone_is_taken_away() -> None:
    old = version(1, stage="None", **{"environment.qa": "api", "owner": "somebody"})

    assert planned(versions=(old,)) == {(1, "environment.qa"): None}


def test_what_was_registered_twice_has_the_tags_twice_and_the_alias_where_the_released_run_is() -> None:
    twice = (version(1, "v", "released"), version(2, "v", "again"))

    found = planned(runs("api dev", "v", run="released"), versions=twice)

    assert found == {(0, "dev"): "1"} | {
        (number, name): value for number in (1, 2) for name, value in (("environment.dev", "api"), ("stage", "None"))
    }
    assert planned(runs("api dev", "v", run="lost"), versions=twice)[0, "dev"] == "2"


def test_what_somebody_registered_by_hand_is_left_alone() -> None:
    by_hand = Registered(1, None, {"stage": "my own", "environment.dev": "my own"})

    assert planned(versions=(by_hand,), aliases={"mine": 1}) == {}


def test_a_release_that_is_not_registered_is_told_and_takes_the_alias_away() -> None:
    unknown, known = runs("api prod", "v9"), runs("web prod", "v2")
    other_digest = Release("dev", "api", None, "v1", "sha256:other", "run1")
    wanted = Wanted(ORDER, ORDER[-1:], (unknown, known, other_digest), frozenset())

    changes, told = registry.plan(MODEL, wanted, (version(1), version(2)), {"production": 1})

    assert told == [unknown, other_digest]
    assert [(c.name, c.after) for c in changes if c.kind == "alias"] == [("production", None)]


# A real registry


@pytest.fixture
def database(trained: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the registry that the training filled."""
    copy = Path(shutil.copy(trained.source / "mlflow.db", tmp_path / "mlflow.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}")
    # Where models are is relative to it.
    monkeypatch.chdir(trained.source)
    return copy


@pytest.fixture
def asked(trained: Repository) -> dict[str, Any]:
    """What the command says when production runs the trained version."""
    made = trained.manifest()
    release = {"environment": "prod", "app": "lily-api", "canary": None, "mlflow_run": made.mlflow_run}
    release |= {"version": made.version, "digest": made.digest}
    return {MODEL: {"environments": ORDER, "production": ORDER[-1:], "releases": [release], "ran": []}}


@pytest.fixture
def sync(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(asked: object, *options: str) -> tuple[int, str, str]:
        text = asked if isinstance(asked, str) else json.dumps(asked)
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return (registry.main(options), *capsys.readouterr())

    return call


def rows(database: Path) -> list[Any]:
    tables = ("registered_model_aliases", "model_version_tags")
    with closing(sqlite3.connect(database)) as open_:
        return [open_.execute(f"select * from {table} order by 1, 2").fetchall() for table in tables]


def test_production_is_loaded_by_its_alias(
    database: Path, asked: dict[str, Any], sync: Callable[..., tuple[int, str, str]], trained: Repository
) -> None:
    code, out, err = sync(asked)

    told, end = map(json.loads, out.splitlines())
    assert (code, err, end, told["unknown"]) == (0, "", {"made": 3}, [])
    assert told["registry"] == f"sqlite:///{database}"

    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{database}")
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@production")
    assert list(model.predict(np.array([SAMPLE]))) == ["setosa"]
    found = mlflow.MlflowClient().get_model_version_by_alias(MODEL, "production")
    assert found.tags["version"] == trained.manifest().version
    assert (found.tags["environment.prod"], found.tags["stage"]) == ("lily-api", "Production")
    assert found.current_stage == "None"  # MLflow's own stages are left alone


def test_a_second_run_and_a_dry_run_write_nothing(
    database: Path, asked: dict[str, Any], sync: Callable[..., tuple[int, str, str]]
) -> None:
    before = rows(database)
    tried = sync(asked, "--dry-run")
    assert rows(database) == before

    done = sync(asked)
    after = rows(database)
    again = sync(asked)

    assert tried[1].splitlines()[0] == done[1].splitlines()[0]
    assert json.loads(tried[1].splitlines()[1]) == {"made": 0}
    assert [json.loads(line) for line in again[1].splitlines()] == [
        {"registry": f"sqlite:///{database}", "changes": [], "unknown": []},
        {"made": 0},
    ]
    assert rows(database) == after != before


def test_a_run_that_fails_midway_says_how_far_it_came_and_the_next_completes_it(
    database: Path, asked: dict[str, Any], sync: Callable[..., tuple[int, str, str]]
) -> None:
    with closing(sqlite3.connect(database)) as broken, broken:
        broken.execute(
            "create trigger full before insert on registered_model_aliases begin select raise(abort, 'disk full'); end"
        )

    code, _, err = sync(asked)

    assert code == 1
    [line] = err.splitlines()
    assert line.startswith(f"error: MLflow at sqlite:///{database} (MLFLOW_TRACKING_URI): ")
    assert "disk full" in line
    assert line.endswith("; 2 of 3 changes were made, the next run makes the rest")

    with closing(sqlite3.connect(database)) as mended, mended:
        mended.execute("drop trigger full")
    assert json.loads(sync(asked)[1].splitlines()[1]) == {"made": 1}


def test_a_model_that_is_not_registered_has_no_version_that_is_known(
    database: Path, asked: dict[str, Any], sync: Callable[..., tuple[int, str, str]]
) -> None:
    told = json.loads(sync({"NoModel": asked[MODEL]})[1].splitlines()[0])

    assert (told["changes"], [item["app"] for item in told["unknown"]]) == ([], ["lily-api"])


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such MLflow database; train a model, or name the server"), ("text\n" * 200, "file is not a database")],
)
def test_a_database_that_is_none_is_one_line_and_stays(
    content: str | None, words: str, database: Path, sync: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    file = database.with_name("other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    if content:
        file.write_text(content)

    code, out, err = sync({MODEL: {"environments": ORDER, "production": ORDER[-1:], "releases": [], "ran": []}})

    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert words in err
    assert (file.read_text() if file.exists() else None) == content


@pytest.mark.parametrize(
    "text", ["", "[]", '{"M": {}}', '{"M": {"environments": [], "production": [], "releases": [{}], "ran": []}}']
)
def test_what_the_command_does_not_send_is_refused(text: str, sync: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = sync(text)

    assert (code, out) == (1, "")
    assert err.startswith("error: stdin: not what `python scripts/sync_registry.py` sends: ")

"""The model registry after releases: a real MLflow database, written by MLflow and read here as what it is, SQLite."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import IMAGE, ROOT, S3, Checkout, Version, package, write_release

from gitops.releases.release import Target

PYTHON = ROOT / "model-src/.venv/bin/python"
FLAVOURS = {"lily-api": "onnx", "lily-sklearn": "sklearn"}
SEED = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient()
for name, versions in json.load(sys.stdin).items():
    client.create_registered_model(name)
    for tags in versions:
        client.create_model_version(name, "s3://models/of-the-run", tags=tags)
client.set_registered_model_alias("LilyModel", "champion", "1")
"""


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Version]:
    """Four versions of lily; the first three are registered, as 1 to 3."""
    folder = tmp_path_factory.mktemp("artifacts")
    return {word: package(folder / word, word) for word in ("one", "two", "three", "stranger")}


@pytest.fixture(scope="session")
def seeded(versions: dict[str, Version], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow. Tests must not change it."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    lily = [{"version": v.version, "digest": v.digest} for v in list(versions.values())[:3]]
    by_hand = [{"stage": "my own", "environment.dev": "my own"}]
    subprocess.run(
        [PYTHON, "-c", SEED],
        input=json.dumps({"LilyModel": lily + by_hand, "DiabetesModel": lily[:1]}),
        env=environment | {"MLFLOW_TRACKING_URI": f"sqlite:///{file}", "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=file.parent, text=True, capture_output=True, check=True,
    )  # fmt: skip
    return file


class Registry:
    def __init__(self, file: Path) -> None:
        self.file = file

    def ask(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.file)) as database:
            return database.execute(query, values).fetchall()

    def change(self, statement: str) -> None:
        with closing(sqlite3.connect(self.file)) as database, database:
            database.execute(statement)

    def aliases(self, model: str = "LilyModel") -> dict[str, int]:
        return dict(self.ask("select alias, version from registered_model_aliases where name = ?", model))

    def tags(self, model: str = "LilyModel") -> dict[int, dict[str, str]]:
        """The tags of each version, without those that it was registered with."""
        found: dict[int, dict[str, str]] = {}
        for number, key, value in self.ask("select version, key, value from model_version_tags where name = ?", model):
            found.setdefault(number, {}).update({key: value} if key not in ("version", "digest") else {})
        return found

    def all(self) -> list[list[tuple[Any, ...]]]:
        tables = ("registered_models", "registered_model_aliases", "model_versions", "model_version_tags")
        return [self.ask(f"select * from {table} order by 1, 2") for table in tables]


@pytest.fixture
def registry(seeded: Path, checkout: Checkout) -> Registry:
    """The registry of the checkout, as MLflow makes it where nothing else is said."""
    return Registry(Path(shutil.copy(seeded, checkout.root / "model-src/mlflow.db")))


@pytest.fixture
def release(checkout: Checkout, versions: dict[str, Version]) -> Callable[..., None]:
    """Commits releases, each as `app environment`."""

    def commit(word: str, *targets: str) -> None:
        for app, environment in (target.split() for target in targets):
            image = IMAGE if app == "lily-api" else None
            write_release(checkout.root, Target(app, environment), versions[word], FLAVOURS[app], image)
        checkout.commit(f"Release {word} as {', '.join(targets)}")

    return commit


BY_HAND = {"stage": "my own", "environment.dev": "my own"}
BOTH = "lily-api,lily-sklearn"
NEVER = {"stage": "None"}


def test_aliases_and_tags_follow_releases_promotions_and_a_rollback(
    checkout: Checkout, registry: Registry, release: Callable[..., None], versions: dict[str, Version], s3: S3
) -> None:
    for environment in ("dev", "staging", "prod"):
        release("one", f"lily-api {environment}", f"lily-sklearn {environment}")
    release("two", "lily-api dev", "lily-sklearn dev")

    done = checkout.run("sync_registry", "--model", "lily")

    assert done.code == 0, done.err
    assert done.err.startswith("made 9 changes in sqlite:///")
    assert [line.split() for line in done.out.splitlines()[-3:]] == [
        ["LilyModel", "2", versions["two"].version, "alias", "dev", "-", "2"],
        ["LilyModel", "1", versions["one"].version, "alias", "staging", "-", "1"],
        ["LilyModel", "1", versions["one"].version, "alias", "production", "-", "1"],
    ]
    assert registry.aliases() == {"champion": 1, "dev": 2, "staging": 1, "production": 1}
    assert registry.tags() == {
        1: {"environment.staging": BOTH, "environment.prod": BOTH, "stage": "Production"},
        2: {"environment.dev": BOTH, "stage": "None"},
        3: NEVER,
        4: BY_HAND,
    }

    release("two", "lily-api staging", "lily-api prod", "lily-sklearn staging", "lily-sklearn prod")
    s3.upload(versions["one"])
    back = checkout.run("rollback_model", "--app", "lily-api", "--env", "prod", "--reason", "wrong for wide petals")
    assert back.code == 0, back.err
    assert checkout.run("sync_registry", "--model", "lily").code == 0

    # Two versions in one environment: the alias tells the last decision.
    assert registry.aliases() == {"champion": 1, "dev": 2, "staging": 2, "production": 1}
    everywhere = {f"environment.{name}": BOTH for name in ("dev", "staging", "prod")}
    assert registry.tags() == {
        1: {"environment.prod": "lily-api", "stage": "Production"},
        2: everywhere | {"environment.prod": "lily-sklearn", "stage": "Production"},
        3: NEVER,
        4: BY_HAND,
    }

    before = registry.all()
    again = checkout.run("sync_registry", "--model", "lily")

    assert (again.code, again.out, registry.all()) == (0, "", before)
    assert again.err.startswith("nothing to change in ")


def test_a_dry_run_says_what_would_change_and_changes_nothing(
    checkout: Checkout, registry: Registry, release: Callable[..., None], versions: dict[str, Version]
) -> None:
    release("one", "lily-api dev")
    before = registry.all()

    tried = checkout.run("sync_registry", "--dry-run", "--json", "--model", "lily")

    assert (tried.code, registry.all()) == (0, before), tried.err
    told = json.loads(tried.out)
    assert (told["tip"], told["dry_run"], told["unknown"]) == (checkout.git("rev-parse", "cicd"), True, [])
    change = {"model": "LilyModel", "number": 1, "version": versions["one"].version, "before": None}
    assert told["changes"][0] == change | {"kind": "tag", "name": "environment.dev", "after": "lily-api"}
    assert told["changes"][-1] == change | {"kind": "alias", "name": "dev", "after": "1"}
    assert len(told["changes"]) == 5


def test_each_model_has_the_name_that_its_problem_says_and_what_is_not_registered_is_named(
    checkout: Checkout, registry: Registry, release: Callable[..., None], versions: dict[str, Version], tmp_path: Path
) -> None:
    """The rest is set."""
    registry.change("insert into registered_model_aliases (alias, version, name) values ('dev', 1, 'LilyModel')")
    release("one", "lily-api dev", "lily-sklearn dev")
    release("two", "lily-api dev")
    release("stranger", "lily-sklearn dev")
    for model, environment in (("diabetes", "staging"), ("wine", "prod")):
        of_another = package(tmp_path / model, "one", model=model)
        write_release(checkout.root, Target("lily-sklearn", environment), of_another, "sklearn")
    checkout.write("model-src/models/diabetes/problem.yaml", "registered_as: DiabetesModel\n")
    checkout.commit()

    done = checkout.run("sync_registry")

    unnamed, unknown = done.errors
    assert done.code == 1
    assert unnamed == (
        "model-src/models/wine/problem.yaml: registered_as: missing on cicd, and wine runs; name it as MLflow's"
        " registry does"
    )
    assert unknown.startswith(
        f"overlays/dev/lily-sklearn/release.yaml: {versions['stranger'].version} runs, and LilyModel in sqlite:///"
    )
    assert unknown.endswith(f"was its run {'f' * 32} recorded in another registry? Name that with MLFLOW_TRACKING_URI")
    # The newest release of dev is not registered: no alias is better than one on what is not the newest.
    assert registry.aliases() == {"champion": 1}
    assert registry.tags() == {
        1: {"stage": "Archived"}, 2: {"environment.dev": "lily-api", "stage": "None"}, 3: NEVER, 4: BY_HAND,
    }  # fmt: skip
    assert registry.aliases("DiabetesModel") == {"staging": 1}


def test_a_name_of_two_models_is_refused(checkout: Checkout) -> None:
    for model in ("diabetes", "lily"):
        checkout.write(f"model-src/models/{model}/problem.yaml", "registered_as: LilyModel\n")
    checkout.commit()

    assert checkout.run("sync_registry").errors == [
        "model-src/models/lily/problem.yaml: registered_as: LilyModel is the name of diabetes already"
    ]


def test_a_server_that_is_away_is_one_line_without_its_password(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{address}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    done = checkout.run("sync_registry")

    [line] = done.err.splitlines()
    assert (done.code, done.out) == (1, "")
    assert line.startswith(f"error: MLflow at http://{address} (MLFLOW_TRACKING_URI): ")
    assert "Connection refused" in line
    assert "secret" not in line


def test_a_database_that_is_not_there_is_not_made(checkout: Checkout) -> None:
    done = checkout.run("sync_registry")

    file = checkout.root / "model-src/mlflow.db"
    assert (done.code, done.out, file.exists()) == (1, "", False)
    assert done.errors == [
        f"{file}: no such MLflow database; train a model, or name the server with MLFLOW_TRACKING_URI"
    ]


def test_a_model_that_is_not_there_is_refused_with_those_that_are(checkout: Checkout) -> None:
    [line] = checkout.run("sync_registry", "--model", "rose").errors

    start, _, known = line.partition("; there is ")
    assert start == "--model rose: no such model on cicd"
    assert "lily" in known.split(", ")


def test_a_registry_that_needs_another_package_names_it(
    checkout: Checkout, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://registry.example.com/mlflow")

    [line] = checkout.run("sync_registry").errors

    assert re.match("psycopg2?: not installed in ", line)
    assert line.endswith("needs it; `python scripts/setup.py serve` installs MLflow")

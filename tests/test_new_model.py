"""A model made by the command: trained, validated, released and asked, as the command itself says what comes next."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import IMAGE, ROOT, S3, Checkout, git, make_checkout, package, run, wait_until, write_release
from test_interruption import killed

import new_model
from gitops.releases import hold, release_file
from gitops.releases.release import Target

from contract.errors import Refused

MODEL_BIN = ROOT / "model-src/.venv/bin"
SAMPLE = {"features": [5.3, 3.5, 1.4, 0.2]}
WINE = ("wine", "--shape", "api")
FOLDERS = [
    "apps/wine-api",
    "model-src/models/wine",
    *(f"overlays/{env}/wine-api" for env in ("dev", "prod", "staging")),
]


@pytest.fixture(autouse=True)
def _like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(new_model.LIKE, "classification", "lily")


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    """A clone whose environment for models is installed: the one in which the tests run."""
    (checkout.root / "model-src/.venv").symlink_to(MODEL_BIN.parent)
    return checkout


def done(checkout: Checkout, command: str, *args: str | Path) -> str:
    result = checkout.run(command, *args)
    assert result.code == 0, result.err
    return result.out


def new(checkout: Checkout) -> list[str]:
    """The folders that are not committed."""
    lines = checkout.git("status", "--porcelain").splitlines()
    return [line.strip().removeprefix("?? ").rstrip("/") for line in lines]


def train(checkout: Checkout, *commands: str) -> None:
    """Runs what the command says comes next, in model-src/ with that project's Python."""
    env = os.environ | {"PATH": f"{MODEL_BIN}:{os.environ['PATH']}"}
    for command in commands:
        ran = subprocess.run(
            command.split(), cwd=checkout.root / "model-src", env=env, capture_output=True, text=True
        )  # fmt: skip
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"


def workload(checkout: Checkout, overlay: str) -> dict[str, Any]:
    rendered = yaml.safe_load_all(done(checkout, "render", overlay))
    [found] = [item for item in rendered if item and item["kind"] in ("Deployment", "InferenceService")]
    return dict(found)


def ask(checkout: Checkout, deployment: dict[str, Any], s3: S3, log: Path) -> dict[str, Any]:
    """Starts the service as the Deployment says, and asks it for the sample."""
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    # What differs from a pod: where it listens, and which S3 it reads with which credentials.
    env = os.environ | {item["name"]: item["value"] for item in container["env"]} | s3.variables
    env |= {"HOST": "127.0.0.1", "PORT": "0", "DRAIN_SECONDS": "0"}
    command = [MODEL_BIN / "python", *container["command"][1:]]
    with (
        log.open("w") as out,
        subprocess.Popen(command, cwd=checkout.root / "model-src", env=env, stderr=out) as process,
    ):
        try:
            wait_until(lambda: "listening on " in log.read_text() or process.poll() is not None, "the service listens")
            url = log.read_text().partition("listening on ")[2].split()[0]
            wait_until(lambda: answers(f"{url}/readyz"), "the service is ready")
            asked = urllib.request.Request(
                f"{url}/predict", json.dumps(SAMPLE).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return dict(json.load(answer))
        finally:
            process.terminate()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


# From nothing to an answer


def test_a_new_model_trains_validates_deploys_to_dev_and_answers(ready: Checkout, s3: S3, tmp_path: Path) -> None:
    made = ready.run("new_model", *WINE)

    assert made.code == 0, made.err
    assert "  dvc repro models/wine/dvc.yaml\n" in made.out
    assert "python scripts/bump_model.py --app wine-api --env dev --model-uri URI --image IMAGE --push\n" in made.out
    assert new(ready) == FOLDERS
    train(ready, "dvc repro models/wine/dvc.yaml")
    ready.commit("Add the model wine")
    train(ready, "python -m lifecycle version wine")
    artifacts = ready.root / "model-src/artifacts/wine"
    uri = done(ready, "upload_model", "--model", "wine", "--artifacts", artifacts).strip()
    assert uri.startswith("s3://mlops-prod/models/wine/")
    done(ready, "validate")
    done(ready, "bump_model", "--app", "wine-api", "--env", "dev", "--model-uri", uri, "--image", IMAGE, "--commit")

    deployment = workload(ready, "overlays/dev/wine-api")

    assert deployment["metadata"]["name"] == "wine-api"
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "MODEL_URI", "value": f"{uri}onnx/"} in container["env"]
    assert ready.git("status", "--porcelain") == ""
    said = ask(ready, deployment, s3, tmp_path / "log")
    assert (said["prediction"], said["model_version"]) == ("setosa", uri.rstrip("/").rpartition("/")[2])
    done(ready, "validate", "--changed-since", "HEAD^")


def test_a_regression_of_the_other_shape_trains_and_deploys(ready: Checkout, s3: S3, tmp_path: Path) -> None:
    made = ready.run(
        "new_model", "prices", "--like", "diabetes", "--shape", "inference-service", "--app", "house-prices"
    )

    assert made.code == 0, made.err
    assert "  python -m models.prices.generate_data\n  dvc repro models/prices/dvc.yaml\n" in made.out
    assert "--app house-prices --env dev --model-uri URI --push\n" in made.out
    # Training is the same as for the other model, and takes as long.
    train(
        ready,
        "python -m models.prices.generate_data",
        "dvc repro models/prices/dvc.yaml:prepare",
        "dvc status models/prices/data/raw.csv.dvc",
    )
    assert (ready.root / "model-src/models/prices/build/train.csv").is_file()
    assert b"Data dictionary of prices" in ready.read("model-src/models/prices/data_dictionary.md")
    ready.commit("Add the model prices")
    version = package(tmp_path / "artifacts", model="prices")
    s3.upload(version)
    done(ready, "validate")
    done(ready, "bump_model", "--app", "house-prices", "--env", "dev", "--model-uri", version.uri, "--commit")

    service = workload(ready, "overlays/dev/house-prices")

    assert service["metadata"]["name"] == "house-prices"
    assert service["spec"]["predictor"]["serviceAccountName"] == "house-prices"
    assert service["spec"]["predictor"]["model"]["storageUri"] == f"{version.uri}sklearn/"


def test_what_is_made_passes_the_linter_and_is_type_checked(ready: Checkout) -> None:
    """With the names of a library and of a room of model-src/, which a model's package does not hide."""
    for name, kind in (("optuna", "classification"), ("packing", "regression")):
        done(ready, "new_model", name, "--kind", kind, "--only", "model")
        ready.commit(f"Add the model {name}")

    for command in ("ruff check models", "ruff format --check models", "mypy --verbose"):
        program, *args = command.split()
        ran = subprocess.run(
            [MODEL_BIN / program, *args], cwd=ready.root / "model-src", capture_output=True, text=True
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout
    assert {"models.optuna.model", "models.packing.schema"} <= {*re.findall(r"models\.\w+\.\w+", ran.stderr)}


# What it writes


def test_every_copied_byte_is_that_of_the_source_but_for_the_names(ready: Checkout) -> None:
    assert (
        ready.run("new_model", "wines", *WINE[1:]).code == 0
    )  # so near lily in the alphabet and as long: nothing moves

    for source, copy, renamed in (
        ("apps/lily-api", "apps/wines-api", {"lily": "wines"}),
        ("overlays/dev/lily-api", "overlays/dev/wines-api", {"lily": "wines"}),
        ("overlays/prod/lily-api", "overlays/prod/wines-api", {"lily": "wines"}),
    ):
        for file in (ready.root / source).iterdir():
            text = file.read_text()
            for old, word in renamed.items():
                text = text.replace(old, word)
            assert (ready.root / copy / file.name).read_text() == text, file


def test_what_the_lifecycle_makes_is_not_copied_and_what_a_person_accepted_is(ready: Checkout) -> None:
    assert ready.run("new_model", *WINE).code == 0

    assert sorted(path.name for path in (ready.root / "model-src/models/wine").rglob("*")) == [
        "__init__.py", "accepted.json", "dvc.yaml", "generate_data.py", "model.py", "params.yaml", "problem.yaml",
        "retraining.yaml",
        "schema.py",
    ]  # fmt: skip
    for name in ("accepted.json", "params.yaml", "schema.py"):
        assert ready.read(f"model-src/models/wine/{name}") == ready.read(f"model-src/models/lily/{name}")


def test_the_texts_of_the_problem_are_marked_and_what_speaks_of_the_source_is_listed(ready: Checkout) -> None:
    made = ready.run("new_model", *WINE)

    [line] = [
        n for n, text in enumerate(ready.read("model-src/models/lily/schema.py").splitlines(), 1) if b"lily" in text
    ]
    problem = yaml.safe_load(ready.read("model-src/models/wine/problem.yaml"))
    assert problem["title"] == "To be written; of lily: Species of an lily"
    assert (problem["experiment"], problem["registered_as"]) == ("wine_experiment", "WineModel")
    assert b"at_least: 0.85      # on rows that were held out" in ready.read("model-src/models/wine/problem.yaml")
    assert [line for line in made.err.splitlines() if line.startswith("to be written: ")] == [
        "to be written: model-src/models/wine/problem.yaml: title, objective, users, out_of_scope",
        "to be written: model-src/models/wine/generate_data.py: speaks of lily in line 1",
        f"to be written: model-src/models/wine/schema.py: speaks of lily in line {line}",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from models.churn.schema import SCHEMA", "from models.wine.schema import SCHEMA"),
        ("import models.churn", "import models.wine"),
        ("from models import churn", "from models import wine"),
        ("  python -m models.churn.generate_data", "  python -m models.wine.generate_data"),
        ("cmd: python -m lifecycle train churn", "cmd: python -m lifecycle train wine"),
        (
            "deps: [models/churn/data/raw.csv, model-src/models/churn/a]",
            "deps: [models/wine/data/raw.csv, model-src/models/wine/a]",
        ),
        ("models/churn/model.py", "models/wine/model.py"),
        ('name="churn",', 'name="wine",'),
        ('"""The churn model: who leaves."""', '"""The wine model: who leaves."""'),
        # A column, an address, prose, a part of another word.
        ('target="churn"', 'target="churn"'),
        ('rows["churn"] > churn.mean()', 'rows["churn"] > churn.mean()'),
        ("https://example.com/churn/data.csv", "https://example.com/churn/data.csv"),
        ("s3://other/models/churn/data.csv", "s3://other/models/churn/data.csv"),
        ("How much churn there is", "How much churn there is"),
        ("from churns import load_churn", "from churns import load_churn"),
        ("from sklearn.churn import x", "from sklearn.churn import x"),
        ("from churn import x", "from churn import x"),
    ],
)
def test_a_name_is_changed_where_it_is_the_models(text: str, expected: str) -> None:
    assert new_model.renamed_model(text.encode(), "churn", "wine").decode() == expected


def test_bytes_that_are_no_text_are_copied_as_they_are() -> None:
    assert new_model.renamed_model(b"import churn\xff", "churn", "wine") == b"import churn\xff"


def test_in_manifests_a_name_is_changed_between_hyphens_too() -> None:
    text = b"role/ml-dev-lily-api s3://b/lily/in/ lily-api.dev.example.com lilyes my_lily #lily"

    assert new_model.renamed_app(text, {"lily-api": "house", "lily": "wine"}) == (
        b"role/ml-dev-house s3://b/wine/in/ house.dev.example.com lilyes my_lily #wine"
    )


def test_a_released_and_held_source_makes_an_unreleased_app_without_a_hold(ready: Checkout, tmp_path: Path) -> None:
    version = package(tmp_path / "artifacts")
    blank = {app: ready.read(f"overlays/dev/{app}/release.yaml") for app in ("lily-api", "lily-sklearn")}
    write_release(ready.root, Target("lily-api", "dev"), version, "onnx", IMAGE)
    write_release(ready.root, Target("lily-sklearn", "dev"), version, "sklearn")
    ready.write(hold.path("lily-api", "dev"), hold.write("lily-api", "dev", hold.Hold("why", "who", "when")))
    ready.commit("Release")

    done(ready, "new_model", *WINE)
    done(ready, "new_model", "wine", "--shape", "inference-service", "--only", "app")

    for app, text in blank.items():
        own = app.replace("lily", "wine")
        assert ready.read(f"overlays/dev/{own}/release.yaml").decode() == text.decode().replace(app, own)
    assert not (ready.root / "overlays/dev/wine-api/hold.yaml").exists()


def test_a_canary_is_not_copied(ready: Checkout, tmp_path: Path) -> None:
    path = "overlays/dev/lily-sklearn/release.yaml"
    blank = ready.read(path)
    canary = yaml.safe_load(blank)
    canary["spec"]["canary"] = [{"trafficPercent": 10, "predictor": {
        "name": "next", "annotations": canary["metadata"]["annotations"], "model": {"storageUri": "s3://unreleased/"},
    }}]  # fmt: skip
    ready.write(path, yaml.safe_dump(canary))
    ready.commit("Add a canary")

    done(ready, "new_model", "wine", "--shape", "inference-service", "--only", "app")

    assert ready.read("overlays/dev/wine-sklearn/release.yaml") == blank.replace(b"lily-sklearn", b"wine-sklearn")
    for environment in ("staging", "prod"):
        ready.write(path.replace("dev", environment), yaml.safe_dump(canary))
    ready.commit("Everywhere")
    assert ready.run("new_model", "wines", "--shape", "inference-service", "--only", "app").errors == [
        f"{path}: spec.canary: lily-sklearn has one in every environment; take one out first"
    ]


def test_a_release_in_images_is_set_back_and_keeps_the_name_of_the_image() -> None:
    name, digest = IMAGE.split("@")
    lineage = {
        f"model.mlops/{word}": "x" for word in ("version", "digest", "code-commit", "data-digest", "mlflow-run", "uri")
    }
    text = yaml.safe_dump({
        "kind": "Kustomization", "commonAnnotations": lineage,
        "images": [{"name": "unreleased", "newName": name, "digest": digest}],
    })  # fmt: skip

    found = yaml.safe_load(release_file.unrelease(text.encode(), Target("lily-api", "dev"), "kustomization.yaml"))

    assert found["images"] == [{"name": "unreleased", "newName": name, "digest": "unreleased"}]
    assert set(found["commonAnnotations"].values()) == {"unreleased", "s3://unreleased/"}


def test_a_shape_is_found_by_the_apps_that_have_it(ready: Checkout) -> None:
    shutil.copytree(ready.root / "base/api", ready.root / "base/other")
    for folder in ("apps", *(f"overlays/{env}" for env in ("dev", "staging", "prod"))):
        for file in (ready.root / folder / "lily-api").iterdir():
            text = file.read_text().replace("lily-api", "lily-other").replace("base/api", "base/other")
            ready.write(f"{folder}/lily-other/{file.name}", text)
    ready.commit("Add a shape")

    done(ready, "new_model", "wine", "--shape", "other")

    assert workload(ready, "overlays/prod/wine-other")["metadata"]["labels"]["model.mlops/model"] == "wine"


# One part or the other, and what it says


def test_only_the_model_or_only_the_app(ready: Checkout) -> None:
    model = ready.run("new_model", "wine", "--only", "model")
    assert new(ready) == ["model-src/models/wine"]
    assert "main" in model.out and "cicd:" not in model.out
    ready.git("stash", "-qu")

    app = ready.run("new_model", *WINE, "--only", "app")

    assert new(ready) == [folder for folder in FOLDERS if folder != "model-src/models/wine"]
    assert "cicd:" in app.out and "on main" not in app.out
    assert app.err.startswith("model-src/models/wine: not on this branch; import_model_code.py brings it from main\n")


def test_json_names_every_file_and_what_a_person_has_to_write(ready: Checkout) -> None:
    found = json.loads(done(ready, "new_model", *WINE, "--json"))

    assert {key: found[key] for key in ("model", "like", "shape", "app", "app_like", "dry_run")} == {
        "model": "wine", "like": "lily", "shape": "api", "app": "wine-api", "app_like": "lily-api", "dry_run": False,
    }  # fmt: skip
    assert found["files"] == found["added"]
    assert "overlays/staging/wine-api/release.yaml" in found["files"]
    assert all((ready.root / path).is_file() for path in found["files"])
    assert found["to_write"][0] == "model-src/models/wine/problem.yaml: title, objective, users, out_of_scope"


def test_a_dry_run_lists_the_files_and_changes_nothing(ready: Checkout) -> None:
    before = ready.state()

    listed = done(ready, "new_model", *WINE, "--dry-run").splitlines()

    assert ready.state() == before
    assert json.loads(done(ready, "new_model", *WINE, "--json"))["files"] == listed


def test_the_same_again_changes_nothing(ready: Checkout) -> None:
    done(ready, "new_model", *WINE)
    before = ready.state()

    again = ready.run("new_model", *WINE)

    assert (again.code, ready.state()) == (0, before)
    assert "apps/wine-api: 1 file, there already\n" in again.err
    assert json.loads(done(ready, "new_model", *WINE, "--json"))["added"] == []


def test_without_ruff_the_files_are_made_and_the_commands_named(
    ready: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_model.sys, "executable", str(ready.root / "bin/python"))
    (ready.root / "model-src/.venv").unlink()

    made = ready.run("new_model", "wine", "--only", "model")

    assert made.code == 0
    assert "`ruff check --fix model-src/models/wine && ruff format model-src/models/wine`" in made.err
    assert b"from lifecycle.model import Model\nfrom models.wine.schema import SCHEMA\n" in ready.read(
        "model-src/models/wine/model.py"
    )


# Refused

API = ("--shape", "api")
TAKEN = "there already, and not as this command makes it; take another name"
SHAPES = "no app of that shape to copy; the shapes are api, batch, inference-service"


REFUSED = [
    (("lily", *API), f"model-src/models/lily: {TAKEN}"),
    (("wine", *API, "--app", "lily-sklearn"), f"apps/lily-sklearn: {TAKEN}"),
    (("wine", *API, "--app", "shared"), f"overlays/dev/shared: {TAKEN}"),
    (("wine", *API, "--app", "environment"), f"overlays/prod/environment: {TAKEN}"),
    (("reports", *API), "model-src/models/reports/__init__.py: git ignores a file of that name; take another name"),
    (("lambda", *API), "'lambda': a word of Python; take another name"),
    (("yes", *API), "'yes': a word of YAML; take another name"),
    (("wine", *API, "--app", "null"), "'null': a word of YAML; take another name"),
    (("wine_2", *API), "'wine_2': not a name for it; take letters a-z and digits, a letter first, at most 63 of them"),
    (
        ("wine", *API, "--app", "wine_api"),
        "'wine_api': not a name for it; take a-z, digits and -, a letter first and no - last, at most 52 of them",
    ),
    (("wine", "--shape", "rest"), f"--shape 'rest': {SHAPES}"),
    (("wine", "--shape", "environment"), f"--shape 'environment': {SHAPES}"),
    (("wine", *API, "--like", "rose"), "--like 'rose': no such model; model-src/models/ has diabetes, lily"),
]


def test_what_cannot_be_made_is_refused(ready: Checkout) -> None:
    before = ready.state()

    for args, line in REFUSED:
        refused = ready.run("new_model", *args)

        assert (refused.code, refused.out) == (1, ""), args
        assert line in refused.errors, args
        assert ready.state() == before, args


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (new_model.MODEL_NAME, ["Wine", "wine-2", "wine_2", "2wine", "", "wi ne", "../wine", "wine\n", "w" * 64]),
        (new_model.APP_NAME, ["Wine", "wine.api", "2-wine", "wine-", "-wine", "", "../wine", "wine\n", "w" * 53]),
    ],
)
def test_a_name_that_is_no_package_or_no_dns_label_is_refused(pattern: re.Pattern[str], names: list[str]) -> None:
    for name in names:
        with pytest.raises(Refused, match="not a name for it; take what it takes"):
            new_model.require_name(name, pattern, "what it takes")
    for name in ("wine", "w", "wine2", "w" * 52):
        new_model.require_name(name, pattern, "what it takes")


@pytest.mark.parametrize(
    "path",
    [
        "model-src/models/lily/params.yaml",
        "model-src/models/lily/new.py",
        "apps/lily-api/new.yaml",
        "overlays/prod/lily-api/release.yaml",
    ],
)
def test_uncommitted_changes_of_what_is_copied_or_changed_are_refused(ready: Checkout, path: str) -> None:
    ready.write(path, b"mine\n")
    before = ready.state()

    assert ready.run("new_model", *WINE).errors == [
        f"{path}: uncommitted change; commit it, or put it away with `git stash`"
    ]
    assert ready.state() == before


def test_what_training_left_in_the_source_is_no_hindrance(ready: Checkout) -> None:
    for path in ("dvc.lock", "metrics.json", "plots/trials.csv", "data_dictionary.md"):
        ready.write(f"model-src/models/lily/{path}", b"trained again\n")

    assert ready.run("new_model", *WINE).code == 0


def test_a_target_with_something_in_it_is_refused(ready: Checkout) -> None:
    done(ready, "new_model", *WINE)
    ready.write("model-src/models/wine/schema.py", b"mine\n")
    ready.write("overlays/prod/wine-api/mine.yaml", b"mine\n")

    assert ready.run("new_model", *WINE).errors == [
        f"model-src/models/wine: {TAKEN}",
        f"overlays/prod/wine-api: {TAKEN}",
    ]


def test_an_app_that_is_not_in_every_environment_is_not_copied(ready: Checkout) -> None:
    ready.git("rm", "-qr", "overlays/staging/lily-api")
    ready.commit("Away")

    assert ready.run("new_model", *WINE).errors == [
        "--shape 'api': lily-api: not in every environment of overlays/promotion.yaml, so there is no overlay to copy"
        " for some; CONTRIBUTING.md tells how to add one"
    ]


def test_a_copy_that_does_not_render_is_refused(ready: Checkout) -> None:
    ready.write("base/lily-api-extra/kustomization.yaml", "resources: []\n")
    ready.replace("apps/lily-api/kustomization.yaml", "base/api\n", "base/api\n  - ../../base/lily-api-extra\n")
    ready.commit("A folder that has the app's name and is not its own")
    before = ready.state()

    refused = ready.run("new_model", *WINE)

    assert refused.code == 1
    assert any("base/wine-api-extra" in line for line in refused.errors)
    assert ready.state() == before


def test_wrong_usage_is_exit_2() -> None:
    for args in (
        ["wine"],
        ["wine", "--only", "model", *API],
        ["wine", "--only", "model", "--app", "x"],
        ["wine", *API, "--like", "lily", "--kind", "regression"],
        ["wine", *API, "--kind", "other"],
    ):
        with pytest.raises(SystemExit) as stopped:
            run("new_model", *args)
        assert stopped.value.code == 2


# Killed


def test_killed_anywhere_it_leaves_whole_folders_and_the_next_run_completes_it(template: Path, tmp_path: Path) -> None:
    checkout = make_checkout(template, tmp_path)
    status, points = killed(checkout, "new_model", WINE, None)
    assert status == 0
    whole = contents(checkout)
    assert {path.rpartition("/")[0] for path in whole} >= set(FOLDERS)
    # Before each folder's own rename, and while a file is written.
    renames = [at for at, point in enumerate(points) if point.startswith("os.rename")]
    writes = [at for at, point in enumerate(points) if point.startswith("write ")]
    assert len(renames) == len(FOLDERS)
    for at in [writes[len(writes) // 2], *renames]:
        checkout.git("clean", "-fdq")
        checkout.git("checkout", "-q", ".")
        before = contents(checkout)

        status, _ = killed(checkout, "new_model", WINE, at)

        assert os.WTERMSIG(status) == signal.SIGKILL
        left = contents(checkout)
        assert {path.rpartition("/")[0] for path in left} <= {*FOLDERS}, points[at]
        for folder in FOLDERS:
            mine = {path: text for path, text in left.items() if path.rpartition("/")[0] == folder}
            states = [
                {path: text for path, text in state.items() if path.rpartition("/")[0] == folder}
                for state in (before, whole)
            ]
            assert mine in states, f"{points[at]}: {folder}"
        done(checkout, "new_model", *WINE)
        assert contents(checkout) == whole, points[at]


def contents(checkout: Checkout) -> dict[str, str]:
    """Every file that is new or changed."""
    listed = git(checkout.root, "ls-files", "--others", "--exclude-standard", "--modified").splitlines()
    return {path: (checkout.root / path).read_text() for path in listed}

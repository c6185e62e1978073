"""A model made by the command: trained, validated, released and asked, as the command itself says what comes next."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, S3, Checkout, git, make_checkout, package, run, type_checked
from test_interruption import killed

import new_model

from contract.errors import Refused

MODEL_BIN = ROOT / "model-src/.venv/bin"
WINE = ("wine", "--shape", "api")
FOLDERS = [
    "apps/wine-api",
    "model-src/models/wine",
    *(f"overlays/{env}/wine-api" for env in ("dev", "prod", "staging")),
]


@pytest.fixture
def checkout(whole_checkout: Checkout) -> Checkout:
    """With the code, which is run there."""
    return whole_checkout


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


# What goes on from it


def test_a_regression_of_the_other_shape_trains_and_deploys(ready: Checkout, s3: S3, tmp_path: Path) -> None:
    made = ready.run(
        "new_model", "prices", "--kind", "regression", "--shape", "inference-service", "--app", "house-prices"
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

    for command in ("ruff check models", "ruff format --check models"):
        program, *args = command.split()
        ran = subprocess.run(
            [MODEL_BIN / program, *args], cwd=ready.root / "model-src", capture_output=True, text=True
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout
    ran = type_checked(ready.root, "--verbose")
    assert ran.returncode == 0, ran.stdout
    assert {"models.optuna.model", "models.packing.schema"} <= {*re.findall(r"models\.\w+\.\w+", ran.stderr)}


# What it writes


@pytest.mark.parametrize(
    ("shape", "app"), [("api", "lily-api"), ("batch", "lily-batch"), ("inference-service", "lily-sklearn")]
)
def test_what_is_made_is_what_the_sample_has_byte_for_byte(checkout: Checkout, shape: str, app: str) -> None:
    folders = [f"apps/{app}", *(f"overlays/{env}/{app}" for env in ("dev", "staging", "prod"))]
    checkout.git("rm", "-qr", *folders)
    checkout.commit("Away")

    done(checkout, "new_model", "lily", "--only", "app", "--shape", shape, "--app", app)

    checkout.git("add", "-A")
    assert checkout.git("diff", "--cached", "--stat", "HEAD^") == ""


def test_the_first_model_and_the_first_app_of_each_shape_need_no_other(checkout: Checkout) -> None:
    checkout.git("rm", "-qr", "apps", "model-src/models/lily", "model-src/models/diabetes", "overlays/*/lily-*")
    checkout.commit("Away")
    assert done(checkout, "validate").startswith("5 renders with ")

    for shape in ("api", "batch", "inference-service", "sagemaker"):
        done(checkout, "new_model", "wine", "--shape", shape)

    assert done(checkout, "validate").startswith("17 renders with ")


def test_the_environments_are_those_of_the_policy(checkout: Checkout) -> None:
    checkout.git("rm", "-qr", "overlays/*/lily-*", "apps", "overlays/staging")
    for old, name in (("dev", "lab"), ("prod", "live")):
        checkout.git("mv", f"overlays/{old}", f"overlays/{name}")
    checkout.name_environments("lab", "live")
    checkout.commit("Two environments")

    made = checkout.run("new_model", "wine", "--shape", "batch")

    assert made.code == 0, made.err
    assert "bump_model.py --app wine-batch --env lab --model-uri URI --image IMAGE --push" in made.out
    assert b"s3://mlops-prod/batch/lab/wine/in/" in checkout.read("overlays/lab/wine-batch/batch.yaml")
    assert b"schedule: 0 2 * * *" in checkout.read("overlays/live/wine-batch/batch.yaml")
    assert b"role/ml-live-wine-batch" in checkout.read("overlays/live/wine-batch/batch-role.yaml")
    assert not (checkout.root / "overlays/staging").exists()


def test_the_texts_of_the_problem_are_marked_and_what_has_to_be_written_is_listed(checkout: Checkout) -> None:
    made = checkout.run("new_model", *WINE)

    problem = yaml.safe_load(checkout.read("model-src/models/wine/problem.yaml"))
    assert problem["title"] == "To be written; in the example, the species of a flower"
    assert (problem["experiment"], problem["registered_as"]) == ("wine_experiment", "WineModel")
    assert b"at_least: 0.85      # on rows that were held out" in checkout.read("model-src/models/wine/problem.yaml")
    assert [line for line in made.err.splitlines() if line.startswith("to be written: ")] == [
        "to be written: model-src/models/wine/__init__.py: line 1",
        "to be written: model-src/models/wine/generate_data.py: line 1",
        "to be written: model-src/models/wine/model.py: line 1",
        "to be written: model-src/models/wine/problem.yaml: line 2, 3, 5, 6",
        "to be written: model-src/models/wine/schema.py: line 1",
    ]


def test_a_shape_of_the_teams_own_brings_its_skeleton(checkout: Checkout) -> None:
    shutil.copytree(checkout.root / "base/api", checkout.root / "base/other")
    file = "base/other/skeleton/app/kustomization.yaml"
    checkout.write(file, checkout.read(file).replace(b"base/api", b"base/other"))
    checkout.commit("Add a shape")

    done(checkout, "new_model", "wine", "--shape", "other")

    assert workload(checkout, "overlays/prod/wine-other")["metadata"]["labels"]["model.mlops/model"] == "wine"


def test_a_value_that_the_manifests_do_not_have_is_named(checkout: Checkout) -> None:
    checkout.replace("overlays/prod/shared/model-reader.yaml", "arn:aws:iam::111122223333:", "arn:aws:iam::")
    checkout.commit("No account")

    assert checkout.run("new_model", "wine", "--shape", "batch").errors == [
        "overlays/prod/shared/model-reader.yaml: nothing there looks like `arn:aws:iam::([0-9]{12}):`; the account has"
        " to be put there by hand"
    ]


def test_an_environment_without_hosts_has_no_app_with_one(checkout: Checkout) -> None:
    checkout.replace("overlays/promotion.yaml", "    hosts: [staging.ml.example.com]\n", "")
    checkout.commit("No hosts in staging")

    assert checkout.run("new_model", *WINE).errors == [
        "overlays/promotion.yaml: environments: staging: no hosts; list the domain that its hosts are below"
    ]
    done(checkout, "new_model", "wine", "--shape", "inference-service")


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

    assert {key: found[key] for key in ("model", "kind", "shape", "app", "dry_run")} == {
        "model": "wine", "kind": "classification", "shape": "api", "app": "wine-api", "dry_run": False,
    }  # fmt: skip
    assert found["files"] == found["added"]
    assert "overlays/staging/wine-api/release.yaml" in found["files"]
    assert all((ready.root / path).is_file() for path in found["files"])
    assert found["to_write"][0] == "model-src/models/wine/__init__.py: line 1"


def test_a_dry_run_lists_the_files_and_changes_nothing(ready: Checkout) -> None:
    before = ready.state()

    listed = done(ready, "new_model", *WINE, "--dry-run").splitlines()

    assert ready.state() == before
    assert json.loads(done(ready, "new_model", *WINE, "--json"))["files"] == listed


def test_the_same_again_changes_nothing(ready: Checkout) -> None:
    done(ready, "new_model", *WINE)
    before = ready.state()

    assert new(ready) == FOLDERS
    again = ready.run("new_model", *WINE)

    assert (again.code, ready.state()) == (0, before)
    assert "apps/wine-api: 1 file, there already\n" in again.err
    assert json.loads(done(ready, "new_model", *WINE, "--json"))["added"] == []


# Refused

API = ("--shape", "api")
TAKEN = "there already, and not as this command makes it; take another name"
SHAPES = (
    "not committed; the shapes that have one are api, batch, inference-service, sagemaker, vm,"
    " and CONTRIBUTING.md tells how to write it"
)


REFUSED = [
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
    (("wine", "--shape", "rest"), f"--shape 'rest': base/rest/skeleton: {SHAPES}"),
    (("wine", "--shape", "environment"), f"--shape 'environment': base/environment/skeleton: {SHAPES}"),
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


def test_a_skeleton_with_uncommitted_changes_is_refused(checkout: Checkout) -> None:
    checkout.write("base/api/skeleton/overlay/release.yaml", b"mine\n")

    assert checkout.run("new_model", *WINE).errors == [
        "base/api/skeleton/overlay/release.yaml: uncommitted change; commit it, or put it away with `git stash`"
    ]
    assert new(checkout) == ["M base/api/skeleton/overlay/release.yaml"]


def test_a_target_with_something_in_it_is_refused(ready: Checkout) -> None:
    done(ready, "new_model", *WINE)
    ready.write("model-src/models/wine/schema.py", b"mine\n")
    ready.write("overlays/prod/wine-api/mine.yaml", b"mine\n")

    assert ready.run("new_model", *WINE).errors == [
        f"model-src/models/wine: {TAKEN}",
        f"overlays/prod/wine-api: {TAKEN}",
    ]


def test_wrong_usage_is_exit_2() -> None:
    for args in (
        ["wine"],
        ["wine", "--only", "model", *API],
        ["wine", "--only", "model", "--app", "x"],
        ["wine", *API, "--kind", "other"],
    ):
        with pytest.raises(SystemExit) as stopped:
            run("new_model", *args)
        assert stopped.value.code == 2


# Killed


def test_killed_anywhere_it_leaves_whole_folders_and_the_next_run_completes_it(
    whole_template: Path, tmp_path: Path
) -> None:
    checkout = make_checkout(whole_template, tmp_path)
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

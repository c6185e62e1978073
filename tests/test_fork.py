"""A fork on its first day: its own values, its own model, and everything of the sample's deleted."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from conftest import ROOT, Checkout
from test_init_fork import ARGS

from gitops.releases import hold

SHAPES = ("api", "batch", "inference-service")


@pytest.fixture
def checkout(whole_checkout: Checkout) -> Checkout:
    """With the engine, whose tests run there."""
    return whole_checkout


def done(checkout: Checkout, command: str, *args: str) -> str:
    result = checkout.run(command, *args)
    assert result.code == 0, result.err
    return result.out


def delete_the_sample(checkout: Checkout) -> None:
    """Every model and every app that the template came with."""
    for app in ("lily-api", "lily-batch", "lily-sklearn"):
        for environment in ("prod", "staging", "dev"):
            shutil.rmtree(checkout.root / f"overlays/{environment}/{app}")
        shutil.rmtree(checkout.root / f"apps/{app}")
    for model in ("lily", "diabetes"):
        shutil.rmtree(checkout.root / f"model-src/models/{model}")


def test_a_fork_with_its_own_model_alone_is_valid_and_the_engines_tests_run_in_it(checkout: Checkout) -> None:
    done(checkout, "init_fork", *ARGS)
    for shape in SHAPES:
        done(checkout, "new_model", "wine", "--shape", shape)
    checkout.write("overlays/prod/wine-api/hold.yaml", hold.write("wine-api", "prod", hold.Hold("bad", "me", "today")))
    checkout.commit("Add wine")
    done(checkout, "validate")
    delete_the_sample(checkout)
    checkout.commit("Delete the sample")

    assert done(checkout, "validate").startswith("14 renders with ")

    for environment in (".venv", "model-src/.venv"):
        (checkout.root / environment).symlink_to(ROOT / environment)
    for folder, tests in (
        (".", ("tests/test_layout.py", "tests/test_repository.py")),
        ("model-src", ("tests/test_digest.py", "-k", "not trained")),
    ):
        ran = subprocess.run(
            [".venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
            cwd=checkout.root / folder, env=os.environ | {"MYPY_CACHE_DIR": str(ROOT / "model-src/.mypy_cache")},
            capture_output=True, text=True,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_fork_without_model_and_app_is_valid_and_makes_its_first_ones(checkout: Checkout) -> None:
    delete_the_sample(checkout)
    checkout.commit("Delete the sample")
    assert done(checkout, "validate").startswith("5 renders with ")
    assert "no model with a service of its own" in checkout.run("demo").errors[0]

    for kind, model in (("classification", "wine"), ("regression", "prices")):
        for shape in SHAPES:
            done(checkout, "new_model", model, "--kind", kind, "--shape", shape)

    assert done(checkout, "validate").startswith("23 renders with ")
    checkout.commit("Add wine and prices")
    assert done(checkout, "releases")


def test_an_app_of_the_sample_is_retired_from_the_last_environment_on(checkout: Checkout) -> None:
    done(checkout, "new_model", "wine", "--shape", "api")
    checkout.commit("Add wine", push=True)

    done(checkout, "retire_app", "--app", "lily-api", "--env", "prod", "--reason", "wine-api replaces it")

    checkout.git("merge", "-q", "retire/prod/lily-api")
    assert not (checkout.root / "overlays/prod/lily-api").exists()
    done(checkout, "validate", "--changed-since", "HEAD^")

"""What a fork owns, in this checkout: all of it is judged by its own policy, and no name or number stands here."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import guard
import pytest
from conftest import ROOT, run, type_checked

import check_retrain
from gitops.manifests import kustomize
from gitops.programs import tools
from gitops.repo import layout
from gitops.repo.policy import read_policy

# Of these, validate.py has the schemas.
PINNED = {
    "argo-cd": tools.ARGOCD.version,
    "cert-manager": tools.CHARTS.version(tools.CHARTS.modules[0]),
    "kserve": tools.KSERVE.version,
    "kserve-crds": tools.KSERVE.version,
    "kserve-runtimes": tools.KSERVE.version,
}


@pytest.fixture(autouse=True)
def _this_checkout() -> Iterator[None]:
    with guard.lifted():
        yield


def test_every_manifest_is_valid() -> None:
    done = run("validate", "--root", ROOT)

    assert done.code == 0, done.err


def test_plain_kustomize_renders_everything_without_a_warning() -> None:
    for folder in layout.folders(ROOT, read_policy(ROOT)):
        done = subprocess.run(
            [tools.KUSTOMIZE.path, "build", folder], cwd=ROOT, env={}, capture_output=True, text=True
        )  # fmt: skip

        assert (done.returncode, done.stderr) == (0, ""), folder


def test_an_add_on_has_the_version_that_is_pinned_for_checks() -> None:
    items = kustomize.objects(kustomize.build(ROOT, layout.PLATFORM))
    addons = {item["metadata"]["name"]: item["spec"]["source"] for item in items if item["kind"] == "Application"}

    found = {name: source["targetRevision"] for name, source in addons.items() if name in PINNED}
    assert found == {name: PINNED[name] for name in found}


def test_every_model_says_when_it_is_to_be_trained_again() -> None:
    for problem in (ROOT / "model-src/models").glob("*/problem.yaml"):
        file = problem.with_name("retraining.yaml")

        assert check_retrain.read_policy(file.read_bytes(), str(file))


@pytest.mark.parametrize("command", ["ruff check models", "ruff format --check models"])
def test_the_code_of_the_models_has_no_findings(command: str) -> None:
    program, *args = command.split()
    done = subprocess.run(
        [ROOT / "model-src/.venv/bin" / program, *args],
        cwd=ROOT / "model-src", env=guard.unguarded(), capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def test_the_types_of_model_src_are_right() -> None:
    """All of it: where a model calls the engine, and the other way round."""
    done = type_checked(ROOT)

    assert done.returncode == 0, done.stdout

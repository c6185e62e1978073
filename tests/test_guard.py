"""That no test of the engine looks at what a fork owns, by itself or by a program that it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, SAMPLE, copy_checkout, model_files

import validate
from gitops.programs import tools
from gitops.repo import layout

OWNED = ROOT / "overlays"
LOOKS: dict[str, Callable[[], object]] = {
    "reads": lambda: (OWNED / "promotion.yaml").read_bytes(),
    "looks for": lambda: list(ROOT.glob("apps/*")),
    "lists": lambda: os.listdir(OWNED),  # noqa: PTH208
    "names in bytes": lambda: os.open(os.fsencode(OWNED), os.O_RDONLY),
    "reaches by a way round": lambda: (ROOT / "scripts/../base/new.yaml").read_bytes(),
    "copies": lambda: shutil.copytree(ROOT / "argocd", "elsewhere"),
    "validates": lambda: validate.main([]),
    "starts a program on": lambda: subprocess.run([tools.KUSTOMIZE.path, "build", "argocd"], cwd=ROOT),
    "starts a program in": lambda: subprocess.run(["ls"], cwd=OWNED),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_test_that_looks_at_what_a_fork_owns_fails(look: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="a fork owns it, and a test of the engine looks at it"):
        look()


def test_a_command_that_looks_at_what_a_fork_owns_fails() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/validate.py"], capture_output=True, text=True)

    assert done.returncode == 1
    assert f"{ROOT / layout.DEPLOYED[0]}: a fork owns it" in done.stderr


def test_what_the_engine_ships_in_there_may_be_looked_at() -> None:
    for path in layout.ENGINE_IN_FORK:
        assert not layout.owned_by_fork(path)
        assert (ROOT / path).read_bytes()


def test_a_copy_has_the_engines_files_of_this_checkout_and_the_samples_others(tmp_path: Path) -> None:
    copy_checkout(tmp_path)

    found = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    sample = {file.relative_to(SAMPLE).as_posix() for file in SAMPLE.rglob("*/*") if file.is_file()} | {*model_files()}
    assert {path for path in found if layout.owned_by_fork(path)} == sample
    assert not [path for path in sample if not layout.owned_by_fork(path)]
    for path in found - sample:
        assert (tmp_path / path).read_bytes() == (ROOT / path).read_bytes(), path

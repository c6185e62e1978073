from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run

import setup
from gitops import cli
from gitops.programs import model_python
from gitops.programs.model_python import EVIDENTLY, MLFLOW, Need

from contract.errors import Refused


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "model-src").mkdir()
    return tmp_path / "model-src"


@pytest.mark.parametrize(
    ("need", "line"),
    [
        (MLFLOW, "model-src/.venv: no MLflow; run `python scripts/setup.py serve`"),
        (EVIDENTLY, "model-src/.venv-monitor and model-src/.venv: no Evidently; run `python scripts/setup.py monitor`"),
    ],
    ids=lambda value: value.module if isinstance(value, Need) else None,
)
def test_an_environment_that_is_missing_broken_or_of_other_packages_names_what_makes_it(
    need: Need, line: str, source: Path
) -> None:
    for target in (None, source / "nowhere", ROOT / ".venv"):
        if target:
            (source / ".venv").unlink(missing_ok=True)
            (source / ".venv").symlink_to(target)
        with pytest.raises(Refused) as refused:
            model_python.find(source.parent, need)

        assert refused.value.lines == (line,)


def test_the_environment_of_its_own_is_taken_first(source: Path) -> None:
    for name in (".venv", ".venv-monitor"):
        (source / name).symlink_to(ROOT / "model-src/.venv")

    assert model_python.find(source.parent, EVIDENTLY).path == source / ".venv-monitor/bin/python"


@pytest.mark.parametrize("need", [MLFLOW, EVIDENTLY], ids=lambda need: need.module)
def test_the_command_that_is_named_installs_what_is_needed(need: Need) -> None:
    made = [each for each in setup.PROFILES[need.profile].environments if each.folder.parent == ROOT / "model-src"]

    assert [each.folder.name for each in made] == [need.environments[0]]
    assert re.search(rf"^{need.module}==", made[0].lock.read_text(), re.M)


def test_a_module_runs_in_the_folder_of_the_model_code(source: Path) -> None:
    (source / "told.py").write_text("import os, sys; print(os.getcwd(), os.environ['WORD'], *sys.argv[1:], input())")
    python = model_python.ModelPython(source, Path(sys.executable))

    with python.running("told", "a b", stdin=subprocess.PIPE, env={"WORD": "one"}) as process:
        out, err = process.communicate("two")

    assert (process.returncode, out, err) == (0, f"{source} one a b two\n", "")


@pytest.mark.parametrize("command", ["serve_model", "sync_registry"])
def test_a_command_that_needs_it_refuses_in_one_line(
    command: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "ROOT", source.parent)

    done = run(command, "--root", source.parent)

    assert (done.code, done.errors) == (1, ["model-src/.venv: no MLflow; run `python scripts/setup.py serve`"])

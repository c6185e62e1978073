"""The linters and type checkers, as a person would call them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, git

from gitops.repo import layout

BIN = ROOT / ".venv/bin"
# The fork's own, of which tests/test_repository.py asks the same.
NO_MODELS = "--extend-exclude=model-src/models"


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        (ROOT, [BIN / "ruff", "check", ".", NO_MODELS]),
        (ROOT, [BIN / "ruff", "format", "--check", ".", NO_MODELS]),
        (ROOT, [BIN / "mypy"]),
        (ROOT, [BIN / "actionlint", "-shellcheck=", "-pyflakes="]),
        (ROOT, [BIN / "zizmor", "--offline", "--persona=auditor", "--strict-collection", "."]),
    ],
    ids=lambda value: f"{value[0].name}-{value[1]}" if isinstance(value, list) and len(value) > 1 else None,
)
def test_there_are_no_findings(folder: Path, command: list[str | Path]) -> None:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    assert done.returncode == 0, done.stdout


def test_no_six_lines_stand_twice() -> None:
    listed = git(ROOT, "ls-files", "scripts/*.py", "model-src/*.py").split()
    files = [file for file in listed if "/tests/" not in file and not layout.owned_by_fork(file)]
    command = [BIN / "symilar", "--duplicates=6", "--ignore-imports", "--ignore-docstrings", "--ignore-comments"]

    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert " duplicates=0 " in done.stdout, done.stdout

"""Who may import what: the rooms of gitops, the commands beside each other, and the one module of each outside part."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPTS = ROOT / "scripts"
MODEL = ROOT / "model-src"
COMMANDS = sorted(SCRIPTS.glob("*.py"))
MODULES = sorted(SCRIPTS.rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


@pytest.mark.parametrize(("project", "packages"), [(ROOT, SCRIPTS), (MODEL, MODEL)], ids=["scripts", "model-src"])
def test_a_room_imports_only_the_rooms_below_it(project: Path, packages: Path) -> None:
    done = subprocess.run(
        [ROOT / ".venv/bin/lint-imports", "--no-cache"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(packages)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=lambda file: file.stem)
def test_a_command_imports_no_other(command: Path) -> None:
    assert {file.stem for file in COMMANDS} & {name.partition(".")[0] for name in imported(command)} == set()


@pytest.mark.parametrize(
    ("package", "places"),
    [
        ("boto3", ["gitops/models/s3.py"]),
        # What it knows of the services, without a call of any, and the errors of calls.
        ("botocore", ["gitops/manifests/ack.py", "gitops/models/s3.py"]),
        ("ruamel", ["gitops/manifests/yamledit.py"]),
        ("kubernetes", ["gitops/cluster/kube.py"]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_package_is_imported_where_it_belongs(package: str, places: list[str]) -> None:
    found = [file for file in MODULES if package in {name.partition(".")[0] for name in imported(file)}]

    assert [file.relative_to(SCRIPTS).as_posix() for file in found] == places


def test_git_is_run_in_one_place() -> None:
    """The demo shows what a person would type, and starts it as that."""
    places = [
        file.relative_to(SCRIPTS).as_posix()
        for file in MODULES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) == "'git'"
    ]

    assert places == ["gitops/repo/git.py"]

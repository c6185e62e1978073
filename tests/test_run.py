from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Checkout

import run
from gitops import cli


def front_door(*args: str | Path, python: tuple[str, ...] = (sys.executable,)) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*python, ROOT / "scripts/run.py", *args], capture_output=True, text=True)


def test_every_command_stands_in_one_group() -> None:
    listed = [name for names in run.GROUPS.values() for name in names]

    assert sorted([*listed, "run"]) == sorted(file.stem for file in (ROOT / "scripts").glob("*.py"))


def test_the_list_is_that_of_the_readme_and_needs_no_package() -> None:
    done = front_door(python=(sys.executable, "-S"))

    assert (done.returncode, done.stderr) == (0, "")
    assert f"```\n{done.stdout}```\n" in (ROOT / "README.md").read_text()


def test_the_list_says_of_each_command_the_first_line_of_its_help() -> None:
    listed = json.loads(front_door("--json").stdout)

    for each in listed:
        assert each["group"] in run.GROUPS
        assert each["does"].endswith("."), each
        text = (ROOT / "scripts" / f"{each['command']}.py").read_text()
        assert text.startswith(f'"""{each["does"]}\n')


@pytest.mark.parametrize("command", ["retire_app", "retire_app.py", "retire-app", "retire-app.py"])
def test_a_command_gets_its_arguments_and_returns_its_exit_code(command: str, checkout: Checkout) -> None:
    args = ("--root", checkout.root, "--app", "wine", "--env", "dev", "--reason", "two words")

    done = front_door(command, *args)

    direct = subprocess.run([sys.executable, ROOT / "scripts/retire_app.py", *args], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, direct.stdout, direct.stderr)
    assert "wine" in done.stderr


def test_options_behind_a_command_are_its_own() -> None:
    assert front_door("render", "--help").stdout.startswith("usage: render.py ")
    assert front_door("render", "--no-such-option").returncode == 2


def test_a_command_runs_where_no_environment_is() -> None:
    done = front_door("setup", "--help", python=(sys.executable, "-S"))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: setup.py ")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["promote"], "error: promote: no such command; did you mean promote_model? `python scripts/run.py` lists all"),
        (["Bump"], "error: Bump: no such command; did you mean bump_model? `python scripts/run.py` lists all"),
        (["xyz"], "error: xyz: no such command; see `python scripts/run.py`"),
        (["run"], "error: run: no such command; see `python scripts/run.py`"),
        (["../tests/corpus"], "error: ../tests/corpus: no such command; see `python scripts/run.py`"),
        (["--json", "status"], "run.py: error: --json before a command is for the list; write it behind status"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_the_remedy(args: list[str], line: str) -> None:
    done = front_door(*args)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == line


def test_make_names_the_front_door() -> None:
    assert "python scripts/run.py" in subprocess.run(["make"], cwd=cli.ROOT, capture_output=True, text=True).stdout

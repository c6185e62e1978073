"""What holds for every command: help, the missing environment, output that nobody reads to its end."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Checkout, command_of

from gitops import cli

from contract.errors import Refused

COMMANDS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
# They make environments, or start another command.
WITHOUT_PACKAGES = ("lock", "run", "setup")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_of(command).main(["--help"])

    assert ended.value.code == 0
    assert any(f"scripts/{command}.py" in line or "  make " in line for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interpreter_without_the_packages_is_told_so_in_one_line(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", ROOT / "scripts" / f"{command}.py", "--help"], capture_output=True, text=True
    )

    if command in WITHOUT_PACKAGES:
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: {sys.executable} lacks boto3, cronsim, jsonschema, model_signing, pydantic, ruamel, tabulate, yaml:"
        " run `make setup`, then `source .venv/bin/activate` or call the command with .venv/bin/python\n"
    )


# Of all that is installed here, what `make init` installs, and nothing else.
WITH_THE_COMMANDS_PACKAGES = """
import contextlib, importlib, importlib.metadata, io, pathlib, re, sys
named = re.findall("^([a-z0-9-]+)==", pathlib.Path("../requirements.txt").read_text(), re.M)
for package, owners in importlib.metadata.packages_distributions().items():
    if not {re.sub("[-_.]+", "-", owner.lower()) for owner in owners} & set(named):
        sys.modules[package] = None
"""


def with_the_commands_packages(code: str, *args: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITH_THE_COMMANDS_PACKAGES + code, *args],
        cwd=ROOT / "scripts",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_every_command_shows_its_help_after_init() -> None:
    code = """
for command in sys.argv[1:]:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module(command).main(["--help"])
# They take a quarter of a second to import, and most commands ask no service of AWS.
print(*{"boto3", "botocore.loaders", "botocore.session"} & sys.modules.keys(), end="", file=sys.stderr)
"""

    assert with_the_commands_packages(code, *COMMANDS) == ""


def test_what_asks_a_cluster_tells_what_it_lacks(checkout: Checkout) -> None:
    code = """
for command in ("status", "bootstrap"):
    assert importlib.import_module(command).main(["--root", sys.argv[1]]) == 1
assert importlib.import_module("local_cluster").main(["status"]) == 1
"""
    line = "error: the Kubernetes client is not installed; run `python scripts/setup.py status`\n"
    last = "error: psutil is not installed; run `python scripts/setup.py cluster`\n"

    assert with_the_commands_packages(code, checkout.root) == 2 * line + last


def test_output_that_nobody_reads_to_its_end_is_no_traceback(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # so that the last of it is written at the very end
    with subprocess.Popen(
        [sys.executable, ROOT / "scripts/releases.py", "--root", checkout.root, "--json", "--env", "prod"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()

    assert process.returncode == 1
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


@pytest.mark.parametrize(
    ("raised", "code", "lines"),
    [
        (Refused("a: one", "b: two"), 1, ["error: a: one", "error: b: two"]),
        (FileNotFoundError(2, "No such file or directory", "a/b"), 1, ["error: a/b: No such file or directory"]),
        (KeyboardInterrupt(), 130, ["error: interrupted; run the same command again to complete it"]),
    ],
)
def test_what_ends_a_command_is_lines_and_an_exit_code(
    raised: BaseException, code: int, lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: argparse.Namespace) -> None:
        raise raised

    assert cli.run(command, argparse.Namespace(root=tmp_path)) == code
    assert capsys.readouterr().err.splitlines() == lines

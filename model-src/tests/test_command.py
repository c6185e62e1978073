from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import SOURCE

from contract import command
from contract.errors import Refused
from lifecycle import tracking


def refuse() -> None:
    raise Refused("a", "b")


def fail() -> None:
    raise FileNotFoundError(2, "No such file or directory", "x.csv")


def fail_without_a_name() -> None:
    raise OSError("the device is gone")


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("work", "code", "lines"),
    [
        (lambda: None, 0, []),
        (lambda: 75, 75, []),
        (refuse, 1, ["error: a", "error: b"]),
        (fail, 1, ["error: x.csv: No such file or directory"]),
        (fail_without_a_name, 1, ["error: the device is gone"]),
        (interrupt, 130, ["error: interrupted; all is as it was"]),
    ],
)
def test_every_end_has_its_code_and_its_lines(
    work: Callable[[], int | None], code: int, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(work, "interrupted; all is as it was") == code
    assert capsys.readouterr().err.splitlines() == lines


def test_an_interruption_that_the_caller_reports_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(interrupt, "") == 130
    assert capsys.readouterr().err == ""


READER_THAT_LEFT = """
from contract import command
import sys
sys.exit(command.run(lambda: print("x" * 1_000_000), ""))
"""


@pytest.mark.parametrize("option", ["-b", "-u"], ids=["buffered", "unbuffered"])
def test_a_reader_that_needs_no_more_is_no_error_to_name(option: str) -> None:
    """As `head`, whose end the rest of a long output meets."""
    command_line = [sys.executable, option, "-c", READER_THAT_LEFT]
    with subprocess.Popen(command_line, cwd=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_password_of_the_tracking_server_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(Refused) as refused, tracking.experiment("any"):
        pass

    (line,) = refused.value.lines
    assert line.startswith("MLflow at http://127.0.0.1:9 (MLFLOW_TRACKING_URI): ")
    assert "secret" not in line

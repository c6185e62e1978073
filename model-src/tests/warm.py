"""`python` with the libraries imported already, for what needs a process and is not about its start, most of which
would be imports. Each is forked from one server, the standard library's, that has nothing of ours: what runs is the
code in its own folder.

What a library reads when it is imported, and the hashes of strings, are those of the server."""

from __future__ import annotations

import functools
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

LIBRARIES = (
    "boto3", "dvc.cli.parser", "dvc.repo", "fastapi", "joblib", "matplotlib.pyplot", "mlflow.sklearn", "model_signing",
    "onnxruntime", "optuna", "pandera.pandas", "prometheus_client", "skl2onnx", "sklearn.datasets", "sklearn.ensemble",
    "skops.io", "uvicorn",
)  # fmt: skip
OURS = Path(__file__).parents[1]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([*LIBRARIES])


@functools.cache
def _start_server() -> None:
    # Here and not above: a process that is forked imports this module, and must have nothing of ours.
    from lifecycle import stages

    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "ORT_DISABLE_TELEMETRY": "1"}
    with mock.patch.dict(os.environ, {"PYTHONHASHSEED": "1", **quiet}):
        stages.same_arithmetic()
        forkserver.ensure_running()


class Process:
    """As subprocess.Popen of `python ARGUMENTS` in `folder`, in a session of its own. The arguments begin with
    `-m MODULE` or `-c CODE`."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, variables: Mapping[str, str], stdout: Path, stderr: Path
    ) -> None:
        _start_server()
        self.stderr = stderr
        given = ([*arguments], folder, {**variables}, os.fspath(stdout), os.fspath(stderr))
        # A daemon is ended with the tests; they would wait for any other one.
        self._process = _FORKS.Process(target=_python, args=given, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("python", seconds or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(arguments: Sequence[str], folder: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as temporary:
        out, err = Path(temporary) / "out", Path(temporary) / "err"
        code = Process(arguments, folder, variables, out, err).wait()
        return subprocess.CompletedProcess([*arguments], code, out.read_text(), err.read_text())


def _python(arguments: list[str], folder: Path, variables: dict[str, str], stdout: str, stderr: str) -> None:
    for number, file in enumerate((stdout, stderr), 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:] = [str(folder), *(path for path in sys.path if path and OURS not in (Path(path), Path(path).parent))]
    # Chosen anew, as in a new process.
    tempfile.tempdir = None
    option, what, *sys.argv[1:] = arguments
    if option == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv[0] = "-c"
        exec(what, {"__name__": "__main__"})

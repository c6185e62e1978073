"""The Python of model-src/, which has packages that the commands do not have."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from contract import waiting
from contract.errors import Refused

FOLDER = "model-src"
_REMEDY = "look what it waits for, then run the command again"


@dataclass(frozen=True)
class Need:
    """What a part of model-src/ cannot do without: the module, the environments that can have it, the best one first,
    and the profile of setup.py that makes one."""

    name: str
    module: str
    environments: tuple[str, ...]
    profile: str


MLFLOW = Need("MLflow", "mlflow", (".venv",), "serve")
EVIDENTLY = Need("Evidently", "evidently", (".venv-monitor", ".venv"), "monitor")


@dataclass(frozen=True)
class ModelPython:
    """An interpreter, and the model-src/ that it runs."""

    source: Path
    path: Path

    @contextlib.contextmanager
    def running(
        self, module: str, *args: str | Path, stdin: int = subprocess.DEVNULL, env: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """`python -m module` in model-src/, its output and its errors in pipes; `env` is added to ours. Raises TooSlow
        when it has not ended with the block in the time of work."""
        what = f"`python -m {module}` in {self.source}"
        with (
            subprocess.Popen(
                [self.path, "-m", module, *args], cwd=self.source, env=os.environ | dict(env or {}), text=True,
                stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            ) as process,
            waiting.Limit(what, _REMEDY, waiting.WORK, lambda: waiting.end(process)),
        ):  # fmt: skip
            yield process
            process.wait()


def find(root: Path, need: Need) -> ModelPython:
    """The interpreter of a checkout's model-src/ that has what is needed. Raises Refused with the set-up command."""
    for environment in need.environments:
        python = root / FOLDER / environment / "bin/python"
        if python.exists() and has(python, need.module):
            return ModelPython(root / FOLDER, python)
    places = " and ".join(f"{FOLDER}/{environment}" for environment in need.environments)
    raise Refused(f"{places}: no {need.name}; run `python scripts/setup.py {need.profile}`")


def has(python: Path, module: str) -> bool:
    """Whether an interpreter has a module of the standard library or installed."""
    # Importing one can take seconds, looking for it does not.
    look = "import importlib.util, sys; sys.exit(3 if importlib.util.find_spec(sys.argv[1]) else 0)"
    command: list[str | Path] = [python, "-I", "-c", look, module]
    return waiting.run(command, f"{python}", _REMEDY, capture_output=True).returncode == 3

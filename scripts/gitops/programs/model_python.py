"""The Python of model-src/, which has packages that the commands do not have."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contract.errors import Refused

FOLDER = "model-src"


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

    def start(
        self, module: str, *args: str | Path, stdin: int = subprocess.DEVNULL, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Starts `python -m module` in model-src/, its output and its errors in pipes; `env` is added to ours."""
        return subprocess.Popen(
            [self.path, "-m", module, *args], cwd=self.source, env=os.environ | dict(env or {}), text=True,
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


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
    return subprocess.run([python, "-I", "-c", look, module], capture_output=True).returncode == 3

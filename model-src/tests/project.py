"""The project that the tests are about: the packages of model-src, and two models of its own, as new ones begin: `lily`
is a classification, `sugar` a regression. What a fork has in models/ is no part of it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import models
import skeletons

SOURCE = Path(__file__).parents[1]
PROJECT = Path(tempfile.mkdtemp(prefix="model-src-"))
"""A folder like model-src/. Tests must not change it."""
PACKAGES = ("contract", "lifecycle", "packing", "serving", "storage")
FILES = ("requirements-train.txt", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "models/__init__.py")
KINDS = {"lily": "classification", "sugar": "regression"}
# The least work that still is a search of all families and takes a forest for lily, which most tests ask.
SMALL = {
    "trials: 12": "trials: 4",
    "folds: 5": "folds: 3",
    "estimators: 100": "estimators: 20",
    "resamples: 1000": "resamples: 100",
}


def make(root: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(SOURCE / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        write(root / file, (SOURCE / file).read_bytes())
    for name, kind in KINDS.items():
        for path, content in skeletons.render(kind, name).items():
            write(root / "models" / name / path, small(content) if path == "params.yaml" else content)


def write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def small(params: bytes) -> bytes:
    for old, new in SMALL.items():
        assert old.encode() in params
        params = params.replace(old.encode(), new.encode())
    return params


atexit.register(shutil.rmtree, PROJECT)
make(PROJECT)
# As the lifecycle finds them where it runs in the project.
models.__path__ = [str(PROJECT / "models")]

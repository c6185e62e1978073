"""The project that the tests are about: the packages of model-src with two models of its own, `lily`, a
classification, and `sugar`, a regression. What a fork has in models/ is no part of it."""

from __future__ import annotations

import atexit
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import models

SOURCE = Path(__file__).parents[1]
PACKAGES = ("contract", "lifecycle", "packing", "serving", "storage")
FILES = ("requirements-train.txt", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "models/__init__.py")
KINDS = {"lily": "classification", "sugar": "regression"}
# The least work that still is a search among all families, and an interval.
SMALL = {
    "trials: 12": "trials: 4",
    "folds: 5": "folds: 3",
    "estimators: 100": "estimators: 20",
    "resamples: 1000": "resamples: 100",
}


def small(params: str) -> str:
    for old, new in SMALL.items():
        assert old in params
        params = params.replace(old, new)
    return params


def rendered(kind: str, name: str) -> Mapping[str, bytes]:
    """The files of a new model, by their paths in its folder."""
    like = {"classification": "iris", "regression": "diabetes"}[kind]
    folder, found = SOURCE / "models" / like, {}
    for file in folder.rglob("*"):
        path = file.relative_to(folder).as_posix()
        if file.is_file() and not re.match(r"build/|plots/|metrics|dvc\.lock|.*(__pycache__|raw\.csv$)", path):
            text = re.sub(rf"(?<!load_){like}", name, file.read_text())
            text = re.sub(rf"{name}(_rf)?_experiment", f"{name}_experiment", text)
            found[path] = re.sub(r"(?<=registered_as: )\w+", f"{name.capitalize()}Model", text).encode()
    return found


def make(root: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(SOURCE / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (
        "requirements-train.txt",
        ".gitignore",
        ".dvcignore",
        ".dvc/config",
        ".dvc/.gitignore",
        "models/__init__.py",
    ):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / file, root / file)
    for name, kind in KINDS.items():
        for path, content in rendered(kind, name).items():
            file = root / "models" / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(small(content.decode()).encode() if path == "params.yaml" else content)


PROJECT = Path(tempfile.mkdtemp(prefix="project-"))
atexit.register(shutil.rmtree, PROJECT)
make(PROJECT)
# The tests import them by name, as the lifecycle does.
models.__path__ = [str(PROJECT / "models")]
sys.dont_write_bytecode = True

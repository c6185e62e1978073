"""The models that are in models/, whichever they are: what can be said of them without training them again."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import make_repository, succeeds
from project import SOURCE

import models
from lifecycle import settings, stages
from lifecycle.model import Files, load, names

MODELS = sorted(file.parent.name for file in SOURCE.glob("models/*/problem.yaml"))


@pytest.fixture
def _in_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may have the name of one of the tests' own."""
    monkeypatch.chdir(SOURCE)
    monkeypatch.setattr(models, "__path__", [str(SOURCE / "models")])
    for name in [name for name in sys.modules if name.startswith("models.")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("_in_source")
def test_every_folder_of_models_is_one() -> None:
    folders = {file.parent.name for file in Path("models").glob("*/__init__.py")}

    assert names() == MODELS == sorted(folders)


@pytest.mark.usefixtures("_in_source")
@pytest.mark.parametrize("name", MODELS)
def test_a_model_loads_with_its_files(name: str) -> None:
    files, found = Files(name), load(name)
    params, problem = settings.read(files.params, settings.Params), settings.read(files.problem, settings.Problem)

    assert found.name == name
    assert list(params.families) == list(found.families)
    assert problem.metric.name in settings.METRICS[found.kind]
    for file in (files.schema, files.accepted, files.pipeline):
        assert file.is_file()
    if files.metrics.exists():
        assert problem.metric.holds(json.loads(files.metrics.read_text())[problem.metric.name]["value"])


@pytest.mark.usefixtures("_in_source")
@pytest.mark.parametrize("name", MODELS)
def test_a_pipeline_runs_stages_that_exist(name: str) -> None:
    commands = [stage["cmd"] for stage in yaml.safe_load(Files(name).pipeline.read_text())["stages"].values()]

    run = [found[1] for line in commands if (found := re.fullmatch(rf"python -m lifecycle (\w+) {name}", line))]
    assert run == list(stages.STAGES)
    for line in commands:
        if own := re.match(r"python -m (models\.\S+)", line):
            assert Path(f"{own[1].replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("name", MODELS)
def test_a_committed_lock_is_that_of_the_committed_code(name: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """What stages make is not here, and no matter; everything that they are made from has to be what it was."""
    if not (SOURCE / "models" / name / "dvc.lock").exists():
        return
    repository = make_repository(tmp_path / "repository", environment)
    ignored = shutil.ignore_patterns("__pycache__", "build", "raw.csv")
    shutil.copytree(SOURCE / "models" / name, repository.source / "models" / name, ignore=ignored, dirs_exist_ok=True)

    said = json.loads(succeeds(repository.run("dvc", "status", "--json", f"models/{name}/dvc.yaml")))

    assert altered(said) == [], f"`dvc repro models/{name}/dvc.yaml`, and commit its lock"


def altered(status: dict[str, list[Any]]) -> list[tuple[str, Any, Any]]:
    """Stage, what, and how, of everything that differs from the lock and is there."""
    return [
        (stage, what, how)
        for stage, parts in status.items()
        for part in parts
        for paths in (part.values() if isinstance(part, dict) else [{part: ""}])
        for what, how in paths.items()
        if how not in ("deleted", "not in cache")
    ]

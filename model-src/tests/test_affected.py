from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Repository

from packing import affected

Change = Callable[..., list[str]]


@pytest.fixture
def changed(repository: Repository) -> Change:
    """The models that a commit with these files concerns, and those taken away that are None."""
    for name in ("lily", "oak", "wine", "wine_red"):
        write(repository, f"model-src/models/{name}/problem.yaml", f"# Of {name}.\n")
    repository.commit("Models")

    def change(**files: str | None) -> list[str]:
        before = repository.git("rev-parse", "HEAD")
        for path, text in files.items():
            write(repository, path, text)
        repository.commit("A change")
        return affected.affected(repository.source, before)

    return change


def write(repository: Repository, path: str, text: str | None) -> None:
    file = repository.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        file.unlink()
    else:
        file.write_text(text)


ALL = ["lily", "oak", "wine", "wine_red"]


def known(repository: Repository) -> list[str]:
    return affected.models(repository.source)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("model-src/models/oak/model.py", ["oak"]),
        ("model-src/models/oak/data/raw.csv.dvc", ["oak"]),
        ("model-src/models/oak/README.md", ["oak"]),
        ("model-src/models/wine/dvc.lock", ["wine"]),
        ("model-src/tests/test_new.py", []),
        ("model-src/extras/pipelines/new.py", []),
        ("model-src/README.md", []),
        ("overlays/dev/wine-api/release.yaml", []),
        ("scripts/bump_model.py", []),
        ("notes/model-src/contract/uri.py", []),
        *((path, ALL) for path in (
            "model-src/contract/new.py", "model-src/lifecycle/new.py", "model-src/packing/new.py",
            "model-src/serving/new.py", "model-src/storage/new.py", "model-src/monitoring/new.py",
            "model-src/requirements-train.txt", "model-src/pyproject.toml", "model-src/.dvc/config",
            "model-src/models/__init__.py", "model-src/models/new.py", "model-src/nobody/knows.it",
            "model-src/ä b\nc", ".github/workflows/mlops-pipeline.yml",
        )),
    ],
)  # fmt: skip
def test_a_change_concerns_the_models_that_may_be_made_of_it(
    repository: Repository, changed: Change, path: str, expected: list[str]
) -> None:
    found = changed(**{path: "new\n"})

    assert found == (known(repository) if expected == ALL else expected)


def test_a_model_that_names_another_is_trained_with_it_and_so_on(changed: Change) -> None:
    own = "model-src/models/{}/model.py"
    changed(**{own.format("oak"): "from models.wine import model\n", own.format("lily"): "deps: [../oak/data.csv]\n"})

    assert changed(**{own.format("wine"): "new\n"}) == ["lily", "oak", "wine"]
    assert changed(**{own.format("oak"): "from models import wine\n"}) == ["lily", "oak"]
    assert changed(**{own.format("wine_red"): "new\n"}) == ["wine_red"]
    assert changed(**{"model-src/models/wine/problem.yaml": None, own.format("wine"): None}) == ["lily", "oak"]


def test_a_commit_that_is_not_here_tells_nothing(repository: Repository, changed: Change) -> None:
    changed(**{"model-src/models/oak/model.py": "new\n"})

    for since in ("", "0" * 40, "f" * 40, "none", "--all"):
        assert affected.affected(repository.source, since) == known(repository)
    assert affected.affected(repository.source, "HEAD") == []


def test_another_history_is_compared_by_what_it_has(repository: Repository, changed: Change) -> None:
    before = repository.git("rev-parse", "HEAD")
    repository.git("checkout", "-q", "--orphan", "anew")
    repository.commit("The same")
    changed(**{"model-src/models/oak/model.py": "new\n"})

    assert affected.affected(repository.source, before) == ["oak"]


@pytest.mark.parametrize("number", [0, 1, 3, 256, 257, 1000])
def test_every_model_is_in_one_group_and_no_group_is_much_larger(number: int) -> None:
    names = [f"m{at:04d}" for at in range(number)]

    found = [group.split(" ") for group in affected.groups(names, 256)]

    assert len(found) == min(number, 256)
    assert sorted(name for group in found for name in group) == names
    assert not found or max(map(len, found)) - min(map(len, found)) <= 1


def call(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    # Jobs call it before anything is installed.
    return subprocess.run(
        [sys.executable, "-S", "-m", "packing.affected", *args], cwd=folder, capture_output=True, text=True
    )


def test_the_command_prints_groups_and_refuses_what_it_does_not_know(repository: Repository, changed: Change) -> None:
    del changed
    names = known(repository)

    assert json.loads(call(repository.source).stdout) == names
    assert json.loads(call(repository.source, "--most", "1").stdout) == [" ".join(names)]
    assert json.loads(call(repository.source, "--models", "wine oak wine").stdout) == ["oak", "wine"]
    assert json.loads(call(repository.source, "--since", "HEAD").stdout) == []
    done = call(repository.source, "--models", "oak elm")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: --models elm: no such model; there is {', '.join(names)}\n"
    assert call(repository.source, "--most", "0").returncode == 2
    (repository.source / "models/Two words").mkdir()
    (repository.source / "models/Two words/problem.yaml").touch()
    assert call(repository.source).stderr.startswith("error: models/Two words: a name has lower-case letters")

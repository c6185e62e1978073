"""Two hundred apps as teams have them, and none of them is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import valid
from conftest import run


@pytest.fixture(scope="module")
def root(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("valid")
    valid.copy(manifests, root)
    return root


def test_nothing_that_is_right_is_refused(root: Path) -> None:
    done = run("validate", "--root", root)

    names = {app.name: " with ".join(part.title for part in app.parts) for app in valid.APPS}
    told = [next((line + f" ({names[name]})" for name in names if f"/{name}" in line), line) for line in done.errors]
    assert (told, done.code) == ([], 0)


def test_there_are_two_hundred_and_every_file_is_one_of_them() -> None:
    assert len(valid.APPS) == 200
    used = {part.name for app in valid.APPS for part in app.parts}
    assert used == {file.stem for file in valid.FOLDER.glob("*.yaml")}

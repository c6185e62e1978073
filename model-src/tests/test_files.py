from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contract.errors import Refused
from packing import pack
from storage.files import staged_folder, write_atomically


def test_a_staged_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()

    with staged_folder(target) as folder:
        (folder / "new").touch()

        assert (target / "old").exists()

    assert [file.name for file in target.iterdir()] == ["new"]
    assert [file.name for file in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_an_interrupted_one_leaves_the_old_one_alone(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()

    with pytest.raises(failure), staged_folder(target) as folder:
        (folder / "new").touch()
        raise failure

    assert [file.name for file in target.iterdir()] == ["old"]
    assert [file.name for file in tmp_path.iterdir()] == ["target"]


def test_the_old_one_comes_back_when_the_new_one_cannot_be_put_there(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()

    with pytest.raises(FileNotFoundError), staged_folder(target) as folder:
        folder.rmdir()

    assert [file.name for file in target.iterdir()] == ["old"]


def test_a_file_that_cannot_be_replaced_leaves_no_sibling(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()

    with pytest.raises(OSError):
        write_atomically(tmp_path / "file", b"")

    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_an_empty_folder_and_a_version_may_be_replaced(tmp_path: Path, version: Path) -> None:
    (version / "onnx/model.onnx.sig").touch()
    (tmp_path / "empty/onnx").mkdir(parents=True)

    pack.refuse_foreign(tmp_path / "absent")
    pack.refuse_foreign(tmp_path / "empty")
    pack.refuse_foreign(version)


def test_a_file_of_somebody_else_is_not_destroyed(tmp_path: Path, version: Path) -> None:
    (version / "onnx/notes.txt").touch()

    with pytest.raises(Refused, match=r"version/onnx/notes.txt: not part of the model version there; move it away"):
        pack.refuse_foreign(version)

    shutil.rmtree(version)
    (version / "thesis").mkdir(parents=True)
    (version / "thesis/chapter").touch()

    with pytest.raises(Refused, match="not empty, and no model version"):
        pack.refuse_foreign(version)
    with pytest.raises(Refused, match="a file, not a folder"):
        pack.refuse_foreign(version / "thesis/chapter")

"""What a killed process leaves in $TMPDIR, and who removes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import ROOT

from contract import temporary

PREFIX = "killed-"
HOLDER = (
    "import sys; from pathlib import Path; from contract import temporary\n"
    "with temporary.folder('killed-', Path(sys.argv[1])) as made:\n"
    "    (made / 'file').write_text('x'); print(made, flush=True); sys.stdin.read()"
)


def holding(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, parent], env=os.environ | {"PYTHONPATH": str(ROOT / "model-src")},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_the_next_one_removes_what_a_killed_one_left_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    killed, left = holding(tmp_path)
    living, used = holding(tmp_path)
    with killed, living:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left / "file").is_file()
        with temporary.folder(PREFIX, tmp_path) as made:
            assert sorted(tmp_path.iterdir()) == sorted([used, made])
        assert (used / "file").is_file()
        living.communicate("")

    assert list(tmp_path.iterdir()) == []


def test_links_files_and_other_names_are_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("x")
    (tmp_path / f"{PREFIX}aaaaaaaa").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}bbbbbbbb").write_text("x")
    (tmp_path / f"{PREFIX}backup").mkdir()
    (tmp_path / "killed").mkdir()
    before = sorted(tmp_path.rglob("*"))

    temporary.sweep(PREFIX, tmp_path)

    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_inside_is_not_followed(tmp_path: Path) -> None:
    kept, dead = tmp_path / "kept", tmp_path / f"{PREFIX}aaaaaaaa"
    for folder in (kept, dead):
        folder.mkdir()
    (kept / "file").write_text("x")
    (dead / "link").symlink_to(kept)

    temporary.sweep(PREFIX, tmp_path)

    assert sorted(tmp_path.rglob("*")) == [kept, kept / "file"]


def test_a_folder_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / f"{PREFIX}aaaaaaaa"
    foreign.mkdir()
    # Only root can give a folder away; anybody can be another than its owner.
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    temporary.sweep(PREFIX, tmp_path)

    assert foreign.is_dir()


def test_a_folder_that_is_not_there_is_an_error_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(OSError, match="absent"), temporary.folder(PREFIX):
        pass

"""What a killed process leaves in $TMPDIR and beside its targets, and who removes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT, SAMPLE, Checkout

from gitops.releases import writing
from gitops.repo.git import Git

from contract import temporary
from storage import files, streams

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


# Beside a target

# Kills itself when it is about to make an event of this name for the so-manieth time.
KILLED = """
import os, signal, sys
from pathlib import Path

event, count, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
from storage import files, streams

def hook(name, values):
    global count
    if name == event and str(values[0]).startswith(str(folder)):
        count -= 1
        if count < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
"""
FILE = KILLED + "files.write_atomically(folder / 'target', b'new')"
STREAM = KILLED + "w = streams.writer(str(folder / 'target')); w.write(b'new'); w.publish(); w.drop()"
FOLDER = KILLED + "with files.staged_folder(folder / 'target') as made: (made / 'new').touch()"


def kill(code: str, event: str, count: int, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, event, str(count), folder],
        env=os.environ | {"PYTHONPATH": str(ROOT / "model-src")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


def left(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.name.startswith("."))


@pytest.mark.parametrize(
    ("code", "event", "count", "content"),
    [(FILE, "os.rename", 0, None), (STREAM, "os.link", 0, None), (STREAM, "os.remove", 0, b"new")],
)
def test_a_file_that_was_being_written_is_removed_by_the_next(
    code: str, event: str, count: int, content: bytes | None, tmp_path: Path
) -> None:
    kill(code, event, count, tmp_path)
    [found] = left(tmp_path)
    assert found.startswith(".target.writing-")
    assert ((tmp_path / "target").read_bytes() if (tmp_path / "target").exists() else None) == content

    files.write_atomically(tmp_path / "other", b"")

    assert left(tmp_path) == []
    assert ((tmp_path / "target").read_bytes() if (tmp_path / "target").exists() else None) == content


@pytest.mark.parametrize("count", [0, 1])
def test_a_folder_that_was_being_replaced_is_old_or_new_after_the_next(count: int, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target/old").touch()
    kill(FOLDER, "os.rename", count, tmp_path)
    assert len(left(tmp_path)) == 1

    with pytest.raises(KeyError), files.staged_folder(tmp_path / "target"):
        assert [file.name for file in (tmp_path / "target").iterdir()] == ["old"]
        raise KeyError

    assert left(tmp_path) == []
    assert [file.name for file in (tmp_path / "target").iterdir()] == ["old"]


def test_what_a_living_one_writes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    names = [".target.writing-", ".target.abcdefgh", "target.writing-abcdefgh", ".target.writing-ABCDEFGH"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / ".pipe.writing-abcdefgh").touch()
    (tmp_path / ".pipe.writing-abcdefgh").unlink()
    os.mkfifo(tmp_path / ".pipe.writing-abcdefgh")
    (tmp_path / ".link.writing-abcdefgh").symlink_to(tmp_path / names[0])
    before = sorted(tmp_path.iterdir())

    with temporary.sibling_file(tmp_path / "target") as file, files.staged_folder(tmp_path / "folder"):
        files.write_atomically(tmp_path / "other", b"")
        assert Path(file.name).exists()
        Path(file.name).rename(tmp_path / "target")

    assert sorted(tmp_path.iterdir()) == sorted([*before, *(tmp_path / name for name in ("folder", "other", "target"))])


def test_writers_of_one_file_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(50):
            files.write_atomically(tmp_path / "target", b"%d" % number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    assert [file.name for file in tmp_path.iterdir()] == ["target"]


def test_a_batch_removes_what_a_killed_one_left_although_all_is_done(tmp_path: Path) -> None:
    (tmp_path / "version").mkdir()
    kill(STREAM, "os.remove", 0, tmp_path / "version")

    assert list(streams.find(f"{tmp_path}/")) == [f"{tmp_path}/version/target"]
    assert left(tmp_path / "version") == []


def test_a_private_key_that_was_being_made_is_removed_by_the_next_run(plain: Checkout, tmp_path: Path) -> None:
    """Killed once before the key has its name, and once after."""
    plain.write("overlays/promotion.yaml", (SAMPLE / "overlays/promotion.yaml").read_bytes())
    (plain.root / "base/api/signed").mkdir(parents=True)
    folder = tmp_path / "secrets"
    code = f"sys.path.insert(0, {str(ROOT / 'scripts')!r}); import signing_key; " \
        f"signing_key.main(['--root', {str(plain.root)!r}, '--private-key', str(folder / 'key')])"  # fmt: skip
    # The second one first removes what the first one left.
    for event, count in (("os.link", 0), ("os.remove", 1)):
        kill(f"{KILLED}\n{code}", event, count, folder)
        assert len(left(folder)) == 1

    done = plain.run("signing_key", "--private-key", folder / "key")

    assert done.code == 0, done.err
    assert [file.name for file in folder.iterdir()] == ["key"]


def test_what_is_written_into_a_checkout_leaves_nothing_in_gits_folder(plain: Checkout) -> None:
    code = f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n" \
        "from gitops.releases import writing; from gitops.repo.git import Git\n" \
        f"writing.write_files(Git(Path({str(plain.root)!r})), {{'README.md': b'new'}})"  # fmt: skip
    kill(f"{KILLED}\n{code}", "os.rename", 0, plain.root)
    assert len(list((plain.root / ".git").glob("gitops-new-*"))) == 1

    writing.write_files(Git(plain.root), {"README.md": b"new"})

    assert list((plain.root / ".git").glob("gitops-new-*")) == []
    assert plain.read("README.md") == b"new"

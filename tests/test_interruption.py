"""Commands killed at every point where they are about to change something outside their temporary folders.

The points are found by an audit hook in the command's own process: every file it opens for writing, renames or removes
in the clone or the remote, and every git command that writes. What git does within one command is git's to keep whole.
(`test_upload_model.py` does the same for the objects of an upload.)
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import IMAGE, S3, Checkout, Version, git, make_checkout, package, run

READING = {
    "blob", "cat-file", "config", "diff", "for-each-ref", "log", "ls-files", "ls-remote", "ls-tree", "merge-base",
    "remote", "rev-list", "rev-parse", "show", "status", "symbolic-ref", "var", "worktree",
}  # fmt: skip
FILE_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.truncate"}


def killed(checkout: Checkout, command: str, args: tuple[str, ...], at: int | None) -> tuple[int, list[str]]:
    """Runs a command in a process that kills itself before its point number `at`; (status, points reached)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        points = 0
        watched = (str(checkout.root), str(checkout.remote))

        def hook(event: str, values: tuple[Any, ...]) -> None:
            nonlocal points
            if point := described(event, values, watched):
                if points == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                points += 1
                os.write(writing, f"{point}\n".encode())

        sys.addaudithook(hook)
        code = 1
        try:
            code = run(command, "--root", checkout.root, *args).code
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as stream:
        reached = stream.read().splitlines()
    return os.waitpid(child, 0)[1], reached


def described(event: str, values: tuple[Any, ...], watched: tuple[str, ...]) -> str | None:
    """What is about to be changed, or None if nothing is."""
    if event == "subprocess.Popen":
        words = [str(word) for word in values[1]]
        verb = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
        return f"git {verb}" if words[0] == "git" and verb not in READING else None
    if event == "open":
        path, mode = str(values[0]), values[1] or ""
        return f"write {Path(path).name}" if set(mode) & set("wax+") and path.startswith(watched) else None
    if event in FILE_EVENTS and str(values[0]).startswith(watched):
        return f"{event} {Path(str(values[0])).name}"
    return None


@dataclass(frozen=True)
class Case:
    """A command, and how a clone is made ready for it."""

    command: str
    args: tuple[str, ...]
    prepare: Callable[[Checkout, list[Version]], None]


def bumped(checkout: Checkout, versions: list[Version], *numbers: int) -> None:
    for number in numbers:
        done = checkout.run(
            "bump_model", "--app", "lily-api", "--env", "dev", "--model-uri", versions[number].uri, "--image", IMAGE,
            "--push",
        )  # fmt: skip
        assert done.code == 0, done.err


BUMP = ("--app", "lily-api", "--env", "dev", "--image", IMAGE, "--model-uri")
CASES = {
    "bump, in the tree": Case("bump_model", (*BUMP, "{two}"), lambda c, v: bumped(c, v, 0)),
    "bump, committed": Case("bump_model", (*BUMP, "{two}", "--commit"), lambda c, v: bumped(c, v, 0)),
    "bump, pushed": Case("bump_model", (*BUMP, "{two}", "--push"), lambda c, v: bumped(c, v, 0)),
    "promote": Case(
        "promote_model", ("--app", "lily-api", "--to", "staging", "--push"), lambda c, v: bumped(c, v, 0)
    ),
    "roll back": Case(
        "rollback_model", ("--app", "lily-api", "--env", "dev", "--reason", "why", "--push"),
        lambda c, v: bumped(c, v, 0, 1),
    ),
    "retire": Case(
        "retire_app", ("--app", "lily-api", "--env", "dev", "--reason", "why", "--push"), lambda c, v: bumped(c, v, 0)
    ),
}  # fmt: skip


def state(checkout: Checkout) -> dict[str, str]:
    """What others can see of the change: trees of the branches here and there, and the files of the checkout."""
    listed = {}
    for where in (checkout.root, checkout.remote):
        names = git(where, "for-each-ref", "--format=%(refname)", "refs/heads").split()
        listed |= {f"{where.name} {name}": git(where, "rev-parse", f"{name}^{{tree}}") for name in names}
    for file in sorted(checkout.root.glob("overlays/*/*/*")):
        listed[str(file)] = file.read_text()
    return {name.split("/clone/")[-1]: value for name, value in listed.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_command_that_is_killed_leaves_old_or_new_and_is_completed_by_the_next(
    name: str, template: Path, tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = [package(tmp_path / word, word) for word in ("one", "two")]
    for version in versions:
        s3.upload(version)
    # The same commits and holds every time, so that states can be compared.
    for variable in ("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"):
        monkeypatch.setenv(variable, "2026-02-02T12:00:00+00:00")
    case = CASES[name]
    args = tuple(word.format(two=versions[1].uri) for word in case.args)

    def fresh(folder: str, remote: Path) -> Checkout:
        (tmp_path / folder).mkdir()
        return make_checkout(remote, tmp_path / folder)

    prepared = fresh("prepared", template)
    case.prepare(prepared, versions)

    whole = fresh("whole", prepared.remote)
    old = state(whole)
    code, points = killed(whole, case.command, args, None)
    new = state(whole)
    assert code == 0
    assert old != new
    assert len(points) >= 2

    for at, point in enumerate(points):
        checkout = fresh(f"killed-{at}", prepared.remote)
        status, _ = killed(checkout, case.command, args, at)
        assert os.WIFSIGNALED(status), point
        left = state(checkout)
        for thing in old.keys() | new.keys() | left.keys():
            assert left.get(thing) in (old.get(thing), new.get(thing)), f"{point}: {thing}"
        assert "?? " not in checkout.git("status", "--porcelain"), point
        done = checkout.run(case.command, *args)
        assert done.code == 0, f"after {point}: {done.err}"
        assert state(checkout) == new, point

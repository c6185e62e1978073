"""What was rendered before: it decides nothing otherwise than what is rendered anew, whatever became of its file."""

from __future__ import annotations

import argparse
import contextlib
import random
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Checkout, git, make_checkout

import validate
from gitops.checks.framework import Finding
from gitops.manifests import kustomize, remembered
from gitops.manifests.objects import Object
from gitops.repo import fleet, layout
from gitops.repo.git import Git
from gitops.repo.policy import read_policy

from contract.errors import Refused

CHANGES = 30


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where renders are remembered; nothing is yet."""
    monkeypatch.setenv("MODEL_GITOPS_RENDERS", str(tmp_path / "renders.sqlite"))
    return tmp_path / "renders.sqlite"


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make_checkout(template, tmp_path_factory.mktemp("fleet"))


def at(checkout: Checkout, rev: str = "HEAD") -> fleet.Fleet:
    found = fleet.at(Git(checkout.root), rev)
    assert found is not None
    return found


def rows(file: Path) -> int:
    with contextlib.closing(sqlite3.connect(file)) as database:
        return int(database.execute("SELECT count(*) FROM kept").fetchone()[0])


# What is remembered


def test_a_fleet_is_the_same_from_memory(shared: Checkout, file: Path) -> None:
    first = at(shared)
    there = rows(file)

    assert at(shared) == first
    assert rows(file) == there
    assert set(first.renders) == set(layout.folders(shared.root, read_policy(shared.root)))


def test_who_looked_at_everything_need_render_nothing_again(shared: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared.run("validate").code == 0
    monkeypatch.setattr(kustomize, "rendered", lambda *_: pytest.fail("rendered again"))

    assert at(shared).renders


def test_who_looks_at_everything_takes_nothing_from_memory(shared: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "get", lambda _: pytest.fail("taken from memory"))

    assert shared.run("validate").code == 0


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def garbage(file: Path) -> None:
    file.write_bytes(b"no database at all" * 1000)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def altered(file: Path) -> None:
    """Another value in every entry."""
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("""UPDATE kept SET text = replace(text, '"dev"', '"prod"')""")
        database.execute("UPDATE kept SET text = replace(text, 'lily', 'rose')")


def exchanged(file: Path) -> None:
    """Each entry whole, under the name of another."""
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        found = database.execute("SELECT name, sum, text FROM kept ORDER BY name").fetchall()
        database.execute("DELETE FROM kept")
        names = [name for name, _, _ in found]
        moved = [(name, digest, text) for name, (_, digest, text) in zip(names[1:] + names[:1], found, strict=True)]
        database.executemany("INSERT INTO kept (name, sum, text) VALUES (?, ?, ?)", moved)


def other_columns(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("DROP TABLE kept")
        database.execute("CREATE TABLE kept (name TEXT)")


def bytes_for_text(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE kept SET text = x'ff', sum = x'ff'")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "broken", [cut, garbage, empty, altered, exchanged, other_columns, bytes_for_text, a_folder, Path.unlink]
)
def test_what_is_broken_is_rendered_anew(shared: Checkout, file: Path, broken: Callable[[Path], None]) -> None:
    first = at(shared)
    broken(file)

    assert at(shared) == first
    assert at(shared) == first


def test_a_place_that_cannot_be_written_does_no_harm(shared: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    first = at(shared)
    monkeypatch.setenv("MODEL_GITOPS_RENDERS", "/proc/no/such/place")

    assert at(shared) == first


def test_the_oldest_are_forgotten(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "KEPT", 3)
    for number in range(5):
        remembered.put({str(number): [number]})

    assert remembered.get([str(number) for number in range(5)]) == {"2": [2], "3": [3], "4": [4]}
    assert rows(file) == 3


def test_several_remember_at_once(file: Path) -> None:
    def some(start: int) -> None:
        for number in range(start, start + 20):
            remembered.put({str(number): number})

    threads = [threading.Thread(target=some, args=(start,)) for start in range(0, 100, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert remembered.get([str(number) for number in range(100)]) == {str(number): number for number in range(100)}


def test_another_program_or_other_code_remembers_for_itself(
    shared: Checkout, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(shared)
    before = rows(file)
    monkeypatch.setattr(fleet, "__file__", str(Path(__file__)))
    at(shared)

    assert rows(file) == before + 1  # the renders are the same, and what the commit deploys is told anew


def test_a_commit_with_links_is_not_remembered(checkout: Checkout) -> None:
    (checkout.root / "overlays/dev/linked.yaml").symlink_to("lily-api/release.yaml")
    checkout.commit()

    assert fleet.at(Git(checkout.root), "HEAD") is None


# What it is for


def examined(checkout: Checkout, base: str) -> tuple[list[Finding], str] | list[str]:
    args = argparse.Namespace(root=checkout.root.resolve(), by=None, pushed=False)
    try:
        return validate.examine(args, Git(checkout.root), base)
    except Refused as refused:
        return list(refused.lines)


def changed(checkout: Checkout, draw: random.Random) -> None:
    """Any small change of what is deployed."""
    files = [path for path in checkout.git("ls-files", "base", "apps", "overlays", "argocd").splitlines()
             if path != "overlays/promotion.yaml"]  # fmt: skip
    for _ in range(draw.choice((1, 1, 1, 2))):
        path = draw.choice(files)
        text = checkout.read(path).decode() if (checkout.root / path).exists() else ""
        lines = text.splitlines(keepends=True)
        at = draw.randrange(len(lines) + 1)
        how = draw.choice(("comment", "line", "number", "name", "copy", "remove", "move"))
        if how == "comment":
            checkout.write(path, "".join([*lines[:at], "# a comment\n", *lines[at:]]))
        elif how == "line":
            checkout.write(path, "".join(lines[:at] + lines[at + 1 :]))
        elif how == "number":
            checkout.write(path, text.replace("5001", "5002").replace("100m", "200m").replace("1Gi", "2Gi"))
        elif how == "name":
            checkout.write(path, text.replace("lily-api", draw.choice(("lily-sklearn", "rose")), 1))
        elif how == "copy":
            checkout.write(draw.choice(files), text)
        elif (checkout.root / path).exists():
            checkout.git("rm", "-qf", path)
            if how == "move":
                checkout.write(f"{Path(path).parent}/moved.yaml", text)


def test_a_change_is_judged_from_memory_as_it_is_without(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what differs when rendered is among what the change is said to reach."""
    base = checkout.git("rev-parse", "HEAD")
    before = at(checkout)
    concerned: list[str] = []
    tell = validate._concerned

    def told(*args: object) -> list[str]:
        concerned[:] = tell(*args)  # type: ignore[arg-type]
        return concerned

    monkeypatch.setattr(validate, "_concerned", told)
    draw = random.Random(16)
    for number in range(CHANGES):
        changed(checkout, draw)
        if checkout.git("status", "--porcelain"):
            checkout.commit(f"Change {number}")
        concerned.clear()
        with_memory = examined(checkout, base)
        with monkeypatch.context() as without:
            without.setattr(fleet, "at", lambda git, rev: fleet.Fleet(before.reads, {}))
            assert with_memory == examined(checkout, base), checkout.git("diff", base)
        after: dict[str, list[Object]] = dict(at(checkout).renders)
        differ = {folder for folder in {*before.renders, *after} if before.renders.get(folder) != after.get(folder)}
        there = set(layout.folders(checkout.root, read_policy(checkout.root)))
        if isinstance(with_memory, tuple):
            assert differ & there <= set(concerned), checkout.git("diff", base)
        checkout.git("reset", "-q", "--hard", base)
    assert git(checkout.root, "rev-parse", "HEAD") == base

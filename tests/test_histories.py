"""Histories by every way of working, against a record of what the branch was: what is read of them is what ran."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from conftest import git
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from worlds import API, START, Content, files_of, hold_of, release_of

from gitops.releases import history, judgement, stack
from gitops.releases.judgement import Moment
from gitops.releases.release import Release, Target
from gitops.repo import mainline
from gitops.repo.git import Git
from gitops.repo.policy import Policy

TARGET = Target(API, "dev")
PLACE = (API, "dev")
FILE, HOLD = "overlays/dev/api/release.yaml", "overlays/dev/api/hold.yaml"
State = tuple[Content | None, int]
"""What runs, (0, 0) for unreleased and None for an app that is not there, and the number of the hold, 0 for none."""
EMPTY: State = ((0, 0), 0)
MERGES = ("Merge branch 'promote/dev/api'", "Merge pull request #7 from acme/cicd", "Merge branch 'cicd-2' into cicd")
PULLS = (
    "Merge branch 'cicd' of https://example.org/acme/models", "Merge remote-tracking branch 'origin/cicd' into cicd",
    "Merge branch 'cicd' into topic",
)  # fmt: skip


@dataclass
class Branch:
    """A branch and its record, written as commands of git fast-import.
    Source of the format: https://git-scm.com/docs/git-fast-import"""

    marks: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    commands: list[bytes] = field(default_factory=list)
    tips: list[tuple[int, State]] = field(default_factory=list)
    """The marks and states that everybody saw at the remote, oldest first."""

    def commit(self, state: State, *parents: int, subject: str = "A change") -> int:
        mark = next(self.marks)
        lines = [f"commit refs/heads/work\nmark :{mark}\ncommitter Ann <ann@example.org> {mark} +0000\n"]
        lines += [f"data {len(subject)}\n{subject}\n"]
        lines += [f"{'merge' if at else 'from'} :{parent}\n" for at, parent in enumerate(parents)]
        self.commands.append("".join(lines).encode())
        content, held = state
        for path, data in ((FILE, text(content)), (HOLD, hold_of(PLACE, held) if held else None)):
            line = f"D {path}" if data is None else f"M 100644 inline {path}\ndata {len(data)}"
            self.commands.append(line.encode() + b"\n" + (data + b"\n" if data is not None else b""))
        return mark

    def chain(self, states: Sequence[State], start: int) -> int:
        for state in states:
            start = self.commit(state, start)
        return start

    def push(self, mark: int, state: State) -> None:
        self.tips.append((mark, state))

    @property
    def stream(self) -> bytes:
        return b"".join(self.commands) + f"reset refs/heads/cicd\nfrom :{self.tips[-1][0]}\n".encode()


@cache
def text(content: Content | None) -> bytes | None:
    return None if content is None else files_of(START.put(TARGET, content))[FILE]


@dataclass(frozen=True)
class Step:
    what: str
    content: Content | None
    tried: tuple[Content, ...]
    back: int
    """How many tips ago somebody's own work was begun, or what a rollback goes back to."""
    words: int


def work(branch: Branch, step: Step) -> None:
    """One step of somebody, until it is pushed."""
    tip, now = branch.tips[-1]
    start, _ = branch.tips[max(0, len(branch.tips) - 1 - step.back)]
    tried: list[State] = [(content, now[1]) for content in step.tried]
    new: State = (step.content, now[1])
    if step.what == "bump":
        branch.push(branch.commit(new, tip), new)
    elif step.what == "roll back":
        old = branch.tips[max(0, len(branch.tips) - 1 - step.back)][1][0]
        new = (old, len(branch.tips))
        branch.push(branch.commit(new, tip), new)
    elif step.what == "release hold":
        branch.push(branch.commit((now[0], 0), tip), (now[0], 0))
    elif step.what == "merge":
        # A pull request, which may have been brought up to date on its way.
        side = branch.chain(tried, start)
        if step.words:
            side = branch.commit(new, side, tip, subject=PULLS[step.words])
        branch.push(branch.commit(new, tip, branch.commit(new, side), subject=MERGES[step.words]), new)
    elif step.what == "many":
        sides = [branch.chain(tried, start), branch.commit(new, start)]
        subject = "Merge branches 'one' and 'two' into cicd"
        branch.push(branch.commit(new, tip, *sides, subject=subject), new)
    elif step.what == "pull":
        own = branch.chain([*tried, new], start)
        branch.push(branch.commit(new, own, tip, subject=PULLS[step.words]), new)
    else:
        own = branch.chain([*tried, new], start)
        wrong = branch.commit(new, own, tip, subject="In words that tell nothing")
        branch.push(branch.commit(new, tip, wrong, subject=mainline.MENDED), new)


CONTENTS = st.sampled_from([(1, 1), (2, 1), (3, 1), (2, 2), (1, 2), (0, 0), None])
STEPS = st.builds(
    Step,
    st.sampled_from(["bump", "bump", "roll back", "release hold", "merge", "many", "pull", "pull", "mend"]),
    CONTENTS,
    st.lists(CONTENTS.filter(bool), max_size=2).map(tuple),
    st.integers(0, 4),
    st.integers(0, 2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("histories")
    git(root, "init", "-q", "-b", "main")
    return root


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(steps=st.lists(STEPS, min_size=1, max_size=10))
def test_what_is_read_of_a_history_is_what_the_branch_was(folder: Path, steps: Sequence[Step]) -> None:
    branch = Branch()
    branch.push(branch.commit(EMPTY), EMPTY)
    for step in steps:
        work(branch, step)
    marks = folder / "marks"
    import_into(folder, branch.stream, marks)
    commits = dict(line.removeprefix(":").split() for line in marks.read_text().splitlines())
    repository = Git(folder)

    assert repository.line("cicd") == [commits[str(mark)] for mark, _ in reversed(branch.tips)]

    record = [state for _, state in branch.tips]
    changes = [now for before, now in itertools.pairwise([(None, 0), *record]) if now != before]
    moments = history.Ran(repository, "cicd", Policy("", (), ()))(TARGET)
    assert moments == [Moment(release(content), hold_of(PLACE, held) if held else None) for content, held in changes]

    ran = [state for state in record if state[0] and state[0][0]]
    assert [place(item) for item in stack.of(moments)] == plain_standing(ran)
    assert [place(item) for item in judgement.standing(moments) if item] == plain_standing(record)
    if running := release(record[-1][0]):
        came = len(record) - len(list(itertools.takewhile(lambda state: state[0] == record[-1][0], reversed(record))))
        [since] = history.since(repository, "cicd", [running])
        assert since.commit == commits[str(branch.tips[came][0])]


def import_into(folder: Path, stream: bytes, marks: Path) -> None:
    repository = Git(folder)
    repository.raw("fast-import", "--quiet", "--force", f"--export-marks={marks}", stdin=stream)


def release(content: Content | None) -> Release | None:
    return release_of(TARGET, content) if content and content[0] else None


def place(item: Release) -> Content:
    """The numbers of a release."""
    return next(content for content in itertools.product(range(1, 4), range(1, 3)) if release(content) == item)


def plain_standing(record: Sequence[State]) -> list[Content]:
    """What came and was not taken back, also by going to nothing, or with the hold that came with another."""
    found: list[Content | None] = [None]
    for (_, held), (content, hold) in itertools.pairwise([EMPTY, *record]):
        now = content if content and content[0] else None
        if now in found:
            found = found[: found.index(now) + 1]
        elif hold not in (0, held):
            found = [*found[:-1], now]
        else:
            found = [*found, now]
    return [content for content in found if content]

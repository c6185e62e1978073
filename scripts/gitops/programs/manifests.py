"""Processes of tools/manifests and tools/validation, which stay for the next question: starting one takes longer than
most answers."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from gitops.programs import tools
from gitops.programs.tools import Program

from contract import waiting
from contract.errors import Refused

_REMEDY = "it needs no network: look whether this machine is busy or out of memory, then run the command again"
# Those that wait for a question, by their program.
_idle: dict[Path, list[_Process]] = {}
# The pipes of a fork's parent are not its own.
os.register_at_fork(after_in_child=_idle.clear)


class _Process:
    def __init__(self, program: Path, name: str) -> None:
        self._name = name
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        # It reads little at a time: a fifth of its work would be to collect garbage.
        self._process = subprocess.Popen(
            [program], cwd="/", env=os.environ | {"GOGC": "400"}, text=True, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Raises Refused, with its last words, if it ends without an answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            with waiting.Limit(f"tools/{self._name}", _REMEDY, waiting.ANSWER, lambda: waiting.end(self._process)):
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            return dict(json.loads(line))
        except waiting.TooSlow:
            self.stop()
            raise
        except (BrokenPipeError, ValueError):
            self.stop()
            self._words.seek(0)
            words = self._words.read().decode(errors="replace").strip().splitlines()[:5] or [f"no answer: {line!r}"]
            raise Refused(*(f"{self._name}: {word}" for word in words)) from None

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def ask(question: dict[str, Any], of: Program = tools.MANIFESTS) -> dict[str, Any]:
    """The answer of the program's main.go, which has the form of both. Raises Refused if there is none."""
    program = built(of)
    process = _waiting(program) or _Process(program, of.name)
    answer = process.ask(question)
    _idle.setdefault(program, []).append(process)
    return answer


def built(program: Program = tools.MANIFESTS) -> Path:
    """The program; its name tells its sources from others. Raises Refused if it is not there."""
    try:
        return program.require()
    except tools.ToolError as error:
        raise Refused(str(error)) from None


def _waiting(program: Path) -> _Process | None:
    """One that has answered, unless it has ended since: whoever interrupts a command interrupts them all."""
    with contextlib.suppress(IndexError):
        while True:
            if (process := _idle.get(program, []).pop()).alive:
                return process
    return None


@atexit.register
def _stop() -> None:
    for process in [process for idle in _idle.values() for process in idle]:
        process.stop()

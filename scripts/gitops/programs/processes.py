"""Programs that go on running when the command that started them ends: started once, found again, stopped for good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

try:
    import psutil
except ModuleNotFoundError:
    _INSTALLED = False
else:
    _INSTALLED = True

from gitops.cli import progress

from contract.errors import Refused


@dataclass(frozen=True)
class Process:
    """One program: how it is started, and how one sees that it does its work."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)


class Processes:
    """The processes of one folder, which has `<name>.json`, which identifies the process, and `<name>.log`.

    Raises Refused where the package that finds them is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if not _INSTALLED:
            raise Refused("psutil is not installed; run `python scripts/setup.py cluster`")
        self.folder = folder

    def start(self, process: Process, seconds: float = 60) -> None:
        """Starts a process unless it runs already, and waits until it is ready. Raises Refused with the last lines of
        its log when it ends or does not get ready in time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.find(process.name) is None:
            self._spawn(process)
        end = time.monotonic() + seconds
        while not process.ready():
            if self.find(process.name) is None:
                raise Refused(*self._report(process.name, "ended"))
            if time.monotonic() > end:
                raise Refused(*self._report(process.name, f"is not ready after {seconds:.0f} s"))
            progress(f"waiting for {process.name}")
            time.sleep(0.05)
        progress("")

    def _spawn(self, process: Process) -> None:
        log = self.folder / f"{process.name}.log"
        with log.open("ab") as out:
            started = subprocess.Popen(
                process.command, env=os.environ | process.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        found = {"pid": started.pid, "created": psutil.Process(started.pid).create_time(), "command": process.command}
        file = self.folder / f"{process.name}.json"
        new = file.with_suffix(".new")
        new.write_text(json.dumps(found))
        new.replace(file)

    def find(self, name: str) -> psutil.Process | None:
        """The running process of this name: the very one that was started, not another that got its number."""
        try:
            noted = json.loads((self.folder / f"{name}.json").read_text())
            found = psutil.Process(noted["pid"])
            alive = found.create_time() == noted["created"] and found.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
            return None
        return found if alive else None

    def names(self) -> list[str]:
        """Every process that was started and not stopped, whether it still runs or not."""
        return sorted(file.stem for file in self.folder.glob("*.json"))

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM, seconds: float = 10) -> None:
        """Stops a process and what it started; by SIGKILL what does not end by itself in time."""
        if (found := self.find(name)) is not None:
            family = [*found.children(recursive=True), found]
            for each in family:
                _send(each, how)
            _, left = psutil.wait_procs(family, timeout=seconds)
            for each in left:
                _send(each, signal.SIGKILL)
            psutil.wait_procs(left, timeout=seconds)
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def tail(self, name: str, lines: int = 10) -> list[str]:
        """The last lines of a log."""
        file = self.folder / f"{name}.log"
        return file.read_text(errors="replace").splitlines()[-lines:] if file.is_file() else []

    def _report(self, name: str, what: str) -> list[str]:
        log = self.folder / f"{name}.log"
        return [f"{name}: {what}; {log} ends with", *(f"  {line}" for line in self.tail(name))]


def _send(process: psutil.Process, how: signal.Signals) -> None:
    try:
        process.send_signal(how)
    except psutil.NoSuchProcess:
        return

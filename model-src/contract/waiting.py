"""How long is waited for other machines and programs: every wait has an end, or a lowest rate.

The unit is patience(), 60 seconds unless MODEL_GITOPS_PATIENCE gives another. A server has that long for the start of
an answer, to its end or, where much is sent, for each STEP bytes of it. What is one call and much work, ANSWER times
as long; what fetches and builds, WORK times.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from contract.errors import Refused

VARIABLE = "MODEL_GITOPS_PATIENCE"
STEP = 64 << 10
"""Bytes that have to come, or to be taken, in each patience(): at its default the lowest rate is 1 KiB a second."""
LONGEST = 1_000_000
"""Seconds of patience(), and 60 times that is one that every system call takes."""
ANSWER = 10
"""A first fetch of a long history is one call of git, and so is rendering everything."""
WORK = 60
_GRACE = 5  # seconds in which git removes its locks and half-written packs
_REMOTE = ("clone", "fetch", "ls-remote", "pull", "push")


def patience() -> float:
    """Seconds without progress after which a wait is given up. Raises Refused for what is no such number."""
    given = os.environ.get(VARIABLE, "60")
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(given)) <= LONGEST:
            return seconds
    raise Refused(f"{VARIABLE}={given!r}: not a number of seconds above 0, and at most {LONGEST}; correct or unset it")


class TooSlow(Refused):
    """A wait was given up. Its line names what was waited for, how long, and the remedy."""


# Limits


class _Current(threading.local):
    limit: Limit | None = None


_current = _Current()


class Limit:
    """An end of waiting: when the time is over within its block, `stop` is called, and the block raises TooSlow.

    Without a `stop` it closes the connection of `watched()` that this thread uses in the block, which wakes whoever
    reads or writes there. Each request has the time anew, as a client asks again, unless the time is for all. It may be
    entered again, for the rest of an answer: what is between two blocks does not count. A block takes one thread.
    """

    def __init__(
        self, what: str, remedy: str, times: float = 1, stop: Callable[[], None] | None = None, *, in_all: bool = False
    ) -> None:
        """`what` is waited for, and begins the line of TooSlow; the time is `times` patience()."""
        self._what, self._remedy, self._times, self._in_all = what, remedy, times, in_all
        self.seconds = times * patience()
        self._stop = stop or self._disconnect
        self._changed = threading.Condition()
        self._end, self._over = math.inf, False
        self._block: object = None
        # A connection and its socket, which it no longer has when it ends with the answer.
        self._used: tuple[http.client.HTTPConnection, Any] | None = None
        self._outer: Limit | None = None

    def __enter__(self) -> Limit:
        self._outer, _current.limit = _current.limit, self
        self._end, self._over = math.inf, False
        # What a client does before it asks is no waiting.
        if self._used or self._in_all or self._stop != self._disconnect:
            self._begin()
        self._block = object()
        threading.Thread(target=self._watch, args=(self._block,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        _current.limit = self._outer
        with self._changed:
            over = self._over or time.monotonic() >= self._end
            self._block = None
            self._changed.notify_all()
        # Also where nothing was raised: whoever reads takes a closed connection for the end of an answer.
        if over and (error is None or isinstance(error, Exception)):
            raise _too_slow(self._what, self._remedy, self._times) from None

    def step(self) -> None:
        """Something has come or gone: the time begins anew."""
        if not (self._over or self._in_all):
            self._end = time.monotonic() + self.seconds

    def use(self, connection: http.client.HTTPConnection) -> None:
        """A connection is about to be used. Raises TooSlow when the time for all is over."""
        with self._changed:
            if not self._in_all:
                self._begin()
                self._changed.notify_all()
            elif self._over:
                raise _too_slow(self._what, self._remedy, self._times)
            self._used = connection, connection.sock

    def _begin(self) -> None:
        self._end, self._over = time.monotonic() + self.seconds, False

    def _watch(self, block: object) -> None:
        with self._changed:
            while self._block is block:
                left = self._end - time.monotonic()
                if self._over or left > 0:
                    self._changed.wait(None if self._over else min(left, threading.TIMEOUT_MAX))
                else:
                    self._over = True
                    self._stop()

    def _disconnect(self) -> None:
        if self._used is None:
            return
        connection, before = self._used
        for used in (connection.sock, before):
            if used is not None:
                with contextlib.suppress(OSError):
                    # Not that of a TLS socket, which would say farewell to its peer first. TLS within TLS is none.
                    socket.socket.shutdown(getattr(used, "socket", used), socket.SHUT_RDWR)


def _too_slow(what: str, remedy: str, times: float) -> TooSlow:
    factor = "" if times == 1 else f"{times:g} times "
    return TooSlow(
        f"{what}: no end after {times * patience():g} s of waiting; {remedy}; its time is {factor}{VARIABLE}, now"
        f" {patience():g}"
    )


def step() -> None:
    """Something has come or gone, in the innermost block of a Limit that this thread is in."""
    if _current.limit:
        _current.limit.step()


def steps(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """What `read` gives until it gives nothing, each STEP of it in the time of a Limit."""
    while chunk := read(STEP):
        step()
        yield chunk


class _Watched(http.client.HTTPConnection):
    """Tells the Limit of its thread what it does."""

    def connect(self) -> None:
        self._use()
        super().connect()
        self._use()

    def putrequest(self, *args: Any, **options: Any) -> None:
        self._use()
        super().putrequest(*args, **options)

    def send(self, data: Any) -> None:
        limit = _current.limit
        if limit is None or not isinstance(data, bytes | bytearray | memoryview):
            super().send(data)
            return
        for start in range(0, len(data), STEP):
            if self.sock:
                # Clients set one that is for connecting.
                self.sock.settimeout(limit.seconds)
            super().send(memoryview(data)[start : start + STEP])
            limit.step()

    def _use(self) -> None:
        if _current.limit:
            _current.limit.use(self)


def watched(connection: Any) -> Any:
    """A subclass of http.client.HTTPConnection, as clients have it, with connections that a Limit can close."""
    return connection if issubclass(connection, _Watched) else type(connection.__name__, (_Watched, connection), {})


def watch(*pools: Any) -> None:
    """Gives these classes of pools, urllib3's or others that are like them, connections that a Limit can close, for the
    whole process: whatever uses them, asking for credentials too, need not know of it."""
    for pool in pools:
        pool.ConnectionCls = watched(pool.ConnectionCls)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(watched(http.client.HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(watched(http.client.HTTPSConnection), req)


def open_url(request: urllib.request.Request) -> Any:
    """As urllib.request.urlopen, with a connection that a Limit can close."""
    return urllib.request.build_opener(_Http, _Https).open(request, timeout=patience())


# Programs


def run(
    command: Sequence[str | Path], what: str, remedy: str, times: float = ANSWER, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Runs a program as subprocess.run does, and ends it with all that it started when `times` patience() are over.
    Raises TooSlow then."""
    seconds = times * patience()
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **options) as process:
        try:
            out, words = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            end(process)
            raise _too_slow(what, remedy, times) from None
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, words)


def lock(file: IO[str], path: Path, times: float = ANSWER) -> None:
    """Waits for the lock of a file, as flock(2) does, which has no time-out of its own. Raises TooSlow when another
    process holds it for longer than `times` patience()."""
    end = time.monotonic() + times * patience()
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > end:
            raise _too_slow(f"{path}: locked", "end the process that holds it, then run the command again", times)
        time.sleep(0.05)


def git(
    command: Sequence[str],
    args: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    stdin: bytes | None = None,
    *,
    remote: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Runs git: `command` and its settings, then `args`. It asks for no name or password, and ssh for no passphrase
    where nobody is at a terminal.

    What asks a remote, which `remote` adds to what always does, ends, with all that it started, when its time is over.
    It stays in this process's group: whatever ends that, a terminal that closes or a runner that is cancelled, ends the
    push as well. Raises Refused when the time is over, and when git is not installed.
    """
    remote = remote or args[0] in _REMOTE
    limits = ["-c", "http.lowSpeedLimit=100", "-c", f"http.lowSpeedTime={math.ceil(patience())}"]
    try:
        limited = _ssh(command, cwd, env) if remote else {}
        with subprocess.Popen(
            [*command, *limits, *args], cwd=cwd, env={**limited, **env, "GIT_TERMINAL_PROMPT": "0"},
            stdin=None if stdin is None else subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                seconds = ANSWER * patience() if remote else None
                out, words = process.communicate(stdin, seconds)
            except subprocess.TimeoutExpired:
                end(process)
                raise Refused(
                    f"git {args[0]}: no end after {seconds:g} s of waiting for the remote ({' '.join(args[1:])}); check"
                    " the network and the server, then run the command again; its time is"
                    f" {ANSWER} times {VARIABLE}, now {patience():g}"
                ) from None
            except BaseException:
                end(process) if remote else process.kill()
                raise
    except FileNotFoundError:
        raise Refused("git: not installed; install it") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, words)


def _ssh(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The variable that limits ssh, unless the user has chosen an ssh."""
    configured = subprocess.run([*command, "config", "core.sshCommand"], cwd=cwd, env=env, capture_output=True).stdout
    if configured or {"GIT_SSH", "GIT_SSH_COMMAND"} & set(env):
        return {}
    wait = math.ceil(patience())
    options = {
        "BatchMode": "no" if sys.stdin and sys.stdin.isatty() else "yes",
        "ConnectTimeout": wait,
        "ServerAliveInterval": wait,
        "ServerAliveCountMax": 1,
    }
    return {"GIT_SSH_COMMAND": " ".join(["ssh", *(f"-o {name}={value}" for name, value in options.items())])}


def end(process: subprocess.Popen[Any]) -> None:
    """Ends a program and all that it started, first in a way that lets it clean up."""
    family = _family(process.pid)
    for how in (signal.SIGTERM, signal.SIGKILL):
        for each in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE)
            return


def _family(root: int) -> list[int]:
    """A process and its descendants, by ps(1) of POSIX; the process alone where there is no ps."""
    try:
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return [root]
    pairs = [(int(pid), int(parent)) for pid, parent in (line.split() for line in listed.splitlines())]
    family = [root]
    for member in family:
        family += [pid for pid, parent in pairs if parent == member]
    return family

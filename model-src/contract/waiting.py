"""How long git waits for another machine."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from contract.errors import Refused

VARIABLE = "MODEL_GITOPS_PATIENCE"
_GIT_TIMES = 10  # as long as patience(): a first fetch of a long history is one call
_GRACE = 5  # seconds in which git removes its locks and half-written packs
_REMOTE = ("clone", "fetch", "ls-remote", "pull", "push")


def patience() -> float:
    """Seconds without progress after which a wait is given up. Raises Refused for what is no such number."""
    given = os.environ.get(VARIABLE, "60")
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(given)) < math.inf:
            return seconds
    raise Refused(f"{VARIABLE}={given!r}: not a number of seconds above 0; correct or unset it")


def git(
    command: Sequence[str], args: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Runs git: `command` and its settings, then `args`. It asks for no name or password, and ssh for no passphrase
    where nobody is at a terminal.

    What asks a remote ends, with all that it started, when its time is over. It stays in this process's group: whatever
    ends that, a terminal that closes or a runner that is cancelled, ends the push as well. Raises Refused when the time
    is over, and when git is not installed.
    """
    remote = args[0] in _REMOTE
    limits = ["-c", "http.lowSpeedLimit=100", "-c", f"http.lowSpeedTime={math.ceil(patience())}"]
    try:
        limited = _ssh(command, cwd, env) if remote else {}
        with subprocess.Popen(
            [*command, *limits, *args], cwd=cwd, env={**limited, **env, "GIT_TERMINAL_PROMPT": "0"},
            stdin=None if stdin is None else subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                seconds = _GIT_TIMES * patience() if remote else None
                out, words = process.communicate(stdin, seconds)
            except subprocess.TimeoutExpired:
                _end(process)
                raise Refused(
                    f"git {args[0]}: no end after {seconds:g} s of waiting for the remote ({' '.join(args[1:])}); check"
                    " the network and the server, then run the command again; its time is"
                    f" {_GIT_TIMES} times {VARIABLE}, now {patience():g}"
                ) from None
            except BaseException:
                _end(process) if remote else process.kill()
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


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends git and all that it started, first in a way that lets it clean up."""
    family = _family(process.pid)
    for how in (signal.SIGTERM, signal.SIGKILL):
        for each in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE)
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

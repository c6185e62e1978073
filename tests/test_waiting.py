"""git against servers that do not answer, on real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Checkout

from gitops.repo.git import Git, GitError

from contract import waiting
from contract.errors import Refused

HALF = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nContent-Length: 900\r\n\r\n001e#"
)


@contextlib.contextmanager
def server(answer: bytes, *, drip: bool = False, closes: bool = False) -> Iterator[int]:
    """The port of a server that accepts, sends these bytes, all at once or one every 0.1 s, and is silent then."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for start in range(0, len(answer), step := 1 if drip else len(answer) or 1):
                connection.sendall(answer[start : start + step])
                if drip and over.wait(0.1):
                    return
            if not closes:
                over.wait()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("scheme", ["http", "git", "ssh"])
@pytest.mark.parametrize("call", ["fetch", "push", "ls-remote"])
def test_a_silent_server_is_given_up(plain: Checkout, scheme: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "0.03")
    git = Git(plain.root)
    # No ssh is needed for this: what stands there waits like one whose server is silent.
    monkeypatch.setenv("GIT_SSH_COMMAND", "sleep 1000 #")
    with server(b"") as port:
        git.text("remote", "set-url", "origin", f"{scheme}://127.0.0.1:{port}/a.git")
        with pytest.raises(Refused) as refused:
            {
                "fetch": lambda: git.fetch("origin", "cicd"),
                "push": lambda: git.push("origin", "HEAD", "cicd"),
                "ls-remote": lambda: git.remote_tip("origin", "cicd"),
            }[call]()

    [line] = refused.value.lines
    assert line.startswith(f"git {call}: no end after 0.3 s of waiting for the remote (")
    assert "origin" in line and waiting.VARIABLE in line
    assert list((plain.root / ".git").rglob("*.lock")) == []


def test_ssh_is_told_to_give_up_and_to_ask_nobody(
    plain: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ssh that writes down what it is told, in the place of the real one."""
    (tmp_path / "ssh").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/told\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(waiting.VARIABLE, "7")

    with pytest.raises(GitError):
        Git(plain.root).remote_tip("ssh://127.0.0.1/a.git", "cicd")

    for option in ("BatchMode=yes", "ConnectTimeout=7", "ServerAliveInterval=7", "ServerAliveCountMax=1"):
        assert f"-o {option}" in (tmp_path / "told").read_text()


@pytest.mark.parametrize(("answer", "drip"), [(HALF, False), (HALF, True), (b"HTTP/1.1 200 OK\r\nX: " + HALF, True)])
def test_half_an_answer_is_given_up(
    plain: Checkout, answer: bytes, drip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "0.05")
    with server(answer, drip=drip) as port, pytest.raises(Refused, match=r"git ls-remote: no end after 0\.5 s"):
        Git(plain.root).remote_tip(f"http://127.0.0.1:{port}/a.git", "cicd")


@pytest.mark.parametrize("scheme", ["http", "git"])
def test_a_server_that_closes_is_a_fault_of_git(plain: Checkout, scheme: str) -> None:
    with server(b"", closes=True) as port, pytest.raises(GitError):
        Git(plain.root).remote_tip(f"{scheme}://127.0.0.1:{port}/a.git", "cicd")


def test_what_takes_long_and_ends_in_time_is_done(plain: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "3")
    line = b"003e" + b"a" * 40 + b" refs/heads/cicd\x00 \n0000"
    line = b"%04x" % (len(line) - 4) + line[4:]
    with server(line, drip=True) as port:
        assert Git(plain.root).remote_tip(f"git://127.0.0.1:{port}/a.git", "cicd") == "a" * 40


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "inf", "nan"])
def test_another_patience_is_refused(plain: Checkout, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, value)
    with pytest.raises(Refused, match="not a number of seconds above 0"):
        Git(plain.root)

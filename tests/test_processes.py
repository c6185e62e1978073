"""Programs that outlive their command, and certificates: on real processes and real connections."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
import threading
from pathlib import Path

import pytest
from conftest import wait_until

from gitops.cluster import certificates
from gitops.programs.processes import Process, Processes

from contract.errors import Refused

SLEEP = (sys.executable, "-c", "import time; print('started', flush=True); time.sleep(600)")


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path / "run")


def test_a_process_is_started_once_and_stopped_for_good(processes: Processes) -> None:
    process = Process("one", SLEEP, lambda: "started" in processes.tail("one"))

    processes.start(process)
    first = processes.find("one")
    processes.start(process)
    again = processes.find("one")
    processes.stop("one")

    assert first is not None
    assert again == first
    assert not first.is_running() or first.status() == "zombie"
    assert processes.find("one") is None
    assert processes.names() == []


def test_a_process_that_ends_is_named_with_the_last_lines_of_its_log(processes: Processes) -> None:
    dying = (sys.executable, "-c", "print('no such port'); raise SystemExit(3)")

    with pytest.raises(Refused) as refused:
        processes.start(Process("dying", dying, lambda: False))

    log = processes.folder / "dying.log"
    assert refused.value.lines == (f"dying: ended; {log} ends with", "  no such port")


def test_a_process_that_does_not_get_ready_is_named(processes: Processes) -> None:
    with pytest.raises(Refused) as refused:
        processes.start(Process("slow", SLEEP, lambda: False), seconds=0.5)

    assert refused.value.lines[0].startswith("slow: is not ready after 0 s; ")
    processes.stop("slow")


def test_another_process_with_the_same_number_is_not_taken_for_it(processes: Processes) -> None:
    processes.folder.mkdir()
    (processes.folder / "old.json").write_text(f'{{"pid": {os.getpid()}, "created": 1.0, "command": []}}')

    assert processes.find("old") is None
    processes.stop("old")
    assert processes.names() == []


def test_what_does_not_end_by_itself_is_killed_with_what_it_started(processes: Processes) -> None:
    stubborn = (
        sys.executable, "-c",
        "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('started', child.pid, flush=True)\ntime.sleep(600)",
    )  # fmt: skip
    processes.start(Process("stubborn", stubborn, lambda: bool(processes.tail("stubborn"))))
    child = int(processes.tail("stubborn")[-1].split()[1])

    processes.stop("stubborn", signal.SIGTERM, seconds=0.5)

    def gone() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"

    wait_until(gone, "the child is gone")


def test_the_certificate_is_good_for_its_address_and_for_no_other(tmp_path: Path) -> None:
    certificates.make(tmp_path, "127.0.0.1")
    before = (tmp_path / "server.crt").read_bytes()
    certificates.make(tmp_path, "127.0.0.1")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        for _ in range(2):
            try:
                server.wrap_socket(listening.accept()[0], server_side=True).close()
            except ssl.SSLError:
                continue

    thread = threading.Thread(target=answer)
    thread.start()
    with client.wrap_socket(socket.create_connection(listening.getsockname()), server_hostname="127.0.0.1") as good:
        assert good.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        client.wrap_socket(socket.create_connection(listening.getsockname()), server_hostname="127.0.0.2")
    thread.join()
    listening.close()

    assert (tmp_path / "server.crt").read_bytes() == before
    assert {oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {"0o600"}

"""Raw sockets against the service: who is slow or sends without end is cut off, and everybody else is answered."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn
from conftest import SAMPLE, Repository, wait_until, wanted
from test_serving_process import Serve

from contract import manifest
from serving import connection, model
from serving.__main__ import Server
from serving.app import create_app
from serving.state import State

BODY = json.dumps({"features": SAMPLE}).encode()
REQUEST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def port(artifacts: Path) -> Iterator[int]:
    """A service in this process, so that a test can shorten its limits."""
    state = State()
    described = manifest.parse((artifacts / "manifest.json").read_bytes(), "manifest.json")
    state.model = model.load(wanted(artifacts / "onnx", described.digest))
    config = uvicorn.Config(create_app(state), http=connection.Connection, ws="none", log_level="warning")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(config, state, 0)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield listening.getsockname()[1]
        server.finish()
        thread.join()


def opened(port: int, first: bytes = b"") -> socket.socket:
    connected = socket.create_connection(("127.0.0.1", port), timeout=20)
    connected.sendall(first)
    return connected


def received(connected: socket.socket) -> bytes:
    """What comes until the other side ends it."""
    found = b""
    try:
        while chunk := connected.recv(1 << 16):
            found += chunk
    except ConnectionResetError:
        pass
    return found


def healthy(port: int) -> None:
    answer = httpx.post(f"http://127.0.0.1:{port}/predict", json={"features": SAMPLE})
    assert (answer.status_code, answer.json()["prediction"]) == (200, "setosa")


def send_until_cut_off(connected: socket.socket, piece: bytes, most: int) -> int:
    """Sends a piece again and again; how many bytes were taken before the other side ended it."""
    sent = 0
    try:
        while sent < most:
            connected.sendall(piece)
            sent += len(piece)
    except (ConnectionResetError, BrokenPipeError):
        pass
    return sent


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", id="one header"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000, id="one header without an end"),
        pytest.param(b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 3_000 + b"\r\n", id="many headers"),
        pytest.param(b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 3_000, id="headers without an end"),
        pytest.param(b"GET /healthz HTTP/1.1\r\n" + b"x" * 20_000 + b": y\r\n\r\n", id="the name of a header"),
        pytest.param(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", id="the path"),
        pytest.param(b"GET /?" + b"x" * 20_000, id="a query without an end"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b":\r\n" * 10_000, id="headers without a name"),
    ],
)
@pytest.mark.parametrize("before", [b"", HEALTH], ids=["first", "after another"])
def test_a_head_that_is_too_large_is_refused(port: int, before: bytes, head: bytes) -> None:
    with opened(port, before) as connected:
        if before:
            assert connected.recv(1 << 16).startswith(b"HTTP/1.1 200")
        for start in range(0, len(head), 4096):
            send_until_cut_off(connected, head[start : start + 4096], 1)
        answer = received(connected)
    # What is still on its way when the connection is closed can take the answer with it.
    assert answer == b"" or answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
    healthy(port)


def test_trailers_are_a_part_of_the_head(port: int) -> None:
    start = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    with opened(port, start) as connected:
        assert send_until_cut_off(connected, b"X: y\r\n" * 100, 16 << 20) < 16 << 20


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(b"", b"\r\n" * 4096, id="empty lines"),
        pytest.param(b"POST /predict HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"x" * 8192, id="a body"),
        pytest.param(b"POST /no HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"x" * 8192, id="for no route"),
        pytest.param(b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 999, id="chunks"),
    ],
)
def test_a_request_without_end_is_cut_off(port: int, start: bytes, piece: bytes) -> None:
    with opened(port, start) as connected:
        assert send_until_cut_off(connected, piece, 64 << 20) < 64 << 20
    healthy(port)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(REQUEST[:20], id="half a head"),
        pytest.param(REQUEST[:-1], id="half a body"),
        pytest.param(HEALTH + REQUEST[:20], id="half a second head"),
        pytest.param(b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{", id="half a chunk"),
    ],
)
def test_a_request_that_does_not_end_in_time_is_cut_off(
    port: int, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "EXCHANGE_SECONDS", 0.3)
    with opened(port, start) as connected:
        received(connected)
    healthy(port)


def test_a_request_that_drips_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "EXCHANGE_SECONDS", 0.3)
    with opened(port, REQUEST[:-9]) as connected:
        connected.settimeout(0.05)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                connected.sendall(b" ")
                try:
                    assert connected.recv(1) == b"", "an answer to half a request"
                except TimeoutError:
                    continue
                raise BrokenPipeError
    healthy(port)


def test_a_caller_who_does_not_read_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "EXCHANGE_SECONDS", 0.5)
    body = json.dumps({"features": [SAMPLE] * 1000}).encode()
    large = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with socket.socket() as connected:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connected.settimeout(20)
        connected.connect(("127.0.0.1", port))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                connected.sendall(large)
    healthy(port)


def test_of_too_many_connections_those_that_ask_nothing_end(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS", 20)
    half = [opened(port, REQUEST[:30]) for _ in range(60)]
    try:
        for _ in range(5):
            healthy(port)
        # Of those before the last twenty; a connection that is still open waits.
        assert [received(one) for one in half[:40]] == [b""] * 40
    finally:
        for one in half:
            one.close()


def test_of_too_many_bytes_those_without_an_end_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HELD_LIMIT", 1 << 20)
    start = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b" " * 200_000
    half = [opened(port, start) for _ in range(12)]
    try:
        assert [received(one) for one in half[:6]] == [b""] * 6
        padded = BODY + b" " * 500_000
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", content=padded)
        assert answer.status_code == 200
    finally:
        for one in half:
            one.close()


def test_requests_in_a_row_are_answered_in_order_up_to_a_number(port: int) -> None:
    with opened(port, HEALTH * connection.PIPELINED) as connected:
        found = b""
        while found.count(b'{"status":"ok"}') < connection.PIPELINED:
            found += connected.recv(1 << 16)
    with opened(port) as connected:
        assert send_until_cut_off(connected, HEALTH * 1000, 64 << 20) < 64 << 20
    healthy(port)


@pytest.mark.parametrize("sent", [REQUEST[:-1], REQUEST[:-20]])
def test_a_caller_who_leaves_is_no_fault_of_the_service(
    port: int, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def gone() -> float:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        counts = [line for line in text.splitlines() if 'requests_total{route="/predict",status="499"}' in line]
        return float(counts[0].split()[1]) if counts else 0

    before = gone()
    opened(port, sent).close()
    wait_until(lambda: gone() == before + 1, "the request is counted")
    assert "Traceback" not in caplog.text
    assert 'status="500"' not in httpx.get(f"http://127.0.0.1:{port}/metrics").text


@pytest.mark.parametrize("drain", ["0", "0.5"])
def test_stopping_loses_no_request(serve: Serve, artifacts: Path, trained: Repository, drain: str) -> None:
    service = serve(artifacts / "onnx", trained.manifest().digest, DRAIN_SECONDS=drain)
    port = service.ready().base_url.port or 0
    with ThreadPoolExecutor(8) as pool:
        busy = [Busy(port) for _ in range(8)]
        lost = [pool.submit(one.run) for one in busy]
        wait_until(lambda: all(one.answered > 20 for one in busy), "all are busy")
        service.process.send_signal(signal.SIGTERM)
        assert [one.result() for one in lost] == [None] * 8
    assert service.process.wait(30) == 0


class Busy:
    """A caller that keeps its connection for as long as it may, and asks until the address takes no connection."""

    def __init__(self, port: int) -> None:
        self.port, self.answered = port, 0

    def run(self) -> None:
        """Raises what a lost request raises."""
        while True:
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                client.connect()
            except ConnectionRefusedError:
                return
            stays = True
            while stays:
                client.request("POST", "/predict", BODY)
                answer = client.getresponse()
                stays = not answer.will_close
                assert answer.status == 200
                assert answer.read()
                self.answered += 1
            client.close()

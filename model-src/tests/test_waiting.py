"""Callers of S3 whose server gives and takes a byte now and then, on real sockets."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SAMPLE, Repository, Service, upload, wait_until, wanted
from dripping import ANSWERS, LONG, OK, Dripping, dripping

from contract import waiting
from contract.errors import Refused
from serving import batch, model
from storage import Unavailable, streams
from storage.places import open_place
from storage.s3 import ONE_TRY, S3

VERSION = "s3://bucket/models/lily/2026-02-01-0123456789ab/onnx/"
# Its share of the patience is a sixth.
SECONDS = 0.1


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(waiting.VARIABLE, f"{6 * SECONDS}")
    before = set(threading.enumerate())
    yield
    wait_until(lambda: not {t for t in set(threading.enumerate()) - before if "_watch" in t.name}, "no limit is left")


@pytest.fixture(params=ANSWERS)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dripping]:
    with dripping(ANSWERS[request.param]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        yield server


def place_reads() -> None:
    open_place("s3://bucket/folder", "--place", ONE_TRY).read("name", 100)


def place_lists() -> None:
    open_place("s3://bucket/folder", "--place", ONE_TRY).objects("")


def place_adds() -> None:
    open_place("s3://bucket/folder", "--place", ONE_TRY).add("name", b"content")


def service_loads() -> None:
    model.load(wanted(VERSION, "sha256:" + "0" * 64))


@pytest.mark.parametrize("call", [place_reads, place_lists, place_adds, service_loads])
def test_a_server_that_drips_is_given_up(server: Dripping, call: Callable[[], None]) -> None:
    with pytest.raises(Unavailable) as given_up:
        call()

    assert str(given_up.value).startswith("s3://bucket/")
    assert f": no end after {SECONDS:g} s of waiting; check the network and the server" in str(given_up.value)
    assert waiting.VARIABLE in str(given_up.value)
    wait_until(lambda: server.open == 0, "its connections are closed")


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of the test's own for files of any size, which asks once."""
    monkeypatch.setattr(streams, "_S3", S3(ONE_TRY))


@pytest.fixture
def scoring(artifacts: Path, trained: Repository, monkeypatch: pytest.MonkeyPatch, streaming: None) -> Iterator[None]:
    monkeypatch.setenv("MODEL_URI", str(artifacts / "onnx"))
    monkeypatch.setenv("MODEL_DIGEST", trained.manifest().digest)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_batch_whose_input_drips_writes_nothing_and_may_be_tried_again(
    server: Dripping, scoring: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()

    for given, output in (("in.csv", "out.csv"), ("in/", "out/")):
        code = batch.main(["--input", f"s3://bucket/{given}", "--output", f"{tmp_path}/out/{output}"])

        assert code == batch.TRY_AGAIN
        assert f"error: s3://bucket/{given}: no end after {SECONDS:g} s of waiting; " in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("reads", [True, False])
def test_a_batch_whose_output_drips_may_be_tried_again(
    scoring: None, reads: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.csv").write_text("sepal_length,sepal_width,petal_length,petal_width,note\n5.3,3.5,1.4,0.2,x\n")
    with dripping(ANSWERS["a header"], reads=reads) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        code = batch.main(["--input", f"{tmp_path}/in.csv", "--output", "s3://bucket/out.csv"])

    assert code == batch.TRY_AGAIN
    assert f"error: s3://bucket/out.csv: no end after {SECONDS:g} s of waiting; " in capsys.readouterr().err


def test_an_upload_that_is_taken_a_byte_now_and_then_is_given_up(
    streaming: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than the kernels keep between two processes."""
    with dripping(b"", reads=False) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        with pytest.raises(Unavailable, match="s3://bucket/name: no end after"):
            open_place("s3://bucket", "--place", ONE_TRY).add("name", bytes(16 << 20))


def test_what_is_slow_and_goes_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more bytes than one step, each step in time, and far more time than one step has."""
    monkeypatch.setenv(waiting.VARIABLE, "3")
    length = 40 * waiting.STEP
    with dripping(OK + b"Content-Length: %d\r\n\r\n" % length) as server:
        server.drop = b"a" * waiting.STEP
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        content = open_place("s3://bucket", "--place", ONE_TRY).read("name")

    assert content == b"a" * length


def test_the_stream_of_an_object_is_given_up_where_it_stops(streaming: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with dripping(LONG + b"a\n" * 1000) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        with streams.reading("s3://bucket/name") as stream, pytest.raises(Unavailable, match="no end after"):
            for _ in stream:
                pass


def test_a_service_answers_while_its_store_drips_and_is_ready_when_it_recovers(
    serve: Callable[..., Service], artifacts: Path, trained: Repository, s3_url: str
) -> None:
    described = trained.manifest()
    uri = upload(artifacts, described.version, s3_url, "recovers")
    with dripping(LONG) as server:
        service = serve(
            uri, described.digest, AWS_ENDPOINT_URL_S3=server.url, REQUEST_LOG_URI="s3://recovers/requests",
            **{waiting.VARIABLE: f"{6 * SECONDS}"},
        )  # fmt: skip
        client = service.listening()
        wait_until(lambda: server.accepted >= 3, "it tries again and again")

        assert client.get("/healthz").status_code == 200
        assert "no end after" in client.get("/readyz").text
        assert server.open <= 1
        server.port = int(s3_url.rpartition(":")[2])
        wait_until(lambda: client.get("/readyz").status_code == 200, "it is ready")

        assert client.post("/predict", json={"features": SAMPLE}).json()["prediction"] == "setosa"
        assert service.said.count("not ready, trying again: ") == 1
        server.port = None
        assert service.stop() == 0


def test_a_request_log_whose_store_drips_holds_nobody_up(
    serve: Callable[..., Service], artifacts: Path, trained: Repository
) -> None:
    with dripping(ANSWERS["the status line"]) as server:
        service = serve(
            artifacts / "onnx", trained.manifest().digest, AWS_ENDPOINT_URL_S3=server.url,
            REQUEST_LOG_URI="s3://bucket/requests", **{waiting.VARIABLE: f"{6 * SECONDS}"},
        )  # fmt: skip
        client = service.ready()
        for _ in range(3):
            assert client.post("/predict", json={"features": SAMPLE}).status_code == 200

        assert service.stop() == 0
        assert "request log: s3://bucket/requests/lily/" in service.said
        assert "no end after" in service.said
        assert server.accepted >= 1


@pytest.mark.parametrize("value", ["soon", "0"])
def test_a_service_refuses_another_patience(
    serve: Callable[..., Service], artifacts: Path, trained: Repository, value: str
) -> None:
    service = serve("s3://bucket/models/lily/2026-02-01-0123456789ab/onnx/", trained.manifest().digest,
                    **{waiting.VARIABLE: value})  # fmt: skip

    assert service.process.wait(30) == 1
    assert f"error: {waiting.VARIABLE}={value!r}: not a number of seconds above 0" in service.said


@pytest.mark.parametrize("answer", ["a header", "the body"])
def test_an_mlflow_server_that_drips_is_given_up(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lifecycle import tracking

    monkeypatch.setenv(waiting.VARIABLE, "0.2")
    with dripping(ANSWERS[answer]) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        with pytest.raises(Refused) as refused, tracking.experiment("one"):
            pass

    assert refused.value.lines == (
        f"MLflow at {server.url} (MLFLOW_TRACKING_URI): no end after 2 s of waiting; check the network and the server,"
        f" then run the command again; its time is 10 times {waiting.VARIABLE}, now 0.2",
    )

from __future__ import annotations

import random
import re
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from conftest import SAMPLE, Repository, Service, free_port, wait_until
from moto.server import ThreadedMotoServer

from contract.errors import Refused
from contract.manifest import Manifest
from serving import settings
from serving.request_log import Line, RequestLog, object_name, object_time, open_sink
from storage import Unavailable

Serve = Callable[..., Service]
BUCKET = "requests"
NAME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}/[0-9]{6}-.+-[0-9]+\.jsonl")


@pytest.fixture(scope="session")
def described(trained: Repository) -> Manifest:
    return trained.manifest()


def stored(url: str, prefix: str) -> dict[str, bytes]:
    """The objects below a prefix of the bucket."""
    client = boto3.client("s3", endpoint_url=url)
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return {
        item["Key"].removeprefix(prefix): client.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
        for item in listed
    }


def lines_in(folder: Path) -> list[Line]:
    texts = [file.read_text() for file in sorted(folder.rglob("*.jsonl"))]
    return [Line.model_validate_json(line) for text in texts for line in text.splitlines()]


def metric(client: httpx.Client, name: str) -> float:
    [value] = re.findall(rf"^request_log_{name}_total (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(value)


def test_each_row_is_logged_and_named_by_its_answer(
    serve: Serve, artifacts: Path, described: Manifest, s3_url: str
) -> None:
    boto3.client("s3", endpoint_url=s3_url).create_bucket(Bucket=BUCKET)
    before = datetime.now(UTC)
    service = serve(
        artifacts / "onnx", described.digest,
        REQUEST_LOG_URI=f"s3://{BUCKET}/dev/", AWS_ENDPOINT_URL_S3=s3_url,
    )  # fmt: skip
    client = service.ready()

    one = client.post("/predict", json={"features": SAMPLE})
    two = client.post("/predict", json={"features": [SAMPLE, [6.0, 2.9, 4.5, 1.5]]}, headers={"X-Request-Id": "mine"})
    wrong = client.post("/predict", json={"features": [1]})
    assert service.stop() == 0

    assert (one.status_code, two.status_code, wrong.status_code) == (200, 200, 422)
    [(name, content)] = stored(s3_url, f"dev/lily/{described.version}/").items()
    lines = [Line.model_validate_json(line) for line in content.splitlines()]
    assert NAME.fullmatch(name)
    assert socket.gethostname() in name
    ids = [answer.headers["X-Request-Id"] for answer in (one, two)]
    assert [(line.id, line.row) for line in lines] == [(ids[0], 0), (ids[1], 0), (ids[1], 1)]
    assert "mine" not in ids
    assert {(line.model, line.version) for line in lines} == {("lily", described.version)}
    # As it was sent, and not as the nearest float32.
    assert [*lines[0].features.items()] == [
        ("sepal_length", 5.3), ("sepal_width", 3.5), ("petal_length", 1.4), ("petal_width", 0.2),
    ]  # fmt: skip
    answers = [one.json(), *two.json()["predictions"]]
    assert [(line.prediction, line.probabilities) for line in lines] == [
        (answer["prediction"], answer["probabilities"]) for answer in answers
    ]
    assert all(before <= line.time <= datetime.now(UTC) for line in lines)
    first = object_time(name)
    assert first is not None
    assert first <= lines[0].time < first + timedelta(seconds=1)


def test_without_an_address_there_is_no_log_and_still_an_id(serve: Serve, artifacts: Path, described: Manifest) -> None:
    client = serve(artifacts / "onnx", described.digest).ready()

    assert re.fullmatch("[0-9a-f]{32}", client.post("/predict", json={"features": SAMPLE}).headers["X-Request-Id"])
    assert "request_log" not in client.get("/metrics").text


def test_requests_are_answered_and_nothing_is_lost_while_s3_is_away(
    serve: Serve, artifacts: Path, described: Manifest
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def start() -> ThreadedMotoServer:
        server = ThreadedMotoServer(port=port, verbose=False)
        server.start()
        return server

    server = start()
    try:
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET)
        service = serve(
            artifacts / "onnx", described.digest, REQUEST_LOG_URI=f"s3://{BUCKET}/away/", AWS_ENDPOINT_URL_S3=url
        )
        client = service.ready()
        batch = {"features": [SAMPLE] * 1000}
        assert client.post("/predict", json=batch).status_code == 200
        wait_until(lambda: metric(client, "rows") == 1000, "the first object is written")
    finally:
        server.stop()

    assert client.post("/predict", json=batch).status_code == 200
    wait_until(lambda: metric(client, "faults") >= 2, "it is tried again")
    assert client.post("/predict", json=batch).status_code == 200
    assert client.get("/readyz").status_code == 200
    assert metric(client, "rows") == 1000

    # It has the same buckets: moto keeps them in this process.
    server = start()
    try:
        wait_until(lambda: metric(client, "rows") == 3000, "all is written")
        assert metric(client, "rows_dropped") == 0
        assert sum(len(content.splitlines()) for content in stored(url, "away/").values()) == 3000
    finally:
        server.stop()
    assert len([line for line in service.said.splitlines() if line.startswith("request log: ")]) == 1


def test_a_service_whose_log_is_away_can_be_stopped(serve: Serve, artifacts: Path, described: Manifest) -> None:
    service = serve(
        artifacts / "onnx", described.digest,
        REQUEST_LOG_URI=f"s3://{BUCKET}/gone/", AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{free_port()}",
    )  # fmt: skip
    service.ready().post("/predict", json={"features": SAMPLE})

    assert service.stop() == 0
    assert f"request log: s3://{BUCKET}/gone/lily/{described.version}/" in service.said
    assert "Traceback" not in service.said


def test_killing_the_service_leaves_whole_objects(
    serve: Serve, artifacts: Path, described: Manifest, tmp_path: Path
) -> None:
    service = serve(artifacts / "onnx", described.digest, REQUEST_LOG_URI=str(tmp_path / "log"))
    client = service.ready()

    def ask(_: int) -> None:
        try:
            client.post("/predict", json={"features": [SAMPLE] * 500})
        except httpx.HTTPError:
            assert killed.is_set()

    killed = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, number) for number in range(200)]
        wait_until(lambda: len([*(tmp_path / "log").rglob("*.jsonl")]) > 2, "objects are written")
        killed.set()
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    for each in asked:
        each.result()

    lines = lines_in(tmp_path / "log")
    assert len(lines) >= 3000
    assert len(lines) % 1000 == 0


class Blocked:
    """A place that is not answering."""

    def __init__(self) -> None:
        self.asked, self.answer = threading.Event(), threading.Event()

    def add(self, name: str, content: bytes) -> None:
        self.asked.set()
        self.answer.wait()


def rows_of(number: int) -> tuple[list[list[float | None]], list[dict[str, Any]]]:
    answer = {"prediction": "setosa", "probabilities": {"setosa": 1.0}}
    return [[*SAMPLE] for _ in range(number)], [answer] * number


def test_what_does_not_fit_the_queue_is_dropped_and_counted(described: Manifest) -> None:
    place = Blocked()
    log = RequestLog(place, 1, lambda line: None, object_rows=10, queue_rows=15)
    log.add("a" * 32, described, *rows_of(10))
    assert place.asked.wait(10)

    # Ten are being written, fifteen may wait; this returns while the place does not answer.
    for _ in range(3):
        log.add("b" * 32, described, *rows_of(10))

    assert (count(log.dropped), count(log.written)) == (15, 0)
    place.answer.set()
    log.close()
    assert (count(log.dropped), count(log.written)) == (15, 25)


def count(counter: Any) -> float:
    return float(next(sample.value for sample in next(iter(counter.collect())).samples if "created" not in sample.name))


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.25, 200, 300), (1.0, 1000, 1000)])
def test_a_share_of_the_rows_of_each_request_is_logged(
    described: Manifest, tmp_path: Path, share: float, least: int, most: int
) -> None:
    random.seed(5)
    ids = [digit * 32 for digit in "abc"]
    log = RequestLog(open_sink(str(tmp_path)), share, lambda line: None)
    for each in ids:
        log.add(each, described, *rows_of(1000))
    log.close()

    logged = [line.id for line in lines_in(tmp_path)]
    assert all(least <= logged.count(each) <= most for each in ids)
    assert count(log.dropped) == 0


def test_rows_are_written_when_they_have_waited(described: Manifest, tmp_path: Path) -> None:
    log = RequestLog(open_sink(str(tmp_path)), 1, lambda line: None, span=timedelta(seconds=0.05))
    log.add("a" * 32, described, *rows_of(1))

    wait_until(lambda: count(log.written) == 1, "the row is written")
    assert len(lines_in(tmp_path)) == 1
    log.close()


class Failing:
    def add(self, name: str, content: bytes) -> None:
        raise Unavailable("away")


def test_faults_are_counted_and_told_once(described: Manifest) -> None:
    said: list[str] = []
    log = RequestLog(Failing(), 1, said.append, object_rows=1)
    log.add("a" * 32, described, *rows_of(2))
    wait_until(lambda: count(log.faults) >= 2, "it is tried again")
    log.close()

    assert said == ["request log: away"]
    assert count(log.dropped) == 2


def test_a_missing_value_is_null(described: Manifest, tmp_path: Path) -> None:
    log = RequestLog(open_sink(str(tmp_path)), 1, lambda line: None)
    log.add("a" * 32, described, [[5.3, None, 1.4, 0.2]], [{"prediction": 151.5}])
    log.close()

    [line] = lines_in(tmp_path)
    assert (line.features["sepal_width"], line.prediction, line.probabilities) == (None, 151.5, None)


def test_a_row_that_cannot_be_written_does_not_end_the_log(described: Manifest, tmp_path: Path) -> None:
    said: list[str] = []
    log = RequestLog(open_sink(str(tmp_path)), 1, said.append, object_rows=1)
    log.add("a" * 32, described, [[5.3]], [{"prediction": "setosa"}])
    log.add("b" * 32, described, *rows_of(1))
    log.close()

    assert [line.id for line in lines_in(tmp_path)] == ["b" * 32]
    assert (count(log.dropped), len(said)) == (1, 1)


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Refused, match=r"file.*: Not a directory"):
        open_sink(str(tmp_path / "file")).add("lily/v/2026-02-01/120000-host-0.jsonl", b"")


def test_names_say_their_time() -> None:
    time = datetime(2026, 2, 1, 3, 4, 5, 678, tzinfo=UTC)

    assert object_name(time, "lily-api/7b", 12) == "2026-02-01/030405-lily-api_7b-12.jsonl"
    assert object_time("2026-02-01/030405-lily-api_7b-12.jsonl") == time.replace(microsecond=0)
    assert [object_time(name) for name in ("2026-02-31/030405-a-1.jsonl", "x.jsonl", "2026-02-01/1-a-1.jsonl")] == [
        None
    ] * 3


GIVEN = {"MODEL_URI": "onnx", "MODEL_DIGEST": f"sha256:{'0' * 64}"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REQUEST_LOG_URI", "s3://bucket"), ("REQUEST_LOG_URI", "https://bucket/x"), ("REQUEST_LOG_SAMPLE", "1.5"),
        ("REQUEST_LOG_SAMPLE", "-0.1"), ("REQUEST_LOG_SAMPLE", "all"), ("REQUEST_LOG_SAMPLE", ""),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(name: str, value: str) -> None:
    with pytest.raises(Refused, match=f"^{name}: "):
        settings.read(GIVEN | {name: value})


@pytest.mark.parametrize(("value", "share"), [("0", 0.0), ("1", 1.0), ("1.0", 1.0), ("0.25", 0.25), (".5", 0.5)])
def test_shares_are_read(value: str, share: float) -> None:
    assert settings.read(GIVEN | {"REQUEST_LOG_SAMPLE": value}).request_log_sample == share

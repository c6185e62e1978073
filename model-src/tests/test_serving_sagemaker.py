"""What SageMaker asks of a container that it starts with the argument `serve`, of a real process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from conftest import SAMPLE, Repository, Service, free_port, upload, wait_until

Serve = Callable[..., Service]
# On Linux all of 127.0.0.0/8 is this machine, so the port is free there, whatever else runs.
HOST = "127.83.77.1" if sys.platform == "linux" else "127.0.0.1"


@pytest.fixture(scope="session")
def digest(trained: Repository) -> str:
    return trained.manifest().digest


@pytest.fixture
def client(serve: Serve, artifacts: Path, digest: str) -> httpx.Client:
    return serve(artifacts / "onnx", digest, args=("serve",)).ready()


def test_it_listens_where_sagemaker_asks_and_answers_in_time(
    serve: Serve, artifacts: Path, trained: Repository, s3_url: str
) -> None:
    """SageMaker gives a container two seconds an answer, and some minutes to the first that is right."""
    described = trained.manifest()
    uri = upload(artifacts, described.version, s3_url, "sagemaker")
    variables = {"AWS_ENDPOINT_URL_S3": s3_url, "MODEL_MANIFEST": described.sha256, "HOST": HOST}
    began = time.monotonic()

    service = serve(uri, described.digest, args=("serve",), unset=("PORT",), **variables)
    wait_until(lambda: statuses(f"http://{HOST}:8080/ping") == 200, "SageMaker may send requests")

    assert time.monotonic() - began < 30
    assert f"listening on http://{HOST}:8080" in service.said
    answer = httpx.post(f"http://{HOST}:8080/invocations", json={"features": SAMPLE})
    assert answer.json() == {
        "prediction": "setosa", "probabilities": answer.json()["probabilities"], "model_version": described.version,
    }  # fmt: skip


def statuses(url: str) -> int | None:
    try:
        return httpx.get(url, timeout=2).status_code
    except httpx.TransportError:
        return None


@pytest.mark.parametrize("wrong", ["MODEL_DIGEST", "MODEL_MANIFEST"])
def test_another_version_is_never_healthy(
    serve: Serve, artifacts: Path, trained: Repository, s3_url: str, wrong: str
) -> None:
    described, port = trained.manifest(), free_port()
    uri = upload(artifacts, described.version, s3_url, f"wrong-{wrong.removeprefix('MODEL_').lower()}")
    right = {"MODEL_DIGEST": described.digest, "MODEL_MANIFEST": described.sha256, "PORT": str(port)}
    given = right | {wrong: f"sha256:{'0' * 64}", "AWS_ENDPOINT_URL_S3": s3_url}
    service = serve(uri, given.pop("MODEL_DIGEST"), args=("serve",), **given)

    def asked() -> Iterator[int | None]:
        while service.process.poll() is None:
            yield statuses(f"http://127.0.0.1:{port}/ping")

    assert 200 not in set(asked())
    assert service.process.wait(30) == 1
    assert service.said.count("error: ") == 1


def test_it_is_not_healthy_while_its_store_is_away(serve: Serve, digest: str) -> None:
    uri, away = "s3://bucket/models/lily/2026-02-01-0123456789ab/onnx/", f"http://127.0.0.1:{free_port()}"
    client = serve(uri, digest, args=("serve",), AWS_ENDPOINT_URL_S3=away).listening()

    wait_until(lambda: "Could not connect" in client.get("/readyz").json()["reason"], "the reason is said")

    assert client.get("/ping").status_code == 503
    assert client.post("/invocations", json={"features": SAMPLE}).status_code == 503


@pytest.mark.parametrize("features", [SAMPLE, [SAMPLE, [6.0, 2.9, 4.5, 1.5]]])
def test_it_answers_as_predict_does(client: httpx.Client, features: list[float] | list[list[float]]) -> None:
    given = {"features": features}

    answers = [client.post(path, json=given) for path in ("/invocations", "/predict")]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["content-type"] == "application/json"


def test_lines_of_csv_are_a_batch(client: httpx.Client) -> None:
    rows = [SAMPLE, [6.0, 2.9, 4.5, 1.5]]
    lines = "5.3,3.5,1.4,0.2\r\n6.0, 2.9 ,4.5,1.5\r\n"

    answer = client.post("/invocations", content=lines, headers={"Content-Type": "text/csv; charset=utf-8"})

    assert answer.json() == client.post("/predict", json={"features": rows}).json()
    one = client.post("/invocations", content="5.3,3.5,1.4,0.2", headers={"Content-Type": "text/csv"})
    assert [each["prediction"] for each in one.json()["predictions"]] == ["setosa"]


@pytest.mark.parametrize(
    ("content_type", "body", "status", "part"),
    [
        ("application/json", b"{", 422, "Invalid JSON"),
        ("application/json", b'{"features": [1, 2]}', 422, "2 numbers, but the model takes 4"),
        ("application/json", b'{"features": [1, 2, 3, "4"]}', 422, "valid number"),
        ("application/json", b'{"features": [1, 2, 3, null]}', 422, "null, but the model needs a number"),
        ("application/json", b'{"rows": []}', 422, "Field required"),
        ("application/json", b" " * ((1 << 20) + 1), 413, "more than 1048576 bytes"),
        ("text/csv", b"", 422, "0 numbers, but the model takes 4"),
        ("text/csv", b"1,2,3\n", 422, "3 numbers, but the model takes 4"),
        ("text/csv", b"1,2,3,\n", 422, "null, but the model needs a number"),
        ("text/csv", b"sepal_length,2,3,4\n", 422, "valid number"),
        ("text/csv", b"nan,2,3,1_0\n", 422, "valid number"),
        ("text/csv", b"1e39,2,3,4\n", 422, "less than or equal"),
        ("text/csv", b'1,2,3,"4\n', 422, "not CSV in UTF-8"),
        ("text/csv", b"\xff,2,3,4\n", 422, "not CSV in UTF-8"),
        ("text/csv", b"1,2,3,4\n" * 1001, 422, "at most 1000 items"),
        ("application/x-npy", b"1", 415, "not one of application/json, text/csv"),
    ],
)
def test_what_cannot_be_answered_is_the_callers_fault(
    client: httpx.Client, content_type: str, body: bytes, status: int, part: str
) -> None:
    answer = client.post("/invocations", content=body, headers={"Content-Type": content_type})

    assert answer.status_code == status
    assert part in answer.text
    assert client.get("/ping").status_code == 200


def test_without_the_argument_only_predict_is_answered(serve: Serve, artifacts: Path, digest: str) -> None:
    client = serve(artifacts / "onnx", digest).ready()

    assert client.get("/ping").status_code == 404
    assert client.post("/invocations", json={"features": SAMPLE}).status_code == 404


def test_another_argument_is_wrong_usage(serve: Serve, artifacts: Path, digest: str) -> None:
    service = serve(artifacts / "onnx", digest, args=("train",))

    assert service.process.wait(30) == 2
    assert "invalid choice: 'train'" in service.said

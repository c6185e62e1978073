from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest
from conftest import SAMPLE, SOURCE, Repository, Service, free_port, upload, wait_until
from moto.server import ThreadedMotoServer

Serve = Callable[..., Service]


@pytest.fixture(scope="session")
def digest(trained: Repository) -> str:
    return trained.manifest().digest


def test_the_process_needs_nothing_that_the_serve_lock_lacks(serve: Serve, artifacts: Path, digest: str) -> None:
    """What it imports from start to stop, requests included, comes from the locked distributions."""
    service = serve(artifacts / "onnx", digest, options=("-X", "importtime"))
    client = service.ready()
    assert client.post("/predict", json={"features": SAMPLE}).json()["prediction"] == "setosa"
    assert client.get("/metrics").status_code == client.get("/openapi.json").status_code == 200
    assert service.stop() == 0

    imported = {line.rsplit("|")[-1].strip() for line in service.said.splitlines() if "import time:" in line}
    owners = owners_of(imported)
    # Every virtual environment with setuptools loads this hook before any program begins.
    distributions = {owners[module] for module in imported - {"_distutils_hack"} if module in owners}
    lock = (SOURCE / "requirements-serve.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", lock, re.MULTILINE))
    assert {"fastapi", "onnxruntime", "numpy", "uvicorn", "pydantic"} <= distributions
    # What FastAPI and its libraries use if it is there, as it is where everything is tested, and do without elsewhere.
    assert distributions - {"orjson", "multipart", "sniffio"} <= pinned
    assert "sklearn" not in imported


def owners_of(imported: set[str]) -> dict[str, str]:
    """Module to distribution. By full name: many distributions share a package such as `google`."""
    by_package = metadata.packages_distributions()
    candidates = {name for module in imported for name in by_package.get(module.split(".")[0], ())}
    return {
        ".".join(file.with_name(file.name.split(".")[0]).parts).removesuffix(".__init__"): normal(name)
        for name in candidates
        for file in metadata.files(name) or ()
        if file.suffix in (".py", ".so")
    }


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def test_a_version_is_served_from_s3(
    serve: Serve, artifacts: Path, trained: Repository, s3_url: str, tmp_path: Path
) -> None:
    described = trained.manifest()
    uri = upload(artifacts, described.version, s3_url, "served")
    service = serve(uri, described.digest, AWS_ENDPOINT_URL_S3=s3_url)

    client = service.ready()

    assert client.get("/readyz").json()["version"] == described.version
    assert f"serving lily {described.version}" in service.said


@pytest.mark.parametrize(
    ("uri", "wrong", "line"),
    [
        ("onnx", "sha256:" + "0" * 64, r"error: manifest.json: the version's digest is \S+, but "),
        ("sklearn", None, r"error: manifest.json: lists no sklearn/model.onnx; "),
        ("absent/onnx", None, r"error: .*absent/manifest.json: No such file or directory; is MODEL_URI right\?"),
    ],
)
def test_a_version_that_can_never_be_served_ends_the_process(
    serve: Serve, artifacts: Path, digest: str, uri: str, wrong: str | None, line: str
) -> None:
    service = serve(artifacts / uri, wrong or digest)

    assert service.process.wait(30) == 1
    errors = [said for said in service.said.splitlines() if not said.startswith("listening on ")]
    assert len(errors) == 1
    assert re.match(line, errors[0])


def test_missing_settings_end_the_process(serve: Serve) -> None:
    service = serve("", "")

    assert service.process.wait(30) == 1
    assert [line.split(":")[:2] for line in service.said.splitlines()] == [
        ["error", " MODEL_URI"], ["error", " MODEL_DIGEST"],
    ]  # fmt: skip


def test_a_port_that_is_taken_ends_the_process(serve: Serve, artifacts: Path, digest: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = serve(artifacts / "onnx", digest, PORT=str(taken.getsockname()[1]))

        assert service.process.wait(30) == 1
    assert re.fullmatch(
        r"error: HOST 127.0.0.1, PORT \d+: Address already in use.*; set PORT to another if it is in use\n",
        service.said,
    )


def test_a_store_that_is_away_is_waited_for(serve: Serve, artifacts: Path, trained: Repository, s3_url: str) -> None:
    described = trained.manifest()
    uri = upload(artifacts, described.version, s3_url, "away")
    port = free_port()
    service = serve(uri, described.digest, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{port}")
    client = service.listening()

    wait_until(lambda: "Could not connect" in client.get("/readyz").json()["reason"], "the reason is said")
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200
    assert client.post("/predict", json={"features": SAMPLE}).status_code == 503
    assert service.said.count("not ready, trying again: ") == 1

    # It has the same buckets: moto keeps them in this process.
    server = ThreadedMotoServer(port=port, verbose=False)
    server.start()
    try:
        wait_until(lambda: client.get("/readyz").status_code == 200, "the service is ready")
    finally:
        server.stop()
    assert client.post("/predict", json={"features": SAMPLE}).status_code == 200


def test_a_service_that_waits_for_its_store_can_be_stopped(serve: Serve, digest: str) -> None:
    uri = "s3://bucket/models/lily/2026-02-01-0123456789ab/onnx/"
    service = serve(uri, digest, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{free_port()}")
    service.listening()

    assert service.stop() == 0


def test_sigterm_finishes_what_was_begun(serve: Serve, artifacts: Path, digest: str) -> None:
    """Unready first, then still answering, then gone; a request under way is answered."""
    service = serve(artifacts / "onnx", digest, DRAIN_SECONDS="1")
    client = service.ready()
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20) as slow:
        body = b'{"features": [5.3, 3.5, 1.4, 0.2]}'
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:10])
        service.process.send_signal(signal.SIGTERM)

        wait_until(lambda: client.get("/readyz").status_code == 503, "the service is unready")
        assert client.get("/readyz").json()["reason"] == "stopping"
        assert client.post("/predict", json={"features": SAMPLE}).status_code == 200
        wait_until(lambda: not listens(client.base_url.port or 0), "no new connection is taken")
        assert service.process.poll() is None

        slow.sendall(body[10:])
        assert slow.recv(1 << 16).startswith(b"HTTP/1.1 200")
    assert service.process.wait(30) == 0
    assert "Traceback" not in service.said


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_interrupting_is_quick_and_quiet(serve: Serve, artifacts: Path, digest: str) -> None:
    service = serve(artifacts / "onnx", digest, DRAIN_SECONDS="60")
    service.ready()

    assert service.stop(signal.SIGINT) == 130
    assert "Traceback" not in service.said


def test_many_requests_at_once_are_answered(serve: Serve, artifacts: Path, digest: str) -> None:
    client = serve(artifacts / "onnx", digest).ready()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.post("/predict", json={"features": SAMPLE}), range(200)))

    assert {answer.status_code for answer in answers} == {200}


def test_services_that_share_a_port_listen_once_they_have_their_model_and_tell_systemd(
    serve: Serve, artifacts: Path, digest: str, tmp_path: Path
) -> None:
    port = str(free_port())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        shared = {"PORT": port, "SHARED_PORT": "1", "NOTIFY_SOCKET": str(tmp_path / "notify")}
        first = serve(artifacts / "onnx", digest, **shared)
        assert systemd.recv(100) == b"READY=1"
        wrong = serve(artifacts / "onnx", f"sha256:{'0' * 64}", **shared)
        assert wrong.process.wait(30) == 1
        second = serve(artifacts / "onnx", digest, **shared)
        assert systemd.recv(100) == b"READY=1"

    assert "listening on" not in wrong.said
    assert second.said.index("serving lily") < second.said.index("listening on")
    client = second.listening()
    # Whichever is gone, all that comes is answered.
    assert first.stop() == 0
    assert [client.post("/predict", json={"features": SAMPLE}).status_code for _ in range(20)] == [200] * 20
    assert second.stop() == 0

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from conftest import upload, wanted

from contract import manifest
from contract.digest import version_digest
from contract.errors import Refused
from contract.manifest import Manifest
from contract.version import Expected
from serving import model, settings
from serving.settings import Wanted
from serving.source import Source, open_source
from serving.state import State
from storage import Unavailable

NAME = "2026-02-01-0123456789ab"
DIGEST = "sha256:" + "0" * 64


def described(version: Path) -> Manifest:
    return manifest.parse((version / "manifest.json").read_bytes(), "manifest.json")


def forge(version: Path) -> None:
    """Overwrites the model and makes the manifest agree with it in every place: only the release knows better."""
    data = json.loads((version / "manifest.json").read_text())
    content = (version / "onnx/model.onnx").read_bytes() + b"\x00"
    (version / "onnx/model.onnx").write_bytes(content)
    data["files"][0] |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    data["digest"] = version_digest((file["path"], file["sha256"]) for file in data["files"])
    data["version"] = manifest.version_name(data["version"][:10], data["digest"])
    (version / "manifest.json").write_text(json.dumps(data))


def flip(version: Path) -> None:
    content = bytearray((version / "onnx/model.onnx").read_bytes())
    content[1000] ^= 1
    (version / "onnx/model.onnx").write_bytes(content)


def truncate(version: Path) -> None:
    (version / "onnx/model.onnx").write_bytes((version / "onnx/model.onnx").read_bytes()[:-1])


def lengthen(version: Path) -> None:
    (version / "onnx/model.onnx").write_bytes((version / "onnx/model.onnx").read_bytes() + b"x")


def relist(version: Path) -> None:
    flip(version)
    text = (version / "manifest.json").read_text()
    new = hashlib.sha256((version / "onnx/model.onnx").read_bytes()).hexdigest()
    (version / "manifest.json").write_text(text.replace(described(version).files[0].sha256, new))


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (forge, r"the version's digest is sha256:\w+, but sha256:\w+ is asked for; the release and the stored version"),
    (flip, r"onnx/model.onnx: sha256: \w+, but manifest.json has \w+; it was altered"),
    (truncate, r"onnx/model.onnx: size: \d+ bytes, but manifest.json has \d+; it was altered or cut short"),
    (lengthen, r"onnx/model.onnx: size: more than \d+ bytes, but manifest.json has \d+"),
    (relist, r"manifest.json: digest: sha256:\w+, but the listed files give sha256:\w+"),
    (lambda version: (version / "manifest.json").unlink(), "manifest.json"),
    (lambda version: (version / "onnx/model.onnx").unlink(), "model.onnx"),
    (lambda version: (version / "manifest.json").write_text("{"), "manifest.json: not JSON: "),
    (lambda version: (version / "manifest.json").write_bytes(b" " * (1 << 21)), "larger than 1048576 bytes"),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_a_damaged_version_is_not_loaded(version: Path, damage: Callable[[Path], None], message: str) -> None:
    digest = described(version).digest
    damage(version)

    with pytest.raises(Refused, match=message):
        model.load(wanted(version / "onnx", digest))


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_a_damaged_version_is_not_loaded_from_s3(
    version: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
    damage: Callable[[Path], None], message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    good = described(version)
    damage(version)
    bucket = "damaged-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]

    with pytest.raises(Refused, match=message):
        model.load(wanted(upload(version, good.version, s3_url, bucket), good.digest))


def from_replica(folder: Path, s3_url: str, bucket: str, named: Manifest) -> Callable[[], model.Model]:
    """What loads a version by its URI in a bucket that cannot be reached, from a replica with this folder's files."""
    upload(folder, named.version, s3_url, bucket)
    variables = {
        "MODEL_URI": f"s3://away/models/lily/{named.version}/onnx/", "MODEL_REPLICA": bucket,
        "MODEL_DIGEST": named.digest, "MODEL_MANIFEST": named.sha256,
    }  # fmt: skip
    return lambda: model.load(settings.read_model(variables))


def test_a_version_is_loaded_where_only_the_replica_can_be_reached(
    artifacts: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    good = described(artifacts)

    assert from_replica(artifacts, s3_url, "replica", good)().manifest == good


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_a_damaged_version_is_not_loaded_from_a_replica_although_its_bucket_has_a_good_one(
    artifacts: Path, version: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
    damage: Callable[[Path], None], message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    good = described(version)
    upload(artifacts, good.version, s3_url, "away")
    damage(version)
    bucket = "replica-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]

    # What a manifest has is bound by its own hash, before any of it is read.
    with pytest.raises(Refused, match=f"{message}|MODEL_MANIFEST is {good.sha256}, but the stored one has"):
        from_replica(version, s3_url, bucket, good)()


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"MODEL_REPLICA": ""}, "MODEL_REPLICA: not set; set it to the bucket to read in the place of the URI's"),
        ({"MODEL_REPLICA": "s3://replica"}, "MODEL_REPLICA: 's3://replica' is not the bucket to read in the place of"),
        ({"MODEL_REPLICA": "replica/more"}, "MODEL_REPLICA: 'replica/more' is not the bucket to read in the place of"),
        ({"MODEL_URI": "artifacts/onnx"}, "MODEL_REPLICA: 'replica', and MODEL_URI 'artifacts/onnx' is in no bucket"),
    ],
)
def test_a_replica_is_a_bucket_in_the_place_of_another(variables: dict[str, str], line: str) -> None:
    given = {"MODEL_URI": f"s3://away/models/lily/{NAME}/onnx/", "MODEL_REPLICA": "replica"}
    with pytest.raises(Refused) as refused:
        settings.read_model(given | {"MODEL_DIGEST": DIGEST, "MODEL_MANIFEST": DIGEST} | variables)

    assert len(refused.value.lines) == 1
    assert refused.value.lines[0].startswith(line)


def test_a_replica_is_believed_only_by_the_hash_of_its_manifest() -> None:
    uri = f"s3://away/models/lily/{NAME}/onnx/"
    with pytest.raises(Refused, match="MODEL_MANIFEST: not set beside MODEL_REPLICA; set it to the SHA-256 of"):
        settings.read_model({"MODEL_URI": uri, "MODEL_DIGEST": DIGEST, "MODEL_REPLICA": "replica"})


ALTERED: dict[str, Callable[[dict[str, Any]], None]] = {
    "metrics": lambda data: data["metrics"].update(accuracy=1.0),
    "parameters": lambda data: data["parameters"].update(seed=1),
    "version": lambda data: data.update(version=f"2001{data['version'][4:]}"),
    "code_commit": lambda data: data.update(code_commit="0" * 40),
    "data_digest": lambda data: data.update(data_digest=f"sha256:{'0' * 64}"),
    "evaluation_set_digest": lambda data: data.update(evaluation_set_digest=f"sha256:{'0' * 64}"),
    "mlflow_run": lambda data: data.update(mlflow_run="0" * 32),
    "frameworks": lambda data: data["frameworks"].update(numpy="0"),
    "draft": lambda data: data.update(draft=not data["draft"]),
    "model": lambda data: data.update(model="rose"),
    "signature": lambda data: data["signature"]["outputs"][0]["labels"].reverse(),
    "schema": lambda data: data.update(schema=1),
    "digest": lambda data: data.update(digest=f"sha256:{'0' * 64}"),
    "files": lambda data: data["files"].pop(),
}
ANSWERS = ("signature", "schema", "digest", "files")
"""What decides an answer, so the digest alone binds it; the others decide none."""


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_manifest_of_the_same_files_is_refused(version: Path, name: str) -> None:
    kept = described(version)
    data = json.loads((version / "manifest.json").read_text())
    assert data.keys() == ALTERED.keys()
    ALTERED[name](data)
    (version / "manifest.json").write_text(json.dumps(data))
    released = Wanted(f"{version}/onnx", Expected(kept.digest, None, kept.sha256))

    with pytest.raises(Refused, match=rf"^manifest.json: MODEL_MANIFEST is {kept.sha256}, but the stored one has "):
        model.load(released)
    if name in ANSWERS:
        with pytest.raises(Refused, match=r"^manifest.json: "):
            model.load(wanted(version / "onnx", kept.digest))
    else:
        assert model.load(wanted(version / "onnx", kept.digest)).manifest.signature == kept.signature


@pytest.mark.parametrize("given", ["", "unreleased", "0" * 64, f"sha256:{'0' * 64}\n", f"sha256:{'A' * 64}"])
def test_a_manifest_variable_that_names_none_is_refused(given: str) -> None:
    variables = {"MODEL_URI": "x/onnx", "MODEL_DIGEST": f"sha256:{'0' * 64}"}

    with pytest.raises(Refused, match=r"^MODEL_MANIFEST: .* the SHA-256 of manifest.json"):
        settings.read_model(variables | {"MODEL_MANIFEST": given})
    assert settings.read_model(variables).expected.manifest is None


def test_a_model_that_is_no_model_is_refused(version: Path) -> None:
    (version / "onnx/model.onnx").write_bytes(b"")
    forge(version)
    forged = described(version)

    with pytest.raises(Refused, match=r"model.onnx: not a model that can be run"):
        model.load(wanted(version / "onnx", forged.digest))


@pytest.mark.parametrize(
    ("change", "said"),
    [("inputs", "not a model that can be run"), ("labels", "does not give a probability for each label")],
)
def test_a_signature_that_is_not_the_models_is_refused(version: Path, change: str, said: str) -> None:
    data = json.loads((version / "manifest.json").read_text())
    if change == "inputs":
        data["signature"]["inputs"].pop()
    else:
        data["signature"]["outputs"][0]["labels"].pop()
        data["signature"]["outputs"][0]["shape"][1] -= 1
    text = manifest.dump_signature(manifest.Signature.model_validate(data["signature"]))
    (listed,) = (file for file in data["files"] if file["path"] == manifest.SIGNATURE)
    listed |= {"sha256": hashlib.sha256(text).hexdigest(), "size": len(text)}
    data["digest"] = version_digest((file["path"], file["sha256"]) for file in data["files"])
    data["version"] = manifest.version_name(data["version"][:10], data["digest"])
    (version / "manifest.json").write_text(json.dumps(data))

    with pytest.raises(Refused, match=said):
        model.load(wanted(version / "onnx", data["digest"]))


def test_another_flavour_is_refused(artifacts: Path) -> None:
    with pytest.raises(Refused, match=r"lists no sklearn/model.onnx; MODEL_URI has to end in the folder of the ONNX"):
        model.load(wanted(artifacts / "sklearn", described(artifacts).digest))


def test_a_version_is_read_from_s3_and_from_a_file_uri(
    artifacts: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    good = described(artifacts)
    uri = upload(artifacts, good.version, s3_url, "good")

    for given in (uri, uri.rstrip("/"), f"file://{artifacts}/onnx/"):
        assert model.load(wanted(given, good.digest)).manifest == good


def test_a_version_under_another_ones_name_is_refused(
    artifacts: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    good = described(artifacts)
    uri = upload(artifacts, "2026-01-01-000000000000", s3_url, "misnamed")

    with pytest.raises(
        Refused, match=f"is of lily {good.version}, but it lies in s3://misnamed/models/lily/2026-01-01-000000000000/"
    ):
        model.load(wanted(uri, good.digest))


def test_a_version_that_does_not_exist_is_refused(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    boto3.client("s3", endpoint_url=s3_url).create_bucket(Bucket="empty")

    for bucket, code in (("empty", "NoSuchKey"), ("absent", "NoSuchBucket")):
        with pytest.raises(Refused, match=rf"s3://{bucket}/models/lily/{NAME}/manifest.json: .*{code}.*check MODEL_"):
            open_source(f"s3://{bucket}/models/lily/{NAME}/onnx/").read("manifest.json", 10)


def test_missing_credentials_are_refused(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(Refused, match=r"Unable to locate credentials; check the AWS_ variables"):
        open_source(f"s3://bucket/models/lily/{NAME}/onnx/").read("manifest.json", 10)


@dataclass
class FaultyStore:
    """An S3 that answers what a test tells it to: moto has no way to fail."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    url: str = ""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    told = FaultyStore()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(told.status)
            for name, value in ({"Content-Length": str(len(told.body))} | told.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(told.body)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", told.url)
    yield told
    server.shutdown()
    server.server_close()


@pytest.fixture
def stored() -> Source:
    return open_source(f"s3://bucket/models/lily/{NAME}/onnx/")


@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (429, "TooMany"), (400, "RequestTimeout")]
)
def test_a_store_that_is_overloaded_is_asked_again(store: FaultyStore, stored: Source, status: int, code: str) -> None:
    store.status, store.body = status, f"<Error><Code>{code}</Code></Error>".encode()

    with pytest.raises(Unavailable, match=code):
        stored.read("manifest.json", 10)


def test_a_store_that_forbids_is_not(store: FaultyStore, stored: Source) -> None:
    store.status, store.body = 403, b"<Error><Code>AccessDenied</Code></Error>"

    with pytest.raises(Refused, match=r"AccessDenied.*permission to read it"):
        stored.read("manifest.json", 10)


def test_an_answer_that_is_cut_short_is_asked_for_again(store: FaultyStore, stored: Source) -> None:
    store.body, store.headers = b"half", {"Content-Length": "8"}

    with pytest.raises(Unavailable, match=rf"s3://bucket/models/lily/{NAME}/manifest.json: "):
        stored.read("manifest.json", 10)


def test_a_checksum_that_the_store_itself_contradicts_is_refused(store: FaultyStore, stored: Source) -> None:
    """boto3 notices before we do; what is said must be as clear."""
    store.body, store.headers = b"altered", {"x-amz-checksum-crc32": "AAAAAA=="}

    with pytest.raises(Refused, match=r"/onnx/model.onnx: the stored bytes were altered: .*do not use them"):
        stored.read("onnx/model.onnx", 10)


def test_no_more_is_read_than_needed_to_know(store: FaultyStore, stored: Source) -> None:
    store.body = b"x" * (4 << 20)

    assert 10 < len(stored.read("manifest.json", 10)) <= 1 << 20


def test_loading_is_tried_until_it_succeeds(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.state.FIRST_DELAY", 0.001)
    good = model.load(wanted(artifacts / "onnx", described(artifacts).digest))
    answers: list[Exception] = [Unavailable("away"), Unavailable("away"), Unavailable("slow")]
    said: list[str] = []
    state = State()

    def load() -> model.Model:
        if answers:
            raise answers.pop(0)
        return good

    state.load(load, said.append)

    assert state.ready is good
    assert said == ["not ready, trying again: away", "not ready, trying again: slow"]


@pytest.mark.parametrize(
    ("error", "line"),
    [(Refused("wrong digest"), "wrong digest"), (ValueError("x\ny"), "loading the model: ValueError: x y")],
)
def test_loading_is_not_tried_again_in_vain(error: Exception, line: str) -> None:
    state = State()

    def load() -> model.Model:
        raise error

    state.load(load, print)

    assert state.ready is None
    assert str(state.failure) == line


def test_the_defaults_are_for_one_machine() -> None:
    assert settings.read({"MODEL_URI": "artifacts/lily/onnx", "MODEL_DIGEST": DIGEST}) == settings.Settings(
        wanted("artifacts/lily/onnx", DIGEST), "127.0.0.1", 5001, False, 5.0, request_log_uri="", request_log_sample=1.0
    )


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"MODEL_URI": ""}, "MODEL_URI: not set; set it to the URI of the ONNX folder of a version, s3://BUCKET/"),
        ({"MODEL_URI": "s3://bucket/onnx/"}, "MODEL_URI: 's3://bucket/onnx/' is not the URI of the ONNX folder"),
        (
            {"MODEL_URI": "s3://bucket/models/lily/v/onnx/"},
            "MODEL_URI: 's3://bucket/models/lily/v/onnx/' is not",
        ),
        ({"MODEL_URI": "https://example.org/onnx"}, "MODEL_URI: 'https://example.org/onnx' is not"),
        ({"MODEL_DIGEST": ""}, "MODEL_DIGEST: not set; set it to the version's digest"),
        ({"MODEL_DIGEST": "sha256:12"}, "MODEL_DIGEST: 'sha256:12' is not the version's digest, sha256: and 64 hex"),
        ({"PORT": "http"}, "PORT: 'http' is not a port, 0 to 65535"),
        ({"PORT": "70000"}, "PORT: '70000' is not a port, 0 to 65535"),
        ({"DRAIN_SECONDS": "-1"}, "DRAIN_SECONDS: '-1' is not a number of seconds"),
    ],
)
def test_wrong_settings_are_named(variables: dict[str, str], line: str) -> None:
    with pytest.raises(Refused) as refused:
        settings.read({"MODEL_URI": "onnx", "MODEL_DIGEST": DIGEST} | variables)

    assert len(refused.value.lines) == 1
    assert refused.value.lines[0].startswith(line)

"""The service with MODEL_PUBLIC_KEY: it serves what was signed with that key, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import warm
from conftest import SOURCE, Service, upload, wanted
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from model_signing import hashing, signing
from test_serving_process import owners_of

from contract import manifest, signature
from contract.errors import Refused
from contract.signature import VARIABLE, Key
from lifecycle import comparing
from monitoring import __main__ as monitoring
from serving import model, settings

Serve = Callable[..., Service]


@dataclass(frozen=True)
class Pair:
    private: Path
    public: Path

    @property
    def key(self) -> Key:
        return signature.public_key(self.public.read_bytes(), VARIABLE)


def make_pair(folder: Path, curve: ec.EllipticCurve | None = None) -> Pair:
    folder.mkdir()
    key = ec.generate_private_key(curve or ec.SECP256R1())
    pair = Pair(folder / "signing.key", folder / "signing.pub")
    pair.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pair.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("keys") / "ours")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("keys") / "theirs")


def place(version: Path, pair: Pair) -> Path:
    """Where the signature of a version belongs."""
    of_manifest, of_key = (
        hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in (version / "manifest.json", pair.public)
    )
    return version / f"manifest.json.{of_manifest}.{of_key}.sig"


def sign(version: Path, by: Pair, config: Any = None) -> Path:
    """Signs a version as any user of the library does, into the place of a signature."""
    target = place(version, by)
    signer: Any = (config or signing.Config()).use_elliptic_key_signer(private_key=by.private)
    signer.sign(version / "manifest.json", target)
    return target


@pytest.fixture
def signed(version: Path, pair: Pair) -> Path:
    sign(version, pair)
    return version


def load(version: Path, pair: Pair, digest: str | None = None) -> model.Model:
    described = manifest.parse((version / "manifest.json").read_bytes(), "manifest.json")
    return model.load(wanted(version / "onnx", digest or described.digest, pair.key))


def test_a_signed_version_is_loaded(signed: Path, pair: Pair) -> None:
    assert load(signed, pair).manifest.model == "lily"


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_other_curves_that_the_library_signs_with_are_taken(version: Path, tmp_path: Path, curve: Any) -> None:
    larger = make_pair(tmp_path / "larger", curve)
    sign(version, larger)

    assert load(version, larger).manifest.model == "lily"


def test_a_version_needs_no_signature_where_no_key_is_given(version: Path) -> None:
    described = manifest.parse((version / "manifest.json").read_bytes(), "manifest.json")

    assert model.load(wanted(version / "onnx", described.digest)).manifest == described


def unsigned(version: Path, pair: Pair, foreign: Pair) -> None:
    place(version, pair).unlink()


def by_another_key(version: Path, pair: Pair, foreign: Pair) -> None:
    shutil.copy(sign(version, foreign), place(version, pair))


def by_another_key_that_says_it_is_ours(version: Path, pair: Pair, foreign: Pair) -> None:
    data = json.loads(sign(version, foreign).read_text())
    data["verificationMaterial"]["publicKey"]["hint"] = pair.key.identifier
    place(version, pair).write_text(json.dumps(data))


def of_another_manifest(version: Path, pair: Pair, foreign: Pair) -> None:
    """The digest is still right, and what the manifest has of the model is not."""
    old = place(version, pair)
    data = json.loads((version / "manifest.json").read_text())
    data["metrics"].update(accuracy=1.0)
    (version / "manifest.json").write_text(json.dumps(data))
    old.rename(place(version, pair))


def of_nothing(version: Path, pair: Pair, foreign: Pair) -> None:
    """By the right key, but with everything ignored: the library alone would take it for every file."""
    place(version, pair).unlink()
    config: Any = hashing.Config()
    sign(version, pair, signing.Config().set_hashing_config(config.set_ignored_paths(paths=["."])))


def with_another_payload(version: Path, pair: Pair, foreign: Pair) -> None:
    """A genuine signature whose statement was exchanged for one that fits."""
    old = place(version, pair)
    data = json.loads(old.read_text())
    payload = json.loads(base64.b64decode(data["dsseEnvelope"]["payload"]))
    manifest_data = json.loads((version / "manifest.json").read_text())
    manifest_data["metrics"] = {"accuracy": 1.0}
    (version / "manifest.json").write_text(json.dumps(manifest_data))
    payload["predicate"]["resources"][0]["digest"] = hashlib.sha256(
        (version / "manifest.json").read_bytes()
    ).hexdigest()
    data["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    place(version, pair).write_text(json.dumps(data))


def with_two_envelopes(version: Path, pair: Pair, foreign: Pair) -> None:
    """What we read fits, what the library would read under the other spelling is another thing."""
    data = json.loads(place(version, pair).read_text())
    data["dsse_envelope"] = data["dsseEnvelope"]
    place(version, pair).write_text(json.dumps(data))


def with_a_field_twice(version: Path, pair: Pair, foreign: Pair) -> None:
    """One reader takes the first of them, another the last."""
    text = place(version, pair).read_text()
    place(version, pair).write_text(text.replace('"dsseEnvelope"', '"dsseEnvelope": {}, "dsseEnvelope"', 1))


def with_a_statement_that_says_two_things(version: Path, pair: Pair, foreign: Pair) -> None:
    data = json.loads(place(version, pair).read_text())
    payload = base64.b64decode(data["dsseEnvelope"]["payload"])
    twice = payload.replace(b'"resources"', b'"resources": [], "resources"', 1)
    data["dsseEnvelope"]["payload"] = base64.b64encode(twice).decode()
    place(version, pair).write_text(json.dumps(data))


def garbage(content: bytes) -> Callable[[Path, Pair, Pair], None]:
    return lambda version, pair, foreign: place(version, pair).write_bytes(content) and None


NOT_ONE = r"\.sig: not a signature of Model Signing; remove it and sign the version again"
FAULTS: dict[str, tuple[Callable[[Path, Pair, Pair], None], str]] = {
    "unsigned": (unsigned, r"\.sig: not signed with MODEL_PUBLIC_KEY: .*No such file"),
    "another key": (by_another_key, r"\.sig: signed by another key than MODEL_PUBLIC_KEY"),
    "another key, disguised": (by_another_key_that_says_it_is_ours, r"\.sig: not made with the key MODEL_PUBLIC_KEY"),
    "another manifest": (of_another_manifest, r"\.sig: signs something else than this manifest.json"),
    "nothing": (of_nothing, r"\.sig: signs something else than this manifest.json"),
    "another payload": (with_another_payload, r"\.sig: not made with the key MODEL_PUBLIC_KEY, or altered"),
    "two envelopes": (with_two_envelopes, NOT_ONE),
    "a field twice": (with_a_field_twice, NOT_ONE),
    "a field twice in the statement": (with_a_statement_that_says_two_things, NOT_ONE),
    "no JSON": (garbage(b"garbage"), NOT_ONE),
    "no UTF-8": (garbage(b"\xff\xfe"), NOT_ONE),
    "a number": (garbage(b"1"), NOT_ONE),
    "a list": (garbage(b"[]"), NOT_ONE),
    "no fields": (garbage(b"{}"), NOT_ONE),
    "nested": (garbage(b"[" * 100_000), NOT_ONE),
    "no envelope": (garbage(b'{"mediaType": "", "verificationMaterial": {}, "dsseEnvelope": null}'), NOT_ONE),
    "huge": (garbage(b" " * (1 << 21)), NOT_ONE),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_not_signed_with_the_key_is_not_loaded(signed: Path, pair: Pair, foreign: Pair, name: str) -> None:
    damage, message = FAULTS[name]
    damage(signed, pair, foreign)

    with pytest.raises(Refused, match=message) as refused:
        load(signed, pair)

    assert len(refused.value.lines) == 1
    assert "\n" not in refused.value.lines[0]


def test_the_signature_of_another_version_is_refused(signed: Path, artifacts: Path, tmp_path: Path, pair: Pair) -> None:
    other = Path(shutil.copytree(artifacts, tmp_path / "other"))
    (other / "manifest.json").write_bytes((other / "manifest.json").read_bytes() + b"\n")
    shutil.copy(place(signed, pair), place(other, pair))

    with pytest.raises(Refused, match=r"signs something else than this manifest.json"):
        load(other, pair)


def test_a_signature_does_not_stand_in_for_the_digest(signed: Path, pair: Pair) -> None:
    with pytest.raises(Refused, match="the version's digest is sha256:"):
        load(signed, pair, "sha256:" + "0" * 64)


# The process


@pytest.fixture
def digest(version: Path) -> str:
    return manifest.parse((version / "manifest.json").read_bytes(), "manifest.json").digest


def test_the_key_is_given_by_its_path_or_its_text(serve: Serve, signed: Path, digest: str, pair: Pair) -> None:
    for given in (str(pair.public), pair.public.read_text()):
        service = serve(signed / "onnx", digest, MODEL_PUBLIC_KEY=given)
        assert service.ready().get("/readyz").status_code == 200
        assert service.stop() == 0


def test_a_signed_version_is_served_from_s3_and_an_unsigned_one_ends_the_process(
    serve: Serve, version: Path, digest: str, pair: Pair, s3_url: str
) -> None:
    name = manifest.parse((version / "manifest.json").read_bytes(), "manifest.json").version
    without = upload(version, name, s3_url, "unsigned")
    sign(version, pair)
    uri = upload(version, name, s3_url, "signed")
    variables = {"AWS_ENDPOINT_URL_S3": s3_url, "MODEL_PUBLIC_KEY": str(pair.public)}

    assert serve(uri, digest, **variables).ready().get("/readyz").json()["version"] == name
    service = serve(without, digest, **variables)

    assert service.process.wait(30) == 1
    errors = [said for said in service.said.splitlines() if not said.startswith("listening on ")]
    assert len(errors) == 1
    assert re.match(
        r"error: manifest\.json\.\w{12}\.\w{12}\.sig: not signed with MODEL_PUBLIC_KEY: .*NoSuchKey", errors[0]
    )


def test_a_manifest_altered_in_the_bucket_ends_the_process(serve: Serve, signed: Path, digest: str, pair: Pair) -> None:
    data = json.loads((signed / "manifest.json").read_text())
    data["metrics"].update(accuracy=1.0)
    old = place(signed, pair)
    (signed / "manifest.json").write_text(json.dumps(data))
    old.rename(place(signed, pair))

    service = serve(signed / "onnx", digest, MODEL_PUBLIC_KEY=str(pair.public))

    assert service.process.wait(30) == 1
    assert "signs something else than this manifest.json, which was altered after signing, or the" in service.said
    assert "Traceback" not in service.said


def rsa_key() -> bytes:
    public = rsa.generate_private_key(65537, 2048).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("/nowhere.pub", "MODEL_PUBLIC_KEY: '/nowhere.pub': No such file or directory; set it to a public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n", "MODEL_PUBLIC_KEY: not a public key in PEM form; give"),
        (__file__, "MODEL_PUBLIC_KEY: not a public key in PEM form; give"),
        ("a\0b", "MODEL_PUBLIC_KEY: not a public key in PEM form, nor the file of one"),
    ],
)
def test_a_key_that_is_none_is_refused(given: str, line: str) -> None:
    with pytest.raises(Refused) as refused:
        signature.key_of({VARIABLE: given})

    assert refused.value.lines[0].startswith(line)


def test_a_key_that_the_library_cannot_use_is_refused() -> None:
    for text in (rsa_key().decode(), curve_of_bitcoin()):
        with pytest.raises(Refused, match="MODEL_PUBLIC_KEY: not a key of the curve P-256, P-384 or P-521"):
            signature.key_of({VARIABLE: text})


def curve_of_bitcoin() -> str:
    public = ec.generate_private_key(ec.SECP256K1()).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_a_private_key_is_refused(pair: Pair) -> None:
    with pytest.raises(Refused, match="MODEL_PUBLIC_KEY: a private key, which must never be there"):
        signature.key_of({VARIABLE: str(pair.private)})


def test_a_wrong_key_ends_the_process_before_it_listens(serve: Serve, version: Path, digest: str) -> None:
    service = serve(version / "onnx", digest, MODEL_PUBLIC_KEY="/nowhere.pub")

    assert service.process.wait(30) == 1
    assert service.said.count("\n") == 1
    assert service.said.startswith("error: MODEL_PUBLIC_KEY: '/nowhere.pub': No such file or directory")


def test_an_empty_key_is_a_mistake_and_not_the_wish_to_serve_anything() -> None:
    with pytest.raises(Refused, match="MODEL_PUBLIC_KEY: empty; set it to a public key, as PEM text or a path"):
        settings.read({"MODEL_URI": "onnx", "MODEL_DIGEST": "sha256:" + "0" * 64, "MODEL_PUBLIC_KEY": ""})


# What else loads a model asks for the same


FLOWERS = "sepal_length,sepal_width,petal_length,petal_width\n5.3,3.5,1.4,0.2\n"


def score(uri: str, digest: str, key: str, bucket: str) -> tuple[int, str, list[str]]:
    """A batch over one file in S3, as a process: its exit code, its last line, and what is in the bucket afterwards."""
    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="in/a.csv", Body=FLOWERS.encode())
    done = warm.run(
        ["-m", "serving.batch", "--input", f"s3://{bucket}/in/", "--output", f"s3://{bucket}/out/"],
        SOURCE, os.environ | {"MODEL_URI": uri, "MODEL_DIGEST": digest, "MODEL_PUBLIC_KEY": key},
    )  # fmt: skip
    found = [item["Key"] for item in client.list_objects_v2(Bucket=bucket)["Contents"]]
    return done.returncode, done.stderr.splitlines()[-1], found


def test_a_batch_scores_with_a_version_that_the_key_signed_and_with_no_other(
    version: Path, digest: str, pair: Pair, foreign: Pair, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    name = manifest.parse((version / "manifest.json").read_bytes(), "manifest.json").version
    without = upload(version, name, s3_url, "batch-unsigned")
    sign(version, pair)
    uri = upload(version, name, s3_url, "batch-signed")

    code, said, found = score(uri, digest, str(pair.public), "batch-right")
    assert (code, found) == (0, ["in/a.csv", f"out/{name}/a.csv"]), said
    for number, (place_of, key, line) in enumerate(
        [
            (uri, str(foreign.public), "not signed with MODEL_PUBLIC_KEY: "),
            (without, pair.public.read_text(), "not signed with MODEL_PUBLIC_KEY: "),
            (uri, "/nowhere.pub", "error: MODEL_PUBLIC_KEY: '/nowhere.pub': No such file or directory"),
            (uri, "", "error: MODEL_PUBLIC_KEY: empty; "),
        ]
    ):
        code, said, found = score(place_of, digest, key, f"batch-wrong-{number}")
        assert (code, found) == (1, ["in/a.csv"])
        assert line in said


def test_drift_is_judged_by_a_signed_version_only(
    version: Path, digest: str, pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL_PUBLIC_KEY", str(pair.public))
    (version.parent / "log").mkdir()
    given = ["--version", str(version), "--digest", digest, "--log", str(version.parent / "log")]

    assert monitoring.main([*given, "--out", str(version.parent / "drift")]) == 1
    assert ".sig: not signed with MODEL_PUBLIC_KEY: " in capsys.readouterr().err
    sign(version, pair)
    assert monitoring.main([*given, "--out", str(version.parent / "drift")]) == 1
    assert ": there is no verdict; " in capsys.readouterr().err


def test_a_version_is_compared_with_a_signed_one_only(
    version: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_PUBLIC_KEY", str(pair.public))

    with pytest.raises(Refused, match=r"\.sig: not signed with MODEL_PUBLIC_KEY: "):
        comparing.served(str(version))
    sign(version, pair)
    assert comparing.served(str(version)).manifest.model == "lily"


def test_nothing_is_left_of_the_check(
    signed: Path, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shm").mkdir()
    monkeypatch.setattr(signature, "_FOLDER", tmp_path / "shm")

    load(signed, pair)

    assert list((tmp_path / "shm").iterdir()) == []


def test_the_check_needs_no_file_system_but_memory(signed: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cluster the root file system is read-only, and there is no other."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(FileNotFoundError):
        tempfile.mkdtemp()

    assert load(signed, pair).manifest.model == "lily"


def test_what_checks_a_signature_is_in_the_serve_lock(
    signed: Path, digest: str, pair: Pair, environment: dict[str, str]
) -> None:
    given = {"MODEL_URI": str(signed / "onnx"), "MODEL_DIGEST": digest, "MODEL_PUBLIC_KEY": str(pair.public)}
    script = (
        "import os, sys\n"
        "from contract import signature\n"
        "from serving import model, settings\n"
        "assert 'model_signing' not in sys.modules\n"
        "model.load(settings.read_model(os.environ))\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=SOURCE, env=environment | given, capture_output=True, text=True, check=True
    )

    imported = set(done.stdout.split())
    owners = owners_of(imported)
    distributions = {owners[module] for module in imported - {"_distutils_hack"} if module in owners}
    pinned = re.findall(r"^([a-z0-9.-]+)==", (SOURCE / "requirements-serve.txt").read_text(), re.MULTILINE)
    assert {"model-signing", "pyopenssl", "cryptography", "sigstore"} <= distributions <= set(pinned)

"""Signed versions: what is signed when, what is refused, and that the stock command line agrees."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import yaml
from conftest import BUCKET, IMAGE, ROOT, S3, Checkout, Result, Version, make_checkout, package
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gitops.models import signing, store
from gitops.models.s3 import Store
from gitops.models.signing import Identity
from gitops.repo.policy import POLICY_FILE, SigningPolicy, read_policy

from contract import signature
from contract.errors import Refused
from contract.manifest import parse
from contract.signature import Key
from contract.uri import parse_uri
from packing import lineage

PUBLIC = "base/api/signed/model-signing.pub"
IDENTITY = "https://github.com/example-org/model-gitops/.github/workflows/mlops-pipeline.yml@refs/heads/cicd"
ISSUER = "https://token.actions.githubusercontent.com"


class Pair(NamedTuple):
    private: Path
    public: Path

    @property
    def key(self) -> Key:
        return signature.public_key(self.public.read_bytes(), PUBLIC)


def make_pair(folder: Path) -> Pair:
    folder.mkdir()
    pair = Pair(folder / "signing.key", folder / "model-signing.pub")
    pair.private.write_bytes(signing.new_private_key())
    pair.public.write_bytes(signing.public_half(pair.private).pem)
    return pair


def pair_named(name: str) -> Any:
    """A fixture: a pair of keys in a folder of this name."""

    @pytest.fixture(scope="session", name=name)
    def made(tmp_path_factory: pytest.TempPathFactory) -> Pair:
        return make_pair(tmp_path_factory.mktemp("keys") / name)

    return made


pair, foreign = pair_named("pair"), pair_named("foreign")


@pytest.fixture(scope="module")
def asking_template(template: Path, tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Path:
    """A remote whose policy on cicd asks for the signature of our key. Tests must not change it."""
    made = make_checkout(template, tmp_path_factory.mktemp("asking"))
    done = made.run("signing_key", "--private-key", pair.private)
    assert done.code == 0, done.err
    made.commit("Ask for signatures", push=True)
    return made.remote


@pytest.fixture
def asking(asking_template: Path, tmp_path: Path) -> Checkout:
    """A clone whose policy asks for the signature of our key."""
    return make_checkout(asking_template, tmp_path)


@pytest.fixture
def packaged(tmp_path: Path, s3: S3) -> Version:
    return package(tmp_path / "packaged")


def upload(checkout: Checkout, version: Version, *args: str | Path) -> Result:
    return checkout.run("upload_model", "--model", "lily", "--artifacts", version.folder, *args)


def bump(checkout: Checkout, version: Version, app: str = "lily-sklearn") -> Result:
    image = ("--image", IMAGE) if app == "lily-api" else ()
    return checkout.run("bump_model", "--app", app, "--env", "dev", "--model-uri", version.uri, "--push", *image)


def name(version: Version, pair: Pair, folder: Path | None = None) -> str:
    text = ((folder or version.folder) / "manifest.json").read_bytes()
    return f"manifest.json.{hashlib.sha256(text).hexdigest()[:12]}.{pair.key.identifier[:12]}.sig"


def key(version: Version, path: str) -> str:
    return version.uri.removeprefix(f"s3://{BUCKET}/") + path


def names(s3: S3, version: Version) -> list[str]:
    listed = s3.keys()
    return [stored.removeprefix(key(version, "")) for stored in listed]


def put(s3: S3, version: Version, path: str, body: bytes) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=key(version, path), Body=body)


def get(s3: S3, version: Version, path: str) -> bytes:
    return bytes(s3.client.get_object(Bucket=BUCKET, Key=key(version, path))["Body"].read())


def signed_by(version: Version, by: Pair) -> bytes:
    return signing.sign((version.folder / "manifest.json").read_bytes(), by.private)


def unsigned(version: Version) -> str:
    return (
        f"{version.uri}: not signed by the key {PUBLIC}, which overlays/promotion.yaml asks for; look at it, then sign"
        f" it with `python scripts/sign_model.py --model-uri {version.uri} --sign-key PATH`"
    )


# Uploading


def test_a_version_is_signed_on_upload_and_released(asking: Checkout, packaged: Version, pair: Pair, s3: S3) -> None:
    done = upload(asking, packaged, "--sign-key", pair.private)

    assert done == Result(0, f"{packaged.uri}\n", f"uploaded 5 objects\nsigned by the key {pair.private}\n")
    assert names(s3, packaged) == sorted(
        ["onnx/model.onnx", "signature.json", "sklearn/model.joblib", "manifest.json", name(packaged, pair)]
    )
    assert bump(asking, packaged).code == 0


def test_the_signature_is_stored_before_the_manifest(
    asking: Checkout, packaged: Version, pair: Pair, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, order = Store.add, []

    def recorded(bucket: Store, path: str, *args: Any) -> bool:
        order.append(path.removeprefix(key(packaged, "")))
        return add(bucket, path, *args)

    monkeypatch.setattr(Store, "add", recorded)
    upload(asking, packaged, "--sign-key", pair.private)

    assert order[3:] == [name(packaged, pair), "manifest.json"]


def test_the_stock_command_line_verifies_what_is_stored(
    asking: Checkout, packaged: Version, pair: Pair, foreign: Pair, s3: S3, tmp_path: Path
) -> None:
    upload(asking, packaged, "--sign-key", pair.private)
    (tmp_path / "stored.sig").write_bytes(get(s3, packaged, name(packaged, pair)))
    (tmp_path / "manifest.json").write_bytes(get(s3, packaged, "manifest.json"))

    def verified(public_key: Path) -> tuple[int, str]:
        done = subprocess.run(
            [ROOT / ".venv/bin/model_signing", "verify", "key", tmp_path / "manifest.json",
             "--signature", tmp_path / "stored.sig", "--public_key", public_key],
            capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout

    assert verified(asking.root / PUBLIC) == (0, "Verification succeeded\n")
    assert verified(foreign.public)[0] == 1
    with (tmp_path / "manifest.json").open("a") as file:
        file.write(" ")
    assert verified(asking.root / PUBLIC)[0] == 1


def test_a_signature_by_the_stock_command_line_is_taken_from_beside_the_manifest(
    asking: Checkout, packaged: Version, pair: Pair, s3: S3
) -> None:
    """So that the key can stay in a device, or with somebody else."""
    subprocess.run(
        [ROOT / ".venv/bin/model_signing", "sign", "key", packaged.folder / "manifest.json",
         "--signature", packaged.folder / "manifest.json.sig", "--private_key", pair.private],
        check=True, capture_output=True,
    )  # fmt: skip

    assert upload(asking, packaged).code == 0
    assert get(s3, packaged, name(packaged, pair)) == (packaged.folder / "manifest.json.sig").read_bytes()
    assert bump(asking, packaged).code == 0


def test_a_wrong_signature_beside_the_manifest_is_refused_before_anything_is_stored(
    asking: Checkout, packaged: Version, foreign: Pair, s3: S3
) -> None:
    (packaged.folder / "manifest.json.sig").write_bytes(signed_by(packaged, foreign))

    done = upload(asking, packaged)

    assert done.errors == [
        f"{packaged.folder}/manifest.json.sig: signed by another key than {PUBLIC}; remove it and sign the"
        " version again"
    ]
    assert (done.code, s3.keys()) == (1, [])


def test_a_key_that_the_policy_does_not_ask_for_is_refused_before_anything_is_stored(
    asking: Checkout, packaged: Version, foreign: Pair, s3: S3
) -> None:
    done = upload(asking, packaged, "--sign-key", foreign.private)

    assert done.errors == [
        f"--sign-key {foreign.private}: overlays/promotion.yaml requires a signature by the key {PUBLIC}"
    ]
    assert (done.code, s3.keys()) == (1, [])


def test_without_a_policy_a_version_may_be_signed_or_not(
    checkout: Checkout, packaged: Version, pair: Pair, s3: S3
) -> None:
    assert upload(checkout, packaged, "--sign-key", pair.private).code == 0
    assert name(packaged, pair) in names(s3, packaged)
    assert bump(checkout, packaged).code == 0


def test_an_unsigned_upload_is_stored_and_said_to_be_unsigned(asking: Checkout, packaged: Version, s3: S3) -> None:
    done = upload(asking, packaged)

    assert done == Result(0, f"{packaged.uri}\n", f"uploaded 4 objects\n{unsigned(packaged)}\n")


def test_a_dry_run_signs_nothing(asking: Checkout, packaged: Version, pair: Pair, s3: S3) -> None:
    done = upload(asking, packaged, "--sign-key", pair.private, "--dry-run")

    assert done == Result(0, f"{packaged.uri}\n", "would upload 5 objects\n")
    assert s3.keys() == []


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not a private key in PEM form; `python scripts/signing_key.py` makes one"),
        (
            rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "not a key of the curve P-256, P-384 or P-521",
        ),
        (
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
            ),
            "locked with a password; sign with `model_signing sign key`, which asks for it, into manifest.json.sig"
            " before the upload",
        ),
    ],
    ids=["empty", "rsa", "locked"],
)
def test_a_private_key_that_is_none_is_refused(
    content: bytes, fault: str, checkout: Checkout, packaged: Version, tmp_path: Path, s3: S3
) -> None:
    (tmp_path / "key").write_bytes(content)

    done = upload(checkout, packaged, "--sign-key", tmp_path / "key")

    assert done.errors == [f"{tmp_path}/key: {fault}"]
    assert (done.code, s3.keys()) == (1, [])


# The same version again, races and kills


def test_the_same_upload_again_changes_nothing(asking: Checkout, packaged: Version, pair: Pair, s3: S3) -> None:
    upload(asking, packaged, "--sign-key", pair.private)
    before = {path: get(s3, packaged, path) for path in names(s3, packaged)}

    for args in ([], ["--sign-key", pair.private]):
        assert upload(asking, packaged, *args).code == 0

    assert {path: get(s3, packaged, path) for path in names(s3, packaged)} == before


def test_a_version_that_was_uploaded_unsigned_is_signed_by_the_next_upload_of_the_same_manifest(
    asking: Checkout, packaged: Version, pair: Pair, s3: S3
) -> None:
    upload(asking, packaged)

    done = upload(asking, packaged, "--sign-key", pair.private, "--json")

    assert (done.code, json.loads(done.out)["added"]) == (0, 1)
    assert bump(asking, packaged).code == 0


@pytest.fixture
def again(tmp_path: Path) -> Version:
    """The same files from another run: another manifest."""
    return package(tmp_path / "again", code_commit="beef" * 10, mlflow_run="a" * 32)


def test_the_stored_manifest_wins_and_its_signature_too(
    asking: Checkout, packaged: Version, again: Version, pair: Pair, s3: S3
) -> None:
    upload(asking, packaged, "--sign-key", pair.private)
    before = names(s3, packaged)

    done = upload(asking, again, "--sign-key", pair.private)

    assert done == Result(0, f"{packaged.uri}\n", "these files are a version already, complete and unchanged\n")
    assert names(s3, packaged) == before
    assert bump(asking, packaged).code == 0


def test_a_stored_manifest_of_another_run_is_not_signed_unseen(
    asking: Checkout, packaged: Version, again: Version, pair: Pair, s3: S3
) -> None:
    upload(asking, packaged)
    before = names(s3, packaged)

    done = upload(asking, again, "--sign-key", pair.private)

    assert done.errors == [
        f"{packaged.uri}manifest.json: of another training run ({'f' * 32}), and not signed by the key {pair.private};"
        " it is not signed unseen: look at it, then sign it with `python scripts/sign_model.py"
        f" --model-uri {packaged.uri} --sign-key PATH`"
    ]
    assert (done.code, names(s3, packaged)) == (1, before)


def test_a_stored_signature_that_does_not_verify_is_refused(
    asking: Checkout, packaged: Version, pair: Pair, s3: S3
) -> None:
    upload(asking, packaged)
    put(s3, packaged, name(packaged, pair), b"garbage")

    for args in ([], ["--sign-key", pair.private]):
        done = upload(asking, packaged, *args)
        assert done.errors == [
            f"{packaged.uri}{name(packaged, pair)}: not a signature of Model Signing; remove it and sign the"
            " version again"
        ]
    assert get(s3, packaged, name(packaged, pair)) == b"garbage"


def process(checkout: Checkout, version: Version, pair: Pair) -> subprocess.Popen[str]:
    command = [
        sys.executable, ROOT / "scripts/upload_model.py", "--root", checkout.root, "--model", "lily",
        "--artifacts", version.folder, "--sign-key", pair.private,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def stray(asking: Checkout, packaged: Version, pair: Pair, s3: S3) -> bytes:
    """The signature that is left of an upload that was killed before it could put the manifest."""
    child = os.fork()
    if child == 0:
        add = Store.add

        def killed(bucket: Store, path: str, *args: Any) -> bool:
            if path.endswith("/manifest.json"):
                os.kill(os.getpid(), signal.SIGKILL)
            return add(bucket, path, *args)

        with mock.patch.object(Store, "add", killed):
            upload(asking, packaged, "--sign-key", pair.private)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert names(s3, packaged) == sorted(
        ["onnx/model.onnx", "signature.json", "sklearn/model.joblib", name(packaged, pair)]
    )
    return get(s3, packaged, name(packaged, pair))


def test_a_stray_signature_of_a_killed_upload_is_completed_by_the_next(
    stray: bytes, asking: Checkout, packaged: Version, pair: Pair, s3: S3
) -> None:
    """A signature by the same key of the same manifest, made again, has other bytes; the one that is there stays."""
    assert signed_by(packaged, pair) != stray

    done = upload(asking, packaged, "--sign-key", pair.private)

    assert done.code == 0, done.err
    assert get(s3, packaged, name(packaged, pair)) == stray
    assert bump(asking, packaged).code == 0


def test_a_stray_signature_of_another_run_is_in_nobodys_way(
    stray: bytes, asking: Checkout, packaged: Version, again: Version, pair: Pair, s3: S3
) -> None:
    done = upload(asking, again, "--sign-key", pair.private)

    assert done.code == 0, done.err
    assert {name(packaged, pair), name(again, pair), "manifest.json"} <= set(names(s3, again))
    assert get(s3, again, "manifest.json") == (again.folder / "manifest.json").read_bytes()
    assert bump(asking, again).code == 0


def test_uploads_of_several_runs_at_once_end_in_one_signed_version(
    asking: Checkout, packaged: Version, again: Version, pair: Pair, s3: S3
) -> None:
    processes = [process(asking, version, pair) for version in (packaged, again, packaged, again)]
    ended = [(one.communicate()[0], one.returncode) for one in processes]

    assert ended == [(f"{packaged.uri}\n", 0)] * 4
    assert bump(asking, packaged).code == 0


# Releasing


def test_an_unsigned_version_is_not_released(asking: Checkout, packaged: Version, s3: S3) -> None:
    s3.upload(packaged)
    before = asking.state()

    done = bump(asking, packaged)

    assert (done.code, done.out, done.errors) == (1, "", [unsigned(packaged)])
    assert asking.state() == before


def altered(version: Version, pair: Pair, foreign: Pair, s3: S3) -> None:
    """The files are what they were and give the same digest; what the manifest tells of the model is another thing."""
    old = get(s3, version, name(version, pair))
    data = version.data | {"metrics": {"accuracy": 1.0}}
    put(s3, version, "manifest.json", json.dumps(data).encode())
    (version.folder / "manifest.json").write_text(json.dumps(data))
    put(s3, version, name(version, pair), old)


def of_another_version(version: Version, pair: Pair, foreign: Pair, s3: S3) -> None:
    other = package(version.folder.parent / "other", "two")
    put(s3, version, name(version, pair), signed_by(other, pair))


def by_another_key(version: Version, pair: Pair, foreign: Pair, s3: S3) -> None:
    put(s3, version, name(version, pair), signed_by(version, foreign))


def disguised(version: Version, pair: Pair, foreign: Pair, s3: S3) -> None:
    data = json.loads(signed_by(version, foreign))
    data["verificationMaterial"]["publicKey"]["hint"] = pair.key.identifier
    put(s3, version, name(version, pair), json.dumps(data).encode())


def with_another_payload(version: Version, pair: Pair, foreign: Pair, s3: S3) -> None:
    """A genuine signature of another version, whose statement was exchanged for one of this version."""
    other = json.loads(signed_by(package(version.folder.parent / "other", "two"), pair))
    other["dsseEnvelope"]["payload"] = json.loads(signed_by(version, foreign))["dsseEnvelope"]["payload"]
    put(s3, version, name(version, pair), json.dumps(other).encode())


def of_nothing(version: Version, pair: Pair, foreign: Pair, s3: S3) -> None:
    """By the right key, with everything ignored: the library alone takes it for every file."""
    from model_signing import hashing
    from model_signing import signing as library

    made: Any = library.Config()
    config: Any = hashing.Config()
    target = version.folder.parent / "nothing.sig"
    made.set_hashing_config(config.set_ignored_paths(paths=["."])).use_elliptic_key_signer(
        private_key=pair.private
    ).sign(version.folder / "manifest.json", target)
    assert b'"resources": []' in base64.b64decode(json.loads(target.read_text())["dsseEnvelope"]["payload"])
    put(s3, version, name(version, pair), target.read_bytes())


def written(content: bytes) -> Callable[[Version, Pair, Pair, S3], None]:
    return lambda version, pair, foreign, s3: put(s3, version, name(version, pair), content)


ELSE = (
    "signs something else than this manifest.json, which was altered after signing, or the signature is another"
    " version's; find out who wrote them"
)
AGAIN = "remove it and sign the version again"
FAULTS: dict[str, tuple[Callable[[Version, Pair, Pair, S3], None], str]] = {
    "altered": (altered, ELSE),
    "of another version": (of_another_version, ELSE),
    "by another key": (by_another_key, f"signed by another key than {PUBLIC}; {AGAIN}"),
    "by another key, disguised": (disguised, f"not made with the key {PUBLIC}, or altered; {AGAIN}"),
    "with another payload": (with_another_payload, f"not made with the key {PUBLIC}, or altered; {AGAIN}"),
    "of nothing": (of_nothing, ELSE),
    "empty": (written(b""), f"not a signature of Model Signing; {AGAIN}"),
    "garbage": (written(b"\xff\xfe"), f"not a signature of Model Signing; {AGAIN}"),
    "nested": (written(b"[" * 100_000), f"not a signature of Model Signing; {AGAIN}"),
    "no bundle": (written(b'{"dsseEnvelope": []}'), f"not a signature of Model Signing; {AGAIN}"),
    "huge": (written(b" " * (1 << 21)), f"not a signature of Model Signing; {AGAIN}"),
}


@pytest.fixture
def signed_alone(packaged: Version, pair: Pair, s3: S3) -> Version:
    """A signed version in the bucket, where no repository is needed."""
    for path in ("onnx/model.onnx", "signature.json", "sklearn/model.joblib", "manifest.json"):
        put(s3, packaged, path, (packaged.folder / path).read_bytes())
    put(s3, packaged, name(packaged, pair), signed_by(packaged, pair))
    verified = store.verify(Store(BUCKET), parse_uri(packaged.uri), pair.key)
    assert verified.text == (packaged.folder / "manifest.json").read_bytes()
    return packaged


@pytest.fixture
def signed(asking: Checkout, packaged: Version, pair: Pair) -> Version:
    assert upload(asking, packaged, "--sign-key", pair.private).code == 0
    return packaged


@pytest.mark.parametrize("case", FAULTS)
def test_a_version_whose_signature_does_not_verify_is_refused(
    case: str, signed_alone: Version, pair: Pair, foreign: Pair, s3: S3
) -> None:
    damage, fault = FAULTS[case]
    damage(signed_alone, pair, foreign, s3)

    with pytest.raises(Refused) as refused:
        store.verify(Store(BUCKET), parse_uri(signed_alone.uri), pair.key)

    assert refused.value.lines == (f"{signed_alone.uri}{name(signed_alone, pair)}: {fault}",)


def test_promotion_asks_for_the_signature_again(asking: Checkout, signed: Version, pair: Pair, s3: S3) -> None:
    assert bump(asking, signed).code == 0
    assert asking.run("promote_model", "--app", "lily-sklearn", "--to", "staging", "--dry-run").code == 0
    s3.client.delete_object(Bucket=BUCKET, Key=key(signed, name(signed, pair)))

    done = asking.run("promote_model", "--app", "lily-sklearn", "--to", "staging", "--push")

    assert (done.code, done.errors) == (1, [unsigned(signed)])


def test_a_rollback_asks_for_the_signature_too(asking: Checkout, signed: Version, pair: Pair, tmp_path: Path) -> None:
    second = package(tmp_path / "second", "two")
    # Released before signatures were asked for.
    policy = asking.read(POLICY_FILE)
    asking.write(POLICY_FILE, policy.partition(b"# Whose")[0])
    asking.commit(push=True)
    upload(asking, second)
    assert bump(asking, second).code == 0
    asking.git("checkout", "-q", "cicd")
    asking.write(POLICY_FILE, policy)
    asking.commit(push=True)
    assert bump(asking, signed).code == 0
    back = ("--app", "lily-sklearn", "--env", "dev", "--reason", "wrong answers", "--push")

    done = asking.run("rollback_model", *back)
    assert (done.code, done.errors) == (1, [unsigned(second)])

    assert asking.run("sign_model", "--model-uri", second.uri, "--sign-key", pair.private).code == 0
    assert asking.run("rollback_model", *back).code == 0


def test_the_policy_and_the_key_of_the_deployed_branch_count_and_not_those_in_the_way(
    asking: Checkout, packaged: Version, s3: S3
) -> None:
    s3.upload(packaged)
    asking.git("checkout", "-q", "main")
    assert read_policy(asking.root).signing is None

    assert bump(asking, packaged).errors == [unsigned(packaged)]


def test_a_public_key_that_is_missing_is_refused(asking: Checkout, signed: Version) -> None:
    asking.git("rm", "-q", PUBLIC)
    asking.commit(push=True)

    assert bump(asking, signed).errors == [
        f"{PUBLIC}: missing; overlays/promotion.yaml names it, `python scripts/signing_key.py` makes it"
    ]


def test_a_private_key_in_the_place_of_the_public_one_is_named(asking: Checkout, signed: Version, pair: Pair) -> None:
    asking.write(PUBLIC, pair.private.read_bytes())
    asking.commit(push=True)

    assert bump(asking, signed).errors == [
        f"{PUBLIC}: a private key, which must never be there; make a new pair and stop using this one"
    ]


# Signing what is in the bucket, and a new key


def test_a_stored_version_is_signed_once_its_bytes_were_verified(
    asking: Checkout, packaged: Version, pair: Pair, s3: S3
) -> None:
    s3.upload(packaged)
    sign = ("sign_model", "--model-uri", packaged.uri, "--sign-key", pair.private)
    url = f"{packaged.uri}{name(packaged, pair)}\n"
    shown = "lily {}: code c0dec0dec0de, MLflow run ffffffffffff\n  accuracy 0.9556\n  macro_f1 0.955\n"
    shown = shown.format(packaged.version)

    assert asking.run(*sign, "--dry-run") == Result(0, url, f"{shown}would be signed by the key {pair.private}\n")
    assert name(packaged, pair) not in names(s3, packaged)
    assert asking.run(*sign) == Result(0, url, f"{shown}signed by the key {pair.private}\n")
    assert asking.run(*sign) == Result(0, url, f"{shown}signed already by the key {pair.private}\n")
    assert bump(asking, packaged).code == 0


def test_a_damaged_version_is_not_signed(asking: Checkout, packaged: Version, pair: Pair, s3: S3) -> None:
    s3.upload(packaged)
    s3.client.delete_object(Bucket=BUCKET, Key=key(packaged, "onnx/model.onnx"))

    done = asking.run("sign_model", "--model-uri", packaged.uri, "--sign-key", pair.private)

    assert done.errors == [f"{packaged.uri}onnx/model.onnx: missing; the version is incomplete, do not release it"]
    assert name(packaged, pair) not in names(s3, packaged)


def test_a_new_key_is_taken_up_while_the_old_one_still_counts(
    asking: Checkout, signed: Version, foreign: Pair, pair: Pair, s3: S3
) -> None:
    done = asking.run("sign_model", "--model-uri", signed.uri, "--sign-key", foreign.private)
    assert done.err.endswith("overlays/promotion.yaml does not ask for this signature\n")
    assert bump(asking, signed).code == 0

    asking.git("checkout", "-q", "cicd")
    asking.write(PUBLIC, foreign.public.read_bytes())
    asking.commit(push=True)

    assert bump(asking, signed, "lily-api").code == 0
    assert {name(signed, pair), name(signed, foreign)} <= set(names(s3, signed))


# Listing


def test_the_list_says_which_versions_are_signed(
    asking: Checkout, signed: Version, pair: Pair, foreign: Pair, tmp_path: Path, s3: S3
) -> None:
    others = [package(tmp_path / word, word) for word in ("two", "three", "four")]
    for other in others:
        s3.upload(other)
    put(s3, others[1], name(others[1], foreign), signed_by(others[1], foreign))
    put(s3, others[2], name(others[2], pair), b"garbage")

    done = asking.run("list_versions", "--model", "lily", "--json")

    states = {row["version"]: row["signed"] for row in json.loads(done.out)}
    assert [states[version.version] for version in (signed, *others)] == ["valid", "no", "by another", "invalid"]
    assert done.errors == [f"{others[2].uri}{name(others[2], pair)}: not a signature of Model Signing; {AGAIN}"]
    assert " signed " in asking.run("list_versions", "--model", "lily").out.splitlines()[0]
    assert bump(asking, others[1]).errors[0].startswith(f"{others[1].uri}: signed, but not by the key {PUBLIC}, which")


def test_without_a_policy_the_list_says_nothing_of_signatures(checkout: Checkout, version: Version) -> None:
    assert "signed" not in checkout.run("list_versions", "--model", "lily").out


# Keys


def test_a_pair_is_made_and_asked_for(checkout: Checkout, tmp_path: Path) -> None:
    private = tmp_path / "private/deep/signing.key"
    policy = checkout.read(POLICY_FILE)

    done = checkout.run("signing_key", "--private-key", private)

    assert done.code == 0, done.err
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    assert [path.name for path in private.parent.iterdir()] == ["signing.key"]
    assert checkout.read(PUBLIC) == signing.public_half(private).pem
    block = f"# Whose signature a version needs to be released.\nsigning:\n  public_key: {PUBLIC}\n".encode()
    assert checkout.read(POLICY_FILE) == policy + block
    assert read_policy(checkout.root).signing == SigningPolicy(public_key=PUBLIC)
    listed = checkout.git("status", "--porcelain", "--untracked-files=all").splitlines()
    assert listed == [f"M {POLICY_FILE}", f"?? {PUBLIC}"]
    assert checkout.run("validate").code == 0


def test_a_pair_that_is_there_stays(checkout: Checkout, tmp_path: Path) -> None:
    private = tmp_path / "signing.key"
    checkout.run("signing_key", "--private-key", private)
    before = [private.read_bytes(), checkout.read(PUBLIC), checkout.read(POLICY_FILE)]

    assert checkout.run("signing_key", "--private-key", private).code == 0
    # As after a kill: the rest is made from the private key.
    (checkout.root / PUBLIC).unlink()
    assert checkout.run("signing_key", "--private-key", private).code == 0

    assert [private.read_bytes(), checkout.read(PUBLIC), checkout.read(POLICY_FILE)] == before


def test_another_pair_does_not_take_its_place(asking: Checkout, pair: Pair, foreign: Pair, tmp_path: Path) -> None:
    before = asking.state()

    done = asking.run("signing_key", "--private-key", foreign.private)
    assert done.errors == [
        f"{PUBLIC}: the public half of another key than {foreign.private}; name that one, or put this one in its place"
        " with --rotate"
    ]
    done = asking.run("signing_key", "--private-key", tmp_path / "new.key")
    assert done.errors == [
        f"{PUBLIC}: there already, and {tmp_path}/new.key is not; name its private key, or put a new one in its place"
        " with --rotate"
    ]

    assert not (tmp_path / "new.key").exists()
    assert asking.state() == before


def test_a_key_is_rotated_as_it_is_written(asking: Checkout, signed: Version, tmp_path: Path, s3: S3) -> None:
    """In another clone than the one that releases: what runs is signed with both before the new key counts."""
    done = bump(asking, signed)
    assert done.code == 0, done.err
    asking.git("checkout", "-q", "-b", "rotate", "origin/cicd")
    new, policy = tmp_path / "new.key", asking.read(POLICY_FILE)

    done = asking.run("signing_key", "--rotate", "--private-key", new)

    assert done.code == 0, done.err
    assert (asking.read(PUBLIC), asking.read(POLICY_FILE)) == (signing.public_half(new).pem, policy)
    assert " by another " in asking.run("list_versions", "--model", "lily").out
    assert asking.run("sign_model", "--model-uri", signed.uri, "--sign-key", new).code == 0
    asking.commit("A new key")
    asking.git("push", "-q", "origin", "rotate")
    asking.merge("rotate")
    assert asking.run("validate", "--changed-since", "HEAD^").code == 0
    assert bump(asking, signed, "lily-api").code == 0

    done = asking.run("signing_key", "--rotate", "--private-key", new)
    assert done.errors == [f"--rotate: {new} is the key of {PUBLIC} already; name another file with --private-key"]


def test_there_is_no_first_key_to_rotate(checkout: Checkout, tmp_path: Path) -> None:
    done = checkout.run("signing_key", "--rotate", "--private-key", tmp_path / "new.key")

    assert done.errors == [f"--rotate: {PUBLIC}: missing; leave the option out to make the first key"]
    assert not (tmp_path / "new.key").exists()


def test_a_private_key_never_lies_in_the_repository(checkout: Checkout) -> None:
    place = checkout.root / "keys/signing.key"

    done = checkout.run("signing_key", "--private-key", place)

    assert done.errors == [f"--private-key {place}: in the repository; a private key never goes into Git"]
    assert not place.parent.exists()


def test_a_dry_run_makes_no_key(checkout: Checkout, tmp_path: Path) -> None:
    before = checkout.state()

    assert checkout.run("signing_key", "--private-key", tmp_path / "signing.key", "--dry-run").code == 0
    assert not (tmp_path / "signing.key").exists()
    assert checkout.state() == before


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (b"\r\n", b"model_bucket: b-b\r\nimage_registries: [r]\r\nenvironments: [{name: dev}]\r\n"),
        (b"\n", b"model_bucket: b-b\nimage_registries: [r]\nenvironments: [{name: dev}]"),
        (b"\n", b"model_bucket: b-b\nimage_registries: [r]\nenvironments: [{name: dev}] # last\n"),
    ],
    ids=["CRLF", "no end", "comment"],
)
def test_a_policy_keeps_its_bytes(end: bytes, text: bytes) -> None:
    import signing_key

    added = signing_key.with_signing(text, PUBLIC)

    assert added.startswith(text)
    assert added.endswith(end + b"signing:" + end + b"  public_key: " + PUBLIC.encode() + end)
    assert signing_key.with_signing(added, PUBLIC) == added


@pytest.mark.parametrize(
    "text", [b"{model_bucket: b-b, image_registries: [r], environments: [{name: dev}]}\n",
             b"model_bucket: b-b\nimage_registries: [r]\nenvironments: [{name: dev}]\n...\n"],
)  # fmt: skip
def test_a_policy_without_room_at_its_end_is_left_alone(text: bytes) -> None:
    import signing_key

    with pytest.raises(Refused) as refused:
        signing_key.with_signing(text, PUBLIC)

    assert refused.value.lines == (
        f"overlays/promotion.yaml: no block can be added at its end; add `signing:` with `public_key: {PUBLIC}`",
    )


def test_doctor_says_whether_models_are_signed(asking: Checkout) -> None:
    assert "ok       models are signed" in asking.run("doctor").out.splitlines()
    (asking.root / PUBLIC).unlink()
    out = asking.run("doctor").out.splitlines()
    assert out[out.index("MISSING  models are signed") + 1].startswith(f"         {PUBLIC}: missing; ")
    asking.git("checkout", "-q", "main")
    assert (
        "ok       models need no signature; `python scripts/signing_key.py` makes a key and asks for it"
        in asking.run("doctor").out.splitlines()
    )


# The service in the cluster


def listed_by_the_app(checkout: Checkout, app: str = "lily-api") -> None:
    """As CONTRIBUTING.md tells it, beside the names of the app's own shape."""
    _, _, rest = (ROOT / "CONTRIBUTING.md").read_text().partition("<!-- signed -->\n```yaml\n")
    signed = rest.partition("```\n")[0].splitlines()[-1]
    named = f"  - ../../base/{app.partition('-')[2]}/named\n"
    checkout.replace(f"apps/{app}/kustomization.yaml", named, f"{named}{signed}\n")


def test_the_component_gives_the_service_the_key_of_the_policy(asking: Checkout, pair: Pair) -> None:
    listed_by_the_app(asking)

    rendered = asking.run("render", "overlays/prod/lily-api").out

    assert rendered.count("name: MODEL_PUBLIC_KEY") == 1
    indented = "".join(f"            {line}\n" for line in pair.public.read_text().splitlines())
    assert f"        - name: MODEL_PUBLIC_KEY\n          value: |\n{indented}" in rendered
    assert "kind: ConfigMap" not in rendered
    done = asking.run("validate")
    assert done.code == 0, done.err


def test_the_component_gives_a_batch_the_key_as_well(asking: Checkout, pair: Pair) -> None:
    listed_by_the_app(asking, "lily-batch")

    rendered = asking.run("render", "overlays/prod/lily-batch").out

    [job] = [item for item in yaml.safe_load_all(rendered) if item["kind"] == "CronJob"]
    [container] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    assert given["MODEL_PUBLIC_KEY"] == pair.public.read_text()
    assert "kind: ConfigMap" not in rendered
    done = asking.run("validate")
    assert done.code == 0, done.err


def test_a_service_that_asks_for_another_key_than_the_policy_is_a_finding(asking: Checkout, foreign: Pair) -> None:
    listed_by_the_app(asking)
    asking.write("base/api/signed/other.pub", foreign.public.read_bytes())
    asking.replace(POLICY_FILE, PUBLIC, "base/api/signed/other.pub")

    assert asking.run("validate").errors == [
        f"overlays/{environment}/lily-api: Deployment.apps ml-{environment}/lily-api: env MODEL_PUBLIC_KEY: it"
        " loads only what this key signed, and overlays/promotion.yaml asks for the signature of the key"
        " base/api/signed/other.pub; they have to agree [signing]"
        for environment in ("dev", "staging", "prod")
    ]


def test_the_service_accepts_what_was_signed_here(
    asking: Checkout, signed: Version, pair: Pair, foreign: Pair, s3: S3
) -> None:
    """The two projects each have their own small half: this is where they meet."""
    script = (
        "import sys\n"
        "from contract import signature\n"
        "from contract.errors import Refused\n"
        "from serving.source import open_source\n"
        "stored, key = open_source(sys.argv[1]), signature.key_of({'MODEL_PUBLIC_KEY': sys.argv[2]})\n"
        "try: signature.require(stored.read, stored.read('manifest.json', 1 << 20), key)\n"
        "except Refused as refused: sys.exit(str(refused))\n"
    )

    def checked(by: Pair) -> tuple[int, str]:
        done = subprocess.run(
            [ROOT / "model-src/.venv/bin/python", "-c", script, f"{signed.uri}onnx/", by.public.read_text()],
            cwd=ROOT / "model-src", env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stderr

    assert checked(pair) == (0, "")
    code, said = checked(foreign)
    assert (code, said.startswith(f"{name(signed, foreign)}: not signed with MODEL_PUBLIC_KEY: ")) == (1, True)


# Without a key: Sigstore is not to be had here, so this is what happens before and around it


@pytest.fixture
def keyless(checkout: Checkout) -> Checkout:
    """A clone whose policy asks for the signature of the pipeline."""
    block = f"signing:\n  identity: {IDENTITY}\n  issuer: {ISSUER}\n"
    checkout.write(POLICY_FILE, checkout.read(POLICY_FILE) + block.encode())
    checkout.commit(push=True)
    return checkout


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network to Sigstore on any machine, and none of what an earlier call left of it."""
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("GITHUB_ACTIONS", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL"):
        monkeypatch.delenv(variable, raising=False)


def test_a_policy_that_asks_for_a_key_is_not_satisfied_without_one(
    asking: Checkout, packaged: Version, signed: Version, s3: S3
) -> None:
    before = s3.keys()
    line = (
        f"--sign-keyless: overlays/promotion.yaml requires a signature by the key {PUBLIC}; sign with --sign-key, or"
        " without either and later with `python scripts/sign_model.py`"
    )

    assert upload(asking, packaged, "--sign-keyless").errors == [line]
    assert asking.run("sign_model", "--model-uri", signed.uri, "--sign-keyless").errors == [line]

    assert s3.keys() == before


def test_where_no_signature_is_asked_for_nothing_is_signed_without_a_key(
    checkout: Checkout, packaged: Version, s3: S3
) -> None:
    assert upload(checkout, packaged, "--sign-keyless") == Result(0, f"{packaged.uri}\n", "uploaded 4 objects\n")


@pytest.mark.usefixtures("offline")
def test_outside_of_a_job_nobody_is_asked_to_log_in(keyless: Checkout, packaged: Version, s3: S3) -> None:
    done = upload(keyless, packaged, "--sign-keyless")

    assert done.errors == ["--sign-keyless: no job of a CI with a token; on GitHub, give the job `id-token: write`"]
    assert (done.code, "manifest.json" in names(s3, packaged)) == (1, False)


@pytest.mark.usefixtures("offline")
def test_a_token_that_cannot_be_had_is_one_line(
    keyless: Checkout, packaged: Version, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "token")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "http://127.0.0.1:9/?api-version=2")

    done = upload(keyless, packaged, "--sign-keyless")

    assert done.err.count("\n") == len(done.errors) == 1
    assert done.errors[0].startswith("--sign-keyless: no token of this job: ")


@pytest.mark.usefixtures("offline")
def test_a_sigstore_that_is_away_is_one_line(
    keyless: Checkout, packaged: Version, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sigstore.oidc.detect_credential", lambda: "token")

    done = upload(keyless, packaged, "--sign-keyless")

    assert done.errors == ["--sign-keyless: Sigstore did not sign: Failed to refresh TUF metadata; run it again"]
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "manifest.json" not in names(s3, packaged)


@pytest.mark.usefixtures("offline")
def test_a_signature_without_a_key_is_not_believed_while_sigstore_is_away(
    keyless: Checkout, packaged: Version, pair: Pair, s3: S3
) -> None:
    s3.upload(packaged)
    text = (packaged.folder / "manifest.json").read_bytes()
    place = signing.name(text, Identity(IDENTITY, ISSUER))
    put(s3, packaged, place, signed_by(packaged, pair))

    done = bump(keyless, packaged)

    assert place.endswith(".sigstore.json")
    assert done.errors == [
        f"{packaged.uri}{place}: cannot be verified: Sigstore: Failed to refresh TUF metadata; check the network"
    ]


def test_a_version_that_the_pipeline_did_not_sign_is_refused(keyless: Checkout, packaged: Version, s3: S3) -> None:
    s3.upload(packaged)

    assert bump(keyless, packaged).errors == [
        f"{packaged.uri}: not signed by {IDENTITY} ({ISSUER}), which overlays/promotion.yaml asks for; the pipeline"
        " signs what it uploads: release such a version"
    ]


class Library:
    """Takes the place of the part that needs the network, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def use_sigstore_signer(self, **asked: Any) -> Library:
        self.asked.append(asked)
        return self

    def use_sigstore_verifier(self, **asked: Any) -> Library:
        self.asked.append(asked)
        return self

    def sign(self, model: Path, target: Path) -> None:
        self.asked.append({"signed": model.read_bytes(), "name": model.name})
        target.write_bytes(self.bundle)

    def verify(self, model: Path, stored: Path) -> None:
        self.asked.append({"verified": model.read_bytes(), "by": stored.read_bytes()})

    bundle = b""


def test_the_library_is_asked_to_sign_and_to_verify_as_the_policy_says(
    keyless: Checkout, packaged: Version, pair: Pair, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This shows what the library is asked, and not that Sigstore answers."""
    library = Library()
    library.bundle = signed_by(packaged, pair)
    text = (packaged.folder / "manifest.json").read_bytes()
    monkeypatch.setattr("model_signing.signing.Config", lambda: library)
    monkeypatch.setattr("model_signing.verifying.Config", lambda: library)
    monkeypatch.setattr("sigstore.oidc.detect_credential", lambda: "token")

    assert upload(keyless, packaged, "--sign-keyless").code == 0
    assert bump(keyless, packaged).code == 0

    assert library.asked[:2] == [{"identity_token": "token"}, {"signed": text, "name": "manifest.json"}]
    assert library.asked[-2:] == [
        {"identity": IDENTITY, "oidc_issuer": ISSUER},
        {"verified": text, "by": library.bundle},
    ]
    assert signing.name(text, Identity(IDENTITY, ISSUER)) in names(s3, packaged)


# Only what was trained


def test_nothing_is_uploaded_or_signed_but_the_manifest_that_was_trained(
    whole_checkout: Checkout, s3: S3, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_bytes(signing.new_private_key())
    code = lineage.find(whole_checkout.root / "model-src", "lily").commit
    made = package(tmp_path / "made", code_commit=code)
    expected = parse((made.folder / "manifest.json").read_bytes(), "made").sha256
    changes: list[dict[str, Any]] = [
        {"metrics": {"accuracy": 1.0}},
        {"evaluation_set_digest": f"sha256:{'1' * 64}"},
        {"mlflow_run": "0" * 32},
        {"frameworks": {"python": "3.12.9"}},
    ]
    others = [package(tmp_path / str(n), **({"code_commit": code} | change)) for n, change in enumerate(changes)]

    def upload(version: Version) -> Result:
        options = ("--bucket", f"s3://{BUCKET}", "--sign-key", key, "--expect", expected)
        return whole_checkout.run("upload_model", "--model", "lily", "--artifacts", version.folder, *options)

    def refused() -> list[str]:
        """What is stored after each of the others was refused."""
        for other in others:
            done = upload(other)
            assert done.code == 1 and f"but --expect is {expected}" in done.err
        return s3.keys()

    assert refused() == []
    assert upload(made).code == 0
    before = s3.keys()
    assert refused() == before


def test_what_other_code_made_is_not_uploaded_where_its_provenance_is_asked_for(
    whole_checkout: Checkout, s3: S3, tmp_path: Path
) -> None:
    made = package(tmp_path / "made")
    expected = parse((made.folder / "manifest.json").read_bytes(), "made").sha256
    code = lineage.find(whole_checkout.root / "model-src", "lily").commit

    done = whole_checkout.run(
        "upload_model",
        "--model",
        "lily",
        "--artifacts",
        made.folder,
        "--bucket",
        f"s3://{BUCKET}",
        "--expect",
        expected,
    )

    assert (done.code, s3.keys()) == (1, [])
    assert done.err == (
        f"error: {made.folder}/manifest.json: code_commit: {'c0de' * 10}, but the code that is checked out is of"
        f" {code}; train from this commit\n"
    )


def test_a_stored_version_is_signed_only_if_it_is_the_expected_one(
    whole_checkout: Checkout, s3: S3, version: Version, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_bytes(signing.new_private_key())
    before = s3.keys()

    done = whole_checkout.run(
        "sign_model", "--model-uri", version.uri, "--sign-key", key, "--expect", f"sha256:{'0' * 64}"
    )

    assert (done.code, s3.keys()) == (1, before)
    assert f"{version.uri}manifest.json: sha256:" in done.err

"""Signatures of model versions, made and checked with OpenSSF Model Signing.

What is signed is manifest.json alone: it lists the size and the SHA-256 of every file. A signature is an object beside
it, `manifest.json.<manifest>.<signer>.sig` (`.sigstore.json` if made without a key), with the first 12 digits of the
SHA-256 of the manifest and of whoever signed. So it is never in the way of another training of the same files, nor of
another key, and none has to be overwritten. `model_signing verify key` accepts it.

Source: https://github.com/sigstore/model-transparency
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops.repo.policy import POLICY_FILE
from gitops.repo.snapshot import Snapshot

from contract import signature, temporary, waiting
from contract.digest import MANIFEST
from contract.errors import Refused
from contract.manifest import Manifest
from contract.signature import Key
from contract.uri import VersionURI

PUBLIC_KEY = "base/api/signed/model-signing.pub"
"""Where `signing_key.py` writes it: there a component gives it to our own service."""
_REMEDY = "remove it and sign the version again"


class Unsigned(Refused):
    """There is no signature by the one who is asked for."""

    def __init__(self, line: str, others: list[str]) -> None:
        super().__init__(line)
        self.others = others
        """Signatures of the version that are there."""


@dataclass(frozen=True)
class Identity:
    """A workflow or a person by the name that an OpenID Connect issuer gives them, without a key: Sigstore."""

    identity: str
    issuer: str

    suffix = ".sigstore.json"

    @property
    def identifier(self) -> str:
        return hashlib.sha256(f"{self.issuer} {self.identity}".encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.identity} ({self.issuer})"


Signer = Key | Identity


def asked(repository: Snapshot) -> Signer | None:
    """Whose signature a version needs by the policy; None if none is asked for.

    Raises Refused for a public key that is missing or none.
    """
    if (wanted := repository.policy.signing) is None:
        return None
    if not (path := wanted.public_key):
        return Identity(wanted.identity, wanted.issuer)
    if (text := repository.read(path)) is None:
        raise Refused(f"{path}: missing; {POLICY_FILE} names it, `python scripts/signing_key.py` makes it")
    return signature.public_key(text, path)


def public_half(private_key: Path) -> Key:
    """The public half of a private key. Raises Refused unless the file holds one, without a password."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_key.read_bytes(), None)
    except TypeError:
        raise Refused(f"{private_key}: locked with a password; sign with `model_signing sign key`, which asks for it, "
                      f"into {MANIFEST}.sig before the upload") from None  # fmt: skip
    except (ValueError, UnsupportedAlgorithm):
        raise Refused(
            f"{private_key}: not a private key in PEM form; `python scripts/signing_key.py` makes one"
        ) from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in signature.CURVES:
        raise Refused(f"{private_key}: not a key of the curve P-256, P-384 or P-521")
    return Key(_pem(key.public_key()), str(private_key))


def new_private_key() -> bytes:
    """A new key of the curve P-256, in PEM form and without a password."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def name(manifest: bytes, signer: Signer) -> str:
    return signature.name(manifest, signer.identifier, signer.suffix)


def remedy(uri: VersionURI, signer: Signer) -> str:
    if isinstance(signer, Identity):
        return "the pipeline signs what it uploads: release such a version"
    return f"look at it, then sign it with `python scripts/sign_model.py --model-uri {uri} --sign-key PATH`"


# Signing


@dataclass(frozen=True)
class Signing:
    """Who signs, and how; `make` gives the signature of a manifest."""

    signer: Signer
    make: Callable[[bytes], bytes]


def add_options(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    ways = parser.add_mutually_exclusive_group(required=required)
    ways.add_argument("--sign-key", type=Path, metavar="PATH", help="sign with this private key")
    ways.add_argument(
        "--sign-keyless",
        action="store_true",
        help="where the policy requires the signature of an identity, sign as this CI job, which has to be it; where it"
        " requires none, nothing is signed",
    )
    parser.add_argument(
        "--expect",
        type=digest_of_a_manifest,
        metavar="sha256:DIGITS",
        help=f"the SHA-256 of {MANIFEST} where it was made; any other is refused",
    )


def digest_of_a_manifest(text: str) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not sha256: and 64 hex digits; give that of {MANIFEST}")
    return text


def require_expected(manifest: Manifest, expected: str | None, where: str) -> None:
    """Raises Refused unless the manifest is the one that --expect names; any is without it."""
    if expected not in (None, manifest.sha256):
        raise Refused(
            f"{where}: {manifest.sha256}, but --expect is {expected}: not what was trained; nothing is signed,"
            " find out who wrote it and train again"
        )


def planned(signer: Signer | None, private_key: Path | None, keyless: bool) -> Signing | None:
    """What the options --sign-key and --sign-keyless ask for, `signer` being whom the policy requires.

    None where neither is given, or nothing is to be signed without a key. Raises Refused when the signature would not
    satisfy the policy.
    """
    if private_key:
        own = public_half(private_key)
        if signer and signer.identifier != own.identifier:
            raise Refused(f"--sign-key {private_key}: {POLICY_FILE} requires a signature by {signer}")
        return Signing(own, lambda manifest: sign(manifest, private_key))
    if keyless and isinstance(signer, Key):
        raise Refused(
            f"--sign-keyless: {POLICY_FILE} requires a signature by {signer}; sign with --sign-key, or without either"
            " and later with `python scripts/sign_model.py`"
        )
    return Signing(signer, sign_keyless) if keyless and signer else None


def sign(manifest: bytes, private_key: Path) -> bytes:
    from model_signing import signing

    with _files(manifest) as (model, made):
        _config(signing).use_elliptic_key_signer(private_key=private_key).sign(model, made)
        return made.read_bytes()


def sign_keyless(manifest: bytes) -> bytes:
    """A signature by the identity that this CI job proves to Sigstore, which records it in its public log.

    Raises Refused where there is no such job, and never asks for a login in a browser.
    """
    from model_signing import signing
    from sigstore import oidc

    try:
        with _in_time("--sign-keyless: the token of this job"):
            token = oidc.detect_credential()
    except oidc.IdentityError as error:
        raise Refused(f"--sign-keyless: no token of this job: {_one_line(error)}") from None
    if token is None:
        raise Refused("--sign-keyless: no job of a CI with a token; on GitHub, give the job `id-token: write`")
    with _files(manifest) as (model, made):
        try:
            with _in_time("--sign-keyless: Sigstore"):
                _config(signing).use_sigstore_signer(identity_token=token).sign(model, made)
        except waiting.TooSlow:
            raise
        except Exception as error:  # of several libraries, with no base of their own
            raise Refused(f"--sign-keyless: Sigstore did not sign: {_one_line(error)}; run it again") from None
        return made.read_bytes()


# Checking


def verify(manifest: bytes, signed: bytes, signer: Signer, where: str) -> None:
    """Raises Refused, naming `where`, unless `signed` is a signature by `signer` of exactly this manifest."""
    if isinstance(signer, Key):
        signature.verify(manifest, signed, signer, where)
        return
    signature.claims(manifest, signed, where)
    from model_signing import verifying

    with _files(manifest, signed) as (model, stored):
        try:
            checking = _config(verifying)
            with _in_time(f"{where}: cannot be verified: Sigstore"):
                checking.use_sigstore_verifier(identity=signer.identity, oidc_issuer=signer.issuer)
        except waiting.TooSlow:
            raise
        except Exception as error:  # Sigstore's own keys come by the network
            raise Refused(f"{where}: cannot be verified: Sigstore: {_one_line(error)}; check the network") from None
        try:
            checking.verify(model, stored)
        except Exception as error:  # of several libraries, with no base of their own
            raise Refused(f"{where}: not made by {signer}, or altered ({_one_line(error)}); {_REMEDY}") from None


def _in_time(what: str) -> waiting.Limit:
    """Sigstore's clients have no end of their own for all that they ask."""
    import urllib3

    waiting.watch(urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool)
    return waiting.Limit(what, "check the network, then run it again", waiting.ANSWER, in_all=True)


@contextmanager
def _files(manifest: bytes, *others: bytes) -> Iterator[list[Path]]:
    """Paths of a manifest and a signature; the second is not there yet if it is not given. The library reads and writes
    files alone."""
    with temporary.folder("model-gitops-signing-") as folder:
        paths = [folder / each for each in (MANIFEST, f"{MANIFEST}.sig")]
        for path, content in zip(paths, (manifest, *others), strict=False):
            path.write_bytes(content)
        yield paths


def _config(module: Any) -> Any:
    return module.Config()  # without types


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

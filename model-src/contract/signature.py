"""Signatures of model versions by OpenSSF Model Signing, and whether one was made with a key.

What is signed is the manifest, which lists the SHA-256 of every file. A signature lies beside it, as
`manifest.json.<manifest>.<signer>.sig`, with the first 12 digits of the SHA-256 of the manifest and of whoever signed,
a key for instance. So none is in the way of another, and none has to be overwritten.

Source: https://github.com/sigstore/model-transparency
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract import temporary
from contract.digest import MANIFEST
from contract.errors import Refused
from contract.strict import once

VARIABLE = "MODEL_PUBLIC_KEY"
"""By which whatever loads a model is told whose signature to ask for."""
LIMIT = 1 << 20
"""Bytes. A signature has some thousands; what is larger is not read."""
CURVES = ("secp256r1", "secp384r1", "secp521r1")
# The root file system may be read-only; every container has this one, in memory.
_FOLDER = Path("/dev/shm")
_REMEDY = "remove it and sign the version again"


@dataclass(frozen=True)
class Key:
    """Whoever holds the private half of this key."""

    pem: bytes
    where: str
    """What gave the key: a file, or a variable."""

    suffix = ".sig"

    @property
    def identifier(self) -> str:
        """SHA-256 of the key, by which a signature names it."""
        return hashlib.sha256(self.pem).hexdigest()

    def __str__(self) -> str:
        return f"the key {self.where}"


def key_of(environment: Mapping[str, str]) -> Key | None:
    """The key that MODEL_PUBLIC_KEY gives, as PEM text or as the path of a file; None where it is not set.

    Raises Refused for anything else, and for an empty one: that is more likely a mistake than the wish to take what
    nobody signed.
    """
    given = environment.get(VARIABLE)
    if given is None:
        return None
    if not given:
        raise Refused(f"{VARIABLE}: empty; set it to a public key, as PEM text or a path, or leave it out")
    try:
        text = given.encode() if given.startswith("-----BEGIN ") else Path(given).read_bytes()
    except OSError as error:
        raise Refused(f"{VARIABLE}: {given!r}: {error.strerror}; set it to a public key, or to its file") from None
    # A name that no file can have.
    except ValueError:
        raise Refused(f"{VARIABLE}: not a public key in PEM form, nor the file of one") from None
    return public_key(text, VARIABLE)


def public_key(text: bytes, where: str) -> Key:
    """Raises Refused, naming `where`, unless `text` is a public key of a curve that the library signs with."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    if b"PRIVATE KEY" in text:
        raise Refused(f"{where}: a private key, which must never be there; make a new pair and stop using this one")
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise Refused(f"{where}: not a public key in PEM form; give the public half of an elliptic-curve key") from None
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise Refused(f"{where}: not a key of the curve P-256, P-384 or P-521; make one of these")
    return Key(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), where)


def start(manifest: bytes) -> str:
    """What the names of all signatures of a manifest start with."""
    return f"{MANIFEST}.{hashlib.sha256(manifest).hexdigest()[:12]}."


def name(manifest: bytes, identifier: str, suffix: str = ".sig") -> str:
    """The file of a signature in the folder of the version, by the identifier of whoever signed."""
    return f"{start(manifest)}{identifier[:12]}{suffix}"


def require(read: Callable[[str, int], bytes], manifest: bytes, key: Key) -> None:
    """Raises Refused unless the version has a signature by this key of exactly this manifest. `read` gives the bytes of
    a file of the version, up to a limit."""
    named = name(manifest, key.identifier)
    try:
        signature = read(named, LIMIT)
    except Refused as refused:
        raise Refused(f"{named}: not signed with {key.where}: {refused.lines[0]}") from None
    verify(manifest, signature, key, named)


def verify(manifest: bytes, signature: bytes, key: Key, where: str) -> None:
    """Raises Refused, naming `where`, unless `signature` is one by `key` of exactly this manifest."""
    if claims(manifest, signature, where) != key.identifier:
        raise Refused(f"{where}: signed by another key than {key.where}; {_REMEDY}")
    # It takes most of a second, which only those wait for who ask for it.
    from model_signing import verifying

    checking: Any = verifying  # without types
    with temporary.folder("model-signature-", _FOLDER if os.access(_FOLDER, os.W_OK) else None) as folder:
        paths = [folder / each for each in (MANIFEST, "signature", "key")]
        for path, content in zip(paths, (manifest, signature, key.pem), strict=True):
            path.write_bytes(content)
        try:
            checking.Config().use_elliptic_key_verifier(public_key=paths[2]).verify(paths[0], paths[1])
        # Of several libraries, with no base of their own.
        except Exception:
            raise Refused(f"{where}: not made with the key {key.where}, or altered; {_REMEDY}") from None


def claims(manifest: bytes, signature: bytes, where: str) -> str | None:
    """The identifier of the key in a signature of exactly this manifest; None without a key.

    Nothing is proven by it yet. Raises Refused, naming `where`, for what is no signature, or one of something else.
    """
    try:
        key, signed = _read(signature)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise Refused(f"{where}: not a signature of Model Signing; {_REMEDY}") from None
    # A signature can exclude everything, and then fits every file.
    if signed != [{"name": ".", "algorithm": "sha256", "digest": hashlib.sha256(manifest).hexdigest()}]:
        raise Refused(
            f"{where}: signs something else than this {MANIFEST}, which was altered after signing, or the signature is"
            " another version's; find out who wrote them"
        )
    return key


def _read(signature: bytes) -> tuple[str | None, Any]:
    """(identifier of the key, what was signed). Raises what reading something else raises.

    No field may be there twice, nor under another spelling: the library has to read what was read here.
    """
    if len(signature) > LIMIT:
        raise ValueError
    bundle = json.loads(signature.decode(), object_pairs_hook=once)
    envelope = bundle["dsseEnvelope"]
    if bundle.keys() != {"mediaType", "verificationMaterial", "dsseEnvelope"}:
        raise ValueError
    if envelope.keys() != {"payload", "payloadType", "signatures"}:
        raise ValueError
    payload = json.loads(base64.b64decode(envelope["payload"], validate=True), object_pairs_hook=once)
    return bundle["verificationMaterial"].get("publicKey", {}).get("hint"), payload["predicate"]["resources"]

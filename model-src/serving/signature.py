"""Whether a version was signed by the one whose public key the service was given, with OpenSSF Model Signing.

What is signed is the manifest, which lists the SHA-256 of every file. The signature lies beside it, as
`manifest.json.<manifest>.<key>.sig`, with the first 12 digits of the SHA-256 of the manifest and of the key.

Source: https://github.com/sigstore/model-transparency
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packing import Refused
from packing.digest import MANIFEST
from serving.source import Source

LIMIT = 1 << 20
"""Bytes. A signature has some thousands; what is larger is not read."""
# The root file system may be read-only; every container has this one, in memory.
_FOLDER = Path("/dev/shm")


@dataclass(frozen=True)
class Key:
    pem: bytes

    @property
    def identifier(self) -> str:
        """SHA-256 of the key, by which a signature names it."""
        return hashlib.sha256(self.pem).hexdigest()


def read_key(given: str) -> Key:
    """The public key that MODEL_PUBLIC_KEY gives, as PEM text or as the path of a file. Raises Refused for others."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        text = given.encode() if given.startswith("-----BEGIN ") else Path(given).read_bytes()
        key = load_pem_public_key(text)
    except OSError as error:
        raise Refused(
            f"MODEL_PUBLIC_KEY: {given!r}: {error.strerror}; set it to a public key, or to its file"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Refused("MODEL_PUBLIC_KEY: not a public key in PEM form, nor the file of one") from None
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
        raise Refused("MODEL_PUBLIC_KEY: not a key of the curve P-256, P-384 or P-521")
    return Key(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def require(source: Source, manifest: bytes, key: Key) -> None:
    """Raises Refused unless `source` has a signature by this key of exactly this manifest, and Unavailable when it is
    worth asking again."""
    name = f"{MANIFEST}.{hashlib.sha256(manifest).hexdigest()[:12]}.{key.identifier[:12]}.sig"
    try:
        signature = source.read(name, LIMIT)
    except Refused as refused:
        raise Refused(f"{name}: not signed with MODEL_PUBLIC_KEY, so it is not served: {refused.lines[0]}") from None
    verify(manifest, signature, key, name)


def verify(manifest: bytes, signature: bytes, key: Key, name: str) -> None:
    by, signed = _claims(signature, name)
    if by != key.identifier:
        raise Refused(f"{name}: signed by another key than MODEL_PUBLIC_KEY, so the version is not served")
    # A signature can say that it ignores everything, and then fits every file.
    if signed != [{"name": ".", "algorithm": "sha256", "digest": hashlib.sha256(manifest).hexdigest()}]:
        raise Refused(f"{name}: signs something else than this {MANIFEST}, which was altered after signing")
    # It takes most of a second, which only those wait for who ask for it.
    from model_signing import verifying

    checking: Any = verifying
    with tempfile.TemporaryDirectory(dir=_FOLDER if os.access(_FOLDER, os.W_OK) else None) as folder:
        paths = [Path(folder) / each for each in (MANIFEST, "signature", "key")]
        for path, content in zip(paths, (manifest, signature, key.pem), strict=True):
            path.write_bytes(content)
        try:
            checking.Config().use_elliptic_key_verifier(public_key=paths[2]).verify(paths[0], paths[1])
        # Of several libraries, with no base of their own.
        except Exception:
            raise Refused(f"{name}: not made with the key MODEL_PUBLIC_KEY, or altered; it is not served") from None


def _claims(signature: bytes, name: str) -> tuple[str | None, Any]:
    """(identifier of the key, what was signed), as a signature says itself. Raises Refused unless it is one.

    No field may be there twice under another spelling: the library has to read what was read here.
    """
    try:
        if len(signature) > LIMIT:
            raise ValueError
        bundle = json.loads(signature.decode())
        envelope = bundle["dsseEnvelope"]
        if bundle.keys() != {"mediaType", "verificationMaterial", "dsseEnvelope"}:
            raise ValueError
        if envelope.keys() != {"payload", "payloadType", "signatures"}:
            raise ValueError
        payload = json.loads(base64.b64decode(envelope["payload"], validate=True))
        return bundle["verificationMaterial"]["publicKey"]["hint"], payload["predicate"]["resources"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise Refused(f"{name}: not a signature of Model Signing, so the version is not served") from None

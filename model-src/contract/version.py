"""What has to hold of a model version before any byte of it is believed, wherever it is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from contract import manifest, signature
from contract.digest import MANIFEST
from contract.errors import Refused
from contract.manifest import Manifest
from contract.signature import Key
from contract.uri import VersionURI

VARIABLE = "MODEL_MANIFEST"
"""By which whatever loads a model is told the manifest's SHA-256."""
MANIFEST_LIMIT = 1 << 20
"""Bytes. A manifest has a few thousand; what is larger is not read."""

Read = Callable[[str, int], bytes]
"""Gives at most so many bytes, and one more if there are more, of a file of the version."""


@dataclass(frozen=True)
class Expected:
    """What is known of a version from elsewhere than its own folder."""

    digest: str | None
    """As the release names it; None for a version that no release names."""
    key: Key | None
    """Whose signature it must have; None if it need not be signed."""
    manifest: str | None = None
    """`sha256:` and 64 hex digits of the manifest's bytes; None for a release that does not name it."""


def expected(digest: str | None, environment: Mapping[str, str], manifest: str | None = None) -> Expected:
    """Raises Refused for a MODEL_PUBLIC_KEY that is no key."""
    return Expected(digest, signature.key_of(environment), manifest)


def read_manifest(read: Read, wanted: Expected, uri: VersionURI | None = None) -> Manifest:
    """The manifest of a version, once it is known to be the expected one's, and the one that belongs at `uri`.

    Raises Refused when it is not, and what `read` raises.
    """
    text = read(MANIFEST, MANIFEST_LIMIT)
    if len(text) > MANIFEST_LIMIT:
        raise Refused(f"{MANIFEST}: larger than {MANIFEST_LIMIT} bytes, so it is none")
    found = f"sha256:{hashlib.sha256(text).hexdigest()}"
    if wanted.manifest not in (None, found):
        raise Refused(
            f"{MANIFEST}: {VARIABLE} is {wanted.manifest}, but the stored one has {found}; it was altered after the"
            " release: find out who wrote it"
        )
    if wanted.key:
        signature.require(read, text, wanted.key)
    described = manifest.parse(text, MANIFEST)
    # parse() has compared the digest in the manifest with its list of files.
    if wanted.digest not in (None, described.digest):
        raise Refused(
            f"{MANIFEST}: the version's digest is {described.digest}, but {wanted.digest} is asked for; the release and"
            " the stored version disagree"
        )
    if uri and (uri.model, uri.version) != (described.model, described.version):
        raise Refused(f"{MANIFEST}: is of {described.model} {described.version}, but it lies in {uri}")
    return described


def read_file(read: Read, described: Manifest, path: str) -> bytes:
    """A file of a version, once its bytes have the size and the SHA-256 of the manifest. Raises Refused when
    they do not, or when it lists no such file, and what `read` raises."""
    listed = described.file(path)
    if not listed:
        raise Refused(f"{MANIFEST}: lists no {path}")
    content = read(path, listed.size)
    if len(content) != listed.size:
        found = f"more than {listed.size}" if len(content) > listed.size else str(len(content))
        raise Refused(f"{path}: size: {found} bytes, but {MANIFEST} has {listed.size}; it was altered or cut short")
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != listed.sha256:
        raise Refused(f"{path}: sha256: {sha256}, but {MANIFEST} has {listed.sha256}; it was altered")
    return content

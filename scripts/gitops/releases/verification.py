"""The bytes that a release names."""

from __future__ import annotations

from gitops.models import store
from gitops.models.s3 import Store
from gitops.models.signing import Signer
from gitops.releases.release import Release

from contract.errors import Refused
from contract.manifest import Manifest
from contract.uri import VersionURI, parse_flavour


def verify_release(item: Release, signer: Signer | None) -> tuple[VersionURI, Manifest]:
    """The version that a release names, once every stored byte is known to be what was released, and signed if that is
    asked for; Refused otherwise."""
    file = item.file
    try:
        uri = parse_flavour(item.uri)[0]
    except Refused:
        raise Refused(
            f"{file}: {item.uri!r}: not the folder of a model version;"
            " release one there with `python scripts/bump_model.py`"
        ) from None
    manifest = store.verify(Store(uri.bucket), uri, signer)
    if manifest.digest != item.digest:
        raise Refused(
            f"{file}: digest: {item.digest}, but {uri} has {manifest.digest};"
            " the version in the bucket is not the one that was released, do not release it again"
        )
    if item.manifest not in (None, manifest.sha256):
        raise Refused(
            f"{file}: manifest: {item.manifest}, but {uri}manifest.json has {manifest.sha256};"
            " the manifest in the bucket is not the one that was released, do not release it again"
        )
    return uri, manifest

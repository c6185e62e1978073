"""The bytes that a release names, where they are taken from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gitops.models import s3, signing, store
from gitops.models.s3 import Store
from gitops.models.signing import Signer
from gitops.releases import history, image, withdrawn
from gitops.releases.release import Release
from gitops.repo.git import Git
from gitops.repo.policy import Policy

from contract.errors import Refused
from contract.manifest import Manifest
from contract.uri import VersionURI, parse_flavour

Verified = dict[tuple[VersionURI, Signer | None], Manifest]
"""The versions whose every stored byte was compared, and with whose signature."""


def verify_release(item: Release, signer: Signer | None, verified: Verified) -> tuple[VersionURI, Manifest]:
    """The version that a release names, once every stored byte is known to be what was released, and signed if that is
    asked for; Refused otherwise. Apps of one model have one version, whose bytes are read once: `verified` is added to.
    """
    file = item.file
    require_archive(item.image)
    try:
        uri = parse_flavour(item.uri)[0]
    except Refused:
        raise Refused(
            f"{file}: {item.uri!r}: not the folder of a model version;"
            " release one there with `python scripts/bump_model.py`"
        ) from None
    if (known := (uri, signer)) not in verified:
        verified[known] = store.verify(Store(uri.bucket), *known)
    manifest = verified[known]
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


def require_archive(service: str | None) -> None:
    """Raises Refused unless the archive of a service, where an image is one, is stored as it is named: by its own
    SHA-256."""
    if not (found := image.archive(service)):
        return
    bucket, digest = found
    there, key = Store(bucket), f"{image.SERVICES}{digest}{image.ENDING}"
    sizes = [each.size for each in there.objects(key) if each.key == key]
    if not sizes:
        raise Refused(f"{service}: no such object; upload it with `python scripts/pack_service.py`")
    if (stored := there.sha256(key, sizes[0])) is None or stored[0] != digest:
        raise Refused(f"{service}: its bytes have another SHA-256; find out who wrote that object, do not release it")


def require_replica(
    policy: Policy, environment: str, uri: VersionURI, manifest: Manifest, signer: Signer | None
) -> None:
    """Raises Refused unless the bucket from which the environment takes models has every byte of a version too, and
    its signature if one is asked for."""
    if not (bucket := policy.at(environment).replica):
        return
    replica, there = s3.replica(policy, bucket), uri.at(bucket)
    if not store.is_copied(replica, uri, manifest):
        raise Refused(missing(bucket, uri, environment))
    if found := copy_faults(replica, uri, manifest, signer):
        remedy = f"once it is known why, remove what is wrong and {store.copying(replica.bucket, uri)}"
        raise Refused(*found, f"{there}: {environment} takes its models there; {remedy}")


def missing(bucket: str, uri: VersionURI, environment: str) -> str:
    return f"{uri.at(bucket)}: missing, and {environment} takes its models there; {store.copying(bucket, uri)}"


def copy_faults(replica: Store, uri: VersionURI, manifest: Manifest, signer: Signer | None) -> list[str]:
    """What is wrong with a version in a replica that has it."""
    there = uri.at(replica.bucket)
    found = store.file_faults(replica, there, manifest)
    try:
        store.require_signature(replica, there, manifest, signer)
    except signing.Unsigned:
        found.append(f"{there}: not signed by {signer}; {store.copying(replica.bucket, uri)}")
    return found


def named(git: Git, rev: str) -> dict[str, list[Release]]:
    """What was ever released up to a commit, by MODEL.VERSION."""
    found: dict[str, list[Release]] = {}
    for item in sorted(history.ever(git, rev), key=lambda item: str(item.target)):
        found.setdefault(withdrawn.key(item.uri), []).append(item)
    return found


def manifest_faults(uri: VersionURI, manifest: Manifest, named: Mapping[str, Sequence[Release]]) -> list[str]:
    """Releases of the version that had another manifest than this one."""
    return [
        f"{uri}manifest.json: {manifest.sha256}, but {item.target} was released with {item.manifest};"
        " versions are never overwritten: find out who wrote that object, do not release it"
        for item in named.get(f"{uri.model}.{uri.version}", [])
        if item.manifest not in (None, manifest.sha256)
    ]

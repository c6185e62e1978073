"""Versions in the model bucket: listed, read, verified byte by byte, and signed."""

from __future__ import annotations

import hashlib
import re

from gitops import cli
from gitops.models import signing
from gitops.models.s3 import Damaged, Store
from gitops.models.signing import Signer, Signing
from gitops.repo.policy import POLICY_FILE

from contract import signature
from contract.digest import MANIFEST, counts
from contract.errors import Refused
from contract.manifest import File, Manifest
from contract.manifest import parse as parse_manifest
from contract.signature import LIMIT
from contract.uri import VERSION, VersionURI
from contract.version import MANIFEST_LIMIT


def list_versions(store: Store, model: str) -> list[VersionURI]:
    """The versions of a model that exist, which is those with a manifest. Other keys beside them are no versions."""
    place = re.compile(rf"models/{re.escape(model)}/(?P<version>{VERSION})/{re.escape(MANIFEST)}")
    keys = store.keys(f"models/{model}/")
    return [VersionURI(store.bucket, model, match["version"]) for key in keys if (match := place.fullmatch(key))]


def read_manifest(store: Store, uri: VersionURI) -> Manifest:
    """The manifest of a version; Refused unless it exists, agrees with itself and belongs to this very URI."""
    source = f"{uri}{MANIFEST}"
    text = store.read(f"{uri.prefix}{MANIFEST}", MANIFEST_LIMIT)
    if text is None:
        raise Refused(
            f"{uri}: no such version in the bucket; `list_versions.py --model {uri.model}` lists what is there"
        )
    if len(text) > MANIFEST_LIMIT:
        raise Refused(f"{source}: larger than {MANIFEST_LIMIT} bytes, so it is none; find out who wrote that object")
    manifest = parse_manifest(text, source)
    if (manifest.model, manifest.version) != (uri.model, uri.version):
        raise Refused(f"{source}: names {manifest.model}/{manifest.version}, not {uri.model}/{uri.version}")
    if manifest.draft:
        raise Refused(f"{source}: draft: true; a draft is never released, train from a commit and upload that")
    return manifest


def file_faults(store: Store, uri: VersionURI, manifest: Manifest) -> list[str]:
    """What is wrong with the stored files of a version: each is downloaded and hashed, and none may be foreign."""
    found: list[str] = []
    for file in manifest.files:
        cli.progress(f"verifying {uri}{file.path}")
        try:
            stored = store.sha256(f"{uri.prefix}{file.path}", file.size)
        except Damaged as damaged:
            found += damaged.lines
            continue
        if stored is None:
            found.append(f"{uri}{file.path}: missing; the version is incomplete, do not release it")
        elif stored != (file.sha256, file.size):
            found.append(
                f"{uri}{file.path}: {_differs(stored, file)}; versions are never overwritten: find out who wrote that"
                " object, do not release it"
            )
    cli.progress("")
    known = {file.path for file in manifest.files} | {MANIFEST}
    for key in store.keys(uri.prefix):
        path = key.removeprefix(uri.prefix)
        if path not in known and counts(path):
            found.append(f"{uri}{path}: not in the manifest; remove the object, a model server might load it")
    return found


def _differs(stored: tuple[str | None, int], file: File) -> str:
    sha256, size = stored
    return (
        f"sha256 {sha256}, the manifest has {file.sha256}"
        if sha256
        else f"size: {size} bytes, the manifest has {file.size}"
    )


def require_signature(store: Store, uri: VersionURI, manifest: Manifest, signer: Signer | None) -> None:
    """Raises Refused unless the manifest of a version carries the signature that is asked for, if one is."""
    if signer is None:
        return
    name = signing.name(manifest.text, signer)
    signed = store.read(f"{uri.prefix}{name}", LIMIT)
    if signed is None:
        beside = store.keys(f"{uri.prefix}{signature.start(manifest.text)}")
        others = [key.removeprefix(uri.prefix) for key in beside]
        how = f"signed, but not by {signer}" if others else f"not signed by {signer}"
        raise signing.Unsigned(f"{uri}: {how}, which {POLICY_FILE} asks for; {signing.remedy(uri, signer)}", others)
    signing.verify(manifest.text, signed, signer, f"{uri}{name}")


def add_signature(store: Store, uri: VersionURI, manifest: Manifest, planned: Signing) -> int:
    """Signs the manifest of a version, unless that is done; returns how many objects that added.

    Raises Refused when what is made, or is there under the name of the signature, does not verify.
    """
    name = signing.name(manifest.text, planned.signer)
    key = f"{uri.prefix}{name}"
    added, stored = 0, store.read(key, LIMIT)
    if stored is None:
        made = planned.make(manifest.text)
        signing.verify(manifest.text, made, planned.signer, name)
        added = int(store.add(key, made, hashlib.sha256(made).hexdigest()))
        stored = store.read(key, LIMIT) or b""
    signing.verify(manifest.text, stored, planned.signer, f"{uri}{name}")
    return added


def verify(store: Store, uri: VersionURI, signer: Signer | None) -> Manifest:
    """The manifest of a version whose every byte was checked, and its signature if one is asked for; Refused
    otherwise."""
    manifest = read_manifest(store, uri)
    require_signature(store, uri, manifest, signer)
    if found := file_faults(store, uri, manifest):
        raise Refused(*found)
    return manifest

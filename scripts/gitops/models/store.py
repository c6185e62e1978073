"""Versions in the model bucket and its replicas: listed, read, verified byte by byte, written and signed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from gitops import cli
from gitops.models import signing
from gitops.models.s3 import Damaged, Store
from gitops.models.signing import Signer, Signing
from gitops.repo.policy import POLICY_FILE

from contract import signature
from contract.digest import MANIFEST, counts, hash_folder
from contract.errors import Refused
from contract.manifest import File, Manifest
from contract.manifest import parse as parse_manifest
from contract.signature import LIMIT
from contract.uri import MODEL, VERSION, VersionURI
from contract.version import MANIFEST_LIMIT


def list_versions(store: Store, model: str | None = None) -> list[VersionURI]:
    """The versions of a model that exist, or of all, which is those with a manifest. Other keys beside them are no
    versions."""
    place = re.compile(rf"models/({MODEL if model is None else re.escape(model)})/({VERSION})/{re.escape(MANIFEST)}")
    keys = store.keys("models/" if model is None else f"models/{model}/")
    return [VersionURI(store.bucket, *match.groups()) for key in keys if (match := place.fullmatch(key))]


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


def read_artifacts(folder: Path, model: str) -> Manifest:
    """The manifest of a packaged model. Raises Refused unless the folder holds exactly what the manifest lists."""
    source = folder / MANIFEST
    if not source.is_file():
        raise Refused(f"{source}: missing; --artifacts names the folder that training wrote")
    manifest = parse_manifest(source.read_bytes(), str(source))
    if manifest.model != model:
        raise Refused(f"{source}: model: {manifest.model!r}, but --model is {model!r}")
    if manifest.draft:
        raise Refused(f"{source}: draft: true; commit the model code and train again without --draft")
    listed, found = ({file.path: file for file in files} for files in (manifest.files, hash_folder(folder)))
    faults = [f"{folder / path}: not in {MANIFEST}; remove it" for path in sorted(found.keys() - listed.keys())]
    for path, file in sorted(listed.items()):
        if path not in found:
            faults.append(f"{folder / path}: missing, {MANIFEST} lists it; train again")
        elif (found[path].sha256, found[path].size) != (file.sha256, file.size):
            faults.append(f"{folder / path}: sha256 {found[path].sha256}, {MANIFEST} has {file.sha256}; train again")
    if faults:
        raise Refused(*faults)
    return manifest


def file_faults(store: Store, uri: VersionURI, manifest: Manifest) -> list[str]:
    """What is wrong with the stored files of a version: each is downloaded and hashed, and none may be foreign."""
    found: list[str] = []
    for file in manifest.files:
        cli.progress(f"verifying {uri}{file.path}")
        found += file_fault(store, uri, file)
    cli.progress("")
    known = {file.path for file in manifest.files} | {MANIFEST}
    for key in store.keys(uri.prefix):
        path = key.removeprefix(uri.prefix)
        if path not in known and counts(path):
            found.append(f"{uri}{path}: not in the manifest; remove the object, a model server might load it")
    return found


def file_fault(store: Store, uri: VersionURI, file: File, copy: BinaryIO | None = None) -> tuple[str, ...]:
    """What is wrong with one stored file of a version, whose bytes are written to `copy`, if that is given."""
    try:
        stored = store.sha256(f"{uri.prefix}{file.path}", file.size, copy)
    except Damaged as damaged:
        return damaged.lines
    if stored is None:
        return (f"{uri}{file.path}: missing; the version is incomplete, do not release it",)
    if stored != (file.sha256, file.size):
        why = "versions are never overwritten: find out who wrote that object, do not release it"
        return (f"{uri}{file.path}: {_differs(stored, file)}; {why}",)
    return ()


def _differs(stored: tuple[str | None, int], file: File) -> str:
    sha256, size = stored
    return (
        f"sha256 {sha256}, the manifest has {file.sha256}"
        if sha256
        else f"size: {size} bytes, the manifest has {file.size}"
    )


def missing(store: Store, uri: VersionURI, manifest: Manifest) -> list[File]:
    """The files of a version that are not in the bucket."""
    present = set(store.keys(uri.prefix))
    return [file for file in manifest.files if f"{uri.prefix}{file.path}" not in present]


def add_version(
    store: Store,
    uri: VersionURI,
    manifest: Manifest,
    content: Callable[[File], AbstractContextManager[BinaryIO]],
    sign: Callable[[], int],
) -> int:
    """Adds what is missing of a version, and returns how many objects that were.

    `content` gives the bytes of a file, and `sign` adds signatures and returns their number. The manifest comes last,
    once every stored byte is known to be the one that it lists: without it there is no version. Raises Refused when
    one is not; the caller compares the manifest that is there then, which may be somebody else's.
    """
    added, absent = 0, missing(store, uri, manifest)
    for position, file in enumerate(absent, 1):
        cli.progress(f"{position}/{len(absent)} {file.path}")
        with content(file) as body:
            added += store.add(f"{uri.prefix}{file.path}", body, file.sha256)
    if faults := file_faults(store, uri, manifest):
        raise Refused(*faults)
    added += sign()
    return added + store.add(f"{uri.prefix}{MANIFEST}", manifest.text, hashlib.sha256(manifest.text).hexdigest())


def is_copied(replica: Store, uri: VersionURI, manifest: Manifest) -> bool:
    """Whether a version is in a replica as well. Raises Refused where another manifest has its name there."""
    text = replica.read(f"{uri.prefix}{MANIFEST}", MANIFEST_LIMIT)
    if text not in (None, manifest.text):
        raise Refused(
            f"{uri.at(replica.bucket)}{MANIFEST}: sha256:{hashlib.sha256(text).hexdigest()}, and {uri}{MANIFEST} has"
            f" {manifest.sha256}; versions are never overwritten: find out who wrote that object, then remove that"
            f" version there and {copying(replica.bucket, uri)}"
        )
    return text is not None


def copying(bucket: str, uri: VersionURI) -> str:
    """The remedy for a version that a replica lacks."""
    options = f"--to {bucket} --model {uri.model} --version {uri.version}"
    return f"copy it with `python scripts/replicate_models.py {options}`"


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

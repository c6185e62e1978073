"""Model versions: their URIs, their manifests and their digest."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops.cli import Refused
from gitops.manifests.documents import schema_faults

MANIFEST = "manifest.json"
_SCHEMA = Path(__file__).with_name("manifest.schema.json")
_SIGNATURES = (".sig", ".sigstore.json")
BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
VERSION = r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{12}"
_URI = re.compile(rf"s3://(?P<bucket>{BUCKET})/models/(?P<model>[a-z0-9][a-z0-9-]*)/(?P<version>{VERSION})/")


@dataclass(frozen=True, order=True)
class VersionURI:
    """`s3://<bucket>/models/<model>/<version>/`, the place of one immutable model version."""

    bucket: str
    model: str
    version: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def prefix(self) -> str:
        return f"models/{self.model}/{self.version}/"

    def flavour(self, name: str) -> str:
        """The URI of the folder that an app of this flavour serves."""
        return f"{self}{name}/"


def parse_uri(text: str) -> VersionURI:
    """Raises Refused unless `text` is a version's URI, with or without the slash at its end."""
    match = _URI.fullmatch(text if text.endswith("/") else f"{text}/")
    if not match:
        raise Refused(
            f"{text!r}: not the URI of a model version; it has the form"
            " s3://BUCKET/models/MODEL/YYYY-MM-DD-DIGEST12/, as upload_model.py and list_versions.py print it"
        )
    return VersionURI(**match.groupdict())


@dataclass(frozen=True)
class File:
    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`, checked: its schema, its digest and the version that follows from it."""

    data: dict[str, Any]
    text: bytes

    @property
    def model(self) -> str:
        return str(self.data["model"])

    @property
    def version(self) -> str:
        return str(self.data["version"])

    @property
    def digest(self) -> str:
        return str(self.data["digest"])

    @property
    def files(self) -> list[File]:
        return [File(**file) for file in self.data["files"]]


def digest(files: Iterable[tuple[str, str]]) -> str:
    """The digest of a version from (path, SHA-256 in hex) pairs, as
    `sha256sum FILES | LC_ALL=C sort | sha256sum` gives it."""
    lines = sorted(f"{sha256}  {path}\n".encode() for path, sha256 in files)
    return "sha256:" + hashlib.sha256(b"".join(lines)).hexdigest()


def counts(path: str) -> bool:
    """Whether a file of a version is part of its digest: all but the manifest and signatures are."""
    return path != MANIFEST and not path.endswith(_SIGNATURES)


def parse_manifest(text: bytes, source: str) -> Manifest:
    """Raises Refused, naming `source`, unless the manifest is complete and agrees with itself."""
    try:
        # Decoded here because json.loads takes UTF-16 and a byte order mark, which no other reader does.
        data = json.loads(text.decode(), parse_constant=_finite, parse_float=_finite)
    except ValueError as error:
        raise Refused(f"{source}: not JSON: {error}") from None
    except RecursionError:
        raise Refused(f"{source}: not JSON: nested too deeply") from None
    if faults := schema_faults(data, _SCHEMA):
        raise Refused(*[f"{source}: {fault}" for fault in faults])
    manifest = Manifest(data, text)
    paths = [file.path for file in manifest.files]
    if paths != sorted(set(paths)):
        raise Refused(f"{source}: files: not sorted by path, or a path stands twice; package the model again")
    if foreign := [path for path in paths if not counts(path)]:
        raise Refused(f"{source}: files: {foreign[0]} is never part of the digest; package the model again")
    computed = digest((file.path, file.sha256) for file in manifest.files)
    if computed != manifest.digest:
        raise Refused(
            f"{source}: digest: {manifest.digest}, but the listed files give {computed}; the manifest was altered"
        )
    if not manifest.version.endswith("-" + computed.removeprefix("sha256:")[:12]):
        raise Refused(f"{source}: version: {manifest.version} does not end in the first 12 digits of {computed}")
    return manifest


def _finite(text: str) -> float:
    """Infinity, which 1e999 is too, and NaN are not JSON, and what is made of the manifest would not be either."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number

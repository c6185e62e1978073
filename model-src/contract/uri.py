"""The addresses of model versions, and of other things in S3 or in a local folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from contract.errors import Refused

REPLICA = "MODEL_REPLICA"
"""The variable by which whatever loads a model is told the bucket that it reads in the place of the URI's."""
BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
MODEL = r"[a-z0-9][a-z0-9-]*"
VERSION = r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{12}"
VERSION_URI = rf"s3://({BUCKET})/models/({MODEL})/({VERSION})/"
FLAVOUR_URI = rf"{VERSION_URI}([A-Za-z0-9_-][A-Za-z0-9._-]*)/"
"""Regular expressions; where people write a URI, they may leave out the slash at its end."""


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

    def at(self, bucket: str) -> VersionURI:
        """The place of the same version in a replica of its bucket."""
        return replace(self, bucket=bucket)

    def flavour(self, name: str) -> str:
        """The URI of the folder that an app of this flavour serves."""
        return f"{self}{name}/"


def parse_uri(text: str) -> VersionURI:
    """Raises Refused unless `text` is a version's URI, with or without the slash at its end."""
    match = re.fullmatch(VERSION_URI, _folder(text))
    if not match:
        raise Refused(
            f"{text!r}: not the URI of a model version; it has the form"
            " s3://BUCKET/models/MODEL/YYYY-MM-DD-DIGEST12/, as upload_model.py and list_versions.py print it"
        )
    return VersionURI(*match.groups())


def parse_flavour(text: str) -> tuple[VersionURI, str]:
    """The version and the flavour of the URI that an app is given. Raises Refused unless it is one, with or without the
    slash at its end."""
    match = re.fullmatch(FLAVOUR_URI, _folder(text))
    if not match:
        raise Refused(
            f"{text!r}: not the URI of a flavour of a model version; it has the form"
            " s3://BUCKET/models/MODEL/YYYY-MM-DD-DIGEST12/FLAVOUR/"
        )
    *version, flavour = match.groups()
    return VersionURI(*version), flavour


def parse_folder(text: str) -> tuple[str, str] | Path:
    """Of `s3://BUCKET/PREFIX/`, the bucket and the prefix, which ends in a slash or is empty; otherwise a local folder,
    as a path or as `file:///PATH`."""
    if text.startswith("s3://"):
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        return bucket, f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
    return local_path(text)


def local_path(text: str) -> Path:
    """The path that a path or `file:///PATH` names."""
    return Path(unquote(urlsplit(text).path)) if text.startswith("file://") else Path(text)


def _folder(text: str) -> str:
    return text if text.endswith("/") else f"{text}/"

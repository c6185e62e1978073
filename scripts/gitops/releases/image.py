"""References of images, as Kubernetes, Kustomize and Renovate write them: `NAME`, then `:TAG`, `@DIGEST` or both.

Where there is a digest it alone decides what runs; a tag beside it is for people.
Source: https://pkg.go.dev/github.com/distribution/reference

The image of a Stack is the archive of a service, named by its own SHA-256: `s3://BUCKET/services/DIGEST.tar.gz`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9.-]*(?::[0-9]+)?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)+)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


SERVICES, ENDING = "services/", ".tar.gz"
"""Around the SHA-256 in the key of an archive."""
_ARCHIVE = re.compile(rf"s3://(?P<bucket>[^/]+)/{SERVICES}(?P<digest>[0-9a-f]{{64}}){re.escape(ENDING)}")


@dataclass(frozen=True)
class Reference:
    """A reference in its parts; "" for one that is not there."""

    name: str
    tag: str
    digest: str


def parse(text: str) -> Reference | None:
    """None for what is no reference of an image in a registry, by a tag or a digest."""
    match = _REFERENCE.fullmatch(text)
    if not match or not (match["tag"] or match["digest"]):
        return None
    return Reference(match["name"], match["tag"] or "", match["digest"] or "")


def join(name: str, tag: str, digest: str) -> str:
    return f"{name}{f':{tag}' if tag else ''}{f'@{digest}' if digest else ''}"


def identity(text: Any) -> Any:
    """What runs by a reference: without the tag where there is a digest. All else is as it is."""
    found = parse(text) if isinstance(text, str) else None
    return join(found.name, "", found.digest) if found and found.digest else text


def archive(text: Any) -> tuple[str, str] | None:
    """(bucket, SHA-256) of the archive of a service; None for what names none."""
    match = _ARCHIVE.fullmatch(text) if isinstance(text, str) else None
    return (match["bucket"], match["digest"]) if match else None

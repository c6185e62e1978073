"""The digest of a model version: one SHA-256 over all its files, computable with nothing but coreutils.

In the folder of a version, with FILES all files but manifest.json and signatures (no name has a blank in it):

  sha256sum FILES | LC_ALL=C sort | sha256sum
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from contract.errors import Refused

MANIFEST = "manifest.json"
SIGNATURES = (".sig", ".sigstore.json")

# What every tool writes in the same way: sha256sum escapes a backslash and a newline, S3 clients escape still others.
PATH = r"^(?!.*(^|/)\.{1,2}(/|\Z))(?!.*//)[A-Za-z0-9._-][A-Za-z0-9._/-]*(?<!/)\Z"


class HashedFile(NamedTuple):
    path: str
    """Relative to the version's folder, with slashes."""
    sha256: str
    """64 hex digits."""
    size: int
    """Bytes."""


def counts(path: str) -> bool:
    """Whether a file of a version is part of its digest: all are but the manifest, which names the digest, and
    signatures, which are made from it."""
    return path != MANIFEST and not path.endswith(SIGNATURES)


def hash_folder(folder: Path) -> list[HashedFile]:
    """The files of a version that count, sorted by path.

    Raises Refused for a path with a character that tools write differently, and for anything but a regular file.
    """
    found = []
    for file in folder.rglob("*"):
        path = file.relative_to(folder).as_posix()
        if file.is_dir() and not file.is_symlink():
            continue
        if file.is_symlink() or not file.is_file():
            raise Refused(f"{file}: not a regular file; a model version holds nothing else")
        if not re.match(PATH, path):
            raise Refused(f"{file}: rename it, using only letters, digits, '.', '_' and '-'")
        if counts(path):
            with file.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            found.append(HashedFile(path, sha256, file.stat().st_size))
    return sorted(found)


def version_digest(files: Iterable[tuple[str, str]]) -> str:
    """`sha256:` and 64 hex digits, from each file's path and SHA-256 in hex."""
    lines = sorted(f"{sha256}  {path}\n".encode() for path, sha256 in files)
    return f"sha256:{hashlib.sha256(b''.join(lines)).hexdigest()}"

"""Folders of files that fit into memory: a prefix of a bucket, or a local folder."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from contract import waiting
from contract.errors import Refused
from contract.uri import parse_folder
from storage.files import write_atomically
from storage.s3 import S3, Policy, code


@dataclass(frozen=True)
class Object:
    name: str
    """Below the place."""
    stored: datetime


class Place(Protocol):
    """Its methods raise Refused, naming the option or the variable that gave the address, and Unavailable when it is
    worth asking again."""

    uri: str
    """With a slash at its end."""

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder, which ends in a slash; none if there is no such folder."""

    def objects(self, folder: str) -> list[Object]:
        """What lies in the folder itself."""

    def read(self, name: str, limit: int | None = None) -> bytes:
        """A file, or at most `limit` + 1 bytes of it."""

    def add(self, name: str, content: bytes) -> None:
        """Stores a file whole, under a name that nobody else uses: what is there already is from an earlier try."""


class Folder:
    def __init__(self, root: Path, named: str) -> None:
        self.root, self.uri, self._named = root, f"{root}/", named

    def folders(self, folder: str) -> list[str]:
        return [found.name for found in (self.root / folder).glob("*") if found.is_dir()]

    def objects(self, folder: str) -> list[Object]:
        return [
            Object(f"{folder}{found.name}", datetime.fromtimestamp(found.stat().st_mtime, UTC))
            # What starts with a dot is still being written.
            for found in (self.root / folder).glob("[!.]*")
            if found.is_file()
        ]

    def read(self, name: str, limit: int | None = None) -> bytes:
        try:
            with (self.root / name).open("rb") as file:
                return file.read(-1 if limit is None else limit + 1)
        except OSError as error:
            raise Refused(f"{self.root / name}: {error.strerror}; is {self._named} right?") from None

    def add(self, name: str, content: bytes) -> None:
        try:
            write_atomically(self.root / name, content)
        except OSError as error:
            place = error.filename or self.root / name
            raise Refused(f"{place}: {error.strerror or error}; is {self._named} right?") from None


class Bucket:
    def __init__(self, bucket: str, prefix: str, named: str, policy: Policy) -> None:
        """`prefix` has a slash at its end, or is empty."""
        self.uri = f"s3://{bucket}/{prefix}"
        self._bucket, self._prefix, self._s3 = bucket, prefix, S3(policy)
        self._to_read, self._to_write = (f"check {named} and the permission to {what} it" for what in ("read", "write"))

    def folders(self, folder: str) -> list[str]:
        return [found["Prefix"].rstrip("/").rpartition("/")[2] for found in self._listed(folder, "CommonPrefixes")]

    def objects(self, folder: str) -> list[Object]:
        return [
            Object(found["Key"].removeprefix(self._prefix), found["LastModified"])
            for found in self._listed(folder, "Contents")
        ]

    def read(self, name: str, limit: int | None = None) -> bytes:
        content = bytearray()
        with (
            self._s3.calls(f"{self.uri}{name}", self._to_read) as client,
            contextlib.closing(client.get_object(Bucket=self._bucket, Key=f"{self._prefix}{name}")["Body"]) as body,
        ):
            # To the end and not only as far as needed: boto3 compares the store's checksum when it sees the end.
            for chunk in waiting.steps(body.read):
                content += chunk
                if limit is not None and len(content) > limit:
                    break
        return bytes(content if limit is None else content[: limit + 1])

    def add(self, name: str, content: bytes) -> None:
        from botocore.exceptions import ClientError

        with self._s3.calls(f"{self.uri}{name}", self._to_write) as client:
            try:
                client.put_object(Bucket=self._bucket, Key=f"{self._prefix}{name}", Body=content, IfNoneMatch="*")
            except ClientError as error:
                # An earlier try arrived, and only its answer was lost.
                if code(error) != "PreconditionFailed":
                    raise

    def _listed(self, folder: str, part: str) -> list[Any]:
        with self._s3.calls(f"{self.uri}{folder}", self._to_read) as client:
            lister = client.get_paginator("list_objects_v2")
            pages = lister.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{folder}", Delimiter="/")
            return [found for page in pages for found in page.get(part, [])]


def open_place(uri: str, named: str, policy: Policy) -> Place:
    """The place that `uri`, s3://BUCKET/PREFIX/ or a local folder, names; `named` is what gave it, for the errors."""
    place = parse_folder(uri)
    return Folder(place, named) if isinstance(place, Path) else Bucket(*place, named, policy)

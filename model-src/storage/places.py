"""Where logs and versions are read from: S3, or a local folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from contract.errors import Refused
from contract.uri import parse_folder


@dataclass(frozen=True)
class Object:
    name: str
    """Below the place."""
    stored: datetime


class Place(Protocol):
    """A prefix in a bucket or a local folder. Methods raise Refused, naming the option, when it cannot be read."""

    uri: str
    """With a slash at its end."""

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder, which ends in a slash; none if there is no such folder."""

    def objects(self, folder: str) -> list[Object]:
        """What lies in the folder itself."""

    def read(self, name: str) -> bytes: ...


class Folder:
    def __init__(self, root: Path, option: str) -> None:
        self.root, self.uri, self._option = root, f"{root}/", option
        if not root.is_dir():
            raise Refused(f"{option} {root}: no such folder")

    def folders(self, folder: str) -> list[str]:
        return [found.name for found in (self.root / folder).glob("*") if found.is_dir()]

    def objects(self, folder: str) -> list[Object]:
        return [
            Object(f"{folder}{found.name}", datetime.fromtimestamp(found.stat().st_mtime, UTC))
            # What starts with a dot is still being written.
            for found in (self.root / folder).glob("[!.]*")
            if found.is_file()
        ]

    def read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise Refused(f"{self._option} {self.uri}: {name}: {error.strerror}") from None


class Bucket:
    def __init__(self, bucket: str, prefix: str, option: str) -> None:
        import boto3
        from botocore.config import Config

        self.bucket, self.prefix, self.uri, self._option = bucket, prefix, f"s3://{bucket}/{prefix}", option
        config = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 3})
        with self._translated(""):
            self._s3: Any = boto3.session.Session().client("s3", config=config)

    def folders(self, folder: str) -> list[str]:
        with self._translated(folder):
            return [
                found["Prefix"].rstrip("/").rpartition("/")[2]
                for page in self._pages(folder)
                for found in page.get("CommonPrefixes", [])
            ]

    def objects(self, folder: str) -> list[Object]:
        with self._translated(folder):
            return [
                Object(found["Key"].removeprefix(self.prefix), found["LastModified"])
                for page in self._pages(folder)
                for found in page.get("Contents", [])
            ]

    def read(self, name: str) -> bytes:
        with self._translated(name):
            return bytes(self._s3.get_object(Bucket=self.bucket, Key=f"{self.prefix}{name}")["Body"].read())

    def _pages(self, folder: str) -> Any:
        lister = self._s3.get_paginator("list_objects_v2")
        return lister.paginate(Bucket=self.bucket, Prefix=f"{self.prefix}{folder}", Delimiter="/")

    @contextlib.contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        from botocore import exceptions

        try:
            yield
        except (exceptions.BotoCoreError, exceptions.ClientError, ValueError) as error:
            raise Refused(
                f"{self._option} {self.uri}: {f'{name}: ' if name else ''}{' '.join(str(error).split())}; check the"
                " address, the AWS_ variables and the right to list and read"
            ) from None


def open_place(uri: str, option: str) -> Place:
    """The place that `uri`, given as `option`, names: s3://BUCKET/PREFIX/ or a local folder."""
    place = parse_folder(uri)
    return Folder(place, option) if isinstance(place, Path) else Bucket(*place, option)

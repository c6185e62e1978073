"""Files of any size, in S3 or here: read as a stream, and written so that they appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from contract import temporary
from contract.errors import Refused
from contract.waiting import STEP, Limit
from storage import Unavailable
from storage.files import share
from storage.s3 import PATIENT, S3, code

PART = 16 << 20
"""Bytes of a part of an upload, which are held in memory. S3 takes 10,000 parts: 160 GB."""
_OBJECT = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<key>.*)", re.S)
_READ, _WRITE = "check the URI and the permission to read it", "check the URI and the permission to write it"
# Another writer was first, or is at it, or boto3 asked again for what had been done already.
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload")
_S3 = S3(PATIENT)


class Writer(Protocol):
    """Takes bytes, and makes them appear all at once at a place where nothing is yet."""

    def write(self, data: bytes) -> None: ...

    def publish(self) -> bool:
        """Makes the bytes appear; False when the very same are there already. Raises Refused when others are."""

    def drop(self) -> None:
        """Leaves nothing behind of what was not published."""


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


@contextlib.contextmanager
def reading(uri: str) -> Iterator[BinaryIO]:
    """The bytes of an object or a file. Raises Refused, and Unavailable when it is worth trying again."""
    if is_s3(uri):
        bucket, key = _split(uri)
        limit = _S3.limit(uri)
        with _S3.calls(uri, _READ, limit) as client:
            body = client.get_object(Bucket=bucket, Key=key)["Body"]
        with contextlib.closing(body):
            yield io.BufferedReader(_Body(uri, body, limit), 1 << 20)
        return
    try:
        file = Path(uri).open("rb")  # noqa: SIM115 - what is raised while it is read is not about opening it
    except OSError as error:
        raise Refused(f"{uri}: {error.strerror}; check the path") from None
    with file:
        yield file


def find(place: str) -> dict[str, float]:
    """URI and time of the last change, in seconds, of everything below a place, which ends in a slash; sorted."""
    found: dict[str, float] = {}
    if is_s3(place):
        bucket, prefix = _split(place)
        with _S3.calls(place, _READ) as client:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    found[f"s3://{bucket}/{item['Key']}"] = item["LastModified"].timestamp()
    else:
        for file in Path(place).rglob("*"):
            # A name with a dot is of a file that is being written, or was until its process was killed.
            if file.name.startswith("."):
                temporary.sweep_sibling(file)
            elif file.is_file():
                # Not the time of modification, which a copy may bring along.
                found[f"{place}{file.relative_to(place).as_posix()}"] = file.stat().st_ctime
    return dict(sorted(found.items()))


def writer(uri: str) -> Writer:
    return _Upload(uri) if is_s3(uri) else _NewFile(uri)


class _Upload:
    """One put, or an upload in parts which is completed at the end: either makes an object where there is none."""

    def __init__(self, uri: str) -> None:
        self._uri, (self._bucket, self._key) = uri, _split(uri)
        self._sha256, self._rest = hashlib.sha256(), bytearray()
        self._id, self._parts = "", list[dict[str, Any]]()

    def write(self, data: bytes) -> None:
        self._sha256.update(data)
        self._rest += data
        while len(self._rest) >= PART:
            self._send(bytes(self._rest[:PART]))
            del self._rest[:PART]

    def publish(self) -> bool:
        from botocore.exceptions import ClientError

        if self._id and self._rest:
            self._send(bytes(self._rest))
        with _S3.calls(self._uri, _WRITE) as client:
            try:
                if self._id:
                    parts = {"Parts": self._parts}
                    client.complete_multipart_upload(
                        **self._target(), UploadId=self._id, MultipartUpload=parts, IfNoneMatch="*"
                    )
                    self._id = ""
                else:
                    client.put_object(**self._target(), Body=bytes(self._rest), IfNoneMatch="*")
                return True
            except ClientError as error:
                if code(error) not in _TAKEN:
                    raise
        return _is_there(self._uri, self._sha256.hexdigest())

    def drop(self) -> None:
        if self._id:
            # Whatever it fails with is less than why it is dropped; the bucket's lifecycle takes the parts away.
            with contextlib.suppress(Exception), _S3.calls(self._uri, _WRITE) as client:
                client.abort_multipart_upload(**self._target(), UploadId=self._id)
            self._id = ""

    def _send(self, data: bytes) -> None:
        with _S3.calls(self._uri, _WRITE) as client:
            if not self._id:
                self._id = client.create_multipart_upload(**self._target())["UploadId"]
            number = len(self._parts) + 1
            part = client.upload_part(**self._target(), UploadId=self._id, PartNumber=number, Body=data)
            self._parts.append({"PartNumber": number, "ETag": part["ETag"]})

    def _target(self) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._key}


class _NewFile:
    """A hidden sibling, linked to its name at the end: unlike a rename, that fails where a file is already."""

    def __init__(self, uri: str) -> None:
        self._path, self._sha256 = Path(uri), hashlib.sha256()
        self._file: IO[bytes] | None = None

    def write(self, data: bytes) -> None:
        self._sha256.update(data)
        with self._faults():
            self._open().write(data)

    def publish(self) -> bool:
        with self._faults():
            file = self._open()
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(file.name, self._path)
                return True
            except FileExistsError:
                pass
        return _is_there(str(self._path), self._sha256.hexdigest())

    def drop(self) -> None:
        if self._file:
            Path(self._file.name).unlink()
            self._file.close()
            self._file = None

    def _open(self) -> IO[bytes]:
        if not self._file:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = temporary.sibling_file(self._path)
            share(self._file)
        return self._file

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Refused(f"{self._path}: {error.strerror}; check the path and the permission to write it") from None


def _is_there(uri: str, sha256: str) -> bool:
    """False, for what has been published before, when the bytes at a place are these. Raises Refused when others are,
    and Unavailable when there are none yet: another writer is about to be the first."""
    found = hashlib.sha256()
    try:
        with reading(uri) as stream:
            while chunk := stream.read(1 << 20):
                found.update(chunk)
    except Refused as refused:
        raise Unavailable(f"{uri}: is being written by somebody else ({refused})") from None
    if found.hexdigest() != sha256:
        raise Refused(
            f"{uri}: is there already with other bytes, and is never overwritten: name another output, or move that one"
            " away"
        )
    return False


class _Body(io.RawIOBase):
    """What boto3 gives for an object, as a stream. Only its read() compares the length and the store's checksum."""

    def __init__(self, uri: str, body: Any, limit: Limit) -> None:
        self._uri, self._body, self._limit = uri, body, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _S3.calls(self._uri, _READ, self._limit):
            data = self._body.read(min(len(buffer), STEP))
        buffer[: len(data)] = data
        return len(data)


def _split(uri: str) -> tuple[str, str]:
    match = _OBJECT.fullmatch(uri)
    if not match:
        raise Refused(f"{uri}: no object of S3; write s3://BUCKET/KEY")
    return match["bucket"], match["key"]

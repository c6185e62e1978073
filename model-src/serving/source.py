"""Where a model version is read from: S3, or a local folder for trying out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from contract.errors import Refused
from contract.uri import VersionURI, local_path, parse_flavour


class Unavailable(Exception):
    """The source does not answer at the moment; the same question may be answered later."""


class Source(Protocol):
    """A model version's folder."""

    flavour: str
    """The sub-folder that is served, e.g. `onnx`."""

    @property
    def uri(self) -> VersionURI | None:
        """The version that the place itself names, if it does."""

    def read(self, path: str, limit: int) -> bytes:
        """At most `limit` + 1 bytes of the file `path`, relative to the version's folder.

        Raises Unavailable when it is worth asking again, and Refused when it is not.
        """


@dataclass
class Folder:
    version: Path
    flavour: str
    uri: VersionURI | None = None

    def read(self, path: str, limit: int) -> bytes:
        try:
            with (self.version / path).open("rb") as file:
                return file.read(limit + 1)
        except OSError as error:
            raise Refused(f"{self.version / path}: {error.strerror}; is MODEL_URI right?") from None


@dataclass
class Bucket:
    uri: VersionURI
    flavour: str

    def read(self, path: str, limit: int) -> bytes:
        with s3_faults(f"{self.uri}{path}", "check MODEL_URI and the permission to read it"):
            body = self._client().get_object(Bucket=self.uri.bucket, Key=f"{self.uri.prefix}{path}")["Body"]
            content = bytearray()
            # To the end and not only as far as needed: boto3 compares the store's checksum when it sees the end.
            while len(content) <= limit and (chunk := body.read(1 << 20)):
                content += chunk
            return bytes(content)

    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        # A new session each time, so that credentials that have been rotated while S3 was away are found. Retries
        # are the caller's, who says meanwhile why the service is not ready.
        return boto3.session.Session().client(
            "s3", config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1})
        )


@contextlib.contextmanager
def s3_faults(uri: str, remedy: str) -> Iterator[None]:
    """Says of what boto3 raises in the block whether it is worth asking again, Unavailable, or not, Refused."""
    from botocore import exceptions

    try:
        yield
    except exceptions.FlexibleChecksumError as error:
        raise Refused(f"{uri}: the stored bytes were altered: {error}; do not use them") from None
    except exceptions.ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        if status >= 500 or status == 429 or code in ("RequestTimeout", "Throttling", "ThrottlingException"):
            raise Unavailable(f"{uri}: {error}") from None
        raise Refused(f"{uri}: {error}; {remedy}") from None
    except (
        # Connections, time-outs, an answer cut short, and a credential service that does not answer.
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.ResponseStreamingError,
        exceptions.IncompleteReadError,
        exceptions.CredentialRetrievalError,
        exceptions.MetadataRetrievalError,
    ) as error:
        raise Unavailable(f"{uri}: {error}") from None
    except (exceptions.BotoCoreError, ValueError) as error:
        raise Refused(f"{uri}: {error}; check the AWS_ variables") from None


def open_source(uri: str) -> Source:
    """The source that the URI of a version's flavour, or a local folder, names. Raises Refused for others in S3."""
    if uri.startswith("s3://"):
        return Bucket(*parse_flavour(uri))
    path = local_path(uri)
    return Folder(path.absolute().parent, path.name)

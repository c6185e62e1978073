"""The one place that talks to S3, or to any server that speaks its protocol.

Endpoint, region and credentials come from the standard AWS variables and files. Objects are only ever added: every
put is conditional, so no object of a version can be overwritten from here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import boto3
import botocore.exceptions as faults
from botocore.config import Config

from gitops import cli, layout, signing, versions
from gitops.cli import Refused
from gitops.release import Release
from gitops.signing import Signer, Signing
from gitops.versions import File, Manifest, VersionURI

_CHUNK = 1 << 20
# What AWS and versitygw say about credentials without the status Forbidden.
_NOT_KNOWN = ("ExpiredToken", "InvalidToken", "XAdminUserNotFound")


class Damaged(Refused):
    """The stored bytes are not those that were put: the medium or somebody at the server changed them."""


class Store:
    """One bucket. Methods raise Refused with the remedy when the bucket, the credentials or the network fail."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        config = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 3})
        with self._translated(""):
            try:
                self._s3 = boto3.client("s3", config=config)
            except ValueError as error:  # among them an endpoint that is no URL
                raise Refused(f"s3://{bucket}: {error}; check AWS_ENDPOINT_URL_S3") from None

    def read(self, key: str, limit: int | None = None) -> bytes | None:
        """An object's bytes, of a larger one `limit` + 1 at most, or None if there is no such object."""
        with self._translated(key):
            try:
                body = self._s3.get_object(Bucket=self.bucket, Key=key)["Body"]
                return bytes(body.read(None if limit is None else limit + 1))
            except self._s3.exceptions.NoSuchKey:
                return None

    def sha256(self, key: str) -> tuple[str, int] | None:
        """SHA-256 (hex) and size of what is stored, computed from its bytes; None if there is no such object."""
        with self._translated(key):
            try:
                body = self._s3.get_object(Bucket=self.bucket, Key=key)["Body"]
            except self._s3.exceptions.NoSuchKey:
                return None
            digest, size = hashlib.sha256(), 0
            for chunk in body.iter_chunks(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
            return digest.hexdigest(), size

    def add(self, key: str, body: bytes | BinaryIO, sha256: str) -> bool:
        """Stores bytes of this SHA-256 under a key that must be new; False if the key exists, whoever was first."""
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        with self._translated(key):
            try:
                self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, IfNoneMatch="*", ChecksumSHA256=checksum)
            except faults.ClientError as error:
                if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
                    return False
                raise
        return True

    def keys(self, prefix: str) -> list[str]:
        with self._translated(prefix):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        url = self.url(key)
        try:
            yield
        except faults.ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            if code == "NoSuchBucket":
                raise Refused(f"s3://{self.bucket}: no such bucket; create it, or correct the name") from None
            if error.response["ResponseMetadata"].get("HTTPStatusCode") == 403 or code in _NOT_KNOWN:
                raise Refused(
                    f"{url}: refused by the server ({code}); check the credentials and their rights"
                ) from None
            raise Refused(f"{url}: {code}: {' '.join(message.split())}") from None
        except (faults.NoCredentialsError, faults.PartialCredentialsError):
            raise Refused(
                f"{url}: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from None
        except (faults.EndpointConnectionError, faults.ConnectTimeoutError, faults.ReadTimeoutError) as error:
            raise Refused(f"{url}: cannot be reached ({error}); check the network and AWS_ENDPOINT_URL_S3") from None
        except faults.FlexibleChecksumError:
            raise Damaged(
                f"{url}: the stored bytes do not match the checksum they were stored with; the object is damaged,"
                " do not release it"
            ) from None
        except faults.NoRegionError:
            raise Refused(f"{url}: no AWS region; set AWS_REGION") from None
        except faults.BotoCoreError as error:
            raise Refused(f"{url}: {' '.join(str(error).split())}; check the AWS variables and files") from None


def model_bucket(option: str | None, root: Path) -> Store:
    """The bucket of `--bucket s3://BUCKET`, or of the policy if the option is not given."""
    if option is None:
        return Store(layout.read_policy(root).model_bucket)
    bucket = option.removeprefix("s3://").removesuffix("/")
    if not option.startswith("s3://") or not re.fullmatch(versions.BUCKET, bucket):
        raise Refused(f"--bucket {option!r}: write it as s3://BUCKET; the place in the bucket follows from the model")
    return Store(bucket)


def list_versions(store: Store, model: str) -> list[VersionURI]:
    """The versions of a model that exist, which is those with a manifest. Other keys beside them are no versions."""
    place = re.compile(rf"models/{re.escape(model)}/(?P<version>{versions.VERSION})/{re.escape(versions.MANIFEST)}")
    keys = store.keys(f"models/{model}/")
    return [VersionURI(store.bucket, model, match["version"]) for key in keys if (match := place.fullmatch(key))]


def read_manifest(store: Store, uri: VersionURI) -> Manifest:
    """The manifest of a version; Refused unless it exists, agrees with itself and belongs to this very URI."""
    source = f"{uri}{versions.MANIFEST}"
    text = store.read(f"{uri.prefix}{versions.MANIFEST}")
    if text is None:
        raise Refused(
            f"{uri}: no such version in the bucket; `list_versions.py --model {uri.model}` lists what is there"
        )
    manifest = versions.parse_manifest(text, source)
    if (manifest.model, manifest.version) != (uri.model, uri.version):
        raise Refused(f"{source}: names {manifest.model}/{manifest.version}, not {uri.model}/{uri.version}")
    if manifest.data["draft"]:
        raise Refused(f"{source}: draft: true; a draft is never released, train from a commit and upload that")
    return manifest


def file_faults(store: Store, uri: VersionURI, manifest: Manifest) -> list[str]:
    """What is wrong with the stored files of a version: each is downloaded and hashed, and none may be foreign."""
    found: list[str] = []
    for file in manifest.files:
        cli.progress(f"verifying {uri}{file.path}")
        try:
            stored = store.sha256(f"{uri.prefix}{file.path}")
        except Damaged as damaged:
            found += damaged.lines
            continue
        if stored is None:
            found.append(f"{uri}{file.path}: missing; the version is incomplete, do not release it")
        elif stored != (file.sha256, file.size):
            found.append(
                f"{uri}{file.path}: sha256 {stored[0]} of {stored[1]} bytes, the manifest says {file.sha256} of"
                f" {file.size}; versions are never overwritten: find out who wrote that object, do not release it"
            )
    cli.progress("")
    known = {file.path for file in manifest.files} | {versions.MANIFEST}
    for key in store.keys(uri.prefix):
        path = key.removeprefix(uri.prefix)
        if path not in known and versions.counts(path):
            found.append(f"{uri}{path}: not in the manifest; remove the object, a model server might load it")
    return found


def require_signature(store: Store, uri: VersionURI, manifest: Manifest, signer: Signer | None) -> None:
    """Raises Refused unless the manifest of a version carries the signature that is asked for, if one is."""
    if signer is None:
        return
    name = signing.name(manifest.text, signer)
    signature = store.read(f"{uri.prefix}{name}", signing.LIMIT)
    if signature is None:
        start = signing.start(manifest.text)
        others = [key.removeprefix(uri.prefix) for key in store.keys(f"{uri.prefix}{start}")]
        how = f"signed, but not by {signer}" if others else f"not signed by {signer}"
        raise signing.Unsigned(
            f"{uri}: {how}, which {layout.POLICY_FILE} asks for; {signing.remedy(uri, signer)}", others
        )
    signing.verify(manifest.text, signature, signer, f"{uri}{name}")


def add_signature(store: Store, uri: VersionURI, manifest: Manifest, planned: Signing) -> int:
    """Signs the manifest of a version, unless that is done; returns how many objects that added.

    Raises Refused when what is made, or is there under the name of the signature, does not verify.
    """
    name = signing.name(manifest.text, planned.signer)
    key = f"{uri.prefix}{name}"
    added, stored = 0, store.read(key, signing.LIMIT)
    if stored is None:
        made = planned.make(manifest.text)
        signing.verify(manifest.text, made, planned.signer, name)
        added = int(store.add(key, made, hashlib.sha256(made).hexdigest()))
        stored = store.read(key, signing.LIMIT) or b""
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


def verify_release(item: Release, signer: Signer | None) -> tuple[VersionURI, Manifest]:
    """The version that a release names, once every stored byte is known to be what was released, and signed if that is
    asked for; Refused otherwise."""
    file = item.file
    try:
        uri = versions.parse_uri(item.uri.rstrip("/").rpartition("/")[0])
    except Refused:
        raise Refused(
            f"{file}: {item.uri!r}: not the folder of a model version;"
            " release one there with `python scripts/bump_model.py`"
        ) from None
    manifest = verify(Store(uri.bucket), uri, signer)
    if manifest.digest != item.digest:
        raise Refused(
            f"{file}: digest: {item.digest}, but {uri} has {manifest.digest};"
            " the version in the bucket is not the one that was released, do not release it again"
        )
    return uri, manifest


def hash_files(folder: Path) -> list[File]:
    """The files below a folder that count for the digest, by path."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and versions.counts(name):
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            found.append(File(name, sha256, path.stat().st_size))
    return found

"""The one place that talks to S3, or to any server that speaks its protocol, and that asks other services of AWS.

Endpoint, region and credentials come from the standard AWS variables and files; those of a replica, where they are
others, from the profile there that is called like its bucket. Every put is conditional, so no object of a version can
be overwritten from here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import botocore.exceptions as faults

from gitops.repo.policy import Policy, read_policy

from contract import waiting
from contract.errors import Refused
from contract.uri import BUCKET


@cache
def _libraries() -> tuple[Any, Any]:
    """boto3 and botocore, which take a quarter of a second to import: most commands ask no bucket."""
    import boto3
    import botocore.awsrequest
    import botocore.config
    import botocore.configprovider
    import botocore.session

    waiting.watch(botocore.awsrequest.AWSHTTPConnectionPool, botocore.awsrequest.AWSHTTPSConnectionPool)
    return boto3, botocore


def _limits(**retries: Any) -> Any:
    """How long to wait for an answer, and how often to ask again."""
    _, botocore = _libraries()
    longest = waiting.patience()
    return botocore.config.Config(
        connect_timeout=min(5, longest), read_timeout=longest, retries={"mode": "standard", **retries}
    )


# What AWS and versitygw answer to credentials without the status Forbidden.
_NOT_KNOWN = ("ExpiredToken", "InvalidToken", "XAdminUserNotFound")


class Damaged(Refused):
    """The stored bytes are not those that were put: the medium or somebody at the server changed them."""


class Unanswered(Refused):
    """The bucket, the credentials or the network fail: other objects of the bucket would fare no better."""


@dataclass(frozen=True)
class Stored:
    """An object as a bucket lists it."""

    key: str
    size: int
    """In bytes."""
    modified: datetime


class Store:
    """One bucket. Methods raise Unanswered with the remedy when the bucket, the credentials or the network fail."""

    def __init__(self, bucket: str, region: str | None = None) -> None:
        """`region` is that of a replica; the model bucket's is the one of the AWS variables."""
        self.bucket = bucket
        boto3, _ = _libraries()
        config = _limits(max_attempts=3)
        with self._translated(""):
            try:
                self._s3 = _replicas_client(bucket, region, config) if region else boto3.client("s3", config=config)
            except ValueError as error:  # among them an endpoint that is no URL
                raise Unanswered(f"s3://{bucket}: {error}; check AWS_ENDPOINT_URL_S3") from None

    def read(self, key: str, limit: int) -> bytes | None:
        """An object's bytes, of a larger one `limit` + 1 at most, or None if there is no such object."""
        with self._translated(key):
            try:
                found = self._s3.get_object(Bucket=self.bucket, Key=key)
            except self._s3.exceptions.NoSuchKey:
                return None
            with contextlib.closing(found["Body"]) as body:
                content = bytearray()
                for chunk in waiting.steps(body.read):
                    content += chunk
                    if len(content) > limit:
                        break
                return bytes(content[: limit + 1])

    def sha256(self, key: str, size: int, copy: BinaryIO | None = None) -> tuple[str | None, int] | None:
        """SHA-256 (hex), computed from the stored bytes, and their number; None if there is no such object.

        There is no SHA-256 of an object that is not of `size` bytes: no more of it is read than shows that. What is
        read is written to `copy`, if that is given.
        """
        with self._translated(key):
            try:
                found = self._s3.get_object(Bucket=self.bucket, Key=key)
            except self._s3.exceptions.NoSuchKey:
                return None
            with contextlib.closing(found["Body"]) as body:
                # A server that gives no length, or a wrong one, is found out by what it sends.
                if found.get("ContentLength", size) != size:
                    return None, found["ContentLength"]
                digest, read = hashlib.sha256(), 0
                for chunk in waiting.steps(body.read):
                    digest.update(chunk)
                    read += len(chunk)
                    if read > size:
                        break
                    if copy:
                        copy.write(chunk)
            return (digest.hexdigest() if read == size else None), read

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
        return [item.key for item in self.objects(prefix)]

    def objects(self, prefix: str) -> list[Stored]:
        """What is below a prefix, by its key."""
        with self._translated(prefix):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            found = [item for page in pages for item in page.get("Contents", [])]
        return sorted((Stored(item["Key"], item["Size"], item["LastModified"]) for item in found), key=lambda i: i.key)

    def delete(self, key: str) -> None:
        """Takes an object away. In a bucket that keeps versions it can be brought back until a rule there ends it."""
        with self._translated(key):
            self._s3.delete_object(Bucket=self.bucket, Key=key)

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        url = self.url(key)
        try:
            with waiting.Limit(url, "check the network and AWS_ENDPOINT_URL_S3, then run the command again"):
                yield
        except faults.ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            if code == "NoSuchBucket":
                raise Unanswered(f"s3://{self.bucket}: no such bucket; create it, or correct the name") from None
            if error.response["ResponseMetadata"].get("HTTPStatusCode") == 403 or code in _NOT_KNOWN:
                raise Unanswered(
                    f"{url}: refused by the server ({code}); check the credentials and their rights"
                ) from None
            raise Unanswered(f"{url}: {code}: {' '.join(message.split())}") from None
        except (faults.NoCredentialsError, faults.PartialCredentialsError):
            raise Unanswered(
                f"{url}: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from None
        except (faults.EndpointConnectionError, faults.ConnectTimeoutError, faults.ReadTimeoutError) as error:
            raise Unanswered(f"{url}: cannot be reached ({error}); check the network and AWS_ENDPOINT_URL_S3") from None
        except faults.FlexibleChecksumError:
            raise Damaged(
                f"{url}: the stored bytes do not match the checksum they were stored with; the object is damaged,"
                " do not release it"
            ) from None
        except faults.NoRegionError:
            raise Unanswered(f"{url}: no AWS region; set AWS_REGION") from None
        except faults.BotoCoreError as error:
            raise Unanswered(f"{url}: {' '.join(str(error).split())}; check the AWS variables and files") from None


def _replicas_client(bucket: str, region: str, config: Any) -> Any:
    """Where the AWS configuration has a profile of this name, with its credentials and its endpoint."""
    boto3, botocore = _libraries()
    session = botocore.session.Session()
    if bucket not in session.available_profiles:
        return boto3.session.Session(region_name=region).client("s3", config=config)
    own = botocore.session.Session(profile=bucket)
    # Without the variables, which are of the model bucket and would have the last word.
    provider = botocore.configprovider.ConfiguredEndpointProvider
    endpoint = provider(own.full_config, own.get_scoped_config(), "s3", environ={}).provide()
    return boto3.session.Session(botocore_session=own, region_name=region).client(
        "s3", config=config, endpoint_url=endpoint
    )


def replica(policy: Policy, bucket: str) -> Store:
    """One of the policy's replicas."""
    return Store(bucket, policy.replicas[bucket])


# The answer to HEAD has no body, so its code is the status.
_ABSENT = re.compile(r"404|NoSuch[A-Za-z]+|[A-Za-z]+NotFound(Exception|Error)?")
# SageMaker and CloudFormation have one code for all that is wrong with a request.
_ABSENT_TOLD = re.compile(r"Could not find |Stack (with id \S+|\[\S+\]) does not exist")


def client(service: str, region: str) -> Any:
    """A client of another service of AWS. Raises Refused when the AWS variables and files are of no use."""
    boto3, _ = _libraries()
    try:
        return boto3.client(service, region, config=_limits())
    except faults.BotoCoreError as error:
        raise Refused(f"AWS {service} in {region}: {_words(error)}; check the AWS variables") from None


def call(client: Any, operation: str, **given: Any) -> dict[str, Any] | None:
    """What a service of AWS answers; None where what it is asked for is not there. Raises Refused as Store does."""
    where = f"AWS {client.meta.service_model.service_name} in {client.meta.region_name}"
    try:
        with waiting.Limit(where, "check the network, then run the command again"):
            found: dict[str, Any] = getattr(client, operation)(**given)
            return found
    except faults.ClientError as error:
        code, message = error.response["Error"]["Code"], _words(error.response["Error"].get("Message", ""))
        if _ABSENT.fullmatch(code) or _ABSENT_TOLD.match(message):
            return None
        raise Refused(f"{where}: {operation}: {code}: {message}; check the credentials and their rights") from None
    except faults.BotoCoreError as error:
        raise Refused(f"{where}: {operation}: {_words(error)}; check the AWS variables") from None


def ask(service: str, region: str, operation: str, **given: Any) -> dict[str, Any] | None:
    """`call` with a client of its own."""
    return call(client(service, region), operation, **given)


def _words(text: object) -> str:
    return " ".join(str(text).split())


def model_bucket(option: str | None, root: Path) -> Store:
    """The bucket of `--bucket s3://BUCKET`, or of the policy if the option is not given."""
    if option is None:
        return Store(read_policy(root).model_bucket)
    bucket = option.removeprefix("s3://").removesuffix("/")
    if not option.startswith("s3://") or not re.fullmatch(BUCKET, bucket):
        raise Refused(f"--bucket {option!r}: write it as s3://BUCKET; the place in the bucket follows from the model")
    return Store(bucket)

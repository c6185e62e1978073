"""S3: the client, its two policies of time-outs and retries, and what its faults mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contract import waiting
from contract.errors import Refused
from contract.waiting import Limit
from storage import Unavailable


@dataclass(frozen=True)
class Policy:
    connect_timeout: float
    """Seconds."""
    times: float
    """How often patience() a server has for an answer or the next STEP of it, at each try."""
    tries: int

    @property
    def read_timeout(self) -> float:
        return self.times * waiting.patience()


ONE_TRY = Policy(connect_timeout=2, times=1 / 6, tries=1)
"""For the service: it tries again by itself, because it shows meanwhile why it is not ready and counts what it could
not log, and it has to stop in time."""
PATIENT = Policy(connect_timeout=5, times=1, tries=3)
"""For jobs and commands, which have nothing to do while they wait."""


class S3:
    """A client that is kept as long as it works: after a fault the next call begins a new session, which finds
    credentials that were rotated meanwhile."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._client: Any = None

    def limit(self, uri: str) -> Limit:
        return Limit(uri, "check the network and the server", self._policy.times)

    @contextlib.contextmanager
    def calls(self, uri: str, remedy: str, limit: Limit | None = None) -> Iterator[Any]:
        """The client, for calls about `uri` within the block, which `limit` ends. What they raise becomes Unavailable
        when it is worth asking again, and Refused, with a remedy, when it is not."""
        try:
            with _translated(uri, remedy), limit or self.limit(uri):
                if self._client is None:
                    self._client = _connect(self._policy)
                yield self._client
        except (Refused, Unavailable):
            self._client = None
            raise


def _connect(policy: Policy) -> Any:
    # It takes a tenth of a second to import, which a local folder does not need.
    import boto3
    from botocore import awsrequest
    from botocore.config import Config

    waiting.watch(awsrequest.AWSHTTPConnectionPool, awsrequest.AWSHTTPSConnectionPool)
    config = Config(
        connect_timeout=min(policy.connect_timeout, policy.read_timeout),
        read_timeout=policy.read_timeout,
        retries={"mode": "standard", "total_max_attempts": policy.tries},
    )
    return boto3.session.Session().client("s3", config=config)


@contextlib.contextmanager
def _translated(uri: str, remedy: str) -> Iterator[None]:
    from botocore import exceptions

    try:
        yield
    except waiting.TooSlow as slow:
        raise Unavailable(str(slow)) from None
    except exceptions.FlexibleChecksumError as error:
        raise Refused(f"{uri}: the stored bytes were altered: {error}; do not use them") from None
    except exceptions.ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= 500 or status == 429 or code(error) in ("RequestTimeout", "Throttling", "ThrottlingException"):
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


def code(error: Any) -> str:
    """Of a ClientError, what S3 calls it."""
    return str(error.response.get("Error", {}).get("Code", ""))

"""What the service reads from its environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from contract import version
from contract.errors import Refused
from contract.uri import BUCKET, FLAVOUR_URI, REPLICA
from contract.version import Expected


@dataclass(frozen=True)
class Wanted:
    """The model to load, and what must hold of it."""

    uri: str
    """The folder with model.onnx; the version's manifest lies one folder above it."""
    expected: Expected
    replica: str | None = None
    """The bucket that is read in the place of the URI's; None for that one."""


@dataclass(frozen=True)
class Settings:
    model: Wanted
    host: str
    port: int
    shared_port: bool
    """Whether other services listen on the port too: this one does once it has its model, and not before."""
    drain_seconds: float
    """How long the service goes on answering after SIGTERM while /readyz already shows that it is going away: load
    balancers learn of a stopping pod later than the pod does."""
    request_log_uri: str
    """Where predictions are logged; empty: nowhere."""
    request_log_sample: float
    """The share of predicted rows that is logged, 0 to 1."""


class _Variables:
    """Reads variables, and gathers what is wrong with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.faults: list[str] = []

    def text(self, name: str, default: str, pattern: str, meaning: str) -> str:
        value = self._environment.get(name, default)
        if not re.fullmatch(pattern, value):
            self.faults.append(f"{name}: {f'{value!r} is not' if value else 'not set; set it to'} {meaning}")
        return value

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Gathers what is refused in the block."""
        try:
            yield
        except Refused as refused:
            self.faults += refused.lines

    def refuse(self) -> None:
        """Raises Refused if anything was wrong."""
        if self.faults:
            raise Refused(*self.faults)


def read(environment: Mapping[str, str]) -> Settings:
    """Raises Refused, one line a variable that is missing or wrong."""
    given = _Variables(environment)
    with given.gathering():
        model = read_model(environment)
    host = given.text("HOST", "127.0.0.1", ".+", "an address to listen on")
    # 0 lets the system choose; the line printed on start has it.
    port = given.text("PORT", "5001", r"[0-9]{1,5}", "a port, 0 to 65535")
    shared = given.text("SHARED_PORT", "0", "[01]", "0, or 1 when several services listen on the port")
    drain = given.text("DRAIN_SECONDS", "5", r"[0-9]{1,3}(\.[0-9]+)?", "a number of seconds below 1000")
    log_uri = given.text(
        "REQUEST_LOG_URI", "", r"(s3://[^/]+/[^/]+.*|file:///.+|(?!\w+://).+)?",
        "where to log predictions, s3://BUCKET/PREFIX/ or a local folder; empty to log none",
    )  # fmt: skip
    sample = given.text("REQUEST_LOG_SAMPLE", "1", r"0|1|[01]\.0+|0?\.[0-9]+", "a share of the rows to log, 0 to 1")
    if port.isdecimal() and int(port) > 65535:
        given.faults.append(f"PORT: {port!r} is not a port, 0 to 65535")
    given.refuse()
    return Settings(model, host, int(port), shared == "1", float(drain), log_uri, float(sample))


def read_model(environment: Mapping[str, str]) -> Wanted:
    """The part of it that names the model to load: MODEL_URI, MODEL_DIGEST, MODEL_MANIFEST, MODEL_REPLICA and
    MODEL_PUBLIC_KEY. Raises Refused, one line a variable that is missing or wrong."""
    given = _Variables(environment)
    uri = given.text(
        "MODEL_URI", "", rf"{FLAVOUR_URI}?|file:///.+|(?!\w+://).+",
        "the URI of the ONNX folder of a version, s3://BUCKET/models/MODEL/VERSION/onnx/ or a local folder",
    )  # fmt: skip
    digest = given.text(
        "MODEL_DIGEST", "", "sha256:[0-9a-f]{64}", "the version's digest, sha256: and 64 hex digits, from its manifest"
    )
    described = None
    # Releases of the former form do not name it; one that names it names it well.
    if version.VARIABLE in environment:
        described = given.text(
            version.VARIABLE, "", "sha256:[0-9a-f]{64}", "the SHA-256 of manifest.json, sha256: and 64 hex digits"
        )
    replica = None
    if REPLICA in environment:
        replica = given.text(REPLICA, "", BUCKET, "the bucket to read in the place of the URI's")
        # The digest binds the files, and not what a manifest of the former schema tells of them.
        if described is None:
            given.faults.append(f"{version.VARIABLE}: not set beside {REPLICA}; set it to the SHA-256 of manifest.json")
        if not uri.startswith("s3://"):
            given.faults.append(f"{REPLICA}: {replica!r}, and MODEL_URI {uri!r} is in no bucket; unset one of them")
    with given.gathering():
        expected = version.expected(digest, environment, described)
    given.refuse()
    return Wanted(uri, expected, replica)

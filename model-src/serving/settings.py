"""What the service reads from its environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from packing import Refused


@dataclass(frozen=True)
class Settings:
    model_uri: str
    """The folder with model.onnx; the version's manifest lies one folder above it."""
    model_digest: str
    """`sha256:` and 64 hex digits: what the release says the version's digest is."""
    host: str
    port: int
    drain_seconds: float
    """How long the service goes on answering after SIGTERM while /readyz already says that it is going away: load
    balancers learn of a stopping pod later than the pod does."""
    request_log_uri: str
    """Where predictions are logged; empty: nowhere."""
    request_log_sample: float
    """The share of predicted rows that is logged, 0 to 1."""
    public_key: str | None = None
    """The key that the version must be signed with, as PEM text or a path; None if it need not be signed."""


def read(environment: Mapping[str, str]) -> Settings:
    """Raises Refused, one line a variable that is missing or wrong."""
    faults = []

    def variable(name: str, default: str, pattern: str, meaning: str) -> str:
        value = environment.get(name, default)
        if not re.fullmatch(pattern, value):
            faults.append(f"{name}: {f'{value!r} is not' if value else 'not set; set it to'} {meaning}")
        return value

    uri = variable(
        "MODEL_URI", "", r"s3://[^/]+/models/[^/]+/[^/]+/[^/]+/?|file:///.+|(?!\w+://).+",
        "the URI of the ONNX folder of a version, s3://BUCKET/models/MODEL/VERSION/onnx/ or a local folder",
    )  # fmt: skip
    digest = variable(
        "MODEL_DIGEST", "", "sha256:[0-9a-f]{64}", "the version's digest, sha256: and 64 hex digits, from its manifest"
    )
    host = variable("HOST", "127.0.0.1", ".+", "an address to listen on")
    # 0 lets the system choose; the line printed on start says which.
    port = variable("PORT", "5001", r"[0-9]{1,5}", "a port, 0 to 65535")
    drain = variable("DRAIN_SECONDS", "5", r"[0-9]{1,3}(\.[0-9]+)?", "a number of seconds below 1000")
    log_uri = variable(
        "REQUEST_LOG_URI", "", r"(s3://[^/]+/[^/]+.*|file:///.+|(?!\w+://).+)?",
        "where to log predictions, s3://BUCKET/PREFIX/ or a local folder; empty to log none",
    )  # fmt: skip
    sample = variable("REQUEST_LOG_SAMPLE", "1", r"0|1|[01]\.0+|0?\.[0-9]+", "a share of the rows to log, 0 to 1")
    if port.isdecimal() and int(port) > 65535:
        faults.append(f"PORT: {port!r} is not a port, 0 to 65535")
    # Set and empty, it is more likely a mistake than the wish to serve what nobody signed.
    public_key = environment.get("MODEL_PUBLIC_KEY")
    if public_key == "":
        faults.append("MODEL_PUBLIC_KEY: empty; set it to a public key, as PEM text or a path, or leave it out")
    if faults:
        raise Refused(*faults)
    return Settings(uri, digest, host, int(port), float(drain), log_uri, float(sample), public_key)

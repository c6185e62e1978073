"""What the service reads from its environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from contract import version
from contract.errors import Refused
from contract.uri import FLAVOUR_URI
from contract.version import Expected


@dataclass(frozen=True)
class Wanted:
    """The model to load, and what must hold of it."""

    uri: str
    """The folder with model.onnx; the version's manifest lies one folder above it."""
    expected: Expected


@dataclass(frozen=True)
class Settings:
    model: Wanted
    host: str
    port: int
    drain_seconds: float
    """How long the service goes on answering after SIGTERM while /readyz already says that it is going away: load
    balancers learn of a stopping pod later than the pod does."""
    request_log_uri: str
    """Where predictions are logged; empty: nowhere."""
    request_log_sample: float
    """The share of predicted rows that is logged, 0 to 1."""


def read(environment: Mapping[str, str]) -> Settings:
    """Raises Refused, one line a variable that is missing or wrong."""
    faults: list[str] = []
    variable = partial(_variable, environment, faults)
    model = _wanted(environment, faults)
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
    if faults or not model:
        raise Refused(*faults)
    return Settings(model, host, int(port), float(drain), log_uri, float(sample))


def read_model(environment: Mapping[str, str]) -> Wanted:
    """The part of it that says which model to load: MODEL_URI, MODEL_DIGEST and MODEL_PUBLIC_KEY. Raises Refused."""
    faults: list[str] = []
    if not (model := _wanted(environment, faults)):
        raise Refused(*faults)
    return model


def _wanted(environment: Mapping[str, str], faults: list[str]) -> Wanted | None:
    """None, and lines in `faults`, where a variable is missing or wrong."""
    before = len(faults)
    uri = _variable(
        environment, faults, "MODEL_URI", "", rf"{FLAVOUR_URI}?|file:///.+|(?!\w+://).+",
        "the URI of the ONNX folder of a version, s3://BUCKET/models/MODEL/VERSION/onnx/ or a local folder",
    )  # fmt: skip
    digest = _variable(
        environment, faults, "MODEL_DIGEST", "", "sha256:[0-9a-f]{64}",
        "the version's digest, sha256: and 64 hex digits, from its manifest",
    )  # fmt: skip
    try:
        expected = version.expected(digest, environment)
    except Refused as refused:
        faults += refused.lines
    return Wanted(uri, expected) if len(faults) == before else None


def _variable(
    environment: Mapping[str, str], faults: list[str], name: str, default: str, pattern: str, meaning: str
) -> str:
    value = environment.get(name, default)
    if not re.fullmatch(pattern, value):
        faults.append(f"{name}: {f'{value!r} is not' if value else 'not set; set it to'} {meaning}")
    return value

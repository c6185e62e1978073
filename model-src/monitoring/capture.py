"""What SageMaker has captured of the requests to an endpoint, as lines of the request log.

An endpoint that captures data writes objects below the place that its configuration names:

  <endpoint>/<variant>/<YYYY>/<MM>/<DD>/<HH>/<any name>.jsonl    one record a request, by the hour in UTC

A record has the request and the answer as they were sent, in text or base64. The answers of our service name the
version, so records of other releases are told apart and passed over. A row is named by the inference id that the caller
gave, where that is a UUID, else by the id of the event; labels name it by these digits, without dashes.
Source: https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from contract.manifest import Manifest
from contract.strict import faults
from serving import requests
from serving.request_log import SUFFIX, Line
from storage.places import Place

SLACK = timedelta(hours=1)
"""How much later than its folder says a record can be written, beside the hour of the folder itself."""
_HEX = re.compile(r"[0-9a-f]{32}")


class _Record(BaseModel):
    # Not what else there may be: the format is AWS's, which adds to it.
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Data(_Record):
    content_type: str = Field(alias="observedContentType", default="application/json")
    data: str
    encoding: Literal["JSON", "CSV", "BASE64"]

    def content(self) -> bytes:
        """Raises ValueError where it is no base64."""
        return base64.b64decode(self.data, validate=True) if self.encoding == "BASE64" else self.data.encode()


class _Both(_Record):
    asked: _Data = Field(alias="endpointInput")
    answered: _Data = Field(alias="endpointOutput")


class _Event(_Record):
    id: str = Field(alias="eventId")
    inference_id: str = Field(alias="inferenceId", default="")
    time: AwareDatetime = Field(alias="inferenceTime")

    @property
    def digits(self) -> str:
        """By which labels name the request; empty where nothing is a UUID."""
        given = (each.replace("-", "").lower() for each in (self.inference_id, self.id))
        return next(filter(_HEX.fullmatch, given), "")


class _Capture(_Record):
    both: _Both = Field(alias="captureData")
    event: _Event = Field(alias="eventMetadata")


def lines(
    place: Place,
    endpoint: str,
    described: Manifest,
    until: datetime,
    oldest: Callable[[], datetime | None],
    malformed: list[str],
) -> Iterator[tuple[str, Line]]:
    """The rows of a version that the endpoint of this folder has captured, with where each stands.

    Those of the newest hours come first, up to the one before `oldest`, which is asked before each. A record that
    cannot be read is left out and named in `malformed`.
    Raises Refused when the place cannot be read.
    """
    for hour, folder in sorted(_hours(place, f"{endpoint}/"), reverse=True):
        if hour > until:
            continue
        if (bound := oldest()) and hour + timedelta(hours=1) + SLACK < bound:
            return
        for name in sorted(found.name for found in place.objects(folder) if found.name.endswith(SUFFIX)):
            for number, text in enumerate(place.read(name).splitlines(), 1):
                source = f"{place.uri}{name}: line {number}"
                try:
                    yield from ((source, line) for line in _rows(text, described))
                except ValidationError as error:
                    malformed.append(faults(source, error)[0])
                except (ValueError, RecursionError) as error:
                    malformed.append(f"{source}: {error}")


def _hours(place: Place, folder: str) -> Iterator[tuple[datetime, str]]:
    """The hours of all variants, each with its folder."""
    for variant in place.folders(folder):
        below = [f"{folder}{variant}/"]
        for _ in range(4):
            below = [f"{each}{name}/" for each in below for name in place.folders(each)]
        for each in below:
            parts = each.removeprefix(f"{folder}{variant}/").rstrip("/")
            try:
                yield datetime.strptime(parts, "%Y/%m/%d/%H").replace(tzinfo=UTC), each
            except ValueError:
                continue  # no capture: something else lies there


def _rows(text: bytes, described: Manifest) -> list[Line]:
    """The rows of one record; none where another version has answered, or none at all. Raises ValueError for what
    cannot be read."""
    record = _Capture.model_validate_json(text)
    answer = json.loads(record.both.answered.content())
    if isinstance(answer, dict) and set(answer) == {"detail"}:
        return []  # a request that was refused
    version = answer.get("model_version") if isinstance(answer, dict) else None
    if not isinstance(version, str):
        raise ValueError("endpointOutput: no model_version; only answers of our own service can be judged")
    if version != described.version:
        return []
    asked = _asked(record.both.asked)
    answers: list[Any] = answer.get("predictions", [answer])
    if not isinstance(answers, list) or len(asked) != len(answers) or not all(isinstance(e, dict) for e in answers):
        raise ValueError(f"endpointOutput: not one answer for each of {len(asked)} rows")
    names = described.signature.names
    return [
        Line.model_validate(
            {
                "schema": 1, "id": record.event.digits, "row": number, "time": record.event.time,
                "model": described.model, "version": version, "features": _named(names, row),
                **{key: each[key] for key in ("prediction", "probabilities") if key in each},
            }
        )
        for number, (row, each) in enumerate(zip(asked, answers, strict=True))
    ]  # fmt: skip


def _asked(data: _Data) -> list[list[float | None]]:
    kind = data.content_type.partition(";")[0].strip().lower()
    if kind not in requests.PARSERS:
        raise ValueError(f"endpointInput: {kind!r:.80}: not one of {', '.join(requests.PARSERS)}")
    found = requests.PARSERS[kind](data.content())
    return found if found and isinstance(found[0], list) else [found]


def _named(names: Sequence[str], row: Sequence[float | None]) -> dict[str, float | None]:
    if len(row) != len(names):
        raise ValueError(f"endpointInput: {len(row)} numbers, but the model takes {', '.join(names)}")
    return dict(zip(names, row, strict=True))

"""The request log: what was predicted from what, kept so that drift and quality can be judged later.

This module is the one place that knows its format. Below the folder or the prefix that REQUEST_LOG_URI names:

  <model>/<version>/<YYYY-MM-DD>/<HHMMSS>-<host>-<n>.jsonl    one `Line` a predicted row, in UTC
  <model>/labels/<any name>.jsonl                             one `Label` a row whose true answer became known

The name of an object has when the first of its rows was predicted; all others follow within SPAN. Objects are added
whole and never changed. The service writes lines, whoever learns of the truth writes labels: a row is named by the
`X-Request-Id` of the answer and its number in the request, and of two labels for it the one that was stored later
counts.

Logging never holds up a request and never makes one fail: a thread of its own does the writing, what it cannot keep up
with is dropped, and both drops and faults are counted for Prometheus.
"""

from __future__ import annotations

import random
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Protocol

from prometheus_client import Counter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

from contract.errors import Refused
from contract.manifest import Manifest
from storage import Unavailable, s3
from storage.places import open_place

LABELS = "labels"
SUFFIX = ".jsonl"
SPAN = timedelta(seconds=60)
"""The time that the rows of one object span at most, and a row waits for others."""
OBJECT_ROWS = 1000
"""Rows in an object at most."""
QUEUE_ROWS = 20_000
"""Rows that wait to be written; some ten megabytes."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds between two tries of a put."""
CLOSE_SECONDS = 4.0
"""What the end of the process waits for the last object; with draining it stays below Kubernetes' 30 seconds."""

_NAME = re.compile(r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})/(?P<time>[0-9]{6})-[^/]+\.jsonl")

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}\Z")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, regex_engine="python-re")

    format: Literal[1] = Field(alias="schema")
    id: Id
    """Of the request, as in `X-Request-Id` of its answer."""
    row: Annotated[int, Field(ge=0)]
    """Number of the row in the request, from 0."""


class Line(_Strict):
    """One predicted row."""

    time: AwareDatetime
    model: str
    version: str
    features: dict[str, FiniteFloat | None]
    """The row as it was sent, by the names of the manifest's signature; null where it was missing. In double precision:
    rounded to the model's single precision, 5.1 would no longer tie with the 5.1 of a reference."""
    prediction: str | FiniteFloat
    probabilities: dict[str, FiniteFloat] | None = None
    """Of a classification."""


class Label(_Strict):
    """The truth about one predicted row."""

    label: str | FiniteFloat


def object_name(time: datetime, host: str, number: int) -> str:
    """The name of an object below its version's folder, from the time of its first row."""
    return f"{time:%Y-%m-%d/%H%M%S}-{re.sub('[^A-Za-z0-9.-]', '_', host)}-{number}{SUFFIX}"


def object_time(name: str) -> datetime | None:
    """The time of an object's first row to the second, from its name below the version's folder; None if it is not
    one of the log's."""
    match = _NAME.fullmatch(name)
    try:
        return datetime.strptime(f"{match['date']}{match['time']}+0000", "%Y-%m-%d%H%M%S%z") if match else None
    except ValueError:
        return None


class Sink(Protocol):
    def add(self, name: str, content: bytes) -> None:
        """Stores an object whole. Raises Unavailable or Refused; either way it is tried again."""


def open_sink(uri: str) -> Sink:
    """The place that REQUEST_LOG_URI, as `settings.read` lets it pass, names."""
    return open_place(uri, "REQUEST_LOG_URI", s3.ONE_TRY)


@dataclass(frozen=True)
class _Row:
    time: datetime
    id: str
    row: int
    described: Manifest
    features: Sequence[float | None]
    answer: dict[str, Any]

    def line(self) -> bytes:
        names = self.described.signature.names
        line = Line(
            schema=1,
            id=self.id,
            row=self.row,
            time=self.time,
            model=self.described.model,
            version=self.described.version,
            features=dict(zip(names, self.features, strict=True)),
            prediction=self.answer["prediction"],
            probabilities=self.answer.get("probabilities"),
        )
        return line.model_dump_json(by_alias=True).encode() + b"\n"


class RequestLog:
    """Collects predicted rows and writes them from a thread of its own."""

    def __init__(
        self,
        sink: Sink,
        sample: float,
        say: Callable[[str], None],
        *,
        object_rows: int = OBJECT_ROWS,
        queue_rows: int = QUEUE_ROWS,
        span: timedelta = SPAN,
    ) -> None:
        """`sample` is the share of rows that are kept, each by its own lot: rows of one request resemble each other,
        and drift is judged as if they did not. `say` gets one line for each reason of a fault that differs from the one
        before."""
        self._sink, self._sample, self._say = sink, sample, say
        self._object_rows, self._queue_rows, self._span = object_rows, queue_rows, span
        self.written = Counter("request_log_rows", "Rows written to the request log.", registry=None)
        self.dropped = Counter(
            "request_log_rows_dropped", "Rows that were to be logged and never will be.", registry=None
        )
        self.faults = Counter("request_log_faults", "Tries of writing an object that failed.", registry=None)
        self._waiting: deque[_Row] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._said = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(
        self,
        request: str,
        described: Manifest,
        rows: Sequence[Sequence[float | None]],
        answers: Sequence[dict[str, Any]],
    ) -> None:
        """Takes up the rows of one request and their answers, in the order of both. Returns at once."""
        now = datetime.now(UTC)
        chosen = [
            _Row(now, request, number, described, row, answer)
            for number, (row, answer) in enumerate(zip(rows, answers, strict=True))
            if random.random() < self._sample
        ]
        with self._changed:
            before = len(self._waiting)
            room = max(self._queue_rows - before, 0)
            self._waiting.extend(chosen[:room])
            if before == 0 or len(self._waiting) >= self._object_rows:
                self._changed.notify()
        self.dropped.inc(len(chosen[room:]))

    def close(self) -> None:
        """Writes what waits, if that takes no longer than CLOSE_SECONDS, and counts the rest as dropped."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)
        if self._waiting or self._thread.is_alive():
            self._say(f"request log: {len(self._waiting)} rows that waited were not written")

    def _run(self) -> None:
        number = 0
        while rows := self._take():
            try:
                name = object_name(rows[0].time, socket.gethostname(), number)
                described = rows[0].described
                content = b"".join(row.line() for row in rows)
                stored = self._store(f"{described.model}/{described.version}/{name}", content)
            # A thread that died unnoticed would end the log.
            except Exception as error:
                self.faults.inc()
                self._tell(f"{type(error).__name__}: {' '.join(str(error).split())}")
                stored = False
            (self.written if stored else self.dropped).inc(len(rows))
            number += 1

    def _take(self) -> list[_Row]:
        """The next object's rows, as soon as there are enough or the first has waited long enough; none at the end."""
        rows: list[_Row] = []
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            self._changed.wait_for(
                lambda: len(self._waiting) >= self._object_rows or self._closing.is_set(), self._span.total_seconds()
            )
            while (
                self._waiting
                and len(rows) < self._object_rows
                and (not rows or self._waiting[0].time - rows[0].time < self._span)
            ):
                rows.append(self._waiting.popleft())
        return rows

    def _store(self, name: str, content: bytes) -> bool:
        """Tries until the object is stored; False when the process ends before that."""
        delay = FIRST_DELAY
        while True:
            last = self._closing.is_set()
            try:
                self._sink.add(name, content)
            except (Unavailable, Refused) as error:
                self.faults.inc()
                self._tell(" ".join(str(error).split()))
            else:
                self._said = ""
                return True
            if last:
                return False
            self._closing.wait(delay * random.uniform(0.5, 1))
            delay = min(delay * 2, LONGEST_DELAY)

    def _tell(self, reason: str) -> None:
        if reason != self._said:
            self._say(f"request log: {reason}")
        self._said = reason

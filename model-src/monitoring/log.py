"""Reads a window of the request log, whose format `serving.request_log` defines, or of what SageMaker has captured, and
the labels of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

import pandas as pd
from pydantic import ValidationError

from contract.errors import Refused
from contract.manifest import Manifest
from contract.strict import faults
from monitoring import capture
from monitoring.drift import PREDICTION, TARGET
from serving.request_log import LABELS, SPAN, SUFFIX, Label, Line, object_time
from storage.places import Place

Form = TypeVar("Form", Line, Label)
Key = tuple[str, int]
"""A row's request and its number there."""


@dataclass(frozen=True)
class Window:
    """The rows predicted between `since` and `until`, or the last `rows` of them until `until`."""

    until: datetime
    since: datetime | None = None
    rows: int | None = None


@dataclass
class Found:
    """What a window has."""

    frame: pd.DataFrame
    """A row for each logged one, by time: `time`, the inputs (float64, NaN where missing), `prediction`, and `target`
    (None where no label is known)."""
    malformed: list[str] = field(default_factory=list)
    """A line for each line of the log or the labels that could not be read, with its object and number."""


def read(place: Place, described: Manifest, window: Window, endpoint: str = "") -> Found:
    """The rows of a window with the labels that are known. With the folder of an endpoint of SageMaker in that
    place, the rows are those that it has captured; labels lie where they ever do.

    Raises Refused when the place cannot be read, and when what lies in the version's folder is of another version:
    then nothing there can be believed. A line that breaks the format is left out and named.
    """
    malformed: list[str] = []
    lines: dict[Key, Line] = {}

    def oldest() -> datetime | None:
        """What is older is in no window with the rows that were read meanwhile."""
        if window.rows is None:
            return window.since
        times = sorted((line.time for line in lines.values() if line.time <= window.until), reverse=True)
        return times[window.rows - 1] if len(times) >= window.rows else None

    if endpoint:
        found = capture.lines(place, endpoint, described, window.until, oldest, malformed)
    else:
        found = _logged(place, described, window.until, oldest, malformed)
    for source, line in found:
        if fault := _misfit(line, described):
            malformed.append(f"{source}: {fault}")
        elif (line.id, line.row) in lines:
            malformed.append(f"{source}: row {line.row} of request {line.id} stands twice")
        else:
            lines[line.id, line.row] = line
    chosen = sorted(lines.values(), key=lambda line: line.time)
    chosen = [line for line in chosen if (window.since or line.time) <= line.time <= window.until]
    if window.rows is not None:
        chosen = chosen[-window.rows :]
    known = _labels(place, described, chosen, malformed) if chosen else {}
    return Found(_frame(chosen, known, described), malformed)


def _logged(
    place: Place,
    described: Manifest,
    until: datetime,
    oldest: Callable[[], datetime | None],
    malformed: list[str],
) -> Iterator[tuple[str, Line]]:
    """The rows in the version's own folder, with where each stands."""
    for name in _objects(place, f"{described.model}/{described.version}/", until, oldest):
        for source, line in _parsed(Line, place, name, malformed):
            if (line.model, line.version) != (described.model, described.version):
                raise Refused(
                    f"{source}: of {line.model} {line.version}, but it lies in the log of {described.model}"
                    f" {described.version}; find out who wrote it, nothing is judged by it"
                )
            yield source, line


def _objects(place: Place, base: str, until: datetime, oldest: Callable[[], datetime | None]) -> Iterator[str]:
    """The objects that can hold rows of the window, the newest first."""
    # A name has the first row's time, to the second.
    slack = SPAN + timedelta(seconds=1)
    for day in sorted(place.folders(base), reverse=True):
        dated = [(object_time(found.name.removeprefix(base)), found.name) for found in place.objects(f"{base}{day}/")]
        for time, name in sorted([(time, name) for time, name in dated if time], reverse=True):
            if time > until:
                continue
            if (bound := oldest()) and time < bound - slack:
                return
            yield name


def _parsed(form: type[Form], place: Place, name: str, malformed: list[str]) -> Iterator[tuple[str, Form]]:
    for number, text in enumerate(place.read(name).splitlines(), 1):
        source = f"{place.uri}{name}: line {number}"
        try:
            yield source, form.model_validate_json(text)
        except ValidationError as error:
            malformed.append(faults(source, error)[0])


def _misfit(line: Line, described: Manifest) -> str | None:
    names = described.signature.names
    if [*line.features] != names:
        return f"features: {', '.join(line.features)}, but the model takes {', '.join(names)}"
    return _wrong_answer("prediction", line.prediction, described)


def _wrong_answer(name: str, answer: str | float, described: Manifest) -> str | None:
    labels = described.signature.labels
    if not labels:
        return f"{name}: {answer!r} is not a number" if isinstance(answer, str) else None
    return None if answer in labels else f"{name}: {answer!r} is not one of {', '.join(labels)}"


def _labels(place: Place, described: Manifest, lines: Sequence[Line], malformed: list[str]) -> dict[Key, str | float]:
    wanted = {(line.id, line.row) for line in lines}
    # No label can be stored before its row was predicted; clocks differ by less than SPAN.
    stored = [
        found
        for found in place.objects(f"{described.model}/{LABELS}/")
        if found.name.endswith(SUFFIX) and found.stored > lines[0].time - SPAN
    ]
    known: dict[Key, str | float] = {}
    for found in sorted(stored, key=lambda found: (found.stored, found.name)):
        for source, label in _parsed(Label, place, found.name, malformed):
            # Labels of all versions lie together, and so do other versions' answers.
            if (label.id, label.row) not in wanted:
                continue
            if fault := _wrong_answer("label", label.label, described):
                malformed.append(f"{source}: {fault}")
            else:
                known[label.id, label.row] = label.label
    return known


def _frame(lines: Sequence[Line], known: dict[Key, str | float], described: Manifest) -> pd.DataFrame:
    names = described.signature.names
    frame = pd.DataFrame([line.features for line in lines], columns=names).astype(float)
    frame.insert(0, "time", [line.time for line in lines])
    frame[PREDICTION] = [line.prediction for line in lines]
    frame[TARGET] = pd.Series([known.get((line.id, line.row)) for line in lines], dtype=object)
    return frame

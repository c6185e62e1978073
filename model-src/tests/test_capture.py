"""What SageMaker captures, read as the request log. The records are written here as AWS documents them, around requests
and answers of the real service; none came from AWS."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import SAMPLE, Repository, Service

from contract.manifest import Manifest
from monitoring import __main__ as monitoring
from monitoring import log
from storage.places import open_place
from storage.s3 import PATIENT

ENDPOINT = "ml-dev-lily-sagemaker"
NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
DAY = log.Window(NOW, since=NOW - timedelta(hours=24))
OTHER = [6.0, 2.9, 4.5, 1.5]


@pytest.fixture(scope="session")
def described(trained: Repository) -> Manifest:
    return trained.manifest()


def record(asked: str, answer: Any, time: datetime = NOW, **changed: Any) -> dict[str, Any]:
    """One record; `changed` replaces fields of the event."""
    event = {"eventId": str(uuid.uuid4()), "inferenceTime": f"{time:%Y-%m-%dT%H:%M:%SZ}"} | changed
    return {
        "captureData": {
            "endpointInput": data(asked, "INPUT"),
            "endpointOutput": data(answer if isinstance(answer, str) else json.dumps(answer), "OUTPUT"),
        },
        "eventMetadata": {name: value for name, value in event.items() if value is not None},
        "eventVersion": "0",
    }


def data(text: str, mode: str, content_type: str = "application/json", encoding: str = "JSON") -> dict[str, str]:
    return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": encoding}


def answer(described: Manifest, label: str = "setosa", **changed: Any) -> dict[str, Any]:
    return {"prediction": label, "model_version": described.version} | changed


def asked(*features: Any) -> str:
    return json.dumps({"features": list(features)})


def capture(folder: Path, *records: Any, time: datetime = NOW, variant: str = "all", name: str = "one") -> Path:
    """Writes records where an endpoint does that captures at this time."""
    file = folder / ENDPOINT / variant / f"{time:%Y/%m/%d/%H}" / f"{time:%M-%S}-000-{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in records))
    return file


def read(folder: Path, described: Manifest, window: log.Window = DAY) -> log.Found:
    return log.read(open_place(str(folder), "--log", PATIENT), described, window, ENDPOINT)


def test_captures_have_the_rows_that_the_service_logs_itself(
    tmp_path: Path, serve: Callable[..., Service], artifacts: Path, described: Manifest
) -> None:
    own, captured = tmp_path / "own", tmp_path / "captured"
    service = serve(artifacts / "onnx", described.digest, args=("serve",), REQUEST_LOG_URI=str(own))
    client = service.ready()
    records, moment = [], datetime.now(UTC)
    for number, (body, content_type) in enumerate(
        [
            (asked(*SAMPLE), "application/json"),
            (asked(SAMPLE, OTHER), "application/json; charset=utf-8"),
            ("5.3,3.5,1.4,0.2\n6.0,2.9,4.5,1.5\n", "text/csv"),
        ]
    ):
        given = client.post("/invocations", content=body, headers={"Content-Type": content_type})
        # As AWS does for each content type that the endpoint's configuration does not name.
        coded = base64.b64encode(body.encode()).decode()
        made = record(body, given.text, moment, eventId=str(uuid.UUID(given.headers["X-Request-Id"])))
        made["captureData"]["endpointInput"] = data(
            *((coded, "INPUT", content_type, "BASE64") if number else (body, "INPUT", content_type, "JSON"))
        )
        records.append(made)
    assert service.stop() == 0
    capture(captured, *records, time=moment)
    window = log.Window(datetime.now(UTC), rows=10)

    logged = log.read(open_place(str(own), "--log", PATIENT), described, window)
    found = read(captured, described, window)

    assert (found.malformed, len(found.frame)) == ([], 5)
    names = [*described.signature.names, "prediction"]
    pd.testing.assert_frame_equal(found.frame[names], logged.frame[names])


def test_records_of_other_releases_are_passed_over(tmp_path: Path, described: Manifest) -> None:
    older = answer(described, model_version="2026-01-01-0123456789ab")
    capture(tmp_path, record(asked(*SAMPLE), older), record(asked(*SAMPLE), answer(described)))
    # What the service has refused is no row, as in its own log.
    capture(tmp_path, record("{}", {"detail": [{"msg": "Field required"}]}), name="two")
    capture(tmp_path, record(asked(*OTHER), answer(described, "virginica")), variant="canary")

    found = read(tmp_path, described)

    assert found.malformed == []
    assert sorted(found.frame["prediction"]) == ["setosa", "virginica"]


def test_a_window_has_what_was_asked_in_it(tmp_path: Path, described: Manifest) -> None:
    times = [NOW + timedelta(hours=1), NOW, NOW - timedelta(hours=1, minutes=15), NOW - timedelta(hours=23)]
    for hours, label in zip(times, ["later", "setosa", "versicolor", "virginica"], strict=True):
        capture(tmp_path, record(asked(*SAMPLE), answer(described, label), hours), time=hours)
    # It waited in the endpoint: the folder is of the hour in which it was written.
    late = NOW - timedelta(hours=25)
    capture(tmp_path, record(asked(*SAMPLE), answer(described), late), time=NOW, name="late")

    assert list(read(tmp_path, described).frame["prediction"]) == ["virginica", "versicolor", "setosa"]
    assert list(read(tmp_path, described, log.Window(NOW, rows=2)).frame["prediction"]) == ["versicolor", "setosa"]


def test_older_hours_are_not_read(tmp_path: Path, described: Manifest) -> None:
    capture(tmp_path, record(asked(*SAMPLE), answer(described)))
    capture(tmp_path, "never read", time=NOW - timedelta(days=30))

    assert read(tmp_path, described).malformed == []
    assert read(tmp_path, described, log.Window(NOW, rows=1)).malformed == []


def test_labels_name_a_row_by_the_callers_id_or_the_events(tmp_path: Path, described: Manifest) -> None:
    given, event = uuid.uuid4(), uuid.uuid4()
    capture(
        tmp_path,
        record(asked(*SAMPLE), answer(described), inferenceId=str(given).upper()),
        record(asked(*OTHER), answer(described), eventId=str(event), inferenceId="order 5"),
    )
    labels = tmp_path / "lily/labels/a.jsonl"
    labels.parent.mkdir(parents=True)
    rows = [
        {"schema": 1, "id": one.hex, "row": 0, "label": label}
        for one, label in [(given, "setosa"), (event, "virginica")]
    ]
    labels.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    assert sorted(read(tmp_path, described).frame["target"]) == ["setosa", "virginica"]


def broken(described: Manifest, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    made = record(asked(*SAMPLE), answer(described))
    change(made)
    return made


CASES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no answer": (lambda it: it["captureData"].pop("endpointOutput"), "captureData.endpointOutput: Field required"),
    "no time": (lambda it: it["eventMetadata"].pop("inferenceTime"), "eventMetadata.inferenceTime: Field required"),
    "a time without a zone": (
        lambda it: it["eventMetadata"].update(inferenceTime="2026-03-01T12:00:00"), "should have timezone info"
    ),
    "no id": (lambda it: it["eventMetadata"].update(eventId="1"), "id: String should match pattern"),
    "another encoding": (lambda it: it["captureData"]["endpointInput"].update(encoding="GZIP"), "'JSON', 'CSV' or"),
    "no base64": (lambda it: it["captureData"]["endpointInput"].update(encoding="BASE64"), "base64"),
    "base64 cut short": (
        lambda it: it["captureData"]["endpointInput"].update(
            encoding="BASE64", data=base64.b64encode(asked(*SAMPLE).encode()).decode()[:-5]
        ),
        "padding",
    ),
    "another content type": (
        lambda it: it["captureData"]["endpointInput"].update(observedContentType="application/x-npy"), "not one of"
    ),
    "a request cut short": (lambda it: it["captureData"]["endpointInput"].update(data='{"feat'), "Invalid JSON"),
    "an answer cut short": (lambda it: it["captureData"]["endpointOutput"].update(data='{"pred'), "Unterminated"),
    "another service": (lambda it: it["captureData"]["endpointOutput"].update(data="[0.5]"), "no model_version"),
    "another number of rows": (
        lambda it: it["captureData"]["endpointInput"].update(data=asked(SAMPLE, OTHER)), "not one answer for each of 2"
    ),
    "another number of columns": (
        lambda it: it["captureData"]["endpointInput"].update(data=asked(1, 2)), "2 numbers, but the model takes"
    ),
    "no answer of this model": (
        lambda it: it["captureData"]["endpointOutput"].update(data=it["captureData"]["endpointOutput"]["data"].replace(
            "setosa", "tulip")), "'tulip' is not one of",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "part"), CASES.values(), ids=list(CASES))
def test_what_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, described: Manifest, change: Callable[[dict[str, Any]], Any], part: str
) -> None:
    file = capture(tmp_path, record(asked(*OTHER), answer(described)), broken(described, change))

    found = read(tmp_path, described)

    assert len(found.frame) == 1
    [line] = found.malformed
    assert line.startswith(f"{file}: line 2: ")
    assert part in line


def test_a_record_that_is_cut_short_or_stands_twice_is_left_out(tmp_path: Path, described: Manifest) -> None:
    whole = json.dumps(record(asked(*SAMPLE), answer(described)))
    capture(tmp_path, whole, whole, whole[:-40], "[" * 100_000)

    found = read(tmp_path, described)

    assert len(found.frame) == 1
    assert [line.split(": ", 2)[1] for line in found.malformed] == ["line 2", "line 3", "line 4"]
    assert "stands twice" in found.malformed[0]


def test_what_else_lies_there_is_no_capture(tmp_path: Path, described: Manifest) -> None:
    file = capture(tmp_path, record(asked(*SAMPLE), answer(described)))
    (file.parent / "notes.txt").write_text("mine")
    (tmp_path / ENDPOINT / "all/2026/backup/01/12").mkdir(parents=True)
    (tmp_path / ENDPOINT / "all/2026/backup/01/12/old.jsonl").write_text("{")

    found = read(tmp_path, described)

    assert (len(found.frame), found.malformed) == (1, [])


def test_without_traffic_there_is_nothing(tmp_path: Path, described: Manifest) -> None:
    found = read(tmp_path, described)

    assert (len(found.frame), found.malformed) == (0, [])


def test_drift_of_an_endpoint_is_judged(
    tmp_path: Path, artifacts: Path, described: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pd.read_csv(artifacts / "reference/reference.csv")
    moment = datetime.now(UTC)
    records = [
        record(asked(*(row[name] for name in described.signature.names)), answer(described, row["prediction"]), moment)
        for row in before.to_dict("records")
    ]
    capture(tmp_path, *records, time=moment)
    args = ["--version", str(artifacts), "--digest", described.digest, "--log", str(tmp_path), "--endpoint", ENDPOINT]

    code = monitoring.main([*args, "--min-rows", "10", "--out", str(tmp_path / "out")])

    assert code == 0, capsys.readouterr().err
    verdict = json.loads((tmp_path / "out/verdict.json").read_text())
    assert (verdict["rows"], verdict["drifted"]) == (len(before), False)

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
from conftest import SOURCE, Service, upload
from prometheus_client.parser import text_string_to_metric_families
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, root_mean_squared_error

from contract import manifest
from contract.digest import MANIFEST, hash_folder, version_digest
from contract.errors import Refused
from contract.manifest import Manifest
from contract.version import Expected
from extras.bench.drift_trials import FEATURES, Flowers
from monitoring import __main__ as monitoring
from monitoring import drift, log, reference
from serving.request_log import Line, object_name
from storage.places import open_place
from storage.s3 import PATIENT

LABELS = ["setosa", "versicolor", "virginica"]
NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Case:
    """A version with a reference, and the folder of a log."""

    version: Path
    log: Path
    out: Path
    described: Manifest
    reference: pd.DataFrame

    def write(
        self, frame: pd.DataFrame, time: datetime = NOW - timedelta(hours=1), number: int = 0, **changed: Any
    ) -> Path:
        """Logs the frame's rows as one request, a row a millisecond."""
        inputs = [column.name for column in self.described.signature.inputs]
        lines = [
            Line.model_validate(
                {
                    "schema": 1, "id": f"{number:032x}", "row": row, "time": time + timedelta(milliseconds=row),
                    "model": self.described.model, "version": self.described.version,
                    "features": {name: None if pd.isna(values[name]) else values[name] for name in inputs},
                    "prediction": values[drift.PREDICTION],
                }
                | changed
            )
            for row, values in enumerate(frame.to_dict("records"))
        ]  # fmt: skip
        folder = self.log / self.described.model / self.described.version
        file = folder / object_name(time, "host", number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line.model_dump_json(by_alias=True)}\n" for line in lines))
        return file

    def label(self, values: Sequence[Any], name: str = "a", number: int = 0) -> None:
        file = self.log / self.described.model / "labels" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [{"schema": 1, "id": f"{number:032x}", "row": row, "label": value} for row, value in enumerate(values)]
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    def run(self, *args: str, window: Sequence[str] = ("--window", "24h")) -> int:
        return monitoring.main(
            ["--version", str(self.version), "--digest", self.described.digest, "--log", str(self.log), "--out",
             str(self.out), *window, *args]
        )  # fmt: skip

    @property
    def verdict(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.out / "verdict.json").read_text())
        return read


def make_version(folder: Path, model: str, frame: pd.DataFrame, outputs: dict[str, Any]) -> Manifest:
    """A version that has a reference and no model."""
    (folder / "reference").mkdir(parents=True)
    frame.to_csv(folder / reference.FILE, index=False)
    inputs = [(name, True) for name in frame.columns if name not in (drift.PREDICTION, drift.TARGET)]
    signature = manifest.signature_of(inputs, outputs.get("labels", ()), outputs.get("value", ""))
    (folder / manifest.SIGNATURE).write_bytes(manifest.dump_signature(signature))
    hashed = hash_folder(folder)
    digest = version_digest((file.path, file.sha256) for file in hashed)
    described = Manifest.model_validate(
        {
            "schema": 2, "model": model, "version": manifest.version_name("2026-02-01", digest), "digest": digest,
            "files": [file._asdict() for file in hashed], "metrics": {}, "parameters": {},
            "signature": signature.model_dump(),
            "code_commit": "c" * 40, "data_digest": f"sha256:{'d' * 64}", "evaluation_set_digest": f"sha256:{'e' * 64}",
            "mlflow_run": "f" * 32, "frameworks": {}, "draft": False,
        }
    )  # fmt: skip
    (folder / MANIFEST).write_bytes(manifest.dump(described))
    return described


def make_case(folder: Path, model: str, frame: pd.DataFrame, outputs: dict[str, Any]) -> Case:
    described = make_version(folder / "version", model, frame, outputs)
    (folder / "log").mkdir()
    return Case(folder / "version", folder / "log", folder / "out", described, frame)


@pytest.fixture(scope="session")
def flowers() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A reference, a window of the same source, and one whose sepals are wider."""
    trials = Flowers()
    before, same = trials.trial("fresh", 0, 200, shifted=False)
    shifted = trials.trial("fresh", 1, 200, shifted=True)[1]
    return before.assign(target=before[drift.PREDICTION]), same, shifted


@pytest.fixture
def lily(tmp_path: Path, flowers: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> Case:
    return make_case(tmp_path, "lily", flowers[0], {"labels": LABELS})


@pytest.fixture
def same(flowers: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> pd.DataFrame:
    return flowers[1].copy()


@pytest.fixture
def shifted(flowers: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> pd.DataFrame:
    return flowers[2].copy()


# What a window is told


def test_a_window_like_the_reference_has_not_drifted(
    lily: Case, same: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    lily.write(same)

    assert lily.run("--environment", "prod", "--app", "lily-api") == 0

    out, err = capsys.readouterr()
    assert err == ""
    assert "drifted columns: none, of 5" in out
    verdict = lily.verdict
    assert (verdict["rows"], verdict["reference_rows"], verdict["drifted"], verdict["quality"]) == (
        200,
        150,
        False,
        None,
    )
    assert (verdict["environment"], verdict["app"], verdict["model"]) == ("prod", "lily-api", "lily")
    assert len(verdict["checks"]) == 13
    assert {check["threshold"] for check in verdict["checks"]} == {drift.ALPHA / 13}
    assert "Drift in column" in (lily.out / "report.html").read_text()
    assert not (lily.out / "quality.html").exists()


def test_a_shift_of_one_column_is_drift(lily: Case, shifted: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    lily.write(shifted)

    assert lily.run() == 1

    assert "sepal_width" in lily.verdict["drifted_columns"]
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith(f"error: lily {lily.described.version}: ")
    assert "drift at 0.00077 or below" in first


def test_evidently_and_the_statistics_by_themselves_agree(lily: Case, shifted: pd.DataFrame, tmp_path: Path) -> None:
    # Where it is used, as in the command: it takes seconds to import, and every worker imports every test.
    from monitoring import report

    shifted.loc[:20, "petal_width"] = np.nan
    frames = (lily.reference, shifted, FEATURES)

    by_evidently = report.judge(*frames, labels=True, out=tmp_path)
    alone = drift.compare(*frames, labels=True)

    def listed(checks: list[drift.Check]) -> list[tuple[Any, ...]]:
        return sorted(
            (each.column, each.of, each.test, each.drifted, pytest.approx(each.p_value), pytest.approx(each.statistic))
            for each in checks
        )

    assert [row[:4] for row in listed(by_evidently)] == [row[:4] for row in listed(alone)]
    assert listed(by_evidently) == [
        (each.column, each.of, each.test, each.drifted, each.p_value, each.statistic)
        for each in sorted(alone, key=lambda each: (each.column, each.of))
    ]


@pytest.mark.parametrize(
    ("change", "column", "of"),
    [
        (lambda frame: frame.assign(petal_width=frame["petal_width"].mask(frame.index < 40)), "petal_width", "missing"),
        (lambda frame: frame.assign(petal_width=np.nan), "petal_width", "missing"),
        (
            lambda frame: frame.assign(sepal_width=frame["sepal_width"].mask(frame.index < 30, 40.0)),
            "sepal_width",
            "range",
        ),
        (lambda frame: frame.assign(prediction="setosa"), "prediction", "values"),
    ],
    ids=["some missing", "all missing", "out of range", "one answer"],
)
def test_other_drift_than_of_values_is_found(
    lily: Case, same: pd.DataFrame, change: Callable[[pd.DataFrame], pd.DataFrame], column: str, of: str
) -> None:
    lily.write(change(same))

    assert lily.run() == 1

    assert {(check["column"], check["of"]) for check in lily.verdict["checks"] if check["drifted"]} == {(column, of)}


def test_quality_is_measured_where_labels_are_known(lily: Case, same: pd.DataFrame) -> None:
    lily.write(same)
    truth = same[drift.PREDICTION].where(same.index % 7 > 0, "virginica").tolist()
    # A label that is stored later corrects the one before.
    lily.label(["setosa"] * 60)
    lily.label(truth[:120], "b")

    assert lily.run() == 0

    quality, predicted = lily.verdict["quality"], same[drift.PREDICTION][:120]
    assert quality["rows"] == 120
    assert quality["metrics"]["accuracy"]["current"] == pytest.approx(accuracy_score(truth[:120], predicted))
    assert quality["metrics"]["macro_f1"]["current"] == pytest.approx(f1_score(truth[:120], predicted, average="macro"))
    assert quality["metrics"]["accuracy"]["reference"] == 1
    assert (lily.out / "quality.html").stat().st_size > 100_000


@pytest.mark.parametrize("occur", [LABELS[:1], LABELS[:2], LABELS])
@pytest.mark.parametrize("wrong", [0, 1])
def test_quality_is_measured_whichever_labels_occur(lily: Case, occur: list[str], wrong: int, tmp_path: Path) -> None:
    """Evidently takes rows with two labels for another kind of question than rows with one or three."""
    from monitoring import report

    predicted = pd.Series(occur * 4)
    frame = pd.DataFrame({drift.PREDICTION: predicted, drift.TARGET: predicted})
    frame.loc[: wrong - 1, drift.TARGET] = occur[-1]

    found = report.measure(lily.reference, frame, labels=True, out=tmp_path)

    assert found["accuracy"]["current"] == accuracy_score(frame[drift.TARGET], predicted)
    assert "Accuracy" in (tmp_path / "quality.html").read_text()


def test_a_regression_is_judged_as_well(tmp_path: Path) -> None:
    random = np.random.default_rng(3)

    def rows(number: int) -> pd.DataFrame:
        frame = pd.DataFrame(random.normal(size=(number, 2)), columns=["age", "bmi"])
        frame[drift.PREDICTION] = 150 + 40 * frame["bmi"]
        return frame.assign(bmi=frame["bmi"].mask(frame.index % 10 == 0))

    before = rows(300)
    before["target"] = before[drift.PREDICTION] + random.normal(scale=50, size=300)
    case = make_case(tmp_path, "sugar", before, {"value": "progression"})
    window = rows(200)
    case.write(window)
    truth = (window[drift.PREDICTION] + random.normal(scale=50, size=200)).tolist()
    case.label(truth)

    assert case.run() == 0

    verdict = case.verdict
    tests = {check["test"] for check in verdict["checks"] if check["column"] == "prediction"}
    assert (tests, len(verdict["checks"])) == ({"ks"}, 7)
    metrics = verdict["quality"]["metrics"]
    assert metrics["mae"]["current"] == pytest.approx(mean_absolute_error(truth, window[drift.PREDICTION]))
    assert metrics["rmse"]["current"] == pytest.approx(root_mean_squared_error(truth, window[drift.PREDICTION]))
    assert metrics["rmse"]["reference"] == pytest.approx(
        root_mean_squared_error(before["target"], before[drift.PREDICTION])
    )

    case.write(window.assign(prediction=window[drift.PREDICTION] + 40), number=0)
    assert case.run() == 1
    assert case.verdict["drifted_columns"] == ["prediction"]


def test_prometheus_reads_what_was_found(lily: Case, shifted: pd.DataFrame) -> None:
    lily.write(shifted)
    lily.label(shifted[drift.PREDICTION].tolist())
    lily.run("--environment", "prod", "--app", "lily-api")

    found = {
        (sample.name, sample.labels.get("column"), sample.labels.get("of"), sample.labels.get("metric")): sample
        for family in text_string_to_metric_families((lily.out / "drift.prom").read_text())
        for sample in family.samples
    }
    one = found["model_drift", None, None, None]
    assert (one.value, one.labels) == (
        1, {"environment": "prod", "app": "lily-api", "model": "lily", "version": lily.described.version},
    )  # fmt: skip
    for check in lily.verdict["checks"]:
        at = (check["column"], check["of"], None)
        assert found["model_drift_p_value", *at].value == check["p_value"]
        assert found["model_drift_detected", *at].value == check["drifted"]
    assert found["model_quality", None, None, "accuracy"].value == 1


# What is not judged


def test_too_few_rows_are_no_verdict(lily: Case, same: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    lily.write(same)
    assert lily.run() == 0
    capsys.readouterr()

    # An earlier verdict does not stay.
    assert lily.run("--min-rows", "201") == 1
    assert not (lily.out / "verdict.json").exists()
    [line] = capsys.readouterr().err.splitlines()
    assert "200 rows of lily" in line
    assert "at least 201 are needed: there is no verdict" in line


@pytest.mark.parametrize("logged", [False, True], ids=["no log", "only older rows"])
def test_an_empty_window_is_no_verdict(
    lily: Case, same: pd.DataFrame, capsys: pytest.CaptureFixture[str], logged: bool
) -> None:
    if logged:
        lily.write(same, NOW - timedelta(days=3))

    assert lily.run() == 1
    assert ": 0 rows of lily " in capsys.readouterr().err
    assert [file.name for file in lily.out.iterdir()] == []


def test_lines_that_are_none_are_named_and_counted(
    lily: Case, same: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lily.write(same)
    good = file.read_text().splitlines()
    wrong = json.loads(good[5])
    file.write_text(
        "\n".join(
            [
                good[0], "not JSON", *good[1:], json.dumps(wrong | {"schema": 2}), good[7],
                json.dumps(wrong | {"row": 900, "features": {"sepal_length": 1.0}}),
                json.dumps(wrong | {"row": 901, "prediction": "rose"}),
                '{"cut',
            ]
        )
    )  # fmt: skip
    lily.label(["setosa", "rose"])

    assert lily.run() == 0

    place = f"left out: {file}: line"
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": line ")[2].split(":")[0] for line in lines] == [
        "2",
        "202",
        "203",
        "204",
        "205",
        "206",
        "2",
    ]
    assert lines[0].startswith(f"{place} 2: Invalid JSON")
    assert lines[2] == f"{place} 203: row 7 of request {0:032x} stands twice"
    assert lines[3] == f"{place} 204: features: sepal_length, but the model takes {', '.join(FEATURES)}"
    assert lines[4] == f"{place} 205: prediction: 'rose' is not one of {', '.join(LABELS)}"
    assert (lily.verdict["malformed_lines"], lily.verdict["rows"], lily.verdict["quality"]["rows"]) == (7, 200, 1)


@pytest.mark.parametrize("changed", [{"version": "2026-02-01-000000000000"}, {"model": "sugar"}])
def test_the_log_of_another_version_is_refused(
    lily: Case, same: pd.DataFrame, capsys: pytest.CaptureFixture[str], changed: dict[str, str]
) -> None:
    lily.write(same)
    file = lily.write(same, number=1, **changed)

    assert lily.run() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: line 1: of ")
    assert not (lily.out / "verdict.json").exists()


def test_a_reference_that_was_altered_is_refused(
    lily: Case, same: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    lily.write(same)
    original = (lily.version / reference.FILE).read_bytes()
    with (lily.version / reference.FILE).open("a") as file:
        file.write("1,1,1,1,setosa,setosa\n")

    assert lily.run() == 1
    assert f"{reference.FILE}: size: more than " in capsys.readouterr().err
    (lily.version / reference.FILE).write_bytes(original.swapcase())
    assert lily.run() == 1
    assert f"{reference.FILE}: sha256: " in capsys.readouterr().err


def test_another_version_than_the_released_one_is_refused(lily: Case) -> None:
    with pytest.raises(Refused, match=r"manifest.json: the version's digest is sha256:\w+, but sha256:0"):
        reference.read(open_place(str(lily.version), "--version", PATIENT), Expected(f"sha256:{'0' * 64}", None))


def test_numbers_of_a_reference_are_read_to_the_last_bit(lily: Case) -> None:
    _, read = reference.read(open_place(str(lily.version), "--version", PATIENT), Expected(lily.described.digest, None))

    assert read[FEATURES].equals(lily.reference[FEATURES])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "the header is a,b, not sepal_length"),
        (f"{','.join(FEATURES)},prediction,target\n", "no rows"),
        (f"{','.join(FEATURES)},prediction,target\n1,x,1,1,setosa,setosa\n", "could not convert"),
        ("", "No columns"),
    ],
)
def test_what_is_no_reference_is_refused(lily: Case, content: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        reference.parse(content.encode(), lily.described, "reference.csv")


@pytest.mark.parametrize(
    "wrong", [["--window", "1w"], ["--window", "24h", "--rows", "5"], ["--rows", "0"], ["--min-rows", "x"]]
)
def test_wrong_usage(lily: Case, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        lily.run(window=wrong)
    assert left.value.code == 2


def test_a_log_that_is_not_there_is_named(lily: Case, capsys: pytest.CaptureFixture[str]) -> None:
    lily.log.rmdir()

    assert lily.run() == 1
    assert capsys.readouterr().err == f"error: --log {lily.log}: no such folder\n"


# Which rows a window has


def test_a_window_is_cut_by_time_or_by_rows(lily: Case, same: pd.DataFrame) -> None:
    """Objects of several hosts and days; those that cannot hold rows of the window are not read."""
    days = [NOW - timedelta(days=day) for day in (0, 1, 2, 5)]
    for number, time in enumerate(days):
        lily.write(same[:50], time - timedelta(minutes=1), number * 2)
        lily.write(same[:50], time - timedelta(minutes=1, seconds=1), number * 2 + 1)
    place = open_place(str(lily.log), "--log", PATIENT)
    read: list[str] = []
    original = place.read
    place.read = lambda name: read.append(name) or original(name)  # type: ignore[method-assign,func-returns-value]

    def rows(window: log.Window) -> tuple[int, int]:
        read.clear()
        return len(log.read(place, lily.described, window).frame), len(read)

    assert rows(log.Window(NOW, since=NOW - timedelta(hours=12))) == (100, 2)
    assert rows(log.Window(NOW, since=NOW - timedelta(days=2, hours=12))) == (300, 6)
    assert rows(log.Window(NOW - timedelta(days=1), since=NOW - timedelta(days=3))) == (200, 4)
    # The two objects of one minute may hold each other's newest rows.
    assert rows(log.Window(NOW, rows=30)) == (30, 2)
    assert rows(log.Window(NOW, rows=120)) == (120, 4)
    assert rows(log.Window(NOW, rows=1000)) == (400, 8)
    frame = log.read(place, lily.described, log.Window(NOW, rows=30)).frame
    assert frame["time"].is_monotonic_increasing
    assert frame["time"].iloc[-1] == days[0] - timedelta(minutes=1) + timedelta(milliseconds=49)


# All of it


def test_from_the_service_to_the_verdict(
    serve: Callable[..., Service], artifacts: Path, s3_url: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A real service logs to a real S3 server, labels arrive, and the command judges what is there."""
    described = manifest.parse((artifacts / "manifest.json").read_bytes(), "manifest.json")
    uri = upload(artifacts, described.version, s3_url, "judged")
    before = reference.parse((artifacts / reference.FILE).read_bytes(), described, reference.FILE)
    drawn = before.sample(200, replace=True, random_state=1)
    client = boto3.client("s3", endpoint_url=s3_url)

    def ask(rows: pd.DataFrame, prefix: str) -> str:
        service = serve(uri, described.digest, AWS_ENDPOINT_URL_S3=s3_url, REQUEST_LOG_URI=f"s3://judged/{prefix}/")
        answer = service.ready().post("/predict", json={"features": rows[FEATURES].to_numpy().tolist()})
        assert service.stop() == 0
        return str(answer.headers["X-Request-Id"])

    def judging(prefix: str) -> list[str]:
        return [
            "--version", uri.removesuffix("onnx/"), "--digest", described.digest, "--log", f"s3://judged/{prefix}",
            "--rows", "200", "--out", str(tmp_path / prefix), "--json",
        ]  # fmt: skip

    request = ask(drawn, "same")
    labels = [
        {"schema": 1, "id": request, "row": row, "label": label} for row, label in enumerate(drawn["target"].tolist())
    ]
    body = "".join(f"{json.dumps(label)}\n" for label in labels).encode()
    client.put_object(Bucket="judged", Key="same/lily/labels/today.jsonl", Body=body)
    ask(drawn.assign(petal_length=drawn["petal_length"] + before["petal_length"].std()), "moved")

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    refused = subprocess.run(
        [sys.executable, "-m", "monitoring", *judging("same"), "--min-rows", "201"],
        cwd=SOURCE, env=os.environ, capture_output=True, text=True,
    )  # fmt: skip

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: --log s3://judged/same: 200 rows of lily ")
    # From here on in this process, which has imported what judges: it takes seconds.
    assert monitoring.main(judging("same")) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["rows"], verdict["drifted"], verdict["quality"]["rows"]) == (200, False, 200)
    assert verdict["quality"]["metrics"]["accuracy"]["current"] > 0.9
    assert monitoring.main(judging("moved")) == 1
    out, err = capsys.readouterr()
    assert "petal_length: its values differ from the reference (ks " in err
    assert "petal_length" in json.loads(out)["drifted_columns"]

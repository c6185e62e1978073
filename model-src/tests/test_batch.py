from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import onnx
import pytest
import warm
from conftest import SOURCE, Repository, Service, upload, wait_until

from contract import manifest
from contract.digest import version_digest
from serving import batch
from storage import streams
from storage.s3 import PATIENT, S3

HEADER = "sepal_length,sepal_width,petal_length,petal_width\n"
FLOWER = "5.3,3.5,1.4,0.2\n"
SCORED = "prediction,probability_setosa,probability_versicolor,probability_virginica,model_version"
Options = tuple[str, ...]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """What runs in this process changes what it does when it is told to stop."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def model(artifacts: Path, trained: Repository, monkeypatch: pytest.MonkeyPatch) -> str:
    """The trained version is the one to score with; its name."""
    monkeypatch.setenv("MODEL_URI", str(artifacts / "onnx"))
    monkeypatch.setenv("MODEL_DIGEST", trained.manifest().digest)
    return trained.manifest().version


@pytest.fixture
def bucket(request: pytest.FixtureRequest, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of the test's own, to which every S3 client is led."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    monkeypatch.setattr(streams, "_S3", S3(PATIENT))
    monkeypatch.setattr(streams, "PART", PART)
    name = "batch-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    boto3.client("s3").create_bucket(Bucket=name)
    return name


PART = 5 << 20
"""Bytes of a part of an upload, of which S3 takes no smaller ones."""
BATCH = f"""
import sys
from serving import batch
from storage import streams

streams.PART = {PART}
sys.exit(batch.main())
"""
Start = Callable[..., warm.Process]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Begins a process of its own."""

    def begin(*options: str) -> warm.Process:
        said = tmp_path_factory.mktemp("batch")
        return warm.Process(["-c", BATCH, *options], SOURCE, os.environ, said / "out", said / "err")

    return begin


def ended(process: warm.Process) -> tuple[int, str]:
    return process.wait(60), process.stderr.read_text()


def put(uri: str, text: str) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=text.encode())


def get(uri: str) -> str:
    """What is at a place, in S3 or here."""
    if not uri.startswith("s3://"):
        return Path(uri).read_bytes().decode()
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return str(boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode())


def keys(bucket: str) -> list[str]:
    listed = boto3.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])
    return [item["Key"] for item in listed]


def uploads(bucket: str) -> int:
    """How many uploads have begun and not ended."""
    return len(boto3.client("s3").list_multipart_uploads(Bucket=bucket).get("Uploads", []))


def parts(bucket: str) -> int:
    """How many parts these have; the first is later than its upload, whose name the process may not have learned."""
    client = boto3.client("s3")
    begun = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return sum(
        len(client.list_parts(Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"]).get("Parts", []))
        for one in begun
    )


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, here and in S3, for what has to hold in both."""
    if request.param == "file":
        return f"{tmp_path}/place"
    return f"s3://{request.getfixturevalue('bucket')}/place"


# What is written


def table(rows: list[dict[str, str]], format: str) -> str:
    if format == "csv":
        return "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n"
    return "".join(json.dumps({name: _number(text) for name, text in row.items()}) + "\n" for row in rows)


def _number(text: str) -> float | str:
    return float(text) if text.replace(".", "").isdigit() else text


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_batch_gives_the_answers_of_the_service(
    model: str, trained: Repository, artifacts: Path, serve: Callable[..., Service], start: Start, tmp_path: Path,
    format: str,
) -> None:  # fmt: skip
    with (artifacts / "reference/reference.csv").open() as stream:
        # In another order than the signature's, and without the column that the output adds.
        rows = [dict(reversed(row.items())) for row in csv.DictReader(stream)]
    for row in rows:
        del row["prediction"]
    names = [column.name for column in trained.manifest().signature.inputs]
    service = serve(artifacts / "onnx", trained.manifest().digest).ready()
    asked = {"features": [[float(row[name]) for name in names] for row in rows]}
    online = service.post("/predict", json=asked).json()["predictions"]
    (tmp_path / f"in.{format}").write_text(table(rows, format))

    code, said = ended(start("--input", f"{tmp_path}/in.{format}", "--output", f"{tmp_path}/out.{format}"))

    assert (code, said) == (0, f"{tmp_path}/out.{format}: {len(rows)} rows of {tmp_path}/in.{format} by {model}\n")
    text = get(f"{tmp_path}/out.{format}")
    lines: list[Any] = list(csv.DictReader(text.splitlines())) if format == "csv" else text.splitlines()
    found = [line if format == "csv" else json.loads(line) for line in lines]
    assert len({row["prediction"] for row in online}) == 3
    assert [row["prediction"] for row in found] == [row["prediction"] for row in online]
    for label in ("setosa", "versicolor", "virginica"):
        offline = [float(row[f"probability_{label}"]) for row in found]
        assert offline == [row["probabilities"][label] for row in online]
    assert {row["model_version"] for row in found} == {model}
    assert [row["target"] for row in found] == [row["target"] for row in rows]


def run(given: str, output: str, *options: str) -> int:
    return batch.main(["--input", given, "--output", output, *options])


def test_other_columns_and_the_text_of_cells_stay_as_they_are(model: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(
        b"\xef\xbb\xbfid,petal_width,note,sepal_width,sepal_length,petal_length\r\n"
        b'007,0.20,"a, ""b""\r\nc",3.50, 5.3,1.4e0\r\n'
        b"\r\n"
    )
    (tmp_path / "in.jsonl").write_text(
        '{"id": 12345678901234567890, "x": 1.10, "sepal_length": 5.3, "sepal_width": 3.5, "petal_length": 1.4,'
        ' "petal_width": 0.2, "note": {"deep": "\u00e9"} }\n\n'
    )

    assert run(f"{tmp_path}/in.csv", f"{tmp_path}/out.csv") == 0
    assert run(f"{tmp_path}/in.jsonl", f"{tmp_path}/out.jsonl") == 0

    assert get(f"{tmp_path}/out.csv") == (
        f"id,petal_width,note,sepal_width,sepal_length,petal_length,{SCORED}\n"
        f'007,0.20,"a, ""b""\r\nc",3.50, 5.3,1.4e0,setosa,1.0,0.0,0.0,{model}\n'
    )
    assert get(f"{tmp_path}/out.jsonl") == (
        '{"id": 12345678901234567890, "x": 1.10, "sepal_length": 5.3, "sepal_width": 3.5, "petal_length": 1.4,'
        ' "petal_width": 0.2, "note": {"deep": "\u00e9"}, "prediction": "setosa", "probability_setosa": 1.0,'
        f' "probability_versicolor": 0.0, "probability_virginica": 0.0, "model_version": "{model}"}}\n'
    )


def test_a_table_without_rows_gives_one_without_rows(model: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(HEADER)
    (tmp_path / "in.jsonl").write_text("")

    assert run(f"{tmp_path}/in.csv", f"{tmp_path}/out.csv") == 0
    assert run(f"{tmp_path}/in.jsonl", f"{tmp_path}/out.jsonl") == 0

    assert get(f"{tmp_path}/out.csv") == f"{HEADER.strip()},{SCORED}\n"
    assert get(f"{tmp_path}/out.jsonl") == ""


@pytest.fixture
def regression(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version whose answer is a + 10 b, where b may be missing and then counts as 7."""
    make, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.array([[1], [10]], dtype=np.float32), "weights")
    seven = onnx.numpy_helper.from_array(np.array(7, dtype=np.float32), "seven")
    graph = make.make_graph(
        [
            make.make_node("IsNaN", ["features"], ["missing"]),
            make.make_node("Where", ["missing", "seven", "features"], ["filled"]),
            make.make_node("MatMul", ["filled", "weights"], ["value"]),
        ],
        "regression",
        [make.make_tensor_value_info("features", FLOAT, [None, 2])],
        [make.make_tensor_value_info("value", FLOAT, [None, 1])],
        [weights, seven],
    )
    made = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8).SerializeToString()
    data = json.loads((artifacts / "manifest.json").read_text())
    signature = manifest.signature_of([("a", False), ("b", True)], quantity="sum")
    contents = {"onnx/model.onnx": made, "signature.json": manifest.dump_signature(signature)}
    data["files"] = [
        {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for path, content in contents.items()
    ]
    data["digest"] = version_digest((file["path"], file["sha256"]) for file in data["files"])
    data["version"] = manifest.version_name(data["version"][:10], data["digest"])
    data["signature"] = signature.model_dump()
    (tmp_path / "version/onnx").mkdir(parents=True)
    (tmp_path / "version/onnx/model.onnx").write_bytes(made)
    (tmp_path / "version/manifest.json").write_text(json.dumps(data))
    monkeypatch.setenv("MODEL_URI", f"{tmp_path}/version/onnx")
    monkeypatch.setenv("MODEL_DIGEST", data["digest"])


def test_a_regression_gives_numbers_and_takes_what_is_missing(regression: None, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("b,a\n2,1\n,1\n")
    (tmp_path / "in.jsonl").write_text('{"a": 1, "b": 2}\n{"a": 1, "b": null}\n')

    assert run(f"{tmp_path}/in.csv", f"{tmp_path}/out.csv") == 0
    assert run(f"{tmp_path}/in.jsonl", f"{tmp_path}/out.jsonl") == 0

    rows = list(csv.DictReader(get(f"{tmp_path}/out.csv").splitlines()))
    assert list(rows[0]) == ["b", "a", "prediction", "model_version"]
    assert [row["prediction"] for row in rows] == ["21.0", "71.0"]
    objects = [json.loads(line) for line in get(f"{tmp_path}/out.jsonl").splitlines()]
    assert [row["prediction"] for row in objects] == [21.0, 71.0]
    assert list(objects[0]) == ["a", "b", "prediction", "model_version"]


def test_a_row_without_a_finite_answer_is_a_bad_row(
    regression: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("b,a\n2,1\n3e38,1\n-3e38,1\n1,2\n")
    (tmp_path / "in.jsonl").write_text('{"a": 1, "b": 2}\n{"a": 1, "b": 3e38}\n')

    assert run(f"{tmp_path}/in.csv", f"{tmp_path}/out.csv", "--max-bad-rows", "1") == 1
    assert "line 3: the model has no finite answer for this row" in capsys.readouterr().err
    assert run(f"{tmp_path}/in.csv", f"{tmp_path}/out.csv", "--max-bad-rows", "2") == 0
    assert run(f"{tmp_path}/in.jsonl", f"{tmp_path}/out.jsonl", "--max-bad-rows", "1") == 0

    rows = list(csv.DictReader(get(f"{tmp_path}/out.csv").splitlines()))
    assert [row["prediction"] for row in rows] == ["21.0", "12.0"]
    rejected = [json.loads(line) for line in get(f"{tmp_path}/out.csv.rejected").splitlines()]
    assert [(row["line"], row["row"]) for row in rejected] == [(3, "3e38,1\n"), (4, "-3e38,1\n")]
    assert json.loads(get(f"{tmp_path}/out.jsonl.rejected"))["line"] == 2


# Faults

NEEDED = '{"sepal_length": 5.3, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2'


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("5.3,3.5,,0.2", "petal_length: empty, but the model needs a number; fill it in"),
        ("5.3,3.5,1.4,wide", "petal_width: 'wide': not a number; write digits, with a point before decimals"),
        ("5.3,3.5,nan,0.2", "petal_length: 'nan': not a number; write digits, with a point before decimals"),
        ("1_0,3.5,1.4,0.2", "sepal_length: '1_0': not a number; write digits, with a point before decimals"),
        ("5.3,1e39,1.4,0.2", "sepal_width: '1e39': beyond single precision; is it in the right unit?"),
        ("5.3,1e999,1.4,0.2", "sepal_width: '1e999': beyond single precision; is it in the right unit?"),
        (
            "5,3,3,5,1,4,0,2",
            "8 cells, but the first line names 4 columns; quote a cell that has a comma in it",
        ),
    ],
)
def test_a_bad_row_of_csv_is_named(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str, line: str
) -> None:
    (tmp_path / "in.csv").write_text(f"{HEADER}{FLOWER}{row}\n{FLOWER}")

    assert run(f"{tmp_path}/in.csv", f"{tmp_path}/out.csv") == 1

    assert capsys.readouterr().err.splitlines() == [
        f"error: {tmp_path}/in.csv: line 3: {line}",
        f"error: {tmp_path}/in.csv: more than 0 bad rows, so nothing was written; correct them, or leave them out with"
        " a larger --max-bad-rows",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ('{"sepal_length": 5.3', "not JSON that can be read: Expecting ',' delimiter: "),
        ("[5.3, 3.5, 1.4, 0.2]", "not JSON that can be read: not an object with the columns' names as keys; write one"),
        (NEEDED.replace("5.3", "true") + "}", "sepal_length: True: not a number; "),
        (NEEDED.replace("5.3", '"5.3"') + "}", "sepal_length: '5.3': not a number; "),
        (NEEDED.replace("5.3", "null") + "}", "sepal_length: empty, but the model needs a number; "),
        (NEEDED.replace("5.3", "NaN") + "}", "not JSON that can be read: NaN is no number of JSON; "),
        (NEEDED.replace("5.3", "1" * 400) + "}", "sepal_length: 1111"),
        (NEEDED.replace("5.3", "1" * 5000) + "}", "not JSON that can be read: Exceeds the limit"),
        (NEEDED + ', "petal_width": 3}', "not JSON that can be read: a key stands twice; "),
        (NEEDED + ', "prediction": 3}', "prediction: a column of this name is in the output; "),
        (NEEDED.replace("petal_width", "width") + "}", "petal_width: missing; write it"),
        ("[" * 100_000, "not JSON that can be read: "),
    ],
)
def test_a_bad_row_of_json_lines_is_named(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str, line: str
) -> None:
    (tmp_path / "in.jsonl").write_text(f"{NEEDED}}}\n{row}\n")

    assert run(f"{tmp_path}/in.jsonl", f"{tmp_path}/out.jsonl") == 1

    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {tmp_path}/in.jsonl: line 2: {line}")
    assert "more than 0 bad rows" in last
    assert [file.name for file in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            b"sepal_length;sepal_width\n1;2\n",
            "sepal_length: no such column; the model needs it, and the first line has sepal_length;sepal_width",
        ),
        (b"", "sepal_length: no such column; the model needs it, and the first line has none"),
        (
            HEADER.replace("\n", ",prediction\n").encode(),
            "prediction: a column of this name is in the output; rename or remove it in the input",
        ),
        (HEADER.replace("\n", ",x,x\n").encode(), "x: two columns have this name; rename or remove one"),
        (HEADER.encode() + b"5.3,3.5,1.4,\xe9\n", "line 2: byte 13: 0xe9 is not UTF-8; save the file as UTF-8"),
        (
            HEADER.encode() + b'5.3,"3.5\n5.3,3.5\n',
            "line 3: not CSV: unexpected end of data; quote cells as RFC 4180 has it",
        ),
        (HEADER.encode() + b"1" * (1 << 21), "line 2: longer than 1048576 bytes; write a row on a line"),
    ],
)
def test_a_file_that_is_no_table_for_the_model_is_refused_whatever_may_be_left_out(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, line: str
) -> None:
    (tmp_path / "in.csv").write_bytes(content)

    assert run(f"{tmp_path}/in.csv", f"{tmp_path}/out.csv", "--max-bad-rows", "100") == 1

    assert capsys.readouterr().err.splitlines()[0] == f"error: {tmp_path}/in.csv: {line}"
    assert [file.name for file in tmp_path.iterdir()] == ["in.csv"]


def test_bad_rows_are_left_out_up_to_a_number_and_written_beside_the_output(
    model: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text(f'{HEADER}{FLOWER}5.3,,1.4,"x\ny"\n{FLOWER}5.3\n')
    names = (f"{tmp_path}/in.csv", f"{place}/out.csv")

    assert run(*names, "--max-bad-rows", "1") == 1
    assert len(capsys.readouterr().err.splitlines()) == 4
    assert run(*names, "--max-bad-rows", "2") == 0

    assert capsys.readouterr().err == (
        f"{place}/out.csv: 2 rows of {tmp_path}/in.csv by {model}, 2 left out, see {place}/out.csv.rejected\n"
    )
    assert get(f"{place}/out.csv").count("setosa") == 3  # two rows, and a column
    first, second = (json.loads(line) for line in get(f"{place}/out.csv.rejected").splitlines())
    assert (first["line"], first["row"]) == (3, '5.3,,1.4,"x\ny"\n')
    assert first["faults"] == [
        "sepal_width: empty, but the model needs a number; fill it in",
        "petal_width: 'x\\ny': not a number; write digits, with a point before decimals",
    ]
    assert (second["line"], second["row"]) == (6, "5.3\n")


# Written once


def test_the_same_again_changes_nothing_and_anything_else_is_refused(
    model: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text(HEADER + FLOWER)
    (tmp_path / "more.csv").write_text(HEADER + FLOWER * 2)
    assert run(f"{tmp_path}/in.csv", f"{place}/out.csv") == 0
    before = get(f"{place}/out.csv")
    capsys.readouterr()

    again = run(f"{tmp_path}/in.csv", f"{place}/out.csv")
    other = run(f"{tmp_path}/more.csv", f"{place}/out.csv")

    assert (again, other) == (0, 1)
    assert capsys.readouterr().err.splitlines() == [
        f"{place}/out.csv: 1 rows of {tmp_path}/in.csv by {model} (as before)",
        f"error: {place}/out.csv: is there already with other bytes, and is never overwritten: name"
        " another output, or move that one away",
    ]
    assert get(f"{place}/out.csv") == before
    assert not list(tmp_path.rglob(".*"))


def pipe(file: Path) -> None:
    """A file that is read as slowly as a test writes it."""
    os.mkfifo(file)


@pytest.mark.parametrize("same", [True, False], ids=["same", "different"])
def test_of_two_at_once_one_writes_and_the_other_agrees_or_is_refused(
    model: str, place: str, start: Start, tmp_path: Path, same: bool
) -> None:
    started = []
    for name in ("one", "two"):
        pipe(tmp_path / f"{name}.csv")
        started.append(start("--input", f"{tmp_path}/{name}.csv", "--output", f"{place}/out.csv"))
    streams = [(tmp_path / f"{name}.csv").open("w") for name in ("one", "two")]  # waits for the readers
    for stream in streams:
        stream.write(HEADER + FLOWER)
    if not same:
        streams[1].write(FLOWER)
    for stream in streams:
        stream.close()

    ends = [ended(process) for process in started]

    codes, said = sorted(code for code, _ in ends), "".join(text for _, text in ends)
    assert codes == ([0, 0] if same else [0, 1]), said
    assert said.count("(as before)" if same else "is never overwritten") == 1
    assert get(f"{place}/out.csv").count(f"setosa,1.0,0.0,0.0,{model}\n") in ((1,) if same else (1, 2))


WIDE = f"{HEADER.strip()},note\n" + f"5.3,3.5,1.4,0.2,{'x' * 6_000}\n" * 1000
"""One chunk of rows, large enough for a part of an upload."""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_is_stopped_midway_leaves_no_output_and_is_done_the_next_time(
    model: str, place: str, start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    pipe(tmp_path / "in.csv")
    process = start("--input", f"{tmp_path}/in.csv", "--output", f"{place}/out.csv")
    bucket = place.removeprefix("s3://").partition("/")[0] if place.startswith("s3://") else ""
    with (tmp_path / "in.csv").open("w") as stream:
        stream.write(WIDE)
        stream.flush()
        if bucket:
            wait_until(lambda: parts(bucket) == 1, "a part is uploaded")
        else:
            wait_until(lambda: any(file.stat().st_size for file in tmp_path.glob("place/.*")), "a part is written")
        process.send_signal(number)
        code, said = ended(process)

    assert code == (-9 if number == signal.SIGKILL else 130), said
    assert keys(bucket) == [] if bucket else not list(tmp_path.glob("place/[!.]*"))
    if number == signal.SIGTERM:
        assert uploads(bucket) == 0 if bucket else not list(tmp_path.glob("place/*"))
    (tmp_path / "in.csv").unlink()
    (tmp_path / "in.csv").write_text(WIDE)
    assert run(f"{tmp_path}/in.csv", f"{place}/out.csv") == 0
    assert get(f"{place}/out.csv").count(f",{model}\n") == 1000
    assert not list(tmp_path.glob("place/.*"))


def test_what_is_too_large_for_a_part_is_uploaded_in_parts_as_one(
    model: str, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text(WIDE)
    output = f"s3://{bucket}/out.csv"

    assert run(f"{tmp_path}/in.csv", output) == 0
    assert run(f"{tmp_path}/in.csv", output) == 0
    (tmp_path / "in.csv").write_text(WIDE + WIDE.splitlines()[1])
    assert run(f"{tmp_path}/in.csv", output) == 1

    assert boto3.client("s3").head_object(Bucket=bucket, Key="out.csv")["ETag"].endswith('-2"')
    rows = list(csv.DictReader(get(output).splitlines()))
    assert len(rows) == 1000
    assert {(row["note"], row["prediction"]) for row in rows} == {("x" * 6_000, "setosa")}
    said = capsys.readouterr().err.splitlines()
    assert "(as before)" in said[1]
    assert "is never overwritten" in said[2]
    assert uploads(bucket) == 0


# Folders


def test_every_file_of_a_folder_that_this_version_has_not_scored_is_scored(
    model: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write = put if place.startswith("s3://") else _write
    write(f"{place}/in/monday.csv", HEADER + FLOWER)
    write(f"{place}/in/new/tuesday.jsonl", NEEDED + "}\n")
    write(f"{place}/in/_SUCCESS", "")

    first = run(f"{place}/in/", f"{place}/out/")
    write(f"{place}/in/wednesday.csv", HEADER + FLOWER * 2)
    second = run(f"{place}/in/", f"{place}/out/")

    assert (first, second) == (0, 0)
    out = f"{place}/out/{model}"
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("(as before)")]
    assert lines == [
        f"{out}/monday.csv: 1 rows of {place}/in/monday.csv by {model}",
        f"{out}/new/tuesday.jsonl: 1 rows of {place}/in/new/tuesday.jsonl by {model}",
        f"{out}/wednesday.csv: 2 rows of {place}/in/wednesday.csv by {model}",
    ]
    assert get(f"{out}/wednesday.csv").count(f",{model}\n") == 2


def _write(uri: str, text: str) -> None:
    Path(uri).parent.mkdir(parents=True, exist_ok=True)
    Path(uri).write_text(text)


def test_a_file_that_is_scored_is_not_read_again(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only its change brings it back; the clock of files is finer than a second here."""
    folders = (f"{tmp_path}/in/", f"{tmp_path}/out/")
    _write(f"{tmp_path}/in/a.csv", HEADER + FLOWER)
    assert run(*folders) == 0
    capsys.readouterr()

    assert run(*folders) == 0
    quiet = capsys.readouterr().err
    _write(f"{tmp_path}/in/a.csv", HEADER + FLOWER * 2)
    assert run(*folders) == 1

    assert quiet == ""
    assert "is never overwritten" in capsys.readouterr().err


def test_a_bad_file_of_a_folder_keeps_none_of_the_others_from_being_scored(
    model: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write = put if place.startswith("s3://") else _write
    for name, row in (("a", FLOWER), ("b", "5.3,3.5,1.4,\n"), ("c", FLOWER)):
        write(f"{place}/in/{name}.csv", HEADER + row)

    assert run(f"{place}/in/", f"{place}/out/") == 1

    said = capsys.readouterr().err.splitlines()
    assert said[1] == f"error: {place}/in/b.csv: line 2: petal_width: empty, but the model needs a number; fill it in"
    assert [get(f"{place}/out/{model}/{name}.csv").count("setosa") for name in "ac"] == [2, 2]


def test_a_day_is_a_part_of_the_names(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(f"{tmp_path}/in/2026-02-01/a.csv", HEADER + FLOWER)
    _write(f"{tmp_path}/in/2026-02-02/a.csv", HEADER + FLOWER)
    for name, value in (("INPUT", f"{tmp_path}/in/{{date}}/"), ("OUTPUT", f"{tmp_path}/out/{{date}}/")):
        monkeypatch.setenv(f"BATCH_{name}", value)

    assert batch.main(["--date", "2026-02-02"]) == 0

    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.glob("out/*/*/*")] == [
        f"out/2026-02-02/{model}/a.csv"
    ]
    capsys.readouterr()
    (tmp_path / "in/2026-02-03").mkdir()
    assert batch.main(["--date", "2026-02-03"]) == 0
    assert capsys.readouterr().err == (
        f"{tmp_path}/in/2026-02-03/: no file that ends in .csv, .jsonl, .ndjson; there is nothing to score\n"
    )


# Settings, the model, and S3


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "--input or BATCH_INPUT: name a file or a folder"),
        (("--input", "a.csv"), "--output or BATCH_OUTPUT: name a file or a folder"),
        (("--input", "a/", "--output", "b.csv"), "one is a folder and the other is not"),
        (("--input", "a.txt", "--output", "b.txt"), "not both of one format; the formats are .csv, .jsonl, .ndjson"),
        (("--input", "a.csv", "--output", "b.jsonl"), "not both of one format; the formats are .csv, .jsonl, .ndjson"),
        (("--input", "a/", "--output", "a/out/"), "in the folder of the input, which it would become a part of"),
        (("--input", "a/", "--output", "b/", "--max-bad-rows", "-1"), "--max-bad-rows '-1': not a number of rows"),
        (("--input", "a/", "--output", "b/", "--date", "today"), "--date 'today': not a day; write YYYY-MM-DD"),
    ],
)
def test_wrong_options_are_wrong_usage(
    model: str, capsys: pytest.CaptureFixture[str], options: Options, line: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        batch.main(options)

    assert ended.value.code == 2
    assert line in capsys.readouterr().err


def test_what_is_not_there_is_refused(
    model: str, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = [
        run(f"{tmp_path}/no.csv", f"{tmp_path}/out.csv"),
        run(f"{tmp_path}/no/", f"{tmp_path}/out/"),
        run(f"s3://{bucket}/no.csv", f"{tmp_path}/out.csv"),
        run("s3://no-such-bucket/in/", f"{tmp_path}/out/"),
    ]

    assert codes == [1, 1, 1, 1]
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [
        f"error: {tmp_path}/no.csv: No such file or directory; check the path",
        f"error: {tmp_path}/no/: no such folder; check the path",
    ]
    assert "NoSuchKey" in lines[2]
    assert "NoSuchBucket" in lines[3]
    assert not list(tmp_path.iterdir())


def test_a_version_in_s3_is_verified_before_anything_is_read(
    artifacts: Path, trained: Repository, bucket: str, s3_url: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = trained.manifest()
    monkeypatch.setenv("MODEL_URI", upload(artifacts, described.version, s3_url, f"{bucket}-models"))
    monkeypatch.setenv("MODEL_DIGEST", f"sha256:{'0' * 64}")
    put(f"s3://{bucket}/in.csv", HEADER + FLOWER)
    options = ("--input", f"s3://{bucket}/in.csv", "--output", f"s3://{bucket}/out.csv")

    refused = ended(start(*options))
    monkeypatch.setenv("MODEL_DIGEST", described.digest)
    done = ended(start(*options))

    assert refused[0] == 1
    asked = f"error: manifest.json: the version's digest is {described.digest}, but sha256:{'0' * 64} is asked for; "
    assert refused[1].startswith(asked)
    assert done[0] == 0, done[1]
    assert get(f"s3://{bucket}/out.csv").endswith(f"setosa,1.0,0.0,0.0,{described.version}\n")


def test_a_replica_is_read_in_the_place_of_the_models_bucket_and_its_bytes_are_verified(
    artifacts: Path, trained: Repository, bucket: str, s3_url: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    described, replica = trained.manifest(), f"{bucket}-replica"
    there = upload(artifacts, described.version, s3_url, replica)
    variables = {
        "MODEL_URI": there.replace(replica, "away"), "MODEL_REPLICA": replica, "MODEL_DIGEST": described.digest,
        "MODEL_MANIFEST": described.sha256,
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    put(f"s3://{bucket}/in.csv", HEADER + FLOWER)
    options = ("--input", f"s3://{bucket}/in.csv", "--output", f"s3://{bucket}/out.csv")

    done = ended(start(*options))
    put(f"{there}model.onnx", "wrong")
    refused = ended(start(*options))

    assert done[0] == 0, done[1]
    assert get(f"s3://{bucket}/out.csv").endswith(f"setosa,1.0,0.0,0.0,{described.version}\n")
    assert refused[0] == 1
    assert refused[1].startswith("error: onnx/model.onnx: size: 5 bytes, but manifest.json has ")


def test_an_s3_that_is_away_is_worth_trying_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr(streams, "_S3", S3(PATIENT))

    assert run("s3://bucket/in/", f"{tmp_path}/out/") == 75
    monkeypatch.setenv("MODEL_URI", f"s3://bucket/models/lily/{model}/onnx/")
    assert run(f"{tmp_path}/in/", f"{tmp_path}/out/") == 75

    for line in capsys.readouterr().err.splitlines():
        assert line.startswith("error: s3://bucket/")
        assert line.endswith("; try again")


def test_a_batch_needs_no_library_of_training(model: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(HEADER + FLOWER)
    command = [sys.executable, "-X", "importtime", "-m", "serving.batch"]

    done = subprocess.run(
        [*command, "--input", f"{tmp_path}/in.csv", "--output", f"{tmp_path}/out.csv"],
        cwd=SOURCE, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    imported = {line.rsplit("|")[-1].strip() for line in done.stderr.splitlines() if "import time:" in line}
    assert "onnxruntime" in imported
    assert not {"sklearn", "pandas", "mlflow", "fastapi"} & imported


def test_a_stream_that_breaks_off_is_worth_trying_again(
    model: str, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that promises more bytes than it sends."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + (HEADER + FLOWER).encode())

    threading.Thread(target=answer, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{listening.getsockname()[1]}")

    code, said = ended(start("--input", "s3://bucket/in.csv", "--output", f"{tmp_path}/out.csv"))

    listening.close()
    assert code == 75, said
    assert not list(tmp_path.iterdir())

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from project import PROJECT

from contract.errors import Refused
from lifecycle import model, validation
from lifecycle.__main__ import main
from models.lily import model as lily
from models.sugar import model as sugar

MODELS = ["sugar", "lily"]
NUMBER = {"lily": "petal_length", "sugar": "bmi"}
HEADER = {
    "lily": "sepal_length,sepal_width,petal_length,petal_width,species",
    "sugar": "age,sex,bmi,bp,s1,s2,s3,s4,s5,s6,progression",
}
Rows = list[dict[str, str]]


def parse(text: str) -> Rows:
    return list(csv.DictReader(io.StringIO(text)))


def to_csv(rows: Rows, columns: list[str] | None = None) -> str:
    written = io.StringIO()
    writer = csv.DictWriter(written, columns or list(rows[0]), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def put(rows: Rows, column: str, where: slice, value: str) -> Rows:
    for row in rows[where]:
        row[column] = value
    return rows


def moved(rows: Rows, column: str, sigmas: float) -> Rows:
    sigma = np.std([float(row[column]) for row in rows if row[column]])
    for row in rows:
        if row[column]:
            row[column] = f"{float(row[column]) + sigmas * sigma:.4f}"
    return rows


def stage(name: str, of: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """The exit code of a stage and what it says on stderr."""
    code = main([name, of])
    out, err = capsys.readouterr()
    assert out == ""
    return code, err.splitlines()


def refusal(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What validation says of data that it must refuse, cell by cell; it must leave nothing behind."""
    code, lines = stage("validate", name, capsys)

    assert code == 1, lines
    assert all(line.startswith("error: ") for line in lines)
    assert not (Path("models") / name / "build").exists()
    return ["|".join(re.split(r" {2,}", line.removeprefix("error: "))) for line in lines]


@pytest.mark.parametrize("name", MODELS)
def test_the_data_of_the_repository_is_valid(
    name: str, workspace: Path, raw: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = len(parse(raw[name]))

    code, lines = stage("validate", name, capsys)

    assert (code, lines) == (
        0,
        [f"models/{name}/data/raw.csv: {rows} rows, as models/{name}/schema.py and models/{name}/accepted.json say"],
    )
    checked = json.loads((workspace / "models" / name / "build/validation.json").read_text())
    assert checked["rows"] == rows
    assert checked["duplicates"] == {"lily": 1, "sugar": 0}[name]
    assert list(checked["shift"]) == list(checked["null_share"]) == HEADER[name].split(",")
    assert set(checked["shift"].values()) == {0.0}
    assert (checked["null_share"][NUMBER[name]] > 0.03) == (name == "sugar")


@pytest.mark.parametrize("name", MODELS)
def test_what_is_committed_was_made_from_the_schema_and_the_data(
    name: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The accepted distribution; and validation writes the data dictionary."""
    (workspace / "models" / name / "accepted.json").unlink()

    code, lines = stage("validate", name, capsys)
    assert code == 1
    assert lines == [
        f"error: models/{name}/accepted.json: No such file or directory; look at the data, then"
        f" `python -m lifecycle accept {name}` and commit the file"
    ]
    assert stage("accept", name, capsys)[0] == 0
    assert stage("validate", name, capsys)[0] == 0

    made, committed = workspace / "models" / name, PROJECT / "models" / name
    assert (made / "accepted.json").read_text() == (committed / "accepted.json").read_text()
    assert (made / "data_dictionary.md").read_text() == validation.dictionary(model.load(name))


def test_the_data_dictionary_says_what_the_schema_says() -> None:
    lines = validation.dictionary(sugar.MODEL).splitlines()

    assert "| `bmi` | body mass index | kg/m2 | number | in at most 10% of the rows | from 10 to 70 |" in lines
    assert "| `sex` | sex, as the study coded it | - | number | no | one of 1.0, 2.0 |" in lines
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == HEADER["sugar"].split(",")
    assert lines[-2:] == ["- at least 200 rows", "- duplicates of at most 2% of the rows"]


TITLE = "column|rule|found|share|where"


@pytest.mark.parametrize(
    ("name", "change", "count", "faults"),
    [
        ("lily", lambda rows: put(rows, "petal_length", slice(3, 10, 6), "wide"), 1,
         ["petal_length|a number|wide|1.3%|line 5, 11"]),
        ("sugar", lambda rows: put(rows, "bmi", slice(None), "x"), 1,
         ["bmi|a number|x|100.0%|line 2, 3, 4, ..."]),
        ("lily", lambda rows: put(put(rows, "petal_width", slice(2, 3), "inf"), "petal_width", slice(1), "NaN"), 1,
         ["petal_width|a number|NaN, inf|1.3%|line 2, 4"]),
        ("lily", lambda rows: put(rows, "petal_length", slice(0, None, 5), ""), 1,
         ["petal_length|not empty|empty|20.0%|line 2, 7, 12, ..."]),
        ("sugar", lambda rows: put(rows, "bmi", slice(0, None, 5), ""), 1,
         ["bmi|empty in at most 10% of the rows|empty|24.0%|line 2, 7, 12, ..."]),
        ("sugar", lambda rows: put(rows, "age", slice(0, None, 5), ""), 1,
         ["age|not empty|empty|20.1%|line 2, 7, 12, ..."]),
        ("lily", lambda rows: put(rows, "sepal_width", slice(3, 4), "51"), 1,
         ["sepal_width|from 0.5 to 10|51|0.7%|line 5"]),
        ("sugar", lambda rows: put(rows, "s6", slice(0, 30), "-1"), 1,
         ["s6|from 20 to 400|-1|6.8%|line 2, 3, 4, ..."]),
        ("lily", lambda rows: put(rows, "species", slice(0, 2), "Setosa"), 1,
         ["species|one of setosa, versicolor, virginica|Setosa|1.3%|line 2, 3"]),
        ("sugar", lambda rows: put(rows, "sex", slice(0, 1), "3"), 1,
         ["sex|one of 1.0, 2.0|3|0.2%|line 2"]),
        ("lily", lambda rows: rows + rows[:30], 1,
         ["-|duplicates of at most 10% of the rows|31 rows|17.2%|line 144, 152, 153, ..."]),
        ("sugar", lambda rows: rows + rows[:30], 1,
         ["-|duplicates of at most 2% of the rows|30 rows|6.4%|line 444, 445, 446, ..."]),
        ("lily", lambda rows: rows[::3], 1, ["-|at least 60 rows|50 rows|-|-"]),
        ("sugar", lambda rows: rows[::3], 1, ["-|at least 200 rows|148 rows|-|-"]),
        # What is wrong with some rows and what is wrong with all of them, in one table.
        ("sugar", lambda rows: put(put(rows, "bp", slice(0, 60), ""), "s1", slice(1), "1"), 2,
         ["s1|from 50 to 500|1|0.2%|line 2", "bp|empty in at most 10% of the rows|empty|17.0%|line 2, 3, 4, ..."]),
        # Rules of the whole table wait until every cell is of its type.
        ("lily", lambda rows: put(rows, "petal_length", slice(0, 120), "x"), 1,
         ["petal_length|a number|x|80.0%|line 2, 3, 4, ..."]),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_column_rule_and_share(
    name: str, change: Callable[[Rows], Rows], count: int, faults: list[str], workspace: Path,
    raw: dict[str, str], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rows = change(parse(raw[name]))
    (workspace / "models" / name / "data/raw.csv").write_text(to_csv(rows))

    lines = refusal(name, capsys)

    rules = "1 rule" if count == 1 else f"{count} rules"
    assert lines == [
        f"models/{name}/data/raw.csv: {rules} broken in {len(rows)} rows; nothing is learned from this data:",
        TITLE,
        *faults,
    ]


@pytest.mark.parametrize("sigmas", [1, -1])
@pytest.mark.parametrize("name", MODELS)
def test_a_feature_that_has_moved_by_one_sigma_is_stopped(
    name: str, sigmas: float, workspace: Path, raw: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    # Not so far that a range would be left.
    column = {"lily": "sepal_length", "sugar": "s1"}[name]
    (workspace / "models" / name / "data/raw.csv").write_text(to_csv(moved(parse(raw[name]), column, sigmas)))

    _, title, *faults = refusal(name, capsys)

    assert title == TITLE
    (fault,) = faults
    moved_column, rule, found, share, where = fault.split("|")
    assert (moved_column, rule, share, where) == (
        column,
        f"distributed as accepted in models/{name}/accepted.json",
        "-",
        "-",
    )
    assert 0.25 < float(found.removeprefix("index ").removesuffix(", at most 0.25")) < 2


def test_other_shares_of_a_category_are_a_shift(
    workspace: Path, raw: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Sampling that has lost half of a species, and not one value that is wrong."""
    rows = parse(raw["lily"])
    (workspace / "models/lily/data/raw.csv").write_text(to_csv(rows[:60] + rows[100:]))

    assert any(line.startswith("species|distributed as accepted in") for line in refusal("lily", capsys))


def edited(line: int, edit: Callable[[str], str]) -> Callable[[str], str]:
    def change(text: str) -> str:
        lines = text.split("\n")
        lines[line - 1] = edit(lines[line - 1])
        return "\n".join(lines)

    return change


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "empty; its first line has to be {header}"),
        (lambda text: "\n \n", "empty; its first line has to be {header}"),
        (lambda text: text.partition("\n")[0], "no rows below the header"),
        (lambda text: to_csv(parse(text), list(parse(text)[0])[1:]), "line 1: the columns are {fewer}, not {header}"),
        (lambda text: to_csv(parse(text), list(parse(text)[0])[::-1]), "line 1: the columns are {back}, not {header}"),
        (edited(1, lambda line: f"{line},{line[:3]}"), "line 1: the columns are {header},{first}, not {header}"),
        (lambda text: text.replace(",", ";"), "line 1: the columns are {semicolons}, not {header}"),
        (edited(2, lambda line: f"{line},9"), "line 2: {more} fields, not {width}; correct or remove the row"),
        (edited(9, lambda line: line.partition(",")[2]), "line 9: {less} fields, not {width}; correct or remove the"),
        (edited(4, lambda line: f'"1"x{line}'), "line 4: not CSV: ',' expected after '\"'"),
        (edited(4, lambda line: f'"{line}'), "not CSV: unexpected end of data"),
        # pandas reads on in the next row, and says nothing.
        (edited(3, lambda line: f"{line[:-1]}\0{line[-1:]}"), "line 3: a NUL character, so not text; get the file"),
        (lambda text: text.encode()[:60] + b"\xff" + text.encode()[60:], "not UTF-8 text: invalid start byte at byte"),
        (lambda text: text.encode("utf-16"), "not UTF-8 text: invalid start byte at byte 0"),
    ],
)
def test_what_is_no_such_table_is_refused_in_one_line(
    name: str, change: Callable[[str], str | bytes], said: str, workspace: Path, raw: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    content, header = change(raw[name]), HEADER[name]
    columns = header.split(",")
    (workspace / "models" / name / "data/raw.csv").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )

    (line,) = refusal(name, capsys)

    words = {
        "header": header, "first": header[:3], "fewer": ",".join(columns[1:]), "back": ",".join(columns[::-1]),
        "semicolons": ";".join(columns), "width": len(columns), "more": len(columns) + 1, "less": len(columns) - 1,
    }  # fmt: skip
    assert line.startswith(f"models/{name}/data/raw.csv: ")
    assert said.format(**words) in line


def test_every_row_with_a_field_too_many_is_counted(
    workspace: Path, raw: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """pandas would take the first column for an index, and read all others one to the left."""
    header, *rows = raw["lily"].splitlines()
    (workspace / "models/lily/data/raw.csv").write_text("\n".join([header, *(f"{row},1" for row in rows)]))

    assert refusal("lily", capsys) == [
        "models/lily/data/raw.csv: line 2: 6 fields, not 5; correct or remove the row; 149 more such lines"
    ]


def test_missing_data_comes_with_the_remedy(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "models/sugar/data/raw.csv").unlink()

    assert refusal("sugar", capsys) == [
        "models/sugar/data/raw.csv: No such file or directory; `dvc pull` or the stage `generate` brings it"
    ]


def test_spreadsheets_line_ends_byte_order_marks_and_blank_lines_are_read(
    workspace: Path, raw: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """And a fault is still found where an editor shows it."""
    file = workspace / "models/lily/data/raw.csv"
    lines = raw["lily"].splitlines()
    file.write_bytes(("\ufeff" + "\r\n".join([lines[0], "", *lines[1:], ""])).encode())

    assert stage("validate", "lily", capsys)[0] == 0
    frame, _ = validation.read(file, model.load("lily"))
    assert frame.iloc[0].tolist() == [5.1, 3.5, 1.4, 0.2, "setosa"]

    file.write_text("\n".join([lines[0], "", "50.1,3.5,1.4,0.2,setosa", *lines[2:]]))

    assert main(["validate", "lily"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("50.1   0.7%   line 3")


def every_column(described: dict[str, object]) -> str:
    return json.dumps(dict.fromkeys(HEADER["sugar"].split(","), described))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON: "),
        ("[]", "the columns are , not those of the schema"),
        ('{"age": {}}', "the columns are age, not those of the schema"),
        (every_column({}), "not how these columns are described"),
        (every_column({"edges": [1.0], "shares": [1.0]}), "not how these columns are described"),
        (every_column({"categories": {"x": 1.0}}), "not how these columns are described"),
    ],
)  # fmt: skip
def test_a_wrong_accepted_distribution_is_refused(
    content: str, said: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "models/sugar/accepted.json").write_text(content)

    (line,) = refusal("sugar", capsys)

    assert line.startswith(f"models/sugar/accepted.json: {said}")
    assert line.endswith("look at the data, then `python -m lifecycle accept sugar` and commit the file")


def test_data_that_breaks_the_schema_is_not_accepted(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = workspace / "models/lily/data/raw.csv"
    file.write_text(file.read_text().replace("5.1,3.5,1.4,0.2,setosa", "5.1,3.5,1.4,0.2,daisy", 1))

    code, lines = stage("accept", "lily", capsys)

    assert code == 1
    assert lines[0] == "error: models/lily/data/raw.csv: models/lily/schema.py does not hold:"
    assert "daisy" in lines[2]
    assert (workspace / "models/lily/accepted.json").read_text() == (PROJECT / "models/lily/accepted.json").read_text()


@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")
@pytest.mark.parametrize("name", MODELS)
def test_shuffled_labels_are_valid_data_and_stop_the_search(
    name: str, workspace: Path, raw: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    target = HEADER[name].rpartition(",")[2]
    rows = parse(raw[name])
    shuffled = random.Random(7).sample([row[target] for row in rows], len(rows))
    for row, value in zip(rows, shuffled, strict=True):
        row[target] = value
    (workspace / "models" / name / "data/raw.csv").write_text(to_csv(rows))
    params = workspace / "models" / name / "params.yaml"
    params.write_text(
        params.read_text().replace("trials: 4 ", "trials: 3 ").replace("n_estimators: 20", "n_estimators: 10")
    )
    assert [stage(one, name, capsys)[0] for one in ("validate", "prepare")] == [0, 0]

    code, lines = stage("tune", name, capsys)

    assert code == 1
    assert [line.split(":")[0] for line in lines[:-1]] == [f"trial {number} of 3" for number in (1, 2, 3)]
    metric, limit = {"lily": ("accuracy", "at least 0.85"), "sugar": ("mae", "at most 52")}[name]
    assert lines[-1].startswith(
        f"error: models/{name}/build/train.csv: {target} does not follow from the other columns: the best {metric} of 3"
        " candidates, cross-validated, is "
    )
    assert lines[-1].endswith(
        f", and it has to be {limit} (models/{name}/problem.yaml: metric);"
        f" are the values of {target} those of their rows?"
    )
    # Neither an outcome nor a run of MLflow's.
    assert sorted(file.name for file in (workspace / "models" / name / "build").iterdir()) == [
        "evaluation.csv", "train.csv", "validation.json",
    ]  # fmt: skip
    assert not (workspace / "mlflow.db").exists()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_small_variations_of_the_flowers_are_valid(
    seed: int, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from models.lily import generate_data

    params = workspace / "models/lily/params.yaml"
    text = params.read_text().replace("seed: null", f"seed: {seed}").replace("rows: 150", "rows: 300")
    params.write_text(text.replace("noise: 0.0", "noise: 0.1"))

    assert generate_data.main([]) == 0
    assert main(["validate", "lily"]) == 0


TRIALS = 200


@pytest.mark.parametrize("name", MODELS)
def test_equal_data_is_seldom_taken_for_other_data_and_one_sigma_always(
    name: str, tmp_path: Path, raw: dict[str, str], record_property: Callable[[str, object], None]
) -> None:
    """Over seeded resamples as large as the data. Both rates are printed with -s, and are in the JUnit report."""
    (tmp_path / "raw.csv").write_text(raw[name])
    frame, faults = validation.read(tmp_path / "raw.csv", {"sugar": sugar, "lily": lily}[name].MODEL)
    assert not faults
    known = validation.describe(frame)
    measured = [column for column in frame if pd.api.types.is_numeric_dtype(frame[column]) and column != "sex"]
    false_alarms, found = 0, dict.fromkeys(measured, 0)
    for seed in range(TRIALS):
        generator = np.random.default_rng(seed)
        drawn = frame.iloc[generator.integers(len(frame), size=len(frame))].reset_index(drop=True)
        false_alarms += max(validation.shifts(drawn, known).values()) > validation.LARGEST_SHIFT
        column = measured[seed % len(measured)]
        shifted = drawn[column] + (-1) ** seed * frame[column].std()
        found[column] += (
            validation.shifts(shifted.to_frame(), {column: known[column]})[column] > validation.LARGEST_SHIFT
        )

    print(f"{name}: {false_alarms} false alarms, {sum(found.values())} shifts found in {TRIALS} trials each")
    record_property("false_alarm_rate", false_alarms / TRIALS)
    assert false_alarms / TRIALS <= 0.02
    assert sum(found.values()) == TRIALS, found


def test_the_index_is_the_one_of_the_formula() -> None:
    """0.1 ln 2 + (-0.1) ln (0.3 / 0.4), by hand."""
    assert validation.shift([0.1, 0.4, 0.5], [0.2, 0.3, 0.5]) == pytest.approx(0.06931 + 0.02877, abs=1e-5)
    assert validation.shift([0.5, 0.5], [0.5, 0.5]) == 0
    # An empty part is large, and finite.
    assert 3 < validation.shift([0.5, 0.5], [1.0, 0.0]) < 4


def test_a_model_that_is_not_there_is_named(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "rose"]) == 1
    assert capsys.readouterr().err == "error: 'rose': no such model here; there is lily, sugar\n"


def test_another_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(Refused, match=r"'lily': no such model here; there is none; run the command in model-src/"):
        model.load("lily")

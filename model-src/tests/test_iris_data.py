from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from iris import dataset, generate_data, params
from packing import Refused

HEADER = "sepal_length,sepal_width,petal_length,petal_width,species"


def test_the_data_are_fishers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data/iris.csv"

    assert generate_data.main(["--out", str(out)]) == 0

    lines = out.read_text().splitlines()
    assert capsys.readouterr().out == f"{out}\n"
    assert lines[:2] == [HEADER, "5.1,3.5,1.4,0.2,setosa"]
    assert len(lines) == 151
    data, digest = dataset.read(out)
    assert digest == "sha256:" + hashlib.sha256(out.read_bytes()).hexdigest()
    assert dataset.to_csv(data) == out.read_bytes()
    # The figures of Fisher's table of means.
    assert data.features[data.species == "setosa"].mean(axis=0).round(3).tolist() == [5.006, 3.428, 1.462, 0.246]


def test_a_variation_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        assert generate_data.main(["--out", str(tmp_path / name), "--seed", seed, "--rows", "999", "--noise", "2"]) == 0

    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    data, _ = dataset.read(tmp_path / "a")
    assert a == b != c
    assert len(data) == 999
    assert data.features.min() >= 0.1
    assert np.array_equal(data.features, data.features.round(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "5"], "--rows and --noise make a variation: they need --seed"),
        (["--noise", "1"], "they need --seed"),
        (["--seed", "1", "--rows", "0"], "--rows 0: not 1 or above"),
        (["--seed", "1", "--noise", "-1"], "--noise -1.0: not 0 or above"),
        (["--seed", "1", "--noise", "nan"], "--noise nan: not 0 or above"),
        (["--seed", "-1"], "--seed -1: not 0 or above"),
        (["--seed", "x"], "invalid int value: 'x'"),
    ],
)
def test_wrong_usage(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        generate_data.main(options)

    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate_data.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: --out {tmp_path}: ")


GOOD = "5.1,3.5,1.4,0.2,setosa"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f"line 1: the header is missing, not {HEADER}"),
        (b"a,b\n1,2\n", f"line 1: the header is a,b, not {HEADER}"),
        (f"{HEADER}\n".encode(), "no rows below the header"),
        (f"{HEADER}\n{GOOD}\n5.1,x,1.4,0.2,setosa\n".encode(), "line 3: sepal_width: 'x' is not a number"),
        (f"{HEADER}\n5.1,,1.4,0.2,setosa\n".encode(), "line 2: sepal_width: '' is not a number"),
        (f"{HEADER}\n5.1,3,1.4,0,setosa\n".encode(), "line 2: petal_width: 0 is not above 0 and at most 100"),
        (f"{HEADER}\n5.1,3,nan,1,setosa\n".encode(), "line 2: petal_length: nan is not above 0"),
        (f"{HEADER}\n510,3,1,1,setosa\n".encode(), "line 2: sepal_length: 510 is not above 0 and at most 100"),
        (f"{HEADER}\n5,3,1,1,Setosa\n".encode(), "line 2: species: 'Setosa' is not one of setosa, versicolor, virg"),
        (f"{HEADER}\n5,3,1,setosa\n".encode(), "line 2: 4 fields, not 5; correct or remove the row"),
        (f'{HEADER}\n{GOOD}\n5,3,1,1,"set"osa\n'.encode(), "line 3: ',' expected after '\"'"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "iris.csv"
    file.write_bytes(content)

    with pytest.raises(Refused) as refused:
        dataset.read(file)

    assert refused.value.lines[0].startswith(f"{file}: ")
    assert message in refused.value.lines[0]


def test_many_faults_are_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "iris.csv"
    file.write_text(HEADER + "\n" + "x,3,1,1,setosa\n" * 30)

    with pytest.raises(Refused) as refused:
        dataset.read(file)

    assert len(refused.value.lines) == 11
    assert refused.value.lines[-1] == f"{file}: 20 more faults"


def test_a_missing_file_comes_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"iris.csv: No such file or directory; `python -m iris.generate_data` makes"):
        dataset.read(tmp_path / "iris.csv")


def test_spreadsheets_line_ends_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    file = tmp_path / "iris.csv"
    file.write_bytes(f"\ufeff{HEADER}\r\n{GOOD}\r\n\r\n".encode())

    assert dataset.read(file)[0].features.tolist() == [[5.1, 3.5, 1.4, 0.2]]


def test_equal_rows_are_kept_once() -> None:
    """Equal measurements of two species are no duplicates: they are what the model cannot know."""
    features = np.array([[1.0, 1, 1, 1], [2, 2, 2, 2], [1, 1, 1, 1], [1, 1, 1, 1]])
    data = dataset.without_duplicates(dataset.Dataset(features, np.array(["setosa", "setosa", "virginica", "setosa"])))

    assert data.features[:, 0].tolist() == [1, 2, 1]
    assert data.species.tolist() == ["setosa", "setosa", "virginica"]


PARAMS = "n_estimators: 10\nmax_depth: null\nmin_samples_leaf: 1\nmin_variance: 0.0\ntest_size: 0.3\nseed: 1\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 1", "sed: 1", "seed: Field required"),
        ("seed: 1", "seed: 1\nextra: 1", "extra: Extra inputs are not permitted"),
        ("n_estimators: 10", "n_estimators: ten", "n_estimators: Input should be a valid integer, not 'ten'"),
        ("n_estimators: 10", "n_estimators: 1.5", "n_estimators: Input should be a valid integer"),
        ("n_estimators: 10", "n_estimators: true", "n_estimators: Input should be a valid integer, not True"),
        ("n_estimators: 10", "n_estimators: 0", "n_estimators: Input should be greater than or equal to 1, not 0"),
        ("test_size: 0.3", "test_size: 1.0", "test_size: Input should be less than 1, not 1.0"),
        ("test_size: 0.3", "test_size: .nan", "test_size: Input should be"),
        ("min_variance: 0.0", "min_variance: .inf", "min_variance: Input should be a finite number"),
        (PARAMS, "", "Input should be a valid dictionary"),
        (PARAMS, "{", "not YAML: "),
    ],
)
def test_wrong_parameters_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(PARAMS.replace(old, new))

    with pytest.raises(Refused) as refused:
        params.read(file)

    assert any(line.startswith(f"{file}: {message}") for line in refused.value.lines), refused.value.lines


def test_the_parameters_of_the_repository_are_right() -> None:
    assert params.read(Path(params.__file__).with_name("params.yaml")).n_estimators == 100

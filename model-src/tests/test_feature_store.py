"""The feature store. What needs Feast is marked so, and runs with the Python of extras/feature_store/.venv: see
`make test-features`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import SOURCE, Service

from contract import manifest
from contract.errors import Refused
from extras.feature_store import __main__ as commands
from extras.feature_store import frames
from lifecycle import tables, validation
from models.lily import model

FOLDER = SOURCE / "extras/feature_store"
FEAST_PYTHON = FOLDER / ".venv/bin/python"

LATER = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def fishers(tmp_path_factory: pytest.TempPathFactory, raw: dict[str, str]) -> Path:
    out = tmp_path_factory.mktemp("data") / "raw.csv"
    out.write_text(raw["lily"])
    return out


@pytest.fixture(scope="session")
def data(fishers: Path) -> pd.DataFrame:
    found, faults = validation.read(fishers, frames.MODEL)
    assert faults == []
    return found


def refusal(call: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.lines


# Without Feast


def test_the_store_is_local() -> None:
    settings = yaml.safe_load((FOLDER / "feature_store.yaml").read_text())

    kinds = settings["provider"], settings["offline_store"]["type"], settings["online_store"]["type"]
    assert kinds == ("local", "file", "sqlite")
    assert not [path for path in (settings["registry"], settings["online_store"]["path"]) if Path(path).is_absolute()]


def test_every_package_of_the_lock_has_a_version_and_hashes_and_no_host() -> None:
    text = (FOLDER / "requirements.txt").read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^ *#.*\n", "", text).strip())

    pinned = [entry for entry in entries if re.match(r"\S+==\S+( ; .+)? \\\n(?s:.*)--hash=sha256:[0-9a-f]{64}", entry)]
    assert len(pinned) == len(entries) > 50
    assert "://" not in text
    wanted = re.findall(r"^\S+==\S+", (FOLDER / "requirements.in").read_text(), re.M)
    assert [name for name in wanted if not re.search(rf"^{re.escape(name)} \\$", text, re.M)] == []


def test_the_model_is_the_one_that_is_trained() -> None:
    known, trained = frames.MODEL, model.MODEL

    assert (known.kind, known.target) == (trained.kind, trained.target)
    # A schema that has validated rows is not equal to one that has not.
    assert validation.dictionary(known) == validation.dictionary(replace(trained, name=known.name))


def test_the_columns_are_those_of_training(data: pd.DataFrame) -> None:
    measured, labelled = frames.measurements(data), frames.labels(data)

    keys = ["flower_id", "event_timestamp"]
    assert [*measured] == [*keys, *model.MODEL.features]
    assert [*labelled] == [*keys, model.MODEL.target]
    assert measured[keys].equals(labelled[keys])
    assert measured["flower_id"].is_unique and measured["event_timestamp"].is_unique
    assert {str(measured[name].dtype) for name in model.MODEL.features} == {"float64"}


def test_training_gets_the_same_csv_whatever_the_order_of_the_join(data: pd.DataFrame, fishers: Path) -> None:
    joined = frames.labels(data).merge(frames.measurements(data)).sample(frac=1, random_state=1)

    assert tables.to_csv(frames.training(joined)) == fishers.read_bytes()


def test_a_flower_without_measurements_is_refused(data: pd.DataFrame) -> None:
    joined = frames.labels(data).merge(frames.measurements(data)[2:], how="left")

    assert refusal(lambda: frames.training(joined)) == (
        "flower 1: labelled before it was measured (2 such flowers); load measurements of every labelled flower",
    )


def test_a_correction_is_one_more_row(data: pd.DataFrame) -> None:
    known = frames.measurements(data)

    twice = frames.corrected(
        frames.corrected(known, 1, LATER, {"petal_length": 1.5}), 1, LATER + timedelta(hours=1), {"petal_width": 0.3}
    )

    assert twice[: len(known)].equals(known)
    assert twice.dtypes.equals(known.dtypes)
    assert twice[len(known) :].to_numpy().tolist() == [
        [1, pd.Timestamp(LATER), 5.1, 3.5, 1.5, 0.2],
        [1, pd.Timestamp(LATER + timedelta(hours=1)), 5.1, 3.5, 1.5, 0.3],
    ]


@pytest.mark.parametrize(
    ("flower", "at", "changes", "line"),
    [
        (151, LATER, {"petal_length": 1.5}, "flower 151: not in the offline store, which has 1 to 150"),
        (1, LATER, {"species": 1.5}, "species: not a measurement; these are: sepal_length, .*, petal_width"),
        (1, LATER, {"petal_length": 0.0},
         r"petal_length: 0 is not from 0\.1 to 15 \(centimetres\), as the schema of the flowers asks"),
        (1, LATER, {"petal_length": float("nan")}, "petal_length: nan is not from .*"),
        (1, LATER, {"petal_length": 1.5, "petal_width": float("inf")}, "petal_width: inf is not from .*"),
        (1, frames.FIRST + timedelta(minutes=1), {"petal_length": 1.5},
         r"flower 1: --at 2026-01-01T00:01:00\+00:00 is not later than the last row, 2026-01-01T00:01:00\+00:00"),
    ],
)  # fmt: skip
def test_what_is_no_correction_is_refused(
    data: pd.DataFrame, flower: int, at: datetime, changes: dict[str, float], line: str
) -> None:
    (said,) = refusal(lambda: frames.corrected(frames.measurements(data), flower, at, changes))

    assert re.fullmatch(line, said)


def test_only_what_was_labelled_by_then_is_joined(data: pd.DataFrame) -> None:
    labelled = frames.labels(data)
    as_of = frames.FIRST + timedelta(minutes=10)

    assert frames.entities(labelled, None).equals(labelled)
    chosen = frames.entities(labelled, as_of)
    assert chosen["flower_id"].tolist() == [*range(1, 11)]
    assert {*chosen["event_timestamp"]} == {pd.Timestamp(as_of)}
    assert refusal(lambda: frames.entities(labelled, frames.FIRST)) == (
        "--as-of 2026-01-01T00:00:00+00:00: no flower was labelled by then; the first was at 2026-01-01T00:01:00+00:00",
    )


def test_the_row_is_in_the_order_of_the_signature(artifacts: Path) -> None:
    described = manifest.parse((artifacts / "manifest.json").read_bytes(), "manifest.json")
    known = {name: number for number, name in enumerate(reversed(frames.FEATURES), 1)}

    assert commands.in_order(described, known, 1) == [4, 3, 2, 1]
    assert refusal(lambda: commands.in_order(described, {**known, "sepal_width": None}, 1)) == (
        "flower 1: no sepal_width in the online store; `python -m extras.feature_store materialize` fills it",
    )
    assert refusal(lambda: commands.in_order(described, {}, 1)) == (
        f"sepal_length: an input of {described.version}, but no feature in the store; is it the right --manifest?",
    )


@pytest.mark.parametrize(
    "command",
    [
        ["load", "--data", "a.csv"],
        ["materialize"],
        ["training", "--out", "a.csv"],
        ["ask", "1", "--manifest", "m.json"],
    ],
)
def test_where_feast_lacks_one_line_says_so(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "feast", None)

    assert commands.main(command) == 1

    assert capsys.readouterr() == (
        "",
        f"error: {sys.executable} lacks feast: install extras/feature_store/requirements.txt into an environment of"
        " its own, see README.md\n",
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "the following arguments are required: command"),
        (["correct", "1", "--at", "noon", "petal_length=1.5"], "'noon' is not a time such as 2026-02-01T12:00Z"),
        (["correct", "1", "--at", "2026-02-01T12:00", "petal_length=1.5"], "'2026-02-01T12:00' has no time zone"),
        (["correct", "1", "--at", "2026-02-01T12:00Z", "petal_length"], "'petal_length' is not a measurement and"),
    ],
)
def test_wrong_usage(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        commands.main(command)

    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


# With Feast


class Store:
    """A copy of model-src/ with a store of its own."""

    def __init__(self, source: Path, environment: Mapping[str, str]) -> None:
        self.source, self._environment = source, environment

    def run(
        self, *args: object, python: tuple[str, ...] = ("-m", "extras.feature_store")
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FEAST_PYTHON, *python, *map(str, args)],
            cwd=self.source, env=self._environment, capture_output=True, text=True,
        )  # fmt: skip

    def ran(self, *args: object, python: tuple[str, ...] = ("-m", "extras.feature_store")) -> str:
        done = self.run(*args, python=python)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def training(self, *options: str) -> bytes:
        return (self.source / self.ran("training", *options)).read_bytes()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], fishers: Path) -> Store:
    """A store with Fisher's flowers, online too. Tests must not change it."""
    source = tmp_path_factory.mktemp("store") / "model-src"
    for folder in ("contract", "extras", "lifecycle", "models", "packing", "storage"):
        shutil.copytree(
            SOURCE / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "build", "data", ".venv")
        )
    store = Store(source, environment)
    assert store.ran("load", "--data", fishers) == ""
    assert store.ran("materialize") == ""
    return store


@pytest.fixture
def store(filled: Store, tmp_path: Path, environment: dict[str, str]) -> Store:
    """A copy of the filled store, to change."""
    return Store(Path(shutil.copytree(filled.source, tmp_path / "model-src")), environment)


@pytest.mark.feast
def test_training_reads_the_same_bytes_from_the_store_as_from_the_file(filled: Store, fishers: Path) -> None:
    assert filled.training() == fishers.read_bytes()
    assert filled.training("--out", "again.csv") == fishers.read_bytes()


ONLINE = """\
import json, sys
from pathlib import Path

opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)

from extras.feature_store import __main__ as commands
from lifecycle import tables

measured = [tables.read(Path(file)).drop(columns="species") for file in sys.argv[1:]]
known = commands.online(commands._store(), range(1, max(map(len, measured)) + 1))
same = [[known[name][: len(each)] == each[name].tolist() for name in each] for each in measured]
print(json.dumps({"names": sorted(known), "same": same, "opened": opened}))
"""


@pytest.mark.feast
def test_online_equals_offline_and_nobody_is_told(filled: Store, fishers: Path) -> None:
    """Of every flower, exactly; and Feast opens no connection: it reports no usage."""
    answer = json.loads(filled.ran(fishers, python=("-c", ONLINE)))

    assert answer["names"] == sorted(frames.FEATURES)
    assert answer["same"] == [[True] * 4]
    assert answer["opened"] == []


@pytest.mark.feast
def test_data_that_breaks_the_schema_is_not_loaded(store: Store, fishers: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_bytes(fishers.read_bytes().replace(b"5.1,3.5,1.4,0.2", b"51,3.5,1.4,0.2", 1))

    refused = store.run("load", "--data", wrong)

    assert (refused.returncode, refused.stdout) == (1, "")
    said, _, fault = refused.stderr.splitlines()
    assert said == f"error: {wrong}: the schema of the flowers does not hold:"
    assert re.fullmatch("error: sepal_length +from 1 to 15 +51 .* line 2", fault)
    assert store.training() == fishers.read_bytes()


@pytest.mark.feast
def test_a_correction_is_not_seen_at_an_earlier_time(store: Store, fishers: Path) -> None:
    store.ran("correct", 1, "--at", "2026-03-01T12:00Z", "petal_length=1.5")

    assert store.training() == fishers.read_bytes()
    assert store.training("--as-of", "2026-03-01T11:59:59Z") == fishers.read_bytes()
    corrected = fishers.read_bytes().replace(b"5.1,3.5,1.4,0.2", b"5.1,3.5,1.5,0.2", 1)
    assert store.training("--as-of", "2026-03-01T12:00Z") == corrected != fishers.read_bytes()


@pytest.mark.feast
def test_the_service_is_asked_with_what_the_store_knows(
    store: Store, serve: Callable[..., Service], artifacts: Path, tmp_path: Path
) -> None:
    described = manifest.parse((artifacts / "manifest.json").read_bytes(), "manifest.json")
    service = serve(artifacts / "onnx", described.digest)
    client = service.ready()
    url = str(client.base_url)

    def ask(flower: int, manifest_file: Path = artifacts / "manifest.json") -> subprocess.CompletedProcess[str]:
        return store.run("ask", flower, "--url", url, "--manifest", manifest_file)

    assert json.loads(ask(1).stdout) == client.post("/predict", json={"features": [5.1, 3.5, 1.4, 0.2]}).json()

    changes = {"petal_length": 4.7, "petal_width": 1.4}
    store.ran("correct", 1, "--at", LATER.isoformat(), *(f"{name}={number}" for name, number in changes.items()))
    assert json.loads(ask(1).stdout)["prediction"] == "setosa"
    store.ran("materialize")
    corrected = json.loads(ask(1).stdout)
    assert corrected == client.post("/predict", json={"features": [5.1, 3.5, 4.7, 1.4]}).json()
    assert corrected["prediction"] == "versicolor"

    unknown = ask(151)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == (
        "error: flower 151: no sepal_length in the online store; `python -m extras.feature_store materialize` fills"
        " it\n"
    )

    other = described.model_copy(update={"version": f"2020-01-01-{described.version[11:]}"})
    (tmp_path / "manifest.json").write_bytes(manifest.dump(other))
    refused = ask(1, tmp_path / "manifest.json")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1] == (
        f"error: {url.rstrip('/')}: serves {described.version}, but {tmp_path}/manifest.json is of {other.version};"
        " name the manifest of the version that is served with --manifest"
    )

    service.stop()
    away = ask(1)
    assert (away.returncode, away.stdout) == (1, "")
    assert re.fullmatch(r"error: \S+/predict: .*refused.*; --url names the service, .*", away.stderr.splitlines()[-1])


@pytest.mark.feast
def test_what_was_loaded_before_is_gone_after_loading_other_data(store: Store, fishers: Path, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer.csv"
    fewer.write_bytes(b"".join(fishers.read_bytes().splitlines(keepends=True)[:101]))

    store.ran("load", "--data", fewer)
    store.ran("materialize")

    assert store.training() == fewer.read_bytes()
    assert json.loads(store.ran(fewer, fishers, python=("-c", ONLINE)))["same"] == [[True] * 4, [False] * 4]


@pytest.mark.feast
@pytest.mark.parametrize(
    ("lost", "line"),
    [
        (
            "data/registry.db",
            "error: flowers: no such feature service is registered; `python -m extras.feature_store load` does it",
        ),
        ("data/offline", "error: .*/labels.parquet: missing; `python -m extras.feature_store load` makes it"),
    ],
    ids=["registry", "offline"],
)
def test_a_store_that_is_not_whole_says_what_makes_it_so(store: Store, lost: str, line: str) -> None:
    path = store.source / "extras/feature_store" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    done = store.run("training")

    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(line, done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr

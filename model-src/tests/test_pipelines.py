"""The Kubeflow pipeline: what is compiled, and what comes out of a run by the SDK's own runner of processes."""

from __future__ import annotations

import functools
import inspect
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import warm
import yaml
from conftest import Repository
from project import PROJECT, SOURCE

from contract import digest
from contract.errors import Refused
from extras.pipelines import __main__ as pipelines
from extras.pipelines import steps
from lifecycle import model as models
from lifecycle import settings
from models.sugar import generate_data

IMAGE = "registry.example.com/train@sha256:" + "0" * 64
DOCKERFILE = (SOURCE / "extras/pipelines/Dockerfile").read_text().replace("\\\n", " ")
INSTRUCTIONS = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
COPIED = [value.split()[0] for name, value in INSTRUCTIONS if name == "COPY" and value.endswith("/")]
IGNORED = (SOURCE / "extras/pipelines/Dockerfile.dockerignore").read_text().splitlines()

# A task: the tasks whose outputs it gets.
EDGES = {
    "importer": set(),
    "validate": {"importer"},
    "prepare": {"validate"},
    "tune": {"prepare"},
    "train": {"prepare", "tune"},
    "evaluate": {"train"},
    "package": {"train", "evaluate"},
    "report": {"validate", "prepare", "tune", "train", "evaluate", "package"},
}


def image(folder: Path) -> Path:
    """Does to `folder` what the COPY lines do to /app."""
    left_out = [line.rstrip("/").rpartition("/")[2] for line in IGNORED if line.startswith(("**/", "models/*/"))]
    for source in COPIED:
        place = (PROJECT if source == "models/" else SOURCE) / source
        if source.endswith("/"):
            shutil.copytree(place, folder / source, ignore=shutil.ignore_patterns(*left_out))
        else:
            (folder / source).parent.mkdir(exist_ok=True)
            shutil.copy(place, folder / source)
    return folder


def call(
    folder: Path, environment: Mapping[str, str], *args: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], cwd=folder, env={**environment, **variables}, capture_output=True, text=True
    )


def files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


@dataclass(frozen=True)
class Ran:
    out: Path
    stdout: str
    stderr: str
    outside: set[str]
    """Files that are new in the image, in the home folder and in the one for temporary files."""

    def task(self, name: str) -> Path:
        """What a task has written."""
        [found] = self.out.glob(f"lily-lifecycle-*/{name}")
        return found

    def metadata(self, task: str, artifact: str) -> dict[str, Any]:
        written = json.loads((self.task(task) / "executor_output.json").read_text())
        [one] = written["artifacts"][artifact]["artifacts"]
        found: dict[str, Any] = one["metadata"]
        return found


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder /app of the image. Tests must not change it."""
    return image(tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
def ran(app: Path, trained: Repository, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The whole pipeline, run from what is in the image, on the data that DVC trained on."""
    root = tmp_path_factory.mktemp("ran")
    places = [app, root / "home", root / "tmp"]
    for place in places[1:]:
        place.mkdir()
    before = [files(place) for place in places]
    done = warm.run(
        ["-m", "extras.pipelines", "run", "lily", "--out", str(root / "out"),
         "--data", str(trained.source / "models/lily/data/raw.csv")],
        app, {**environment, "HOME": str(root / "home"), "TMPDIR": str(root / "tmp")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    new = {name for place, old in zip(places, before, strict=True) for name in files(place) - old}
    return Ran(root / "out", done.stdout, done.stderr, new)


@pytest.fixture
def _in_process(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a run in this process, which is quicker; with MLflow's database of another run, because a new one takes
    seconds."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{ran.out}/mlflow.db")
    # Chosen anew, as in a new process.
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_the_package_is_the_one_that_dvc_makes(ran: Ran, trained: Repository) -> None:
    folder, said = ran.stdout.split()
    made = {file.path: file.sha256 for file in digest.hash_folder(Path(folder))}

    assert made == {file.path: file.sha256 for file in trained.manifest().files}
    assert said == trained.manifest().digest
    assert ran.metadata("package", "package") == {"digest": said}


def test_a_run_says_its_tasks_and_leaves_nothing_outside_its_folder(ran: Ran) -> None:
    assert ran.stderr.split() == [
        "importer", "validate", "prepare", "tune", "train", "evaluate-classifier", "package", "report",
    ]  # fmt: skip
    assert not ran.outside
    [pipeline] = ran.out.glob("lily-lifecycle-*")
    assert {one.name for one in ran.out.iterdir()} == {"log.txt", "mlflow.db", pipeline.name}


def test_metrics_and_reports_are_what_kubeflow_shows(ran: Ran, trained: Repository) -> None:
    metrics = ran.metadata("evaluate-classifier", "metrics")
    assert metrics == trained.manifest().metrics
    matrix = ran.metadata("evaluate-classifier", "confusion")["confusionMatrix"]
    assert [one["displayName"] for one in matrix["annotationSpecs"]] == ["setosa", "versicolor", "virginica"]
    right = sum(row["row"][position] for position, row in enumerate(matrix["rows"]))
    rows = sum(sum(row["row"]) for row in matrix["rows"])
    assert right / rows == pytest.approx(metrics["accuracy"], abs=1e-6)

    page = (ran.task("report") / "page").read_text()
    assert page.startswith("<!doctype html>")
    assert trained.manifest().digest in page
    assert trained.manifest().data_digest in page
    assert "# To be written; in the example, the species of a flower" in (ran.task("report") / "card").read_text()
    assert "# Data dictionary of lily" in (ran.task("validate") / "dictionary").read_text()


def test_the_search_is_recorded_where_it_outlives_the_component(ran: Ran, trained: Repository) -> None:
    database = sqlite3.connect(ran.out / "mlflow.db")
    trials = settings.read(PROJECT / "models/lily/params.yaml", settings.Params).tune.trials

    assert database.execute("select count(*) from tags where key = 'stage' and value = 'trial'").fetchone() == (trials,)
    [place] = database.execute("select artifact_location from experiments where name = 'lily_experiment'").fetchone()
    assert place.startswith(str(ran.out))
    database.close()


@pytest.mark.usefixtures("_in_process")
def test_a_failing_stage_is_named_with_its_own_words(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "bad.csv"
    data.write_text("sepal_length,sepal_width,petal_length,petal_width,species\n-4,3,1,0.2,setosa\n")
    monkeypatch.chdir(app)

    code = pipelines.main(["run", "lily", "--data", str(data), "--out", f"{tmp_path}/out"])

    out, err = capfd.readouterr()
    assert (code, out) == (1, "")
    importer, validate, first, *_, last = err.splitlines()
    assert (importer, validate) == ("importer", "validate")
    assert first.startswith("error: models/lily/data/raw.csv: ")
    assert "sepal_length  from 1 to 15" in err
    assert last == "error: lily: validate failed; no later step is run"
    assert not list(tmp_path.glob("out/lily-lifecycle-*/prepare"))


@pytest.mark.usefixtures("_in_process")
def test_a_crash_is_named_with_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    app = image(tmp_path / "app")
    with (app / "lifecycle/validation.py").open("a") as code:
        code.write("\n\ndef validate(*_):\n    raise ZeroDivisionError('a defect')\n")
    (tmp_path / "data.csv").touch()
    log = tmp_path / "out/log.txt"
    monkeypatch.chdir(app)

    assert pipelines.main(["run", "lily", "--data", "../data.csv", "--out", str(log.parent)]) == 1

    assert capfd.readouterr().err.splitlines()[-1] == f"error: lily: validate failed; {log} has what it said"
    assert "ZeroDivisionError: a defect" in log.read_text()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", "rose"], "'rose': no such model here; there is lily, sugar"),
        (["compile", "rose", "--image", IMAGE], "'rose': no such model here; there is lily, sugar"),
        (["compile", "lily", "--image", "two words"], "--image 'two words': not a reference to an image"),
        (
            ["run", "lily", "--data", "nowhere.csv"],
            "--data nowhere.csv: no such file; `dvc repro models/lily/dvc",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    args: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(PROJECT)

    code = pipelines.main([*args, "--out", str(tmp_path / "out")])

    [line] = capsys.readouterr().err.splitlines()
    assert (code, line.startswith(f"error: {said}")) == (1, True), line
    assert not (tmp_path / "out").exists()


def test_a_missing_sdk_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "kfp", None)

    assert pipelines.main(["compile", "lily", "--image", IMAGE]) == 1
    assert capsys.readouterr().err.startswith("error: kfp: not installed; `pip install --require-hashes")


def compiled(model: str, folder: Path, *, loop: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        pipelines.compile_to(folder / f"{model}.yaml", model, IMAGE, loop=loop).read_text()
    )
    return found


def edges(dag: Mapping[str, Any]) -> dict[str, set[str]]:
    """By task, those that it gets something from. A classifier's evaluation goes by the name of any."""
    return {
        name.removesuffix("-classifier"): {
            value[kind]["producerTask"].removesuffix("-classifier")
            for place in ("artifacts", "parameters")
            for value in task["inputs"].get(place, {}).values()
            for kind in ("taskOutputArtifact", "taskOutputParameter")
            if kind in value
        }
        for name, task in dag["tasks"].items()
    }


@pytest.fixture
def _in_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)


@pytest.mark.usefixtures("_in_source")
@pytest.mark.parametrize("model", ["sugar", "lily"])
def test_the_graph_is_the_lifecycle(model: str, tmp_path: Path) -> None:
    spec = compiled(model, tmp_path)

    assert spec["pipelineInfo"]["name"] == f"{model}-lifecycle"
    assert edges(spec["root"]["dag"]) == EDGES
    assert list(spec["root"]["inputDefinitions"]["parameters"]) == ["data", "mlflow"]
    kinds = {
        one["artifactType"]["schemaTitle"]
        for component in spec["components"].values()
        for one in component["outputDefinitions"]["artifacts"].values()
    }
    expected = {"Artifact", "Dataset", "HTML", "Markdown", "Metrics", "Model"}
    if models.load(model).kind == "classification":
        expected.add("ClassificationMetrics")
    assert kinds == {f"system.{kind}" for kind in expected}


@pytest.mark.usefixtures("_in_source")
@pytest.mark.parametrize("loop", [False, True])
def test_components_run_in_the_image_and_install_nothing(loop: bool, tmp_path: Path) -> None:
    spec = compiled("lily", tmp_path, loop=loop)

    executors = spec["deploymentSpec"]["executors"]
    containers = [one["container"] for name, one in executors.items() if name != "exec-importer"]
    assert len(containers) == (9 if loop else 8) - 1
    assert {one["image"] for one in containers} == {IMAGE}
    assert not re.search(r"pip\b|install|ensurepip", json.dumps(containers))
    dags = [spec["root"]["dag"], *(one["dag"] for one in spec["components"].values() if "dag" in one)]
    cached = {
        name
        for dag in dags
        for name, task in dag["tasks"].items()
        if task.get("cachingOptions", {"enableCache": False}).get("enableCache")
    }
    assert not cached


@pytest.mark.usefixtures("_in_source")
def test_a_loop_over_the_families_takes_the_place_of_the_search(tmp_path: Path) -> None:
    spec = compiled("lily", tmp_path, loop=True)

    [loop] = [name for name in spec["root"]["dag"]["tasks"] if name.startswith("for-loop")]
    families = settings.read(models.Files("lily").params, settings.Params).families
    task = spec["root"]["dag"]["tasks"][loop]
    assert json.loads(task["parameterIterator"]["items"]["raw"]) == list(families)
    assert list(spec["components"][f"comp-{loop}"]["dag"]["tasks"]) == ["search"]
    found = edges(spec["root"]["dag"])
    assert (found[loop], found["choose"], found["train"]) == ({"prepare"}, {loop}, {"prepare", "choose"})
    assert spec["components"]["comp-choose"]["inputDefinitions"]["artifacts"]["candidates"]["isArtifactList"]


@pytest.mark.usefixtures("_in_source")
def test_the_same_commit_compiles_to_the_same_bytes(app: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """In another process, whose hashes of strings are others."""
    out = tmp_path / "there/pipeline.yaml"
    done = call(
        app, environment, "-m", "extras.pipelines", "compile", "lily", "--image", IMAGE, "--out", str(out),
        PYTHONHASHSEED="1",
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\n", "")
    here = pipelines.compile_to(tmp_path / "here.yaml", "lily", IMAGE, loop=False)

    assert out.read_bytes() == here.read_bytes()
    pinned = re.search(r"^kfp==(\S+)", (SOURCE / "requirements-kubeflow.txt").read_text(), re.MULTILINE)
    assert pinned
    assert yaml.safe_load(out.read_text())["sdkVersion"] == f"kfp-{pinned[1]}"


def called(out: Path, name: str, place: str = "", **given: Any) -> dict[str, Any]:
    """Calls a component as Kubeflow does: what is not given is an artifact to write. Its artifacts by name."""
    from extras.pipelines import components

    function = getattr(components, name)
    folder = out / (place or name)
    folder.mkdir(parents=True)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in given:
            kind = typing.get_args(parameter.annotation)[0]
            given[parameter.name] = kind(uri=str(folder / parameter.name))
    given["Output"] = function(**given)
    return given


@pytest.mark.usefixtures("_in_process")
def test_a_regression_goes_through_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's runner of processes cannot collect what a loop made, so its components are called without it, one after
    another."""
    from kfp.dsl import Dataset

    app, raw = image(tmp_path / "app"), tmp_path / "raw.csv"
    params = app / "models/sugar/params.yaml"
    edited, edits = re.subn(r"trials: \d+", "trials: 5", params.read_text())
    assert edits == 1
    params.write_text(edited)
    generate_data.generate(raw)
    before = files(app)
    monkeypatch.setattr(steps, "SOURCE", app)
    monkeypatch.chdir(app)
    call = functools.partial(called, tmp_path / "out", model="sugar")
    families = list(settings.read(params, settings.Params).families)

    validated = call("validate", data=Dataset(uri=str(raw)))
    prepared = call("prepare", raw=validated["raw"], validation=validated["validation"])
    rows = {"train": prepared["train"]}
    searched = [call("search", f"search-{family}", family=family, **rows)["candidates"] for family in families]
    tuned = call("choose", candidates=searched, mlflow="")["tuned"]
    trained = call("train", evaluation=prepared["evaluation"], tuned=tuned, **rows)
    made = {name: trained[name] for name in ("fitted", "predictions")}
    evaluated = call("evaluate", **made)
    packaged = call("package", evaluated=evaluated["evaluated"], **made)
    reported = call(
        "report", digest=packaged["Output"], validation=validated["validation"], evaluation=prepared["evaluation"],
        tuned=tuned, predictions=made["predictions"], evaluated=evaluated["evaluated"],
    )  # fmt: skip

    chosen = json.loads(Path(tuned.path).read_text())
    trials = [line.split(",")[1] for line in (tmp_path / "out/choose/trials").read_text().splitlines()[1:]]
    assert chosen["trials"] == len(trials) == 5
    # In the order of preference, the first ones with what is left over.
    assert [trials.count(name) for name in families] == [2, 2, 1]
    assert chosen["family"] in families
    assert evaluated["metrics"].metadata["mae"] > 0
    assert (Path(packaged["package"].path) / "onnx/model.onnx").is_file()
    assert "<h2>Predicted and true</h2>" in Path(reported["page"].path).read_text()
    assert files(app) == before


def test_a_family_has_its_share_of_the_budget() -> None:
    params = settings.read(PROJECT / "models/lily/params.yaml", settings.Params)
    families = list(params.families)

    def shares(trials: int) -> list[int]:
        all_trials = params.model_copy(update={"tune": params.tune.model_copy(update={"trials": trials})})
        shared = [steps.share(all_trials, family, "params.yaml") for family in families]
        assert [list(one.families) for one in shared] == [[family] for family in families]
        return [one.tune.trials for one in shared]

    assert (shares(12), shares(4), shares(2)) == ([4, 4, 4], [2, 1, 1], [1, 1, 1])
    with pytest.raises(Refused, match=r"params\.yaml: families\.tulip: no such family in this image; there is random"):
        steps.share(params, "tulip", "params.yaml")


def test_a_model_that_the_image_does_not_hold_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="rose: prepare failed"):
        steps.run("prepare", "rose", {}, {"train": str(tmp_path / "train")})

    assert capsys.readouterr().err == "error: rose: no such model in this image\n"
    assert not list(tmp_path.iterdir())


def test_the_image_holds_every_model_and_what_the_ignore_file_lets_through() -> None:
    allowed = {line[1:].rstrip("/") for line in IGNORED if line.startswith("!")}
    code = {source.rstrip("/") for source in COPIED}

    assert IGNORED[1] == "*"
    assert allowed == code | {"extras", "requirements-kubeflow.txt"}
    assert "extras/*" in IGNORED
    # Whole, so that a new model changes no Dockerfile.
    assert code == {
        "contract", "extras/__init__.py", "extras/pipelines", "lifecycle", "models", "packing", "storage",
        "requirements-train.txt",
    }  # fmt: skip


def test_the_image_is_as_the_one_that_serves() -> None:
    serving = (SOURCE / "Dockerfile").read_text().splitlines()
    lines = [line.removesuffix(" AS code") for line in DOCKERFILE.splitlines() if not line.startswith("FROM code")]

    for name in ("FROM", "WORKDIR", "USER"):
        assert [line for line in lines if line.startswith(name)] == [line for line in serving if line.startswith(name)]
    [install] = [value for name, value in INSTRUCTIONS if name == "RUN"]
    assert "--require-hashes -r requirements-kubeflow.txt" in install
    assert "ENV PATH=/venv/bin:$PATH" in DOCKERFILE
    assert "PYTHONPATH=/app" in DOCKERFILE

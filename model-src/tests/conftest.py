from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import boto3
import httpx
import pytest
import warm
from moto.server import ThreadedMotoServer
from project import PROJECT, SOURCE

from contract import manifest
from contract.manifest import Manifest
from contract.signature import Key
from contract.version import Expected
from serving.settings import Wanted

# A shell ignores it for what it starts in the background, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

SAMPLE = [5.3, 3.5, 1.4, 0.2]
DATE = "2026-02-01T12:00:00+00:00"


def isolated(home: Path) -> dict[str, str]:
    """An environment in which neither the developer's git, cloud nor MLflow settings are seen."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "AWS_", "MLFLOW_", "MODEL_", "PYTHON"))}
    return kept | {
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        # DVC reads what is there, and /dev/null is no file to it.
        "AWS_CONFIG_FILE": str(home / "absent"),
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
    }


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return isolated(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _isolate(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - environment.keys():
        if name != "PYTEST_CURRENT_TEST":
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def dated(date: str) -> dict[str, str]:
    return {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}


def succeeds(done: subprocess.CompletedProcess[str]) -> str:
    """What it has printed."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Repository:
    """A real git repository with the model code in model-src/."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.root, self.source, self.environment = root, root / "model-src", environment

    def git(self, *args: str, date: str = DATE) -> str:
        done = subprocess.run(
            ["git", *args], cwd=self.root, env={**self.environment, **dated(date)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, message: str, date: str = DATE) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message, date=date)
        return self.git("rev-parse", "HEAD")

    def run(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`python -m ...` in model-src/, with the libraries imported already."""
        return warm.run(["-m", *args], self.source, {**self.variables, **variables})

    def python(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *args],
            cwd=self.source, env={**self.variables, **variables}, capture_output=True, text=True,
        )  # fmt: skip

    @property
    def variables(self) -> dict[str, str]:
        # The stages that DVC starts find `python` on PATH.
        return {**self.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def clone(self, root: Path) -> Repository:
        subprocess.run(["git", "clone", "--quiet", self.root, root], check=True)
        return Repository(root, self.environment)

    def copy(self, root: Path) -> Repository:
        """With everything that was made in it, to change."""
        shutil.copytree(self.root, root)
        return Repository(root, self.environment)

    def manifest(self, model: str = "lily") -> Manifest:
        path = self.source / f"artifacts/{model}/manifest.json"
        return manifest.parse(path.read_bytes(), str(path))


def make_repository(root: Path, environment: Mapping[str, str]) -> Repository:
    repository = Repository(root, environment)
    shutil.copytree(PROJECT, repository.source)
    repository.git("init", "--quiet", "--initial-branch", "main")
    repository.commit("Add the models")
    return repository


@pytest.fixture
def repository(tmp_path: Path, environment: dict[str, str]) -> Repository:
    return make_repository(tmp_path / "repository", environment)


# In one process, because each would spend most of its time on imports.
STAGES = """
import importlib, subprocess, sys
from lifecycle import stages

name = sys.argv[1]
stages.same_arithmetic()
importlib.import_module(f"models.{name}.generate_data").main([])
for stage in stages.STAGES.values():
    stage(name)
"""
VERSION = """
from dvc.cli import main

assert main(["commit", "--quiet", "--force", "--with-deps", f"models/{name}/dvc.yaml"]) == 0
for command in (["add", "--all"], ["commit", "--quiet", "--message", "Train"]):
    subprocess.run(["git", *command], check=True)
stages.version(name)
"""


def train(root: Path, environment: Mapping[str, str], model: str) -> Repository:
    """A repository with a version of `model`, the same one for all workers of a run. DVC has taken what the stages made
    for its own; that it makes the same itself is asked in test_lifecycle_dvc.py."""
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / f"trained-{model}"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (shared / "done").exists():
            return Repository(shared / "repository", environment)
        repository = make_repository(shared / "repository", environment)
        succeeds(warm.run(["-c", STAGES + VERSION, model], repository.source, {**repository.variables, **dated(DATE)}))
        (shared / "done").touch()
    return repository


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Repository:
    """A repository with a version of lily. Tests must not change it."""
    return train(tmp_path_factory.getbasetemp(), environment, "lily")


@pytest.fixture(scope="session")
def trained_sugar(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Repository:
    """A repository with a version of sugar. Tests must not change it."""
    return train(tmp_path_factory.getbasetemp(), environment, "sugar")


@pytest.fixture(scope="session")
def artifacts(trained: Repository) -> Path:
    """The trained version. Tests must not change it."""
    return trained.source / "artifacts/lily"


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By model, its raw data as CSV."""
    from models.lily import generate_data as flowers
    from models.sugar import generate_data as patients

    folder = tmp_path_factory.mktemp("raw")
    flowers.generate(folder / "lily", flowers.Data(seed=None, rows=150, noise=0.0))
    patients.generate(folder / "sugar")
    return {name: (folder / name).read_text() for name in ("lily", "sugar")}


@pytest.fixture
def workspace(tmp_path: Path, raw: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like model-src/ to run stages in, in this process, which is quicker; with raw data and no outputs."""
    folder = tmp_path / "workspace"
    ignored = shutil.ignore_patterns("*.py", "build", "plots", "raw.csv")
    for name, content in raw.items():
        model = Path(shutil.copytree(PROJECT / "models" / name, folder / "models" / name, ignore=ignored))
        (model / "data").mkdir(exist_ok=True)
        (model / "data/raw.csv").write_text(content)
    monkeypatch.chdir(folder)
    return folder


def wanted(uri: str | Path, digest: str, key: Key | None = None) -> Wanted:
    """A version by the folder of its flavour."""
    return Wanted(str(uri), Expected(digest, key))


@pytest.fixture
def version(artifacts: Path, tmp_path: Path) -> Path:
    """A copy of the trained version, to change."""
    return Path(shutil.copytree(artifacts, tmp_path / "version"))


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)


class Service:
    """A real `python -m serving` process."""

    def __init__(
        self, folder: Path, variables: Mapping[str, str], options: tuple[str, ...], args: tuple[str, ...], log: Path
    ) -> None:
        self._log = log
        log.touch()
        self.process: warm.Process | subprocess.Popen[bytes]
        if options or folder != SOURCE:
            with log.open("w") as stream:
                self.process = subprocess.Popen(
                    [sys.executable, *options, "-m", "serving", *args], cwd=folder, env=variables, stderr=stream
                )
        else:
            self.process = warm.Process(["-m", "serving", *args], folder, variables, Path(os.devnull), log)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def listening(self) -> httpx.Client:
        """A client, as soon as the process listens."""
        wait_until(lambda: "listening on " in self.said or self.process.poll() is not None, "the service listens")
        assert self.process.poll() is None, self.said
        url = self.said.split("listening on ")[1].split()[0]
        return httpx.Client(base_url=url, timeout=10)

    def ready(self) -> httpx.Client:
        """A client, as soon as the process is ready."""
        client = self.listening()
        wait_until(
            lambda: self.process.poll() is not None or client.get("/readyz").status_code == 200, "the service is ready"
        )
        return client

    def stop(self, sig: int = signal.SIGTERM) -> int:
        self.process.send_signal(sig)
        return self.process.wait(30)


@pytest.fixture
def serve(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def start(
        uri: str | Path,
        digest: str,
        folder: Path = SOURCE,
        options: tuple[str, ...] = (),
        args: tuple[str, ...] = (),
        unset: tuple[str, ...] = (),
        **variables: str,
    ) -> Service:
        given = {"MODEL_URI": str(uri), "MODEL_DIGEST": digest, "PORT": "0", "DRAIN_SECONDS": "0"}
        given = {name: value for name, value in given.items() if name not in unset}
        log = tmp_path / f"service-{len(started)}.log"
        started.append(Service(folder, {**environment, **given, **variables}, options, args, log))
        return started[-1]

    yield start
    for service in started:
        service.process.kill()
        service.process.wait()


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def upload(folder: Path, version: str, url: str, bucket: str) -> str:
    """Puts a version where `python -m serving` expects it, and returns its URI."""
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket=bucket)
    for file in folder.rglob("*"):
        if file.is_file():
            key = f"models/lily/{version}/{file.relative_to(folder).as_posix()}"
            client.put_object(Bucket=bucket, Key=key, Body=file.read_bytes())
    return f"s3://{bucket}/models/lily/{version}/onnx/"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])

"""What tests stand on: a real S3 server, and real clones of a real remote that holds this engine and the sample."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib
import importlib.util
import io
import itertools
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import botocore.session
import guard
import pytest
import yaml

from gitops.models.s3 import Store
from gitops.programs import tools
from gitops.releases import release, release_file
from gitops.repo import layout
from gitops.repo.policy import POLICY_FILE as POLICY

import skeletons
from contract.digest import MANIFEST, version_digest
from contract.manifest import SIGNATURE, dump_signature, signature_of
from contract.manifest import parse as parse_manifest

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "tests/sample"
# Its models, by their kind.
MODELS = {"classification": "lily", "regression": "diabetes"}
GUARD = guard.variables(ROOT, layout.FORK_OWNED, layout.ENGINE_IN_FORK)
guard.install(GUARD)
# Each test makes clients of its own; what boto3 knows of S3 is read once.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)
BUCKET, REPLICA = "mlops-prod", "mlops-us"
REGISTRY = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
IMAGE = f"{REGISTRY}/lily-api@sha256:{'1' * 64}"
# What is an environment's own, by its name.
ENVIRONMENT = (
    "overlays/{}", "argocd/applicationset-{}.yaml", "argocd/project-{}.yaml", "argocd/sagemaker-{}.yaml",
)  # fmt: skip
CODE_COMMIT = "c0de" * 10
# libyaml's writes the same in a fifth of the time.
DUMPER = yaml.CSafeDumper
DATE = "2026-02-01"


def isolated(home: Path) -> dict[str, str]:
    """An environment in which neither the developer's git nor cloud settings are seen."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "AWS_", "MLFLOW_", "MODEL_URI", "FORGE"))}
    return (
        kept
        | GUARD
        | {
            "HOME": str(home),
            # Built programs and schemas are shared with the developer's own runs.
            "MODEL_GITOPS_CACHE": os.environ.get("MODEL_GITOPS_CACHE", str(tools.cache())),
            "MODEL_GITOPS_RENDERS": str(home / "renders.sqlite"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TEMPLATE_DIR": "",  # no sample of a hook in each of a thousand clones
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "Test",
            "GIT_AUTHOR_EMAIL": "test@example.org",
            "GIT_COMMITTER_NAME": "Test",
            "GIT_COMMITTER_EMAIL": "test@example.org",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
    )


# They have few tests, and take longest.
LONGEST = {
    f"test_{name}.py"
    for name in ("check_drift", "interruption", "month", "sequences", "style", "tour", "types", "valid")
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts files in the order in which the processes of xdist take them: by their tests, as it would itself, but for
    the longest. Of these one would come last, and the other cores would wait for it."""
    if hasattr(config, "workerinput"):
        tests = Counter(item.path for item in items)
        items.sort(key=lambda item: (item.path.name not in LONGEST, -tests[item.path]))


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return isolated(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _isolate(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - environment.keys() - {"PYTEST_CURRENT_TEST"}:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # It keeps the credentials that it found first, for the life of the process.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


# Commands


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """What the error lines say, without `error: `."""
        return [line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")]


def command_of(name: str) -> ModuleType:
    """A command, whose module may have the name of a folder of tests."""
    return _beside_tests(name) if (ROOT / "tests" / name).is_dir() else importlib.import_module(name)


@functools.cache
def _beside_tests(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_command", ROOT / f"scripts/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(command: str, *args: str | Path) -> Result:
    """Calls `main` of a command in this process, which is the command line without the start of an interpreter."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command_of(command).main([str(arg) for arg in args])
    return Result(code, out.getvalue(), err.getvalue())


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)


def type_checked(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """mypy over the model-src/ of a checkout. All of them share the cache of this one, or that of MYPY_CACHE_DIR:
    from nothing it takes a quarter of a minute. It is one's at a time, as mypy has no lock of its own."""
    cache = Path(os.environ.get("MYPY_CACHE_DIR", ROOT / "model-src/.mypy_cache"))
    cache.mkdir(exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return subprocess.run(
            [ROOT / "model-src/.venv/bin/mypy", *args],
            cwd=folder / "model-src", env=guard.unguarded() | {"MYPY_CACHE_DIR": str(cache)},
            capture_output=True, text=True,
        )  # fmt: skip


# Git


def git(folder: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def copy_checkout(target: Path) -> None:
    """Copies the engine's files of this checkout, those that git tracks or would track, and the sample over them."""
    listed = subprocess.run(
        # The checkout may belong to another user, as in a container.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0, listed.stderr
    for name in filter(None, listed.stdout.split("\0")):
        # The sample comes next, and the corpus is of no use there.
        beside = name.startswith(("tests/sample/", "tests/invalid/"))
        if not layout.owned_by_fork(name) and not beside and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    for folder in (file for file in SAMPLE.iterdir() if file.is_dir()):
        shutil.copytree(folder, target / folder.name, dirs_exist_ok=True)
    for path, data in model_files().items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(data)


def model_files() -> dict[str, bytes]:
    """The sample's models, made as new ones are, with the least work that still is a search of all families."""
    found = {}
    for kind, name in MODELS.items():
        for path, data in skeletons.render(kind, name).items():
            found[f"model-src/models/{name}/{path}"] = little(data) if path == "params.yaml" else data
    return found


def little(params: bytes) -> bytes:
    """The params.yaml of a skeleton, for training that takes little time."""
    for old, new in (
        ("trials: 12", "trials: 4"), ("folds: 5", "folds: 3"), ("estimators: 100", "estimators: 20"),
        ("resamples: 1000", "resamples: 100"),
    ):  # fmt: skip
        assert old.encode() in params
        params = params.replace(old.encode(), new.encode())
    return params


def write_release(root: Path, target: release.Target, version: Version, flavour: str, image: str | None = None) -> None:
    """Writes a release into the file where it belongs, without any of the checks of a command."""

    def show(path: str) -> bytes | None:
        return (root / path).read_bytes() if (root / path).is_file() else None

    found = release_file.find(show, target.app, target.environment)
    assert found is not None
    file, text = found
    now = release_file.read(text, target, file)
    manifest = parse_manifest((version.folder / MANIFEST).read_bytes(), MANIFEST)
    new = release.make(now, f"{version.uri}{flavour}/", manifest, image)
    (root / file).write_bytes(release_file.write(text, new))


@pytest.fixture(scope="session")
def whole_template(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A bare repository whose branches main and cicd are one commit: engine and sample. Tests must not change it."""
    folder = tmp_path_factory.mktemp("whole")
    copy_checkout(folder / "work")
    return commit_template(folder, environment)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The same without the folders of code, of which the commands under test run those of this checkout: every clone
    would write four times as many files."""
    folder = tmp_path_factory.mktemp("template")
    copy_checkout(folder / "work")
    models = folder / "work/model-src"
    for code in (*(folder / "work" / name for name in ("scripts", "tests", "tools")), *models.iterdir()):
        if code.is_dir() and code.name not in ("models", ".dvc"):
            shutil.rmtree(code)
    return commit_template(folder, environment)


def commit_template(folder: Path, environment: Mapping[str, str]) -> Path:
    dates = {"GIT_AUTHOR_DATE": f"{DATE}T12:00:00+00:00", "GIT_COMMITTER_DATE": f"{DATE}T12:00:00+00:00"}
    for args in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "The template"], ["branch", "cicd"]):
        subprocess.run(["git", *args], cwd=folder / "work", env={**environment, **dates}, check=True)
    subprocess.run(
        ["git", "clone", "-q", "--bare", folder / "work", folder / "template.git"], env=environment, check=True,
    )  # fmt: skip
    # A pack is copied to the clones as one file.
    subprocess.run(["git", "repack", "-adq"], cwd=folder / "template.git", env=environment, check=True)
    return folder / "template.git"


class Checkout:
    """A clone with a bare remote of its own."""

    def __init__(self, root: Path, remote: Path) -> None:
        self.root, self.remote = root, remote

    def git(self, *args: str) -> str:
        return git(self.root, *args)

    def run(self, command: str, *args: str | Path) -> Result:
        return run(command, "--root", self.root, *args)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def write(self, path: str, text: str | bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(text.encode() if isinstance(text, str) else text)

    def replace(self, path: str, old: str, new: str) -> None:
        """Changes one place of a file."""
        text = self.read(path).decode()
        assert text.count(old) == 1, f"{path}: {old!r} stands {text.count(old)} times"
        self.write(path, text.replace(old, new))

    def name_environments(self, *names: str) -> None:
        """Puts these environments, which have no hosts, in the place of the policy's."""
        path = "overlays/promotion.yaml"
        start = self.read(path).decode().partition("environments:\n")[0]
        self.write(path, f"{start}environments:\n" + "".join(f"  - name: {name}\n" for name in names))

    def copy_environment(self, old: str, new: str) -> list[Path]:
        """Copies what is an environment's own to another name, which it has in every text. Returns the new files."""
        made: list[Path] = []
        for place in ENVIRONMENT:
            source, target = (self.root / place.format(name) for name in (old, new))
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
            made += target.rglob("*.yaml") if target.is_dir() else [target]
        for file in made:
            # But for the bucket, which all environments share.
            file.write_text(re.sub(rf"(?<!mlops-)\b{old}\b", new, file.read_text()))
        return made

    def commit(self, message: str = "A change", *, push: bool = False) -> str:
        """Commits everything to the branch that is checked out."""
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        if push:
            self.git("push", "-q", "origin", "HEAD")
        return self.git("rev-parse", "HEAD")

    def tip(self, branch: str = "cicd") -> str:
        """The remote's commit of a branch."""
        return git(self.remote, "rev-parse", f"refs/heads/{branch}")

    def merge(self, branch: str) -> str:
        """Merges a branch of the remote into cicd as the button of a pull request does, and updates this clone."""
        self.git("fetch", "-q", "origin")
        self.git("checkout", "-q", "-B", "cicd", "origin/cicd")
        self.git("merge", "-q", "--no-ff", "-m", f"Merge {branch}", f"origin/{branch}")
        self.git("push", "-q", "origin", "cicd")
        return self.tip()

    def state(self) -> dict[str, Any]:
        """All that a refused command has to leave as it was: refs here and at the remote, files, index."""
        return {
            "refs": self.git("for-each-ref", "--format=%(refname) %(objectname)"),
            "remote": git(self.remote, "for-each-ref", "--format=%(refname) %(objectname)"),
            "head": self.git("symbolic-ref", "HEAD"),
            "status": self.git("status", "--porcelain", "--untracked-files=all"),
            "diff": self.git("diff", "HEAD"),
        }


def in_folder(folder: Path, command: str) -> str:
    """A command of git as it is printed by one that runs elsewhere."""
    return f"(cd {folder} && {command})"


def merging(folder: Path, branch: str, commit: str) -> str:
    """The printed commands that merge a branch by hand."""
    return in_folder(
        folder,
        f"git fetch origin cicd && git checkout --detach FETCH_HEAD && git merge --no-ff -m 'Merge {branch}' {commit}"
        " && git push origin HEAD:refs/heads/cicd && git checkout -",
    )


@pytest.fixture
def checkout(template: Path, tmp_path: Path) -> Checkout:
    """A clone on branch cicd, without code."""
    return make_checkout(template, tmp_path)


@pytest.fixture
def whole_checkout(whole_template: Path, tmp_path: Path) -> Checkout:
    """A clone on branch cicd."""
    return make_checkout(whole_template, tmp_path)


def make_checkout(template: Path, folder: Path) -> Checkout:
    subprocess.run(["git", "clone", "-q", "--bare", template, folder / "remote.git"], check=True)
    return clone(folder / "remote.git", "clone")


def clone(remote: Path, name: str) -> Checkout:
    """A clone of a remote, in a folder of this name beside it, on branch cicd."""
    folder = remote.parent / name
    git(remote.parent, "clone", "-q", "-b", "cicd", str(remote), name)
    return Checkout(folder, remote)


# Models


@dataclass(frozen=True)
class Version:
    """A packaged model, and where it is once uploaded."""

    folder: Path
    version: str
    digest: str
    uri: str
    data: dict[str, Any]

    @property
    def manifest(self) -> str:
        """The SHA-256 of its manifest, as a release names it."""
        return f"sha256:{hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()}"


def package(
    folder: Path, content: str = "one", model: str = "lily", more: Mapping[str, str] | None = None, **changed: Any
) -> Version:
    """Packages a model whose bytes are made up: what the commands check of a model is its manifest and digest. `more`
    are texts by path."""
    signature = changed.pop("signature", None) or signature_of([("sepal_length", False)], ["setosa", "versicolor"])
    files = {
        "onnx/model.onnx": f"onnx {content}",
        "sklearn/model.joblib": f"joblib {content}",
        SIGNATURE: dump_signature(signature).decode(),
    } | dict(more or {})
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    listed = [
        {"path": path, "sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text)}
        for path, text in sorted(files.items())
    ]
    digest = version_digest((str(file["path"]), str(file["sha256"])) for file in listed)
    version = f"{DATE}-{digest.removeprefix('sha256:')[:12]}"
    data = {
        "schema": 2,
        "model": model,
        "version": version,
        "digest": digest,
        "files": listed,
        "metrics": {"accuracy": 0.9556, "macro_f1": 0.955},
        "parameters": {"n_estimators": 100},
        "signature": signature.model_dump(),
        "code_commit": CODE_COMMIT,
        "data_digest": f"sha256:{'d' * 64}",
        "evaluation_set_digest": f"sha256:{'e' * 64}",
        "mlflow_run": "f" * 32,
        "frameworks": {"python": "3.12.1", "scikit-learn": "1.5.2"},
        "draft": False,
    } | changed
    (folder / MANIFEST).write_text(json.dumps(data, indent=2))
    return Version(folder, version, digest, f"s3://{BUCKET}/models/{model}/{version}/", data)


# S3


@dataclass(frozen=True)
class S3:
    """A versitygw of this test run, with an empty bucket for each test."""

    url: str
    variables: dict[str, str]
    files: Path
    """Where the server keeps the bucket's objects, as files by key."""
    bucket: str = BUCKET

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=self.variables["AWS_REGION"],
            aws_access_key_id=self.variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.variables["AWS_SECRET_ACCESS_KEY"],
        )

    def keys(self) -> list[str]:
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def objects(self) -> dict[str, tuple[bytes, Any]]:
        """The bytes of every object and when they were put, by key."""
        got = {key: self.client.get_object(Bucket=self.bucket, Key=key) for key in self.keys()}
        return {key: (answer["Body"].read(), answer["LastModified"]) for key, answer in got.items()}

    def empty(self) -> None:
        for folder in (self.files, self.files.parents[1] / "metadata" / self.bucket):
            shutil.rmtree(folder, ignore_errors=True)
        self.files.mkdir()

    def upload(self, version: Version) -> str:
        done = run(
            "upload_model",
            "--root",
            SAMPLE,
            "--model",
            version.data["model"],
            "--artifacts",
            version.folder,
            "--bucket",
            f"s3://{BUCKET}",
        )
        assert done.code == 0, done.err
        return done.out.strip()


def interrupted_add(number: int, moment: str) -> Callable[..., bool]:
    """`Store.add`, interrupted `before` or `after` it adds the object of this number."""
    add, calls = Store.add, itertools.count()

    def interrupted(*args: Any) -> bool:
        last = next(calls) == number
        if last and moment == "before":
            raise KeyboardInterrupt
        added = add(*args)
        if last:
            raise KeyboardInterrupt
        return added

    return interrupted


@contextlib.contextmanager
def s3_running(data: Path, environment: dict[str, str], bucket: str = BUCKET, *options: str) -> Iterator[S3]:
    """A local S3 server with its data in this folder, while the block runs."""
    with subprocess.Popen(
        [sys.executable, ROOT / "scripts/local_s3.py", "--root", SAMPLE, "--data", data, *options],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().removeprefix("export ").strip() for _ in range(4)]
            variables = dict(line.split("=", 1) for line in lines)
            url = variables["AWS_ENDPOINT_URL_S3"]
            wait_until(lambda: listens(int(url.rpartition(":")[2])), "the S3 server listens")
            yield S3(url, variables, data / "buckets" / bucket, bucket)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[S3]:
    with s3_running(tmp_path_factory.mktemp("s3"), environment) as server:
        yield server


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The server with an empty bucket, and the variables that lead every S3 client to it."""
    for name, value in s3_server.variables.items():
        monkeypatch.setenv(name, value)
    yield s3_server
    s3_server.empty()


@pytest.fixture(scope="session")
def replica_server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[S3]:
    """Another server, in another region, with the bucket of a replica and without the model bucket."""
    data = tmp_path_factory.mktemp("replica")
    with s3_running(data, environment, REPLICA, "--region", "us-east-1") as server:
        (data / "buckets" / BUCKET).rmdir()
        server.files.mkdir()
        yield server


@pytest.fixture
def replica(replica_server: S3, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """That server with an empty bucket, and the profile by which commands find it."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    write_profile(tmp_path / "aws-config", replica_server)
    yield replica_server
    replica_server.empty()


def write_profile(file: Path, server: S3) -> None:
    """Writes an AWS configuration with the profile of a replica, which is on this server."""
    values = {"endpoint_url": server.url} | {
        name.lower(): server.variables[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    }
    file.write_text("\n".join([f"[profile {REPLICA}]", *(f"{name} = {value}" for name, value in values.items())]))


def name_replica(checkout: Checkout, *environments: str) -> None:
    """Names the replica in a checkout's policy, as the one from which these environments take their models."""
    for environment in environments:
        checkout.replace(POLICY, f"- name: {environment}\n", f"- name: {environment}\n    replica: {REPLICA}\n")
    text = checkout.read(POLICY).decode()
    checkout.write(POLICY, f"{text}replicas:\n  - bucket: {REPLICA}\n    region: us-east-1\n")


@pytest.fixture
def version(tmp_path: Path, s3: S3) -> Version:
    """A model version that is in the bucket."""
    made = package(tmp_path / "artifacts")
    assert s3.upload(made) == made.uri
    return made


# Repositories without manifests, and hooks


@pytest.fixture(scope="session")
def plain_template(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    for path in ("README.md", "overlays/dev/note.txt", "model-src/models/lily/train.py"):
        (folder / "clone" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "clone" / path).write_text(f"{path}\n")
    for args in (
        ["init", "-q", "--bare", "-b", "cicd", "../remote.git"], ["init", "-q", "-b", "cicd"], ["add", "-A"],
        ["commit", "-qm", "Start"], ["remote", "add", "origin", "../remote.git"],
        ["push", "-q", "origin", "cicd", "cicd:main"],
    ):  # fmt: skip
        subprocess.run(["git", *args], cwd=folder / "clone", env=environment, check=True)
    return folder


@pytest.fixture
def plain(plain_template: Path, tmp_path: Path) -> Checkout:
    """A clone on branch cicd of a repository of three small files, for what is about Git alone."""
    shutil.copytree(plain_template, tmp_path, dirs_exist_ok=True)
    git(tmp_path / "clone", "update-index", "-q", "--refresh")  # the copies are other files to git
    return Checkout(tmp_path / "clone", tmp_path / "remote.git")


def hook(repository: Path, name: str, script: str) -> None:
    """Installs a hook: the shell script runs without the variables by which git would point it at a repository."""
    file = repository / "hooks" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\nunset $(git rev-parse --local-env-vars)\n{script}\n")
    file.chmod(0o755)


# What servers answer who pushes to a branch that takes pull requests alone.
PROTECTED = {
    "GitHub": (
        "error: GH006: Protected branch update failed for refs/heads/cicd.",
        "- Changes must be made through a pull request.",
    ),
    "GitLab": ("GitLab: You are not allowed to push code to protected branches on this project.",),
}


def protect(remote: Path, words: Sequence[str]) -> None:
    """From now on the remote's cicd takes no push but of who has FORGE in the environment, and answers in words."""
    answer = " ".join(f"echo {shlex.quote(line)} >&2;" for line in words)
    refused = f'test "$ref" != refs/heads/cicd || test -n "$FORGE" || {{ {answer} exit 1; }}'
    hook(remote, "pre-receive", f"while read -r old new ref; do {refused}; done")


# Manifests


@pytest.fixture(scope="session")
def manifests(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template's files in a folder that is no git repository. Tests must not change them."""
    folder = tmp_path_factory.mktemp("manifests") / "clone"
    git(folder.parent, "clone", "-q", "-b", "cicd", str(template), str(folder))
    shutil.rmtree(folder / ".git")
    return folder.resolve()

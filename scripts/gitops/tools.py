"""Where the pinned programs and schemas are, and how they come to be there.

Programs are Go modules pinned in `tools/<program>/go.mod`, with their checksums in `go.sum`. They are built once
into a cache outside the checkout whose names carry the versions, so two checkouts with other pins do not disturb
each other. This module uses the standard library only: it runs before any environment exists.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"


class ToolError(Exception):
    """A pinned program could not be had; the message says why and what to do."""


def cache() -> Path:
    """The folder outside the checkout for what is built or unpacked once: $MODEL_GITOPS_CACHE if it is set."""
    named = os.environ.get("MODEL_GITOPS_CACHE")
    standard = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else standard / "model-gitops"


@dataclass(frozen=True)
class Program:
    """A Go program of `tools/<name>/go.mod`. `fetch_mb` and `minutes` were measured on two cores, nothing cached."""

    name: str
    fetch_mb: int
    minutes: float

    @property
    def folder(self) -> Path:
        return TOOLS / self.name

    @property
    def package(self) -> str:
        return _find(r"^tool (\S+)$", self.folder / "go.mod")

    @property
    def version(self) -> str:
        package = self.package
        for module, version in re.findall(r"^\s*(?:require )?(\S+) (v\S+)", (self.folder / "go.mod").read_text(), re.M):
            if package == module or package.startswith(f"{module}/"):
                return str(version)
        raise ToolError(f"{self.folder}/go.mod: no version of {package}")

    @property
    def path(self) -> Path:
        key = _key(self.folder / "go.mod", self.folder / "go.sum", TOOLS / "requirements.txt")
        return cache() / "bin" / f"{self.name}-{self.version}-{key}"

    def require(self) -> Path:
        """The built program, or ToolError with the command that builds it."""
        if not self.path.is_file():
            raise ToolError(f"{self.name} {self.version} is not built yet: run `make setup`")
        return self.path


KUSTOMIZE = Program("kustomize", fetch_mb=25, minutes=0.7)
KUBECONFORM = Program("kubeconform", fetch_mb=5, minutes=0.2)
ACTIONLINT = Program("actionlint", fetch_mb=5, minutes=0.3)
VERSITYGW = Program("versitygw", fetch_mb=60, minutes=2)
YQ = Program("yq", fetch_mb=10, minutes=0.4)
TOOLCHAIN_MB = 60


@dataclass(frozen=True)
class Module:
    """A Go module of which only a few files are kept, for schemas."""

    path: str
    fetch_mb: int
    keep: tuple[str, ...]

    @property
    def version(self) -> str:
        return _find(rf"^\s*{re.escape(self.path)} (v\S+)", TOOLS / "schemas" / "go.mod")


SCHEMA_MODULES = (
    Module("k8s.io/kubernetes", 20, ("api/openapi-spec/v3/*.json",)),
    Module(
        "github.com/kserve/kserve",
        64,
        (
            "config/crd/full/*.yaml",
            "config/crd/full/clusterstoragecontainer/*.yaml",
            # It takes any field of a spec; only the table of tests/bench/corpus_table.py uses it.
            "config/crd/minimal/serving.kserve.io_inferenceservices.yaml",
        ),
    ),
    Module("github.com/argoproj/argo-cd/v3", 58, ("manifests/crds/*-crd.yaml",)),
)


def schema_sources() -> Path:
    """The folder that holds the kept files of SCHEMA_MODULES, as `<module path>/<file>`."""
    key = _key(TOOLS / "schemas" / "go.mod", TOOLS / "schemas" / "go.sum", also=repr(SCHEMA_MODULES))
    return cache() / f"schema-sources-{key}"


def missing_programs(programs: tuple[Program, ...]) -> list[Program]:
    return [program for program in programs if not program.path.is_file()]


def build(programs: list[Program], schemas: bool) -> None:
    """Builds what is missing. One build at a time per cache; what an interrupted one left is removed by the next.

    Raises ToolError with the last lines of the failing step.
    """
    cache().mkdir(parents=True, exist_ok=True)
    with _lock(cache() / "build.lock"):
        programs = missing_programs(tuple(programs))
        schemas = schemas and not schema_sources().is_dir()
        if not programs and not schemas:
            return
        for left in cache().glob("build-*"):
            _remove(left)
        work = Path(tempfile.mkdtemp(prefix="build-", dir=cache()))
        try:
            go = _toolchain(work)
            if schemas:
                _unpack_schemas(go, work)
            for program in programs:
                _build_program(go, program, work)
        finally:
            _remove(work)


def _toolchain(work: Path) -> Go:
    _step("Go toolchain")
    venv = work / "venv"
    _call([sys.executable, "-m", "venv", str(venv)])
    _call([str(venv / "bin/pip"), "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r",
           str(TOOLS / "requirements.txt")])  # fmt: skip
    return Go(venv / "bin" / "go", work)


class Go:
    """The pinned toolchain with module and build caches of its own, so that nothing of the user's is touched."""

    def __init__(self, program: Path, work: Path) -> None:
        self.program = program
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("GO", "CGO_"))}
        self.env |= {name: os.environ[name] for name in ("GOPROXY", "GOSUMDB", "GONOSUMDB") if name in os.environ}
        self.env |= {
            "GOMODCACHE": str(work / "mod"),
            "GOCACHE": str(work / "cache"),
            "GOPATH": str(work / "path"),
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-modcacherw",
            "CGO_ENABLED": "0",
        }

    def __call__(self, *args: str, cwd: Path) -> str:
        return _call([str(self.program), *args], cwd=cwd, env=self.env)


def _build_program(go: Go, program: Program, work: Path) -> None:
    package = program.package
    _step(f"{program.name} {program.version}: fetching")
    packages = len(go("list", "-deps", package, cwd=program.folder).splitlines())
    out = work / program.name
    command = [str(go.program), "build", "-v", "-trimpath", "-ldflags=-s -w", "-o", str(out), package]
    with subprocess.Popen(
        command, cwd=program.folder, env=go.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = []
        for count, line in enumerate(process.stderr, 1):
            lines.append(line.rstrip())
            _step(f"{program.name} {program.version}: compiled {count} of about {packages} packages", transient=True)
    if process.returncode:
        raise ToolError("\n".join([f"{program.name} could not be built:", *lines[-15:]]))
    program.path.parent.mkdir(parents=True, exist_ok=True)
    out.replace(program.path)
    _step(f"{program.name} {program.version}: built")


def _unpack_schemas(go: Go, work: Path) -> None:
    """Keeps the schema files of the pinned modules. A module whose checksum is not the committed one is refused."""
    sums = dict(re.findall(r"^(\S+ \S+) (h1:\S+)$", (TOOLS / "schemas" / "go.sum").read_text(), re.M))
    out = work / "sources"
    for module in SCHEMA_MODULES:
        name = f"{module.path} {module.version}"
        _step(f"schemas: {name}")
        told = json.loads(go("mod", "download", "-json", f"{module.path}@{module.version}", cwd=TOOLS / "schemas"))
        if told["Sum"] != sums.get(name):
            raise ToolError(f"tools/schemas/go.sum: {name}: downloaded {told['Sum']}, committed {sums.get(name)}")
        for pattern in module.keep:
            found = list(Path(told["Dir"]).glob(pattern))
            if not found:
                raise ToolError(f"{name}: no file matches {pattern}")
            for file in found:
                target = out / module.path / file.relative_to(told["Dir"])
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        _remove(work / "mod")
    out.replace(schema_sources())


def _call(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        tail = (done.stderr or done.stdout).strip().splitlines()[-15:]
        raise ToolError("\n".join([f"`{' '.join(command)}` failed:", *tail]))
    return done.stdout


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _step("another build is running; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _step(text: str, transient: bool = False) -> None:
    terminal = sys.stderr.isatty()
    if transient and not terminal:
        return
    start, end = ("\r\033[K", "") if terminal and transient else ("\r\033[K" if terminal else "", "\n")
    print(f"{start}  {time.strftime('%H:%M:%S')}  {text}", end=end, file=sys.stderr, flush=True)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _find(pattern: str, file: Path) -> str:
    match = re.search(pattern, file.read_text(), re.M)
    if not match:
        raise ToolError(f"{file}: nothing matches {pattern}")
    return match[1]


def _key(*files: Path, also: str = "") -> str:
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()} {also}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]

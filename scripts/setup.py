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
  python scripts/setup.py test       everything that `make test` needs
  python scripts/setup.py test-features  what `make test-features` needs beside that
  python scripts/setup.py test-cluster   what `make test-cluster` needs beside that
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gitops.programs import building, tools

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
        return stamped and (self.folder / "bin/python").exists()

    def install(self, python: str) -> None:
        # From here on the environment is neither what an earlier lock said nor what this one says.
        for stamp in self.folder.glob(".installed-*"):
            stamp.unlink()
        clear = [] if _version(self.folder / "bin/python") == _version(python) else ["--clear"]
        _call([python, "-m", "venv", *clear, str(self.folder)], "on Debian and Ubuntu: apt-get install python3-venv")
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        # A lock names everything. Left to resolve it again, older versions of pip want a package that is also asked for
        # with an extra to be pinned twice.
        _call(
            [str(self.folder / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", *quiet,
             "--no-deps", "--require-hashes", "-r", str(self.lock)],
            "is the package index reachable?",
        )  # fmt: skip
        self._stamp(self.lock).touch()


TEST_LOCK, MODEL_TEST_LOCK = ROOT / "requirements-test.txt", ROOT / "model-src/requirements-test.txt"
CLUSTER_LOCK = ROOT / "requirements-cluster.txt"
COMMANDS = Environment(ROOT / ".venv", ROOT / "requirements.txt", 35, 0.3, (CLUSTER_LOCK, TEST_LOCK))
COMMANDS_CLUSTER = Environment(ROOT / ".venv", CLUSTER_LOCK, 50, 0.4, (TEST_LOCK,))
COMMANDS_TEST = Environment(ROOT / ".venv", TEST_LOCK, 100, 0.6)
MODEL = Environment(ROOT / "model-src/.venv", ROOT / "model-src/requirements-train.txt", 270, 2.0, (MODEL_TEST_LOCK,))
MONITOR = Environment(ROOT / "model-src/.venv-monitor", ROOT / "model-src/requirements-monitor.txt", 240, 1.5)
FEATURES = Environment(
    ROOT / "model-src/extras/feature_store/.venv", ROOT / "model-src/extras/feature_store/requirements.txt", 200, 0.8
)
MODEL_TEST = Environment(ROOT / "model-src/.venv", MODEL_TEST_LOCK, 365, 2.5)


@dataclass(frozen=True)
class Profile:
    environments: tuple[Environment, ...]
    programs: tuple[tools.Program | tools.Wheel, ...] = ()
    sources: tuple[tools.Sources, ...] = ()


PROFILES = {
    "demo": Profile((COMMANDS, MODEL), (tools.KUSTOMIZE, tools.VERSITYGW)),
    "serve": Profile((MODEL,)),
    "commands": Profile((COMMANDS,), (tools.KUSTOMIZE,)),
    "monitor": Profile((COMMANDS, MONITOR), (tools.KUSTOMIZE,)),
    "validate": Profile((COMMANDS,), (tools.KUSTOMIZE, tools.KUBECONFORM), sources=(tools.SCHEMAS,)),
    "test": Profile(
        (COMMANDS_TEST, MODEL_TEST),
        (tools.KUSTOMIZE, tools.KUBECONFORM, tools.ACTIONLINT, tools.VERSITYGW),
        sources=(tools.SCHEMAS,),
    ),
    "status": Profile((COMMANDS_CLUSTER,), (tools.KUSTOMIZE,)),
    "cluster": Profile(
        (COMMANDS_CLUSTER,),
        (tools.KUSTOMIZE, tools.KUBECONFORM, tools.VERSITYGW, *tools.CLUSTER),
        sources=(tools.SCHEMAS,),
    ),
    "test-cluster": Profile(
        (COMMANDS_TEST,), (tools.HELM, tools.KSERVE_STORAGE, *tools.CLUSTER), sources=(tools.CHARTS,)
    ),
    "test-features": Profile((FEATURES,)),
    "bench": Profile(
        (COMMANDS_TEST,), (tools.KUSTOMIZE, tools.KUBECONFORM, tools.VERSITYGW, tools.YQ), sources=(tools.SCHEMAS,)
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=PROFILES)
    profile = PROFILES[parser.parse_args(argv).profile]
    try:
        set_up(profile)
    except (tools.ToolError, OSError) as error:
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
    plan += [(f"{p.name} {p.version}, {how[type(p)]}", p.fetch_mb, p.minutes) for p in programs]
    plan += [(f"{s.name} of {m.path} {s.version(m)}", m.fetch_mb, 0.2) for s in sources for m in s.modules]
    print(f"Setting up with {python}. This is done once, and fetches:", file=sys.stderr)
    for what, megabytes, minutes in plan:
        print(f"  {megabytes:4d} MB  {minutes:4.1f} min  {what}", file=sys.stderr)
    total, time = sum(p[1] for p in plan), sum(p[2] for p in plan)
    print(f"  {total:4d} MB  {time:4.1f} min  in all, on two cores", file=sys.stderr, flush=True)
    for environment in environments:
        print(f"  installing {environment.folder.relative_to(ROOT)}", file=sys.stderr, flush=True)
        environment.install(python)
    building.build(programs, sources)


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
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _call(command: list[str], remedy: str) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    if subprocess.run(command, env=env, stdout=sys.stderr).returncode:
        raise tools.ToolError(f"`{' '.join(command)}` failed, see above; {remedy}")


if __name__ == "__main__":
    raise SystemExit(main())

"""The archive that an instance without a package index runs the service from: an interpreter, the wheels of the serving
lock, and the code that the image has.

The same interpreter, lock and code give the same bytes, by the same zlib. Paths in it are relative: `python/` is the
interpreter with the packages, `app/` the code, and `service.json` tells what it was made from.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gitops.programs import elf

from contract import waiting
from contract.errors import Refused

SOURCE = "model-src"
LOCK = f"{SOURCE}/requirements-serve.txt"
IMAGE = f"{SOURCE}/Dockerfile"
PLACE = "/opt/model-service"
"""Where it is unpacked, which tracebacks show."""
_COPIED = re.compile(r"^COPY (?!--)(?P<sources>.+) \S+$", re.MULTILINE)
# What the service does not import: tests, tools, what a terminal or a desktop needs, and modules whose libraries are
# called differently elsewhere.
_LEFT_OUT = shutil.ignore_patterns(
    "site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "lib2to3", "tkinter", "turtle*",
    "ensurepip", "pydoc_data", "sqlite3", "config-*", "EXTERNALLY-MANAGED", "*.a", "_test*", "_xx*", "xx*",
    *(f"{name}.*" for name in (
        "_bz2", "_crypt", "_curses", "_curses_panel", "_dbm", "_gdbm", "_lzma", "_sqlite3", "_tkinter", "_uuid", "nis",
        "ossaudiodev", "readline", "spwd",
    )),
)  # fmt: skip
# Of an installed package: what is told there of this installation.
_OF_INSTALLATION = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")
_PROBE = """
import json, platform, sys, sysconfig
base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
print(json.dumps({
    "prefix": sys.base_prefix, "version": platform.python_version(), "machine": platform.machine(),
    "folders": [sysconfig.get_path(name, vars=base) for name in ("platstdlib", "stdlib")],
    "library": sysconfig.get_config_var("INSTSONAME") if sysconfig.get_config_var("Py_ENABLE_SHARED") else None,
    "libraries": sysconfig.get_config_var("LIBDIR"),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    program: Path
    folders: Sequence[Path]
    """Those of the standard library, below the prefix; packages are in the first."""
    prefix: Path
    library: Path | None
    version: str
    machine: str
    """As platform.machine() has it."""


@dataclass(frozen=True)
class About:
    """What an archive was made from."""

    code_commit: str
    lock: str
    """SHA-256."""
    python: str
    machine: str


def interpreter(python: str) -> Interpreter:
    """The installation that a Python program belongs to, also as the Python of a virtual environment. Raises Refused
    for what is none, or one that cannot be moved."""
    if not (program := shutil.which(python)):
        raise Refused(f"--python {python}: no such program; name a Python, or leave it out for the one that runs this")
    done = _run([program, "-I", "-c", _PROBE], f"asking {python} where it is")
    if done.returncode or not done.stdout:
        raise Refused(f"--python {python}: no Python that works: {done.stderr.decode().strip()}; name another")
    told: dict[str, Any] = json.loads(done.stdout)
    prefix = Path(told["prefix"]).resolve()
    short = ".".join(told["version"].split(".")[:2])
    folders = [Path(folder).resolve() for folder in dict.fromkeys(told["folders"])]
    if outside := [folder for folder in folders if not folder.is_relative_to(prefix)]:
        raise Refused(f"--python {python}: {outside[0]}: not below {prefix}, so that it cannot be moved; name another")
    library = None
    if told["library"]:
        places = [prefix / "lib", prefix / "lib64", Path(told["libraries"])]
        library = next((place / told["library"] for place in places if (place / told["library"]).is_file()), None)
    return Interpreter(prefix / "bin" / f"python{short}", folders, prefix, library, told["version"], told["machine"])


def code_files(image: str) -> list[str]:
    """What the service is made of, as paths of model-src/: what its image copies from there."""
    sources = [name for match in _COPIED.finditer(image) for name in match["sources"].split()]
    return [name.rstrip("/") for name in sources if not name.startswith("requirements")]


def fill(folder: Path, found: Interpreter, code: Path, about: About, system: elf.System) -> None:
    """Makes what the archive has in a folder. `code` is a model-src/ with the lock and the service's code alone.

    Raises Refused when a package cannot be installed, or when something could not be loaded on the system.
    """
    python = folder / "python"
    (python / "bin").mkdir(parents=True)
    (python / "lib").mkdir()
    shutil.copyfile(found.program, python / "bin/python3")
    (python / "bin/python3").chmod(0o755)
    if found.library:
        shutil.copyfile(found.library, python / "lib" / found.library.name)
    for stdlib in found.folders:
        shutil.copytree(stdlib, python / stdlib.relative_to(found.prefix), ignore=_LEFT_OUT, dirs_exist_ok=True)
    packages = python / found.folders[0].relative_to(found.prefix) / "site-packages"
    _install(found, code / Path(LOCK).name, packages)
    shutil.copytree(code, folder / "app", ignore=shutil.ignore_patterns(Path(LOCK).name))
    (folder / "service.json").write_text(json.dumps(asdict(about), indent=2) + "\n")
    if faults := [*elf.faults(folder, system, found.machine)]:
        how = "pack on an older system, or with a Python and wheels that are made for it"
        raise Refused(*[f"{fault}; {how}" for fault in faults])
    _compile(folder)
    _try(folder)


def _install(found: Interpreter, lock: Path, packages: Path) -> None:
    command = [
        str(found.program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps",
        "--only-binary", ":all:", "--require-hashes", "--target", str(packages), "--requirement", str(lock),
    ]  # fmt: skip
    done = _run(command, "installing the packages of the service", times=waiting.WORK)
    if done.returncode:
        said = [line for line in done.stderr.decode().splitlines() if line.strip()]
        raise Refused(*[f"{LOCK}: {line}" for line in said or ["pip failed"]])
    # Programs of packages, which name the interpreter that installed them.
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for name in _OF_INSTALLATION:
        for file in packages.glob(f"*.dist-info/{name}"):
            file.unlink()


def _compile(folder: Path) -> None:
    """Bytecode that is taken as it is: whoever could change it could change the source."""
    options = ["--invalidation-mode", "unchecked-hash", "-q", "-s", str(folder), "-p", PLACE]
    # Some packages have files for other Pythons, which this one does not understand.
    _run([*_packed(folder), "-m", "compileall", *options, str(folder)], "compiling", env=_variables(folder))


def _try(folder: Path) -> None:
    """Raises Refused unless the service starts from the folder as far as its help, and all of it can be imported."""
    for module, options in (("serving", ["--help"]), ("serving.journal", None)):
        command = ["-m", module, *options] if options else ["-c", f"import {module}"]
        done = _run([*_packed(folder), *command], f"trying {module}", cwd=folder / "app", env=_variables(folder))
        if done.returncode:
            said = done.stderr.decode().strip().splitlines()
            raise Refused(f"{SOURCE}/{module}: does not start from the archive: {said[-1] if said else 'no word'}")


def _packed(folder: Path) -> list[str]:
    return [str(folder / "python/bin/python3"), "-B", "-s"]


def _variables(folder: Path) -> dict[str, str]:
    """Those of the instance, and what makes bytecode the same each time."""
    return {"LD_LIBRARY_PATH": str(folder / "python/lib"), "PYTHONHASHSEED": "0", "PATH": os.defpath}


def _run(command: Sequence[str], what: str, times: float = waiting.ANSWER, **options: Any) -> Any:
    remedy = "run the command again"
    return waiting.run(command, what, remedy, times, capture_output=True, **options)


def write(folder: Path, archive: Path) -> None:
    """The archive of a folder, whose bytes tell nothing of when, where or by whom it was made."""
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in _sorted(folder):
            entry = tar.gettarinfo(path, path.relative_to(folder).as_posix())
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "root", "root"
            entry.mode = 0o755 if path.is_dir() or path.parent.name == "bin" else 0o644
            if path.is_dir():
                tar.addfile(entry)
                continue
            with path.open("rb") as content:
                tar.addfile(entry, content)


def _sorted(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())

"""pack_service.py: the same bytes again, what is refused, and what is stored. The service and its lock are small ones."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import BUCKET, S3, Result, git, run

from gitops.programs import elf, service_archive

from contract.errors import Refused

# What runs the tests may be made for a newer system than instances have.
HERE = ("--glibc", "99.0")
CODE = {
    "model-src/Dockerfile": "FROM python\nCOPY requirements-serve.txt .\nCOPY --from=build /venv /venv\n"
    "COPY contract/ contract/\nCOPY serving/ serving/\n",
    "model-src/contract/__init__.py": "WORD = 'agreed'\n",
    "model-src/serving/__init__.py": "",
    "model-src/serving/__main__.py": "import small\nfrom contract import WORD\nprint(WORD, small.VALUE)\n",
    "model-src/serving/journal.py": "",
    "model-src/lifecycle/__init__.py": "",
}


def wheel(folder: Path, name: str = "small", more: dict[str, bytes] | None = None) -> str:
    """A package with a module and a program, and the line of a lock that names it."""
    files = {
        f"{name}.py": b"VALUE = 42\n",
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{name}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}-1.0.dist-info/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n".encode(),
    } | (more or {})
    record = "".join(f"{path},sha256={_hash(data)},{len(data)}\n" for path, data in files.items())
    files[f"{name}-1.0.dist-info/RECORD"] = f"{record}{name}-1.0.dist-info/RECORD,,\n".encode()
    file = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a small service, whose packages are in a folder and nowhere else."""
    root, wheels = tmp_path / "repository", tmp_path / "wheels"
    wheels.mkdir()
    lock = wheel(wheels)
    for path, text in {**CODE, "model-src/requirements-serve.txt": lock}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    git(root, "init", "-q", "-b", "main")
    commit(root)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return root


@pytest.fixture(autouse=True)
def _little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the standard library only what this service needs is compiled, and little is copied: it takes as long as all
    else together."""
    ignored = service_archive._LEFT_OUT
    more = shutil.ignore_patterns("asyncio", "ctypes", "distutils", "email", "multiprocessing", "unittest", "xml*")

    def left_out(folder: str, names: list[str]) -> set[str]:
        return ignored(folder, names) | more(folder, names)

    monkeypatch.setattr(service_archive, "_LEFT_OUT", left_out)


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Service")


def pack(root: Path, *options: str) -> Result:
    return run("pack_service", "--root", root, "--bucket", f"s3://{BUCKET}", *HERE, *options)


def told(done: Result) -> dict[str, Any]:
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_the_same_inputs_are_the_same_archive_which_is_stored_once_and_serves(
    service: Path, s3: S3, tmp_path: Path
) -> None:
    planned = told(pack(service, "--json", "--dry-run"))
    assert s3.keys() == []
    # What does not belong to the service changes nothing, nor does where the checkout lies.
    moved = tmp_path / "moved"
    shutil.copytree(service, moved)
    (moved / "model-src/lifecycle/__init__.py").write_text("# other\n")
    commit(moved)

    first, again = told(pack(service, "--json")), told(pack(moved, "--json"))

    assert (planned["added"], first["added"], again["added"]) == (False, True, False)
    assert planned["uri"] == first["uri"] == again["uri"]
    key = first["uri"].removeprefix(f"s3://{BUCKET}/")
    data = s3.objects()[key][0]
    assert key == f"services/{hashlib.sha256(data).hexdigest()}.tar.gz"
    assert first["code_commit"] == git(service, "rev-parse", "HEAD")
    with tarfile.open(s3.files / key) as tar:
        entries = tar.getmembers()
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    assert {(entry.mtime, entry.uid, entry.gid) for entry in entries} == {(0, 0, 0)}
    names = {entry.name for entry in entries}
    assert {"app/contract/__init__.py", "app/serving/__main__.py", "service.json"} <= names
    assert not [name for name in names if "lifecycle" in name or "requirements" in name or name.endswith("/RECORD")]
    unpacked = tmp_path / "unpacked"
    python = [str(unpacked / "python/bin/python3"), "-m", "serving"]
    variables = {"LD_LIBRARY_PATH": str(unpacked / "python/lib")}
    served = subprocess.run(python, cwd=unpacked / "app", env=variables, capture_output=True, text=True)
    assert (served.stdout, served.stderr) == ("agreed 42\n", "")


def test_stored_bytes_of_another_archive_are_found(service: Path, s3: S3) -> None:
    uri = told(pack(service, "--json"))["uri"]
    file = s3.files / uri.removeprefix(f"s3://{BUCKET}/")
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)

    done = pack(service)

    assert (done.code, done.out) == (1, "")
    assert uri in done.err


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model-src/serving/__main__.py": "import absent\n"}, "does not start from the archive: ModuleNotFoundError"),
        ({"model-src/requirements-serve.txt": f"small==1.0 --hash=sha256:{'0' * 64}\n"}, "DO NOT MATCH"),
        ({"model-src/requirements-serve.txt": "small==1.0\n"}, "model-src/requirements-serve.txt: ERROR: Hashes are"),
        ({"model-src/Dockerfile": "COPY nothing/ nothing/\n"}, "model-src/nothing: not in the last commit"),
    ],
    ids=["import", "hash", "no hash", "no code"],
)
def test_what_could_not_be_served_is_refused(change: dict[str, str], error: str, service: Path, s3: S3) -> None:
    for path, text in change.items():
        (service / path).write_text(text)
    commit(service)

    done = pack(service)

    assert (done.code, done.out) == (1, "")
    assert error in done.err
    assert s3.keys() == []


def test_code_that_is_not_committed_is_refused(service: Path) -> None:
    (service / "model-src/serving/new.py").write_text("")

    done = pack(service)

    assert done.code == 1
    assert "model-src/serving/new.py: uncommitted change" in done.err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--python", "absent-python"], "--python absent-python: no such program"),
        (["--python", "true"], "--python true: no Python that works"),
        (["--glibc", "new"], "--glibc new: no version"),
    ],
)
def test_what_the_command_is_given_wrong_is_refused(options: list[str], error: str, service: Path) -> None:
    done = pack(service, *options)

    assert (done.code, done.out) == (1, "")
    assert error in done.err


def test_what_is_too_new_for_the_instances_is_refused_by_its_file(service: Path) -> None:
    done = run("pack_service", "--root", service, "--bucket", f"s3://{BUCKET}", "--glibc", "2.2", "--dry-run")

    assert done.code == 1
    assert "error: python/bin/python3: needs GLIBC 2." in done.err
    assert "and Amazon Linux 2023 has 2.2; pack on an older system" in done.err


# Compiled files


def test_what_a_program_needs_is_what_its_own_tools_say() -> None:
    found = elf.needs(Path(sys.executable).resolve())

    assert found
    assert "libc.so.6" in found.libraries
    assert found.symbols["GLIBC"] >= (2, 2, 5)
    assert elf.needs(Path(__file__)) is None


def test_a_library_that_the_system_lacks_is_named_unless_it_is_packed(tmp_path: Path) -> None:
    program = Path(sys.executable).resolve()
    shutil.copy(program, tmp_path / "program")
    machine = subprocess.run(["uname", "-m"], stdout=subprocess.PIPE, text=True).stdout.strip()
    bare = replace(elf.AMAZON_LINUX_2023, libraries=frozenset(), versions={})

    assert "program: needs libc.so.6, which Amazon Linux 2023 does not have" in elf.faults(tmp_path, bare, machine)
    assert any("and not for other" in fault for fault in elf.faults(tmp_path, bare, "other"))
    shutil.copy(program, tmp_path / "libc.so.6")
    assert not any("needs libc.so.6" in fault for fault in elf.faults(tmp_path, bare, machine))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "module.so").write_bytes(b"\x7fELF and nothing more")

    with pytest.raises(Refused, match=r"module\.so: a damaged program"):
        elf.needs(tmp_path / "module.so")

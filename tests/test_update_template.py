"""A fork and the newer template: what comes, what stays, and what is refused."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, Checkout, Result, git
from test_init_fork import ARGS

from gitops.repo import layout
from gitops.repo.template import RECORD, Record, read_record, sides

DEPLOYMENT = "base/api/deployment.yaml"
Files = Mapping[str, str | bytes | Path | None]
"""New texts by path; None deletes a file, and a Path makes a link to it."""


@dataclass
class Fork:
    """A fork, with the template that it came from as the remote `template`."""

    clone: Checkout
    template: Checkout
    """Whose remote is the template; this clone makes its commits."""

    def release(self, files: Files, *, more: Callable[[Path], object] | None = None) -> str:
        """A newer template: these files changed, or (None) deleted."""
        put(self.template, files)
        if more:
            more(self.template.root)
        return self.template.commit("A newer template", push=True)

    def change(self, files: Files, branch: str = "main") -> None:
        """A commit of the fork's own, pushed."""
        self.clone.git("checkout", "-q", branch)
        put(self.clone, files)
        self.clone.commit("Our own", push=True)

    def update(self, *args: str) -> Result:
        return self.clone.run("update_template", *args)

    def updated(self) -> list[str]:
        """Updates main and then cicd, each pull request merged by a squash; returns the branches."""
        branches = []
        for branch in ("main", "cicd"):
            done = self.update("--push")
            assert done.code == 0, done.err
            name = done.err.partition("pushed ")[2].partition(";")[0]
            assert name.startswith(f"update/{branch}-")
            self.squash(name, branch)
            branches.append(name)
        return branches

    def squash(self, name: str, branch: str) -> None:
        """As the button of a pull request does."""
        self.clone.git("fetch", "-q", "origin")
        self.clone.git("checkout", "-q", "-B", branch, f"origin/{branch}")
        self.clone.git("merge", "-q", "--squash", f"origin/{name}")
        self.clone.commit(f"Squashed {name}", push=True)

    def show(self, branch: str, path: str) -> str:
        return self.clone.git("show", f"origin/{branch}:{path}")

    def has(self, branch: str, path: str) -> bool:
        return path in self.clone.git("ls-tree", "-r", "--name-only", f"origin/{branch}", path).splitlines()


def put(checkout: Checkout, files: Files) -> None:
    for path, data in files.items():
        if data is None or isinstance(data, Path):
            (checkout.root / path).unlink(missing_ok=data is not None)
        if isinstance(data, Path):
            (checkout.root / path).symlink_to(data)
        elif data is not None:
            checkout.write(path, data)


def edited(checkout: Checkout, path: str, old: str, new: str) -> dict[str, str | bytes | None]:
    text = checkout.read(path).decode()
    assert text.count(old) == 1, path
    return {path: text.replace(old, new)}


ENGINE = {
    "tools/one.txt": "".join(f"{n}\n" for n in range(30)),
    "tools/two.txt": "".join(f"two {n}\n" for n in range(30)),
    "tools/run.sh": "echo\n",
    "tools/picture.png": b"\x89PNG\0\1",
}


@pytest.fixture(scope="module")
def prepared(template: Path, environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template, and a fork of its main that was made its owner's own."""
    folder = tmp_path_factory.mktemp("fork")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - environment.keys() - {"PYTEST_CURRENT_TEST"}:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        one_branch = ("clone", "-q", "--bare", "--branch", "main", "--single-branch")
        git(folder, *one_branch, str(template), "template.git")
        git(folder, "clone", "-q", "template.git", "template")
        put(Checkout(folder / "template", folder), ENGINE)
        Checkout(folder / "template", folder).commit("Tools", push=True)
        git(folder, *one_branch, "template.git", "remote.git")
        git(folder, "clone", "-q", "remote.git", "clone")
        done = Checkout(folder / "clone", folder / "remote.git").run("init_fork", *ARGS, "--push")
        assert done.code == 0, done.err
    return folder


@pytest.fixture
def fork(prepared: Path, tmp_path: Path) -> Fork:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True, symlinks=True)
    git(tmp_path / "template", "remote", "set-url", "origin", str(tmp_path / "template.git"))
    git(tmp_path / "clone", "remote", "set-url", "origin", str(tmp_path / "remote.git"))
    git(tmp_path / "clone", "remote", "add", "template", str(tmp_path / "template.git"))
    return Fork(
        Checkout(tmp_path / "clone", tmp_path / "remote.git"),
        Checkout(tmp_path / "template", tmp_path / "template.git"),
    )


def own_life(fork: Fork) -> None:
    """The fork retires an app of the sample, renames another, and changes a line of the engine and one of a shape."""
    clone = fork.clone
    for branch in ("main", "cicd"):
        clone.git("checkout", "-q", branch)
        clone.replace("Makefile", "help: ## what there is", "help: ## what we have")
        clone.commit("Our own help", push=True)
    clone.git("rm", "-qr", "apps/lily-batch", *(f"overlays/{name}/lily-batch" for name in ("dev", "staging", "prod")))
    for folder in ("apps", "overlays/dev", "overlays/staging", "overlays/prod"):
        clone.git("mv", f"{folder}/lily-api", f"{folder}/rose")
    for path in clone.git("grep", "-l", "lily-api", "--", "apps", "overlays").splitlines():
        clone.write(path, clone.read(path).replace(b"lily-api", b"rose"))
    clone.replace(DEPLOYMENT, "memory: 384Mi", "memory: 600Mi")
    clone.commit("Our own apps", push=True)


# What comes, and what stays


def test_two_updates_reach_both_branches_and_leave_what_is_the_forks(fork: Fork) -> None:
    own_life(fork)
    there, clone = fork.template, fork.clone
    newest = fork.release(
        {
            **edited(there, "Makefile", "demo: ## from", "demo: ## now from"),
            **edited(there, "apps/lily-api/kustomization.yaml", "resources:", "# Newer.\nresources:"),
            **edited(there, "apps/lily-batch/kustomization.yaml", "resources:", "# Newer.\nresources:"),
            **edited(there, "apps/lily-sklearn/kustomization.yaml", "resources:", "# Newer.\nresources:"),
            **edited(there, "argocd/project-dev.yaml", "    - https://", "    # Ours.\n    - https://"),
            **edited(there, DEPLOYMENT, "apiVersion: apps/v1", "# Newer.\napiVersion: apps/v1"),
            **edited(there, "overlays/promotion.yaml", "model_bucket:", "# Newer.\nmodel_bucket:"),
            "model-src/packing/new.py": "NEW = 1\n",
            "apps/tulip/kustomization.yaml": "# a new sample\n",
            "overlays/dev/lily-batch/more.yaml": "# of a retired app\n",
            "scripts/new.py": "NEW = 1\n",
        }
    )

    main, cicd = fork.updated()

    for branch in ("main", "cicd"):
        record = read_record(fork.show(branch, RECORD).encode() + b"\n")
        assert record is not None
        assert (record.commit, record.values["bucket"]) == (newest, "acme-models")
        makefile = fork.show(branch, "Makefile")
        assert "help: ## what we have" in makefile
        assert "demo: ## now from" in makefile
        assert "# Ours.\n    - https://github.com/acme/models.git" in fork.show(branch, "argocd/project-dev.yaml")
        assert fork.has(branch, "scripts/new.py")
        assert not fork.has(branch, "apps/tulip/kustomization.yaml")
        assert "# Newer." in fork.show(branch, "apps/lily-sklearn/kustomization.yaml")
        assert "# Newer." not in fork.show(branch, "overlays/promotion.yaml")
        deployment = fork.show(branch, DEPLOYMENT)
        assert "# Newer." in deployment
        assert ("memory: 600Mi" in deployment) == (branch == "cicd")
    for path in ("apps/lily-batch/kustomization.yaml", "overlays/dev/lily-batch/more.yaml", "apps/lily-api"):
        assert not fork.has("cicd", path)
    assert "# Newer." not in fork.show("cicd", "apps/rose/kustomization.yaml")
    first, second = clone.git("log", "--reverse", "--format=%s", f"origin/cicd^..origin/{cicd}").splitlines()
    assert first.startswith("Import model code: Squashed update/main-")
    assert second == f"Update the template to {newest[:12]}"
    assert clone.git("rev-parse", "origin/cicd:model-src") == clone.git("rev-parse", "origin/main:model-src")
    assert main.endswith(newest[:12])

    assert f"have template/main at {newest[:12]} already" in fork.update("--push").err
    done = clone.run("validate", "--changed-since", "origin/cicd^")
    assert done.code == 0, done.err

    fork.release({"scripts/new.py": "NEW = 2\n", **edited(there, "Makefile", "demo: ## now", "demo: ## as ever")})
    fork.updated()
    assert fork.show("cicd", "scripts/new.py") == "NEW = 2"
    assert "help: ## what we have" in fork.show("cicd", "Makefile")
    done = clone.run("validate")
    assert done.code == 0, done.err


def test_what_is_left_to_the_owner_is_named_with_the_command_that_shows_it(fork: Fork) -> None:
    before = fork.template.git("rev-parse", "HEAD")
    newest = fork.release(edited(fork.template, "overlays/promotion.yaml", "model_bucket:", "# Newer.\nmodel_bucket:"))

    done = fork.update()

    command = f"git diff {before[:12]} {newest[:12]} -- overlays/promotion.yaml"
    assert f"overlays/promotion.yaml: stays; `{command}` shows what the template changed" in done.err
    assert "+# Newer." in fork.clone.git(*command.split()[1:])
    assert fork.clone.git("diff", "--name-only", "main", f"update/main-{newest[:12]}") == RECORD


@pytest.mark.parametrize(
    ("made", "changed"),
    [
        (lambda root: (root / "tools/run.sh").chmod(0o755), "100755 tools/run.sh"),
        (lambda root: (root / "tools/picture.png").write_bytes(b"\x89PNG\0\2"), "100644 tools/picture.png"),
        (lambda root: (root / "tools/link").symlink_to("one.txt"), "120000 tools/link"),
        (lambda root: (root / "tools/two.txt").rename(root / "tools/2.txt"), "100644 tools/2.txt"),
    ],
    ids=["mode", "binary", "link", "rename"],
)
def test_every_kind_of_change_comes_as_it_was_made(fork: Fork, made: Callable[[Path], object], changed: str) -> None:
    fork.change({"tools/two.txt": "ours\n" + str(ENGINE["tools/two.txt"])})
    newest = fork.release({}, more=made)

    assert fork.update().code == 0

    mode, path = changed.split()
    listed = fork.clone.git("ls-tree", f"update/main-{newest[:12]}", path).split()
    assert (listed[0], listed[3]) == (mode, path)
    if path == "tools/2.txt":
        assert fork.clone.git("show", f"update/main-{newest[:12]}:{path}").startswith("ours\n")
    elif mode != "120000":
        assert listed[2] == fork.template.git("rev-parse", f"HEAD:{path}")


# What the fork and its commands write, and nobody else.
RECORDS = f"overlays/d/a/hold.yaml overlays/d/retired.yaml {layout.WITHDRAWN} {layout.CODEOWNERS}"


@pytest.mark.parametrize(
    ("old", "new", "fork", "renamed", "changed"),
    [
        ("apps/a/k base/s/k tools/x", "apps/a/k* base/s/k* tools/x*", "apps/a/k base/s/k tools/x", {},
         "apps/a/k* base/s/k* tools/x*"),
        ("apps/a/k tools/x", "apps/a/k* tools/x*", "Makefile", {}, ""),
        ("apps/a/k apps/a/r", "apps/a/k*", "apps/a/k apps/a/r", {}, "apps/a/k* -apps/a/r"),
        ("apps/a/k", "", "apps/a/k", {}, ""),
        ("overlays/d/a/k overlays/d/shared/k", "overlays/d/shared/k* overlays/d/shared/n",
         "overlays/d/a/k overlays/d/shared/k", {}, "overlays/d/shared/k* overlays/d/shared/n"),
        ("overlays/d/a/release.yaml", "overlays/d/a/release.yaml*", "overlays/d/a/release.yaml", {}, ""),
        ("overlays/promotion.yaml", "", "overlays/promotion.yaml", {}, ""),
        (RECORDS, f"{RECORDS.replace(' ', '* ')}*", RECORDS, {}, ""),
        ("overlays/d/a/k overlays/d/a/hold.yaml overlays/d/b/k", "overlays/d/a/k overlays/d/b/k overlays/d/b/hold.yaml",
         "overlays/d/a/k overlays/d/a/hold.yaml overlays/d/b/k", {}, ""),
        ("apps/a/k", "apps/b/k overlays/d/b/k model-src/models/b/m", "apps/a/k", {"apps/b/k": "apps/a/k"}, ""),
        ("base/s/k", "base/s/k base/t/k argocd/platform/p/k", "base/s/k", {}, "base/t/k argocd/platform/p/k"),
        ("base/s/k base/t/k", "base/s/k base/t/n", "base/s/k", {}, ""),
        ("base/s/k", "", "base/s/k", {}, ""),
        ("tools/x tools/y", "tools/y", "tools/x tools/y", {}, "-tools/x"),
        ("tools/x", "tools/z", "Makefile", {"tools/z": "tools/x"}, ""),
        ("argocd/project-d.yaml argocd/k", "argocd/project-q.yaml argocd/k* argocd/n", "argocd/project-d.yaml argocd/k",
         {}, "argocd/k* argocd/n"),
        ("model-src/models/a/m model-src/p", "model-src/models/a/m* model-src/p*", "model-src/models/a/m model-src/p",
         {}, "model-src/models/a/m* model-src/p*"),
    ],
)  # fmt: skip
def test_what_a_newer_template_makes_of_a_fork(
    old: str, new: str, fork: str, renamed: dict[str, str], changed: str
) -> None:
    """`*` marks a file that the new template has otherwise, `-` one that it takes away."""

    def tree(words: str) -> dict[str, tuple[str, str]]:
        return {word.rstrip("*"): ("100644", "2" if word.endswith("*") else "1") for word in words.split()}

    base, theirs = sides(tree(old), tree(new), tree(fork), renamed)

    found = {f"{path}*" if path in base else path for path in theirs if theirs[path] != base.get(path)}
    assert found | {f"-{path}" for path in base.keys() - theirs.keys()} == set(changed.split())
    assert base.keys() <= tree(fork).keys()


# What is refused


CONFLICTS = {
    "both changed one line": (
        {"tools/one.txt": "ours\n"},
        {"tools/one.txt": "theirs\n"},
        "tools/one.txt: changed here and in the template; the commands above take the template's file,",
        ("tools/one.txt", "theirs"),
    ),
    "deleted upstream, changed here": (
        {"tools/one.txt": "ours\n"},
        {"tools/one.txt": None},
        "tools/one.txt: the template deleted or moved what this fork changed; the commands above take the template's",
        ("tools/one.txt", None),
    ),
    "a file of the fork's own": (
        {"base/api/kustomization.yaml": "# ours\n"},
        {"base/api/kustomization.yaml": "# theirs\n"},
        "base/api/kustomization.yaml: changed here and in the template; the commands above take this fork's file,",
        ("base/api/kustomization.yaml", "# ours"),
    ),
    "deleted upstream, the fork's own": (
        {"base/api/ingress.yaml": "# ours\n"},
        {"base/api/ingress.yaml": None},
        "base/api/ingress.yaml: the template deleted or moved what this fork changed; the commands above take this",
        ("base/api/ingress.yaml", "# ours"),
    ),
    "a link in the place of a file": (
        {"tools/one.txt": "ours\n"},
        {"tools/one.txt": Path("two.txt")},
        "tools/one.txt",
        ("tools/one.txt", str(ENGINE["tools/two.txt"]).strip()),
    ),
    "a folder in the place of a file": (
        {"tools/one.txt": "ours\n"},
        {"tools/one.txt": None, "tools/one.txt/x": "theirs\n"},
        "tools/one.txt",
        ("tools/one.txt/x", "theirs"),
    ),
    "made on both sides": (
        {"tools/new one.txt": "ours\n"},
        {"tools/new one.txt": "theirs\n"},
        "tools/new one.txt: made here and in the template; the commands above take the template's file,",
        ("tools/new one.txt", "theirs"),
    ),
    "binary": (
        {"tools/picture.png": b"\x89PNG\0ours"},
        {"tools/picture.png": b"\x89PNG\0them"},
        "tools/picture.png: changed here and in the template; the commands above take the template's file,",
        ("tools/picture.png", "\x89PNG\0them"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFLICTS)
def test_a_conflict_is_refused_with_the_commands_that_merge_it(fork: Fork, case: str) -> None:
    ours, theirs, line, (path, content) = CONFLICTS[case]
    fork.change(ours)
    newest = fork.release({**theirs, "scripts/new.py": "NEW = 1\n"})
    fork.update("--dry-run")  # which fetches
    before = fork.clone.state()

    done = fork.update("--push")

    assert done.code == 1
    assert [error for error in done.errors if error.startswith(line)] == done.errors
    assert fork.clone.state() == before
    for command in (text.strip() for text in done.err.splitlines() if text.startswith("  git ")):
        ran = subprocess.run(shlex.split(command), cwd=fork.clone.root, capture_output=True, text=True)
        # It stops at what conflicts.
        assert ran.returncode == int(" cherry-pick " in command and "--continue" not in command), ran.stderr
    name = f"update/main-{newest[:12]}"
    assert fork.clone.tip(name) == fork.clone.git("rev-parse", "HEAD")
    assert fork.clone.git("status", "--porcelain") == ""
    assert (fork.clone.root / "scripts/new.py").exists()
    assert (fork.clone.root / path).exists() == (content is not None)
    if content is not None:
        assert fork.clone.read(path).decode("latin-1").strip() == content
    fork.squash(name, "main")
    assert f"update/cicd-{newest[:12]}" in fork.update("--push").err


# Where the fork is


def without_record(fork: Fork, branch: str, *, parents: bool) -> None:
    """The branch as a fork has it that was made before there were records, or as a copy (no parents)."""
    clone = fork.clone
    clone.git("checkout", "-q", branch)
    clone.git("rm", "-q", RECORD)
    clone.commit("No record")
    if not parents:
        root = clone.git("commit-tree", "-m", "Copied", f"{fork.template.git('rev-parse', 'HEAD')}^{{tree}}")
        made = clone.git("commit-tree", "-p", root, "-m", "Our values", "HEAD^{tree}")
        clone.git("reset", "-q", "--hard", made)
    clone.git("push", "-q", "-f", "origin", branch)


@pytest.mark.parametrize("parents", [True, False], ids=["old fork", "copy"])
def test_where_a_fork_is_shows_without_a_record(fork: Fork, parents: bool) -> None:
    fork.clone.git("fetch", "-q", "template")
    for branch in ("main", "cicd"):
        without_record(fork, branch, parents=parents)
    newest = fork.release({"scripts/new.py": "NEW = 1\n"})

    fork.updated()

    record = read_record(fork.show("cicd", RECORD).encode() + b"\n")
    assert record is not None
    assert record.commit == newest
    assert record.values["bucket"] == "acme-models"
    assert "bucket: acme-models" in fork.show("cicd", "overlays/promotion.yaml")


def test_a_fork_that_shows_nothing_needs_the_commit_once(fork: Fork) -> None:
    clone = fork.clone
    base = fork.template.git("rev-parse", "HEAD")
    for branch in ("main", "cicd"):
        clone.git("checkout", "-q", branch)
        clone.git("rm", "-q", RECORD)
        clone.git("reset", "-q", "--hard", clone.git("commit-tree", "-m", "Copied", clone.git("write-tree")))
        clone.git("push", "-q", "-f", "origin", branch)
    newest = fork.release({"scripts/new.py": "NEW = 1\n"})

    [line] = fork.update("--push").errors

    assert line.endswith("; name the newest one that this fork has with --base COMMIT")
    [line] = fork.update("--push", "--base", "origin/main").errors
    assert line.endswith(": not in the history of template/main; name the newest one that this fork has")
    for branch in ("main", "cicd"):
        assert fork.update("--push", "--base", base).code == 0
        fork.squash(f"update/{branch}-{newest[:12]}", branch)
    assert "already" in fork.update("--push").err
    assert json.loads(fork.update("--push", "--json").out) == {
        "branch": None, "to": None, "from": None, "commit": None, "template": newest, "files": [], "left_out": [],
        "dry_run": False,
    }  # fmt: skip


def test_a_merge_by_hand_counts_though_the_record_is_older(fork: Fork) -> None:
    clone = fork.clone
    newest = fork.release({"tools/one.txt": "theirs\n"})
    clone.git("fetch", "-q", "template")
    clone.git("checkout", "-q", "main")
    clone.git("merge", "-q", "--no-edit", "template/main")
    clone.git("push", "-q", "origin", "main")
    fork.change({"tools/one.txt": "ours since\n"})

    done = fork.update("--push")

    assert done.err.startswith(f"pushed update/cicd-{newest[:12]}")
    fork.squash(f"update/cicd-{newest[:12]}", "cicd")
    assert "already" in fork.update("--push").err
    fork.release({"scripts/new.py": "NEW = 1\n"})
    fork.updated()
    assert fork.show("main", "tools/one.txt") == "ours since"


def test_what_a_fork_did_before_init_is_its_own(fork: Fork) -> None:
    """The record then has a commit of the fork's own."""
    clone = fork.clone
    template = fork.template.git("rev-parse", "HEAD")
    clone.git("checkout", "-q", "-B", "main", template)
    put(clone, {"apps/rose/kustomization.yaml": "# ours\n", "tools/two.txt": None})
    clone.commit("Before init")
    clone.git("branch", "-D", "cicd")
    for name in ("main", "cicd"):
        clone.git("push", "-q", "origin", f":{name}" if name == "cicd" else f"+{name}")
    assert clone.run("init_fork", *ARGS, "--push").code == 0
    fork.release({"tools/one.txt": "theirs\n", "tools/two.txt": "theirs\n"})

    fork.updated()

    assert fork.show("cicd", "tools/one.txt") == "theirs"
    assert fork.has("cicd", "apps/rose/kustomization.yaml")
    assert not fork.has("cicd", "tools/two.txt")


def test_the_values_are_those_that_the_files_have_now(fork: Fork) -> None:
    """Of a value whose place the fork has deleted, it is the one that was given."""
    dns, domain = "argocd/platform/aws/external-dns.yaml", "value: lily-api.ml.acme.com"
    moved = fork.show("main", "argocd/root.yaml").replace("acme/models", "acme/fleet") + "\n"
    for branch in ("main", "cicd"):
        fork.change({dns: None, "argocd/root.yaml": moved.encode()}, branch)
    there = fork.template
    path = "overlays/prod/lily-api/kustomization.yaml"
    fork.release({
        **edited(there, path, "value: lily-api.ml.example.com", "value: lily-api.ml.example.com  # x"),
        "argocd/new.yaml": "a: https://github.com/example-org/model-gitops.git\n",
    })  # fmt: skip

    fork.updated()

    assert f"{domain}  # x" in fork.show("cicd", path)
    assert fork.show("cicd", "argocd/new.yaml") == "a: https://github.com/acme/fleet.git"


# Other refusals


def test_what_is_missing_is_named(fork: Fork) -> None:
    fork.clone.git("remote", "remove", "template")
    assert fork.update().errors == [
        "no remote `template`; add the template's repository with `git remote add template URL`"
    ]


def test_the_commands_of_contributing_do_it(fork: Fork) -> None:
    fork.clone.git("remote", "remove", "template")
    newest = fork.release({"scripts/new.py": "NEW = 1\n"})
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Take an update of the template")[2]
    add, update = text.partition("```sh\n")[2].partition("```")[0].splitlines()

    fork.clone.git(*add.partition("#")[0].replace("URL", str(fork.template.remote)).split()[1:])
    done = fork.update(*update.removeprefix("python scripts/update_template.py").split())

    assert done.code == 0, done.err
    assert fork.clone.tip(f"update/main-{newest[:12]}") == done.out.strip()


def test_a_record_of_a_commit_that_is_nowhere_is_refused(fork: Fork) -> None:
    fork.change({RECORD: Record("0" * 40).text})

    [line] = fork.update().errors

    assert line.startswith(f".template: commit: {'0' * 40}: not in this clone; template/main does not have it")


def test_a_branch_of_an_earlier_run_is_taken_up_or_named(fork: Fork) -> None:
    newest = fork.release({"scripts/new.py": "NEW = 1\n"})
    made = fork.update()
    name = f"update/main-{newest[:12]}"
    assert made.err.startswith(f"made {name}; next: git push origin {name}, open a pull request to main and merge it")

    assert fork.update("--push").out == made.out
    assert fork.clone.tip(name) == made.out.strip()
    fork.change({"notes.txt": "ours\n"})

    assert fork.update("--push").errors == [
        f"branch {name}: exists already; merge it, or drop it with `git branch -D {name}`"
    ]


def test_a_dry_run_lists_the_files_and_makes_nothing(fork: Fork) -> None:
    fork.release({"scripts/new.py": "NEW = 1\n"})
    fork.update("--dry-run")
    before = fork.clone.state()

    done = fork.update("--dry-run", "--push")

    assert done.out.split() == [RECORD, "scripts/new.py"]
    assert fork.clone.state() == before


def test_what_is_checked_out_stays(fork: Fork) -> None:
    fork.release({"tools/one.txt": "theirs\n"})
    fork.clone.write("tools/one.txt", "not committed\n")

    assert fork.update("--push").code == 0

    assert fork.clone.read("tools/one.txt") == b"not committed\n"

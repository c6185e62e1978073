"""The verdict of a branch's own scripts on a change that is looked at as data, as .github/workflows/judge.yml asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import IMAGE, REGISTRY, ROOT, S3, Checkout, git, make_checkout, package, run, write_release
from test_workflows import script

from gitops.checks import owners
from gitops.releases.release import Target
from gitops.repo.git import Git

API = "overlays/{}/lily-api/release.yaml"
OTHER = f"{REGISTRY}/lily-api@sha256:{'2' * 64}"


def merged(checkout: Checkout, change: Callable[[], object]) -> str:
    """Checks out the merge that GitHub makes of a pull request with this change; returns the commit that it is on."""
    base = checkout.git("rev-parse", "origin/cicd")
    checkout.git("checkout", "-q", "-B", "change", base)
    change()
    checkout.commit("A pull request")
    checkout.git("checkout", "-q", "--detach", base)
    checkout.git("merge", "-q", "--no-ff", "-m", "Merge", "change")
    return base


def verdict(checkout: Checkout, *more: str) -> list[str]:
    return checkout.run("validate", "--changed-since", "HEAD^1", *more).errors


def judged(folder: Path, environment: dict[str, str], base: str, event: str) -> subprocess.CompletedProcess[str]:
    """The step of the workflow as it stands, on the clone in this folder and another one of the commit `base`."""
    (folder / "clone").rename(folder / "tree")
    git(folder, "clone", "-q", str(folder / "remote.git"), "base")
    git(folder / "base", "checkout", "-q", base)
    (folder / "base/.venv").symlink_to(ROOT / ".venv")
    variables = {
        "BASE": base, "AUTHOR": "mallory", "GITHUB_EVENT_NAME": event,
        "GITHUB_SHA": git(folder / "tree", "rev-parse", "HEAD"),
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-e", "-c", script("judge", "judge", "validate.py")],
        cwd=folder / "base", env=environment | variables, capture_output=True, text=True,
    )  # fmt: skip


# Who judges


def test_a_change_of_the_judge_has_no_part_in_the_verdict_on_it(
    whole_template: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    tree = make_checkout(whole_template, tmp_path)
    ran = tmp_path / "ran"
    harm = f"open({str(ran)!r}, 'w').close()\nraise SystemExit(0)\n"

    def change() -> None:
        for path in (
            "scripts/validate.py", "scripts/gitops/__init__.py", "scripts/sitecustomize.py", "sitecustomize.py",
            "usercustomize.py", "yaml.py", "gitops/__init__.py", "model-src/contract/__init__.py",
        ):  # fmt: skip
            tree.write(path, harm)
        for path in tree.git("ls-files", "tools").split():
            tree.write(path, "no pin\n")
        for path in ("pip.conf", "uv.toml", ".python-version", ".envrc", "setup.cfg"):
            tree.write(path, "[install]\nindex-url = https://example.org\n")
        tree.replace("base/api/service.yaml", "port: 80", "prt: 80")

    base = merged(tree, change)
    done = judged(tmp_path, environment, base, "pull_request_target")

    assert done.returncode == 1
    assert "'prt' not allowed" in done.stderr
    assert {line.rpartition("[")[2] for line in done.stderr.splitlines()} == {"schema]"}
    assert not ran.exists()


def test_the_merge_that_is_judged_is_of_this_change_and_on_the_newest_branch(plain: Checkout, tmp_path: Path) -> None:
    base = merged(plain, lambda: plain.write("README.md", "changed\n"))
    head = plain.git("rev-parse", "HEAD^2")
    plain.root.rename(tmp_path / "tree")
    older = git(tmp_path / "tree", "commit-tree", "-m", "Elsewhere", f"{base}^{{tree}}")

    def answer(**variables: str) -> tuple[int, str]:
        output = tmp_path / "output"
        output.write_text("")
        known = {"NUMBER": "7", "HEAD": head, "BEFORE": "", "GITHUB_SHA": base, "GITHUB_OUTPUT": str(output)}
        done = subprocess.run(
            ["bash", "-e", "-c", script("judge", "judge", "rev-parse HEAD^1")],
            cwd=tmp_path, env=os.environ | known | variables, capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, output.read_text() or done.stdout

    assert answer() == (0, f"commit={base}\n")
    assert answer(HEAD=base) == (1, f"::error::the merge is not of {base}; run this job again\n")
    assert answer(GITHUB_SHA=head) == (1, "::error::the merge is on an older cicd; run this job again\n")
    assert answer(NUMBER="", BEFORE=base, GITHUB_SHA=head) == (0, f"commit={base}\n")
    assert answer(NUMBER="", BEFORE="0" * 40, GITHUB_SHA=head) == (0, f"commit={head}\n")
    assert answer(NUMBER="") == (1, "")
    git(tmp_path / "tree", "update-ref", "refs/remotes/origin/cicd", older)
    assert answer() == (1, "::error::the merge is not on cicd; run this job again\n")


# A green that is stale


@pytest.fixture
def overtaken(checkout: Checkout, s3: S3, tmp_path: Path) -> Checkout:
    """Production was rolled back to the first version after the promotion of a newer image had been found good."""
    first, second = (package(tmp_path / name, content=name) for name in ("one", "two"))
    for version in (first, second):
        s3.upload(version)

    everywhere = ("dev", "staging", "prod")
    for version, image, environments in (
        (first, IMAGE, everywhere), (second, IMAGE, everywhere), (second, OTHER, everywhere[:2]),
    ):  # fmt: skip
        for environment in environments:
            write_release(checkout.root, Target("lily-api", environment), version, "onnx", image)
            checkout.commit(f"{environment} {version.version}")
    checkout.git("push", "-q", "origin", "cicd")
    base = merged(checkout, lambda: write_release(checkout.root, Target("lily-api", "prod"), second, "onnx", OTHER))
    assert base == checkout.git("rev-parse", "HEAD^1")
    assert verdict(checkout) == []
    checkout.git("checkout", "-q", "cicd")
    done = checkout.run("rollback_model", "--app", "lily-api", "--env", "prod", "--reason", "wrong", "--push")
    assert done.code == 0, done.err
    checkout.git("checkout", "-q", "--detach", "origin/cicd")
    return checkout


HELD = (
    "overlays/prod/lily-api/hold.yaml: held by Test <test@example.org> since {}: wrong; when that is settled, run"
    " `python scripts/rollback_model.py --app lily-api --env prod --release-hold` [hold]"
)


def test_a_merge_that_breaks_a_hold_is_refused_and_what_mends_it_is_good(overtaken: Checkout, tmp_path: Path) -> None:
    overtaken.git("merge", "-q", "--no-ff", "-m", "Merge an old green", "change")
    assert overtaken.run("validate").code == 0

    done = overtaken.run("validate", "--changed-since", "HEAD^1", "--pushed")

    [line] = [line for line in done.errors if line.endswith("[hold]")]
    since = line.split(" since ")[1].partition(": ")[0]
    assert line == HELD.format(since)
    [mend] = [line for line in done.err.splitlines() if line.startswith("to mend cicd")]
    commit = overtaken.git("rev-parse", "HEAD")
    overtaken.git("push", "-q", "origin", "HEAD:cicd")
    shell(mend.partition("pull request: ")[2], overtaken, tmp_path)
    overtaken.git("fetch", "-q", "origin")
    branch = overtaken.git("for-each-ref", "--format=%(refname:short)", "refs/remotes/origin/rollback/prod/")
    assert overtaken.git("rev-parse", f"{branch}^1") == commit
    overtaken.git("checkout", "-q", branch)
    assert verdict(overtaken) == []
    assert IMAGE.encode() in overtaken.read(API.format("prod"))


def test_what_was_put_back_below_a_hold_is_put_on_top_again(overtaken: Checkout, tmp_path: Path) -> None:
    """A rollback that names nothing would find nothing below."""
    held, first = "overlays/prod/lily-api/hold.yaml", overtaken.read(API.format("prod"))
    overtaken.write(held, overtaken.read(held) + b"# again\n")
    overtaken.write(API.format("prod"), overtaken.git("show", "cicd^:" + API.format("prod")) + "\n")
    base = overtaken.commit("Forth, and held")
    overtaken.write(API.format("prod"), first)
    overtaken.commit("Back")
    overtaken.git("push", "-q", "origin", "HEAD:cicd")

    done = overtaken.run("validate", "--changed-since", base, "--pushed")

    [mend] = [line for line in done.err.splitlines() if line.startswith("to mend cicd")]
    shell(mend.partition("pull request: ")[2], overtaken, tmp_path)
    overtaken.git("fetch", "-q", "origin")
    branch = overtaken.git("for-each-ref", "--format=%(refname:short)", "refs/remotes/origin/rollback/prod/")
    assert overtaken.git("diff", base, branch, "--", API.format("prod")) == ""


def shell(command: str, checkout: Checkout, folder: Path) -> None:
    """Runs a printed command there, with the scripts of this checkout in the place of its own."""
    (folder / "bin").mkdir()
    program = folder / "bin/python"
    program.write_text(f'#!/bin/sh\ncommand="$1"; shift\nexec {sys.executable} {ROOT}/"$command" --root "$PWD" "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=checkout.root, env=os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", ["resources: []\n", "resources: [\n"], ids=["removal", "render"])
def test_any_other_fault_that_was_pushed_is_taken_back_as_a_whole(
    checkout: Checkout, tmp_path: Path, text: str
) -> None:
    base = merged(checkout, lambda: checkout.write("overlays/dev/lily-api/kustomization.yaml", text))
    checkout.git("push", "-q", "origin", "HEAD:cicd")
    commit = checkout.git("rev-parse", "HEAD")

    done = checkout.run("validate", "--changed-since", "HEAD^1", "--pushed")

    assert done.code == 1
    [command] = [line.partition("pull request: ")[2] for line in done.err.splitlines() if line.startswith("to mend")]
    shell(command, checkout, tmp_path)
    checkout.git("fetch", "-q", "origin")
    made = f"origin/take-back/{commit[:12]}"
    assert checkout.git("diff", base, made) == ""
    assert checkout.git("rev-parse", f"{made}^1") == commit


def test_each_merge_of_a_push_is_judged_against_the_one_before_it(
    whole_template: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Together, two promotions of a queue would look as if an environment had been skipped."""
    checkout = make_checkout(whole_template, tmp_path)
    made = package(tmp_path / "made")

    def release(environment: str) -> None:
        write_release(checkout.root, Target("lily-api", environment), made, "onnx", IMAGE)

    def merge(change: Callable[[], object]) -> str:
        merged(checkout, change)
        checkout.git("update-ref", "refs/remotes/origin/cicd", "HEAD")
        return checkout.git("rev-parse", "HEAD")

    release("dev")
    base = checkout.commit("Release in dev", push=True)
    merge(lambda: release("staging"))
    before = merge(lambda: release("prod"))
    wrong = merge(lambda: shutil.rmtree(checkout.root / "overlays/dev/lily-batch"))
    merge(lambda: checkout.write("README.md", "Ours\n"))

    done = judged(tmp_path, environment, base, "push")

    assert done.returncode == 1
    assert done.stdout.count(" rules hold\n") == 3
    [line] = [line for line in done.stderr.splitlines() if line.startswith("to mend")]
    assert f"git checkout --detach {wrong} && git restore --source={before} " in line


def test_a_pull_that_was_pushed_is_judged_from_what_the_branch_was_before(
    whole_template: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    checkout = make_checkout(whole_template, tmp_path)
    one, two = (package(tmp_path / name, name) for name in ("one", "two"))
    start = checkout.git("rev-parse", "HEAD")
    write_release(checkout.root, Target("lily-sklearn", "dev"), one, "sklearn")
    base = checkout.commit("Theirs", push=True)
    checkout.git("reset", "-q", "--hard", start)
    # The first of them is tried here and never runs.
    for version in (one, two):
        write_release(checkout.root, Target("lily-api", "dev"), version, "onnx", IMAGE)
        checkout.commit("Mine")
    checkout.git("pull", "-q", "--no-rebase", "--no-edit", "origin", "cicd")
    assert checkout.run("validate", "--changed-since", base, "--pushed").errors == []
    checkout.git("commit", "-q", "--amend", "-m", "In words that tell nothing")
    checkout.git("push", "-q", "origin", "HEAD:cicd")
    # Where it is judged, nobody has seen what the branch was.
    (checkout.root / ".git/logs/refs/remotes/origin/cicd").unlink()

    done = judged(tmp_path, environment, base, "push")

    [line, mend] = done.stderr.splitlines()
    assert line.startswith(f"error: cicd: {base[:12]} was its tip before this push, and ")
    assert line.endswith("[history]")
    subprocess.run(["bash", "-ec", mend.partition("run this: ")[2]], cwd=tmp_path / "base", check=True)
    assert git(tmp_path / "remote.git", "rev-parse", "cicd^1") == base
    assert git(tmp_path / "remote.git", "diff", "cicd^2", "cicd") == ""


def test_a_push_of_which_the_start_is_not_known_does_not_pass(
    plain: Checkout, tmp_path: Path, environment: dict[str, str]
) -> None:
    base = plain.git("rev-parse", "HEAD")
    plain.git("checkout", "-q", "--orphan", "other")
    plain.commit("Forced")

    done = judged(tmp_path, environment, base, "push")

    assert (done.returncode, done.stderr) == (1, "")


# What a tree could do to those who read it


def link(checkout: Checkout, path: str, target: str) -> None:
    (checkout.root / path).unlink(missing_ok=True)
    (checkout.root / path).symlink_to(target)


def submodule(checkout: Checkout) -> None:
    """A commit of another repository in the index, as `git submodule add` puts it there, without its .gitmodules."""
    entry = f"160000,{checkout.git('rev-parse', 'HEAD')},apps/other"
    checkout.git("update-index", "--add", "--cacheinfo", entry)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda c: link(c, "overlays/promotion.yaml", "/etc/passwd"), "overlays/promotion.yaml"),
        (lambda c: link(c, API.format("prod"), "../../dev/lily-api/release.yaml"), API.format("prod")),
        (lambda c: link(c, "base/api/more", "../../.git"), "base/api/more"),
        (lambda c: link(c, ".github/CODEOWNERS", "../README.md"), ".github/CODEOWNERS"),
        (lambda c: c.write(".gitattributes", "* working-tree-encoding=UTF-16\n"), ".gitattributes"),
        (lambda c: c.write("overlays/.gitattributes", "*.yaml ident\n"), "overlays/.gitattributes"),
        (lambda c: c.write(".gitattributes", "[attr]harmless text eol=crlf\n* harmless\n"), ".gitattributes"),
        (lambda c: c.write("apps/lily-api/.gitattributes", "* filter=lfs\n"), "apps/lily-api/.gitattributes"),
        (lambda c: c.write(".gitattributes", "/argocd/** ident\n"), ".gitattributes"),
        (lambda c: c.write(".gitmodules", '[submodule "a"]\n\tpath = a\n\turl = ../a\n'), ".gitmodules"),
        (submodule, "apps/other"),
    ],
)
def test_files_that_are_others_for_those_who_read_them_are_refused(
    checkout: Checkout, change: Callable[[Checkout], None], where: str
) -> None:
    change(checkout)

    errors = checkout.run("validate", "--changed-since", "HEAD").errors

    assert errors, where
    assert {line.partition(": ")[0] for line in errors} == {where}
    assert all(line.endswith(" [sources]") for line in errors)


def test_what_is_rendered_is_among_what_is_compared_with_before(checkout: Checkout) -> None:
    """What lies elsewhere is in no export of a commit, and would look as if nothing had been there to be lost."""
    checkout.write("tools/service.yaml", "a: b\n")
    checkout.replace(
        "overlays/dev/environment/kustomization.yaml",
        "resources:\n",
        "resources:\n  - ../../../tools/service.yaml\n",
    )
    link(checkout, "key.pub", "tools/service.yaml")
    signing = "signing: {public_key: key.pub}\nenvironments:\n"
    checkout.replace("overlays/promotion.yaml", "environments:\n", signing)

    assert checkout.run("validate").errors == [
        "overlays/dev/environment: reads tools/service.yaml, which is no manifest of this repository's; put a copy into"
        " base/ [sources]",
        "key.pub: reached by a symbolic link; put a file in its place [sources]",
    ]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../../../service.yaml", "which is no manifest of this repository's"),
        (
            "../../../more//..///elsewhere/service.yaml",
            "by a path that is not written as ../FOLDER from the folder that names it, as all others can be found",
        ),
    ],
)
def test_what_no_commit_would_be_searched_for_is_not_read(checkout: Checkout, path: str, why: str) -> None:
    checkout.write("elsewhere/service.yaml", "a: b\n")
    checkout.write("more/text", "")
    checkout.write("service.yaml", "a: b\n")
    checkout.replace("overlays/dev/environment/kustomization.yaml", "resources:\n", f"resources:\n  - {path}\n")

    [error] = checkout.run("validate").errors

    name = os.path.normpath(path.removeprefix("../../../"))
    assert error == f"overlays/dev/environment: reads {name}, {why}; put a copy into base/ [sources]"


def test_attributes_that_change_no_deployed_file_are_nobodys_business(checkout: Checkout) -> None:
    checkout.write(
        ".gitattributes", "# ident filter\n* text=auto\n*.png binary\n/model-src/** filter=lfs\n*.py eol=lf -ident\n"
    )

    assert checkout.run("validate", "--changed-since", "HEAD").errors == []


def test_the_files_of_a_commit_are_not_converted_as_another_tree_asks(plain: Checkout, tmp_path: Path) -> None:
    """Else a change could have what was there before look as if it had not rendered."""
    plain.write("overlays/dev/note.txt", "$Id$\n")
    plain.write("overlays/dev/run", "#!/bin/sh\n")
    (plain.root / "overlays/dev/run").chmod(0o755)
    link(plain, "overlays/dev/link", "note.txt")
    before = plain.commit()
    plain.write(".gitattributes", "* ident working-tree-encoding=UTF-16 eol=crlf\n")

    Git(plain.root).export(before, tmp_path / "out", "overlays")

    out = tmp_path / "out/overlays/dev"
    assert (out / "note.txt").read_bytes() == b"$Id$\n"
    assert os.access(out / "run", os.X_OK)
    assert (out / "link").readlink() == Path("note.txt")


def test_another_object_in_the_place_of_a_commit_is_not_looked_at(plain: Checkout) -> None:
    before = plain.git("rev-parse", "HEAD")
    plain.write("README.md", "other\n")
    plain.git("replace", before, plain.commit())

    assert Git(plain.root).show(before, "README.md") == b"README.md\n"


# Automation


BOT = "acme-releases[bot]"


@pytest.fixture
def automated(checkout: Checkout) -> Checkout:
    checkout.replace("overlays/promotion.yaml", "environments:\n", f"automation: {BOT}\nenvironments:\n")
    checkout.commit("Let a program propose releases", push=True)
    return checkout


def by(checkout: Checkout, login: str = BOT) -> list[str]:
    """What is found of the changes since HEAD."""
    git = Git(checkout.root)
    return list(map(str, owners.check_automation(git, "HEAD", git.changed("HEAD"), login)))


def test_automation_releases(automated: Checkout, tmp_path: Path) -> None:
    write_release(automated.root, Target("lily-api", "dev"), package(tmp_path / "made"), "onnx", IMAGE)

    assert by(automated) == []
    assert automated.run("validate", "--changed-since", "HEAD", "--by", BOT).errors == []


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("README.md", "# Model GitOps\n", "# Ours\n"),
        ("overlays/dev/lily-api/kustomization.yaml", "resources:\n", "# ours\nresources:\n"),
        (API.format("dev"), "metadata:\n", "# ours\nmetadata:\n"),
        (API.format("dev"), "metadata:\n  name: lily-api\n", "metadata:\n  name: lily-api\n  labels: {a: b}\n"),
        ("overlays/promotion.yaml", f"automation: {BOT}\n", ""),
        ("overlays/promotion.yaml", BOT, "another"),
    ],
)
def test_automation_changes_nothing_but_releases(automated: Checkout, path: str, old: str, new: str) -> None:
    automated.replace(path, old, new)

    line = (
        f"{path}: changed by {BOT}, which overlays/promotion.yaml lets change the fields of releases alone; a person"
        " has to propose this [automation]"
    )
    assert by(automated) == [line]
    assert by(automated, "alice") == by(automated, "") == []


def test_automation_neither_adds_nor_removes_files(automated: Checkout) -> None:
    automated.write("overlays/dev/lily-api/hold.yaml", "a: b\n")
    (automated.root / "README.md").unlink()
    validated = automated.run("validate", "--changed-since", "HEAD", "--by", BOT).errors

    lines = by(automated)

    assert [line.partition(": ")[0] for line in lines] == ["README.md", "overlays/dev/lily-api/hold.yaml"]
    assert set(lines) <= set(validated)
    assert len(by(automated, BOT.upper())) == 2


# Owners


def test_owners_are_told_to_github_as_the_policy_names_them(checkout: Checkout) -> None:
    assert checkout.run("codeowners").errors == [
        "overlays/promotion.yaml: environments: no owners; nobody has to approve, and no file is made"
    ]
    for name, listed in {"dev": '["@acme/data", "@alice"]', "prod": '["@acme/platform"]'}.items():
        checkout.replace("overlays/promotion.yaml", f"- name: {name}\n", f"- name: {name}\n    owners: {listed}\n")
    stale = ".github/CODEOWNERS: {}; run `python scripts/codeowners.py`"
    assert checkout.run("validate").errors == [stale.format("missing") + " [owners]"]

    assert checkout.run("codeowners").code == 0

    assert checkout.read(".github/CODEOWNERS").decode().splitlines()[1:] == [
        "* @acme/platform",
        "/model-src/models/ @acme/data @alice",
        "/model-src/.dvc/config @acme/data @alice",
        "/overlays/dev/ @acme/data @alice",
        "/overlays/staging/ @acme/platform",
        "/overlays/prod/ @acme/platform",
    ]
    assert run("codeowners", "--root", checkout.root, "--check").code == 0
    assert checkout.run("validate").code == 0
    checkout.replace("overlays/promotion.yaml", "environments:\n", f"automation: {BOT}\nenvironments:\n")
    state = "not what overlays/promotion.yaml gives"
    assert checkout.run("codeowners", "--check").errors == [stale.format(state)]
    assert checkout.run("validate").errors == [stale.format(state) + " [owners]"]
    assert checkout.run("codeowners").code == 0
    assert checkout.read(".github/CODEOWNERS").decode().splitlines()[-1] == "/overlays/dev/*/release.yaml"


def test_a_file_of_owners_goes_with_the_last_of_them_and_one_made_by_hand_stays(checkout: Checkout) -> None:
    plain = checkout.read("overlays/promotion.yaml")
    checkout.replace("overlays/promotion.yaml", "- name: prod\n", "- name: prod\n    owners: ['@alice']\n")
    assert checkout.run("codeowners").code == 0
    checkout.write("overlays/promotion.yaml", plain)
    assert [line.rpartition("[")[2] for line in checkout.run("validate").errors] == ["owners]"]

    assert checkout.run("codeowners").code == 0

    assert not (checkout.root / ".github/CODEOWNERS").exists()
    checkout.write(".github/CODEOWNERS", "* @alice\n")
    assert checkout.run("codeowners").code == 1
    assert checkout.run("validate").errors == []
    assert checkout.read(".github/CODEOWNERS") == b"* @alice\n"

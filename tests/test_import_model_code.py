from __future__ import annotations

import json
import subprocess

import pytest
from conftest import ROOT, Checkout, git, in_folder

FOLDER = "model-src"


@pytest.fixture
def changed(plain: Checkout) -> Checkout:
    """A clone whose main has newer model code: a file changed, one removed, one added. cicd is checked out."""
    plain.write("model-src/old.py", "old\n")
    plain.commit("Old code", push=True)
    plain.git("push", "-q", "origin", "cicd:main")
    on_main(
        plain, {"model-src/models/lily/train.py": "new\n", "model-src/added.py": "added\n", "model-src/old.py": None}
    )
    return plain


def on_main(checkout: Checkout, files: dict[str, str | None], message: str = "Train better") -> str:
    """Commits files (None: removed) to origin's main, and leaves cicd checked out."""
    checkout.git("fetch", "-q", "origin")
    checkout.git("checkout", "-q", "-B", "main", "origin/main")
    for path, text in files.items():
        if text is None:
            (checkout.root / path).unlink()
        else:
            checkout.write(path, text)
    commit = checkout.commit(message, push=True)
    checkout.git("checkout", "-q", "cicd")
    return commit


def refused(checkout: Checkout, *args: str) -> list[str]:
    before = checkout.state()
    done = checkout.run("import_model_code", *args)
    assert (done.code, done.out) == (1, ""), done.err
    assert checkout.state() == before
    return done.errors


def same_code(checkout: Checkout, left: str, right: str) -> bool:
    return checkout.git("rev-parse", f"{left}:{FOLDER}") == checkout.git("rev-parse", f"{right}:{FOLDER}")


def test_an_import_makes_the_folder_equal_to_mains_deletions_included_and_names_mains_commit(
    changed: Checkout,
) -> None:
    main, base = changed.git("rev-parse", "main"), changed.tip()

    done = changed.run("import_model_code")

    assert (done.code, done.out) == (0, f"{changed.git('rev-parse', 'cicd')}\n")
    assert done.err.splitlines() == [
        f"committed {done.out[:12]} to cicd here, not pushed: import model-src/ of main at {main[:12]}",
        f"next: {in_folder(changed.root, 'git push origin cicd')}",
        "or, where cicd takes pull requests alone: python scripts/import_model_code.py --root"
        f" {changed.root} --pull-request",
    ]
    assert changed.git("rev-parse", "cicd^") == base == changed.tip()
    assert same_code(changed, "cicd", "main")
    assert changed.git("log", "-1", "--format=%B", "cicd") == f"Import model code: Train better\n\nMain-Commit: {main}"
    assert changed.git("diff", "--name-only", "cicd^", "cicd", "--", f":!{FOLDER}") == ""
    assert changed.git("status", "--porcelain") == ""
    assert changed.read("model-src/added.py") == b"added\n"
    assert not (changed.root / "model-src/old.py").exists()


def test_an_import_never_conflicts_though_both_sides_changed_the_same_lines(changed: Checkout) -> None:
    changed.write("model-src/models/lily/train.py", "changed on cicd too\n")
    changed.write("model-src/only-here.py", "gone after the import\n")
    changed.commit("A change where it does not belong", push=True)

    done = changed.run("import_model_code", "--push")

    assert done.code == 0, done.err
    assert changed.tip() == changed.git("rev-parse", "cicd") == done.out.strip()
    assert same_code(changed, "cicd", "origin/main")


def test_what_was_imported_already_is_not_imported_again(changed: Checkout) -> None:
    assert changed.run("import_model_code", "--push").code == 0
    before = changed.state()

    done = changed.run("import_model_code", "--push")

    assert (done.code, done.out) == (0, "")
    assert done.err == (
        f"nothing to change: model-src/ of main at {changed.git('rev-parse', 'main')[:12]} is on cicd already\n"
    )
    assert changed.state() == before


def test_an_import_that_was_not_pushed_is_pushed_by_the_same_command_with_push(changed: Checkout) -> None:
    assert changed.run("import_model_code").code == 0

    assert changed.run("import_model_code", "--push").code == 0
    assert changed.tip() == changed.git("rev-parse", "cicd")


@pytest.mark.parametrize("option", [(), ("--push",)])
def test_a_change_of_the_contract_becomes_a_branch_for_a_pull_request(
    changed: Checkout, option: tuple[str, ...]
) -> None:
    main = on_main(changed, {"model-src/contract/digest.py": "# Another digest.\n"}, "Name versions otherwise")
    base, branch = changed.tip(), f"import/{main[:12]}"
    before = changed.state()
    dry = changed.run("import_model_code", "--dry-run", *option)
    assert (dry.code, dry.out, dry.err.splitlines()[1]) == (
        0,
        "",
        f"would import model-src/ of main at {main[:12]}, by the branch {branch}",
    )
    assert changed.state() == before

    done = changed.run("import_model_code", *option)

    commit = changed.git("rev-parse", branch)
    assert (done.code, done.out) == (0, f"{commit}\n"), done.err
    said = f"pushed {commit[:12]} to {branch} at" if option else f"committed {commit[:12]} to {branch} here, not pushed"
    assert done.err.startswith(f"model-src/ of main at {main[:12]} changes model-src/contract/, on which every command")
    assert done.err.splitlines()[1].startswith(said)
    assert changed.tip() == changed.git("rev-parse", "cicd") == changed.git("rev-parse", f"{branch}^") == base
    assert same_code(changed, branch, "main")
    assert git(changed.remote, "branch", "--list", branch).strip() == (branch if option else "")
    again = changed.run("import_model_code", *option)
    assert (again.code, again.out) == (0, f"{commit}\n"), again.err


@pytest.mark.parametrize("option", [(), ("--push",)])
def test_a_dry_run_imports_nothing(changed: Checkout, option: tuple[str, ...]) -> None:
    before = changed.state()
    main = changed.git("rev-parse", "main")

    done = changed.run("import_model_code", "--dry-run", *option)
    told = json.loads(changed.run("import_model_code", "--dry-run", "--json", *option).out)

    assert (done.code, done.out, done.err) == (0, "", f"would import model-src/ of main at {main[:12]}\n")
    assert told == {
        "way": "push" if option else "commit", "branch": "cicd", "commit": None, "next": [], "main": main,
        "dry_run": True,
    }  # fmt: skip
    assert changed.state() == before


@pytest.mark.parametrize(("option", "imported"), [((), "local"), (("--push",), "origin")])
def test_the_newest_main_is_imported_and_for_a_push_the_one_that_origin_has(
    changed: Checkout, option: tuple[str, ...], imported: str
) -> None:
    changed.git("checkout", "-q", "main")
    changed.write("model-src/unpushed.py", "unpushed\n")
    changed.commit("Not pushed")

    assert changed.run("import_model_code", *option).code == 0
    assert same_code(changed, "cicd", "main" if imported == "local" else "origin/main")


def test_a_local_main_that_is_behind_does_not_bring_old_code_back(changed: Checkout) -> None:
    changed.git("branch", "-qf", "main", "main~1")

    assert changed.run("import_model_code").code == 0
    assert same_code(changed, "cicd", "origin/main")


def test_a_main_that_is_older_than_what_cicd_has_is_refused(changed: Checkout) -> None:
    old = changed.git("rev-parse", "main")
    new = on_main(changed, {"model-src/newer.py": "newer\n"})
    assert changed.run("import_model_code", "--push").code == 0
    changed.git("branch", "-qf", "main", old)
    changed.git("update-ref", "refs/remotes/origin/main", old)

    assert refused(changed) == [
        f"branch main: {old[:12]} is older than {new[:12]}, which cicd has already;"
        " get the newer one with `git fetch origin main`"
    ]


def test_an_older_main_is_refused_also_where_the_trailer_of_the_import_is_lost(changed: Checkout) -> None:
    old = changed.git("rev-parse", "main")
    new = on_main(changed, {"model-src/newer.py": "newer\n"})
    assert changed.run("import_model_code").code == 0
    changed.git("commit", "-q", "--amend", "-m", "Squashed (#7)")
    changed.git("push", "-q", "origin", "cicd")
    changed.git("push", "-qf", "origin", f"{old}:main")

    assert refused(changed, "--push") == [
        f"branch main: {old[:12]} is older than {new[:12]}, which cicd has already;"
        " get the newer one with `git fetch origin main`"
    ]


def test_a_subject_that_is_no_utf_8_is_taken_over(changed: Checkout) -> None:
    changed.git("config", "i18n.commitEncoding", "UTF-8")
    main = on_main(changed, {"model-src/x.py": "x"})
    raw = subprocess.run(["git", "cat-file", "commit", main], cwd=changed.root, capture_output=True, check=True).stdout
    made = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"], cwd=changed.root, check=True, capture_output=True,
        input=raw.replace(b"Train better", b"Trainiere gr\xfcndlich"),
    ).stdout.decode().strip()  # fmt: skip
    changed.git("update-ref", "refs/heads/main", made)
    changed.git("update-ref", "refs/remotes/origin/main", made)

    done = changed.run("import_model_code")

    assert done.code == 0, done.err
    assert changed.git("log", "-1", "--format=%(trailers:key=Main-Commit,valueonly)", "cicd") == made


def test_an_import_changes_nothing_that_is_rendered(checkout: Checkout) -> None:
    renders = checkout.run("render").out
    on_main(checkout, {"model-src/models/lily/params.yaml": "changed: true\n", "model-src/pyproject.toml": None})

    done = checkout.run("import_model_code", "--push")

    assert done.code == 0, done.err
    assert checkout.git("diff", "--name-only", "cicd^", "cicd").split() == [
        "model-src/models/lily/params.yaml",
        "model-src/pyproject.toml",
    ]
    assert "kind: InferenceService\n" in renders
    assert checkout.run("render").out == renders


def test_training_on_cicd_finds_the_code_commit_of_main(changed: Checkout) -> None:
    expected = changed.git("log", "-1", "--format=%H", "main", "--", "model-src/models/lily")
    on_main(changed, {"model-src/elsewhere.py": "no part of the model lily\n"})
    assert changed.run("import_model_code").code == 0

    found = subprocess.run(
        [ROOT / "model-src/.venv/bin/python", "-c",
         "import sys; from pathlib import Path; from packing import lineage;"
         " print(lineage.find(Path(sys.argv[1]), 'lily').commit)", changed.root / FOLDER],
        cwd=ROOT / FOLDER, capture_output=True, text=True,
    )  # fmt: skip

    assert found.stdout.strip() == expected, found.stderr


# Refused


@pytest.mark.parametrize("path", ["model-src/models/lily/train.py", "model-src/mine.py", "overlays/dev/mine.yaml"])
def test_uncommitted_changes_are_refused(changed: Checkout, path: str) -> None:
    changed.write(path, "mine\n")

    assert refused(changed) == [f"{path}: uncommitted change; commit it, or put it away with `git stash`"]


def test_a_main_without_model_code_is_refused(changed: Checkout) -> None:
    changed.git("checkout", "-q", "main")
    changed.git("rm", "-qr", FOLDER)
    main = changed.commit("No code")

    assert refused(changed) == [f"branch main: no model-src/ in {main[:12]}; nothing to import"]


def test_a_clone_without_main_or_with_a_diverged_one_is_refused(changed: Checkout) -> None:
    changed.git("checkout", "-q", "main")
    changed.write("model-src/added.py", "amended\n")
    changed.git("commit", "-qa", "--amend", "-m", "Amended")
    changed.git("checkout", "-q", "cicd")
    local, remote = changed.git("rev-parse", "main", "origin/main").split()
    assert refused(changed) == [
        f"branch main: the local branch at {local[:12]} and origin/main at {remote[:12]} have diverged; rebase the"
        " local one with `git rebase origin/main main`, or drop what it has with `git checkout -B main origin/main`"
    ]

    changed.git("branch", "-qD", "main")
    changed.git("update-ref", "-d", "refs/remotes/origin/main")
    assert refused(changed) == ["branch main: not in this clone; fetch it with `git fetch origin main`"]


def test_no_remote_no_main_at_origin_and_a_shallow_clone_are_refused(changed: Checkout) -> None:
    git(changed.remote, "branch", "-qD", "main")
    assert refused(changed, "--push") == [
        "origin: no branch main there; look at `git remote get-url origin`, a new fork gets its branches by `make init`"
    ]
    changed.git("remote", "remove", "origin")
    assert refused(changed, "--push") == [
        "--push: no remote `origin`; add one with `git remote add origin URL`, or leave --push out"
    ]
    (changed.root / ".git/shallow").write_text(changed.git("rev-parse", "HEAD") + "\n")
    assert refused(changed) == [
        f"{changed.root}: shallow clone, so history cannot be trusted; run `git fetch --unshallow`"
    ]

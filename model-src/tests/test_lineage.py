from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import Repository

from contract.errors import Refused
from packing import lineage

LATER = "2026-03-05T12:00:00+00:00"


def change(repository: Repository, path: str) -> None:
    file = repository.source / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{file.read_text() if file.exists() else ''}# changed\n")


@pytest.mark.parametrize(
    "path",
    [
        "models/lily/model.py",
        "models/lily/dvc.lock",
        "contract/new.py",
        "lifecycle/new.py",
        "packing/new.py",
        "requirements-train.txt",
    ],
)
def test_a_commit_of_the_models_code_is_the_code_commit(repository: Repository, path: str) -> None:
    change(repository, path)
    commit = repository.commit("Change the model", LATER)

    assert lineage.find(repository.source, "lily") == lineage.Code(commit, "2026-03-05")


@pytest.mark.parametrize(
    "path",
    ["serving/app.py", "models/sugar/model.py", "models/other/model.py", "requirements-serve.txt", "README.md"],
)
def test_a_commit_of_anything_else_is_not(repository: Repository, path: str) -> None:
    commit = repository.git("rev-parse", "HEAD")
    change(repository, path)
    repository.commit("Change something else", LATER)

    assert lineage.find(repository.source, "lily") == lineage.Code(commit, "2026-02-01")


def test_the_date_is_the_commits_in_utc(repository: Repository) -> None:
    change(repository, "models/lily/model.py")
    repository.commit("Change the model", "2026-03-05T23:30:00-05:00")

    assert lineage.find(repository.source, "lily").date == "2026-03-06"


def imported(repository: Repository, trailer: str) -> None:
    """The branch cicd with an import commit, as the last commit and checked out."""
    repository.git("checkout", "--quiet", "-b", "cicd", "main~1")
    repository.git("checkout", "main", "--", "model-src")
    repository.commit(f"Import model code\n\nMain-Commit: {trailer}", "2026-04-01T12:00:00+00:00")


def test_an_import_stands_for_the_commit_of_main(repository: Repository) -> None:
    """The trailer names main's tip, which need not be the commit that changed the model."""
    change(repository, "models/lily/model.py")
    commit = repository.commit("Change the model", LATER)
    change(repository, "serving/app.py")
    tip = repository.commit("Change the service", "2026-03-06T12:00:00+00:00")
    repository.git("checkout", "--quiet", "-b", "cicd", "main~2")
    repository.git("checkout", "main", "--", "model-src")
    repository.commit(f"Import model code\n\nMain-Commit: {tip}")
    repository.git("commit", "--quiet", "--allow-empty", "--message", "Release something")

    assert lineage.find(repository.source, "lily") == lineage.Code(commit, "2026-03-05")


def test_an_imported_commit_that_is_not_here_is_named(repository: Repository) -> None:
    change(repository, "models/lily/model.py")
    repository.commit("Change the model")
    imported(repository, "1234567890" * 4)

    with pytest.raises(Refused, match=r"imports (1234567890){4} of main, .* run `git fetch origin main`"):
        lineage.find(repository.source, "lily")


def test_uncommitted_code_is_refused_and_named(repository: Repository) -> None:
    change(repository, "models/lily/model.py")
    change(repository, "packing/new file.py")
    change(repository, "serving/app.py")

    with pytest.raises(Refused) as refused:
        lineage.find(repository.source, "lily")

    assert refused.value.lines == (
        "model-src/models/lily/model.py: changed, not committed",
        "model-src/packing/new file.py: untracked, not committed",
        "commit the model's code first, or try it out with --draft (a draft cannot be uploaded)",
    )


def test_a_deleted_and_a_staged_file_are_refused(repository: Repository) -> None:
    (repository.source / "models/lily/params.yaml").unlink()
    change(repository, "models/lily/new.py")
    repository.git("add", "model-src/models/lily/new.py")

    with pytest.raises(Refused, match=r"(?s)lily/new.py: changed.*lily/params.yaml: changed"):
        lineage.find(repository.source, "lily")


def test_a_draft_may_be_uncommitted(repository: Repository) -> None:
    change(repository, "models/lily/model.py")

    assert lineage.find(repository.source, "lily", draft=True).commit == repository.git("rev-parse", "HEAD")


@pytest.mark.parametrize("draft", [False, True])
def test_a_shallow_clone_is_refused_even_for_a_draft(repository: Repository, tmp_path: Path, draft: bool) -> None:
    change(repository, "README.md")
    repository.commit("Second")
    subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", f"file://{repository.root}", tmp_path / "shallow"], check=True
    )

    with pytest.raises(Refused, match=r"shallow clone.*git fetch --unshallow"):
        lineage.find(tmp_path / "shallow/model-src", "lily", draft=draft)


def test_a_folder_outside_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"code commit is unknown: .*not a git repository"):
        lineage.find(tmp_path, "lily")


def test_a_model_that_no_commit_holds_is_refused(tmp_path: Path, repository: Repository) -> None:
    repository.git("rm", "-r", "--quiet", "--cached", "model-src")
    repository.git("update-ref", "-d", "HEAD")
    repository.git("commit", "--quiet", "--allow-empty", "--message", "Nothing yet")

    with pytest.raises(
        Refused, match=r"no commit has models/lily, contract, lifecycle, packing, requirements-train.txt"
    ):
        lineage.find(repository.source, "lily", draft=True)


def test_a_hooks_git_variables_do_not_mislead(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nonexistent")

    assert lineage.find(repository.source, "lily").date == "2026-02-01"


# An import that has lost its trailer, as by a squash


@pytest.fixture
def squashed(repository: Repository) -> Repository:
    """cicd with main's code in a commit without a trailer; main has gone on in what is no part of the model."""
    change(repository, "models/lily/model.py")
    repository.commit("Change the model", LATER)
    change(repository, "serving/app.py")
    repository.commit("Change the service", "2026-03-06T12:00:00+00:00")
    repository.git("checkout", "--quiet", "-b", "cicd", "main~2")
    repository.git("checkout", "main", "--", "model-src")
    repository.commit("Import (#7)", "2026-04-01T12:00:00+00:00")
    return repository


def test_an_import_without_its_trailer_stands_for_the_commit_of_main_with_the_same_code(squashed: Repository) -> None:
    assert lineage.find(squashed.source, "lily") == lineage.Code(squashed.git("rev-parse", "main~1"), "2026-03-05")


def test_the_newest_commit_of_main_with_that_code_counts_also_when_main_came_back_to_it(squashed: Repository) -> None:
    squashed.git("checkout", "--quiet", "main")
    change(squashed, "models/lily/model.py")
    squashed.commit("Try something")
    squashed.git("revert", "--no-edit", "HEAD")
    reverted = squashed.git("rev-parse", "HEAD")
    change(squashed, "models/lily/model.py")
    squashed.commit("Try something else")
    squashed.git("checkout", "--quiet", "cicd")

    assert lineage.find(squashed.source, "lily").commit == reverted


def test_code_that_main_never_had_is_of_the_commit_that_has_it(squashed: Repository) -> None:
    change(squashed, "models/lily/model.py")
    commit = squashed.commit("A change where it does not belong")

    assert lineage.find(squashed.source, "lily").commit == commit


def test_where_imports_come_and_main_is_not_here_it_is_to_be_fetched(squashed: Repository) -> None:
    main = squashed.git("rev-parse", "main")
    squashed.git("commit", "--quiet", "--allow-empty", "--message", f"Import\n\nMain-Commit: {main}")
    change(squashed, "models/lily/model.py")
    squashed.commit("Import (#8)")
    squashed.git("branch", "--quiet", "-D", "main")

    with pytest.raises(Refused, match=r"may be an import that has lost its trailer Main-Commit, .* `git fetch origin"):
        lineage.find(squashed.source, "lily")


def test_a_clone_without_main_has_the_commits_that_it_has(squashed: Repository) -> None:
    commit = squashed.git("rev-parse", "cicd")
    squashed.git("branch", "--quiet", "-D", "main")

    assert lineage.find(squashed.source, "lily").commit == commit

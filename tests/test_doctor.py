from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import S3, Checkout


def missing(out: str) -> dict[str, str]:
    """Remedy by what is missing."""
    return {check["what"]: check["remedy"] for check in json.loads(out) if check["remedy"]}


def test_a_clone_of_the_template_lacks_only_its_owners_values(checkout: Checkout, s3: S3) -> None:
    done = checkout.run("doctor", "--json", "--s3")

    assert done.code == 1
    assert missing(done.out) == {
        "git user.name": 'run `git config --global user.name "..."`',
        "git user.email": 'run `git config --global user.email "..."`',
        "no value of the template is left": "run `python scripts/init_fork.py --check`, and with your values",
    }


def test_what_is_missing_is_named_with_what_mends_it(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_GITOPS_CACHE", str(tmp_path))
    checkout.git("remote", "remove", "origin")
    checkout.write("overlays/dev/notes.yaml", "mine")

    out = checkout.run("doctor", "--s3").out.splitlines()

    for name, remedy in {
        "kustomize and kubeconform": "run `make setup`",
        "schemas": "run `make setup`",
        "remote origin": "run `git remote add origin URL`",
        "nothing uncommitted in what is deployed": "overlays/dev/notes.yaml: uncommitted change; commit it,"
        " or put it away with `git stash`",
        "s3://mlops-prod": "s3://mlops-prod/models/: no AWS credentials; set AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    }.items():
        assert out[out.index(f"MISSING  {name}") + 1] == f"         {remedy}"


def test_a_folder_that_is_no_repository_is_said_to_be_none(tmp_path: Path) -> None:
    from conftest import run

    done = run("doctor", "--root", tmp_path)

    assert done.code == 1
    assert f"         {tmp_path}: not a git repository; clone one, or name it with --root" in done.out.splitlines()

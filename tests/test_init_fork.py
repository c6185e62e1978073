from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import S3, Checkout, git, package, run

from gitops.repo.template import RECORD, Record, read_record
from gitops.repo.values import TEMPLATE
from init_fork import option, organisation

VALUES = {
    "repo": "https://github.com/acme/models.git",
    "bucket": "acme-models",
    "account": "444455556666",
    "region": "eu-central-1",
    "domain": "ml.acme.com",
    "cluster": "acme-ml",
    "network": "10.20.0.0/16",
    "time_zone": "Europe/Berlin",
    "owner": "ml@acme.com",
}
ARGS = [word for name, value in VALUES.items() for word in (option(name), value)]


@pytest.fixture
def fork(template: Path, tmp_path: Path) -> Checkout:
    """A clone as a new user has it: a remote with main alone."""
    remote, clone = tmp_path / "remote.git", tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "-q", "--bare", "--branch", "main", "--single-branch", template, remote], check=True
    )
    subprocess.run(["git", "clone", "-q", remote, clone], check=True)
    assert git(remote, "branch", "--format=%(refname:short)") == "main"
    return Checkout(clone, remote)


def test_from_the_fork_to_the_first_release(fork: Checkout, s3: S3, tmp_path: Path) -> None:
    done = fork.run("init_fork", *ARGS, "--push")

    assert done.code == 0, done.err
    assert fork.tip("main") == fork.tip("cicd") == fork.git("rev-parse", "main")
    assert "without anyone who bypasses them" in done.out
    assert fork.run("init_fork", "--check").out == "no value of the template is left\n"
    assert fork.run("validate").code == 0
    s3.client.create_bucket(Bucket="acme-models")
    made = package(tmp_path / "artifacts")
    done = fork.run("upload_model", "--model", "lily", "--artifacts", made.folder)
    assert done.code == 0, done.err
    uri = f"s3://acme-models/models/lily/{made.version}/"
    assert done.out == f"{uri}\n"
    image = f"444455556666.dkr.ecr.eu-central-1.amazonaws.com/lily-api@sha256:{'1' * 64}"
    done = fork.run("bump_model", "--app", "lily-api", "--env", "dev", "--model-uri", uri, "--image", image, "--push")
    assert done.code == 0, done.err
    assert f"value: {uri}onnx/" in fork.git("show", "origin/cicd:overlays/dev/lily-api/release.yaml")


def test_it_needs_no_app_and_no_certain_environment(fork: Checkout) -> None:
    fork.git("rm", "-qr", "apps", "overlays/*/lily-*", "overlays/dev", "overlays/staging")
    fork.git("mv", "overlays/prod", "overlays/live")
    fork.name_environments("live")
    fork.commit("One environment, and nothing in it")

    done = fork.run("init_fork", *ARGS)

    assert done.code == 0, done.err
    assert "domain    ml.acme.com (instead of ml.example.com)" in done.err
    roles = [line.strip() for line in done.out.splitlines() if "IAM role " in line]
    assert roles == ["IAM role ml-prod-model-reader: gets below models/ in that bucket, and puts below requests/live/."]


def test_the_roles_that_the_overlays_name_are_left_to_make(fork: Checkout) -> None:
    steps = fork.run("init_fork", *ARGS).out

    assert "IAM role ml-dev-model-reader: gets below models/ in that bucket, and puts below requests/dev/.\n" in steps
    assert "IAM role ml-prod-lily-batch: that and what overlays/prod/lily-batch/batch-role.yaml says.\n" in steps


def test_only_the_values_change(fork: Checkout) -> None:
    before = fork.git("rev-parse", "HEAD")
    assert fork.run("init_fork", *ARGS).code == 0

    diff = fork.git("diff", "--unified=0", before, "HEAD", "--", f":!{RECORD}")
    removed = [line[1:] for line in diff.splitlines() if line.startswith("-") and not line.startswith("---")]
    added = [line[1:] for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    wanted = VALUES | {"registry": "444455556666.dkr.ecr.eu-central-1.amazonaws.com"}
    for old, new in zip(removed, added, strict=True):
        for name in ("registry", *VALUES):
            old = old.replace(TEMPLATE[name], wanted[name])
        assert old == new
    assert len(added) > 15
    assert read_record(fork.read(RECORD)) == Record(before, wanted)


def test_the_same_values_again_change_nothing_and_others_replace_them(fork: Checkout) -> None:
    assert fork.run("init_fork", *ARGS, "--push").code == 0
    before = fork.state()

    done = fork.run("init_fork", *ARGS, "--push")

    assert (done.code, fork.state()) == (0, before)
    assert "every file has these values already" in done.err
    assert fork.run("init_fork", *ARGS[:-2], "--domain", "models.acme.com").code == 0
    assert b"value: lily-api.models.acme.com" in fork.read("overlays/prod/lily-api/kustomization.yaml")


def test_a_value_that_the_fork_shares_with_the_template_is_chosen_and_not_left(fork: Checkout) -> None:
    same = [word for name in ("region", "network", "time_zone") for word in (option(name), TEMPLATE[name])]

    assert fork.run("init_fork", *ARGS, *same).code == 0

    assert fork.run("init_fork", "--check").code == 0


def test_what_was_not_given_is_left_and_given_later_it_takes_the_place(fork: Checkout) -> None:
    required = ARGS[: ARGS.index("--cluster")]
    assert fork.run("init_fork", *required).code == 0
    left = {line.split(": ")[2] for line in fork.run("init_fork", "--check").errors[:-1]}
    assert left == {"cluster", "network", "time_zone", "owner"}

    assert fork.run("init_fork", *required, "--cluster", "acme_ml").code == 0
    assert fork.run("init_fork", *required, "--cluster", "acme-2").code == 0

    dns = fork.read("argocd/platform/aws/external-dns.yaml")
    assert b"txtOwnerId: acme-2\n" in dns
    assert b"model.mlops/version" in fork.read("overlays/dev/lily-api/release.yaml")


def test_a_value_stands_for_its_meaning_alone(fork: Checkout) -> None:
    """A bucket and a cluster of one name are two values."""
    assert fork.run("init_fork", *ARGS, "--cluster", "acme-models").code == 0

    assert fork.run("init_fork", *ARGS, "--cluster", "acme-ml").code == 0

    assert b"clusterName: acme-ml\n" in fork.read("argocd/platform/aws/aws-load-balancer-controller.yaml")
    assert b"model_bucket: acme-models\n" in fork.read("overlays/promotion.yaml")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("alerts: https://hooks.example.com/models", "hooks.example.com"),
        ("mail: ops@example.org", "ops@example.org"),
        ("team: '@example-org/ops'", "@example-org"),
    ],
)
def test_any_domain_that_is_nobodys_is_left(fork: Checkout, line: str, shown: str) -> None:
    assert fork.run("init_fork", *ARGS).code == 0
    fork.write("argocd/platform/notes.yaml", f"a: 1\n{line}\n")
    fork.commit()

    [found, _] = fork.run("init_fork", "--check").errors

    assert found.startswith("argocd/platform/notes.yaml: line 2: ")
    assert shown in found


def test_a_record_that_somebody_changed_is_refused(fork: Checkout) -> None:
    assert fork.run("init_fork", *ARGS).code == 0
    fork.replace(RECORD, "commit: ", "commit: x")
    fork.commit()

    assert fork.run("init_fork", *ARGS).errors == [
        ".template: not as it was written; take the last good one out of `git log -p -- .template`"
    ]


def owned(fork: Checkout) -> None:
    """With owners, as the template has them."""
    fork.replace("overlays/promotion.yaml", "- name: prod\n", '- name: prod\n    owners: ["@example-org/platform"]\n')
    assert fork.run("codeowners").code == 0
    fork.commit("Name owners")


def test_the_teams_are_those_of_the_organisation(fork: Checkout) -> None:
    owned(fork)

    done = fork.run("init_fork", *ARGS)

    assert done.code == 0, done.err
    assert b"* @acme/platform\n" in fork.read(".github/CODEOWNERS")
    assert fork.run("codeowners", "--check").code == 0
    assert fork.run("init_fork", "--check").code == 0


@pytest.mark.parametrize(
    "repo", ["https://github.com/acme/models.git", "git@github.com:acme/models", "ssh://git@h/acme/m/"]
)
def test_the_organisation_is_read_from_the_address(repo: str) -> None:
    assert organisation(repo) == "acme"


def test_what_is_left_of_the_template_is_listed(fork: Checkout) -> None:
    owned(fork)

    done = fork.run("init_fork", "--check")

    assert done.code == 1
    assert f"overlays/promotion.yaml: line 2: bucket: {TEMPLATE['bucket']} is the template's" in done.errors
    assert {line.split(": ")[2] for line in done.errors[:-1]} == set(TEMPLATE)


def test_a_dry_run_lists_the_files_and_changes_nothing(fork: Checkout) -> None:
    before = fork.state()

    done = fork.run("init_fork", *ARGS, "--dry-run")

    assert "overlays/promotion.yaml" in done.out.splitlines()
    assert fork.state() == before


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--bucket", "Acme"], "--bucket Acme: not a bucket's name, without dots and starting with a letter"),
        (["--account", "12"], "--account 12: not the 12 digits of an AWS account"),
        (["--region", "Europe"], "--region Europe: not an AWS region such as eu-west-1"),
        (["--domain", "acme"], "--domain acme: not a domain such as ml.example.com"),
        (["--cluster", "a b"], "--cluster a b: not the name of an EKS cluster"),
        (["--network", "10.0.0.0"], "--network 10.0.0.0: not the addresses of the VPC, such as 10.0.0.0/16"),
        (["--time-zone", "UTC+1:00"], "--time-zone UTC+1:00: not a time zone such as Europe/Dublin"),
        (["--owner", "ml"], "--owner ml: not the mail address of those who own the models"),
        (["--repo", "acme/models"], "--repo acme/models: not an address that git can clone"),
    ],
)
def test_a_value_that_cannot_be_one_is_refused(fork: Checkout, args: list[str], line: str) -> None:
    before = fork.state()

    done = fork.run("init_fork", *ARGS, *args)

    assert (done.code, done.errors) == (1, [line])
    assert fork.state() == before


def test_a_dirty_tree_is_refused(fork: Checkout) -> None:
    fork.write("notes.txt", "mine")

    assert fork.run("init_fork", *ARGS).errors == [
        "notes.txt: uncommitted change; commit it, or put it away with `git stash`"
    ]


def test_wrong_usage_is_exit_2() -> None:
    for args in ([], ["--check", *ARGS], ["--bucket", "acme-models"]):
        with pytest.raises(SystemExit) as stopped:
            run("init_fork", *args)
        assert stopped.value.code == 2

"""What the linters do not know of the workflows, and their own steps run here."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BUCKET, ROOT, S3, Checkout, Version, git, name_replica, package, write_release

from gitops.manifests import cloudformation
from gitops.models import sagemaker
from gitops.programs import service_archive
from gitops.releases.release import Target
from gitops.repo import branch_rules

from packing import lineage

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
WORKFLOWS: dict[str, Any] = {file.stem: yaml.load(file.read_text(), yaml.BaseLoader) for file in FILES}


def steps(workflow: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in WORKFLOWS[workflow]["jobs"].items():
        for step in job["steps"]:
            yield name, step


def script(workflow: str, job: str, part: str) -> str:
    """The only `run:` of a job that has this text in it."""
    [found] = [step["run"] for name, step in steps(workflow) if name == job and part in step.get("run", "")]
    return str(found)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_rights_are_given_to_jobs_and_not_to_workflows(name: str) -> None:
    workflow = WORKFLOWS[name]

    assert workflow["permissions"] == {}
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_run_is_a_command_that_a_person_could_type(name: str) -> None:
    for _, step in steps(name):
        assert "${{" not in step.get("run", "")
        for command in re.findall(r"scripts/\w+\.py", step.get("run", "")):
            assert (ROOT / command).is_file(), command


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_actions_are_pinned_with_their_version_behind_them(file: Path) -> None:
    used = re.findall(r"uses: (.*)", file.read_text())

    assert used
    assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_workflow_knows_a_long_lived_key(file: Path) -> None:
    text = file.read_text()

    # One opens pull requests, the other signs models where the owner's policy requires a key.
    own = ["secrets.MODEL_SIGNING_KEY", "secrets.RELEASE_APP_KEY"] if file.stem == "mlops-pipeline" else []
    assert re.findall(r"secrets\.\w+", text) == own
    assert not re.search("aws[-_](access|secret)", text, re.IGNORECASE)


def test_the_judge_executes_nothing_of_a_change_and_has_nothing_to_lose() -> None:
    judge = WORKFLOWS["judge"]
    [job] = judge["jobs"].values()
    checkouts = [step["with"] for step in job["steps"] if "checkout" in step.get("uses", "")]
    used = {step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step}

    assert [name for name, workflow in WORKFLOWS.items() if "pull_request_target" in workflow["on"]] == ["judge"]
    assert set(judge["on"]["pull_request_target"]["types"]) == {"opened", "synchronize", "reopened", "edited"}
    assert {event["branches"][0] for event in judge["on"].values()} == {"cicd"}
    assert job["permissions"] == {"contents": "read"}
    assert {"if", "environment", "env"}.isdisjoint(job)
    assert used == {"actions/checkout", "actions/setup-python"}
    assert [checkout["path"] for checkout in checkouts] == ["tree", "base"]
    assert {checkout["persist-credentials"] for checkout in checkouts} == {"false"}
    for step in job["steps"]:
        assert "if" not in step
        assert "make" not in step.get("run", "").split()
        if "scripts/" in step.get("run", ""):
            assert step["working-directory"] == "base"
        if "tree" in step.get("run", ""):
            assert step["env"].items() >= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}.items()


def test_a_required_check_is_started_for_each_base_again_and_in_a_queue() -> None:
    for name in ("ci", "judge"):
        events = WORKFLOWS[name]["on"]
        request = events.get("pull_request") or events["pull_request_target"]
        assert "edited" in request["types"]
        assert events["merge_group"]["branches"] == request["branches"]
    assert WORKFLOWS["ci"]["jobs"]["required"]["name"] == "Checks for ${{ needs.changes.outputs.branch }}"


def test_only_the_jobs_that_release_or_start_training_may_write() -> None:
    rights = {
        f"{name}.{job}": sorted(right for right, level in body.get("permissions", {}).items() if level == "write")
        for name, workflow in WORKFLOWS.items()
        for job, body in workflow["jobs"].items()
    }

    roles = [
        (f"{name}.{job}", step["with"]["role-to-assume"])
        for name in WORKFLOWS
        for job, step in steps(name)
        if "configure-aws-credentials" in step.get("uses", "")
    ]

    assert {job: held for job, held in rights.items() if held} == {
        "mlops-pipeline.compare": ["id-token"],
        "mlops-pipeline.release": ["id-token"],
        "mlops-pipeline.sagemaker": ["id-token"],
        "prune.prune": ["id-token"],
        "retrain.check": ["id-token"],
        "retrain.drift": ["id-token"],
        "retrain.start": ["actions"],
        "sagemaker.deploy": ["id-token"],
        "stacks.deploy": ["id-token"],
        "stacks.show": ["id-token"],
    }
    assert roles == [
        ("mlops-pipeline.sagemaker", "${{ vars.AWS_SAGEMAKER_TRAINER_ROLE }}"),
        ("mlops-pipeline.compare", "${{ vars.AWS_MODEL_READER_ROLE }}"),
        ("mlops-pipeline.release", "${{ vars.AWS_MODEL_WRITER_ROLE }}"),
        ("mlops-pipeline.release", "${{ vars.AWS_MODEL_REPLICATOR_ROLE }}"),
        ("prune.prune", "${{ vars.AWS_MODEL_PRUNE_ROLE }}"),
        ("retrain.drift", "${{ vars.AWS_MONITOR_ROLE }}"),
        ("retrain.check", "${{ vars.AWS_MONITOR_ROLE }}"),
        ("sagemaker.deploy", "${{ vars.AWS_SAGEMAKER_ROLE }}"),
        ("stacks.show", "${{ vars.AWS_STACK_ROLE }}"),
        ("stacks.deploy", "${{ vars.AWS_STACK_ROLE }}"),
    ]


def test_an_instance_is_booted_for_all_that_it_is_made_of_and_nobody_has_to_wait_for_it() -> None:
    work = WORKFLOWS["vm"]
    paths = work["on"]["pull_request"]["paths"]
    image = (ROOT / service_archive.IMAGE).read_text()
    code = [f"model-src/{name}" for name in service_archive.code_files(image)]
    made_of = ["infra/vm.yaml", service_archive.IMAGE, service_archive.LOCK, *code]

    folders = tuple(path.removesuffix("**") for path in paths)
    assert [name for name in made_of if not f"{name}/".startswith(folders)] == []
    assert [path for path in paths if not list(ROOT.glob(path))] == []
    assert work["on"].keys() == {"pull_request", "workflow_dispatch"}
    assert not {job["name"] for job in work["jobs"].values()} & {*sum(branch_rules.REQUIRED.values(), ())}
    assert script("vm", "boot", "make").endswith(" make test-vm")


def test_every_image_is_scanned_and_every_report_is_judged() -> None:
    work = WORKFLOWS["scan"]
    listed = git(ROOT, "ls-files", "model-src/**Dockerfile", "model-src/Dockerfile").split()
    runs = [step["run"].split() for _, step in steps("scan") if "run" in step]
    builds = {
        run[-2]: f"model-src/{run[run.index('-f') + 1] if '-f' in run else 'Dockerfile'}"
        for run in runs
        if run[0] == "docker"
    }
    scans = {step["with"]["image"]: step["with"] for _, step in steps("scan") if "image" in step.get("with", {})}
    [judged] = [run for run in runs if "--image-report" in run]

    assert {"schedule", "pull_request"} <= work["on"].keys()
    assert [job["permissions"] for job in work["jobs"].values()] == [{"contents": "read"}] * 2
    assert sorted(builds.values()) == sorted(set(listed))
    assert builds.keys() == scans.keys()
    assert [scan["output-file"] for scan in scans.values()] == judged[judged.index("--image-report") + 1 :]
    assert {(scan["output-format"], scan["fail-build"]) for scan in scans.values()} == {("json", "false")}


def test_the_pipeline_does_not_start_itself() -> None:
    """It starts for files that its bump never writes."""
    pipeline = WORKFLOWS["mlops-pipeline"]

    assert pipeline["on"]["push"] == {"branches": ["cicd"], "paths": ["model-src/**"]}
    assert pipeline["concurrency"]["cancel-in-progress"] == "false"


def test_what_a_pull_request_has_of_a_service_on_instances_is_shown_and_what_is_merged_is_deployed() -> None:
    """What runs the code of a pull request is in another environment, whose role can execute nothing."""
    work = WORKFLOWS["stacks"]
    show, deploy = work["jobs"]["show"], work["jobs"]["deploy"]
    commands = {
        name: [line for step in job["steps"] for line in step.get("run", "").splitlines() if "deploy_stack" in line]
        for name, job in work["jobs"].items()
    }

    assert work["on"]["push"] == work["on"]["pull_request"] == {
        "branches": ["cicd"], "paths": ["overlays/**", "apps/**", "base/**", "infra/vm.yaml"],
    }  # fmt: skip
    assert work["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"
    assert show["environment"] == "${{ matrix.environment }}-preview"
    assert show["if"].startswith("github.event.pull_request.head.repo.full_name == github.repository && ")
    assert [line.split()[-1] for line in commands["show"]] == ["--dry-run"]
    assert deploy["environment"] == "${{ matrix.environment }}"
    assert deploy["if"].startswith("github.event_name != 'pull_request' && ")
    assert [line.split()[-1] for line in commands["deploy"]] == ["--yes"]
    assert deploy["steps"][0]["with"]["ref"] == "cicd"
    assert show["strategy"]["matrix"] == deploy["strategy"]["matrix"]


@pytest.mark.parametrize(
    ("event", "asked"),
    [
        ("push", "--changed-since 1234"),
        ("pull_request", "--changed-since abcd --commit HEAD"),
        ("workflow_dispatch", ""),
    ],
)
def test_the_services_that_a_run_is_about_are_told_to_the_next_jobs(tmp_path: Path, event: str, asked: str) -> None:
    places = [{"app": "wine-vm", "environment": "dev"}]
    for name, text in (("gh", "echo 1234"), (".venv/bin/python", f"echo $* > asked; echo '{json.dumps(places)}'")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    given = {"GITHUB_EVENT_NAME": event, "GITHUB_REPOSITORY": "a/b", "BASE": "abcd", "RUNNER_TEMP": str(tmp_path)}

    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script("stacks", "list", "deploy_stack")],
        cwd=tmp_path,
        env=os.environ | given | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_OUTPUT": str(tmp_path / "out")},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text().split() == ["scripts/deploy_stack.py", "--list", "--json", *asked.split()]
    assert (tmp_path / "out").read_text() == f"places={json.dumps(places, separators=(',', ':'))}\n"


def test_endpoints_are_deployed_from_cicd_alone_by_those_who_ask_for_it() -> None:
    work = WORKFLOWS["sagemaker"]
    chosen, deploy = work["jobs"]["list"], work["jobs"]["deploy"]

    assert chosen["if"] == "vars.SAGEMAKER_DEPLOY != '' && github.ref == 'refs/heads/cicd'"
    assert deploy["needs"] == "list"
    assert deploy["environment"] == "${{ matrix.environment }}"
    assert deploy["steps"][0]["with"]["ref"] == "cicd"
    assert work["concurrency"]["cancel-in-progress"] == "false"
    [role] = [step["with"] for step in deploy["steps"] if "configure-aws" in step.get("uses", "")]
    # An endpoint is waited for for an hour at most.
    assert int(role["role-duration-seconds"]) >= 60 * int(deploy["timeout-minutes"]) > sagemaker.LONGEST
    assert "--wait" in script("sagemaker", "deploy", "deploy_sagemaker")


@pytest.mark.parametrize(("event", "asked"), [("push", "--changed-since 1234"), ("workflow_dispatch", "")])
def test_the_endpoints_that_a_run_is_about_are_told_to_the_next_job(tmp_path: Path, event: str, asked: str) -> None:
    places = [{"app": "wine-sagemaker", "environment": "dev"}]
    for name, text in (("gh", "echo 1234"), (".venv/bin/python", f"echo $* > asked; echo '{json.dumps(places)}'")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    given = {"GITHUB_EVENT_NAME": event, "GITHUB_REPOSITORY": "a/b", "RUNNER_TEMP": str(tmp_path)}

    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script("sagemaker", "list", "deploy_sagemaker")],
        cwd=tmp_path,
        env=os.environ | given | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_OUTPUT": str(tmp_path / "out")},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    wanted = ["scripts/deploy_sagemaker.py", "--list", "--json", *asked.split()]
    assert (tmp_path / "asked").read_text().split() == wanted
    assert (tmp_path / "out").read_text() == f"places={json.dumps(places, separators=(',', ':'))}\n"


def test_training_starts_when_it_is_due_even_if_the_check_of_drift_has_failed() -> None:
    retrain = WORKFLOWS["retrain"]
    jobs = retrain["jobs"]

    assert retrain["on"].keys() == {"schedule", "workflow_dispatch"}
    assert jobs["parts"]["if"] == "github.ref == 'refs/heads/cicd'"
    assert jobs["drift"]["needs"] == "parts"
    assert jobs["drift"]["strategy"]["fail-fast"] == "false"
    assert (jobs["check"]["needs"], jobs["check"]["if"]) == (
        ["parts", "drift"], "!cancelled() && needs.parts.result == 'success'",
    )  # fmt: skip
    assert jobs["check"]["outputs"] == {
        name: f"${{{{ steps.decide.outputs.{name} }}}}" for name in ("retrain", "models")
    }
    assert jobs["start"]["if"] == "!cancelled() && needs.check.outputs.retrain == 'true'"
    [step] = jobs["start"]["steps"]
    assert step["run"].split()[:4] == ["gh", "workflow", "run", "mlops-pipeline.yml"]
    assert step["run"].endswith('-f "models=$MODELS"')
    assert WORKFLOWS["mlops-pipeline"]["on"]["workflow_dispatch"]["inputs"]["models"]["default"] == ""


@pytest.mark.parametrize(("apps", "parts"), [(0, 0), (1, 1), (20, 1), (21, 2), (5121, 256)])
def test_drift_is_checked_in_as_many_parts_as_a_matrix_may_have(tmp_path: Path, apps: int, parts: int) -> None:
    for number in range(apps):
        (tmp_path / f"apps/app-{number}").mkdir(parents=True)
    (tmp_path / "apps").mkdir(exist_ok=True)
    output = tmp_path / "output"

    subprocess.run(
        ["bash", "-e", "-c", script("retrain", "parts", "find apps")],
        cwd=tmp_path, env=os.environ | {"GITHUB_OUTPUT": str(output)}, check=True,
    )  # fmt: skip

    told = json.loads(output.read_text().removeprefix("parts="))
    assert told == [f"{number}/{parts}" for number in range(1, parts + 1)]


@pytest.fixture
def checkout(whole_checkout: Checkout) -> Checkout:
    """With the code, which is run there."""
    return whole_checkout


def test_whether_training_is_due_is_told_to_the_next_job(checkout: Checkout, version: Version, tmp_path: Path) -> None:
    """The step as it stands, on an environment where nothing runs and on one where a version is too old."""
    (checkout.root / ".venv").symlink_to(ROOT / ".venv")

    def told() -> str:
        output, summary = tmp_path / "output", tmp_path / "summary"
        output.write_text("")
        done = subprocess.run(
            ["bash", "-e", "-c", script("retrain", "check", "check_retrain.py").replace(".py", ".py --env dev")],
            cwd=checkout.root, env=os.environ | {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return output.read_text()

    assert told() == "retrain=false\nmodels=\n"
    released = checkout.run(
        "bump_model", "--app", "lily-sklearn", "--env", "dev", "--model-uri", version.uri, "--commit"
    )
    assert released.code == 0, released.err
    checkout.git("checkout", "-q", "cicd")
    assert told() == "retrain=false\nmodels=\n"
    backdate(checkout)
    assert told() == "retrain=true\nmodels=lily\n"


def backdate(checkout: Checkout) -> None:
    """Makes the last commit of cicd one of many years ago."""
    environment = os.environ | {"GIT_COMMITTER_DATE": "2001-02-03T04:05:06+00:00"}
    subprocess.run(
        ["git", "commit", "-q", "--amend", "--no-edit", "--allow-empty"],
        cwd=checkout.root, env=environment, check=True,
    )  # fmt: skip


def test_the_aggregate_check_waits_for_every_other_job() -> None:
    jobs = WORKFLOWS["ci"]["jobs"]

    assert sorted(jobs["required"]["needs"]) == sorted(jobs.keys() - {"required"})
    assert jobs["required"]["if"] == "always()"


def test_tests_are_skipped_for_releases_alone(checkout: Checkout, version: Version, tmp_path: Path) -> None:
    def answer(branch: str = "cicd", base: str = "HEAD^1", event: str = "pull_request") -> str:
        output = tmp_path / "output"
        output.write_text("")
        variables = {"GITHUB_OUTPUT": str(output), "BRANCH": branch, "BASE": base, "GITHUB_EVENT_NAME": event}
        subprocess.run(
            ["bash", "-e", "-c", script("ci", "changes", "git diff")],
            cwd=checkout.root, env=os.environ | variables, check=True,
        )  # fmt: skip
        found = dict(line.split("=") for line in output.read_text().splitlines())
        assert found.pop("branch") == branch.removeprefix("refs/heads/")
        assert found.pop("base") == checkout.git("rev-parse", base)
        return "".join(f"{name}={value}\n" for name, value in found.items())

    done = checkout.run("bump_model", "--app", "lily-sklearn", "--env", "dev", "--model-uri", version.uri, "--commit")
    assert done.code == 0, done.err
    assert answer() == "tests=test\n"

    checkout.replace("README.md", "# Model GitOps\n", "# Ours\n")
    checkout.commit()
    assert answer() == "code=true\ntests=test\n"
    assert answer("main") == "code=true\ntests=test\n"

    checkout.write("model-src/models/lily/notes.md", "Ours\n")
    checkout.commit()
    assert answer("main") == "code=true\ntests=test-models\n"
    assert answer("main", event="push") == "code=true\ntests=test\n"
    assert answer("refs/heads/main", checkout.tip("main"), "merge_group") == "code=true\ntests=test\n"
    assert answer() == "code=true\ntests=test\n"


def listed(checkout: Checkout, folder: Path, workflow: str, **variables: str) -> dict[str, str]:
    """What the step tells that lists models, with a program in the place of GitHub's that prints what $GREEN has."""
    (folder / "gh").write_text('#!/bin/sh\necho "$2" >>"$0.asked"\necho "$GREEN"\n')
    (folder / "gh").chmod(0o755)
    output = folder / "output"
    output.write_text("")
    given = {
        "GITHUB_OUTPUT": str(output), "RUNNER_TEMP": str(folder), "GITHUB_EVENT_NAME": "push", "GREEN": "",
        "GITHUB_REPOSITORY": "o/r", "PATH": f"{folder}:{os.environ['PATH']}", "BASE": "HEAD^1", "MODELS": "",
    }  # fmt: skip
    subprocess.run(
        ["bash", "-e", "-c", script(workflow, "models", "packing.affected")],
        cwd=checkout.root / "model-src", env=os.environ | given | variables, check=True,
    )  # fmt: skip
    return dict(line.split("=", 1) for line in output.read_text().splitlines())


@pytest.mark.parametrize(("workflow", "minutes"), [("ci", 15), ("mlops-pipeline", 30)])
def test_those_models_are_trained_that_changed_since_a_green_run(
    checkout: Checkout, tmp_path: Path, workflow: str, minutes: int
) -> None:
    every = {"groups": '["diabetes","lily"]', "minutes": str(minutes)}
    green = checkout.git("rev-parse", "HEAD")
    checkout.write("model-src/models/lily/notes.md", "New\n")
    checkout.commit()
    checkout.write("model-src/models/diabetes/notes.md", "New\n")
    checkout.commit()

    assert listed(checkout, tmp_path, workflow) == every
    assert listed(checkout, tmp_path, workflow, GREEN=green) == every
    assert listed(checkout, tmp_path, workflow, GREEN="0" * 40) == every
    assert listed(checkout, tmp_path, workflow, GREEN="HEAD^") == every | {"groups": '["diabetes"]'}
    assert listed(checkout, tmp_path, workflow, GREEN="HEAD") == every | {"groups": "[]"}
    [asked] = {*(tmp_path / "gh.asked").read_text().splitlines()}
    path, _, query = asked.partition("?")
    assert path == f"repos/o/r/actions/workflows/{workflow}.yml/runs"
    assert {*query.split("&")} >= {"event=push", "status=success", f"branch={'main' if workflow == 'ci' else 'cicd'}"}
    work = WORKFLOWS[workflow]["jobs"]["train"]
    assert work["if"].startswith("needs.models.outputs.groups != '[]'")
    assert work["strategy"]["matrix"]["models"] == "${{ fromJSON(needs.models.outputs.groups) }}"


def test_a_pull_request_trains_what_it_changes_and_a_person_what_is_named(checkout: Checkout, tmp_path: Path) -> None:
    checkout.write("model-src/models/lily/notes.md", "New\n")
    checkout.commit()

    assert listed(checkout, tmp_path, "ci", GITHUB_EVENT_NAME="pull_request")["groups"] == '["lily"]'
    by_hand = {"GITHUB_EVENT_NAME": "workflow_dispatch", "GREEN": "HEAD"}
    assert listed(checkout, tmp_path, "mlops-pipeline", **by_hand)["groups"] == '["diabetes","lily"]'
    assert listed(checkout, tmp_path, "mlops-pipeline", **by_hand, MODELS="lily")["groups"] == '["lily"]'
    with pytest.raises(subprocess.CalledProcessError):
        listed(checkout, tmp_path, "mlops-pipeline", **by_hand, MODELS="lily elm")
    assert not (tmp_path / "gh.asked").exists()


@pytest.mark.parametrize(("workflow", "most", "minutes"), [("ci", 128, 120), ("mlops-pipeline", 256, 120)])
def test_a_thousand_models_fit_into_a_matrix(
    checkout: Checkout, tmp_path: Path, workflow: str, most: int, minutes: int
) -> None:
    for number in range(1000 - 2):
        checkout.write(f"model-src/models/m{number:04d}/problem.yaml", "")

    found = listed(checkout, tmp_path, workflow)

    groups = json.loads(found["groups"])
    assert (len(groups), len({name for group in groups for name in group.split()})) == (most, 1000)
    assert int(found["minutes"]) == minutes


def test_a_model_is_compared_with_the_version_of_it_that_production_runs(checkout: Checkout, tmp_path: Path) -> None:
    (checkout.root / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "python").write_text('#!/bin/sh\necho "$*"\n')
    (tmp_path / "python").chmod(0o755)
    version = package(tmp_path / "artifacts")

    def compared(model: str) -> str:
        summary = tmp_path / "summary"
        summary.write_text("")
        variables = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "MODELS": model, "GITHUB_STEP_SUMMARY": str(summary),
            "RUNNER_TEMP": str(tmp_path),
        }  # fmt: skip
        subprocess.run(
            ["bash", "-e", "-c", script("mlops-pipeline", "compare", "releases.py")],
            cwd=checkout.root, env=os.environ | variables, check=True,
        )  # fmt: skip
        return summary.read_text()

    assert compared("lily") == "-m lifecycle compare lily --with s3://unreleased/\n"
    for environment in ("dev", "prod"):
        write_release(checkout.root, Target("lily-sklearn", environment), version, "sklearn")
    checkout.commit()
    assert compared("lily") == f"-m lifecycle compare lily --with {version.uri}sklearn/\n"
    assert compared("lil") == "-m lifecycle compare lil --with s3://unreleased/\n"
    assert compared("lil lily").splitlines() == [compared("lil").strip(), compared("lily").strip()]


def sha256_of(version: Version) -> str:
    return f"sha256:{hashlib.sha256((version.folder / 'manifest.json').read_bytes()).hexdigest()}"


def test_what_was_trained_is_settled_before_any_job_has_a_right(tmp_path: Path) -> None:
    """The step as it stands; it is in a job without rights, which runs nothing that was checked out or downloaded."""
    jobs, output = WORKFLOWS["mlops-pipeline"]["jobs"], tmp_path / "output"
    groups = ["lily wine_red", "lily-2", "gone"]
    versions = {
        name: package(tmp_path / f"made/artifacts-{group}/{name}", model=name)
        for group, names in enumerate(groups[:2])
        for name in names.split()
    }
    # Two that nobody asked for.
    package(tmp_path / "made/artifacts-0/lily-2")
    package(tmp_path / "made/artifacts-7/oak", model="oak")

    subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script("mlops-pipeline", "made", "sha256sum")],
        cwd=tmp_path, env=os.environ | {"GITHUB_OUTPUT": str(output), "NAMES": json.dumps(groups)}, check=True,
    )  # fmt: skip
    told = json.loads(output.read_text().removeprefix("groups="))

    assert [(entry["group"], entry["models"]) for entry in told] == [*enumerate(groups)]
    for entry in told[:2]:
        for name in entry["models"].split():
            assert entry["made"][name] == sha256_of(versions[name])
    assert told[2]["made"] is None
    assert (jobs["made"]["needs"], jobs["made"]["permissions"]) == (["models", "train", "sagemaker"], {})
    assert [step.get("uses", "").partition("@")[0] for step in jobs["made"]["steps"]] == [
        "actions/download-artifact", "",
    ]  # fmt: skip
    uploads = [step["with"]["name"] for name, step in steps("mlops-pipeline") if "upload-artifact" in str(step)]
    # On the runner, or on SageMaker.
    assert uploads == [f"{kind}-${{{{ strategy.job-index }}}}" for kind in ("artifacts", "reports")] * 2
    for name, job in jobs.items():
        takes = [step["with"]["name"] for step in job["steps"] if "name" in step.get("with", {})]
        if name in ("train", "sagemaker"):
            continue
        if takes:
            assert "made" in job["needs"], name
            assert job["strategy"]["matrix"] == {"include": "${{ fromJSON(needs.made.outputs.groups) }}"}
            assert {take.partition("-")[2] for take in takes} == {"${{ matrix.group }}"}
            assert job["env"] | {"MODELS": "${{ matrix.models }}", "MADE": "${{ toJSON(matrix.made) }}"} == job["env"]
            assert any('<<< "$MADE"' in step.get("run", "") for step in job["steps"])


def test_a_model_is_trained_on_the_runner_or_where_an_image_is_given_on_sagemaker() -> None:
    """Each job names what it follows, because GitHub skips what comes after a skipped one."""
    jobs = WORKFLOWS["mlops-pipeline"]["jobs"]
    some = "needs.models.outputs.groups != '[]'"

    assert jobs["train"]["if"] == f"{some} && !inputs.image"
    assert jobs["sagemaker"]["if"] == f"{some} && inputs.image && vars.AWS_SAGEMAKER_TRAINER_ROLE != ''"
    assert jobs["train"]["strategy"] == jobs["sagemaker"]["strategy"]
    assert [jobs[name]["if"] for name in ("made", "compare", "release")] == [
        "!cancelled() && (needs.train.result == 'success' || needs.sagemaker.result == 'success')",
        "!cancelled() && needs.made.result == 'success'",
        "!cancelled() && needs.compare.result == 'success'",
    ]
    [role] = [step["with"] for step in jobs["sagemaker"]["steps"] if "configure-aws" in step.get("uses", "")]
    trainer = cloudformation.read(ROOT / "infra", "training")["Resources"]["Trainer"]["Properties"]
    # A job of SageMaker may take an hour, and is waited for for another.
    assert int(role["role-duration-seconds"]) == trainer["MaxSessionDuration"] >= 3600 + sagemaker.LONGEST
    assert int(role["role-duration-seconds"]) >= 60 * int(jobs["sagemaker"]["timeout-minutes"])


def test_what_sagemaker_trains_comes_to_where_the_next_jobs_look(tmp_path: Path) -> None:
    summary, python = tmp_path / "summary", tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/sh\nshift\necho "$*" >> asked\nfor out; do :; done\nmkdir -p "$out"\necho "# $2" > "$out/report.md"\n'
    )
    python.chmod(0o755)
    given = {"MODELS": "lily oak", "IMAGE": "r/train@sha256:1; exit 1", "ATTEMPT": "2"}

    subprocess.run(
        ["bash", "-e", "-c", script("mlops-pipeline", "sagemaker", "train_sagemaker.py")],
        cwd=tmp_path, env=os.environ | given | {"GITHUB_STEP_SUMMARY": str(summary)}, check=True,
    )  # fmt: skip

    assert (tmp_path / "asked").read_text().splitlines() == [
        f"--model {name} --image {given['IMAGE']} --attempt 2 --wait --reports model-src/reports/{name}"
        for name in ("lily", "oak")
    ]
    assert summary.read_text().splitlines() == ["# lily", "# oak"]


def test_a_job_that_signs_names_what_it_signs() -> None:
    signing = [step["run"] for name in WORKFLOWS for _, step in steps(name) if "--sign-" in step.get("run", "")]

    assert signing
    assert all('--expect "$made"' in run for run in signing)


@pytest.mark.parametrize("right", ["id-token", "secrets."])
def test_no_job_with_a_key_reads_a_format_that_can_run_code(right: str) -> None:
    """Training alone unpickles, and it has neither; what it made is only read as ONNX and hashed elsewhere."""
    for workflow in WORKFLOWS.values():
        for job in workflow["jobs"].values():
            if right in str(job):
                runs = " ".join(step.get("run", "") for step in job["steps"])
                assert not re.search(r"dvc repro|lifecycle version|joblib|pickle|generate_data", runs)


def test_comparing_before_the_release_refuses_another_manifest(tmp_path: Path) -> None:
    made, oak = (package(tmp_path / f"model-src/artifacts/{name}", model=name) for name in ("lily", "oak"))

    def code(**manifests: str) -> int:
        command = ["bash", "-e", "-c", script("mlops-pipeline", "compare", "--check")]
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"MODELS": "lily oak", "MADE": json.dumps(manifests or None)}
        ).returncode

    right = {"lily": sha256_of(made), "oak": sha256_of(oak)}
    assert code(**right) == 0
    for wrong in ({"lily": sha256_of(oak)}, {"oak": f"sha256:{'0' * 64}"}):
        assert code(**(right | wrong)) == 1
    assert (code(lily=sha256_of(made)), code()) == (1, 1)


def test_the_pipeline_uploads_replicates_and_proposes_a_release_in_dev(
    checkout: Checkout, s3: S3, replica: S3, tmp_path: Path
) -> None:
    """Its last steps as they stand, with a program that writes down what GitHub would be asked."""
    name_replica(checkout, "dev")
    checkout.commit("Name a replica", push=True)
    code = lineage.find(checkout.root / "model-src", "lily")
    made = package(checkout.root / "artifacts/lily", code_commit=code.commit)
    (checkout.root / ".venv").symlink_to(ROOT / ".venv")
    asked, output = tmp_path / "asked", tmp_path / "output"
    (tmp_path / "gh").write_text(f'#!/bin/sh\n{{ printf "%s|" "$@"; echo; }} | head -n 1 >> {asked}\n')
    (tmp_path / "gh").chmod(0o755)
    before = checkout.tip()
    known = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "MODELS": "lily lily", "GITHUB_OUTPUT": str(output),
        "RUNNER_TEMP": str(tmp_path),
    }  # fmt: skip

    def step(part: str, code: int = 0, **variables: str) -> str:
        done = subprocess.run(
            ["bash", "-e", "-c", script("mlops-pipeline", "release", part)],
            cwd=checkout.root, env=os.environ | known | variables, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stderr

    other = f"sha256:{'0' * 64}"
    assert f"manifest.json: {sha256_of(made)}, but --expect is {other}" in step(
        "upload_model.py", 1, MADE=json.dumps({"lily": other})
    )
    assert "--expect: 'null' is not sha256:" in step("upload_model.py", 2, MADE=json.dumps({"lil": sha256_of(made)}))
    assert (s3.keys(), (tmp_path / "uploaded").exists()) == ([], False)
    step("upload_model.py", MADE=json.dumps({"lily": sha256_of(made)}))
    assert replica.keys() == []
    step("bump_model.py")
    name, commit = output.read_text().strip().split("=")
    step("gh pr create", COMMIT=commit, GITHUB_RUN_ID="7", GITHUB_RUN_ATTEMPT="1", GROUP="0")
    second = checkout.git("commit-tree", "-p", commit, "-m", "Release another", f"{commit}^{{tree}}")
    step("gh pr create", COMMIT=second, GITHUB_RUN_ID="7", GITHUB_RUN_ATTEMPT="1", GROUP="1", MODELS="lily oak")

    keys = s3.keys()
    assert name == "commit"
    assert f"models/lily/{made.version}/manifest.json" in keys
    assert replica.keys() == keys
    assert (checkout.tip(), checkout.tip("bump/7-1-0")) == (before, commit)
    titles = [f"Release lily-sklearn in dev to {made.version}", "Release lily oak"]
    assert [line.rstrip("|").split("|")[:8] for line in asked.read_text().splitlines()] == [
        words
        for group, title in enumerate(titles)
        for words in (
            ["auth", "setup-git"],
            ["pr", "create", "--base", "cicd", "--head", f"bump/7-1-{group}", "--title", title],
            ["pr", "merge", f"bump/7-1-{group}", "--auto", "--merge"],
        )
    ]
    checkout.git("checkout", "-q", "--detach", commit)
    assert (
        f"s3://{BUCKET}/models/lily/{made.version}/sklearn/"
        in checkout.read("overlays/dev/lily-sklearn/release.yaml").decode()
    )
    assert checkout.git("diff", "--name-only", before, commit) == "overlays/dev/lily-sklearn/release.yaml"


def test_the_pipeline_signs_with_the_key_that_the_policy_asks_for(checkout: Checkout, s3: S3, tmp_path: Path) -> None:
    private, runner = tmp_path / "signing.key", tmp_path / "runner"
    assert checkout.run("signing_key", "--private-key", private).code == 0
    checkout.commit("Ask for signatures", push=True)
    code = lineage.find(checkout.root / "model-src", "lily")
    made = package(checkout.root / "artifacts/lily", code_commit=code.commit)
    (checkout.root / ".venv").symlink_to(ROOT / ".venv")
    runner.mkdir()

    def step(key: str) -> subprocess.CompletedProcess[str]:
        known = {"MODELS": "lily", "MADE": json.dumps({"lily": sha256_of(made)}), "SIGNING_KEY": key}
        places = {"RUNNER_TEMP": str(runner)}
        return subprocess.run(
            ["bash", "-e", "-c", script("mlops-pipeline", "release", "upload_model.py")],
            cwd=checkout.root, env=os.environ | known | places, capture_output=True, text=True,
        )  # fmt: skip

    without = step("")
    assert (without.returncode, s3.keys()) == (1, [])
    assert "--sign-keyless: overlays/promotion.yaml requires a signature by the key" in without.stderr

    done = step(private.read_text().strip())

    assert done.returncode == 0, done.stderr
    assert (runner / "signing.key").stat().st_mode & 0o777 == 0o600
    assert (runner / "uploaded").read_text() == f"lily {made.uri}\n"

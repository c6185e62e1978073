"""Environments that take their models from a replica: what has to be there, and what reads it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from conftest import BUCKET, IMAGE, REPLICA, S3, Checkout, Result, Version, make_checkout, name_replica, package

from gitops.checks import storage
from gitops.checks.framework import Repository
from gitops.manifests import kustomize
from gitops.manifests.objects import Object
from gitops.repo import layout
from gitops.repo.policy import parse_policy, read_policy

ENVIRONMENTS = ("dev", "staging", "prod")
CONTAINER = f"""
patches:
  - target:
      kind: ClusterStorageContainer
    patch: |-
      - op: add
        path: /spec/container/env/-
        value: {{name: MODEL_REPLICA, value: {REPLICA}}}
"""


def read_there(checkout: Checkout, *environments: str) -> None:
    """What a team does whose environments have a replica: the policy, and each one's shared/."""
    name_replica(checkout, *environments)
    for environment in environments:
        shared = f"overlays/{environment}/shared/kustomization.yaml"
        variables = "  - ../../../base/environment/variables\n"
        checkout.replace(shared, variables, f"{variables}  - ../../../base/environment/replica\n")
        checkout.replace(shared, "    literals:\n", f"    literals:\n      - MODEL_REPLICA={REPLICA}\n")


# The rule


@pytest.fixture(scope="module")
def ready(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A repository all of whose environments have the replica."""
    made = make_checkout(template, tmp_path_factory.mktemp("ready"))
    read_there(made, *ENVIRONMENTS)
    made.replace("argocd/platform/kustomization.yaml", "  - addons\n", f"  - addons\n{CONTAINER}")
    made.commit()
    return made


def test_a_repository_whose_environments_read_from_a_replica_is_right(ready: Checkout) -> None:
    done = ready.run("validate", "--changed-since", "origin/cicd")

    assert (done.code, done.errors) == (0, [])


def test_a_policy_that_names_a_replica_alone_is_refused(checkout: Checkout) -> None:
    checkout.git("checkout", "-q", "origin/cicd")
    name_replica(checkout, *ENVIRONMENTS)
    checkout.commit()

    done = checkout.run("validate", "--changed-since", "origin/cicd")

    wrong = [line.partition(": ")[0] for line in done.errors]
    apps = [f"overlays/{environment}/{app}" for environment in ENVIRONMENTS for app in ("lily-api", "lily-batch")]
    assert (done.code, sorted(wrong)) == (1, sorted([*apps, layout.PLATFORM]))
    assert {line.rpartition(" [")[2] for line in done.errors} == {"replica]"}


@pytest.fixture(scope="module")
def renders(ready: Checkout) -> dict[str, list[Object]]:
    folders = layout.folders(ready.root, read_policy(ready.root))
    return kustomize.rendered_all(ready.root, folders)


def test_a_release_of_the_former_form_is_not_read_from_a_replica(
    ready: Checkout, renders: dict[str, list[Object]]
) -> None:
    policy = read_policy(ready.root)
    folder = "overlays/prod/lily-api"
    [deployment] = [json.loads(json.dumps(item)) for item in renders[folder] if item["kind"] == "Deployment"]
    annotations = deployment["metadata"]["annotations"]
    annotations["model.mlops/version"] = "2026-02-01-000000000000"
    del annotations["model.mlops/manifest"]

    found = list(storage.check_replica(Repository(ready.root, policy, {folder: [deployment]})))

    assert [each.message for each in found] == [
        f"metadata.annotations.model.mlops/manifest: missing: overlays/promotion.yaml gives prod {REPLICA}, and a"
        " replica is believed by that hash alone; release the version anew with bump_model.py or promote_model.py"
    ]


PLACES = f"""\
model_bucket: {BUCKET}
image_registries: [registry.example.org]
environments:
  - name: dev
  - name: prod
    cluster: us
    replica: {REPLICA}
clusters:
  - name: us
replicas:
  - {{bucket: {REPLICA}, region: us-east-1}}
"""


def test_each_cluster_fetches_from_the_bucket_of_its_own_environments(
    ready: Checkout, renders: dict[str, list[Object]]
) -> None:
    policy = parse_policy(PLACES.encode())
    here, there = (layout.platform(cluster) for cluster in ("in-cluster", "us"))
    with_replica = [item for item in renders[here] if item["kind"] == "ClusterStorageContainer"]
    without = json.loads(json.dumps(with_replica))
    without[0]["spec"]["container"]["env"].pop()
    overlays = {folder: renders[folder] for folder in renders if folder.endswith("/lily-sklearn")}
    del overlays["overlays/staging/lily-sklearn"]
    right = overlays | {here: without, there: with_replica}

    def found(renders: dict[str, list[Object]]) -> list[str]:
        return [f"{each.where.partition(':')[0]}: {each.message}" for each in storage.check_replica(
            Repository(ready.root, policy, renders))]  # fmt: skip

    assert found(right) == []
    variable, gives = "spec.container.env[MODEL_REPLICA]", "overlays/promotion.yaml gives"
    odd = json.loads(json.dumps(with_replica))
    odd[0]["spec"]["container"]["env"][-1]["value"] = []
    assert found(right | {there: odd}) == [f"{there}: {variable}: []: {gives} prod {REPLICA}; write {REPLICA}"]
    assert found(right | {here: with_replica, there: without}) == [
        f"{here}: {variable}: '{REPLICA}': {gives} dev {BUCKET}; remove it",
        f"{there}: {variable}: missing: {gives} prod {REPLICA}; write {REPLICA}",
    ]


# The commands


def bump(checkout: Checkout, version: Version, environment: str = "dev") -> Result:
    place = ("--app", "lily-api", "--env", environment)
    return checkout.run("bump_model", *place, "--model-uri", version.uri, "--image", IMAGE, "--commit")


def promote(checkout: Checkout, to: str) -> Result:
    return checkout.run("promote_model", "--app", "lily-api", "--to", to, "--commit")


def done(result: Result) -> Result:
    assert result.code == 0, result.err
    return result


@pytest.fixture
def checkout(checkout: Checkout) -> Checkout:
    """A clone in which staging and prod take their models from the replica, and dev does not."""
    read_there(checkout, "staging", "prod")
    checkout.commit()
    return checkout


def remedy(line: str) -> list[str]:
    """The command that an error line ends with, without `python scripts/`."""
    assert line.endswith("`")
    _, command, *args = shlex.split(line.split("`")[-2])
    return [Path(command).stem, *args]


def test_a_release_comes_to_an_environment_only_when_its_replica_has_every_byte(
    checkout: Checkout, version: Version, replica: S3
) -> None:
    there = version.uri.replace(BUCKET, REPLICA)
    done(bump(checkout, version))

    refused = promote(checkout, "staging")
    assert (refused.code, len(refused.errors)) == (1, 1)
    assert refused.errors[0].startswith(f"{there}: missing, and staging takes its models there; copy it with `python")
    done(checkout.run(*remedy(refused.errors[0])))
    done(promote(checkout, "staging"))
    listed = done(checkout.run("list_versions", "--model", "lily", "--verify", "--json"))
    assert [row["replicas"] for row in json.loads(listed.out)] == [{REPLICA: True}]

    file = f"{there.removeprefix(f's3://{REPLICA}/')}onnx/model.onnx"
    replica.client.put_object(Bucket=REPLICA, Key=file, Body=b"onnx 0ne")
    for command in (
        lambda: promote(checkout, "prod"),
        lambda: checkout.run("list_versions", "--model", "lily", "--verify"),
    ):
        refused = command()
        assert refused.code == 1
        assert refused.errors[0].startswith(f"{there}onnx/model.onnx: sha256 ")

    assert f"ok       s3://{REPLICA}\n" in checkout.run("doctor", "--s3").out
    replica.empty()
    listed = checkout.run("list_versions", "--model", "lily", "--verify")
    assert listed.errors[0].startswith(f"{there}: missing, and staging takes its models there; copy it with `python")
    assert [line.split()[-5:-4] for line in listed.out.splitlines()[2:]] == [["-"]]


def test_a_rollback_goes_to_what_the_replica_has(
    checkout: Checkout, version: Version, tmp_path: Path, s3: S3, replica: S3
) -> None:
    later = package(tmp_path / "later", "two")
    s3.upload(later)
    for each in (version, later):
        done(checkout.run("replicate_models", "--model", "lily", "--version", each.version))
        done(bump(checkout, each))
        done(promote(checkout, "staging"))
    back = ("rollback_model", "--app", "lily-api", "--env", "staging", "--reason", "wrong answers")
    prefix = version.uri.removeprefix(f"s3://{BUCKET}/")
    older = (version.folder / "manifest.json").read_bytes().replace(b"0.9556", b"0.1234")
    replica.client.put_object(Bucket=REPLICA, Key=f"{prefix}manifest.json", Body=older)

    refused = checkout.run(*back)

    assert refused.code == 1
    assert refused.errors[0].startswith(f"s3://{REPLICA}/{prefix}manifest.json: sha256:")
    replica.client.delete_object(Bucket=REPLICA, Key=f"{prefix}manifest.json")
    refused = checkout.run(*back)
    assert "missing, and staging takes its models there" in refused.errors[0]
    done(checkout.run(*remedy(refused.errors[0])))
    done(checkout.run(*back))


def test_a_bump_looks_into_the_replica_too(checkout: Checkout, version: Version, replica: S3) -> None:
    checkout.replace("overlays/promotion.yaml", "- name: dev\n", f"- name: dev\n    replica: {REPLICA}\n")
    checkout.commit()

    refused = bump(checkout, version)
    assert refused.errors[0].startswith(f"{version.uri.replace(BUCKET, REPLICA)}: missing, and dev takes its models")
    done(checkout.run(*remedy(refused.errors[0])))
    done(bump(checkout, version))

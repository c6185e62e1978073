"""A service on instances of EC2: its app made, released, promoted, rolled back and retired like all others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import on_instances
import pytest
from conftest import BUCKET, IMAGE, S3, Checkout, Version, package
from on_instances import APP, ENVIRONMENTS, STACK, archive, parameters

from gitops.manifests import kustomize
from gitops.manifests.objects import Object

FILE = f"overlays/{{}}/{APP}/release.yaml"


@pytest.fixture
def app(checkout: Checkout) -> Checkout:
    on_instances.add(checkout)
    return checkout


def rendered(checkout: Checkout, environment: str) -> Object:
    """The Stack of an overlay, which renders nothing else."""
    [item] = kustomize.rendered(checkout.root, f"overlays/{environment}/{APP}")
    return item


def bump(checkout: Checkout, version: Version, image: str, environment: str = "dev") -> None:
    done = checkout.run(
        "bump_model", *STACK, "--env", environment, "--model-uri", version.uri, "--image", image, "--push"
    )
    assert done.code == 0, done.err
    checkout.git("reset", "-q", "--hard", "origin/cicd")


def promote(checkout: Checkout, environment: str) -> None:
    told = checkout.run("promote_model", *STACK, "--to", environment, "--push", "--json")
    assert told.code == 0, told.err
    checkout.merge(json.loads(told.out)["branch"])


def test_the_new_app_is_valid_unreleased_and_named_everywhere(app: Checkout) -> None:
    items = {environment: rendered(app, environment) for environment in ENVIRONMENTS}

    assert app.run("validate").errors == []
    assert {item["metadata"]["name"] for item in items.values()} == {APP}
    assert {environment: item["metadata"]["namespace"] for environment, item in items.items()} == {
        environment: f"ml-{environment}" for environment in ENVIRONMENTS
    }
    assert parameters(items["dev"]) | {"Host": "", "Certificate": ""} == parameters(items["dev"]) | {
        "Host": "", "Certificate": "", "Service": "unreleased", "ModelUri": "s3://unreleased/",
        "InstanceProfile": "ml-dev-vm",
    }  # fmt: skip


def test_what_is_to_be_filled_in_is_listed_and_nothing_is_released_before(
    checkout: Checkout, version: Version, s3: S3
) -> None:
    made = checkout.run("new_model", "lily", "--shape", "vm", "--only", "app")
    checkout.commit("As it was made", push=True)
    assert checkout.run("validate").errors == []

    bump(checkout, version, archive(s3))
    errors = checkout.run("validate").errors

    assert re.findall(r"to be written: (\S+):", made.err) == [on_instances.instances(name) for name in ENVIRONMENTS]
    assert [line.partition("spec.parameters.")[2].partition(":")[0] for line in errors] == [
        "Certificate", "LoadBalancerSubnets", "Subnets", "Vpc",
    ]  # fmt: skip
    assert all("not filled in, and something is released here" in line for line in errors)


def test_a_stack_is_released_promoted_rolled_back_and_retired_like_a_service(
    app: Checkout, version: Version, s3: S3, tmp_path: Path
) -> None:
    second = package(tmp_path / "second", "two")
    s3.upload(second)
    first_service, service = archive(s3), archive(s3, "two")
    for made, image in ((version, first_service), (second, service)):
        bump(app, made, image)
        before = app.tip()
        promote(app, "staging")
        assert app.run("validate", "--changed-since", before).errors == []
    given = parameters(rendered(app, "staging"))
    assert (given["Service"], given["ModelUri"]) == (service, f"{second.uri}onnx/")
    assert (given["ModelDigest"], given["ModelManifest"]) == (second.digest, second.manifest)

    back = app.run("rollback_model", *STACK, "--env", "staging", "--reason", "worse", "--push")
    app.git("reset", "-q", "--hard", "origin/cicd")
    assert parameters(rendered(app, "staging"))["Service"] == first_service
    rows = json.loads(app.run("releases", *STACK, "--json").out)["releases"]
    listed = json.loads(app.run("list_versions", "--model", "lily", "--json").out)
    retired = app.run("retire_app", *STACK, "--env", "staging", "--reason", "on a cluster now", "--push")
    before = app.tip()
    app.merge(f"retire/staging/{APP}")

    assert back.code == retired.code == 0, back.err + retired.err
    assert [(row["version"], row["image"]) for row in rows] == [
        (second.version, service), (version.version, first_service), ("unreleased", "unreleased"),
    ]  # fmt: skip
    assert {item["version"]: item["runs_in"] for item in listed} == {
        version.version: [f"{APP} in staging"], second.version: [f"{APP} in dev"],
    }  # fmt: skip
    assert f"- Stack.deploy.mlops ml-staging/{APP}\n" in retired.out
    assert f"python scripts/deploy_stack.py --app {APP} --env staging --delete" in retired.err
    assert app.run("validate", "--changed-since", before).errors == []


def test_another_service_takes_the_same_way_as_another_version(app: Checkout, version: Version, s3: S3) -> None:
    first, second = archive(s3), archive(s3, "two")
    bump(app, version, first)
    promote(app, "staging")
    before = app.git("rev-parse", "HEAD")
    app.replace(FILE.format("staging"), first, second)
    app.commit("Another service, past dev")

    errors = app.run("validate", "--changed-since", before).errors

    assert errors == [
        f"{FILE.format('staging')}: {version.version} with the image {second} has never been released in dev, which"
        " comes before staging; release it there first, then run"
        f" `python scripts/promote_model.py --app {APP} --to staging` [order]"
    ]


def test_taking_the_app_away_by_hand_is_a_removal(app: Checkout, version: Version, s3: S3) -> None:
    bump(app, version, archive(s3))
    app.git("rm", "-qr", f"overlays/dev/{APP}")
    app.commit("Take it away")

    errors = app.run("validate", "--changed-since", "HEAD^").errors

    assert errors == [
        f"overlays/dev/{APP}: Stack.deploy.mlops ml-dev/{APP} is no longer rendered; to remove it on purpose, run"
        f" `python scripts/retire_app.py --app {APP} --env dev`, or where the app stays, add an entry for it to"
        " overlays/dev/retired.yaml [removal]"
    ]


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        f"s3://another/services/{'1' * 64}.tar.gz",
        f"s3://{BUCKET}/services/{'1' * 64}.zip",
        f"s3://{BUCKET}/services/latest.tar.gz",
        f"s3://{BUCKET}/models/{'1' * 64}.tar.gz",
    ],
)
def test_only_an_archive_of_the_model_bucket_by_its_own_digest_is_a_service(
    app: Checkout, version: Version, image: str
) -> None:
    before = app.state()

    done = app.run("bump_model", *STACK, "--env", "dev", "--model-uri", version.uri, "--image", image, "--push")

    assert done.errors == [
        f"--image {image}: name the archive of the service as s3://{BUCKET}/services/SHA256.tar.gz, as pack_service.py"
        " prints it"
    ]
    assert app.state() == before


def test_an_archive_that_is_not_there_or_has_other_bytes_is_not_released(
    app: Checkout, version: Version, s3: S3
) -> None:
    missing = f"s3://{BUCKET}/services/{'1' * 64}.tar.gz"
    asked = ("bump_model", *STACK, "--env", "dev", "--model-uri", version.uri, "--image", missing, "--push")

    absent = app.run(*asked)
    s3.client.put_object(Bucket=BUCKET, Key=f"services/{'1' * 64}.tar.gz", Body=b"anything")
    other = app.run(*asked)

    assert absent.errors == [f"{missing}: no such object; upload it with `python scripts/pack_service.py`"]
    assert other.errors == [
        f"{missing}: its bytes have another SHA-256; find out who wrote that object, do not release it"
    ]


def test_an_archive_is_no_image_of_a_container(checkout: Checkout, version: Version, s3: S3) -> None:
    image = archive(s3)

    done = checkout.run(
        "bump_model", "--app", "lily-api", "--env", "dev", "--model-uri", version.uri, "--image", image, "--push"
    )

    assert (done.code, done.errors[0].partition(": name it")[0]) == (1, f"--image {image}")

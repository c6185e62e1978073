"""A service on SageMaker: its app made, released, promoted, rolled back and retired like all others."""

from __future__ import annotations

import json
from pathlib import Path

import on_sagemaker
import pytest
from conftest import IMAGE, REGISTRY, S3, Checkout, Version, package
from on_sagemaker import APP, ASKED, ENVIRONMENTS, FILE, one, rendered

from gitops.manifests import ack

OTHER = IMAGE.replace("1" * 64, "2" * 64)
WITHOUT = """\
  - |-
    apiVersion: builtin
    kind: PatchTransformer
    metadata:
      name: without
    target:
      kind: EndpointConfig
    patch: |-
      $patch: delete
      apiVersion: sagemaker.services.k8s.aws/v1alpha1
      kind: EndpointConfig
      metadata:
        name: any
"""


@pytest.fixture
def app(checkout: Checkout) -> Checkout:
    on_sagemaker.add(checkout)
    return checkout


def bump(checkout: Checkout, version: Version, image: str = IMAGE, environment: str = "dev") -> None:
    done = checkout.run(
        "bump_model", *ASKED, "--env", environment, "--model-uri", version.uri, "--image", image, "--push"
    )
    assert done.code == 0, done.err
    checkout.git("reset", "-q", "--hard", "origin/cicd")


def promote(checkout: Checkout, environment: str) -> None:
    told = checkout.run("promote_model", *ASKED, "--to", environment, "--push", "--json")
    assert told.code == 0, told.err
    checkout.merge(json.loads(told.out)["branch"])


def test_the_new_app_is_valid_unreleased_and_named_everywhere(app: Checkout) -> None:
    assert app.run("validate").errors == []
    for environment in ENVIRONMENTS:
        items = rendered(app, environment)
        space = f"ml-{environment}"
        assert {item["metadata"]["namespace"] for item in items} == {space}
        assert one(items)["spec"]["modelName"] == f"{space}-{APP}-unreleased"
        assert one(items)["spec"]["executionRoleARN"].endswith(f":role/{space}-sagemaker")
        assert one(items, ack.ENDPOINT)["spec"]["endpointName"] == f"{space}-{APP}"
    assert {kind for _, kind in ack.KINDS} == {item["kind"] for item in rendered(app, "prod")}


def test_a_release_names_what_it_replaces_and_is_promoted_rolled_back_and_retired(
    app: Checkout, version: Version, s3: S3, tmp_path: Path
) -> None:
    second = package(tmp_path / "second", "two")
    s3.upload(second)
    names = []
    for made, image in ((version, IMAGE), (second, OTHER)):
        bump(app, made, image)
        before = app.tip()
        promote(app, "staging")
        assert app.run("validate", "--changed-since", before).errors == []
        items = rendered(app, "staging")
        model, config, endpoint = (one(items, kind) for kind in (ack.MODEL, ack.CONFIG, ack.ENDPOINT))
        name = model["metadata"]["name"]
        names.append(name)
        assert name.startswith(f"{APP}-{made.version}-")
        assert config["metadata"]["name"] == name
        assert endpoint["metadata"]["name"] == APP
        named = {
            model["spec"]["modelName"],
            config["spec"]["endpointConfigName"],
            endpoint["spec"]["endpointConfigName"],
        }
        assert named | {each["modelName"] for each in config["spec"]["productionVariants"]} == {f"ml-staging-{name}"}
        assert model["spec"]["primaryContainer"]["image"] == image
        given = model["spec"]["primaryContainer"]["environment"]
        assert (given["MODEL_URI"], given["MODEL_DIGEST"], given["MODEL_MANIFEST"]) == (
            f"{made.uri}onnx/", made.digest, made.manifest,
        )  # fmt: skip
    assert len(set(names)) == 2

    back = app.run("rollback_model", *ASKED, "--env", "staging", "--reason", "worse", "--push")
    app.git("reset", "-q", "--hard", "origin/cicd")
    assert one(rendered(app, "staging"))["metadata"]["name"] == names[0]
    rows = json.loads(app.run("releases", *ASKED, "--json").out)["releases"]
    listed = json.loads(app.run("list_versions", "--model", "lily", "--json").out)
    retired = app.run("retire_app", *ASKED, "--env", "staging", "--reason", "on a cluster now", "--push")
    before = app.tip()
    app.merge(f"retire/staging/{APP}")

    assert back.code == retired.code == 0, back.err + retired.err
    assert [(row["version"], row["image"]) for row in rows] == [
        (second.version, OTHER), (version.version, IMAGE), ("unreleased", "unreleased"),
    ]  # fmt: skip
    assert {item["version"]: item["runs_in"] for item in listed} == {
        version.version: [f"{APP} in staging"], second.version: [f"{APP} in dev"],
    }  # fmt: skip
    for kind in ("Model", "EndpointConfig", "Endpoint"):
        assert f"- {kind}.sagemaker.services.k8s.aws ml-staging/{APP}\n" in retired.out
    assert app.run("validate", "--changed-since", before).errors == []


def test_an_image_alone_gives_another_name(app: Checkout, version: Version) -> None:
    bump(app, version)
    before = one(rendered(app, "dev"))["metadata"]["name"]

    bump(app, version, OTHER)

    after = one(rendered(app, "dev"))["metadata"]["name"]
    assert after != before
    assert after.rpartition("-")[0] == before.rpartition("-")[0] == f"{APP}-{version.version}"


def test_a_pull_request_shows_the_new_names_as_changes_of_what_is_there(app: Checkout, version: Version) -> None:
    bump(app, version)
    before = app.git("rev-parse", "HEAD")
    bump(app, version, OTHER)

    shown = app.run("render", "--changed-since", before).out

    assert "+kind" not in shown and "-kind" not in shown
    assert f"overlays/dev/{APP}" in shown


def test_a_name_that_the_release_does_not_give_is_refused(app: Checkout, version: Version) -> None:
    bump(app, version)
    name = one(rendered(app, "dev"))["metadata"]["name"]
    app.replace(FILE.format("dev"), name, f"{name[:-1]}{'0' if name[-1] != '0' else '1'}")

    assert app.run("validate").errors == [
        f"{FILE.format('dev')}: metadata.annotations.model.mlops/name: '{name[:-1]}{'0' if name[-1] != '0' else '1'}':"
        f" not {name}, which the app, the version and the image give; only commands write it, and people no more than"
        " a number behind it, as in -2 [release]"
    ]


def test_taking_the_app_away_by_hand_is_a_removal(app: Checkout, version: Version) -> None:
    bump(app, version)
    app.git("rm", "-qr", f"overlays/dev/{APP}")
    app.commit("Take it away")

    errors = app.run("validate", "--changed-since", "HEAD^").errors

    assert errors == [
        f"overlays/dev/{APP}: Endpoint.sagemaker.services.k8s.aws ml-dev/{APP} is no longer rendered; to remove it on"
        f" purpose, run `python scripts/retire_app.py --app {APP} --env dev`, or where the app stays, add an entry for"
        " it to overlays/dev/retired.yaml [removal]"
    ]


def test_an_endpoint_that_loses_its_configuration_is_a_removal(app: Checkout, version: Version) -> None:
    """Argo CD would prune it, and ACK delete it under the endpoint."""
    bump(app, version)
    name = one(rendered(app, "dev"))["metadata"]["name"]
    path = f"overlays/dev/{APP}/kustomization.yaml"
    app.write(path, app.read(path).decode() + WITHOUT)
    app.commit("Lose a part")

    errors = app.run("validate", "--changed-since", "HEAD^").errors

    assert errors == [
        f"overlays/dev/{APP}: EndpointConfig.sagemaker.services.k8s.aws: rendered 0 times; an app has one Model, one"
        " EndpointConfig and one Endpoint [sagemaker]",
        f"overlays/dev/{APP}: Endpoint.sagemaker.services.k8s.aws ml-dev/{APP} is no longer running"
        f" (spec.endpointConfigName: 'ml-dev-{name}': no EndpointConfig of that name is rendered); to remove it on"
        f" purpose, run `python scripts/retire_app.py --app {APP} --env dev`, or where the app stays, add an entry for"
        " it to overlays/dev/retired.yaml [removal]",
    ]


def test_a_change_of_what_cannot_change_needs_a_name_of_its_own(app: Checkout, version: Version) -> None:
    bump(app, version)
    promote(app, "staging")
    before = app.git("rev-parse", "HEAD")
    app.replace(f"overlays/staging/{APP}/kustomization.yaml", "requests/staging/captured", "requests/staging/kept")
    app.commit("Capture elsewhere")
    refused = app.run("validate", "--changed-since", before).errors
    name = one(rendered(app, "staging"))["metadata"]["name"]
    app.replace(FILE.format("staging"), name, f"{name}-2")
    app.commit("Under another name")

    assert refused == [
        f"overlays/staging/{APP}: EndpointConfig.sagemaker.services.k8s.aws ml-staging/{APP}: spec: changed, which ACK"
        f" refuses once the object is there; put a number behind model.mlops/name in {FILE.format('staging')}, as in"
        f" `{name}-2`, or make the change together with a release [immutable]"
    ]
    assert app.run("validate").errors == []
    assert app.run("validate", "--changed-since", before).errors == []
    assert one(rendered(app, "staging"), ack.CONFIG)["metadata"]["name"] == f"{name}-2"


def test_an_image_from_elsewhere_is_not_released(app: Checkout, version: Version) -> None:
    before = app.state()

    done = app.run(
        "bump_model", *ASKED, "--env", "dev", "--model-uri", version.uri, "--image", "docker.io/a/b:1", "--push"
    )

    assert done.errors == [
        f"--image docker.io/a/b:1: not in one of the registries of overlays/promotion.yaml: {REGISTRY}"
    ]
    assert app.state() == before

"""deploy_sagemaker.py and what it asks of AWS, on moto.

moto has no UpdateEndpoint, and its endpoints are in service at once: botocore's Stubber judges that call, and what it
does and how long the endpoint takes is done to moto's. No endpoint of AWS was ever updated by these tests.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import on_sagemaker
import pytest
from botocore.stub import Stubber
from conftest import IMAGE, S3, Checkout, Result, Version, clone, package
from moto import mock_aws
from moto.sagemaker.models import sagemaker_backends

import deploy_sagemaker
from gitops.models import s3, sagemaker
from gitops.models.sagemaker import APP, ENVIRONMENT, Account, Wanted
from gitops.releases import hold, retired, withdrawn
from gitops.releases.release import Release
from gitops.repo import layout
from gitops.repo.policy import POLICY_FILE

from contract.errors import Refused

ACCOUNT, REGION, NAME = "111122223333", "eu-west-1", "ml-dev-iris-sagemaker"
FIRST, SECOND = "2026-02-01-0123456789ab", "2026-02-02-ba9876543210"
SAGEMAKER, SCALING = "sagemaker.services.k8s.aws/v1alpha1", "applicationautoscaling.services.k8s.aws/v1alpha1"
VARIANT = {"resourceID": f"endpoint/{NAME}/variant/all", "scalableDimension": "sagemaker:variant:DesiredInstanceCount"}


def rendered(version: str, *, scaled: bool = True, instance: str = "ml.m5.large", policy: str = "invocations") -> Any:
    """The objects of an overlay as they are rendered with a release of this version."""
    name = f"{NAME}-{version}-0a1b2c3d"
    items = [
        made(SAGEMAKER, "Model", modelName=name, executionRoleARN=f"arn:aws:iam::{ACCOUNT}:role/ml-dev-sagemaker",
            primaryContainer={
                "image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/iris@sha256:{'1' * 64}",
                "environment": {
                    "MODEL_URI": f"s3://mlops-prod/models/iris/{version}/onnx/", "MODEL_DIGEST": f"sha256:{'2' * 64}"
                },
            }),
        made(SAGEMAKER, "EndpointConfig", endpointConfigName=name,
            productionVariants=[
                {"variantName": "all", "modelName": name, "instanceType": instance, "initialInstanceCount": 2}
            ],
            dataCaptureConfig={
                "destinationS3URI": "s3://mlops-prod/requests/dev/", "initialSamplingPercentage": 100,
                "captureOptions": [{"captureMode": "Input"}, {"captureMode": "Output"}],
            }),
        made(SAGEMAKER, "Endpoint", endpointName=NAME, endpointConfigName=name,
            deploymentConfig={
                "autoRollbackConfiguration": {"alarms": [{"alarmName": f"{NAME}-errors"}]},
                "blueGreenUpdatePolicy": {
                    "trafficRoutingConfiguration": {"type_": "ALL_AT_ONCE", "waitIntervalInSeconds": 60}
                },
            }),
    ]  # fmt: skip
    if scaled:
        items.append(
            made(SCALING, "ScalableTarget", serviceNamespace="sagemaker", minCapacity=2, maxCapacity=4, **VARIANT)
        )
        tracking = {
            "targetValue": 600,
            "predefinedMetricSpecification": {"predefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        }
        items.append(
            made(SCALING, "ScalingPolicy", policyName=policy, serviceNamespace="sagemaker", **VARIANT,
                policyType="TargetTrackingScaling", targetTrackingScalingPolicyConfiguration=tracking)
        )  # fmt: skip
    return items


def made(api: str, kind: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "iris", "namespace": "ml-dev"}, "spec": spec}


def wanted(version: str, **options: Any) -> Wanted:
    return sagemaker.wanted(rendered(version, **options), "overlays/dev/iris-sagemaker")


@functools.cache
def client(service: str, region: str = REGION) -> Any:
    """One for all tests: to read what botocore knows of SageMaker takes longer than any of them."""
    return boto3.Session("test", "test").client(service, region)


class Aws:
    """moto, with the call that it lacks and with endpoints that take their time."""

    def __init__(self) -> None:
        self.changes: list[str] = []
        self.updates: list[dict[str, Any]] = []
        self.statuses: list[str] = []
        """That an endpoint has next, once for each look at it; it is in service after the last."""
        self.rolls_back = False
        self.interrupted_at: int | None = None
        self._call = s3.call
        self.client, self.scaling = client("sagemaker"), client("application-autoscaling")

    def __call__(self, client: Any, operation: str, **given: Any) -> Any:
        if not operation.startswith(("describe", "list", "get")):
            if self.interrupted_at == len(self.changes):
                raise KeyboardInterrupt
            self.changes.append(operation)
        if operation == "update_endpoint":
            return self.update(given)
        found = self._call(client, operation, **given)
        if operation == "describe_endpoint" and found and self.statuses:
            found["EndpointStatus"] = self.statuses.pop(0)
        return found

    def update(self, given: dict[str, Any]) -> dict[str, Any]:
        judge = client("sagemaker")
        answer = {"EndpointArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{NAME}"}
        with Stubber(judge) as stubber:
            stubber.add_response("update_endpoint", answer, given)
            judge.update_endpoint(**given)
        self.updates.append(given)
        self.client.describe_endpoint_config(EndpointConfigName=given["EndpointConfigName"])
        endpoint = sagemaker_backends[ACCOUNT][REGION].endpoints[given["EndpointName"]]
        if self.rolls_back:
            endpoint.failure_reason = "the alarm ml-dev-iris-sagemaker-errors"
        else:
            endpoint.endpoint_config_name = given["EndpointConfigName"]
        return answer

    @property
    def endpoint(self) -> Any:
        return sagemaker_backends[ACCOUNT][REGION].endpoints[NAME]

    def names(self) -> dict[str, list[str]]:
        """What is there, by kind, with what scales it."""
        listed = {
            "models": [each["ModelName"] for each in self.client.list_models()["Models"]],
            "configs": [each["EndpointConfigName"] for each in self.client.list_endpoint_configs()["EndpointConfigs"]],
            "endpoints": [each["EndpointName"] for each in self.client.list_endpoints()["Endpoints"]],
            "targets": [each["ResourceId"] for each in self.scaled("scalable_targets", "ScalableTargets")],
            "policies": [each["PolicyName"] for each in self.scaled("scaling_policies", "ScalingPolicies")],
        }
        return {kind: sorted(names) for kind, names in listed.items()}

    def scaled(self, what: str, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = getattr(self.scaling, f"describe_{what}")(ServiceNamespace="sagemaker")[key]
        return found


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("MOTO_ACCOUNT_ID", ACCOUNT)
    monkeypatch.setattr(sagemaker, "POLL", 0)
    monkeypatch.setattr(sagemaker, "client", client)
    with mock_aws():
        found = Aws()
        monkeypatch.setattr(s3, "call", found)
        yield found


def account(**options: Any) -> Account:
    return Account(REGION, "iris-sagemaker", "dev", **options)


def deploy(asked: Wanted, *, wait: bool = True, **options: Any) -> tuple[str, list[str]]:
    """The state of the endpoint, and the steps that were taken."""
    own = account(**options)
    state = deploy_sagemaker.lead(own, asked, sagemaker.running(own, asked.name), wait=wait)
    return state, own.steps


def only(version: str) -> dict[str, list[str]]:
    name = f"{NAME}-{version}-0a1b2c3d"
    return {
        "models": [name], "configs": [name], "endpoints": [NAME], "targets": [f"endpoint/{NAME}/variant/all"],
        "policies": ["invocations"],
    }  # fmt: skip


def test_a_first_release_is_made_whole_and_once(aws: Aws) -> None:
    aws.statuses = ["Creating", "Creating", "InService"]

    state, steps = deploy(wanted(FIRST))

    assert (state, len(steps)) == ("InService", 5)
    assert aws.names() == only(FIRST)
    [scaled] = aws.scaled("scalable_targets", "ScalableTargets")
    assert (scaled["MinCapacity"], scaled["MaxCapacity"]) == (2, 4)
    model = aws.client.describe_model(ModelName=f"{NAME}-{FIRST}-0a1b2c3d")
    assert model["PrimaryContainer"]["Environment"]["MODEL_DIGEST"] == f"sha256:{'2' * 64}"
    assert {each["Key"]: each["Value"] for each in aws.client.list_tags(ResourceArn=model["ModelArn"])["Tags"]} == {
        APP: "iris-sagemaker", ENVIRONMENT: "dev",
    }  # fmt: skip
    assert deploy(wanted(FIRST)) == ("InService", [])


def test_the_next_release_takes_its_place_and_the_old_one_goes_last(aws: Aws) -> None:
    deploy(wanted(FIRST))
    aws.changes.clear()
    # Before the update, and while it is under way.
    aws.statuses = ["InService", "Updating", "Updating"]

    deploy(wanted(SECOND))

    assert aws.names() == only(SECOND)
    assert aws.changes == [
        "create_model", "create_endpoint_config", "update_endpoint", "delete_endpoint_config", "delete_model",
    ]  # fmt: skip
    [update] = aws.updates
    assert update["EndpointConfigName"] == f"{NAME}-{SECOND}-0a1b2c3d"
    assert update["DeploymentConfig"]["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": f"{NAME}-errors"}]}
    # The load has asked for so many instances: the update does not go back to two.
    assert update["RetainAllVariantProperties"]


def test_without_a_scale_the_update_takes_the_number_of_instances_from_git(aws: Aws) -> None:
    deploy(wanted(FIRST, scaled=False))

    deploy(wanted(SECOND, scaled=False))

    assert "RetainAllVariantProperties" not in aws.updates[0]


def test_another_type_of_instance_is_not_scaled_while_it_comes(aws: Aws) -> None:
    deploy(wanted(FIRST))
    aws.changes.clear()

    deploy(wanted(SECOND, instance="ml.c5.large"))

    before, after = aws.changes.index("update_endpoint"), aws.changes.index("register_scalable_target")
    assert aws.changes.index("deregister_scalable_target") < before < after
    assert aws.names() == only(SECOND)


def test_what_is_no_longer_scaled_or_scaled_otherwise_follows(aws: Aws) -> None:
    deploy(wanted(FIRST))

    deploy(wanted(FIRST, policy="latency"))
    assert aws.names()["policies"] == ["latency"]

    deploy(wanted(FIRST, scaled=False))
    assert aws.names()["targets"] == []


def test_without_waiting_the_rest_is_left_to_the_next_run(aws: Aws) -> None:
    deploy(wanted(FIRST))
    aws.statuses = ["InService", "Updating"]

    state, _ = deploy(wanted(SECOND), wait=False)

    assert state == "Updating"
    assert len(aws.names()["models"]) == 2

    aws.statuses = ["Updating"]
    with pytest.raises(Refused, match="Updating; give --wait"):
        deploy(wanted(FIRST), wait=False)

    assert deploy(wanted(SECOND), wait=False)[0] == "InService"
    assert aws.names() == only(SECOND)


@pytest.mark.parametrize("moment", range(5))
def test_a_deployment_that_was_interrupted_is_completed(aws: Aws, moment: int) -> None:
    deploy(wanted(FIRST))
    aws.changes.clear()
    aws.interrupted_at = moment

    with pytest.raises(KeyboardInterrupt):
        deploy(wanted(SECOND))
    # Whatever was under way, the endpoint serves.
    assert aws.endpoint.endpoint_config_name in aws.names()["configs"]

    aws.interrupted_at = None
    deploy(wanted(SECOND))
    assert aws.names() == only(SECOND)


def test_an_update_that_is_rolled_back_fails_and_takes_nothing_away(aws: Aws) -> None:
    deploy(wanted(FIRST))
    aws.rolls_back = True
    aws.statuses = ["InService", "Updating", "RollingBack"]

    with pytest.raises(Refused) as refused:
        deploy(wanted(SECOND))

    assert refused.value.lines == (
        f"endpoint {NAME}: rolled back to {NAME}-{FIRST}-0a1b2c3d: the alarm {NAME}-errors; what was new is kept to be"
        " looked at",
    )
    assert len(aws.names()["configs"]) == 2
    assert aws.endpoint.endpoint_config_name == f"{NAME}-{FIRST}-0a1b2c3d"


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("Failed", "Failed: no capacity; it never served, and can only be deleted: `aws sagemaker delete-endpoint"),
        ("OutOfService", "OutOfService: no capacity; look at it in the console"),
    ],
)
def test_an_endpoint_that_cannot_be_led_anywhere_is_named(aws: Aws, status: str, line: str) -> None:
    deploy(wanted(FIRST))
    aws.endpoint.endpoint_status, aws.endpoint.failure_reason = status, "no capacity"

    with pytest.raises(Refused, match=line):
        deploy(wanted(FIRST))


def test_one_that_was_rolled_back_badly_can_be_led_to_another(aws: Aws) -> None:
    deploy(wanted(FIRST))
    aws.statuses = ["UpdateRollbackFailed"]

    assert deploy(wanted(SECOND))[0] == "InService"


def test_a_wait_has_an_end(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(wanted(FIRST))
    monkeypatch.setattr(sagemaker, "LONGEST", -1)
    aws.statuses = ["SystemUpdating"]

    with pytest.raises(Refused, match="SystemUpdating for"):
        deploy(wanted(FIRST))


@pytest.mark.parametrize("fault", ["another digest", "another image", "a tar of a model beside it", "another role"])
def test_a_model_that_is_not_what_git_says_is_not_served(aws: Aws, fault: str) -> None:
    given: dict[str, Any] = json.loads(json.dumps(account().tagged(wanted(FIRST).model)))
    container = given["PrimaryContainer"]
    if fault == "another digest":
        container["Environment"]["MODEL_DIGEST"] = f"sha256:{'3' * 64}"
    elif fault == "another image":
        container["Image"] = "docker.io/evil/iris:1"
    elif fault == "a tar of a model beside it":
        container["ModelDataUrl"] = "s3://mlops-prod/evil/model.tar.gz"
    else:
        given["ExecutionRoleArn"] = f"arn:aws:iam::{ACCOUNT}:role/admin"
    aws.client.create_model(**given)

    with pytest.raises(Refused, match=f"model {NAME}-{FIRST}-0a1b2c3d: .* in AWS, and Git has "):
        deploy(wanted(FIRST))

    assert aws.names()["endpoints"] == []


def test_a_configuration_that_is_not_what_git_says_is_refused(aws: Aws) -> None:
    deploy(wanted(FIRST))

    with pytest.raises(Refused) as refused:
        deploy(wanted(FIRST, instance="ml.c5.large"))

    [line] = refused.value.lines
    assert "ProductionVariants.0.InstanceType: 'ml.m5.large' in AWS, and Git has 'ml.c5.large'; " in line


def test_an_endpoint_of_somebody_else_is_left_alone(aws: Aws) -> None:
    asked = wanted(FIRST)
    aws.client.create_model(**asked.model)
    aws.client.create_endpoint_config(**asked.config)
    aws.client.create_endpoint(EndpointName=NAME, EndpointConfigName=asked.config["EndpointConfigName"])

    with pytest.raises(Refused, match="made by somebody else: it lacks the tags"):
        deploy(asked)


def test_what_other_apps_and_people_have_is_left(aws: Aws) -> None:
    """`iris-sagemaker` has names that begin as those of `iris` do, and as those of somebody who tries something."""
    others = {
        f"{NAME}-2-2026-01-01-0123456789ab-0a1b2c3d": {APP: "iris-sagemaker-2", ENVIRONMENT: "dev"},
        f"{NAME}-tried": {},
        f"old-{NAME}-tried": {APP: "iris-sagemaker", ENVIRONMENT: "dev"},
        f"{NAME}-old": {APP: "iris-sagemaker", ENVIRONMENT: "prod"},
    }
    for name, tags in others.items():
        listed = [{"Key": key, "Value": value} for key, value in tags.items()]
        config = wanted(FIRST).config | {"EndpointConfigName": name, "Tags": listed}
        config["ProductionVariants"] = [config["ProductionVariants"][0] | {"ModelName": name}]
        aws.client.create_model(**wanted(FIRST).model | {"ModelName": name, "Tags": listed})
        aws.client.create_endpoint_config(**config)
    deploy(wanted(FIRST))

    deploy(wanted(SECOND))

    assert aws.names()["models"] == aws.names()["configs"] == sorted([*others, f"{NAME}-{SECOND}-0a1b2c3d"])


def test_a_dry_run_tells_all_and_changes_nothing(aws: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(wanted(FIRST))
    before, changed = aws.names(), len(aws.changes)
    capsys.readouterr()

    deploy(wanted(SECOND), dry_run=True)

    assert (aws.names(), len(aws.changes)) == (before, changed)
    assert capsys.readouterr().err.splitlines() == [
        f"would create model {NAME}-{SECOND}-0a1b2c3d",
        f"would create endpoint configuration {NAME}-{SECOND}-0a1b2c3d",
        f"would update endpoint {NAME}",
        f"would delete endpoint configuration {NAME}-{FIRST}-0a1b2c3d",
        f"would delete model {NAME}-{FIRST}-0a1b2c3d",
    ]


def test_a_retired_endpoint_goes_with_all_that_it_had(aws: Aws) -> None:
    deploy(wanted(FIRST))
    own = account()

    state = deploy_sagemaker.remove(own, NAME, sagemaker.running(own, NAME), wait=True)

    assert state == "absent"
    # AWS takes the policies away with their target, moto does not.
    assert {kind: names for kind, names in aws.names().items() if names and kind != "policies"} == {}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda items: items.pop(0), "Model: 0 of them, not one"),
        (lambda items: items.append(items[2]), "Endpoint: 2 of them, not one"),
        (
            lambda items: items.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}),
            "Secret x: kind: no call of AWS makes it",
        ),
    ],
)
def test_what_is_no_endpoint_is_refused(change: Callable[[list[Any]], Any], line: str) -> None:
    items = rendered(FIRST)
    change(items)

    with pytest.raises(Refused, match=line):
        sagemaker.wanted(items, "overlays/dev/iris-sagemaker")


def test_a_model_that_is_deleted_meanwhile_is_told(aws: Aws) -> None:
    own, asked = account(), wanted(FIRST)
    sagemaker.make_parts(own, asked)
    aws.client.delete_endpoint_config(EndpointConfigName=asked.config["EndpointConfigName"])

    with pytest.raises(Refused, match=r"create endpoint .*: what it needs was deleted meanwhile"):
        sagemaker.lead(own, asked, None)


# The command, from a commit


def release_of(version: str) -> Release:
    uri, image = rendered(version)[0]["spec"]["primaryContainer"]["environment"], f"iris@sha256:{'1' * 64}"
    return Release(
        "iris-sagemaker", "dev", version, uri["MODEL_DIGEST"], "c0de" * 10, f"sha256:{'4' * 64}", "5" * 32,
        uri["MODEL_URI"], f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{image}", manifest=f"sha256:{'6' * 64}",
    )  # fmt: skip


def put(checkout: Checkout, version: str, *, released: bool = True) -> str:
    """Commits an overlay that renders an endpoint, with the release of a version, and returns the commit."""
    text = json.dumps(rendered(version)).replace(f"{version}-0a1b2c3d", release_of(version).name[15:])
    model, *others = json.loads(text)
    item = release_of(version) if released else replace(release_of(version), version="unreleased")
    model["metadata"]["annotations"] = {
        f"model.mlops/{name}": value
        for name, value in {
            "name": item.name, "version": item.version, "digest": item.digest, "manifest": item.manifest,
            "code-commit": item.code_commit, "data-digest": item.data_digest, "mlflow-run": item.mlflow_run,
        }.items()
    }  # fmt: skip
    model["spec"]["primaryContainer"]["environment"]["MODEL_MANIFEST"] = item.manifest
    folder = "overlays/dev/iris-sagemaker"
    checkout.write("apps/iris-sagemaker/kustomization.yaml", "kind: Kustomization\nresources: [objects.yaml]\n")
    checkout.write("apps/iris-sagemaker/objects.yaml", "\n---\n".join(map(json.dumps, others)))
    # A Kustomization takes a resource as it takes a patch.
    checkout.write(f"{folder}/release.yaml", json.dumps(model))
    checkout.write(f"{folder}/kustomization.yaml", "resources: [../../../apps/iris-sagemaker, release.yaml]\n")
    return checkout.commit(f"Release {item.version}", push=True)


def command(checkout: Checkout, *args: str, env: str = "dev") -> Result:
    return checkout.run("deploy_sagemaker", "--app", "iris-sagemaker", "--env", env, *args)


def test_the_newest_commit_is_deployed_whatever_is_checked_out(aws: Aws, checkout: Checkout, tmp_path: Path) -> None:
    first = put(checkout, FIRST)
    elsewhere = clone(checkout.remote, "elsewhere")

    done = command(elsewhere, "--wait", "--json")

    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["tip"], told["before"], told["version"], told["state"]) == (first, None, FIRST, "InService")
    assert len(told["steps"]) == 5

    second = put(checkout, SECOND)
    elsewhere.write("overlays/dev/iris-sagemaker/release.yaml", "not what is committed")
    done = command(elsewhere, "--wait", "--json")

    told = json.loads(done.out)
    assert (told["tip"], told["before"], told["version"]) == (second, FIRST, SECOND)
    assert f"{NAME}: {FIRST} runs, {SECOND} is released" in done.err
    assert aws.names()["models"] == [f"ml-dev-{release_of(SECOND).name}"]
    assert "nothing to do" in command(elsewhere, "--wait").err


def test_the_shape_is_deployed_from_release_to_rollback(
    aws: Aws, checkout: Checkout, version: Version, s3: S3, tmp_path: Path
) -> None:
    on_sagemaker.add(checkout)
    second = package(tmp_path / "second", "two")
    s3.upload(second)

    def deployed(environment: str) -> dict[str, Any]:
        done = checkout.run("deploy_sagemaker", *on_sagemaker.ASKED, "--env", environment, "--wait", "--json")
        assert done.code == 0, done.err
        found: dict[str, Any] = json.loads(done.out)
        return found

    for made in (version, second):
        given = ("--env", "dev", "--model-uri", made.uri, "--image", IMAGE, "--push")
        assert checkout.run("bump_model", *on_sagemaker.ASKED, *given).code == 0
        assert deployed("dev")["version"] == made.version
        promoted = checkout.run("promote_model", *on_sagemaker.ASKED, "--to", "staging", "--push", "--json")
        checkout.merge(json.loads(promoted.out)["branch"])
        told = deployed("staging")
        assert (told["version"], told["state"]) == (made.version, "InService")
    back = ("--env", "staging", "--reason", "wrong answers", "--push")
    assert checkout.run("rollback_model", *on_sagemaker.ASKED, *back).code == 0

    told = deployed("staging")

    assert (told["before"], told["version"]) == (second.version, version.version)
    endpoint = f"ml-staging-{on_sagemaker.APP}"
    config = aws.client.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    assert config.startswith(f"{endpoint}-{version.version}-")
    assert [name for name in aws.names()["models"] if name.startswith(endpoint)] == [config]
    assert deployed("staging")["steps"] == []


def test_what_there_is_to_deploy_is_listed(checkout: Checkout) -> None:
    def listed(*args: str) -> list[dict[str, str]]:
        done = checkout.run("deploy_sagemaker", "--list", "--json", *args)
        assert done.code == 0, done.err
        found: list[dict[str, str]] = json.loads(done.out)
        return found

    put(checkout, FIRST, released=False)
    assert listed() == []
    put(checkout, FIRST)
    one = [{"app": "iris-sagemaker", "environment": "dev"}]
    assert listed() == listed("--changed-since", "HEAD^") == listed("--changed-since", "none") == one

    checkout.write("overlays/dev/lily-api/more.yaml", "{}")
    checkout.commit("Another app", push=True)
    assert listed("--changed-since", "HEAD^") == []
    checkout.write("apps/iris-sagemaker/objects.yaml", checkout.read("apps/iris-sagemaker/objects.yaml") + b"\n")
    checkout.commit("What is rendered", push=True)
    assert listed("--changed-since", "HEAD^") == one


@pytest.mark.parametrize(
    "args", [[], ["--list", "--app", "a"], ["--app", "a"], ["--app", "a", "--env", "b", "--changed-since", "c"]]
)
def test_wrong_usage_is_told(args: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        deploy_sagemaker.main(args)


def refused(checkout: Checkout, aws: Aws, *args: str) -> str:
    """The line of a refusal that asks AWS for no change."""
    done = command(checkout, *args)
    assert (done.code, aws.changes) == (1, [])
    [line] = done.errors
    return line


def test_what_is_not_to_run_is_not_deployed(aws: Aws, checkout: Checkout) -> None:
    put(checkout, FIRST, released=False)
    assert "release.yaml: unreleased; " in refused(checkout, aws)

    put(checkout, FIRST)
    name = f"iris.{FIRST}"
    checkout.write(layout.WITHDRAWN, withdrawn.add(checkout.read(layout.WITHDRAWN), name, "leaked labels"))
    checkout.commit("Withdraw", push=True)
    assert f"{FIRST} is withdrawn: leaked labels; go back with `python scripts/rollback" in refused(checkout, aws)


def test_a_held_release_is_deployed_and_told(aws: Aws, checkout: Checkout) -> None:
    """A rollback holds what it goes back to: that has to reach the endpoint."""
    put(checkout, FIRST)
    held = hold.write("iris-sagemaker", "dev", hold.Hold("bad answers", "Ada", "2026-02-03T00:00:00Z"))
    checkout.write(hold.path("iris-sagemaker", "dev"), held)
    checkout.commit("Hold", push=True)

    done = command(checkout, "--wait")

    assert done.code == 0
    assert "iris-sagemaker in dev is held by Ada since" in done.err


def test_a_freeze_keeps_things_as_they_are_unless_a_person_says_so(aws: Aws, checkout: Checkout) -> None:
    put(checkout, FIRST)
    checkout.replace(
        POLICY_FILE, "  - name: dev\n",
        "  - name: dev\n    freeze: [{schedule: 0 0 * * *, duration: 24h, time_zone: UTC, reason: always}]\n",
    )  # fmt: skip
    checkout.commit("Freeze", push=True)

    assert "environments: dev: freeze: until " in refused(checkout, aws)
    assert command(checkout, "--in-freeze", "--wait").code == 0


def test_credentials_of_another_account_are_refused(
    aws: Aws, checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(checkout, FIRST)
    checkout.replace(
        POLICY_FILE, "  - name: dev\n", f"  - name: dev\n    account: '444455556666'\n    region: {REGION}\n"
    )
    checkout.commit("Another account", push=True)

    assert f"dev: account 444455556666, but the credentials are arn:aws:sts::{ACCOUNT}:" in refused(checkout, aws)


def test_an_app_that_is_no_endpoint_and_one_that_is_not_there_are_refused(aws: Aws, checkout: Checkout) -> None:
    done = checkout.run("deploy_sagemaker", "--app", "lily-api", "--env", "dev")
    assert done.errors[0].startswith("overlays/dev/lily-api/release.yaml: unreleased")
    assert refused(checkout, aws).startswith("apps/iris-sagemaker: no such app; the apps are ")
    done = command(checkout, env="test")
    assert done.errors == [f"{POLICY_FILE}: environments: no 'test'; the environments are dev, staging, prod"]


def test_an_endpoint_is_deleted_only_after_its_app_was_retired(aws: Aws, checkout: Checkout) -> None:
    put(checkout, FIRST)
    command(checkout, "--wait")
    aws.changes.clear()
    assert "overlays/dev/iris-sagemaker: not retired; " in refused(checkout, aws, "--delete")

    checkout.git("rm", "-rq", "overlays/dev/iris-sagemaker", "apps/iris-sagemaker")
    checkout.commit("Remove", push=True)
    assert "not retired" in refused(checkout, aws, "--delete")

    entry = {"app": "iris-sagemaker", "version": FIRST, "reason": "moved", "by": "Ada", "since": "2026-02-03"}
    checkout.write(retired.path("dev"), retired.add(None, entry))
    checkout.commit("Retire", push=True)
    aws.statuses = ["InService", "Deleting"]

    done = command(checkout, "--delete", "--wait")

    assert done.code == 0, done.err
    assert (aws.names()["endpoints"], aws.names()["models"], aws.names()["configs"]) == ([], [], [])


def test_what_aws_refuses_is_told_in_one_line(aws: Aws) -> None:
    refusing = client("sagemaker")
    with Stubber(refusing) as stubber:
        stubber.add_client_error("create_endpoint", "ResourceLimitExceeded", "ml.m5.large\nfor endpoint usage is 0")
        with pytest.raises(Refused) as refused:
            s3.call(refusing, "create_endpoint", EndpointName=NAME, EndpointConfigName="one")

    [line] = refused.value.lines
    assert line.startswith(
        f"AWS sagemaker in {REGION}: create_endpoint: ResourceLimitExceeded: ml.m5.large for endpoint"
    )

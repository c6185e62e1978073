"""ACK's kinds, made from the service models of botocore: their fields, what they refuse, and what AWS makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import jsonschema
import moto
import on_sagemaker
import pytest
from conftest import IMAGE, Checkout
from on_sagemaker import APP, FILE, one, rendered

from gitops.manifests import ack, schemas
from gitops.manifests.objects import Object
from gitops.releases import release_file
from gitops.releases.release import Target

from contract.errors import Refused

# What the definitions have that ACK publishes in config/crd/bases/ of aws-controllers-k8s/sagemaker-controller and
# aws-controllers-k8s/applicationautoscaling-controller, by the paths of their specs: of a part, what is in it follows.
_CONTAINER = """
containerHostname image imageConfig(repositoryAccessMode repositoryAuthConfig(repositoryCredentialsProviderARN)) mode
modelDataURL modelDataSource(s3DataSource(s3URI s3DataType compressionType modelAccessConfig(acceptEula))) environment
modelPackageName inferenceSpecificationName multiModelConfig(modelCacheSetting)
"""
_VPC, _TAGS = "vpcConfig(securityGroupIDs subnets)", "tags[](key value)"
_SIZE = "(type_ value)"
PUBLISHED = {
    ack.MODEL: f"""
        modelName primaryContainer({_CONTAINER}) containers[]({_CONTAINER}) inferenceExecutionConfig(mode)
        executionRoleARN {_TAGS} {_VPC} enableNetworkIsolation
    """,
    ack.CONFIG: f"""
        endpointConfigName
        productionVariants[](
            variantName modelName initialInstanceCount instanceType initialVariantWeight acceleratorType
            coreDumpConfig(destinationS3URI kmsKeyID)
            serverlessConfig(memorySizeInMB maxConcurrency provisionedConcurrency)
            volumeSizeInGB modelDataDownloadTimeoutInSeconds containerStartupHealthCheckTimeoutInSeconds
            enableSSMAccess managedInstanceScaling(status minInstanceCount maxInstanceCount)
            routingConfig(routingStrategy)
            capacityReservationConfig(capacityReservationPreference mlReservationARN)
        )
        dataCaptureConfig(
            enableCapture initialSamplingPercentage destinationS3URI kmsKeyID captureOptions[](captureMode)
            captureContentTypeHeader(csvContentTypes jsonContentTypes)
        )
        {_TAGS} kmsKeyID
        asyncInferenceConfig(
            clientConfig(maxConcurrentInvocationsPerInstance)
            outputConfig(
                kmsKeyID s3OutputPath s3FailurePath
                notificationConfig(successTopic errorTopic includeInferenceResponseIn)
            )
        )
        executionRoleARN {_VPC} enableNetworkIsolation
    """,
    ack.ENDPOINT: f"""
        endpointName endpointConfigName {_TAGS}
        deploymentConfig(
            blueGreenUpdatePolicy(
                trafficRoutingConfiguration(
                    type_ waitIntervalInSeconds canarySize{_SIZE} linearStepSize{_SIZE}
                )
                terminationWaitInSeconds maximumExecutionTimeoutInSeconds
            )
            rollingUpdatePolicy(
                maximumBatchSize{_SIZE} waitIntervalInSeconds maximumExecutionTimeoutInSeconds
                rollbackMaximumBatchSize{_SIZE}
            )
            autoRollbackConfiguration(alarms[](alarmName))
        )
    """,
    ack.TARGET: """
        serviceNamespace resourceID scalableDimension minCapacity maxCapacity roleARN
        suspendedState(dynamicScalingInSuspended dynamicScalingOutSuspended scheduledScalingSuspended)
    """,
    ack.SCALING_POLICY: """
        policyName serviceNamespace resourceID scalableDimension policyType
        stepScalingPolicyConfiguration(
            adjustmentType stepAdjustments[](metricIntervalLowerBound metricIntervalUpperBound scalingAdjustment)
            minAdjustmentMagnitude cooldown metricAggregationType
        )
        targetTrackingScalingPolicyConfiguration(
            targetValue predefinedMetricSpecification(predefinedMetricType resourceLabel)
            customizedMetricSpecification(metricName namespace dimensions[](name value) statistic unit)
            scaleOutCooldown scaleInCooldown disableScaleIn
        )
    """,
}


def paths(text: str) -> Iterator[str]:
    """The paths that such a text stands for."""
    inside: list[str] = []
    last = ""
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            inside.append(last)
        elif word == ")":
            inside.pop()
        else:
            last = ".".join([*inside[-1:], word])
            yield last.removesuffix("[]")


@pytest.mark.parametrize("kind", ack.KINDS, ids=lambda kind: kind[1])
def test_a_kind_has_the_fields_that_ack_publishes_and_no_other(kind: tuple[str, str]) -> None:
    """Fails for what a newer botocore has: add that to what is left out, unless ACK has it too."""
    assert sorted(ack.fields(*kind)) == sorted(paths(PUBLISHED[kind]))


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("EndpointConfigName", "endpointConfigName"),
        ("ExecutionRoleArn", "executionRoleARN"),
        ("ModelDataUrl", "modelDataURL"),
        ("S3Uri", "s3URI"),
        ("DestinationS3Uri", "destinationS3URI"),
        ("S3OutputPath", "s3OutputPath"),
        ("KmsKeyId", "kmsKeyID"),
        ("VpcConfig", "vpcConfig"),
        ("SecurityGroupIds", "securityGroupIDs"),
        ("MemorySizeInMB", "memorySizeInMB"),
        ("EnableSSMAccess", "enableSSMAccess"),
        ("AcceptEula", "acceptEula"),
        ("Type", "type_"),
        ("RoleARN", "roleARN"),
    ],
)
def test_fields_are_spelled_as_ack_spells_them(name: str, spelled: str) -> None:
    assert ack.spelled(name) == spelled


def valid(kind: tuple[str, str], spec: Object) -> list[str]:
    """What the closed schema, as kubeconform gets it, says of a spec."""
    folder = schemas.folder()
    schema = json.loads((folder / schemas.name(kind[0], ack.VERSION, kind[1])).read_text())
    item = {
        "apiVersion": f"{kind[0]}/{ack.VERSION}", "kind": kind[1], "metadata": {"name": "a"}, "spec": spec,
    }  # fmt: skip
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(item)]


CONFIG: Object = {
    "endpointConfigName": "a",
    "productionVariants": [{"variantName": "a", "instanceType": "ml.c5.large", "initialInstanceCount": 1}],
}


def test_a_spec_within_the_limits_of_the_service_is_valid() -> None:
    assert valid(ack.CONFIG, CONFIG) == []
    assert valid(ack.MODEL, {"modelName": "a"}) == []


@pytest.mark.parametrize(
    ("kind", "spec", "fault"),
    [
        (ack.CONFIG, CONFIG | {"endpointConfigName": "a_b"}, "does not match"),
        (ack.CONFIG, CONFIG | {"endpointConfigName": "a" * 64}, "is too long"),
        (ack.CONFIG, CONFIG | {"productionVariants": []}, "should be non-empty"),
        (ack.CONFIG, CONFIG | {"explainerConfig": {}}, "'explainerConfig' was unexpected"),
        (ack.CONFIG, CONFIG | {"dataCaptureConfig": {"enableCapture": True}}, "is a required property"),
        (ack.CONFIG, {"endpointConfigName": "a"}, "'productionVariants' is a required property"),
        (ack.MODEL, {"modelName": "a", "executionRoleARN": "arn:aws:iam::1:role/a"}, "does not match"),
        (ack.MODEL, {"modelName": "a", "primaryContainer": {"environment": {"A": 1}}}, "is not of type 'string'"),
        (ack.MODEL, {"modelName": "a", "primaryContainer": {"modelDataUrl": "s3://a/b"}}, "was unexpected"),
        (ack.TARGET, {"resourceID": "a", "scalableDimension": "b", "serviceNamespace": "sagemaker"}, "is not one of"),
    ],
)
def test_what_the_service_refuses_is_not_valid(kind: tuple[str, str], spec: Object, fault: str) -> None:
    assert any(fault in message for message in valid(kind, spec))


def test_the_definitions_are_of_a_form_that_an_api_server_takes() -> None:
    for definition in ack.definitions():
        text = json.dumps(definition)
        # Not in a structural schema: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
        assert '"additionalProperties": false' not in text
        assert "(?!" not in text and "(?<" not in text and "\\\\p" not in text and "\\\\u" not in text
        names, group = definition["spec"]["names"], definition["spec"]["group"]
        assert definition["metadata"]["name"] == f"{names['plural']}.{group}"


def test_what_is_no_kind_or_no_field_of_ack_is_no_call() -> None:
    item = {"apiVersion": f"{ack.SAGEMAKER}/{ack.VERSION}", "kind": "Endpoint", "metadata": {"name": "a"}}
    with pytest.raises(Refused, match="no field of it; there are endpointName"):
        ack.to_aws(item | {"spec": {"EndpointName": "a"}})
    with pytest.raises(Refused, match="no call of AWS makes it"):
        ack.call(item | {"kind": "TrainingJob"})


# AWS, as moto has it


@pytest.fixture
def released(checkout: Checkout) -> Checkout:
    """With the app released in all environments, by hand: what is rendered is of matter here."""
    on_sagemaker.add(checkout)
    version, digest = "2026-02-01-111111111111", f"sha256:{'1' * 64}"
    for environment in on_sagemaker.ENVIRONMENTS:
        file = FILE.format(environment)
        now = release_file.read(checkout.read(file), Target(APP, environment), file)
        new = replace(
            now, version=version, digest=digest, manifest=digest, code_commit="c0de" * 10, data_digest=digest,
            mlflow_run="f" * 32, uri=f"s3://mlops-prod/models/lily/{version}/onnx/", image=IMAGE,
        )  # fmt: skip
        checkout.write(file, release_file.write(checkout.read(file), new))
    return checkout


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        yield


def make(item: Object) -> Any:
    """Calls what makes an object, with the very parameters that the object has."""
    client, method = ack.call(item)
    # botocore compares each parameter with the service's model first.
    return getattr(boto3.client(client, region_name="eu-west-1"), method)(**ack.to_aws(item))


@pytest.mark.parametrize("place", on_sagemaker.ENVIRONMENTS)
def test_what_is_rendered_is_what_aws_takes_and_has(released: Checkout, aws: None, place: str) -> None:
    items = rendered(released, place)
    order = [kind for kind in ack.KINDS if any(item["kind"] == kind[1] for item in items)]

    for kind in order:
        make(one(items, kind))

    sagemaker = boto3.client("sagemaker", region_name="eu-west-1")
    name = f"ml-{place}-{APP}"
    endpoint = sagemaker.describe_endpoint(EndpointName=name)
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    [variant] = config["ProductionVariants"]
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    assert (
        model["ModelName"]
        == config["EndpointConfigName"]
        == f"{name}-2026-02-01-111111111111-{model['ModelName'][-8:]}"
    )
    assert model["PrimaryContainer"]["Image"] == IMAGE
    assert model["PrimaryContainer"]["Environment"]["MODEL_URI"].endswith("/models/lily/2026-02-01-111111111111/onnx/")
    assert ("ServerlessConfig" in variant) == (place == "dev")
    assert variant["VariantName"] == "serving"
    if place == "prod":
        scaling = boto3.client("application-autoscaling", region_name="eu-west-1")
        [target] = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        [policy] = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
        assert target["ResourceId"] == policy["ResourceId"] == f"endpoint/{name}/variant/serving"
        assert (target["MinCapacity"], policy["PolicyName"]) == (2, f"{name}-requests")

"""The stacks of infra/, made and deleted on moto.

Of their resources moto skips policies of buckets, providers of identities, certificates and alarms, and it has no EKS
that a stack could make.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from infrastructure import FOLDER, REGION, stack
from moto import mock_aws

from gitops.manifests import cloudformation as templates

MADE = (
    "models", "registry", "github", "domain", "addons", "reader", "batch", "training", "sagemaker", "vm-roles",
)  # fmt: skip
# In the place of the cluster: what other stacks import from it.
CLUSTER = """
Resources: {Nothing: {Type: AWS::CloudFormation::WaitConditionHandle}}
Outputs:
  Issuer: {Value: oidc.example.org/id/1, Export: {Name: acme-issuer}}
  IssuerArn: {Value: "arn:aws:iam::123456789012:oidc-provider/oidc.example.org/id/1", Export: {Name: acme-issuer-arn}}
"""


@pytest.fixture
def cloudformation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        client = boto3.client("cloudformation", REGION)
        client.create_stack(StackName="acme", TemplateBody=CLUSTER)
        yield client


@pytest.mark.filterwarnings("ignore:Tried to parse")
def test_stacks_are_made_and_leave_no_role_when_they_are_deleted(cloudformation: Any) -> None:
    for name in MADE:
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in stack(name).parameters.items()]
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=(FOLDER / f"{name}.yaml").read_text(),
            Parameters=given,
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
    states = {each["StackName"]: each["StackStatus"] for each in cloudformation.describe_stacks()["Stacks"]}
    roles = {role["RoleName"]: role for role in boto3.client("iam").list_roles()["Roles"]}

    assert states == dict.fromkeys(("acme", *MADE), "CREATE_COMPLETE")
    assert set(roles) == {
        "ml-model-writer", "ml-model-replicator", "ml-model-reader", "ml-monitor", "ml-model-prune",
        "ml-dev-model-reader", "ml-dev-batch", "external-dns", "external-secrets", "aws-load-balancer-controller",
        "cluster-autoscaler",
        "sagemaker-controller", "applicationautoscaling-controller", "ml-sagemaker-training", "ml-sagemaker-trainer",
        "ml-staging-sagemaker", "ml-staging-sagemaker-deployer", "ml-staging-vm", "ml-staging-stack",
        "ml-staging-stack-deployer", "ml-staging-stack-preview",
    }  # fmt: skip
    condition = roles["ml-dev-model-reader"]["AssumeRolePolicyDocument"]["Statement"][0]["Condition"]
    assert condition == {
        "StringEquals": {
            "oidc.example.org/id/1:aud": "sts.amazonaws.com",
            "oidc.example.org/id/1:sub": ["system:serviceaccount:ml-dev:one", "system:serviceaccount:ml-dev:two"],
        }
    }
    (profile,) = boto3.client("iam").list_instance_profiles()["InstanceProfiles"]
    assert (profile["InstanceProfileName"], [role["RoleName"] for role in profile["Roles"]]) == (
        "ml-staging-vm",
        ["ml-staging-vm"],
    )

    for name in reversed(MADE):
        cloudformation.delete_stack(StackName=name)
    assert boto3.client("iam").list_roles()["Roles"] == []
    assert boto3.client("iam").list_instance_profiles()["InstanceProfiles"] == []


@pytest.mark.filterwarnings("ignore:Tried to parse")
def test_cloudwatch_takes_the_alarms_of_an_endpoint(cloudformation: Any) -> None:
    made = templates.resources(templates.read(FOLDER, "alarms"), stack("alarms")).values()
    client = boto3.client("cloudwatch", REGION)
    for item in made:
        # CloudFormation reads numbers from texts.
        client.put_metric_alarm(**item["Properties"] | {"Threshold": float(item["Properties"]["Threshold"])})

    alarms = {alarm["AlarmName"]: alarm for alarm in client.describe_alarms()["MetricAlarms"]}
    assert {name: (alarm["Threshold"], alarm["TreatMissingData"]) for name, alarm in alarms.items()} == {
        "ml-staging-wine-sagemaker-errors": (0.01, "notBreaching"),
        "ml-staging-wine-sagemaker-latency": (500000.0, "notBreaching"),
    }

"""doctor.py --aws: an account that is as infra/ promises, and one in which something is not, on moto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from conftest import BUCKET, S3, copy_checkout, run
from infrastructure import ACCOUNT, stack
from moto import mock_aws

from gitops.manifests import cloudformation, kustomize
from gitops.manifests.cloudformation import FOLDER, ROLE
from gitops.models import account
from gitops.models.s3 import ask
from gitops.repo import layout, stacks
from gitops.repo.policy import read_policy
from gitops.repo.snapshot import Snapshot

REGION = "eu-west-1"
ROLE_NAME = "ml-prod-model-reader"
MISSING = "missing; run what `python scripts/stacks.py --only alarms` prints"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aws")
    copy_checkout(folder)
    return folder


@pytest.fixture(scope="module")
def needed(root: Path) -> list[stacks.Stack]:
    policy = read_policy(root)
    return stacks.needed(Snapshot(root), kustomize.rendered_all(root, layout.folders(root, policy)))


@pytest.fixture
def aws(root: Path, needed: list[stacks.Stack], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An account with all that the stacks make, but for the network and the nodes."""
    monkeypatch.setattr("moto.settings.ACM_VALIDATION_WAIT", -1)
    monkeypatch.setenv("MOTO_ACCOUNT_ID", "111122223333")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        client("eks").create_cluster(name="mlops", roleArn="arn:aws:iam::111122223333:role/eks", resourcesVpcConfig={})
        client("route53").create_hosted_zone(Name="ml.example.com", CallerReference="one")
        facts = dict(account._facts(needed))
        for stack in needed:
            if stack.template not in ("cluster", "network"):
                template = cloudformation.read(root / FOLDER, stack.template)
                for item in account._known(cloudformation.resources(template, stack), facts).values():
                    make(item["Type"], item.get("Properties", {}))
        yield root


def client(service: str) -> Any:
    return boto3.client(service, REGION)


def text(policy: object) -> str:
    return policy if isinstance(policy, str) else json.dumps(policy)


def make(kind: str, about: dict[str, Any]) -> None:
    if kind == ROLE:
        client("iam").create_role(
            RoleName=about["RoleName"], AssumeRolePolicyDocument=text(about["AssumeRolePolicyDocument"])
        )
        for each in about["Policies"]:
            document = text(each["PolicyDocument"])
            client("iam").put_role_policy(
                RoleName=about["RoleName"], PolicyName=each["PolicyName"], PolicyDocument=document
            )
    elif kind == "AWS::S3::Bucket":
        make_bucket(about["BucketName"], about)
    elif kind == "AWS::S3::BucketPolicy":
        client("s3").put_bucket_policy(Bucket=about["Bucket"], Policy=text(about["PolicyDocument"]))
    elif kind == "AWS::ECR::Repository":
        scanning = {"scanOnPush": True}
        client("ecr").create_repository(
            repositoryName=about["RepositoryName"], imageTagMutability="IMMUTABLE", imageScanningConfiguration=scanning
        )
    elif kind == "AWS::CertificateManager::Certificate":
        client("acm").request_certificate(
            DomainName=about["DomainName"], SubjectAlternativeNames=about["SubjectAlternativeNames"]
        )


def make_bucket(name: str, about: dict[str, Any]) -> None:
    s3, place = client("s3"), {"LocationConstraint": REGION}
    s3.create_bucket(Bucket=name, CreateBucketConfiguration=place, ObjectLockEnabledForBucket=True)
    lock = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 30}}}
    s3.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=lock)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=about["PublicAccessBlockConfiguration"])
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})


def looked_at(root: Path) -> dict[str, str]:
    """What the command has on AWS, with the remedy of what is missing."""
    done = run("doctor", "--root", root, "--json", "--aws")
    checks = {
        each["what"].removeprefix("AWS: "): each["remedy"] for each in json.loads(done.out) if "AWS" in each["what"]
    }
    assert checks
    return checks


def test_an_account_as_the_templates_make_it_lacks_nothing(aws: Path) -> None:
    found = looked_at(aws)

    assert {what: remedy for what, remedy in found.items() if remedy} == {}
    assert {f"role {ROLE_NAME}: who takes it on", "certificate of all hosts"} <= found.keys()


def test_what_is_otherwise_than_it_was_made_is_named(aws: Path) -> None:
    iam, s3 = client("iam"), client("s3")
    open_to_all = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}],
    }
    iam.update_assume_role_policy(RoleName=ROLE_NAME, PolicyDocument=json.dumps(open_to_all))
    more = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_role_policy(RoleName="ml-monitor", PolicyName="models", PolicyDocument=json.dumps(more))
    iam.put_role_policy(RoleName="ml-model-writer", PolicyName="more", PolicyDocument=json.dumps(more))
    iam.delete_role_policy(RoleName="external-dns", PolicyName="names")
    iam.delete_role(RoleName="external-dns")
    s3.put_public_access_block(Bucket="mlops-prod", PublicAccessBlockConfiguration={"BlockPublicAcls": True})
    s3.delete_bucket_policy(Bucket="mlops-prod")
    client("ecr").put_image_tag_mutability(repositoryName="lily-api", imageTagMutability="MUTABLE")

    found = looked_at(aws)

    named = {what for what, remedy in found.items() if remedy}
    assert named == {
        f"role {ROLE_NAME}: who takes it on",
        "role ml-monitor: what it may do",
        "role ml-model-writer: it has no other policy",
        "role external-dns",
        "s3://mlops-prod: the public is shut out",
        "s3://mlops-prod: the policy",
        "images lily-api: a tag never changes",
    }
    assert found["role external-dns"] == "missing; run what `python scripts/stacks.py --only addons` prints"


def test_what_a_stack_was_given_by_hand_is_what_is_compared(aws: Path) -> None:
    lock = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 45}}}
    client("s3").put_object_lock_configuration(Bucket="mlops-prod", ObjectLockConfiguration=lock)
    what = "s3://mlops-prod: the lock"
    assert "'Days': 45" in str(looked_at(aws)[what])

    # Moto makes the bucket of no stack that is there already; what counts is what the stack tells of itself.
    text = "Parameters: {LockDays: {Type: Number}, Gone: {Type: String}}\nResources: {X: {Type: AWS::SNS::Topic}}"
    given = [
        {"ParameterKey": name, "ParameterValue": value} for name, value in (("LockDays", "45"), ("Gone", "of before"))
    ]
    client("cloudformation").create_stack(StackName="models-mlops-prod", TemplateBody=text, Parameters=given)

    assert not looked_at(aws)[what]


def test_alarms_and_instance_profiles_are_compared(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_ACCOUNT_ID", ACCOUNT)
    made = [stack("alarms"), stack("vm-roles")]
    with mock_aws():
        found = {
            what: fault for what, fault, _ in account.examine(root, made) if what.split()[1] in ("alarm", "instance")
        }
        assert found == {
            "AWS: alarm ml-staging-wine-sagemaker-errors": MISSING,
            "AWS: alarm ml-staging-wine-sagemaker-latency": MISSING,
            "AWS: instance profile ml-staging-vm": "its roles are missing; run what `python scripts/stacks.py --only"
            " vm-roles` prints",
        }
        boto3.client("iam").create_role(RoleName="ml-staging-vm", AssumeRolePolicyDocument="{}")
        boto3.client("iam").create_instance_profile(InstanceProfileName="ml-staging-vm")
        boto3.client("iam").add_role_to_instance_profile(InstanceProfileName="ml-staging-vm", RoleName="ml-staging-vm")
        for item in cloudformation.resources(cloudformation.read(root / FOLDER, "alarms"), made[0]).values():
            threshold = {"Threshold": 0.5 if item["Properties"]["AlarmName"].endswith("errors") else 500000.0}
            boto3.client("cloudwatch", "eu-central-1").put_metric_alarm(**item["Properties"] | threshold)

        found = {
            what: fault for what, fault, _ in account.examine(root, made) if what.split()[1] in ("alarm", "instance")
        }

    assert {what: fault for what, fault in found.items() if fault} == {
        "AWS: alarm ml-staging-wine-sagemaker-errors": "Threshold is 0.5 in place of 0.01; run what `python"
        " scripts/stacks.py --only alarms` prints"
    }


@pytest.mark.parametrize(
    ("principal", "same"),
    [
        (["777788889999", "888899990000"], True),
        (["arn:aws:iam::888899990000:root", "arn:aws:iam::777788889999:root"], True),
        ("arn:aws:iam::777788889999:root", False),
        (["arn:aws:iam::888899990000:root", "arn:aws:iam::777788889999:role/root"], False),
    ],
)
def test_an_account_in_a_policy_is_the_same_by_its_number_and_as_root(principal: object, same: bool) -> None:
    wanted = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": ["777788889999", "888899990000"]}}]}
    found = json.dumps({"Statement": [{"Effect": "Allow", "Principal": {"AWS": principal}}]})

    assert (account._compared(found, wanted) == "") is same


def test_the_zone_of_another_domain_is_not_taken_for_that_of_ours(
    needed: list[stacks.Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Moto lists the zones of this very name; Route 53 begins there, and goes on.
    answer = {"HostedZones": [{"Id": "/hostedzone/Z1", "Name": "ml.example.org."}]}
    monkeypatch.setattr(account, "ask", lambda *_, **__: answer)

    assert dict(account._facts(needed))["<mlops-domain-zone>"] == "none"


def test_an_empty_account_lacks_everything_and_another_one_is_not_judged(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        assert set(looked_at(root).values()) == {"in the account 111122223333; look with credentials of that one"}
        monkeypatch.setenv("MOTO_ACCOUNT_ID", "111122223333")
    with mock_aws():
        found = looked_at(root)
    assert found["s3://mlops-prod"].startswith("no such bucket; run")
    assert found[f"role {ROLE_NAME}"].startswith("missing; run")
    assert found["images lily-api"].startswith("no such repository; run")
    assert found["certificate of all hosts"].startswith("none is issued for ")
    # The policy of a bucket that is not there, and all else.
    assert all(found.values())


def test_without_credentials_the_command_tells_it(root: Path) -> None:
    found = looked_at(root)

    assert len(found) == 1
    assert "sts in eu-west-1: get_caller_identity: Unable to locate credentials" in str(next(iter(found.values())))


def test_a_bucket_that_is_not_there_is_found_absent_without_a_body(s3: S3) -> None:
    assert ask("s3", REGION, "head_bucket", Bucket=BUCKET) is not None
    assert ask("s3", REGION, "head_bucket", Bucket="no-such-bucket") is None

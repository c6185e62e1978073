"""What each role of infra/ may do: calls, judged by the very policies of the templates and of the buckets."""

from __future__ import annotations

from functools import cache

import pytest
from infrastructure import ACCOUNT, FOLDER, stack

from gitops.manifests import cloudformation, iam
from gitops.manifests.cloudformation import ROLE
from gitops.manifests.iam import Call, Verdict
from gitops.manifests.objects import Object, at

from contract.errors import Refused

ALLOWED, DENIED, NOT_ALLOWED = Verdict.ALLOWED, Verdict.DENIED, Verdict.NOT_ALLOWED
BUCKET = "arn:aws:s3:::acme-models"
MODEL = f"{BUCKET}/models/wine/2026-01-01-0123456789ab/onnx/model.onnx"
DATA = f"{BUCKET}/dvc/files/md5/00/11"
# What S3 tells of a request: put_object with If-None-Match, without it, and a part of an upload.
NEW = {"s3:objectcreationoperation": "true", "s3:if-none-match": "*"}
OVER = {"s3:objectcreationoperation": "true"}
PART = {"s3:objectcreationoperation": "false"}
MODELS, REQUESTS = {"s3:prefix": "models/wine/"}, {"s3:prefix": "requests/prod/wine-api/"}
ZONE = "arn:aws:route53:::hostedzone/<domain-zone>"
BALANCER = f"arn:aws:elasticloadbalancing:eu-central-1:{ACCOUNT}:loadbalancer/app/a/1"
GROUP = f"arn:aws:ec2:eu-central-1:{ACCOUNT}:security-group/sg-1"
INSTANCE = f"arn:aws:ec2:eu-central-1:{ACCOUNT}:instance/i-1"
MARKS = ("aws:resourcetag/elbv2.k8s.aws/cluster", "aws:resourcetag/aws:eks:cluster-name")
OWN, FOREIGN = (dict.fromkeys(MARKS, name) for name in ("acme", "other"))
SECRET = f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret"

CALLS = [
    # (role of a template, action, resource, what is known of the request, verdict)
    # Uploads: what upload_model.py and sign_model.py do, and what they never do.
    ("github.ModelWriter", "s3:PutObject", MODEL, NEW, ALLOWED),
    ("github.ModelWriter", "s3:PutObject", MODEL, OVER, DENIED),
    ("github.ModelWriter", "s3:PutObject", MODEL, NEW | {"aws:securetransport": "false"}, DENIED),
    ("github.ModelWriter", "s3:GetObject", MODEL, {}, ALLOWED),
    ("github.ModelWriter", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
    ("github.ModelWriter", "s3:ListBucket", BUCKET, {}, NOT_ALLOWED),
    ("github.ModelWriter", "s3:PutObject", f"{BUCKET}/requests/prod/x", NEW, NOT_ALLOWED),
    ("github.ModelWriter", "s3:PutObject", DATA, OVER, NOT_ALLOWED),
    ("github.ModelWriter", "s3:PutObject", "arn:aws:s3:::other/models/x", NEW, NOT_ALLOWED),
    ("github.ModelWriter", "s3:DeleteObject", MODEL, {}, DENIED),
    ("github.ModelWriter", "s3:DeleteObjectVersion", MODEL, {}, DENIED),
    ("github.ModelWriter", "s3:PutBucketPolicy", BUCKET, {}, NOT_ALLOWED),
    ("github.ModelWriter", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/any", {}, NOT_ALLOWED),
    # Copying: replicate_models.py; what is there already, the replica's own policy keeps.
    ("github.ModelReplicator", "s3:GetObject", MODEL, {}, ALLOWED),
    ("github.ModelReplicator", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
    ("github.ModelReplicator", "s3:ListBucket", f"{BUCKET}-ap", MODELS, ALLOWED),
    ("github.ModelReplicator", "s3:GetObject", MODEL.replace(BUCKET, f"{BUCKET}-us"), {}, ALLOWED),
    ("github.ModelReplicator", "s3:PutObject", MODEL.replace(BUCKET, f"{BUCKET}-us"), NEW, ALLOWED),
    ("github.ModelReplicator", "s3:PutObject", MODEL.replace(BUCKET, f"{BUCKET}-ap"), NEW, ALLOWED),
    ("github.ModelReplicator", "s3:PutObject", MODEL, NEW, NOT_ALLOWED),
    ("github.ModelReplicator", "s3:PutObject", f"{BUCKET}-us/requests/prod/x", NEW, NOT_ALLOWED),
    ("github.ModelReplicator", "s3:DeleteObject", MODEL.replace(BUCKET, f"{BUCKET}-us"), {}, NOT_ALLOWED),
    # Comparing: lifecycle compare.
    ("github.ModelReader", "s3:GetObject", MODEL, {}, ALLOWED),
    ("github.ModelReader", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
    ("github.ModelReader", "s3:PutObject", MODEL, NEW, NOT_ALLOWED),
    ("github.ModelReader", "s3:GetObject", f"{BUCKET}/requests/prod/x", {}, NOT_ALLOWED),
    ("github.ModelReader", "s3:ListBucket", BUCKET, REQUESTS, NOT_ALLOWED),
    ("github.ModelReader", "s3:GetObject", MODEL, {"aws:securetransport": "false"}, DENIED),
    # Monitoring: check_drift.py, check_retrain.py.
    ("github.Monitor", "s3:GetObject", f"{BUCKET}/requests/prod/wine-api/x.jsonl", {}, ALLOWED),
    ("github.Monitor", "s3:GetObject", MODEL, {}, ALLOWED),
    ("github.Monitor", "s3:ListBucket", BUCKET, REQUESTS, ALLOWED),
    ("github.Monitor", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
    ("github.Monitor", "s3:ListBucket", BUCKET, {"s3:prefix": "batch/prod/"}, NOT_ALLOWED),
    ("github.Monitor", "s3:GetObject", DATA, {}, NOT_ALLOWED),
    ("github.Monitor", "s3:PutObject", f"{BUCKET}/requests/prod/x", NEW, NOT_ALLOWED),
    # Pruning: prune_versions.py; the bytes stay, and come back.
    ("github.ModelPrune", "s3:DeleteObject", MODEL, {}, ALLOWED),
    ("github.ModelPrune", "s3:GetObject", MODEL, {}, ALLOWED),
    ("github.ModelPrune", "s3:PutObject", MODEL, NEW, ALLOWED),
    ("github.ModelPrune", "s3:PutObject", MODEL, OVER, DENIED),
    ("github.ModelPrune", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
    ("github.ModelPrune", "s3:DeleteObjectVersion", MODEL, {}, DENIED),
    ("github.ModelPrune", "s3:BypassGovernanceRetention", MODEL, {}, DENIED),
    ("github.ModelPrune", "s3:DeleteObject", f"{BUCKET}/requests/prod/x", {}, NOT_ALLOWED),
    ("github.ModelPrune", "s3:DeleteObject", DATA, {}, NOT_ALLOWED),
    # Services of an environment.
    ("reader.Reader", "s3:GetObject", MODEL, {}, ALLOWED),
    ("reader.Reader", "s3:PutObject", f"{BUCKET}/requests/dev/x", NEW, ALLOWED),
    ("reader.Reader", "s3:PutObject", f"{BUCKET}/requests/prod/x", NEW, NOT_ALLOWED),
    ("reader.Reader", "s3:GetObject", f"{BUCKET}/requests/dev/x", {}, NOT_ALLOWED),
    ("reader.Reader", "s3:PutObject", MODEL, NEW, NOT_ALLOWED),
    ("reader.Reader", "s3:ListBucket", BUCKET, MODELS, NOT_ALLOWED),
    ("reader.Reader", "s3:DeleteObject", MODEL, {}, DENIED),
    # Batches.
    ("batch.Batch", "s3:GetObject", MODEL, {}, ALLOWED),
    ("batch.Batch", "s3:GetObject", f"{BUCKET}/batch/dev/in/a.csv", {}, ALLOWED),
    ("batch.Batch", "s3:ListBucket", BUCKET, {"s3:prefix": "batch/dev/in/"}, ALLOWED),
    ("batch.Batch", "s3:ListBucket", BUCKET, {"s3:prefix": "batch/dev/out/v/"}, ALLOWED),
    ("batch.Batch", "s3:PutObject", f"{BUCKET}/batch/dev/out/v/a.csv", NEW, ALLOWED),
    ("batch.Batch", "s3:PutObject", f"{BUCKET}/batch/dev/out/v/a.csv", PART, ALLOWED),
    ("batch.Batch", "s3:AbortMultipartUpload", f"{BUCKET}/batch/dev/out/v/a.csv", {}, ALLOWED),
    ("batch.Batch", "s3:GetObject", f"{BUCKET}/batch/dev/out/v/a.csv", {}, ALLOWED),
    ("batch.Batch", "s3:PutObject", f"{BUCKET}/requests/dev/x", NEW, ALLOWED),
    ("batch.Batch", "s3:PutObject", f"{BUCKET}/batch/dev/in/a.csv", NEW, NOT_ALLOWED),
    ("batch.Batch", "s3:GetObject", f"{BUCKET}/batch/prod/in/a.csv", {}, NOT_ALLOWED),
    ("batch.Batch", "s3:ListBucket", BUCKET, {"s3:prefix": "batch/prod/in/"}, NOT_ALLOWED),
    ("batch.Batch", "s3:DeleteObject", f"{BUCKET}/batch/dev/out/v/a.csv", {}, NOT_ALLOWED),
    # Add-ons.
    ("addons.ExternalDns", "route53:ChangeResourceRecordSets", ZONE, {}, ALLOWED),
    ("addons.ExternalDns", "route53:ListResourceRecordSets", ZONE, {}, ALLOWED),
    ("addons.ExternalDns", "route53:ListTagsForResources", ZONE, {}, ALLOWED),
    ("addons.ExternalDns", "route53:ListHostedZones", "*", {}, ALLOWED),
    ("addons.ExternalDns", "route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/Z1", {}, NOT_ALLOWED),
    ("addons.ExternalDns", "route53:DeleteHostedZone", ZONE, {}, NOT_ALLOWED),
    ("addons.ExternalSecrets", "secretsmanager:GetSecretValue", f"{SECRET}:ml-dev-x", {}, ALLOWED),
    ("addons.ExternalSecrets", "secretsmanager:DescribeSecret", f"{SECRET}:ml-dev-x", {}, ALLOWED),
    ("addons.ExternalSecrets", "secretsmanager:GetSecretValue", f"{SECRET}:billing", {}, NOT_ALLOWED),
    ("addons.ExternalSecrets", "secretsmanager:PutSecretValue", f"{SECRET}:ml-dev-x", {}, NOT_ALLOWED),
    ("addons.LoadBalancers", "elasticloadbalancing:DeleteLoadBalancer", BALANCER, OWN, ALLOWED),
    ("addons.LoadBalancers", "elasticloadbalancing:DeleteLoadBalancer", BALANCER, FOREIGN, NOT_ALLOWED),
    ("addons.LoadBalancers", "elasticloadbalancing:DeleteLoadBalancer", BALANCER, {}, NOT_ALLOWED),
    ("addons.LoadBalancers", "ec2:AuthorizeSecurityGroupIngress", GROUP, OWN, ALLOWED),
    ("addons.LoadBalancers", "ec2:AuthorizeSecurityGroupIngress", GROUP, FOREIGN, NOT_ALLOWED),
    ("addons.LoadBalancers", "ec2:DeleteSecurityGroup", GROUP, {}, NOT_ALLOWED),
    ("addons.LoadBalancers", "ec2:TerminateInstances", INSTANCE, OWN, NOT_ALLOWED),
    ("addons.LoadBalancers", "iam:CreateServiceLinkedRole", "*", {}, NOT_ALLOWED),
    # Whom the templates make no role for, such as an administrator: what the bucket itself refuses.
    ("anybody", "s3:PutObject", MODEL, NEW, ALLOWED),
    ("anybody", "s3:PutObject", MODEL, OVER, DENIED),
    ("anybody", "s3:PutObject", MODEL, PART, ALLOWED),
    ("anybody", "s3:PutObject", DATA, OVER, ALLOWED),
    ("anybody", "s3:PutObject", DATA, PART, ALLOWED),
    ("anybody", "s3:DeleteObject", MODEL, {}, DENIED),
    ("anybody", "s3:DeleteObject", DATA, {}, ALLOWED),
    ("anybody", "s3:DeleteObjectVersion", MODEL, {}, DENIED),
    ("anybody", "s3:PutObjectRetention", MODEL, {}, DENIED),
]  # fmt: skip
EVERYTHING: Object = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
# Its own code makes these calls, with no case of ours: they only look, or are made with the cluster's mark alone.
OF_A_VENDOR = "addons.LoadBalancers"


@cache
def _made(template: str) -> dict[str, Object]:
    return cloudformation.resources(cloudformation.read(FOLDER, template), stack(template))


def _verdict(role: str, action: str, resource: str, context: dict[str, str]) -> Verdict:
    template, _, name = role.partition(".")
    item = _made(template)[name] if name else {}
    own = list(cloudformation.documents(item)) if name else [EVERYTHING]
    caller = f"arn:aws:iam::{ACCOUNT}:role/{at(item, 'Properties', 'RoleName')}"
    known = {"aws:securetransport": "true", "aws:principalarn": caller} | context
    bucket = list(cloudformation.documents(_made("models")["Policy"])) if resource.startswith(BUCKET) else []
    return iam.verdict(Call(action, resource, caller, known), own, bucket)


@pytest.mark.parametrize(("role", "action", "resource", "context", "expected"), CALLS)
def test_a_call_is_judged_as_the_duty_of_its_role_is(
    role: str, action: str, resource: str, context: dict[str, str], expected: Verdict
) -> None:
    assert _verdict(role, action, resource, context) is expected


def test_no_role_may_do_what_nothing_needs() -> None:
    used = {(role, action) for role, action, *_, verdict in CALLS if verdict is ALLOWED}
    unused = {}
    for file in FOLDER.glob("*.yaml"):
        for name, item in _made(file.stem).items():
            role = f"{file.stem}.{name}"
            if item["Type"] == ROLE and role != OF_A_VENDOR and file.stem != "cluster":
                allowed = set(iam.actions(cloudformation.documents(item)))
                unused[role] = allowed - {action for other, action in used if other == role}

    assert not any(unused.values()), unused
    assert len(unused) == 9


# Another account than that of the bucket


def test_an_environment_of_another_account_reads_models_and_logs_and_does_no_more() -> None:
    (policy,) = cloudformation.documents(_made("models")["Policy"])
    known = {"aws:securetransport": "true"}
    for account, action, resource, expected in (
        ("777788889999", "s3:GetObject", MODEL, ALLOWED),
        ("777788889999", "s3:PutObject", f"{BUCKET}/requests/prod/x", ALLOWED),
        ("777788889999", "s3:PutObject", f"{BUCKET}/batch/prod/x", NOT_ALLOWED),
        ("777788889999", "s3:GetObject", DATA, NOT_ALLOWED),
        ("000011112222", "s3:GetObject", MODEL, NOT_ALLOWED),
    ):
        caller = f"arn:aws:iam::{account}:role/ml-prod-model-reader"
        call = Call(action, resource, caller, known | {"aws:principalarn": caller})
        assert iam.verdict(call, [], [policy]) is expected, (account, action, resource)


def test_the_replicator_of_another_account_copies_and_does_no_more() -> None:
    (policy,) = cloudformation.documents(_made("models")["Policy"])
    for role, action, resource, context, expected in (
        ("ml-model-replicator", "s3:GetObject", MODEL, {}, ALLOWED),
        ("ml-model-replicator", "s3:PutObject", MODEL, NEW, ALLOWED),
        ("ml-model-replicator", "s3:PutObject", MODEL, OVER, DENIED),
        ("ml-model-replicator", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
        ("ml-model-replicator", "s3:ListBucket", BUCKET, REQUESTS, NOT_ALLOWED),
        ("ml-model-replicator", "s3:DeleteObject", MODEL, {}, DENIED),
        ("ml-model-writer", "s3:PutObject", MODEL, NEW, NOT_ALLOWED),
    ):
        caller = f"arn:aws:iam::888899990000:role/{role}"
        known = {"aws:securetransport": "true", "aws:principalarn": caller} | context
        assert iam.verdict(Call(action, resource, caller, known), [], [policy]) is expected, (role, action, context)


# The evaluator itself: each line is a case of the IAM User Guide, "Condition operators" and "Policy evaluation logic"


@pytest.mark.parametrize(
    ("operator", "key", "wanted", "context", "holds"),
    [
        ("StringEquals", "a:b", "x", {"a:b": "x"}, True),
        ("StringEquals", "A:B", "x", {"a:b": "x"}, True),
        ("StringEquals", "a:b", "x", {"a:b": "X"}, False),
        ("StringEquals", "a:b", ["x", "y"], {"a:b": "y"}, True),
        ("StringEquals", "a:b", "x", {}, False),
        ("StringEquals", "a:b", "x*", {"a:b": "xy"}, False),
        ("StringEqualsIfExists", "a:b", "x", {}, True),
        ("StringEqualsIfExists", "a:b", "x", {"a:b": "y"}, False),
        ("StringNotEquals", "a:b", "x", {}, True),
        ("StringNotEquals", "a:b", ["x", "y"], {"a:b": "y"}, False),
        ("StringLike", "a:b", "x?z*", {"a:b": "xyz/1"}, True),
        ("StringLike", "a:b", "x.z", {"a:b": "xyz"}, False),
        ("StringNotLike", "a:b", "x*", {"a:b": "xyz"}, False),
        ("ArnLike", "a:b", "arn:aws:iam::*:role/a", {"a:b": "arn:aws:iam::1:role/a"}, True),
        ("ArnEquals", "a:b", "arn:aws:*", {"a:b": "arn:aws:iam::1:role/a"}, False),
        ("ArnNotEquals", "a:b", "arn:aws:iam::1:role/a", {"a:b": "arn:aws:iam::1:role/b"}, True),
        ("Bool", "a:b", True, {"a:b": "true"}, True),
        ("Bool", "a:b", "true", {}, False),
        ("Null", "a:b", "true", {}, True),
        ("Null", "a:b", True, {"a:b": "x"}, False),
        ("Null", "a:b", "false", {"a:b": "x"}, True),
    ],
)
def test_a_condition_holds_as_iam_documents_it(
    operator: str, key: str, wanted: object, context: dict[str, str], holds: bool
) -> None:
    statement = {"Effect": "Allow", "Action": "a:b", "Resource": "*", "Condition": {operator: {key: wanted}}}

    found = iam.verdict(Call("a:B", context=context), [{"Statement": [statement]}])

    assert found is (ALLOWED if holds else NOT_ALLOWED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Condition": {"NumericLessThan": {"a:b": "1"}}}, "Condition: NumericLessThan: not judged here"),
        ({"Condition": {"ForAllValues:StringEquals": {"a:b": "x"}}}, "ForAllValues:StringEquals: not judged here"),
        ({"Condition": {"StringEquals": {"a:b": "${aws:username}"}}}, "a variable of a policy is not judged here"),
        ({"NotAction": "a:b"}, "NotAction: not judged here"),
        ({"NotResource": "a:b"}, "NotResource: not judged here"),
        ({"Effect": "Permit"}, "Effect: Permit: write Allow or Deny"),
    ],
)
def test_what_the_evaluator_does_not_know_is_never_judged(changes: Object, message: str) -> None:
    statement = {"Effect": "Allow", "Action": "a:b", "Resource": "*"} | changes

    with pytest.raises(Refused) as refused:
        iam.verdict(Call("a:b", context={"a:b": "x"}), [{"Statement": [statement]}])

    assert message in refused.value.lines[0]


def test_a_denial_wins_wherever_it_stands() -> None:
    allow, deny = ({"Statement": {"Effect": effect, "Action": "a:*", "Resource": "*"}} for effect in ("Allow", "Deny"))
    named = {"Statement": {"Effect": "Deny", "Principal": "*", "Action": "a:b", "Resource": "*"}}

    assert iam.verdict(Call("a:b"), [allow, deny]) is DENIED
    assert iam.verdict(Call("a:b"), [allow], [named]) is DENIED
    assert iam.verdict(Call("a:b"), []) is NOT_ALLOWED

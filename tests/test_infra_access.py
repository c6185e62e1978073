"""What each role of infra/ may do: calls, judged by the very policies of the templates and of the buckets."""

from __future__ import annotations

import re
from functools import cache

import pytest
from calls import ALLOWED, BUCKET, CALLS, DATA, DENIED, MODEL, MODELS, NEW, NOT_ALLOWED, OVER, REQUESTS
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
from infrastructure import ACCOUNT, FOLDER, REGION, stack

from gitops.manifests import cloudformation, iam
from gitops.manifests.cloudformation import ROLE
from gitops.manifests.iam import Call, Verdict
from gitops.manifests.objects import Object, at

from contract.errors import Refused

EVERYTHING: Object = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
# Code of others makes these calls, with no case of ours: they only look, or are made with the mark of the cluster or
# the stack alone.
OF_VENDORS = ("addons.LoadBalancers", "vm-roles.Maker")


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
            if item["Type"] == ROLE and role not in OF_VENDORS and file.stem != "cluster":
                allowed = set(iam.actions(cloudformation.documents(item)))
                unused[role] = allowed - {action for other, action in used if other == role}

    assert not any(unused.values()), unused
    assert len(unused) == 19


# What CloudFormation makes of infra/vm.yaml, by its own schemas of the resources


def _asked_by(kinds: set[str]) -> set[str]:
    """The permissions that CloudFormation's handlers of these resources may need."""
    found = set()
    for kind in kinds:
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema
        for name, handler in schema["handlers"].items():
            found |= set(handler["permissions"]) if name != "list" else set()
    return found


# Of handlers: what belongs to properties that the template does not set.
OF_OTHER_PROPERTIES = re.compile(
    r"(cognito-idp|firehose|managed-fleets|s3|vpc-lattice):.*|iam:CreateServiceLinkedRole|cloudwatch:GetMetricData"
    r"|autoscaling:(Put|Delete)(NotificationConfiguration|LifecycleHook)|autoscaling:.*(Refresh|TrafficSources|Balancers)"
    r"|ec2:DescribeIpamPools|elasticloadbalancing:(.*CapacityReservation|ModifyIpPools)"
    r"|elasticloadbalancing:(SetIpAddressType|RegisterTargets|DeregisterTargets)"
    r"|logs:.*(DataProtection|DeletionProtection|IndexPolic|ResourcePolic|KmsKey|BearerToken|LogDelivery).*"
)
# Of none of them: it replaces instances one after another.
OF_THE_UPDATE_POLICY = {"autoscaling:TerminateInstanceInAutoScalingGroup"}


def test_cloudformation_may_make_change_and_delete_what_the_template_has_and_no_more() -> None:
    kinds = {item["Type"] for item in cloudformation.read(FOLDER, "vm")["Resources"].values()}
    asked = _asked_by(kinds)
    allowed = set(iam.actions(cloudformation.documents(_made("vm-roles")["Maker"])))

    plain = {action for action in asked if not action.endswith("*") and not OF_OTHER_PROPERTIES.fullmatch(action)}
    assert plain - allowed == set()
    assert {each for each in allowed if not any(iam.like(action, each) for action in asked)} == OF_THE_UPDATE_POLICY


# Who takes each of them on, to the letter


def _github(environment: str) -> Object:
    return {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {
                "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
                "token.actions.githubusercontent.com:sub": f"repo:acme/models:environment:{environment}",
            }
        },
    }


def _pod(service_account: str) -> Object:
    keys = {"<acme-issuer>:aud": "sts.amazonaws.com", "<acme-issuer>:sub": f"system:serviceaccount:{service_account}"}
    return {
        "Effect": "Allow",
        "Principal": {"Federated": "<acme-issuer-arn>"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": keys},
    }


def _service(name: str, *, tells: bool = True) -> Object:
    told = {"Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}}} if tells else {}
    principal = {"Service": f"{name}.amazonaws.com"}
    return {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"} | told


@pytest.mark.parametrize(
    ("role", "name", "trusted"),
    [
        ("sagemaker.Execution", "ml-staging-sagemaker", _service("sagemaker")),
        ("sagemaker.Deployer", "ml-staging-sagemaker-deployer", _github("staging")),
        ("training.Training", "ml-sagemaker-training", _service("sagemaker")),
        ("training.Trainer", "ml-sagemaker-trainer", _github("dev")),
        ("vm-roles.Instance", "ml-staging-vm", _service("ec2", tells=False)),
        ("vm-roles.Maker", "ml-staging-stack", _service("cloudformation")),
        ("vm-roles.Deployer", "ml-staging-stack-deployer", _github("staging")),
        ("vm-roles.Previewer", "ml-staging-stack-preview", _github("staging-preview")),
        ("addons.Autoscaler", "cluster-autoscaler", _pod("kube-system:cluster-autoscaler")),
        ("addons.Sagemaker", "sagemaker-controller", _pod("ack-system:ack-sagemaker-controller")),
        (
            "addons.Scaling",
            "applicationautoscaling-controller",
            _pod("ack-system:ack-applicationautoscaling-controller"),
        ),
    ],
)
def test_nobody_else_takes_a_role_on(role: str, name: str, trusted: Object) -> None:
    template, _, item = role.partition(".")

    found = _made(template)[item]

    assert found["Properties"]["RoleName"] == name
    assert cloudformation.trust(found) == {"Version": "2012-10-17", "Statement": [trusted]}


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


def test_the_roles_of_another_account_copy_and_prune_and_do_no_more() -> None:
    (policy,) = cloudformation.documents(_made("models")["Policy"])
    for role, action, resource, context, expected in (
        ("ml-model-replicator", "s3:GetObject", MODEL, {}, ALLOWED),
        ("ml-model-replicator", "s3:PutObject", MODEL, NEW, ALLOWED),
        ("ml-model-replicator", "s3:PutObject", MODEL, OVER, DENIED),
        ("ml-model-replicator", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
        ("ml-model-replicator", "s3:ListBucket", BUCKET, REQUESTS, NOT_ALLOWED),
        ("ml-model-replicator", "s3:DeleteObject", MODEL, {}, DENIED),
        ("ml-model-writer", "s3:PutObject", MODEL, NEW, NOT_ALLOWED),
        ("ml-model-prune", "s3:DeleteObject", MODEL, {}, ALLOWED),
        ("ml-model-prune", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
        ("ml-model-prune", "s3:GetObject", MODEL, {}, ALLOWED),
        ("ml-model-prune", "s3:PutObject", MODEL, OVER, DENIED),
        ("ml-model-prune", "s3:DeleteObjectVersion", MODEL, {}, DENIED),
        ("ml-model-prune", "s3:DeleteObject", DATA, {}, NOT_ALLOWED),
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

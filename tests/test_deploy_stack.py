"""deploy_stack.py: real stacks of the template on moto, and what moto has not by botocore's Stubber.

Moto makes and deletes stacks, and its change sets of an update are empty; rolls, signals and failures it has none.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import on_instances
import pytest
from botocore.stub import ANY, Stubber
from conftest import BUCKET, Checkout, Result, Version, make_checkout, package, write_release
from moto import mock_aws
from on_instances import APP, instances

from gitops.models import change_sets, s3
from gitops.releases import hold
from gitops.releases.hold import Hold
from gitops.releases.release import Target
from gitops.repo import freeze

ACCOUNT, REGION, STACK = "123456789012", "eu-west-1", f"ml-dev-{APP}"
SERVICE = f"s3://{BUCKET}/services/{'4' * 64}.tar.gz"
ID = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK}/1"
SET = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:changeSet/change-1/2"
OF_SET = {"StackName": ID, "ChangeSetName": SET}
ROLE = f"arn:aws:iam::{ACCOUNT}:role/ml-dev-stack"
TAGS = {"model.mlops/app": APP, "model.mlops/environment": "dev"}
FILE = f"overlays/{{}}/{APP}/release.yaml"


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return package(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def released(
    template: Path, version: Version, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The remote of a repository in moto's account, whose app is released in dev and in prod."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        checkout = make_checkout(template, tmp_path_factory.mktemp("released"))
        for file in (checkout.root / "overlays").glob("*/shared/*.yaml"):
            file.write_text(file.read_text().replace("111122223333", ACCOUNT))
        checkout.commit("Another account")
        on_instances.add(checkout)
        for name in ("dev", "prod"):
            write_release(checkout.root, Target(APP, name), version, "onnx", SERVICE)
        checkout.commit("Release", push=True)
    return checkout.remote


@pytest.fixture
def checkout(released: Path, tmp_path: Path) -> Checkout:
    return make_checkout(released, tmp_path)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_sets, "PAUSE", 0)
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_DEFAULT_REGION", REGION)):
        monkeypatch.setenv(name, value)
    # No terminal, wherever the tests run.
    monkeypatch.setattr("sys.stdin", io.StringIO())


def run(checkout: Checkout, *args: str, environment: str = "dev") -> Result:
    return checkout.run("deploy_stack", "--app", APP, "--env", environment, *args)


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """From now on a person at a terminal answers so."""
    terminal = io.StringIO(text)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)


# On moto


@pytest.fixture
def aws(checkout: Checkout) -> Iterator[Any]:
    """An account with a network and a certificate, which the overlay of dev names."""
    with mock_aws():
        ec2 = boto3.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")
            for number, zone in enumerate("abab")
        ]
        names = [each["Subnet"]["SubnetId"] for each in subnets]
        certificate = boto3.client("acm").request_certificate(DomainName="lily.dev.ml.example.com")["CertificateArn"]
        own = list(on_instances.FILLED_IN.values())
        made = [vpc, ",".join(names[:2]), ",".join(names[2:]), certificate.rpartition("/")[2]]
        for old, new in zip(own, made, strict=True):
            checkout.replace(instances("dev"), old, new)
        checkout.commit("Its network", push=True)
        yield boto3.client("cloudformation")


def stacks(aws: Any) -> dict[str, str]:
    return {each["StackName"]: each["StackStatus"] for each in aws.describe_stacks()["Stacks"]}


@pytest.mark.filterwarnings("ignore:Tried to parse")
def test_a_stack_is_made_changed_left_alone_and_deleted(checkout: Checkout, aws: Any, version: Version) -> None:
    shown = run(checkout, "--dry-run", "--json")
    assert stacks(aws) == {}
    made = run(checkout, "--yes", "--json")
    [live] = aws.describe_stacks()["Stacks"]
    kinds = [each["ResourceType"] for each in aws.list_stack_resources(StackName=STACK)["StackResourceSummaries"]]
    again = run(checkout, "--yes")
    left = aws.list_change_sets(StackName=STACK)["Summaries"]
    checkout.replace(instances("dev"), 'MaxSize: "3"', 'MaxSize: "5"')
    checkout.commit("More", push=True)
    changed = run(checkout, "--yes")
    parameters = {each["ParameterKey"]: each["ParameterValue"] for each in live["Parameters"]}

    assert (made.code, made.err) == (0, "")
    first, second = json.loads(shown.out), json.loads(made.out)
    assert (first["operation"], first["dry_run"], second["operation"]) == ("create", True, "create")
    assert [each["resource"] for each in first["changes"]] == [
        each["resource"] for each in second["changes"]
        if each["resource"] != "Name"  # moto looks at no condition before it executes
    ]  # fmt: skip
    assert second["status"] == live["StackStatus"] == "CREATE_COMPLETE"
    assert {each["Key"]: each["Value"] for each in live["Tags"]} == TAGS
    assert (parameters["Service"], parameters["ModelUri"]) == (SERVICE, f"{version.uri}onnx/")
    assert "AWS::ElasticLoadBalancingV2::LoadBalancer" in kinds
    assert again.code == 0
    assert again.err == f"nothing to do: the stack {STACK} is as it has to be, {version.version} with {SERVICE}\n"
    assert [each["ChangeSetName"] for each in left if each["Status"] == "FAILED"] == []
    assert (changed.code, changed.err) == (
        0, f"updated the stack {STACK}: UPDATE_COMPLETE, {version.version} with {SERVICE}\n",
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:Tried to parse")
def test_what_is_retired_is_deleted_and_nothing_else(checkout: Checkout, aws: Any) -> None:
    assert run(checkout, "--yes").code == 0
    before = run(checkout, "--delete", "--yes")
    checkout.git("rm", "-rq", f"overlays/dev/{APP}")
    checkout.commit("Gone", push=True)
    unrecorded = run(checkout, "--delete", "--yes")
    checkout.write("overlays/dev/retired.yaml", f"- app: {APP}\n  reason: on a cluster now\n")
    checkout.commit("Retire it", push=True)
    unasked = run(checkout, "--delete")
    shown = run(checkout, "--delete", "--dry-run")
    there = stacks(aws)
    gone = run(checkout, "--delete", "--yes", "--json")
    again = run(checkout, "--delete", "--yes")

    assert before.errors == [f"overlays/dev/{APP}: still on cicd; merge its retirement first"]
    assert unrecorded.errors == [f"overlays/dev/retired.yaml: no retirement of {APP}; only what was retired is deleted"]
    assert unasked.errors == [f"stack {STACK}: not deleted; to go on, answer y on a terminal, or give --yes"]
    assert (shown.err, there) == (f"would delete the stack {STACK}\n", {STACK: "CREATE_COMPLETE"})
    assert json.loads(gone.out) == {"stack": STACK, "deleted": True, "dry_run": False}
    assert stacks(aws) == {}
    assert (again.code, again.err) == (0, f"nothing to delete: there is no stack {STACK}\n")


@pytest.mark.filterwarnings("ignore:Tried to parse")
def test_nobody_answers_or_somebody_says_no_and_nothing_is_left(
    checkout: Checkout, aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run(checkout)
    answer(monkeypatch, "n\n")
    no = run(checkout)
    left = stacks(aws)
    answer(monkeypatch, "y\n")
    yes = run(checkout)

    assert (
        alone.errors
        == no.errors
        == [f"stack {STACK}: nothing has changed; to go on, answer y on a terminal, or give --yes"]
    )
    assert left == {}
    assert re.search(r"Add\s+LoadBalancer\s+AWS::ElasticLoadBalancingV2::LoadBalancer", no.out)
    assert f"create the stack {STACK} in {ACCOUNT}, {REGION}? [y/N]" in yes.err
    assert (yes.code, stacks(aws)) == (0, {STACK: "CREATE_COMPLETE"})


def test_credentials_of_another_account_change_nothing(checkout: Checkout, aws: Any) -> None:
    shared = "overlays/dev/shared/model-reader.yaml"
    checkout.write(shared, checkout.read(shared).replace(ACCOUNT.encode(), b"999988887777"))
    checkout.write("overlays/prod/shared/model-reader.yaml", checkout.read(shared).replace(b"ml-dev", b"ml-prod"))
    checkout.replace(instances("dev"), f":{ACCOUNT}:", ":999988887777:")
    checkout.commit("Moved", push=True)

    done = run(checkout, "--yes")

    assert done.errors == [
        f"AWS: the credentials are of the account {ACCOUNT}, and dev is in 999988887777; take on a role there"
    ]
    assert stacks(aws) == {}


@pytest.mark.filterwarnings("ignore:Tried to parse")
def test_a_stack_of_somebody_else_is_left_alone(checkout: Checkout, aws: Any) -> None:
    body = json.dumps({"Resources": {"Nothing": {"Type": "AWS::CloudFormation::WaitConditionHandle"}}})
    aws.create_stack(StackName=STACK, TemplateBody=body)

    done = run(checkout, "--yes")

    assert (done.code, done.errors[0].partition(", without")[0]) == (1, f"stack {STACK}: there already")


@pytest.mark.filterwarnings("ignore:Tried to parse")
def test_status_asks_cloudformation_and_no_cluster(checkout: Checkout, aws: Any, version: Version) -> None:
    def status(*args: str) -> tuple[int, dict[str, Any]]:
        done = checkout.run("status", "--app", APP, "--env", "dev", "--json", *args)
        [row] = json.loads(done.out)["apps"]
        return done.code, row

    missing = status()
    assert run(checkout, "--yes").code == 0
    fine = status()
    other = SERVICE.replace("4", "5")
    commit(checkout, FILE.format("dev"), checkout.read(FILE.format("dev")).replace(SERVICE.encode(), other.encode()))
    behind = status()

    command = f"python scripts/deploy_stack.py --app {APP} --env dev"
    assert missing == (1, missing[1] | {"faults": [f"no stack {STACK} on AWS yet; `{command}` makes it"]})
    assert fine == (0, fine[1] | {
        "version": version.version, "live": version.version, "sync": "Synced", "health": "CREATE_COMPLETE",
        "image": f"services/{'4' * 12}", "faults": [],
    })  # fmt: skip
    assert behind == (1, behind[1] | {
        "sync": "OutOfSync",
        "faults": [f"spec.parameters.Service: AWS has {SERVICE}, Git has {other}"],
    })  # fmt: skip


def test_status_tells_that_it_does_not_know_what_aws_has(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    done = checkout.run("status", "--app", APP, "--env", "dev")
    unreleased = checkout.run("status", "--app", APP, "--env", "staging")

    assert done.code == 1
    assert done.errors[0].startswith(f"{APP} in dev: what AWS has is not known: AWS sts in {REGION}: ")
    assert (unreleased.code, unreleased.err) == (0, "")


# What is not deployed


def commit(checkout: Checkout, path: str, text: bytes) -> None:
    checkout.write(path, text)
    checkout.commit(push=True)


def test_what_is_not_released_is_not_deployed(checkout: Checkout) -> None:
    done = run(checkout, "--yes", environment="staging")

    assert done.errors == [
        f"{FILE.format('staging')}: unreleased; release a version there with `python scripts/bump_model.py`"
    ]


def test_what_is_withdrawn_is_not_deployed(checkout: Checkout, version: Version) -> None:
    path = "argocd/platform/admission/withdrawn.yaml"
    text = checkout.read(path).decode().rstrip("\n")
    commit(checkout, path, f"{text}\ndata:\n  lily.{version.version}: wrong labels\n".encode())

    done = run(checkout, "--yes")

    assert done.errors == [
        f"{FILE.format('dev')}: {version.version} is withdrawn: wrong labels; release another version"
    ]


def test_what_breaks_a_rule_is_not_deployed(checkout: Checkout) -> None:
    """As where somebody passes the rules of the branch."""
    checkout.replace(instances("dev"), "Callers: 10.0.0.0/16", "Callers: 0.0.0.0/0")
    checkout.commit(push=True)

    done = run(checkout, "--yes")

    assert done.errors == [
        f"overlays/dev/{APP}: spec.parameters.Callers: '0.0.0.0/0': open to the world, and dev has no"
        " `internet_facing: true` in overlays/promotion.yaml; name the callers"
    ]


def test_what_argo_cd_applies_is_not_for_this_command(checkout: Checkout) -> None:
    done = checkout.run("deploy_stack", "--app", "lily-api", "--env", "dev", "--yes")

    assert done.errors == [
        "overlays/dev/lily-api: not one Stack and nothing else; what Argo CD applies is not for this command"
    ]


@pytest.mark.parametrize(
    "args",
    [
        ("--app", APP), ("--env", "dev"), (), ("--list", "--app", APP),
        ("--app", APP, "--env", "dev", "--changed-since", "HEAD"), ("--app", APP, "--env", "dev", "--commit", "HEAD"),
    ],
)  # fmt: skip
def test_wrong_usage(checkout: Checkout, args: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        checkout.run("deploy_stack", *args)

    assert ended.value.code == 2


def test_the_list_has_what_is_released_and_may_have_changed(checkout: Checkout) -> None:
    start = checkout.git("rev-parse", "HEAD")
    commit(checkout, f"overlays/prod/{APP}/instances.yaml", checkout.read(instances("prod")) + b"# Larger?\n")
    one = checkout.run("deploy_stack", "--list", "--changed-since", start, "--json")
    commit(checkout, "apps/lily-api/kustomization.yaml", checkout.read("apps/lily-api/kustomization.yaml") + b"#\n")
    none = checkout.run("deploy_stack", "--list", "--changed-since", "HEAD^")
    commit(checkout, "infra/vm.yaml", checkout.read("infra/vm.yaml") + b"# Another template\n")
    template = checkout.run("deploy_stack", "--list", "--changed-since", "HEAD^")
    everything = checkout.run("deploy_stack", "--list", "--changed-since", "0" * 40)

    assert json.loads(one.out) == [{"app": APP, "environment": "prod"}]
    assert (none.out, template.out) == ("", f"{APP} in dev\n{APP} in prod\n")
    assert everything.out == template.out


# By the Stubber


class Calls:
    """What is asked of CloudFormation, in order, and its answers."""

    def __init__(self, stubber: Stubber) -> None:
        self.stubber = stubber

    def __call__(self, operation: str, given: dict[str, Any], answer: dict[str, Any]) -> None:
        self.stubber.add_response(operation, answer, given)

    def there(self, status: str, *, protected: bool = False, tags: dict[str, str] = TAGS, name: str = STACK) -> None:
        self("describe_stacks", {"StackName": name}, {"Stacks": [{
            "StackName": STACK, "StackId": ID, "StackStatus": status, "CreationTime": datetime.now(UTC),
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            "EnableTerminationProtection": protected,
        }]})  # fmt: skip

    def missing(self) -> None:
        self.stubber.add_client_error(
            "describe_stacks", "ValidationError", f"Stack with id {STACK} does not exist",
            expected_params={"StackName": STACK},
        )  # fmt: skip

    def made(self, kind: str, *changes: dict[str, str], pages: int = 1) -> None:
        self("create_change_set", {
            "StackName": STACK, "ChangeSetName": ANY, "ChangeSetType": kind, "TemplateBody": ANY, "Parameters": ANY,
            "Tags": [{"Key": key, "Value": value} for key, value in TAGS.items()], "Capabilities": [],
            "RoleARN": ROLE,
        }, {"Id": SET, "StackId": ID})  # fmt: skip
        self.described({"Status": "CREATE_IN_PROGRESS"})
        found = [{"Type": "Resource", "ResourceChange": each} for each in changes]
        size = -(-len(found) // pages) or 1
        for page in range(pages):
            more = {"NextToken": f"page-{page + 1}"} if page + 1 < pages else {}
            asked = {"NextToken": f"page-{page}"} if page else {}
            answer = {"Status": "CREATE_COMPLETE", "Changes": found[page * size : (page + 1) * size]} | more
            self.described(answer, **asked)

    def described(self, answer: dict[str, Any], **asked: str) -> None:
        self("describe_change_set", OF_SET | asked, answer)

    def events(self, *events: tuple[str, str, str, str]) -> None:
        """(ID, status, resource, reason), newest first; of a resource that is called as the stack, the stack's own."""
        self("describe_stack_events", {"StackName": ID}, {"StackEvents": [
            {
                "StackId": ID, "StackName": STACK, "EventId": event, "Timestamp": datetime.now(UTC),
                "ResourceStatus": status, "LogicalResourceId": resource, "ResourceStatusReason": reason,
                "ResourceType": "AWS::CloudFormation::Stack" if resource == STACK else "AWS::AutoScaling::Group",
                "PhysicalResourceId": ID if resource == STACK else "1",
            }
            for event, status, resource, reason in events
        ]})  # fmt: skip

    def executed(self) -> None:
        self("execute_change_set", OF_SET, {})


MODIFY = {
    "Action": "Modify", "LogicalResourceId": "Group", "ResourceType": "AWS::AutoScaling::AutoScalingGroup",
    "Replacement": "False",
}  # fmt: skip
REPLACE = {
    "Action": "Modify", "LogicalResourceId": "Targets", "ResourceType": "AWS::ElasticLoadBalancingV2::TargetGroup",
    "Replacement": "True",
}  # fmt: skip
OLD = ("old", "UPDATE_COMPLETE", STACK, "")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    client = boto3.client("cloudformation", REGION)
    monkeypatch.setattr(s3, "client", lambda service, region: client)
    monkeypatch.setattr(change_sets, "account", lambda region: ACCOUNT)
    with Stubber(client) as stubber:
        yield Calls(stubber)
        stubber.assert_no_pending_responses()


def test_an_update_is_shown_executed_and_followed_to_its_end(
    checkout: Checkout, calls: Calls, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("gitops.cli.progress", told.append)
    calls.there("UPDATE_COMPLETE")
    calls.made("UPDATE", MODIFY, REPLACE, pages=2)
    calls.events(OLD)
    calls.executed()
    # The stack's status is that of before for a moment, and so are its events.
    calls.events(OLD)
    calls.events(("1", "UPDATE_IN_PROGRESS", STACK, ""), OLD)
    calls.events(
        ("3", "UPDATE_COMPLETE", STACK, ""), ("2", "UPDATE_COMPLETE", "Group", ""),
        ("1", "UPDATE_IN_PROGRESS", STACK, ""), OLD,
    )  # fmt: skip
    calls.there("UPDATE_COMPLETE")

    done = run(checkout, "--yes")

    assert (done.code, done.err) == (
        0, f"updated the stack {STACK}: UPDATE_COMPLETE, {version.version} with {SERVICE}\n",
    )  # fmt: skip
    assert [line.split() for line in done.out.splitlines()[2:]] == [
        ["Modify", "Group", "AWS::AutoScaling::AutoScalingGroup", "False"],
        ["Modify", "Targets", "AWS::ElasticLoadBalancingV2::TargetGroup", "True"],
    ]
    assert told == [f"UPDATE_IN_PROGRESS {STACK}", "UPDATE_COMPLETE Group", f"UPDATE_COMPLETE {STACK}"]


@pytest.mark.parametrize(
    ("kind", "end", "back"),
    [
        ("UPDATE", "UPDATE_ROLLBACK_COMPLETE", "CloudFormation went back to what ran before, which is running"),
        ("CREATE", "ROLLBACK_COMPLETE", "CloudFormation took everything back that it had made, and nothing runs"),
        ("UPDATE", "UPDATE_ROLLBACK_FAILED", "look at its events on AWS"),
    ],
)
def test_of_a_failure_the_first_cause_is_told_and_where_that_left_the_stack(
    checkout: Checkout, calls: Calls, kind: str, end: str, back: str
) -> None:
    if kind == "CREATE":
        calls.missing()
    else:
        calls.there("UPDATE_COMPLETE")
    calls.made(kind, MODIFY)
    calls.events(OLD)
    calls.executed()
    calls.events(
        ("4", end, STACK, ""),
        ("3", "UPDATE_FAILED", "Targets", "Resource update cancelled"),
        ("2", "UPDATE_FAILED", "Group", "Received 0 SUCCESS signal(s) out of 1"),
        ("1", "UPDATE_IN_PROGRESS", STACK, ""), OLD,
    )  # fmt: skip

    done = run(checkout, "--yes")

    assert done.errors == [
        f"stack {STACK}: {end}: Group (AWS::AutoScaling::Group): Received 0 SUCCESS signal(s) out of 1; {back}; mend"
        " that, then run the same command again"
    ]


@pytest.mark.parametrize(
    "words", ["The submitted information didn't contain changes.", "No updates are to be performed."]
)
def test_an_empty_change_set_is_nothing_to_do(checkout: Checkout, calls: Calls, words: str) -> None:
    calls.there("UPDATE_COMPLETE")
    calls("create_change_set", ANY_SET, {"Id": SET, "StackId": ID})
    calls.described({"Status": "FAILED", "StatusReason": words})
    calls("delete_change_set", OF_SET, {})
    calls.there("UPDATE_COMPLETE", name=ID)

    done = run(checkout, "--yes", "--json")

    found = json.loads(done.out)
    assert (done.code, found["operation"], found["changes"], found["status"]) == (0, "none", [], "UPDATE_COMPLETE")


_GIVEN = "StackName ChangeSetName ChangeSetType TemplateBody Parameters Tags Capabilities RoleARN"
ANY_SET = dict.fromkeys(_GIVEN.split(), ANY)


def test_a_change_set_that_cannot_be_made_is_taken_back(checkout: Checkout, calls: Calls) -> None:
    calls.there("UPDATE_COMPLETE")
    calls("create_change_set", ANY_SET, {"Id": SET, "StackId": ID})
    calls.described({"Status": "FAILED", "StatusReason": "Parameters: [ssm:/no/such] cannot be found."})
    calls("delete_change_set", OF_SET, {})
    calls.there("UPDATE_COMPLETE", name=ID)

    done = run(checkout, "--yes")

    assert done.errors == [
        f"stack {STACK}: CloudFormation can make no change set: Parameters: [ssm:/no/such] cannot be found.; nothing"
        " has changed"
    ]


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("UPDATE_IN_PROGRESS", "another change is under way; when it is over, run the same command again"),
        ("DELETE_IN_PROGRESS", "another change is under way; when it is over, run the same command again"),
        ("ROLLBACK_COMPLETE", f"aws cloudformation delete-stack --stack-name {STACK} --region {REGION}`"),
        ("ROLLBACK_FAILED", "aws cloudformation delete-stack"),
        ("DELETE_FAILED", "aws cloudformation delete-stack"),
        ("UPDATE_ROLLBACK_FAILED", "aws cloudformation continue-update-rollback"),
    ],
)
def test_a_stack_that_cannot_be_changed_is_told_with_the_remedy(
    checkout: Checkout, calls: Calls, status: str, remedy: str
) -> None:
    calls.there(status)

    [line] = run(checkout, "--yes").errors

    assert line.startswith(f"stack {STACK}: {status}: ")
    assert remedy in line


def test_a_stack_that_has_nothing_but_change_sets_is_made(checkout: Checkout, calls: Calls) -> None:
    """As an interrupted command leaves it."""
    calls.there("REVIEW_IN_PROGRESS", tags={})
    calls.made("CREATE", MODIFY)
    calls.events(("r", "REVIEW_IN_PROGRESS", STACK, ""))
    calls.executed()
    calls.events(("1", "CREATE_COMPLETE", STACK, ""), ("r", "REVIEW_IN_PROGRESS", STACK, ""))
    calls.there("CREATE_COMPLETE")

    assert run(checkout, "--yes").code == 0


def test_of_two_at_once_the_one_whose_change_set_is_over_changes_nothing(checkout: Checkout, calls: Calls) -> None:
    calls.there("UPDATE_COMPLETE")
    calls.made("UPDATE", MODIFY)
    calls.events(OLD)
    calls.stubber.add_client_error(
        "execute_change_set", "InvalidChangeSetStatus", f"ChangeSet [{SET}] cannot be executed in its current status"
        " of [OBSOLETE]",
    )  # fmt: skip

    [line] = run(checkout, "--yes").errors

    assert "InvalidChangeSetStatus" in line
    assert "OBSOLETE" in line


def test_what_is_only_shown_leaves_no_change_set(checkout: Checkout, calls: Calls) -> None:
    calls.there("UPDATE_COMPLETE")
    calls.made("UPDATE", MODIFY)
    calls("delete_change_set", OF_SET, {})
    calls.there("UPDATE_COMPLETE", name=ID)

    done = run(checkout, "--dry-run")

    assert done.code == 0
    assert "Modify" in done.out
    assert done.err.startswith(f"would update the stack {STACK}: ")


def test_a_branch_is_shown_and_never_deployed(checkout: Checkout, calls: Calls) -> None:
    checkout.replace(instances("dev"), 'MaxSize: "3"', 'MaxSize: "7"')
    checkout.commit("Not merged")
    calls.missing()

    done = run(checkout, "--commit", "HEAD", "--dry-run", "--json")

    assert json.loads(done.out)["operation"] == "create"


@pytest.fixture
def thawed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether the environments that may be frozen are, whatever the day is."""

    def say(frozen: bool) -> None:
        until = datetime(2030, 1, 7, 6, tzinfo=UTC)
        monkeypatch.setattr(freeze, "end", lambda windows, now: until if windows and frozen else None)

    return say


def test_production_cannot_be_deleted_by_mistake(
    checkout: Checkout, calls: Calls, thawed: Callable[[bool], None]
) -> None:
    name, tags = f"ml-prod-{APP}", TAGS | {"model.mlops/environment": "prod"}
    thawed(False)
    calls.there("UPDATE_COMPLETE", tags=tags, name=name)
    calls("create_change_set", ANY_SET, {"Id": SET, "StackId": ID})
    calls.described({"Status": "FAILED", "StatusReason": "No updates are to be performed."})
    calls("delete_change_set", OF_SET, {})
    calls.there("UPDATE_COMPLETE", name=ID)
    calls("update_termination_protection", {"StackName": STACK, "EnableTerminationProtection": True}, {"StackId": ID})

    assert run(checkout, "--yes", environment="prod").code == 0


def test_what_is_retired_in_production_loses_its_protection_first(checkout: Checkout, calls: Calls) -> None:
    tags = TAGS | {"model.mlops/environment": "prod"}
    checkout.git("rm", "-rq", f"overlays/prod/{APP}")
    checkout.write("overlays/prod/retired.yaml", f"- app: {APP}\n  reason: on a cluster now\n")
    checkout.commit("Retire it", push=True)
    calls.there("UPDATE_COMPLETE", tags=tags, name=f"ml-prod-{APP}", protected=True)
    calls.events(OLD)
    calls("update_termination_protection", {"StackName": STACK, "EnableTerminationProtection": False}, {"StackId": ID})
    calls("delete_stack", {"StackName": ID, "RoleARN": ROLE.replace("dev", "prod")}, {})
    calls.events(("1", "DELETE_IN_PROGRESS", STACK, ""), OLD)
    calls.events(
        ("3", "DELETE_FAILED", STACK, "The following resource(s) failed to delete: [Log]."),
        ("2", "DELETE_FAILED", "Log", "AccessDenied"), ("1", "DELETE_IN_PROGRESS", STACK, ""), OLD,
    )  # fmt: skip

    done = run(checkout, "--delete", "--yes", environment="prod")

    assert done.errors == [
        f"stack ml-prod-{APP}: DELETE_FAILED: Log (AWS::AutoScaling::Group): AccessDenied; mend that, then run the same"
        " command again"
    ]


def test_in_a_freeze_only_a_person_deploys(
    checkout: Checkout, calls: Calls, thawed: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    thawed(True)
    frozen = "prod is frozen until 2030-01-07T06:00Z"

    alone = run(checkout, "--yes", environment="prod")
    calls.there("UPDATE_COMPLETE", tags=TAGS | {"model.mlops/environment": "prod"}, name=f"ml-prod-{APP}")
    calls("create_change_set", ANY_SET, {"Id": SET, "StackId": ID})
    calls.described({"Status": "CREATE_COMPLETE", "Changes": []})
    calls("delete_change_set", OF_SET, {})
    calls.there("UPDATE_COMPLETE", name=ID)
    answer(monkeypatch, "n\n")
    person = run(checkout, environment="prod")

    assert alone.errors == [f"{frozen}; a person can deploy there all the same, on a terminal and without --yes"]
    assert person.err.splitlines()[0] == frozen


def test_what_a_hold_keeps_is_deployed_as_it_is(checkout: Checkout, calls: Calls) -> None:
    """A rollback sets one, and has to come to AWS too."""
    held = hold.write(APP, "dev", Hold("worse", "Ann", "2026-02-02T12:00:00Z"))
    commit(checkout, hold.path(APP, "dev"), held)
    calls.there("UPDATE_COMPLETE")
    calls.made("UPDATE", MODIFY)
    calls.events(OLD)
    calls.executed()
    calls.events(("1", "UPDATE_COMPLETE", STACK, ""), OLD)
    calls.there("UPDATE_COMPLETE")

    done = run(checkout, "--yes")

    assert done.code == 0
    assert done.err.startswith(f"overlays/dev/{APP}/hold.yaml: held by Ann since 2026-02-02T12:00:00Z: worse;")


def test_a_change_that_does_not_end_is_left_to_cloudformation(
    checkout: Checkout, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.there("UPDATE_COMPLETE")
    calls.made("UPDATE", MODIFY)
    calls.events(OLD)
    calls.executed()
    newest = change_sets.Stacks._newest_event

    def last_moment(*args: Any) -> str:
        monkeypatch.setattr(change_sets, "LONGEST", 0)
        return newest(*args)

    monkeypatch.setattr(change_sets.Stacks, "_newest_event", last_moment)

    done = run(checkout, "--yes")

    assert done.errors == [f"stack {ID}: not at its end after 0 s; CloudFormation goes on, run the same command again"]

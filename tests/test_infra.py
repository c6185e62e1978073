"""infra/: the stacks, CloudFormation's own schemas, the rules of checks/infra.py, and the faults that each finds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cfnlint.api import ManualArgs, lint, lint_by_config
from conftest import ROOT, SAMPLE, copy_checkout, run
from infrastructure import ACCOUNT, FOLDER, REGION, configuration, instances, model, stack

from gitops.checks import infra, roles
from gitops.checks.framework import Repository
from gitops.manifests import cloudformation, kustomize
from gitops.manifests.cloudformation import ROLE, Stack
from gitops.manifests.objects import Object, at
from gitops.repo import layout, stacks
from gitops.repo.policy import read_policy
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

ACCOUNT_OF_SAMPLE = "111122223333"
REGISTRY = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
APART = {
    "overlays/dev/lily-sagemaker": [
        model("lily-sagemaker", "dev", image=f"{REGISTRY}/lily-api@sha256:{64 * 'a'}"),
        configuration("lily-sagemaker", "dev", "serving", "s3://mlops-prod/requests/dev/captured"),
    ],
    "overlays/prod/lily-sagemaker": [
        model("lily-sagemaker", "prod"),
        configuration("lily-sagemaker", "prod", "blue", "s3://captured/prod/"),
    ],
    "overlays/dev/lily-vm": [instances("lily-vm", "dev", HostedZone="Z1", ImageId="/ml/image")],
    "overlays/dev/rose-vm": [instances("rose-vm", "dev", HostedZone="Z1")],
}
# Of the apps themselves: deploy_stack.py makes it of what a release says.
OF_APPS = {"vm"}
TEMPLATES = sorted(file.stem for file in FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("infra")
    copy_checkout(root)
    return root


@pytest.fixture(scope="module")
def own(checkout: Path) -> Mapping[str, Sequence[Object]]:
    return kustomize.rendered_all(checkout, layout.folders(checkout, read_policy(checkout)))


@pytest.fixture(scope="module")
def renders(own: Mapping[str, Sequence[Object]]) -> Mapping[str, Sequence[Object]]:
    """Those of the sample, and beside them what runs without its cluster."""
    return {**own, **APART}


# What is there


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_keeps_every_rule(template: str) -> None:
    assert infra.judge(cloudformation.read(FOLDER, template), stack(template)) == []


def test_cloudformation_takes_every_template() -> None:
    # The linter reads its own rules once for all of them.
    found = lint_by_config(ManualArgs(templates=[str(FOLDER / f"{name}.yaml") for name in TEMPLATES]))

    assert list(map(str, found)) == []


def test_every_template_has_a_stack_and_every_role_somebody_who_asks_for_it(
    checkout: Path, renders: Mapping[str, Sequence[Object]]
) -> None:
    needed = stacks.needed(Snapshot(checkout), renders)

    # `provider` is for another account, `waf` for the internet, and both are looked for below.
    assert {each.template for each in needed} == set(TEMPLATES) - OF_APPS - {"provider", "waf"}
    made = {
        (each.account, str(at(item, "Properties", "RoleName")))
        for each in needed
        if each.template != "cluster"
        for item in cloudformation.resources(cloudformation.read(FOLDER, each.template), each).values()
        if item["Type"] == ROLE
    }
    asked = {(each.account, each.role) for each in stacks.named(renders)}
    passed = {(ACCOUNT_OF_SAMPLE, name) for name in ("ml-dev-sagemaker", "ml-prod-sagemaker", "ml-dev-vm")}
    # CloudFormation's own, and that of training jobs: a workflow names each to AWS.
    passed |= {(ACCOUNT_OF_SAMPLE, name) for name in ("ml-dev-stack", "ml-sagemaker-training")}
    workflows = {
        (each.account, role) for each in needed if each.template != "cluster" for role in _of_workflows(each).values()
    }
    assert made == asked | passed | workflows


def test_what_runs_without_a_cluster_gets_the_stacks_of_its_environment(
    checkout: Path, renders: Mapping[str, Sequence[Object]]
) -> None:
    found = {each.name: each for each in stacks.needed(Snapshot(checkout), renders)}

    about = {"Repository": "example-org/model-gitops", "Bucket": "mlops-prod"}
    images = f"arn:aws:ecr:eu-west-1:{ACCOUNT_OF_SAMPLE}:repository/lily-api"
    training = {"Data": "mlops-prod/dvc/", "Images": images.replace("lily-api", "train")}
    assert found["sagemaker-training"].parameters == about | training
    prod = {"Namespace": "ml-prod", "Environment": "prod", "Images": images}
    logs = {"Requests": "mlops-prod/requests/prod/,captured/prod/"}
    assert found["sagemaker-prod"].parameters == about | prod | logs
    assert found["sagemaker-dev"].parameters["Requests"] == "mlops-prod/requests/dev/"
    assert found["ml-dev-lily-sagemaker-alarms"].parameters == {
        "Endpoint": "ml-dev-lily-sagemaker", "Variant": "serving",
    }  # fmt: skip
    dev = {"Namespace": "ml-dev", "Environment": "dev", "Stacks": "ml-dev-lily-vm,ml-dev-rose-vm"}
    assert found["vm-dev"].parameters == about | dev | {"Images": "/ml/image", "Zones": "Z1"}
    assert [name for name in found if name.startswith(("images-", "sagemaker-", "vm-"))] == [
        "images-lily-api", "images-train", "sagemaker-training", "sagemaker-dev", "sagemaker-prod", "vm-dev",
    ]  # fmt: skip


def test_without_any_of_it_nothing_of_it_is_made(checkout: Path, own: Mapping[str, Sequence[Object]]) -> None:
    found = {each.template for each in stacks.needed(Snapshot(checkout), own)}

    assert not found & {"alarms", "provider", "sagemaker", "training", "vm-roles", "waf"}


def test_an_environment_of_another_account_has_its_own_provider_reads_the_bucket_and_pulls(
    tmp_path: Path, own: Mapping[str, Sequence[Object]]
) -> None:
    copy_checkout(tmp_path)
    policy = tmp_path / "overlays/promotion.yaml"
    policy.write_text(policy.read_text().replace("- name: dev\n", '- name: dev\n    account: "777788889999"\n'))

    found = {each.name: each for each in stacks.needed(Snapshot(tmp_path), {**own, **APART})}

    assert [each.account for each in found.values() if each.template == "provider"] == ["777788889999"]
    assert list(found).index("github-provider") < list(found).index("sagemaker-dev")
    assert {found[name].account for name in ("sagemaker-dev", "vm-dev", "ml-dev-lily-sagemaker-alarms")} == {
        "777788889999"
    }
    assert found["models-mlops-prod"].parameters["Accounts"] == "777788889999"
    assert found["images-lily-api"].parameters["Pullers"] == "777788889999"


def test_an_endpoint_reads_the_replica_that_it_is_told_of_and_instances_the_model_bucket(
    tmp_path: Path, own: Mapping[str, Sequence[Object]]
) -> None:
    copy_checkout(tmp_path)
    policy = tmp_path / "overlays/promotion.yaml"
    text = policy.read_text().replace("- name: dev\n", "- name: dev\n    replica: mlops-us\n")
    policy.write_text(text + "replicas:\n  - {bucket: mlops-us, region: us-east-1}\n")
    told = model("lily-sagemaker", "dev")
    told["spec"]["primaryContainer"]["environment"] = {"MODEL_REPLICA": "mlops-us"}
    apart = {"overlays/dev/lily-vm": [instances("lily-vm", "dev")]}

    without, found = (
        {
            each.name: each.parameters.get("Bucket")
            for each in stacks.needed(Snapshot(tmp_path), {**own, **apart, "overlays/dev/lily-sagemaker": [one]})
        }
        for one in (model("lily-sagemaker", "dev"), told)
    )

    assert (without["sagemaker-dev"], without["vm-dev"]) == ("mlops-prod", "mlops-prod")
    assert (found["sagemaker-dev"], found["vm-dev"]) == ("mlops-us", "mlops-prod")


def test_instances_where_no_cluster_is_get_a_network_and_a_certificate(checkout: Path) -> None:
    alone = {"overlays/prod/lily-vm": [instances("lily-vm", "prod")], "overlays/dev/lily-vm": [instances("x", "dev")]}

    needed = stacks.needed(Snapshot(checkout), alone)

    found = {each.name: each.parameters for each in needed if each.template in ("network", "domain")}
    assert found == {
        "vm-network": {"Cluster": "vm", "Network": "10.0.0.0/16"},
        "vm-domain": {"Domain": "ml.example.com", "Names": "*.dev.ml.example.com,*.ml.example.com"},
    }


def test_load_balancers_that_the_internet_reaches_may_have_a_web_acl(
    tmp_path: Path, own: Mapping[str, Sequence[Object]]
) -> None:
    copy_checkout(tmp_path)
    policy = tmp_path / "overlays/promotion.yaml"
    host = "hosts: [ml.example.com]\n"
    policy.write_text(policy.read_text().replace(host, f"{host}    internet_facing: true\n"))

    found = {each.name: each.parameters for each in stacks.needed(Snapshot(tmp_path), own)}

    assert found["mlops-waf"] == {"Cluster": "mlops"}
    assert found["mlops-addons"]["Waf"] == "yes"
    assert list(found).index("mlops-waf") < list(found).index("mlops-addons")


def test_an_endpoint_whose_registry_is_none_of_ecr_is_refused(
    tmp_path: Path, own: Mapping[str, Sequence[Object]]
) -> None:
    copy_checkout(tmp_path)
    policy = tmp_path / "overlays/promotion.yaml"
    policy.write_text(policy.read_text().replace(REGISTRY, "ghcr.io/acme"))

    with pytest.raises(Refused) as refused:
        stacks.needed(Snapshot(tmp_path), {**own, **APART})

    assert refused.value.lines[0].startswith("overlays/promotion.yaml: image_registries: none is of ECR")


def test_the_first_endpoint_of_a_repository_gets_a_repository_for_its_image(checkout: Path) -> None:
    alone = {"overlays/prod/lily-sagemaker": APART["overlays/prod/lily-sagemaker"]}

    found = [each for each in stacks.needed(Snapshot(checkout), alone) if each.template == "registry"]

    assert [each.parameters["Repository"] for each in found] == ["lily-sagemaker", "train"]


def with_role(name: str) -> Object:
    found = model("x", "prod")
    return found | {"spec": found["spec"] | {"executionRoleARN": f"arn:aws:iam::{ACCOUNT_OF_SAMPLE}:role/{name}"}}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (model("x", "prod"), None),
        (instances("x", "prod"), None),
        # Those of another environment, or of none, are named by the rules `sagemaker` and `stack`.
        (model("x", "dev"), None),
        (instances("x", "dev"), None),
        (
            with_role("ml-prod-model-reader"),
            f"spec.executionRoleARN: 'arn:aws:iam::{ACCOUNT_OF_SAMPLE}:role/ml-prod-model-reader': not what"
            " infra/sagemaker.yaml makes for prod; take ml-prod-sagemaker",
        ),
        (
            instances("x", "prod", InstanceProfile="ml-prod-stack"),
            "spec.parameters.InstanceProfile: 'ml-prod-stack': not what infra/vm-roles.yaml makes for prod; take"
            " ml-prod-vm",
        ),
    ],
)
def test_what_runs_without_a_cluster_has_the_role_of_its_environment(
    checkout: Path, item: Object, message: str | None
) -> None:
    found = list(roles.check_roles(Repository(checkout, read_policy(checkout), {"overlays/prod/x": [item]})))

    assert [each.rule for each in found] == ["roles"] * bool(message)
    assert message is None or message in found[0].message


def test_a_workflow_that_names_a_role_which_nothing_makes_is_found(tmp_path: Path) -> None:
    copy_checkout(tmp_path)
    repository = Repository(tmp_path, read_policy(tmp_path), {})
    assert list(roles.check_roles(repository)) == []
    (tmp_path / ".github/workflows/more.yml").write_text("role-to-assume: ${{ vars.AWS_MODEL_OWNER_ROLE }}\n")

    (found,) = roles.check_roles(repository)

    assert str(found) == (
        ".github/workflows/more.yml: vars.AWS_MODEL_OWNER_ROLE: no template of infra/ has the output for it; add one"
        " [roles]"
    )


def test_a_role_trusts_the_service_accounts_that_ask_for_it_and_nobody_else(
    checkout: Path, renders: Mapping[str, Sequence[Object]]
) -> None:
    asking: dict[str, set[str]] = {}
    for each in stacks.named(renders):
        if each.environment:
            asking.setdefault(each.role, set()).add(f"system:serviceaccount:{each.service_account}")

    for each in stacks.needed(Snapshot(checkout), renders):
        if each.template in ("reader", "batch"):
            (item,) = cloudformation.resources(cloudformation.read(FOLDER, each.template), each).values()
            (statement,) = cloudformation.statements(cloudformation.trust(item))
            subjects = statement["Condition"]["StringEquals"]["<mlops-issuer>:sub"]
            assert set(subjects) == asking[each.name]


def test_a_bucket_lets_in_the_other_accounts_that_read_log_or_copy_there(tmp_path: Path) -> None:
    copy_checkout(tmp_path)
    for file in (tmp_path / "overlays/dev").rglob("*.yaml"):
        file.write_text(file.read_text().replace("111122223333", "777788889999"))
    policy = tmp_path / "overlays/promotion.yaml"
    entry = '- name: dev\n    account: "777788889999"\n    replica: mlops-us\n'
    replicas = "replicas:\n  - {bucket: mlops-us, region: us-east-1}\n"
    policy.write_text(policy.read_text().replace("- name: dev\n", entry) + replicas)

    renders = kustomize.rendered_all(tmp_path, layout.folders(tmp_path, read_policy(tmp_path)))

    found = [each for each in stacks.needed(Snapshot(tmp_path), renders) if each.template == "models"]
    assert [(each.account, each.parameters) for each in found] == [
        ("111122223333", {"Bucket": "mlops-prod", "Accounts": "777788889999"}),
        ("777788889999", {"Bucket": "mlops-us", "Accounts": "", "Source": "111122223333"}),
    ]


def _of_workflows(of: Stack) -> dict[str, str]:
    """The names of a stack's roles by the variables of the workflows that take them on."""
    template = cloudformation.read(FOLDER, of.template)
    made = cloudformation.resources(template, of)
    return {
        roles.variable(output): made[name]["Properties"]["RoleName"]
        for output, about in template.get("Outputs", {}).items()
        if (name := next(iter(at(about, "Value", "Fn::GetAtt") or []), "")) in made and made[name]["Type"] == ROLE
    }


# Each environment has its own: the variable is that of the environment on GitHub in which the job runs.
OF_ENVIRONMENTS = {"AWS_SAGEMAKER_ROLE", "AWS_STACK_ROLE"}


def test_workflows_take_on_the_roles_that_are_made_for_them_each_in_its_environment() -> None:
    taken: dict[str, set[str]] = {}
    for file in (ROOT / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            for variable in re.findall(r"vars\.(AWS_[A-Z_]+_ROLE)\b", yaml.safe_dump(job)):
                taken.setdefault(variable, set()).add(f"repo:acme/models:environment:{job['environment']}")

    trusted = {variable: {subject} for template in ("github", "training") for variable, subject in _subjects(template)}
    assert {name: trusted.get(name) for name in taken.keys() - OF_ENVIRONMENTS} == {
        name: found for name, found in taken.items() if name not in OF_ENVIRONMENTS
    }
    assert {variable for variable, _ in _subjects("github")} <= taken.keys()


def _subjects(template: str) -> Iterator[tuple[str, str]]:
    """(variable, who takes the role on) of what a template makes for workflows."""
    of = stack(template)
    made = cloudformation.resources(cloudformation.read(FOLDER, template), of).values()
    for variable, name in _of_workflows(of).items():
        (item,) = (each for each in made if at(each, "Properties", "RoleName") == name)
        (statement,) = cloudformation.statements(cloudformation.trust(item))
        yield variable, statement["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"]


def test_a_role_of_an_environment_is_for_its_own_environment_on_github() -> None:
    own = "repo:acme/models:environment:staging"

    assert dict(_subjects("sagemaker")) == {"AWS_SAGEMAKER_ROLE": own}
    assert dict(_subjects("vm-roles")) == {"AWS_STACK_ROLE": own, "AWS_STACK_PREVIEW_ROLE": f"{own}-preview"}


# Faults


def table(name: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = yaml.safe_load((ROOT / "tests/infra" / name).read_text())
    return found


TYPOS, FAULTS = table("typos.yaml"), table("faults.yaml") + table("faults-vm.yaml")


@pytest.mark.parametrize("template", sorted({each["template"] for each in TYPOS}))
def test_cloudformation_refuses_a_typo(template: str) -> None:
    typos = [each for each in TYPOS if each["template"] == template]
    text = (FOLDER / f"{template}.yaml").read_text()
    for each in typos:
        text = edited(text, each)

    found = [match.message for match in lint(text)]

    missing = [each["says"] for each in typos if not any(each["says"] in line for line in found)]
    assert missing == [], found


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{each['template']}: {each['says']}" for each in FAULTS])
def test_what_no_team_would_want_is_refused_by_name(fault: dict[str, str]) -> None:
    name = fault["template"]

    found = judged(edited((FOLDER / f"{name}.yaml").read_text(), fault), stack(name))

    assert any(fault["says"] in line for line in found), found


def edited(text: str, edit: dict[str, str]) -> str:
    assert edit["old"] in text, f"{edit['template']}: {edit['old']!r} does not stand there"
    return text.replace(edit["old"], edit["new"])


def judged(text: str, stack: Stack) -> list[str]:
    try:
        return infra.judge(cloudformation.parse(text, stack.template), stack)
    except Refused as refused:
        return list(refused.lines)


VALUES = [
    ("models", {"LockDays": "90"}, "parameter LockDays: 90: outside 1 to 89"),
    ("models", {"Bucket": "Acme_Models"}, "parameter Bucket: 'Acme_Models': does not match"),
    ("models", {"Days": "3"}, "parameter Days: not one of the template"),
    ("network", {"Zones": "4"}, "parameter Zones: '4': write one of 2, 3"),
    ("network", {"Network": "8.8.0.0/16"}, "parameter Network: '8.8.0.0/16': does not match"),
    ("github", {"Repository": "acme/*"}, "parameter Repository: 'acme/*': does not match"),
    ("reader", {"ServiceAccounts": "ml-dev:*"}, "parameter ServiceAccounts: 'ml-dev:*': does not match"),
    ("cluster", {"Callers": "0.0.0.0/0"}, "PublicAccessCidrs: 0.0.0.0/0: open to the world"),
    ("cluster", {"GpuInstanceType": "g5g.xlarge"}, "GpuNodeGroup: InstanceTypes: g5g.xlarge: of Arm"),
    ("cluster", {"Nodes": "many"}, "parameter Nodes: 'many': no number"),
]


@pytest.mark.parametrize(("template", "given", "message"), VALUES)
def test_a_wrong_value_is_refused_by_name(template: str, given: dict[str, str], message: str) -> None:
    found = judged((FOLDER / f"{template}.yaml").read_text(), stack(template, **given))

    assert any(message in line for line in found), found


def test_a_host_without_a_certificate_is_found() -> None:
    policy = read_policy(SAMPLE)
    certified = Stack("domain", "domain", ACCOUNT, REGION, {"Names": "*.dev.ml.example.com,*.staging.ml.example.com"})

    assert list(infra.uncertified(policy, [certified])) == [
        "overlays/promotion.yaml: environments: prod: hosts: ml.example.com: no certificate is for *.ml.example.com;"
        " add it to the Names of a stack of infra/domain.yaml"
    ]


def _domains(*places: tuple[str, str, str]) -> list[Stack]:
    return [
        Stack(f"{name}-domain", "domain", account, region, {"Domain": "ml.acme.com", "Names": "*.ml.acme.com"})
        for name, account, region in places
    ]


def test_clusters_of_one_account_share_the_zone_of_their_domain() -> None:
    made = _domains(("one", ACCOUNT, REGION), ("two", ACCOUNT, REGION), ("far", ACCOUNT, "us-east-1"),
                    ("other", "777788889999", REGION))  # fmt: skip

    addons = Stack("two-addons", "addons", ACCOUNT, REGION, {"Cluster": "two", "Domain": "two-domain"})

    *found, importing = stacks._one_zone([*made, addons])

    assert importing.parameters["Domain"] == "one-domain"
    assert [each.parameters.get("ZoneStack") for each in found] == [None, "one-domain", None, None]
    template = cloudformation.read(FOLDER, "domain")
    zones = [
        at(cloudformation.resources(template, each)["Certificate"], "Properties", "DomainValidationOptions")[0]
        for each in found
    ]
    assert [each["HostedZoneId"] for each in zones] == [
        "<HostedZone>", "<one-domain-zone>", "<HostedZone>", "<HostedZone>",
    ]  # fmt: skip
    assert "HostedZone" not in cloudformation.resources(template, found[1])
    assert list(infra.second_zones(found)) == [
        "stack far-domain in us-east-1: a second zone of ml.acme.com, beside that of one-domain in eu-central-1; make"
        " that one first, then give the identifier of its zone by --set Zone=ID"
    ]
    known = [replace(each, parameters=dict(each.parameters) | {"Zone": "Z1"}) for each in found]
    assert list(infra.second_zones(known)) == []


# The command


def test_the_command_prints_what_makes_each_stack(checkout: Path) -> None:
    done = run("stacks", "--root", checkout, "--only", "models,github")

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "aws cloudformation deploy --region eu-west-1 --stack-name models-mlops-prod --template-file infra/models.yaml"
        " --parameter-overrides Bucket=mlops-prod Accounts=",
        "aws cloudformation deploy --region eu-west-1 --stack-name github --template-file infra/github.yaml"
        " --capabilities CAPABILITY_NAMED_IAM --parameter-overrides Repository=example-org/model-gitops"
        " Bucket=mlops-prod",
    ]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--only", "volcano"], "--only volcano: no stack of this repository; the templates are addons, batch,"),
        (["--set", "Zone"], "--set Zone: write NAME=VALUE"),
        (["--only", "cluster", "--callers", "0.0.0.0/0", "--administrator", "me"], "parameter Administrator: 'me'"),
        (["--only", "cluster"], "parameter Callers: no value for the stack mlops"),
    ],
)
def test_what_the_command_is_given_wrong_is_refused(checkout: Path, options: list[str], error: str) -> None:
    done = run("stacks", "--root", checkout, *options)

    assert (done.code, done.out) == (1, "")
    assert any(error in line for line in done.errors), done.err

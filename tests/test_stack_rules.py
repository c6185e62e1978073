"""What a Stack may make, judged with the template as it is and with faults in it, and the schema that follows it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import corpus
import jsonschema
import pytest
import yaml
from on_instances import TEMPLATE

from gitops.checks import kubeconform, stacks
from gitops.checks.stacks import Place
from gitops.manifests import cloudformation, schemas, stack
from gitops.manifests.objects import Object
from gitops.repo.policy import Exposure, Policy

FOLDER = corpus.BESIDE / "vm/overlays/prod/lily-batch"
POLICY = Policy(
    "mlops-prod", ("registry.example.com",), ("dev", "staging", "prod"),
    exposure={"prod": Exposure(("ml.example.com",)), "dev": Exposure(("dev.ml.example.com",))},
)  # fmt: skip
PROD = Place("prod", "111122223333", "eu-west-1", POLICY)
INSIDE = re.compile(r"^spec\.template: ")


def item(**parameters: str) -> Object:
    """The Stack of the corpus, with other values of some parameters."""
    found: Object = yaml.safe_load((FOLDER / "stack.yaml").read_text())
    release, instances = (yaml.safe_load((FOLDER / name).read_text()) for name in ("release.yaml", "instances.yaml"))
    found["metadata"] |= {"namespace": "ml-prod"}
    found["spec"]["parameters"] = release["spec"]["parameters"] | instances["spec"]["parameters"] | parameters
    return found


def template() -> Object:
    return cloudformation.parse(TEMPLATE, stack.NAME)


def faults(made: Object, item: Object, place: Place = PROD) -> list[str]:
    return [f"{field}: {fault}" for field, fault in stacks.judge(item, made, place)]


def resource(made: Object, kind: str) -> dict[str, Any]:
    """The first resource of a kind in a template."""
    found: dict[str, Any] = next(each for each in made["Resources"].values() if each["Type"] == kind)["Properties"]
    return found


def test_the_template_with_right_parameters_passes() -> None:
    assert faults(template(), item()) == []


def spot(made: Object) -> None:
    resource(made, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["InstanceMarketOptions"] = {"MarketType": "spot"}


def all_spot(made: Object) -> None:
    group = resource(made, "AWS::AutoScaling::AutoScalingGroup")
    group["MixedInstancesPolicy"] = {
        "InstancesDistribution": {"OnDemandBaseCapacity": 0, "OnDemandPercentageAboveBaseCapacity": 0}
    }


def base_of_on_demand(made: Object) -> None:
    all_spot(made)
    policy = resource(made, "AWS::AutoScaling::AutoScalingGroup")["MixedInstancesPolicy"]
    policy["InstancesDistribution"]["OnDemandBaseCapacity"] = 2


def one_instance(made: Object) -> None:
    resource(made, "AWS::AutoScaling::AutoScalingGroup")["MinSize"] = 1


def one_zone(made: Object) -> None:
    resource(made, "AWS::AutoScaling::AutoScalingGroup")["VPCZoneIdentifier"] = [
        {"Fn::Select": [0, {"Ref": "Subnets"}]}
    ]


def open_instances(made: Object) -> None:
    rules = made["Resources"]["InstanceGroup"]["Properties"]["SecurityGroupIngress"]
    rules.append({"IpProtocol": "tcp", "FromPort": 5001, "ToPort": 5001, "CidrIp": "0.0.0.0/0"})


def without_https(made: Object) -> None:
    made["Resources"]["Redirect"]["Properties"]["DefaultActions"] = [
        {"Type": "forward", "TargetGroupArn": {"Ref": "Targets"}}
    ]


def uncertified(made: Object) -> None:
    del made["Resources"]["Https"]["Properties"]["Certificates"]


def old_metadata(made: Object) -> None:
    resource(made, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["MetadataOptions"]["HttpTokens"] = "optional"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (spot, "spot instances alone"),
        (all_spot, "spot instances alone"),
        (one_instance, "MinSize: 1: production has two instances or more"),
        (one_zone, "VPCZoneIdentifier: one zone"),
        (open_instances, "InstanceGroup: SecurityGroupIngress.CidrIp: '0.0.0.0/0' is open to the world"),
        (without_https, "Redirect: callers would be answered without HTTPS"),
        (uncertified, "Https: callers would be answered without HTTPS"),
        (old_metadata, "MetadataOptions: write HttpTokens: required"),
    ],
)
def test_what_a_changed_template_makes_is_judged(edit: Callable[[Object], None], message: str) -> None:
    made = template()
    edit(made)

    found = faults(made, item())

    assert [bool(INSIDE.match(line)) and message in line for line in found] == [True]


def test_spot_instances_beside_others_and_in_other_environments_are_fine() -> None:
    made, dev = template(), template()
    base_of_on_demand(made)
    spot(dev)
    there = Place("dev", "111122223333", "eu-west-1", POLICY)

    assert faults(made, item()) == []
    assert faults(dev, item(Host="lily.dev.ml.example.com", InstanceProfile="ml-dev-vm"), there) == []


def test_the_world_is_let_in_where_the_policy_says_so_and_then_by_https_alone() -> None:
    exposure = {**POLICY.exposure, "prod": Exposure(("ml.example.com",), internet_facing=True)}
    public, open_all = replace(PROD, policy=replace(POLICY, exposure=exposure)), template()
    given = item(Callers="0.0.0.0/0", Scheme="internet-facing")
    open_instances(open_all)

    assert faults(template(), given, public) == []
    assert len(faults(template(), given)) == 2
    # And never to the instances.
    assert len(faults(open_all, given, public)) == 1


def test_an_account_that_the_policy_names_is_left_to_the_rule_of_places() -> None:
    line = "spec.parameters.Certificate"
    moved = replace(PROD, account="999988887777")

    assert [each.partition(":")[0] for each in faults(template(), item(), moved)] == [line]


def test_the_role_of_cloudformation_is_of_the_environment_and_of_its_partition() -> None:
    china = replace(PROD, region="cn-north-1")

    assert PROD.maker == "arn:aws:iam::111122223333:role/ml-prod-stack"
    assert china.maker == "arn:aws-cn:iam::111122223333:role/ml-prod-stack"


# The schema


def test_the_schema_has_each_parameter_of_the_template_and_no_other() -> None:
    made = template()
    listed = stack.schema(made, {})["properties"]["spec"]["properties"]["parameters"]

    assert listed["properties"].keys() == made["Parameters"].keys()
    assert set(listed["required"]) == {name for name, about in made["Parameters"].items() if "Default" not in about}
    assert listed["additionalProperties"] is False


@pytest.mark.parametrize(
    ("about", "right", "wrong"),
    [
        ({"Type": "String"}, ("anything", ""), (1, None, ["a"])),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, ("abc",), ("abc1", "1abc", "a\nb", "")),
        ({"Type": "String", "AllowedValues": ["a", 1]}, ("a", "1"), (1, "b")),
        ({"Type": "Number"}, ("1", "-3"), (1, "1.5", "one", "")),
        ({"Type": "CommaDelimitedList", "AllowedPattern": "[a-z]+"}, ("a", "a,b"), ("a,", ",a", "a b")),
        ({"Type": "AWS::EC2::VPC::Id"}, ("vpc-1a2b3c4d",), ("vpc-1", "subnet-1a2b3c4d")),
        ({"Type": "List<AWS::EC2::Subnet::Id>"}, ("subnet-1a2b3c4d,subnet-1a2b3c4e",), ("subnet-1a2b3c4d vpc-1",)),
    ],
)
def test_a_value_is_held_to_what_the_template_asks(
    about: Mapping[str, Any], right: tuple[Any, ...], wrong: tuple[Any, ...]
) -> None:
    made = {"Parameters": {"One": about}, "Resources": {}}

    def errors(value: Any) -> int:
        given = {"apiVersion": "deploy.mlops/v1", "kind": "Stack", "metadata": {}}
        spec = {"template": stack.TEMPLATE, "parameters": {"One": value}}
        own = stack.schema(made, {"type": "object"})
        # As schemas.py completes it.
        own["properties"] |= {"apiVersion": {}, "kind": {}}
        return len(list(jsonschema.Draft7Validator(own).iter_errors(given | {"spec": spec})))

    assert [errors(value) for value in right] == [0] * len(right)
    assert 0 not in [errors(value) for value in wrong]


def test_kubeconform_knows_the_kind_and_takes_the_release_before_the_first() -> None:
    fresh = item(**{
        stack.SERVICE: "unreleased", stack.URI: "s3://unreleased/", stack.DIGEST: "unreleased",
        stack.MANIFEST: "unreleased",
    })  # fmt: skip
    wrong = copy.deepcopy(fresh)
    wrong["metadata"]["anotations"] = {}

    assert kubeconform.check({"a": [fresh], "b": [item()]}) == []
    assert [each.folders for each in kubeconform.check({"a": [fresh], "c": [wrong]})] == [("c",)]
    assert schemas.kinds(schemas.folder())["Stack.deploy.mlops"]["scope"] == "Namespaced"

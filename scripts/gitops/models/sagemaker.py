"""An endpoint of SageMaker, made to be what a render says, without a cluster.

The objects of the render are parameters of AWS's own calls. A Model and an EndpointConfig are never changed: their
names carry the release, so what has the name already has to be the same. The Endpoint is led from one to the next, and
what it does not use any more goes last. All of it carries the tags of its app, and nothing else is taken away.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from gitops import cli
from gitops.manifests import ack
from gitops.manifests.objects import Object, at, mappings
from gitops.models import s3

from contract.errors import Refused

APP, ENVIRONMENT = "model.mlops/app", "model.mlops/environment"
POLL, LONGEST = 15.0, 3600.0
"""Seconds between two looks at an Endpoint that changes, and after which no more are taken."""
SERVICE, SCALING = "sagemaker", "application-autoscaling"
CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
# What an update takes over of the variants that run: how many instances the load has asked for, and nothing else.
_RETAINED = {
    "RetainAllVariantProperties": True,
    "ExcludeRetainedVariantProperties": [
        {"VariantPropertyType": "DesiredWeight"}, {"VariantPropertyType": "DataCaptureConfig"},
    ],
}  # fmt: skip
# In an answer that describes something, beside what it was made with.
_DESCRIBED = ("ModelArn", "EndpointConfigArn", "CreationTime", "DeploymentRecommendation", "ResponseMetadata")

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """One endpoint, as parameters of the calls that make its parts."""

    model: Parameters
    config: Parameters
    endpoint: Parameters
    targets: tuple[Parameters, ...] = ()
    policies: tuple[Parameters, ...] = ()

    @property
    def name(self) -> str:
        return str(self.endpoint["EndpointName"])


def wanted(items: Iterable[Object], folder: str) -> Wanted:
    """What the objects of a render say. Raises Refused unless that is one endpoint, with its model and
    configuration, and nothing that only a cluster could make."""
    found: dict[str, list[Parameters]] = {kind: [] for _, kind in ack.KINDS}
    for item in items:
        given = ack.to_aws(item)
        found[str(item["kind"])].append(given)
    one = ("Model", "EndpointConfig", "Endpoint")
    if faults := [f"{folder}: {kind}: {len(found[kind])} of them, not one" for kind in one if len(found[kind]) != 1]:
        raise Refused(*faults)
    model, config, endpoint = (found[kind][0] for kind in one)
    return Wanted(model, config, endpoint, tuple(found["ScalableTarget"]), tuple(found["ScalingPolicy"]))


@cache
def client(service: str, region: str) -> Any:
    return s3.client(service, region)


def require_account(region: str, wanted: str, whose: str) -> None:
    """Raises Refused unless the credentials are of this account."""
    answer = s3.ask("sts", region, "get_caller_identity") or {}
    if answer.get("Account") != wanted:
        raise Refused(
            f"{whose}: account {wanted}, but the credentials are {answer.get('Arn')}'s of {answer.get('Account')};"
            " take those of that account"
        )


@dataclass
class Account:
    """What one app has in an account. With `dry_run`, nothing is changed; what would be is in `steps` all the same."""

    region: str
    app: str
    environment: str
    dry_run: bool = False
    steps: list[str] = field(default_factory=list)

    @property
    def tags(self) -> dict[str, str]:
        return {APP: self.app, ENVIRONMENT: self.environment}

    def ask(self, operation: str, service: str = SERVICE, **given: Any) -> Parameters | None:
        return s3.call(client(service, self.region), operation, **given)

    def change(self, step: str, operation: str, service: str = SERVICE, **given: Any) -> None:
        self.steps.append(step)
        cli.say(f"would {step}" if self.dry_run else step)
        if self.dry_run or s3.call(client(service, self.region), operation, **given) is not None:
            return
        # What was to go is gone.
        if not operation.startswith(("delete_", "deregister_")):
            raise Refused(f"{step}: what it needs was deleted meanwhile; run the command again")

    def owns(self, arn: str) -> bool:
        answer = self.ask("list_tags", ResourceArn=arn)
        tags = {each["Key"]: each["Value"] for each in mappings(at(answer, "Tags"))}
        return self.tags.items() <= tags.items()

    def tagged(self, given: Parameters) -> Parameters:
        """The parameters with the tags of the app beside those that it has."""
        kept = [each for each in given.get("Tags", []) if each["Key"] not in self.tags]
        return given | {"Tags": [*kept, *({"Key": key, "Value": value} for key, value in self.tags.items())]}


# What is there


def running(account: Account, name: str) -> Parameters | None:
    """An Endpoint as AWS describes it. Raises Refused for one that somebody else has made."""
    found = account.ask("describe_endpoint", EndpointName=name)
    if found and not account.owns(found["EndpointArn"]):
        raise Refused(
            f"endpoint {name}: made by somebody else: it lacks the tags {APP}={account.app},"
            f" {ENVIRONMENT}={account.environment}; one thing alone deploys an endpoint: if that is ACK, leave it to it"
        )
    return found


def uri_of(account: Account, found: Mapping[str, Any] | None) -> str | None:
    """The model that an Endpoint serves, by its URI; None where nothing tells it any more."""
    name = at(_config(account, found), "ProductionVariants", "0", "ModelName")
    model = account.ask("describe_model", ModelName=name) if name else None
    uri = at(model, "PrimaryContainer", "Environment", "MODEL_URI")
    return str(uri) if uri else None


def _config(account: Account, found: Mapping[str, Any] | None) -> Parameters | None:
    name = (found or {}).get("EndpointConfigName")
    return account.ask("describe_endpoint_config", EndpointConfigName=name) if name else None


def settled(account: Account, name: str, found: Parameters | None, *, wait: bool) -> Parameters | None:
    """The Endpoint once it no longer changes, or as it is unless that is to be waited for."""
    end = time.monotonic() + LONGEST
    while wait and found and found["EndpointStatus"] in CHANGING:
        if time.monotonic() > end:
            raise Refused(
                f"endpoint {name}: {found['EndpointStatus']} for {LONGEST:.0f} seconds; look at it in the console, then"
                " run the command again"
            )
        cli.progress(f"{name}: {found['EndpointStatus']}")
        time.sleep(POLL)
        found = account.ask("describe_endpoint", EndpointName=name)
    cli.progress("")
    return found


# What is made


def make_parts(account: Account, asked: Wanted) -> None:
    """Makes the model and the configuration, unless they are there. Raises Refused when others have their names."""
    model, config = asked.model, asked.config
    there = account.ask("describe_model", ModelName=model["ModelName"])
    if there is None:
        account.change(f"create model {model['ModelName']}", "create_model", **account.tagged(model))
    else:
        _require_same("model", str(model["ModelName"]), list(_model_faults(model, there)))
    name = config["EndpointConfigName"]
    there = account.ask("describe_endpoint_config", EndpointConfigName=name)
    if there is None:
        step = f"create endpoint configuration {name}"
        account.change(step, "create_endpoint_config", **account.tagged(config))
    else:
        _require_same("endpoint configuration", str(name), list(_misses(config, there)))


def _model_faults(asked: Parameters, there: Parameters) -> Iterator[str]:
    """Whatever decides what is served: nothing may be missing, and nothing be there beside."""
    yield from _misses(asked, there)
    for path, value in _leaves({key: value for key, value in there.items() if key not in _DESCRIBED}):
        # What AWS adds by itself to every model.
        if value not in (False, "", None, "SingleModel") and at(asked, *path) is None:
            yield f"{'.'.join(path)}: {value!r} in AWS, and Git has none"


def _misses(asked: Parameters, there: Parameters) -> Iterator[str]:
    """What of the parameters is otherwise in AWS. What is only there may be a default, of which AWS adds new ones."""
    for path, value in _leaves({key: value for key, value in asked.items() if key != "Tags"}):
        if (found := at(there, *path)) != value:
            yield f"{'.'.join(path)}: {found!r} in AWS, and Git has {value!r}"


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What is no mapping and no list, each with the keys and positions that lead to it."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(each, (*path, str(key)))
    else:
        yield path, value


def _require_same(what: str, name: str, faults: Sequence[str]) -> None:
    if faults:
        remedy = "it is never changed: put a number behind model.mlops/name in the release file, as in -2"
        raise Refused(*[f"{what} {name}: {fault}; {remedy}" for fault in faults])


def lead(account: Account, asked: Wanted, found: Parameters | None) -> None:
    """Makes the Endpoint, or leads it to the configuration. Raises Refused where it can be neither."""
    config = asked.config["EndpointConfigName"]
    if found is None:
        account.change(f"create endpoint {asked.name}", "create_endpoint", **account.tagged(asked.endpoint))
        return
    status = found["EndpointStatus"]
    if status in CHANGING:
        raise Refused(f"endpoint {asked.name}: {status}; give --wait, or run the command again when that is over")
    if status == "Failed":
        raise Refused(
            f"endpoint {asked.name}: Failed: {found.get('FailureReason')}; it never served, and can only be deleted:"
            f" `aws sagemaker delete-endpoint --endpoint-name {asked.name}`, then run the command again"
        )
    if found["EndpointConfigName"] == config:
        if status != "InService":
            raise Refused(f"endpoint {asked.name}: {status}: {found.get('FailureReason')}; look at it in the console")
        return
    if _instances(_config(account, found)) != _instances(asked.config):
        # AWS refuses another type of instance while the variant is scaled.
        for target in _targets(account, asked.name):
            _deregister(account, target)
    given = {key: value for key, value in asked.endpoint.items() if key != "Tags"}
    retained = _RETAINED if asked.targets else {}
    account.change(f"update endpoint {asked.name}", "update_endpoint", **given | retained)


def _instances(config: Mapping[str, Any] | None) -> dict[str, Any]:
    variants = mappings((config or {}).get("ProductionVariants"))
    return {str(each["VariantName"]): each.get("InstanceType") for each in variants}


def require_led(asked: Wanted, found: Parameters | None) -> None:
    """Raises Refused unless the Endpoint serves with the configuration that was asked for."""
    status, config = str(at(found, "EndpointStatus")), at(found, "EndpointConfigName")
    if status != "InService" or config != asked.config["EndpointConfigName"]:
        back = "rolled back to" if status == "InService" else f"{status} with"
        reason = at(found, "FailureReason") or "an alarm of its deployment, or a variant that was not healthy in time"
        raise Refused(f"endpoint {asked.name}: {back} {config}: {reason}; what was new is kept to be looked at")


def scale(account: Account, asked: Wanted) -> None:
    """Registers what is scaled, with its policies; what is not any more is deregistered, which ends its policies."""
    there = {_key(each): each for each in _targets(account, asked.name)}
    for key in there.keys() - {_key(each) for each in asked.targets}:
        _deregister(account, there[key])
    for target in asked.targets:
        if list(_misses(target, there.get(_key(target), {}))):
            limits = f"{target['MinCapacity']} to {target['MaxCapacity']}"
            account.change(f"scale {target['ResourceId']} from {limits}", "register_scalable_target", SCALING, **target)
    known = {each["PolicyName"]: each for target in asked.targets for each in _policies(account, target)}
    for name in known.keys() - {each["PolicyName"] for each in asked.policies}:
        step, given = f"no longer scale by {name}", {"PolicyName": name} | _named(known[name])
        account.change(step, "delete_scaling_policy", SCALING, **given)
    for policy in asked.policies:
        if list(_misses(policy, known.get(policy["PolicyName"], {}))):
            account.change(f"scale by {policy['PolicyName']}", "put_scaling_policy", SCALING, **policy)


def _named(target: Mapping[str, Any]) -> Parameters:
    return {key: target[key] for key in ("ServiceNamespace", "ResourceId", "ScalableDimension")}


def _key(target: Mapping[str, Any]) -> tuple[str, str]:
    return str(target["ResourceId"]), str(target["ScalableDimension"])


def _policies(account: Account, target: Parameters) -> list[Parameters]:
    """Of one target there are never more than one answer has."""
    return mappings(at(account.ask("describe_scaling_policies", SCALING, **_named(target)), "ScalingPolicies"))


def _targets(account: Account, endpoint: str) -> list[Parameters]:
    given = {"ServiceNamespace": SERVICE}
    found: list[Parameters] = []
    while True:
        answer = account.ask("describe_scalable_targets", SCALING, **given) or {}
        found += mappings(answer.get("ScalableTargets"))
        if not answer.get("NextToken"):
            return [each for each in found if str(each["ResourceId"]).startswith(f"endpoint/{endpoint}/")]
        given["NextToken"] = answer["NextToken"]


def _deregister(account: Account, target: Mapping[str, Any]) -> None:
    step = f"no longer scale {target['ResourceId']}"
    account.change(step, "deregister_scalable_target", SCALING, **_named(target))


# What goes


def clean(account: Account, name: str, kept: Wanted | None) -> None:
    """Deletes the configurations and models of this endpoint but those that are kept."""
    config, model = (kept.config["EndpointConfigName"], kept.model["ModelName"]) if kept else (None, None)
    for what, listing, key, operation, own in (
        ("endpoint configuration", "list_endpoint_configs", "EndpointConfig", "delete_endpoint_config", config),
        ("model", "list_models", "Model", "delete_model", model),
    ):
        for each in list(_listed(account, listing, f"{key}s", name)):
            found = str(each[f"{key}Name"])
            # An app may have a name that begins as that of another: the tags tell whose it is.
            if found != own and found.startswith(f"{name}-") and account.owns(each[f"{key}Arn"]):
                account.change(f"delete {what} {found}", operation, **{f"{key}Name": found})


def _listed(account: Account, operation: str, key: str, name: str) -> Iterator[Parameters]:
    given = {"NameContains": name}
    while True:
        answer = account.ask(operation, **given) or {}
        yield from mappings(answer.get(key))
        if not answer.get("NextToken"):
            return
        given["NextToken"] = answer["NextToken"]


def remove(account: Account, name: str, found: Parameters | None) -> None:
    """Deletes the Endpoint, which is gone some time later."""
    for target in _targets(account, name) if found else []:
        _deregister(account, target)
    if found and found["EndpointStatus"] != "Deleting":
        account.change(f"delete endpoint {name}", "delete_endpoint", EndpointName=name)

"""What must hold of an endpoint of SageMaker: that its parts name each other and nothing of others, that a release can
replace them, and that callers of production lose nothing by that.

What a single field may be is a matter of the schema. Names in AWS are those of an account and a region, whoever makes
them, so that those of a namespace begin with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gitops.checks import infra
from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.manifests import ack, workloads, yamledit
from gitops.manifests.objects import Object, at, mapping, mappings
from gitops.repo import layout, stacks, values
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

RULE = "sagemaker"
LONGEST = 63
"""Characters of a name in SageMaker."""
# Behind the app: a version, eight digits of a digest, and the two dashes before them.
_RELEASE = len("-2026-01-01-0123456789ab-01234567")
_STAYS = "argocd.argoproj.io/sync-options"
_FEWEST = 2
Faults = Iterator[tuple[str, str]]
"""(the path of a field, what is wrong and what to do about it)."""


@dataclass(frozen=True)
class Service:
    """What an overlay renders of SageMaker, where there is one of each."""

    app: str
    namespace: str
    is_production: bool
    model: Object
    config: Object
    endpoint: Object
    scaling: Sequence[Object]

    @property
    def name(self) -> str:
        """What the endpoint is called in AWS."""
        return f"{self.namespace}-{self.app}"

    @property
    def variants(self) -> list[dict[str, Any]]:
        return mappings(at(self.config, "spec", "productionVariants"))

    @property
    def is_serverless(self) -> bool:
        return any("serverlessConfig" in each for each in self.variants)


def check_sagemaker(repository: Repository) -> Iterator[Finding]:
    """An endpoint is rendered with one Model and one EndpointConfig, and nothing else that serves: what the release
    before had is pruned."""
    for folder, environment, app, items in repository.overlays():
        parts = [item for item in items if workloads.kind_of(item) in ack.KINDS]
        if not parts:
            continue
        if missing := [kind for kind in (ack.MODEL, ack.CONFIG, ack.ENDPOINT) if _count(parts, kind) != 1]:
            for group, kind in missing:
                count = _count(parts, (group, kind))
                yield Finding(RULE, folder, f"{kind}.{group}: rendered {count} times; an app has one Model, one"
                              " EndpointConfig and one Endpoint", (folder,))  # fmt: skip
            continue
        file = layout.release_paths(app, environment)[0]
        if not _is_of_model(repository, file):
            yield Finding(RULE, folder, f"{file} is no patch of a Model, so that the ApplicationSet of other apps would"
                          " take it, which prunes nothing; write the release as base/sagemaker/skeleton/ has it",
                          (folder,))  # fmt: skip
        for item in items:
            if workloads.runs(item):
                yield finding(RULE, folder, item, "kind: rendered beside an endpoint of SageMaker, so that Argo CD"
                              " would prune it with what a release replaces; make it an app of its own")  # fmt: skip
        production = environment in repository.policy.production
        service = _service(app, repository.policy.namespace(environment), production, parts)
        account = _account(repository, environment)
        for item, faults in (
            (service.model, [*_model_faults(service, account)]),
            (service.config, [*_config_faults(service, repository.policy.model_bucket)]),
            (service.endpoint, [*_endpoint_faults(service)]),
            *((each, [*_scaling_faults(service, each)]) for each in service.scaling),
        ):
            faults += _pruning_faults(item)
            yield from (finding(RULE, folder, item, f"{path}: {message}") for path, message in faults)
    yield from _same_names(repository)


def _is_of_model(repository: Repository, file: str) -> bool:
    text = Snapshot(repository.root).read(file)
    try:
        return text is not None and workloads.kind_of(mapping(yamledit.load(text, file))) == ack.MODEL
    except Refused:
        return False


def _count(items: Sequence[Object], kind: tuple[str, str]) -> int:
    return sum(workloads.kind_of(item) == kind for item in items)


def _service(app: str, namespace: str, production: bool, parts: Sequence[Object]) -> Service:
    one = {workloads.kind_of(item): item for item in parts}
    scaling = [item for item in parts if workloads.kind_of(item) in (ack.TARGET, ack.SCALING_POLICY)]
    return Service(app, namespace, production, one[ack.MODEL], one[ack.CONFIG], one[ack.ENDPOINT], scaling)


def _account(repository: Repository, environment: str) -> str:
    """That of an environment; "" where the manifests do not tell."""
    try:
        return values.of_environment(Snapshot(repository.root), environment, "account")
    except Refused:
        return ""


def _named(item: Object, field: str, wanted: str) -> Faults:
    if (found := at(item, "spec", field)) != wanted:
        yield f"spec.{field}", f"{found!r}; write {wanted!r}, as base/sagemaker/released makes it"


def _pruning_faults(item: Object) -> Faults:
    """What a release replaces goes with the next one, and what answers stays whatever happens."""
    stays = at(item, "metadata", "annotations", _STAYS)
    path = f"metadata.annotations.{_STAYS}"
    if workloads.kind_of(item) in ack.REPLACED:
        if stays is not None:
            yield path, f"{stays!r}: those of all releases would stay for ever; remove it"
    elif stays != "Prune=false":
        found = "missing" if stays is None else repr(stays)
        yield path, f"{found}: a render that lacks it, by mistake, would delete what answers; write Prune=false"


def _model_faults(service: Service, account: str) -> Faults:
    model, spec = service.model, mapping(service.model.get("spec"))
    own = str(at(model, "metadata", "name"))
    if (length := len(service.name) + _RELEASE) > LONGEST:
        yield (
            "metadata.name",
            (
                f"{service.app!r}: with {service.namespace}- before it and a release behind it, a name in AWS has"
                f" {length} characters, and SageMaker takes at most {LONGEST}; take a shorter name"
            ),
        )
    yield from _named(model, "modelName", f"{service.namespace}-{own}")
    for field in ("containers", "inferenceExecutionConfig"):
        if field in spec:
            yield f"spec.{field}", "no release names what it runs; write the one container into spec.primaryContainer"
    for field in ("modelDataURL", "modelDataSource", "modelPackageName"):
        if at(spec, "primaryContainer", field) is not None:
            yield (
                f"spec.primaryContainer.{field}",
                (
                    "SageMaker would bring a model whose bytes nobody compares with the release; remove it, the service"
                    " gets its own by MODEL_URI"
                ),
            )
    if spec.get("enableNetworkIsolation"):
        yield "spec.enableNetworkIsolation", "the service could not get its model from S3; remove it"
    yield from _role_faults(service, spec.get("executionRoleARN"), account)


def _role_faults(service: Service, arn: Any, account: str) -> Faults:
    match = stacks.ROLE_ARN.fullmatch(str(arn))
    wanted = f"arn:aws:iam::{account or 'ACCOUNT'}:role/{service.namespace}-sagemaker"
    if not match:
        yield "spec.executionRoleARN", f"{arn!r}: no ARN of a role; write {wanted}"
    elif account and match["account"] != account:
        yield "spec.executionRoleARN", f"{arn!r}: the account {match['account']}, and the environment is in {account}"
    elif not match["name"].startswith(f"{service.namespace}-"):
        yield "spec.executionRoleARN", f"{arn!r}: not a role of {service.namespace}; write {wanted}"


def _config_faults(service: Service, bucket: str) -> Faults:
    own = f"{service.namespace}-{at(service.config, 'metadata', 'name')}"
    yield from _named(service.config, "endpointConfigName", own)
    if len(service.variants) != 1:
        yield (
            "spec.productionVariants",
            (f"{len(service.variants)} of them; a release is one Model, which takes the place of the one before"),
        )
    for variant in service.variants:
        path = f"spec.productionVariants[{variant.get('variantName')}]"
        if (found := variant.get("modelName")) != (wanted := at(service.model, "spec", "modelName")):
            yield f"{path}.modelName", f"{found!r}: not the Model of this render, which is {wanted!r}"
        yield from ((f"{path}.{field}", message) for field, message in _variant_faults(service, variant))
    captured = mapping(at(service.config, "spec", "dataCaptureConfig"))
    if captured and service.is_serverless:
        yield "spec.dataCaptureConfig", "SageMaker captures nothing of a serverless endpoint, and refuses it; remove it"
    if str(place := captured.get("destinationS3URI")).startswith(f"s3://{bucket}/models"):
        yield (
            "spec.dataCaptureConfig.destinationS3URI",
            f"{place!r}: among the models; take a folder of the request log",
        )


def _variant_faults(service: Service, variant: dict[str, Any]) -> Faults:
    serverless, instance = mapping(variant.get("serverlessConfig")), variant.get("instanceType")
    if instance is not None and instance not in ack.instance_types():
        near = difflib.get_close_matches(str(instance), ack.instance_types(), 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        yield "instanceType", f"{instance!r}: no type that SageMaker has for endpoints{meant}"
    elif infra.is_arm(str(instance).removeprefix("ml.")):
        yield "instanceType", f"{instance!r}: of Arm, and the image is for x86-64; name another type"
    if not serverless and not (instance and variant.get("initialInstanceCount")):
        yield "instanceType", "neither instances, by their type and number, nor serverlessConfig; write one of the two"
    if serverless and (extra := [name for name in ("instanceType", "initialInstanceCount") if name in variant]):
        yield extra[0], "beside serverlessConfig, which has no instances; remove one of the two"
    if not service.is_production:
        return
    if serverless and "provisionedConcurrency" not in serverless:
        yield (
            "serverlessConfig.provisionedConcurrency",
            ("missing in production, where a caller would wait for the service to start; write it, or take instances"),
        )
    if not serverless and int(variant.get("initialInstanceCount") or 0) < _FEWEST:
        yield (
            "initialInstanceCount",
            (
                f"{variant.get('initialInstanceCount')!r} in production, where one that fails would be all; write"
                f" {_FEWEST} or more"
            ),
        )


def _endpoint_faults(service: Service) -> Faults:
    yield from _named(service.endpoint, "endpointName", service.name)
    wanted = at(service.config, "spec", "endpointConfigName")
    if (found := at(service.endpoint, "spec", "endpointConfigName")) != wanted:
        yield "spec.endpointConfigName", f"{found!r}: not the EndpointConfig of this render, which is {wanted!r}"
    deployment = mapping(at(service.endpoint, "spec", "deploymentConfig"))
    policies = [name for name in ("blueGreenUpdatePolicy", "rollingUpdatePolicy") if name in deployment]
    if len(policies) == 2:
        yield (
            "spec.deploymentConfig",
            "SageMaker takes one of blueGreenUpdatePolicy and rollingUpdatePolicy; remove one",
        )
    if policies == ["rollingUpdatePolicy"]:
        if service.is_serverless:
            message = "a serverless endpoint has no instances to roll; take blueGreenUpdatePolicy"
            yield "spec.deploymentConfig.rollingUpdatePolicy", message
        elif any(int(each.get("initialInstanceCount") or 0) < _FEWEST for each in service.variants):
            message = f"one instance cannot be rolled half by half; start with {_FEWEST}, or take blueGreenUpdatePolicy"
            yield "spec.deploymentConfig.rollingUpdatePolicy", message
    if service.is_production and not policies:
        message = "no update policy in production; write rollingUpdatePolicy or blueGreenUpdatePolicy"
        yield "spec.deploymentConfig", message
    yield from _alarm_faults(service, mappings(at(deployment, "autoRollbackConfiguration", "alarms")))


def _alarm_faults(service: Service, alarms: Sequence[Object]) -> Faults:
    path = "spec.deploymentConfig.autoRollbackConfiguration.alarms"
    if service.is_production and not alarms:
        yield path, "missing in production, where nothing would take a bad release back; name those of the endpoint"
    for each in alarms:
        if not str(name := each.get("alarmName")).startswith(f"{service.name}-"):
            yield path, f"{name!r}: not an alarm of this endpoint; name it {service.name}-..."


def _scaling_faults(service: Service, item: Object) -> Faults:
    spec = mapping(item.get("spec"))
    known = [f"endpoint/{service.name}/variant/{each.get('variantName')}" for each in service.variants]
    if (found := spec.get("resourceID")) not in known:
        yield (
            "spec.resourceID",
            f"{found!r}: no variant of this endpoint; write {known[0] if known else service.name!r}",
        )
    if spec.get("serviceNamespace") != "sagemaker":
        yield "spec.serviceNamespace", f"{spec.get('serviceNamespace')!r}; write 'sagemaker'"
    if service.is_serverless and spec.get("scalableDimension") == "sagemaker:variant:DesiredInstanceCount":
        yield "spec.scalableDimension", "a serverless endpoint has no instances; take autoscaling out of the overlay"
    if workloads.kind_of(item) == ack.SCALING_POLICY:
        if not str(name := spec.get("policyName")).startswith(f"{service.name}-"):
            yield "spec.policyName", f"{name!r}: not of this endpoint; name it {service.name}-..."
        return
    least, most = spec.get("minCapacity"), spec.get("maxCapacity")
    if isinstance(least, int) and isinstance(most, int) and least > most:
        yield "spec.minCapacity", f"{least}: more than maxCapacity, which is {most}"
    if service.is_production and (not isinstance(least, int) or least < _FEWEST):
        yield (
            "spec.minCapacity",
            f"{least!r} in production, where one that fails would be all; write at least {_FEWEST}",
        )


_IN_AWS = {
    ack.MODEL: "modelName", ack.CONFIG: "endpointConfigName", ack.ENDPOINT: "endpointName",
    ack.SCALING_POLICY: "policyName",
}  # fmt: skip


def _same_names(repository: Repository) -> Iterator[Finding]:
    """What two overlays call the same in AWS: ACK would have both change one thing, or refuse the second."""
    seen: dict[tuple[str, str, tuple[str, str], str], str] = {}
    for folder, environment, _, items in repository.all_overlays():
        there = repository.policy.at(environment)
        for item in items:
            kind = workloads.kind_of(item)
            if (field := _IN_AWS.get(kind)) is None:
                continue
            name = str(at(item, "spec", field))
            first = seen.setdefault((there.account, there.region, kind, name), folder)
            if first != folder:
                message = f"spec.{field}: {name!r}: that of {first} too; give one of the apps another name"
                yield finding(RULE, folder, item, message, first)


RULES: dict[str, Rule] = {RULE: check_sagemaker}

"""AWS's controllers for Kubernetes (ACK): the kinds of SageMaker and of Application Auto Scaling, and the call of AWS
that each object stands for.

Their definitions are in no registry of modules, so they are made as ACK makes them, from the service's own model, of
which botocore has a copy: an object's `spec` is the input of the call that makes it, in ACK's spelling. What ACK does
not have is left out. Types, limits, patterns and what is required are the service's own.
Source: https://github.com/aws-controllers-k8s/code-generator (pkg/names), and config/crd/bases/ of
aws-controllers-k8s/sagemaker-controller and aws-controllers-k8s/applicationautoscaling-controller
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import botocore

from gitops.manifests.objects import Object, identity, mapping

from contract.errors import Refused

VERSION = "v1alpha1"
SAGEMAKER, SCALING = "sagemaker.services.k8s.aws", "applicationautoscaling.services.k8s.aws"
MODEL, CONFIG, ENDPOINT = (SAGEMAKER, "Model"), (SAGEMAKER, "EndpointConfig"), (SAGEMAKER, "Endpoint")
REPLACED = (MODEL, CONFIG)
"""ACK refuses every update of these, so that each release has others in their place."""
TARGET, SCALING_POLICY = (SCALING, "ScalableTarget"), (SCALING, "ScalingPolicy")
SOURCE = f"botocore-{botocore.__version__}"
"""From what the definitions are made."""
Shape = Any


@dataclass(frozen=True)
class Kind:
    """What makes an object of a kind: an operation of a service of AWS, by botocore's names."""

    service: str
    operation: str


KINDS = {
    MODEL: Kind("sagemaker", "CreateModel"),
    CONFIG: Kind("sagemaker", "CreateEndpointConfig"),
    ENDPOINT: Kind("sagemaker", "CreateEndpoint"),
    TARGET: Kind("application-autoscaling", "RegisterScalableTarget"),
    SCALING_POLICY: Kind("application-autoscaling", "PutScalingPolicy"),
}
# By structure of the service's model, what ACK does not have: compared with its published definitions.
_LEFT_OUT = {
    "ContainerDefinition": ("AdditionalModelDataSources", "ContainerMetricsConfig"),
    "CreateEndpointConfigInput": (
        "CrossRegionTrafficConfig", "ExplainerConfig", "MetricsConfig", "ShadowProductionVariants",
    ),
    "CustomizedMetricSpecification": ("Metrics",),
    "ProductionVariant": (
        "AcceleratorPartitionLayouts", "InferenceAmiVersion", "InstancePools",
        "VariantInstanceProvisionTimeoutInSeconds",
    ),
    "ProductionVariantManagedInstanceScaling": ("ScaleInPolicy",),
    "ProductionVariantRoutingConfig": ("PrefixAwareRoutingConfig",),
    "PutScalingPolicyRequest": ("PredictiveScalingPolicyConfiguration",),
    "RegisterScalableTargetRequest": ("Tags",),
    "S3ModelDataSource": ("ETag", "HubAccessConfig", "ManifestEtag", "ManifestS3Uri"),
}  # fmt: skip
_INSTANCE_TYPE = "ProductionVariantInstanceType"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+|[0-9]+")
_INITIALS = {"Arn": "ARN", "Id": "ID", "Ids": "IDs", "Kms": "KMS", "Uri": "URI", "Url": "URL", "Vpc": "VPC"}
# Words of Go.
_RESERVED = ("type",)
_TYPES = {
    "boolean": {"type": "boolean"},
    "double": {"type": "number"},
    "float": {"type": "number"},
    "integer": {"type": "integer", "format": "int64"},
    "long": {"type": "integer", "format": "int64"},
    "string": {"type": "string"},
    "timestamp": {"type": "string", "format": "date-time"},
}
_LIMITS = {
    "boolean": ("", ""), "double": ("minimum", "maximum"), "float": ("minimum", "maximum"),
    "integer": ("minimum", "maximum"), "list": ("minItems", "maxItems"), "long": ("minimum", "maximum"),
    "map": ("minProperties", "maxProperties"), "string": ("minLength", "maxLength"), "timestamp": ("", ""),
}  # fmt: skip


def spelled(name: str) -> str:
    """A field's name as ACK spells it: `ModelDataUrl` is `modelDataURL`, and `KmsKeyId` is `kmsKeyID`."""
    first, *others = _WORD.findall(name)
    found = "".join([first.lower(), *[_INITIALS.get(word, word) for word in others]])
    return f"{found}_" if found in _RESERVED else found


def definitions() -> list[Object]:
    """A CustomResourceDefinition for each of KINDS, as an API server takes it."""
    return [_definition(group, kind) for group, kind in KINDS]


def _definition(group: str, kind: str) -> Object:
    singular = kind.lower()
    plural = f"{singular[:-1]}ies" if singular.endswith("y") else f"{singular}s"
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": _schema(_input(group, kind)),
        # Only its controller writes it.
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    }
    schema = {"type": "object", "properties": properties, "required": ["spec"]}
    version = {
        "name": VERSION, "served": True, "storage": True, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": singular},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def _schema(shape: Shape) -> dict[str, Any]:
    found = _bare(shape)
    for limit, word in zip(("min", "max"), _LIMITS.get(shape.type_name, ("", "")), strict=True):
        if word and shape.metadata.get(limit):
            found[word] = shape.metadata[limit]
    if shape.name == _INSTANCE_TYPE:
        # Nobody reads a message with all of them: a rule compares with `instance_types`.
        found["pattern"] = r"^ml\.[a-z0-9-]+\.[a-z0-9]+$"
    elif "enum" in shape.metadata:
        found["enum"] = list(shape.metadata["enum"])
    elif (pattern := shape.metadata.get("pattern")) and _is_portable(pattern):
        found["pattern"] = f"^(?:{pattern})$"
    return found


def _bare(shape: Shape) -> dict[str, Any]:
    """A schema without the limits of its own value."""
    match shape.type_name:
        case "structure":
            required = sorted(map(spelled, shape.required_members))
            properties = {name: _schema(member) for name, _, member in _members(shape)}
            return {"type": "object", "properties": properties} | ({"required": required} if required else {})
        case "list":
            return {"type": "array", "items": _schema(shape.member)}
        case "map":
            return {"type": "object", "additionalProperties": _schema(shape.value)}
    return dict(_TYPES[shape.type_name])


def _is_portable(pattern: str) -> bool:
    """Whether a pattern means the same to Go, which has no looking ahead or behind, as to others: those of Java's
    classes and escapes go without."""
    return not re.search(r"\(\?|\\[pu]", pattern)


def _members(shape: Shape) -> Iterator[tuple[str, str, Shape]]:
    """(ACK's name, botocore's, shape) of what ACK has of a structure."""
    for name, member in shape.members.items():
        if name not in _LEFT_OUT.get(shape.name, ()):
            yield spelled(name), name, member


@lru_cache
def instance_types() -> tuple[str, ...]:
    """The types of instances that an endpoint may have."""
    return tuple(_service("sagemaker").shape_for(_INSTANCE_TYPE).enum)


def fields(group: str, kind: str) -> list[str]:
    """The paths of all that a spec can have, by ACK's names; `[]` is an item of a list."""
    return list(_paths(_input(group, kind), ""))


def _paths(shape: Shape, path: str) -> Iterator[str]:
    if shape.type_name == "structure":
        for name, _, member in _members(shape):
            inner = f"{path}.{name}" if path else name
            yield inner
            yield from _paths(member, inner)
    elif shape.type_name == "list":
        yield from _paths(shape.member, f"{path}[]")


def _input(group: str, kind: str) -> Shape:
    made = KINDS[group, kind]
    return _service(made.service).operation_model(made.operation).input_shape


@lru_cache
def _service(name: str) -> Any:
    # They take a fifth of a second to import, and few commands ask for one of these kinds.
    from botocore import loaders
    from botocore import model as service_models

    return service_models.ServiceModel(loaders.create_loader().load_service_model(name, "service-2"), name)


# The calls


def call(item: Object) -> tuple[str, str]:
    """(client, method) of boto3 that makes an object, such as ("sagemaker", "create_model"). Raises Refused for a kind
    that is not one of KINDS."""
    made = _made(item)
    return made.service, botocore.xform_name(made.operation)


def to_aws(item: Object) -> dict[str, Any]:
    """The parameters of that method. Raises Refused for another kind, and for fields that ACK does not have."""
    _made(item)
    what = identity(item)
    found: dict[str, Any] = _to_aws(_input(what.group, what.kind), mapping(item.get("spec")), f"{what}: spec")
    return found


def _made(item: Object) -> Kind:
    what = identity(item)
    if (made := KINDS.get((what.group, what.kind))) is None:
        known = ", ".join(kind for _, kind in KINDS)
        raise Refused(f"{what}: kind: no call of AWS makes it; the kinds are {known}")
    return made


def _to_aws(shape: Shape, value: Any, path: str) -> Any:
    if shape.type_name == "structure" and isinstance(value, dict):
        known = {name: (own, member) for name, own, member in _members(shape)}
        if unknown := [name for name in value if name not in known]:
            raise Refused(f"{path}.{unknown[0]}: no field of it; there are {', '.join(known)}")
        return {known[name][0]: _to_aws(known[name][1], item, f"{path}.{name}") for name, item in value.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [_to_aws(shape.member, item, f"{path}[{number}]") for number, item in enumerate(value)]
    return value

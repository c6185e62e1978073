"""The kind Stack: what a template of infra/ makes on AWS for one app, as an object that renders like all others.

It comes to no cluster: scripts/deploy_stack.py gives its parameters to CloudFormation. Its schema is made from the
`Parameters` of the template, so that the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gitops.manifests import cloudformation
from gitops.manifests.objects import Object, at, mapping

from contract.errors import Refused

GROUP, VERSION, KIND = "deploy.mlops", "v1", "Stack"
NAME = "vm"
TEMPLATE = f"{cloudformation.FOLDER}/{NAME}.yaml"
FILE = Path(__file__).parents[3] / TEMPLATE
SERVICE, URI, DIGEST, MANIFEST = "Service", "ModelUri", "ModelDigest", "ModelManifest"
"""The parameters that a release owns: the archive of the service, which is its image, and the model."""
PARAMETERS = ("spec", "parameters")
# Before the first release, in the place of what the template's own pattern asks.
_UNRELEASED = "unreleased|s3://unreleased/"
# Source: "Supported AWS-specific parameter types" of the CloudFormation User Guide, and the identifiers of EC2.
_TYPES = {
    "AWS::EC2::Image::Id": "ami-[0-9a-f]{8,17}",
    "AWS::EC2::SecurityGroup::Id": "sg-[0-9a-f]{8,17}",
    "AWS::EC2::Subnet::Id": "subnet-[0-9a-f]{8,17}",
    "AWS::EC2::VPC::Id": "vpc-[0-9a-f]{8,17}",
    "AWS::Route53::HostedZone::Id": "Z[A-Z0-9]{1,31}",
    "Number": "-?[0-9]+",
}


def text() -> str:
    """The engine's own template. Raises Refused where it is not there."""
    if not FILE.is_file():
        raise Refused(f"{TEMPLATE}: missing, and the kind {KIND} has its parameters; `git checkout -- {TEMPLATE}`")
    return FILE.read_text()


def is_stack(item: Object) -> bool:
    return str(item.get("apiVersion", "")).rpartition("/")[0] == GROUP and item.get("kind") == KIND


def parameters(item: Object) -> dict[str, str]:
    """What a Stack gives to its template."""
    return {str(name): str(value) for name, value in mapping(at(item, *PARAMETERS)).items()}


def path(name: str) -> str:
    """Where a Stack has a parameter, as `leaves` writes it."""
    return ".".join((*PARAMETERS, name))


def schema(template: Object, metadata: Any) -> dict[str, Any]:
    """The closed schema of the kind, for this template; `metadata` is that of every object."""
    declared = mapping(template.get("Parameters"))
    required = sorted(name for name, about in declared.items() if "Default" not in about)
    given = {name: _value(name, about) for name, about in declared.items()}
    return {
        "type": "object",
        "properties": {
            "metadata": metadata,
            "spec": _closed(
                {
                    "template": {"type": "string", "enum": [TEMPLATE]},
                    "parameters": _closed(given, required),
                },
                ["parameters", "template"],
            ),
        },
        "required": ["spec"],
        "additionalProperties": False,
        "x-scope": "Namespaced",
        "x-custom": True,
    }


def _closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _value(name: str, about: Object) -> dict[str, Any]:
    """The schema of a parameter's value, which is always a text, as on a command line: a list has commas."""
    found: dict[str, Any] = {"type": "string"}
    if allowed := about.get("AllowedValues"):
        return found | {"enum": [str(each) for each in allowed]}
    if patterns := list(_patterns(about)):
        # A text has to match the whole of each.
        found["allOf"] = [{"pattern": f"^(?:{_or_unreleased(name, pattern)})$"} for pattern in patterns]
    return found


def _or_unreleased(name: str, pattern: str) -> str:
    return f"{pattern}|{_UNRELEASED}" if name in (SERVICE, URI, DIGEST, MANIFEST) else pattern


def _patterns(about: Object) -> Iterator[str]:
    kind = str(about.get("Type"))
    single = kind.removeprefix("List<").removesuffix(">") if kind.startswith("List<") else kind
    many = cloudformation.is_list(kind)
    for pattern in (about.get("AllowedPattern"), _TYPES.get(single)):
        if pattern:
            yield f"(?:{pattern})(?:,(?:{pattern}))*" if many else str(pattern)

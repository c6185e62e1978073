"""Templates of CloudFormation, resolved with the parameters of a stack as far as that can be done without an account.

The functions are those of the CloudFormation User Guide, "Intrinsic function reference".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gitops.manifests.objects import Object, at, listed, mapping

from contract.errors import Refused

FOLDER = "infra"
ROLE = "AWS::IAM::Role"
_NOTHING = object()


class _Loader(yaml.SafeLoader):
    """Reads the short forms of the functions, `!Ref Name`, as the long ones."""


def _long_form(loader: _Loader, name: str, node: yaml.Node) -> Object:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _long_form)


@dataclass(frozen=True)
class Stack:
    """What one template makes in one account and region."""

    name: str
    template: str
    """The name of its file in infra/, without the ending."""
    account: str
    region: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    """As on a command line: a list has commas."""


def read(folder: Path, name: str) -> Object:
    """A template as it stands. Raises Refused for a file that is not there or no template."""
    return parse((folder / f"{name}.yaml").read_bytes() if (folder / f"{name}.yaml").is_file() else None, name)


def parse(text: bytes | str | None, name: str) -> Object:
    """The same of its text."""
    file = f"{FOLDER}/{name}.yaml"
    if text is None:
        raise Refused(f"{file}: no such template; the ones there are stand in {FOLDER}/")
    try:
        template = yaml.load(text, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{file}: no YAML: {' '.join(str(error).split())}; correct it") from None
    if not isinstance(at(template, "Resources"), dict):
        raise Refused(f"{file}: Resources: missing; a template has at least one")
    return dict(template)


def resources(template: Object, stack: Stack) -> dict[str, Object]:
    """The resources that a stack has, by their logical names, with its parameters in their place.

    What only AWS knows, such as what another stack exports, stands as `<name>`. Raises Refused for parameters that the
    template does not take, and for a function that is not known here.
    """
    resolver = _Resolver(template, stack)
    return {
        name: resolver.value({key: value for key, value in item.items() if key != "Condition"})
        for name, item in template["Resources"].items()
        if resolver.condition(item.get("Condition"))
    }


def documents(resource: Object) -> Iterator[Object]:
    """The policies of a resource, be it a role, a bucket or a repository; a trust policy is none of them."""
    properties = mapping(resource.get("Properties"))
    inline = [at(each, "PolicyDocument") for each in listed(properties.get("Policies"))]
    for found in (*inline, *(properties.get(name) for name in ("PolicyDocument", "RepositoryPolicyText"))):
        if found is not None:
            yield document(found)


def trust(role: Object) -> Object:
    """The policy by which a role is taken on."""
    return document(at(role, "Properties", "AssumeRolePolicyDocument"))


def document(found: Any) -> Object:
    """A policy, which may stand as JSON: the keys of a mapping take no function."""
    return mapping(json.loads(found) if isinstance(found, str) else found)


def statements(policy: Object) -> list[Object]:
    found = policy.get("Statement")
    return [found] if isinstance(found, dict) else [each for each in listed(found) if isinstance(each, dict)]


def texts(value: Any) -> list[str]:
    """One text or several, as IAM takes both."""
    return [str(each).lower() if isinstance(each, bool) else str(each) for each in _many(value)]


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


class _Resolver:
    def __init__(self, template: Object, stack: Stack) -> None:
        self._template, self._stack = template, stack
        self._values = {**_pseudo(stack), **_parameters(template, stack)}
        self._functions: dict[str, Callable[[Any], Any]] = {
            "Ref": self._ref,
            "Condition": self.condition,
            "Fn::Sub": self._sub,
            "Fn::GetAtt": self._attribute,
            "Fn::If": lambda given: self.value(given[1] if self.condition(given[0]) else given[2]),
            "Fn::Equals": lambda given: str(self.value(given[0])) == str(self.value(given[1])),
            "Fn::Not": lambda given: not self.value(given[0]),
            "Fn::And": lambda given: all(map(self.value, given)),
            "Fn::Or": lambda given: any(map(self.value, given)),
            "Fn::Join": lambda given: str(given[0]).join(map(str, self.value(given[1]))),
            "Fn::Split": lambda given: str(self.value(given[1])).split(given[0]),
            "Fn::Select": lambda given: self.value(given[1])[int(given[0])],
            "Fn::ImportValue": lambda given: f"<{self.value(given)}>",
            "Fn::GetAZs": lambda _: [f"<zone {number}>" for number in range(6)],
            "Fn::Cidr": lambda given: [f"<network {number}>" for number in range(int(given[1]))],
            # As a text that a person reads.
            "Fn::Base64": self.value,
        }

    def value(self, node: Any) -> Any:
        if isinstance(node, list):
            return [found for item in node if (found := self.value(item)) is not _NOTHING]
        if not isinstance(node, dict):
            return node
        name = next(iter(node), "")
        if len(node) == 1 and (name in self._functions or str(name).startswith("Fn::")):
            if name not in self._functions:
                raise Refused(
                    f"{self._file}: {name}: not known here; add it to scripts/gitops/manifests/cloudformation.py"
                )
            return self._functions[name](node[name])
        return {key: found for key, item in node.items() if (found := self.value(item)) is not _NOTHING}

    def condition(self, name: str | None) -> bool:
        """Whether a condition of the template holds; what has none is always there."""
        return name is None or bool(self.value(self._template["Conditions"][name]))

    @property
    def _file(self) -> str:
        return f"{FOLDER}/{self._stack.template}.yaml"

    def _ref(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        item = self._template["Resources"].get(name)
        if item is None:
            raise Refused(f"{self._file}: Ref {name}: no parameter or resource of that name; correct it")
        names = {ROLE: "RoleName", "AWS::S3::Bucket": "BucketName", "AWS::Logs::LogGroup": "LogGroupName"}
        if item["Type"] == "AWS::IAM::OIDCProvider":
            return self._arn("iam", f"oidc-provider/{str(self.value(item['Properties']['Url'])).partition('//')[2]}")
        return self.value(mapping(item.get("Properties")).get(names.get(item["Type"], ""), f"<{name}>"))

    def _attribute(self, given: list[str]) -> str:
        name, attribute = given
        kind = at(self._template["Resources"], name, "Type")
        if kind == ROLE and attribute == "Arn":
            return self._arn("iam", f"role/{self._ref(name)}")
        if kind == "AWS::S3::Bucket" and attribute == "Arn":
            return f"arn:aws:s3:::{self._ref(name)}"
        return f"<{name}.{attribute}>"

    def _arn(self, service: str, rest: str) -> str:
        return f"arn:aws:{service}::{self._stack.account}:{rest}"

    def _sub(self, given: Any) -> str:
        text, own = given if isinstance(given, list) else (given, {})
        known = {name: self.value(value) for name, value in own.items()}

        def put(match: re.Match[str]) -> str:
            name = match[1]
            return str(
                known[name]
                if name in known
                else self._attribute(name.split(".", 1))
                if "." in name
                else self._ref(name)
            )

        return re.sub(r"\$\{([^!}][^}]*)\}", put, text)


def _pseudo(stack: Stack) -> dict[str, Any]:
    return {
        "AWS::AccountId": stack.account,
        "AWS::NoValue": _NOTHING,
        "AWS::Partition": "aws",
        "AWS::Region": stack.region,
        "AWS::StackName": stack.name,
    }


def _parameters(template: Object, stack: Stack) -> dict[str, Any]:
    """The values of all parameters. Raises Refused, one line a fault."""
    declared = mapping(template.get("Parameters"))
    where = f"{FOLDER}/{stack.template}.yaml: parameter"
    faults = [f"{where} {name}: not one of the template; leave it out" for name in stack.parameters.keys() - declared]
    found: dict[str, Any] = {}
    for name, about in declared.items():
        given = stack.parameters.get(name, about.get("Default"))
        if given is None:
            faults.append(
                f"{where} {name}: no value for the stack {stack.name}; {about.get('Description', 'give one')}"
            )
            continue
        many = [each for each in str(given).split(",") if each] if is_list(about["Type"]) else [given]
        faults += [f"{where} {name}: {fault}" for each in many for fault in _value_faults(about, each)]
        found[name] = many if is_list(about["Type"]) else given
    if faults:
        raise Refused(*sorted(faults))
    return found


def is_list(kind: str) -> bool:
    """Whether a parameter of this type is a list, which has commas on a command line."""
    return kind == "CommaDelimitedList" or kind.startswith("List<")


def _value_faults(about: Object, given: Any) -> Iterator[str]:
    pattern, allowed = about.get("AllowedPattern"), about.get("AllowedValues")
    if pattern and not re.fullmatch(pattern, str(given)):
        yield f"{given!r}: does not match {pattern}; correct the value"
    if allowed and str(given) not in map(str, allowed):
        yield f"{given!r}: write one of {', '.join(map(str, allowed))}"
    if about["Type"] == "Number":
        if not re.fullmatch(r"-?[0-9]+", str(given)):
            yield f"{given!r}: no number"
        elif not about.get("MinValue", int(given)) <= int(given) <= about.get("MaxValue", int(given)):
            yield f"{given}: outside {about.get('MinValue', '...')} to {about.get('MaxValue', '...')}; change the value"

"""CustomResourceDefinitions: read from files of others, held to what API servers hold them to, and searched for what
their kinds could run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar

import yaml

from gitops.manifests.objects import Object, at, mapping, mappings
from gitops.manifests.schemas import called

from contract.errors import Refused

LARGEST = 3 * 2**20
"""What a file of definitions may have in bytes; an API server keeps objects of half as many."""
_YAML = "tag:yaml.org,2002:"
_API_VERSION, _KIND = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
# Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
# (Specifying a structural schema)
_NOWHERE = (
    "$ref", "definitions", "dependencies", "deprecated", "discriminator", "id", "patternProperties", "readOnly",
    "writeOnly", "xml",
)  # fmt: skip
_NOT_INSIDE = ("type", "default", "additionalProperties", "nullable", "description")
_BRANCHES = ("allOf", "anyOf", "oneOf", "not")
_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_NAMES = {
    ("group",): rf"{_LABEL}(\.{_LABEL})*",
    ("names", "kind"): "[A-Za-z][A-Za-z0-9]*",
    ("names", "plural"): _LABEL,
}
RUNNING = re.compile(
    r"containers|initContainers|ephemeralContainers|(.+[-_.])?[iI]mages?|image(Name|Ref|Repository)|\w+Images?"
    r"|(storage|\w*[mM]odel)(Uri|URI)"
)
"""Fields of a container, or that name a model or an image. What is in a field that takes any is seen in the objects."""
# Where rules look in each spec of pods; in volumes too, where an image is refused.
_SEEN = re.compile(r"(containers|initContainers|ephemeralContainers)(\.\*\.image)?|volumes\..+")
Steps = tuple[str, ...]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Dates, and a bare `=`, are text, as to API servers."""

    yaml_implicit_resolvers: ClassVar = {
        first: [pair for pair in found if pair[0] not in (f"{_YAML}timestamp", f"{_YAML}value")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        counted = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [key for key, count in counted.items() if count > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


ANY = "*"
"""The step of a path into every item of a list, and every value of a map."""


def read(data: bytes, file: str) -> list[Object]:
    """The definitions in a file of YAML or JSON, without what only a cluster adds to them. Raises Refused."""
    if len(data) > LARGEST:
        raise Refused(f"{file}: {len(data)} bytes, and at most {LARGEST} are read; name the files of single kinds")
    try:
        text = data.decode()
        for event in yaml.parse(text, _Loader):
            if isinstance(event, yaml.AliasEvent):
                raise Refused(f"{file}: *{event.anchor}: an alias; write out what it stands for")
        documents = [document for document in yaml.load_all(text, _Loader) if document is not None]
    except UnicodeDecodeError as error:
        raise Refused(f"{file}: byte {error.start}: not UTF-8; save the file as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:
        raise Refused(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise Refused(f"{file}: nested too deeply") from None
    items = [item for each in documents for item in (mappings(at(each, "items")) or [each])]
    others = [item for item in items if at(item, "kind") != _KIND or at(item, "apiVersion") != _API_VERSION]
    if others or not items:
        found = f"{at(others[0], 'kind')!r} of {at(others[0], 'apiVersion')!r}" if others else "nothing"
        raise Refused(f"{file}: kind: {found}, and not a {_KIND} of {_API_VERSION}; name files that have those alone")
    faults = [f"{file}: {fault}" for item in items for fault in _faults(item)]
    if faults:
        raise Refused(*faults)
    return [_bare(item) for item in items]


def name(definition: Object) -> str:
    """KIND.GROUP."""
    return called(definition["spec"]["group"], definition["spec"]["names"]["kind"])


def _bare(definition: Object) -> Object:
    """Without status, what a server has put into its metadata, and the webhook that converts between versions: that
    runs in its own cluster."""
    spec = {field: value for field, value in definition["spec"].items() if field != "conversion"}
    metadata = {field: value for field, value in mapping(definition.get("metadata")).items() if field == "name"}
    return {"apiVersion": _API_VERSION, "kind": _KIND, "metadata": metadata, "spec": spec}


def _faults(item: Object) -> Iterator[str]:
    """What is wrong with a definition, for whoever makes a schema of it."""
    spec = at(item, "spec")
    texts = {f"spec.{'.'.join(keys)}": at(spec, *keys) for keys in _NAMES}
    for (path, value), form in zip(texts.items(), _NAMES.values(), strict=True):
        if not isinstance(value, str) or not re.fullmatch(form, value):
            yield f"{path}: {value!r}; a definition has a name there, of the form {form}"
            return
    if (found := at(item, "metadata", "name")) != (wanted := f"{texts['spec.names.plural']}.{texts['spec.group']}"):
        yield f"metadata.name: {found!r}; API servers ask for {wanted!r}, PLURAL.GROUP"
    if (scope := at(spec, "scope")) not in ("Namespaced", "Cluster"):
        yield f"spec.scope: {scope!r}; it is Namespaced or Cluster"
    versions = mappings(at(spec, "versions"))
    if not any(version.get("served") is True for version in versions):
        yield f"spec.versions: none of {called(texts['spec.group'], texts['spec.names.kind'])} is served"
    for version in versions:
        where = f"spec.versions[{version.get('name')}]"
        schema = at(version, "schema", "openAPIV3Schema")
        if not isinstance(version.get("name"), str) or not re.fullmatch(r"[a-z][a-z0-9-]*", version["name"]):
            yield f"{where}.name: no version, such as v1"
        elif not isinstance(schema, dict) or schema.get("type") != "object":
            yield f"{where}.schema.openAPIV3Schema: missing, or not of type object; nothing could be checked by it"
        else:
            try:
                yield from _unstructured(schema, f"{where}.schema.openAPIV3Schema")
            except RecursionError:
                yield f"{where}.schema.openAPIV3Schema: nested too deeply"


def _unstructured(schema: Any, path: str) -> Iterator[str]:
    """Where a schema is not structural, so that API servers would refuse it."""
    if not isinstance(schema, dict):
        yield f"{path}: {schema!r}: no schema"
        return
    for word in _NOWHERE:
        if word in schema:
            yield f"{path}.{word}: not structural; write out what it stands for, or take it out"
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not free:
        yield f"{path}.type: missing: not structural, and nobody would check what is there"
    if "properties" in schema and schema.get("additionalProperties") not in (None, False):
        yield f"{path}.additionalProperties: beside properties: not structural; keep one of them"
    for field, inner in mapping(schema.get("properties")).items():
        yield from _unstructured(inner, f"{path}.properties.{field}")
    for field in ("items", "additionalProperties"):
        if field in schema and not isinstance(schema[field], bool):
            yield from _unstructured(schema[field], f"{path}.{field}")
    if not schema.get("x-kubernetes-int-or-string"):
        for word, branch in _branches(schema):
            yield from (
                f"{path}.{word}.{field}: not structural: it stands outside of {word}"
                for field in _NOT_INSIDE
                if field in branch
            )


def _branches(schema: Object) -> Iterator[tuple[str, Object]]:
    for word in _BRANCHES:
        found = schema.get(word)
        yield from ((word, branch) for branch in mappings(found if isinstance(found, list) else [found]))


# What a kind could run


def steps(path: str) -> Steps:
    return tuple(path.split("."))


def running(definition: Object, pods: Collection[Steps] = ()) -> list[str]:
    """Fields of a kind that run containers, or name an image or a model, and are not where the rules look in the specs
    of pods at `pods`; the outermost, where one is in another."""
    found = {
        ".".join(path): None
        for schema in _schemas(definition)
        for field, inner in mapping(schema.get("properties")).items()
        if field not in ("metadata", "status")
        for path in _running(inner, (field,), frozenset(pods))
    }
    return list(found)


def _running(schema: Any, path: Steps, pods: Collection[Steps]) -> Iterator[Steps]:
    if not isinstance(schema, dict):
        return
    if RUNNING.fullmatch(path[-1]) and not _is_seen(path, pods):
        yield path
        return
    for step, inner in _children(schema):
        yield from _running(inner, (*path, step), pods)


def _is_seen(path: Steps, pods: Collection[Steps]) -> bool:
    return any(path[: len(pod)] == pod and _SEEN.fullmatch(".".join(path[len(pod) :])) for pod in pods)


def without_pod(definition: Object, pods: Collection[Steps]) -> list[Steps]:
    """Those of the paths at which no version of a kind has a pod's spec, or may have any field."""
    return [path for path in pods if not any(_has_pod(schema, path) for schema in _schemas(definition))]


def _has_pod(schema: Any, path: Sequence[str]) -> bool:
    for step in path:
        if at(schema, "x-kubernetes-preserve-unknown-fields") and step not in mapping(at(schema, "properties")):
            return True
        schema = dict(_children(schema)).get(step)
    return "containers" in mapping(at(schema, "properties")) or bool(at(schema, "x-kubernetes-preserve-unknown-fields"))


def _children(schema: Any) -> Iterator[tuple[str, Any]]:
    """(step, schema) of what is directly in an object, a list or a map."""
    yield from mapping(at(schema, "properties")).items()
    for field in ("items", "additionalProperties"):
        if isinstance(inner := at(schema, field), dict):
            yield ANY, inner


def _schemas(definition: Object) -> list[Object]:
    versions = definition["spec"]["versions"]
    return [version["schema"]["openAPIV3Schema"] for version in versions if version.get("served")]

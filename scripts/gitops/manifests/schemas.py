"""Closed JSON Schemas for kubeconform, made from the OpenAPI and the CRDs of the pinned modules and those of `ack`.

The published schemas of Kubernetes and of custom resources accept fields they do not know. Here every object that
lists its properties refuses all others, and the metadata of custom resources, which their CRDs leave open, is
Kubernetes' own ObjectMeta. Layout: `<group, or v1 for the core>/<kind in lower case>_<version>.json`, and INDEX.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from gitops.cli import say
from gitops.manifests import ack, cloudformation, stack
from gitops.manifests.objects import Object
from gitops.programs import tools

from contract import waiting
from contract.errors import Refused

Schema = dict[str, Any]
Made = Iterator[tuple[str, Schema]]
INDEX = "kinds"
"""The file that lists all kinds, as JSON: `{"KIND.GROUP": {"versions": [...], "scope": "Namespaced", "custom": true}}`;
the scope is that of a CustomResourceDefinition, Namespaced or Cluster."""
LOCATION = "{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
UNUSED = timedelta(days=30)
"""How long a folder is kept that nobody uses: each edit of a fork's kinds makes another one."""
_DIGITS = 12
_OWN_METADATA = "metadata"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
# Only the schemas of custom kinds define what a quantity looks like.
_AMOUNT = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
_BRANCHES = ("allOf", "anyOf", "oneOf", "not")
_REF = "#/components/schemas/"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def folder(definitions: Sequence[Object] = ()) -> Path:
    """The folder of the closed schemas, made on first use. CustomResourceDefinitions of a fork add their kinds, in the
    place of what the pinned modules have of them. Raises Refused when the sources are not unpacked yet, or a definition
    is of a group of Kubernetes itself."""
    sources = tools.SCHEMAS.path
    if not sources.is_dir():
        raise Refused("the schemas are not unpacked yet: run `make setup`")
    own = stack.text() + Path(stack.__file__).read_text() + ack.SOURCE + Path(ack.__file__).read_text()
    engine = _folder(sources.name + own, lambda made: _all(made, sources))
    if not definitions:
        return engine
    built_in = groups(engine)
    if faults := [
        f"{called(group, each['spec']['names']['kind'])}: of a group of Kubernetes itself; take it out of schemas/"
        for each in definitions
        if (group := each["spec"]["group"]) in built_in
    ]:
        raise Refused(*faults)
    return _folder(engine.name + json.dumps(definitions, sort_keys=True), lambda made: _add(made, engine, definitions))


def _folder(key: str, make: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256(key.encode() + Path(__file__).read_bytes()).hexdigest()[:_DIGITS]
    target = tools.cache() / f"schemas-{digest}"
    # Who may not write there may use it all the same.
    with contextlib.suppress(OSError):
        os.utime(target)
    if not target.is_dir():
        try:
            _make(target, make)
        except OSError as error:
            raise Refused(f"{target}: {error.strerror}; schemas are kept there, or below $MODEL_GITOPS_CACHE") from None
    return target


def _make(target: Path, make: Callable[[Path], None]) -> None:
    """Makes the folder in one step, once, however many processes ask for it; what a killed one left is removed, and so
    is what nobody has used for long: the engine's own has just been."""
    with (tools.cache() / "schemas.lock").open("w") as lock:
        waiting.lock(lock, tools.cache() / "schemas.lock")
        if target.is_dir():
            return
        say("making the closed schemas, once; this takes some seconds")
        for old in tools.cache().glob("schemas-" + "[0-9a-f]" * _DIGITS):
            if old.stat().st_mtime < time.time() - UNUSED.total_seconds():
                # In one step, as a folder of which a part is removed would count as a whole one.
                old.rename(old.with_name(f"schemas-new-{old.name}"))
        for left in tools.cache().glob("schemas-new-*"):
            shutil.rmtree(left)
        made = Path(tempfile.mkdtemp(prefix="schemas-new-", dir=tools.cache()))
        make(made)
        made.rename(target)


def _all(folder: Path, sources: Path) -> None:
    """All schemas of the pinned modules."""
    metadata = _metadata(sources)
    (folder / _OWN_METADATA).write_text(json.dumps(metadata))
    _write(folder, [*_kubernetes(sources), *_custom(sources, metadata), _stack(metadata)], {})


def _stack(metadata: Schema) -> tuple[str, Schema]:
    """The engine's own kind, by the template that it gives its parameters to."""
    schema = stack.schema(cloudformation.parse(stack.text(), stack.NAME), metadata)
    place = name(stack.GROUP, stack.VERSION, stack.KIND)
    return place, _object(schema, stack.GROUP, stack.VERSION, stack.KIND)


def _write(folder: Path, made: Sequence[tuple[str, Schema]], index: dict[str, Any]) -> None:
    """Writes schemas into a folder, and an index that has these kinds as well."""
    for path, schema in made:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(schema))
        version, kind = (schema["properties"][field]["const"] for field in ("apiVersion", "kind"))
        group, _, version = version.rpartition("/")
        about = {field: schema[f"x-{field}"] for field in ("scope", "custom")}
        entry = index.setdefault(called(group, kind), {"versions": [], **about})
        if version not in entry["versions"]:  # some are in the files of several groups
            entry["versions"].append(version)
    (folder / INDEX).write_text(json.dumps(index))


def _add(folder: Path, engine: Path, definitions: Sequence[Object]) -> None:
    """The schemas of the engine, as links, with those of a fork's definitions in their place."""
    metadata = json.loads((engine / _OWN_METADATA).read_text())
    own = {called(each["spec"]["group"], each["spec"]["names"]["kind"]).lower() for each in definitions}
    # Files are named in lower case, and through a link the engine's own would be written.
    index = {kind: entry for kind, entry in kinds(engine).items() if kind.lower() not in own}
    for kind, entry in index.items():
        name_, _, group = kind.partition(".")
        for version in entry["versions"]:
            path = name(group, version, name_)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(engine / path)
    _write(folder, [made for each in definitions for made in of_definition(each, metadata)], index)


def called(group: str, kind: str) -> str:
    """How people write a kind: KIND.GROUP, or KIND alone where it is of the core."""
    return f"{kind}.{group}" if group else kind


def groups(folder: Path) -> set[str]:
    """The groups of Kubernetes itself."""
    return {kind.partition(".")[2] for kind, entry in kinds(folder).items() if not entry["custom"]}


@lru_cache(4)
def kinds(folder: Path) -> dict[str, Any]:
    """The index of a folder of closed schemas, by KIND.GROUP."""
    return dict(json.loads((folder / INDEX).read_text()))


def _kubernetes(sources: Path) -> Made:
    for file in sorted((sources / "k8s.io/kubernetes/api/openapi-spec/v3").glob("*.json")):
        document = json.loads(file.read_text())
        definitions = document.get("components", {}).get("schemas", {})
        closed, namespaced = _closed(definitions), _namespaced(document.get("paths", {}))
        for title, definition in definitions.items():
            kinds = definition.get("x-kubernetes-group-version-kind", [])
            if len(kinds) != 1 or "metadata" not in definition.get("properties", {}):
                continue  # lists' options and other types that are no object of a manifest
            [kind] = kinds
            schema = _inlined(closed[title], closed)
            if f'"$ref": "{_REF}' in json.dumps(schema):
                schema["components"] = {"schemas": closed}
            scope = "Namespaced" if kind["kind"] in namespaced else "Cluster"
            schema |= {"x-scope": scope, "x-custom": False}
            yield name(**kind), _object(schema, kind["group"], kind["version"], kind["kind"])


def _namespaced(paths: Schema) -> set[str]:
    """The kinds that are made in a namespace."""
    inside = [each["post"] for path, each in paths.items() if "/namespaces/{namespace}/" in path and "post" in each]
    return {operation["x-kubernetes-group-version-kind"]["kind"] for operation in inside}


def _custom(sources: Path, metadata: Schema) -> Made:
    kserve = sources.glob("github.com/kserve/kserve/config/crd/full/**/*.yaml")
    owners = ("github.com/argoproj", "github.com/cert-manager", "github.com/external-secrets", "knative.dev")
    others = [file for owner in owners for file in sources.glob(f"{owner}/**/*.yaml")]
    for file in sorted([*kserve, *others]):
        yield from of_definitions(file, metadata)
    for each in ack.definitions():
        yield from of_definition(each, metadata)


def _metadata(sources: Path) -> Schema:
    """Kubernetes' own ObjectMeta, closed."""
    core = json.loads((sources / "k8s.io/kubernetes/api/openapi-spec/v3/api__v1_openapi.json").read_text())
    closed = _closed(core["components"]["schemas"])
    return dict(_inlined(closed[_META], closed))


def of_definitions(file: Path, metadata: Schema) -> Made:
    """(file, closed schema) of every kind and version that the CRDs in a file define."""
    for document in yaml.load_all(file.read_text(), _LOADER):
        if document and document.get("kind") == "CustomResourceDefinition":
            yield from of_definition(document, metadata)


def of_definition(definition: Object, metadata: Schema) -> Made:
    """(file, closed schema) of every version of a kind that API servers serve."""
    spec = definition["spec"]
    group, kind = spec["group"], spec["names"]["kind"]
    for version in spec["versions"]:
        if version.get("served"):
            schema = close(version["schema"]["openAPIV3Schema"], custom=True)
            # Controllers' own types leave it open, and API servers check it all the same.
            properties = schema.get("properties", {}) | {"metadata": metadata}
            schema |= {"properties": properties, "x-scope": spec["scope"], "x-custom": True}
            yield name(group, version["name"], kind), _object(schema, group, version["name"], kind)


def _closed(definitions: dict[str, Schema]) -> dict[str, Schema]:
    closed = {name: close(schema) for name, schema in definitions.items()}
    if _QUANTITY in closed:
        closed[_QUANTITY]["pattern"] = _AMOUNT
    return closed


def _inlined(schema: Any, definitions: dict[str, Schema], inside: tuple[str, ...] = ()) -> Any:
    """The schema with what its references refer to in their place: kubeconform reports nothing behind one.

    A reference that leads back into itself stays.
    """
    if isinstance(schema, list):
        return [_inlined(item, definitions, inside) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        name = schema["$ref"].removeprefix(_REF)
        return schema if name in inside else _inlined(definitions[name], definitions, (*inside, name))
    return {key: _inlined(value, definitions, inside) for key, value in schema.items()}


def name(group: str, version: str, kind: str) -> str:
    """The file of a kind's schema, relative to the folder of all."""
    return f"{group or 'v1'}/{kind.lower()}_{version}.json"


def _object(schema: Schema, group: str, version: str, kind: str) -> Schema:
    named = {
        "apiVersion": {"const": f"{group}/{version}" if group else version},
        "kind": {"const": kind},
    }
    return schema | {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": schema["properties"] | named,
        "required": sorted({*schema.get("required", []), "apiVersion", "kind", "metadata"}),
    }


def close(schema: Any, *, custom: bool = False, inside: bool = False) -> Any:
    """A schema whose objects refuse fields they do not list, without what only API servers understand.

    An object that lists no fields at all takes any in a built-in kind; in a custom one it takes none. `inside` are the
    branches of a custom kind's allOf, anyOf, oneOf or not: what they list is listed outside of them too, by the rules
    of structural schemas, so they close nothing.
    """
    if isinstance(schema, list):
        return [close(item, custom=custom, inside=inside) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out: Schema = {}
    beside = inside or (custom and ("type" in schema or "properties" in schema))
    for key, value in schema.items():
        if key in ("properties", "patternProperties", "definitions"):
            out[key] = {name: close(item, custom=custom, inside=inside) for name, item in value.items()}
        elif key in ("default", "example", "enum", "description", "externalDocs") or key.startswith("x-"):
            if key == "enum":
                out[key] = value
        else:
            out[key] = close(value, custom=custom, inside=beside if key in _BRANCHES else inside)
    if list(out) == ["allOf"] and len(out["allOf"]) == 1:  # a reference that had a description beside it
        return out["allOf"][0]
    if all(list(choice) == ["type"] for choice in out.get("oneOf", [{}])):
        out["type"] = [choice["type"] for choice in out.pop("oneOf")]
    if schema.get("x-kubernetes-int-or-string"):
        out = {key: value for key, value in out.items() if key not in ("type", "anyOf")}
        out["type"] = ["integer", "string"]
    if out.pop("nullable", False):
        types = out.get("type", [])
        out["type"] = [*([types] if isinstance(types, str) else types), "null"]
        if "enum" in out:
            out["enum"] = [*out["enum"], None]
    if custom:
        _as_served(out, schema)
    lists_fields = "properties" in out or (custom and out.get("type") == "object")
    if lists_fields and "additionalProperties" not in out and not inside:
        out["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return out


def _as_served(out: Schema, schema: Schema) -> None:
    """What API servers make of a custom kind's schema, and JSON Schema does not: a field with a default is never
    missing, limits exclude by a word of their own, and an embedded object has a kind and metadata."""
    if "required" in out:
        fields = schema.get("properties", {})
        out["required"] = [name for name in out["required"] if "default" not in fields.get(name, {})]
    for limit, word in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(out.get(word), bool) and out.pop(word) and limit in out:
            out[word] = out.pop(limit)
    if schema.get("x-kubernetes-embedded-resource"):
        own: Schema = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
        out["properties"] = own | out.get("properties", {})
        out["required"] = sorted({*out.get("required", ()), "apiVersion", "kind"})

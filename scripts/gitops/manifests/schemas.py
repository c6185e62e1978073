"""Closed JSON Schemas for kubeconform, made from the OpenAPI and the CRDs of the pinned modules.

The published schemas of Kubernetes and of custom resources accept fields they do not know. Here every object that
lists its properties refuses all others, and the metadata of custom resources, which their CRDs leave open, is
Kubernetes' own ObjectMeta. Layout: `<group, or v1 for the core>/<kind in lower case>_<version>.json`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gitops.cli import say
from gitops.programs import tools

from contract import waiting
from contract.errors import Refused

Schema = dict[str, Any]
LOCATION = "{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
# Only the schemas of custom kinds define what a quantity looks like.
_AMOUNT = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
_REF = "#/components/schemas/"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def folder() -> Path:
    """The folder of the closed schemas, made on first use. Raises Refused when the sources are not unpacked yet."""
    sources = tools.SCHEMAS.path
    if not sources.is_dir():
        raise Refused("the schemas are not unpacked yet: run `make setup`")
    key = hashlib.sha256(sources.name.encode() + Path(__file__).read_bytes()).hexdigest()[:12]
    target = tools.cache() / f"schemas-{key}"
    if not target.is_dir():
        try:
            _make(sources, target)
        except OSError as error:
            raise Refused(f"{target}: {error.strerror}; schemas are kept there, or below $MODEL_GITOPS_CACHE") from None
    return target


def _make(sources: Path, target: Path) -> None:
    """Makes the folder in one step, once, however many processes ask for it; what a killed one left is removed."""
    with (tools.cache() / "schemas.lock").open("w") as lock:
        waiting.lock(lock, tools.cache() / "schemas.lock")
        if target.is_dir():
            return
        say("making the closed schemas, once; this takes some seconds")
        for left in tools.cache().glob("schemas-new-*"):
            shutil.rmtree(left)
        made = Path(tempfile.mkdtemp(prefix="schemas-new-", dir=tools.cache()))
        for path, schema in [*_kubernetes(sources), *_custom(sources)]:
            file = made / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(schema))
        made.rename(target)


def _kubernetes(sources: Path) -> Iterator[tuple[str, Schema]]:
    for file in sorted((sources / "k8s.io/kubernetes/api/openapi-spec/v3").glob("*.json")):
        definitions = json.loads(file.read_text()).get("components", {}).get("schemas", {})
        closed = _closed(definitions)
        for title, definition in definitions.items():
            kinds = definition.get("x-kubernetes-group-version-kind", [])
            if len(kinds) != 1 or "metadata" not in definition.get("properties", {}):
                continue  # lists' options and other types that are no object of a manifest
            [kind] = kinds
            schema = _inlined(closed[title], closed)
            if f'"$ref": "{_REF}' in json.dumps(schema):
                schema["components"] = {"schemas": closed}
            yield name(**kind), _object(schema, kind["group"], kind["version"], kind["kind"])


def _custom(sources: Path) -> Iterator[tuple[str, Schema]]:
    core = json.loads((sources / "k8s.io/kubernetes/api/openapi-spec/v3/api__v1_openapi.json").read_text())
    closed = _closed(core["components"]["schemas"])
    metadata = _inlined(closed[_META], closed)
    kserve = sources.glob("github.com/kserve/kserve/config/crd/full/**/*.yaml")
    others = [file for owner in ("github.com/argoproj", "knative.dev") for file in sources.glob(f"{owner}/**/*.yaml")]
    for file in sorted([*kserve, *others]):
        yield from of_definitions(file, metadata)


def of_definitions(file: Path, metadata: Schema) -> Iterator[tuple[str, Schema]]:
    """(file, closed schema) of every kind and version that the CRDs in a file define."""
    for document in yaml.load_all(file.read_text(), _LOADER):
        if not document or document.get("kind") != "CustomResourceDefinition":
            continue
        group, kind = document["spec"]["group"], document["spec"]["names"]["kind"]
        for version in document["spec"]["versions"]:
            schema = close(version["schema"]["openAPIV3Schema"], custom=True)
            # Controllers' own types leave it open, and API servers check it all the same.
            schema["properties"]["metadata"] = metadata
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


def close(schema: Any, *, custom: bool = False) -> Any:
    """A schema whose objects refuse fields they do not list, without what only API servers understand.

    An object that lists no fields at all takes any in a built-in kind; in a custom one it takes none.
    """
    if isinstance(schema, list):
        return [close(item, custom=custom) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out: Schema = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties", "definitions"):
            out[key] = {name: close(item, custom=custom) for name, item in value.items()}
        elif key in ("default", "example", "enum", "description", "externalDocs") or key.startswith("x-"):
            if key == "enum":
                out[key] = value
        else:
            out[key] = close(value, custom=custom)
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
    lists_fields = "properties" in out or (custom and out.get("type") == "object")
    if lists_fields and "additionalProperties" not in out:
        out["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return out

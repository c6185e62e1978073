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

from gitops import tools
from gitops.cli import Refused, say

Schema = dict[str, Any]
LOCATION = "{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_REF = "#/components/schemas/"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def folder() -> Path:
    """The folder of the closed schemas, made on first use. Raises Refused when the sources are not unpacked yet."""
    sources = tools.schema_sources()
    if not sources.is_dir():
        raise Refused("the schemas are not unpacked yet: run `make setup`")
    key = hashlib.sha256(sources.name.encode() + Path(__file__).read_bytes()).hexdigest()[:12]
    target = tools.cache() / f"schemas-{key}"
    if not target.is_dir():
        say("making the closed schemas, once; this takes some seconds")
        made = Path(tempfile.mkdtemp(prefix="schemas-new-", dir=tools.cache()))
        try:
            for name, schema in [*_kubernetes(sources), *_custom(sources)]:
                file = made / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(schema))
            made.rename(target)
        except OSError:
            if not target.is_dir():  # else another process made the same schemas first
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return target


def _kubernetes(sources: Path) -> Iterator[tuple[str, Schema]]:
    for file in sorted((sources / "k8s.io/kubernetes/api/openapi-spec/v3").glob("*.json")):
        definitions = json.loads(file.read_text()).get("components", {}).get("schemas", {})
        closed = {name: close(schema) for name, schema in definitions.items()}
        for name, schema in closed.items():
            kinds = definitions[name].get("x-kubernetes-group-version-kind", [])
            if len(kinds) != 1 or "metadata" not in schema.get("properties", {}):
                continue  # lists' options and other types that are no object of a manifest
            [kind] = kinds
            yield _name(**kind), _object(schema, kind["group"], kind["version"], kind["kind"], _needed(schema, closed))


def _custom(sources: Path) -> Iterator[tuple[str, Schema]]:
    core = json.loads((sources / "k8s.io/kubernetes/api/openapi-spec/v3/api__v1_openapi.json").read_text())
    closed = {name: close(schema) for name, schema in core["components"]["schemas"].items()}
    meta = _needed(closed[_META], closed) | {_META: closed[_META]}
    for file in sorted([*sources.glob("github.com/kserve/**/*.yaml"), *sources.glob("github.com/argoproj/**/*.yaml")]):
        for document in yaml.load_all(file.read_text(), _LOADER):
            if not document or document.get("kind") != "CustomResourceDefinition":
                continue
            group, kind = document["spec"]["group"], document["spec"]["names"]["kind"]
            for version in document["spec"]["versions"]:
                schema = close(_with_metadata(version["schema"]["openAPIV3Schema"]))
                yield _name(group, version["name"], kind), _object(schema, group, version["name"], kind, meta)


def _name(group: str, version: str, kind: str) -> str:
    return f"{group or 'v1'}/{kind.lower()}_{version}.json"


def _object(schema: Schema, group: str, version: str, kind: str, definitions: dict[str, Schema]) -> Schema:
    named = {
        "apiVersion": {"const": f"{group}/{version}" if group else version},
        "kind": {"const": kind},
    }
    return schema | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": schema["properties"] | named,
        "required": sorted({*schema.get("required", []), "apiVersion", "kind", "metadata"}),
        "components": {"schemas": definitions},
    }


def _needed(schema: Schema, definitions: dict[str, Schema]) -> dict[str, Schema]:
    """The definitions that a schema refers to, directly or through others."""
    found: dict[str, Schema] = {}
    waiting = [schema]
    while waiting:
        for name in _references(waiting.pop()):
            if name not in found:
                found[name] = definitions[name]
                waiting.append(definitions[name])
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix(_REF)
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def close(schema: Any) -> Any:
    """A schema whose objects refuse fields they do not list, without what only API servers understand."""
    if isinstance(schema, list):
        return [close(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out: Schema = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties", "definitions"):
            out[key] = {name: close(item) for name, item in value.items()}
        elif key in ("default", "example", "enum", "description", "externalDocs") or key.startswith("x-"):
            if key == "enum":
                out[key] = value
        else:
            out[key] = close(value)
    if schema.get("x-kubernetes-int-or-string"):
        out = {key: value for key, value in out.items() if key not in ("type", "anyOf")}
        out["type"] = ["integer", "string"]
    if out.pop("nullable", False):
        if isinstance(out.get("type"), str):
            out["type"] = [out["type"], "null"]
        if "enum" in out:
            out["enum"] = [*out["enum"], None]
    if "properties" in out and "additionalProperties" not in out:
        out["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return out


def _with_metadata(schema: Any) -> Any:
    """A CRD's schema with its untyped `metadata` objects replaced by ObjectMeta."""
    if isinstance(schema, list):
        return [_with_metadata(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: _with_metadata(value) for key, value in schema.items()}
    properties = out.get("properties")
    if isinstance(properties, dict) and isinstance(properties.get("metadata"), dict):
        metadata = properties["metadata"]
        if metadata.get("type") == "object" and not metadata.keys() & {"properties", "additionalProperties"}:
            properties["metadata"] = {"$ref": f"{_REF}{_META}"}
    return out

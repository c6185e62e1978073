"""A fork's own kinds on a real API server: its verdict on their objects is that of the closed schemas."""

from __future__ import annotations

from typing import Any

import pytest
from test_add_kind import DEFINITIONS, INVALID, VALID, with_spec

from gitops.checks import kubeconform
from gitops.cluster.kube import Cluster
from gitops.manifests import definitions, schemas

from contract.errors import Refused

from .conftest import World

# The rules of CEL in a definition, and lists without duplicates, are the server's alone.
BEYOND = {"a rule of CEL": with_spec(size=11)}


@pytest.fixture(scope="module")
def cluster(small: World) -> Cluster:
    """An API server on which the definitions are installed as a control plane does."""
    small.plane.define(DEFINITIONS)
    small.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml-dev"}})
    return small.cluster


def refused(cluster: Cluster, item: dict[str, Any]) -> bool:
    try:
        cluster.apply(item, dry_run=True)
    except Refused:
        return True
    return False


def found(item: dict[str, Any]) -> bool:
    return bool(kubeconform.check({"a": [item]}, schemas.folder(DEFINITIONS)))


@pytest.mark.parametrize("name", VALID | INVALID)
def test_the_server_and_the_schema_refuse_the_same_objects(cluster: Cluster, name: str) -> None:
    item = (VALID | INVALID)[name]

    assert (refused(cluster, item), found(item)) == (name in INVALID, name in INVALID)


@pytest.mark.parametrize("name", BEYOND)
def test_some_things_the_server_alone_refuses(cluster: Cluster, name: str) -> None:
    assert (refused(cluster, BEYOND[name]), found(BEYOND[name])) == (True, False)


UNSTRUCTURED = {
    "no type": {"a": {}},
    "properties beside additional ones": {
        "a": {"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}
    },
    "a type in a branch": {"a": {"type": "string", "anyOf": [{"type": "string"}]}},
    "items without a type": {"a": {"type": "array", "items": {}}},
}


@pytest.mark.parametrize("name", UNSTRUCTURED)
def test_a_definition_that_is_refused_here_is_one_that_the_server_refuses(cluster: Cluster, name: str) -> None:
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "bads.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced", "names": {"kind": "Bad", "plural": "bads"},
            "versions": [{
                "name": "v1", "served": True, "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
                    "type": "object", "properties": UNSTRUCTURED[name],
                }}}},
            }],
        },
    }  # fmt: skip

    assert refused(cluster, definition)
    assert list(definitions._faults(definition))

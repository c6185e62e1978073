"""The closed schemas: strict at every depth, open only where the API is, and made whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from gitops.checks import kubeconform
from gitops.manifests import definitions, schemas
from gitops.programs import tools

from contract.errors import Refused


@pytest.fixture(scope="module")
def made(environment: dict[str, str]) -> dict[str, Any]:
    """Every schema, by its file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_GITOPS_CACHE", environment["MODEL_GITOPS_CACHE"])
        folder = schemas.folder()
    return {str(file.relative_to(folder)): json.loads(file.read_text()) for file in folder.rglob("*.json")}


def parts(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, schema) of a schema and of all within it."""
    if isinstance(schema, list):
        for at, item in enumerate(schema):
            yield from parts(item, f"{path}[{at}]")
    elif isinstance(schema, dict):
        yield path, schema
        for key, value in schema.items():
            if key in ("properties", "patternProperties"):
                for name, item in value.items():
                    yield from parts(item, f"{path}.{name}")
            elif key not in ("enum", "required", "const"):
                yield from parts(value, f"{path}/{key}" if key not in ("items", "additionalProperties") else path)


def test_there_is_a_schema_for_every_kind_of_all_three(made: dict[str, Any]) -> None:
    assert {
        "v1/service_v1.json", "apps/deployment_v1.json", "autoscaling/horizontalpodautoscaler_v1.json",
        "autoscaling/horizontalpodautoscaler_v2.json", "networking.k8s.io/ingress_v1.json",
        "serving.kserve.io/inferenceservice_v1beta1.json", "serving.kserve.io/clusterstoragecontainer_v1alpha1.json",
        "argoproj.io/application_v1alpha1.json", "argoproj.io/applicationset_v1alpha1.json",
        "argoproj.io/appproject_v1alpha1.json",
    } <= made.keys()  # fmt: skip


def test_every_object_that_lists_its_fields_refuses_others_at_any_depth(made: dict[str, Any]) -> None:
    open_ones = {
        f"{file}{path}"
        for file, schema in made.items()
        for path, part in parts(schema)
        if "properties" in part and part.get("additionalProperties") is not False
    }

    # KServe's own schema keeps what it does not know there, and no manifest has a status.
    assert open_ones == {"serving.kserve.io/inferenceservice_v1beta1.json.status"}


def test_objects_of_custom_kinds_are_open_only_where_their_schema_says_so(made: dict[str, Any]) -> None:
    custom = {file: schema for file, schema in made.items() if file.startswith(("argoproj.io/", "serving.kserve.io/"))}
    untyped = [
        (file, path)
        for file, schema in custom.items()
        for path, part in parts(schema)
        if part.get("type") == "object" and "additionalProperties" not in part and not path.startswith(".metadata")
    ]

    assert untyped == []


def test_no_choice_between_schemas_lists_fields(made: dict[str, Any]) -> None:
    """Each branch would refuse the fields of the others: close() has to learn of it if a pinned module brings one."""
    branches = [
        (file, path)
        for file, schema in made.items()
        for path, part in parts(schema)
        for word in ("allOf", "anyOf", "oneOf", "not")
        if any("properties" in branch for _, branch in parts(part.get(word)))
    ]

    assert branches == []


def test_only_a_schema_that_holds_itself_has_references(made: dict[str, Any]) -> None:
    """kubeconform says nothing of what is wrong behind a reference."""
    assert {file for file, schema in made.items() if any("$ref" in part for _, part in parts(schema))} == {
        "apiextensions.k8s.io/customresourcedefinition_v1.json",
        "apiextensions.k8s.io/customresourcedefinitionlist_v1.json",
    }


TEXT = {"type": "string"}
CLOSED = {"type": "object", "properties": {"a": TEXT}, "additionalProperties": False}
OPEN = {"type": "object", "properties": {"a": TEXT}}


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        (OPEN, CLOSED),
        ({"type": "array", "items": OPEN}, {"type": "array", "items": CLOSED}),
        ({"additionalProperties": OPEN}, {"additionalProperties": CLOSED}),
        ({"allOf": [OPEN], "description": "a", "default": {}}, CLOSED),
        ({"allOf": [{"$ref": "#/a"}], "default": {}}, {"$ref": "#/a"}),
        ({"allOf": [{"minLength": 1}, TEXT]}, {"allOf": [{"minLength": 1}, TEXT]}),
        ({"properties": {"a": OPEN}}, {"properties": {"a": CLOSED}, "additionalProperties": False}),
        (OPEN | {"x-kubernetes-preserve-unknown-fields": True}, CLOSED | {"additionalProperties": True}),
        (OPEN | {"additionalProperties": TEXT}, CLOSED | {"additionalProperties": TEXT}),
        ({"oneOf": [{"type": "integer"}, TEXT]}, {"type": ["integer", "string"]}),
        ({"anyOf": [{"type": "integer"}, TEXT], "x-kubernetes-int-or-string": True}, {"type": ["integer", "string"]}),
        (TEXT | {"nullable": True}, {"type": ["string", "null"]}),
        ({"x-kubernetes-int-or-string": True, "nullable": True}, {"type": ["integer", "string", "null"]}),
        (TEXT | {"nullable": True, "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        (TEXT | {"nullable": False, "x-kubernetes-validations": [{"rule": "true"}]}, TEXT),
        # Fields that are called like words of JSON Schema.
        (
            {"properties": {"default": OPEN, "enum": OPEN, "properties": OPEN, "nullable": TEXT, "x-a": OPEN}},
            {
                "properties": {
                    "default": CLOSED,
                    "enum": CLOSED,
                    "properties": CLOSED,
                    "nullable": TEXT,
                    "x-a": CLOSED,
                },
                "additionalProperties": False,
            },
        ),
    ],
)
@pytest.mark.parametrize("custom", [False, True])
def test_a_schema_is_closed_by(schema: Any, closed: Any, custom: bool) -> None:
    assert schemas.close(schema, custom=custom) == closed


def test_an_object_without_listed_fields_is_open_in_built_in_kinds_and_closed_in_custom_ones() -> None:
    assert schemas.close({"type": "object"}) == {"type": "object"}
    assert schemas.close({"type": "object"}, custom=True) == {"type": "object", "additionalProperties": False}


def manifest(api_version: str, kind: str, spec: Any, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"} | metadata, "spec": spec}


def predictor(**fields: Any) -> dict[str, Any]:
    return manifest("serving.kserve.io/v1beta1", "InferenceService", {"predictor": fields})


def application_set(**template: Any) -> dict[str, Any]:
    source = {"repoURL": "https://example.com/a.git", "targetRevision": "main", "path": "a"}
    spec = {"project": "a", "source": source, "destination": {"namespace": "a"}}
    template = {"metadata": {}, "spec": spec} | template
    # The elements are of any shape: here the schema has an API server keep what it does not know.
    generators = [{"list": {"elements": [{"any": {"thing": 1}}]}}]
    return manifest("argoproj.io/v1alpha1", "ApplicationSet", {"generators": generators, "template": template})


def budget(limit: Any) -> dict[str, Any]:
    return manifest("policy/v1", "PodDisruptionBudget", {"maxUnavailable": limit})


def pod(**container: Any) -> dict[str, Any]:
    return manifest("v1", "Pod", {"containers": [{"name": "a", "image": "a"} | container]})


def claim(**metadata: Any) -> dict[str, Any]:
    template = {"metadata": metadata, "spec": {"accessModes": ["ReadWriteOnce"]}}
    return {"volumes": [{"name": "a", "ephemeral": {"volumeClaimTemplate": template}}]}


def autoscaler(version: str, **fields: Any) -> dict[str, Any]:
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "a"}, "maxReplicas": 2} | fields
    return manifest(f"autoscaling/{version}", "HorizontalPodAutoscaler", spec)


def project(**metadata: Any) -> dict[str, Any]:
    return manifest("argoproj.io/v1alpha1", "AppProject", {}, **metadata)


def rollout(**fields: Any) -> dict[str, Any]:
    return predictor(deploymentStrategy={"rollingUpdate": fields})


def unknown(name: str) -> str:
    return f"additional properties '{name}' not allowed"


VALID = [
    # Either form of a field that takes a number or text.
    budget(1),
    budget("25%"),
    rollout(maxSurge="25%", maxUnavailable=0),
    *[pod(resources={"limits": {"memory": amount}}) for amount in ("1Gi", "1.5", "100m", "1e3", 512)],
    # Both versions of a kind, each by its own schema.
    autoscaler("v1", targetCPUUtilizationPercentage=50),
    autoscaler("v2", metrics=[]),
    # Metadata: Kubernetes' own at the top, what the schema says below it.
    project(annotations={"a": "b"}, finalizers=["a/b"]),
    application_set(metadata={"name": "a", "annotations": {"a": "b"}, "finalizers": []}),
    predictor(**claim()),
    manifest("v1", "Pod", {"containers": [{"name": "a"}], **claim(labels={"a": "b"})}),
]
IN_CLAIM = "spec.predictor.volumes.0.ephemeral.volumeClaimTemplate.metadata"
IN_SLEEP = "spec.predictor.containers.0.lifecycle.preStop.sleep"
INVALID = [
    (budget([1]), "spec.maxUnavailable: [1] is not of type 'integer', 'string'"),
    (
        rollout(maxSurge=True),
        "spec.predictor.deploymentStrategy.rollingUpdate.maxSurge: True is not of type 'integer', 'string'",
    ),
    (
        pod(resources={"limits": {"memory": []}}),
        "spec.containers.0.resources.limits.memory: [] is not of type 'string', 'number'",
    ),
    (autoscaler("v1", metrics=[]), f"spec: {unknown('metrics')}"),
    (project(annotations={"a": 1}), "metadata.annotations.a: 1 is not of type 'string'"),
    (application_set(metadata={"generateName": "a"}), f"spec.template.metadata: {unknown('generateName')}"),
    # An API server drops it: this schema lists no field there.
    (predictor(**claim(labels={})), f"{IN_CLAIM}: {unknown('labels')}"),
    (
        pod(env=[{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "a", "path": "b"}}}]),
        f"spec.containers.0.env.0.valueFrom.fieldRef: {unknown('path')}",
    ),
    (
        predictor(containers=[{"name": "a", "lifecycle": {"preStop": {"sleep": {"second": 5}}}}]),
        f"{IN_SLEEP}: 'seconds' is a required property",
        f"{IN_SLEEP}: {unknown('second')}; did you mean 'seconds'?",
    ),
    (manifest("v1", "Widget", {}), "apiVersion: v1: has no such kind in the versions that tools/schemas/go.mod pins"),
]


def test_manifests_are_judged_as_the_api_would() -> None:
    found = kubeconform.check({"valid": VALID} | {str(at): [item] for at, (item, *_) in enumerate(INVALID)})

    said = [[finding.message for finding in found if finding.folders == (str(at),)] for at in range(len(INVALID))]
    assert said == [errors for _, *errors in INVALID]
    assert not [finding for finding in found if finding.folders == ("valid",)]


# Making


SMALL = (
    "k8s.io/kubernetes/api/openapi-spec/v3/api__v1_openapi.json",
    "github.com/argoproj/argo-cd/v3/manifests/crds/appproject-crd.yaml",
)
MAKE = "from gitops.manifests import schemas; print(schemas.folder())"
STOP = """
import sys
from gitops.manifests import schemas
def stop(sources, metadata):
    print("half", flush=True)
    sys.stdin.read()
schemas._custom = stop
schemas.folder()
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a few of the sources, of which schemas are made quickly."""
    sources = tools.SCHEMAS.path
    for name in SMALL:
        (tmp_path / sources.name / name).parent.mkdir(parents=True)
        (tmp_path / sources.name / name).symlink_to(sources / name)
    monkeypatch.setenv("MODEL_GITOPS_CACHE", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "scripts"))
    return tmp_path


def start(code: str) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def names(cache: Path) -> list[str]:
    """What is in the cache besides the sources and the lock."""
    return sorted(p.name for p in cache.iterdir() if p.name not in ("schemas.lock", tools.SCHEMAS.path.name))


def test_processes_that_make_the_schemas_at_once_make_them_once(small: Path) -> None:
    processes = [start(MAKE) for _ in range(3)]
    ended = [process.communicate() for process in processes]

    [folder] = {Path(out.strip()) for out, _ in ended}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum("making the closed schemas" in err for _, err in ended) == 1
    assert names(small) == [folder.name]
    assert {"v1/pod_v1.json", "argoproj.io/appproject_v1alpha1.json"} <= {
        str(file.relative_to(folder)) for file in folder.rglob("*.json") if json.loads(file.read_text())
    }


def test_a_killed_making_leaves_nothing_that_counts_and_the_next_one_clears_it_away(small: Path) -> None:
    with start(STOP) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    [left] = names(small)

    folder = schemas.folder()

    assert left.startswith("schemas-new-")
    assert names(small) == [folder.name]


def test_a_folder_that_nobody_has_used_for_long_is_removed_when_another_one_is_made(small: Path) -> None:
    engine = schemas.folder()
    [definition] = definitions.read((ROOT / "tests/kinds/widgets.yaml").read_bytes(), "widgets.yaml")
    kept, left, last = ([definition | {"metadata": {"name": name}}] for name in ("kept", "left", "last"))
    made = {name: schemas.folder(found) for name, found in (("kept", kept), ("left", left))}
    now = time.time()
    for folder in (engine, *made.values(), small / tools.SCHEMAS.path.name):
        os.utime(folder, (now, now - schemas.UNUSED.total_seconds() - 1))

    assert schemas.folder(kept) == made["kept"]
    assert names(small) == sorted(each.name for each in (engine, *made.values()))
    new = schemas.folder(last)
    assert names(small) == sorted(each.name for each in (engine, made["kept"], new))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tools.SCHEMAS.path
    monkeypatch.setenv("MODEL_GITOPS_CACHE", str(tmp_path))
    (tmp_path / sources.name).symlink_to(sources)
    (tmp_path / "schemas.lock").mkdir()

    with pytest.raises(Refused) as refused:
        schemas.folder()

    [line] = refused.value.lines
    assert line.startswith(f"{tmp_path}/schemas-")
    assert line.endswith(": Is a directory; schemas are kept there, or below $MODEL_GITOPS_CACHE")

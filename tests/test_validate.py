"""validate.py: what it finds, one fault a fixture, and that nothing it cannot check passes."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpus
import pytest
from conftest import IMAGE, SAMPLE, Checkout, package, run, write_release
from corpus import DEPLOYED, FIXTURES, Fixture, Verdict

import validate
from gitops.checks import consistency, environments, kubeconform, kubernetes
from gitops.checks.framework import Repository
from gitops.manifests import kustomize, schemas, workloads
from gitops.programs import tools
from gitops.releases.release import Target
from gitops.repo import layout
from gitops.repo.layout import ARGOCD
from gitops.repo.policy import Exposure, Policy, read_policy

from contract.errors import Refused

FLAVOURS = (("lily-api", "onnx", IMAGE), ("lily-batch", "onnx", IMAGE), ("lily-sklearn", "sklearn", None))
FOLDERS = layout.folders(SAMPLE, read_policy(SAMPLE))


def count(root: Path) -> int:
    """The number of rendered objects."""
    return sum(len(kustomize.objects(text)) for text in kustomize.build_all(root, FOLDERS).values())


@pytest.fixture
def root(manifests: Path, tmp_path: Path) -> Path:
    """A copy of the manifests that a test may change."""
    for name in DEPLOYED:
        shutil.copytree(manifests / name, tmp_path / "root" / name)
    return tmp_path / "root"


@pytest.fixture(scope="module")
def verdicts(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    root = tmp_path_factory.mktemp("fixtures")
    corpus.copy(manifests, root)
    return corpus.verdicts(root)


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.name)
def test_every_fault_is_found_by_its_catcher_and_by_no_other(verdicts: dict[str, Verdict], fixture: Fixture) -> None:
    assert verdicts[fixture.name].all == fixture.errors
    assert {corpus.catcher(fixture, line) for line in fixture.errors} == fixture.catchers


@pytest.mark.parametrize(
    "fixture", [f for f in FIXTURES if "kustomize" not in f.catchers], ids=lambda fixture: fixture.name
)
def test_without_its_catcher_a_fault_is_found_by_none_but_those_that_are_named(
    verdicts: dict[str, Verdict], fixture: Fixture
) -> None:
    found = {corpus.catcher(fixture, line) for line in verdicts[fixture.name].without}

    assert sorted(found) == fixture.also


def test_the_command_reports_the_faults_of_all_rules_and_exits_with_1(root: Path) -> None:
    chosen = {
        "same-network-policy", "cluster-scoped", "form-storage-uris", "uri-latest", "paths-root", "service-port",
        "signing-missing", "withdrawn-record-key", "workloads-image-volume", "isolation-out-everywhere", "name-source",
    }  # fmt: skip
    fixtures = [fixture for fixture in FIXTURES if fixture.name in chosen]

    with contextlib.ExitStack() as stack:
        for fixture in fixtures:
            stack.enter_context(fixture.applied(root))
        done = run("validate", "--root", root)

    assert (done.code, done.out) == (1, "")
    assert sorted(done.errors) == sorted(line for fixture in fixtures for line in fixture.errors)
    assert frozenset().union(*(fixture.catchers for fixture in fixtures)) >= {*consistency.RULES, "schema"}


@pytest.mark.parametrize("catcher", corpus.CATCHERS)
def test_every_catcher_has_fixtures(catcher: str) -> None:
    assert sum(catcher in fixture.catchers for fixture in FIXTURES) >= 2


def test_a_fixture_names_catchers_that_there_are() -> None:
    assert frozenset().union(*(fixture.catchers for fixture in FIXTURES)) <= {*corpus.CATCHERS}


def test_the_untouched_repository_passes(root: Path) -> None:
    done = run("validate", "--root", root)

    assert (done.code, done.err) == (0, "")
    counts = f"{len(FOLDERS)} renders with {count(root)} objects"
    assert done.out == f"{counts}: schemas and {len(validate.RULES)} rules hold\n"


@pytest.mark.parametrize("path", ["overlays/prod/lily-api/release.yaml", "overlays/prod/lily-api", "overlays/prod"])
def test_nothing_below_overlays_is_a_link(root: Path, path: str) -> None:
    """What it leads to could change without the release file."""
    (root / path).rename(root / "elsewhere")
    (root / path).symlink_to(root / "elsewhere")

    found = consistency.check_release(Repository(root, read_policy(root), {}))

    assert [str(finding) for finding in found] == [
        f"{path}: a symbolic link; put a file in its place, history has what a release file is and not what it leads to"
        " [release]"
    ]


def test_released_apps_pass_and_no_finding_is_an_empty_list_in_json(root: Path, tmp_path: Path) -> None:
    made = package(tmp_path / "artifacts")
    for app, flavour, image in FLAVOURS:
        write_release(root, Target(app, "prod"), made, flavour, image)

    done = run("validate", "--root", root, "--json")

    assert (done.code, json.loads(done.out), done.err) == (0, [], "")


@pytest.mark.parametrize("option", [("--by", "ann"), ("--pushed",)])
def test_who_and_how_are_asked_of_a_change_alone(root: Path, option: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("validate", "--root", root, *option)

    assert ended.value.code == 2


def test_findings_as_json(root: Path) -> None:
    (root / "base/api/service.yaml").write_text(
        (root / "base/api/service.yaml").read_text().replace("port: 80", "prt: 80")
    )

    done = run("validate", "--root", root, "--json")

    first, *_ = found = json.loads(done.out)
    assert done.code == 1
    assert done.errors == [f"{finding['where']}: {finding['message']} [{finding['rule']}]" for finding in found]
    assert first == {
        "rule": "schema",
        "where": "overlays/dev/lily-api: Service ml-dev/lily-api",
        "message": "spec.ports.0: 'port' is a required property",
        "folders": ["overlays/dev/lily-api"],
    }


def test_every_fault_of_an_object_is_named_by_its_own_field(root: Path) -> None:
    file = root / "base/api/deployment.yaml"
    file.write_text(file.read_text().replace("periodSeconds: 2\n", "periodSecond: two\n").replace("[ALL]", "ALL"))

    errors = run("validate", "--root", root).errors

    container = "overlays/prod/lily-api: Deployment.apps ml-prod/lily-api: spec.template.spec.containers.0"
    assert [line for line in errors if "prod" in line] == [
        f"{container}.securityContext.capabilities.drop: 'ALL' is not of type 'array' [schema]",
        f"{container}.startupProbe: additional properties 'periodSecond' not allowed;"
        " did you mean 'periodSeconds'? [schema]",
    ]


@pytest.mark.parametrize(
    "item",
    [
        {"apiVersion": 1, "kind": ["Deployment"], "metadata": {"name": "a"}},
        {"kind": "Deployment", "metadata": {"name": "a", "labels": [], "annotations": "b"}, "spec": {"template": []}},
        {"kind": "Deployment", "metadata": {"name": "a"}, "spec": {"containers": [{"name": {}}, {"name": {}}]}},
        {"kind": "InferenceService", "metadata": {"name": "a"}, "spec": "predictor"},
        {"kind": "InferenceService", "metadata": {"name": "a"}, "spec": {"predictor": ["model"]}},
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": {}, "annotations": []},
            "spec": {
                "predictor": {
                    "model": {"runtime": [], "modelFormat": {"name": {}}, "env": ["a"], "storageUri": 1},
                    "workerSpec": [],
                    "minReplicas": "1",
                    "scaleTarget": [],
                    "containers": {"name": "a"},
                    "autoScaling": {"metrics": [{"type": [], "external": 1}]},
                },
                "canary": [{"trafficPercent": "a", "predictor": {"name": [], "minReplicas": {}}}],
            },
        },
        {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ServingRuntime", "metadata": {"name": "a"}, "spec": []},
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "a"}, "spec": {"limits": "b"}},
        {"kind": "Application", "metadata": {"name": "a"}, "spec": {"sources": []}},
        {"kind": "ApplicationSet", "metadata": {"name": "a"}, "spec": {"generators": {}, "template": "b"}},
        {"kind": "ApplicationSet", "metadata": {"name": "a"}, "spec": {"generators": [{"git": {"files": ["b"]}}]}},
        {
            "kind": "ApplicationSet",
            "metadata": {"name": "a"},
            "spec": {"generators": [{"git": {"files": [{"path": "**b"}]}}]},
        },
        {"kind": "Namespace", "metadata": None},
    ],
)
def test_rules_bear_objects_of_any_shape(manifests: Path, item: dict[str, Any]) -> None:
    """Their schema is what another check complains about."""
    repository = Repository(manifests, read_policy(manifests), {ARGOCD: [item], "overlays/dev/lily-api": [item]})

    assert any(validate.by_rules(repository).values())


HOST, FLAG = "spec.hostname", "spec.containers[a].args[0]"


@pytest.mark.parametrize(
    ("names", "path", "value", "named"),
    [
        # The first is the one whose render has the value.
        ("pre-prod prod", HOST, "ml-pre-prod-reader", None),
        ("pre-prod prod", HOST, "ml-prod-reader", "prod"),
        ("prod pre-prod", HOST, "ml-pre-prod-reader", "pre-prod"),
        ("prod pre-prod", HOST, "ml-prod-reader", None),
        ("prod prod-us", FLAG, "arn:aws:iam::111122223333:role/prod-us-reader", "prod-us"),
        ("prod prod-us", FLAG, "arn:aws:iam::111122223333:role/prod-reader", None),
        ("prod-eu prod-us", HOST, "api.prod-us.example.com", "prod-us"),
        ("prod-eu prod-us", HOST, "api.prod-eu.example.com", None),
        ("prod-eu prod", FLAG, "s3://data/prod-eu/to-prod/", "prod"),
        ("prod dev", FLAG, "/dev/shm", None),
        ("prod dev", FLAG, "--log=/dev/stdout", None),
        ("prod dev", "metadata.name", "dev", None),
        ("prod dev", "metadata.labels.app", "dev", None),
        ("prod dev", FLAG, "https://go.dev/doc", None),
        ("prod dev", FLAG, "https://dev.example.com/doc", "dev"),
        ("prod test", FLAG, "--mode=test", None),
        ("prod test", FLAG, "run the test of the model", None),
        ("prod live", "spec.probe.path", "/health/live", None),
        ("prod dev", FLAG, "--environment=dev", "dev"),
        ("prod dev", FLAG, "--environment=developer", None),
        ("prod dev", "spec.containers[a].env[APP_ENV].value", "dev", "dev"),
        ("prod dev", "spec.containers[a].env[MODE].value", "dev", None),
        ("prod dev", "spec.containers[a].env[ATTRIBUTES].value", "team=ml,deployment.environment=dev", "dev"),
        ("prod dev", "spec.nodeSelector.environment", "dev", "dev"),
        ("prod dev", "spec.data[0].remoteRef.key", "dev/wine/password", "dev"),
        ("prod dev", "spec.containers[a].env[BROKER_URL].value", "kafka.dev.example.com:9092", "dev"),
        ("prod dev", "spec.containers[a].env[BROKER].value", "kafka.ml-dev.svc.cluster.local:9092", "dev"),
        ("prod dev", FLAG, "--config=/etc/config.dev.yaml", None),
        ("prod dev", FLAG, "s3://data/dev/", "dev"),
        ("prod dev", FLAG, "s3://models-dev/requests/dev/", "dev"),
        ("prod models", FLAG, "s3://data/models/", "models"),
        ("prod models", FLAG, "s3://models-dev/models/wine/", None),
        ("prod test", FLAG, "s3://models-dev/models/wine-test/2026-02-01-3f2a9c1b7d10/onnx/", None),
        ("prod dev", FLAG, "http://dev:5001/predict", None),
        ("prod dev", FLAG, "s3://dev-data/", "dev"),
        ("prod models-dev", FLAG, "s3://models-dev/requests/", None),
        ("prod models-dev", FLAG, "role/ml-models-dev-reader", "models-dev"),
        ("prod development", FLAG, "developments", None),
    ],
)
def test_a_value_names_an_environment_where_its_field_carries_one(
    names: str, path: str, value: str, named: str | None
) -> None:
    own, *others = names.split()
    policy = Policy("models-dev", ("registry.example.com",), tuple(sorted([own, *others])))

    found = [name for name in environments.Names(policy).told(path, value) if name in others]

    assert found[:1] == ([named] if named else [])


@pytest.mark.parametrize(
    ("app", "value", "named"),
    [
        ("dev", "arn:aws:iam::111122223333:role/ml-prod-dev", None),
        ("dev", "arn:aws:iam::111122223333:role/ml-dev-dev", "dev"),
        ("dev", "s3://data/prod/dev/in/", None),
        ("dev", "s3://data/dev/dev/in/", "dev"),
        ("wine-dev", "https://api.example.com/wine-dev/", None),
        ("wine-dev", "arn:aws:iam::111122223333:role/ml-dev-wine-dev", "dev"),
        ("wine", "https://api.example.com/wine-dev/", "dev"),
    ],
)
def test_an_app_may_be_called_like_an_environment(app: str, value: str, named: str | None) -> None:
    names = environments.Names(Policy("models", ("r.example.com",), ("dev", "prod")))

    found = [name for name in names.told(FLAG, value, names.own("prod", app)) if name != "prod"]

    assert found[:1] == ([named] if named else [])


def test_a_host_is_of_the_environment_of_its_domain_and_what_all_share_of_none() -> None:
    domains = {"dev": Exposure(("dev.ml.example.com",)), "prod": Exposure(("ml.example.com",))}
    names = environments.Names(Policy("models", ("r.example.com",), ("dev", "prod"), exposure=domains))

    assert list(names.told(FLAG, "--api=wine.dev.ml.example.com")) == ["dev"]
    assert list(names.told(FLAG, "--registry=mlflow.ml.example.com")) == []


def test_an_ingress_that_leads_to_another_environments_path_names_it() -> None:
    policy = Policy("models", ("registry.example.com",), ("dev", "prod"))
    rules = [{"host": "a", "http": {"paths": [{"path": "/dev/predict"}]}}]
    item = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "a"},
        "spec": {"rules": rules},
    }

    [found] = environments.check_environment(Repository(Path(), policy, {"overlays/prod/a": [item]}))

    assert "'/dev/predict' names dev in prod" in found.message


def test_the_framework_forms_are_those_of_kserve() -> None:
    schema = json.loads((schemas.folder() / "serving.kserve.io/inferenceservice_v1beta1.json").read_text())
    components = schema["properties"]["spec"]["properties"]
    fields = [item for part in ("predictor", "explainer") for item in components[part]["properties"].items()]

    forms = {name for name, field in fields if "storageUri" in field.get("properties", {})}

    assert forms == {*workloads.FRAMEWORKS, "model"}


# --changed-since


BROKEN = "overlays/{0}/lily-{1}: {2} ml-{0}/lily-{1}: {3} [schema]"
PORT = "spec.ports.0: additional properties 'prt' not allowed; did you mean 'port'?"
TARGET = "spec.predictor: additional properties 'scaleTargets' not allowed; did you mean 'scaleTarget'?"
SERVICES = [
    line
    for environment in ("dev", "prod", "staging")
    for line in (
        BROKEN.format(environment, "api", "Service", "spec.ports.0: 'port' is a required property"),
        BROKEN.format(environment, "api", "Service", PORT),
    )
]
MODELS = [
    BROKEN.format(environment, "sklearn", "InferenceService.serving.kserve.io", TARGET)
    for environment in ("dev", "prod", "staging")
]


GONE = (
    "overlays/dev/lily-api: Deployment.apps ml-dev/lily-api is no longer rendered; to remove it on purpose, run"
    " `python scripts/retire_app.py --app lily-api --env dev`, or where the app stays, add an entry for it to"
    " overlays/dev/retired.yaml [removal]"
)


@pytest.fixture
def faulty(checkout: Checkout) -> Checkout:
    """A clone whose commit has a fault in the bases of both apps already."""
    checkout.replace("base/api/service.yaml", "port: 80\n", "prt: 80\n")
    checkout.replace("base/inference-service/inferenceservice.yaml", "scaleTarget:", "scaleTargets:")
    checkout.commit()
    return checkout


def one_base(checkout: Checkout) -> None:
    checkout.replace("base/api/ingress.yaml", "alb\n", "nginx\n")


def a_file_less_in_a_base(checkout: Checkout) -> None:
    (checkout.root / "base/api/poddisruptionbudget.yaml").unlink()
    checkout.replace("base/api/kustomization.yaml", "  - poddisruptionbudget.yaml\n", "")
    checkout.commit()


def one_overlay(checkout: Checkout) -> None:
    checkout.replace("overlays/prod/lily-api/kustomization.yaml", "lily-api.ml.example.com", "api.ml.example.com")


def what_an_environment_shares(checkout: Checkout) -> None:
    checkout.replace("overlays/dev/shared/model-reader.yaml", 'endpoints: "true"', 'endpoints: "false"')


def the_policy(checkout: Checkout) -> None:
    checkout.replace("overlays/promotion.yaml", "model_bucket:", "# Ours.\nmodel_bucket:")


def the_scripts(checkout: Checkout) -> None:
    checkout.write("scripts/gitops/checks/consistency.py", "# other rules\n")


def nothing_that_is_rendered(checkout: Checkout) -> None:
    checkout.write("README.md", "Other words.\n")


def an_overlay_less(checkout: Checkout) -> None:
    shutil.rmtree(checkout.root / "overlays/dev/lily-api")


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (one_base, SERVICES),
        (a_file_less_in_a_base, SERVICES),
        (one_overlay, SERVICES[2:4]),
        (what_an_environment_shares, [*SERVICES[:2], MODELS[0]]),
        (the_policy, sorted(SERVICES + MODELS)),
        (the_scripts, sorted(SERVICES + MODELS)),
        (nothing_that_is_rendered, []),
        (an_overlay_less, [GONE]),
    ],
)
def test_only_what_a_change_can_affect_is_reported(
    faulty: Checkout, change: Callable[[Checkout], None], reported: list[str]
) -> None:
    base = faulty.git("rev-parse", "HEAD")
    change(faulty)

    done = faulty.run("validate", "--changed-since", base)

    assert done.errors == reported
    assert done.code == (1 if reported else 0)


@pytest.mark.parametrize("name", ["same-network-policy", "projects-missing-kind", "applications-same-name"])
def test_a_fault_between_two_renders_is_reported_whichever_of_them_changed(checkout: Checkout, name: str) -> None:
    """The line names one of the renders; in each of these fixtures it is not the one that the edit changes."""
    [fixture] = [fixture for fixture in FIXTURES if fixture.name == name]

    with fixture.applied(checkout.root):
        done = checkout.run("validate", "--changed-since", "HEAD")

    assert (done.code, done.errors) == (1, fixture.errors)


def test_an_unknown_commit_is_refused(checkout: Checkout) -> None:
    done = checkout.run("validate", "--changed-since", "origin/nowhere")

    assert (done.code, done.out) == (1, "")
    assert done.errors == ["--changed-since origin/nowhere: no such commit in this clone; `git fetch` it"]


# What cannot be checked does not pass


@dataclass(frozen=True)
class Cache:
    """An empty cache of programs and schemas, into which parts of the real one can be put."""

    folder: Path
    real: Path
    schemas: str

    def install(self, *names: str) -> None:
        for name in names:
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).symlink_to(self.real / name)


PROGRAM, VALIDATION = (f"bin/{program.path.name}" for program in (tools.MANIFESTS, tools.VALIDATION))
SOURCES = tools.SCHEMAS.path.name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    made = Cache(tmp_path / "cache", tools.cache(), schemas.folder().name)
    monkeypatch.setenv("MODEL_GITOPS_CACHE", str(made.folder))
    made.folder.mkdir()
    return made


def test_a_missing_tool_or_schema_is_a_failure(root: Path, cache: Cache) -> None:
    errors = [run("validate", "--root", root).errors]
    cache.install(PROGRAM)
    errors.append(run("validate", "--root", root).errors)
    cache.install(SOURCES, cache.schemas)
    # What was answered before is not asked again.
    kubernetes._answers.clear()
    errors.append(run("validate", "--root", root).errors)

    assert errors == [
        ["manifests devel is not built yet: run `make setup`"],
        ["the schemas are not unpacked yet: run `make setup`"],
        ["validation devel is not built yet: run `make setup`"],
    ]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("read question; echo '{\"results\": []}'", "validation: 2 objects were given, 0 answered"),
        ("read question; echo '{\"results\": null}'", "validation: 2 objects were given, 0 answered"),
        ("read question; echo 'out of memory' >&2; exit 2", "validation: out of memory"),
        ("exit 0", "validation: no answer: ''"),
    ],
)
def test_a_validation_that_answers_for_fewer_objects_is_a_failure(cache: Cache, script: str, error: str) -> None:
    (cache.folder / "bin").mkdir()
    tools.VALIDATION.path.write_text(f"#!/bin/sh\n{script}\n")
    tools.VALIDATION.path.chmod(0o755)
    services = [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}} for name in ("new", "newer")]
    policy = Policy("models", ("registry.example.com",), ("dev",))
    repository = Repository(cache.folder, policy, {"overlays/dev/lily-api": services})

    with pytest.raises(Refused) as refused:
        list(kubernetes.check_kubernetes(repository))

    assert refused.value.lines == (error,)


def test_a_kind_whose_schema_is_missing_is_a_failure(root: Path, cache: Cache) -> None:
    cache.install(PROGRAM, VALIDATION, SOURCES)
    shutil.copytree(cache.real / cache.schemas, cache.folder / cache.schemas)
    (cache.folder / cache.schemas / "networking.k8s.io/ingress_v1.json").unlink()

    done = run("validate", "--root", root)

    assert done.code == 1
    assert done.errors == [
        f"overlays/{environment}/lily-api: Ingress.networking.k8s.io ml-{environment}/lily-api: apiVersion:"
        " networking.k8s.io/v1: has no such kind in the versions that tools/schemas/go.mod pins [schema]"
        for environment in ("dev", "prod", "staging")
    ]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("read question; echo '{\"results\": [], \"failed\": false, \"words\": \"\"}'",
         "kubeconform: 1 objects were given, 0 answered"),
        ("read question; echo '{\"results\": null, \"failed\": true, \"words\": \"no such folder\"}'",
         "kubeconform: no such folder"),
        ("read question; echo 'out of memory' >&2; exit 2", "manifests: out of memory"),
        ("exit 0", "manifests: no answer: ''"),
    ],
)  # fmt: skip
def test_a_check_that_answers_for_fewer_objects_is_a_failure(cache: Cache, script: str, error: str) -> None:
    cache.install(SOURCES, cache.schemas)
    (cache.folder / "bin").mkdir()
    tools.MANIFESTS.path.write_text(f"#!/bin/sh\n{script}\n")
    tools.MANIFESTS.path.chmod(0o755)

    with pytest.raises(Refused) as refused:
        kubeconform.check({"overlays/dev/lily-api": [{"apiVersion": "v1", "kind": "Service"}]})

    assert refused.value.lines == (error,)

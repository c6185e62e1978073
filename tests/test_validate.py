"""validate.py: what it finds, one fault a fixture, and that nothing it cannot check passes."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import IMAGE, ROOT, Checkout, package, run

import validate
from gitops import kubeconform, kustomize, layout, release, rules, schemas, tools, versions
from gitops.rules import ARGOCD, Finding, Repository

DEPLOYED = ("base", "apps", "overlays", "argocd")
FOLDERS = [*layout.overlays(ROOT, layout.read_policy(ROOT)), ARGOCD]


def count(root: Path) -> int:
    """The number of rendered objects."""
    return sum(len(kustomize.objects(text)) for text in kustomize.build_all(root, FOLDERS).values())


@dataclass(frozen=True)
class Fixture:
    """One edit of the repository, the rule or rules that it breaks, and what validate.py has to say."""

    name: str
    rules: frozenset[str]
    file: str
    errors: list[str]
    content: str | None
    old: str
    new: str

    @contextlib.contextmanager
    def applied(self, root: Path) -> Iterator[None]:
        """The repository with the edit, while the block runs."""
        file = root / self.file
        before = file.read_bytes() if file.is_file() else None
        if self.content is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.content)
        else:
            text = file.read_text()
            assert text.count(self.old) == 1, f"{self.name}: {self.old!r} stands {text.count(self.old)} times"
            file.write_text(text.replace(self.old, self.new))
        yield
        if before is not None:
            file.write_bytes(before)
        else:
            file.unlink()
            for parent in file.parents:
                if parent == root or any(parent.iterdir()):
                    break
                parent.rmdir()


def read(file: Path) -> Fixture:
    text = file.read_text()
    named = frozenset(text.removeprefix("# ").partition(":")[0].split(", "))
    data: dict[str, Any] = yaml.safe_load(text)
    edit = {"content": None, "old": "", "new": ""} | {key: data[key] for key in data if key != "errors"}
    return Fixture(file.stem, named, errors=data["errors"].splitlines(), **edit)


FIXTURES = [read(file) for file in sorted((Path(__file__).parent / "invalid").glob("*.yaml"))]


@pytest.fixture
def root(manifests: Path, tmp_path: Path) -> Path:
    """A copy of the manifests that a test may change."""
    for name in DEPLOYED:
        shutil.copytree(manifests / name, tmp_path / "root" / name)
    return tmp_path / "root"


@pytest.fixture(scope="module")
def findings(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What the functions of which validate.py is made find for each fixture.

    An edit is rendered where closure() says that it can matter (tests/test_kustomize.py proves that it is right), and
    all objects of all fixtures go to kubeconform together: it spends its time on reading schemas, not on objects.
    """
    root = tmp_path_factory.mktemp("fixtures")
    for name in DEPLOYED:
        shutil.copytree(manifests / name, root / name)
    policy = layout.read_policy(root)
    before = {folder: kustomize.objects(text) for folder, text in kustomize.build_all(root, FOLDERS).items()}
    renders: dict[str, dict[str, list[kustomize.Object]]] = {}
    objects = {}
    for fixture in FIXTURES:
        with fixture.applied(root):
            changed = kustomize.build_all(root, kustomize.readers(root, FOLDERS, [fixture.file]))
        changes = {folder: kustomize.objects(text) for folder, text in changed.items()}
        renders[fixture.name] = before | changes
        objects |= {f"{fixture.name}!{folder}": items for folder, items in changes.items()}
    schema: dict[str, list[Finding]] = {fixture.name: [] for fixture in FIXTURES}
    for finding in kubeconform.check(objects):
        name, _, where = finding.where.partition("!")
        folders = tuple(folder.partition("!")[2] for folder in finding.folders)
        schema[name].append(replace(finding, where=where, folders=folders))
    found = {}
    for fixture in FIXTURES:
        with fixture.applied(root):
            repository = Repository(root, policy, renders[fixture.name])
            found[fixture.name] = [str(finding) for finding in validate.check(repository, schema[fixture.name])]
    return found


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.name)
def test_every_fault_is_found_and_nothing_else(findings: dict[str, list[str]], fixture: Fixture) -> None:
    assert findings[fixture.name] == fixture.errors
    assert {line.rpartition("[")[2].rstrip("]") for line in fixture.errors} == fixture.rules


def test_the_command_reports_the_faults_of_all_rules_and_exits_with_1(root: Path) -> None:
    chosen = {
        "same-network-policy", "cluster-scoped", "form-storage-uris", "uri-latest", "paths-base", "service-port",
    }  # fmt: skip
    fixtures = [fixture for fixture in FIXTURES if fixture.name in chosen]

    with contextlib.ExitStack() as stack:
        for fixture in fixtures:
            stack.enter_context(fixture.applied(root))
        done = run("validate", "--root", root)

    assert (done.code, done.out) == (1, "")
    assert sorted(done.errors) == sorted(line for fixture in fixtures for line in fixture.errors)
    assert frozenset().union(*(fixture.rules for fixture in fixtures)) >= {*rules.RULES, "schema"}


@pytest.mark.parametrize("rule", [*validate.RULES, "schema"])
def test_every_rule_has_fixtures(rule: str) -> None:
    assert sum(rule in fixture.rules for fixture in FIXTURES) >= 2


def test_a_fixture_names_rules_that_there_are() -> None:
    assert frozenset().union(*(fixture.rules for fixture in FIXTURES)) <= {*validate.RULES, "schema"}


def test_the_untouched_repository_passes(root: Path) -> None:
    done = run("validate", "--root", root)

    assert (done.code, done.err) == (0, "")
    counts = f"{len(FOLDERS)} renders with {count(root)} objects"
    assert done.out == f"{counts}: schemas and {len(validate.RULES)} rules hold\n"


def test_released_apps_pass_and_no_finding_is_an_empty_list_in_json(root: Path, tmp_path: Path) -> None:
    made = package(tmp_path / "artifacts")
    manifest = versions.parse_manifest((made.folder / versions.MANIFEST).read_bytes(), made.uri)
    uri = made.uri.rstrip("/")
    for app, flavour in (("iris-api", "onnx"), ("iris-sklearn", "sklearn")):
        file = root / layout.release_path(app, "prod")
        released = release.make(app, "prod", f"{uri}/{flavour}/", manifest, IMAGE)
        file.write_bytes(release.write(file.read_bytes(), released))

    done = run("validate", "--root", root, "--json")

    assert (done.code, json.loads(done.out), done.err) == (0, [], "")


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
        "where": "overlays/dev/iris-api: Service ml-dev/iris-api",
        "message": "spec.ports.0: 'port' is a required property",
        "folders": ["overlays/dev/iris-api"],
    }


def test_every_fault_of_an_object_is_named_by_its_own_field(root: Path) -> None:
    file = root / "base/api/deployment.yaml"
    file.write_text(file.read_text().replace("periodSeconds: 2\n", "periodSecond: two\n").replace("[ALL]", "ALL"))

    errors = run("validate", "--root", root).errors

    container = "overlays/prod/iris-api: Deployment.apps ml-prod/iris-api: spec.template.spec.containers.0"
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
    repository = Repository(manifests, layout.read_policy(manifests), {ARGOCD: [item], "overlays/dev/iris-api": [item]})

    assert validate.check(repository, [])


def test_the_framework_forms_are_those_of_kserve() -> None:
    schema = json.loads((schemas.folder() / "serving.kserve.io/inferenceservice_v1beta1.json").read_text())
    predictor = schema["properties"]["spec"]["properties"]["predictor"]["properties"]

    forms = {name for name, field in predictor.items() if "storageUri" in field.get("properties", {})}

    assert forms == {*rules.FRAMEWORKS, "model"}


# --changed-since


BROKEN = "overlays/{0}/iris-{1}: {2} ml-{0}/iris-{1}: {3} [schema]"
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
    "overlays/dev/iris-api: Deployment.apps ml-dev/iris-api is no longer rendered, and Argo CD would delete it;"
    " to remove it on purpose, run `python scripts/retire_app.py --app iris-api --env dev` [removal]"
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
    checkout.replace("overlays/prod/iris-api/kustomization.yaml", "iris-api.ml.example.com", "api.ml.example.com")


def what_an_environment_shares(checkout: Checkout) -> None:
    checkout.replace("overlays/dev/shared/model-reader.yaml", 'endpoints: "true"', 'endpoints: "false"')


def the_policy(checkout: Checkout) -> None:
    checkout.replace("overlays/promotion.yaml", "mlops-prod", "mlops-models")


def the_scripts(checkout: Checkout) -> None:
    checkout.write("scripts/gitops/rules.py", "# other rules\n")


def nothing_that_is_rendered(checkout: Checkout) -> None:
    checkout.write("README.md", "Other words.\n")


def an_overlay_less(checkout: Checkout) -> None:
    shutil.rmtree(checkout.root / "overlays/dev/iris-api")


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


@pytest.mark.parametrize("name", ["same-network-policy", "overlay-excluded", "paths-other-environment"])
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


KUSTOMIZE, KUBECONFORM = (f"bin/{program.path.name}" for program in (tools.KUSTOMIZE, tools.KUBECONFORM))
SOURCES = tools.schema_sources().name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    made = Cache(tmp_path / "cache", tools.cache(), schemas.folder().name)
    monkeypatch.setenv("MODEL_GITOPS_CACHE", str(made.folder))
    made.folder.mkdir()
    return made


def test_a_missing_tool_or_schema_is_a_failure(root: Path, cache: Cache) -> None:
    errors = [run("validate", "--root", root).errors]
    cache.install(KUSTOMIZE)
    errors.append(run("validate", "--root", root).errors)
    cache.install(KUBECONFORM)
    errors.append(run("validate", "--root", root).errors)

    assert errors == [
        [f"kustomize {tools.KUSTOMIZE.version} is not built yet: run `make setup`"],
        [f"kubeconform {tools.KUBECONFORM.version} is not built yet: run `make setup`"],
        ["the schemas are not unpacked yet: run `make setup`"],
    ]


def test_a_kind_whose_schema_is_missing_is_a_failure(root: Path, cache: Cache) -> None:
    cache.install(KUSTOMIZE, KUBECONFORM, SOURCES)
    shutil.copytree(cache.real / cache.schemas, cache.folder / cache.schemas)
    (cache.folder / cache.schemas / "networking.k8s.io/ingress_v1.json").unlink()

    done = run("validate", "--root", root)

    assert done.code == 1
    assert done.errors == [
        f"overlays/{environment}/iris-api: Ingress.networking.k8s.io ml-{environment}/iris-api: apiVersion:"
        " networking.k8s.io/v1: has no such kind in the versions that tools/schemas/go.mod pins [schema]"
        for environment in ("dev", "prod", "staging")
    ]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo '{\"resources\": []}'", "kubeconform: {} objects were given, 0 answered or some were skipped"),
        ("echo 'out of memory' >&2; exit 2", "kubeconform: out of memory"),
        ("exit 0", "kubeconform: no result"),
    ],
)
def test_a_check_that_answers_for_fewer_objects_is_a_failure(root: Path, cache: Cache, script: str, error: str) -> None:
    cache.install(KUSTOMIZE, SOURCES, cache.schemas)
    tools.KUBECONFORM.path.write_text(f"#!/bin/sh\n{script}\n")
    tools.KUBECONFORM.path.chmod(0o755)

    done = run("validate", "--root", root)

    objects = count(root)
    assert (done.code, done.out, done.errors) == (1, "", [error.format(objects)])

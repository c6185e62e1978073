"""What still serves after a change: from the renders before it and after it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import corpus
import pytest
from conftest import IMAGE, package, write_release

from gitops.checks import serving
from gitops.checks.serving import Renders
from gitops.manifests import closure, kustomize
from gitops.manifests.objects import Object
from gitops.releases.release import Target
from gitops.repo import layout
from gitops.repo.policy import read_policy

FLAVOURS = (("lily-api", "onnx", IMAGE), ("lily-batch", "onnx", IMAGE), ("lily-sklearn", "sklearn", None))
API, BATCH, MODEL = "overlays/prod/lily-api", "overlays/prod/lily-batch", "overlays/prod/lily-sklearn"
Edits = Mapping[str, tuple[str, str]]
"""What is replaced, by file."""


class World:
    """A repository whose apps are released in prod alone, and the renders of its overlays."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders = layout.overlays(root, read_policy(root))
        self.before = self.rendered(self.folders)

    def rendered(self, folders: list[str]) -> dict[str, list[Object]]:
        return {folder: kustomize.objects(text) for folder, text in kustomize.build_all(self.root, folders).items()}

    def after(self, edits: Edits) -> Renders:
        """The renders with some edits, which are then undone."""
        whole = {path: (self.root / path).read_bytes() for path in edits}
        try:
            for path, (old, new) in edits.items():
                text = whole[path].decode()
                assert text.count(old) == 1, f"{path}: {old!r} stands {text.count(old)} times"
                (self.root / path).write_text(text.replace(old, new))
            return self.before | self.rendered(closure.readers(self.root, self.folders, edits))
        finally:
            for path, data in whole.items():
                (self.root / path).write_bytes(data)


@pytest.fixture(scope="module")
def world(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("serving")
    corpus.copy(manifests, root)
    made = package(tmp_path_factory.mktemp("artifacts"))
    for app, flavour, image in FLAVOURS:
        write_release(root, Target(app, "prod"), made, flavour, image)
    yield World(root)
    shutil.rmtree(root)


def patch(folder: str, kind: str, *operations: str) -> Edits:
    """A patch of one kind in an overlay."""
    lines = "".join(f"\n      - {operation}" for operation in operations)
    start = "patches:\n  - path: release.yaml\n"
    return {f"{folder}/kustomization.yaml": (start, f"{start}  - target: {{kind: {kind}}}\n    patch: |-{lines}\n")}


def set_to(path: str, value: str) -> str:
    return f"{{op: add, path: {path}, value: {value}}}"


def without(path: str) -> str:
    return f"{{op: remove, path: {path}}}"


def left_out(shape: str, *kinds: str) -> Edits:
    """Kinds that a shape has no longer."""
    file = f"base/{shape}/kustomization.yaml"
    listed = {
        "api": "deployment horizontalpodautoscaler ingress networkpolicy poddisruptionbudget service serviceaccount"
    }
    listed["batch"] = "cronjob networkpolicy serviceaccount"
    names = listed[shape].split()
    old, new = (
        "".join(f"  - {name}.yaml\n" for name in chosen) for chosen in (names, [n for n in names if n not in kinds])
    )
    return {file: (old, new)}


NO_SCALER = {"base/api/kustomization.yaml": ("  - horizontalpodautoscaler.yaml\n", "")}
NO_SCALER |= {f"overlays/{name}/shared/kustomization.yaml": (
    "  - path: replicas-api.yaml\n    target:\n      kind: HorizontalPodAutoscaler\n", "",
) for name in ("dev", "prod")}  # fmt: skip
DEPLOYMENT, CRON, ISVC = "Deployment.apps", "CronJob.batch", "InferenceService.serving.kserve.io"
GONE = [
    # A workload that makes no pods.
    ({**NO_SCALER, **patch(API, "Deployment", set_to("/spec/replicas", "0"))}, f"{DEPLOYMENT} running spec.replicas"),
    (patch(API, "Deployment", set_to("/spec/replicas", "0")), f"{DEPLOYMENT} running spec.replicas"),
    (patch(API, "Deployment", set_to("/spec/paused", "true")), f"{DEPLOYMENT} running spec.paused"),
    (patch(API, "HorizontalPodAutoscaler", set_to("/spec/minReplicas", "0")), f"{DEPLOYMENT} running minReplicas"),
    (patch(API, "HorizontalPodAutoscaler", set_to("/spec/maxReplicas", "0")), f"{DEPLOYMENT} running maxReplicas"),
    (patch(API, "Deployment", set_to("/spec/template/spec/schedulingGates", "[{name: never}]")),
     f"{DEPLOYMENT} running schedulingGates"),
    (patch(API, "Deployment", set_to("/spec/template/spec/readinessGates", "[{conditionType: never}]")),
     f"{DEPLOYMENT} running readinessGates"),
    (patch(API, "Deployment", set_to("/spec/template/spec/containers/0/image", "unreleased")),
     f"{DEPLOYMENT} running unreleased"),
    (patch(BATCH, "CronJob", set_to("/spec/suspend", "true")), f"{CRON} running spec.suspend"),
    (patch(BATCH, "CronJob", set_to("/spec/startingDeadlineSeconds", "1")), f"{CRON} running startingDeadlineSeconds"),
    (patch(BATCH, "CronJob", set_to("/spec/jobTemplate/spec/suspend", "true")), f"{CRON} running spec.suspend"),
    (patch(BATCH, "CronJob", set_to("/spec/jobTemplate/spec/parallelism", "0")), f"{CRON} running parallelism"),
    (patch(BATCH, "CronJob", set_to("/spec/jobTemplate/spec/completions", "0")), f"{CRON} running completions"),
    (patch(BATCH, "CronJob", set_to("/spec/jobTemplate/spec/managedBy", "example.com/none")),
     f"{CRON} running managedBy"),
    (patch(MODEL, "InferenceService", set_to("/metadata/annotations/serving.kserve.io~1stop", '"true"')),
     f"{ISVC} running stop"),
    (patch(MODEL, "InferenceService", set_to("/spec/predictor/maxReplicas", "0")), f"{ISVC} running maxReplicas"),
    (patch(MODEL, "InferenceService", set_to("/spec/predictor/model/storageUri", "s3://unreleased/")),
     f"{ISVC} running unreleased"),
    # What leads there.
    (patch(API, "Service", set_to("/spec/selector/tier", "web")), f"{DEPLOYMENT} reached by a Service"),
    (patch(API, "Service", without("/spec/selector")), f"{DEPLOYMENT} reached by a Service"),
    (patch(API, "Service", set_to("/spec/ports/0/targetPort", "8080")), f"{DEPLOYMENT} reached by a Service"),
    (patch(API, "Service", set_to("/spec/ports/0/targetPort", "web")), f"{DEPLOYMENT} reached by a Service"),
    (patch(API, "Service", set_to("/spec/ports/0/protocol", "UDP")), f"{DEPLOYMENT} reached by a Service"),
    (patch(API, "Service", set_to("/spec/type", "ExternalName")), f"{DEPLOYMENT} reached by a Service"),
    (patch(API, "Deployment", set_to("/spec/template/metadata/labels/app.kubernetes.io~1name", "other")),
     f"{DEPLOYMENT} reached by a Service"),
    (patch(API, "Deployment", set_to("/spec/template/spec/containers/0/ports/0/containerPort", "5002")),
     f"{DEPLOYMENT} reached by a Service"),
    (patch(API, "Ingress", set_to("/spec/rules/0/http/paths/0/backend/service/name", "other")),
     f"{DEPLOYMENT} reached by an Ingress"),
    (patch(API, "Ingress", set_to("/spec/rules/0/http/paths/0/backend/service/port/name", "web")),
     f"{DEPLOYMENT} reached by an Ingress"),
    (patch(API, "Ingress", set_to("/spec/rules/0/http/paths", "[]")), f"{DEPLOYMENT} reached by an Ingress"),
    # What lets it through: the environment denies all else.
    (patch(API, "NetworkPolicy", set_to("/spec/ingress", "[]")), f"{DEPLOYMENT} reached by a Service"),
    (patch(API, "NetworkPolicy", set_to("/spec/ingress/0/ports/0/port", "web")), f"{DEPLOYMENT} reached by a Service"),
    (patch(API, "NetworkPolicy", set_to("/spec/podSelector/matchLabels/tier", "web")),
     f"{DEPLOYMENT} reached by a Service"),
    (patch(MODEL, "NetworkPolicy", set_to("/spec/ingress/0/ports/0/port", "8081")), f"{ISVC} open to callers"),
    (patch(MODEL, "NetworkPolicy", set_to("/spec/policyTypes", "[Egress]")), f"{ISVC} open to callers"),
    (patch(BATCH, "NetworkPolicy", set_to("/spec/egress", "[]")), f"{CRON} able to call out"),
    ({"base/environment/networkpolicy-dns.yaml": ("protocol: UDP", "protocol: SCTP")},
     f"{DEPLOYMENT} able to look up names"),
    (patch(BATCH, "NetworkPolicy", set_to("/spec/egress/0/ports", "[{port: 53}]")), f"{CRON} able to call out"),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "expected"), GONE)
def test_what_serves_no_more_is_named_with_what_it_lacks(world: World, edits: Edits, expected: str) -> None:
    losses = serving.lost(world.before, world.after(edits))

    kind, *words = expected.split()
    assert losses
    assert all(loss.folder.startswith("overlays/prod/") for loss in losses)
    for word in words:
        assert word in f"{losses[0]}"
    assert f"{losses[0]}".startswith(f"{kind} ml-prod/")


@pytest.mark.parametrize(("shape", "kind"), [("api", "service"), ("api", "ingress"), ("api", "networkpolicy")])
def test_what_leads_to_a_service_is_a_part_of_it(world: World, shape: str, kind: str) -> None:
    losses = serving.lost(world.before, world.after(left_out(shape, kind)))

    assert [loss.folder for loss in losses] == [API]
    assert losses[0].state.what.startswith("reached by")


def test_a_renamed_service_leaves_its_callers(world: World) -> None:
    after = copy.deepcopy(world.before)
    kinds = {item["kind"]: item for item in after[API]}
    kinds["Service"]["metadata"]["name"] = "lily"
    kinds["Ingress"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "lily"

    [loss] = serving.lost(world.before, after)

    assert str(loss) == "Service ml-prod/lily-api is no longer answering (it is not rendered)"


def test_a_label_that_is_called_as_a_field_of_a_release_is_none(world: World) -> None:
    before = copy.deepcopy(world.before)
    kinds = {item["kind"]: item for item in before[API]}
    for labels in (kinds["Service"]["spec"]["selector"], kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]):
        labels["image"] = "one"
    after = copy.deepcopy(before)
    next(item for item in after[API] if item["kind"] == "Service")["spec"]["selector"]["image"] = "two"

    assert [loss.state.what for loss in serving.lost(before, after)] == ["reached by a Service"]


STAY = [
    patch(API, "Deployment", set_to("/spec/template/spec/terminationGracePeriodSeconds", "60")),
    patch(API, "Deployment", set_to("/metadata/labels/team", "flowers")),
    patch(API, "Service", set_to("/spec/ports/0/targetPort", "http")),
    patch(API, "Service", set_to("/spec/ports/0/port", "8080")),
    patch(API, "HorizontalPodAutoscaler", set_to("/spec/minReplicas", "1")),
    patch(API, "NetworkPolicy", set_to("/spec/ingress/0/ports/0/port", "5001")),
    patch(API, "NetworkPolicy", without("/spec/ingress/0/ports")),
    patch(BATCH, "CronJob", set_to("/spec/schedule", '"0 5 * * 1"')),
    patch(MODEL, "InferenceService", set_to("/spec/predictor/minReplicas", "1")),
    {f"{API}/kustomization.yaml": ("lily-api.ml.example.com", "lily.ml.example.com")},
    NO_SCALER,
    # Before its first release nothing of an app serves.
    patch("overlays/dev/lily-batch", "CronJob", set_to("/spec/suspend", "true")),
    patch("overlays/dev/lily-api", "Service", set_to("/spec/selector/tier", "web")),
]


@pytest.mark.parametrize("edits", STAY)
def test_a_change_that_leaves_everything_serving_is_none(world: World, edits: Edits) -> None:
    after = world.after(edits)

    assert serving.lost(world.before, after) == []
    assert serving.frozen(world.before, after) == []


def test_a_second_service_may_be_added_and_its_app_moved_to_another_folder(world: World) -> None:
    second = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "second", "namespace": "ml-prod"},
         "spec": {"selector": {"app.kubernetes.io/name": "lily-api"}, "ports": [{"port": 81, "targetPort": 5001}]}}
    ]  # fmt: skip
    moved = {folder: items for folder, items in world.before.items() if folder != API}

    assert serving.lost(world.before, {**moved, "overlays/prod/lily": [*world.before[API], *second]}) == []


def test_a_service_that_leads_to_another_workload_leaves_the_first_alone(world: World) -> None:
    """Both run, and the Service answers; but what was released is not what its callers reach."""
    kinds = {item["kind"]: item for item in world.before[API]}
    deployment, service = kinds["Deployment"], kinds["Service"]
    labels = {"app.kubernetes.io/name": "lily-api", "tier": "new"}
    template = deployment["spec"]["template"]
    other = {
        **deployment,
        "metadata": {**deployment["metadata"], "name": "other"},
        "spec": {**deployment["spec"], "template": {**template, "metadata": {"labels": labels}}},
    }
    repointed = {**service, "spec": {**service["spec"], "selector": labels}}
    after = [item for item in world.before[API] if item is not service]

    [loss] = serving.lost(world.before, {**world.before, API: [*after, other, repointed]})

    assert str(loss).startswith("Deployment.apps ml-prod/lily-api is no longer reached by a Service (none")


FROZEN = [
    (patch(API, "Deployment", set_to("/spec/selector/matchLabels/tier", "web")), "spec.selector"),
    (patch(API, "Deployment", set_to("/spec/selector/matchExpressions", "[{key: tier, operator: DoesNotExist}]")),
     "spec.selector"),
    (patch(API, "Service", set_to("/spec/clusterIP", "None")), "spec.clusterIP"),
    (patch(API, "Service", set_to("/spec/clusterIPs", "[10.0.0.9]")), "spec.clusterIPs"),
    (patch(MODEL, "InferenceService", set_to("/metadata/annotations/serving.kserve.io~1deploymentMode", "Knative")),
     "metadata.annotations.serving.kserve.io/deploymentMode"),
    (patch(MODEL, "InferenceService", without("/metadata/annotations/serving.kserve.io~1deploymentMode")),
     "metadata.annotations.serving.kserve.io/deploymentMode"),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "path"), FROZEN)
def test_a_field_that_no_update_may_change_is_found(world: World, edits: Edits, path: str) -> None:
    [(folder, item, found)] = serving.frozen(world.before, world.after(edits))

    assert (folder, found) == (f"overlays/prod/{item['metadata']['name']}", path)


@pytest.mark.parametrize(
    ("kind", "before", "after", "path"),
    [
        ("apps/v1 StatefulSet", {"spec": {"serviceName": "a"}}, {"spec": {"serviceName": "b"}}, "spec.serviceName"),
        ("batch/v1 Job", {"spec": {"template": {"spec": {"a": 1}}}}, {"spec": {"template": {"spec": {"a": 2}}}},
         "spec.template"),
        ("v1 ConfigMap", {"immutable": True, "data": {"a": "1"}}, {"immutable": True, "data": {"a": "2"}}, "data"),
        ("v1 Secret", {"immutable": True}, {}, "immutable"),
        ("apps/v1 StatefulSet", {"spec": {"replicas": 1}}, {"spec": {"replicas": 2}}, None),
        ("v1 ConfigMap", {"data": {"a": "1"}}, {"data": {"a": "2"}}, None),
    ],
)  # fmt: skip
def test_other_kinds_have_such_fields_too(kind: str, before: Object, after: Object, path: str | None) -> None:
    version, name = kind.split()
    item = {"apiVersion": version, "kind": name, "metadata": {"name": "a", "namespace": "ml-dev"}}

    found = serving.frozen({"overlays/dev/a": [item | before]}, {"overlays/dev/a": [item | after]})

    assert [each[2] for each in found] == [path] * (path is not None)


def test_an_app_that_was_never_released_may_change_every_field(world: World) -> None:
    edits = patch("overlays/dev/lily-api", "Deployment", set_to("/spec/selector/matchLabels/tier", "web"))

    assert serving.frozen(world.before, world.after(edits)) == []

"""The API server's own verdict on the corpus of faults, with the policies of argocd/platform/ in force.

On an API server alone, which has KServe's kinds and neither its webhooks nor any controller: what it refuses, the
policies refuse. What controllers make on the whole control plane: test_made.py.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import corpus
import pytest
import yaml
from conftest import IMAGE, REGISTRY, package, wait_until, write_release
from corpus import FIXTURES, Fixture

from gitops.cluster.control_plane import ControlPlane
from gitops.cluster.kube import Cluster, apply_all
from gitops.manifests import ack, closure, kustomize, workloads
from gitops.manifests.objects import Identity, Object, at, identity
from gitops.programs import tools
from gitops.releases.release import UNRELEASED
from gitops.repo import layout
from gitops.repo.policy import read_policy

from contract.errors import Refused

from .conftest import FLAVOURS, create, targets

# What a cluster cannot know, because it does not see the files, and where it fills in an empty name by itself.
OTHERWISE = (
    "release-", "place-", "inference-service-required", "namespace-of-another-environment",
    # No expression of a policy has a digest of a text.
    "sagemaker-name",
)  # fmt: skip
# What their findings are about, the cluster judges as well.
ASKED = {"schema", "release", "image", "model-form", "storage", "workloads"}
# By the policies, or because there is no such kind, or no such place in a list that the kind keeps by name.
BY_POLICY = re.compile("ValidatingAdmissionPolicy|has no such kind|Duplicate value")
SPACES = ("ml-dev", "ml-staging", "ml-prod")
KUBERNETES = "system:serviceaccount:kube-system:"
FOREIGN = "docker.io/someone/server:1"


@pytest.fixture(scope="module")
def released_root(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is when every app is released: what is not released is refused whatever else is wrong."""
    root = tmp_path_factory.mktemp("admission") / "root"
    corpus.copy(manifests, root)
    version = package(root.parent / "version")
    for target in targets():
        write_release(root, target, version, FLAVOURS[target.app], IMAGE)
    return root


@pytest.fixture(scope="module")
def plane(released_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(released_root, tmp_path_factory.mktemp("api-server"))
    try:
        plane.start("etcd", "kube-apiserver")
        install(plane.cluster, released_root)
        yield plane
    finally:
        plane.down()


@pytest.fixture
def server(plane: ControlPlane) -> Cluster:
    return plane.cluster


def as_user(plane: ControlPlane, name: str) -> Cluster:
    """The server as it is to somebody else who may do everything: only the name tells them apart."""
    cluster = Cluster(plane.kubeconfig)
    for header, value in (("Impersonate-User", name), ("Impersonate-Group", "system:masters")):
        cluster.api.set_default_header(header, value)  # type: ignore[no-untyped-call]
    return cluster


def install(cluster: Cluster, root: Path) -> None:
    """KServe's kinds and ACK's, the namespaces and what is in them by default, and the policies, in force."""
    files = sorted((tools.KSERVE.files / "config/crd/full").rglob("serving.kserve.io_*.yaml"))
    kinds = [open_schema(yaml.load(file.read_text(), yaml.CSafeLoader)) for file in files] + ack.definitions()
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("argocd", *SPACES)]
    apply_all(cluster, [*kinds, *spaces])
    for space in SPACES:
        for name in ("default", *FLAVOURS):
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": space}}
            cluster.apply(account)
    served = [(f"{kind['spec']['group']}/{version['name']}", kind["spec"]["names"]["kind"])
              for kind in kinds for version in kind["spec"]["versions"]]  # fmt: skip
    wait_until(lambda: all(cluster.has(*kind) for kind in served), "the kinds are served")
    policies = [item for item in rendered(root, layout.PLATFORM) if item["kind"] != "Application"]
    apply_all(cluster, policies)
    for name in BREAKS:
        wait_until(lambda name=name: name in str(words(cluster, BREAKS[name])), f"{name} is in force")  # type: ignore[misc]


def open_schema(kind: Object) -> Object:
    """The definition of a kind; where it takes the server seconds and no fixture needs it, without its schema."""
    if kind["spec"]["names"]["kind"].startswith("LLM"):
        for version in kind["spec"]["versions"]:
            anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            version["schema"]["openAPIV3Schema"] = anything
    return kind


def rendered(root: Path, folder: str) -> list[Object]:
    return kustomize.objects(kustomize.build(root, folder))


def words(cluster: Cluster, item: Object) -> tuple[str, ...]:
    """The server's words against an object; none if it would take it."""
    try:
        if workloads.runs(item):
            # Unlike server-side apply, it takes a variable that stands twice.
            create(cluster, item, dry_run=True)
        else:
            cluster.apply(item, dry_run=True)
    except Refused as refused:
        return refused.lines
    return ()


def pod(image: str, **env: str) -> Object:
    variables = [{"name": name, "value": value} for name, value in env.items()]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": "ml-dev"},
        "spec": {"containers": [{"name": "probe", "image": image, "env": variables}]},
    }


# What each of the policies refuses, and no other; that of withdrawn versions refuses nothing yet.
BREAKS = {
    "model-images": pod(FOREIGN),
    "model-releases": pod(IMAGE, MODEL_URI="s3://elsewhere/model/"),
    "model-kinds": {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": "probe", "namespace": "ml-dev"},
        "spec": {"nodes": {"root": {"routerType": "Sequence"}}},
    },
}


def folders(root: Path) -> list[str]:
    return layout.folders(root, read_policy(root))


@pytest.fixture(scope="module")
def before(released_root: Path) -> dict[str, list[Object]]:
    """What the released repository renders, by folder."""
    return {folder: rendered(released_root, folder) for folder in folders(released_root)}


def test_a_released_repository_is_admitted(server: Cluster, before: dict[str, list[Object]]) -> None:
    for folder, items in before.items():
        for item in items if folder.startswith("overlays/") else ():
            assert words(server, item) == (), identity(item)


@pytest.mark.parametrize("app", ["lily-api", "lily-batch"])
def test_a_replica_takes_nothing_away_from_what_is_compared(
    server: Cluster, before: dict[str, list[Object]], app: str
) -> None:
    [found] = [item for item in before[f"overlays/dev/{app}"] if workloads.pod_keys(item)]
    item = copy.deepcopy(found)
    variables = at(item, *(workloads.pod_keys(item) or ()), "containers")[0]["env"]
    variables.append({"name": "MODEL_REPLICA", "value": "anything"})
    assert words(server, item) == ()

    variables[:] = [each for each in variables if each["name"] != "MODEL_MANIFEST"]
    assert "MODEL_MANIFEST beside MODEL_URI is not the annotation" in words(server, item)[0]


# Faults


def applicable(fixture: Fixture) -> bool:
    asked = fixture.catchers & ASKED and fixture.file.startswith(("base/", "apps/", "overlays/"))
    # Nothing is unreleased in the repository that is edited here.
    return bool(asked) and not fixture.name.startswith(OTHERWISE) and UNRELEASED not in fixture.old


ADMISSION = [fixture for fixture in FIXTURES if applicable(fixture)]


def test_there_are_faults_of_everything_that_makes_pods() -> None:
    by_policy = [fixture for fixture in ADMISSION if "schema" not in fixture.catchers]
    named = {line.split(": ")[1].split(" ")[0].split(".")[0] for fixture in by_policy for line in fixture.errors}

    assert len(by_policy) >= 60
    assert named >= {kind for _, kind in workloads.PODS} | {"InferenceService"}


@pytest.mark.parametrize("fixture", ADMISSION, ids=lambda fixture: fixture.name)
def test_what_validate_refuses_is_refused_by_the_server_too(
    server: Cluster, released_root: Path, before: dict[str, list[Object]], fixture: Fixture
) -> None:
    with fixture.applied(released_root):
        changed = closure.readers(released_root, list(before), [fixture.file, *fixture.beside])
        items = {folder: rendered(released_root, folder) for folder in changed}

    new = [item for folder in items for item in items[folder] if item not in before[folder]]
    said = [line for item in new for line in words(server, item)]
    assert said
    if "schema" not in fixture.catchers:
        assert all(BY_POLICY.search(line) for line in said), said


# Who asks


KSERVE = "system:serviceaccount:kserve:kserve-controller-manager"
OWNER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "lily-api", "uid": "any", "controller": True}


def template(image: str, **env: str) -> Object:
    labels = {"metadata": {"labels": {"app": "made"}}}
    return {"selector": {"matchLabels": {"app": "made"}}, "template": labels | {"spec": pod(image, **env)["spec"]}}


def made(kind: str, spec: Object, api_version: str = "apps/v1", space: str = "ml-prod", **metadata: Any) -> Object:
    named = {"name": "made", "namespace": space} | metadata
    return {"apiVersion": api_version, "kind": kind, "metadata": named, "spec": spec}


@pytest.mark.parametrize("name", ["deployment", "replicaset", "statefulset", "daemon-set", "job", "cronjob"])
def test_what_kubernetes_makes_of_what_was_admitted_is_not_asked_again(plane: ControlPlane, name: str) -> None:
    controller = as_user(plane, f"{KUBERNETES}{name}-controller")

    assert words(controller, made("ReplicaSet", template(FOREIGN, MODEL_URI="s3://any/"))) == ()
    assert words(controller, pod(FOREIGN, MODEL_URI="s3://any/")) == ()


@pytest.mark.parametrize(
    "user",
    [
        "admin",
        "deployment-controller",
        "system:serviceaccount:argocd:argocd-application-controller",
        "system:serviceaccount:ml-prod:deployment-controller",
        f"{KUBERNETES}deployment-controllers",
        f"{KUBERNETES}endpoint-controller",
        "",
    ],
)
@pytest.mark.parametrize("item", [
    made("ReplicaSet", template(FOREIGN), ownerReferences=[OWNER]),
    made("ReplicaSet", template(IMAGE, MODEL_URI="s3://any/"), ownerReferences=[OWNER]),
    made("Deployment", template(FOREIGN), ownerReferences=[
        {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": "lily-sklearn", "uid": "any"}]),
    made("Deployment", template(IMAGE), ownerReferences=[
        {"apiVersion": "serving.knative.dev/v1", "kind": "Revision", "name": "any", "uid": "any"}]),
], ids=["image", "model", "service", "revision"])  # fmt: skip
def test_whoever_else_names_an_owner_is_asked(plane: ControlPlane, user: str, item: Object) -> None:
    [said] = words(as_user(plane, user) if user else plane.cluster, item)

    assert "ValidatingAdmissionPolicy" in said


@pytest.mark.parametrize(
    ("image", "admitted"),
    [
        ("kserve/sklearnserver:v0.20.0", True),
        (f"kserve/sklearnserver:v0.20.0@sha256:{'2' * 64}", True),
        (IMAGE, True),
        (IMAGE.replace("@", ":v1@"), True),
        ("kserve/sklearnserver:v0.20.0.1", False),
        ("kserve/sklearnserver:latest", False),
        (f"{REGISTRY}/lily-api:1.2.3", False),
        (FOREIGN, False),
    ],
)
def test_kserve_starts_the_images_of_the_owner_and_of_the_serving_runtimes_alone(
    plane: ControlPlane, image: str, admitted: bool
) -> None:
    item = made("Deployment", template(image))

    assert (words(as_user(plane, KSERVE), item) == ()) is admitted
    # For everybody else a Deployment is a release.
    assert words(plane.cluster, item) != ()


@pytest.mark.parametrize("app", ["lily-api", "lily-batch"])
def test_production_takes_an_image_by_its_digest_alone(
    server: Cluster, before: dict[str, list[Object]], app: str
) -> None:
    for environment in ("dev", "prod"):
        [found] = [item for item in before[f"overlays/{environment}/{app}"] if workloads.pod_keys(item)]
        item = copy.deepcopy(found)
        at(item, *(workloads.pod_keys(item) or ()), "containers")[0]["image"] = f"{REGISTRY}/lily-api:1.2.3"
        said = words(server, item)
        assert said == () if environment == "dev" else "in production an image is named by its digest" in said[0]


def test_a_stateful_set_is_a_release_where_it_serves_a_model(server: Cluster, before: dict[str, list[Object]]) -> None:
    [found] = [item for item in before["overlays/dev/lily-api"] if item["kind"] == "Deployment"]
    spec = {key: value for key, value in found["spec"].items() if key in ("selector", "template")}
    item = copy.deepcopy(found | {"kind": "StatefulSet", "spec": spec | {"serviceName": "lily-api"}})
    assert words(server, item) == ()

    item["metadata"]["annotations"]["model.mlops/digest"] = f"sha256:{'9' * 64}"
    assert "not the digest of the version" in words(server, item)[0]
    assert words(server, made("StatefulSet", template(IMAGE), space="ml-dev")) == ()
    assert "ValidatingAdmissionPolicy" in words(server, made("StatefulSet", template(IMAGE, MODEL_URI="s3://any/")))[0]


@pytest.mark.parametrize("app", ["lily-api", "lily-batch", "lily-sklearn"])
def test_what_is_not_released_is_refused(server: Cluster, manifests: Path, app: str) -> None:
    [item] = [item for item in rendered(manifests, f"overlays/dev/{app}") if workloads.runs(item)]
    if keys := workloads.pod_keys(item):
        # Of two policies that refuse, the server names one.
        at(item, *keys, "containers")[0]["image"] = IMAGE

    [said] = words(server, item)

    assert "model-releases" in said


# SageMaker


@pytest.fixture(scope="module")
def endpoint(released_root: Path) -> dict[str, Object]:
    """The objects of a released app on SageMaker in production, by kind."""
    [fixture] = [fixture for fixture in FIXTURES if fixture.name == "sagemaker-alarms"]
    with contextlib.ExitStack() as stack:
        for path, text in fixture.beside.items():
            stack.enter_context(corpus.written(released_root / path, text))
        items = [
            item for item in rendered(released_root, "overlays/prod/lily-batch") if workloads.kind_of(item) in ack.KINDS
        ]
    return {item["kind"]: item for item in items}


def test_a_released_endpoint_is_admitted(server: Cluster, endpoint: dict[str, Object]) -> None:
    assert endpoint.keys() == {kind for _, kind in ack.KINDS}
    for kind, item in endpoint.items():
        assert words(server, item) == (), kind


NAMED = "otherwise than by this namespace and its own name"
ELSEWHERE = "ml-dev-lily-batch-2026-02-01-111111111111-60d0d4b8"


@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        ("Model", ("spec", "modelName"), ELSEWHERE, "not one of this namespace"),
        ("Model", ("spec", "executionRoleARN"), "arn:aws:iam::111122223333:role/ml-dev-sagemaker", "not one of this"),
        ("Model", ("spec", "primaryContainer", "image"), FOREIGN, "from no registry"),
        ("Model", ("spec", "primaryContainer", "image"), f"{REGISTRY}/lily-api:1", "named by its digest"),
        ("Model", ("spec", "primaryContainer", "modelDataURL"), "s3://mlops-prod/a.tar.gz", "another field"),
        ("Model", ("spec", "containers"), [{"image": IMAGE}], "another field"),
        ("Model", ("spec", "primaryContainer", "environment", "MODEL_URI"), "s3://mlops-prod/a/", "MODEL_URI is"),
        ("Model", ("spec", "primaryContainer", "environment", "MODEL_DIGEST"), "sha256:0", "MODEL_DIGEST beside"),
        ("Model", ("spec", "primaryContainer", "environment", "MODEL_MANIFEST"), "sha256:0", "MODEL_MANIFEST beside"),
        ("Model", ("spec", "primaryContainer", "environment"), {"A": "b"}, "names no model"),
        ("Model", ("metadata", "name"), "lily-batch", "not the annotation model.mlops/name"),
        ("Model", ("metadata", "annotations", "model.mlops/version"), "unreleased", "no released version"),
        ("EndpointConfig", ("spec", "endpointConfigName"), ELSEWHERE, NAMED),
        ("EndpointConfig", ("spec", "productionVariants", 0, "modelName"), ELSEWHERE, NAMED),
        ("Endpoint", ("spec", "endpointName"), "ml-dev-lily-batch", NAMED),
        ("Endpoint", ("spec", "endpointConfigName"), ELSEWHERE, NAMED),
        ("ScalableTarget", ("spec", "resourceID"), "endpoint/ml-dev-lily-batch/variant/serving", "what is scaled"),
        ("ScalableTarget", ("spec", "serviceNamespace"), "ecs", "what is scaled"),
        ("ScalingPolicy", ("spec", "policyName"), "ml-dev-lily-batch-requests", "what is scaled"),
    ],
)  # fmt: skip
def test_an_endpoint_is_of_its_release_and_of_its_namespace_alone(
    server: Cluster, endpoint: dict[str, Object], kind: str, path: tuple[Any, ...], value: Any, said: str
) -> None:
    item = copy.deepcopy(endpoint[kind])
    place: Any = item
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value

    assert any(said in line for line in words(server, item)), words(server, item)


def test_a_withdrawn_version_comes_to_no_new_model(server: Cluster, endpoint: dict[str, Object]) -> None:
    record = ("v1", "ConfigMap", "model-withdrawn", "argocd")
    key = "lily.2026-02-01-111111111111"
    server.patch(*record, {"data": {key: "wrong labels"}})
    try:
        wait_until(lambda: words(server, endpoint["Model"]) != (), "the record is in force")
        assert "withdrawn: 2026-02-01-111111111111, wrong labels" in words(server, endpoint["Model"])[0]
    finally:
        server.patch(*record, {"data": {key: None}})
        wait_until(lambda: words(server, endpoint["Model"]) == (), "the record is out of force")


def test_another_kind_of_sagemaker_is_refused(server: Cluster, endpoint: dict[str, Object]) -> None:
    """Its definition is there once ACK is."""
    kind = copy.deepcopy(next(each for each in ack.definitions() if each["spec"]["names"]["kind"] == "Model"))
    kind["metadata"]["name"] = f"trainingjobs.{ack.SAGEMAKER}"
    kind["spec"]["names"] = {"kind": "TrainingJob", "listKind": "TrainingJobList", "plural": "trainingjobs"}
    server.apply(kind)
    wait_until(lambda: server.has(f"{ack.SAGEMAKER}/{ack.VERSION}", "TrainingJob"), "the kind is served")

    said = words(server, endpoint["Model"] | {"kind": "TrainingJob"})

    assert "a kind that no policy looks into" in said[0]


# What changes, and what else there is


def test_what_runs_already_may_be_marked_and_not_be_changed(plane: ControlPlane, server: Cluster) -> None:
    """As where it was there before the policies, or before a registry was taken out of them."""
    controller = as_user(plane, f"{KUBERNETES}replicaset-controller")
    old = made("ReplicaSet", template(FOREIGN, MODEL_URI="s3://any/"), space="ml-dev")
    one = pod(FOREIGN) | {"metadata": {"name": "old", "namespace": "ml-dev"}}
    for item in (old, one):
        create(controller, item)
    finalized = {"metadata": {"finalizers": ["example.org/held"], "labels": {"app": "made"}}}
    where = {"ReplicaSet": ("apps/v1", "ReplicaSet", "made", "ml-dev"), "Pod": ("v1", "Pod", "old", "ml-dev")}

    server.patch(*where["Pod"], finalized)
    server.patch(*where["Pod"], {"metadata": {"finalizers": None}})
    [container] = at(server.get(*where["Pod"]), "spec", "containers")
    other = {"spec": {"containers": [container | {"image": "docker.io/someone/other:1"}]}}
    with pytest.raises(Refused, match="from no registry of the model policy"):
        server.patch(*where["Pod"], other)
    with pytest.raises(Refused, match="ValidatingAdmissionPolicy"):
        server.patch(*where["ReplicaSet"], {"spec": {"replicas": 2}})
    server.patch(*where["ReplicaSet"], {"metadata": {"finalizers": ["example.org/held"]}})
    server.patch(*where["ReplicaSet"], {"metadata": {"finalizers": None}})


@pytest.mark.parametrize(
    ("container", "fault"),
    [
        ({"image": FOREIGN}, "from no registry"),
        ({"image": f"{REGISTRY}/debug:latest"}, "latest"),
        ({"image": IMAGE, "env": [{"name": "MODEL_URI", "value": "s3://any/"}]}, "has no release"),
        ({"image": IMAGE}, None),
    ],
)
def test_a_container_that_is_added_to_a_pod_is_asked(
    plane: ControlPlane, server: Cluster, container: Object, fault: str | None
) -> None:
    create(server, pod(IMAGE) | {"metadata": {"name": "debugged", "namespace": "ml-dev"}})
    try:
        with server._translated("debugged"):
            pods = server._kind("v1", "Pod")
            body = {"spec": {"ephemeralContainers": [{"name": "debug"} | container]}}
            sent = {"content_type": "application/strategic-merge-patch+json", "body": body}
            pods.subresources["ephemeralcontainers"].patch(name="debugged", namespace="ml-dev", **sent)
    except Refused as refused:
        assert fault and fault in refused.lines[0]
    else:
        assert fault is None
    finally:
        server.delete("v1", "Pod", "debugged", "ml-dev")


# As little of each as its schema takes: the server asks that first.
CUSTOM: dict[str, Object] = {
    "InferenceGraph": {"nodes": {"root": {"routerType": "Sequence"}}},
    "LLMInferenceService": {"model": {"uri": "hf://any/model"}},
    "LLMInferenceServiceConfig": {},
    "LocalModelNamespaceCache": {"modelSize": "1Gi", "nodeGroups": ["any"], "sourceModelUri": "s3://any/"},
    "ServingRuntime": {"containers": [{"name": "kserve-container", "image": IMAGE}]},
    "TrainedModel": {
        "inferenceService": "lily-sklearn",
        "model": {"framework": "sklearn", "memory": "1Gi", "storageUri": "s3://any/"},
    },
}


@pytest.mark.parametrize("kind", CUSTOM)
def test_a_kind_that_nobody_looks_into_is_refused_by_name(server: Cluster, kind: str) -> None:
    [said] = words(server, made(kind, CUSTOM[kind], "serving.kserve.io/v1alpha1"))

    assert f"{kind}.serving.kserve.io: a kind that no policy looks into" in said


def test_other_namespaces_are_not_the_policies_affair(server: Cluster) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "argocd"}}
    server.apply(account)

    assert words(server, made("Deployment", template(FOREIGN), space="argocd")) == ()
    assert words(server, made("ReplicaSet", template(FOREIGN, MODEL_URI="s3://any/"), space="argocd")) == ()


@pytest.mark.parametrize("kind", ["Job", "StatefulSet", "Pod"])
def test_what_serves_no_model_needs_no_release(server: Cluster, kind: str) -> None:
    spec = {"Pod": pod(IMAGE)["spec"], "StatefulSet": template(IMAGE) | {"serviceName": "made"}}.get(kind)
    job = {"template": {"spec": pod(IMAGE)["spec"] | {"restartPolicy": "Never"}}}
    version = {"Job": "batch/v1", "Pod": "v1"}.get(kind, "apps/v1")

    assert words(server, made(kind, spec or job, version)) == ()


# Withdrawn versions

RECORD = Identity("", "ConfigMap", "argocd", "model-withdrawn")


def test_a_withdrawn_version_comes_nowhere_new_and_freezes_nothing(
    server: Cluster, released_root: Path, before: dict[str, list[Object]]
) -> None:
    [kept] = [copy.deepcopy(item) for item in before["overlays/dev/lily-api"] if item["kind"] == "Deployment"]
    version = at(kept, "metadata", "annotations", "model.mlops/version")
    [record] = [item for item in rendered(released_root, layout.PLATFORM) if identity(item) == RECORD]
    new = copy.deepcopy(kept)
    kept["metadata"]["name"] = "kept"
    create(server, kept)
    try:
        server.apply(record | {"data": {f"lily.{version}": "leaked labels"}})
        wait_until(lambda: "leaked labels" in str(words(server, new)), "the server refuses the version")
        server.apply(kept | {"metadata": kept["metadata"] | {"labels": {**kept["metadata"]["labels"], "more": "yes"}}})
    finally:
        server.delete("apps/v1", "Deployment", "kept", "ml-dev")
        server.apply(record | {"data": {}})
        wait_until(lambda: not words(server, new), "the server takes the version again")

"""The cluster's add-ons and modes, as far as renders show them. Their charts: tests/cluster/test_platform.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml
from conftest import ROOT, Checkout

import bootstrap
from gitops.checks import admission
from gitops.cluster import registered
from gitops.manifests import ack, kustomize, workloads
from gitops.manifests.objects import KUSTOMIZATION, Object, at
from gitops.programs import tools
from gitops.repo import layout
from gitops.repo.applications import Instance
from gitops.repo.policy import IN_CLUSTER, Policy

from contract.errors import Refused


@pytest.fixture(scope="module")
def addons(manifests: Path) -> dict[str, Object]:
    """The spec of every add-on, by its name."""
    items = kustomize.objects(kustomize.build(manifests, layout.PLATFORM))
    return {item["metadata"]["name"]: item["spec"] for item in items if item["kind"] == "Application"}


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("argo-cd", tools.ARGOCD.version),
        ("kserve", tools.KSERVE.version),
        ("kserve-crds", tools.KSERVE.version),
        ("kserve-runtimes", tools.KSERVE.version),
        ("cert-manager", tools.CHARTS.version(tools.CHARTS.modules[0])),
    ],
)
def test_an_add_on_has_the_version_that_is_pinned_for_checks(
    addons: dict[str, Object], name: str, version: str
) -> None:
    assert addons[name]["source"]["targetRevision"] == version


def test_argo_cd_keeps_its_settings_as_they_are_written(manifests: Path, addons: dict[str, Object]) -> None:
    [patch] = addons["argo-cd"]["source"]["kustomize"]["patches"]

    assert yaml.safe_load(patch["patch"]) == yaml.safe_load(
        (manifests / layout.PLATFORM / "argo-cd/argocd-cm.yaml").read_text()
    )


def application(name: str, project: str, sync: str | None, health: str | None) -> Object:
    status = {"sync": {"status": sync}, "health": {"status": health}} if sync else {}
    return {"kind": "Application", "metadata": {"name": name}, "spec": {"project": project}, "status": status}


def test_a_cluster_is_handed_over_when_its_add_ons_are_there_and_not_before() -> None:
    class Seen:
        def __init__(self, *found: Object) -> None:
            self.found = found

        def list(self, _: str, kind: str, space: str) -> list[Object]:
            return [item for item in self.found if item["kind"] == kind]

    root = application("root", "platform", "Synced", "Healthy")
    others = application("lily-api-dev", "dev", "OutOfSync", "Degraded")

    assert bootstrap._unsettled(Seen()) == ["Application root: not there"]  # type: ignore[arg-type]
    assert bootstrap._unsettled(Seen(root, application("platform", "platform", None, None))) == [  # type: ignore[arg-type]
        "Application platform: not compared, not known"
    ]
    assert bootstrap._unsettled(Seen(root, application("kserve", "addons", "Synced", "Progressing"))) == [  # type: ignore[arg-type]
        "Application kserve: Synced, Progressing"
    ]
    assert bootstrap._unsettled(Seen(root, others)) == []  # type: ignore[arg-type]
    failed = {"type": "ErrorOccurred", "status": "True", "message": "repository not found"}
    one = {"kind": "ApplicationSet", "metadata": {"name": "apps-dev"}, "status": {"conditions": [failed]}}
    assert bootstrap._unsettled(Seen(root, one)) == ["ApplicationSet apps-dev: repository not found"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("us=arn:aws:iam::444455556666:role/argocd", "us: no cluster that this Argo CD serves; write CLUSTER=ARN"),
        ("eu", "eu: no role; write CLUSTER=ARN"),
        ("eu=", "eu: no role; write CLUSTER=ARN"),
    ],
)
def test_a_role_is_of_a_cluster_that_is_served_and_never_left_out(text: str, line: str) -> None:
    with pytest.raises(Refused, match=f"^--aws-role {line}$"):
        bootstrap._roles([text], Instance(IN_CLUSTER, layout.ARGOCD, ("eu",)))


def test_a_cluster_whose_server_nothing_vouches_for_gets_no_account() -> None:
    hub, target = Mock(), Mock(server="https://eu.example.com")
    hub.list.return_value = []
    target.authority.side_effect = Refused("insecure")

    with pytest.raises(Refused, match="insecure"):
        registered.register(hub, target, "eu", [])

    assert [call for each in (hub, target) for call in each.method_calls if call[0] not in ("list", "authority")] == []


def test_a_cluster_that_a_role_comes_into_gets_no_token_by_the_next_run() -> None:
    hub, target = Mock(), Mock(server="https://eu.example.com")
    hub.list.return_value = target.list.return_value = []
    target.authority.return_value = b""
    registered.register(hub, target, "eu", [], "arn:aws:iam::444455556666:role/argocd")
    [made] = [call.args[0] for call in hub.apply.mock_calls]
    hub.get.return_value, first = made, list(target.mock_calls)
    target.reset_mock()

    registered.register(hub, target, "eu", [])

    assert hub.apply.mock_calls[-1].args == (made,)
    assert target.mock_calls == first


@pytest.fixture(scope="module")
def fleet(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """Argo CD as it keeps itself where the component `fleet` is listed."""
    folder = tmp_path_factory.mktemp("fleet")
    shutil.copytree(manifests / layout.ARGOCD, folder / layout.ARGOCD)
    listed = folder / layout.PLATFORM / KUSTOMIZATION
    listed.write_text(listed.read_text().replace("# - fleet", "- fleet"))
    objects = kustomize.objects(kustomize.build(folder, layout.PLATFORM))
    [source] = [item["spec"]["source"] for item in objects if item["metadata"]["name"] == "argo-cd"]
    shutil.copytree(tools.ARGOCD.files / "manifests", folder / "manifests")
    itself = {"resources": [source["path"]], "patches": source["kustomize"]["patches"]}
    (folder / KUSTOMIZATION).write_text(yaml.safe_dump(itself))
    return kustomize.objects(kustomize.build(folder, "."))


def test_settings_for_a_fleet_reach_the_programs_and_leave_the_others(manifests: Path, fleet: list[Object]) -> None:
    """A key that no program reads would be ignored without a word."""
    given = {item["metadata"]["name"]: item["data"] for item in fleet if item["kind"] == "ConfigMap" and "data" in item}
    read = {
        (source["name"], source["key"])
        for item in fleet
        for container in workloads.containers(item)
        for variable in container.fields.get("env") or []
        if (source := at(variable, "valueFrom", "configMapKeyRef"))
    }

    own = yaml.safe_load((manifests / layout.PLATFORM / "argo-cd/argocd-cm.yaml").read_text())["data"]
    # A text that ends with a line break or not is the same program.
    assert {key: text.strip() for key, text in own.items()}.items() <= {
        key: text.strip() for key, text in given["argocd-cm"].items()
    }.items()
    tuned = {("argocd-cm", key) for key in given["argocd-cm"] if key.startswith("timeout.")}
    tuned |= {("argocd-cmd-params-cm", key) for key in given["argocd-cmd-params-cm"]}
    assert len(tuned) == 4
    assert tuned <= read
    [server] = [
        item for item in fleet if item["kind"] == "Deployment" and at(item, "metadata", "name") == "argocd-server"
    ]
    [container] = workloads.containers(server)
    variables = {each["name"]: each.get("value") for each in container.fields["env"]}
    assert variables["ARGOCD_WEBHOOK_MANIFEST_CACHE_WARM_DISABLED"] == "true"
    assert container.fields["image"] and len(variables) > 20


def test_a_platform_for_a_fleet_is_valid(checkout: Checkout) -> None:
    listed = checkout.root / layout.PLATFORM / KUSTOMIZATION
    listed.write_text(listed.read_text().replace("# - fleet", "- fleet"))

    done = checkout.run("validate")

    assert done.code == 0, done.err


def with_knative(checkout: Checkout) -> None:
    dev = "overlays/dev"
    for path, old, new in (
        ("argocd/platform/kustomization.yaml", "# - knative", "- knative"),
        (
            f"{dev}/lily-sklearn/kustomization.yaml",
            "  - ../shared",
            "  - ../shared\n  - ../../../base/inference-service/knative",
        ),
        (
            f"{dev}/shared/replicas-inference-service.yaml",
            "    minReplicas: 1",
            "    minReplicas: 0\n    canaryTrafficPercent: 10",
        ),
    ):
        file = checkout.root / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))


def test_a_service_in_the_mode_knative_scales_to_zero_where_the_platform_has_knative(checkout: Checkout) -> None:
    with_knative(checkout)

    done = checkout.run("validate")

    assert done.code == 0, done.err


# From the source of Knative Serving 1.21.1, pkg/apis/serving/fieldmask.go: its webhook refuses any other field, but for
# those that argocd/platform/knative/serving/knative-serving.yaml enables.
POD = {"serviceAccountName", "automountServiceAccountToken", "topologySpreadConstraints", "securityContext"}
CONTAINER = {"resources", "securityContext", "startupProbe", "livenessProbe", "readinessProbe"}
KSERVE = {
    "minReplicas",
    "maxReplicas",
    "scaleMetric",
    "scaleTarget",
    "canaryTrafficPercent",
    "model",
    "storageContainerName",
}
MODEL = {"modelFormat", "runtime", "protocolVersion", "storageUri"}


def test_a_service_in_the_mode_knative_says_nothing_that_knative_refuses(checkout: Checkout) -> None:
    with_knative(checkout)

    items = kustomize.objects(kustomize.build(checkout.root, "overlays/dev/lily-sklearn"))

    [service] = [item for item in items if item["kind"] == "InferenceService"]
    predictor = service["spec"]["predictor"]
    assert set(predictor) <= POD | KSERVE
    assert set(predictor["model"]) <= CONTAINER | MODEL


# Admission


def test_the_policies_are_locked_as_they_are() -> None:
    assert (ROOT / admission.LOCK).read_text() == admission.lock(ROOT), "run `python scripts/lock.py --policies`"


@pytest.mark.parametrize(("name", "of_sagemaker"), [("images", [ack.MODEL]), ("releases", [*ack.KINDS])])
def test_the_policies_match_everything_that_makes_pods_or_an_endpoint(
    name: str, of_sagemaker: list[tuple[str, str]]
) -> None:
    policy = yaml.safe_load((ROOT / admission.FOLDER / f"{name}.yaml").read_text())

    rules = policy["spec"]["matchConstraints"]["resourceRules"]
    matched = {(group, resource) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"]}
    plurals = {each["spec"]["names"]["kind"]: each["spec"]["names"]["plural"] for each in ack.definitions()}
    made = {*workloads.PODS, ("serving.kserve.io", "InferenceService"), *of_sagemaker}
    resources = {(group, plurals.get(kind, f"{kind.lower()}s")) for group, kind in made}
    assert matched == resources | {("", "pods/ephemeralcontainers")}
    assert {operation for rule in rules for operation in rule["operations"]} == {"CREATE", "UPDATE"}


@pytest.mark.parametrize("environments", [["dev", "staging", "prod"], ["test", "prod-eu"], ["only"]])
def test_a_policy_is_in_force_in_every_environment_of_the_policy_file(environments: list[str]) -> None:
    policy = Policy("bucket", ("registry.example.org",), tuple(environments))

    spec = admission.binding("model-images", policy)["spec"]

    [chosen] = spec["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert chosen["values"] == [f"ml-{environment}" for environment in environments]
    assert (spec["validationActions"], spec["paramRef"]["parameterNotFoundAction"]) == (["Deny"], "Deny")

"""What a reviewer of production asks of the manifests, looked up in what is rendered."""

from __future__ import annotations

import ipaddress
import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SAMPLE

from gitops.checks import admission
from gitops.manifests import ack, closure, kustomize
from gitops.manifests.objects import differences, identity, leaves
from gitops.repo import applications as environments
from gitops.repo import layout
from gitops.repo.policy import POLICY_FILE, read_policy

POLICY = read_policy(SAMPLE)
OVERLAYS = layout.overlays(SAMPLE, POLICY)
APPS = [folder for folder in OVERLAYS if not folder.endswith("/environment")]
APIS = [folder for folder in APPS if folder.endswith("/lily-api")]
MODELS = [folder for folder in APPS if folder.endswith("/lily-sklearn")]
SERVICES = sorted(APIS + MODELS, key=APPS.index)
BATCHES = [folder for folder in APPS if folder.endswith("/lily-batch")]
REPOSITORY = "https://github.com/example-org/model-gitops.git"

SETS = [environments.set_name(env, which) for env in POLICY.environments for which in environments.TEMPLATES]

Objects = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def renders(manifests: Path) -> Objects:
    texts = kustomize.build_all(manifests, [*OVERLAYS, "argocd", "argocd/platform"])
    return {folder: kustomize.objects(text) for folder, text in texts.items()}


def the(items: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The one object of a kind."""
    [found] = [item for item in items if item["kind"] == kind]
    return found


def pod_of(items: list[dict[str, Any]]) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
    """The labels, the pod and the container of the one workload in a render."""
    [workload] = [item for item in items if item["kind"] in ("Deployment", "CronJob", "InferenceService")]
    if workload["kind"] != "InferenceService":
        template = workload["spec"].get("jobTemplate", workload)["spec"]["template"]
        [container] = template["spec"]["containers"]
        return template["metadata"]["labels"], template["spec"], container
    # KServe gives pods the labels of the InferenceService.
    predictor = workload["spec"]["predictor"]
    return workload["metadata"]["labels"], predictor, predictor["model"]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert selector.keys() == {"matchLabels"}
    return bool(selector["matchLabels"]) and selector["matchLabels"].items() <= labels.items()


# Workloads


@pytest.mark.parametrize("folder", APIS)
def test_an_autoscaled_deployment_sets_no_replicas(renders: Objects, folder: str) -> None:
    deployment, scaler = the(renders[folder], "Deployment"), the(renders[folder], "HorizontalPodAutoscaler")

    assert "replicas" not in deployment["spec"]
    assert scaler["spec"]["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": deployment["metadata"]["name"],
    }  # fmt: skip
    assert 1 <= scaler["spec"]["minReplicas"] <= scaler["spec"]["maxReplicas"]
    target = {"type": "Utilization", "averageUtilization": 70}
    assert scaler["spec"]["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


@pytest.mark.parametrize("folder", MODELS)
def test_an_inference_service_is_autoscaled_and_says_how_it_is_deployed(renders: Objects, folder: str) -> None:
    service = the(renders[folder], "InferenceService")

    annotations, predictor = service["metadata"]["annotations"], service["spec"]["predictor"]
    assert annotations["serving.kserve.io/deploymentMode"] == "Standard"
    assert annotations["serving.kserve.io/autoscalerClass"] == "hpa"
    assert 1 <= predictor["minReplicas"] <= predictor["maxReplicas"]
    assert (predictor["scaleMetric"], predictor["scaleTarget"]) == ("cpu", 70)
    model = predictor["model"]
    assert model["modelFormat"] == {"name": annotations["model.mlops/flavour"]}
    assert (model["runtime"], model["protocolVersion"]) == ("kserve-sklearnserver", "v2")


@pytest.mark.parametrize("folder", [folder for folder in SERVICES if folder.startswith("overlays/prod/")])
def test_production_has_a_replica_in_each_of_three_zones(renders: Objects, folder: str) -> None:
    items = renders[folder]
    predictor = [item["spec"]["predictor"] for item in items if item["kind"] == "InferenceService"]
    [scaled] = predictor or [the(items, "HorizontalPodAutoscaler")["spec"]]

    assert scaled["minReplicas"] >= 3


@pytest.mark.parametrize("folder", SERVICES)
def test_a_new_pod_takes_over_before_an_old_one_goes(renders: Objects, folder: str) -> None:
    workload = next(item for item in renders[folder] if item["kind"] in ("Deployment", "InferenceService"))
    strategy = workload["spec"].get("strategy") or workload["spec"]["predictor"]["deploymentStrategy"]

    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("folder", SERVICES)
def test_probes_ask_different_questions_on_a_port_that_is_there(renders: Objects, folder: str) -> None:
    _, _, container = pod_of(renders[folder])
    probes = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}

    gets = {name: probe["httpGet"] for name, probe in probes.items()}
    # A model server of KServe listens on 8080; its runtime declares no port.
    [port] = container.get("ports", [{"name": 8080}])
    assert [get["port"] for get in gets.values()] == [port["name"]] * 3
    assert gets["liveness"]["path"] == gets["startup"]["path"] != gets["readiness"]["path"]
    assert [probes[name]["timeoutSeconds"] for name in ("liveness", "readiness")] == [2, 2]
    # A start may take a minute; an outage is seen within half of one.
    assert probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"] >= 60
    assert probes["liveness"]["periodSeconds"] * probes["liveness"]["failureThreshold"] <= 30
    assert probes["readiness"]["periodSeconds"] * probes["readiness"]["failureThreshold"] <= 10


@pytest.mark.parametrize("folder", APPS)
def test_resources_are_requested_and_memory_is_limited(renders: Objects, folder: str) -> None:
    _, _, container = pod_of(renders[folder])
    resources = container["resources"]

    assert resources["requests"].keys() == {"cpu", "memory"}
    assert resources["limits"].keys() == {"memory"}
    assert amount(resources["requests"]["memory"]) <= amount(resources["limits"]["memory"])


@pytest.mark.parametrize("folder", APPS)
def test_pods_meet_the_restricted_standard(renders: Objects, folder: str) -> None:
    _, pod, container = pod_of(renders[folder])

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & pod.keys()
    assert "privileged" not in container["securityContext"]


@pytest.mark.parametrize("folder", APIS)
def test_our_own_service_logs_requests_where_its_environment_does(renders: Objects, folder: str) -> None:
    _, _, container = pod_of(renders[folder])
    values = [variable["value"] for variable in container["env"] if variable["name"] == "REQUEST_LOG_URI"]

    assert values == [f"s3://{POLICY.model_bucket}/requests/{folder.split('/')[1]}/"]


@pytest.mark.parametrize("folder", APIS + BATCHES)
def test_what_is_our_own_writes_no_file(renders: Objects, folder: str) -> None:
    _, _, container = pod_of(renders[folder])

    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("folder", APIS)
def test_our_own_service_has_time_to_drain(renders: Objects, folder: str) -> None:
    """It answers on for 5 seconds after SIGTERM and finishes requests for 20 more: model-src/serving/__main__.py."""
    _, pod, _ = pod_of(renders[folder])

    assert pod["terminationGracePeriodSeconds"] > 5 + 20


@pytest.mark.parametrize("folder", MODELS)
def test_the_stock_server_is_stopped_after_its_callers_know(renders: Objects, folder: str) -> None:
    _, pod, container = pod_of(renders[folder])

    assert 0 < container["lifecycle"]["preStop"]["sleep"]["seconds"] < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("folder", APPS)
def test_a_workload_has_an_account_of_its_own_and_no_token_of_the_cluster(renders: Objects, folder: str) -> None:
    _, pod, _ = pod_of(renders[folder])
    account = the(renders[folder], "ServiceAccount")

    environment, app = folder.split("/")[1:]
    assert pod["serviceAccountName"] == account["metadata"]["name"] == app
    assert pod["automountServiceAccountToken"] is account["automountServiceAccountToken"] is False
    role = account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    # A batch writes too, so it has a role of its own.
    may = app if folder in BATCHES else "model-reader"
    assert re.fullmatch(rf"arn:aws:iam::\d{{12}}:role/ml-{environment}-{may}", role)


@pytest.mark.parametrize("folder", SERVICES)
def test_pods_are_spread_over_zones_and_nodes(renders: Objects, folder: str) -> None:
    labels, pod, _ = pod_of(renders[folder])
    spread = pod["topologySpreadConstraints"]

    selector = {"matchLabels": {"app.kubernetes.io/name": folder.split("/")[2]}}
    # Each version is spread by itself, and a full zone is no reason not to run.
    both = {"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "matchLabelKeys": ["pod-template-hash"]}
    assert spread == [
        both | {"topologyKey": key, "labelSelector": selector}
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
    assert selects(selector, labels)


@pytest.mark.parametrize("folder", APPS)
def test_pods_say_which_model_they_serve(renders: Objects, folder: str) -> None:
    labels, _, _ = pod_of(renders[folder])

    assert labels == {"app.kubernetes.io/name": folder.split("/")[2], "model.mlops/model": "lily"}


@pytest.mark.parametrize("folder", APPS)
def test_every_selector_selects_the_pods_of_its_own_render_and_no_others(renders: Objects, folder: str) -> None:
    labels, _, _ = pod_of(renders[folder])
    selectors = []
    for item in renders[folder]:
        if item["kind"] in ("Deployment", "PodDisruptionBudget"):
            selectors.append(item["spec"]["selector"])
        if item["kind"] == "Service":
            selectors.append({"matchLabels": item["spec"]["selector"]})
        if item["kind"] == "NetworkPolicy":
            selectors.append(item["spec"]["podSelector"])
    neighbours = [pod_of(renders[other])[0] for other in APPS if other != folder and same_environment(other, folder)]

    assert len(selectors) == (4 if folder in APIS else 2 if folder in MODELS else 1)
    assert all(selects(selector, labels) for selector in selectors)
    assert not any(selects(selector, other) for selector in selectors for other in neighbours)


def same_environment(one: str, other: str) -> bool:
    return one.split("/")[1] == other.split("/")[1]


@pytest.mark.parametrize("folder", APIS)
def test_a_request_finds_its_way_from_the_host_to_the_container(renders: Objects, folder: str) -> None:
    ingress, service = the(renders[folder], "Ingress"), the(renders[folder], "Service")
    _, _, container = pod_of(renders[folder])

    [rule] = ingress["spec"]["rules"]
    [path] = rule["http"]["paths"]
    [port] = service["spec"]["ports"]
    assert rule["host"].endswith(".ml.example.com")
    assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": port["name"]}}
    assert (path["path"], path["pathType"]) == ("/predict", "Exact")
    assert (port["port"], port["targetPort"]) == (80, 5001)
    assert [listed["containerPort"] for listed in container["ports"]] == [5001]
    assert container["command"] == ["python", "-m", "serving"]
    assert {"name": "PORT", "value": "5001"} in container["env"]
    assert {"name": "HOST", "value": "0.0.0.0"} in container["env"]


@pytest.mark.parametrize("folder", APIS)
def test_the_load_balancer_is_internal_speaks_tls_alone_and_asks_for_readiness(renders: Objects, folder: str) -> None:
    ingress = the(renders[folder], "Ingress")
    _, _, container = pod_of(renders[folder])

    annotations = ingress["metadata"]["annotations"]
    balancer = {name.partition("/")[2]: value for name, value in annotations.items()}
    assert ingress["spec"]["ingressClassName"] == "alb"
    assert (balancer["scheme"], balancer["target-type"]) == ("internal", "ip")
    assert yaml.safe_load(balancer["listen-ports"]) == [{"HTTPS": 443}]
    assert "TLS13" in balancer["ssl-policy"]
    assert balancer["healthcheck-path"] == container["readinessProbe"]["httpGet"]["path"]


@pytest.mark.parametrize("folder", SERVICES)
def test_a_network_policy_lets_in_the_port_that_is_served_and_keeps_credentials_of_the_node_away(
    renders: Objects, folder: str
) -> None:
    policy = the(renders[folder], "NetworkPolicy")["spec"]

    _, _, container = pod_of(renders[folder])
    [entry], [way_out] = policy["ingress"], policy["egress"]
    network, monitoring = entry["from"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for port in entry["ports"]] == [container.get("ports", [{"name": 8080}])[0]["name"]]
    assert network.keys() == {"ipBlock"}
    assert ipaddress.ip_network(network["ipBlock"]["cidr"]).is_private
    assert monitoring == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert way_out["ports"] == [{"port": 443}]
    assert way_out["to"] == [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]


@pytest.mark.parametrize("folder", SERVICES)
def test_a_drain_of_nodes_takes_one_pod_at_a_time_and_is_never_blocked(renders: Objects, folder: str) -> None:
    budget = the(renders[folder], "PodDisruptionBudget")["spec"]

    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


# Batches


@pytest.mark.parametrize("folder", BATCHES)
def test_a_batch_runs_once_at_a_time_for_no_longer_than_a_while_and_cleans_up(renders: Objects, folder: str) -> None:
    spec = the(renders[folder], "CronJob")["spec"]
    job = spec["jobTemplate"]["spec"]

    assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "Etc/UTC")
    assert 0 < job["activeDeadlineSeconds"] <= spec["startingDeadlineSeconds"]
    assert job["ttlSecondsAfterFinished"] > 0
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (1, 3)


@pytest.mark.parametrize("folder", BATCHES)
def test_a_batch_is_tried_again_only_where_that_may_help(renders: Objects, folder: str) -> None:
    """Of the exit codes of model-src/serving/batch.py, 75 alone is worth another pod."""
    job = the(renders[folder], "CronJob")["spec"]["jobTemplate"]["spec"]
    _, pod, _ = pod_of(renders[folder])

    assert (job["backoffLimit"], pod["restartPolicy"]) == (3, "Never")
    disruption, refused = job["podFailurePolicy"]["rules"]
    assert disruption == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    assert refused == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}}


@pytest.mark.parametrize("folder", BATCHES)
def test_a_batch_reads_and_writes_folders_of_its_environment_in_the_bucket(renders: Objects, folder: str) -> None:
    _, _, container = pod_of(renders[folder])
    variables = {variable["name"]: variable["value"] for variable in container["env"]}

    environment = folder.split("/")[1]
    place = f"s3://{POLICY.model_bucket}/batch/{environment}/lily/"
    assert container["command"] == ["python", "-m", "serving.batch"]
    assert variables == {
        "BATCH_INPUT": f"{place}in/", "BATCH_OUTPUT": f"{place}out/", "MODEL_URI": "s3://unreleased/",
        "MODEL_DIGEST": "unreleased", "MODEL_MANIFEST": "unreleased", "AWS_REGION": "eu-west-1",
    }  # fmt: skip


@pytest.mark.parametrize("folder", BATCHES)
def test_nobody_calls_a_batch(renders: Objects, folder: str) -> None:
    policy = the(renders[folder], "NetworkPolicy")["spec"]

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    [way_out] = policy["egress"]
    assert way_out["ports"] == [{"port": 443}]
    assert way_out["to"] == [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]


# Apps


SIDECAR = """
patches:
  - target:
      kind: Deployment|CronJob
    patch: |-
      - op: add
        path: {path}/containers/0
        value:
          name: proxy
          image: proxy
          env:
            - name: KIND
              value: proxy
"""


@pytest.mark.parametrize(
    ("app", "path", "own", "variables"),
    [
        ("lily-api", "/spec/template/spec", "api", {"AWS_REGION", "REQUEST_LOG_URI"}),
        ("lily-batch", "/spec/jobTemplate/spec/template/spec", "batch", {"AWS_REGION"}),
    ],
)
def test_a_container_that_comes_first_gets_none_of_the_variables_of_another(
    manifests: Path, tmp_path: Path, app: str, path: str, own: str, variables: set[str]
) -> None:
    for name in ("base", "apps", "overlays"):
        shutil.copytree(manifests / name, tmp_path / name)
    with (tmp_path / "apps" / app / "kustomization.yaml").open("a") as file:
        file.write(SIDECAR.format(path=path))

    before, after = (kustomize.objects(kustomize.build(root, f"overlays/prod/{app}")) for root in (manifests, tmp_path))

    workload = next(item for item in after if item["kind"] in ("Deployment", "CronJob"))
    pod = workload["spec"].get("jobTemplate", workload)["spec"]["template"]["spec"]
    containers = {container["name"]: container for container in pod["containers"]}
    assert containers["proxy"]["env"] == [{"name": "KIND", "value": "proxy"}]
    assert variables <= {variable["name"] for variable in containers[own]["env"]}
    pod["containers"].remove(containers["proxy"])
    assert after == before


@pytest.mark.parametrize("listed", [("named", "signed"), ("signed", "named")])
def test_the_components_of_a_shape_go_together_in_any_order(
    manifests: Path, tmp_path: Path, listed: tuple[str, str]
) -> None:
    for name in ("base", "apps", "overlays"):
        shutil.copytree(manifests / name, tmp_path / name)
    (tmp_path / "base/api/signed/model-signing.pub").write_text("a key\n")
    file = tmp_path / "apps/lily-api/kustomization.yaml"
    lines = "".join(f"  - ../../base/api/{name}\n" for name in listed)
    file.write_text(file.read_text().replace("  - ../../base/api/named\n", lines))

    before, after = (
        kustomize.objects(kustomize.build(root, "overlays/dev/lily-api")) for root in (manifests, tmp_path)
    )

    [added] = differences(before, after)[::2]
    assert added.path.endswith("env[MODEL_PUBLIC_KEY].name")
    assert {item["metadata"]["name"] for item in after} == {"lily-api"}


# Environments


@pytest.mark.parametrize("env", POLICY.environments)
def test_an_environment_denies_by_default_and_asks_for_the_restricted_standard(renders: Objects, env: str) -> None:
    items = renders[f"overlays/{env}/environment"]
    policies = {item["metadata"]["name"]: item["spec"] for item in items if item["kind"] == "NetworkPolicy"}

    namespace = the(items, "Namespace")["metadata"]
    assert namespace["name"] == f"ml-{env}"
    assert {namespace["labels"][f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {
        "restricted"
    }
    assert policies == {
        "default-deny": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        "dns": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [
                {
                    "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
                    "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
                }
            ],
        },
    }


def amount(quantity: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)(m|Mi|Gi)?", str(quantity)).groups()  # type: ignore[union-attr]
    return float(number) * {None: 1, "m": 0.001, "Mi": 2**20, "Gi": 2**30}[unit]


@pytest.mark.parametrize("env", POLICY.environments)
def test_the_quota_has_room_for_all_apps_at_their_largest_during_a_rollout(renders: Objects, env: str) -> None:
    hard = the(renders[f"overlays/{env}/environment"], "ResourceQuota")["spec"]["hard"]
    limits = the(renders[f"overlays/{env}/environment"], "LimitRange")["spec"]["limits"]
    needed = dict.fromkeys(("requests.cpu", "requests.memory", "limits.memory", "pods"), 0.0)
    for folder in APPS:
        if same_environment(folder, f"overlays/{env}/environment"):
            _, pod, container = pod_of(renders[folder])
            if folder in BATCHES:
                pods = 1
            else:
                scaled = pod if "maxReplicas" in pod else the(renders[folder], "HorizontalPodAutoscaler")["spec"]
                pods = scaled["maxReplicas"] + 1
            needed["pods"] += pods
            for sort, name in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
                needed[f"{sort}.{name}"] += pods * amount(container["resources"][sort][name])
            assert amount(container["resources"]["limits"]["memory"]) <= amount(limits[0]["max"]["memory"])

    assert [name for name, value in needed.items() if value > amount(hard[name])] == []
    assert (hard["services.loadbalancers"], hard["services.nodeports"]) == ("0", "0")
    # The quota refuses a pod whose containers say nothing, so something is said for them.
    assert limits[0]["defaultRequest"].keys() == {"cpu", "memory"}
    assert limits[0]["default"].keys() == {"memory"}


DIFFERENT = {
    "metadata.namespace",
    "Namespace metadata.name",
    "ServiceAccount metadata.annotations.eks.amazonaws.com/role-arn",
    "Deployment spec.template.spec.containers[api].env[REQUEST_LOG_URI].value",
    "HorizontalPodAutoscaler spec.minReplicas",
    "HorizontalPodAutoscaler spec.maxReplicas",
    "CronJob spec.schedule",
    "CronJob spec.jobTemplate.spec.template.spec.containers[batch].env[BATCH_INPUT].value",
    "CronJob spec.jobTemplate.spec.template.spec.containers[batch].env[BATCH_OUTPUT].value",
    "InferenceService spec.predictor.minReplicas",
    "InferenceService spec.predictor.maxReplicas",
    "Ingress spec.rules[0].host",
    "ResourceQuota spec.hard.requests.cpu",
    "ResourceQuota spec.hard.requests.memory",
    "ResourceQuota spec.hard.limits.memory",
    "ResourceQuota spec.hard.pods",
}


def test_environments_differ_in_what_they_should_and_nothing_else(renders: Objects) -> None:
    """Before any release: afterwards they differ in their releases too."""
    found = set()
    for app in ("environment", "lily-api", "lily-batch", "lily-sklearn"):
        sides = [
            {(item["kind"], item["metadata"]["name"].removeprefix(f"ml-{env}")): leaves(item)
             for item in renders[f"overlays/{env}/{app}"]}
            for env in POLICY.environments
        ]  # fmt: skip
        for one, other in itertools.combinations(sides, 2):
            assert one.keys() == other.keys()
            found |= {
                path if path == "metadata.namespace" else f"{kind} {path}"
                for kind, name in one
                for path in one[kind, name].keys() | other[kind, name].keys()
                if one[kind, name].get(path) != other[kind, name].get(path)
            }

    assert found == DIFFERENT
    assert len(OVERLAYS) == 4 * len(POLICY.environments)


# Names


@pytest.mark.parametrize("folder", APPS)
def test_no_name_or_value_of_a_base_is_left(renders: Objects, folder: str) -> None:
    """A container of our own keeps its name: that is what it is in every app."""
    app = folder.split("/")[2]
    values = [
        f"{path}={value}" for item in renders[folder] for path, value in leaves(item).items()
        if value in ("api", "batch", "model", "any") or "invalid" in str(value)
    ]  # fmt: skip

    kept = {
        "lily-api": ["spec.template.spec.containers[api].name=api"],
        "lily-batch": ["spec.jobTemplate.spec.template.spec.containers[batch].name=batch"],
    }
    assert values == kept.get(app, [])
    assert {item["metadata"]["name"] for item in renders[folder]} == {app}


def shapes(manifests: Path) -> list[Path]:
    """The manifests of `base/`, without what new apps are written from."""
    return [file for file in sorted((manifests / "base").rglob("*.yaml")) if layout.SKELETON not in file.parts]


def test_a_base_names_no_model_version_or_environment(manifests: Path) -> None:
    words = re.compile(
        r"lily|sklearn|\b(dev|staging|prod|latest)\b|[0-9]{4}-[0-9]{2}-[0-9]{2}-|s3://(?!unreleased/)", re.I
    )
    found = [
        f"{file.relative_to(manifests)}: {line.strip()}"
        for file in shapes(manifests)
        for line in file.read_text().splitlines()
        if words.search(line) and not line.lstrip().startswith("#")
    ]

    assert found == []


def test_every_file_is_read_by_a_render(manifests: Path) -> None:
    read = set().union(*(closure.closure(manifests, folder) for folder in layout.folders(manifests, POLICY)))
    files = {
        file.relative_to(manifests).as_posix()
        for folder in ("base", "apps", "overlays", "argocd")
        for file in (manifests / folder).rglob("*")
        if file.is_file()
    }

    listed_by_those_who_want_them = (
        "argocd/platform/fleet/", "argocd/platform/knative/", "argocd/platform/served/",
        "base/inference-service/knative/", "base/api/signed/", "base/environment/keys/", "base/environment/replica/",
        # Shapes of which the sample has no app.
        "base/sagemaker/", "base/vm/",
    )  # fmt: skip
    optional = {file for file in files if file.startswith(listed_by_those_who_want_them)}
    optional |= {file for file in files if f"/{layout.SKELETON}/" in file}
    assert files - read == {POLICY_FILE, admission.LOCK} | optional


def test_a_file_holds_one_object_and_is_called_after_its_kind(manifests: Path) -> None:
    """Two of one kind: what it is follows the kind. In overlays and apps a file is called after what it carries."""
    misnamed = []
    for file in shapes(manifests):
        if not file.name.startswith("kustom"):
            [item] = yaml.safe_load_all(file.read_text())
            # A list is a patch by operations.
            if isinstance(item, dict) and not re.fullmatch(rf"{item['kind'].lower()}(-[a-z-]+)?", file.stem):
                misnamed.append(file.name)

    assert misnamed == []


# Argo CD


@pytest.mark.parametrize("env", POLICY.environments)
def test_a_project_allows_the_kinds_that_its_environment_renders_and_no_other(renders: Objects, env: str) -> None:
    [project] = [p for p in renders["argocd"] if p["kind"] == "AppProject" and p["metadata"]["name"] == env]
    rendered = {
        (identity(item).group, item["kind"])
        for folder, items in renders.items()
        if folder.startswith(f"overlays/{env}/")
        for item in items
    }

    spec = project["spec"]
    # The sample has no app on SageMaker.
    assert {(kind["group"], kind["kind"]) for kind in spec["namespaceResourceWhitelist"]} - ack.KINDS.keys() == {
        kind for kind in rendered if kind != ("", "Namespace")
    }
    assert spec["clusterResourceWhitelist"] == [{"group": "", "kind": "Namespace", "name": f"ml-{env}"}]
    assert spec["destinations"] == [{"server": "https://kubernetes.default.svc", "namespace": f"ml-{env}"}]


def test_the_platform_project_allows_what_its_applications_render_and_what_knative_adds(renders: Objects) -> None:
    [project] = [p for p in renders["argocd"] if p["kind"] == "AppProject" and p["metadata"]["name"] == "platform"]

    spec = project["spec"]
    found = [identity(item) for folder in ("argocd", "argocd/platform") for item in renders[folder]]
    for scope, of_scope in (
        ("namespaceResourceWhitelist", {("operator.knative.dev", "KnativeServing")}),
        ("clusterResourceWhitelist", {("", "Namespace")}),
    ):
        inside = scope.startswith("namespace")
        rendered = {(what.group, what.kind) for what in found if bool(what.namespace) == inside}
        assert {(kind["group"], kind["kind"]) for kind in spec[scope]} == rendered | of_scope
    assert {target["namespace"] for target in spec["destinations"]} == {"argocd", "knative-serving"}


def test_no_project_has_a_wildcard_and_the_one_that_argo_cd_makes_allows_nothing(renders: Objects) -> None:
    projects = [item for item in renders["argocd"] if item["kind"] == "AppProject"]

    names = {project["metadata"]["name"]: project for project in projects}
    assert names.keys() == {*POLICY.environments, *environments.PROJECTS}
    assert list(names["default"]["spec"].values()) == [[], [], [], []]
    fields = [pair for project in projects for pair in leaves(project).items()]
    assert not [value for path, value in fields if "*" in str(value) and not path.endswith(".schedule")]


def test_the_repository_and_branch_are_the_same_everywhere(renders: Objects) -> None:
    fields = [pair for item in renders["argocd"] for pair in leaves(item).items() if pair[1] != []]

    others = next(item for item in renders["argocd"] if item["metadata"]["name"] == "addons")["spec"]["sourceRepos"]
    assert {value for path, value in fields if "repo" in path.lower()} - set(others) == {REPOSITORY}
    # Of each environment three generators and a template, one and one for SageMaker; the platform and the root.
    revisions = [value for path, value in fields if path.lower().endswith("revision")]
    assert revisions == ["cicd"] * (6 * len(POLICY.environments) + 2)
    assert {item["metadata"]["namespace"] for item in renders["argocd"]} == {"argocd"}


def applications(renders: Objects) -> dict[str, dict[str, Any]]:
    """Each Application, or template of many, by the name of its object."""
    return {
        item["metadata"]["name"]: item["spec"]["template"] if item["kind"] == "ApplicationSet" else item
        for item in renders["argocd"]
        if item["kind"] != "AppProject"
    }


def test_a_set_takes_the_name_of_a_folder_and_nothing_else_from_a_path(renders: Objects) -> None:
    used = {
        action.strip("{}- ")
        for template in applications(renders).values()
        for value in leaves(template).values()
        for action in re.findall(r"\{\{.*?\}\}", str(value))
    }

    assert used == {".path.basename"}


@pytest.mark.parametrize("env", POLICY.environments)
def test_a_set_is_the_engines_to_the_byte(manifests: Path, env: str) -> None:
    for which, file in environments.set_files(POLICY, env).items():
        assert (manifests / file).read_text() == environments.text(POLICY, env, REPOSITORY, which)


def test_argo_cd_heals_by_itself_and_takes_away_only_what_a_release_replaces(renders: Objects) -> None:
    policies = {name: app["spec"]["syncPolicy"] for name, app in applications(renders).items()}
    replacing = [name for name in SETS if name.startswith(environments.OF_SAGEMAKER)]

    assert {name: policy["automated"] for name, policy in policies.items()} == {
        name: {"prune": True, "allowEmpty": False, "selfHeal": True}
        if name in replacing
        else {"prune": False, "selfHeal": True}
        for name in (*SETS, "platform", "root")
    }
    assert {name for name, policy in policies.items() if "PruneLast=true" in policy["syncOptions"]} == {*replacing}
    sets = [item["spec"]["syncPolicy"] for item in renders["argocd"] if item["kind"] == "ApplicationSet"]
    assert sets == [{"applicationsSync": "create-update", "preserveResourcesOnDeletion": True}] * len(SETS)
    assert all("ServerSideApply=true" in policy["syncOptions"] for policy in policies.values())
    backoff = {"duration": "10s", "factor": 2, "maxDuration": "5m"}
    assert all(policy["retry"] == {"limit": 10, "refresh": True, "backoff": backoff} for policy in policies.values())


@pytest.mark.parametrize("env", POLICY.environments)
def test_an_application_is_in_the_project_and_namespace_of_its_environment(renders: Objects, env: str) -> None:
    for which in environments.TEMPLATES:
        spec = applications(renders)[environments.set_name(env, which)]["spec"]

        assert spec["project"] == env
        assert spec["destination"] == {"server": "https://kubernetes.default.svc", "namespace": f"ml-{env}"}
        assert spec["source"]["path"] == f"overlays/{env}/{{{{ .path.basename }}}}"


def test_a_name_that_a_template_does_not_know_is_an_error(renders: Objects) -> None:
    sets = [item["spec"] for item in renders["argocd"] if item["kind"] == "ApplicationSet"]

    assert len(sets) == len(SETS)
    assert all(spec["goTemplate"] and spec["goTemplateOptions"] == ["missingkey=error"] for spec in sets)


def test_applications_are_called_after_app_and_environment(renders: Objects) -> None:
    names = {name: app["metadata"]["name"] for name, app in applications(renders).items()}

    assert names == {
        **{name: f"{{{{ .path.basename }}}}-{name.partition('-')[2]}" for name in SETS},
        "platform": "platform",
        "root": "root",
    }
    assert {app["metadata"]["namespace"] for app in applications(renders).values()} == {"argocd"}


def test_the_root_keeps_the_folder_that_it_is_in(renders: Objects) -> None:
    spec = applications(renders)["root"]["spec"]

    assert (spec["project"], spec["source"]["path"]) == ("platform", "argocd")
    assert spec["destination"] == {"server": "https://kubernetes.default.svc", "namespace": "argocd"}

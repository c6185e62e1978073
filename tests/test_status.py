"""status.py: what is said of an app, from what Git, Argo CD and the cluster have. On a real cluster: tests/cluster."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Checkout

import status
from gitops.releases import hold
from gitops.repo.git import Git
from status import Seen

VERSION = "2026-02-01-3f2a9c1b7d10"
URI = f"s3://mlops-prod/models/lily/{VERSION}/onnx/"
OTHER = "s3://mlops-prod/models/lily/2026-01-01-aaaaaaaaaaaa/onnx/"
WORKLOAD: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "lily-api", "generation": 2, "annotations": {"model.mlops/version": VERSION}},
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "containers": [
                    {"name": "api", "image": "registry/lily-api@sha256:1", "env": [{"name": "MODEL_URI", "value": URI}]}
                ]
            }
        },
    },
    "status": {"readyReplicas": 2, "updatedReplicas": 2, "observedGeneration": 2},
}
APPLICATION: dict[str, Any] = {
    "status": {"sync": {"status": "Synced", "revision": "c1"}, "health": {"status": "Healthy"}, "resources": []}
}


def a_pod(uri: str, ready: str = "True") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "lily-api-1"},
        "spec": {"containers": [{"env": [{"name": "MODEL_URI", "value": uri}]}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


CRON_JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "lily-batch", "annotations": {"model.mlops/version": VERSION}},
    "spec": {"jobTemplate": {"spec": {"template": copy.deepcopy(WORKLOAD["spec"]["template"])}}},
}


def fine() -> Seen:
    live = copy.deepcopy(WORKLOAD)
    return Seen(copy.deepcopy(APPLICATION), live, live, [a_pod(URI)], [])


def faults(seen: Seen, behind: bool = False) -> list[str]:
    return status.row("lily-api", "dev", WORKLOAD, seen, behind).faults


def test_an_app_in_which_all_agree_is_fine() -> None:
    row = status.row("lily-api", "dev", WORKLOAD, fine(), False)

    assert row.faults == []
    assert (row.version, row.live, row.sync, row.health, row.pods) == (VERSION, VERSION, "Synced", "Healthy", "2/2")


def out_of_sync(seen: Seen) -> None:
    assert seen.application
    seen.application["status"]["sync"]["status"] = "OutOfSync"


def something_left(seen: Seen) -> None:
    out_of_sync(seen)
    assert seen.application
    seen.application["status"]["resources"] = [{"kind": "ConfigMap", "name": "left", "requiresPruning": True}]


def _settings(digest: str, **told: Any) -> dict[str, Any]:
    return {"kind": "ConfigMap", "name": f"lily-api-settings-{digest}", "status": "Synced"} | told


def settings_of_before(seen: Seen) -> None:
    assert seen.application
    resources = [_settings("g4hk5t7m2b"), _settings("c9f2d8h6k4", status="OutOfSync", requiresPruning=True)]
    seen.application["status"] |= {"sync": {"status": "OutOfSync"}, "resources": resources}


def settings_of_nothing(seen: Seen) -> None:
    assert seen.application
    resources = [_settings("g4hk5t7m2b", status="OutOfSync", requiresPruning=True)]
    seen.application["status"] |= {"sync": {"status": "OutOfSync"}, "resources": resources}


def settings_of_before_and_more(seen: Seen) -> None:
    settings_of_before(seen)
    assert seen.application
    changed = {"kind": "Deployment", "name": "lily-api", "status": "OutOfSync"}
    seen.application["status"]["resources"].append(changed)


def unhealthy(seen: Seen) -> None:
    assert seen.application
    seen.application["status"] |= {
        "health": {"status": "Degraded"},
        "resources": [
            {"kind": "InferenceService", "name": "lily", "health": {"status": "Degraded", "message": "no such\n file"}}
        ],
    }


def failed_sync(seen: Seen) -> None:
    assert seen.application
    seen.application["status"]["operationState"] = {
        "phase": "Failed",
        "message": "one or more objects failed to apply",
        "syncResult": {
            "resources": [
                {"kind": "Deployment", "name": "lily-api", "status": "SyncFailed", "message": "is invalid"},
                {"kind": "Service", "name": "lily-api", "status": "Synced", "message": "created"},
            ]
        },
    }


def comparison_error(seen: Seen) -> None:
    assert seen.application
    seen.application["status"]["conditions"] = [
        {"type": "ComparisonError", "message": "no such folder"},
        {"type": "SharedResourceWarning", "message": "never mind"},
    ]


def another_model(seen: Seen) -> None:
    assert seen.live
    seen.live["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = OTHER


def an_old_pod(seen: Seen) -> None:
    seen.pods.append(a_pod(OTHER))


def an_old_pod_on_its_way_out(seen: Seen) -> None:
    seen.pods.append(a_pod(OTHER, ready="False"))


def a_rollout_under_way(seen: Seen) -> None:
    assert seen.deployment
    seen.deployment["status"] |= {"readyReplicas": 1, "updatedReplicas": 1}
    for kind, at, message in (
        ("ReplicaSet", "2026-01-01T00:00:01Z", "old news"),
        ("ReplicaSet", "2026-01-01T00:00:02Z", 'serviceaccount "nobody" not found'),
        ("HorizontalPodAutoscaler", "2026-01-01T00:00:03Z", "no metrics"),
    ):
        involved = {"kind": kind, "name": "lily-api-5c446d7fd5"}
        seen.events.append({"type": "Warning", "involvedObject": involved, "lastTimestamp": at, "message": message})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (out_of_sync, ["Argo CD: OutOfSync"]),
        (something_left, ["Argo CD: OutOfSync: no longer in Git and not pruned: ConfigMap left"]),
        (settings_of_before, []),
        (
            settings_of_nothing,
            ["Argo CD: OutOfSync: no longer in Git and not pruned: ConfigMap lily-api-settings-g4hk5t7m2b"],
        ),
        (
            settings_of_before_and_more,
            ["Argo CD: OutOfSync: no longer in Git and not pruned: ConfigMap lily-api-settings-c9f2d8h6k4"],
        ),
        (unhealthy, ["Argo CD: Degraded: InferenceService lily: no such file"]),
        (
            failed_sync,
            ["Argo CD: sync Failed: one or more objects failed to apply", "Argo CD: Deployment lily-api: is invalid"],
        ),
        (comparison_error, ["Argo CD: ComparisonError: no such folder"]),
        (
            another_model,
            [f"spec.template.spec.containers[api].env[MODEL_URI].value: the cluster has {OTHER}, Git has {URI}"],
        ),
        (an_old_pod, [f"pod lily-api-1 still runs {OTHER}"]),
        (an_old_pod_on_its_way_out, []),
        (a_rollout_under_way, ['1 of 2 pods are ready, 1 of them new: serviceaccount "nobody" not found']),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[Seen], None], expected: list[str]) -> None:
    seen = fine()
    change(seen)

    assert faults(seen) == expected


def test_the_pods_of_a_stateful_set_are_its_own() -> None:
    seen = fine()
    assert seen.live and seen.deployment
    seen.live["kind"] = seen.deployment["kind"] = "StatefulSet"
    assert status.row("lily-api", "dev", WORKLOAD, seen, False).pods == "2/2"
    assert faults(replace(seen, deployment=None)) == ["no StatefulSet yet"]


def test_a_withdrawn_version_that_runs_is_named() -> None:
    bad = {f"lily.{VERSION}": "leaked labels", "lily.2026-01-01-aaaaaaaaaaaa": "gone long ago"}

    assert status.withdrawn_faults(WORKLOAD, bad) == [f"lily.{VERSION} is withdrawn: leaked labels"]
    assert status.withdrawn_faults(WORKLOAD, {}) == []


def test_a_commit_that_argo_cd_has_not_seen_is_named_before_what_it_would_say_of_it() -> None:
    seen = fine()
    out_of_sync(seen)

    assert faults(seen, behind=True) == ["Argo CD has yet to look at this commit; it knows c1"]


def test_an_app_that_the_cluster_does_not_have_is_named() -> None:
    assert faults(Seen(None, None, None, [], [])) == [
        "no Application yet; Argo CD has not looked at this commit, or its ApplicationSet fails"
    ]
    assert faults(Seen(copy.deepcopy(APPLICATION), None, None, [], [])) == ["Deployment lily-api is not in the cluster"]


LAST, EARLIER = "2026-02-02T02:00:00Z", "2026-02-01T02:01:00Z"
EVENT = {
    "type": "Warning",
    "involvedObject": {"kind": "Job", "name": "lily-batch-29499840"},
    "lastTimestamp": LAST,
    "message": "Container batch failed with exit code 1",
}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, []),
        ({"lastScheduleTime": LAST, "lastSuccessfulTime": "2026-02-02T02:01:00Z"}, []),
        ({"lastScheduleTime": LAST, "lastSuccessfulTime": EARLIER, "active": [{"kind": "Job"}]}, []),
        (
            {"lastScheduleTime": LAST, "lastSuccessfulTime": EARLIER},
            [f"the run of {LAST} failed: Container batch failed with exit code 1"],
        ),
        (
            {"lastScheduleTime": LAST},
            [f"the run of {LAST} failed, and none has ever succeeded: Container batch failed with exit code 1"],
        ),
    ],
)
def test_of_a_batch_the_last_run_counts(seen: dict[str, Any], expected: list[str]) -> None:
    live = copy.deepcopy(CRON_JOB) | {"status": seen}
    # The run of a version before may end its work.
    running = a_pod(OTHER) | {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}

    row = status.row(
        "lily-batch", "dev", CRON_JOB, Seen(copy.deepcopy(APPLICATION), live, None, [running], [EVENT]), False
    )

    assert row.faults == expected
    assert (row.live, row.image, row.pods) == (VERSION, "lily-api@1", "1")


def test_a_batch_with_another_model_is_named() -> None:
    live = copy.deepcopy(CRON_JOB)
    live["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = OTHER

    row = status.row("lily-batch", "dev", CRON_JOB, Seen(copy.deepcopy(APPLICATION), live, None, [], []), False)

    path = "spec.jobTemplate.spec.template.spec.containers[api].env[MODEL_URI].value"
    assert row.faults == [f"{path}: the cluster has {OTHER}, Git has {URI}"]


def test_what_is_not_released_has_no_application() -> None:
    blank = copy.deepcopy(WORKLOAD)
    blank["metadata"]["annotations"]["model.mlops/version"] = "unreleased"

    assert status.row("lily-api", "dev", blank, Seen(None, None, None, [], []), False).faults == []
    assert status.row("lily-api", "dev", blank, fine(), False).faults == [
        "unreleased in Git, and there is an Application"
    ]


class Asked:
    """A cluster with one Application, which notes what it is asked for."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str, Any]] = []

    def argocd(self, environment: str) -> Asked:
        assert environment != "us", "it does not answer"
        return self

    def get(self, api: str, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        return APPLICATION if name in ("lily-api-dev", "apps-prod", "sagemaker-prod") else None

    def patch(self, api: str, kind: str, name: str, namespace: str, change: Any) -> None:
        self.changes.append((kind, name, change["metadata"]["annotations"]))


def test_argo_cd_is_asked_for_what_is_not_fine_and_for_nothing_else() -> None:
    told = dict.fromkeys(("version", "sync", "health", "live", "image", "pods"), "-")
    rows = [
        status.Row(environment, app, **told, faults=faults)
        for environment, app, faults in (
            ("dev", "lily-api", ["behind"]), ("staging", "lily-api", []), ("prod", "lily-api", ["no Application yet"]),
        )
    ]  # fmt: skip
    rows.append(status.Row("us", "lily-api", **told, faults=["cannot be reached"], away=True))
    cluster = Asked()

    status.refresh(cluster, rows)  # type: ignore[arg-type]

    assert cluster.changes == [
        ("Application", "lily-api-dev", {"argocd.argoproj.io/refresh": "normal"}),
        ("ApplicationSet", "apps-prod", {"argocd.argoproj.io/application-set-refresh": "true"}),
        ("ApplicationSet", "sagemaker-prod", {"argocd.argoproj.io/application-set-refresh": "true"}),
    ]


def test_a_kubeconfig_that_leads_nowhere_is_refused_in_one_line(checkout: Checkout) -> None:
    missing = checkout.run("status", "--kubeconfig", "/nowhere/config")

    assert missing.code == 1
    [line] = missing.errors
    assert line.startswith("/nowhere/config: ")
    assert line.endswith("; set KUBECONFIG, or run `make cluster`")


def test_a_server_that_does_not_answer_is_refused_in_one_line(checkout: Checkout, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: x, user: x}}]\n"
        "clusters: [{name: x, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: x, user: {token: t}}]\n"
    )

    done = checkout.run("status", "--kubeconfig", config)

    assert done.code == 1
    [line] = done.errors
    assert line.startswith("https://127.0.0.1:1: cannot be reached (")


def test_what_is_held_has_a_column_where_anything_is() -> None:
    told = dict.fromkeys(("version", "sync", "health", "live", "image", "pods"), "-")
    held = {"reason": "wrong answers", "by": "Ann", "since": "2026-02-03T04:05:06Z"}
    rows = [status.Row("dev", "lily-api", **told), status.Row("prod", "lily-api", **told, hold=held)]

    assert [row["held"] for row in status._shown(rows)] == ["-", "wrong answers (Ann, 2026-02-03T04:05:06Z)"]
    assert "held" not in status._shown(rows[:1])[0]


def test_what_git_has_of_an_app_has_its_hold(checkout: Checkout) -> None:
    checkout.write(hold.path("lily-api", "dev"), "reason: not yet\n")
    tip = checkout.commit()

    found = status.expected(Git(checkout.root), tip, argparse.Namespace(env=None, app="lily-api"))

    assert [item.hold for item in found] == [b"reason: not yet\n", None, None]


# On SageMaker, which has the instances

NAME = f"lily-sagemaker-{VERSION}-01234567"
MODEL: dict[str, Any] = {
    "apiVersion": "sagemaker.services.k8s.aws/v1alpha1",
    "kind": "Model",
    "metadata": {"name": NAME, "namespace": "ml-dev", "annotations": {"model.mlops/version": VERSION}},
    "spec": {"primaryContainer": {"image": "registry/lily-api@sha256:1", "environment": {"MODEL_URI": URI}}},
}
ENDPOINT: dict[str, Any] = {
    "apiVersion": "sagemaker.services.k8s.aws/v1alpha1",
    "kind": "Endpoint",
    "metadata": {"name": "lily-sagemaker", "namespace": "ml-dev"},
    "status": {
        "endpointStatus": "InService",
        "productionVariants": [{"variantName": "serving", "currentInstanceCount": 2, "desiredInstanceCount": 3}],
    },
}
TERMINAL = {"type": "ACK.Terminal", "status": "True", "message": "unable to\n update endpoint"}


def on_sagemaker(endpoint: dict[str, Any] | None, live: dict[str, Any] | None = MODEL) -> status.Row:
    seen = Seen(copy.deepcopy(APPLICATION), live, endpoint, [], [])
    return status.row("lily-sagemaker", "dev", MODEL, seen, False)


def test_an_endpoint_in_service_is_fine_and_has_instances() -> None:
    row = on_sagemaker(ENDPOINT)

    assert row.faults == []
    assert (row.version, row.live, row.image, row.pods) == (VERSION, VERSION, "lily-api@1", "2/3")


def test_a_serverless_endpoint_has_none() -> None:
    variants = [{"variantName": "serving", "currentServerlessConfig": {"maxConcurrency": 5}}]

    row = on_sagemaker(ENDPOINT | {"status": ENDPOINT["status"] | {"productionVariants": variants}})

    assert (row.faults, row.pods) == ([], "-")


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (None, ["no Endpoint yet"]),
        (ENDPOINT | {"status": {}}, ["the endpoint is not made yet"]),
        (ENDPOINT | {"status": {"endpointStatus": "Updating"}}, ["the endpoint is Updating"]),
        (
            ENDPOINT | {"status": {"endpointStatus": "Failed", "failureReason": "no\n ping"}},
            ["the endpoint is Failed: no ping"],
        ),
        (
            ENDPOINT | {"status": {"endpointStatus": "InService", "conditions": [TERMINAL]}},
            ["ACK: unable to update endpoint"],
        ),
    ],
)
def test_what_is_wrong_with_an_endpoint_is_named(endpoint: dict[str, Any] | None, expected: list[str]) -> None:
    assert on_sagemaker(endpoint).faults == expected


def test_a_model_that_the_cluster_lacks_is_named() -> None:
    assert on_sagemaker(ENDPOINT, None).faults == [f"Model {NAME} is not in the cluster"]

"""The health checks of InferenceServices and of what ACK makes, run by Argo CD's own code."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SAMPLE

from gitops.manifests import ack
from gitops.programs import tools


def ago(minutes: int) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: str, minutes: int = 1, **more: str) -> dict[str, Any]:
    """Since so many minutes, counted from when the case is tried."""
    return {"type": kind, "status": status, "minutes": minutes} | more


READY = condition("Ready", "True")
NOT_READY = condition("Ready", "False")
PREDICTOR = condition("PredictorReady", "False", message="Deployment has no minimum availability")
UP_TO_DATE = {"transitionStatus": "UpToDate"}
CASES: dict[str, tuple[dict[str, Any] | None, str, str]] = {
    "no status yet": (None, "Progressing", "has not said yet"),
    "no conditions": ({"conditions": []}, "Progressing", "has not said yet"),
    "conditions without the one that counts": ({"conditions": [PREDICTOR]}, "Progressing", "has not said yet"),
    "ready": ({"conditions": [READY]}, "Healthy", "ready"),
    "ready, the model up to date": ({"conditions": [READY], "modelStatus": UP_TO_DATE}, "Healthy", "ready"),
    "ready, another model being loaded": (
        {"conditions": [READY], "modelStatus": {"transitionStatus": "InProgress"}},
        "Progressing",
        "being loaded",
    ),
    "not ready for a minute": ({"conditions": [NOT_READY, PREDICTOR]}, "Progressing", "no minimum availability"),
    "not ready for an hour": (
        {"conditions": [condition("Ready", "False", 60), PREDICTOR]},
        "Degraded",
        "no minimum availability",
    ),
    "not known for an hour": (
        {"conditions": [condition("Ready", "Unknown", 60)]},
        "Progressing",
        "not ready",
    ),
    "a model that cannot be loaded": (
        {
            "conditions": [NOT_READY],
            "modelStatus": {
                "transitionStatus": "BlockedByFailedLoad",
                "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no such file"},
            },
        },
        "Degraded",
        "BlockedByFailedLoad: no such file",
    ),
    "a model that cannot be loaded beside one that serves": (
        {"conditions": [READY], "modelStatus": {"transitionStatus": "BlockedByFailedLoad"}},
        "Degraded",
        "KServe gives no reason",
    ),
    "a spec that cannot be": (
        {"conditions": [NOT_READY], "modelStatus": {"transitionStatus": "InvalidSpec"}},
        "Degraded",
        "InvalidSpec",
    ),
    "stopped on purpose": (
        {"conditions": [NOT_READY, condition("Stopped", "True")]},
        "Suspended",
        "stopped by its annotation",
    ),
    "not stopped": ({"conditions": [READY, condition("Stopped", "False")]}, "Healthy", "ready"),
}


def health(item: dict[str, Any], folder: Path) -> tuple[str, str]:
    """(status, message) as Argo CD's own code finds them by this repository's settings."""
    (folder / "item.yaml").write_text(yaml.safe_dump(item))
    program = folder / "argocd"
    program.symlink_to(tools.ARGOCD.require())
    done = subprocess.run(
        [program, "admin", "settings", "resource-overrides", "health", folder / "item.yaml",
         "--argocd-cm-path", SAMPLE / "argocd/platform/argo-cd/argocd-cm.yaml", "--load-cluster-settings=false"],
        env={"ARGOCD_BINARY_NAME": "argocd", "HOME": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    return said["STATUS"], said.get("MESSAGE", "")


@pytest.mark.parametrize("case", CASES)
def test_the_health_of_an_inference_service(case: str, tmp_path: Path) -> None:
    status, expected, words = CASES[case]
    if status and "conditions" in status:
        conditions = [dict(one) for one in status["conditions"]]
        status = status | {"conditions": [one | {"lastTransitionTime": ago(one.pop("minutes"))} for one in conditions]}
    item = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "lily", "namespace": "ml-dev"},
    } | ({"status": status} if status is not None else {})

    found, message = health(item, tmp_path)

    assert found == expected
    assert words in message


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, ("Progressing", "")),
        ({"sync": {"status": "OutOfSync"}}, ("Progressing", "")),
        ({"health": {"status": "Healthy"}}, ("Healthy", "")),
        ({"health": {"status": "Degraded", "message": "no pod"}}, ("Degraded", "no pod")),
    ],
)
def test_the_health_of_an_application_is_what_waves_wait_for(
    status: dict[str, Any] | None, expected: tuple[str, str], tmp_path: Path
) -> None:
    item = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "kserve"}}

    assert health(item | ({"status": status} if status else {}), tmp_path) == expected


SYNCED = condition("ACK.ResourceSynced", "True")
UNSYNCED = condition("ACK.ResourceSynced", "False", message="Endpoint is in Updating state")
TERMINAL = condition("ACK.Terminal", "True", message="unable to update endpoint")
ASKED = "sagemaker.services.k8s.aws/last-endpoint-config-for-update"
ENDPOINTS: dict[str, tuple[dict[str, Any], dict[str, str], str, str]] = {
    "no status yet": ({}, {}, "Progressing", "has not said yet"),
    "being made": ({"endpointStatus": "Creating", "conditions": [UNSYNCED]}, {}, "Progressing", "Creating"),
    "made": ({"endpointStatus": "InService", "conditions": [SYNCED]}, {}, "Healthy", "in service"),
    "made, by a newer ACK": (
        {"endpointStatus": "InService", "conditions": [condition("Ready", "True")]}, {}, "Healthy", "in service",
    ),
    "being updated": ({"endpointStatus": "Updating", "conditions": [UNSYNCED]}, {}, "Progressing", "Updating"),
    "in service, and not looked at": ({"endpointStatus": "InService"}, {}, "Progressing", "has yet to look"),
    "in service, with the release before": (
        {"endpointStatus": "InService", "conditions": [SYNCED]}, {ASKED: "ml-dev-a-1"}, "Progressing", "yet to begin",
    ),
    "updated": (
        {"endpointStatus": "InService", "conditions": [SYNCED]}, {ASKED: "ml-dev-a-2"}, "Healthy", "in service",
    ),
    "taken back by an alarm": (
        {"endpointStatus": "InService", "conditions": [SYNCED, TERMINAL], "failureReason": "alarm errors"},
        {ASKED: "ml-dev-a-2"}, "Degraded", "alarm errors",
    ),
    "failed": ({"endpointStatus": "Failed", "failureReason": "no ping"}, {}, "Degraded", "Failed: no ping"),
    "neither the one nor the other": (
        {"endpointStatus": "UpdateRollbackFailed"}, {}, "Degraded", "SageMaker gives no reason",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDPOINTS)
def test_the_health_of_an_endpoint(case: str, tmp_path: Path) -> None:
    status, annotations, expected, words = ENDPOINTS[case]
    item = {
        "apiVersion": f"{ack.SAGEMAKER}/{ack.VERSION}",
        "kind": "Endpoint",
        "metadata": {"name": "a", "namespace": "ml-dev", "annotations": annotations},
        "spec": {"endpointName": "ml-dev-a", "endpointConfigName": "ml-dev-a-2"},
        "status": status,
    }

    found, message = health(item, tmp_path)

    assert found == expected
    assert words in message


@pytest.mark.parametrize("kind", [kind for kind in ack.KINDS if kind != ack.ENDPOINT], ids=lambda kind: kind[1])
@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], "Progressing"),
        ([UNSYNCED], "Progressing"),
        ([condition("ACK.Recoverable", "True", message="Could not find model"), UNSYNCED], "Progressing"),
        ([SYNCED], "Healthy"),
        ([condition("Ready", "True")], "Healthy"),
        ([SYNCED, TERMINAL], "Degraded"),
    ],
)
def test_the_health_of_what_ack_makes(
    kind: tuple[str, str], conditions: list[dict[str, Any]], expected: str, tmp_path: Path
) -> None:
    group, name = kind
    item = {"apiVersion": f"{group}/{ack.VERSION}", "kind": name, "metadata": {"name": "a", "namespace": "ml-dev"}}

    assert health(item | {"status": {"conditions": conditions}}, tmp_path)[0] == expected

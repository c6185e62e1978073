"""The API server's own verdict on changes of fields that no update may change: that of the rule `immutable`."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from conftest import wait_until

from gitops.checks import serving
from gitops.manifests.objects import Object, at

from contract.errors import Refused

from .conftest import SERVICE, World

NAMESPACE = "default"
LABELS = {"app": "immutable"}
POD = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "a", "image": "example.com/a:1"}]}}
SELECTED = {"selector": {"matchLabels": LABELS}, "template": POD}
FOREVER = {"metadata": {}, "spec": {**POD["spec"], "restartPolicy": "Never"}}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
MODE = "serving.kserve.io/deploymentMode"


def of(kind: str, **fields: Any) -> Object:
    version, _, name = kind.rpartition(" ")
    return {"apiVersion": version, "kind": name, "metadata": {"name": "immutable", "namespace": NAMESPACE}, **fields}


def model(**annotations: str) -> Object:
    served = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://mlops-prod/models/lily/a/"}
    item = of("serving.kserve.io/v1beta1 InferenceService", spec={"predictor": {"model": served}})
    item["metadata"]["annotations"] = annotations
    return item


CASES: dict[str, tuple[Object, dict[str, Any]]] = {
    "deployment-selector": (of("apps/v1 Deployment", spec=SELECTED), {"spec.selector.matchLabels.b": "c"}),
    "deployment-image": (of("apps/v1 Deployment", spec=SELECTED), {"spec.revisionHistoryLimit": 3}),
    "daemon-set-selector": (of("apps/v1 DaemonSet", spec=SELECTED), {"spec.selector.matchLabels.b": "c"}),
    "stateful-set-service": (of("apps/v1 StatefulSet", spec=SELECTED), {"spec.serviceName": "other"}),
    "stateful-set-order": (of("apps/v1 StatefulSet", spec=SELECTED), {"spec.podManagementPolicy": "Parallel"}),
    "stateful-set-replicas": (of("apps/v1 StatefulSet", spec=SELECTED), {"spec.replicas": 2}),
    "job-template": (of("batch/v1 Job", spec={"template": FOREVER}), {"spec.template.metadata.labels": {"b": "c"}}),
    "job-completions": (of("batch/v1 Job", spec={"template": FOREVER}), {"spec.completions": 3}),
    "job-parallelism": (of("batch/v1 Job", spec={"template": FOREVER}), {"spec.parallelism": 3}),
    "service-headless": (of("v1 Service", spec={"ports": [{"port": 80}]}), {"spec.clusterIP": "None"}),
    "service-port": (of("v1 Service", spec={"ports": [{"port": 80}]}), {"spec.selector": LABELS}),
    "claim-modes": (of("v1 PersistentVolumeClaim", spec=CLAIM), {"spec.accessModes": ["ReadWriteMany"]}),
    "config-map-data": (of("v1 ConfigMap", immutable=True, data={"a": "b"}), {"data.a": "c"}),
    "config-map-open": (of("v1 ConfigMap", data={"a": "b"}), {"data.a": "c"}),
    "secret-again": (of("v1 Secret", immutable=True, stringData={"a": "b"}), {"immutable": False}),
    "model-mode": (model(**{MODE: "Standard"}), {f"metadata.annotations.{MODE}": "Knative"}),
    "model-wave": (model(**{MODE: "Standard"}), {"metadata.annotations.a": "b"}),
}


def changed(item: Object, changes: dict[str, Any]) -> Object:
    """The object with other values at some paths; an annotation's name may have dots."""
    after = copy.deepcopy(item)
    for path, value in changes.items():
        start, _, name = path.partition("metadata.annotations.")
        keys = ["metadata", "annotations", name] if name else start.split(".")
        place = after
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
    return after


@pytest.mark.parametrize("name", CASES)
def test_the_server_refuses_what_the_rule_refuses(world: World, name: str) -> None:
    item, changes = CASES[name]
    item = copy.deepcopy(item)
    item["metadata"]["name"] = name
    after = changed(item, changes)
    world.cluster.apply(item)
    if item["kind"] == SERVICE[1]:
        # KServe compares with what its controller has noted.
        wait_until(
            lambda: at(world.cluster.get(*SERVICE, name, NAMESPACE), "status", "deploymentMode") is not None,
            f"KServe looks at {name}",
        )

    refused = False
    try:
        world.cluster.apply(after, dry_run=True)
    except Refused:
        refused = True
    finally:
        world.cluster.delete(item["apiVersion"], item["kind"], name, NAMESPACE)

    assert refused == bool(serving.frozen({"overlays/dev/a": [item]}, {"overlays/dev/a": [after]}))

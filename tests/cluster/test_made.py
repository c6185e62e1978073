"""What controllers make of what was admitted, each by its own name, on the whole control plane."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Version, wait_until

from gitops.cluster.control_plane import IDENTITIES
from gitops.manifests import workloads
from gitops.manifests.objects import Object, at, mappings

from contract.errors import Refused

from .conftest import CRON_JOB, DEPLOYMENT, World

SPACE = "ml-prod"
POD = ("v1", "Pod")


def running(world: World, **labels: str) -> list[Object]:
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    return [pod for pod in world.cluster.list(*POD, SPACE, selector) if at(pod, "status", "phase") == "Running"]


def again(item: Object) -> Object:
    """The same once more, by another name: with the owners that it has, and without what the server adds."""
    kept: dict[str, Any] = {name: item["metadata"][name] for name in ("labels", "annotations", "ownerReferences")}
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": kept | {"name": "again", "namespace": SPACE},
        "spec": item["spec"],
    }


def refused(world: World, item: Object) -> None:
    with pytest.raises(Refused, match="ValidatingAdmissionPolicy"):
        world.cluster.apply(item, dry_run=True)


def test_each_program_has_a_name_of_its_own() -> None:
    assert len({user for user, _ in IDENTITIES.values()}) == len(IDENTITIES)


def test_a_deployment_rolls_out_and_nobody_else_makes_its_pods(world: World, released: Version) -> None:
    wait_until(lambda: bool(running(world, **{"app.kubernetes.io/name": "lily-api"})), "pods of lily-api run")
    [made, *_] = [
        item
        for item in world.cluster.list("apps/v1", "ReplicaSet", SPACE)
        if at(item, "metadata", "labels", "app.kubernetes.io/name") == "lily-api"
    ]

    assert workloads.models(made)
    refused(world, again(made))


def test_kserve_serves_what_was_released_and_nobody_else_does_with_its_image(world: World, released: Version) -> None:
    labels = {"serving.kserve.io/inferenceservice": "lily-sklearn"}
    wait_until(lambda: bool(running(world, **labels)), "pods of lily-sklearn run")
    [pod, *_] = running(world, **labels)
    [made] = world.cluster.list(*DEPLOYMENT, SPACE, "serving.kserve.io/inferenceservice=lily-sklearn")
    [initializer] = mappings(at(pod, "spec", "initContainers"))

    # The one that compares the bytes, with the digest of the release.
    verified = world.cluster.get("serving.kserve.io/v1alpha1", "ClusterStorageContainer", "verified")
    assert initializer["command"] == at(verified, "spec", "container", "command")
    assert at(pod, "metadata", "annotations", "model.mlops/digest") == released.digest
    refused(world, again(made))


def test_a_run_of_a_batch_is_made_of_what_was_admitted(world: World, released: Version) -> None:
    # A run that was missed is made up for at once.
    missed = {"status": {"lastScheduleTime": "2020-01-01T00:00:00Z"}}
    sent = {"content_type": "application/merge-patch+json", "body": missed}
    world.cluster.patch(*CRON_JOB, "lily-batch", SPACE, {"spec": {"startingDeadlineSeconds": None}})
    world.cluster._kind(*CRON_JOB).subresources["status"].patch(name="lily-batch", namespace=SPACE, **sent)

    def runs() -> list[Object]:
        return [job for job in world.cluster.list("batch/v1", "Job", SPACE) if workloads.models(job)]

    wait_until(lambda: bool(runs()), "the CronJob's controller makes a Job", 60)
    [job, *_] = runs()
    selector = f"batch.kubernetes.io/job-name={job['metadata']['name']}"
    wait_until(lambda: bool(world.cluster.list(*POD, SPACE, selector)), "the Job's controller makes a pod", 60)

    refused(world, again({**job, "spec": {"template": {"spec": at(job, "spec", "template", "spec")}}}))

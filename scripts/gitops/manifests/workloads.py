"""Which kinds run containers, and where."""

from __future__ import annotations

from typing import Any

from gitops.manifests.objects import Object, at, listed


def canaries(item: Object) -> list[tuple[str, Any]]:
    """(path, predictor) of every canary of an InferenceService."""
    entries = listed(at(item, "spec", "canary"))
    return [(f"spec.canary[{at(entry, 'predictor', 'name')}].predictor", at(entry, "predictor")) for entry in entries]


# Where the kinds that run a container of our own have their pod.
PODS: dict[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}

"""What the metadata of an object may hold: nothing by which a controller deletes, replaces or skips it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.checks.serving import CLASS, MODE
from gitops.manifests import ack, workloads
from gitops.manifests.objects import Object, mapping, walk

_WAVE = re.compile(r"-?[0-9]+")
_YES_OR_NO = re.compile("true|false")
SYNC = "argocd.argoproj.io/sync-options"
CONTROLLERS = re.compile(r"([a-z0-9.-]+\.)?(argoproj\.io|kserve\.io|knative\.dev|helm\.sh)/")
# Of all that controllers do by an annotation or a label, what takes nothing away, and with which values.
_HARMLESS = {
    # Only the order of a sync.
    "argocd.argoproj.io/sync-wave": _WAVE,
    # A rule of its own compares it with what a render reads.
    "argocd.argoproj.io/manifest-generate-paths": re.compile(".*"),
    # A rule of its own; a service that is there keeps its mode.
    MODE: re.compile(".*"),
    # With `external` nothing of this repository keeps the number of pods; with `none` minReplicas does.
    CLASS: re.compile("hpa|keda|none"),
    # Figures for Prometheus.
    "serving.kserve.io/enable-prometheus-scraping": _YES_OR_NO,
    "serving.kserve.io/enable-metric-aggregation": _YES_OR_NO,
    # At which load Knative starts the next pod.
    "autoscaling.knative.dev/metric": re.compile("concurrency|rps|cpu|memory"),
    "autoscaling.knative.dev/target": re.compile("[1-9][0-9]*"),
}
# What only the API server and controllers write: with an owner that is not there, for example, the garbage collector
# deletes an object. Misspelled fields are a matter of the schema.
_CLUSTERS_OWN = (
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName", "generation",
    "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid",
)  # fmt: skip


def check_metadata(repository: Repository) -> Iterator[Finding]:
    """Nothing in an object's metadata has Argo CD, KServe or Kubernetes delete it, replace it or leave it as it is."""
    for folder, items in repository.folders():
        for item in items:
            for path, fault in _faults(item):
                yield finding("metadata", folder, item, f"{path}: {fault}")


def _faults(item: Object) -> Iterator[tuple[str, str]]:
    """Those of the object itself, and of all that a controller makes of a template in it."""
    for path, value in walk(item):
        field = path.rpartition(".")[2]
        for name, text in mapping(value).items():
            if field == "metadata" and name in _CLUSTERS_OWN:
                yield f"{path}.{name}", "only the cluster writes it, and may delete the object by it; remove it"
            elif (path, name) == ("metadata.annotations", SYNC) and workloads.kind_of(item) in ack.KINDS:
                # Theirs are pruned, and a rule of its own says which ones stay.
                continue
            elif field in ("annotations", "labels") and (fault := _order(str(name), text)):
                yield f"{path}.{name}", f"{text!r}: {fault}"


def _order(name: str, text: Any) -> str:
    """What is wrong with an annotation or a label by which a controller does more than is rendered."""
    if not CONTROLLERS.match(name):
        return ""
    if name not in _HARMLESS:
        return (
            "a controller may delete, replace or skip the object by it; remove it, or add it to what is harmless in"
            " scripts/gitops/checks/metadata.py"
        )
    if not _HARMLESS[name].fullmatch(str(text)):
        return f"harmless is only {_HARMLESS[name].pattern}; write that, or remove it"
    return ""


RULES: dict[str, Rule] = {"metadata": check_metadata}

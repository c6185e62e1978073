"""A model gets to KServe's servers by the container that compares every byte with the release, and in no other way.

The stock servers unpickle what they find. Nothing here may hang on a default value of KServe, or on what it makes of a
field or an annotation that it reads itself.

Source: https://github.com/kserve/kserve/tree/v0.20.0/pkg/webhook/admission/pod
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.manifests import workloads
from gitops.manifests.objects import Object, at, listed, mapping, mappings
from gitops.releases import release

RULE = "storage"
INITIALIZER = "storage-initializer"
_FOLDER, _VOLUME = "/mnt/models", "kserve-provision-location"
# By them KServe's webhook decides whether it fetches a model, from where, and who may write to it.
_INTERNAL = ("internal.serving.kserve.io/", "storage.kserve.io/")
_INSIDE = re.compile(rf"\A{_FOLDER}(/|\Z)|//|/\.")
_RELEASE = release.ANNOTATION


def check_storage(repository: Repository) -> Iterator[Finding]:
    """What serves a model gets it from the container that compares its bytes with the digest of the release."""
    for folder, _, _, items in repository.overlays():
        for item in items:
            for fault in (*_metadata_faults(item), *_container_faults(item), *_service_faults(item)):
                yield finding(RULE, folder, item, fault)


def _metadata_faults(item: Object) -> Iterator[str]:
    """Faults of the labels and annotations that get to pods: these win over the object's own, and the container that
    fetches the model reads the digest there."""
    own = mapping(at(item, "metadata"))
    canaries = dict(workloads.canaries(item))
    for path, found in [("metadata", own), *_passed_on(item)]:
        for field in ("annotations", "labels"):
            for name, value in mapping(at(found, field)).items():
                where = f"{path}.{field}.{name}"
                if str(name).startswith(_INTERNAL):
                    yield f"{where}: KServe's own, which changes how it fetches the model; remove it"
                elif path in canaries and field == "annotations":
                    continue  # a release of its own
                elif str(name).startswith(_RELEASE) and value != (wanted := at(own, field, str(name))):
                    yield f"{where}: {value!r}: the pods have it in the place of {wanted!r} of the object; remove it"


def _passed_on(item: Object) -> Iterator[tuple[str, Any]]:
    """(path, metadata) of all that gets to an object's pods beside its own metadata."""
    if workloads.is_inference_service(item):
        yield from workloads.components(item)
        return
    for keys in dict.fromkeys(pod.metadata for pod in workloads.pods(item) if pod.metadata != ("metadata",)):
        yield ".".join(keys), at(item, *keys)
    if workloads.kind_of(item) == ("batch", "CronJob"):
        yield "spec.jobTemplate.metadata", at(item, "spec", "jobTemplate", "metadata")


def _container_faults(item: Object) -> Iterator[str]:
    for container in workloads.containers(item):
        if container.fields.get("name") == INITIALIZER:
            yield f"{container.path}: KServe adds none that compares the bytes beside one of this name; rename it"
        if workloads.KSERVE_URI in dict(container.variables):
            yield (f"{container.path}.env[{workloads.KSERVE_URI}]: makes KServe fetch a model that no release names;"
                   " write it into model.storageUri of the predictor")  # fmt: skip


def _service_faults(item: Object) -> Iterator[str]:
    if not workloads.is_inference_service(item):
        return
    for path, part in workloads.components(item):
        chosen = at(part, "storageContainerName")
        if at(part, "model") is not None and chosen != workloads.STORAGE_CONTAINER:
            shown = "missing" if chosen is None else repr(chosen)
            yield (f"{path}.storageContainerName: {shown}: does not compare the model's bytes with the release; write"
                   f" {workloads.STORAGE_CONTAINER}")  # fmt: skip
    for pod in workloads.pods(item):
        for volume in mappings(pod.spec.get("volumes")):
            if volume.get("name") == _VOLUME:
                yield f"{pod.path}.volumes[{_VOLUME}]: takes the place of the model that was compared; rename it"
        for container in pod.containers:
            yield from _replaced(container)


def _replaced(container: workloads.Container) -> Iterator[str]:
    """What makes a server load other bytes than those that were compared."""
    for mount in mappings(container.fields.get("volumeMounts")):
        name, place = mount.get("name"), str(mount.get("mountPath"))
        if name == _VOLUME or not place.startswith("/") or _INSIDE.search(place):
            yield (f"{container.path}.volumeMounts[{name}].mountPath: {place!r}: reaches the model that was compared;"
                   f" use a plain path outside {_FOLDER}")  # fmt: skip
    for field in ("command", "args"):
        for argument in listed(container.fields.get(field)):
            # Python's servers take every beginning of an option for it.
            if "--model_d" in str(argument):
                yield (f"{container.path}.{field}: {argument!r}: loads another folder than the one whose bytes were"
                       " compared; remove it")  # fmt: skip


RULES: dict[str, Rule] = {RULE: check_storage}

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
from gitops.repo.policy import POLICY_FILE

from contract.uri import REPLICA

RULE, REPLICA_RULE = "storage", "replica"
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


# Replicas


def check_replica(repository: Repository) -> Iterator[Finding]:
    """What reads models in an environment that the policy gives a replica reads them there, and elsewhere nothing
    does: it would be in another account or region, or out of reach."""
    policy = repository.policy
    for folder, environment, _, items in repository.overlays():
        bucket = policy.at(environment).replica
        given = f"{POLICY_FILE} gives {environment} {bucket or 'no replica'}"
        for item in items:
            for fault in (*_variable_faults(item, bucket, given), *_unnamed_manifests(item, bucket, given)):
                yield finding(REPLICA_RULE, folder, item, fault)
    for cluster, folder, items in repository.clusters():
        for item in items:
            if (*workloads.kind_of(item), at(item, "metadata", "name")) == _CONTAINER:
                for fault in _fetching_faults(repository, cluster, item):
                    yield finding(REPLICA_RULE, folder, item, fault, *repository.renders)


def _variable_faults(item: Object, bucket: str, given: str) -> Iterator[str]:
    """What serves a model has the variable, and nothing gives it another value."""
    for container in workloads.containers(item):
        path, variables = f"{container.path}.env[{REPLICA}]", dict(container.variables)
        if REPLICA not in variables and bucket and workloads.MODEL_URI in variables:
            yield f"{path}: missing: {given}; list base/environment/replica and {REPLICA}={bucket} in the ../shared"
        elif REPLICA in variables and not (bucket and variables[REPLICA] == bucket):
            yield f"{path}: {_shown(variables[REPLICA])}: {given}; {f'write {bucket}' if bucket else 'remove it'}"
    for field in ("data", "stringData") if workloads.kind_of(item) in workloads.TEXT else ():
        if REPLICA in mapping(item.get(field)):
            yield f"{field}.{REPLICA}: would be a variable wherever it is taken whole; remove it"


def _unnamed_manifests(item: Object, bucket: str, given: str) -> Iterator[str]:
    """Releases that no replica is read for, because they do not name the SHA-256 of their manifest."""
    if not bucket or not workloads.released(item):
        return
    for path, part in [("metadata", at(item, "metadata")), *workloads.canaries(item)]:
        annotations = mapping(at(part, "annotations"))
        version = annotations.get(f"{_RELEASE}version", release.UNRELEASED)
        if version != release.UNRELEASED and f"{_RELEASE}manifest" not in annotations:
            yield (f"{path}.annotations.{_RELEASE}manifest: missing: {given}, and a replica is believed by that hash"
                   " alone; release the version anew with bump_model.py or promote_model.py")  # fmt: skip


_CONTAINER = ("serving.kserve.io", "ClusterStorageContainer", workloads.STORAGE_CONTAINER)


def _fetching_faults(repository: Repository, cluster: str, item: Object) -> Iterator[str]:
    """The container that fetches models for stock KServe servers is one for all environments of a cluster."""
    policy = repository.policy
    served = {
        environment: policy.at(environment).replica
        for _, environment, _, items in repository.all_overlays()
        if policy.at(environment).cluster == cluster and any(map(workloads.is_inference_service, items))
    }
    # Where there are none yet, it may be made ready for those to come.
    ready = ["", *(policy.at(environment).replica for environment in policy.on(cluster))]
    allowed = sorted(set(served.values() or ready))
    given = ", ".join(f"{environment} {bucket or policy.model_bucket}" for environment, bucket in served.items())
    for container in workloads.containers(item):
        path, variables = f"{container.path}.env[{REPLICA}]", dict(container.variables)
        # A value that is empty, or comes from elsewhere, is none that the policy gives.
        found = variables[REPLICA] or None if REPLICA in variables else ""
        if served and len(allowed) > 1:
            yield (f"{path}: one for all stock KServe servers of a cluster, and {POLICY_FILE} gives {given}; give these"
                   " environments one replica, or clusters of their own")  # fmt: skip
        elif found not in allowed:
            shown = _shown(variables[REPLICA]) if REPLICA in variables else "missing"
            remedy = f"write {' or '.join(filter(None, allowed))}" if any(allowed) else "remove it"
            yield f"{path}: {shown}: {POLICY_FILE} gives {given or 'no environment here a replica'}; {remedy}"


def _shown(value: Any) -> str:
    return "no plain value" if value is None else repr(value)


RULES: dict[str, Rule] = {RULE: check_storage, REPLICA_RULE: check_replica}

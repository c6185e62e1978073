"""What the cluster refuses by itself is what this repository would refuse, and nobody takes it back.

The policies in argocd/platform/admission/ are the engine's: what every cluster renders of them has to be, whole, what
LOCK beside them has the digests of. The bindings and parameters of each cluster follow from overlays/promotion.yaml,
and so does the container that fetches models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.manifests import ack, documents, workloads, yamledit
from gitops.manifests.objects import KUSTOMIZATION, Identity, Object, at, identity, leaves, mapping, mappings
from gitops.releases.release import ANNOTATION, UNRELEASED
from gitops.repo import layout
from gitops.repo.layout import PLATFORM
from gitops.repo.policy import IN_CLUSTER, POLICY_FILE, Policy

from contract.uri import REPLICA

RULE = "admission"
FOLDER = f"{PLATFORM}/admission"
LOCK = f"{FOLDER}/policies.lock"
"""Lines `SHA-256  policy  field`, the digest that of the field as JSON with sorted keys and no spaces."""
PROGRAM = f"{PLATFORM}/storage/fetch.py"
_REQUIRED = "require-manifest"
_PARAMETERS = Identity("", "ConfigMap", "argocd", "model-policy")
# A policy of this name has the record of withdrawn versions for its parameters.
_WITHDRAWN = "model-withdrawn"
_POLICY, _BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"
_GROUP = "admissionregistration.k8s.io"
# They would change an object before the policies see it, or after it left Git.
_CHANGING = ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "MutatingWebhookConfiguration")
# Kubernetes' own groups that have kinds in namespaces, as in kinds.yaml.
_KUBERNETES = (
    "", "apps", "authorization.k8s.io", "autoscaling", "batch", "coordination.k8s.io", "discovery.k8s.io",
    "events.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "resource.k8s.io", "storage.k8s.io",
)  # fmt: skip
# All of their kinds run containers or serve models, and admission looks into some of them.
_SERVING = ("serving.kserve.io", "serving.knative.dev", ack.SAGEMAKER, ack.SCALING)
_LOOKED_INTO = (("serving.kserve.io", "InferenceService"), *ack.KINDS)
# Who makes pods of what was admitted, in every cluster: whoever else were named here, admission would not ask.
# Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#controller-roles
_ACCOUNT = "system:serviceaccount"
_CONTROLLERS = ("cronjob", "daemon-set", "deployment", "job", "replicaset", "replication", "statefulset")
_MAKERS = {
    "pod-controllers": [
        "system:kube-controller-manager",
        *(f"{_ACCOUNT}:kube-system:{name}-controller" for name in _CONTROLLERS),
    ],
    "serving-controllers": [
        f"{_ACCOUNT}:kserve:kserve-controller-manager",
        f"{_ACCOUNT}:knative-serving:controller",
    ],
}
# Settings of Argo CD.
_LEAVING_OUT = ("resource.exclusions", "resource.inclusions")
_OF_THE_POLICY_FILE = ("data.model-bucket", "data.image-registries", "data.production-namespaces")
# What a fork chooses of the container that fetches models: where it is from and what it may use.
_CHOSEN = (
    "metadata.annotations.", "spec.container.command", "spec.container.image", "spec.container.resources.",
    "spec.supportedUriFormats",
)  # fmt: skip


# The policies


def fingerprints(policy: Object) -> dict[str, str]:
    """The digests of the fields of a policy, by their names."""
    fields = {name: value for name, value in policy.items() if name != "spec"}
    fields |= {f"spec.{name}": value for name, value in policy["spec"].items()}
    return {name: _digest(value) for name, value in fields.items()}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _command(program: str) -> list[str]:
    """How the container that fetches models is started."""
    return ["python", "-c", program]


def lock(root: Path) -> str:
    """The text of LOCK for the engine's policies, and its way of fetching models, in a checkout."""
    files = [root / name for name in layout.ENGINE_IN_FORK if name.startswith(FOLDER) and name.endswith(".yaml")]
    found = [item for file in files for item in yaml.safe_load_all(file.read_text()) if item["kind"] == _POLICY]
    lines = [
        f"{digest}  {policy['metadata']['name']}  {field}"
        for policy in found
        for field, digest in fingerprints(policy).items()
    ]
    command = _command((root / PROGRAM).read_text())
    lines.append(f"{_digest(command)}  {workloads.STORAGE_CONTAINER}  spec.container.command")
    return "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line.split("  ")[1:]))


def _shipped() -> set[str]:
    """What the lock has to name: the policy of each of the engine's files, and the container."""
    files = [Path(name) for name in layout.ENGINE_IN_FORK if name.startswith(FOLDER) and name.endswith(".yaml")]
    return {f"model-{file.stem.removesuffix('-policy')}" for file in files} | {workloads.STORAGE_CONTAINER}


def _locked(root: Path) -> dict[str, dict[str, str]]:
    """The digests of LOCK, by policy and field."""
    found: dict[str, dict[str, str]] = {}
    file = root / LOCK
    for line in file.read_text().splitlines() if file.is_file() else ():
        digest, name, field = line.split("  ")
        found.setdefault(name, {})[field] = digest
    return found


def check_admission(repository: Repository) -> Iterator[Finding]:
    """What a cluster refuses by itself is what this repository would refuse: by the engine's own policies, everywhere
    and at once, and with the same bucket, registries, namespaces and kinds."""
    policies = _locked(repository.root)
    for name in sorted(_shipped() - policies.keys()):
        yield Finding(RULE, LOCK, f"has no line of {name}; take it from the template, as it came with the policies")
    command = policies.pop(workloads.STORAGE_CONTAINER, {}).get("spec.container.command")
    for cluster, _, items in repository.clusters():
        objects = {identity(item): item for item in items}
        for name, fields in policies.items():
            yield from _policy_faults(cluster, objects, name, fields)
            yield from _binding_faults(cluster, objects, name, repository.policy)
        yield from _parameter_faults(cluster, objects, repository)
        yield from _storage_faults(cluster, objects, repository, command)
        yield from _unknown_kinds(cluster, objects, repository)
    yield from _way_faults(repository)
    for folder, items in repository.of_argocd():
        for item in items:
            if item.get("kind") in _CHANGING:
                yield finding(RULE, folder, item, "kind: changes objects on their way into the cluster, so that what"
                              " runs is not what was checked; remove it")  # fmt: skip


def _policy_faults(
    cluster: str, objects: Mapping[Identity, Object], name: str, fields: Mapping[str, str]
) -> Iterator[Finding]:
    what = Identity(_GROUP, _POLICY, "", name)
    if what not in objects:
        yield _missing(cluster, what, f"list the component {FOLDER}, which has it, in {_list(cluster)}")
        return
    item = objects[what]
    found = fingerprints(item)
    for field in sorted(fields.keys() | found.keys()):
        if fields.get(field) != found.get(field):
            value = at(item, *field.split("."))
            yield _altered(
                cluster, item, field, value, f"not what {LOCK} has; take the policy as the template ships it, unpatched"
            )


def _list(cluster: str) -> str:
    """What lists all that a cluster itself has."""
    return f"{layout.platform(cluster)}/{KUSTOMIZATION}"


def _altered(cluster: str, item: Object, path: str, value: Any, fault: str) -> Finding:
    shown = "missing" if value is None else json.dumps(value)
    return finding(RULE, layout.platform(cluster), item, f"{path}: {shown if len(shown) < 80 else 'changed'}: {fault}")


def _binding_faults(cluster: str, objects: Mapping[Identity, Object], name: str, policy: Policy) -> Iterator[Finding]:
    what = Identity(_GROUP, _BINDING, "", name)
    if what not in objects:
        remedy = f"without it the policy holds nowhere; write it into {layout.bindings(cluster)}"
        yield _missing(cluster, what, remedy)
        return
    yield from _differing(cluster, objects[what], binding(name, policy, cluster))


def binding(name: str, policy: Policy, cluster: str = IN_CLUSTER) -> Object:
    """How a policy of the engine is in force: it denies, in the namespaces of all environments of a cluster."""
    spaces = list(map(policy.namespace, policy.on(cluster)))
    chosen: dict[str, Any] = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": spaces}
    if not spaces:
        # Every namespace has this label, and a list of none is refused.
        chosen = {"key": "kubernetes.io/metadata.name", "operator": "DoesNotExist"}
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": _BINDING,
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "paramRef": {
                "name": _WITHDRAWN if name == _WITHDRAWN else _PARAMETERS.name,
                "namespace": _PARAMETERS.namespace,
                "parameterNotFoundAction": "Deny",
            },
            "matchResources": {"namespaceSelector": {"matchExpressions": [chosen]}},
        },
    }


def bindings_text(policy: Policy, cluster: str) -> str:
    """The file of a cluster's bindings, as `layout.bindings` has it."""
    items = [binding(name, policy, cluster) for name in _BOUND]
    where = "beside this file" if cluster == IN_CLUSTER else f"of {FOLDER}/"
    head = f"# Where the policies {where} hold: in the namespaces of all environments.\n"
    return head + documents.text(items)


_BOUND = ("model-images", "model-releases", "model-kinds", _WITHDRAWN)


def parameters_text(text: bytes, policy: Policy, cluster: str) -> bytes:
    """The file of a cluster's parameters, as `layout.parameters` has it, with what follows from where environments are;
    all else of `text`, which is that of any cluster, stays."""
    spaces = _production_namespaces(policy, cluster).split()
    return yamledit.set_words(text, ("data", "production-namespaces"), spaces, layout.parameters(cluster))


def _production_namespaces(policy: Policy, cluster: str) -> str:
    return " ".join(policy.namespace(name) for name in policy.production if name in policy.on(cluster))


def _differing(cluster: str, item: Object, wanted: Object) -> Iterator[Finding]:
    """One finding for each field of an object that is not as wanted, the whole of it counted."""
    found, asked = leaves(item), leaves(wanted)
    for path in sorted(found.keys() | asked.keys()):
        if found.get(path) != asked.get(path) or (path in found) != (path in asked):
            shown = json.dumps(found[path]) if path in found else "missing"
            why = f"{POLICY_FILE} gives" if path in _OF_THE_POLICY_FILE else "write"
            remedy = f"{why} {json.dumps(asked[path])}" if path in asked else "remove it"
            yield finding(RULE, layout.platform(cluster), item, f"{path}: {shown}; {remedy}")


def _missing(cluster: str, what: Identity, remedy: str) -> Finding:
    folder = layout.platform(cluster)
    return Finding(RULE, f"{folder}: {what}", f"not rendered; {remedy}", (folder,))


# Their way into the cluster


def _way_faults(repository: Repository) -> Iterator[Finding]:
    """Argo CD applies what is rendered of a cluster's platform/, all of it and nothing else."""
    platforms = {folder for _, folder, _ in repository.clusters()}
    for folder, item in _applications(repository):
        source = mapping(at(item, "spec", "source"))
        if (path := source.get("path")) not in platforms:
            continue
        extra = [f"source.{name}" for name in sorted(source.keys() - {"repoURL", "path", "targetRevision"})]
        for field in [*extra, *(["ignoreDifferences"] if at(item, "spec", "ignoreDifferences") else [])]:
            message = f"spec.{field}: what the cluster has would not be what is rendered here; remove it"
            yield finding(RULE, folder, item, message, str(path))
    for folder, item in _applications(repository):
        for field in _LEAVING_OUT if folder in platforms else ():
            if field in json.dumps(at(item, "spec", "source")):
                message = f"spec.source: {field}: Argo CD would leave out kinds, and policies with them; remove it"
                yield finding(RULE, folder, item, message)


def _applications(repository: Repository) -> Iterator[tuple[str, Object]]:
    found = ((folder, item) for folder, items in repository.of_argocd() for item in items)
    return ((folder, item) for folder, item in found if item.get("kind") == "Application")


# The parameters


def _parameter_faults(cluster: str, objects: Mapping[Identity, Object], repository: Repository) -> Iterator[Finding]:
    policy, folder = repository.policy, layout.platform(cluster)
    if _PARAMETERS not in objects:
        yield _missing(cluster, _PARAMETERS, f"list admission/parameters.yaml in {_list(cluster)}")
        return
    item = objects[_PARAMETERS]
    for image in _words(item, "serving-images"):
        if not workloads.is_fixed(image):
            yield finding(RULE, folder, item, f"data.serving-images: {image!r}: may be another image tomorrow;"
                          " name it by a version or by digest")  # fmt: skip
    for kind in _words(item, "other-kinds"):
        if kind.partition(".")[2] in (*_SERVING, *_KUBERNETES):
            yield finding(RULE, folder, item, f"data.other-kinds: {kind!r}: runs containers or serves models, so that"
                          " nobody would check what it runs; take it out")  # fmt: skip
    chosen = {f"data.{name}": at(item, "data", name) for name in ("serving-images", "other-kinds")}
    required = {_REQUIRED: "true"} if _REQUIRED in mapping(item.get("data")) else {}
    wanted = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _PARAMETERS.name, "namespace": _PARAMETERS.namespace},
        "data": {
            "model-bucket": policy.model_bucket,
            "image-registries": " ".join(policy.image_registries),
            "production-namespaces": _production_namespaces(policy, cluster),
            **{name: " ".join(names) for name, names in _MAKERS.items()},
            **{path.removeprefix("data."): value for path, value in chosen.items() if value is not None},
            **required,
        },
    }
    yield from _differing(cluster, item, wanted)
    for path, value in chosen.items():
        if not isinstance(value, str):
            yield finding(RULE, folder, item, f"{path}: missing; the policies ask for it")
    if required:
        yield from _unnamed_manifests(repository, cluster)


def _unnamed_manifests(repository: Repository, cluster: str) -> Iterator[Finding]:
    """Released objects that the cluster would refuse once the manifest is required."""
    for folder, environment, _, items in repository.overlays():
        for item in items if repository.policy.at(environment).cluster == cluster else ():
            for path, part in [("metadata", at(item, "metadata")), *workloads.canaries(item)]:
                annotations = mapping(at(part, "annotations"))
                version = annotations.get(f"{ANNOTATION}version", UNRELEASED)
                if version != UNRELEASED and f"{ANNOTATION}manifest" not in annotations:
                    message = (
                        f"{path}.annotations.{ANNOTATION}manifest: missing, and {_REQUIRED} of"
                        f" {layout.parameters(cluster)} asks for it; leave that out until bump_model.py or"
                        " promote_model.py made this release again"
                    )
                    yield finding(RULE, folder, item, message, layout.platform(cluster))


def _words(item: Object, name: str) -> list[str]:
    return str(at(item, "data", name) or "").split()


def is_other(group: str, kind: str) -> bool:
    """Whether a kind may be in an environment's namespace only if other-kinds of the parameters names it."""
    return group not in _KUBERNETES and (group, kind) not in _LOOKED_INTO


def is_serving(group: str) -> bool:
    """Whether all kinds of a group run containers or serve models, so that other-kinds cannot name them."""
    return group in _SERVING


def _unknown_kinds(cluster: str, objects: Mapping[Identity, Object], repository: Repository) -> Iterator[Finding]:
    """What the project of an environment allows there is of a kind that admission lets in."""
    parameters, folder = objects.get(_PARAMETERS, {}), layout.argocd(repository.policy, cluster)
    named, environments = _words(parameters, "other-kinds"), repository.policy.on(cluster)
    for item in repository.renders.get(folder, []):
        if item.get("kind") != "AppProject" or at(item, "metadata", "name") not in environments:
            continue
        for entry in mappings(at(item, "spec", "namespaceResourceWhitelist")):
            group, kind = str(at(entry, "group")), str(at(entry, "kind"))
            if is_other(group, kind) and f"{kind}.{group}" not in named:
                message = (
                    f"spec.namespaceResourceWhitelist: {kind}.{group}: no policy looks into it, and the cluster would"
                    f" refuse it; name it in other-kinds of {layout.parameters(cluster)}"
                )
                yield finding(RULE, folder, item, message, layout.platform(cluster))


# The container that fetches models


def _storage_faults(
    cluster: str, objects: Mapping[Identity, Object], repository: Repository, command: str | None
) -> Iterator[Finding]:
    what = Identity("serving.kserve.io", "ClusterStorageContainer", "", workloads.STORAGE_CONTAINER)
    folder, environments = layout.platform(cluster), repository.policy.on(cluster)
    there = (items for _, environment, _, items in repository.all_overlays() if environment in environments)
    if what not in objects:
        if any(workloads.is_inference_service(item) for items in there for item in items):
            yield _missing(cluster, what, f"list the component {PLATFORM}/storage in {_list(cluster)}")
        return
    item = objects[what]
    formats = [{"prefix": f"s3://{repository.policy.model_bucket}/models/"}]
    if (found := at(item, "spec", "supportedUriFormats")) != formats:
        yield finding(RULE, folder, item, f"spec.supportedUriFormats: {json.dumps(found)};"
                      f" {POLICY_FILE} gives {json.dumps(formats)}")  # fmt: skip
    found_leaves = {path: value for path, value in leaves(item).items() if not path.startswith(_CHOSEN)}
    # Settings of AWS, such as where it is, decide where the bytes come from and not whether they are the right ones;
    # the replica is a matter of its own rule.
    free = ("spec.container.env[AWS_", f"spec.container.env[{REPLICA}]")
    extra = {path for path in found_leaves.keys() - _STORAGE.keys() if not path.startswith(free)}
    faults = extra | {path for path in _STORAGE if found_leaves.get(path) != _STORAGE[path]}
    if _digest(at(item, "spec", "container", "command")) != command:
        faults.add("spec.container.command")
        found_leaves["spec.container.command"] = at(item, "spec", "container", "command")
    for path in sorted(faults):
        fault = f"not what compares every byte with the release; take {PLATFORM}/storage/ as the template ships it"
        yield _altered(cluster, item, path, found_leaves.get(path), fault)


_RELEASED = ((workloads.MODEL_DIGEST, f"{ANNOTATION}digest"), (workloads.MODEL_MANIFEST, f"{ANNOTATION}manifest"))
# What compares the bytes, without its program and what a fork chooses.
_STORAGE = leaves(
    {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": {"name": workloads.STORAGE_CONTAINER},
        "spec": {
            "container": {
                "name": "storage-initializer",
                "env": [
                    {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}}
                    for name, annotation in _RELEASED
                ],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            },
            "workloadType": "initContainer",
        },
    }
)


RULES: dict[str, Rule] = {RULE: check_admission}

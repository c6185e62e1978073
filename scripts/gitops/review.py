"""What a reviewer asks of every workload before it may run in production, and of what Argo CD may do.

Rules like those of `rules`: one function a rule, one finding a fault. They look at renders alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from gitops import kustomize, layout, release
from gitops.kustomize import Object
from gitops.rules import ARGOCD, Finding, Repository, Rule, at, finding, listed, matching

_DEFAULT_PORTS = {"InferenceService": (8080,)}  # where KServe's stock servers listen


def _workloads(items: Sequence[Object]) -> Iterator[tuple[Object, str, dict[str, Any], list[tuple[str, Any]]]]:
    """(object, path of its pod, pod, [(path of container, container)]) of every object that runs pods."""
    for item in items:
        kind, spec = item.get("kind"), at(item, "spec")
        if kind == "InferenceService":
            for part in ("predictor", "transformer", "explainer"):
                pod = at(spec, part)
                if isinstance(pod, dict):
                    path = f"spec.{part}"
                    containers = [(f"{path}.model", pod["model"])] if isinstance(pod.get("model"), dict) else []
                    yield item, path, pod, containers + _containers(path, pod)
        elif kind in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            pod = at(spec, "template", "spec")
            if isinstance(pod, dict):
                yield item, "spec.template.spec", pod, _containers("spec.template.spec", pod)
        elif kind == "CronJob":
            pod = at(spec, "jobTemplate", "spec", "template", "spec")
            if isinstance(pod, dict):
                path = "spec.jobTemplate.spec.template.spec"
                yield item, path, pod, _containers(path, pod)


def _mappings(value: Any) -> list[dict[str, Any]]:
    """The mappings of a list: whatever else may be there is for the schema to refuse."""
    return [item for item in listed(value) if isinstance(item, dict)]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _containers(path: str, pod: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (f"{path}.{field}[{container.get('name')}]", container)
        for field in ("initContainers", "containers")
        for container in _mappings(pod.get(field))
    ]


def check_images(repository: Repository) -> Iterator[Finding]:
    """Images come from the owner's registries, by digest or by a tag that is not `latest`."""
    registries = repository.policy.image_registries
    for folder, _, _, items in repository.overlays():
        for item, _, _, containers in _workloads(items):
            for path, container in containers:
                image = container.get("image")
                if image is None and path.endswith(".model"):
                    continue  # the serving runtime names it
                if image == release.UNRELEASED:
                    continue  # a matter of the rule of releases
                if not isinstance(image, str) or not any(image.startswith(f"{name}/") for name in registries):
                    known = ", ".join(registries)
                    yield finding("image", folder, item, f"{path}.image: {image!r}: from no registry of"
                                  f" {layout.POLICY_FILE} ({known}); take the image from there")  # fmt: skip
                elif not re.search(r"@sha256:[0-9a-f]{64}\Z|/[^/:@]+:(?!latest\Z)[\w.-]+\Z", image):
                    yield finding("image", folder, item, f"{path}.image: {image!r}: may be another image tomorrow;"
                                  " name it by digest")  # fmt: skip


def check_probes(repository: Repository) -> Iterator[Finding]:
    """A Deployment's containers say when they can answer and when they are beyond help, by different questions."""
    for folder, _, _, items in repository.overlays():
        for item, path, _, containers in _workloads(items):
            if item.get("kind") not in ("Deployment", "StatefulSet"):
                continue
            for name, container in containers:
                if not name.startswith(f"{path}.containers"):
                    continue
                for probe in ("readinessProbe", "livenessProbe"):
                    if not container.get(probe):
                        yield finding("probes", folder, item, f"{name}.{probe}: missing; without it a pod that cannot"
                                      " answer gets requests, or is never restarted")  # fmt: skip
                ready, alive = (
                    at(container, probe, "httpGet", "path") for probe in ("readinessProbe", "livenessProbe")
                )
                if ready is not None and ready == alive:
                    yield finding("probes", folder, item, f"{name}.livenessProbe.httpGet.path: {alive!r} as for"
                                  " readiness: a pod that waits for its model would be restarted for ever; ask only"
                                  " whether the process lives")  # fmt: skip


def check_resources(repository: Repository) -> Iterator[Finding]:
    """Every container requests CPU and memory and has a limit of memory."""
    for folder, _, _, items in repository.overlays():
        for item, _, _, containers in _workloads(items):
            for path, container in containers:
                for field in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
                    if at(container, "resources", *field) is None:
                        name = ".".join(field)
                        yield finding("resources", folder, item, f"{path}.resources.{name}: missing; the scheduler"
                                      " and the quota count on it")  # fmt: skip


def check_security(repository: Repository) -> Iterator[Finding]:
    """Pods keep to Pod Security's level `restricted`, and have no token for the Kubernetes API.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    for folder, _, _, items in repository.overlays():
        for item, path, pod, containers in _workloads(items):
            for fault in _pod_faults(path, pod):
                yield finding("security", folder, item, fault)
            for name, container in containers:
                for fault in _container_faults(name, container, pod):
                    yield finding("security", folder, item, fault)


def _pod_faults(path: str, pod: Mapping[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{path}.{field}: the pod would share the node's; remove it"
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{path}.automountServiceAccountToken: not false; nothing here calls the Kubernetes API"
    for volume in _mappings(pod.get("volumes")):
        if at(volume, "hostPath") is not None:
            yield f"{path}.volumes[{volume.get('name')}].hostPath: reads the node's files; use another kind of volume"


def _container_faults(path: str, container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    own, shared = _mapping(at(container, "securityContext")), _mapping(at(pod, "securityContext"))
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield f"{path}.securityContext.runAsNonRoot: not true, nor is the pod's; write runAsNonRoot: true"
    if own.get("runAsUser", shared.get("runAsUser")) == 0:
        yield f"{path}.securityContext.runAsUser: 0 is root; choose another user"
    if at(own.get("seccompProfile", shared.get("seccompProfile")), "type") not in ("RuntimeDefault", "Localhost"):
        yield f"{path}.securityContext.seccompProfile.type: neither RuntimeDefault nor Localhost, nor is the pod's"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{path}.securityContext.allowPrivilegeEscalation: not false; write allowPrivilegeEscalation: false"
    if own.get("privileged"):
        yield f"{path}.securityContext.privileged: true gives the container the node; remove it"
    capabilities = _mapping(own.get("capabilities"))
    if "ALL" not in listed(capabilities.get("drop")):
        yield f"{path}.securityContext.capabilities.drop: without ALL; write drop: [ALL]"
    for added in listed(capabilities.get("add")):
        yield f"{path}.securityContext.capabilities.add: {added}; a model server needs none"


def check_references(repository: Repository) -> Iterator[Finding]:
    """What one object of a render names in another one is there: accounts, services, ports, targets, selected pods."""
    for folder, _, _, items in repository.overlays():
        for item in items:
            for fault in _dangling(item, items):
                yield finding("references", folder, item, fault)


def _dangling(item: Object, items: Sequence[Object]) -> Iterator[str]:
    kind, spec = item.get("kind"), _mapping(at(item, "spec"))
    names = {(str(other.get("kind")), str(at(other, "metadata", "name"))) for other in items}
    for _, path, pod, containers in _workloads([item]):
        account = pod.get("serviceAccountName")
        if ("ServiceAccount", str(account)) not in names:
            yield f"{path}.serviceAccountName: {account!r}: no such ServiceAccount in this render; give the app its own"
        yield from _missing_sources(path, pod, containers, names)
    if kind == "Deployment":
        labels = _mapping(at(spec, "template", "metadata", "labels"))
        if not _selects(at(spec, "selector"), labels):
            yield "spec.selector: does not select the pods of its own template; make the labels equal"
        target = ("Deployment", str(at(item, "metadata", "name")))
        if "replicas" in spec and any(_scaled(other) == target for other in items):
            yield "spec.replicas: a HorizontalPodAutoscaler owns the number; remove it"
    pods = list(_pods(items))
    if kind == "Service" and spec.get("selector"):
        selected = [ports for labels, ports in pods if _selects({"matchLabels": spec["selector"]}, labels)]
        if not selected:
            yield "spec.selector: selects no pod of this render; use the labels of the workload"
        for port in _mappings(spec.get("ports")) if selected else []:
            to = port.get("targetPort", port.get("port"))
            if not any(to in ports for ports in selected):
                yield f"spec.ports[{port.get('name')}].targetPort: {to!r}: no container of its pods has this port"
    if kind == "Ingress":
        yield from _missing_backends(spec, items)
    if (scaled := _scaled(item)) and scaled not in names:
        yield f"spec.scaleTargetRef: {' '.join(scaled)}: not in this render; name the workload"
    if kind == "PodDisruptionBudget" and not any(_selects(spec.get("selector"), labels) for labels, _ in pods):
        yield "spec.selector: selects no pod of this render; use the labels of the workload"
    # An empty selector means every pod, and says so on purpose.
    if kind == "NetworkPolicy" and (chosen := spec.get("podSelector")):  # noqa: SIM102
        if not any(_selects(chosen, labels) for labels, _ in pods):
            yield "spec.podSelector: selects no pod of this render; use the labels of the workload"


def _scaled(item: Object) -> tuple[str, str] | None:
    target = at(item, "spec", "scaleTargetRef")
    if item.get("kind") != "HorizontalPodAutoscaler":
        return None
    return str(at(target, "kind")), str(at(target, "name"))


def _pods(items: Sequence[Object]) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Labels and ports (names and numbers) of the pods of each workload."""
    for item, _, _, containers in _workloads(items):
        if item.get("kind") == "InferenceService":
            # KServe copies the labels of an InferenceService to its pods.
            labels = _mapping(at(item, "metadata", "labels"))
        else:
            labels = _mapping(at(item, "spec", "template", "metadata", "labels"))
        ports = [
            value
            for _, container in containers
            for port in _mappings(container.get("ports"))
            for value in (port.get("name"), port.get("containerPort"))
        ]
        yield labels, [*ports, *_DEFAULT_PORTS.get(str(item.get("kind")), ())]


def _selects(selector: Any, labels: Mapping[str, Any]) -> bool:
    """Whether a label selector selects these labels; an empty one would select everything, and counts as none."""
    wanted, expressions = _mapping(at(selector, "matchLabels")), listed(at(selector, "matchExpressions"))
    if not wanted and not expressions:
        return False
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(matches(expression, labels) for expression in expressions)


def matches(expression: Any, labels: Mapping[str, Any]) -> bool:
    """Whether labels satisfy one of a selector's matchExpressions, as Kubernetes defines them."""
    key, values = str(at(expression, "key")), listed(at(expression, "values"))
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }.get(str(at(expression, "operator")), False)


def _missing_sources(
    path: str, pod: Mapping[str, Any], containers: Sequence[tuple[str, Any]], names: set[tuple[str, str]]
) -> Iterator[str]:
    """ConfigMaps that are not rendered. Secrets are made in the cluster, where no render can look."""
    used = [(f"{path}.volumes[{v.get('name')}]", at(v, "configMap", "name")) for v in _mappings(pod.get("volumes"))]
    for name, container in containers:
        used += [
            (f"{name}.envFrom", at(source, "configMapRef", "name")) for source in _mappings(container.get("envFrom"))
        ]
        used += [
            (f"{name}.env[{variable.get('name')}]", at(variable, "valueFrom", "configMapKeyRef", "name"))
            for variable in _mappings(container.get("env"))
        ]
    for where, wanted in used:
        if wanted is not None and ("ConfigMap", str(wanted)) not in names:
            yield f"{where}: ConfigMap {wanted!r}: not in this render; add it, or correct the name"


def _missing_backends(spec: Mapping[str, Any], items: Sequence[Object]) -> Iterator[str]:
    services = {
        str(at(item, "metadata", "name")): [
            value for port in _mappings(at(item, "spec", "ports")) for value in (port.get("name"), port.get("port"))
        ]
        for item in items
        if item.get("kind") == "Service"
    }
    backends = [("spec.defaultBackend", spec.get("defaultBackend"))] + [
        (f"spec.rules[{rule.get('host')}].http.paths[{path.get('path')}].backend", path.get("backend"))
        for rule in _mappings(spec.get("rules"))
        for path in _mappings(at(rule, "http", "paths"))
    ]
    for where, backend in backends:
        name = at(backend, "service", "name")
        if name is None:
            continue
        port = at(backend, "service", "port", "name") or at(backend, "service", "port", "number")
        if str(name) not in services:
            yield f"{where}: Service {name!r}: not in this render; name the app's own"
        elif port not in services[str(name)]:
            yield f"{where}: port {port!r}: Service {name} has {', '.join(map(str, services[str(name)]))}"


def check_environment(repository: Repository) -> Iterator[Finding]:
    """Nothing in an environment's render names another environment: its namespace, roles or hosts."""
    policy = repository.policy
    # One bucket and one registry serve every environment, whatever their names say.
    shared = re.compile("|".join(map(re.escape, (policy.model_bucket, *policy.image_registries))))
    for folder, environment, _, items in repository.overlays():
        others = "|".join(name for name in policy.environments if name != environment) or "(?!)"
        foreign = re.compile(rf"(?<![a-z0-9])({others})(?![a-z0-9])")
        for item in items:
            for path, value in kustomize.leaves(item).items():
                if path == "metadata.namespace":
                    continue  # a matter of the rule of namespaces
                if isinstance(value, str) and (found := foreign.search(shared.sub("", value))):
                    yield finding("environment", folder, item, f"{path}: {value!r} names {found[1]} in {environment};"
                                  " an overlay has its own environment's values")  # fmt: skip


# What Argo CD may do


def check_projects(repository: Repository) -> Iterator[Finding]:
    """Each environment has a project that allows its own namespace, this repository and the rendered kinds; nothing
    has a wildcard, and no Application is in the project `default`, which allows everything."""
    items = repository.renders.get(ARGOCD, [])
    projects = {str(at(item, "metadata", "name")): item for item in items if item.get("kind") == "AppProject"}
    for item in projects.values():
        for path, value in kustomize.leaves(_mapping(at(item, "spec"))).items():
            if isinstance(value, str) and "*" in value:
                yield finding("projects", ARGOCD, item, f"spec.{path}: {value!r}: a wildcard; list what is allowed")
    for item in items:
        spec = {"Application": at(item, "spec"), "ApplicationSet": at(item, "spec", "template", "spec")}
        name = at(spec.get(str(item.get("kind"))), "project")
        if name is not None and "{{" not in str(name) and str(name) not in projects:
            yield finding("projects", ARGOCD, item, f"spec.project: {name!r}: no AppProject of argocd/; use one of"
                          f" {', '.join(sorted(projects))}")  # fmt: skip
    for environment in repository.policy.environments:
        project = projects.get(environment)
        if project is None:
            yield Finding("projects", ARGOCD, f"no AppProject {environment}; each environment of {layout.POLICY_FILE}"
                          " has one", (ARGOCD,))  # fmt: skip
            continue
        namespace = layout.namespace(environment)
        for target in _mappings(at(project, "spec", "destinations")):
            if at(target, "namespace") != namespace:
                yield finding("projects", ARGOCD, project, f"spec.destinations: namespace {at(target, 'namespace')!r};"
                              f" the project of {environment} allows {namespace} alone")  # fmt: skip
        yield from _unallowed(repository, environment, project)


def _unallowed(repository: Repository, environment: str, project: Object) -> Iterator[Finding]:
    allowed = {
        (scope, str(at(entry, "group")), str(at(entry, "kind")))
        for scope in ("clusterResourceWhitelist", "namespaceResourceWhitelist")
        for entry in _mappings(at(project, "spec", scope))
    }
    for folder, found, _, items in repository.overlays():
        for item in items if found == environment else []:
            what = kustomize.identity(item)
            if not what.namespace and what.kind != "Namespace":
                continue  # the rule of namespaces refuses it
            scope = "clusterResourceWhitelist" if what.kind == "Namespace" else "namespaceResourceWhitelist"
            if (scope, what.group, what.kind) not in allowed:
                yield finding("projects", folder, item, f"kind: {what.kind}: not in {scope} of the AppProject"
                              f" {environment}; Argo CD would refuse it", ARGOCD)  # fmt: skip


_TEMPLATE = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")


def check_applications(repository: Repository) -> Iterator[Finding]:
    """Applications sync this repository's deployed branch by themselves and by server-side apply, templates use what
    every generator gives, and nothing that is unreleased has an Application."""
    for item in repository.renders.get(ARGOCD, []):
        if item.get("kind") == "Application":
            spec, path = at(item, "spec"), "spec"
        elif item.get("kind") == "ApplicationSet":
            spec, path = at(item, "spec", "template", "spec"), "spec.template.spec"
            yield from _template_faults(item)
            yield from _unreleased(repository, item)
        else:
            continue
        for field, wanted in (
            (("source", "targetRevision"), "cicd"),
            (("syncPolicy", "automated", "selfHeal"), True),
        ):
            if (found := at(spec, *field)) != wanted:
                name = ".".join(field)
                yield finding("applications", ARGOCD, item, f"{path}.{name}: {json.dumps(found)}; write"
                              f" {json.dumps(wanted)}")  # fmt: skip
        if "ServerSideApply=true" not in listed(at(spec, "syncPolicy", "syncOptions")):
            yield finding("applications", ARGOCD, item, f"{path}.syncPolicy.syncOptions: without ServerSideApply=true;"
                          " add it")  # fmt: skip


def _template_faults(item: Object) -> Iterator[Finding]:
    if at(item, "spec", "goTemplate") is not True:
        yield finding("applications", ARGOCD, item, "spec.goTemplate: not true; a value that is missing would be empty")
    if "missingkey=error" not in listed(at(item, "spec", "goTemplateOptions")):
        yield finding("applications", ARGOCD, item, "spec.goTemplateOptions: without missingkey=error; add it")
    for path, value in kustomize.leaves(_mapping(at(item, "spec", "template"))).items():
        for action in _TEMPLATE.findall(value) if isinstance(value, str) else []:
            if action != ".path.path" and not re.fullmatch(r"index \.path\.segments [0-9]+", action):
                yield finding("applications", ARGOCD, item, f"spec.template.{path}: {{{{ {action} }}}}: use .path.path"
                              " and .path.segments alone")  # fmt: skip


def _unreleased(repository: Repository, item: Object) -> Iterator[Finding]:
    """Every generator that finds a release file leaves out those that say `unreleased`."""
    for generator in _mappings(at(item, "spec", "generators")):
        for file in _mappings(at(generator, "git", "files")):
            for found in sorted(matching(repository.root, at(file, "path"))):
                folder = found.parent.relative_to(repository.root).as_posix()
                if folder not in repository.renders or found.name != layout.RELEASE_FILE:
                    continue
                flat = {
                    path: str(value) for path, value in kustomize.leaves(yaml.safe_load(found.read_bytes())).items()
                }
                version = flat.get(f"metadata.annotations.{release.ANNOTATION}version")
                expressions = _mappings(at(generator, "selector", "matchExpressions"))
                if version == release.UNRELEASED and all(matches(expression, flat) for expression in expressions):
                    yield finding("applications", ARGOCD, item, f"spec.generators: {folder} is unreleased and gets an"
                                  " Application; select on model.mlops/version NotIn [unreleased]", folder)  # fmt: skip


RULES: dict[str, Rule] = {
    "image": check_images,
    "probes": check_probes,
    "resources": check_resources,
    "security": check_security,
    "references": check_references,
    "environment": check_environment,
    "projects": check_projects,
    "applications": check_applications,
}

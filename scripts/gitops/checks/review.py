"""What a reviewer asks of every workload before it may run in production.

Rules like those of `consistency`: one function a rule, one finding a fault. They look at renders alone.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.checks.serving import CLASS, MODE
from gitops.manifests import kustomize, workloads
from gitops.manifests.objects import KUSTOMIZATION, Object, at, leaves, listed, mapping, mappings, selects
from gitops.manifests.workloads import Container, Pod
from gitops.releases import release
from gitops.repo import layout
from gitops.repo.policy import POLICY_FILE


def _pods(items: Sequence[Object]) -> Iterator[tuple[Object, Pod]]:
    """The pods of every object of a render, and the object."""
    for item in items:
        for pod in workloads.pods(item):
            yield item, pod


def _containers(items: Sequence[Object]) -> Iterator[tuple[Object, Container]]:
    for item, pod in _pods(items):
        for container in pod.containers:
            yield item, container


def check_images(repository: Repository) -> Iterator[Finding]:
    """Images come from the owner's registries, by digest or by a tag that is not `latest`; in production by digest."""
    registries, production = repository.policy.image_registries, repository.policy.production
    for folder, environment, _, items in repository.overlays():
        # Those that SageMaker runs are of no pod.
        for item, container in [(each, found) for each in items for found in workloads.containers(each)]:
            path, image = container.path, container.image
            if (version := container.fields.get("runtimeVersion")) and container.optional_image:
                yield finding("image", folder, item, f"{path}.runtimeVersion: {version!r}: takes another image than the"
                              " serving runtime names; remove it")  # fmt: skip
            if image is None and container.optional_image:
                continue  # the serving runtime names it
            if release.unreleased(image):
                continue  # a matter of the rule of releases
            if not isinstance(image, str) or not repository.policy.owns(image):
                known = ", ".join(registries)
                yield finding("image", folder, item, f"{path}.image: {image!r}: from no registry of"
                                  f" {POLICY_FILE} ({known}); take the image from there")  # fmt: skip
            elif not workloads.is_fixed(image) or (environment in production and "@" not in image):
                yield finding("image", folder, item, f"{path}.image: {image!r}: may be another image tomorrow;"
                                  " name it by digest")  # fmt: skip


def check_probes(repository: Repository) -> Iterator[Finding]:
    """The containers of what serves for ever have a probe for being ready and another one for being beyond help."""
    for folder, _, _, items in repository.overlays():
        for item, pod in _pods(items):
            if workloads.kind_of(item) not in (("apps", "Deployment"), ("apps", "StatefulSet")):
                continue
            for container in pod.running:
                name = container.path
                for probe in ("readinessProbe", "livenessProbe"):
                    if not container.fields.get(probe):
                        yield finding("probes", folder, item, f"{name}.{probe}: missing; without it a pod that cannot"
                                      " answer gets requests, or is never restarted")  # fmt: skip
                ready, alive = (
                    at(container.fields, probe, "httpGet", "path") for probe in ("readinessProbe", "livenessProbe")
                )
                if ready is not None and ready == alive:
                    yield finding("probes", folder, item, f"{name}.livenessProbe.httpGet.path: {alive!r} as for"
                                  " readiness: a pod that waits for its model would be restarted for ever; ask only"
                                  " whether the process lives")  # fmt: skip


# Of the five fields of a schedule, the smallest and the largest number, and the names that stand for numbers.
_MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"
_TIMES = ((0, 59, ""), (0, 23, ""), (1, 31, ""), (1, 12, _MONTHS), (0, 6, "SUN MON TUE WED THU FRI SAT"))
_RANGE = re.compile(r"(\*|(?P<first>\w+)(-(?P<last>\w+))?)(/(?P<step>[0-9]+))?")


def check_jobs(repository: Repository) -> Iterator[Finding]:
    """A CronJob runs at times that there are, never twice at once, and for no longer than its limit."""
    for folder, _, _, items in repository.overlays():
        for item in items:
            if workloads.kind_of(item) != ("batch", "CronJob"):
                continue
            spec = mapping(at(item, "spec"))
            schedule, job = spec.get("schedule"), mapping(at(spec, "jobTemplate", "spec"))
            overlap = spec.get("concurrencyPolicy")
            faults = []
            if isinstance(schedule, str) and not _is_schedule(schedule):
                faults.append(f"spec.schedule: {schedule!r}: no time of cron; write minute, hour, day of the month,"
                              " month and day of the week (0 to 6), the zone in spec.timeZone")  # fmt: skip
            if overlap not in ("Forbid", "Replace"):
                faults.append(f"spec.concurrencyPolicy: {'missing' if overlap is None else repr(overlap)}; the next run"
                              " would begin beside one that takes long; write Forbid")  # fmt: skip
            if "activeDeadlineSeconds" not in job:
                faults.append("spec.jobTemplate.spec.activeDeadlineSeconds: missing; a run that hangs would keep all"
                              " others from beginning")  # fmt: skip
            yield from (finding("jobs", folder, item, fault) for fault in faults)


def _is_schedule(text: str) -> bool:
    """Whether Kubernetes takes this for a CronJob's schedule, and a time of it comes.

    Source: https://pkg.go.dev/github.com/robfig/cron/v3#hdr-CRON_Expression_Format
    """
    if text in ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"):
        return True
    fields = text.split()
    if len(fields) != len(_TIMES):
        return False
    minutes, hours, days, months, weekdays = (_numbers(*pair) for pair in zip(fields, _TIMES, strict=True))
    # Where both kinds of day are given, one of them is enough.
    dated = fields[4] not in ("*", "?") or any(day <= monthrange(2024, month)[1] for month in months for day in days)
    return bool(minutes and hours and days and months and weekdays and dated)


def _numbers(field: str, times: tuple[int, int, str]) -> set[int]:
    """What a field of a schedule stands for; none where a part of it is no range."""
    parts = [_range(part, *times) for part in field.split(",")]
    return set().union(*parts) if all(parts) else set()


def _range(part: str, smallest: int, largest: int, names: str) -> range:
    match = _RANGE.fullmatch(part.replace("?", "*"))
    if not match or match["step"] == "0":
        return range(0)
    known = {name: number for number, name in enumerate(names.split(), smallest)}
    ends = [word.upper() for word in (match["first"], match["last"]) if word]
    numbers = [int(end) if end.isdecimal() else known.get(end, -1) for end in ends]
    if not all(smallest <= number <= largest for number in numbers):
        return range(0)
    first = numbers[0] if numbers else smallest
    last = numbers[-1] if match["last"] or (numbers and not match["step"]) else largest
    return range(first, last + 1, int(match["step"] or 1))


def check_resources(repository: Repository) -> Iterator[Finding]:
    """Every container requests CPU and memory and has a limit of memory."""
    for folder, _, _, items in repository.overlays():
        for item, container in _containers(items):
            for field in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
                if at(container.fields, "resources", *field) is None:
                    name = ".".join(field)
                    yield finding("resources", folder, item, f"{container.path}.resources.{name}: missing; the"
                                  " scheduler and the quota count on it")  # fmt: skip


def check_security(repository: Repository) -> Iterator[Finding]:
    """Pods keep to Pod Security's level `restricted`, and have no token for the Kubernetes API.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    for folder, _, _, items in repository.overlays():
        for item, pod in _pods(items):
            for fault in _pod_faults(pod.path, pod.spec) if pod.whole else ():
                yield finding("security", folder, item, fault)
            for container in pod.containers:
                for fault in _container_faults(container.path, container.fields, pod.spec):
                    yield finding("security", folder, item, fault)


def _pod_faults(path: str, pod: Mapping[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{path}.{field}: the pod would share the node's; remove it"
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{path}.automountServiceAccountToken: not false; nothing here calls the Kubernetes API"
    for volume in mappings(pod.get("volumes")):
        if at(volume, "hostPath") is not None:
            yield f"{path}.volumes[{volume.get('name')}].hostPath: reads the node's files; use another kind of volume"


def _container_faults(path: str, container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    own, shared = mapping(at(container, "securityContext")), mapping(at(pod, "securityContext"))
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
    capabilities = mapping(own.get("capabilities"))
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
    kind, spec = item.get("kind"), mapping(at(item, "spec"))
    names = {(str(other.get("kind")), str(at(other, "metadata", "name"))) for other in items}
    for pod in workloads.pods(item):
        account = pod.spec.get("serviceAccountName")
        if pod.whole and ("ServiceAccount", str(account)) not in names:
            field = f"{pod.path}.serviceAccountName"
            yield f"{field}: {account!r}: no such ServiceAccount in this render; give the app its own"
        yield from _missing_sources(pod, names)
        yield from _missing_ports(pod)
    if workloads.kind_of(item) in (("apps", "Deployment"), ("apps", "StatefulSet")):
        target = (str(kind), str(at(item, "metadata", "name")))
        if "replicas" in spec and any(workloads.scaled(other) == target for other in items):
            yield "spec.replicas: a HorizontalPodAutoscaler owns the number; remove it"
    pods = list(_labels_and_ports(items))
    if kind == "Service" and spec.get("selector"):
        selected = [ports for labels, ports in pods if selects({"matchLabels": spec["selector"]}, labels)]
        if not selected:
            yield "spec.selector: selects no pod of this render; use the labels of the workload"
        for port in mappings(spec.get("ports")) if selected else []:
            to = port.get("targetPort", port.get("port"))
            if not any(to in ports for ports in selected):
                yield f"spec.ports[{port.get('name')}].targetPort: {to!r}: no container of its pods has this port"
    if kind == "Ingress":
        yield from _missing_backends(spec, items)
    if (scaled := workloads.scaled(item)) and scaled not in names:
        yield f"spec.scaleTargetRef: {' '.join(scaled)}: not in this render; name the workload"
    if kind == "PodDisruptionBudget" and not any(selects(spec.get("selector"), labels) for labels, _ in pods):
        yield "spec.selector: selects no pod of this render; use the labels of the workload"
    # An empty selector means every pod, on purpose.
    if kind == "NetworkPolicy" and (chosen := spec.get("podSelector")):  # noqa: SIM102
        if not any(selects(chosen, labels) for labels, _ in pods):
            yield "spec.podSelector: selects no pod of this render; use the labels of the workload"


def _labels_and_ports(items: Sequence[Object]) -> Iterator[tuple[Mapping[str, Any], list[Any]]]:
    """Labels and ports (names and numbers) of the pods of each workload."""
    for item, pod in _pods(items):
        yield pod.labels, [value for port in workloads.ports(item, pod) for value in (port.name, port.number)]


# What calls a port of its own container.
_CALLERS = (
    ("lifecycle", "postStart"), ("lifecycle", "preStop"), ("livenessProbe",), ("readinessProbe",), ("startupProbe",),
)  # fmt: skip


def _missing_ports(pod: Pod) -> Iterator[str]:
    """Ports by names that their container does not have. Of KServe's server, its runtime has the ports."""
    for container in pod.containers:
        names = [port.get("name") for port in mappings(container.fields.get("ports"))]
        for keys in _CALLERS if not container.optional_image else ():
            for way in ("httpGet", "tcpSocket"):
                port = at(container.fields, *keys, way, "port")
                if isinstance(port, str) and not port.isdecimal() and port not in names:
                    yield f"{container.path}.{'.'.join(keys)}.{way}.port: {port!r}: no port of the container"


# Kubernetes makes it in every namespace.
_EVERYWHERE = ("ConfigMap", "kube-root-ca.crt")


def _missing_sources(pod: Pod, names: set[tuple[str, str]]) -> Iterator[str]:
    """ConfigMaps that are not rendered and not optional. Secrets are made in the cluster, where no render can look."""
    used: list[tuple[str, Any]] = []
    for volume in mappings(pod.spec.get("volumes")):
        path = f"{pod.path}.volumes[{volume.get('name')}]"
        projected = mappings(at(volume, "projected", "sources"))
        used += [(path, at(source, "configMap")) for source in (volume, *projected)]
    for container in pod.containers:
        path, fields = container.path, container.fields
        used += [(f"{path}.envFrom", at(source, "configMapRef")) for source in mappings(fields.get("envFrom"))]
        used += [
            (f"{path}.env[{variable.get('name')}]", at(variable, "valueFrom", "configMapKeyRef"))
            for variable in mappings(fields.get("env"))
        ]
    for where, source in used:
        wanted = "ConfigMap", str(at(source, "name"))
        if source is not None and at(source, "optional") is not True and wanted not in {_EVERYWHERE, *names}:
            yield f"{where}: ConfigMap {wanted[1]!r}: not in this render; add it, or correct the name"


def _missing_backends(spec: Mapping[str, Any], items: Sequence[Object]) -> Iterator[str]:
    services = {
        str(at(item, "metadata", "name")): [
            value for port in mappings(at(item, "spec", "ports")) for value in (port.get("name"), port.get("port"))
        ]
        for item in items
        if item.get("kind") == "Service"
    }
    backends = [("spec.defaultBackend", spec.get("defaultBackend"))] + [
        (f"spec.rules[{rule.get('host')}].http.paths[{path.get('path')}].backend", path.get("backend"))
        for rule in mappings(spec.get("rules"))
        for path in mappings(at(rule, "http", "paths"))
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


NAME_LABEL = "app.kubernetes.io/name"
# Names that are a container's, a port's or a volume's own, or a class of the cluster's, and data; what a container
# refers to is none of them.
_OWN_NAME = re.compile(
    r"(^|\.)(((initC|c)ontainers\[[^]]*\]|(predictor|transformer|explainer)\.model)\.(?!.*Ref\.name$)"
    r"|(ports?|targetPort|container|containerName)(\[|\.|$)|volumes\[[^]]*\]\.name$"
    r"|(priorityClass|runtimeClass|scheduler|storageClass)Name$)|^data\."
)


def check_names(repository: Repository) -> Iterator[Finding]:
    """An app gives its shape's objects, and all that refers to them, a name of its own, and leaves nothing unset.

    A reference that nobody renames keeps the shape's name: some of them find nothing then, without an error.
    """
    for folder, _, app, items in repository.overlays():
        if app == "environment":
            continue
        shape = _shape_names(repository, folder) - {app}
        for item in items:
            faults = [*_unnamed(item, shape), *_unlabelled(item, app, shape)]
            yield from (finding("names", folder, item, fault) for fault in faults)


def _shape_names(repository: Repository, folder: str) -> set[str]:
    """The names of the objects in base/ from which an overlay is made."""
    files = (repository.root / name for name in repository.reads(folder) if name.startswith("base/"))
    return {name for file in files if file.suffix == ".yaml" for name in _names(file.read_text())}


@cache
def _names(manifests: str) -> tuple[str, ...]:
    names = (at(item, "metadata", "name") for item in kustomize.objects(manifests))
    return tuple(name for name in names if isinstance(name, str))


def _unnamed(item: Object, shape: set[str]) -> Iterator[str]:
    for path, value in leaves(item).items():
        if value == "unset" or (isinstance(value, str) and value.startswith("unset.")):
            yield f"{path}: {value!r}: nothing sets it; the overlay has to, or the ../shared that it lists"
        elif isinstance(value, str) and value in shape and not _OWN_NAME.search(path):
            yield f"{path}: {value!r}: the shape's name is left; add the field to the shape's component `named`"


def _unlabelled(item: Object, app: str, shape: set[str]) -> Iterator[str]:
    """A workload and its pods have labels with their app and their model; what selects them counts on it."""
    wanted = {NAME_LABEL: app, release.MODEL_LABEL: at(item, "metadata", "labels", release.MODEL_LABEL)}
    places = dict.fromkeys(keys for pod in workloads.pods(item) if pod.whole for keys in (("metadata",), pod.metadata))
    for keys in places:
        labels = mapping(at(item, *keys, "labels"))
        for label, value in wanted.items():
            if (found := labels.get(label)) != value and str(found) not in shape:
                shown = "missing" if found is None else repr(found)
                where = f"{'.'.join(keys)}.labels.{label}"
                yield f"{where}: {shown}; write {value!r}, which selectors and reports count on"


# What only one of the modes has, with what the other makes of it.
_KNATIVE_ONLY = {
    "canaryTrafficPercent": "all callers get the new version",
    "containerConcurrency": "nothing limits it",
}


def check_deployment_mode(repository: Repository) -> Iterator[Finding]:
    """A service names its mode of KServe, asks for nothing that its mode ignores, and is in the mode
    Knative only where the platform has Knative."""
    rule = "deployment-mode"
    knative = {
        cluster
        for cluster, _, items in repository.clusters()
        if any(item.get("kind") == "KnativeServing" for item in items)
    }
    for folder, environment, _, items in repository.overlays():
        platform = layout.platform(cluster := repository.policy.at(environment).cluster)
        for item in items:
            if not workloads.is_inference_service(item):
                continue
            mode, field = at(item, "metadata", "annotations", MODE), f"metadata.annotations.{MODE}"
            if mode not in ("Standard", "Knative"):
                message = f"{field}: {'missing' if mode is None else repr(mode)}; write Standard or Knative"
                yield finding(rule, folder, item, message)
            elif mode == "Knative" and cluster not in knative:
                message = (
                    f"{field}: no Knative in {platform}; list its component `knative` in {platform}/{KUSTOMIZATION}"
                )
                yield finding(rule, folder, item, message, platform)
            elif mode == "Standard":
                for path, message in _ignored(item):
                    yield finding(rule, folder, item, f"{path}: {message}; take it out, or use the mode Knative")


def _ignored(item: Object) -> Iterator[tuple[str, str]]:
    """(path, fault) of what KServe does not heed in the mode Standard."""
    for path, part in ((pod.path, pod.spec) for pod in workloads.pods(item)):
        if at(part, "minReplicas") == 0 and at(item, "metadata", "annotations", CLASS) != "keda":
            yield f"{path}.minReplicas", "0: the mode Standard keeps one pod, unless KEDA scales it"
        for field, instead in _KNATIVE_ONLY.items():
            if at(part, field) is not None:
                yield f"{path}.{field}", f"ignored in the mode Standard, where {instead}"
        if at(part, "scaleMetric") in ("concurrency", "rps"):
            yield f"{path}.scaleMetric", f"{at(part, 'scaleMetric')}: the mode Standard scales by cpu or memory"


RULES: dict[str, Rule] = {
    "deployment-mode": check_deployment_mode,
    "image": check_images,
    "probes": check_probes,
    "jobs": check_jobs,
    "resources": check_resources,
    "security": check_security,
    "references": check_references,
    "names": check_names,
}

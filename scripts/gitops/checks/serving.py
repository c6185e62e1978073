"""What serves after a sync: which workloads run, and what leads callers to them.

A service is more than a rendered object. It needs pods that start, a Service that selects them at a port that they
have, an Ingress that leads to that Service, and network policies that let its traffic through. `states` gives all of
that for one environment, so that the renders before a change and after it can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gitops.manifests import ack, stack, workloads
from gitops.manifests.objects import (
    Identity,
    Labelled,
    Object,
    at,
    differences,
    identity,
    leaves,
    listed,
    mapping,
    mappings,
)
from gitops.manifests.workloads import Pod, Port
from gitops.releases import release

Renders = Mapping[str, Sequence[Object]]
SERVICE, INGRESS = ("", "Service"), ("networking.k8s.io", "Ingress")
NETWORK_POLICY = ("networking.k8s.io", "NetworkPolicy")
STOP, MODE, CLASS = (f"serving.kserve.io/{name}" for name in ("stop", "deploymentMode", "autoscalerClass"))
"""KServe's annotations that decide whether an InferenceService has pods, and when."""


@dataclass(frozen=True, order=True)
class State:
    """One thing that an object does for its callers, and why it does not, "" where it does."""

    identity: Identity
    what: str
    fault: str = ""


class _Environment:
    """The objects of an environment, by what they are to a service."""

    def __init__(self, items: Sequence[Object]) -> None:
        self.items = items
        self._kinds: dict[tuple[str, str], list[Object]] = {}
        self._scalers: dict[tuple[str, str], list[Object]] = {}
        for item in items:
            self._kinds.setdefault(workloads.kind_of(item), []).append(item)
            if target := workloads.scaled(item):
                self._scalers.setdefault(target, []).append(item)
        makers = [item for item in items if workloads.runs(item) and not _idle(item, self)]
        self.pods = {id(item): [pod for pod in workloads.pods(item) if pod.whole] for item in makers}
        """Those that are made, by the identity of the object that makes them."""
        running = [(item, pod) for item in makers for pod in self.pods[id(item)]]
        self._running = Labelled((pod.labels, (item, pod)) for item, pod in running)
        self._policies: dict[int, list[Mapping[str, Any]]] = {}
        for policy in self.of(NETWORK_POLICY):
            spec = mapping(at(policy, "spec"))
            chosen = self._running.selected(spec["podSelector"]) if spec.get("podSelector") else running
            for _, pod in chosen:
                self._policies.setdefault(id(pod), []).append(spec)

    def of(self, kind: tuple[str, str]) -> list[Object]:
        return self._kinds.get(kind, [])

    def scalers(self, target: tuple[str, str]) -> list[Object]:
        """The objects that decide how many pods one of this kind and name has."""
        return self._scalers.get(target, [])

    def selected(self, service: Object) -> list[tuple[Object, Pod]]:
        """The pods that a Service selects, and the object that makes them."""
        return self._running.selected({"matchLabels": at(service, "spec", "selector")})

    def makers(self, service: Object) -> set[int]:
        """The objects whose pods a Service selects, by their identity."""
        return {id(item) for item, _ in self.selected(service)}

    def policies(self, pod: Pod) -> list[Mapping[str, Any]]:
        """The specs of the network policies that select one of `pods`."""
        return self._policies.get(id(pod), [])


def states(items: Sequence[Object]) -> list[State]:
    """What each object of one environment does for its callers: workloads first, then what leads to them."""
    environment = _Environment(items)
    services, ingresses = environment.of(SERVICE), environment.of(INGRESS)
    faults = [_unanswered(item, environment) for item in services]
    answering = {_name(item): item for item, fault in zip(services, faults, strict=True) if not fault}
    leading = [item for item in ingresses if not _leads_nowhere(item, answering)]
    named = {name for item in leading for name in _backends(item)}
    reached = {name: environment.makers(item) for name, item in answering.items()}
    served = set().union(*reached.values())
    exposed = set().union(*(makers for name, makers in reached.items() if name in named))
    found: list[State] = []
    for item in items:
        if workloads.runs(item):
            found += _workload_states(item, environment, id(item) in served, id(item) in exposed)
        elif workloads.kind_of(item) == ack.ENDPOINT:
            found += [State(identity(item), "rendered"), State(identity(item), "running", _unmade(item, environment))]
        elif stack.is_stack(item):
            # What leads callers to it is a part of its own template.
            found += [State(identity(item), "rendered"), State(identity(item), "running", _stopped(item))]
    found += [State(identity(item), "answering", fault) for item, fault in zip(services, faults, strict=True)]
    found += [State(identity(item), "answering", _leads_nowhere(item, answering)) for item in ingresses]
    return found


def _workload_states(item: Object, environment: _Environment, served: bool, exposed: bool) -> Iterator[State]:
    mine, idle = identity(item), _idle(item, environment)
    pods = environment.pods.get(id(item), [])
    yield State(mine, "rendered")
    yield State(mine, "running", idle)
    let_in = any(_lets(environment, pod, "Ingress", port) for pod in pods for port in workloads.ports(item, pod))
    reached = {
        "reached by a Service": served,
        "reached by an Ingress": exposed,
        "open to callers": let_in,
        "able to call out": any(_lets(environment, pod, "Egress") for pod in pods),
        "able to look up names": any(_lets(environment, pod, "Egress", _DNS) for pod in pods),
    }
    for what, holds in reached.items():
        yield State(mine, what, "" if holds else idle or _WHY[what])


_WHY = {
    "reached by a Service": "none that answers selects its pods",
    "reached by an Ingress": "none leads to a Service of its pods",
    "open to callers": "no NetworkPolicy lets them in at its ports",
    "able to call out": "no NetworkPolicy lets it out at more than port 53",
    "able to look up names": "no NetworkPolicy lets it out at port 53",
}
_DNS = Port("dns", 53, "UDP")


# What runs

# Of a workload's spec, or of that of a CronJob's Jobs: the fields by which its controller makes no pods.
_NO_PODS: dict[str, Any] = {"replicas": 0, "parallelism": 0, "completions": 0, "suspend": True}
# The API server's documentation: with fewer seconds a CronJob may never be started.
_SHORTEST_DEADLINE = 10
_GATES = ("schedulingGates", "readinessGates")


def _idle(item: Object, environment: _Environment) -> str:
    """Why a workload makes no pods that answer, or none of its release; "" where nothing keeps it from that."""
    faults = (*_unreleased(item), *_without_pods(item), *_scaled_away(item, environment), *_gated(item))
    return next(iter(faults), "")


def _unreleased(item: Object) -> Iterator[str]:
    for path, value in workloads.named(item).items():
        if _is_none(value):
            yield f"{path}: {value!r}: nothing is released"


def _unmade(endpoint: Object, environment: _Environment) -> str:
    """Why an endpoint of SageMaker has nothing that answers, or nothing of its release; "" where it has."""
    configs = {at(each, "spec", "endpointConfigName"): each for each in environment.of(ack.CONFIG)}
    models = {at(each, "spec", "modelName"): each for each in environment.of(ack.MODEL)}
    wanted = at(endpoint, "spec", "endpointConfigName")
    if wanted not in configs:
        return f"spec.endpointConfigName: {wanted!r}: no EndpointConfig of that name is rendered"
    for variant in mappings(at(configs[wanted], "spec", "productionVariants")):
        name = variant.get("modelName")
        if name not in models:
            return f"{identity(configs[wanted])}: {name!r}: no Model of that name is rendered"
        for fault in _unreleased(models[name]):
            return fault
    return ""


def _stopped(item: Object) -> str:
    """Why a Stack has no instance, or none of its release; "" where nothing keeps it from that."""
    sizes = {name: stack.parameters(item).get(name) for name in ("MinSize", "MaxSize")}
    none = [f"{stack.path(name)}: '0': no instance is started" for name, size in sizes.items() if size == "0"]
    return next(iter((*_unreleased(item), *none)), "")


def _without_pods(item: Object) -> Iterator[str]:
    spec = mapping(at(item, "spec"))
    for path, part in (("spec", spec), ("spec.jobTemplate.spec", mapping(at(spec, "jobTemplate", "spec")))):
        for field, value in _NO_PODS.items():
            if field in part and part[field] == value:
                yield f"{path}.{field}: {part[field]!r}: no pod is made"
        if part.get("paused"):
            yield f"{path}.paused: {part['paused']!r}: no release that comes would ever run"
        if part.get("managedBy", "kubernetes.io/job-controller") != "kubernetes.io/job-controller":
            yield f"{path}.managedBy: {part['managedBy']!r}: the Job controller of Kubernetes would leave it alone"
    deadline = spec.get("startingDeadlineSeconds")
    if isinstance(deadline, int) and deadline < _SHORTEST_DEADLINE:
        yield f"spec.startingDeadlineSeconds: {deadline}: below {_SHORTEST_DEADLINE} a run may never start"


def _scaled_away(item: Object, environment: _Environment) -> Iterator[str]:
    """Reasons of autoscalers: that of an object of its own, or KServe's."""
    for other in environment.scalers((str(item.get("kind")), _name(item))):
        bounds = mapping(at(other, "spec"))
        for field in ("minReplicas", "maxReplicas"):
            if bounds.get(field) == 0:
                yield f"{identity(other)}: spec.{field}: 0: it may take every pod away"
    if not workloads.is_inference_service(item):
        return
    annotations = at(item, "metadata", "annotations")
    if at(annotations, STOP) is not None:
        yield f"metadata.annotations.{STOP}: {at(annotations, STOP)!r}: KServe takes its pods away"
    # The mode Knative starts a pod for the first caller, and there 0 is no limit.
    for pod in workloads.pods(item) if at(annotations, MODE) != "Knative" else ():
        for field in ("minReplicas", "maxReplicas"):
            if pod.spec.get(field) == 0:
                yield f"{pod.path}.{field}: 0: no pod is made"


def _gated(item: Object) -> Iterator[str]:
    for pod in workloads.pods(item):
        for field in _GATES:
            if pod.spec.get(field):
                yield f"{pod.path}.{field}: a pod waits for what nothing here does"


# What leads there


def _name(item: Object) -> str:
    return str(at(item, "metadata", "name"))


def _unanswered(service: Object, environment: _Environment) -> str:
    """Why a Service has a port at which no pod answers; "" where all of them lead to one."""
    spec = mapping(at(service, "spec"))
    if spec.get("type") == "ExternalName":
        return "spec.type: 'ExternalName': it leads elsewhere"
    chosen = environment.selected(service)
    if not chosen:
        return f"spec.selector: {spec.get('selector')!r}: selects no pod that runs"
    for port in mappings(spec.get("ports")) or [{}]:
        wanted, protocol = port.get("targetPort", port.get("port")), port.get("protocol", "TCP")
        path = f"spec.ports[{port.get('name')}].targetPort: {wanted!r} ({protocol})"
        open_ports = [(pod, each) for item, pod in chosen for each in workloads.ports(item, pod)]
        there = [(pod, each) for pod, each in open_ports if each.called(wanted) and each.protocol == protocol]
        if not there:
            return f"{path}: no container has this port"
        if not any(_lets(environment, pod, "Ingress", each) for pod, each in there):
            return f"{path}: no NetworkPolicy lets callers in there"
    return ""


def _backends(ingress: Object) -> dict[str, list[Any]]:
    """The Services that an Ingress leads to, and at which of their ports."""
    paths = [path for rule in mappings(at(ingress, "spec", "rules")) for path in mappings(at(rule, "http", "paths"))]
    found: dict[str, list[Any]] = {}
    for backend in (at(ingress, "spec", "defaultBackend"), *(path.get("backend") for path in paths)):
        port = at(backend, "service", "port", "name") or at(backend, "service", "port", "number")
        found.setdefault(str(at(backend, "service", "name")), []).append(port)
    return found


def _leads_nowhere(ingress: Object, answering: Mapping[str, Object]) -> str:
    backends = _backends(ingress)
    for name, wanted in backends.items():
        listed_ports = mappings(at(answering.get(name), "spec", "ports"))
        if any(port in (each.get("name"), each.get("port")) for port in wanted for each in listed_ports):
            return ""
    return f"spec.rules: leads to {', '.join(sorted(backends))}, and to no Service that answers"


# Network policies, which add up: what none lets through is cut off as soon as one is about a pod.


def _lets(environment: _Environment, pod: Pod, direction: str, port: Port | None = None) -> bool:
    """Whether callers get in, or the pod gets out, at this port; without one, at any but that of the DNS."""
    chosen = [spec for spec in environment.policies(pod) if _is_about(spec, direction)]
    rules = [rule for spec in chosen for rule in mappings(spec.get(direction.lower()))]
    return not chosen or any(_covers(listed(rule.get("ports")), port) for rule in rules)


def _is_about(spec: Mapping[str, Any], direction: str) -> bool:
    """Without policyTypes a policy is about what comes in, and about what goes out if it has rules for that.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
    """
    types = listed(spec.get("policyTypes")) or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return direction in types


def _covers(ports: Sequence[Any], port: Port | None) -> bool:
    if not ports:
        return True
    if port is None:
        return any(at(each, "port") != _DNS.number for each in ports)
    return any(_covers_port(mapping(each), port) for each in ports)


def _covers_port(entry: Mapping[str, Any], port: Port) -> bool:
    first, last = entry.get("port"), entry.get("endPort")
    if entry.get("protocol", "TCP") != port.protocol:
        return False
    if isinstance(first, int) and isinstance(last, int) and isinstance(port.number, int):
        return first <= port.number <= last
    return first is None or port.called(first)


# What a change takes away


@dataclass(frozen=True)
class Loss:
    """What something in a folder did before a change and does no longer after it."""

    folder: str
    state: State

    def __str__(self) -> str:
        reason = f" ({self.state.fault})" if self.state.fault else ""
        return f"{self.state.identity} is no longer {self.state.what}{reason}"


def lost(before: Renders, after: Renders) -> list[Loss]:
    """What served before and does not after, given the renders of the overlays by folder: one loss for each object,
    and where a workload of an app is lost, not what only led to it."""
    before, after = _changed_environments(before, after)
    now = {(state.identity, state.what): state.fault for state in _all_states(after)}
    places = {identity(item): folder for folder, items in before.items() for item in items}
    losses: dict[str, dict[Identity, Loss]] = {}
    for state in _all_states(before):
        fault = now.get((state.identity, state.what), "" if state.what == "rendered" else "it is not rendered")
        gone = (state.identity, state.what) not in now
        if not state.fault and (gone or fault):
            folder = places[state.identity]
            loss = Loss(folder, State(state.identity, state.what, fault))
            losses.setdefault(folder, {}).setdefault(state.identity, loss)
    return [loss for found in losses.values() for loss in _foremost(list(found.values()))]


def _changed_environments(before: Renders, after: Renders) -> tuple[Renders, Renders]:
    """Nothing of one environment leads to another."""
    folders = [folder for folder in {**before, **after} if not _serve_alike(before.get(folder), after.get(folder))]
    changed = {_environment(folder) for folder in folders}
    one, other = (
        {folder: items for folder, items in renders.items() if _environment(folder) in changed}
        for renders in (before, after)
    )
    return one, other


def _serve_alike(one: Sequence[Object] | None, other: Sequence[Object] | None) -> bool:
    """Whether two renders differ in nothing but which release they have."""
    if one is other or one is None or other is None:
        return one is other
    named = {(identity(item), path) for item in one for path in workloads.named(item)}
    return all(
        ((each.identity, each.path) in named or each.path.startswith(f"metadata.annotations.{release.ANNOTATION}"))
        and all(isinstance(value, str) and not _is_none(value) for value in (each.before, each.after))
        for each in differences(one, other)
    )


def _is_none(value: Any) -> bool:
    return bool(value == release.UNRELEASED_URI or release.unreleased(value))


def _environment(folder: str) -> str | None:
    return folder.split("/")[1] if folder.startswith("overlays/") else None


def _all_states(renders: Renders) -> list[State]:
    environments: dict[str, list[Object]] = {}
    for folder, items in renders.items():
        if environment := _environment(folder):
            environments.setdefault(environment, []).extend(items)
    return [state for items in environments.values() for state in states(items)]


def _foremost(losses: list[Loss]) -> list[Loss]:
    """The workloads, if there are any: what led to them is lost with them."""
    leading = [loss for loss in losses if loss.state.what == "answering"]
    return [loss for loss in losses if loss not in leading] or leading


# What the API server refuses to change, by group and kind. A sync of it fails, and with it the app's next releases.
_SELECTOR = ("spec.selector",)
_IMMUTABLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "PersistentVolumeClaim"): ("spec.accessModes", "spec.selector", "spec.storageClassName", "spec.volumeMode"),
    ("", "Service"): ("spec.clusterIP", "spec.clusterIPs"),
    ("apps", "DaemonSet"): _SELECTOR,
    ("apps", "Deployment"): _SELECTOR,
    ("apps", "ReplicaSet"): _SELECTOR,
    ("apps", "StatefulSet"): (
        "spec.selector", "spec.serviceName", "spec.podManagementPolicy", "spec.volumeClaimTemplates",
    ),
    ("batch", "Job"): (
        "spec.template", "spec.selector", "spec.completions", "spec.completionMode", "spec.podFailurePolicy",
        "spec.successPolicy", "spec.backoffLimitPerIndex", "spec.managedBy",
    ),
    ("rbac.authorization.k8s.io", "RoleBinding"): ("roleRef",),
    ack.ENDPOINT: ("spec.endpointName",),
    ack.SCALING_POLICY: ("spec.policyName", "spec.resourceID"),
    ack.TARGET: ("spec.resourceID", "spec.scalableDimension"),
    ("serving.kserve.io", "InferenceService"): (f"metadata.annotations.{MODE}",),
}  # fmt: skip


def frozen(before: Renders, after: Renders) -> list[tuple[str, Object, str]]:
    """(folder, object, path) of each change of a field that no update may change, in what is in the cluster already.

    Source: the validation of updates in k8s.io/kubernetes/pkg/apis, and KServe's webhook of InferenceServices.
    """
    now = {identity(item): item for folder, items in after.items() if items is not before.get(folder) for item in items}
    return [
        (folder, item, path)
        for folder, items in before.items()
        if items is not after.get(folder)
        if not any(True for item in items for _ in _unreleased(item))
        for item in items
        if identity(item) in now
        for path in _frozen_paths(item, now[identity(item)])
        if _below(item, path) != _below(now[identity(item)], path)
    ]


def _frozen_paths(item: Object, later: Object) -> tuple[str, ...]:
    if workloads.kind_of(item) in ack.REPLACED:
        # Under another name it is another one.
        return ("spec",) if _name(item) == _name(later) else ()
    if item.get("immutable") is True and workloads.kind_of(item) in workloads.TEXT:
        return "immutable", "data", "binaryData", "stringData"
    return _IMMUTABLE.get(workloads.kind_of(item), ())


def _below(item: Object, path: str) -> dict[str, Any]:
    return {key: value for key, value in leaves(item).items() if re.match(rf"{re.escape(path)}(\Z|[.\[])", key)}

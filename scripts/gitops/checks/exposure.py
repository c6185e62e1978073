"""Whom an environment lets in, and by which names: hosts, load balancers, Services, ports of nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from gitops.checks.environments import Names
from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.checks.metadata import CONTROLLERS
from gitops.checks.serving import INGRESS, NETWORK_POLICY, SERVICE
from gitops.manifests import workloads
from gitops.manifests.objects import Object, at, identity, listed, mapping, mappings, walk
from gitops.repo.policy import POLICY_FILE, Policy

Faults = Iterator[tuple[str, str]]
"""(path, what is wrong there)."""

# Hosts

_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")


def check_hosts(repository: Repository) -> Iterator[Finding]:
    """Every host is written out and of its own environment, as the policy gives them, and one path of it leads to one
    place."""
    for folder, environment, _, items in repository.overlays():
        for item in (item for item in items if workloads.kind_of(item) == INGRESS):
            for path, host in _hosts(item):
                if fault := _host_fault(repository.policy, environment, host):
                    yield finding("hosts", folder, item, f"{path}: {fault}")
    seen: dict[tuple[str, str, str], str] = {}
    for folder, environment, _, items in repository.all_overlays():
        for item in (item for item in items if workloads.kind_of(item) == INGRESS):
            for address in _addresses(item):
                mine = f"{folder}: {identity(item)}"
                if (first := seen.setdefault((environment, *address), mine)) != mine:
                    yield finding("hosts", folder, item, f"spec.rules: {''.join(address)}: {first} has the same; give"
                                  " one of them another host or path", first.partition(":")[0])  # fmt: skip


def _hosts(item: Object) -> Iterator[tuple[str, Any]]:
    for number, rule in enumerate(mappings(at(item, "spec", "rules"))):
        yield f"spec.rules[{number}].host", rule.get("host")
    for number, entry in enumerate(mappings(at(item, "spec", "tls"))):
        yield from ((f"spec.tls[{number}].hosts", host) for host in listed(entry.get("hosts")))


def _addresses(item: Object) -> set[tuple[str, str]]:
    return {
        (str(rule.get("host")), str(path.get("path")))
        for rule in mappings(at(item, "spec", "rules"))
        for path in mappings(at(rule, "http", "paths"))
    }


def _host_fault(policy: Policy, environment: str, host: Any) -> str:
    own = policy.exposure[environment].hosts if environment in policy.exposure else ()
    below = f"one below {' or '.join(own)}" if own else "one whole name"
    if not host:
        return f"missing; it would answer for every host of its load balancer; write {below}"
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        return f"{host!r}: not the name of one host; write {below}"
    if not own:
        domain = host.partition(".")[2]
        return f"{host!r}: {POLICY_FILE} gives {environment} no hosts; write `hosts: [{domain}]` there, its domain"
    owner = policy.environment_of(host)
    if owner != environment:
        whose = f"of {owner}" if owner else "of no environment"
        return f"{host!r}: {whose} by {POLICY_FILE}; write {below}"
    return ""


# What lets callers in

# Annotations by which the load balancer shapes the listener and the targets of this one Ingress.
_OWN_LISTENER = re.compile(
    r"alb\.ingress\.kubernetes\.io/(backend-protocol(-version)?|certificate-arn|healthcheck-[a-z-]+|inbound-cidrs"
    r"|ip-address-type|listen-ports|load-balancer-attributes|manage-backend-security-group-rules|security-groups"
    r"|ssl-policy|ssl-redirect|subnets|success-codes|target-group-attributes|target-type|wafv2-acl-arn"
    r"|group\.order)"
)
_SCHEME = "alb.ingress.kubernetes.io/scheme"
# What several Ingresses, and so several environments, can have in common.
_COMMON = ("alb.ingress.kubernetes.io/group.name", "alb.ingress.kubernetes.io/load-balancer-name")
# Marks of this repository, and figures for Prometheus.
_MARKS = re.compile(r"[^/]*|(model\.mlops|app\.kubernetes\.io|prometheus\.io)/.*")
# What a kind that nobody knows is called, or its fields, if it lets callers in.
_GROUP = re.compile(r"gateway|network|rout|ingress|mesh|dns|multicluster|elbv2|traefik|contour|ambassador|cilium|calico"
                    r"|istio|kong|nginx|haproxy|appmesh|serving\.knative|discovery")  # fmt: skip
_FIELDS = {
    "addresses", "dnsName", "dnsNames", "domain", "domains", "entryPoints", "externalIPs", "externalName", "fqdn",
    "gateways", "host", "hostname", "hostnames", "hosts", "ingressClassName", "parentRefs", "subsets",
    "targetGroupARN", "virtualhost",
}  # fmt: skip


def check_exposure(repository: Repository) -> Iterator[Finding]:
    """Callers come in by an Ingress of a class that the policy names, on a load balancer of the environment's own, and
    pods take nothing of the node's and no precedence over others."""
    policy = repository.policy
    for folder, environment, _, items in repository.overlays():
        for item in items:
            for path, fault in _exposure_faults(item, environment, policy):
                yield finding("exposure", folder, item, f"{path}: {fault}")


def _exposure_faults(item: Object, environment: str, policy: Policy) -> Faults:
    kind = workloads.kind_of(item)
    if kind in _LET_IN:
        yield from _LET_IN[kind](item, policy)
    elif not workloads.pods(item):
        yield from _unknown(item)
    if kind in (*_LET_IN, ("serving.kserve.io", "InferenceService")):
        yield from _annotation_faults(item, environment, policy)
    yield from _pod_faults(item)


def _service_faults(item: Object, policy: Policy) -> Faults:
    spec = mapping(at(item, "spec"))
    if (found := spec.get("type") or "ClusterIP") != "ClusterIP":
        yield "spec.type", f"{found!r}: leads past the Ingress, in or out; write ClusterIP"
    for field in ("externalIPs", "externalName", "loadBalancerIP", "loadBalancerClass"):
        if value := spec.get(field):
            yield f"spec.{field}", f"{value!r}: takes an address that is not this Service's; remove it"


def _ingress_faults(item: Object, policy: Policy) -> Faults:
    spec = mapping(at(item, "spec"))
    classes = policy.ingress_classes
    if (found := spec.get("ingressClassName")) not in classes:
        shown = "missing" if found is None else repr(found)
        yield "spec.ingressClassName", f"{shown}; {POLICY_FILE} allows {', '.join(classes)} (ingress.classes)"
    if spec.get("defaultBackend"):
        yield "spec.defaultBackend", "answers for every host of its load balancer; write rules with hosts"
    for path, value in walk(spec, "spec"):
        if path.endswith("backend.resource") and value:
            yield path, "leads to what no rule looks into; name a Service"


_LET_IN: dict[tuple[str, str], Callable[[Object, Policy], Faults]] = {
    SERVICE: _service_faults,
    INGRESS: _ingress_faults,
    NETWORK_POLICY: lambda item, policy: iter(()),  # a rule of its own
}


def _unknown(item: Object) -> Faults:
    group, kind = workloads.kind_of(item)
    if (group, kind) in workloads.TEXT:
        return
    remedy = "no rule knows whom it lets in; use an Ingress, or write a rule in scripts/gitops/checks/exposure.py"
    if _GROUP.search(group):
        yield "kind", f"{kind} of {group}: {remedy}"
        return
    for path, _ in walk({field: value for field, value in item.items() if field != "metadata"}):
        if path.rpartition(".")[2] in _FIELDS:
            yield path, f"{kind} of {group or 'the core'}: {remedy}"
            return


def _annotation_faults(item: Object, environment: str, policy: Policy) -> Faults:
    """KServe copies the annotations of an InferenceService to the Services and Ingresses that it makes."""
    for path, value in walk(item):
        if path.rpartition(".")[2] == "annotations":
            for name, text in mapping(value).items():
                if fault := _annotation_fault(str(name), text, environment, policy):
                    yield f"{path}.{name}", fault


def _annotation_fault(name: str, text: Any, environment: str, policy: Policy) -> str:
    if name == _SCHEME:
        open_ = environment in policy.exposure and policy.exposure[environment].internet_facing
        if text != "internal" and not (open_ and text == "internet-facing"):
            return (f"{text!r}: write internal; only where {POLICY_FILE} gives the environment `internet_facing: true`"
                    " it may be internet-facing")  # fmt: skip
    elif name in _COMMON:
        if environment not in Names(policy).words(str(text)):
            return f"{text!r}: other environments could have it too; put {environment} into the name"
    elif CONTROLLERS.match(name):
        pass  # a matter of the rule of metadata
    elif not _OWN_LISTENER.fullmatch(name) and not _MARKS.fullmatch(name) and name not in policy.annotations:
        return (f"{text!r}: may take over other hosts or open other ways in; remove it, or list it in {POLICY_FILE}"
                " (ingress.annotations)")  # fmt: skip
    return ""


def _pod_faults(item: Object) -> Faults:
    for pod in workloads.pods(item):
        if (found := str(pod.spec.get("priorityClassName", ""))).startswith("system-"):
            yield f"{pod.path}.priorityClassName", f"{found!r}: would drive out pods of other environments; remove it"
        for container in pod.containers:
            for port in mappings(container.fields.get("ports")):
                for field in ("hostPort", "hostIP"):
                    if port.get(field):
                        where = f"{container.path}.ports[{port.get('name')}].{field}"
                        yield where, f"{port[field]!r}: opens the node, past every policy; remove it"


RULES: dict[str, Rule] = {"hosts": check_hosts, "exposure": check_exposure}

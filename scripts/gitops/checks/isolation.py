"""What separates environments from each other: their namespaces, limits and network policies."""

from __future__ import annotations

import copy
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.checks.serving import NETWORK_POLICY
from gitops.manifests import kustomize, workloads
from gitops.manifests.objects import Labelled, Object, at, differences, identity, listed, mapping, mappings
from gitops.repo import layout

from contract.errors import Refused

RULE = "isolation"
ENVIRONMENT = "environment"
"""What the folder of an environment's own resources is called, in base/ and in each environment."""
# What an environment may have in other sizes than base/environment; without any, no pod could start or all could.
_SIZE = re.compile(r"(?=.*[1-9])[0-9.]+[A-Za-z]*")
_SIZES = {
    ("", "ResourceQuota"): re.compile(r"spec\.hard\.(?!services\b).*"),
    ("", "LimitRange"): re.compile(r"spec\.limits\b.*"),
}


def check_isolation(repository: Repository) -> Iterator[Finding]:
    """An environment is what base/environment gives, in its own sizes; it denies all that no policy of an app lets
    through, and such a policy is about the app's own pods and names who may reach them and what they may reach."""
    expected = _base(repository)
    if isinstance(expected, str):
        yield Finding(RULE, f"base/{ENVIRONMENT}", expected)
        return
    for environment in repository.policy.environments:
        folder = layout.overlay(ENVIRONMENT, environment)
        if folder in repository.renders:
            yield from _deviations(
                folder, repository.policy.namespace(environment), expected, repository.renders[folder]
            )
        else:
            yield Finding(RULE, folder, f"missing; nothing separates the environment; list base/{ENVIRONMENT} there")
    others = _Others(repository)
    for folder, environment, app, items in repository.all_overlays():
        for item in items:
            if app != ENVIRONMENT and workloads.kind_of(item) == NETWORK_POLICY:
                yield from _selection_faults(others, environment, folder, item)
                yield from _peers_faults(repository, others, environment, folder, item)


class _Others:
    """The pods that a policy of an app can be about by mistake."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    @cached_property
    def _all(self) -> tuple[dict[str, Labelled[str]], dict[str, dict[int, str]]]:
        """The pods of each environment with their folders, and the ports: of every app, where any has a policy."""
        pods: dict[str, list[tuple[Mapping[str, Any], str]]] = {}
        ports: dict[str, dict[int, str]] = {}
        for folder, environment, _, items in self._repository.all_overlays():
            for item in items:
                for pod in workloads.pods(item):
                    pods.setdefault(environment, []).append((pod.labels, folder))
                    numbers = [port.number for port in workloads.ports(item, pod) if isinstance(port.number, int)]
                    ports.setdefault(environment, {}).update(dict.fromkeys(numbers, folder))
        return {environment: Labelled(found) for environment, found in pods.items()}, ports

    def selected(self, environment: str, selector: Any) -> list[str]:
        """The folders of an environment of which a selector selects pods."""
        pods, _ = self._all
        return list(dict.fromkeys(pods[environment].selected(selector))) if environment in pods else []

    def listening(self, environment: str) -> dict[int, str]:
        """The ports of other environments' pods, and the folder of one of those."""
        found: dict[int, str] = {}
        for other, ports in self._all[1].items():
            found |= ports if other != environment else {}
        return found


def _base(repository: Repository) -> list[Object] | str:
    """What base/environment renders, or why it does not."""
    [found] = kustomize.once(repository.files, [f"base/{ENVIRONMENT}"]).values()
    if isinstance(found, Refused):
        return f"every environment is compared with it, and it does not render: {found}"
    return found


def _deviations(folder: str, namespace: str, base: Sequence[Object], items: Sequence[Object]) -> Iterator[Finding]:
    expected = [_placed(item, namespace) for item in base]
    if not any(_denies_all(item) for item in items):
        yield Finding(RULE, folder, "no NetworkPolicy for all pods (podSelector: {}) denies both directions;"
                      f" keep the one of base/{ENVIRONMENT}", (folder,))  # fmt: skip
    kinds = {workloads.kind_of(item) for item in base}
    told, rendered = set(), {identity(item) for item in items}
    for each in differences(expected, items):
        kind = (each.identity.group, each.identity.kind)
        extra = each.identity not in {identity(item) for item in expected}
        sized = kind in _SIZES and _SIZES[kind].fullmatch(each.path) and _SIZE.fullmatch(str(each.after))
        if each.identity in told or sized or (extra and kind not in kinds):
            continue
        told.add(each.identity)
        there = f"{each.path}: {each.after!r}; base/{ENVIRONMENT} gives {each.before!r}"
        what = f"not of base/{ENVIRONMENT}" if extra else there if each.identity in rendered else "not rendered"
        yield Finding(RULE, f"{folder}: {each.identity}", f"{what}; change base/{ENVIRONMENT}, for all"
                      " environments", (folder,))  # fmt: skip


def _placed(item: Object, namespace: str) -> Object:
    """An object of base/environment as an overlay with this namespace has it."""
    placed = copy.deepcopy(item)
    metadata = placed.setdefault("metadata", {})
    metadata["name" if placed.get("kind") == "Namespace" else "namespace"] = namespace
    return placed


def _denies_all(item: Object) -> bool:
    spec = mapping(at(item, "spec"))
    types = {"Ingress", "Egress"}
    return (
        workloads.kind_of(item) == NETWORK_POLICY
        and not any(spec.get(field) for field in ("podSelector", "ingress", "egress"))
        and types <= set(map(str, listed(spec.get("policyTypes"))))
    )


_NAMESPACE_LABEL = "kubernetes.io/metadata.name"
# Of a range of addresses with fewer bits in common, most are someone else's.
_NARROW = 8


def _selection_faults(others: _Others, environment: str, folder: str, item: Object) -> Iterator[Finding]:
    chosen = at(item, "spec", "podSelector")
    if not chosen:
        yield finding(RULE, folder, item, "spec.podSelector: selects every pod; write the labels of the app's own")
        return
    for other in others.selected(environment, chosen):
        if other != folder:
            message = f"spec.podSelector: selects pods of {other} too; write the labels of the app's own"
            yield finding(RULE, folder, item, message, other)


def _peers_faults(
    repository: Repository, others: _Others, environment: str, folder: str, item: Object
) -> Iterator[Finding]:
    exposure = repository.policy.exposure.get(environment)
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for number, rule in enumerate(mappings(at(item, "spec", direction))):
            path = f"spec.{direction}[{number}]"
            faults = [*_peer_faults(rule, peers)]
            ranges = [str(at(peer, "ipBlock", "cidr")) for peer in mappings(rule.get(peers)) if at(peer, "ipBlock")]
            if direction == "ingress" and not (exposure and exposure.internet_facing):
                faults += [(peers, f"{cidr!r}: most addresses that there are; name a range") for cidr in ranges
                           if not _narrow(cidr)]  # fmt: skip
            yield from (finding(RULE, folder, item, f"{path}.{field}: {fault}") for field, fault in faults)
            if direction == "egress" and ranges:
                for fault, *there in _outward_faults(rule, others.listening(environment)):
                    yield finding(RULE, folder, item, f"{path}.ports: {fault}", *there)


def _peer_faults(rule: Mapping[str, Any], peers: str) -> Iterator[tuple[str, str]]:
    if not listed(rule.get(peers)):
        yield peers, "missing, so it is everyone; name whom"
    for peer in mappings(rule.get(peers)):
        selector = peer.get("namespaceSelector")
        if selector is not None and not at(selector, "matchLabels", _NAMESPACE_LABEL):
            fault = f"namespaceSelector {selector!r}: another environment's may have it too; name one namespace by"
            yield peers, f"{fault} {_NAMESPACE_LABEL}"


def _narrow(cidr: str) -> bool:
    try:
        return ipaddress.ip_network(cidr, strict=False).prefixlen >= _NARROW
    except ValueError:
        return False


def _outward_faults(rule: Mapping[str, Any], listening: Mapping[int, str]) -> Iterator[tuple[str, ...]]:
    """(fault, the other folder). A range of addresses has the pods of other environments too, whose own policies let in
    the whole range."""
    ports = mappings(rule.get("ports"))
    if not ports or any(port.get("port") is None for port in ports):
        yield ("missing, so it is every port, those of other environments' pods too; list them",)
        return
    for number, folder in listening.items():
        for port in ports:
            first, last = port.get("port"), port.get("endPort", port.get("port"))
            if isinstance(first, int) and isinstance(last, int) and first <= number <= last:
                yield f"{number}: pods of {folder} listen there, and the range has them; leave it out", folder


RULES: dict[str, Rule] = {RULE: check_isolation}

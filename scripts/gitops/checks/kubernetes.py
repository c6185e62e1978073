"""What an API server would refuse beyond its schemas: its own validation, and its admission by an environment's
LimitRange and ResourceQuota. tools/validation has that code from the version that is pinned; nothing here copies it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gitops.checks import framework
from gitops.checks.framework import Finding, Repository, Rule
from gitops.manifests import workloads
from gitops.manifests.objects import Object, at, listed, mapping, mappings
from gitops.manifests.workloads import Pod
from gitops.programs import manifests, tools

from contract.errors import Refused

# The results so far: an object is often the same as in the render before.
_answers: dict[tuple[str, str], list[tuple[str, str]]] = {}


@dataclass(frozen=True)
class Asked:
    """An object as it stands in a render, or a pod that it would make."""

    folder: str
    item: Object
    made: Object
    pod: Pod | None = None
    count: int = 1

    def fault(self, field: str, words: str, others: Sequence[str]) -> Finding:
        named = _named(self.made, field)
        if self.pod:
            named = f"{self.pod.path}.{named.removeprefix('spec.')}" if named else self.pod.path
            named = named.replace(f"{self.pod.path}.containers[{_SERVER}]", f"{self.pod.path}.model")
        message = f"{' '.join(words.split())}; the API server refuses it"
        message = f"{named}: {message}" if named else message
        return framework.finding("kubernetes", self.folder, self.item, message, *others)


# A whole object adds nothing to its path.
_SHOWN = re.compile(r"\AInvalid value: \{.*\}: ", re.DOTALL)
# What KServe calls the container that it makes of a predictor's `model`.
_SERVER = "kserve-container"
# The volume that it adds for the model: https://github.com/kserve/kserve/blob/v0.20.0/pkg/constants/constants.go
_OF_THE_MODEL = "kserve-provision-location"


def check_kubernetes(repository: Repository) -> Iterator[Finding]:
    """The API server takes every object, and every pod that one makes, in the environment where it is rendered."""
    rendered: dict[str, list[tuple[str, list[Object]]]] = {}
    for folder, environment, _, items in repository.all_overlays():
        rendered.setdefault(environment, []).append((folder, items))
    chosen = {folder for folder, *_ in repository.overlays()}
    for overlays in rendered.values():
        limits = _limits(items for _, items in overlays)
        limiting = [folder for folder, items in overlays if any(_limits([items]).values())]
        # Under another limit all are asked again.
        asked = [each for each in overlays if each[0] in chosen or not chosen.isdisjoint(limiting)]
        yield from _faults([Asked(folder, item, item) for folder, items in asked for item in items], limits, limiting)


def _faults(objects: Sequence[Asked], limits: Mapping[str, list[Object]], limiting: Sequence[str]) -> Iterator[Finding]:
    """`limiting` are the folders that have the limits."""
    refused: set[int] = set()
    for asked, faults in _judged(objects, limits):
        refused.update({id(asked.item)} if faults else ())
        yield from (asked.fault(*fault, limiting) for fault in faults)
    # What is wrong with the object is wrong with its pods, too.
    for asked, faults in _judged(pods([each for each in objects if id(each.item) not in refused]), limits):
        yield from (asked.fault(*fault, limiting) for fault in faults)


def _limits(renders: Iterable[Sequence[Object]]) -> dict[str, list[Object]]:
    """The LimitRanges and ResourceQuotas of some renders."""
    found = [item for items in renders for item in items]
    return {
        key: [item for item in found if workloads.kind_of(item) == ("", kind)]
        for key, kind in (("limits", "LimitRange"), ("quotas", "ResourceQuota"))
    }


def _judged(asked: Sequence[Asked], there: Mapping[str, list[Object]]) -> Iterator[tuple[Asked, list[tuple[str, str]]]]:
    """Each of them with its faults, as (field, words)."""
    limits = json.dumps(there, sort_keys=True)
    keys = [(json.dumps({"object": each.made, "count": each.count}, sort_keys=True), limits) for each in asked]
    new = [key for key in dict.fromkeys(keys) if key not in _answers]
    question = {"objects": [json.loads(text) for text, _ in new], **there}
    results = listed(manifests.ask(question, tools.VALIDATION).get("results")) if new else []
    if len(results) != len(new):
        raise Refused(f"validation: {len(new)} objects were given, {len(results)} answered")
    for key, result in zip(new, results, strict=True):
        faults = [(fault["field"], _SHOWN.sub("", fault["words"])) for fault in listed(result["faults"])]
        # The rule of namespaces has what is in none.
        _answers[key] = [fault for fault in faults if fault[0] != "metadata.namespace"]
    for each, key in zip(asked, keys, strict=True):
        yield each, _answers[key]


def pods(objects: Sequence[Asked]) -> list[Asked]:
    """The pods that objects make."""
    least = {
        target: at(each.item, "spec", "minReplicas") for each in objects if (target := workloads.scaled(each.item))
    }
    return [
        Asked(each.folder, each.item, _pod(each.item, pod), pod, _count(each.item, pod, least))
        for each in objects
        for pod in workloads.pods(each.item)
        # KServe's rules have a component without a server.
        if pod.whole and pod.containers
    ]


def _pod(item: Object, pod: Pod) -> Object:
    """A pod as the object's controller would make it; of KServe's, what stands in the manifest."""
    names = ("name", "namespace")
    metadata = {name: at(item, "metadata", name) for name in names} | {"labels": dict(pod.labels)}
    spec = dict(pod.spec)
    if isinstance(server := spec.get("model"), dict) and workloads.is_inference_service(item):
        container = {"image": "of-the-runtime"} | server | {"name": _SERVER}
        spec["containers"] = [container, *listed(spec.get("containers"))]
        own = [each for each in listed(spec.get("volumes")) if at(each, "name") != _OF_THE_MODEL]
        spec["volumes"] = [{"name": _OF_THE_MODEL, "emptyDir": {}}, *own]
    claimed = [at(claim, "metadata", "name") for claim in mappings(at(item, "spec", "volumeClaimTemplates"))]
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claimed]
    spec["volumes"] = [*volumes, *(each for each in listed(spec.get("volumes")) if at(each, "name") not in claimed)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _count(item: Object, pod: Pod, least: Mapping[tuple[str, str], Any]) -> int:
    """How many pods run at least, when any does; `least` has what autoscalers keep, by (kind, name) of their target."""
    target = str(item.get("kind")), str(at(item, "metadata", "name"))
    stated = (least.get(target), pod.spec.get("minReplicas"), at(item, "spec", "replicas"))
    return max([1, *(number for number in stated if isinstance(number, int))])


def _named(value: Any, field: str) -> str:
    """The field of an error of Kubernetes, with the names of a list's items in the place of their numbers."""
    path = ""
    for key, number in re.findall(r"([^.\[\]]+)|\[([^\]]*)\]", field):
        if key:
            value, path = mapping(value).get(key), f"{path}.{key}" if path else key
            continue
        items = listed(value)
        value = items[int(number)] if number.isdecimal() and int(number) < len(items) else None
        path += f"[{at(value, 'name') or number}]"
    return path


RULES: dict[str, Rule] = {"kubernetes": check_kubernetes}

"""The objects of a render: what makes one this object, its values by path, what differs between two renders, and what
a selector selects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Object = dict[str, Any]
T = TypeVar("T")
KUSTOMIZATION = "kustomization.yaml"
# What no update can change is replaced by a release: its name has the release behind that of the app.
_REPLACED = (("sagemaker.services.k8s.aws", "Model"), ("sagemaker.services.k8s.aws", "EndpointConfig"))
_RELEASE = re.compile(r"-(unreleased|[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{12}-[0-9a-f]{8})(-[0-9]+)?\Z")


@dataclass(frozen=True, order=True)
class Identity:
    """What makes an object this object in a cluster."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        kind = f"{self.kind}.{self.group}" if self.group else self.kind
        return f"{kind} {self.namespace + '/' if self.namespace else ''}{self.name}"


def identity(item: Object) -> Identity:
    """An object moves between API versions without becoming another one, so only the group counts. One that releases
    replace is one whatever release its name has."""
    group, kind = str(item.get("apiVersion")).rpartition("/")[0], str(item.get("kind"))
    named = mapping(item.get("metadata"))
    name = str(named.get("name"))
    if (group, kind) in _REPLACED:
        name = _RELEASE.sub("", name)
    return Identity(group, kind, str(named.get("namespace") or ""), name)


@dataclass(frozen=True)
class Difference:
    """One value that differs between two renders; `before` or `after` is None where it is absent."""

    identity: Identity
    path: str
    before: Any
    after: Any


def differences(before: Iterable[Object], after: Iterable[Object]) -> list[Difference]:
    """Every leaf that differs, as objects: order of documents and keys, quoting and layout do not count."""
    old, new = ({identity(item): leaves(item) for item in items} for items in (before, after))
    found = []
    for key in sorted(old.keys() | new.keys()):
        left, right = old.get(key, {}), new.get(key, {})
        found += [
            Difference(key, path, left.get(path), right.get(path))
            for path in sorted(left.keys() | right.keys())
            if left.get(path) != right.get(path) or (path in left) != (path in right)
        ]
    return found


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Scalars by path. Items of a list go by their `name`, or their predictor's, where each has one of its own, else
    by position."""
    found = {path: value}
    for inner, item in children(value, path):
        found.pop(path, None)
        found |= leaves(item, inner)
    return found


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything below a value, mappings and lists too, by the paths of `leaves`."""
    for inner, item in children(value, path):
        yield inner, item
        yield from walk(item, inner)


def children(value: Any, path: str) -> list[tuple[str, Any]]:
    """(path, value) of what is directly in a mapping or a list, by the paths of `leaves`."""
    if isinstance(value, dict):
        return [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    if isinstance(value, list):
        names = [_name(item) for item in value]
        by_name = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
        return [(f"{path}[{names[at] if by_name else at}]", item) for at, item in enumerate(value)]
    return []


def _name(item: Any) -> Any:
    if not isinstance(item, dict):
        return None
    predictor = item.get("predictor")
    return item.get("name", predictor.get("name") if isinstance(predictor, dict) else None)


def at(value: Any, *keys: str) -> Any:
    """The value below these keys, or None: schemas are checked elsewhere, so any of them may be anything here. The key
    of a list's item is its position."""
    for key in keys:
        if isinstance(value, list):
            value = value[int(key)] if key.isdecimal() and int(key) < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def mappings(value: Any) -> list[dict[str, Any]]:
    """The mappings of a list: whatever else may be there is for the schema to refuse."""
    return [item for item in listed(value) if isinstance(item, dict)]


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def matches(expression: Any, labels: Mapping[str, Any]) -> bool:
    """Whether labels satisfy one of a selector's matchExpressions, as Kubernetes defines them."""
    key, values = str(at(expression, "key")), listed(at(expression, "values"))
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }.get(str(at(expression, "operator")), False)


def selects(selector: Any, labels: Mapping[str, Any]) -> bool:
    """Whether a label selector selects these labels; an empty one would select everything, and counts as none."""
    wanted, expressions = mapping(at(selector, "matchLabels")), listed(at(selector, "matchExpressions"))
    if not wanted and not expressions:
        return False
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(matches(expression, labels) for expression in expressions)


class Labelled(Generic[T]):
    """Things with labels, so many that a selector had better not be compared with each of them."""

    def __init__(self, things: Iterable[tuple[Mapping[str, Any], T]]) -> None:
        self._things = list(things)
        self._having: dict[tuple[str, str], list[int]] = {}
        for number, (labels, _) in enumerate(self._things):
            for key, value in labels.items():
                if isinstance(value, str):
                    self._having.setdefault((key, value), []).append(number)

    def selected(self, selector: Any) -> list[T]:
        """Those that a label selector selects, in their order."""
        wanted = [pair for pair in mapping(at(selector, "matchLabels")).items() if isinstance(pair[1], str)]
        having = min((self._having.get(pair, []) for pair in wanted), key=len, default=range(len(self._things)))
        return [thing for labels, thing in map(self._things.__getitem__, having) if selects(selector, labels)]

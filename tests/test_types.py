"""Values of another type than a field has: every rule of validate.py looks past them, as the schema refuses them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import validate
from gitops.checks.framework import Repository
from gitops.manifests import kustomize
from gitops.manifests.objects import Object
from gitops.repo import layout
from gitops.repo.policy import read_policy

Keys = tuple[Any, ...]
VALUES: tuple[Any, ...] = (None, True, 1, "", [], {}, [[]], {"a": []})
# An object of each kind that is released.
OBJECTS = {"lily-api": "Deployment", "lily-batch": "CronJob", "lily-sklearn": "InferenceService"}
Edit = tuple[str, Keys, Any]
"""A folder, where in its object, and what stands there."""


def places(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    """Where there is anything below a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*keys, key)
        yield from places(item, (*keys, key))


def put(items: list[Object], kind: str, keys: Keys, value: Any) -> list[Object]:
    """The objects, the one of this kind with this value there."""
    changed = copy.deepcopy(items)
    [parent] = [item for item in changed if item["kind"] == kind]
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = value
    return changed


def edits(renders: dict[str, list[Object]], app: str) -> list[list[Edit]]:
    """Each edit of an app's object once, by the folder: of the environments that have the place, in turn in one."""
    having: dict[Keys, list[str]] = {}
    for folder in (f"overlays/{name}/{app}" for name in ("dev", "staging", "prod")):
        [item] = [item for item in renders[folder] if item["kind"] == OBJECTS[app]]
        for keys in places(item):
            having.setdefault(keys, []).append(folder)
    made: dict[str, list[Edit]] = {}
    for number, (keys, value) in enumerate(product(having, VALUES)):
        folder = having[keys][number % len(having[keys])]
        made.setdefault(folder, []).append((folder, keys, value))
    return list(made.values())


def test_a_value_of_any_type_anywhere_makes_no_rule_fail(manifests: Path) -> None:
    policy = read_policy(manifests)
    renders = kustomize.rendered_all(manifests, layout.folders(manifests, policy))
    failed = {}

    # One edit of each folder at a time: many rules look at the whole of Argo CD's objects, however few are edited.
    for together in zip_longest(*(of_folder for app in OBJECTS for of_folder in edits(renders, app))):
        made = [edit for edit in together if edit]
        changed = {folder: put(renders[folder], OBJECTS[Path(folder).name], *edit) for folder, *edit in made}
        try:
            validate.by_rules(Repository(manifests, policy, renders | changed, changed.keys()))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            failed[repr(error)] = made

    assert failed == {}

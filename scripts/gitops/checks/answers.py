"""What decides an answer beside the release is an app's own, the same in every environment.

A release is what changes answers in one environment, and goes from one to the next. What a server is started with, and
the code that runs before or beside it, comes from `apps/` or `base/`, whose owners are those of all environments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.manifests import kustomize, workloads
from gitops.manifests.objects import Object, at, mapping, mappings
from gitops.manifests.workloads import Container

from contract.errors import Refused

RULE = "answers"
# Of a container, or of KServe's model: what is run, where, and what lies over the image's own files.
_FIELDS = (
    "args", "command", "envFrom", "modelFormat", "protocolVersion", "runtime", "runtimeVersion", "volumeDevices",
    "volumeMounts", "workingDir",
)  # fmt: skip
# What runs a command there besides; another kind of hook or probe decides no answer.
_COMMANDS = (
    ("lifecycle", "postStart"), ("lifecycle", "preStop"), ("livenessProbe",), ("readinessProbe",), ("startupProbe",),
)  # fmt: skip
# By these an interpreter, the loader of libraries or a shell finds its code.
_CODE = re.compile(r"(PYTHON|LD_|BASH_ENV\Z|ENV\Z|PATH\Z).*")


def check_answers(repository: Repository) -> Iterator[Finding]:
    """A workload that serves a model is started in every environment as its app is, canaries as what they stand for."""
    serving = {
        (folder, f"apps/{app}"): [item for item in items if workloads.runs(item) and workloads.models(item)]
        for folder, _, app, items in repository.overlays()
    }
    apps = kustomize.once(repository.files, dict.fromkeys(app for (_, app), items in serving.items() if items))
    for (folder, app), items in serving.items():
        own = apps.get(app, [])
        if isinstance(own, Refused):
            yield Finding(RULE, folder, f"is compared with {app}, which does not render: {own}", (folder,))
            continue
        for item in items:
            for path, here, there in _differences(item, _like(item, own)):
                message = f"{path}: {here!r}, and {there!r} in {app}: it decides what answers, and no release has"
                message += f" it; write it into {app} or its base, for all environments"
                yield finding(RULE, folder, item, message)


def _like(item: Object, own: list[Object]) -> Object:
    """The app's own form of an object."""
    name, kind = at(item, "metadata", "name"), workloads.kind_of(item)
    return next((each for each in own if (at(each, "metadata", "name"), workloads.kind_of(each)) == (name, kind)), {})


def _differences(item: Object, own: Object) -> Iterator[tuple[str, Any, Any]]:
    """(path, value, the app's value) of what an overlay gives otherwise; None where there is none."""
    here = {each.path: _deciding(each) for each in workloads.containers(item)}
    there = {each.path: _deciding(each) for each in workloads.containers(own)}
    for path in dict.fromkeys([*here, *there]):
        mine = here.get(path, {})
        theirs = there.get(_REAL.sub("spec.predictor", path), {})
        for field in dict.fromkeys([*mine, *theirs]):
            if mine.get(field) != theirs.get(field):
                yield f"{path}.{field}", mine.get(field), theirs.get(field)


_REAL = re.compile(r"\Aspec\.canary\[[^]]*\]\.predictor(?=\.)")


def _deciding(container: Container) -> Mapping[str, Any]:
    """What decides which code of a container answers, by the path in it. A list's order counts but for mounts."""
    fields = container.fields
    found = {field: fields[field] for field in _FIELDS if fields.get(field)}
    if "volumeMounts" in found:
        found["volumeMounts"] = sorted(mappings(found["volumeMounts"]), key=str)
    for keys in _COMMANDS:
        if (run := at(fields, *keys, "exec")) is not None:
            found[".".join((*keys, "exec"))] = run
    for each in mappings(fields.get("env")):
        if _CODE.fullmatch(str(each.get("name"))):
            found[f"env[{each.get('name')}]"] = {key: each[key] for key in sorted(each)}
    return mapping(found)


RULES: dict[str, Rule] = {RULE: check_answers}

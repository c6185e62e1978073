"""Access keys of AWS: in Git nowhere, and in production not at all. There a service account has a role, whose
credentials end by themselves."""

from __future__ import annotations

from collections.abc import Iterator

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.manifests import workloads
from gitops.manifests.objects import Object, at, mapping, mappings

RULE = "keys"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_ROLE = "annotate its service account with a role, which infra/ makes"


def check_keys(repository: Repository) -> Iterator[Finding]:
    """No manifest holds an access key, and nothing of production takes one from a Secret."""
    for folder, environment, _, items in repository.overlays():
        production = environment in repository.policy.production
        for item in items:
            for path, fault in _faults(item, production):
                yield finding(RULE, folder, item, f"{path}: {fault}")


def _faults(item: Object, production: bool) -> Iterator[tuple[str, str]]:
    for container in workloads.containers(item):
        for name, value in container.variables:
            if name in KEYS and value is not None:
                yield f"{container.path}.env[{name}]", f"a key in Git, where everybody reads it; void it, and {_ROLE}"
            elif name in KEYS and production:
                yield f"{container.path}.env[{name}]", f"a key that does not end, in production; {_ROLE}"
    if item.get("kind") == "ConfigMap":
        for name in sorted(KEYS & mapping(item.get("data")).keys()):
            yield f"data.{name}", f"a key in Git, where everybody reads it; void it, and {_ROLE}"
    # KServe makes variables of them for the container that fetches a model.
    if item.get("kind") == "ServiceAccount" and production and mappings(at(item, "secrets")):
        yield "secrets", "keys that do not end, in production; annotate it with a role, which infra/ makes"


RULES: dict[str, Rule] = {RULE: check_keys}

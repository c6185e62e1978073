"""The values of the repository's owner, each read where the manifests name it, whatever apps there are."""

from __future__ import annotations

import re

from gitops.repo.layout import namespace
from gitops.repo.policy import POLICY_FILE
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

# In {} the last environment, production.
PLACES = {
    "repo": ("argocd/root.yaml", r"repoURL: (\S+)"),
    "bucket": (POLICY_FILE, r"^model_bucket: (\S+)"),
    "account": ("overlays/{}/shared/model-reader.yaml", r"arn:aws:iam::([0-9]{12}):"),
    "region": ("overlays/{}/shared/kustomization.yaml", r"AWS_REGION=([a-z0-9-]+)$"),
    "domain": ("argocd/platform/aws/external-dns.yaml", r"domainFilters: \[([^],\s]+)"),
}


def find(tree: Snapshot, name: str) -> str:
    """One of PLACES, or `registry`, the first of the policy's. Raises Refused where the manifests do not have it."""
    if name == "registry":
        return tree.policy.image_registries[0]
    place, pattern = PLACES[name]
    file = place.format(tree.policy.environments[-1])
    match = re.search(pattern, (tree.read(file) or b"").decode(), re.M)
    if not match:
        raise Refused(f"{file}: nothing there looks like `{pattern}`; the {name} has to be put there by hand")
    return match[1]


def of_environment(tree: Snapshot, environment: str, name: str) -> str:
    """A value as an overlay of the environment names it. Raises Refused where the policy gives it no domain."""
    if name == "namespace":
        return namespace(environment)
    if name != "domain":
        return find(tree, name)
    exposure = tree.policy.exposure.get(environment)
    if not exposure or not exposure.hosts:
        raise Refused(f"{POLICY_FILE}: environments: {environment}: no hosts; list the domain that its hosts are below")
    return exposure.hosts[0]

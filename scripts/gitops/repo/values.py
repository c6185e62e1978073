"""The values of the repository's owner: those of the template, where the manifests name them, and how others get into
their place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from gitops.repo.policy import POLICY_FILE
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

TEMPLATE = {
    "repo": "https://github.com/example-org/model-gitops.git",
    "bucket": "mlops-prod",
    "account": "111122223333",
    "region": "eu-west-1",
    "domain": "ml.example.com",
    "registry": "111122223333.dkr.ecr.eu-west-1.amazonaws.com",
    "cluster": "mlops",
    "network": "10.0.0.0/16",
    "time_zone": "Europe/Dublin",
    "owner": "ml-team@example.com",
    "owners": "@example-org",
}
# What stands before a value, where others could look like it; else anything that is no part of a longer name.
_BEFORE = {
    "repo": "",
    "domain": "",  # hosts
    "cluster": "(?:(?<=clusterName: )|(?<=txtOwnerId: ))",
    "network": "(?<=cidr: )",
    "time_zone": "(?:(?<=timeZone: )|(?<=time_zone: ))",
}
# In {} an environment.
PLACES = {
    "repo": ("argocd/root.yaml", r"repoURL: (\S+)"),
    "bucket": (POLICY_FILE, r"^model_bucket: (\S+)"),
    "account": ("overlays/{}/shared/model-reader.yaml", r"arn:aws:iam::([0-9]{12}):"),
    "region": ("overlays/{}/shared/kustomization.yaml", r"AWS_REGION=([a-z0-9-]+)$"),
    "domain": ("argocd/platform/aws/external-dns.yaml", r"domainFilters: \[([^],\s]+)"),
}


def find(tree: Snapshot, name: str, environment: str = "") -> str:
    """One of PLACES, of an environment or of the last one, production, or `registry`, the first of the policy's. Raises
    Refused where the manifests do not have it."""
    if name == "registry":
        return tree.policy.image_registries[0]
    place, pattern = PLACES[name]
    file = place.format(environment or tree.policy.environments[-1])
    match = re.search(pattern, (tree.read(file) or b"").decode(), re.M)
    if not match:
        raise Refused(f"{file}: nothing there looks like `{pattern}`; the {name} has to be put there by hand")
    return match[1]


def repository(tree: Snapshot) -> str:
    """The repository on GitHub, as OWNER/NAME. Raises Refused as `find` does."""
    return re.sub(r"^.*?github\.com[/:]|\.git$", "", find(tree, "repo"))


REQUIRED = (*PLACES, "registry")


def found(tree: Snapshot) -> dict[str, str]:
    """Those that the manifests have where they are looked for."""
    values = {}
    for name in REQUIRED:
        try:
            values[name] = find(tree, name)
        except Refused:
            continue
    return values


def owners(tree: Snapshot) -> str | None:
    """The organisation whose teams the policy names, as in `@acme`."""
    named = sorted(tree.policy.owners.items())
    return named[0][1][0].partition("/")[0] if named else None


def pattern(name: str, value: str) -> str:
    """A value by itself, where it has the meaning of its name."""
    return f"{_BEFORE.get(name, '(?<![A-Za-z0-9-])')}{re.escape(value)}(?![A-Za-z0-9-])"


def replacing(current: Mapping[str, str], wanted: Mapping[str, str]) -> Callable[[bytes], bytes]:
    """What puts wanted values in the place of the current ones; bytes that are no text stay."""
    # In one pass, the longest first: a registry contains the account and the region, and no new value is replaced.
    names = sorted(wanted.keys() & current.keys(), key=lambda name: (-len(current[name]), name not in _BEFORE, name))
    any_value = re.compile("|".join(f"(?P<{name}>{pattern(name, current[name])})" for name in names) or r"(?!)")

    def replaced(data: bytes) -> bytes:
        try:
            return any_value.sub(lambda match: wanted[match.lastgroup or ""], data.decode()).encode()
        except UnicodeDecodeError:
            return data

    return replaced


def of_environment(tree: Snapshot, environment: str, name: str) -> str:
    """A value as an overlay of the environment names it. Raises Refused where the policy gives it no domain, or no
    overlay has it."""
    there = tree.policy.at(environment)
    match name:
        case "namespace":
            return there.namespace
        case "account" | "region":
            return str(getattr(there, name)) or find(tree, name)
        case "registry":
            own = f"{there.account}.dkr.ecr.{there.region}."
            return next((each for each in tree.policy.image_registries if each.startswith(own)), find(tree, name))
        case "domain":
            return _domain(tree, environment)
    return find(tree, name)


def _domain(tree: Snapshot, environment: str) -> str:
    exposure = tree.policy.exposure.get(environment)
    if not exposure or not exposure.hosts:
        raise Refused(f"{POLICY_FILE}: environments: {environment}: no hosts; list the domain that its hosts are below")
    return exposure.hosts[0]

"""Where things are in the repository."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from gitops.manifests.objects import KUSTOMIZATION
from gitops.repo.policy import IN_CLUSTER, POLICY_FILE, Policy

from contract.errors import Refused

ARGOCD, PLATFORM = "argocd", "argocd/platform"
# A folder for each cluster beside the one in which this Argo CD runs.
CLUSTERS = f"{ARGOCD}/clusters"
# What is deployed in every repository; a render may lead to other folders at the top, which snapshot.py finds.
DEPLOYED = ("base", "apps", "overlays", ARGOCD)
# The folders at the top that no render may read: they are the engine's, or model code, which comes by an import.
_NOT_DEPLOYED = (".github", "docs", "infra", "model-src", "scripts", "tests", "tools")
# What a fork owns. All else is the engine, which the template brings and updates, and so is what it ships in there.
FORK_OWNED = (
    "base/", "apps/", "overlays/", "argocd/", "schemas/", "model-src/models/", "model-src/.dvc/config",
    ".github/CODEOWNERS",
)  # fmt: skip
ENGINE_IN_FORK = (
    "argocd/platform/admission/images.yaml",
    "argocd/platform/admission/kinds.yaml",
    "argocd/platform/admission/policies.lock",
    "argocd/platform/admission/releases.yaml",
    "argocd/platform/admission/withdrawn-policy.yaml",
    "argocd/platform/storage/fetch.py",
)
# Where GitHub looks first for who has to approve what.
CODEOWNERS = ".github/CODEOWNERS"
# What a fork owns in there and a change of the policy takes along.
FOLLOWS_POLICY = (
    CODEOWNERS,
    "argocd/platform/admission/bindings.yaml",
    "argocd/platform/admission/parameters.yaml",
)
WITHDRAWN = "argocd/platform/admission/withdrawn.yaml"
# What judges a change or enforces the verdict, though a fork owns it or model code brings it.
_JUDGES = ("argocd/platform/admission/", "argocd/platform/storage/", "model-src/contract/")
RELEASE_FILE = "release.yaml"
# The folders of an environment that are no apps.
OF_ENVIRONMENT = ("environment", "shared")
# Beside a shape's manifests, what an app of it starts from; no render has it.
SKELETON = "skeleton"
DRIFT_REPORTS = "model-src/reports/drift"
VERDICT_FILE = "verdict.json"


def owned_by_fork(path: str) -> bool:
    """Whether a file of the repository is the fork's own, and not the engine's."""
    return path.startswith(FORK_OWNED) and not path.startswith(ENGINE_IN_FORK)


def is_engine(path: str) -> bool:
    """Whether a file decides what a change may do, or how it is carried out. Model code and texts for people do not."""
    if follows_policy(path) or path == WITHDRAWN:
        return False
    return path.startswith(_JUDGES) or not (
        owned_by_fork(path) or path.startswith("model-src/") or path.endswith(".md")
    )


def platform(cluster: str) -> str:
    """What a cluster itself has: what it refuses and verifies, and with an Argo CD of its own, its add-ons."""
    return PLATFORM if cluster == IN_CLUSTER else f"{CLUSTERS}/{cluster}/platform"


def addons(cluster: str) -> str:
    """The Applications of the add-ons of a cluster that the hub serves."""
    return f"{CLUSTERS}/{cluster}/addons"


def brought(cluster: str) -> tuple[str, str]:
    """Where all is that a cluster has, if those folders are there."""
    return platform(cluster), addons(cluster)


def argocd(policy: Policy, cluster: str) -> str:
    """What the Argo CD that serves a cluster keeps applied."""
    return f"{CLUSTERS}/{cluster}/{ARGOCD}" if policy.clusters.get(cluster) == "own" else ARGOCD


def of_cluster(policy: Policy, cluster: str) -> list[str]:
    """The folders that a cluster alone has."""
    if cluster == IN_CLUSTER:
        return [ARGOCD, PLATFORM]
    return [argocd(policy, cluster) if policy.clusters[cluster] == "own" else addons(cluster), platform(cluster)]


def of_clusters(policy: Policy) -> list[str]:
    """Every folder of argocd/ that has to render."""
    return [folder for cluster in (IN_CLUSTER, *policy.clusters) for folder in of_cluster(policy, cluster)]


def is_of_argocd(folder: str) -> bool:
    """Whether a folder that renders keeps Argo CD or a cluster, and not an environment."""
    return folder.partition("/")[0] == ARGOCD


def bindings(cluster: str) -> str:
    """Where the policies of admission hold in a cluster."""
    return f"{platform(cluster)}/admission/bindings.yaml"


def parameters(cluster: str) -> str:
    """The values that admission needs in a cluster."""
    return f"{platform(cluster)}/admission/parameters.yaml"


def follows_policy(path: str) -> bool:
    """Whether a fork owns a file in there, and a change of the policy takes it along."""
    own = re.fullmatch(rf"{CLUSTERS}/[^/]+/(?=platform/)(.+)", path)
    return (f"{ARGOCD}/{own[1]}" if own else path) in FOLLOWS_POLICY


def may_be_deployed(folder: str) -> bool:
    """Whether a folder at the top is one to which a render may lead, beside those of DEPLOYED."""
    return folder not in (*DEPLOYED, *_NOT_DEPLOYED) and not folder.startswith(".")


def is_retirements(path: str) -> bool:
    """Whether a file is an environment's record of retirements."""
    return bool(re.fullmatch(r"overlays/[^/]+/retired\.yaml", path))


def overlay(app: str, environment: str) -> str:
    return f"overlays/{environment}/{app}"


def place(path: str) -> tuple[str, str] | None:
    """(app, environment) of a file directly in an overlay, or in another folder of an environment; None for others."""
    parts = path.split("/")
    return (parts[2], parts[1]) if len(parts) == 4 and parts[0] == "overlays" else None


def release_paths(app: str, environment: str) -> tuple[str, str]:
    """Where an app's release can be: in a file of its own or, if there is none, in the images of the
    overlay's kustomization."""
    folder = overlay(app, environment)
    return f"{folder}/{RELEASE_FILE}", f"{folder}/{KUSTOMIZATION}"


def apps(root: Path) -> list[str]:
    """The apps of `apps/`, sorted."""
    return apps_of(file.relative_to(root).as_posix() for file in (root / "apps").glob(f"*/{KUSTOMIZATION}"))


def apps_of(files: Iterable[str]) -> list[str]:
    """The same, of the paths of files."""
    parts = [path.split("/") for path in files]
    return sorted(part[1] for part in parts if len(part) == 3 and (part[0], part[2]) == ("apps", KUSTOMIZATION))


def models(root: Path) -> list[str]:
    """The models whose code is in `model-src/models/`, sorted."""
    return sorted(file.parent.name for file in (root / "model-src/models").glob("*/problem.yaml"))


def overlays(root: Path, policy: Policy) -> list[str]:
    """Every overlay that renders something, environment by environment."""
    files = (root / "overlays").glob(f"*/*/{KUSTOMIZATION}")
    return overlays_of((file.relative_to(root).as_posix() for file in files), policy)


def overlays_of(files: Iterable[str], policy: Policy) -> list[str]:
    """The same, of the paths of files."""
    return deployed((path for path in files if path.endswith(f"/{KUSTOMIZATION}")), policy)


def deployed(files: Iterable[str], policy: Policy) -> list[str]:
    """Every folder of an environment that is deployed, or would be if it rendered, of the paths of files."""
    found: dict[str, set[str]] = {environment: set() for environment in policy.environments}
    for path in files:
        if (there := place(path)) and there[0] != "shared":
            found.get(there[1], set()).add(there[0])
    return [overlay(name, environment) for environment, names in found.items() for name in sorted(names)]


def require_environment(policy: Policy, environment: str) -> None:
    """Raises Refused, with the known names, for one that the policy does not have."""
    if environment not in policy.environments:
        known = ", ".join(policy.environments)
        raise Refused(f"{POLICY_FILE}: environments: no {environment!r}; the environments are {known}")


def require_app(files: Container[str], apps: Sequence[str], policy: Policy, app: str, environment: str) -> None:
    """Raises Refused, with the known names, for those that are not in the repository: `files` has its paths, `apps` is
    what it has of those."""
    require_environment(policy, environment)
    if app not in apps:
        raise Refused(f"apps/{app}: no such app; the apps are {', '.join(apps)}")
    paths = release_paths(app, environment)
    if not any(path in files for path in paths):
        raise Refused(
            f"{paths[0]}: missing; {app} has no overlay in {environment}, CONTRIBUTING.md tells how to add one"
        )


def folders(root: Path, policy: Policy) -> list[str]:
    """Every folder that is rendered."""
    beside = [folder for folder in of_clusters(policy) if (root / folder / KUSTOMIZATION).is_file()]
    return [*overlays(root, policy), *dict.fromkeys((ARGOCD, PLATFORM, *beside))]

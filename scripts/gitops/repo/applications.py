"""What argocd/ has for each environment and cluster: Applications, the ApplicationSets that make them, and projects."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gitops.manifests import ack, kustomize
from gitops.manifests.objects import Object, at
from gitops.repo import layout
from gitops.repo.policy import IN_CLUSTER, Policy

# The projects that are not an environment's. Argo CD makes `default` itself.
PROJECTS = ("addons", "default", "platform")
# The cluster in which an Argo CD runs, and the namespace in which it reads its own objects.
SERVER = "https://kubernetes.default.svc"
NAMESPACE = "argocd"
_PROJECT, _APPLICATION = (Path(__file__).with_name(f"{kind}.yaml") for kind in ("project", "application"))
APPS, OF_SAGEMAKER = "apps", "sagemaker"
TEMPLATES = {
    APPS: Path(__file__).with_name("application-set.yaml"),
    OF_SAGEMAKER: Path(__file__).with_name("application-set-sagemaker.yaml"),
}
"""The ApplicationSets of an environment: that of what stays until a person prunes it, and that of apps on SageMaker,
where each release replaces what no update can change."""
# What every shape of the template consists of.
KINDS = (
    ("", "LimitRange"), ("", "ResourceQuota"), ("", "Service"), ("", "ServiceAccount"),
    ack.TARGET, ack.SCALING_POLICY, ("apps", "Deployment"),
    ("autoscaling", "HorizontalPodAutoscaler"), ("batch", "CronJob"), ("networking.k8s.io", "Ingress"),
    ("networking.k8s.io", "NetworkPolicy"), ("policy", "PodDisruptionBudget"), ack.ENDPOINT, ack.CONFIG, ack.MODEL,
    ("serving.kserve.io", "InferenceService"),
)  # fmt: skip
# Where an Application, and the template of an ApplicationSet, lists what Argo CD looks at for it.
GENERATE_PATHS = ("metadata", "annotations", "argocd.argoproj.io/manifest-generate-paths")
SET_PATHS = ("spec", "template", *GENERATE_PATHS)
_BASENAME = "{{ .path.basename }}"


@dataclass(frozen=True)
class Instance:
    """One Argo CD."""

    cluster: str
    """The one that it runs in."""
    folder: str
    """What its Application `root` keeps applied."""
    served: tuple[str, ...]
    """The other clusters to which it applies."""

    @property
    def clusters(self) -> tuple[str, ...]:
        return (self.cluster, *self.served)

    def environments(self, policy: Policy) -> tuple[str, ...]:
        """Those that it applies, in order."""
        return tuple(name for name in policy.environments if policy.at(name).cluster in self.clusters)

    def taken(self) -> dict[str, tuple[str, dict[str, str]]]:
        """By the names of its own Applications, the folder that each takes, and where to."""
        here = {"server": SERVER, "namespace": NAMESPACE}
        found = {"root": (self.folder, here), "platform": (layout.platform(self.cluster), here)}
        for cluster in self.served:
            found[f"platform-{cluster}"] = (layout.platform(cluster), {"name": cluster, "namespace": NAMESPACE})
            found[f"addons-{cluster}"] = (layout.addons(cluster), here)
        return found

    def destination(self, cluster: str) -> dict[str, str]:
        """One of its clusters, as a destination names it."""
        return {"name": cluster} if cluster in self.served else {"server": SERVER}


def instances(policy: Policy) -> list[Instance]:
    """Every Argo CD, the hub's first."""
    ways: dict[str, list[str]] = {"hub": [], "own": []}
    for cluster, way in policy.clusters.items():
        ways[way].append(cluster)
    return [
        Instance(IN_CLUSTER, layout.ARGOCD, tuple(ways["hub"])),
        *[Instance(cluster, layout.argocd(policy, cluster), ()) for cluster in ways["own"]],
    ]


def of_environment(policy: Policy, environment: str) -> Instance:
    """The Argo CD that applies an environment."""
    cluster = policy.at(environment).cluster
    return next(each for each in instances(policy) if cluster in each.clusters)


def set_name(environment: str, which: str = APPS) -> str:
    """What one of the ApplicationSets of an environment is called."""
    return f"{which}-{environment}"


def set_of(items: Iterable[Object]) -> str:
    """Which of the ApplicationSets makes the Application of a render."""
    kinds = {(str(item.get("apiVersion")).rpartition("/")[0], str(item.get("kind"))) for item in items}
    return OF_SAGEMAKER if ack.MODEL in kinds else APPS


def set_file(policy: Policy, environment: str, which: str = APPS) -> str:
    """Where one of the ApplicationSets of an environment is written."""
    name = f"applicationset-{environment}" if which == APPS else set_name(environment, which)
    return f"{of_environment(policy, environment).folder}/{name}.yaml"


def set_files(policy: Policy, environment: str) -> dict[str, str]:
    """Where all of them are, by what they are called before the environment."""
    return {which: set_file(policy, environment, which) for which in TEMPLATES}


def project_file(policy: Policy, environment: str) -> str:
    """Where the AppProject of an environment is written."""
    return f"{of_environment(policy, environment).folder}/project-{environment}.yaml"


def text(policy: Policy, environment: str, repository: str, which: str = APPS) -> str:
    """An ApplicationSet of an environment, of a repository with this address, as `set_file` has it."""
    return _filled(TEMPLATES[which], _values(policy, environment, repository))


def application_set(policy: Policy, environment: str, repository: str, which: str = APPS) -> Object:
    [found] = kustomize.objects(text(policy, environment, repository, which))
    return found


def application_sets(policy: Policy, environment: str, repository: str) -> list[Object]:
    """All of an environment."""
    return [application_set(policy, environment, repository, which) for which in TEMPLATES]


def project_text(policy: Policy, environment: str, repository: str, kinds: Iterable[tuple[str, str]] = KINDS) -> str:
    """The AppProject of an environment, as `project_file` has it; `kinds` are the (group, kind) that it allows."""
    allowed = "".join(f"    - group: {group or json.dumps('')}\n      kind: {kind}\n" for group, kind in kinds)
    found = _filled(_PROJECT, _values(policy, environment, repository)) + allowed
    if frozen := windows(policy, environment):
        words = "  # In these times nothing is changed here by itself. A person can still sync, to roll back.\n"
        listed = yaml.safe_dump(frozen, sort_keys=False, default_flow_style=None, width=1000)
        words += "  syncWindows:\n" + "".join(f"    {line}\n" for line in listed.splitlines())
        found = found.replace("  destinations:\n", f"{words}  destinations:\n", 1)
    return found


def windows(policy: Policy, environment: str) -> list[dict[str, Any]]:
    """The sync windows by which the project of an environment keeps to the policy's `freeze`.

    Source: https://argo-cd.readthedocs.io/en/stable/user-guide/sync_windows/
    """
    return [
        {
            "kind": "deny",
            "schedule": each.schedule,
            "duration": each.duration,
            "timeZone": each.time_zone,
            "namespaces": [policy.namespace(environment)],
            "manualSync": True,
        }
        | ({"description": each.reason} if each.reason else {})
        for each in policy.at(environment).freeze
    ]


def application_text(instance: Instance, name: str, repository: str, comment: str) -> str:
    """One of the Applications by which an Argo CD takes what a further cluster has."""
    path, destination = instance.taken()[name]
    values = {"NAME": name, "PATH": path, "REPOSITORY": repository, "COMMENT": comment}
    return _filled(_APPLICATION, values | {"CLUSTER": _written(destination)})


def _values(policy: Policy, environment: str, repository: str) -> dict[str, str]:
    goal = of_environment(policy, environment).destination(policy.at(environment).cluster)
    values = {"ENVIRONMENT": environment, "NAMESPACE": policy.namespace(environment), "REPOSITORY": repository}
    return values | {"CLUSTER": _written(goal)}


def _written(destination: Mapping[str, str]) -> str:
    """The cluster of a destination as a line of YAML."""
    key = "name" if "name" in destination else "server"
    return f"{key}: {destination[key]}"


def _filled(template: Path, values: Mapping[str, str]) -> str:
    return re.sub("|".join(sorted(values, key=len, reverse=True)), lambda found: values[found[0]], template.read_text())


def with_paths_of(item: Object, wanted: Object) -> Object:
    """An ApplicationSet with the paths that another one lists behind those of the template: what else renders read is
    for the fork to say."""
    written = at(item, *SET_PATHS)
    if not isinstance(written, str) or not written.startswith(f"{at(wanted, *SET_PATHS)};"):
        return wanted
    found = copy.deepcopy(wanted)
    at(found, *SET_PATHS[:-1])[SET_PATHS[-1]] = written
    return found


def name(folder: str) -> str:
    """The Application of a folder of overlays/."""
    _, environment, app = folder.split("/")
    return f"{app}-{environment}"


def generate_paths(written: Object, folder: str) -> str:
    """Below which paths a change makes Argo CD render a folder of overlays/ again, as the annotation of an
    ApplicationSet lists them; "" where it lists none."""
    return str(at(written, *SET_PATHS) or "").replace(_BASENAME, folder.rpartition("/")[2])

"""What argocd/ has for each environment: the ApplicationSet that makes its Applications, and their project."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import yaml

from gitops.manifests.objects import Object, at
from gitops.repo.policy import Policy

# The projects that are not an environment's. Argo CD makes `default` itself.
PROJECTS = ("addons", "default", "platform")
TEMPLATE = Path(__file__).with_name("application-set.yaml")
_GENERATE_PATHS = ("spec", "template", "metadata", "annotations", "argocd.argoproj.io/manifest-generate-paths")
_BASENAME = "{{ .path.basename }}"


def text(policy: Policy, environment: str, repository: str) -> str:
    """The file `argocd/applicationset-<environment>.yaml` of a repository with this address."""
    values = {"ENVIRONMENT": environment, "NAMESPACE": policy.namespace(environment), "REPOSITORY": repository}
    return re.sub("|".join(values), lambda match: values[match[0]], TEMPLATE.read_text())


def application_set(policy: Policy, environment: str, repository: str) -> Object:
    found: Object = yaml.safe_load(text(policy, environment, repository))
    return found


def with_paths_of(item: Object, wanted: Object) -> Object:
    """An ApplicationSet with the paths that another one lists behind those of the template: what else renders read is
    for the fork to say."""
    written = at(item, *_GENERATE_PATHS)
    if not isinstance(written, str) or not written.startswith(f"{at(wanted, *_GENERATE_PATHS)};"):
        return wanted
    found = copy.deepcopy(wanted)
    at(found, *_GENERATE_PATHS[:-1])[_GENERATE_PATHS[-1]] = written
    return found


def name(folder: str) -> str:
    """The Application of a folder of overlays/."""
    _, environment, app = folder.split("/")
    return f"{app}-{environment}"


def generate_paths(written: Object, folder: str) -> str:
    """Below which paths a change makes Argo CD render a folder of overlays/ again, as the annotation of an
    ApplicationSet lists them; "" where it lists none."""
    return str(at(written, *_GENERATE_PATHS) or "").replace(_BASENAME, folder.rpartition("/")[2])

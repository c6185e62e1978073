"""Where files may be: Argo CD renders just what is checked here, and again whenever a file changes that a render reads.

Argo CD finds releases by patterns of paths, in which a `*` matches slashes too, and looks for some files by their names
before it renders a folder. So every path of what is deployed has to be one that is known here.
Source: util/git/client.go, util/app/discovery/discovery.go and reposerver/repository/repository.go of Argo CD 3.6.1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from gitops.checks import framework
from gitops.checks.framework import Finding, Repository
from gitops.manifests.objects import KUSTOMIZATION, Object, at
from gitops.releases import release_file
from gitops.repo import applications, layout
from gitops.repo.layout import CLUSTERS, RELEASE_FILE
from gitops.repo.policy import POLICY_FILE, Policy

_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
# A part of the names of an Application and of the objects that it has.
_APP = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_RETIRED = "retired.yaml"
# By their names in small letters; what Argo CD or Git does with them.
_SPECIAL = {
    ".gitattributes": "Git would check out other bytes than were committed",
    ".gitmodules": "Argo CD would fetch other repositories into this one",
}


def check_paths(repository: Repository) -> Iterator[Finding]:
    """Every path of what is deployed is one that is rendered here as Argo CD renders it, and no other."""
    root, environments = repository.root, repository.policy.environments
    known = repository.known.keys() - (repository.chosen or ())
    found: dict[str, str] = {}
    paths = repository.files.files
    for path in paths:
        where, fault = path, _kind_fault(path) or _name_fault(path, repository)
        if not fault and path.startswith("overlays/"):
            where, fault = _place_fault(path, environments)
        if not fault and path.startswith(f"{CLUSTERS}/"):
            where, fault = _cluster_fault(path, repository.policy)
        if fault:
            found.setdefault(where, fault)
    # What is known rendered before as well, and was looked into then.
    for folder in _folders(paths, environments) - {"/".join(where.split("/")[:3]) for where in found} - known:
        if fault := _overlay_fault(root, folder):
            found[folder] = fault
    for cluster in repository.policy.clusters:
        for folder in layout.of_cluster(repository.policy, cluster):
            if folder not in repository.renders:
                found[folder] = (
                    f"no {KUSTOMIZATION}, and {POLICY_FILE} has the cluster; `python scripts/cluster.py add {cluster}`"
                    " writes what is missing"
                )
    rendered = {file for folder in repository.renders for file in repository.reads(folder)}
    for path in paths:
        if path not in rendered and found.keys().isdisjoint([path, *map(str, Path(path).parents)]):
            found |= {path: fault} if (fault := _stray_fault(path)) else {}
    for where, fault in sorted(found.items()):
        # A name of a file can be any bytes; what is printed is one line of text.
        yield Finding("paths", where if where.isprintable() else ascii(where)[1:-1], fault)


def _folders(paths: list[str], environments: tuple[str, ...]) -> set[str]:
    """The folders of environments, with their apps', that have a file: overlays/<environment>/<folder>."""
    parts = [path.split("/") for path in paths if path.startswith("overlays/")]
    return {"/".join(part[:3]) for part in parts if len(part) > 3 and part[1] in environments}


def _kind_fault(path: str) -> str:
    if path in layout.DEPLOYED:
        return "no folder; what is deployed is in folders"
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment):
            return f"{segment!a}: no plain name; use letters, digits, `.`, `_` and `-`"
    return ""


def _name_fault(path: str, repository: Repository) -> str:
    """What Argo CD, kustomize or Git looks for by its name, and would make something else than is checked here."""
    folder, _, name = path.rpartition("/")
    small = name.casefold()
    if small.startswith(".argocd-"):
        return "Argo CD would change by it what it renders; remove it"
    if small in _SPECIAL:
        return f"{_SPECIAL[small]}; remove it"
    if small in (KUSTOMIZATION, "kustomization.yml", "kustomization") and name != KUSTOMIZATION:
        return f"a kustomization by another name than {KUSTOMIZATION}, which alone is looked for here; rename it"
    if small == RELEASE_FILE and name != RELEASE_FILE:
        return f"a release file by another name than {RELEASE_FILE}, which alone Argo CD looks for; rename it"
    if name.endswith("Chart.yaml") and (folder in repository.renders or folder.startswith("overlays/")):
        return "Argo CD would take its folder for a Helm chart, and not render the kustomization; rename it"
    return ""


def _place_fault(path: str, environments: tuple[str, ...]) -> tuple[str, str]:
    """The path that is out of place, and why: of overlays/, only those of an environment and its apps are rendered."""
    if path == POLICY_FILE:
        return path, ""
    _, environment, *rest = path.split("/")
    if not rest:
        return path, f"nothing but folders of environments is beside {POLICY_FILE}; move it, or remove it"
    if environment not in environments:
        return f"overlays/{environment}", (
            f"no environment of {POLICY_FILE}, so nothing here renders it and Argo CD might; its environments are"
            f" {', '.join(environments)}; add it there, or remove the folder"
        )
    if len(rest) == 1:
        return path, "" if rest == [_RETIRED] else (
            f"nothing but {_RETIRED} is beside the folders of an environment; move it into one, or remove it"
        )
    folder = layout.overlay(rest[0], environment)
    if rest[0] not in layout.OF_ENVIRONMENT and not _APP.fullmatch(rest[0]):
        return folder, f"{rest[0]!r}: no name of an app; use small letters, digits and `-`, a letter first"
    if rest[0] in layout.OF_ENVIRONMENT and rest[1:] == [RELEASE_FILE]:
        return path, f"Argo CD would make an Application of {folder}, which is no app; remove it"
    return path, ""


def _cluster_fault(path: str, policy: Policy) -> tuple[str, str]:
    """The path that is out of place among the folders of clusters, and why: what no cluster of the policy has, nobody
    renders."""
    _, _, cluster, *rest = path.split("/")
    if not rest:
        return path, "nothing but folders of clusters is here; move it, or remove it"
    if cluster not in policy.clusters:
        known = ", ".join(policy.clusters) or "none"
        return f"{CLUSTERS}/{cluster}", (
            f"no cluster of {POLICY_FILE}, so that nothing renders it; its clusters are {known}; `python"
            f" scripts/cluster.py add {cluster}` adds it there, or remove the folder"
        )
    folders = layout.of_cluster(policy, cluster)
    if not path.startswith(tuple(f"{folder}/" for folder in folders)):
        where = path if len(rest) == 1 else f"{CLUSTERS}/{cluster}/{rest[0]}"
        has = f"`argocd: {policy.clusters[cluster]}` in {POLICY_FILE} is a cluster with {' and '.join(folders)}"
        return where, f"nothing renders it; {has}; remove it, or move it there"
    return path, ""


def _stray_fault(path: str) -> str:
    """A file that no render reads, and that has a name by which Argo CD looks for releases."""
    top, *_, name = path.split("/")
    of_overlay = name == KUSTOMIZATION and path.count("/") == 3
    if top != "overlays" or name not in (RELEASE_FILE, KUSTOMIZATION) or of_overlay:
        return ""
    return "no render reads it, and Argo CD looks for files of its name; remove it, or name it in a kustomization"


def _overlay_fault(root: Path, folder: str) -> str:
    """What keeps a folder of an environment from being rendered here and by one Application."""
    name = folder.rpartition("/")[2]
    kustomization = root / folder / KUSTOMIZATION
    if not kustomization.is_file():
        return f"no {KUSTOMIZATION}, so nothing here renders it and Argo CD might; add it, or remove the folder"
    keeps = release_file.keeps_images(kustomization.read_bytes(), f"{folder}/{KUSTOMIZATION}")
    if name in layout.OF_ENVIRONMENT:
        return "images: Argo CD would make an Application of it, which is no app; write them elsewhere" if keeps else ""
    if not keeps and not (root / folder / RELEASE_FILE).is_file():
        return f"neither {RELEASE_FILE} nor `images:` in its {KUSTOMIZATION}, so no Application renders it; add one"
    return ""


_PROJECT = ("spec", "template", "spec", "project")

# manifest-generate-paths: Argo CD renders an Application again only when a file below one of these paths changes.


def check_generate_paths(repository: Repository) -> Iterator[Finding]:
    """Argo CD renders again whenever a file changes that a render reads."""
    rule = "generate-paths"
    for folder, environment, _, items in repository.overlays():
        which = applications.set_of(items)
        holder, item = _set_of(repository, environment, which)
        if item is None:
            continue  # a matter of the rule of Applications
        written = applications.generate_paths(item, folder)
        for parent in _uncovered(repository.reads(folder), folder, written):
            top = parent.split("/")[0]
            remedy = "read it from there"
            if top not in layout.DEPLOYED:
                file = applications.set_file(repository.policy, environment, which)
                remedy = f"add `;/{top}` to the end of manifest-generate-paths in {file}"
            message = f"reads {parent}, and Argo CD looks below {written} alone; {remedy}"
            yield Finding(rule, folder, message, (folder, holder))
    for instance in repository.instances:
        taken = [folder for folder, _ in instance.taken().values() if folder in repository.renders]
        for item in repository.renders.get(instance.folder, []):
            path = at(item, "spec", "source", "path")
            if item.get("kind") != "Application" or path not in taken:
                continue
            field = applications.GENERATE_PATHS
            written = str(at(item, *field) or "")
            for parent in _uncovered(repository.reads(path), path, written):
                message = f"{'.'.join(field)}: {written!r} does not cover {parent}, read by {path}; add it"
                yield framework.finding(rule, instance.folder, item, message, path)


def _set_of(repository: Repository, environment: str, which: str) -> tuple[str, Object | None]:
    """The folder of the Argo CD that applies an environment, and one of its ApplicationSets, if it is there."""
    folder = applications.of_environment(repository.policy, environment).folder
    found = (item for item in repository.renders.get(folder, []) if item.get("kind") == "ApplicationSet")
    mine = (item for item in found if at(item, *_PROJECT) == environment)
    name = applications.set_name(environment, which)
    return folder, next((item for item in mine if at(item, "metadata", "name") == name), None)


def _uncovered(files: Iterable[str], folder: str, paths: str) -> list[str]:
    """The folders of the files that a render reads and the annotation leaves out."""
    covered = {_resolve(path.strip(), folder) for path in paths.split(";") if path.strip()}
    missed = {
        file
        for file in files
        if not any(place == "." or file == place or file.startswith(f"{place}/") for place in covered)
    }
    return sorted({str(Path(file).parent) for file in missed})


def _resolve(path: str, folder: str) -> str:
    """A path of the annotation relative to the repository: absolute ones start at its top, others at the folder."""
    return os.path.normpath(path.removeprefix("/") if path.startswith("/") else f"{folder}/{path}")

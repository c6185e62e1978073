"""What Argo CD may do, and how it syncs: rules like those of `review`, for the objects of argocd/."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.checks.generators import matching, parameters
from gitops.manifests.objects import Object, at, identity, leaves, listed, mapping, mappings, matches
from gitops.releases import release
from gitops.repo import layout, publish
from gitops.repo.layout import ARGOCD, PLATFORM
from gitops.repo.policy import POLICY_FILE


def check_projects(repository: Repository) -> Iterator[Finding]:
    """Each environment has a project that allows its own namespace, this repository and the rendered kinds; nothing
    has a wildcard, and no Application is in the project `default`, which allows everything."""
    items = repository.renders.get(ARGOCD, [])
    projects = {str(at(item, "metadata", "name")): item for item in items if item.get("kind") == "AppProject"}
    for item in projects.values():
        for path, value in leaves(mapping(at(item, "spec"))).items():
            if isinstance(value, str) and "*" in value and not path.endswith(".schedule"):
                yield finding("projects", ARGOCD, item, f"spec.{path}: {value!r}: a wildcard; list what is allowed")
    for folder, item, path, spec in _applications(repository):
        name = str(at(spec, "project"))
        if "{{" in name:
            continue
        if (project := projects.get(name)) is None:
            yield finding("projects", folder, item, f"{path}.project: {name!r}: no AppProject of argocd/; use one of"
                          f" {', '.join(sorted(projects))}")  # fmt: skip
            continue
        namespaces = [at(target, "namespace") for target in mappings(at(project, "spec", "destinations"))]
        for field, allowed in (
            (("source", "repoURL"), listed(at(project, "spec", "sourceRepos"))),
            (("destination", "namespace"), namespaces),
        ):
            if (found := at(spec, *field)) not in allowed:
                yield finding("projects", folder, item, f"{path}.{'.'.join(field)}: {found!r}: not allowed by the"
                              f" AppProject {name}; Argo CD would refuse it", ARGOCD)  # fmt: skip
    for environment in repository.policy.environments:
        project = projects.get(environment)
        if project is None:
            yield Finding("projects", ARGOCD, f"no AppProject {environment}; each environment of {POLICY_FILE}"
                          " has one", (ARGOCD,))  # fmt: skip
            continue
        namespace = layout.namespace(environment)
        for target in mappings(at(project, "spec", "destinations")):
            if at(target, "namespace") != namespace:
                yield finding("projects", ARGOCD, project, f"spec.destinations: namespace {at(target, 'namespace')!r};"
                              f" the project of {environment} allows {namespace} alone")  # fmt: skip
        for folder, found, _, rendered in repository.overlays():
            if found == environment:
                # What else is in no namespace is refused by the rule of namespaces.
                known = [identity(item).namespace or item.get("kind") == "Namespace" for item in rendered]
                yield from _unallowed(project, folder, list(itertools.compress(rendered, known)))
    if "platform" in projects:
        for folder in (ARGOCD, PLATFORM):
            yield from _unallowed(projects["platform"], folder, repository.renders.get(folder, []))


def _unallowed(project: Object, folder: str, items: list[Object]) -> Iterator[Finding]:
    """The objects of a render that Argo CD would not apply for an Application of the project."""
    allowed = {
        (scope, str(at(entry, "group")), str(at(entry, "kind")))
        for scope in ("clusterResourceWhitelist", "namespaceResourceWhitelist")
        for entry in mappings(at(project, "spec", scope))
    }
    for item in items:
        what = identity(item)
        scope = "namespaceResourceWhitelist" if what.namespace else "clusterResourceWhitelist"
        if (scope, what.group, what.kind) not in allowed:
            yield finding("projects", folder, item, f"kind: {what.kind}: not in {scope} of the AppProject"
                          f" {at(project, 'metadata', 'name')}; Argo CD would refuse it", ARGOCD)  # fmt: skip


def _applications(repository: Repository) -> Iterator[tuple[str, Object, str, object]]:
    """(folder, object, path, spec) of every Application that is written out or is the template of many."""
    for folder in (ARGOCD, PLATFORM):
        for item in repository.renders.get(folder, []):
            if item.get("kind") == "Application":
                yield folder, item, "spec", at(item, "spec")
            elif item.get("kind") == "ApplicationSet":
                yield folder, item, "spec.template.spec", at(item, "spec", "template", "spec")


_VERSION = r"v?[0-9]+\.[0-9]+\.[0-9]+"
_TEMPLATE = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")


def check_applications(repository: Repository) -> Iterator[Finding]:
    """Applications sync this repository's deployed branch, or others' charts at one exact version, by themselves and by
    server-side apply, and take nothing away; templates use what every generator gives, and nothing that is unreleased
    has an Application."""
    applications = list(_applications(repository))
    # That of the Application which keeps all others.
    own = next((at(spec, "source", "repoURL") for _, item, _, spec in applications
                if at(item, "metadata", "name") == "root"), None)  # fmt: skip
    for folder, item, path, spec in applications:
        if item.get("kind") == "ApplicationSet":
            yield from _template_faults(item)
            yield from _unreleased(repository, item)
        wanted: list[tuple[tuple[str, ...], object]] = [
            (("syncPolicy", "automated", "selfHeal"), True),
            (("syncPolicy", "automated", "prune"), False),
        ]
        revision = at(spec, "source", "targetRevision")
        if at(spec, "source", "repoURL") in (own, None):
            wanted.append((("source", "targetRevision"), publish.BRANCH))
        elif not re.fullmatch(_VERSION, str(revision)):
            yield finding("applications", folder, item, f"{path}.source.targetRevision: {json.dumps(revision)}: not one"
                          " exact version, such as 1.2.3; what is not ours would change by itself")  # fmt: skip
        for field, value in wanted:
            if (found := at(spec, *field)) != value:
                yield finding("applications", folder, item, f"{path}.{'.'.join(field)}: {json.dumps(found)}; write"
                              f" {json.dumps(value)}")  # fmt: skip
        if "ServerSideApply=true" not in listed(at(spec, "syncPolicy", "syncOptions")):
            yield finding("applications", folder, item, f"{path}.syncPolicy.syncOptions: without ServerSideApply=true;"
                          " add it")  # fmt: skip


def _template_faults(item: Object) -> Iterator[Finding]:
    if at(item, "spec", "goTemplate") is not True:
        yield finding("applications", ARGOCD, item, "spec.goTemplate: not true; a value that is missing would be empty")
    if "missingkey=error" not in listed(at(item, "spec", "goTemplateOptions")):
        yield finding("applications", ARGOCD, item, "spec.goTemplateOptions: without missingkey=error; add it")
    for path, value in leaves(mapping(at(item, "spec", "template"))).items():
        for action in _TEMPLATE.findall(value) if isinstance(value, str) else []:
            if action != ".path.path" and not re.fullmatch(r"index \.path\.segments [0-9]+", action):
                yield finding("applications", ARGOCD, item, f"spec.template.{path}: {{{{ {action} }}}}: use .path.path"
                              " and .path.segments alone")  # fmt: skip


# In a patch, and in a kustomization.
_VERSIONS = [f"{place}.{release.ANNOTATION}version" for place in ("metadata.annotations", "commonAnnotations")]


def _unreleased(repository: Repository, item: Object) -> Iterator[Finding]:
    """Every generator that finds a release file leaves out those at `unreleased`."""
    for generator in mappings(at(item, "spec", "generators")):
        expressions = mappings(at(generator, "selector", "matchExpressions"))
        for file in mappings(at(generator, "git", "files")):
            for found in sorted(matching(repository.root, at(file, "path"))):
                folder = found.parent.relative_to(repository.root).as_posix()
                values = parameters(found.read_bytes())
                versions = [values.get(key) for key in _VERSIONS]
                if folder not in repository.renders or release.UNRELEASED not in versions:
                    continue
                if all(matches(expression, values) for expression in expressions):
                    yield finding("applications", ARGOCD, item, f"spec.generators: {folder} is unreleased and gets an"
                                  " Application; select on model.mlops/version NotIn [unreleased]", folder)  # fmt: skip


RULES: dict[str, Rule] = {
    "projects": check_projects,
    "applications": check_applications,
}

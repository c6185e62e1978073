"""What Argo CD may do, and how it syncs: rules like those of `review`, for the objects of argocd/."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gitops.checks import admission
from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.manifests import kinds, schemas
from gitops.manifests.objects import Identity, Object, at, differences, identity, leaves, listed, mapping, mappings
from gitops.repo import applications, publish
from gitops.repo.layout import ARGOCD, PLATFORM
from gitops.repo.policy import POLICY_FILE

SERVER = "https://kubernetes.default.svc"


# Projects

_KINDS = "namespaceResourceWhitelist"
_WILDCARD = re.compile(r"[*?\[{!]")
_EMPTY = ("sourceRepos", "destinations", "clusterResourceWhitelist", _KINDS)
# What a project can have beside those: words, and what allows less.
_NARROWING = (
    "clusterResourceBlacklist", "description", "namespaceResourceBlacklist", "orphanedResources",
    "permitOnlyProjectScopedClusters", "signatureKeys", "sourceIntegrity", "syncWindows",
)  # fmt: skip
# What changes objects on their way is refused, whoever allows it.
_ADMISSION = "admissionregistration.k8s.io"
_RIGHTS = "rbac.authorization.k8s.io"


def check_projects(repository: Repository) -> Iterator[Finding]:
    """Each environment has a project that allows its own namespace, this repository and the rendered kinds, and nothing
    else; nothing has a wildcard, and the project `default`, which Argo CD makes and in which everything is allowed,
    allows nothing."""
    projects = _projects(repository)
    yield from _known(repository, projects)
    for project in projects.values():
        yield from _wildcards(project)
    for environment in repository.policy.environments:
        if environment in applications.PROJECTS:
            yield Finding("projects", POLICY_FILE, f"environments: {environment!r}: the name of another project of"
                          " Argo CD; take another name", (ARGOCD,))  # fmt: skip
        elif environment in projects:
            yield from _environment_faults(repository, projects[environment], environment)
    yield from _common_faults(repository, projects)
    yield from _allowed_sources(repository, projects)


_LEADS_OUT = "would let an environment do more than its project"


def _leads_out(group: str, kind: str) -> bool:
    """Whether objects of a kind would lead out of an environment: Applications of its own, and rights."""
    return group == _RIGHTS or (group == "argoproj.io" and kinds.is_engines(group, kind))


def why_never(group: str, kind: str) -> str:
    """Why no environment may have a kind; empty where one may."""
    if _leads_out(group, kind):
        return _LEADS_OUT
    if admission.is_other(group, kind) and admission.is_serving(group):
        return "runs containers or serves models, and there are no releases for it; write an InferenceService"
    return ""


def _projects(repository: Repository) -> dict[str, Object]:
    """By name, the projects that Argo CD reads: those in its own namespace."""
    items = repository.renders.get(ARGOCD, [])
    found = [item for item in items if item.get("kind") == "AppProject" and identity(item).namespace == ARGOCD]
    return {_name(item): item for item in found}


def _known(repository: Repository, projects: dict[str, Object]) -> Iterator[Finding]:
    names = (*repository.policy.environments, *applications.PROJECTS)
    for item in repository.renders.get(PLATFORM, []):
        if item.get("kind") == "AppProject":
            yield finding("projects", PLATFORM, item, f"a project that no rule looks into; write it in {ARGOCD}/")
    for name, project in projects.items():
        if name not in names:
            yield finding("projects", ARGOCD, project, "metadata.name: no environment of"
                          f" {POLICY_FILE}, and none of {', '.join(applications.PROJECTS)}; remove it")  # fmt: skip
    for name in names:
        if name not in projects:
            yield Finding("projects", ARGOCD, f"no AppProject {name}; each environment of {POLICY_FILE}"
                          f" has one, and so have {', '.join(applications.PROJECTS)}", (ARGOCD,))  # fmt: skip


def _common_faults(repository: Repository, projects: dict[str, Object]) -> Iterator[Finding]:
    """What the projects that are not an environment's allow and should not, or should and do not."""
    own = repository_url(repository)
    exact: dict[str, dict[str, object]] = {
        "addons": {}, "default": {field: [] for field in _EMPTY}, "platform": {"sourceRepos": [own]},
    }  # fmt: skip
    for name, wanted in exact.items():
        if name in projects:
            others = [field for field in mapping(at(projects[name], "spec")) if field not in _EMPTY]
            yield from _differing(projects[name], wanted, others)
    if platform := projects.get("platform"):
        for folder in (ARGOCD, PLATFORM):
            yield from _unallowed(repository, platform, folder, repository.renders.get(folder, []))
    for address in listed(at(projects.get("addons"), "spec", "sourceRepos")):
        if _normal(address) == _normal(own):
            yield finding("projects", ARGOCD, projects["addons"], f"spec.sourceRepos: {address!r}: this repository,"
                          " from which add-ons would be rendered that nobody checks; remove it")  # fmt: skip


def repository_url(repository: Repository) -> str:
    """The address from which Argo CD takes this repository: that of the Application which keeps all others."""
    items = repository.renders.get(ARGOCD, [])
    root = next((item for item in items if item.get("kind") == "Application" and _name(item) == "root"), None)
    return str(at(root, "spec", "source", "repoURL"))


def _name(item: Object) -> str:
    return str(at(item, "metadata", "name"))


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _normal(address: object) -> str:
    """An address of a repository without what Argo CD does not tell it apart by: the way there, the user, capitals."""
    bare = re.sub(r"^([a-z]+://)?([^@/]*@)?", "", str(address).strip().casefold())
    return bare.replace(":", "/").strip("/").removesuffix(".git")


def _wildcards(project: Object) -> Iterator[Finding]:
    for path, value in leaves(mapping(at(project, "spec"))).items():
        if isinstance(value, str) and not path.startswith(_NARROWING) and _WILDCARD.search(value):
            yield finding("projects", ARGOCD, project, f"spec.{path}: {value!r}: a wildcard; list what is allowed")


def _differing(project: Object, wanted: dict[str, object], others: Iterable[str]) -> Iterator[Finding]:
    """The fields of a project that are not as wanted, and those of `others` that are neither wanted nor harmless."""
    for field, value in wanted.items():
        if (found := at(project, "spec", field)) != value:
            yield finding("projects", ARGOCD, project, f"spec.{field}: {_json(found)}; write {_json(value)}")
    for field in others:
        if field not in wanted and field not in _NARROWING:
            yield finding("projects", ARGOCD, project, f"spec.{field}: allows more than the project is there for;"
                          " remove it")  # fmt: skip


def _environment_faults(repository: Repository, project: Object, environment: str) -> Iterator[Finding]:
    """What the project of an environment allows beyond its namespace, this repository, and kinds that stay inside, and
    what it does not allow and is rendered."""
    namespace, spec = repository.policy.namespace(environment), mapping(at(project, "spec"))
    wanted: dict[str, object] = {
        "sourceRepos": [repository_url(repository)],
        "destinations": [{"server": SERVER, "namespace": namespace}],
        "clusterResourceWhitelist": [{"group": "", "kind": "Namespace", "name": namespace}],
    }
    yield from _differing(project, wanted, [field for field in spec if field != _KINDS])
    if not isinstance(spec.get(_KINDS), list):
        yield finding("projects", ARGOCD, project, f"spec.{_KINDS}: missing, so that every kind is allowed; list them")
    for entry in mappings(spec.get(_KINDS)):
        if _leads_out(str(at(entry, "group")), str(at(entry, "kind"))):
            yield finding("projects", ARGOCD, project, f"spec.{_KINDS}: {at(entry, 'kind')}.{at(entry, 'group')}:"
                          f" {_LEADS_OUT}; remove it")  # fmt: skip
    for folder, found, _, rendered in repository.overlays():
        if found == environment:
            # What else is in no namespace is refused by the rule of namespaces.
            known = [identity(item).namespace or item.get("kind") == "Namespace" for item in rendered]
            yield from _unallowed(repository, project, folder, list(itertools.compress(rendered, known)))


def _allowed_sources(repository: Repository, projects: dict[str, Object]) -> Iterator[Finding]:
    """Applications whose project is not there, or would refuse where they come from or go to."""
    for folder, item in _applications(repository):
        name = str(at(item, "spec", "project"))
        if (project := projects.get(name)) is None:
            yield finding("projects", folder, item, f"spec.project: {name!r}: no AppProject of argocd/; use one of"
                          f" {', '.join(sorted(projects))}")  # fmt: skip
            continue
        if (found := at(item, "spec", "source", "repoURL")) not in listed(at(project, "spec", "sourceRepos")):
            yield _refused(folder, item, name, f"spec.source.repoURL: {found!r}")
        allowed = mappings(at(project, "spec", "destinations"))
        goal = mapping(at(item, "spec", "destination"))
        clusters = [target for target in allowed if _cluster(target) == _cluster(goal)]
        if not clusters:
            field, found = next(iter((key, goal[key]) for key in ("server", "name") if goal.get(key)), ("server", None))
            yield _refused(folder, item, name, f"spec.destination.{field}: {found!r}")
        elif (found := goal.get("namespace")) not in [target.get("namespace") for target in clusters]:
            yield _refused(folder, item, name, f"spec.destination.namespace: {found!r}")


# What Argo CD calls the cluster that it runs in.
_IN_CLUSTER = "in-cluster"


def _cluster(destination: Mapping[str, Any]) -> Any:
    """What identifies the cluster of a destination: its address, or else its name."""
    name = destination.get("name")
    return destination.get("server") or (SERVER if name == _IN_CLUSTER else name)


def _refused(folder: str, item: Object, project: str, what: str) -> Finding:
    message = f"{what}: not allowed by the AppProject {project}; Argo CD would refuse it"
    return finding("projects", folder, item, message, ARGOCD)


def _unallowed(repository: Repository, project: Object, folder: str, items: list[Object]) -> Iterator[Finding]:
    """The objects of a render that Argo CD would not apply for an Application of the project."""
    allowed = {
        (scope, str(at(entry, "group")), str(at(entry, "kind")))
        for scope in ("clusterResourceWhitelist", _KINDS)
        for entry in mappings(at(project, "spec", scope))
    }
    for item in items:
        what = identity(item)
        scope = _KINDS if what.namespace else "clusterResourceWhitelist"
        if (scope, what.group, what.kind) not in allowed:
            name = str(at(project, "metadata", "name"))
            yield finding("projects", folder, item, f"kind: {what.kind}: not in {scope} of the AppProject {name};"
                          f" Argo CD would refuse it{_remedy(repository, what, name)}", ARGOCD)  # fmt: skip


def _remedy(repository: Repository, what: Identity, project: str) -> str:
    """How the project comes to allow a kind; empty where it cannot, or no schema is known yet."""
    name, own = schemas.called(what.group, what.kind), project in repository.policy.environments
    scope = at(schemas.kinds(repository.schemas), name, "scope")
    fits = scope == ("Namespaced" if what.namespace else "Cluster") and what.group != _ADMISSION
    if not fits or (own and why_never(what.group, what.kind)):
        return ""
    return f"; `python scripts/add_kind.py --kind {name} {f'--env {project}' if own else '--platform'}` allows it"


# Applications

_VERSION = r"v?[0-9]+\.[0-9]+\.[0-9]+"
# Those that are written out in argocd/ take these folders of this repository.
_OWN = {"root": ARGOCD, "platform": PLATFORM}


def _applications(repository: Repository) -> Iterator[tuple[str, Object]]:
    """(folder, object) of every Application that is written out."""
    for folder in (ARGOCD, PLATFORM):
        for item in repository.renders.get(folder, []):
            if item.get("kind") == "Application":
                yield folder, item


def check_applications(repository: Repository) -> Iterator[Finding]:
    """What takes from this repository are the Applications `root` and `platform` and one ApplicationSet for each
    environment, which is the engine's to the letter; add-ons are others' charts at one exact version. All sync by
    themselves and by server-side apply, and take nothing away, and no two have one name."""
    yield from _sets(repository)
    yield from _same_names(repository)
    for folder in (ARGOCD, PLATFORM):
        for item in repository.renders.get(folder, []):
            if item.get("kind") in ("Application", "AppProject") and (space := identity(item).namespace) != ARGOCD:
                yield finding("applications", folder, item, f"metadata.namespace: {space!r}: Argo CD reads those in"
                              f" {ARGOCD} alone; write {ARGOCD}")  # fmt: skip
    own = repository_url(repository)
    for folder, item in _applications(repository):
        if folder == PLATFORM:
            yield from _addon_faults(item)
        elif _name(item) in _OWN:
            source = {"repoURL": own, "targetRevision": publish.BRANCH, "path": _OWN[_name(item)]}
            destination = {"server": SERVER, "namespace": ARGOCD}
            wanted = {"project": "platform", "source": source, "destination": destination}
            yield from _unlike(folder, item, {(field,): value for field, value in wanted.items()})
        else:
            yield finding("applications", folder, item, f"metadata.name: none of {', '.join(_OWN)}; add-ons are in"
                          f" {PLATFORM}/addons/, and apps in overlays/")  # fmt: skip
        yield from _sync_faults(folder, item)


def _addon_faults(item: Object) -> Iterator[Finding]:
    """An add-on is somebody else's, at one version, and has the rights of add-ons."""
    yield from _unlike(PLATFORM, item, {("project",): "addons"})
    if not re.fullmatch(_VERSION, str(revision := at(item, "spec", "source", "targetRevision"))):
        yield finding("applications", PLATFORM, item, f"spec.source.targetRevision: {json.dumps(revision)}: not"
                      " one exact version, such as 1.2.3; what is not ours would change by itself")  # fmt: skip


def _sync_faults(folder: str, item: Object) -> Iterator[Finding]:
    automated = ("syncPolicy", "automated")
    yield from _unlike(folder, item, {(*automated, "selfHeal"): True, (*automated, "prune"): False})
    if "ServerSideApply=true" not in listed(at(item, "spec", "syncPolicy", "syncOptions")):
        yield finding("applications", folder, item, "spec.syncPolicy.syncOptions: without ServerSideApply=true;"
                      " add it")  # fmt: skip
    for field in ("sources", "sourceHydrator"):
        if at(item, "spec", field) is not None:
            yield finding("applications", folder, item, f"spec.{field}: nothing here looks into it; write the one"
                          " source into spec.source")  # fmt: skip


def _unlike(folder: str, item: Object, wanted: dict[tuple[str, ...], object]) -> Iterator[Finding]:
    for path, value in wanted.items():
        if (found := at(item, "spec", *path)) != value:
            yield finding("applications", folder, item, f"spec.{'.'.join(path)}: {_json(found)}; write {_json(value)}")


def _sets(repository: Repository) -> Iterator[Finding]:
    """The ApplicationSets that are not those of the environments, as the engine has them."""
    own, policy = repository_url(repository), repository.policy
    sets = [applications.application_set(policy, environment, own) for environment in policy.environments]
    wanted = {identity(item): item for item in sets}
    found = {
        identity(item): (folder, item)
        for folder in (ARGOCD, PLATFORM)
        for item in repository.renders.get(folder, [])
        if item.get("kind") == "ApplicationSet"
    }
    for what in sorted(wanted.keys() - found.keys()):
        yield Finding("applications", ARGOCD, f"no {what}; write it as"
                      f" scripts/gitops/repo/{applications.TEMPLATE.name} has it", (ARGOCD,))  # fmt: skip
    for what, (folder, item) in found.items():
        if what not in wanted or folder != ARGOCD:
            yield finding("applications", folder, item, "an ApplicationSet of no environment; the only ones are"
                          f" {', '.join(_name(item) for item in sets)}, in {ARGOCD}; remove it")  # fmt: skip
            continue
        expected = applications.with_paths_of(item, wanted[what])
        differing = differences([expected], [item])
        if item != expected and not differing:
            yield finding("applications", folder, item, "of another form than"
                          f" scripts/gitops/repo/{applications.TEMPLATE.name}; write it as that has it")  # fmt: skip
        for other in differing:
            yield finding("applications", folder, item, f"{other.path}: {_json(other.after)}; write"
                          f" {_json(other.before)}, as scripts/gitops/repo/{applications.TEMPLATE.name}"
                          " has it")  # fmt: skip


def _same_names(repository: Repository) -> Iterator[Finding]:
    """Applications of one name: the second one's controller would take over, or never get, what the first one keeps."""
    seen = {_name(item): folder for folder, item in _applications(repository)}
    for folder, _, _, _ in repository.all_overlays():
        name = applications.name(folder)
        if (first := seen.setdefault(name, folder)) != folder:
            yield Finding("applications", folder, f"its Application would be {name}, which is that of {first} too;"
                          " give the app another name", (folder, first))  # fmt: skip


# Settings

# By these Argo CD renders otherwise than plain kustomize does, or finds other files.
_RENDERING = re.compile(
    r"\b(?:kustomize\.(?:buildOptions|enable|path|version)|helm\.(?:enable|valuesFileSchemes)|jsonnet\.enable"
    r"|configManagementPlugins|application\.namespaces|reposerver\.|applicationsetcontroller\."
    r"|ARGOCD_(?!WEBHOOK_MANIFEST_CACHE_WARM_DISABLED\b))[A-Za-z0-9_.]*"
)
_SETTINGS = f"{PLATFORM}/argocd-cm.yaml"


def check_settings(repository: Repository) -> Iterator[Finding]:
    """No setting of Argo CD, in its ConfigMaps or in what its add-on makes of them, changes what it renders."""
    file = repository.root / _SETTINGS
    texts = [(_SETTINGS, PLATFORM, file.read_text(errors="replace"))] if file.is_file() else []
    for folder in (ARGOCD, PLATFORM):
        for item in repository.renders.get(folder, []):
            own = item.get("kind") == "ConfigMap" and _name(item).startswith("argocd-")
            if own or item.get("kind") == "Application":
                part = at(item, "data") if own else at(item, "spec", "source")
                texts.append((f"{folder}: {identity(item)}", folder, json.dumps(part)))
    for where, folder, text in texts:
        for word in sorted(set(_RENDERING.findall(text))):
            yield Finding("settings", where, f"{word}: Argo CD would render otherwise than is checked here; remove it",
                          (folder,))  # fmt: skip


RULES: dict[str, Rule] = {
    "projects": check_projects,
    "applications": check_applications,
    "settings": check_settings,
}

"""What Argo CD may do, and how it syncs: rules like those of `review`, for the objects of argocd/."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gitops.checks import admission
from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.manifests import kinds, schemas, stack
from gitops.manifests.objects import Identity, Object, at, differences, identity, leaves, listed, mapping, mappings
from gitops.manifests.stack import is_stack
from gitops.repo import applications, layout, publish
from gitops.repo.applications import NAMESPACE, SERVER, Instance
from gitops.repo.layout import ARGOCD, PLATFORM
from gitops.repo.policy import IN_CLUSTER, POLICY_FILE

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
    """In its own Argo CD, each environment has a project that allows its own namespace on its own cluster, this
    repository and the rendered kinds, and nothing else, and not in a freeze of the policy; nothing has a wildcard, and
    the project `default`, which Argo CD makes and in which everything is allowed, allows nothing."""
    for instance in repository.instances:
        yield from _project_faults(repository, instance)


def _project_faults(repository: Repository, instance: Instance) -> Iterator[Finding]:
    projects = _projects(repository, instance)
    yield from _known(repository, instance, projects)
    for project in projects.values():
        yield from _wildcards(instance.folder, project)
    for environment in instance.environments(repository.policy):
        if environment in applications.PROJECTS:
            yield Finding("projects", POLICY_FILE, f"environments: {environment!r}: the name of another project of"
                          " Argo CD; take another name", (instance.folder,))  # fmt: skip
        elif environment in projects:
            yield from _environment_faults(repository, instance, projects[environment], environment)
    yield from _common_faults(repository, instance, projects)
    yield from _allowed_sources(repository, instance, projects)


_LEADS_OUT = "would let an environment do more than its project"
_NOT_OF_CLUSTERS = "no cluster has it"


def _leads_out(group: str, kind: str) -> bool:
    """Whether objects of a kind would lead out of an environment: Applications of its own, and rights."""
    return group == _RIGHTS or (group == "argoproj.io" and kinds.is_engines(group, kind))


def why_never(group: str, kind: str) -> str:
    """Why no environment may have a kind; empty where one may."""
    if _leads_out(group, kind):
        return _LEADS_OUT
    if group == stack.GROUP:
        return _NOT_OF_CLUSTERS
    if admission.is_other(group, kind) and admission.is_serving(group):
        return "runs containers or serves models, and there are no releases for it; write an InferenceService"
    return ""


def _projects(repository: Repository, instance: Instance) -> dict[str, Object]:
    """By name, the projects that an Argo CD reads: those in its own namespace."""
    items = repository.renders.get(instance.folder, [])
    found = [item for item in items if item.get("kind") == "AppProject" and identity(item).namespace == NAMESPACE]
    return {_name(item): item for item in found}


def _known(repository: Repository, instance: Instance, projects: dict[str, Object]) -> Iterator[Finding]:
    policy = repository.policy
    names = (*instance.environments(policy), *applications.PROJECTS)
    for folder in _platforms(instance):
        for item in repository.renders.get(folder, []):
            if item.get("kind") == "AppProject":
                message = f"a project that no rule looks into; write it in {instance.folder}/"
                yield finding("projects", folder, item, message)
    for name, project in projects.items():
        if name in policy.environments and name not in names:
            yield finding("projects", instance.folder, project, "metadata.name: an environment that another Argo CD"
                          f" applies; move it to {applications.project_file(policy, name)}")  # fmt: skip
        elif name not in names:
            yield finding("projects", instance.folder, project, "metadata.name: no environment of"
                          f" {POLICY_FILE}, and none of {', '.join(applications.PROJECTS)}; remove it")  # fmt: skip
    for name in names:
        if name not in projects:
            yield Finding("projects", instance.folder, f"no AppProject {name}; each environment of {POLICY_FILE}"
                          f" has one, and so have {', '.join(applications.PROJECTS)}", (instance.folder,))  # fmt: skip


def _common_faults(repository: Repository, instance: Instance, projects: dict[str, Object]) -> Iterator[Finding]:
    """What the projects that are not an environment's allow and should not, or should and do not."""
    own = repository_url(repository)
    exact: dict[str, dict[str, object]] = {
        "addons": {}, "default": {field: [] for field in _EMPTY}, "platform": {"sourceRepos": [own]},
    }  # fmt: skip
    for name, wanted in exact.items():
        if name in projects:
            others = [field for field in mapping(at(projects[name], "spec")) if field not in _EMPTY]
            yield from _differing(instance.folder, projects[name], wanted, others)
            yield from _destination_faults(repository, instance, projects[name])
    if platform := projects.get("platform"):
        for folder, goal in instance.taken().values():
            items = repository.renders.get(folder, [])
            yield from _unallowed(repository, instance, platform, folder, items)
            yield from _outside(instance, platform, folder, goal, items)
    for address in listed(at(projects.get("addons"), "spec", "sourceRepos")):
        if _normal(address) == _normal(own):
            yield finding("projects", instance.folder, projects["addons"], f"spec.sourceRepos: {address!r}: this"
                          " repository, from which add-ons would be rendered that nobody checks; remove"
                          " it")  # fmt: skip


def _destination_faults(repository: Repository, instance: Instance, project: Object) -> Iterator[Finding]:
    """Destinations that are no cluster of this Argo CD, or an environment's own."""
    policy = repository.policy
    for target in mappings(at(project, "spec", "destinations")):
        cluster, message = _reached(instance, target), ""
        if cluster is None:
            known = " or ".join(_json(instance.destination(name)) for name in instance.clusters)
            message = f"no cluster that this Argo CD serves; write {known}, or remove it"
        elif mine := [name for name in policy.on(cluster) if policy.namespace(name) == target.get("namespace")]:
            message = f"the namespace of {mine[0]}, into which nothing but its own project leads; remove it"
        if message:
            yield finding("projects", instance.folder, project, f"spec.destinations: {_json(target)}: {message}")


def _reached(instance: Instance, target: Mapping[str, Any]) -> str | None:
    """The cluster of an Argo CD that a destination names, without doubt; None where it is none of them."""
    server, name = target.get("server"), target.get("name")
    if (server or name) and server in (None, "", SERVER) and name in (None, "", IN_CLUSTER):
        return instance.cluster
    return name if not server and name in instance.served else None


def _outside(
    instance: Instance, project: Object, folder: str, goal: Mapping[str, str], items: list[Object]
) -> Iterator[Finding]:
    """The objects of a render in namespaces that the project does not allow on the cluster to which they go."""
    there = [each for each in mappings(at(project, "spec", "destinations")) if _cluster(each) == _cluster(goal)]
    allowed = {str(each.get("namespace")) for each in there}
    for item in items:
        if (space := identity(item).namespace) and space not in allowed:
            target = {**{key: goal[key] for key in goal if key != "namespace"}, "namespace": space}
            yield finding("projects", folder, item, f"metadata.namespace: {space!r}: not in destinations of the"
                          f" AppProject {_name(project)}; Argo CD would refuse it; add {_json(target)} there, or write"
                          " another namespace", instance.folder)  # fmt: skip


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


def _wildcards(folder: str, project: Object) -> Iterator[Finding]:
    for path, value in leaves(mapping(at(project, "spec"))).items():
        if isinstance(value, str) and not path.startswith(_NARROWING) and _WILDCARD.search(value):
            yield finding("projects", folder, project, f"spec.{path}: {value!r}: a wildcard; list what is allowed")


def _differing(folder: str, project: Object, wanted: dict[str, object], others: Iterable[str]) -> Iterator[Finding]:
    """The fields of a project that are not as wanted, and those of `others` that are neither wanted nor harmless."""
    for field, value in wanted.items():
        if (found := at(project, "spec", field)) != value:
            yield finding("projects", folder, project, f"spec.{field}: {_json(found)}; write {_json(value)}")
    for field in others:
        if field not in wanted and field not in _NARROWING:
            yield finding("projects", folder, project, f"spec.{field}: allows more than the project is there for;"
                          " remove it")  # fmt: skip


def _environment_faults(
    repository: Repository, instance: Instance, project: Object, environment: str
) -> Iterator[Finding]:
    """What the project of an environment allows beyond its namespace, this repository, and kinds that stay inside, and
    what it does not allow and is rendered."""
    policy, spec = repository.policy, mapping(at(project, "spec"))
    namespace = policy.namespace(environment)
    wanted: dict[str, object] = {
        "sourceRepos": [repository_url(repository)],
        "destinations": [{**instance.destination(policy.at(environment).cluster), "namespace": namespace}],
        "clusterResourceWhitelist": [{"group": "", "kind": "Namespace", "name": namespace}],
    }
    yield from _differing(instance.folder, project, wanted, [field for field in spec if field != _KINDS])
    yield from _window_faults(repository, instance, project, environment)
    if not isinstance(spec.get(_KINDS), list):
        yield finding(
            "projects", instance.folder, project, f"spec.{_KINDS}: missing, so that every kind is allowed; list them"
        )
    for entry in mappings(spec.get(_KINDS)):
        group, kind = str(at(entry, "group")), str(at(entry, "kind"))
        if why := _LEADS_OUT if _leads_out(group, kind) else _NOT_OF_CLUSTERS if group == stack.GROUP else "":
            message = f"spec.{_KINDS}: {kind}.{group}: {why}; remove it"
            yield finding("projects", instance.folder, project, message)
    for folder, found, _, rendered in repository.overlays():
        if found == environment:
            # What else is in no namespace is refused by the rule of namespaces, and of a Stack Argo CD applies nothing.
            known = [
                not is_stack(item) and (identity(item).namespace or item.get("kind") == "Namespace")
                for item in rendered
            ]
            yield from _unallowed(repository, instance, project, folder, list(itertools.compress(rendered, known)))


def _window_faults(repository: Repository, instance: Instance, project: Object, environment: str) -> Iterator[Finding]:
    """The times in which nothing is synced are those of the policy, which people and other checks read."""
    wanted, found = applications.windows(repository.policy, environment), at(project, "spec", "syncWindows")
    if (found or []) == wanted:
        return
    where = f"spec.syncWindows: {_json(found)}"
    if wanted:
        remedy = f"`freeze` of {environment} in {POLICY_FILE} gives {_json(wanted)}"
    else:
        denying = all(at(each, "kind") == "deny" for each in mappings(found))
        freeze = f", or write there {_json(_freeze(found))}" if denying else ""
        remedy = f"{environment} has no `freeze` in {POLICY_FILE}; remove it{freeze}"
    yield finding("projects", instance.folder, project, f"{where}; {remedy}")


def _freeze(windows: Any) -> list[dict[str, Any]]:
    """What the policy has for such windows."""
    fields = {"schedule": "schedule", "duration": "duration", "timeZone": "time_zone", "description": "reason"}
    return [{fields[name]: each[name] for name in fields if name in each} for each in mappings(windows)]


def _allowed_sources(repository: Repository, instance: Instance, projects: dict[str, Object]) -> Iterator[Finding]:
    """Applications whose project is not there, or would refuse where they come from or go to."""
    for folder, item in _applications(repository, instance):
        name = str(at(item, "spec", "project"))
        if (project := projects.get(name)) is None:
            yield finding("projects", folder, item, f"spec.project: {name!r}: no AppProject of {instance.folder}/; use"
                          f" one of {', '.join(sorted(projects))}")  # fmt: skip
            continue
        if (found := at(item, "spec", "source", "repoURL")) not in listed(at(project, "spec", "sourceRepos")):
            yield _refused(instance, folder, item, name, f"spec.source.repoURL: {found!r}")
        allowed = mappings(at(project, "spec", "destinations"))
        goal = mapping(at(item, "spec", "destination"))
        clusters = [target for target in allowed if _cluster(target) == _cluster(goal)]
        if not clusters:
            field, found = next(iter((key, goal[key]) for key in ("server", "name") if goal.get(key)), ("server", None))
            yield _refused(instance, folder, item, name, f"spec.destination.{field}: {found!r}")
        elif (found := goal.get("namespace")) not in [target.get("namespace") for target in clusters]:
            yield _refused(instance, folder, item, name, f"spec.destination.namespace: {found!r}")


def _cluster(destination: Mapping[str, Any]) -> Any:
    """What identifies the cluster of a destination: its address, or else its name."""
    name = destination.get("name")
    return destination.get("server") or (SERVER if name == IN_CLUSTER else name)


def _refused(instance: Instance, folder: str, item: Object, project: str, what: str) -> Finding:
    message = f"{what}: not allowed by the AppProject {project}; Argo CD would refuse it"
    return finding("projects", folder, item, message, instance.folder)


def _unallowed(
    repository: Repository, instance: Instance, project: Object, folder: str, items: list[Object]
) -> Iterator[Finding]:
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
                          f" Argo CD would refuse it{_remedy(repository, what, name)}", instance.folder)  # fmt: skip


def _remedy(repository: Repository, what: Identity, project: str) -> str:
    """How the project comes to allow a kind; empty where it cannot, or no schema is known yet."""
    name, own = schemas.called(what.group, what.kind), project in repository.policy.environments
    scope = at(schemas.kinds(repository.schemas), name, "scope")
    fits = scope == ("Namespaced" if what.namespace else "Cluster") and what.group not in (_ADMISSION, stack.GROUP)
    if not fits or (own and why_never(what.group, what.kind)):
        return ""
    return f"; `python scripts/add_kind.py --kind {name} {f'--env {project}' if own else '--platform'}` allows it"


# Applications

_VERSION = r"v?[0-9]+\.[0-9]+\.[0-9]+"


def _platforms(instance: Instance) -> dict[str, str]:
    """The folders of the clusters to which an Argo CD applies, with the cluster of each."""
    found = {layout.platform(cluster): cluster for cluster in instance.clusters}
    return found | {layout.addons(cluster): cluster for cluster in instance.served}


def _applications(repository: Repository, instance: Instance) -> Iterator[tuple[str, Object]]:
    """(folder, object) of every Application of an Argo CD that is written out."""
    for folder in (instance.folder, *_platforms(instance)):
        for item in repository.renders.get(folder, []):
            if item.get("kind") == "Application":
                yield folder, item


def check_applications(repository: Repository) -> Iterator[Finding]:
    """What takes from this repository are, in each Argo CD, the Applications `root` and `platform`, two for each
    further cluster and the ApplicationSets of each environment, which are the engine's to the letter; add-ons are
    others' charts at one exact version. All sync by themselves and by server-side apply, and take nothing away, and no
    two have one name."""
    for instance in repository.instances:
        yield from _application_faults(repository, instance)


def _application_faults(repository: Repository, instance: Instance) -> Iterator[Finding]:
    yield from _sets(repository, instance)
    yield from _same_names(repository, instance)
    yield from _unread(repository, instance)
    own, taken, platforms = repository_url(repository), instance.taken(), _platforms(instance)
    found = {_name(item) for folder, item in _applications(repository, instance) if folder == instance.folder}
    # Those of the cluster in which all began may be applied otherwise, as `make cluster` does.
    for name in sorted(taken.keys() - found - ({"root", "platform"} if instance.cluster == IN_CLUSTER else set())):
        yield Finding("applications", instance.folder, f"no Application {name}, so that nothing takes {taken[name][0]};"
                      f" `{_remake(taken[name][0])}` writes it", (instance.folder,))  # fmt: skip
    for folder, item in _applications(repository, instance):
        if folder in platforms:
            yield from _addon_faults(instance, folder, platforms[folder], item)
        elif _name(item) in taken:
            path, destination = taken[_name(item)]
            source = {"repoURL": own, "targetRevision": publish.BRANCH, "path": path}
            wanted = {"project": "platform", "source": source, "destination": destination}
            yield from _unlike(folder, item, {(field,): value for field, value in wanted.items()})
        else:
            yield finding("applications", folder, item, f"metadata.name: none of {', '.join(taken)}; add-ons are in"
                          f" {PLATFORM}/addons/, and apps in overlays/")  # fmt: skip
        yield from _sync_faults(folder, item)


def _remake(folder: str) -> str:
    """What writes the folders and Applications of a cluster that are missing."""
    return f"python scripts/cluster.py add {folder.split('/')[2]}"


_READ = ("Application", "ApplicationSet", "AppProject")


def _unread(repository: Repository, instance: Instance) -> Iterator[Finding]:
    """Objects of Argo CD where it does not look: in another namespace, or on a cluster where there is none."""
    for folder in (instance.folder, *_platforms(instance)):
        for item in repository.renders.get(folder, []):
            if item.get("kind") not in _READ:
                continue
            if folder in map(layout.platform, instance.served):
                yield finding("applications", folder, item, "kind: there is no Argo CD on this cluster, so that nothing"
                              f" reads it; move it to {layout.addons(folder.split('/')[2])}")  # fmt: skip
            elif item["kind"] != "ApplicationSet" and (space := identity(item).namespace) != NAMESPACE:
                yield finding("applications", folder, item, f"metadata.namespace: {space!r}: Argo CD reads those in"
                              f" {NAMESPACE} alone; write {NAMESPACE}")  # fmt: skip


def _addon_faults(instance: Instance, folder: str, cluster: str, item: Object) -> Iterator[Finding]:
    """An add-on is somebody else's, at one version, on the cluster of its folder, and has the rights of add-ons. Where
    one Argo CD keeps those of several clusters, its objects are called the same on each."""
    yield from _unlike(folder, item, {("project",): "addons"})
    if not re.fullmatch(_VERSION, str(revision := at(item, "spec", "source", "targetRevision"))):
        yield finding("applications", folder, item, f"spec.source.targetRevision: {json.dumps(revision)}: not"
                      " one exact version, such as 1.2.3; what is not ours would change by itself")  # fmt: skip
    goal = mapping(at(item, "spec", "destination"))
    # What is no cluster of this Argo CD is refused by the rule of projects.
    if _reached(instance, goal) not in (cluster, None):
        wanted = instance.destination(cluster) | {"namespace": goal.get("namespace")}
        yield from _unlike(folder, item, {("destination",): wanted})
    if cluster in instance.served:
        own = _name(item).removesuffix(f"-{cluster}")
        if own == _name(item):
            yield finding("applications", folder, item, f"metadata.name: without the cluster's; write {own}-{cluster}")
        elif at(item, "spec", "source", "chart") is not None:
            yield from _unlike(folder, item, {("source", "helm", "releaseName"): own})


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


def _sets(repository: Repository, instance: Instance) -> Iterator[Finding]:
    """The ApplicationSets that are not those of the environments, as the engine has them."""
    own, policy = repository_url(repository), repository.policy
    names = instance.environments(policy)
    sets = [item for name in names for item in applications.application_sets(policy, name, own)]
    wanted = {identity(item): item for item in sets}
    found = {
        identity(item): (folder, item)
        for folder in (instance.folder, *_platforms(instance))
        for item in repository.renders.get(folder, [])
        if item.get("kind") == "ApplicationSet"
    }
    for what in sorted(wanted.keys() - found.keys()):
        yield Finding("applications", instance.folder, f"no {what}; write it as {_template(what)} has it",
                      (instance.folder,))  # fmt: skip
    for what, (folder, item) in found.items():
        if what not in wanted or folder != instance.folder:
            yield finding("applications", folder, item, "an ApplicationSet of no environment; the only ones are"
                          f" {', '.join(_name(item) for item in sets)}, in {instance.folder}; remove it")  # fmt: skip
            continue
        expected = applications.with_paths_of(item, wanted[what])
        differing = differences([expected], [item])
        if item != expected and not differing:
            yield finding("applications", folder, item, f"of another form than {_template(what)}; write it as that has"
                          " it")  # fmt: skip
        for other in differing:
            yield finding("applications", folder, item, f"{other.path}: {_json(other.after)}; write"
                          f" {_json(other.before)}, as {_template(what)} has it")  # fmt: skip


def _template(what: Identity) -> str:
    """What the engine makes an ApplicationSet of."""
    file = applications.TEMPLATES[what.name.partition("-")[0]]
    return f"scripts/gitops/repo/{file.name}"


def _same_names(repository: Repository, instance: Instance) -> Iterator[Finding]:
    """Applications of one name: the second one's controller would take over, or never get, what the first one keeps."""
    seen: dict[str, str] = {}
    for folder, item in _applications(repository, instance):
        if (first := seen.setdefault(_name(item), folder)) != folder:
            yield finding("applications", folder, item, f"metadata.name: that of an Application of {first} too; give"
                          " one of them another name", first)  # fmt: skip
    others = set(repository.policy.environments).difference(instance.environments(repository.policy))
    for folder in (folder for folder, environment, _, _ in repository.all_overlays() if environment not in others):
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
_SETTINGS = f"{PLATFORM}/argo-cd/argocd-cm.yaml"


def check_settings(repository: Repository) -> Iterator[Finding]:
    """No setting of Argo CD, in its ConfigMaps or in what its add-on makes of them, changes what it renders."""
    file = repository.root / _SETTINGS
    texts = [(_SETTINGS, PLATFORM, file.read_text(errors="replace"))] if file.is_file() else []
    for folder, items in repository.of_argocd():
        for item in items:
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

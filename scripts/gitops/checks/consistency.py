"""What every manifest of this repository must satisfy beyond its schema. One function a rule, one finding a fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gitops.checks import framework, paths
from gitops.checks.framework import Finding, Repository, Rule
from gitops.manifests import workloads
from gitops.manifests.objects import KUSTOMIZATION, Identity, Object, at, identity, leaves, mapping
from gitops.models import signing
from gitops.releases import effect, release, release_file, withdrawn, writing
from gitops.repo import layout
from gitops.repo.layout import PLATFORM
from gitops.repo.policy import IN_CLUSTER, POLICY_FILE, Policy
from gitops.repo.snapshot import Snapshot

from contract import signature
from contract.errors import Refused
from contract.uri import parse_uri


def check_identity(repository: Repository) -> Iterator[Finding]:
    """No two renders may hold the same object of one cluster: Argo CD would let two Applications fight over it."""
    seen: dict[tuple[str, Identity], str] = {}
    for folder, items in repository.renders.items():
        cluster = repository.cluster_of(folder)
        for item in items:
            first = seen.setdefault((cluster, identity(item)), folder)
            if first != folder:
                message = f"rendered by {first} too; give one of them another name"
                yield framework.finding("identity", folder, item, message, first)


def check_namespace(repository: Repository) -> Iterator[Finding]:
    """Everything of an environment is in its namespace; the only cluster-scoped object is that namespace."""
    for folder, environment, app, items in repository.overlays():
        expected = repository.policy.namespace(environment)
        for item in items:
            if item.get("kind") == "Namespace":
                if app != "environment" or at(item, "metadata", "name") != expected:
                    message = (
                        f"metadata.name: only overlays/{environment}/environment has a Namespace, named {expected}"
                    )
                    yield framework.finding("namespace", folder, item, message)
                continue
            found = at(item, "metadata", "namespace")
            if found is None:
                message = (
                    f"metadata.namespace: missing; write `namespace: {expected}` in {folder}/{KUSTOMIZATION},"
                    " and take out what belongs to no namespace: an environment has nothing but its own"
                )
                yield framework.finding("namespace", folder, item, message)
            elif found != expected:
                message = f"metadata.namespace: {found!r}; write `namespace: {expected}` in {folder}/{KUSTOMIZATION}"
                yield framework.finding("namespace", folder, item, message)


def check_workloads(repository: Repository) -> Iterator[Finding]:
    """Whatever runs containers or names a model is of a kind that the rules look into, and a model is served only by
    a kind for which there are releases."""
    for folder, items in repository.folders():
        for item in items:
            for path in workloads.unclaimed(item):
                message = (
                    f"{path}: no rule looks there, so nobody would check what it runs; use a kind that is known,"
                    " or add this one to scripts/gitops/manifests/workloads.py"
                )
                yield framework.finding("workloads", folder, item, message)
    for folder, _, _, items in repository.overlays():
        for item in items:
            for path in _models_without_release(item):
                message = f"{path}: has no release; write a Deployment, a StatefulSet, a CronJob or an InferenceService"
                yield framework.finding("workloads", folder, item, message)
            for container in workloads.containers(item):
                for name, count in Counter(name for name, _ in container.variables).items():
                    if count > 1:
                        message = (
                            f"{container.path}.env[{name}]: stands {count} times, and the last one wins; write it once"
                        )
                        yield framework.finding("workloads", folder, item, message)


def _models_without_release(item: Object) -> list[str]:
    """Where an object of a kind for which there are no releases names a model, or takes its name from elsewhere."""
    if workloads.released(item):
        return []
    told = [
        container.place(name)
        for container in workloads.containers(item)
        for name in dict(container.variables)
        if name in (workloads.MODEL_URI, workloads.MODEL_DIGEST)
    ]
    return [*dict.fromkeys([*workloads.models(item), *told])]


def _without_form(item: Object) -> dict[str, Any]:
    """The models of an object, by path, if it is of a kind for which there are no releases."""
    return {} if workloads.released(item) else workloads.models(item)


def check_model_form(repository: Repository) -> Iterator[Finding]:
    """Only `predictor.model` with one storageUri: KServe rewrites the framework forms when an object is created, and
    a later change of them never reaches the running model under server-side apply."""
    for folder, _, _, items in repository.overlays():
        for item in items:
            if not workloads.is_inference_service(item):
                continue
            for path, predictor in workloads.components(item):
                for name in workloads.FRAMEWORKS:
                    if at(predictor, name) is not None:
                        instead = f"write {path}.model with modelFormat.name: {name}"
                        if path.endswith(("transformer", "explainer")):
                            instead = f"write {path}.containers"
                        message = (
                            f"{path}.{name}: {instead}; a later change of this form never reaches the running model"
                        )
                        yield framework.finding("model-form", folder, item, message)
                if not path.endswith(("transformer", "explainer")) and _without_model(predictor):
                    message = (
                        f"{path}.model: missing: no release names what this predictor serves, and the cluster refuses"
                        f" it; write {path}.model with one storageUri, or make the server a Deployment"
                    )
                    yield framework.finding("model-form", folder, item, message)
                for field in (("storageUris",), ("model", "storage")):
                    if at(predictor, *field) is not None:
                        message = f"{path}.{'.'.join(field)}: write the one model into {path}.model.storageUri"
                        yield framework.finding("model-form", folder, item, message)


def _without_model(predictor: Any) -> bool:
    """Whether a predictor has no model in any form, so that its own containers are all that it is."""
    return isinstance(predictor, dict) and not any(predictor.get(name) for name in ("model", *workloads.FRAMEWORKS))


def check_release(repository: Repository) -> Iterator[Finding]:
    """A workload names an immutable version in the model bucket, the same one in all its fields, which is
    that of the one release file of its overlay."""
    formless = {folder for found in check_model_form(repository) for folder in found.folders}
    for folder, environment, app, items in repository.overlays():
        faults = [
            framework.finding("release", folder, item, f"{field}: {message}")
            for item in items
            if workloads.released(item)
            for field, message in _release_faults(item, repository.policy)
        ]
        yield from faults
        if not faults and folder not in formless:
            found = [*_file_faults(repository.root, app, environment, items)]
            found = found or [*_copy_faults(repository.root, app, environment, items)]
            yield from (Finding("release", where, message, (folder,)) for where, message in found)
    for link in sorted(path for path in repository.files.links if path.startswith("overlays")):
        message = (
            "a symbolic link; put a file in its place, history has what a release file is and not what it leads to"
        )
        yield Finding("release", link, message)
    for folder, rendered in repository.of_argocd():
        for item, path, fault in effect.unnamed(rendered, ()):
            yield framework.finding("release", folder, item, f"{path}: {fault}")


_FIRST = "before the first release; write {}, bump_model.py sets it"


def _release_faults(item: Object, policy: Policy) -> Iterator[tuple[str, str]]:
    """Faults of what most callers get, and of each canary, whose release is in its predictor's annotations."""
    model = at(item, "metadata", "labels", release.MODEL_LABEL)
    flavour = at(item, "metadata", "annotations", release.FLAVOUR_ANNOTATION)
    stable = {path: value for path, value in leaves(item).items() if not path.startswith("spec.canary[")}
    parts = {"metadata": stable} | {path: leaves(predictor, path) for path, predictor in workloads.canaries(item)}
    declared = {
        f"metadata.labels.{release.MODEL_LABEL}": (model, "the app declares which model it serves"),
        f"metadata.annotations.{release.FLAVOUR_ANNOTATION}": (flavour, "the app declares which flavour it serves"),
    }
    for path, fields in parts.items():
        for name in ("version", "digest"):
            field = f"{path}.annotations.{release.ANNOTATION}{name}"
            declared[field] = fields.get(field), "a release file has this field"
    missing = {field: why for field, (value, why) in declared.items() if not value}
    yield from ((field, f"missing; {why}") for field, why in missing.items())
    if missing:
        return
    for path, fields in parts.items():
        yield from _part_faults(path, fields, model, flavour, policy)
    released = {path: fields[f"{path}.annotations.{release.ANNOTATION}version"] for path, fields in parts.items()}
    for path in released if released["metadata"] != release.UNRELEASED else ():
        if released[path] == release.UNRELEASED:
            why = "beside a release: KServe would start it; start from the release's own values"
            yield f"{path}.annotations.{release.ANNOTATION}version", f"{release.UNRELEASED!r} {why}"


def _part_faults(
    path: str, fields: Mapping[str, Any], model: str, flavour: str, policy: Policy
) -> Iterator[tuple[str, str]]:
    annotation = f"{path}.annotations.{release.ANNOTATION}"
    version, digest = fields[f"{annotation}version"], fields[f"{annotation}digest"]
    digests = {path: value for path, value in fields.items() if workloads.is_told(path, workloads.MODEL_DIGEST)}
    uris = {
        path: value
        for path, value in fields.items()
        if path.endswith("storageUri") or workloads.is_told(path, workloads.MODEL_URI)
    }
    if not uris:
        yield path if path != "metadata" else "spec", "names no model: neither a storageUri nor the variable MODEL_URI"
    for place in uris:
        beside = workloads.beside(place, workloads.MODEL_DIGEST)
        if beside != place and beside not in digests:
            yield beside, "missing; the service compares the model with it before it serves"
    if version == release.UNRELEASED:
        for place, value in uris.items():
            if value != release.UNRELEASED_URI:
                yield place, f"{value!r} {_FIRST.format(release.UNRELEASED_URI)}"
        if digest != release.UNRELEASED:
            yield f"{annotation}digest", f"{digest!r} {_FIRST.format(release.UNRELEASED)}"
    else:
        try:
            uri = parse_uri(f"s3://{policy.model_bucket}/models/{model}/{version}/").flavour(flavour)
        except Refused:
            why = "no version, which is YYYY-MM-DD-DIGEST12; only bump_model.py writes it"
            yield f"{annotation}version", f"{version!r}: {why}"
            return
        for place, value in uris.items():
            if value != uri:
                why = f"which {POLICY_FILE}, the app and the annotation of the version give"
                yield place, f"{value!r}: not {uri}, {why}; only bump_model.py writes it"
        if not release_file.SHA256.fullmatch(digest) or digest.removeprefix("sha256:")[:12] != version[-12:]:
            why = f"not the digest of version {version}; only bump_model.py writes either"
            yield f"{annotation}digest", f"{digest!r}: {why}"
        for place, value in fields.items():
            if release.unreleased(value) and place != f"{annotation}digest" and place not in digests:
                yield place, f"{value!r}, but the version is {version}; only bump_model.py writes either"
    yield from _manifest_faults(annotation, version, fields, uris)
    for place, value in digests.items():
        if value != digest:
            yield place, f"{value!r}: differs from the annotation {digest!r}; only bump_model.py writes either"


def _manifest_faults(
    annotation: str, version: str, fields: Mapping[str, Any], uris: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The SHA-256 of the manifest is in the annotation and in the variable, or, in the old form, in neither."""
    manifest = fields.get(f"{annotation}manifest")
    if manifest not in (None, release.UNRELEASED):
        if version == release.UNRELEASED:
            yield f"{annotation}manifest", f"{manifest!r} {_FIRST.format(release.UNRELEASED)}"
        elif not release_file.SHA256.fullmatch(str(manifest)):
            yield f"{annotation}manifest", f"{manifest!r}: not sha256: and 64 hex digits; only bump_model.py writes it"
    places = {workloads.beside(place, workloads.MODEL_MANIFEST) for place in uris} - uris.keys()
    places |= {place for place in fields if workloads.is_told(place, workloads.MODEL_MANIFEST)}
    for place in sorted(places):
        if (value := fields.get(place)) != manifest:
            found = "missing" if value is None else f"{value!r}"
            there = "there is no annotation" if manifest is None else f"the annotation is {manifest!r}"
            yield place, f"{found}, and {there}; only bump_model.py writes either"


def _file_faults(root: Path, app: str, environment: str, items: list[Object]) -> Iterator[tuple[str, str]]:
    """No other patch, and no `images:` of a kustomization beside the release file, changes what runs, and nothing in
    the render runs a model beside it."""
    show = Snapshot(root).read
    own, kustomization = layout.release_paths(app, environment)
    try:
        if show(own) is not None and release_file.keeps_images(show(kustomization) or b"", kustomization):
            yield kustomization, f"images: beside {own}, which names the image; an overlay has one of them"
        releases = release_file.read_all(show, app, environment)
        effects = [effect.of(item, show(item.file) or b"", items) for item in releases]
        for item, mine in zip(releases, effects, strict=True):
            yield from ((item.file, f"{path}: {fault}") for path, fault in mine.overridden(items))
        for found, path, fault in effect.unnamed(items, releases, effects):
            # What the rule of workloads refuses is refused as a whole.
            if path not in _without_form(found) and not any(workloads.unclaimed(found)):
                yield f"{layout.overlay(app, environment)}: {identity(found)}", f"{path}: {fault}"
    except Refused as refused:
        where, _, message = refused.lines[0].partition(": ")
        yield where, message


def _copy_faults(root: Path, app: str, environment: str, items: list[Object]) -> Iterator[tuple[str, str]]:
    """What a release could not be written for, because a value of it stands where it may not change."""
    show = Snapshot(root).read
    releases = release_file.read_all(show, app, environment)
    effects = [effect.of(item, show(item.file) or b"", items) for item in releases]
    rendered = {identity(item) for item in items}
    # What is in another namespace is a matter of the rule of namespaces.
    if not all(each.identity in rendered for each in effects) or not effect.copies(items, releases, effects):
        return
    try:
        writing.rehearse(root, app, environment)
    except Refused as refused:
        for line in refused.lines:
            where, _, message = line.partition(": ")
            yield where, message


# Signatures


def check_signing(repository: Repository) -> Iterator[Finding]:
    """The key that the policy names is there, and a service that asks for signatures asks for the same one's."""
    rule, field = "signing", "env MODEL_PUBLIC_KEY"
    try:
        signer = signing.asked(Snapshot(repository.root))
    except Refused as refused:
        where, _, message = refused.lines[0].partition(": ")
        yield Finding(rule, where, message)
        return
    wanted = f"{POLICY_FILE} asks for the signature of {signer}" if signer else f"{POLICY_FILE} asks for none"
    for folder, _, _, items in repository.overlays():
        for item in items:
            for text in workloads.variables(item, "MODEL_PUBLIC_KEY").values():
                try:
                    key = signature.public_key(text.encode(), field)
                except Refused as refused:
                    yield framework.finding(rule, folder, item, refused.lines[0])
                    continue
                if signer is None or signer.identifier != key.identifier:
                    message = f"{field}: it loads only what this key signed, and {wanted}; they have to agree"
                    yield framework.finding(rule, folder, item, message)


def check_withdrawn(repository: Repository) -> Iterator[Finding]:
    """The record of withdrawn versions is one, and every cluster gets it as it is."""
    try:
        entries = withdrawn.read(Snapshot(repository.root).read(layout.WITHDRAWN))
    except Refused as refused:
        where, _, message = refused.lines[0].partition(": ")
        yield Finding("withdrawn-record", where, message, (PLATFORM,))
        return
    named = Identity("", "ConfigMap", withdrawn.NAMESPACE, withdrawn.NAME)
    for cluster, folder, items in repository.clusters():
        found = [item for item in items if identity(item) == named]
        if [mapping(item.get("data")) for item in found] != [entries]:
            where = "" if cluster == IN_CLUSTER else f" by {folder}"
            lists = Path(layout.WITHDRAWN).with_name(KUSTOMIZATION)
            message = f"not rendered as it is{where}; {lists} lists it, and nothing else changes it"
            yield Finding("withdrawn-record", layout.WITHDRAWN, message, (folder,))


RULES: dict[str, Rule] = {
    "identity": check_identity,
    "namespace": check_namespace,
    "workloads": check_workloads,
    "model-form": check_model_form,
    "release": check_release,
    "paths": paths.check_paths,
    "generate-paths": paths.check_generate_paths,
    "signing": check_signing,
    "withdrawn-record": check_withdrawn,
}

"""What every manifest of this repository must satisfy beyond its schema. One function a rule, one finding a fault."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gitops import effect, kustomize, layout, release, signing, versions
from gitops.cli import Refused
from gitops.kustomize import Object
from gitops.layout import Policy

ARGOCD, PLATFORM = "argocd", "argocd/platform"
_PATHS = ("metadata", "annotations", "argocd.argoproj.io/manifest-generate-paths")


@dataclass(frozen=True, order=True)
class Finding:
    """One fault: where it is, what it is, and what to do about it."""

    rule: str
    where: str
    message: str
    folders: tuple[str, ...] = ()
    """The renders a change of which can have brought it; none of them named: any change."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.rule}]"


@dataclass(frozen=True)
class Repository:
    """A checkout with its renders: the objects of everything that is rendered, by folder."""

    root: Path
    policy: Policy
    renders: dict[str, list[Object]]

    def overlays(self) -> Iterator[tuple[str, str, str, list[Object]]]:
        """(folder, environment, app, objects) of every overlay."""
        for folder, items in self.renders.items():
            if folder not in (ARGOCD, PLATFORM):
                _, environment, app = folder.split("/")
                yield folder, environment, app, items


def folders(root: Path, policy: Policy) -> list[str]:
    """Every folder that is rendered."""
    return [*layout.overlays(root, policy), ARGOCD, PLATFORM]


def finding(rule: str, folder: str, item: Object, message: str, *others: str) -> Finding:
    return Finding(rule, f"{folder}: {kustomize.identity(item)}", message, (folder, *others))


def at(value: Any, *keys: str) -> Any:
    """The value below these keys, or None: schemas are checked elsewhere, so any of them may be anything here."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def check_identity(repository: Repository) -> Iterator[Finding]:
    """No two renders may hold the same object: Argo CD would let two Applications fight over it."""
    seen: dict[kustomize.Identity, str] = {}
    for folder, items in repository.renders.items():
        for item in items:
            first = seen.setdefault(kustomize.identity(item), folder)
            if first != folder:
                message = f"rendered by {first} too; give one of them another name"
                yield finding("identity", folder, item, message, first)


def check_namespace(repository: Repository) -> Iterator[Finding]:
    """Everything of an environment is in its namespace; the only cluster-scoped object is that namespace."""
    for folder, environment, app, items in repository.overlays():
        expected = layout.namespace(environment)
        for item in items:
            if item.get("kind") == "Namespace":
                if app != "environment" or at(item, "metadata", "name") != expected:
                    message = (
                        f"metadata.name: only overlays/{environment}/environment has a Namespace, named {expected}"
                    )
                    yield finding("namespace", folder, item, message)
                continue
            found = at(item, "metadata", "namespace")
            if found is None:
                message = (
                    f"metadata.namespace: missing; write `namespace: {expected}` in {folder}/{kustomize.FILE},"
                    " and take out what belongs to no namespace: an environment has nothing but its own"
                )
                yield finding("namespace", folder, item, message)
            elif found != expected:
                message = f"metadata.namespace: {found!r}; write `namespace: {expected}` in {folder}/{kustomize.FILE}"
                yield finding("namespace", folder, item, message)


# The fields of a predictor that KServe has for single frameworks.
FRAMEWORKS = (
    "huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn", "tensorflow", "triton", "xgboost",
)  # fmt: skip


def check_model_form(repository: Repository) -> Iterator[Finding]:
    """Only `predictor.model` with one storageUri: KServe rewrites the framework forms when an object is created, and
    a later change of them never reaches the running model under server-side apply."""
    for folder, _, _, items in repository.overlays():
        for item in items:
            if item.get("kind") != "InferenceService":
                continue
            for path, predictor in [("spec.predictor", at(item, "spec", "predictor")), *canaries(item)]:
                for name in FRAMEWORKS:
                    if at(predictor, name) is not None:
                        message = (
                            f"{path}.{name}: write {path}.model with modelFormat.name: {name};"
                            " a later change of this form never reaches the running model"
                        )
                        yield finding("model-form", folder, item, message)
                for field in (("storageUris",), ("model", "storage")):
                    if at(predictor, *field) is not None:
                        message = f"{path}.{'.'.join(field)}: write the one model into {path}.model.storageUri"
                        yield finding("model-form", folder, item, message)


def check_release(repository: Repository) -> Iterator[Finding]:
    """A workload names an immutable version in the model bucket, and says the same thing in all its fields, which is
    what the one release file of its overlay says."""
    formless = {folder for found in check_model_form(repository) for folder in found.folders}
    for folder, environment, app, items in repository.overlays():
        faults = [
            finding("release", folder, item, f"{field}: {message}")
            for item in items
            if item.get("kind") in (*release.PODS, "InferenceService")
            for field, message in _release_faults(item, repository.policy)
        ]
        yield from faults
        if not faults and folder not in formless:
            for where, message in _file_faults(repository.root, app, environment, items):
                yield Finding("release", where, message, (folder,))


_FIRST = "before the first release; write {}, bump_model.py sets it"
_SHA256 = re.compile("sha256:[0-9a-f]{64}")


def canaries(item: Object) -> list[tuple[str, Any]]:
    """(path, predictor) of every canary of an InferenceService."""
    entries = listed(at(item, "spec", "canary"))
    return [(f"spec.canary[{at(entry, 'predictor', 'name')}].predictor", at(entry, "predictor")) for entry in entries]


def _release_faults(item: Object, policy: Policy) -> Iterator[tuple[str, str]]:
    """Faults of what most callers get, and of each canary, which says in its predictor's annotations what it is."""
    model = at(item, "metadata", "labels", release.MODEL_LABEL)
    flavour = at(item, "metadata", "annotations", release.FLAVOUR_ANNOTATION)
    stable = {path: value for path, value in kustomize.leaves(item).items() if not path.startswith("spec.canary[")}
    parts = {"metadata": stable} | {path: kustomize.leaves(predictor, path) for path, predictor in canaries(item)}
    declared = {
        f"metadata.labels.{release.MODEL_LABEL}": (model, "the app declares which model it serves"),
        f"metadata.annotations.{release.FLAVOUR_ANNOTATION}": (flavour, "the app declares which flavour it serves"),
    }
    for path, fields in parts.items():
        for name in ("version", "digest"):
            field = f"{path}.annotations.{release.ANNOTATION}{name}"
            declared[field] = fields.get(field), "the release file says what the app runs"
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
    uris = {path: value for path, value in fields.items() if path.endswith(("storageUri", "env[MODEL_URI].value"))}
    digests = {path: value for path, value in fields.items() if path.endswith("env[MODEL_DIGEST].value")}
    if not uris:
        yield path if path != "metadata" else "spec", "names no model: neither a storageUri nor the variable MODEL_URI"
    for place in uris:
        beside = place.replace("env[MODEL_URI]", "env[MODEL_DIGEST]")
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
            uri = versions.parse_uri(f"s3://{policy.model_bucket}/models/{model}/{version}/").flavour(flavour)
        except Refused:
            why = "no version, which is YYYY-MM-DD-DIGEST12; only bump_model.py writes it"
            yield f"{annotation}version", f"{version!r}: {why}"
            return
        for place, value in uris.items():
            if value != uri:
                why = f"which {layout.POLICY_FILE}, the app and the annotation of the version give"
                yield place, f"{value!r}: not {uri}, {why}; only bump_model.py writes it"
        if not _SHA256.fullmatch(digest) or digest.removeprefix("sha256:")[:12] != version[-12:]:
            why = f"not the digest of version {version}; only bump_model.py writes either"
            yield f"{annotation}digest", f"{digest!r}: {why}"
        for place, value in fields.items():
            if release.unreleased(value) and place != f"{annotation}digest" and place not in digests:
                yield place, f"{value!r}, but the version is {version}; only bump_model.py writes either"
    for place, value in digests.items():
        if value != digest:
            yield place, f"{value!r}: differs from the annotation {digest!r}; only bump_model.py writes either"


def _file_faults(root: Path, app: str, environment: str, items: list[Object]) -> Iterator[tuple[str, str]]:
    """No other patch, and no `images:` of a kustomization beside the release file, has a say in what runs."""

    def show(path: str) -> bytes | None:
        return (root / path).read_bytes() if (root / path).is_file() else None

    own, kustomization = layout.release_paths(app, environment)
    try:
        if show(own) is not None and release.keeps_images(show(kustomization) or b"", kustomization):
            yield kustomization, f"images: beside {own}, which names the image; an overlay has one of them"
        for item in release.read_all(show, app, environment):
            for path, fault in effect.of(item, show(item.file) or b"", items).overridden(items):
                yield item.file, f"{path}: {fault}"
    except Refused as refused:
        where, _, message = refused.lines[0].partition(": ")
        yield where, message


# manifest-generate-paths: Argo CD renders an Application again only when a file below one of these paths changes.

_ACTION = re.compile(r"\{\{-?\s*(?:(?P<path>\.path\.path)|index \.path\.segments (?P<segment>[0-9]+))\s*-?\}\}")


def check_generate_paths(repository: Repository) -> Iterator[Finding]:
    """Argo CD renders just what is checked here, once, and again whenever a file changes that the render reads."""
    rule = "generate-paths"
    rendered: dict[str, str] = {}
    for item in repository.renders.get(ARGOCD, []):
        mine, written = str(kustomize.identity(item)), str(at(_application(item), *_PATHS) or "")
        missed: dict[str, list[str]] = {}
        for folder, origin in _folders(repository.root, item):
            if folder not in repository.renders:
                message = (
                    f"{mine} finds it, and nothing here renders it;"
                    f" it needs a {kustomize.FILE} and an environment of {layout.POLICY_FILE}"
                )
                yield Finding(rule, folder, message)
                continue
            if (other := rendered.setdefault(folder, mine)) != mine:
                yield finding(rule, ARGOCD, item, f"renders {folder}, and so does {other}; one has to go", folder)
            for parent in _uncovered(repository.root, folder, _expand(written, origin)) if written else ["all"]:
                missed.setdefault(parent, []).append(folder)
        for parent, folders in sorted(missed.items()):
            if written:
                what = f"{written!r} does not cover {parent}, read by {', '.join(folders)}; add it"
            else:
                what = "missing; without it every commit renders every Application again"
            yield finding(rule, ARGOCD, item, f"{'.'.join(_PATHS)}: {what}", *folders)
    for folder in repository.renders:
        if folder not in rendered and folder != PLATFORM:  # whose Application a control plane of one machine leaves out
            message = "no Application renders it; a generator in argocd/ has to match it, or the overlay has to go"
            yield Finding(rule, folder, message, (ARGOCD, folder))


def _uncovered(root: Path, folder: str, paths: str) -> list[str]:
    """The folders of the files that a render reads and the annotation leaves out."""
    covered = {_resolve(path.strip(), folder) for path in paths.split(";") if path.strip()}
    missed = {
        file
        for file in kustomize.closure(root, folder)
        if not any(place == "." or file == place or file.startswith(f"{place}/") for place in covered)
    }
    return sorted({str(Path(file).parent) for file in missed})


def _application(item: Object) -> Any:
    """What an object of argocd/ is or generates: an Application, or the template of many."""
    return at(item, "spec", "template") if item.get("kind") == "ApplicationSet" else item


def _folders(root: Path, item: Object) -> Iterator[tuple[str, str]]:
    """(folder that is rendered, folder that a generator found) for each Application that an object is or generates."""
    if item.get("kind") not in ("Application", "ApplicationSet"):
        return
    path = at(_application(item), "spec", "source", "path")
    if not isinstance(path, str):
        return  # of a chart, or of several sources
    if item["kind"] == "Application":
        yield path, path
    for generator in listed(at(item, "spec", "generators")):
        for folder in sorted(_found(root, generator)):
            yield _expand(path, folder), folder


def _found(root: Path, generator: Any) -> set[str]:
    """The folders that a generator finds by git: those of its files and its directories, less the excluded ones.

    What a selector leaves out for being unreleased is found all the same: it will be, with its first release.
    """
    expressions = listed(at(generator, "selector", "matchExpressions"))
    selected = [each for each in expressions if at(each, "values") != [release.UNRELEASED]]
    chosen: set[str] = set()
    excluded: set[str] = set()
    for field in ("files", "directories"):
        for entry in listed(at(generator, "git", field)):
            places = [place for place in matching(root, at(entry, "path")) if place.is_dir() != (field == "files")]
            if field == "files" and selected:
                places = [p for p in places if all(matches(each, parameters(p.read_bytes())) for each in selected)]
            folders = {os.path.relpath(place.parent if field == "files" else place, root) for place in places}
            (excluded if at(entry, "exclude") else chosen).update(folders)
    return chosen - excluded


def parameters(text: bytes) -> dict[str, str]:
    """What a generator of files makes of a file: its scalars by their keys and positions, joined by dots.

    Source: https://argo-cd.readthedocs.io/en/stable/operator-manual/applicationset/Generators-Git/
    """
    found: dict[str, str] = {}

    def add(value: Any, path: str) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if pairs is None:
            found[path] = str(value)
        for key, item in pairs or ():
            add(item, f"{path}.{key}" if path else str(key))

    try:
        add(yaml.safe_load(text), "")
    except yaml.YAMLError:
        return {}  # kustomize says so
    return found


def matches(expression: Any, labels: Mapping[str, Any]) -> bool:
    """Whether labels satisfy one of a selector's matchExpressions, as Kubernetes defines them."""
    key, values = str(at(expression, "key")), listed(at(expression, "values"))
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }.get(str(at(expression, "operator")), False)


def matching(root: Path, pattern: Any) -> list[Path]:
    try:
        return list(root.glob(str(pattern).strip("/")))
    except ValueError:
        return []  # no pattern, so it finds nothing


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _expand(template: str, folder: str) -> str:
    parts = folder.split("/")

    def value(match: re.Match[str]) -> str:
        if match["path"]:
            return folder
        return parts[int(match["segment"])] if int(match["segment"]) < len(parts) else match[0]

    return _ACTION.sub(value, template)


def _resolve(path: str, folder: str) -> str:
    """A path of the annotation relative to the repository: absolute ones start at its top, others at the folder."""
    return os.path.normpath(path.removeprefix("/") if path.startswith("/") else f"{folder}/{path}")


# Signatures


def check_signing(repository: Repository) -> Iterator[Finding]:
    """The key that the policy names is there, and a service that asks for signatures asks for the same one's."""

    def read(path: str) -> bytes | None:
        return (repository.root / path).read_bytes() if (repository.root / path).is_file() else None

    rule, field = "signing", "env MODEL_PUBLIC_KEY"
    try:
        signer = signing.asked(repository.policy, read)
    except Refused as refused:
        where, _, message = refused.lines[0].partition(": ")
        yield Finding(rule, where, message)
        return
    wanted = (
        f"{layout.POLICY_FILE} asks for the signature of {signer}" if signer else f"{layout.POLICY_FILE} asks for none"
    )
    for folder, _, _, items in repository.overlays():
        for item in items:
            for text in _public_keys(item):
                try:
                    key = signing.public_key(text.encode(), field)
                except Refused as refused:
                    yield finding(rule, folder, item, refused.lines[0])
                    continue
                if signer is None or signer.identifier != key.identifier:
                    message = f"{field}: it loads only what this key signed, and {wanted}; they have to agree"
                    yield finding(rule, folder, item, message)


def _public_keys(item: Object) -> Iterator[str]:
    pod = release.PODS.get(str(item.get("kind")), release.PODS["Deployment"])
    for container in listed(at(item, *pod, "containers")):
        for variable in listed(at(container, "env")):
            if at(variable, "name") == "MODEL_PUBLIC_KEY":
                yield str(at(variable, "value"))


Rule = Callable[[Repository], Iterator[Finding]]
RULES: dict[str, Rule] = {
    "identity": check_identity,
    "namespace": check_namespace,
    "model-form": check_model_form,
    "release": check_release,
    "generate-paths": check_generate_paths,
    "signing": check_signing,
}

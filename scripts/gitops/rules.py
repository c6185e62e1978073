"""What every manifest of this repository must satisfy beyond its schema. One function a rule, one finding a fault."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops import kustomize, layout, release, versions
from gitops.cli import Refused
from gitops.kustomize import Object
from gitops.layout import Policy

ARGOCD = "argocd"
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
    """A checkout with its renders: the objects of every overlay, and of argocd/, by folder."""

    root: Path
    policy: Policy
    renders: dict[str, list[Object]]

    def overlays(self) -> Iterator[tuple[str, str, str, list[Object]]]:
        """(folder, environment, app, objects) of every overlay."""
        for folder, items in self.renders.items():
            if folder != ARGOCD:
                _, environment, app = folder.split("/")
                yield folder, environment, app, items


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
            predictor = at(item, "spec", "predictor")
            for name in FRAMEWORKS:
                if at(predictor, name) is not None:
                    message = (
                        f"spec.predictor.{name}: write spec.predictor.model with modelFormat.name: {name};"
                        " a later change of this form never reaches the running model"
                    )
                    yield finding("model-form", folder, item, message)
            for path in (("storageUris",), ("model", "storage")):
                if at(predictor, *path) is not None:
                    message = (
                        f"spec.predictor.{'.'.join(path)}: write the one model into spec.predictor.model.storageUri"
                    )
                    yield finding("model-form", folder, item, message)


def check_release(repository: Repository) -> Iterator[Finding]:
    """A workload names an immutable version in the model bucket, and says the same thing in all its fields."""
    for folder, _, _, items in repository.overlays():
        for item in items:
            if item.get("kind") in ("Deployment", "InferenceService"):
                for field, message in _release_faults(item, repository.policy):
                    yield finding("release", folder, item, f"{field}: {message}")


_VERSION, _DIGEST = (f"metadata.annotations.{release.ANNOTATION}{name}" for name in ("version", "digest"))
_SHA256 = re.compile("sha256:[0-9a-f]{64}")


def _release_faults(item: Object, policy: Policy) -> Iterator[tuple[str, str]]:
    model = at(item, "metadata", "labels", release.MODEL_LABEL)
    annotations = at(item, "metadata", "annotations")
    flavour = at(annotations, release.FLAVOUR_ANNOTATION)
    version = at(annotations, f"{release.ANNOTATION}version")
    digest = at(annotations, f"{release.ANNOTATION}digest")
    declared = {
        f"metadata.labels.{release.MODEL_LABEL}": (model, "the app declares which model it serves"),
        f"metadata.annotations.{release.FLAVOUR_ANNOTATION}": (flavour, "the app declares which flavour it serves"),
        _VERSION: (version, "release.yaml says what the app runs"),
        _DIGEST: (digest, "release.yaml says what the app runs"),
    }
    missing = {field: why for field, (value, why) in declared.items() if not value}
    yield from ((field, f"missing; {why}") for field, why in missing.items())
    if missing:
        return
    fields = kustomize.leaves(item)
    uris = {path: value for path, value in fields.items() if path.endswith(("storageUri", "env[MODEL_URI].value"))}
    digests = {path: value for path, value in fields.items() if path.endswith("env[MODEL_DIGEST].value")}
    if not uris:
        yield "spec", "names no model: neither a storageUri nor the variable MODEL_URI"
    for path in uris:
        beside = path.replace("env[MODEL_URI]", "env[MODEL_DIGEST]")
        if beside != path and beside not in digests:
            yield beside, "missing; the service compares the model with it before it serves"
    if version == release.UNRELEASED:
        for path, value in uris.items():
            if value != release.UNRELEASED_URI:
                yield path, f"{value!r} before the first release; write {release.UNRELEASED_URI}, bump_model.py sets it"
        if digest != release.UNRELEASED:
            yield _DIGEST, f"{digest!r} before the first release; write {release.UNRELEASED}, bump_model.py sets it"
    else:
        try:
            uri = versions.parse_uri(f"s3://{policy.model_bucket}/models/{model}/{version}/").flavour(flavour)
        except Refused:
            yield _VERSION, f"{version!r}: no version, which is YYYY-MM-DD-DIGEST12; only bump_model.py writes it"
            return
        for path, value in uris.items():
            if value != uri:
                why = f"which {layout.POLICY_FILE}, the app and the annotation of the version give"
                yield path, f"{value!r}: not {uri}, {why}; only bump_model.py writes it"
        if not _SHA256.fullmatch(digest) or digest.removeprefix("sha256:")[:12] != version[-12:]:
            yield _DIGEST, f"{digest!r}: not the digest of version {version}; only bump_model.py writes either"
        for path, value in fields.items():
            if value == release.UNRELEASED and path != _DIGEST and path not in digests:
                yield path, f"{value!r}, but the version is {version}; only bump_model.py writes either"
    for path, value in digests.items():
        if value != digest:
            yield path, f"{value!r}: differs from the annotation {digest!r}; only bump_model.py writes either"


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
        if folder not in rendered:
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
        for folder in sorted(_found(root, at(generator, "git"))):
            yield _expand(path, folder), folder


def _found(root: Path, generator: Any) -> set[str]:
    """The folders that a git generator finds: those of its files and its directories, less the excluded ones."""
    chosen: set[str] = set()
    excluded: set[str] = set()
    for field in ("files", "directories"):
        for entry in listed(at(generator, field)):
            places = [place for place in matching(root, at(entry, "path")) if place.is_dir() != (field == "files")]
            folders = {os.path.relpath(place.parent if field == "files" else place, root) for place in places}
            (excluded if at(entry, "exclude") else chosen).update(folders)
    return chosen - excluded


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


Rule = Callable[[Repository], Iterator[Finding]]
RULES: dict[str, Rule] = {
    "identity": check_identity,
    "namespace": check_namespace,
    "model-form": check_model_form,
    "release": check_release,
    "generate-paths": check_generate_paths,
}

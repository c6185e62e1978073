"""What every manifest of this repository must satisfy beyond its schema. One function a rule, one finding a fault."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gitops import kustomize, layout, release, versions
from gitops.cli import Refused
from gitops.kustomize import Object
from gitops.layout import Policy

ARGOCD = "argocd"
PATHS_ANNOTATION = "argocd.argoproj.io/manifest-generate-paths"


@dataclass(frozen=True, order=True)
class Finding:
    """One fault: where it is, what it is, and what to do about it."""

    rule: str
    where: str
    message: str

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


def _finding(rule: str, folder: str, item: Object, message: str) -> Finding:
    return Finding(rule, f"{folder}: {kustomize.identity(item)}", message)


def check_identity(repository: Repository) -> Iterator[Finding]:
    """No two renders may hold the same object: Argo CD would let two Applications fight over it."""
    seen: dict[kustomize.Identity, str] = {}
    for folder, items in repository.renders.items():
        for item in items:
            first = seen.setdefault(kustomize.identity(item), folder)
            if first != folder:
                yield _finding("identity", folder, item, f"rendered by {first} too; give one of them another name")


def check_namespace(repository: Repository) -> Iterator[Finding]:
    """Everything of an environment is in its namespace; the only cluster-scoped object is that namespace."""
    for folder, environment, app, items in repository.overlays():
        expected = layout.namespace(environment)
        for item in items:
            if item.get("kind") == "Namespace":
                if app != "environment" or item["metadata"].get("name") != expected:
                    message = (
                        f"metadata.name: only overlays/{environment}/environment has a Namespace, named {expected}"
                    )
                    yield _finding("namespace", folder, item, message)
            elif (found := item["metadata"].get("namespace")) != expected:
                message = (
                    f"metadata.namespace: {found!r}; write `namespace: {expected}` in the overlay's kustomization.yaml"
                )
                yield _finding("namespace", folder, item, message)


def check_model_form(repository: Repository) -> Iterator[Finding]:
    """Only `predictor.model` with one storageUri: KServe rewrites the framework forms when an object is created, and
    a later change of them never reaches the running model under server-side apply."""
    for folder, _, _, items in repository.overlays():
        for item in items:
            if item.get("kind") != "InferenceService":
                continue
            predictor = (item.get("spec") or {}).get("predictor") or {}
            for name, part in predictor.items():
                if name == "storageUris":
                    message = "spec.predictor.storageUris: one model per service; write spec.predictor.model.storageUri"
                    yield _finding("model-form", folder, item, message)
                elif name != "model" and isinstance(part, dict) and part.keys() & {"storageUri", "protocolVersion"}:
                    message = (
                        f"spec.predictor.{name}: write spec.predictor.model with modelFormat.name: {name};"
                        " a later change of this form never reaches the running model"
                    )
                    yield _finding("model-form", folder, item, message)


def check_release(repository: Repository) -> Iterator[Finding]:
    """A workload names an immutable version in the model bucket, and says the same thing in all its fields."""
    for folder, _, _, items in repository.overlays():
        for item in items:
            annotations = item["metadata"].get("annotations") or {}
            if item.get("kind") in ("Deployment", "InferenceService"):
                for field, message in _release_faults(item, annotations, repository.policy):
                    yield _finding("release", folder, item, f"{field}: {message}")


def _release_faults(item: Object, annotations: dict[str, str], policy: Policy) -> Iterator[tuple[str, str]]:
    label, flavour = release.MODEL_LABEL, annotations.get(release.FLAVOUR_ANNOTATION)
    model = (item["metadata"].get("labels") or {}).get(label)
    version = annotations.get(f"{release.ANNOTATION}version")
    digest = annotations.get(f"{release.ANNOTATION}digest", "")
    for name, value in (
        (f"metadata.labels.{label}", model),
        (f"metadata.annotations.{release.FLAVOUR_ANNOTATION}", flavour),
    ):
        if not value:
            yield name, "missing; the app declares which model and which flavour it serves"
    if not version:
        yield f"metadata.annotations.{release.ANNOTATION}version", "missing; release.yaml says what the app runs"
        return
    fields = kustomize.leaves(item)
    uris = {path: value for path, value in fields.items() if path.endswith(("storageUri", "env[MODEL_URI].value"))}
    if not uris:
        yield "spec", "names no model: neither a storageUri nor the variable MODEL_URI"
    if version == release.UNRELEASED:
        for path, value in uris.items():
            if value != release.UNRELEASED_URI:
                yield path, f"{value!r} before the first release; write {release.UNRELEASED_URI}, bump_model.py sets it"
        return
    for path, value in uris.items():
        try:
            uri = versions.parse_uri(str(value).rstrip("/").rpartition("/")[0])
        except Refused:
            yield (
                path,
                f"{value!r}: not s3://{policy.model_bucket}/models/MODEL/VERSION/FLAVOUR/;"
                " only bump_model.py writes it",
            )
            continue
        if uri.bucket != policy.model_bucket:
            yield path, f"{value!r}: bucket {uri.bucket!r}; {layout.POLICY_FILE} names {policy.model_bucket!r}"
        if (uri.model, uri.flavour(str(flavour))) != (model, value):
            yield path, f"{value!r}: the app serves the flavour {flavour!r} of the model {model!r}"
        if uri.version != version:
            yield path, f"{value!r}: another version than the annotation's {version}; only bump_model.py writes either"
    if not version.endswith(f"-{digest.removeprefix('sha256:')[:12]}"):
        yield f"metadata.annotations.{release.ANNOTATION}digest", f"{digest!r} is not the digest of version {version}"
    for path, value in fields.items():
        if path.endswith("env[MODEL_DIGEST].value") and value != digest:
            yield path, f"{value!r} differs from the annotation {digest!r}; only bump_model.py writes either"


# manifest-generate-paths: Argo CD renders an Application again only when a file below one of these paths changes.

_ACTION = re.compile(r"\{\{-?\s*(?:(?P<path>\.path\.path)|index \.path\.segments (?P<segment>[0-9]+))\s*-?\}\}")


def check_generate_paths(repository: Repository) -> Iterator[Finding]:
    """Every folder that Argo CD renders has a manifest-generate-paths that covers every file the render reads."""
    covered: dict[str, tuple[str, Object, str]] = {}
    for item in repository.renders.get(ARGOCD, []):
        for folder, template in _applications(repository, item):
            paths = (template.get("metadata", {}).get("annotations") or {}).get(PATHS_ANNOTATION, "")
            covered[folder] = (_expand(paths, folder), item, paths)
    for folder in repository.renders:
        if folder not in covered:
            message = "no Application renders it; a generator in argocd/ has to match it, or the overlay has to go"
            yield Finding("generate-paths", folder, message)
            continue
        paths, item, written = covered[folder]
        roots = {_resolve(path, folder) for path in paths.split(";") if path}
        files = kustomize.closure(repository.root, folder)
        missed = {f for f in files if not any(f == root or f.startswith(f"{root}/") for root in roots)}
        for parent in sorted({str(Path(file).parent) for file in missed}):
            message = f"{PATHS_ANNOTATION}: {written!r} does not cover {parent}, which {folder} reads; add it"
            yield _finding("generate-paths", ARGOCD, item, message)


def _applications(repository: Repository, item: Object) -> Iterator[tuple[str, Object]]:
    """(folder, Application) for each Application that an object of argocd/ is or would generate."""
    if item.get("kind") == "Application":
        yield item["spec"]["source"]["path"], item
    if item.get("kind") == "ApplicationSet":
        for generator in item["spec"].get("generators", []):
            git = generator.get("git") or {}
            patterns = [f"{d['path']}/{kustomize.FILE}" for d in git.get("directories", [])]
            patterns += [f["path"] for f in git.get("files", [])]
            for folder in repository.renders:
                if any(_matches(repository.root, folder, pattern) for pattern in patterns):
                    yield folder, item["spec"]["template"]


def _matches(root: Path, folder: str, pattern: str) -> bool:
    """Whether a generator's pattern finds its file in this folder; `*` stands for one path segment."""
    parent, _, name = pattern.rpartition("/")
    parts, wanted = folder.split("/"), parent.split("/")
    same = len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
    return same and (root / folder / name).is_file()


def _expand(template: str, folder: str) -> str:
    def value(match: re.Match[str]) -> str:
        return folder if match["path"] else folder.split("/")[int(match["segment"])]

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


def check(repository: Repository) -> list[Finding]:
    """The findings of every rule."""
    return [finding for rule in RULES.values() for finding in rule(repository)]

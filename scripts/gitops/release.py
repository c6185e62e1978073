"""Releases: what `release.yaml` says, and how a command writes one.

A release file is a patch of a Deployment, of a CronJob or of an InferenceService. An InferenceService may have
canaries, and each of them is a release of its own in the same file. An overlay without that file can keep its release
in what its kustomization says of images; the model is then in annotations, which `replacements` carry to the
environment of the container.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from gitops import layout, yamledit
from gitops.cli import Refused
from gitops.git import Git
from gitops.layout import Policy
from gitops.versions import Manifest
from gitops.yamledit import Named, Path

UNRELEASED = "unreleased"
UNRELEASED_URI = f"s3://{UNRELEASED}/"
ANNOTATION = "model.mlops/"
MODEL_LABEL, FLAVOUR_ANNOTATION = f"{ANNOTATION}model", f"{ANNOTATION}flavour"
# Where the kinds that run a container of our own have their pod.
PODS: dict[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}
_LINEAGE = ("version", "digest", "code-commit", "data-digest", "mlflow-run")
_IMAGE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9.-]*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+)"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64})|:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))"
)


@dataclass(frozen=True)
class Target:
    """What a release is for: an app in an environment, or one of its canaries there."""

    app: str
    environment: str
    canary: str | None = None

    def __str__(self) -> str:
        return f"{self.app} in {self.environment}{f', canary {self.canary}' if self.canary else ''}"


@dataclass(frozen=True)
class Release:
    """What one target runs. `image` is None for apps whose model server is not chosen by releases."""

    app: str
    environment: str
    version: str
    digest: str
    code_commit: str
    data_digest: str
    mlflow_run: str
    uri: str
    image: str | None
    canary: str | None = None
    file: str = field(default="", compare=False)
    """Where it says so."""

    @property
    def target(self) -> Target:
        return Target(self.app, self.environment, self.canary)

    @property
    def released(self) -> bool:
        return self.version != UNRELEASED

    def same_as(self, other: Release) -> bool:
        """Whether both run the same model version with the same image, wherever."""
        return replace(self, environment=other.environment, canary=other.canary) == other

    def trailers(self) -> list[str]:
        """The lines of a commit message that trace this release."""
        return [
            f"Release: {self.app} {self.environment}",
            *([f"Canary: {self.canary}"] if self.canary else []),
            f"Model-Version: {self.version}",
            f"Model-Digest: {self.digest}",
            f"Code-Commit: {self.code_commit}",
            f"Data-Digest: {self.data_digest}",
            f"MLflow-Run: {self.mlflow_run}",
            *([f"Image: {self.image}"] if self.image else []),
        ]


@dataclass(frozen=True)
class Form:
    """Where a file, or a rendered object, keeps the fields of a release."""

    lineage: Path
    """Where the annotations are."""
    uri: Path
    digest: Path | None = None
    image: tuple[Path, ...] = ()
    """The image as one value, or its name and what follows `joint`."""
    joint: str = ""

    def annotation(self, name: str) -> Path:
        return (*self.lineage, f"{ANNOTATION}{name}")

    def values(self, release: Release, file: str) -> dict[Path, str]:
        """The fields that a release owns, and their values in this one. Raises Refused for an image that this form
        cannot name."""
        lineage = (release.version, release.digest, release.code_commit, release.data_digest, release.mlflow_run)
        found = dict(zip(map(self.annotation, _LINEAGE), lineage, strict=True)) | {self.uri: release.uri}
        if self.digest:
            found[self.digest] = release.digest
        if self.image and release.image:
            found |= dict(zip(self.image, self._parts(release.image, file), strict=True))
        return found

    def _parts(self, image: str, file: str) -> list[str]:
        if len(self.image) == 1:
            return [image]
        match = _IMAGE.fullmatch(image)
        parts = [match["name"], match["digest" if self.joint == "@" else "tag"]] if match else []
        if not parts or not all(parts):
            has, wants = ("digest", "newTag") if self.joint == "@" else ("newTag", "digest")
            raise Refused(
                f"{file}: {yamledit.show(self.image[-1])}: {image} cannot be written as a {has}; name the image so,"
                f" or put `{wants}` in the place of `{has}`"
            )
        return parts


def form(data: Any, file: str, canary: str | None = None) -> Form:
    """The form of a release file that holds this data, or of a rendered object.

    Raises Refused for kinds and shapes that commands do not write, and for a canary that is not there.
    """
    data = _mapping(data)
    kind, spec = data.get("kind"), _mapping(data.get("spec"))
    annotations = ("metadata", "annotations")
    if kind == "InferenceService":
        return _model(spec, file, canary, annotations)
    if canary:
        raise Refused(f"{file}: kind: {kind!r}: no canary {canary!r}; only an InferenceService has canaries")
    if isinstance(kind, str) and kind in PODS:
        container: Path = (*PODS[kind], "containers", Named(_container(data, PODS[kind], file)))
        variables = (*container, "env")
        return Form(
            annotations,
            uri=(*variables, Named("MODEL_URI"), "value"),
            digest=(*variables, Named("MODEL_DIGEST"), "value"),
            image=((*container, "image"),),
        )
    if kind == "Kustomization":
        return _images(data, file)
    raise Refused(f"{file}: kind: {kind!r}: a release is written for a Deployment, a CronJob or an InferenceService")


def _model(spec: Mapping[str, Any], file: str, canary: str | None, annotations: Path) -> Form:
    predictor = _mapping(spec.get("predictor"))
    path: Path = ("spec", "predictor")
    if canary:
        entries = _canaries(spec)
        if canary not in entries:
            known = f"the canaries are {', '.join(entries)}" if entries else "there is none"
            raise Refused(
                f"{file}: spec.canary: no entry whose predictor.name is {canary!r}; {known}, a pull request adds one"
            )
        predictor = entries[canary]
        path = ("spec", "canary", Named(canary, ("predictor", "name")), "predictor")
        annotations = (*path, "annotations")
    for name, part in predictor.items():
        if name != "model" and isinstance(part, dict) and "storageUri" in part:
            raise Refused(
                f"{file}: {yamledit.show(path)}.{name}.storageUri: a change of it never reaches the running model under"
                f" server-side apply; write {yamledit.show(path)}.model.storageUri and"
                f" {yamledit.show(path)}.model.modelFormat.name: {name}"
            )
        if name == "storageUris":
            raise Refused(
                f"{file}: {yamledit.show(path)}.storageUris: one model per release;"
                f" write {yamledit.show(path)}.model.storageUri"
            )
    return Form(annotations, uri=(*path, "model", "storageUri"))


def _canaries(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The predictors of the canaries, by name."""
    predictors = [_mapping(item.get("predictor")) for item in _mappings(spec.get("canary"))]
    return {str(predictor.get("name")): predictor for predictor in predictors}


def _images(data: Mapping[str, Any], file: str) -> Form:
    entries = _mappings(data.get("images"))
    if len(entries) != 1:
        raise Refused(
            f"{file}: images: {len(entries)} entries; without a {layout.RELEASE_FILE} beside it, it has exactly one,"
            " the image of the app"
        )
    entry: Path = ("images", Named(str(entries[0].get("name"))))
    given = [name for name in ("newTag", "digest") if name in entries[0]]
    if len(given) != 1:
        raise Refused(f"{file}: {yamledit.show(entry)}: needs `digest` or `newTag`, and not both")
    return Form(
        ("commonAnnotations",),
        uri=("commonAnnotations", f"{ANNOTATION}uri"),
        image=((*entry, "newName"), (*entry, given[0])),
        joint="@" if given == ["digest"] else ":",
    )


def _container(data: Mapping[str, Any], path: Sequence[str], file: str) -> str:
    pod = data
    for key in path:
        pod = _mapping(pod.get(key))
    names = [
        str(container.get("name"))
        for container in _mappings(pod.get("containers"))
        if any(variable.get("name") == "MODEL_URI" for variable in _mappings(container.get("env")))
    ]
    if len(names) != 1:
        raise Refused(
            f"{file}: {'.'.join(path)}.containers: {len(names)} containers with the variable MODEL_URI;"
            " a release sets it in exactly one"
        )
    return names[0]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def unreleased(value: Any) -> bool:
    """Whether a field still says so; in the place of an image's tag or digest as well."""
    return value == UNRELEASED or (isinstance(value, str) and value.endswith((f":{UNRELEASED}", f"@{UNRELEASED}")))


# Reading and writing


def find(show: Callable[[str], bytes | None], app: str, environment: str) -> tuple[str, bytes] | None:
    """The release file of an app in an environment, as (path, bytes); `show` gives the bytes of a path, if any.

    None where the overlay has none: no `release.yaml`, and no `images:` in its kustomization.
    """
    own, kustomization = layout.release_paths(app, environment)
    if (text := show(own)) is not None:
        return own, text
    text = show(kustomization)
    return (kustomization, text) if text is not None and keeps_images(text, kustomization) else None


def keeps_images(text: bytes, kustomization: str) -> bool:
    """Whether a kustomization, where no other file is, is the release file."""
    return "images" in _mapping(yamledit.load(text, kustomization))


def read(text: bytes, target: Target, file: str) -> Release:
    """Raises Refused when a field of the release is missing, or the canary is not there."""
    where = form(yamledit.load(text, file), file, target.canary)

    def value(path: Path) -> str:
        found = yamledit.get(text, path, file)
        if not found:
            raise Refused(f"{file}: {yamledit.show(path)}: missing; a release has this field")
        return found

    version, digest, code, data, run = (value(where.annotation(name)) for name in _LINEAGE)
    parts = [value(path) for path in where.image]
    image = UNRELEASED if UNRELEASED in parts else where.joint.join(parts) or None
    if where.digest and value(where.digest) != digest:
        raise Refused(
            f"{file}: {yamledit.show(where.digest)}: {value(where.digest)} differs from the annotation {digest}"
        )
    return Release(
        target.app, target.environment, version, digest, code, data, run, value(where.uri), image, target.canary, file
    )


def read_all(show: Callable[[str], bytes | None], app: str, environment: str) -> list[Release]:
    """The release of the app and those of its canaries; none where the overlay has no release file."""
    if not (found := find(show, app, environment)):
        return []
    file, text = found
    spec = _mapping(_mapping(yamledit.load(text, file)).get("spec"))
    return [read(text, Target(app, environment, name), file) for name in (None, *_canaries(spec))]


def make(now: Release, uri: str, manifest: Manifest, image: str | None) -> Release:
    """The release of a verified version in the place of `now`; `uri` is the URI of the app's flavour."""
    data = manifest.data
    return replace(
        now, version=manifest.version, digest=manifest.digest, code_commit=data["code_commit"],
        data_digest=data["data_digest"], mlflow_run=data["mlflow_run"], uri=uri, image=image,
    )  # fmt: skip


def write(text: bytes, release: Release) -> bytes:
    """The bytes of the release file with the release's fields set, and nothing else changed."""
    where = form(yamledit.load(text, release.file), release.file, release.canary)
    return yamledit.edit(text, where.values(release, release.file), release.file)


def unrelease(text: bytes, target: Target, file: str) -> bytes:
    """The bytes of a release file as they are before the first release, whose values no command writes back."""
    where = form(yamledit.load(text, file), file, target.canary)
    version = digest = code = data = run = UNRELEASED
    blank = Release(target.app, target.environment, version, digest, code, data, run, UNRELEASED_URI, image=None)
    # Of an image that is kept in parts, the first is its name, which a release finds there.
    return yamledit.edit(text, where.values(blank, file) | dict.fromkeys(where.image[-1:], UNRELEASED), file)


def require_image(image: str, policy: Policy) -> None:
    """Raises Refused unless an image is named by a digest or a fixed tag, in one of the owner's registries."""
    match = _IMAGE.fullmatch(image)
    if not match or match["tag"] == "latest":
        raise Refused(
            f"--image {image}: name it as REGISTRY/NAME@sha256:DIGEST or REGISTRY/NAME:TAG, and not by `latest`"
        )
    if not any(image.startswith(f"{registry}/") for registry in policy.image_registries):
        raise Refused(
            f"--image {image}: not in one of the registries of {layout.POLICY_FILE}:"
            f" {', '.join(policy.image_registries)}"
        )


def short_image(image: str | None) -> str:
    """An image without its registry, its digest cut: enough to recognise it in a table."""
    if image in (None, UNRELEASED):
        return "-"
    name, at, digest = str(image).rpartition("/")[2].partition("@sha256:")
    return f"{name}@{digest[:12]}" if at else name


def history(git: Git, rev: str, target: Target) -> Iterator[tuple[str, Release]]:
    """(commit, release) for every release that this target had up to `rev`, newest first.

    What a merged branch tried on its way never ran: a merge counts as one commit, the one in which it arrived.
    """
    paths = layout.release_paths(target.app, target.environment)
    for commit in git.text("log", "--first-parent", "--format=%H", rev, "--", *paths).split():
        try:
            if found := find(partial(git.show, commit), target.app, target.environment):
                yield commit, read(found[1], target, found[0])
        except Refused:
            continue  # an older form of the file; it names no release that could be compared


def ever(git: Git, rev: str) -> set[Release]:
    """What any target ever ran up to `rev`, canaries and apps that are gone included, without where it said so."""
    listed = git.text("log", "--first-parent", "-m", "--name-only", "--no-renames", "--format=", rev, "--", "overlays")
    overlays = {tuple(path.split("/")[1:3]) for path in listed.splitlines() if path.count("/") == 3}
    found: set[Release] = set()
    for environment, app in overlays:
        paths = layout.release_paths(app, environment)
        for commit in git.text("log", "--first-parent", "--format=%H", rev, "--", *paths).split():
            with contextlib.suppress(Refused):  # an older form of the file, as in `history`
                found.update(item for item in read_all(partial(git.show, commit), app, environment) if item.released)
    return found


def require_order(git: Git, rev: str, policy: Policy, release: Release) -> None:
    """Raises Refused when a release has never run in the environment before its own, and not as a canary only."""
    previous = policy.before(release.environment)
    if previous is None:
        return
    for _, earlier in history(git, rev, Target(release.app, previous)):
        if earlier.released and earlier.same_as(release):
            return
    canary = f" --canary {release.canary}" if release.canary else ""
    raise Refused(
        f"{release.file}: {release.version} has never been released in"
        f" {previous}, which comes before {release.environment}; release it there first, then run"
        f" `python scripts/promote_model.py --app {release.app} --to {release.environment}{canary}`"
    )


def all_at(git: Git, rev: str) -> list[Release]:
    """Every release that a commit names, unreleased ones included, in the order of the environments."""
    policy = layout.parse_policy(git.show(rev, layout.POLICY_FILE))
    overlays = dict.fromkeys(tuple(path.split("/")[1:3]) for path in git.files(rev, "overlays") if path.count("/") == 3)
    found = []
    for environment, app in overlays:
        if environment in policy.environments:
            found += read_all(partial(git.show, rev), app, environment)
    return sorted(found, key=lambda r: (policy.environments.index(r.environment), r.app))


@dataclass(frozen=True)
class Since:
    """The commit of the deployed branch that brought a release; a merge counts as the moment it arrived."""

    commit: str
    date: str
    author: str


def since(git: Git, rev: str, release: Release) -> Since:
    """Since when `release` is what `rev` names. A commit that changed something else of its file does not count."""
    arrived = rev
    for commit, earlier in history(git, rev, release.target):
        if earlier != release:
            break
        arrived = commit
    return Since(*git.text("log", "-1", "--format=%H%x00%cI%x00%an", arrived).split("\0"))


def subject(verb: str, releases: Sequence[Release]) -> str:
    first = releases[0]
    more = f" and {len(releases) - 1} more" if len(releases) > 1 else ""
    return f"{verb} {first.target} to {first.version}{more}"


def message(verb: str, releases: Sequence[Release]) -> str:
    """The commit message: a subject, what changes for whom, and a block of trailers for each release."""
    listed = [f"- {r.target}: {r.uri}" for r in releases]
    trailers = [line for r in releases for line in r.trailers()]
    return "\n".join([subject(verb, releases), "", *listed, "", *trailers]) + "\n"

"""Releases: what `release.yaml` says, and how a command writes one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gitops import layout, yamledit
from gitops.cli import Refused
from gitops.git import Git
from gitops.layout import Policy
from gitops.versions import Manifest
from gitops.yamledit import Named

UNRELEASED = "unreleased"
UNRELEASED_URI = f"s3://{UNRELEASED}/"
ANNOTATION = "model.mlops/"
MODEL_LABEL, FLAVOUR_ANNOTATION = f"{ANNOTATION}model", f"{ANNOTATION}flavour"
_LINEAGE = ("version", "digest", "code-commit", "data-digest", "mlflow-run")
_IMAGE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9.-]*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+)"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64})|:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))"
)


@dataclass(frozen=True)
class Release:
    """What one app runs in one environment. `image` is None for apps whose model server is not chosen by releases."""

    app: str
    environment: str
    version: str
    digest: str
    code_commit: str
    data_digest: str
    mlflow_run: str
    uri: str
    image: str | None

    @property
    def released(self) -> bool:
        return self.version != UNRELEASED

    def same_as(self, other: Release) -> bool:
        """Whether both run the same model version with the same image, wherever."""
        return replace(self, environment=other.environment) == other

    def trailers(self) -> list[str]:
        """The lines of a commit message that trace this release."""
        return [
            f"Release: {self.app} {self.environment}",
            f"Model-Version: {self.version}",
            f"Model-Digest: {self.digest}",
            f"Code-Commit: {self.code_commit}",
            f"Data-Digest: {self.data_digest}",
            f"MLflow-Run: {self.mlflow_run}",
            *([f"Image: {self.image}"] if self.image else []),
        ]


@dataclass(frozen=True)
class Form:
    """Where a kind of workload keeps the fields of a release."""

    kind: str
    uri: yamledit.Path
    digest: yamledit.Path | None = None
    image: yamledit.Path | None = None


def _annotation(name: str) -> yamledit.Path:
    return ("metadata", "annotations", f"{ANNOTATION}{name}")


def form(text: bytes, file: str) -> Form:
    """The form of a release file. Raises Refused for kinds and shapes that commands do not write."""
    data = _mapping(yamledit.load(text, file))
    kind, spec = data.get("kind"), _mapping(data.get("spec"))
    if kind == "InferenceService":
        for name, part in _mapping(spec.get("predictor")).items():
            if name != "model" and isinstance(part, dict) and "storageUri" in part:
                raise Refused(
                    f"{file}: spec.predictor.{name}.storageUri: a change of it never reaches the running model under"
                    f" server-side apply; write spec.predictor.model.storageUri and"
                    f" spec.predictor.model.modelFormat.name: {name}"
                )
            if name == "storageUris":
                raise Refused(
                    f"{file}: spec.predictor.storageUris: one model per release; write spec.predictor.model.storageUri"
                )
        return Form(kind, uri=("spec", "predictor", "model", "storageUri"))
    if kind == "Deployment":
        container = ("spec", "template", "spec", "containers", Named(_container(spec, file)))
        return Form(
            kind,
            uri=(*container, "env", Named("MODEL_URI"), "value"),
            digest=(*container, "env", Named("MODEL_DIGEST"), "value"),
            image=(*container, "image"),
        )
    raise Refused(f"{file}: kind: {kind!r}: a release is written for a Deployment or an InferenceService")


def _container(spec: dict[str, Any], file: str) -> str:
    pod = _mapping(_mapping(spec.get("template")).get("spec"))
    names = [
        str(container.get("name"))
        for container in _mappings(pod.get("containers"))
        if any(variable.get("name") == "MODEL_URI" for variable in _mappings(container.get("env")))
    ]
    if len(names) != 1:
        raise Refused(
            f"{file}: spec.template.spec.containers: {len(names)} containers with the variable MODEL_URI;"
            " a release sets it in exactly one"
        )
    return names[0]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def read(text: bytes, app: str, environment: str) -> Release:
    """Raises Refused when a field of the release is missing."""
    file = layout.release_path(app, environment)
    where = form(text, file)

    def field(path: yamledit.Path) -> str:
        value = yamledit.get(text, path, file)
        if not value:
            raise Refused(f"{file}: {yamledit.show(path)}: missing; a release has this field")
        return value

    version, digest, code, data, run = (field(_annotation(name)) for name in _LINEAGE)
    image = field(where.image) if where.image else None
    if where.digest and field(where.digest) != digest:
        raise Refused(
            f"{file}: {yamledit.show(where.digest)}: {field(where.digest)} differs from the annotation {digest}"
        )
    return Release(app, environment, version, digest, code, data, run, field(where.uri), image)


def make(app: str, environment: str, uri: str, manifest: Manifest, image: str | None) -> Release:
    """The release of a verified version; `uri` is the URI of the app's flavour."""
    data = manifest.data
    return Release(
        app, environment, manifest.version, manifest.digest, data["code_commit"], data["data_digest"],
        data["mlflow_run"], uri, image,
    )  # fmt: skip


def fields(text: bytes, release: Release) -> dict[yamledit.Path, str]:
    """The fields of a release file that a release owns, and their values in this release."""
    where = form(text, layout.release_path(release.app, release.environment))
    values = (release.version, release.digest, release.code_commit, release.data_digest, release.mlflow_run)
    found = dict(zip(map(_annotation, _LINEAGE), values, strict=True)) | {where.uri: release.uri}
    if where.digest:
        found[where.digest] = release.digest
    if where.image and release.image:
        found[where.image] = release.image
    return found


def write(text: bytes, release: Release) -> bytes:
    """The bytes of the release file with the release's fields set, and nothing else changed."""
    return yamledit.edit(text, fields(text, release), layout.release_path(release.app, release.environment))


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


def history(git: Git, rev: str, app: str, environment: str) -> Iterator[tuple[str, Release]]:
    """(commit, release) for every release that this app had in this environment up to `rev`, newest first.

    What a merged branch tried on its way never ran: a merge counts as one commit, the one in which it arrived.
    """
    path = layout.release_path(app, environment)
    for commit in git.text("log", "--first-parent", "--format=%H", rev, "--", path).split():
        text = git.show(commit, path)
        if text is None:
            continue
        try:
            yield commit, read(text, app, environment)
        except Refused:
            continue  # an older form of the file; it names no release that could be compared


def require_order(git: Git, rev: str, policy: Policy, release: Release) -> None:
    """Raises Refused when a release has never run in the environment before its own."""
    previous = policy.before(release.environment)
    if previous is None:
        return
    for _, earlier in history(git, rev, release.app, previous):
        if earlier.released and earlier.same_as(release):
            return
    raise Refused(
        f"{layout.release_path(release.app, release.environment)}: {release.version} has never been released in"
        f" {previous}, which comes before {release.environment}; release it there first, then run"
        f" `python scripts/promote_model.py --app {release.app} --to {release.environment}`"
    )


def all_at(git: Git, rev: str) -> list[Release]:
    """Every release that a commit names, unreleased ones included, in the order of the environments."""
    policy = layout.parse_policy(git.show(rev, layout.POLICY_FILE))
    found = []
    for path in git.files(rev, "overlays"):
        parts = path.split("/")
        if len(parts) == 4 and parts[3] == layout.RELEASE_FILE and parts[1] in policy.environments:
            found.append(read(git.show(rev, path) or b"", parts[2], parts[1]))
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
    for commit, earlier in history(git, rev, release.app, release.environment):
        if earlier != release:
            break
        arrived = commit
    return Since(*git.text("log", "-1", "--format=%H%x00%cI%x00%an", arrived).split("\0"))


def subject(verb: str, releases: Sequence[Release]) -> str:
    first = releases[0]
    more = f" and {len(releases) - 1} more" if len(releases) > 1 else ""
    return f"{verb} {first.app} in {first.environment} to {first.version}{more}"


def message(verb: str, releases: Sequence[Release]) -> str:
    """The commit message: a subject, what changes for whom, and a block of trailers for each release."""
    listed = [f"- {r.app} in {r.environment}: {r.uri}" for r in releases]
    trailers = [line for r in releases for line in r.trailers()]
    return "\n".join([subject(verb, releases), "", *listed, "", *trailers]) + "\n"

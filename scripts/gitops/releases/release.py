"""Releases: what one app, or one of its canaries, runs in one environment."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from gitops.releases import image as images
from gitops.repo.policy import POLICY_FILE, Policy

from contract.errors import Refused
from contract.manifest import Manifest

UNRELEASED = "unreleased"
UNRELEASED_URI = f"s3://{UNRELEASED}/"
ANNOTATION = "model.mlops/"
_NAME_DIGITS = 8
MODEL_LABEL, FLAVOUR_ANNOTATION = f"{ANNOTATION}model", f"{ANNOTATION}flavour"


@dataclass(frozen=True)
class Target:
    """What a release is for: an app in an environment, or one of its canaries there."""

    app: str
    environment: str
    canary: str | None = None

    def __str__(self) -> str:
        return f"{self.app} in {self.environment}{f', canary {self.canary}' if self.canary else ''}"


@dataclass(frozen=True, eq=False)
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
    manifest: str | None = None
    """The SHA-256 of the version's manifest as `sha256:<hex>`; None for a release of the old form, which has none."""
    file: str = field(default="", compare=False)
    """Its path in the repository."""
    revision: str = field(default="", compare=False)
    """What a person has put behind its name, as in `-2`."""

    def __eq__(self, other: object) -> bool:
        """An image is its digest where it has one, whatever the tag beside that is."""
        return isinstance(other, Release) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def values(self) -> tuple[str | None, ...]:
        """What a release writes, without its place."""
        lineage = (self.version, self.digest, self.manifest, self.code_commit, self.data_digest, self.mlflow_run)
        return (*lineage, self.uri, self.image)

    def _key(self) -> tuple[str | None, ...]:
        return (self.app, self.environment, self.canary, *self.values()[:-1], images.identity(self.image))

    @property
    def name(self) -> str:
        """What is replaced by this release is called so, as no update could change it: another one for each model
        version with its image."""
        if not self.released:
            return f"{self.app}-{UNRELEASED}"
        parts = (self.version, self.digest, self.manifest, images.identity(self.image))
        digest = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
        return f"{self.app}-{self.version}-{digest[:_NAME_DIGITS]}{self.revision}"

    @property
    def target(self) -> Target:
        return Target(self.app, self.environment, self.canary)

    @property
    def released(self) -> bool:
        return self.version != UNRELEASED

    def same_as(self, other: Release) -> bool:
        """Whether both run the same model version with the same image, wherever; the other may be of the old form."""
        return self.unit == other.unit and other.manifest in (None, self.manifest)

    @property
    def unit(self) -> Release:
        """The model version and the image, to be compared with those of other places: without these, and without the
        SHA-256 of the manifest, which one of the old form lacks."""
        return replace(self, environment="", canary=None, manifest=None)

    def old_form_told(self) -> str:
        """What a command tells when it completes a release of the old form."""
        why = "was released without the SHA-256 of its manifest, which is now that of the stored one"
        return f"{self.file}: {self.version} {why}"

    def trailers(self) -> list[str]:
        """The lines of a commit message that trace this release."""
        return [
            f"Release: {self.app} {self.environment}",
            *([f"Canary: {self.canary}"] if self.canary else []),
            f"Model-Version: {self.version}",
            f"Model-Digest: {self.digest}",
            *([f"Model-Manifest: {self.manifest}"] if self.manifest else []),
            f"Code-Commit: {self.code_commit}",
            f"Data-Digest: {self.data_digest}",
            f"MLflow-Run: {self.mlflow_run}",
            *([f"Image: {self.image}"] if self.image else []),
        ]


def unreleased(value: Any) -> bool:
    """Whether a field is still at `unreleased`; in the place of an image's tag or digest as well."""
    return value == UNRELEASED or (isinstance(value, str) and value.endswith((f":{UNRELEASED}", f"@{UNRELEASED}")))


def make(now: Release, uri: str, manifest: Manifest, image: str | None) -> Release:
    """The release of a verified version in the place of `now`; `uri` is the URI of the app's flavour."""
    return replace(
        now, version=manifest.version, digest=manifest.digest, code_commit=manifest.code_commit,
        data_digest=manifest.data_digest, mlflow_run=manifest.mlflow_run, uri=uri, image=image,
        manifest=manifest.sha256,
    )  # fmt: skip


def require_archive(image: str, policy: Policy) -> None:
    """Raises Refused unless the image of a Stack is the archive of a service, by its SHA-256, in the model bucket."""
    found = images.archive(image)
    if not found or found[0] != policy.model_bucket:
        raise Refused(
            f"--image {image}: name the archive of the service as s3://{policy.model_bucket}/services/SHA256.tar.gz, as"
            " pack_service.py prints it"
        )


def require_image(image: str, policy: Policy) -> None:
    """Raises Refused unless an image is named by a digest or a fixed tag, in one of the owner's registries."""
    found = images.parse(image)
    if not found or (found.tag == "latest" and not found.digest):
        raise Refused(
            f"--image {image}: name it as REGISTRY/NAME@sha256:DIGEST, REGISTRY/NAME:TAG or"
            " REGISTRY/NAME:TAG@sha256:DIGEST, and not by `latest` alone"
        )
    if not policy.owns(image):
        raise Refused(
            f"--image {image}: not in one of the registries of {POLICY_FILE}: {', '.join(policy.image_registries)}"
        )


def require_one_version(releases: Sequence[Release], model: str) -> None:
    """Raises Refused where these releases of a model are not all of one version, or are none."""
    if not releases:
        raise Refused(f"--model {model}: no app of it is released there; name apps with --app")
    if len({item.version for item in releases}) > 1:
        running = "; ".join(f"{item.target} runs {item.version}" for item in releases)
        raise Refused(
            f"--model {model}: its apps run different versions: {running}; name those that are meant with --app"
        )


def short_image(image: str | None) -> str:
    """An image without its registry, its digest cut: enough to recognise it in a table."""
    if image in (None, UNRELEASED):
        return "-"
    if archive := images.archive(image):
        return f"services/{archive[1][:12]}"
    name, at, digest = str(image).rpartition("/")[2].partition("@sha256:")
    return f"{name}@{digest[:12]}" if at else name


def step(old: Release, new: Release) -> str:
    """What another release changes, in words: versions, images, or both."""
    versions, images = "", ""
    if old.version != new.version:
        versions = f"from {old.version} to {new.version}"
    if old.image != new.image and UNRELEASED not in (old.image, new.image):
        images = "from image {} to image {}".format(*_apart(old.image, new.image))
    if versions or images:
        return ", ".join(filter(None, [versions, images, "" if versions else f"with {new.version}"]))
    names = [item.name for item in fields(Release) if getattr(old, item.name) != getattr(new, item.name)]
    return f"to {new.version} with another {' and '.join(names)}"


def _apart(old: str | None, new: str | None) -> tuple[str, str]:
    """Two images as short as they can be told apart."""
    short = short_image(old), short_image(new)
    return short if short[0] != short[1] else (str(old), str(new))


def _image_alone(old: Release | None, new: Release) -> bool:
    """Whether a release changes nothing but the image."""
    return old is not None and old.image != new.image and replace(old, image=new.image).unit == new.unit


def subject(verb: str, releases: Sequence[Release], before: Mapping[Target, Release]) -> str:
    first = releases[0]
    old = before.get(first.target)
    what = f"image {_apart(old.image, first.image)[1]}" if old and _image_alone(old, first) else first.version
    more = f" and {len(releases) - 1} more" if len(releases) > 1 else ""
    return f"{verb} {first.target} to {what}{more}"


def message(verb: str, releases: Sequence[Release], before: Mapping[Target, Release]) -> str:
    """The commit message: a subject, what changes for whom, and a block of trailers for each release; `before` has what
    the targets had."""
    listed = [
        f"- {r.target}: {r.uri}" + (f" with {r.image}" if _image_alone(before.get(r.target), r) else "")
        for r in releases
    ]
    trailers = [line for r in releases for line in r.trailers()]
    return "\n".join([subject(verb, releases, before), "", *listed, "", *trailers]) + "\n"

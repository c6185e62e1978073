"""What a release sets in a render: which fields, of which object."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gitops.manifests import ack, workloads, yamledit
from gitops.manifests.objects import Difference, Identity, Object, identity, leaves
from gitops.releases import form, image, release
from gitops.releases.release import ANNOTATION, FLAVOUR_ANNOTATION, MODEL_LABEL, Release

from contract.errors import Refused


@dataclass(frozen=True)
class Effect:
    """The fields of one object that a release sets, and their values."""

    identity: Identity
    values: dict[str, str]
    everywhere: tuple[str, ...] = ()
    """Ends of paths that it sets in every object."""
    changes: tuple[tuple[str, str], ...] = ()
    """The values before and after it, of which a copy may stand elsewhere."""

    def sets(self, where: Identity, path: str) -> bool:
        return path.endswith(self.everywhere) or (where == self.identity and path in self.values)

    def covers(self, found: Difference) -> bool:
        """Whether the release brings a difference: in a field of its own, or in a copy of one."""
        return self.sets(found.identity, found.path) or _is_copy(found, self.changes)

    def overridden(self, objects: Sequence[Object]) -> Iterator[tuple[str, str]]:
        """(path, fault) of every field that the render has otherwise, because something else sets it too. In which
        namespace the object is does not count: no release sets that."""
        named = {replace(identity(item), namespace=self.identity.namespace): item for item in objects}
        if self.identity not in named:
            yield "metadata.name", f"{self.identity.name!r}: rendered under another name; no namePrefix, no nameSuffix"
            return
        rendered = leaves(named[self.identity])
        for path, value in self.values.items():
            found = rendered.get(path)
            if found != value and not (value == release.UNRELEASED and release.unreleased(found)):
                yield path, f"renders as {found!r}, not {value!r}; another patch overrides the release"


# Where a replacement may write what a release sets.
_COPIES = re.compile(r"(\A|\.)(annotations|labels)\.|\.env\[[^]]+\]\.value\Z|\.image\Z")
# What selects pods, or can never be changed, must be the same in every release.
_SELECTING = re.compile(r"selector|matchLabels|volumeClaimTemplates", re.IGNORECASE)
# Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
# Where the name of a release stands, by the kinds of what it replaces and of what refers to that.
_NAMES = {
    ack.MODEL: re.compile(r"metadata\.name|spec\.modelName"),
    ack.CONFIG: re.compile(r"metadata\.name|spec\.endpointConfigName|spec\.productionVariants\[[^]]*\]\.modelName"),
    ack.ENDPOINT: re.compile(r"spec\.endpointConfigName"),
}


def _is_copy(found: Difference, changes: Sequence[tuple[str, str]]) -> bool:
    before, after, path = found.before, found.after, found.path
    if (names := _NAMES.get((found.identity.group, found.identity.kind))) and names.fullmatch(path):
        return any(str(before).replace(old, new) == after for old, new in changes)
    if not (isinstance(before, str) and isinstance(after, str) and _COPIES.search(path)) or _SELECTING.search(path):
        return False
    if re.search(r"(\A|\.)labels\.", path) and not _LABEL.fullmatch(after):
        return False
    if path.endswith(".image"):
        return (before, after) in changes
    return any(old in before and before.replace(old, new) == after for old, new in changes)


def copies(objects: Sequence[Object], releases: Sequence[Release], effects: Sequence[Effect]) -> bool:
    """Whether the objects of an overlay may have a value of its releases elsewhere than in their fields."""
    texts = {str(value) for item in releases for value in item.values() if value}
    return any(
        isinstance(value, str)
        and any(text in value for text in texts)
        and not any(one.sets(identity(item), path) for one in effects)
        for item in objects
        for path, value in leaves(item).items()
    )


def of(item: Release, text: bytes, objects: Sequence[Object], now: Release | None = None) -> Effect:
    """The effect of a release whose file has these bytes, in an overlay that renders these objects, in the place of
    the one that is there now.

    A patch names the object that it is for; the images of a kustomization are for the workload that serves the model.
    """
    data = yamledit.load(text, item.file)
    everywhere: tuple[str, ...] = ()
    if data.get("kind") == "Kustomization":
        everywhere = tuple(f".annotations.{name}" for name in data["commonAnnotations"] if name.startswith(ANNOTATION))
        if item.image and not release.unreleased(item.image):
            item = replace(item, image=form.of(data, item.file).renders(item.image, item.file))
        data = workload(item.app, objects)
    where = form.of(data, item.file, item.canary)
    values = where.values(item, item.file)
    if where.manifest and where.manifest in values and where.manifest[-1] == "value":
        # A file of the old form gets the variable as a whole.
        values[(*where.manifest[:-1], "name")] = workloads.MODEL_MANIFEST
    own = replace(identity(data), namespace="")
    spaces = [each.namespace for each in map(identity, objects) if replace(each, namespace="") == own]
    changes = list(zip(now.values(), item.values(), strict=True)) if now else []
    changes += [(now.name, item.name)] if now and where.name else []
    return Effect(
        replace(own, namespace=next(iter(spaces), "")),
        {yamledit.show(path): value for path, value in values.items()},
        everywhere,
        tuple((old, new) for old, new in changes if old and new),
    )


def unnamed(
    items: Sequence[Object], releases: Sequence[Release], effects: Sequence[Effect] = ()
) -> Iterator[tuple[Object, str, str]]:
    """(object, path, fault) of every model that a render has and no release of its overlay names, and of every image
    that runs a model and is not the one of its release. The fields that a release sets are a matter of `overridden`.

    So what runs is known from release files, and history need not be rendered.
    """
    own = {(replace(effect.identity, namespace=""), path) for effect in effects for path in effect.values}
    known = {item.uri for item in releases}
    known |= {found for uri in known for found in workloads.VERSION_PATH.findall(uri)}
    for item in items:
        here = replace(identity(item), namespace="")
        told = [(path, value) for path, value in workloads.tellings(item) if value not in known]
        for path, value in [*told, *_foreign_servers(item, releases)]:
            if (here, path) not in own:
                yield item, path, f"{value!r}: {_UNNAMED}"


_UNNAMED = (
    "no release file of the overlay names this model with this image, so nobody would know what ran; take it out: a"
    " second service is an app of its own, and a canary stands in the release file"
)


def _foreign_servers(item: Object, releases: Sequence[Release]) -> Iterator[tuple[str, str]]:
    """(path, image) of what runs a model with another image than the release has for it."""
    names = {one.uri: image.identity(one.image) for one in releases if one.image}
    for path, named, uri in workloads.servers(item):
        wanted, found = names.get(str(uri)), image.identity(named)
        if wanted and found != wanted and not (release.unreleased(wanted) and release.unreleased(found)):
            yield path, str(named)


def images(items: Sequence[Object]) -> frozenset[str]:
    """What every image that the objects of a render run is, by its digest where it has one; `unreleased` is none."""
    found = {str(named) for item in items for _, named, _ in workloads.servers(item) if named}
    return frozenset(image.identity(text) for text in found if not release.unreleased(text))


def workload(app: str, objects: Sequence[Object]) -> Object:
    """The object that serves the app's model. Raises Refused when none names that model."""
    for item in objects:
        if all(declared(item)):
            return item
    raise Refused(
        f"apps/{app}: no workload with the label {MODEL_LABEL} and the annotation {FLAVOUR_ANNOTATION};"
        " they name the model, and the folder of a version, that the app serves"
    )


def declared(item: Object) -> tuple[str | None, str | None]:
    """The model and the flavour that an object declares."""
    metadata = item.get("metadata") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return labels.get(MODEL_LABEL), annotations.get(FLAVOUR_ANNOTATION)

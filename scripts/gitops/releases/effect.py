"""What a release sets in a render: which fields, of which object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gitops.manifests import yamledit
from gitops.manifests.objects import Difference, Identity, Object, identity, leaves
from gitops.releases import form, release
from gitops.releases.release import ANNOTATION, FLAVOUR_ANNOTATION, MODEL_LABEL, Release
from gitops.repo import layout

from contract.errors import Refused


@dataclass(frozen=True)
class Effect:
    """The fields of one object that a release sets, and their values."""

    identity: Identity
    values: dict[str, str]
    everywhere: tuple[str, ...] = ()
    """Ends of paths that it sets in every object."""

    def covers(self, found: Difference) -> bool:
        return found.path.endswith(self.everywhere) or (found.identity == self.identity and found.path in self.values)

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


def of(item: Release, text: bytes, objects: Sequence[Object]) -> Effect:
    """The effect of a release whose file has these bytes, in an overlay that renders these objects.

    A patch names the object that it is for; the images of a kustomization are for the workload that serves the model.
    """
    data = yamledit.load(text, item.file)
    everywhere: tuple[str, ...] = ()
    if data.get("kind") == "Kustomization":
        everywhere = tuple(f".annotations.{name}" for name in data["commonAnnotations"] if name.startswith(ANNOTATION))
        data = workload(item.app, objects)
    values = form.of(data, item.file, item.canary).values(item, item.file)
    return Effect(
        replace(identity(data), namespace=layout.namespace(item.environment)),
        {yamledit.show(path): value for path, value in values.items()},
        everywhere,
    )


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

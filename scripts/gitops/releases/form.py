"""Where a release file keeps the fields of a release.

A release file is a patch of a Deployment, a StatefulSet, a CronJob, an InferenceService, a Model of SageMaker or a
Stack. An InferenceService may have canaries, and each of them is a release of its own in the same file. An overlay
without that file can keep its release in the images of its kustomization; the model is then in annotations, which
`replacements` carry to the environment of the container.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gitops.manifests import ack, stack, workloads, yamledit
from gitops.manifests.objects import mapping, mappings
from gitops.manifests.yamledit import Named, Path
from gitops.releases import image as images
from gitops.releases.release import ANNOTATION, Release
from gitops.repo import layout

from contract.errors import Refused

LINEAGE = ("version", "digest", "code-commit", "data-digest", "mlflow-run")


@dataclass(frozen=True)
class Form:
    """Where a file, or a rendered object, keeps the fields of a release."""

    lineage: Path
    """Where the annotations are."""
    uri: Path
    digest: Path | None = None
    manifest: Path | None = None
    """The variable with the SHA-256 of the manifest; a release of the old form has neither it nor the annotation."""
    image: tuple[Path, ...] = ()
    """The image as one value, or its name and those of `newTag` and `digest` that are there."""
    entry: bool = False
    """Whether it is an entry of a kustomization's images."""
    name: Path | None = None
    """What the objects are called that a release replaces."""
    archive: bool = False
    """Whether the image is the archive of a service in the model bucket."""

    def annotation(self, name: str) -> Path:
        return (*self.lineage, f"{ANNOTATION}{name}")

    @property
    def manifests(self) -> dict[Path, Path]:
        """Where the SHA-256 of the manifest is, each with the field of the digest that it stands behind."""
        found = {self.annotation("manifest"): self.annotation("digest")}
        return found | ({self.manifest: self.digest} if self.manifest and self.digest else {})

    def values(self, release: Release, file: str) -> dict[Path, str]:
        """The fields that a release owns, and their values in this one. Raises Refused for an image that this form
        cannot name."""
        lineage = (release.version, release.digest, release.code_commit, release.data_digest, release.mlflow_run)
        found = dict(zip(map(self.annotation, LINEAGE), lineage, strict=True)) | {self.uri: release.uri}
        if self.digest:
            found[self.digest] = release.digest
        if self.name:
            found[self.name] = release.name
        if release.manifest:
            found |= dict.fromkeys(self.manifests, release.manifest)
        if self.image and release.image:
            found |= self._entry(release.image, file) if self.entry else {self.image[0]: release.image}
        return found

    def renders(self, image: str, file: str) -> str:
        """An image as it is rendered when this form has named it: without a tag that there is no field for."""
        if not self.entry:
            return image
        parts = {str(path[-1]): value for path, value in self._entry(image, file).items()}
        return images.join(parts["newName"], parts.get("newTag", ""), parts.get("digest", ""))

    def _entry(self, image: str, file: str) -> dict[Path, str]:
        """The fields of a kustomization's entry for an image; one that is empty is as if it were not there."""
        fields = {str(path[-1]): path for path in self.image}
        found = images.parse(image)
        if found and {"newTag", "digest"} <= fields.keys():
            parts = {"newTag": found.tag, "digest": found.digest}
        elif found and "digest" in fields:
            parts = {"digest": found.digest}
        else:
            # As Renovate writes it.
            parts = {"newTag": images.join("", found.tag, found.digest)[1:] if found and found.tag else ""}
        if not found or not any(parts.values()):
            has, wants = ("digest", "newTag") if "digest" in fields else ("newTag", "digest")
            raise Refused(
                f"{file}: {yamledit.show(self.image[-1])}: {image} cannot be written as a {has}; name the image so,"
                f" or put `{wants}` in the place of `{has}`"
            )
        return {fields[name]: value for name, value in (parts | {"newName": found.name}).items()}


def of(data: Any, file: str, canary: str | None = None) -> Form:
    """The form of a release file that holds this data, or of a rendered object.

    Raises Refused for kinds and shapes that commands do not write, and for a canary that is not there.
    """
    data = mapping(data)
    kind, spec = data.get("kind"), mapping(data.get("spec"))
    annotations = ("metadata", "annotations")
    if workloads.is_inference_service(data):
        return _model(spec, file, canary, annotations)
    if canary:
        raise Refused(f"{file}: kind: {kind!r}: no canary {canary!r}; only an InferenceService has canaries")
    if workloads.kind_of(data) in workloads.RELEASED and (pod := workloads.pod_keys(data)):
        container: Path = (*pod, "containers", Named(_container(data, pod, file)))
        variables = (*container, "env")
        return Form(
            annotations,
            uri=(*variables, Named(workloads.MODEL_URI), "value"),
            digest=(*variables, Named(workloads.MODEL_DIGEST), "value"),
            manifest=(*variables, Named(workloads.MODEL_MANIFEST), "value"),
            image=((*container, "image"),),
        )
    if workloads.kind_of(data) == ack.MODEL:
        return _sagemaker(annotations)
    if stack.is_stack(dict(data)):
        uri, digest, manifest, service = (
            (*stack.PARAMETERS, name) for name in (stack.URI, stack.DIGEST, stack.MANIFEST, stack.SERVICE)
        )
        return Form(annotations, uri, digest, manifest, image=(service,), archive=True)
    if kind == "Kustomization":
        return _images(data, file)
    shown = f"{kind!r} of {data.get('apiVersion')!r}"
    raise Refused(
        f"{file}: kind: {shown}: a release is written for a Deployment, a StatefulSet, a CronJob, an InferenceService,"
        " a Model of SageMaker or a Stack"
    )


def _model(spec: Mapping[str, Any], file: str, canary: str | None, annotations: Path) -> Form:
    predictor = mapping(spec.get("predictor"))
    path: Path = ("spec", "predictor")
    if canary:
        entries = canaries(spec)
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


def _sagemaker(annotations: Path) -> Form:
    container: Path = ("spec", "primaryContainer")
    variables = (*container, "environment")
    return Form(
        annotations,
        uri=(*variables, workloads.MODEL_URI),
        digest=(*variables, workloads.MODEL_DIGEST),
        manifest=(*variables, workloads.MODEL_MANIFEST),
        image=((*container, "image"),),
        name=(*annotations, f"{ANNOTATION}name"),
    )


def canaries(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The predictors of the canaries, by name."""
    predictors = [mapping(item.get("predictor")) for item in mappings(spec.get("canary"))]
    return {str(predictor.get("name")): predictor for predictor in predictors}


def _images(data: Mapping[str, Any], file: str) -> Form:
    entries = mappings(data.get("images"))
    if len(entries) != 1:
        raise Refused(
            f"{file}: images: {len(entries)} entries; without a {layout.RELEASE_FILE} beside it, it has exactly one,"
            " the image of the app"
        )
    entry: Path = ("images", Named(str(entries[0].get("name"))))
    given = [name for name in ("newTag", "digest") if name in entries[0]]
    if not given:
        raise Refused(f"{file}: {yamledit.show(entry)}: needs `digest`, `newTag` or both")
    return Form(
        ("commonAnnotations",),
        uri=("commonAnnotations", f"{ANNOTATION}uri"),
        image=tuple((*entry, name) for name in ("newName", *given)),
        entry=True,
    )


def _container(data: Mapping[str, Any], path: Sequence[str], file: str) -> str:
    names = [
        str(each.fields.get("name"))
        for pod in workloads.pods(dict(data))
        for each in pod.running
        if any(variable.get("name") == workloads.MODEL_URI for variable in mappings(each.fields.get("env")))
    ]
    if len(names) != 1:
        raise Refused(
            f"{file}: {'.'.join(path)}.containers: {len(names)} containers with the variable MODEL_URI;"
            " a release sets it in exactly one"
        )
    return names[0]

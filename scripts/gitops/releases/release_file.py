"""The file with what an app runs in an environment: found, read and written."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from gitops.manifests import yamledit
from gitops.manifests.objects import mapping
from gitops.manifests.yamledit import Path
from gitops.releases import form
from gitops.releases import image as images
from gitops.releases.form import LINEAGE, Form
from gitops.releases.release import UNRELEASED, UNRELEASED_URI, Release, Target
from gitops.repo import layout

from contract.errors import Refused
from contract.uri import parse_flavour

SHA256 = re.compile("sha256:[0-9a-f]{64}")


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
    return "images" in mapping(yamledit.load(text, kustomization))


def read(text: bytes, target: Target, file: str) -> Release:
    """Raises Refused when a field of the release is missing, or the canary is not there."""
    where = form.of(yamledit.load(text, file), file, target.canary)

    def value(path: Path) -> str:
        found = yamledit.get(text, path, file)
        if not found:
            raise Refused(f"{file}: {yamledit.show(path)}: missing; a release has this field")
        return found

    version, digest, code, data, run = (value(where.annotation(name)) for name in LINEAGE)
    image = _image(text, where, file) if where.entry else next(map(value, where.image), None)
    if where.digest and value(where.digest) != digest:
        raise Refused(
            f"{file}: {yamledit.show(where.digest)}: {value(where.digest)} differs from the annotation {digest}"
        )
    found = Release(
        target.app, target.environment, version, digest, code, data, run, value(where.uri), image, target.canary,
        _manifest(text, where, file), file,
    )  # fmt: skip
    return replace(found, revision=_revision(value(where.name), where.name, found)) if where.name else found


def _revision(name: str, path: Path, release: Release) -> str:
    """What a person has put behind the name that a release gives."""
    match = re.fullmatch(rf"{re.escape(release.name)}(-[1-9][0-9]?)?", name)
    if not match:
        raise Refused(
            f"{release.file}: {yamledit.show(path)}: {name!r}: not {release.name}, which the app, the version and the"
            " image give; only commands write it, and people no more than a number behind it, as in -2"
        )
    return match[1] or ""


def _image(text: bytes, where: Form, file: str) -> str:
    """The image of a kustomization's entry, as Kustomize makes it of the fields that are not empty."""
    parts = {str(path[-1]): yamledit.get(text, path, file) or "" for path in where.image}
    if UNRELEASED in parts.values():
        return UNRELEASED
    empty = [path for path in where.image if not parts[str(path[-1])]]
    if not parts["newName"] or len(empty) == len(where.image) - 1:
        raise Refused(f"{file}: {yamledit.show(empty[0])}: missing; a release has this field")
    return images.join(parts["newName"], parts.get("newTag", ""), parts.get("digest", ""))


def _manifest(text: bytes, where: Form, file: str) -> str | None:
    """The SHA-256 of the manifest; None for the old form, which has it nowhere."""
    found = {path: yamledit.get(text, path, file) for path in where.manifests}
    (first, value), *rest = found.items()
    for path, other in rest:
        if other != value:
            raise Refused(
                f"{file}: {yamledit.show(path)}: {other!r} differs from {yamledit.show(first)}: {value!r};"
                " a release has both, or neither; only commands write them"
            )
    if value is not None and value != UNRELEASED and not SHA256.fullmatch(value):
        raise Refused(
            f"{file}: {yamledit.show(first)}: {value!r}: not sha256: and 64 hex digits; only commands write it"
        )
    return value


def read_all(show: Callable[[str], bytes | None], app: str, environment: str) -> list[Release]:
    """The release of the app and those of its canaries; none where the overlay has no release file."""
    if not (found := find(show, app, environment)):
        return []
    file, text = found
    spec = mapping(mapping(yamledit.load(text, file)).get("spec"))
    return [read(text, Target(app, environment, name), file) for name in (None, *form.canaries(spec))]


def of_model(
    show: Callable[[str], bytes | None], apps: Iterable[str], environment: str, model: str
) -> Iterator[Release]:
    """What these apps run of a model in an environment, canaries left out."""
    name = f"/{model}/".encode()
    for app in apps:
        found = find(show, app, environment)
        # Reading takes long, and only what has an escape can have a name that is not in its bytes.
        if found and (name in found[1] or b"\\" in found[1]):
            item = read(found[1], Target(app, environment), found[0])
            if item.released and parse_flavour(item.uri)[0].model == model:
                yield item


def readable(show: Callable[[str], bytes | None], app: str, environment: str) -> list[Release]:
    """Those of `read_all` that can be read, whatever the others are: a history may have older forms of the file."""
    found: list[Release] = []
    with contextlib.suppress(Refused):
        if (there := find(show, app, environment)) is None:
            return []
        file, text = there
        spec = mapping(mapping(yamledit.load(text, file)).get("spec"))
        for name in (None, *form.canaries(spec)):
            with contextlib.suppress(Refused):
                found.append(read(text, Target(app, environment, name), file))
    return found


def write(text: bytes, release: Release) -> bytes:
    """The bytes of the release file with the release's fields set, and nothing else changed. A file of the old
    form gets the SHA-256 of the manifest behind the digest."""
    where = form.of(yamledit.load(text, release.file), release.file, release.canary)
    for path, sibling in where.manifests.items() if release.manifest else ():
        if yamledit.get(text, path, release.file) is None:
            if where.entry:
                raise Refused(
                    f"{release.file}: no {yamledit.show(path)}; add it, and the replacement that carries it to the"
                    " container, by a pull request: CONTRIBUTING.md has both"
                )
            text = yamledit.add_after(text, path, sibling, str(release.manifest), release.file)
    return yamledit.edit(text, where.values(release, release.file), release.file)


def clear(text: bytes, release: Release) -> bytes:
    """The bytes of the release file as before the first release."""
    where = form.of(yamledit.load(text, release.file), release.file, release.canary)
    none = replace(
        release, version=UNRELEASED, digest=UNRELEASED, code_commit=UNRELEASED, data_digest=UNRELEASED,
        mlflow_run=UNRELEASED, uri=UNRELEASED_URI, image=None, manifest=release.manifest and UNRELEASED,
    )  # fmt: skip
    named = [path for path in where.image if path[-1] != "newName" and yamledit.get(text, path, release.file)]
    return yamledit.edit(text, where.values(none, release.file) | dict.fromkeys(named, UNRELEASED), release.file)

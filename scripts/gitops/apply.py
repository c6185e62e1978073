"""Releases applied to a tree: checked, written, and compared as rendered objects before anything is published."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gitops import hold, kustomize, layout, yamledit
from gitops.cli import Refused
from gitops.git import Git
from gitops.kustomize import Difference, Identity, Object
from gitops.layout import Policy
from gitops.publish import DEPLOYED
from gitops.release import FLAVOUR_ANNOTATION, MODEL_LABEL, Release, fields, read, write
from gitops.versions import Manifest, VersionURI


def declared(root: Path, app: str, environment: str) -> tuple[str, str]:
    """The model and the flavour that an app declares on its workload."""
    folder = layout.overlay(app, environment)
    for item in kustomize.objects(kustomize.build(root, folder)):
        metadata = item.get("metadata") or {}
        model = (metadata.get("labels") or {}).get(MODEL_LABEL)
        flavour = (metadata.get("annotations") or {}).get(FLAVOUR_ANNOTATION)
        if model and flavour:
            return model, flavour
    raise Refused(
        f"apps/{app}: no workload with the label {MODEL_LABEL} and the annotation {FLAVOUR_ANNOTATION};"
        " they say which model and which folder of a version the app serves"
    )


def require_model(root: Path, app: str, environment: str, uri: VersionURI, policy: Policy) -> str:
    """The URI that the app gets for this version. Raises Refused for a foreign bucket or another model's version."""
    if uri.bucket != policy.model_bucket:
        raise Refused(
            f"{uri}: bucket {uri.bucket!r}; {layout.POLICY_FILE} names the model bucket {policy.model_bucket!r}"
        )
    model, flavour = declared(root, app, environment)
    if uri.model != model:
        raise Refused(f"{uri}: a version of the model {uri.model!r}; {app} serves {model!r}")
    return uri.flavour(flavour)


def require_flavour(uri: str, manifest: Manifest, flavour_uri: str) -> None:
    folder = flavour_uri.removeprefix(uri)
    if not any(file.path.startswith(folder) for file in manifest.files):
        raise Refused(f"{uri}: has no folder {folder}, which the app serves; package that flavour too")


@contextmanager
def tree_of(git: Git, rev: str | None) -> Iterator[Path]:
    """A throw-away copy of what is deployed, from a commit or (None) from the working tree."""
    with tempfile.TemporaryDirectory(prefix="gitops-tree-") as folder:
        tree = Path(folder)
        if rev:
            git.export(rev, tree, *DEPLOYED)
        else:
            for name in DEPLOYED:
                if (git.root / name).is_dir():
                    shutil.copytree(git.root / name, tree / name, symlinks=True)
        yield tree


Wanted = Callable[[Path, Callable[[str, str], Release], str], Sequence[Release]]


@dataclass(frozen=True)
class Change:
    """Releases that are new against a commit, the files that say so, and every file that the checks of it read."""

    releases: list[Release]
    files: dict[str, bytes]
    reads: frozenset[str]


def changes(git: Git, rev: str | None, wanted: Wanted) -> Change:
    """What changes against a commit, or against the working tree (None), checked.

    `wanted(tree, current, rev)` decides the releases: it gets a throw-away tree, a function that gives the release of
    an app and environment as it is now, and the commit whose history counts. Nothing is written outside that tree.
    Raises Refused if the renders would change in anything but the fields of the releases.
    """

    def original(path: str) -> bytes:
        if rev is None and (git.root / path).is_symlink():
            raise Refused(f"{path}: a symbolic link; put a file in its place, every release is written to its own")
        text = git.show(rev, path) if rev else (git.root / path).read_bytes()
        assert text is not None, path  # require_app found the file in the tree
        return text

    def current(app: str, environment: str) -> Release:
        return read(original(layout.release_path(app, environment)), app, environment)

    with tree_of(git, rev) as tree:
        releases = wanted(tree, current, rev or "HEAD")
        originals = {path: original(path) for r in releases if (path := layout.release_path(r.app, r.environment))}
        files, reads = _apply(tree, releases, originals)
    for r in releases:
        reads |= {layout.release_path(r.app, r.environment), hold.path(r.app, r.environment)}
    return Change([r for r in releases if layout.release_path(r.app, r.environment) in files], files, frozenset(reads))


_OTHERS = re.compile(r"overlays/[^/]+/[^/]+/(release|hold)\.yaml")


def stands(git: Git, change: Change, old: str, new: str) -> bool:
    """Whether a change that was checked against commit `old` is as good against `new`: between them nothing but
    releases changed, and none that these checks read. So many writers need not render again for each other."""
    touched = git.changed(old, new)
    return change.reads.isdisjoint(touched) and all(_OTHERS.fullmatch(path) for path in touched)


def write_files(git: Git, files: Mapping[str, bytes]) -> None:
    """Replaces files of the checkout, each by one rename from git's own folder, where nothing is left in the way."""
    new = Path(git.text("rev-parse", "--absolute-git-dir")) / f"gitops-new-{os.getpid()}"
    for path, data in files.items():
        target = git.root / path
        new.write_bytes(data)
        new.chmod(target.stat().st_mode)
        new.replace(target)


def _apply(
    tree: Path, releases: Sequence[Release], originals: Mapping[str, bytes]
) -> tuple[dict[str, bytes], set[str]]:
    """Writes releases into `tree` and returns the new bytes of the files that changed, and what the renders read.

    `originals` are the exact bytes of the release files, which a checkout may have converted.
    """
    policy = layout.read_policy(tree)
    files = {layout.release_path(r.app, r.environment): r for r in releases}
    new = {file: write(originals[file], release) for file, release in files.items()}
    changed = {file: data for file, data in new.items() if data != originals[file]}
    readers = kustomize.readers(tree, layout.overlays(tree, policy), changed)
    before = kustomize.build_all(tree, readers)
    for file, data in changed.items():
        (tree / file).write_bytes(data)
    after = kustomize.build_all(tree, readers)
    owned = {layout.overlay(r.app, r.environment): _owned(r, originals[f]) for f, r in files.items() if f in changed}
    for folder in readers:
        was, now = kustomize.objects(before[folder]), kustomize.objects(after[folder])
        require_only(folder, kustomize.differences(was, now), owned.get(folder))
        if folder in owned:
            require_effect(folder, now, owned[folder])
    return changed, set().union(*(kustomize.closure(tree, folder) for folder in readers))


@dataclass(frozen=True)
class Owned:
    """The fields of one object that a release sets when rendered, and their values."""

    identity: Identity
    values: dict[str, str]


def _owned(release: Release, text: bytes) -> Owned:
    found = kustomize.identity(yamledit.load(text, layout.release_path(release.app, release.environment)))
    return Owned(
        replace(found, namespace=layout.namespace(release.environment)),
        {yamledit.show(path): value for path, value in fields(text, release).items()},
    )


def require_only(folder: str, found: Sequence[Difference], owned: Owned | None) -> None:
    """Raises Refused for every rendered change of an overlay outside the fields of its release."""
    foreign = [d for d in found if owned is None or d.identity != owned.identity or d.path not in owned.values]
    if foreign:
        raise Refused(
            *[
                f"{folder}: {d.identity}: {d.path}: would change from {d.before!r} to {d.after!r}, which is no field of"
                " this release; another file reads release.yaml, or copies a value from it"
                for d in foreign[:10]
            ]
        )


def require_effect(folder: str, after: Sequence[Object], owned: Owned) -> None:
    """Raises Refused when a release is written but the render does not carry it: another patch overrides it."""
    rendered = {kustomize.identity(item): kustomize.leaves(item) for item in after}.get(owned.identity, {})
    wrong = {path: value for path, value in owned.values.items() if rendered.get(path) != value}
    if wrong:
        raise Refused(
            *[
                f"{folder}: {owned.identity}: {path}: renders as {rendered.get(path)!r}, not {value!r};"
                " another patch overrides the release"
                for path, value in wrong.items()
            ]
        )

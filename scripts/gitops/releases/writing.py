"""Releases applied to a tree: checked, written, and compared as rendered objects before anything is published."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from gitops.manifests import closure, kustomize, yamledit
from gitops.manifests.objects import Difference, Object, differences, identity
from gitops.models import signing
from gitops.models.signing import Signer
from gitops.releases import effect, form, history, hold, image, judgement, release, release_file, state, withdrawn
from gitops.releases.effect import Effect
from gitops.releases.form import Form
from gitops.releases.judgement import Place, Proposal
from gitops.releases.release import Release, Target
from gitops.repo import freeze, layout, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import POLICY_FILE, Policy
from gitops.repo.snapshot import OnDisk, Snapshot

from contract import temporary
from contract.errors import Refused
from contract.manifest import Manifest
from contract.uri import VersionURI

_MANY = 50


class Tree:
    """What is deployed, as it was before the change. What is rendered of a commit is copied to `root` when it is asked
    for; of a working tree, everything is there."""

    def __init__(self, source: Snapshot, root: Path) -> None:
        self._source, self.root = source, root
        self.policy = source.policy
        self.files = source.deployed()
        self.apps = layout.apps_of(self.files)
        self._rendered: dict[str, list[Object]] = {}

    def read(self, path: str) -> bytes | None:
        """The exact bytes of a file, which a checkout may have converted."""
        if self._source.rev is None and (self._source.root / path).is_symlink():
            raise Refused(f"{path}: a symbolic link; put a file in its place, every release is written to its own")
        return there.get(path) if (there := self._source.commit) else self._source.read(path)

    @cached_property
    def signer(self) -> Signer | None:
        """Whose signature a version needs to be released from here. Raises Refused if that cannot be told."""
        return signing.asked(self._source)

    def release(self, target: Target) -> Release:
        """What a target runs. Raises Refused for names that are not in the repository."""
        layout.require_app(self.files, self.apps, self.policy, target.app, target.environment)
        found = release_file.find(self.read, target.app, target.environment)
        if found is None:
            own, kustomization = layout.release_paths(target.app, target.environment)
            raise Refused(
                f"{own}: missing, and {kustomization} has no images; CONTRIBUTING.md tells where a release can be"
            )
        return release_file.read(found[1], target, found[0])

    def form(self, target: Target) -> Form:
        """Where the release file of a target, which it has, keeps its fields."""
        found = release_file.find(self.read, target.app, target.environment)
        assert found is not None, target  # the release that was there was read from it
        return form.of(yamledit.load(found[1], found[0]), found[0], target.canary)

    @cached_property
    def withdrawn(self) -> dict[str, str]:
        """Why which versions may run nowhere any more, by the keys of the record."""
        return withdrawn.read(self.read(layout.WITHDRAWN))

    def overlay(self, app: str, environment: str) -> list[Object]:
        """The objects of one overlay."""
        folder = layout.overlay(app, environment)
        return self.render([folder])[folder]

    def render(self, folders: Iterable[str]) -> dict[str, list[Object]]:
        """The objects of these overlays, each of them rendered once."""
        asked = list(dict.fromkeys(folders))
        missing = [folder for folder in asked if folder not in self._rendered]
        if not missing:
            return {folder: self._rendered[folder] for folder in asked}
        if there := self._source.commit:
            there.write(self.root, set().union(*(closure.closure(there, folder) for folder in missing)))
        self._rendered |= kustomize.rendered_all(self.root, missing, OnDisk(self.root))
        return {folder: self._rendered[folder] for folder in asked}

    def readers(self, changed: Collection[str]) -> list[str]:
        """The overlays whose render may read one of the files."""
        overlays, there = layout.overlays_of(self.files, self.policy), self._source.commit
        if there is None:
            return closure.readers(OnDisk(self.root), overlays, changed)
        # Git looks for one word after the other.
        return closure.readers(
            there, closure.suspects(there, overlays, changed) if len(changed) < _MANY else overlays, changed
        )

    def foresee(self, apps: Sequence[str]) -> None:
        """Reads what `readers` asks of the whole commit when releases of these apps change."""
        if (there := self._source.commit) and 0 < len(apps) < _MANY:
            closure.foresee(there, apps)

    def running(self, versions: Collection[str]) -> dict[Target, Release]:
        """What runs one of these versions anywhere, and maybe other releases."""
        places = history.naming(self._source, versions)
        return {item.target: item for place in places for item in release_file.read_all(self.read, *place)}

    def require_model(self, target: Target, uri: VersionURI) -> str:
        """The URI that the app gets for this version. Raises Refused for a foreign bucket or another model's."""
        if uri.bucket != self.policy.model_bucket:
            bucket = self.policy.model_bucket
            raise Refused(f"{uri}: bucket {uri.bucket!r}; {POLICY_FILE} names the model bucket {bucket!r}")
        folder = layout.overlay(target.app, target.environment)
        model, flavour = effect.declared(effect.workload(target.app, self.render([folder])[folder]))
        if uri.model != model:
            raise Refused(f"{uri}: a version of the model {uri.model!r}; {target.app} serves {model!r}")
        return uri.flavour(str(flavour))


def require_flavour(uri: str, manifest: Manifest, flavour_uri: str) -> None:
    folder = flavour_uri.removeprefix(uri)
    if not any(file.path.startswith(folder) for file in manifest.files):
        raise Refused(f"{uri}: has no folder {folder}, which the app serves; package that flavour too")


Wanted = Callable[[Tree, history.Ran], Sequence[Release]]
Renders = Mapping[str, Sequence[Object]]


@dataclass(frozen=True)
class Change:
    """Releases that are new against a commit, the files that change, and every file that the checks of it read."""

    releases: list[Release]
    files: dict[str, bytes]
    reads: frozenset[str]
    before: Mapping[Target, Release]
    """What the targets of the releases had."""
    frozen: tuple[str, ...]
    """What to tell of their environments that are frozen."""

    def message(self, verb: str) -> str:
        """The message of its commit."""
        return release.message(verb, self.releases, self.before)


def prepare(
    git: Git, rev: str | None, wanted: Wanted, apps: Iterable[str], held: Mapping[Place, bytes] | None = None
) -> Change:
    """What changes against a commit, or against the working tree (None), checked.

    `wanted(tree, ran)` decides the releases, which are of `apps` as far as those are known before: it gets what is
    deployed now, and what ran. `held` are the holds that come with them. Nothing is written outside the throw-away
    tree. Raises Refused if the releases may not run there, or the renders would change in anything but the fields of
    the releases.
    """
    source = snapshot.at(git, rev)
    named = list(dict.fromkeys(apps))
    ran = history.Ran(git, rev or "HEAD", source.policy, named)
    with _copied(source) as root, ThreadPoolExecutor(1) as pool:
        tree = Tree(source, root)
        # While the history, or a bucket, is waited for.
        pool.submit(tree.foresee, named)
        asked = wanted(tree, ran)
        before = {r.target: tree.release(r.target) for r in asked}
        releases = [r for r in asked if r != before[r.target]]
        running = pool.submit(tree.running, {item.version for item in releases})
        files, reads, after = _apply(tree, releases)
        places = _require_allowed(tree, ran, releases, held or {}, after, running.result())
    for app, environment in places:
        reads |= {*layout.release_paths(app, environment), hold.path(app, environment)}
    return Change(releases, files, frozenset(reads), before, _frozen(source.policy, releases))


def _frozen(policy: Policy, releases: Iterable[Release]) -> tuple[str, ...]:
    """What to tell of the environments of releases that are frozen."""
    places: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for item in releases:
        places[image.archive(item.image) is not None].append((item.app, item.environment))
    now = datetime.now(UTC)
    return (*freeze.told(policy, places[False], now), *freeze.told_of_stacks(policy, places[True], now))


@contextlib.contextmanager
def _copied(source: Snapshot) -> Iterator[Path]:
    """A throw-away copy, empty where a commit is read without one."""
    with temporary.folder("model-gitops-tree-") if source.commit else source.exported() as root:
        yield root


def _require_allowed(
    tree: Tree,
    ran: history.Ran,
    releases: Sequence[Release],
    held: Mapping[Place, bytes],
    after: Renders,
    running: Mapping[Target, Release],
) -> set[Place]:
    """Raises Refused for releases that may not run where they are to; the places that this depends on."""
    places = {(r.app, r.environment) for r in releases}
    before = {(app, previous) for app, environment in places for previous in tree.policy.after(environment)}
    there = [place for place in places | before if release_file.find(tree.read, *place)]
    base = state.of(tree.read, there, lambda place: effect.images(tree.overlay(*place)))
    # A version has one manifest, whatever else runs it.
    base = replace(base, releases={**running, **base.releases})
    new = {r.target: r for r in releases}
    head = replace(base, releases={**base.releases, **new}, holds={**base.holds, **held})
    # A release that is the first of its place brings everything along that is rendered beside it.
    head = replace(head, images={place: effect.images(after[layout.overlay(*place)]) for place in places})
    proposal = Proposal(tree.policy, base, head, ran, now=datetime.now(UTC))
    if faults := judgement.judge(proposal):
        raise Refused(*map(str, faults))
    return places | before


_OTHERS = re.compile(r"overlays/[^/]+/[^/]+/(release|hold)\.yaml")


def stands(git: Git, change: Change, old: str, new: str) -> bool:
    """Whether a change that was checked against commit `old` is as good against `new`: between them nothing but
    releases changed, and none that these checks read. So many writers need not render again for each other."""
    touched = git.changed(old, new)
    return change.reads.isdisjoint(touched) and all(_OTHERS.fullmatch(path) for path in touched)


def write_files(git: Git, files: Mapping[str, bytes]) -> None:
    """Replaces files of the checkout, each by one rename from git's own folder, where nothing is left in the way."""
    with temporary.folder("gitops-new-", Path(git.text("rev-parse", "--absolute-git-dir"))) as folder:
        new = folder / "file"
        for path, data in files.items():
            target = git.root / path
            new.write_bytes(data)
            if target.exists():
                new.chmod(target.stat().st_mode)
            new.replace(target)


def _apply(tree: Tree, releases: Sequence[Release]) -> tuple[dict[str, bytes], set[str], Renders]:
    """Writes releases into the tree and returns the new bytes of the files that changed, what the renders read, and the
    renders."""
    changed: dict[str, bytes] = {}
    effects: dict[str, list[Effect]] = {}
    for item in releases:
        text = changed.get(item.file) or tree.read(item.file)
        assert text is not None, item.file  # the release that was there was read from it
        changed[item.file] = release_file.write(text, item)
        folder = layout.overlay(item.app, item.environment)
        own = effect.of(item, text, tree.render([folder])[folder], tree.release(item.target))
        effects.setdefault(folder, []).append(own)
    readers = list(dict.fromkeys([*tree.readers(changed), *effects]))
    before = tree.render(readers)
    for file, data in changed.items():
        (tree.root / file).write_bytes(data)
    files = OnDisk(tree.root)
    after = kustomize.rendered_all(tree.root, readers, files)
    for folder, now in after.items():
        mine = effects.get(folder, [])
        require_only(folder, differences(before[folder], now), mine)
        require_effect(folder, now, mine)
        _require_named(tree, folder, changed, now)
    return changed, set().union(*(closure.closure(files, folder) for folder in readers)), after


def rehearse(root: Path, app: str, environment: str) -> None:
    """Releases other values in an overlay, in a throw-away copy. Raises Refused where no release could be made: what
    is rendered would change in other fields than those of a release."""
    source = Snapshot(root)
    with source.copied([layout.overlay(app, environment)]) as copy:
        tree = Tree(source, copy)
        _apply(tree, [_other(item) for item in release_file.read_all(tree.read, app, environment)])


def _other(item: Release) -> Release:
    """A release of the same form with other values."""
    digest = f"sha256:{'0123456789ab' * 5}0123"
    version = f"2000-01-01-{digest[7:19]}"
    return replace(
        item, version=version, digest=digest, manifest=item.manifest and digest, code_commit="0" * 40,
        data_digest=digest, mlflow_run="0" * 32, uri=f"s3://bucket/models/model/{version}/flavour/",
        image=item.image and f"registry.example.com/image:v1@{digest}",
    )  # fmt: skip


def require_only(folder: str, found: Sequence[Difference], effects: Sequence[Effect]) -> None:
    """Raises Refused for every rendered change of an overlay outside the fields of its releases."""
    foreign = [d for d in found if not any(one.covers(d) for one in effects)]
    if foreign:
        raise Refused(
            *[
                f"{folder}: {d.identity}: {d.path}: would change from {d.before!r} to {d.after!r}, which is no field of"
                " this release; another file reads release.yaml, or copies a value from it, which only an annotation, a"
                " variable, an image or a label that nothing selects by can hold"
                for d in foreign[:10]
            ]
        )


def require_effect(folder: str, after: Sequence[Object], effects: Sequence[Effect]) -> None:
    """Raises Refused when a release is written but the render does not carry it: another patch overrides it."""
    if wrong := [f"{folder}: {e.identity}: {path}: {fault}" for e in effects for path, fault in e.overridden(after)]:
        raise Refused(*wrong)


def _require_named(tree: Tree, folder: str, changed: Mapping[str, bytes], after: Sequence[Object]) -> None:
    """Raises Refused when the render runs a model beside what the new release file names."""
    _, environment, app = folder.split("/")
    releases = release_file.read_all(lambda path: changed.get(path) or tree.read(path), app, environment)
    if wrong := [f"{folder}: {identity(i)}: {path}: {fault}" for i, path, fault in effect.unnamed(after, releases)]:
        raise Refused(*wrong)

"""Releases in the history of the repository: what ran where, since when, and what may run where next."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import MAXYEAR, UTC, datetime
from itertools import product

from gitops.releases import hold, moved, release_file
from gitops.releases.judgement import Moment, Place
from gitops.releases.release import Release, Target
from gitops.repo import layout, snapshot
from gitops.repo.git import Change, Git
from gitops.repo.policy import Policy
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

Ids = Mapping[str, str]
"""Of the blobs of files, by path."""
_States = list[tuple[Change, Ids]]


def _states(changes: Sequence[Change]) -> _States:
    """Commits that changed some files, taken and returned newest first, each with all of them as it left them."""
    found: _States = []
    now: dict[str, str | None] = {}
    for change in changes[::-1]:
        now |= change.files
        found.append((change, {path: blob for path, blob in now.items() if blob}))
    return found[::-1]


def _before(changes: Iterable[Change], there: Ids) -> dict[str, str | None]:
    """The blobs before these commits, given newest first, and those in the end."""
    now: dict[str, str | None] = dict(there)
    for change in changes:
        now |= change.before
    return now


def _ids_at(git: Git, rev: str, paths: Iterable[str]) -> dict[str, str]:
    return {path: blob for _, blob, path in git.entries(rev, *paths)}


def _reader(blobs: Mapping[str, bytes], state: Ids) -> Callable[[str], bytes | None]:
    return lambda path: blobs[state[path]] if path in state else None


def ever(git: Git, rev: str) -> set[Release]:
    """What any target ever ran up to `rev`, canaries and apps that are gone included, without the file."""
    states = {(place, tuple(ids.items())) for _, place, ids in _of_places(git, rev)}
    blobs = git.blobs(blob for _, ids in states for _, blob in ids)
    found: set[Release] = set()
    for place, ids in states:
        with contextlib.suppress(Refused):  # an older form of the file; it names no release that could be compared
            found.update(item for item in release_file.read_all(_reader(blobs, dict(ids)), *place) if item.released)
    return found


def texts_since(git: Git, rev: str, start: datetime) -> list[bytes]:
    """What stood at some time since `start`, up to `rev`, in the files that releases can be in, those of apps that are
    gone included.

    No commit counts as older than one before it, and one whose date is no time as new, so that a wrong clock makes it
    more and not less.
    """
    before: dict[Place, Ids] = {}
    since: list[Ids] = []
    newest = datetime.min.replace(tzinfo=UTC)
    for change, place, ids in _of_places(git, rev):
        time = time_of(change)
        newest = max(newest, time or newest)
        if time is None or newest >= start:
            since += [before.pop(place), ids] if place in before else [ids]
        else:
            before[place] = ids
    blobs = {blob for ids in (*before.values(), *since) for blob in ids.values()}
    return list(git.blobs(blobs).values())


def first_released(git: Git, rev: str, digests: Iterable[str]) -> dict[str, Change]:
    """The commit up to `rev` that first released the version of each of these digests anywhere, for all callers."""
    states, left = _of_places(git, rev), set(digests)
    blobs = git.blobs(blob for _, _, ids in states for blob in ids.values())
    found: dict[str, Change] = {}
    for change, place, ids in states:
        if not left:
            break
        # Reading takes long, and only what has an escape can have a digest that is not in its bytes.
        texts = [blobs[blob] for blob in ids.values()]
        if not any(b"\\" in text or not left.isdisjoint(map(bytes.decode, _DIGEST.findall(text))) for text in texts):
            continue
        own = [item for item in release_file.readable(_reader(blobs, ids), *place) if item.canary is None]
        for item in own:
            if item.digest in left:
                found[item.digest] = change
                left.discard(item.digest)
    return found


_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")


def _of_places(git: Git, rev: str) -> list[tuple[Change, Place, Ids]]:
    """Every commit that changed where a release can be, oldest first, with the place and what it had then."""
    found: list[tuple[Change, Place, Ids]] = []
    now: dict[str, str | None] = {}
    for change in reversed(git.changes(rev, "overlays")):
        now |= change.files
        places = {place: None for path in change.files if (place := layout.place(path))}
        found += [(change, place, _ids(now, place)) for place in places]
    return found


class Ran:
    """What targets ran from each commit up to `rev` on, with the holds of their apps. What a merged branch tried on its
    way never ran: a merge counts as one commit, the one in which it arrived. All environments of an app are read at
    once: most are asked for. Those of `apps` are read while others look at something else, which in a long history
    takes as long as all of it."""

    def __init__(self, git: Git, rev: str, policy: Policy, apps: Iterable[str] = ()) -> None:
        self._git, self._rev, self._policy = git, rev, policy
        self._environments = policy.environments
        self._read: dict[str, Future[tuple[dict[str, _States], Mapping[str, bytes]]]] = {}
        self._pool = ThreadPoolExecutor(1)
        self._moments: dict[Target, list[Moment]] = {}
        if asked := list(dict.fromkeys(apps)):
            self._start(asked)

    def __call__(self, target: Target) -> list[Moment]:
        """Oldest first. Of a place that was moved, what it ran before comes first, as if it had run here."""
        if target not in self._moments:
            self._moments[target] = self._all(target)
        return self._moments[target]

    def _all(self, target: Target) -> list[Moment]:
        found = self._here(target)
        first = found[0][1].release if found else None
        # Most begin unreleased, and have not been elsewhere.
        origin = first and moved.origin(self._git, found[0][0].commit, first, self._policy)
        moments = [moment for _, moment in found]
        return [*self._before(target, *origin), *moments] if origin else moments

    def _before(self, target: Target, commit: str, origin: Target) -> list[Moment]:
        there = Ran(self._git, commit, self._policy)(origin)
        here = vars(target) | {"file": layout.release_paths(target.app, target.environment)[0]}
        return [replace(one, release=one.release and replace(one.release, **here)) for one in there]

    def _here(self, target: Target) -> list[tuple[Change, Moment]]:
        states, blobs = self._states(target)
        place, held = (target.app, target.environment), hold.path(target.app, target.environment)
        paths = (*layout.release_paths(*place), held)
        found = []
        for change, state in states[::-1]:
            if change.files.keys().isdisjoint(paths):
                continue
            show = _reader(blobs, state)
            with contextlib.suppress(Refused):  # as in `ever`
                there = release_file.find(show, *place)
                item = release_file.read(there[1], target, there[0]) if there else None
                found.append((change, Moment(item if item and item.released else None, show(held), time_of(change))))
        return found

    def _states(self, target: Target) -> tuple[_States, Mapping[str, bytes]]:
        if target.environment not in self._environments:
            self._environments, self._read = (*self._environments, target.environment), {}
        if target.app not in self._read:
            self._start([target.app])
        states, blobs = self._read[target.app].result()
        return states[target.app], blobs

    def _start(self, apps: Sequence[str]) -> None:
        self._read |= dict.fromkeys(apps, self._pool.submit(self._load, apps))

    def _load(self, apps: Sequence[str]) -> tuple[dict[str, _States], Mapping[str, bytes]]:
        places = product(apps, self._environments)
        owners = {path: place[0] for place in places for path in (*layout.release_paths(*place), hold.path(*place))}
        changes: dict[str, list[Change]] = {app: [] for app in apps}
        for change in _changes(self._git, self._rev, owners):
            of_app: dict[str, dict[str, str | None]] = {}
            for path in change.files.keys() & owners.keys():
                of_app.setdefault(owners[path], {})[path] = change.files[path]
            for app, files in of_app.items():
                changes[app].append(replace(change, files=files))
        states = {app: _states(found) for app, found in changes.items()}
        blobs = (blob for found in states.values() for _, state in found for blob in state.values())
        return states, self._git.blobs(blobs)


def time_of(change: Change) -> datetime | None:
    """When a commit was made; None for a date that is no time, as anybody can write one into a commit."""
    with contextlib.suppress(ValueError):
        found = datetime.fromisoformat(change.date)
        # With room for what is reckoned with it.
        return found if found.year < MAXYEAR - 100 else None
    return None


def _changes(git: Git, rev: str, paths: Collection[str], most: int | None = None) -> list[Change]:
    """The commits that changed these files, and maybe others."""
    # Git compares paths with every commit, so that many of them cost more than all.
    return git.changes(rev, *(sorted(paths) if len(paths) <= _FEW else ("overlays",)), most=most)


def introduced(git: Git, base: str, head: str) -> list[tuple[str, Release]]:
    """(commit, release) of what each commit of `head` that `base` lacks releases and none of its parents had. Raises
    Refused for a path that git prints in quotes."""
    command = ("log", "--full-history", "-m", "--no-renames", "--name-only", "--format=%x00%H %P")
    listed = git.text(*command, f"{base}..{head}", "--", "overlays")
    changed: dict[str, set[Place]] = {}
    for block in filter(None, listed.split("\0")):
        commits, *paths = block.splitlines()
        if quoted := [path for path in paths if path.startswith('"')]:
            raise Refused(f"{quoted[0]}: no name that a file of a release can have; make the branch anew without it")
        changed.setdefault(commits, set()).update(filter(None, map(layout.place, paths)))
    found = []
    for commits, places in changed.items():
        commit, *parents = commits.split()
        for place in sorted(places):
            before = {
                item for parent in parents for item in release_file.readable(snapshot.at(git, parent).read, *place)
            }
            after = release_file.readable(snapshot.at(git, commit).read, *place)
            found += [(commit, item) for item in after if item not in before]
    return found


def naming(there: Snapshot, versions: Iterable[str]) -> set[Place]:
    """Where a release file may name one of these versions, be it with an escape."""
    words = [version.encode() for version in versions]
    files = there.mentioning([*words, b"\\"] if words else [], "overlays")
    return {place for path in files if (place := layout.place(path))}


def all_at(git: Git, rev: str, places: Container[Place] | None = None) -> list[Release]:
    """Every release that a commit names, or of these places, in the order of the environments."""
    return read_at(git, rev, [each for each in files_at(git, rev) if places is None or each[0] in places])


def read_at(git: Git, rev: str, files: Sequence[tuple[Place, str]]) -> list[Release]:
    """Every release that these files have in a commit."""
    texts = git.show_all([f"{rev}:{file}" for _, file in files])
    found = []
    for (place, file), text in zip(files, texts, strict=True):
        found += release_file.read_all({file: text}.get, *place)
    return found


def files_at(git: Git, rev: str) -> list[tuple[Place, str]]:
    """Where a commit has releases, unreleased ones included, and the file of each, in the order of the environments."""
    there = snapshot.at(git, rev)
    order = {environment: number for number, environment in enumerate(there.policy.environments)}
    files = set(there.files("overlays"))
    places = sorted(
        {place for path in files if (place := layout.place(path)) and place[1] in order},
        key=lambda place: (order[place[1]], place[0]),
    )
    # Few have it in their kustomization, and no release at all have those without an app.
    others = {
        place: layout.release_paths(*place)[1] for place in places if layout.release_paths(*place)[0] not in files
    }
    named = [place for place in others if others[place] in files]
    texts = dict(zip(named, git.show_all([f"{rev}:{others[place]}" for place in named]), strict=True))
    images = {place for place, text in texts.items() if text and release_file.keeps_images(text, others[place])}
    return [
        (place, others.get(place, layout.release_paths(*place)[0]))
        for place in places
        if place not in others or place in images
    ]


def with_changes(git: Git, rev: str, files: Sequence[tuple[Place, str]]) -> list[tuple[Release, Change]]:
    """Every release that these files have in a commit, with the commit that brought it, as `since` tells it."""
    with ThreadPoolExecutor(1) as pool:
        # Reading many of them takes about as long as the history.
        changes = pool.submit(git.changes, rev, "overlays") if len(files) > _FEW else None
        releases = read_at(git, rev, files)
        arrived = _since(git, releases, changes.result(), {}) if changes else since(git, rev, releases)
    return [(item, change) for item, change in zip(releases, arrived, strict=True) if change]


def since(git: Git, rev: str, releases: Sequence[Release]) -> list[Change]:
    """The commit of the deployed branch that brought each of the releases that `rev` names; a merge counts as the
    moment it arrived, and a commit that changed something else of the file does not count."""
    paths = {path for item in releases for path in layout.release_paths(item.app, item.environment)}
    # Of a few, the newest changes tell, and to find those git need not look at the whole history.
    most = 2 * len(releases) if len(paths) <= _FEW else None
    while True:
        changes = _changes(git, rev, paths, most)
        there = {} if most is None else _ids_at(git, rev, paths)
        found = _since(git, releases, changes, there)
        if most is None or len(changes) < most or None not in found:
            return [change for change in found if change]
        most *= 8


_FEW = 20


def _since(
    git: Git, releases: Sequence[Release], changes: Sequence[Change], there: Mapping[str, str]
) -> list[Change | None]:
    """The commit, of these, that brought each release, None where it is an earlier one. `there` has the blobs that are
    in the end, of files that none of them may have changed."""
    now = _before(changes, there)
    places = {(item.app, item.environment) for item in releases}
    states: dict[Place, list[tuple[Change | None, Ids]]] = {place: [(None, _ids(now, place))] for place in places}
    for change in reversed(changes):
        now |= change.files
        for place in {place for path in change.files if (place := layout.place(path)) in states}:
            states[place].append((change, _ids(now, place)))
    blobs = git.blobs(blob for found in states.values() for _, state in found for blob in state.values())
    return [_arrived(item, states[item.app, item.environment], blobs) for item in releases]


def _ids(blobs: Mapping[str, str | None], place: Place) -> Ids:
    return {path: blob for path in layout.release_paths(*place) if (blob := blobs.get(path))}


def _arrived(item: Release, states: Sequence[tuple[Change | None, Ids]], blobs: Mapping[str, bytes]) -> Change | None:
    # What the last of them left is what is there.
    arrived = states[-1][0]
    for change, state in reversed(states[:-1]):
        text = release_file.find(_reader(blobs, state), item.app, item.environment)
        # Reading takes long, and what has not the version is another release.
        if text is None or item.version.encode() not in text[1]:
            break
        try:
            if release_file.read(text[1], item.target, text[0]) != item:
                break
        except Refused:
            continue
        arrived = change
    return arrived

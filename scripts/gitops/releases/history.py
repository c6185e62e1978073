"""Releases in the history of the repository: what ran where, since when, and what may run where next."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

from gitops.releases import hold, release_file
from gitops.releases.judgement import Moment, Place
from gitops.releases.release import Release, Target
from gitops.repo import layout, snapshot
from gitops.repo.git import Change, Git
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

Ids = Mapping[str, str]
"""Of the blobs of files, by path."""


def _states(git: Git, rev: str, *paths: str) -> list[tuple[Change, Ids]]:
    """The commits that changed these files, newest first, each with all of them as it left them."""
    found: list[tuple[Change, Ids]] = []
    now: dict[str, str | None] = {}
    for change in reversed(git.changes(rev, *paths)):
        now |= change.files
        found.append((change, {path: blob for path, blob in now.items() if blob}))
    return found[::-1]


def _reader(blobs: Mapping[str, bytes], state: Ids) -> Callable[[str], bytes | None]:
    return lambda path: blobs[state[path]] if path in state else None


def history(git: Git, rev: str, target: Target) -> Iterator[tuple[Change, Release]]:
    """(commit, release) for every release that this target had up to `rev`, newest first.

    What a merged branch tried on its way never ran: a merge counts as one commit, the one in which it arrived.
    """
    states = _states(git, rev, *layout.release_paths(target.app, target.environment))
    blobs = git.blobs(blob for _, state in states for blob in state.values())
    for change, state in states:
        with contextlib.suppress(Refused):  # an older form of the file; it names no release that could be compared
            if found := release_file.find(_reader(blobs, state), target.app, target.environment):
                yield change, release_file.read(found[1], target, found[0])


def ever(git: Git, rev: str) -> set[Release]:
    """What any target ever ran up to `rev`, canaries and apps that are gone included, without the file."""
    states: dict[tuple[Place, tuple[str | None, ...]], None] = {}
    now: dict[str, str | None] = {}
    for change in reversed(git.changes(rev, "overlays")):
        now |= change.files
        for place in {place for path in change.files if (place := layout.place(path))}:
            states[place, tuple(now.get(path) for path in layout.release_paths(*place))] = None
    blobs = git.blobs(blob for _, state in states for blob in state if blob)
    found: set[Release] = set()
    for place, state in states:
        files = {path: blob for path, blob in zip(layout.release_paths(*place), state, strict=True) if blob}
        with contextlib.suppress(Refused):  # an older form of the file, as in `history`
            found.update(item for item in release_file.read_all(_reader(blobs, files), *place) if item.released)
    return found


class Ran:
    """What targets ran from each commit up to `rev` on, with the holds of their apps, oldest first. Commits of merged
    branches do not count, as in `history`. All environments of an app are read at once: most are asked for."""

    def __init__(self, git: Git, rev: str, environments: Iterable[str]) -> None:
        self._git, self._rev, self._environments = git, rev, tuple(environments)
        self._read: dict[str, tuple[list[tuple[Change, Ids]], Mapping[str, bytes]]] = {}

    def __call__(self, target: Target) -> list[Moment]:
        states, blobs = self._states(target)
        place, held = (target.app, target.environment), hold.path(target.app, target.environment)
        paths = (*layout.release_paths(*place), held)
        found = []
        for change, state in states:
            if change.files.keys().isdisjoint(paths):
                continue
            show = _reader(blobs, state)
            with contextlib.suppress(Refused):  # an older form of the file, as in `history`
                there = release_file.find(show, *place)
                item = release_file.read(there[1], target, there[0]) if there else None
                found.append(Moment(item if item and item.released else None, show(held)))
        return found

    def _states(self, target: Target) -> tuple[list[tuple[Change, Ids]], Mapping[str, bytes]]:
        if target.app not in self._read:
            places = [(target.app, name) for name in dict.fromkeys([*self._environments, target.environment])]
            paths = [path for place in places for path in (*layout.release_paths(*place), hold.path(*place))]
            states = _states(self._git, self._rev, *paths)[::-1]
            self._read[target.app] = states, self._git.blobs(blob for _, state in states for blob in state.values())
        return self._read[target.app]


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


def places_at(git: Git, rev: str) -> list[Place]:
    """Where a commit has releases, unreleased ones included, in the order of the environments."""
    return [place for place, _ in _files_at(git, rev)]


def naming(there: Snapshot, versions: Iterable[str]) -> set[Place]:
    """Where a release file may name one of these versions."""
    files = there.mentioning([version.encode() for version in versions], "overlays")
    return {place for path in files if (place := layout.place(path))}


def all_at(git: Git, rev: str, places: Container[Place] | None = None) -> list[Release]:
    """Every release that a commit names, or of these places, in the order of the environments."""
    listed = [(place, file) for place, file in _files_at(git, rev) if places is None or place in places]
    texts = git.show_all([f"{rev}:{file}" for _, file in listed])
    found = []
    for (place, file), text in zip(listed, texts, strict=True):
        found += release_file.read_all({file: text}.get, *place)
    return found


def _files_at(git: Git, rev: str) -> list[tuple[Place, str]]:
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


def since(git: Git, rev: str, releases: Sequence[Release]) -> list[Change]:
    """The commit of the deployed branch that brought each of the releases that `rev` names; a merge counts as the
    moment it arrived, and a commit that changed something else of the file does not count."""
    chosen = {path for item in releases for path in layout.release_paths(item.app, item.environment)}
    # Git compares paths with every commit, so that many of them cost more than all.
    changes = git.changes(rev, *(chosen if len(chosen) <= _FEW else ("overlays",)))
    states: dict[Place, list[tuple[Change, Ids]]] = {}
    now: dict[str, str | None] = {}
    for change in reversed(changes):
        now |= {path: blob for path, blob in change.files.items() if path in chosen}
        for place in {place for path in change.files if path in chosen and (place := layout.place(path))}:
            files = {path: blob for path in layout.release_paths(*place) if (blob := now.get(path))}
            states.setdefault(place, []).append((change, files))
    blobs = git.blobs(blob for found in states.values() for _, state in found for blob in state.values())
    return [_arrived(item, states[item.app, item.environment], blobs) for item in releases]


_FEW = 20


def _arrived(item: Release, states: Sequence[tuple[Change, Ids]], blobs: Mapping[str, bytes]) -> Change:
    arrived = states[-1][0]
    for change, state in reversed(states):
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

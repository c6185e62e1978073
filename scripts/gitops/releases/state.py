"""What overlays run, read from their files and renders."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gitops.releases import hold, release_file, withdrawn
from gitops.releases.judgement import Place, State
from gitops.releases.release import Release, Target
from gitops.repo import layout

Show = Callable[[str], bytes | None]


def of(show: Show, places: Iterable[Place], images: Callable[[Place], frozenset[str]], readable: bool = False) -> State:
    """What these places run; `show` gives the bytes of a path, `images` those of a place's render. With `readable`,
    a release that cannot be read is nothing: all that follows it is new. Else it raises Refused."""
    read = release_file.readable if readable else release_file.read_all
    there = sorted(places)
    releases: dict[Target, Release] = {item.target: item for place in there for item in read(show, *place)}
    # No Application is made of what is unreleased; other folders are deployed as they are.
    mine = {place: releases.get(Target(*place)) for place in there}
    running = [place for place, item in mine.items() if item is None or item.released]
    holds = {place: text for place in there if (text := show(hold.path(*place))) is not None}
    return State(releases, holds, {place: images(place) for place in running}, withdrawn.read(show(layout.WITHDRAWN)))

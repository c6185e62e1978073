"""The releases that a target stands on, and what a rollback goes back to."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from gitops.releases import judgement, withdrawn
from gitops.releases.judgement import Moment
from gitops.releases.release import Release


def of(moments: Iterable[Moment]) -> list[Release]:
    """What a target stands on, the newest last, given what it had, oldest first: what it ran and was not taken back,
    whoever went back and however, by a command, a revert, a squash or by hand."""
    return [item for item in judgement.standing(moment for moment in moments if moment.release) if item]


def below(moments: Iterable[Moment], now: Release) -> list[Release]:
    """What a rollback of `now` can go to, the nearest first: what is below it, or all where nothing is released."""
    stack = of(moments)
    units = [item.unit for item in stack]
    end = units.index(now.unit) if now.unit in units else len(stack)
    return stack[:end][::-1]


def others(moments: Sequence[Moment], now: Release) -> list[Release]:
    """All that the target ever had but `now`, newest first, each once."""
    ran = [moment.release for moment in reversed(moments) if moment.release]
    found: dict[Release, Release] = {}
    for item in ran:
        if item.unit != now.unit:
            found.setdefault(item.unit, item)
    return list(found.values())


def good(releases: Iterable[Release], bad: Container[str]) -> list[Release]:
    """Those whose version is not withdrawn; `bad` has the keys of those that are."""
    return [item for item in releases if withdrawn.key(item.uri) not in bad]

"""Holds: a file beside a release that nobody may change, with who holds it, since when and why.

A rollback sets one, so that the next run of a pipeline does not bring back what was just taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import yaml

from gitops.manifests import yamledit
from gitops.manifests.objects import mapping
from gitops.repo import layout
from gitops.repo.git import Git

from contract.errors import Refused

FILE = "hold.yaml"
_FIELDS = ("reason", "by", "since")
# Git compares each path that it is given with every file.
_FEW = 20


@dataclass(frozen=True)
class Hold:
    reason: str
    by: str
    since: str
    """UTC, as in ISO 8601."""


def path(app: str, environment: str) -> str:
    return f"{layout.overlay(app, environment)}/{FILE}"


def write(app: str, environment: str, hold: Hold) -> bytes:
    how = f"python scripts/rollback_model.py --app {app} --env {environment} --release-hold"
    text = yaml.safe_dump({name: getattr(hold, name) for name in _FIELDS}, sort_keys=False, allow_unicode=True)
    return f"# Nothing is released here until `{how}`.\n{text}".encode()


def parse(text: bytes, file: str) -> Hold:
    """Raises Refused for a file that is no hold: it still holds."""
    data = yamledit.load(text, file)
    if not isinstance(data, dict) or set(data) != set(_FIELDS) or not all(isinstance(v, str) for v in data.values()):
        raise Refused(f"{file}: write the texts {', '.join(_FIELDS)} and nothing else, or remove the file")
    return Hold(**data)


def has(text: bytes) -> dict[str, str]:
    """The fields of a hold, for people to read: of a file that is none, those texts that it has all the same."""
    try:
        data = mapping(yamledit.load(text, FILE))
    except Refused:
        data = {}
    return {name: " ".join(str(data.get(name) or "").split()) for name in _FIELDS}


def all_at(git: Git, rev: str, places: Collection[tuple[str, str]] = ()) -> dict[tuple[str, str], bytes]:
    """The holds of a commit, by app and environment, or those of these places and maybe others."""
    few = [path(*place) for place in places] if len(places) <= _FEW else []
    paths = [file for file in git.files(rev, *(few or ["overlays"])) if file.endswith(f"/{FILE}")]
    texts = zip(map(layout.place, paths), git.show_all([f"{rev}:{file}" for file in paths]), strict=True)
    return {place: text for place, text in texts if place and text is not None}


def told(text: bytes, app: str, environment: str) -> str:
    """Who holds a release and why, and what ends that; what is wrong with a file that is no hold."""
    file = path(app, environment)
    try:
        parse(text, file)
    except Refused as refused:
        return refused.lines[0].removeprefix(f"{file}: ")
    found = has(text)
    return (
        f"held by {found['by']} since {found['since']}: {found['reason']}; when that is settled, run"
        f" `python scripts/rollback_model.py --app {app} --env {environment} --release-hold`"
    )


def require_none(show: Callable[[str], bytes | None], app: str, environment: str) -> None:
    """Raises Refused while a release is held; `show` gives the bytes of a path, if any."""
    file = path(app, environment)
    if (text := show(file)) is not None:
        raise Refused(f"{file}: {told(text, app, environment)}")

"""What rules look at, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gitops.manifests.objects import Object, identity
from gitops.repo.layout import ARGOCD, PLATFORM
from gitops.repo.policy import Policy


@dataclass(frozen=True, order=True)
class Finding:
    """One fault: where it is, what it is, and what to do about it."""

    rule: str
    where: str
    message: str
    folders: tuple[str, ...] = ()
    """The renders a change of which can have brought it; none of them named: any change."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.rule}]"


@dataclass(frozen=True)
class Repository:
    """A checkout with its renders: the objects of everything that is rendered, by folder."""

    root: Path
    policy: Policy
    renders: dict[str, list[Object]]

    def overlays(self) -> Iterator[tuple[str, str, str, list[Object]]]:
        """(folder, environment, app, objects) of every overlay."""
        for folder, items in self.renders.items():
            if folder not in (ARGOCD, PLATFORM):
                _, environment, app = folder.split("/")
                yield folder, environment, app, items


def finding(rule: str, folder: str, item: Object, message: str, *others: str) -> Finding:
    return Finding(rule, f"{folder}: {identity(item)}", message, (folder, *others))


Rule = Callable[[Repository], Iterator[Finding]]

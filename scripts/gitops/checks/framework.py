"""What rules look at, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gitops.manifests import closure, kinds, schemas
from gitops.manifests.kinds import Kinds
from gitops.manifests.objects import Object, identity
from gitops.repo import applications, layout
from gitops.repo.applications import Instance
from gitops.repo.policy import IN_CLUSTER, Policy
from gitops.repo.snapshot import OnDisk


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
    renders: Mapping[str, list[Object]]
    chosen: Collection[str] | None = None
    """The folders about which findings are asked for; None: all."""
    known: Mapping[str, Collection[str]] = field(default_factory=dict)
    """The files that renders read, where they are known."""
    listed: OnDisk | None = None
    """What is deployed, where it is listed already."""
    added: Kinds | None = None
    """The kinds that the fork adds, where they are read already."""

    @cached_property
    def files(self) -> OnDisk:
        """What is deployed, as it is now."""
        return self.listed or OnDisk(self.root)

    @cached_property
    def kinds(self) -> Kinds:
        """Those that the fork adds."""
        return self.added or kinds.read(self.root)

    @cached_property
    def schemas(self) -> Path:
        """The folder of the closed schemas, the fork's own included."""
        return schemas.folder(list(self.kinds.definitions.values()))

    def reads(self, folder: str) -> Collection[str]:
        """The files that a render reads."""
        return self.known[folder] if folder in self.known else closure.closure(self.files, folder)

    @cached_property
    def instances(self) -> list[Instance]:
        """Every Argo CD, the hub's first, but for those whose folders are missing, which the rule of paths names."""
        hub, *others = applications.instances(self.policy)
        return [hub, *[each for each in others if each.folder in self.renders]]

    def clusters(self) -> Iterator[tuple[str, str, list[Object]]]:
        """(cluster, folder, objects) of what each cluster itself has, where that folder is there."""
        for cluster in (IN_CLUSTER, *self.policy.clusters):
            if (folder := layout.platform(cluster)) in self.renders:
                yield cluster, folder, self.renders[folder]

    def installed(self, cluster: str) -> list[Object]:
        """What a cluster has, with the Applications of its add-ons."""
        return [item for folder in layout.brought(cluster) for item in self.renders.get(folder, [])]

    @cached_property
    def _goals(self) -> dict[str, str]:
        """By folder of argocd/, the cluster to which its objects go."""
        return {
            folder: each.cluster if "server" in goal else goal["name"]
            for each in applications.instances(self.policy)
            for folder, goal in each.taken().values()
        }

    def cluster_of(self, folder: str) -> str:
        """The cluster to which Argo CD applies the objects of a render."""
        if layout.is_of_argocd(folder):
            return self._goals[folder]
        return self.policy.at(folder.split("/")[1]).cluster

    def of_argocd(self) -> Iterator[tuple[str, list[Object]]]:
        """(folder, objects) of what keeps Argo CD and the clusters, and is no overlay."""
        return ((folder, items) for folder, items in self.renders.items() if layout.is_of_argocd(folder))

    def folders(self) -> Iterator[tuple[str, list[Object]]]:
        """(folder, objects) of everything that is asked for."""
        return (
            (folder, items) for folder, items in self.renders.items() if self.chosen is None or folder in self.chosen
        )

    def overlays(self) -> Iterator[tuple[str, str, str, list[Object]]]:
        """(folder, environment, app, objects) of every overlay that is asked for."""
        return _overlays(self.folders())

    def all_overlays(self) -> Iterator[tuple[str, str, str, list[Object]]]:
        """The same of all there are: an object may clash with one of an overlay that is not asked for."""
        return _overlays(self.renders.items())


def _overlays(renders: Iterable[tuple[str, list[Object]]]) -> Iterator[tuple[str, str, str, list[Object]]]:
    for folder, items in renders:
        if not layout.is_of_argocd(folder):
            _, environment, app = folder.split("/")
            yield folder, environment, app, items


def finding(rule: str, folder: str, item: Object, message: str, *others: str) -> Finding:
    return Finding(rule, f"{folder}: {identity(item)}", message, (folder, *others))


Rule = Callable[[Repository], Iterator[Finding]]

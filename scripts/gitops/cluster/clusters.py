"""The API servers of the clusters that a policy names."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gitops.repo import applications
from gitops.repo.policy import IN_CLUSTER, Policy

from contract.errors import Refused

if TYPE_CHECKING:
    from gitops.cluster.kube import Cluster


def add_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument("--kubeconfig", type=Path, help="default: $KUBECONFIG, or ~/.kube/config")
    parser.add_argument(
        "--context",
        action="append",
        default=[],
        metavar="[CLUSTER=]CONTEXT",
        help="of the cluster in which the hub's Argo CD runs (default: the current one), or of another one of the"
        " policy (default: the context of its name); may be given several times",
    )


def asked(args: argparse.Namespace, policy: Policy) -> Clusters:
    """Those of the options. What begins with no cluster's name is a context of the hub's."""
    contexts = {}
    for text in args.context:
        # A context may have a = in its name, as some have a / or a :.
        name, _, context = text.partition("=")
        known = name in policy.clusters or name == IN_CLUSTER
        contexts.update({name: context} if context and known else {IN_CLUSTER: text})
    return Clusters(policy, args.kubeconfig, contexts)


@dataclass
class Clusters:
    """The API servers of a policy's clusters, each looked up when it is asked for."""

    policy: Policy
    kubeconfig: Path | None = None
    contexts: Mapping[str, str] = field(default_factory=dict)
    """By cluster, where it is not the context of its name, or for the hub's own the current one."""
    _found: dict[str, Cluster] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Cluster:
        """The API server of a cluster. Raises Refused where the kubeconfig does not have it."""
        from gitops.cluster.kube import Cluster  # most commands that could ask a cluster do not

        if name not in self._found:
            context = self.contexts.get(name, None if name == IN_CLUSTER else name)
            try:
                self._found[name] = Cluster(self.kubeconfig, context)
            except Refused as refused:
                remedy = f"; --context {name}=CONTEXT names another one" if context == name else ""
                raise Refused(*[f"{line}{remedy}" for line in refused.lines]) from None
        return self._found[name]

    def on(self, environment: str) -> tuple[str, ...]:
        """The names of the cluster that has an environment's Argo CD, and of that which runs its apps."""
        serving = applications.of_environment(self.policy, environment).cluster
        return tuple(dict.fromkeys((serving, self.policy.at(environment).cluster)))

    def away(self, environments: Iterable[str]) -> dict[str, str]:
        """Of the clusters of these environments, those that do not answer, and in words why. Raises Refused where none
        does."""
        asked = dict.fromkeys(name for environment in environments for name in self.on(environment))
        found = {name: fault for name in asked if (fault := self.fault(name))}
        if found and found.keys() == asked.keys():
            raise Refused(*found.values())
        return found

    def fault(self, name: str) -> str:
        """Why a cluster does not answer; empty where it does."""
        try:
            return self[name].unready()
        except Refused as refused:
            return refused.lines[0]

    def argocd(self, environment: str) -> Cluster:
        """Where the Application of an environment's app is."""
        return self[self.on(environment)[0]]

    def live(self, environment: str) -> Cluster:
        """Where what an environment runs is."""
        return self[self.policy.at(environment).cluster]

"""Hand a cluster over to Git: apply argocd/ once, and wait until Argo CD has taken over.

The cluster has Argo CD already, and gets everything else from argocd/platform/. What is applied is applied on the
server, so running it again changes nothing but what somebody else has changed.

The clusters that this Argo CD serves too, those with `argocd: hub` in overlays/promotion.yaml, are made known to it: an
account of its own there, and how to come in as it. A cluster with `argocd: own` is handed over by itself.

  python scripts/bootstrap.py
  python scripts/bootstrap.py --context my-cluster --wait 1800
  python scripts/bootstrap.py --rotate                                   new tokens for the clusters that are served
  python scripts/bootstrap.py --aws-role eu=arn:aws:iam::444455556666:role/argocd-eu       on EKS, without a token
  python scripts/bootstrap.py --cluster us
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from gitops import cli
from gitops.cluster import clusters, installed, kube, registered
from gitops.cluster.kube import Cluster
from gitops.manifests import kustomize
from gitops.manifests.objects import Object, at, leaves
from gitops.repo import applications, layout
from gitops.repo.applications import Instance
from gitops.repo.policy import IN_CLUSTER, POLICY_FILE, Policy, read_policy

from contract.errors import Refused

APPLICATION = ("argoproj.io/v1alpha1", "Application")
PROJECTS = ("platform", "addons")
SET = ("argoproj.io/v1alpha1", "ApplicationSet")
OTHERS = (
    "takes from this repository and is not in argocd/, so that nobody checks what it takes; run"
    " `kubectl delete applicationset {name} -n argocd --cascade=orphan`, which leaves every Application"
)
INSTALL = "kubectl create namespace argocd; kubectl apply --server-side -n argocd -k '{source}?ref={version}'"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    clusters.add_options(parser)
    parser.add_argument("--cluster", metavar="NAME", help="with an Argo CD of its own (default: the hub's)")
    parser.add_argument("--rotate", action="store_true", help="a new token for each cluster that the hub serves")
    role = "the role of an access entry of EKS, in the place of a token"
    parser.add_argument("--aws-role", action="append", default=[], metavar="CLUSTER=ARN", help=role)
    parser.add_argument("--wait", type=float, default=900, metavar="SECONDS", help="at most so long (%(default)s)")
    return cli.run(bootstrap, parser.parse_args(argv))


def bootstrap(args: argparse.Namespace) -> None:
    policy = read_policy(args.root)
    instance, there = _instance(policy, args.cluster), clusters.asked(args, policy)
    roles = _roles(args.aws_role, instance)
    cluster = there[instance.cluster]
    cli.say(f"{cluster.server}: Kubernetes {cluster.version()}")
    if not cluster.has(*APPLICATION):
        raise Refused(f"{cluster.server}: Argo CD is not installed; run `{_install(args.root, instance)}`")
    # Its settings first: without them it would not wait for one wave of add-ons before the next.
    objects = kustomize.rendered(args.root, instance.folder)
    if others := _others(cluster, objects):
        raise Refused(*[f"ApplicationSet {name}: {OTHERS.format(name=name)}" for name in others])
    away = {name: fault for name in instance.served if (fault := there.fault(name))}
    for name in instance.served:
        if name not in away:
            registered.register(cluster, there[name], name, objects, roles.get(name, ""), rotate=args.rotate)
            cli.say(f"{there[name].server}: the cluster {name}, which this Argo CD serves")
    kube.apply_all(cluster, [installed.settings(args.root), *objects])
    _settle(args, cluster, {f"{kind}-{name}" for kind in PROJECTS for name in away} | _sets(policy, away))
    if away:
        remedy = "run this again when it is back; what it runs goes on meanwhile"
        raise Refused(*[f"cluster {name}: {fault}; {remedy}" for name, fault in away.items()])
    cli.say("Argo CD keeps argocd/, the environments and every release in step with Git from now on")


def _instance(policy: Policy, name: str | None) -> Instance:
    """The Argo CD of a cluster; without a name, the hub's."""
    found = {each.cluster: each for each in applications.instances(policy)}
    if name is None or name in found:
        return found[name or IN_CLUSTER]
    known = ", ".join(each for each in found if each != IN_CLUSTER) or "none"
    raise Refused(f"--cluster {name}: no cluster with `argocd: own` in {POLICY_FILE}; there is {known}")


def _roles(texts: Sequence[str], instance: Instance) -> dict[str, str]:
    """By cluster. Raises Refused without a role, and for a cluster that this Argo CD does not serve."""
    found = dict(text.partition("=")[::2] for text in texts)
    for name, role in found.items():
        if name not in instance.served:
            raise Refused(f"--aws-role {name}: no cluster that this Argo CD serves; write CLUSTER=ARN")
        if not role:
            raise Refused(f"--aws-role {name}: no role; write CLUSTER=ARN")
    return found


def _sets(policy: Policy, away: Collection[str]) -> set[str]:
    """The ApplicationSets of the environments of these clusters."""
    names = [name for name in policy.environments if policy.at(name).cluster in away]
    return {applications.set_name(name, which) for name in names for which in applications.TEMPLATES}


def _settle(args: argparse.Namespace, cluster: Cluster, others: Collection[str]) -> None:
    """Waits until Argo CD keeps all but these. Raises Refused with what it does not keep in time."""
    end = time.monotonic() + args.wait
    again = time.monotonic()
    while left := _unsettled(cluster, others):
        if time.monotonic() > end:
            raise Refused(*[f"{line}, after {args.wait:.0f} s" for line in left])
        if time.monotonic() > again:
            _try_again(cluster)
            again = time.monotonic() + 5
        cli.progress(left[0])
        time.sleep(0.5)
    cli.progress("")


def _others(cluster: Cluster, objects: Sequence[Object]) -> list[str]:
    """The ApplicationSets of the cluster that take from this repository and that it does not have itself."""
    root = next(item for item in objects if item["kind"] == "Application" and item["metadata"]["name"] == "root")
    own = {item["metadata"]["name"] for item in objects if item["kind"] == "ApplicationSet"}
    found = {
        str(item["metadata"]["name"])
        for item in cluster.list(*SET, "argocd")
        if root["spec"]["source"]["repoURL"] in leaves(item["spec"]).values()
    }
    return sorted(found - own)


def _install(root: Path, instance: Instance) -> str:
    """The command that installs the version that Argo CD will keep itself at."""
    addons = kustomize.rendered(root, layout.platform(instance.cluster))
    source = next(at(item, "spec", "source") for item in addons if item["metadata"]["name"] == "argo-cd")
    folder = f"{source['repoURL'].removesuffix('.git')}/{source['path']}"
    return INSTALL.format(source=folder, version=source["targetRevision"])


def _unsettled(cluster: Cluster, others: Collection[str] = ()) -> list[str]:
    """What Argo CD has of the Applications that keep the others, and of the add-ons, as long as it is not what it
    should be, without these others."""
    found = [item for item in cluster.list(*APPLICATION, "argocd") if at(item, "spec", "project") in PROJECTS]
    lines = {} if any(at(item, "metadata", "name") == "root" for item in found) else {"root": "not there"}
    for item in found:
        status = item.get("status") or {}
        said = f"{at(status, 'sync', 'status') or 'not compared'}, {at(status, 'health', 'status') or 'not known'}"
        faults = [str(c.get("message")) for c in status.get("conditions") or [] if str(c.get("type")).endswith("Error")]
        if said != "Synced, Healthy" or faults:
            lines[str(at(item, "metadata", "name"))] = ": ".join([said, *faults])
    told = [f"Application {name}: {said}" for name, said in sorted(lines.items()) if name not in others]
    failed = {name: said for name, said in _failed(cluster).items() if name not in others}
    return [*told, *[f"ApplicationSet {name}: {said}" for name, said in failed.items()]]


def _failed(cluster: Cluster) -> dict[str, str]:
    """ApplicationSets that could not make their Applications, and why."""
    return {
        str(item["metadata"]["name"]): str(condition.get("message"))
        for item in cluster.list(*SET, "argocd")
        for condition in at(item, "status", "conditions") or []
        if (condition.get("type"), condition.get("status")) == ("ErrorOccurred", "True")
    }


def _try_again(cluster: Cluster) -> None:
    """Asks for another try of the ApplicationSets that failed: by itself Argo CD waits three minutes."""
    for name in _failed(cluster):
        asked = {"metadata": {"annotations": {"argocd.argoproj.io/application-set-refresh": "true"}}}
        cluster.patch(*SET, name, "argocd", asked)


if __name__ == "__main__":
    raise SystemExit(main())

"""Hand a cluster over to Git: apply argocd/ once, and wait until Argo CD has taken over.

The cluster has Argo CD already, and gets everything else from argocd/platform/. What is applied is applied on the
server, so running it again changes nothing but what somebody else has changed.

  python scripts/bootstrap.py
  python scripts/bootstrap.py --context my-cluster --wait 1800
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from gitops import cli
from gitops.cluster import installed, kube
from gitops.cluster.kube import Cluster
from gitops.manifests import kustomize
from gitops.manifests.objects import Object, at, leaves
from gitops.repo import layout

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
    parser.add_argument("--kubeconfig", type=Path, help="default: $KUBECONFIG, or ~/.kube/config")
    parser.add_argument("--context", help="default: the kubeconfig's current one")
    parser.add_argument("--wait", type=float, default=900, metavar="SECONDS", help="at most so long (%(default)s)")
    return cli.run(bootstrap, parser.parse_args(argv))


def bootstrap(args: argparse.Namespace) -> None:
    cluster = Cluster(args.kubeconfig, args.context)
    cli.say(f"{cluster.server}: Kubernetes {cluster.version()}")
    if not cluster.has(*APPLICATION):
        raise Refused(f"{cluster.server}: Argo CD is not installed; run `{_install(args.root)}`")
    # Its settings first: without them it would not wait for one wave of add-ons before the next.
    objects = kustomize.rendered(args.root, layout.ARGOCD)
    if others := _others(cluster, objects):
        raise Refused(*[f"ApplicationSet {name}: {OTHERS.format(name=name)}" for name in others])
    kube.apply_all(cluster, [installed.settings(args.root), *objects])
    end = time.monotonic() + args.wait
    again = time.monotonic()
    while left := _unsettled(cluster):
        if time.monotonic() > end:
            raise Refused(*[f"{line}, after {args.wait:.0f} s" for line in left])
        if time.monotonic() > again:
            _try_again(cluster)
            again = time.monotonic() + 5
        cli.progress(left[0])
        time.sleep(0.5)
    cli.progress("")
    cli.say("Argo CD keeps argocd/, the environments and every release in step with Git from now on")


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


def _install(root: Path) -> str:
    """The command that installs the version that Argo CD will keep itself at."""
    addons = kustomize.rendered(root, layout.PLATFORM)
    source = next(at(item, "spec", "source") for item in addons if item["metadata"]["name"] == "argo-cd")
    folder = f"{source['repoURL'].removesuffix('.git')}/{source['path']}"
    return INSTALL.format(source=folder, version=source["targetRevision"])


def _unsettled(cluster: Cluster) -> list[str]:
    """What Argo CD has of the Applications that keep the others, and of the add-ons, as long as it is not what it
    should be."""
    found = [item for item in cluster.list(*APPLICATION, "argocd") if at(item, "spec", "project") in PROJECTS]
    lines = {} if any(at(item, "metadata", "name") == "root" for item in found) else {"root": "not there"}
    for item in found:
        status = item.get("status") or {}
        said = f"{at(status, 'sync', 'status') or 'not compared'}, {at(status, 'health', 'status') or 'not known'}"
        faults = [str(c.get("message")) for c in status.get("conditions") or [] if str(c.get("type")).endswith("Error")]
        if said != "Synced, Healthy" or faults:
            lines[str(at(item, "metadata", "name"))] = ": ".join([said, *faults])
    applications = [f"Application {name}: {said}" for name, said in sorted(lines.items())]
    return [*applications, *[f"ApplicationSet {name}: {said}" for name, said in _failed(cluster).items()]]


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

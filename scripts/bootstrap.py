"""Hand a cluster over to Git: apply argocd/ once, and wait until Argo CD has taken over.

The cluster has Argo CD, KServe and a controller for Ingress already. Everything is applied on the server, so running it
again changes nothing but what somebody else has changed.

  python scripts/bootstrap.py
  python scripts/bootstrap.py --context my-cluster --wait 600
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from gitops import cli, kube
from gitops.cli import Refused
from gitops.kube import Cluster
from gitops.rules import at

KINDS = {
    "Argo CD": ("argoproj.io/v1alpha1", "Application"),
    "KServe": ("serving.kserve.io/v1beta1", "InferenceService"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="default: $KUBECONFIG, or ~/.kube/config")
    parser.add_argument("--context", help="default: the kubeconfig's current one")
    parser.add_argument("--wait", type=float, default=300, metavar="SECONDS", help="at most so long (%(default)s)")
    return cli.run(bootstrap, parser.parse_args(argv))


def bootstrap(args: argparse.Namespace) -> None:
    cluster = Cluster(args.kubeconfig, args.context)
    cli.say(f"{cluster.server}: Kubernetes {cluster.version()}")
    if missing := [name for name, kind in KINDS.items() if not cluster.has(*kind)]:
        raise Refused(*[f"{cluster.server}: {name} is not installed; install it first" for name in missing])
    kube.bootstrap(cluster, args.root)
    end = time.monotonic() + args.wait
    while (said := _state(cluster)) != "Synced, Healthy":
        if time.monotonic() > end:
            raise Refused(f"Application root: {said} after {args.wait:.0f} s")
        cli.progress(f"Application root: {said}")
        time.sleep(0.5)
    cli.progress("")
    cli.say("Argo CD keeps argocd/, the environments and every release in step with Git from now on")


def _state(cluster: Cluster) -> str:
    """What Argo CD says of the Application that keeps all others."""
    status = (cluster.get("argoproj.io/v1alpha1", "Application", "root", "argocd") or {}).get("status") or {}
    faults = [str(c.get("message")) for c in status.get("conditions") or [] if str(c.get("type")).endswith("Error")]
    return ": ".join([f"{at(status, 'sync', 'status')}, {at(status, 'health', 'status')}", *faults])


if __name__ == "__main__":
    raise SystemExit(main())

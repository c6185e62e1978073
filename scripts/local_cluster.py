"""Start and stop Kubernetes, KServe and Argo CD, which syncs this repository, on this machine without Docker.

Argo CD watches a remote in .cluster/, made from this checkout's commit; work in its clone, .cluster/clone. Pods are
played by kwok: they become ready and run nothing. All state is in .cluster/, and every server listens on free ports.

  python scripts/local_cluster.py up        start what does not run, and wait until it is ready
  python scripts/local_cluster.py status    what runs, and whether it does its work
  python scripts/local_cluster.py logs kserve
  python scripts/local_cluster.py ui        open the Applications in Argo CD's API
  python scripts/local_cluster.py down      stop everything; `up` goes on where it was
  python scripts/local_cluster.py reset     stop everything and remove it
"""

from __future__ import annotations

import argparse
import sys
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from gitops import cli
from gitops.cluster.control_plane import ORDER, ControlPlane

from contract.errors import Refused


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument("action", choices=("up", "down", "status", "logs", "ui", "reset"))
    parser.add_argument("process", nargs="?", help="for logs: one of " + ", ".join(ORDER))
    parser.add_argument("--folder", type=Path, help="where it keeps its state (default: .cluster)")
    parser.add_argument("--lines", type=int, default=40, help="for logs: how many (%(default)s)")
    args = parser.parse_args(argv)
    if (args.action == "logs") != (args.process is not None):
        parser.error("a process is named for logs, and for nothing else")
    return cli.run(act, args)


def act(args: argparse.Namespace) -> int | None:
    plane = ControlPlane(args.root, (args.folder or args.root / ".cluster").resolve())
    if args.action == "status":
        return status(plane, args.json)
    if args.action == "up":
        up(plane)
    elif args.action == "logs":
        print(*plane.log(args.process, args.lines), sep="\n")
    elif args.action == "ui":
        ui(plane)
    elif args.action == "down":
        plane.down()
        cli.say("stopped; `up` goes on where it was, `reset` removes it")
    else:
        plane.reset()
        cli.say(f"stopped, and {plane.folder} removed")
    return None


def up(plane: ControlPlane) -> None:
    began = time.monotonic()
    plane.up()
    cli.say(f"ready after {time.monotonic() - began:.0f} s: {plane.cluster.version()} at {plane.cluster.server}")
    cli.say(f"Argo CD's API: http://{plane.address('argocd-server')}; its remote: {plane.remote}")
    cli.say(f"work in {plane.clone}")
    print(f"export KUBECONFIG={plane.kubeconfig}")


def ui(plane: ControlPlane) -> None:
    name = "argocd-server"
    if plane.processes.find(name) is None or not plane.process(name).ready():
        raise Refused(f"{name}: not running; run `make cluster`")
    # Its web pages are not in the module that it is built from.
    url = f"http://{plane.address(name)}/api/v1/applications"
    print(url)
    if sys.stdout.isatty():
        webbrowser.open(url)


def status(plane: ControlPlane, as_json: bool) -> int:
    rows = plane.status()
    if as_json:
        cli.print_json(rows)
    else:
        print(cli.table(rows))
    return 0 if all(row["state"] == "ready" for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""What GitHub sends to Argo CD after a push, sent to a control plane on this machine.

Source of the format: https://docs.github.com/en/webhooks/webhook-events-and-payloads#push
"""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Sequence

from gitops.cluster.control_plane import ControlPlane
from gitops.repo import publish

HOOKS = ("argocd-server", "argocd-applicationset-controller-webhook")


def send(plane: ControlPlane, before: str, after: str, hooks: Sequence[str] = HOOKS) -> None:
    """Tells Argo CD of a push to cicd: its API server, which asks for the Applications whose files it changes, and the
    controller of its ApplicationSets."""
    body = json.dumps(event(plane, before, after)).encode()
    headers = {"Content-Type": "application/json", "X-GitHub-Event": "push"}
    for name in hooks:
        request = urllib.request.Request(f"http://{plane.address(name)}/api/webhook", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200, (name, answer.status)


def event(plane: ControlPlane, before: str, after: str) -> dict[str, object]:
    changed = _git(plane, "diff", "--name-only", "--no-renames", before, after).splitlines()
    return {
        "ref": f"refs/heads/{publish.BRANCH}", "before": before, "after": after,
        # Argo CD looks for what follows the host of a page; the address of a file has `file` in its place.
        "repository": {"html_url": f"https://file/{plane.remote.as_uri().removeprefix('file:')}",
                       "default_branch": publish.BRANCH},
        "commits": [{"id": after, "added": [], "modified": changed, "removed": []}],
    }  # fmt: skip


def tip(plane: ControlPlane) -> str:
    """The newest commit of cicd in the remote."""
    return _git(plane, "rev-parse", f"refs/heads/{publish.BRANCH}").strip()


def _git(plane: ControlPlane, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=plane.remote, capture_output=True, text=True, check=True)
    return done.stdout

"""A remote on this machine, with the branches of this checkout."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from gitops.manifests.objects import KUSTOMIZATION
from gitops.repo import layout, publish
from gitops.repo.git import Git

# The Applications that bring add-ons, in what an Argo CD takes.
_OF_ADDONS = re.compile(rb"^ *- (platform|addons-.+)\.yaml\n", re.M)


def make_remote(root: Path, remote: Path, clone: Path) -> None:
    """A bare repository whose branches start at this checkout's commit, with an argocd/ on cicd that watches this very
    repository and has no add-ons, whose charts could not be fetched or would have nothing to run on, and a clone of it.
    Raises Refused for a shallow clone. Changes that are not committed are left out."""
    here = Git(root)
    here.require_full_history()
    shutil.rmtree(remote, ignore_errors=True)
    here.text("init", "-q", "--bare", f"--initial-branch={publish.BRANCH}", str(remote))
    here.text("push", "-q", str(remote), "HEAD:refs/heads/main", f"HEAD:refs/heads/{publish.BRANCH}")
    new = clone.with_name(f"{clone.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    here.text("clone", "-q", str(remote), str(new))
    there = Git(new)
    for name, value in {"user.name": "Local", "user.email": "local@example.com", "commit.gpgsign": "false"}.items():
        there.text("config", name, value)
    base = there.text("rev-parse", "HEAD")
    [source] = re.findall(rb"repoURL: (\S+)", there.show(base, f"{layout.ARGOCD}/root.yaml") or b"")
    files: dict[str, bytes | None] = {}
    for path in there.files(base, layout.ARGOCD):
        text = there.show(base, path) or b""
        changed = text.replace(source, remote.as_uri().encode())
        if path.endswith(f"{layout.ARGOCD}/{KUSTOMIZATION}"):
            changed = _OF_ADDONS.sub(b"", changed)
        if changed != text:
            files[path] = changed
    made = there.commit_tree(there.tree_with(base, files), base, "Let Argo CD watch this machine's remote\n")
    there.push(publish.REMOTE, made, publish.BRANCH)
    there.advance(publish.BRANCH, base, made)
    new.rename(clone)

"""Promote: carry an app's release from the environment before onto a branch, ready for a pull request to cicd.

The release (model version and image as one unit) is copied as it stands on cicd; its bytes are verified again. What
will change in the rendered manifests is printed, and the next command. Merging the branch is the promotion.

  python scripts/promote_model.py --app iris-sklearn --to staging
  python scripts/promote_model.py --app iris-sklearn --app iris-api --to prod --push
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from gitops import apply, cli, hold, layout, publish, release, store, versions
from gitops.cli import Refused
from gitops.diff import rendered_diffs
from gitops.git import Git
from gitops.release import Release
from gitops.store import Store


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--app", action="append", required=True, help="the app; may be given several times")
    parser.add_argument("--to", required=True, metavar="ENV", help="the environment to promote to")
    parser.add_argument("--push", action="store_true", help="push the branch to origin")
    return cli.run(promote, parser.parse_args(argv))


def promote(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    publish.require_clean(git)
    if args.push:
        publish.require_remote(git)
        git.fetch(publish.REMOTE, publish.BRANCH)
    base = publish.tip(git)
    apps = list(dict.fromkeys(args.app))

    def wanted(tree: Path, current: Callable[[str, str], Release], _: str) -> list[Release]:
        policy = layout.read_policy(tree)
        return [_carried(tree, policy, current, app, args.to) for app in apps]

    releases, files = apply.changes(git, base, wanted)
    if not releases:
        cli.say(f"nothing to promote: {args.to} runs this already")
        return
    tree = git.tree_with(base, files)
    branch = branch_name(args.to, releases)
    if not args.dry_run:
        commit = _existing(git, branch, tree) or git.commit_tree(tree, base, release.message("Promote", releases))
        if git.commit(f"refs/heads/{branch}") is None:
            git.text("update-ref", f"refs/heads/{branch}", commit, "")
        if args.push:
            git.push(publish.REMOTE, commit, branch)
    overlays = [layout.overlay(r.app, r.environment) for r in releases]
    diff = "".join(rendered_diffs(git, base, tree, overlays).values())
    if args.json:
        rows = [vars(r) for r in releases]
        cli.print_json({"branch": branch, "releases": rows, "diff": diff, "dry_run": args.dry_run})
        return
    print(diff, end="")
    if args.dry_run:
        cli.say(f"would make the branch {branch}")
    elif args.push:
        cli.say(f"pushed {branch}; next: open a pull request to {publish.BRANCH} and merge it")
    else:
        cli.say(f"made {branch}; next: git push {publish.REMOTE} {branch}, open a pull request to {publish.BRANCH}")


def _carried(tree: Path, policy: layout.Policy, current: Callable[[str, str], Release], app: str, to: str) -> Release:
    """The release that the environment before `to` runs, verified, as a release of `to`."""
    layout.require_app(tree, policy, app, to)
    hold.require_none(tree, app, to)
    source = policy.before(to)
    if source is None:
        raise Refused(f"--to {to}: the first environment; releases come to it by `python scripts/bump_model.py`")
    layout.require_app(tree, policy, app, source)
    carried = current(app, source)
    if not carried.released:
        raise Refused(
            f"{layout.release_path(app, source)}: {release.UNRELEASED}; {app} reaches {to} through {source},"
            " release it there first"
        )
    uri = versions.parse_uri(carried.uri.rstrip("/").rpartition("/")[0])
    flavour = apply.require_model(tree, app, to, uri, policy)
    manifest = store.verify(Store(uri.bucket), uri)
    if manifest.digest != carried.digest:
        raise Refused(
            f"{layout.release_path(app, source)}: digest: {carried.digest}, but {uri} has {manifest.digest};"
            " the version in the bucket is not the one that was released, do not promote it"
        )
    return release.make(app, to, flavour, manifest, carried.image)


def branch_name(environment: str, releases: Sequence[Release]) -> str:
    """One name per content, so that the same promotion asked for twice is one branch."""
    if len(releases) == 1:
        name = f"{releases[0].app}-{releases[0].version}"
    else:
        words = "\n".join(line for r in releases for line in r.trailers())
        name = f"{len(releases)}-apps-{hashlib.sha256(words.encode()).hexdigest()[:12]}"
    return f"promote/{environment}/{name}"


def _existing(git: Git, branch: str, tree: str) -> str | None:
    """The commit of a branch that already carries this very promotion. Raises Refused if it carries another one."""
    commit = git.commit(f"refs/heads/{branch}")
    if commit and git.text("rev-parse", f"{commit}^{{tree}}") != tree:
        raise Refused(
            f"branch {branch}: exists with other content; look at it, then drop it with `git branch -D {branch}`"
        )
    return commit


if __name__ == "__main__":
    raise SystemExit(main())

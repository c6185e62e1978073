"""Promote: carry an app's release from the environment before onto a branch for a pull request to cicd.

The release (model version and image as one unit) is copied as it stands on cicd; its bytes are verified again. What
will change in the rendered manifests is printed, and the next command. Merging the branch is the promotion.

  python scripts/promote_model.py --app wine-sklearn --to staging
  python scripts/promote_model.py --app wine-sklearn --app wine-api --to prod --push
  python scripts/promote_model.py --app wine-sklearn --to prod --canary next --push
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence

from gitops import cli
from gitops.releases import hold, release, verification, writing
from gitops.releases.history import Ran
from gitops.releases.release import Release, Target
from gitops.releases.writing import Tree
from gitops.repo import layout, publish
from gitops.repo.diff import rendered_diffs
from gitops.repo.git import Git

from contract.errors import Refused


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--app", action="append", required=True, help="the app; may be given several times")
    parser.add_argument("--to", required=True, metavar="ENV", help="the environment to promote to")
    parser.add_argument("--canary", metavar="NAME", help="to the canary of that name there")
    parser.add_argument("--push", action="store_true", help="push the branch to origin")
    return cli.run(promote, parser.parse_args(argv))


def promote(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    publish.require_clean(git)
    base = publish.base_of_branch(git, push=args.push)
    apps = list(dict.fromkeys(args.app))
    old_form: list[Release] = []

    def wanted(tree: Tree, _: Ran) -> list[Release]:
        carried = [_carried(tree, Target(app, args.to, args.canary)) for app in apps]
        old_form[:] = [source for source, _ in carried if source.manifest is None]
        return [new for _, new in carried]

    change = writing.prepare(git, base, wanted, apps)
    releases = change.releases
    branch = branch_name(args.to, releases) if releases else None
    diff = ""
    if branch:
        tree = git.tree_with(base, change.files)
        overlays = [layout.overlay(r.app, r.environment) for r in releases]
        diff = "".join(rendered_diffs(git, base, tree, overlays).values())
        made = _made_before(git, base, branch, change.files, args.push)
        if not args.dry_run:
            made = made or git.commit_tree(tree, base, change.message("Promote"))
            _write(git, branch, made, args.push)
    if args.json:
        rows = [vars(r) for r in releases]
        cli.print_json({"branch": branch, "releases": rows, "diff": diff, "dry_run": args.dry_run})
        return
    print(diff, end="")
    for item in old_form if branch else ():
        cli.say(item.old_form_told())
    if branch is None:
        cli.say(f"nothing to promote: {args.to} runs this already")
    elif args.dry_run:
        cli.say(f"would make the branch {branch}")
    elif args.push:
        cli.say(f"pushed {branch}; next: open a pull request to {publish.BRANCH} and merge it")
    else:
        cli.say(f"made {branch}; next: git push {publish.REMOTE} {branch}, open a pull request to {publish.BRANCH}")


def _carried(tree: Tree, target: Target) -> tuple[Release, Release]:
    """The release that the environment before the target's runs, verified, and as a release of the target. A canary
    gets what all callers get there: what ran as a canary only is not promoted."""
    app, to = target.app, target.environment
    now = tree.release(target)
    hold.require_none(tree.read, app, to)
    source = tree.policy.before(to)
    if source is None:
        raise Refused(f"--to {to}: the first environment; releases come to it by `python scripts/bump_model.py`")
    carried = tree.release(Target(app, source))
    if not carried.released:
        raise Refused(
            f"{carried.file}: {release.UNRELEASED}; {app} reaches {to} through {source}, release it there first"
        )
    uri, manifest = verification.verify_release(carried, tree.signer)
    return carried, release.make(now, tree.require_model(target, uri), manifest, carried.image)


def branch_name(environment: str, releases: Sequence[Release]) -> str:
    """One name per content, so that the same promotion asked for twice is one branch."""
    if len(releases) == 1:
        name = "-".join(filter(None, [releases[0].app, releases[0].canary, releases[0].version]))
    else:
        words = "\n".join(line for r in releases for line in r.trailers())
        name = f"{len(releases)}-apps-{hashlib.sha256(words.encode()).hexdigest()[:12]}"
    return f"promote/{environment}/{name}"


def _made_before(git: Git, base: str, branch: str, files: Mapping[str, bytes], push: bool) -> str | None:
    """The commit of a branch, at origin or here, that already carries this very promotion.

    One that is merged is over, and moves on to the next promotion of its name. Raises Refused for any other content.
    """
    found = [(git.commit(f"refs/heads/{branch}"), f"git branch -D {branch}")]
    if push and git.remote_tip(publish.REMOTE, branch):
        git.fetch(publish.REMOTE, branch)
        theirs = git.commit(f"refs/remotes/{publish.REMOTE}/{branch}")
        found.insert(0, (theirs, f"git push {publish.REMOTE} --delete {branch}"))
    for commit, drop in found:
        if commit and not git.is_ancestor(commit, base):
            if not _carries(git, commit, base, files):
                raise Refused(f"branch {branch}: exists with other content; look at it, then drop it with `{drop}`")
            return commit
    return None


def _carries(git: Git, commit: str, base: str, files: Mapping[str, bytes]) -> bool:
    """Whether a commit changes these files and no others, to these bytes, from what they are in `base`."""
    parent = git.commit(f"{commit}^")
    return (
        parent is not None
        and git.changed(parent, commit) == sorted(files)
        and all(git.show(commit, path) == data for path, data in files.items())
        and all(git.show(parent, path) == git.show(base, path) for path in files)
    )


def _write(git: Git, branch: str, commit: str, push: bool) -> None:
    """Makes the branch; at origin first, so that nothing is left here when that is refused."""
    if push:
        git.push(publish.REMOTE, commit, branch)
    local = git.commit(f"refs/heads/{branch}")
    if local is None or (local != commit and git.is_ancestor(local, commit)):
        git.advance(branch, local, commit)


if __name__ == "__main__":
    raise SystemExit(main())

"""Promote: carry an app's release from the environments before onto a branch for a pull request to cicd.

The release (model version and image as one unit) is copied as it stands on cicd; its bytes are verified again. What
will change in the rendered manifests is printed, and the next command. Merging the branch is the promotion.

  python scripts/promote_model.py --app wine-sklearn --to staging
  python scripts/promote_model.py --app wine-sklearn --app wine-api --to prod --push
  python scripts/promote_model.py --model wine --to staging --push
  python scripts/promote_model.py --app wine-sklearn --to prod --canary next --push

--model promotes every app of the model that is released in the environments before, in one commit; they have to run one
version there.

Where an environment comes after several and they run different releases, --from names the one whose release is meant;
it must have come through all of them, and have run in each for as long as that one's `soak`.

Without an option the branch is made here. --push and --pull-request push it; --commit commits to cicd itself, here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gitops import cli
from gitops.releases import branches, hold, release, release_file, verification, writing
from gitops.releases.history import Ran
from gitops.releases.release import Release, Target
from gitops.releases.verification import Verified
from gitops.releases.writing import Tree
from gitops.repo import layout, publish, ways
from gitops.repo.diff import rendered_diffs
from gitops.repo.git import Git
from gitops.repo.publish import Draft, Way

from contract.errors import Refused


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--app", action="append", default=[], help="the app; may be given several times")
    which.add_argument("--model", metavar="NAME", help="all apps of this model, where they run one version")
    parser.add_argument("--to", required=True, metavar="ENV", help="the environment to promote to")
    parser.add_argument("--from", dest="source", metavar="ENV", help="whose release, where those before run several")
    parser.add_argument("--canary", metavar="NAME", help="to the canary of that name there")
    ways.add_options(parser, "the same as --pull-request")
    return cli.run(promote, parser.parse_args(argv))


def promote(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    publish.require_clean(git)
    asked = ways.chosen(args, git, Way.BRANCH, push=Way.PULL_REQUEST)
    apps = list(dict.fromkeys(args.app))
    old_form: list[Release] = []
    releases: list[Release] = []
    diffs: list[str] = []
    frozen: list[str] = []

    def wanted(tree: Tree, _: Ran) -> list[Release]:
        targets = [Target(app, args.to, args.canary) for app in apps or _of_model(tree, args)]
        verified: Verified = {}
        carried = [_carried(tree, target, args.source, verified) for target in targets]
        old_form[:] = [source for source, _ in carried if source.manifest is None]
        return [new for _, new in carried]

    def build(base: str) -> Draft | None:
        change = writing.prepare(git, base, wanted, apps)
        releases[:], frozen[:] = change.releases, change.frozen
        if not releases:
            return None
        tree = git.tree_with(base, change.files)
        overlays = [layout.overlay(r.app, r.environment) for r in releases]
        diffs[:] = rendered_diffs(git, base, tree, overlays).values()
        return Draft(tree, change.message("Promote"))

    published = publish.publish(git, build, asked, lambda: branches.of_releases("promote", releases))
    diff = "".join(diffs)
    if args.json:
        cli.print_json(ways.as_json(git, published) | {"releases": [vars(r) for r in releases], "diff": diff})
        return
    print(diff, end="")
    for item in old_form if releases else ():
        cli.say(item.old_form_told())
    what = [f"promote {item.version} to {item.target}" for item in releases]
    ways.tell(git, published, what, f"{args.to} runs this already")
    for line in frozen:
        cli.say(line)


def _of_model(tree: Tree, args: argparse.Namespace) -> list[str]:
    """The apps of a model that are released before the target's environment and have a place in it."""
    apps = [app for app in tree.apps if release_file.find(tree.read, app, args.to)]
    sources = _sources(tree, args.to, args.source)
    found = [item for name in sources for item in release_file.of_model(tree.read, apps, name, args.model)]
    release.require_one_version(found, args.model)
    return list(dict.fromkeys(item.app for item in found))


def _carried(tree: Tree, target: Target, source: str | None, verified: Verified) -> tuple[Release, Release]:
    """The release that those before the target's environment run, verified, and as a release of the target. A canary
    gets what all callers get there: what ran as a canary only is not promoted."""
    now = tree.release(target)
    hold.require_none(tree.read, target.app, target.environment)
    carried = _chosen(tree, target, source)
    uri, manifest = verification.verify_release(carried, tree.signer, verified)
    verification.require_replica(tree.policy, target.environment, uri, manifest, tree.signer)
    return carried, release.make(now, tree.require_model(target, uri), manifest, carried.image)


def _chosen(tree: Tree, target: Target, source: str | None) -> Release:
    """The one release of the environments before the target's, or that of `source`, one of them."""
    app, to = target.app, target.environment
    found = [tree.release(Target(app, name)) for name in _sources(tree, to, source)]
    if unreleased := [item for item in found if not item.released]:
        raise Refused(
            *[
                f"{item.file}: {release.UNRELEASED}; {app} reaches {to} through {item.environment}, release it there"
                " first"
                for item in unreleased
            ]
        )
    if any(item.unit != found[0].unit for item in found):
        running = "; ".join(f"{item.environment} runs {_named(item)}" for item in found)
        raise Refused(
            f"--to {to}: {app} reaches it through environments that run different releases: {running}; name the one"
            f" that is meant with --from, which must have come through {' and '.join(tree.policy.after(to))}"
        )
    # All are the same, and one of the old form lacks something.
    return next((item for item in found if item.manifest), found[0])


def _sources(tree: Tree, to: str, source: str | None) -> Sequence[str]:
    """The environments whose releases are promoted. Raises Refused where none can be."""
    layout.require_environment(tree.policy, to)
    after = tree.policy.after(to)
    if not after:
        raise Refused(f"--to {to}: the first environment; releases come to it by `python scripts/bump_model.py`")
    if source not in (None, *after):
        raise Refused(f"--from {source}: {to} does not come after it; releases come to {to} through {', '.join(after)}")
    return [source] if source else after


def _named(item: Release) -> str:
    return item.version + (f" with the image {item.image}" if item.image else "")


if __name__ == "__main__":
    raise SystemExit(main())

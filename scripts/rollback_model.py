"""Roll back: restore an earlier release of an app from the history of cicd, and hold it there.

The release (model version and image as one unit) is taken from Git as it was, and only if every byte of the version
still verifies. The commit also writes a hold, with the reason and who set it: bump_model.py and promote_model.py
refuse to change the release until --release-hold removes it. The same command again changes nothing; with another
reason it goes one further back. What was taken back comes again only when --to, or --image, names it.

  python scripts/rollback_model.py --app wine-api --env prod --reason "wrong answers for red wines" --push
  python scripts/rollback_model.py --app wine-api --env prod --to 2026-02-01-3f2a9c1b7d10 --reason "..." --push
  python scripts/rollback_model.py --app wine-api --env prod --release-hold --pull-request

Without an option, and without `publish` in the policy, the commit is made on cicd here and pushed nowhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Sequence
from dataclasses import replace

from gitops import cli
from gitops.releases import branches, hold, release, release_file, stack, verification, writing
from gitops.releases.history import Ran
from gitops.releases.hold import Hold
from gitops.releases.image import identity
from gitops.releases.judgement import Moment
from gitops.releases.release import Release, Target
from gitops.releases.writing import Tree
from gitops.repo import layout, publish, snapshot, ways
from gitops.repo.git import Git
from gitops.repo.publish import Draft, Way

from contract.errors import Refused


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--app", required=True, help="the app, a folder of apps/")
    parser.add_argument("--env", required=True, help="the environment")
    parser.add_argument("--canary", metavar="NAME", help="its canary of that name; the hold is on the app all the same")
    parser.add_argument("--to", metavar="VERSION", help="the version to restore (default: the release below this one)")
    parser.add_argument("--image", help="with or without --to: the image to restore, where a version ran with several")
    parser.add_argument("--reason", help="why; written into the hold and the commit")
    parser.add_argument("--release-hold", action="store_true", help="remove the hold, and change nothing else")
    ways.add_options(parser)
    args = parser.parse_args(argv)
    if args.release_hold == bool(args.reason) or (args.release_hold and (args.to or args.image or args.canary)):
        parser.error("give either --reason (and --canary, --to, --image), or --release-hold")
    return cli.run(release_hold if args.release_hold else roll_back, args)


def roll_back(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    first_seen: list[Release] = []
    restored: list[Release] = []
    old_form: list[Release] = []
    frozen: list[str] = []

    def wanted(tree: Tree, ran: Ran) -> list[Release]:
        publish.require_clean(git)  # while the history is read
        now = tree.release(_target(args))
        if not first_seen:
            first_seen.append(now)
        if first_seen[0] != now:
            raise Refused(
                f"{now.file}: changed meanwhile, to {now.version}; look at that release, then run the command again"
            )
        chosen = replace(earlier(ran(now.target), now, args, tree.withdrawn), file=now.file)
        uri, manifest = verification.verify_release(chosen, tree.signer)
        verification.require_replica(tree.policy, args.env, uri, manifest, tree.signer)
        if now.manifest is None and now.file != layout.release_paths(now.app, now.environment)[0]:
            # No command can add the replacement that images of the old form lack, and what ran there may run again.
            return [chosen]
        old_form[:] = [chosen] if chosen.manifest is None else []
        return [replace(chosen, manifest=manifest.sha256)]

    def build(base: str) -> Draft | None:
        if done_already(git, base, args):
            publish.require_clean(git)
            return None
        held = hold.write(args.app, args.env, Hold(_reason(args), *git.author()))
        change = writing.prepare(git, base, wanted, [args.app], {(args.app, args.env): held})
        restored[:], frozen[:] = change.releases, change.frozen
        files = change.files | {hold.path(args.app, args.env): held}
        text = change.message("Roll back")
        text += f"Rolled-Back-From: {first_seen[0].version}\nReason: {_reason(args)}\n"
        return Draft(git.tree_with(base, files), text)

    def held_for_this(text: bytes | None) -> bool:
        return text is not None and hold.parse(text, record.path).reason == _reason(args)

    asked = ways.chosen(args, git, Way.COMMIT)
    record = publish.Record(hold.path(args.app, args.env), held_for_this)
    published = publish.publish(git, build, asked, lambda: branches.of_releases("rollback", restored), record)
    if args.json:
        before = vars(first_seen[0]) if published.subject else None
        rows = [vars(r) for r in restored]
        cli.print_json(ways.as_json(git, published) | {"from": before, "releases": rows})
        return
    what = [f"roll back and hold {item.target}, {release.step(first_seen[0], item)}" for item in restored]
    ways.tell(git, published, what, "rolled back and held for this reason already; to go further back, say why anew")
    for line in (*(item.old_form_told() for item in old_form), *frozen):
        cli.say(line)
    if published.commit:
        print(published.commit)


def done_already(git: Git, base: str, args: argparse.Namespace) -> bool:
    """Whether this very rollback is in `base`, so that a command that was interrupted and is run again does not roll
    back its own rollback."""
    path = hold.path(args.app, args.env)
    text = git.show(base, path)
    if text is None or hold.parse(text, path).reason != _reason(args):
        return False
    if args.to is None and args.image is None:
        return True
    found = release_file.find(snapshot.at(git, base).read, args.app, args.env)
    now = found and release_file.read(found[1], _target(args), found[0])
    return now is not None and _is_asked(now, args)


def _is_asked(item: Release, args: argparse.Namespace) -> bool:
    """Whether a release is what --to and --image name, as far as they are given."""
    return args.to in (None, item.version) and identity(args.image) in (None, identity(item.image))


def earlier(moments: Sequence[Moment], now: Release, args: argparse.Namespace, bad: Container[str]) -> Release:
    """The release of the history that --to and --image name, else the one below `now` that is not withdrawn."""
    known = stack.others(moments, now)
    if args.to or args.image:
        return _named(known, now, args)
    below = stack.below(moments, now)
    if found := stack.good(below, bad):
        return found[0]
    if below:
        raise Refused(
            f"{now.file}: all earlier releases are withdrawn; release another version with"
            f" `python scripts/bump_model.py`, or take the app away with `python scripts/retire_app.py`"
        )
    if not known:
        raise Refused(
            f"{now.file}: no earlier release in the history of {publish.BRANCH}; there is nothing to go back to"
        )
    raise Refused(
        f"{now.file}: {now.version} is the first of what {now.target} has run and not taken back; there is nothing"
        f" below it to go back to. What was taken back can be named with --to: {_listed(known)}"
    )


def _named(known: Sequence[Release], now: Release, args: argparse.Namespace) -> Release:
    for old in known:
        if _is_asked(old, args):
            return old
    asked = " ".join(f"--{name} {value}" for name, value in (("to", args.to), ("image", args.image)) if value)
    if not known:
        raise Refused(f"{asked}: {now.target} has had no other release")
    raise Refused(f"{asked}: never released as {now.target}; earlier releases are {_listed(known)}")


def _listed(releases: Sequence[Release]) -> str:
    """The versions, with their images where one had several."""
    versions = [item.version for item in releases]
    return ", ".join(
        dict.fromkeys(
            f"{item.version} with --image {item.image}" if versions.count(item.version) > 1 else item.version
            for item in releases
        )
    )


def _target(args: argparse.Namespace) -> Target:
    return Target(args.app, args.env, args.canary)


def release_hold(args: argparse.Namespace) -> None:
    git = Git(args.root)
    publish.require_clean(git)
    path = hold.path(args.app, args.env)

    def build(base: str) -> Draft:
        there = snapshot.at(git, base)
        files = there.deployed()
        layout.require_app(files, layout.apps_of(files), there.policy, args.app, args.env)
        if git.show(base, path) is None:
            raise Refused(f"{path}: no such hold; {args.app} in {args.env} can be released")
        text = f"Release the hold on {args.app} in {args.env}\n\nHold-Released: {args.app} {args.env}\n"
        return Draft(git.tree_with(base, {path: None}), text)

    asked = ways.chosen(args, git, Way.COMMIT)
    published = publish.publish(git, build, asked, lambda: f"release-hold/{args.env}/{args.app}")
    if args.json:
        cli.print_json(ways.as_json(git, published))
        return
    ways.tell(git, published, [f"release the hold on {args.app} in {args.env}"], "")
    if published.commit:
        print(published.commit)


def _reason(args: argparse.Namespace) -> str:
    """One line; by it a rollback that was done already is found, so that of a canary names it."""
    return " ".join([*([f"canary {args.canary}:"] if args.canary else []), *args.reason.split()])


if __name__ == "__main__":
    raise SystemExit(main())

"""Roll back: restore an earlier release of an app from the history of cicd, and hold it there.

The release (model version and image as one unit) is taken from Git as it was, and only if every byte of the version
still verifies. The commit also writes a hold, with the reason and who set it: bump_model.py and promote_model.py
refuse to change the release until --release-hold removes it. The same command again changes nothing; with another
reason it goes one further back. What was taken back comes again only when --to, or --image, names it.

  python scripts/rollback_model.py --app wine-api --env prod --reason "wrong answers for red wines" --push
  python scripts/rollback_model.py --app wine-api --env prod --to 2026-02-01-3f2a9c1b7d10 --reason "..." --push
  python scripts/rollback_model.py --model wine --env prod --reason "wrong answers for red wines" --push
  python scripts/rollback_model.py --app wine-api --env prod --release-hold --pull-request

Several apps, or with --model all of a model that run one version there, are rolled back in one commit.

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
from gitops.releases.verification import Verified
from gitops.releases.writing import Tree
from gitops.repo import layout, publish, snapshot, ways
from gitops.repo.git import Git
from gitops.repo.publish import Draft, Way
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--app", action="append", default=[], help="the app; may be given several times")
    which.add_argument("--model", metavar="NAME", help="all apps of this model, where they run one version")
    parser.add_argument("--env", required=True, help="the environment")
    parser.add_argument("--canary", metavar="NAME", help="its canary of that name; the hold is on the app all the same")
    parser.add_argument("--to", metavar="VERSION", help="the version to restore (default: the release below this one)")
    parser.add_argument("--image", help="with or without --to: the image to restore, where a version ran with several")
    parser.add_argument("--reason", help="why; written into the hold and the commit")
    parser.add_argument("--release-hold", action="store_true", help="remove the hold, and change nothing else")
    ways.add_options(parser)
    args = parser.parse_args(argv)
    args.app = list(dict.fromkeys(args.app))
    if args.release_hold == bool(args.reason) or (args.release_hold and (args.to or args.image or args.canary)):
        parser.error("give either --reason (and --canary, --to, --image), or --release-hold")
    if args.image and len(args.app) != 1:
        parser.error("--image is that of one app; give one --app")
    return cli.run(release_hold if args.release_hold else roll_back, args)


def roll_back(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    apps: list[str] = []
    first_seen: dict[str, Release] = {}
    restored: list[Release] = []
    old_form: list[Release] = []
    frozen: list[str] = []
    holds: list[str] = []

    def wanted(tree: Tree, ran: Ran) -> list[Release]:
        publish.require_clean(git)  # while the history is read
        old_form.clear()
        verified: Verified = {}
        return [of_app(tree, ran, app, verified) for app in apps]

    def of_app(tree: Tree, ran: Ran, app: str, verified: Verified) -> Release:
        now = tree.release(Target(app, args.env, args.canary))
        if first_seen.setdefault(app, now) != now:
            raise Refused(
                f"{now.file}: changed meanwhile, to {now.version}; look at that release, then run the command again"
            )
        chosen = replace(earlier(ran(now.target), now, args, tree.withdrawn), file=now.file)
        uri, manifest = verification.verify_release(chosen, tree.signer, verified)
        verification.require_replica(tree.policy, args.env, uri, manifest, tree.signer)
        if now.manifest is None and now.file != layout.release_paths(now.app, now.environment)[0]:
            # No command can add the replacement that images of the old form lack, and what ran there may run again.
            return chosen
        old_form.extend([chosen] if chosen.manifest is None else [])
        return replace(chosen, manifest=manifest.sha256)

    def build(base: str) -> Draft | None:
        apps[:] = not_done(git, base, args)
        if not apps:
            publish.require_clean(git)
            return None
        own = Hold(_reason(args), *git.author())
        held = {(app, args.env): hold.write(app, args.env, own) for app in apps}
        change = writing.prepare(git, base, wanted, apps, held)
        restored[:], frozen[:] = change.releases, change.frozen
        holds[:] = [hold.path(*place) for place in held]
        files = change.files | dict(zip(holds, held.values(), strict=True))
        bad = dict.fromkeys(first_seen[app].version for app in apps)
        text = change.message("Roll back") + "".join(f"Rolled-Back-From: {version}\n" for version in bad)
        return Draft(git.tree_with(base, files), f"{text}Reason: {_reason(args)}\n")

    def held_for_this(text: bytes | None) -> bool:
        return text is not None and hold.parse(text, hold.FILE).reason == _reason(args)

    asked = ways.chosen(args, git, Way.COMMIT)
    record = publish.Record(holds, held_for_this)
    published = publish.publish(git, build, asked, lambda: branches.of_releases("rollback", restored), record)
    before = [vars(first_seen[item.app]) for item in restored]
    if args.json:
        rows = [vars(r) for r in restored]
        cli.print_json(ways.as_json(git, published) | {"from": before, "releases": rows})
        return
    what = [f"roll back and hold {item.target}, {release.step(first_seen[item.app], item)}" for item in restored]
    ways.tell(git, published, what, "rolled back and held for this reason already; to go further back, say why anew")
    for line in (*(item.old_form_told() for item in old_form), *frozen):
        cli.say(line)
    if published.commit:
        print(published.commit)


def not_done(git: Git, base: str, args: argparse.Namespace) -> list[str]:
    """The apps that are to be rolled back, without those of which `base` has this very rollback, so that a command that
    was interrupted and is run again does not roll back its own rollback."""
    there = snapshot.at(git, base)
    if not args.model:
        return [app for app in args.app if not _is_done(there, app, args)]
    running = _of_model(there, args)
    left = [item for item in running if not _is_done(there, item.app, args)]
    release.require_one_version(left or running[:1], args.model)
    return [item.app for item in left]


def _of_model(there: Snapshot, args: argparse.Namespace) -> list[Release]:
    layout.require_environment(there.policy, args.env)
    read = there.commit.get if there.commit else there.read
    return list(release_file.of_model(read, layout.apps_of(there.deployed()), args.env, args.model))


def _is_done(there: Snapshot, app: str, args: argparse.Namespace) -> bool:
    path = hold.path(app, args.env)
    text = there.read(path)
    if text is None or hold.parse(text, path).reason != _reason(args):
        return False
    if args.to is None and args.image is None:
        return True
    found = release_file.find(there.read, app, args.env)
    now = found and release_file.read(found[1], Target(app, args.env, args.canary), found[0])
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


def release_hold(args: argparse.Namespace) -> None:
    git = Git(args.root)
    publish.require_clean(git)
    apps: list[str] = []

    def build(base: str) -> Draft:
        apps[:] = _held(git, base, args)
        which = f"{', '.join(apps)} in {args.env}"
        lines = "".join(f"Hold-Released: {app} {args.env}\n" for app in apps)
        files = dict.fromkeys(hold.path(app, args.env) for app in apps)
        return Draft(git.tree_with(base, files), f"Release the hold on {which}\n\n{lines}")

    asked = ways.chosen(args, git, Way.COMMIT)
    published = publish.publish(git, build, asked, lambda: branches.of_holds(args.env, apps))
    if args.json:
        cli.print_json(ways.as_json(git, published))
        return
    ways.tell(git, published, [f"release the hold on {app} in {args.env}" for app in apps], "")
    if published.commit:
        print(published.commit)


def _held(git: Git, base: str, args: argparse.Namespace) -> list[str]:
    """The apps whose holds are released. Raises Refused where one that is named has none."""
    there = snapshot.at(git, base)
    files = there.deployed()
    if args.model:
        running = [item.app for item in _of_model(there, args)]
        if held := [app for app in running if hold.path(app, args.env) in files]:
            return held
        raise Refused(f"--model {args.model}: no app of it is held in {args.env}")
    for app in args.app:
        layout.require_app(files, layout.apps_of(files), there.policy, app, args.env)
        if (path := hold.path(app, args.env)) not in files:
            raise Refused(f"{path}: no such hold; {app} in {args.env} can be released")
    return list(args.app)


def _reason(args: argparse.Namespace) -> str:
    """One line; by it a rollback that was done already is found, so that of a canary names it."""
    return " ".join([*([f"canary {args.canary}:"] if args.canary else []), *args.reason.split()])


if __name__ == "__main__":
    raise SystemExit(main())

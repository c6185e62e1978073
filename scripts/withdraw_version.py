"""Withdraw a model version: mark it as bad everywhere, so that nothing brings it to any environment again.

The entry stands in one file, which bump, promote, rollback and validate ask and which the cluster's own admission gets
by the same commit; it is never taken out. Where the version runs now it stays until it is changed: the command names
these places, and what to run for each. Without an option, and without `publish` in the policy, only the file in this
checkout is written.

  python scripts/withdraw_version.py wine 2026-02-01-3f2a9c1b7d10 --reason "trained on leaked labels"
  python scripts/withdraw_version.py wine 2026-02-01-3f2a9c1b7d10 --reason "trained on leaked labels" --push
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Container, Sequence

from gitops import cli
from gitops.releases import history, stack, withdrawn, writing
from gitops.releases.release import Release
from gitops.repo import layout, publish, snapshot, ways
from gitops.repo.git import Git
from gitops.repo.publish import Draft, Published, Way

from contract.errors import Refused


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument("version", metavar="VERSION", help="its version, as list_versions.py prints it")
    parser.add_argument("--reason", required=True, help="why; written into the record and the commit")
    ways.add_options(parser)
    return cli.run(withdraw, parser.parse_args(argv))


def withdraw(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    asked = ways.chosen(args, git, Way.EDIT)
    if asked.way is not Way.EDIT:
        publish.require_clean(git)
    name, reason = f"{args.model}.{args.version}", " ".join(args.reason.split())
    if not reason:
        raise Refused("--reason: empty; tell those who run the version why it is bad")
    entry = "{} ({}, {})".format(reason, *git.author())

    subject = f"Withdraw {args.model} {args.version}"

    def build(base: str) -> Draft | None:
        text = added(git.show(base, layout.WITHDRAWN), name, entry)
        if text is None:
            return None
        message = f"{subject}\n\n{reason}\n\nWithdrawn: {args.model} {args.version}\n"
        return Draft(git.tree_with(base, {layout.WITHDRAWN: text}), message)

    def edit() -> Published:
        text = added(snapshot.at(git, None).read(layout.WITHDRAWN), name, entry)
        if text and not args.dry_run:
            writing.write_files(git, {layout.WITHDRAWN: text})
        return Published(asked, "", subject if text else "", files=(layout.WITHDRAWN,))

    def publish_it() -> Published:
        record = publish.Record([layout.WITHDRAWN], lambda text: name in withdrawn.read(text))
        return publish.publish(git, build, asked, lambda: f"withdraw/{args.model}-{args.version}", record)

    published = edit() if asked.way is Way.EDIT else publish_it()
    tip = publish.tip(git)
    bad = {name, *withdrawn.read(git.show(tip, layout.WITHDRAWN))}
    # Production first: it matters most, and an app is retired there before it is elsewhere.
    there = snapshot.at(git, tip)
    places = history.naming(there, [args.version])
    running = [item for item in reversed(history.all_at(git, tip, places)) if withdrawn.key(item.uri) == name]
    option = ways.option(there.policy)
    ran = history.Ran(git, tip, there.policy, [item.app for item in running])
    steps = [next_step(ran, item, bad, reason, option) for item in running]
    if args.json:
        where = [vars(item) | {"next": step} for item, step in zip(running, steps, strict=True)]
        cli.print_json(ways.as_json(git, published) | {"runs": where})
        return
    what = f"withdraw {args.model} {args.version}"
    ways.tell(git, published, [what], f"{args.model} {args.version} is withdrawn already")
    for item, step in zip(running, steps, strict=True):
        cli.say(f"it runs as {item.target}; next: {step}")
    if not running:
        cli.say("it runs nowhere")
    if published.commit:
        print(published.commit)


def added(text: bytes | None, name: str, entry: str) -> bytes | None:
    """The record with the entry; None where the version is withdrawn already, for whatever reason."""
    if text is None:
        raise Refused(f"{layout.WITHDRAWN}: missing; take it from the template, with the policy beside it")
    return None if name in withdrawn.read(text) else withdrawn.add(text, name, entry)


def next_step(ran: history.Ran, item: Release, bad: Container[str], reason: str, option: str) -> str:
    """What takes a withdrawn version away from where it runs: a rollback to what is good, or the whole place goes."""
    why = shlex.quote(f"withdrawn: {reason}")
    if stack.good(stack.below(ran(item.target), item), bad):
        where = f"--app {item.app} --env {item.environment}{f' --canary {item.canary}' if item.canary else ''}"
        return f"python scripts/rollback_model.py {where} --reason {why} {option}"
    if item.canary:
        return f"take {item.canary} out of spec.canary in {item.file}, by a pull request"
    return f"python scripts/retire_app.py --app {item.app} --env {item.environment} --reason {why} {option}"


if __name__ == "__main__":
    raise SystemExit(main())

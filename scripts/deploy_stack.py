"""Give a service on instances to AWS: what cicd has of it, by a change set that is shown before anything changes.

The parameters are those of the render on cicd and the template is that of the same commit, so the same command on the
next commit is the next release, or its rollback. What would change is shown; then it asks, or with --yes goes on, and
waits for the end. Where CloudFormation cannot do it, it goes back to what ran before, and the first thing that failed
is told. Run twice, there is nothing to do. Credentials come from the standard AWS variables and files.

  python scripts/deploy_stack.py --app wine-vm --env dev
  python scripts/deploy_stack.py --app wine-vm --env prod --dry-run
  python scripts/deploy_stack.py --app wine-vm --env prod --commit HEAD --dry-run   what a branch would change
  python scripts/deploy_stack.py --app wine-vm --env staging --delete               once its retirement is merged
  python scripts/deploy_stack.py --list --changed-since HEAD^ --json                for CI: what there is to deploy
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gitops import cli
from gitops.checks import stacks
from gitops.manifests import cloudformation, kustomize, stack
from gitops.manifests.objects import Object
from gitops.models import change_sets
from gitops.models.change_sets import Change, Live, Outcome, Stacks
from gitops.releases import hold, outside, release_file, retired, withdrawn
from gitops.releases.release import UNRELEASED, Release, Target
from gitops.repo import freeze, layout, publish, snapshot
from gitops.repo.git import Git
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

# By these a stack is known to be one of this command's.
APP, ENVIRONMENT = "model.mlops/app", "model.mlops/environment"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--app", help="the app, a folder of apps/")
    parser.add_argument("--env", help="the environment")
    parser.add_argument(
        "--commit", metavar="REF", help="another commit than the newest of cicd, to show what it changes"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--delete", action="store_true", help="delete what was made for an app that is retired there")
    parser.add_argument("--list", action="store_true", help="list the releases that are for AWS, and change nothing")
    parser.add_argument("--changed-since", metavar="REF", help="of those, the ones that may have changed since then")
    args = parser.parse_args(argv)
    if args.list == bool(args.app or args.env) or (not args.list and not (args.app and args.env)):
        parser.error("give --app and --env, or --list")
    if args.changed_since is not None and not args.list:
        parser.error("--changed-since goes with --list")
    if args.commit and not (args.dry_run or args.list):
        parser.error("--commit goes with --dry-run: what is deployed is the newest commit of cicd")
    return cli.run(show_list if args.list else delete if args.delete else deploy, args)


@dataclass(frozen=True)
class Wanted:
    """What a commit has of one app in one environment, for CloudFormation."""

    name: str
    """Of the stack."""
    template: str
    parameters: dict[str, str]
    place: stacks.Place
    release: Release
    resources: dict[str, Object]

    @property
    def capabilities(self) -> list[str]:
        roles = any(each["Type"].startswith("AWS::IAM::") for each in self.resources.values())
        return ["CAPABILITY_NAMED_IAM"] if roles else []


def deploy(args: argparse.Namespace) -> None:
    there = _commit(args)
    wanted = _wanted(there, args.app, args.env)
    for line in _remarks(there, args):
        cli.say(line)
    place, aws = wanted.place, _on_aws(wanted.place)
    live = aws.find(wanted.name)
    if live:
        _require_own(live, args)
        aws.require_ready(live)
    new = live is None or live.is_new
    if live is None and args.dry_run:
        # A change set would make the stack.
        changes = [Change("Add", name, item["Type"]) for name, item in wanted.resources.items()]
        _tell(args, wanted, "create", changes, "")
        return
    proposal = aws.propose(
        wanted.name, wanted.template, wanted.parameters, {APP: args.app, ENVIRONMENT: args.env},
        wanted.capabilities, new=new,
    )  # fmt: skip
    operation = "none" if proposal.empty else "create" if new else "update"
    if args.dry_run or proposal.empty or not _agreed(args, wanted, operation, proposal.changes):
        aws.discard(proposal)
        if proposal.empty and not args.dry_run:
            _protect(aws, live, place)
        _tell(args, wanted, operation, proposal.changes, live.status if live and proposal.empty else "")
        return
    outcome = aws.execute(proposal, cli.progress)
    if not outcome.is_done:
        raise Refused(_failed(wanted.name, outcome))
    _protect(aws, aws.find(wanted.name), place)
    _tell(args, wanted, operation, proposal.changes, outcome.status)


def _commit(args: argparse.Namespace) -> Snapshot:
    """The newest commit of the deployed branch, or the one that was asked for."""
    git = Git(args.root)
    if args.commit:
        return snapshot.at(git, git.require_commit(args.commit, "--commit"))
    if git.has_remote(publish.REMOTE):
        publish.fetch(git)
    return snapshot.at(git, publish.tip(git))


def _wanted(there: Snapshot, app: str, environment: str) -> Wanted:
    """What is to be deployed. Raises Refused for what is not released there, is withdrawn, or breaks a rule."""
    deployed, folder = there.deployed(), layout.overlay(app, environment)
    layout.require_app(deployed, layout.apps_of(deployed), there.policy, app, environment)
    with there.copied([folder]) as tree:
        items = kustomize.rendered(tree, folder)
    found = [item for item in items if stack.is_stack(item)]
    if len(found) != 1 or len(items) != 1:
        raise Refused(f"{folder}: not one Stack and nothing else; what Argo CD applies is not for this command")
    [item] = found
    if not (file := release_file.find(there.read, app, environment)):
        raise Refused(f"{layout.release_paths(app, environment)[0]}: missing; nothing is released")
    now = release_file.read(file[1], Target(app, environment), file[0])
    if not now.released:
        raise Refused(f"{now.file}: {UNRELEASED}; release a version there with `python scripts/bump_model.py`")
    bad = withdrawn.read(there.read(layout.WITHDRAWN))
    if reason := bad.get(withdrawn.key(now.uri)):
        raise Refused(f"{now.file}: {now.version} is withdrawn: {reason}; release another version")
    text = there.read(stack.TEMPLATE)
    template = cloudformation.parse(text, stack.NAME)
    if len(text or b"") > change_sets.LARGEST:
        raise Refused(f"{stack.TEMPLATE}: {len(text or b'')} bytes; CloudFormation takes {change_sets.LARGEST}")
    place = stacks.place(there, environment)
    if faults := [f"{folder}: {field}: {fault}" for field, fault in stacks.judge(item, template, place)]:
        raise Refused(*faults)
    given, name = stack.parameters(item), stacks.named(item)
    resources = cloudformation.resources(
        template, cloudformation.Stack(name, stack.NAME, place.account, place.region, given)
    )
    return Wanted(name, (text or b"").decode(), given, place, now, resources)


def _remarks(there: Snapshot, args: argparse.Namespace) -> list[str]:
    """What to tell of a hold, which keeps what is deployed as it is. Raises Refused in a freeze, unless a person is
    there to answer."""
    told = []
    if (text := there.read(hold.path(args.app, args.env))) is not None:
        told.append(f"{hold.path(args.app, args.env)}: {hold.told(text, args.app, args.env)}")
    until = freeze.end(there.policy.at(args.env).freeze, datetime.now(UTC))
    if until and not args.dry_run:
        frozen = f"{args.env} is frozen until {until:%Y-%m-%dT%H:%MZ}"
        if args.yes or not sys.stdin.isatty():
            raise Refused(f"{frozen}; a person can deploy there all the same, on a terminal and without --yes")
        told.append(frozen)
    return told


def _on_aws(place: stacks.Place) -> Stacks:
    change_sets.require_account(place.account, place.region, place.environment)
    return Stacks(place.region, place.maker)


def _require_own(live: Live, args: argparse.Namespace) -> None:
    if not live.is_new and (live.tags.get(APP), live.tags.get(ENVIRONMENT)) != (args.app, args.env):
        raise Refused(
            f"stack {live.name}: there already, without the tags {APP}: {args.app} and {ENVIRONMENT}: {args.env}, by"
            " which this command knows its own; find out whose it is, or give the app another name"
        )


def _agreed(args: argparse.Namespace, wanted: Wanted, operation: str, changes: Sequence[Change]) -> bool:
    """Whether to go on. Raises Refused where nobody is there to ask."""
    if args.yes:
        return True
    if not sys.stdin.isatty():
        return False
    print(_table(changes))
    return _asked(f"{operation} the stack {wanted.name} in {wanted.place.account}, {wanted.place.region}?")


def _asked(question: str) -> bool:
    cli.say(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _protect(aws: Stacks, live: Live | None, place: stacks.Place) -> None:
    """In production nobody deletes what runs, by mistake."""
    if live and place.is_production and not live.protected:
        aws.protect(live.name, protected=True)


def _failed(name: str, outcome: Outcome) -> str:
    back = {
        "ROLLBACK_COMPLETE": "CloudFormation took everything back that it had made, and nothing runs",
        "UPDATE_ROLLBACK_COMPLETE": "CloudFormation went back to what ran before, which is running",
    }.get(outcome.status, "look at its events on AWS")
    return f"stack {name}: {outcome.status}: {outcome.fault}; {back}; mend that, then run the same command again"


def _tell(args: argparse.Namespace, wanted: Wanted, operation: str, changes: Sequence[Change], status: str) -> None:
    if args.json:
        cli.print_json({
            "stack": wanted.name, "account": wanted.place.account, "region": wanted.place.region,
            "version": wanted.release.version, "service": wanted.release.image, "operation": operation,
            "changes": change_sets.as_json(changes), "status": status or None, "dry_run": args.dry_run,
        })  # fmt: skip
        return
    if changes and (args.yes or args.dry_run or not sys.stdin.isatty()):
        print(_table(changes))
    what = f"{wanted.release.version} with {wanted.release.image}"
    if operation == "none":
        cli.say(f"nothing to do: the stack {wanted.name} is as it has to be, {what}")
    elif status:
        cli.say(f"{operation}d the stack {wanted.name}: {status}, {what}")
    elif args.dry_run:
        cli.say(f"would {operation} the stack {wanted.name}: {what}")
    else:
        raise Refused(f"stack {wanted.name}: nothing has changed; to go on, answer y on a terminal, or give --yes")


def _table(changes: Sequence[Change]) -> str:
    return cli.table([
        {"action": each.action, "resource": each.resource, "type": each.type, "replacement": each.replacement}
        for each in changes
    ])  # fmt: skip


# Retired


def delete(args: argparse.Namespace) -> None:
    there = _commit(args)
    folder, record = layout.overlay(args.app, args.env), retired.path(args.env)
    if args.env not in there.policy.environments:
        known = ", ".join(there.policy.environments)
        raise Refused(f"--env {args.env}: no environment of the policy; they are {known}")
    if there.files(folder):
        raise Refused(f"{folder}: still on {publish.BRANCH}; merge its retirement first")
    if not retired.read(there.read(record), record)[args.app]:
        raise Refused(f"{record}: no retirement of {args.app}; only what was retired is deleted")
    place = stacks.place(there, args.env)
    name, aws = f"{there.policy.namespace(args.env)}-{args.app}", _on_aws(place)
    live = aws.find(name)
    if live:
        _require_own(live, args)
        if live.status.endswith("_IN_PROGRESS"):
            aws.require_ready(live)
    gone = False
    if live and not args.dry_run:
        if not (args.yes or (sys.stdin.isatty() and _asked(f"delete the stack {name} in {place.account}?"))):
            raise Refused(f"stack {name}: not deleted; to go on, answer y on a terminal, or give --yes")
        outcome = aws.delete(live, cli.progress)
        gone = outcome.is_done
        if not gone:
            raise Refused(
                f"stack {name}: {outcome.status}: {outcome.fault}; mend that, then run the same command again"
            )
    if args.json:
        cli.print_json({"stack": name if live else None, "deleted": gone, "dry_run": args.dry_run})
    elif live is None:
        cli.say(f"nothing to delete: there is no stack {name}")
    else:
        cli.say(f"{'deleted' if gone else 'would delete'} the stack {name}")


# For CI


def show_list(args: argparse.Namespace) -> None:
    """What there is to deploy, in the order of the environments."""
    git, there = Git(args.root), _commit(args)
    places = outside.released(there, (stack.GROUP, stack.KIND))
    if args.changed_since is not None and (base := git.commit(args.changed_since)):
        places = outside.changed(git, there, base, places, everywhere=[stack.TEMPLATE])
    if args.json:
        cli.print_json([{"app": app, "environment": environment} for app, environment in places])
    else:
        for app, environment in places:
            print(f"{app} in {environment}")


if __name__ == "__main__":
    raise SystemExit(main())

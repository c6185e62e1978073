"""Deploy an app to its SageMaker endpoint from the commit on cicd, without Kubernetes.

What is deployed is the render of the app's overlay, the same that Argo CD and ACK would take. Model and endpoint
configuration are made under names that carry the release, the endpoint is led to them, and once it is in service its
scaling is set and what earlier releases left is deleted. Run again, it does what is left to do. An endpoint that
something else has made is left alone, and so is every other app's.

The credentials are the standard AWS ones, and have to be of the environment's account.

  python scripts/deploy_sagemaker.py --app wine-sagemaker --env dev --dry-run
  python scripts/deploy_sagemaker.py --app wine-sagemaker --env dev --wait
  python scripts/deploy_sagemaker.py --app wine-sagemaker --env dev --delete    of an app that is retired there
  python scripts/deploy_sagemaker.py --list --changed-since HEAD^ --json        for CI: what there is to deploy
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from gitops import cli
from gitops.manifests import ack, kustomize
from gitops.models import sagemaker
from gitops.models.sagemaker import Account, Parameters, Wanted
from gitops.releases import hold, outside, release_file, retired, withdrawn
from gitops.releases.release import Release
from gitops.repo import freeze, layout, publish, snapshot, values
from gitops.repo.git import Git
from gitops.repo.policy import POLICY_FILE
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused
from contract.uri import parse_flavour


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    add = parser.add_argument
    add("--app", help="the app, a folder of apps/")
    add("--env", help="the environment")
    add("--wait", action="store_true", help="until the endpoint is in service, then clean up; at most an hour")
    add("--in-freeze", action="store_true", help="although the policy freezes the environment now")
    add("--delete", action="store_true", help="delete the endpoint of an app that is retired from the environment")
    add("--list", action="store_true", help="list the releases that are for SageMaker, and change nothing")
    add("--changed-since", metavar="REF", help="of those, the ones that may have changed since then")
    args = parser.parse_args(argv)
    if args.list == bool(args.app or args.env) or (not args.list and not (args.app and args.env)):
        parser.error("give --app and --env, or --list")
    if args.changed_since is not None and not args.list:
        parser.error("--changed-since goes with --list")
    return cli.run(show_list if args.list else deploy, args)


def show_list(args: argparse.Namespace) -> None:
    git = Git(args.root)
    tip = publish.tip(git)
    there = snapshot.at(git, tip)
    places = outside.released(there, ack.MODEL)
    if args.changed_since is not None and (base := git.commit(args.changed_since)):
        places = outside.changed(git, there, base, places)
    if args.json:
        cli.print_json([{"app": app, "environment": environment} for app, environment in places])
    else:
        for app, environment in places:
            print(f"{app} in {environment}")


def deploy(args: argparse.Namespace) -> None:
    git = Git(args.root)
    if git.has_remote(publish.REMOTE):
        publish.fetch(git)
    tip = publish.tip(git)
    there = snapshot.at(git, tip)
    if args.env not in there.policy.environments:
        known = ", ".join(there.policy.environments)
        raise Refused(f"{POLICY_FILE}: environments: no {args.env!r}; the environments are {known}")
    if args.delete:
        require_retired(there, args)
        asked, release, name = None, None, f"{there.policy.namespace(args.env)}-{args.app}"
    else:
        release = to_deploy(there, args)
        asked = render(there, layout.overlay(args.app, args.env))
        name = asked.name
    number, region = (values.of_environment(there, args.env, name) for name in ("account", "region"))
    sagemaker.require_account(region, number, args.env)
    account = Account(region, args.app, args.env, args.dry_run)
    found = sagemaker.running(account, name)
    before = version(sagemaker.uri_of(account, found))
    if asked and release:
        cli.say(f"{name}: {before or 'nothing'} runs, {release.version} is released")
        state = lead(account, asked, found, wait=args.wait)
    else:
        state = remove(account, name, found, wait=args.wait)
    now = release.version if release else None
    if args.json:
        cli.print_json(
            {"tip": tip, "endpoint": name, "before": before, "version": now, "state": state, "steps": account.steps}
            | {"dry_run": args.dry_run}
        )
    elif not account.steps:
        cli.say("nothing to do")


def to_deploy(there: Snapshot, args: argparse.Namespace) -> Release:
    """The release of the app. Raises Refused where nothing may be deployed."""
    files = there.deployed()
    layout.require_app(files, layout.apps_of(files), there.policy, args.app, args.env)
    found = release_file.read_all(there.read, args.app, args.env)[0]
    if not found.released:
        raise Refused(
            f"{found.file}: unreleased; `python scripts/bump_model.py` or promote_model.py releases a version"
        )
    if reason := withdrawn.read(there.read(layout.WITHDRAWN)).get(withdrawn.key(found.uri)):
        back = f"python scripts/rollback_model.py --app {args.app} --env {args.env}"
        raise Refused(f"{found.file}: {found.version} is withdrawn: {reason}; go back with `{back}`")
    # Nobody changes a held release; what it names is what runs, and after a rollback that is what has to be deployed.
    if text := there.read(hold.path(args.app, args.env)):
        cli.say(f"{args.app} in {args.env} is {hold.told(text, args.app, args.env)}")
    until = freeze.end(there.policy.at(args.env).freeze, datetime.now(UTC))
    if until and not args.in_freeze:
        raise Refused(
            f"{POLICY_FILE}: environments: {args.env}: freeze: until {until:%Y-%m-%dT%H:%MZ}; run it again then, or"
            " with --in-freeze"
        )
    return found


def render(there: Snapshot, folder: str) -> Wanted:
    with there.copied([folder]) as tree:
        return sagemaker.wanted(kustomize.rendered(tree, folder), folder)


def lead(account: Account, asked: Wanted, found: Parameters | None, *, wait: bool) -> str:
    """Brings the endpoint to what is asked for, as far as that goes without waiting, and returns its state."""
    found = sagemaker.settled(account, asked.name, found, wait=wait)
    sagemaker.make_parts(account, asked)
    sagemaker.lead(account, asked, found)
    if not account.dry_run:
        found = account.ask("describe_endpoint", EndpointName=asked.name)
        found = sagemaker.settled(account, asked.name, found, wait=wait)
        if found and found["EndpointStatus"] in sagemaker.CHANGING:
            return unfinished(asked.name, found)
        sagemaker.require_led(asked, found)
    sagemaker.scale(account, asked)
    sagemaker.clean(account, asked.name, asked)
    return str(found["EndpointStatus"]) if found else "absent"


def remove(account: Account, name: str, found: Parameters | None, *, wait: bool) -> str:
    """Deletes the endpoint and, once it is gone, what it was made of, and returns its state."""
    sagemaker.remove(account, name, found)
    if found and not account.dry_run:
        found = account.ask("describe_endpoint", EndpointName=name)
        if found := sagemaker.settled(account, name, found, wait=wait):
            return unfinished(name, found)
    sagemaker.clean(account, name, None)
    return "absent"


def unfinished(name: str, found: Parameters) -> str:
    cli.say(f"{name}: {found['EndpointStatus']}; when that is over, run the same command again to complete it")
    return str(found["EndpointStatus"])


def require_retired(there: Snapshot, args: argparse.Namespace) -> None:
    """Raises Refused unless an app was taken out of the environment on purpose."""
    record, folder = retired.path(args.env), layout.overlay(args.app, args.env)
    if (
        any(path.startswith(f"{folder}/") for path in there.deployed())
        or not retired.read(there.read(record), record)[args.app]
    ):
        raise Refused(
            f"{folder}: not retired; `python scripts/retire_app.py --app {args.app} --env {args.env} --reason ...`"
            " comes first, and its merge"
        )


def version(uri: str | None) -> str | None:
    """The version in the URI of a model, or what is there in its place."""
    try:
        return parse_flavour(uri)[0].version if uri else None
    except Refused:
        return uri


if __name__ == "__main__":
    raise SystemExit(main())

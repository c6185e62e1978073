"""Retire: remove an app from an environment on purpose, as a branch for a pull request to cicd.

The branch removes overlays/<env>/<app>/ and records the removal in overlays/<env>/retired.yaml; validate.py refuses
every other disappearance of a service. What will be deleted is printed. Argo CD takes nothing away by itself: after the
merge the service still runs, until --finish deletes its Application with all that it made.

  python scripts/retire_app.py --app wine-sklearn --env dev --reason "wine-api replaces it"
  python scripts/retire_app.py --app wine-sklearn --env dev --reason "wine-api replaces it" --push
  python scripts/retire_app.py --app wine-sklearn --env dev --finish

Without an option the branch is made here. --push and --pull-request push it; --commit commits to cicd itself, here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gitops import cli
from gitops.cluster import clusters
from gitops.manifests import kustomize, stack
from gitops.manifests.objects import at, identity
from gitops.releases import release, release_file, retired
from gitops.repo import applications, layout, publish, snapshot, ways
from gitops.repo.git import Git
from gitops.repo.publish import Draft, Way
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

if TYPE_CHECKING:
    from gitops.cluster.kube import Cluster

APPLICATION, SET = ("argoproj.io/v1alpha1", "Application"), ("argoproj.io/v1alpha1", "ApplicationSet")
REFRESH = "argocd.argoproj.io/application-set-refresh"
SECONDS = 300


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--app", required=True, help="the app, a folder of apps/")
    parser.add_argument("--env", required=True, help="the environment to remove it from")
    parser.add_argument("--reason", help="why; written into the record and the commit")
    ways.add_options(parser, "the same as --pull-request")
    parser.add_argument("--finish", action="store_true", help="after the merge: delete it from the cluster")
    clusters.add_options(parser.add_argument_group("for --finish"))
    args = parser.parse_args(argv)
    if args.finish == bool(args.reason) or (args.finish and args.way):
        parser.error("give either --reason (and --commit, --push or --pull-request), or --finish")
    return cli.run(finish if args.finish else retire, args)


def retire(args: argparse.Namespace) -> None:
    git = Git(args.root)
    publish.require_clean(git)
    folder, record = layout.overlay(args.app, args.env), retired.path(args.env)
    reason = " ".join(args.reason.split())
    by, since = git.author()
    gone: list[str] = []

    def build(base: str) -> Draft | None:
        if not git.files(base, folder) and retired.read(git.show(base, record), record)[args.app]:
            return None
        there = snapshot.at(git, base)
        gone[:] = _deleted(there, args, folder)
        running = next(iter(release_file.read_all(there.read, args.app, args.env)), None)
        version = running.version if running else release.UNRELEASED
        entry = {"app": args.app, "version": version, "reason": reason, "by": by, "since": since}
        files: dict[str, bytes | None] = dict.fromkeys(git.files(base, folder))
        files[record] = retired.add(git.show(base, record), entry)
        message = (
            f"Retire {args.app} from {args.env}\n\n{reason}\n\nRetire: {args.app} {args.env}\n"
            f"Model-Version: {version}\n"
        )
        return Draft(git.tree_with(base, files), message)

    asked = ways.chosen(args, git, Way.BRANCH, push=Way.PULL_REQUEST)
    same = publish.Record([record], lambda text: retired.last_reason(text, record, args.app) == reason)
    published = publish.publish(git, build, asked, lambda: f"retire/{args.env}/{args.app}", same)
    if args.json:
        cli.print_json(ways.as_json(git, published) | {"deletes": gone})
        return
    for service in gone:
        print(f"- {service}")
    ways.tell(git, published, [f"take {args.app} out of {args.env}"], f"{args.app} is retired from {args.env} already")
    if not args.dry_run:
        chosen = f"--app {args.app} --env {args.env}"
        finish = f"from the cluster: python scripts/retire_app.py {chosen} --finish"
        if any(service.startswith(f"{stack.KIND}.{stack.GROUP} ") for service in gone):
            finish = f"from AWS: python scripts/deploy_stack.py {chosen} --delete"
        cli.say(f"when that is on {publish.BRANCH} at {publish.REMOTE}, delete it {finish}")


def _deleted(there: Snapshot, args: argparse.Namespace, folder: str) -> list[str]:
    """What the app is in the environment. Raises Refused where it cannot be taken away there yet."""
    policy, deployed = there.policy, there.deployed()
    layout.require_app(deployed, layout.apps_of(deployed), policy, args.app, args.env)
    later = [
        e for e in policy.beyond(args.env) if any(r.released for r in release_file.read_all(there.read, args.app, e))
    ]
    if later:
        raise Refused(
            f"{folder}: {args.app} is in {', '.join(later)} too, which {args.env} comes before;"
            f" retire it there first, or nothing could reach {later[0]} any more"
        )
    with there.copied([folder]) as tree:
        return [str(identity(item)) for item in kustomize.rendered(tree, folder)]


def finish(args: argparse.Namespace) -> None:
    """Deletes what Argo CD made of an app whose retirement is merged."""
    git = Git(args.root)
    if git.has_remote(publish.REMOTE):
        git.fetch(publish.REMOTE, publish.BRANCH)
    tip = publish.tip(git)
    folder, record = layout.overlay(args.app, args.env), retired.path(args.env)
    if git.files(tip, folder):
        raise Refused(f"{folder}: still on {publish.BRANCH}; merge its retirement first")
    if not retired.read(git.show(tip, record), record)[args.app]:
        raise Refused(f"{record}: no retirement of {args.app}; only what was retired is deleted")
    cluster = clusters.asked(args, snapshot.at(git, tip).policy).argocd(args.env)
    name = f"{args.app}-{args.env}"
    found = cluster.get(*APPLICATION, name, "argocd")
    gone = [
        f"{item.get('kind')} {item.get('namespace')}/{item.get('name')}"
        for item in at(found, "status", "resources") or []
    ]
    if found is not None and not args.dry_run:
        _let_the_set_look(cluster, args.env)
        # Without it the Application goes alone.
        change = {"metadata": {"finalizers": ["resources-finalizer.argocd.argoproj.io"]}}
        cluster.patch(*APPLICATION, name, "argocd", change)
        cluster.delete(*APPLICATION, name, "argocd")
        end = time.monotonic() + SECONDS
        while cluster.get(*APPLICATION, name, "argocd") is not None:
            if time.monotonic() > end:
                raise Refused(f"Application {name}: not gone after {SECONDS} s; look at it in Argo CD")
            time.sleep(0.2)
    if args.json:
        cli.print_json({"application": name if found else None, "deletes": gone, "dry_run": args.dry_run})
        return
    for line in gone:
        print(f"- {line}")
    if found is None:
        cli.say(f"nothing to delete: there is no Application {name}")
    else:
        cli.say(f"{'would delete' if args.dry_run else 'deleted'} the Application {name} with these")


def _let_the_set_look(cluster: Cluster, environment: str) -> None:
    """An ApplicationSet that has yet to look at the retirement would make the Application anew."""
    end = time.monotonic() + SECONDS
    names = [applications.set_name(environment, which) for which in applications.TEMPLATES]
    asked = [name for name in names if cluster.get(*SET, name, "argocd") is not None]
    for name in asked:
        cluster.patch(*SET, name, "argocd", {"metadata": {"annotations": {REFRESH: "true"}}})
    for name in asked:
        # It takes the request away when it has looked.
        while at(cluster.get(*SET, name, "argocd"), "metadata", "annotations", REFRESH):
            if time.monotonic() > end:
                raise Refused(f"ApplicationSet {name}: has not looked at Git after {SECONDS} s; look at it in Argo CD")
            time.sleep(0.2)


if __name__ == "__main__":
    raise SystemExit(main())

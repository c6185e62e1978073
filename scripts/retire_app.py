"""Retire: remove an app from an environment on purpose, as a branch for a pull request to cicd.

The branch removes overlays/<env>/<app>/ and records the removal in overlays/<env>/retired.yaml; validate.py refuses
every other disappearance of a service. What Argo CD will delete is printed. Merging the branch is the confirmation.

  python scripts/retire_app.py --app iris-sklearn --env dev --reason "iris-api replaces it"
  python scripts/retire_app.py --app iris-sklearn --env dev --reason "iris-api replaces it" --push
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from gitops import apply, changes, cli, kustomize, layout, publish, release
from gitops.cli import Refused
from gitops.git import Git
from gitops.release import Release


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--app", required=True, help="the app, a folder of apps/")
    parser.add_argument("--env", required=True, help="the environment to remove it from")
    parser.add_argument("--reason", required=True, help="why; written into the record and the commit")
    parser.add_argument("--push", action="store_true", help="push the branch to origin")
    return cli.run(retire, parser.parse_args(argv))


def retire(args: argparse.Namespace) -> None:
    git = Git(args.root)
    publish.require_clean(git)
    base = publish.base_of_branch(git, push=args.push)
    folder, record = layout.overlay(args.app, args.env), changes.retired_path(args.env)
    with apply.tree_of(git, base) as tree:
        policy = layout.read_policy(tree)
        layout.require_app(tree, policy, args.app, args.env)
        gone = [str(kustomize.identity(item)) for item in kustomize.objects(kustomize.build(tree, folder))]
    after = policy.environments[policy.environments.index(args.env) + 1 :]
    if later := [e for e in after if any(r.released for r in _releases(git, base, args.app, e))]:
        raise Refused(
            f"{folder}: {args.app} is in {', '.join(later)} too, which {args.env} comes before;"
            f" retire it there first, or nothing could reach {later[0]} any more"
        )
    running = next((r.version for r in _releases(git, base, args.app, args.env)), release.UNRELEASED)
    reason = " ".join(args.reason.split())
    by, since = git.author()
    entry = {
        "app": args.app,
        "version": running,
        "reason": reason,
        "by": by,
        "since": since,
    }
    files: dict[str, bytes | None] = dict.fromkeys(git.files(base, folder))
    files[record] = changes.add_retired(git.show(base, record), entry)
    branch = f"retire/{args.env}/{args.app}"
    commit = git.commit(f"refs/heads/{branch}")
    if commit and git.commit(f"{commit}^") != base:
        raise Refused(f"branch {branch}: exists already; merge it, or drop it with `git branch -D {branch}`")
    if not args.dry_run:
        if commit is None:
            message = (
                f"Retire {args.app} from {args.env}\n\n{reason}\n\nRetire: {args.app} {args.env}\n"
                f"Model-Version: {running}\n"
            )
            commit = git.commit_tree(git.tree_with(base, files), base, message)
            git.text("update-ref", f"refs/heads/{branch}", commit, "")
        if args.push:
            git.push(publish.REMOTE, commit, branch)
    if args.json:
        cli.print_json({"branch": branch, "commit": commit, "deletes": gone, "dry_run": args.dry_run})
        return
    for identity in gone:
        print(f"- {identity}")
    if args.dry_run:
        cli.say(f"would make the branch {branch}, whose merge deletes these")
    elif args.push:
        cli.say(f"pushed {branch}; merging its pull request to {publish.BRANCH} deletes these")
    else:
        cli.say(f"made {branch}; next: git push {publish.REMOTE} {branch}, open a pull request to {publish.BRANCH}")


def _releases(git: Git, base: str, app: str, environment: str) -> list[Release]:
    return release.read_all(partial(git.show, base), app, environment)


if __name__ == "__main__":
    raise SystemExit(main())

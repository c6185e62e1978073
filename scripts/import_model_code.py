"""Bring main's model code to the deployed branch: one commit that makes model-src/ equal to main's.

It is an import and not a merge: the folder is taken over as a whole, deletions included, so it can never conflict,
and nothing that is rendered changes. The commit names main's commit in the trailer Main-Commit, from which training
on cicd finds the code commit. Where model-src/contract/ changes, on which every command stands, the commit becomes a
branch for a pull request, with all tests and the approval of the platform's owners.

  python scripts/import_model_code.py
  python scripts/import_model_code.py --push
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gitops import cli
from gitops.repo import model_code, publish
from gitops.repo.git import Git
from gitops.repo.model_code import FOLDER, MAIN

from contract.errors import Refused

CONTRACT = f"{FOLDER}/contract/"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--push", action="store_true", help="import origin's main, and push cicd to origin")
    return cli.run(import_code, parser.parse_args(argv))


def import_code(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    publish.require_clean(git, FOLDER)
    source, there, reviewed = "", False, False

    def build(base: str) -> str | None:
        nonlocal source, there, reviewed
        source = _main(git, args.push)
        commit = model_code.imported(git, base, source)
        there = commit == base
        reviewed = any(path.startswith(CONTRACT) for path in git.changed(base, commit))
        return None if args.dry_run or reviewed else commit

    commit = publish.publish(git, build, push=args.push)
    branch = f"import/{source[:12]}" if reviewed else None
    if branch and not args.dry_run:
        commit = _propose(
            git, branch, model_code.imported(git, publish.base_of_branch(git, push=args.push), source), args.push
        )
    if args.json:
        cli.print_json({"main": source, "commit": commit, "branch": branch, "dry_run": args.dry_run})
        return
    what = f"{FOLDER}/ of {MAIN} at {source[:12]}"
    if there:
        cli.say(f"{what} is on {publish.BRANCH} already")
    elif branch:
        cli.say(f"{what} changes {CONTRACT}, on which every command stands, so it takes all tests and a review")
        cli.say(_next(branch, args))
    else:
        cli.say(f"{'would import' if args.dry_run else 'imported'} {what}")
    if commit:
        print(commit)


def _propose(git: Git, branch: str, commit: str, push: bool) -> str:
    """Makes the branch of a pull request, and returns its commit: the one that is there where it imports the same."""
    known = git.commit(f"refs/heads/{branch}")
    if known and git.commit(f"{known}^") == git.commit(f"{commit}^"):
        commit = known
    elif known:
        raise Refused(f"branch {branch}: exists already; merge it, or drop it with `git branch -D {branch}`")
    if push:
        git.push(publish.REMOTE, commit, branch)
    if known is None:
        git.advance(branch, None, commit)
    return commit


def _next(branch: str, args: argparse.Namespace) -> str:
    if args.dry_run:
        return f"would make the branch {branch}"
    if args.push:
        return f"pushed {branch}; next: open a pull request to {publish.BRANCH} and merge it"
    return f"made {branch}; next: git push {publish.REMOTE} {branch}, open a pull request to {publish.BRANCH}"


def _main(git: Git, push: bool) -> str:
    """The commit of main to import: origin's when publishing to it, else the newest that this clone knows."""
    if not push:
        return publish.tip(git, MAIN)
    git.fetch(publish.REMOTE, MAIN)
    return git.text("rev-parse", f"refs/remotes/{publish.REMOTE}/{MAIN}")


if __name__ == "__main__":
    raise SystemExit(main())

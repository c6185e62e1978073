"""Bring main's model code to the deployed branch: one commit that makes model-src/ equal to main's.

It is an import and not a merge: the folder is taken over as a whole, deletions included, so it can never conflict,
and nothing that is rendered changes. The commit names main's commit in the trailer Main-Commit, from which training
on cicd finds the code commit. Where model-src/contract/ changes, on which every command stands, it takes a pull
request in any case, with all tests and the approval of the platform's owners. Without an option, and without `publish`
in the policy, the commit is made here and pushed nowhere.

  python scripts/import_model_code.py
  python scripts/import_model_code.py --push
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from gitops import cli
from gitops.repo import model_code, publish, ways
from gitops.repo.git import Git
from gitops.repo.model_code import FOLDER, MAIN
from gitops.repo.publish import Asked, Draft, Way

CONTRACT = f"{FOLDER}/contract/"
# Of what takes a pull request in any case.
_BY_BRANCH = {Way.COMMIT: Way.BRANCH, Way.PUSH: Way.PULL_REQUEST}


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    ways.add_options(parser, "import origin's main, and push cicd to origin")
    return cli.run(import_code, parser.parse_args(argv))


def import_code(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    publish.require_clean(git, FOLDER)
    asked = ways.chosen(args, git, Way.COMMIT)
    source = publish.start(git, MAIN, asked.way)
    reviewed = _changes_contract(git, asked, source)
    if reviewed:
        asked = replace(asked, way=_BY_BRANCH.get(asked.way, asked.way))

    def build(base: str) -> Draft | None:
        return model_code.imported(git, base, source)

    published = publish.publish(git, build, asked, lambda: f"import/{source[:12]}")
    if args.json:
        cli.print_json(ways.as_json(git, published) | {"main": source})
        return
    what = f"{FOLDER}/ of {MAIN} at {source[:12]}"
    if reviewed and published.subject:
        cli.say(f"{what} changes {CONTRACT}, on which every command stands, so it takes all tests and a review")
    ways.tell(git, published, [f"import {what}"], f"{what} is on {publish.BRANCH} already")
    if published.commit:
        print(published.commit)


def _changes_contract(git: Git, asked: Asked, source: str) -> bool:
    """Whether the import changes the contract of what is deployed."""
    if asked.way in (Way.PUSH, Way.PULL_REQUEST):
        publish.fetch(git)
    base = publish.tip(git)
    return git.trees(base, CONTRACT.rstrip("/")) != git.trees(source, CONTRACT.rstrip("/"))


if __name__ == "__main__":
    raise SystemExit(main())

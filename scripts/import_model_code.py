"""Bring main's model code to the deployed branch: one commit that makes model-src/ equal to main's.

It is an import and not a merge: the folder is taken over as a whole, deletions included, so it can never conflict,
and nothing that is rendered changes. The commit names main's commit in the trailer Main-Commit, from which training
on cicd finds the code commit.

  python scripts/import_model_code.py
  python scripts/import_model_code.py --push
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gitops import cli, publish
from gitops.cli import Refused
from gitops.git import Git

FOLDER = "model-src"
MAIN = "main"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--push", action="store_true", help="import origin's main, and push cicd to origin")
    return cli.run(import_code, parser.parse_args(argv))


def import_code(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    publish.require_clean(git, FOLDER)
    if args.push:
        publish.require_remote(git)
        git.fetch(publish.REMOTE, MAIN)
    source = _main(git, args.push)
    if git.commit(source) is None or not git.files(source, FOLDER):
        raise Refused(f"{MAIN}: no {FOLDER}/ in {source[:12]}; nothing to import")

    def build(base: str) -> str | None:
        tree = git.tree_with_folder(base, FOLDER, source)
        if tree == git.text("rev-parse", f"{base}^{{tree}}") or args.dry_run:
            return None
        log = git.text("log", "-1", "--format=%s", source)
        return git.commit_tree(tree, base, f"Import model code: {log}\n\nMain-Commit: {source}\n")

    commit = publish.publish(git, build, push=args.push)
    if args.json:
        cli.print_json({"main": source, "commit": commit, "dry_run": args.dry_run})
    elif commit:
        cli.say(f"imported {FOLDER}/ of {MAIN} at {source[:12]}")
        print(commit)
    else:
        cli.say(f"{FOLDER}/ of {MAIN} at {source[:12]} {'would be imported' if args.dry_run else 'is on cicd already'}")


def _main(git: Git, push: bool) -> str:
    """The commit of main to import: origin's when publishing to it, else the newest that this clone knows."""
    names = [f"refs/remotes/{publish.REMOTE}/{MAIN}"]
    if not push:
        names.insert(0, f"refs/heads/{MAIN}")
    for name in names:
        if commit := git.commit(name):
            return commit
    raise Refused(f"branch {MAIN}: not in this clone; fetch it with `git fetch {publish.REMOTE} {MAIN}`")


if __name__ == "__main__":
    raise SystemExit(main())

"""What runs where according to Git, and since when: the releases on the deployed branch of this clone.

python scripts/releases.py
python scripts/releases.py --env prod --json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gitops import cli, publish, release
from gitops.git import Git


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument("--env", help="only this environment")
    parser.add_argument("--app", help="only this app")
    return cli.run(show, parser.parse_args(argv))


def show(args: argparse.Namespace) -> None:
    git = Git(args.root)
    tip = publish.tip(git)
    rows = []
    for item in release.all_at(git, tip):
        if args.env in (None, item.environment) and args.app in (None, item.app):
            since = release.since(git, tip, item.app, item.environment)
            rows.append(
                vars(item)
                | {"since": since.date if item.released else None, "commit": since.commit, "by": since.author}
            )
    if args.json:
        cli.print_json({"tip": tip, "releases": rows})
        return
    shown = [
        {
            "environment": row["environment"],
            "app": row["app"],
            "version": row["version"],
            "since": row["since"] or "-",
            "commit": row["commit"][:12] if row["since"] else "-",
            "code": row["code_commit"][:12] if row["since"] else "-",
            "image": _short(row["image"]),
        }
        for row in rows
    ]
    print(cli.table(shown))
    cli.say(f"according to {publish.BRANCH} at {tip[:12]}")


def _short(image: str | None) -> str:
    """An image without its registry, its digest cut: enough to recognise it in a table."""
    if image in (None, release.UNRELEASED):
        return "-"
    name = str(image).rpartition("/")[2]
    name, at, digest = name.partition("@sha256:")
    return f"{name}@{digest[:12]}" if at else name


if __name__ == "__main__":
    raise SystemExit(main())

"""What runs where according to Git, and since when: the releases on the deployed branch of this clone.

What is held is listed with who holds it, since when and why.

python scripts/releases.py
python scripts/releases.py --env prod --json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gitops import cli
from gitops.releases import history, hold, release
from gitops.releases.judgement import Place
from gitops.repo import publish
from gitops.repo.git import Git

from contract.errors import Refused


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument("--env", help="only this environment")
    parser.add_argument("--app", help="only this app")
    return cli.run(show, parser.parse_args(argv))


def show(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    tip = publish.tip(git)
    listed = _chosen(history.files_at(git, tip), args)
    places = {place for place, _ in listed}
    holds = {place: text for place, text in hold.all_at(git, tip, places).items() if place in places}
    held = {place: hold.has(text) for place, text in holds.items()}
    rows = [
        vars(item)
        | {"since": since.date if item.released else None, "commit": since.commit, "by": since.author}
        | {"hold": held.get((item.app, item.environment))}
        for item, since in history.with_changes(git, tip, listed)
    ]
    if args.json:
        cli.print_json({"tip": tip, "releases": rows})
        return
    shown = [
        {
            "environment": row["environment"],
            "app": row["app"] if row["canary"] is None else f"{row['app']} (canary {row['canary']})",
            "version": row["version"],
            "since": row["since"] or "-",
            "commit": row["commit"][:12] if row["since"] else "-",
            "code": row["code_commit"][:12] if row["since"] else "-",
            "image": release.short_image(row["image"]),
        }
        | ({"held since": (row["hold"]["since"] or "?") if row["hold"] else "-"} if held else {})
        for row in rows
    ]
    print(cli.table(shown))
    for (app, environment), text in holds.items():
        cli.say(f"{hold.path(app, environment)}: {hold.told(text, app, environment)}")
    cli.say(f"according to {publish.BRANCH} at {tip[:12]}")


def _chosen(listed: Sequence[tuple[Place, str]], args: argparse.Namespace) -> Sequence[tuple[Place, str]]:
    """The places that were asked for, with their files. Raises Refused when a name fits none of those that are left."""
    for option, field, name in (("--env", 1, args.env), ("--app", 0, args.app)):
        known = dict.fromkeys(place[field] for place, _ in listed)
        if name is not None and name not in known:
            raise Refused(f"{option} {name}: nothing of that name on {publish.BRANCH}; there is {', '.join(known)}")
        listed = [(place, file) for place, file in listed if name in (None, place[field])]
    return listed


if __name__ == "__main__":
    raise SystemExit(main())

"""Print what kustomize makes of the overlays: what Argo CD will apply.

python scripts/render.py                                  every overlay, and argocd/
python scripts/render.py overlays/prod/iris-api           one of them
python scripts/render.py --out build/                     one file per overlay
python scripts/render.py --changed-since origin/cicd      the rendered differences against a commit
python scripts/render.py --changed-since HEAD~1 --markdown    the same, for a pull request's summary
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gitops import cli, kustomize, layout
from gitops.cli import Refused
from gitops.diff import rendered_diffs
from gitops.git import Git

# GitHub shows at most 1 MiB of a job's summary; one overlay's part of it is cut well before.
SUMMARY_LIMIT = 60_000


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument("overlay", nargs="*", help="a folder with a kustomization.yaml (default: all)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write one file per overlay instead of printing")
    parser.add_argument("--changed-since", metavar="REF", help="print rendered differences against a commit")
    parser.add_argument("--markdown", action="store_true", help="with --changed-since: print Markdown")
    args = parser.parse_args(argv)
    if args.markdown and not args.changed_since:
        parser.error("--markdown goes with --changed-since")
    return cli.run(render, args)


def render(args: argparse.Namespace) -> None:
    known = [*layout.overlays(args.root, layout.read_policy(args.root)), "argocd"]
    chosen = [folder.rstrip("/") for folder in args.overlay] or known
    if unknown := [folder for folder in chosen if not (args.root / folder / kustomize.FILE).is_file()]:
        raise Refused(
            *[f"{folder}: no {kustomize.FILE} there; the overlays are {', '.join(known)}" for folder in unknown]
        )
    if args.changed_since:
        print(_differences(args, chosen), end="")
        return
    renders = kustomize.build_all(args.root, chosen)
    if args.json:
        cli.print_json({folder: kustomize.objects(text) for folder, text in renders.items()})
    elif args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for folder, text in renders.items():
            (args.out / f"{folder.replace('/', '-')}.yaml").write_text(text)
        cli.say(f"{len(renders)} files in {args.out}")
    else:
        print("---\n".join(renders.values()), end="")


def _differences(args: argparse.Namespace, folders: list[str]) -> str:
    git = Git(args.root)
    base = git.commit(args.changed_since)
    if base is None:
        raise Refused(f"--changed-since {args.changed_since}: no such commit in this clone; `git fetch` it")
    found = rendered_diffs(git, base, None, folders)
    if not args.markdown:
        return "".join(found.values())
    if not found:
        return "No rendered manifest changes.\n"
    parts = [f"{len(found)} rendered overlays change.\n"]
    for folder, diff in found.items():
        cut = (
            diff
            if len(diff) <= SUMMARY_LIMIT
            else f"{diff[:SUMMARY_LIMIT]}\n... cut; run scripts/render.py to see all\n"
        )
        parts.append(f"\n### {folder}\n\n```diff\n{cut}```\n")
    return "".join(parts)


if __name__ == "__main__":
    raise SystemExit(main())

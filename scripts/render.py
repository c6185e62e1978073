"""Print what kustomize makes of the overlays: what Argo CD will apply.

python scripts/render.py                                  every overlay, argocd/ and argocd/platform/
python scripts/render.py overlays/prod/wine-api           one of them
python scripts/render.py --out build/                     one file per overlay
python scripts/render.py --changed-since origin/cicd      the rendered differences against a commit
python scripts/render.py --changed-since HEAD~1 --markdown    the same, for a pull request's summary
python scripts/render.py --changed-since HEAD~1 --reach --json    only the environments that they reach, in their order
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gitops import cli
from gitops.manifests import kustomize
from gitops.manifests.objects import KUSTOMIZATION
from gitops.releases import hold
from gitops.repo import layout, snapshot
from gitops.repo.diff import reached, rendered_diffs
from gitops.repo.git import Git
from gitops.repo.policy import Policy, read_policy

from contract.errors import Refused

# Bytes. GitHub drops a step's summary of more than 1 MiB, and nobody reads more than a screen or two of one overlay.
SUMMARY, PART = 900_000, 60_000


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument("overlay", nargs="*", help="a folder with a kustomization.yaml (default: all)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write one file per overlay instead of printing")
    parser.add_argument("--changed-since", metavar="REF", help="print rendered differences against a commit")
    parser.add_argument("--markdown", action="store_true", help="with --changed-since: print Markdown")
    parser.add_argument("--reach", action="store_true", help="with --changed-since: print the environments reached")
    args = parser.parse_args(argv)
    if args.reach and not args.changed_since:
        parser.error("--reach goes with --changed-since")
    if args.markdown and not args.changed_since:
        parser.error("--markdown goes with --changed-since")
    if args.out and args.changed_since:
        parser.error("--out does not go with --changed-since")
    if args.json and (args.markdown or args.out):
        parser.error("--json goes with neither --markdown nor --out")
    if args.reach and args.markdown:
        parser.error("--reach does not go with --markdown, which has it")
    return cli.run(render, args)


def render(args: argparse.Namespace) -> None:
    known = layout.folders(args.root, read_policy(args.root))
    if args.changed_since:
        _differences(args, known)
        return
    chosen = _chosen(args, known)
    if args.json:
        cli.print_json(kustomize.rendered_all(args.root, chosen))
        return
    renders = kustomize.build_all(args.root, chosen)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for folder, text in renders.items():
            (args.out / f"{folder.replace('/', '-')}.yaml").write_text(text)
        cli.say(f"{len(renders)} files in {args.out}")
    else:
        print("---\n".join(renders.values()), end="")


def _chosen(args: argparse.Namespace, known: Sequence[str]) -> list[str]:
    """The folders that were asked for, else all. Raises Refused for those that render nothing."""
    chosen = [folder.rstrip("/") for folder in args.overlay] or list(known)
    here = set(known)
    unknown = [f for f in chosen if f not in here and not (args.root / f / KUSTOMIZATION).is_file()]
    if unknown:
        listed = ", ".join(known)
        raise Refused(*[f"{folder}: no {KUSTOMIZATION} there; the overlays are {listed}" for folder in unknown])
    return chosen


def _differences(args: argparse.Namespace, known: Sequence[str]) -> None:
    git = Git(args.root)
    base = git.require_commit(args.changed_since, "--changed-since")
    # What a change takes away is of the most interest.
    here = set(known)
    gone = [folder for folder in _overlays_at(git, base) if folder not in here]
    found = rendered_diffs(git, base, None, _chosen(args, [*known, *gone]))
    # Which one is the highest is not for the change itself to say.
    policy = snapshot.at(git, base).policy
    reaches = reached(found, policy.environments)
    top = highest(reaches, policy)
    if args.reach:
        _print_reach(reaches, top, args.json)
    elif args.json:
        cli.print_json(found)
    else:
        text = markdown(found, reaches, _holds(git, base, found), top) if args.markdown else "".join(found.values())
        print(text, end="")


def highest(reaches: Sequence[str], policy: Policy) -> list[str]:
    """Those of the environments from which releases go to no other one of them; one that the policy lacks is higher
    than all that it has."""
    known = [name for name in reaches if name in policy.environments]
    if len(known) < len(reaches):
        return [reaches[-1]]
    return [name for name in known if not set(policy.beyond(name)) & set(known)]


def _holds(git: Git, base: str, folders: Iterable[str]) -> list[str]:
    """What is held of these overlays, and every hold that the change sets or releases."""
    here, before = snapshot.at(git, None), hold.all_at(git, base)
    touched = map(layout.place, (*git.changed(base), *(f"{folder}/" for folder in folders)))
    found = []
    for app, environment in sorted(set(filter(None, touched))):
        text = here.read(hold.path(app, environment))
        if text is not None:
            found.append(f"{app} in {environment} is {hold.told(text, app, environment)}")
        elif (app, environment) in before:
            found.append(f"{app} in {environment} is no longer held")
    return found


def _print_reach(reaches: Sequence[str], top: Sequence[str], as_json: bool) -> None:
    if as_json:
        cli.print_json({"reaches": reaches, "highest": ", ".join(top) or None})
    else:
        print(f"reaches: {', '.join(reaches) or 'no environment'}")


def _overlays_at(git: Git, commit: str) -> list[str]:
    parts = [path.split("/") for path in git.files(commit, "overlays")]
    return ["/".join(p[:3]) for p in parts if len(p) == 4 and p[3] == KUSTOMIZATION and p[2] != "shared"]


def markdown(
    diffs: Mapping[str, str], reaches: Sequence[str] = (), holds: Sequence[str] = (), top: Sequence[str] = ()
) -> str:
    """Diffs by overlay as a pull request's summary, cut to what GitHub shows, after the environments reached and what
    is held."""
    held = "".join(f"\nHold: {line}.\n" for line in holds)
    if not diffs:
        return f"No rendered manifest changes.\n{held}"
    # Each part has some words around it.
    room = max(0, min(PART, SUMMARY // len(diffs) - 200))
    parts = [f"{len(diffs)} rendered overlay{'s change' if len(diffs) > 1 else ' changes'}.\n"]
    if reaches:
        named = " and ".join(f"**{name}**" for name in top or reaches[-1:])
        parts.append(
            f"\nReaches: {', '.join(reaches)}. The highest of them {'is' if len(top) < 2 else 'are'} {named}.\n"
        )
    parts.append(held)
    parts += [f"\n### {folder}\n\n```diff\n{_cut(diff, room)}```\n" for folder, diff in diffs.items()]
    return "".join(parts)


def _cut(diff: str, room: int) -> str:
    """As many whole lines as there is room for, counted in bytes."""
    text = diff.encode()
    if len(text) <= room:
        return diff
    kept = text[: text.rfind(b"\n", 0, room) + 1].decode()
    return f"{kept}... cut here; `python scripts/render.py --changed-since` prints all of it\n"


if __name__ == "__main__":
    raise SystemExit(main())

"""Bring what is new in the template into this fork, as a branch for a pull request: first to main, then to cicd.

The engine becomes the template's newer one, with what you changed in it; base/, argocd/ and what you kept of its apps
get what the template changed there. Releases, the policy and what you deleted stay as they are, and no app comes back.
The template is the branch main of the remote `template`, and the file .template has the commit that this fork is at.
Run it again when the first pull request is merged: the one to cicd starts with the import of main's model code.
What cannot be merged is refused, with the commands that merge it by hand.

  git remote add template https://github.com/example-org/model-gitops.git
  python scripts/update_template.py --dry-run
  python scripts/update_template.py --push
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gitops import cli
from gitops.repo import layout, model_code, publish, template
from gitops.repo.git import Git
from gitops.repo.model_code import FOLDER, MAIN
from gitops.repo.publish import Way
from gitops.repo.template import REMOTE

from contract.errors import Refused


@dataclass(frozen=True)
class Step:
    """An update of one branch of the fork, from one commit of the template to another."""

    branch: str
    tip: str
    old: str
    new: str

    @property
    def name(self) -> str:
        return f"update/{self.branch}-{self.new[:12]}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument(
        "--push", "--pull-request", dest="push", action="store_true",
        help="start from origin's branch, and push the new one there",
    )  # fmt: skip
    parser.add_argument(
        "--base", metavar="COMMIT", help="the template's newest commit that a fork has without any record or history"
    )
    return cli.run(update, parser.parse_args(argv))


def update(args: argparse.Namespace) -> None:
    git = Git(args.root)
    require_able(git)
    git.fetch(REMOTE, "main")
    newest = git.text("rev-parse", f"refs/remotes/{REMOTE}/main")
    given = git.require_commit(args.base, "--base") if args.base else None
    way = Way.PUSH if args.push else Way.BRANCH
    tips = {branch: publish.start(git, branch, way) for branch in (MAIN, publish.BRANCH)}
    step = next_step(git, newest, given, tips)
    if step is None and args.json:
        none = dict.fromkeys(("branch", "to", "from", "commit"))
        cli.print_json(none | {"template": newest, "files": [], "left_out": [], "dry_run": args.dry_run})
        return
    if step is None:
        cli.say(f"{MAIN} and {publish.BRANCH} have {REMOTE}/main at {newest[:12]} already")
        return
    first = None if step.branch == MAIN else model_code.imported(git, step.tip, tips[MAIN])
    base = git.commit_tree(first.tree, step.tip, first.message) if first else step.tip
    message = f"Update the template to {step.new[:12]}\n\nFrom {step.old[:12]}.\n"
    # Of model code cicd has what main has, and nothing else.
    own = () if step.branch == MAIN else (f"{FOLDER}/",)
    merged = template.merge(git, base, step.old, step.new, message, own)
    if merged.conflicts:
        cli.say("\n".join([f"To merge {step.name} by hand:", *by_hand(step, base, merged)]))
        raise Refused(*conflict_lines(merged))
    files = git.changed(step.tip, merged.tree)
    commit = None if args.dry_run else propose(git, step, base, merged.tree, message, args.push)
    report(args, step, commit, files, merged.left_out)


def require_able(git: Git) -> None:
    git.require_full_history()
    if not git.has_remote(REMOTE):
        raise Refused(f"no remote `{REMOTE}`; add the template's repository with `git remote add {REMOTE} URL`")


def next_step(git: Git, newest: str, given: str | None, tips: Mapping[str, str]) -> Step | None:
    """First main goes to the newest template; then cicd to the one that main has, whatever is newer by then. None where
    both have the newest. Raises Refused where the template does not have what the fork has."""
    here = {branch: template.start(git, commit, newest, given) for branch, commit in tips.items()}
    [(ahead, on_main), (behind, on_cicd)] = here.items()
    if on_main != on_cicd and git.is_ancestor(on_cicd, on_main):
        return Step(behind, tips[behind], on_cicd, on_main)
    return Step(ahead, tips[ahead], on_main, newest) if on_main != newest else None


# What conflicts


def conflict_lines(merged: template.Update) -> Iterator[str]:
    for path, stages in sorted(merged.conflicts.items()):
        yield f"{path}: {_why(stages)}; the commands above take {_side(path)} file, or edit it before `git add`"


def by_hand(step: Step, base: str, merged: template.Update) -> Iterator[str]:
    """The commands, one a line."""
    yield f"  git checkout -b {step.name} {base}"
    yield f"  git -c merge.directoryRenames=false cherry-pick {merged.change}"
    yield from (f"  {command}" for command in _resolutions(base, merged))
    yield "  git -c core.editor=true cherry-pick --continue"
    yield f"  git push {publish.REMOTE} {step.name}"


def _why(stages: Collection[int]) -> str:
    if 0 in stages:
        return "a file here or in the template, and a link or a folder there or here"
    if 3 not in stages:
        return "the template deleted or moved what this fork changed"
    if 2 not in stages:
        return "the template changed what this fork deleted or moved"
    return "changed here and in the template" if 1 in stages else "made here and in the template"


def _side(path: str) -> str:
    return "this fork's" if layout.owned_by_fork(path) else "the template's"


def _resolutions(base: str, merged: template.Update) -> Iterator[str]:
    """The commands that take the fork's own files from the fork, and the engine's from the template."""
    chosen: dict[str, list[str]] = {}
    for path, stages in sorted(merged.conflicts.items()):
        own = layout.owned_by_fork(path)
        if 0 in stages:
            yield f"git rm -rf --quiet --ignore-unmatch -- {shlex.join([path, f'{path}~*'])}"
            yield f"git checkout {base if own else merged.change} -- {shlex.quote(path)}"
            continue
        stage, side = (2, "--ours") if own else (3, "--theirs")
        chosen.setdefault(f"git checkout {side}" if stage in stages else "git rm --quiet", []).append(path)
    for command, paths in chosen.items():
        yield f"{command} -- {shlex.join(paths)}"
    if kept := [path for command, paths in chosen.items() if " rm " not in command for path in paths]:
        yield f"git add -- {shlex.join(kept)}"


# What is done


def propose(git: Git, step: Step, base: str, tree: str, message: str, push: bool) -> str:
    """Makes the branch, or finds it there as it would be made, and returns its commit."""
    known = git.commit(f"refs/heads/{step.name}")
    if known is None:
        commit = git.commit_tree(tree, base, message)
    elif git.tree(known) == tree and git.is_ancestor(step.tip, known):
        commit = known
    else:
        raise Refused(f"branch {step.name}: exists already; merge it, or drop it with `git branch -D {step.name}`")
    if push:
        publish.push_branch(git, step.name, commit)
    if known is None:
        git.advance(step.name, None, commit)
    return commit


def report(args: argparse.Namespace, step: Step, commit: str | None, files: list[str], left: list[str]) -> None:
    if args.json:
        cli.print_json({
            "branch": step.name, "to": step.branch, "from": step.old, "template": step.new, "commit": commit,
            "files": files, "left_out": left, "dry_run": args.dry_run,
        })  # fmt: skip
        return
    for path in left:
        cli.say(f"{path}: stays; `git diff {step.old[:12]} {step.new[:12]} -- {path}` shows what the template changed")
    if commit is None:
        cli.say(f"would make {step.name} with {len(files)} changed files, for a pull request to {step.branch}")
        print(*files, sep="\n")
        return
    again = ", then run this again for cicd" if step.branch == MAIN else ""
    request = f"open a pull request to {step.branch} and merge it{again}"
    push = "" if args.push else f"git push {publish.REMOTE} {step.name}, "
    cli.say(f"{'pushed' if args.push else 'made'} {step.name}; next: {push}{request}")
    print(commit)


if __name__ == "__main__":
    raise SystemExit(main())

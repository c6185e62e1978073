"""The ways of a change to the deployed branch as options of a command, and the messages about its result.

A message names an effect only when it has happened, and where; the command that comes next works as it stands.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from gitops.cli import say
from gitops.repo.git import Git
from gitops.repo.policy import POLICY_FILE, Policy, parse_policy
from gitops.repo.publish import BRANCH, REMOTE, Asked, Published, Way, proposing

_OPTIONS = (Way.COMMIT, Way.PUSH, Way.PULL_REQUEST)
# Both forms of git: a URL, and HOST:PATH. What stands before the host may be a password.
_ADDRESS = re.compile(
    r"(?:(?:https?|ssh|git)://(?:[^@/]+@)?(?P<host>[^/:@]+)(?::\d+)?/|(?:[^@/:]+@)?(?P<short>[^/:@]+):(?!//))"
    r"/*(?P<path>[^?#]+?)(?:\.git)?/?"
)


class _Option(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        given = {self.const, *filter(None, [namespace.way])}
        # A push commits first.
        if Way.PULL_REQUEST in given and len(given) > 1:
            parser.error(f"{option}: give one of {', '.join(f'--{way}' for way in _OPTIONS)}")
        namespace.way = max(given, key=_OPTIONS.index)


def add_options(parser: argparse.ArgumentParser, push: str = f"commit, and push {BRANCH} to {REMOTE}") -> None:
    """`push` is what --push does."""
    texts = (f"commit to the branch {BRANCH}", push, f"push a branch of its own to {REMOTE}, for a pull request")
    for way, text in zip(_OPTIONS, texts, strict=True):
        parser.add_argument(f"--{way}", dest="way", nargs=0, const=way, action=_Option, help=text)


def chosen(args: argparse.Namespace, git: Git, default: Way, *, push: Way = Way.PUSH) -> Asked:
    """The way that the options ask for, else the policy, else the command's own. `push` is what --push stands for."""
    way = args.way or (Way(policy) if (policy := _of_policy(git)) else default)
    return Asked(push if way is Way.PUSH else way, _command(args), args.dry_run)


def option(policy: Policy) -> str:
    """The option with which a command of a next step brings its change to the deployed branch of the remote."""
    return f"--{Way.PULL_REQUEST if policy.publish == Way.PULL_REQUEST else Way.PUSH}"


def _of_policy(git: Git) -> str:
    """`publish` of the policy of the deployed branch, or of this checkout where that branch is not here."""
    known = (f"refs/remotes/{REMOTE}/{BRANCH}", f"refs/heads/{BRANCH}", "HEAD")
    found = next(filter(None, map(git.commit, known)), None)
    text = git.show(found, POLICY_FILE) if found else None
    return parse_policy(text).publish if text else ""


def _command(args: argparse.Namespace) -> str:
    """The command line without its way. argparse takes an option by its beginning, too."""
    names = [f"--{way}" for way in _OPTIONS]
    words = [word for word in args.words if len(word) < 3 or not any(name.startswith(word) for name in names)]
    near = Path("scripts", args.script.name)
    script = near if near.exists() and near.samefile(args.script) else args.script
    return shlex.join(["python", str(script), *words])


# Messages


def tell(git: Git, published: Published, what: Iterable[str], nothing: str) -> None:
    """Prints what became of a change: one line for each of `what`, as `release VERSION as APP in ENVIRONMENT`, or
    `nothing` where there was nothing to change; then what comes next."""
    if not published.subject:
        say(f"nothing to change: {nothing}")
        return
    for each in what:
        say(_happened(published, each))
    for line in _next_lines(git, published):
        say(line)


def as_json(git: Git, published: Published) -> dict[str, Any]:
    branch = published.branch if published.subject and published.asked.way is not Way.EDIT else None
    return {
        "way": published.asked.way, "branch": branch, "commit": published.commit,
        "next": following(git, published), "dry_run": published.asked.dry_run,
    }  # fmt: skip


def _happened(published: Published, what: str) -> str:
    way, branch = published.asked.way, published.branch
    if published.asked.dry_run:
        return f"would {what}{f', by the branch {branch}' if way in (Way.BRANCH, Way.PULL_REQUEST) else ''}"
    commit = (published.commit or "")[:12]
    if published.found:
        return f"{branch} {'here' if way is Way.BRANCH else f'at {REMOTE}'} has {commit} already, not merged: {what}"
    where = {
        Way.EDIT: f"edited {', '.join(published.files)}, not committed",
        Way.COMMIT: f"committed {commit} to {branch} here, not pushed",
        Way.PUSH: f"pushed {commit} to {branch} at {REMOTE}",
        Way.BRANCH: f"committed {commit} to {branch} here, not pushed",
        Way.PULL_REQUEST: f"pushed {commit} to {branch} at {REMOTE}, not merged",
    }[way]
    return f"{where}: {what}"


def _next_lines(git: Git, published: Published) -> Iterator[str]:
    commands = following(git, published)
    if published.asked.way is Way.PULL_REQUEST and not published.asked.dry_run:
        url = _pull_request(git.text("remote", "get-url", REMOTE), published.branch)
        yield f"next: open a pull request{f' at {url}' if url else f' of {published.branch} to {BRANCH}'} and merge it"
        yield f"or, where {BRANCH} takes pushes: {commands[0]}"
        return
    for command in commands:
        yield f"next: {command}"
    if published.asked.way is Way.COMMIT and commands and proposing(published.asked) not in commands:
        yield f"or, where {BRANCH} takes pull requests alone: {proposing(published.asked)}"


def following(git: Git, published: Published) -> list[str]:
    """The commands that bring the change on, in order."""
    asked, branch = published.asked, published.branch
    if asked.dry_run or not published.subject:
        return []
    match asked.way:
        case Way.EDIT:
            return [_in(git, f"git commit -m {shlex.quote(published.subject)} -- {shlex.join(published.files)}")]
        case Way.PULL_REQUEST:
            return [_in(git, _merge(published))]
        case Way.PUSH:
            return []
    if not git.has_remote(REMOTE):
        return []
    if asked.way is Way.COMMIT and _of_policy(git) == Way.PULL_REQUEST:
        return [proposing(asked)]
    # What the branch stands on would be in its pull request.
    first = f"{BRANCH} " if published.unpushed else ""
    return [_in(git, f"git push {REMOTE} {first}{branch}")]


def _in(git: Git, command: str) -> str:
    """A command of git as it is to be typed where this one was."""
    return command if Path.cwd() == git.root else f"(cd {shlex.quote(str(git.root))} && {command})"


def _merge(published: Published) -> str:
    """Whatever is checked out here, and whatever the local branches are."""
    return (
        f"git fetch {REMOTE} {BRANCH} && git checkout --detach FETCH_HEAD"
        f" && git merge --no-ff -m {shlex.quote(f'Merge {published.branch}')} {published.commit}"
        f" && git push {REMOTE} HEAD:refs/heads/{BRANCH} && git checkout -"
    )


def _pull_request(address: str, branch: str) -> str | None:
    """Where the forge of a remote makes a pull request of a branch, by the forms of GitHub and GitLab."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return None
    host, path = match["host"] or match["short"], match["path"]
    if "github" in host.split("."):
        return f"https://{host}/{path}/compare/{BRANCH}...{branch}?expand=1"
    if "gitlab" in host.split("."):
        fields = {"merge_request[source_branch]": branch, "merge_request[target_branch]": BRANCH}
        return f"https://{host}/{path}/-/merge_requests/new?{urlencode(fields)}"
    return None

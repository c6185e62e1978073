"""How a change reaches the branch that Argo CD watches: built beside the user's checkout, published by one ref
update, never forced; a writer that loses a race builds its change again on the new tip.

It goes one of three ways: as a commit of the branch here, as one that is pushed to it, or on a branch of its own for a
pull request, whose name is made of what it changes: the same asked for twice is one branch.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from gitops.cli import say
from gitops.repo import mainline, snapshot
from gitops.repo.git import Git, GitError

from contract.errors import Refused

BRANCH, REMOTE = mainline.BRANCH, mainline.REMOTE
# Somebody lands in every round, so a writer among twenty waits some twenty rounds, now and then several times that.
ATTEMPTS = 100
# What servers answer of a ref that another push holds locked at this moment.
_LOCKED = ("cannot lock ref", "failed to lock", "failed to update ref", "incorrect old value")


class Way(StrEnum):
    """Where a change is left."""

    EDIT = "edit"
    """In the files of this checkout."""
    COMMIT = "commit"
    """In the deployed branch of this clone."""
    PUSH = "push"
    """In the deployed branch of the remote."""
    BRANCH = "branch"
    """In a branch of its own in this clone."""
    PULL_REQUEST = "pull-request"
    """In a branch of its own at the remote."""


@dataclass(frozen=True)
class Asked:
    """How a command was asked to publish."""

    way: Way
    command: str
    """The command line without that, as it is typed."""
    dry_run: bool = False


@dataclass(frozen=True)
class Draft:
    """A commit to be."""

    tree: str
    message: str

    @property
    def subject(self) -> str:
        return self.message.partition("\n")[0]


@dataclass(frozen=True)
class Record:
    """The files of a change that also record who made it and when, so that the same asked for again is not the same
    bytes."""

    paths: Collection[str]
    same: Callable[[bytes | None], bool]
    """Whether such a file is of this very change."""


@dataclass(frozen=True)
class Published:
    """What became of a change."""

    asked: Asked
    branch: str = BRANCH
    """The branch that has it, or would."""
    subject: str = ""
    """Of its commit; empty where there was nothing to change."""
    commit: str | None = None
    """None where none was made."""
    files: tuple[str, ...] = ()
    """Those that were edited."""
    found: bool = False
    """Whether an earlier call had made it."""
    unpushed: bool = False
    """Whether it stands on commits of the deployed branch that the remote lacks."""


class Diverged(Refused):
    """A local branch has commits of its own, and the remote's others."""


def newest(git: Git, branch: str = BRANCH) -> str:
    """The commit that this clone has as the newest of a branch, without asking the remote. Raises Diverged where the
    local branch and the remote's have each what the other lacks, whatever the commits are that have it."""
    local, remote = _both(git, branch)
    if local and remote:
        if git.is_ancestor(local, remote):
            return remote
        if dropped := git.dropped(REMOTE, branch):
            raise Diverged(
                f"branch {branch}: the history of {REMOTE}/{branch} was rewritten, and no longer has {dropped[:12]},"
                " which the local branch has; take over what is new there alone with"
                f" `git rebase --onto {REMOTE}/{branch} {dropped[:12]} {branch}`"
            )
        if git.is_ancestor(remote, local):
            return local
        if git.contains(remote, local):
            return remote
        raise Diverged(
            f"branch {branch}: the local branch at {local[:12]} and {REMOTE}/{branch} at {remote[:12]} have diverged;"
            f" rebase the local one with `git rebase {REMOTE}/{branch} {branch}`,"
            f" or drop what it has with `git checkout -B {branch} {REMOTE}/{branch}`"
        )
    if found := local or remote:
        return found
    start = ", or start it with `make init`" if branch == BRANCH else ""
    raise Refused(f"branch {branch}: not in this clone; fetch it with `git fetch {REMOTE} {branch}`{start}")


def tip(git: Git) -> str:
    """The same of the deployed branch for commands that only read: where the local one has diverged, the remote's."""
    try:
        return newest(git)
    except Diverged as diverged:
        _, remote = _both(git, BRANCH)
        say(f"warning: what follows is of {REMOTE}/{BRANCH} alone: {diverged.lines[0]}")
        return str(remote)


def _both(git: Git, branch: str) -> tuple[str | None, str | None]:
    return git.commit(f"refs/heads/{branch}"), git.commit(f"refs/remotes/{REMOTE}/{branch}")


def require_clean(git: Git, *folders: str) -> None:
    """Refuses when what is deployed has uncommitted changes: they would not be in the commit that is written."""
    git.require_clean(*snapshot.head(git).folders, *folders)


def require_remote(git: Git, option: str = Way.PUSH) -> None:
    if not git.has_remote(REMOTE):
        raise Refused(
            f"--{option}: no remote `{REMOTE}`; add one with `git remote add {REMOTE} URL`, or leave --{option} out"
        )


def fetch(git: Git, branch: str = BRANCH) -> None:
    """Gets the newest of a branch. Raises Refused with git's message when the remote cannot be reached."""
    try:
        git.fetch(REMOTE, branch)
    except GitError as error:
        remedy = f"check that `git ls-remote {REMOTE}` answers, then run the same command again"
        raise Refused(*error.lines, f"{REMOTE}: not reached, nothing was published; {remedy}") from None


def start(git: Git, branch: str, way: Way) -> str:
    """The commit that a change which starts from a branch is made of: the remote's where it goes to the remote, else
    the newest that is here."""
    if way not in (Way.PUSH, Way.PULL_REQUEST):
        return newest(git, branch)
    require_remote(git, way)
    fetch(git, branch)
    return git.text("rev-parse", f"refs/remotes/{REMOTE}/{branch}")


Build = Callable[[str], Draft | None]


def publish(git: Git, build: Build, asked: Asked, branch: Callable[[], str], record: Record | None = None) -> Published:
    """Publishes what `build(tip)` makes of a tip of the deployed branch, or nothing where it makes None.

    It may be called several times, each time with a newer tip; `branch()` is called after it, and names a branch of
    this change. Raises Refused when it cannot be published.
    """
    if asked.way in (Way.PUSH, Way.PULL_REQUEST):
        require_remote(git, asked.way)
    if asked.way in (Way.COMMIT, Way.PUSH):
        return _to_deployed(git, build, asked)
    return _to_branch(git, build, asked, branch, record)


# Into the deployed branch


def _to_deployed(git: Git, build: Build, asked: Asked) -> Published:
    """What an earlier call committed and did not push is pushed, too."""
    if elsewhere := git.checked_out_elsewhere(BRANCH):
        raise Refused(f"branch {BRANCH}: checked out in {elsewhere}; run the command there, with --root {elsewhere}")
    push = asked.way is Way.PUSH
    said: tuple[str, ...] = ()
    for attempt in range(ATTEMPTS):
        if push:
            fetch(git)
        local, remote = _both(git, BRANCH)
        found = newest(git)
        base = mended(git, found, remote)
        draft = build(base)
        subject = draft.subject if draft else ""
        if asked.dry_run or (draft is None and not push):
            return Published(asked, BRANCH, subject)
        commit = git.commit_tree(draft.tree, base, draft.message) if draft else base
        try:
            if not push:
                git.move(BRANCH, local, commit)
            elif commit != remote:
                git.push(REMOTE, commit, BRANCH)
        except GitError as error:
            now = git.remote_tip(REMOTE, BRANCH) if push else git.commit(f"refs/heads/{BRANCH}")
            if now == (remote if push else local) and not _locked(error):
                raise (_refused(error, asked) if push else error) from None
            if now != commit:
                said = error.lines
                time.sleep(random.uniform(0, min(0.05 * 2**attempt, 5)))
                continue
        if push:
            _follow(git, BRANCH, local, commit)
            if commit == base != remote:
                say(f"pushed what {BRANCH} had here before")
        if base != found:
            say(f"{BRANCH}: {found[:12]} was merged the wrong way round; {base[:12]} puts what {BRANCH} was first")
        return Published(asked, BRANCH, subject, commit if draft else None)
    raise Refused(f"branch {BRANCH}: {ATTEMPTS} attempts were overtaken by others; run the command again", *said)


def mended(git: Git, found: str, remote: str | None) -> str:
    """The tip; or in front of it, where a pull merged what the branch was into somebody's own commits, one more merge
    of the same tree, with what the branch was first. `remote` is what the remote's branch is, as far as that is known.
    """
    before = None
    if remote in (None, found):
        before = git.hidden_by(found)
    elif remote not in [line.split(" ")[0] for line in git.text(*_FIRST_PARENTS, f"{remote}..{found}").splitlines()]:
        before = remote
    if before is None:
        return found
    return git.commit_tree(git.tree(found), before, _MENDING, found)


_FIRST_PARENTS = ("log", "--first-parent", "--format=%P")
_MENDING = f"""{mainline.MENDED}

The first parent of the merge before this one is a commit that {BRANCH} never was at; whoever reads the history by first
parents would not see what ran.
"""


def _locked(error: GitError) -> bool:
    """Whether the server answers that another push was at it; a hook's own words, which may be any, do not count."""
    verdicts = [line for line in error.lines if "! [remote rejected]" in line]
    return any(words in line for line in verdicts for words in _LOCKED)


def _refused(error: GitError, asked: Asked) -> Refused:
    return Refused(
        f"{REMOTE}/{BRANCH}: the push was refused although nobody else had pushed:",
        *error.lines,
        f"if {BRANCH} takes pull requests alone, propose the same with `{proposing(asked)}`",
    )


def proposing(asked: Asked) -> str:
    """The command that proposes the same change by a pull request."""
    return f"{asked.command} --{Way.PULL_REQUEST}"


def _follow(git: Git, branch: str, local: str | None, commit: str) -> None:
    """Moves the local branch, if there is one, to what is at the remote: a courtesy, the point was the push."""
    if local in (None, commit):
        return
    try:
        git.move(branch, local, commit)
    except Refused as error:
        say(f"the local branch {branch} stays behind: {error.lines[0]}")


# Into a branch of its own


def _to_branch(git: Git, build: Build, asked: Asked, name: Callable[[], str], record: Record | None) -> Published:
    pushing = asked.way is Way.PULL_REQUEST
    base, unpushed = _start(git, pushing)
    draft = build(base)
    if draft is None:
        return Published(asked)
    branch = name()
    places = list(_places(git, branch, pushing))
    same = [place for place in places if _is_same(git, place.commit, base, draft, record)]
    for place in places:
        if place not in same:
            _require_over(git, branch, place, base, draft)
    if asked.dry_run:
        return Published(asked, branch, draft.subject, found=bool(same), unpushed=unpushed)
    commit = same[0].commit if same else git.commit_tree(draft.tree, base, draft.message)
    there = {place.where: place.commit for place in places}
    # At the remote first, so that nothing is left here when that is refused.
    if pushing and (old := there.get(REMOTE)) != commit:
        push_branch(git, branch, commit, old)
    if pushing and HERE in there:
        _follow(git, branch, there[HERE], commit)
    else:
        git.move(branch, there.get(HERE), commit)
    found = bool(same) and there.get(REMOTE if pushing else HERE) == commit
    return Published(asked, branch, draft.subject, commit, found=found, unpushed=unpushed)


def push_branch(git: Git, branch: str, commit: str, old: str | None = None) -> None:
    """Pushes a branch of its own, in the place of the commit `old` where there is one. Raises Refused."""
    try:
        git.push(REMOTE, commit, branch, old if old and not git.is_ancestor(old, commit) else None)
    except GitError as error:
        remedy = f"branch {branch}: nothing was changed; when the server takes it, run the same command again"
        raise Refused(f"{REMOTE}/{branch}: the push was refused:", *error.lines, remedy) from None


def _start(git: Git, pushing: bool) -> tuple[str, bool]:
    """The commit that the branch starts from, and whether the remote's lacks that. A pull request carries nothing along
    that is in this clone alone."""
    if not pushing:
        base = newest(git)
        remote = git.commit(f"refs/remotes/{REMOTE}/{BRANCH}")
        return base, remote is not None and not git.is_ancestor(base, remote)
    fetch(git)
    local, remote = _both(git, BRANCH)
    assert remote is not None  # it was fetched
    if local and not git.contains(remote, local):
        say(
            f"warning: the local branch {BRANCH} at {local[:12]} has commits that {REMOTE}/{BRANCH} lacks; this is made"
            " without them"
        )
    return remote, False


HERE = "here"


@dataclass(frozen=True)
class _Place:
    """Where a branch of the name is already, and its commit there."""

    where: str
    commit: str


def _places(git: Git, branch: str, pushing: bool) -> Iterator[_Place]:
    """The remote first. Raises Refused for a branch whose name leaves no room for this one: to git, a branch is a file
    and what its name begins with are folders."""
    parts = branch.split("/")
    above = ["/".join(parts[:end]) for end in range(1, len(parts))]
    if pushing:
        found = git.remote_tips(REMOTE, *above, branch, f"{branch}/*")
        for taken in found.keys() - {branch}:
            raise Refused(
                f"branch {taken}: {REMOTE} has it, and no room for {branch} beside it; look at it, then drop it with"
                f" `git push {REMOTE} --delete {taken}`"
            )
        if branch in found:
            fetch(git, branch)
            yield _Place(REMOTE, found[branch])
    below = git.text("for-each-ref", "--format=%(refname:lstrip=2)", f"refs/heads/{branch}/").split()
    for taken in [*filter(lambda each: git.commit(f"refs/heads/{each}"), above), *below]:
        raise Refused(
            f"branch {taken}: leaves no room for {branch} beside it; rename it with `git branch -m {taken}"
            f" {taken.replace('/', '-')}-renamed`"
        )
    if local := git.commit(f"refs/heads/{branch}"):
        yield _Place(HERE, local)


def _is_same(git: Git, commit: str, base: str, draft: Draft, record: Record | None) -> bool:
    """Whether merging what has one change, made on an older tip or this one, gives what the draft gives. One that was
    merged before, and taken back since, is over: a rebase would leave it out."""
    # A merge of the deployed branch into the other brings nothing of its own, or the trees differ.
    if git.text("rev-list", "--count", "--no-merges", commit, f"^{base}") != "1" or git.contains(base, commit):
        return False
    merged = git.merged_tree(base, commit)
    if merged is None or merged == draft.tree:
        return merged is not None
    changed = git.changed(merged, draft.tree)
    return record is not None and all(path in record.paths and record.same(git.show(merged, path)) for path in changed)


def _require_over(git: Git, branch: str, place: _Place, base: str, draft: Draft) -> None:
    """Raises Refused unless the branch has nothing more to give: its pull request was merged, or it is a commit that
    this command made for the same person and change, and that a newer tip has made useless."""
    commit = place.commit
    if git.contains(base, commit) or _is_stale(git, commit, base, draft):
        return
    drop = f"git push {REMOTE} --delete {branch}"
    if place.where == HERE:
        drop = f"git branch -D {branch}"
        if elsewhere := git.checked_out_elsewhere(branch):
            drop = f"git -C {elsewhere} checkout --detach && {drop}"
        elif git.branch() == branch:
            drop = f"git checkout --detach && {drop}"
    raise Refused(
        f"branch {branch}: exists {'here' if place.where == HERE else f'at {place.where}'} with other content, by"
        f" {git.text('log', '-1', '--format=%an, %cI: %s', commit)}; look at it with `git show {commit[:12]}`, then"
        f" merge it, or drop it with `{drop}`"
    )


def _is_stale(git: Git, commit: str, base: str, draft: Draft) -> bool:
    """Whether a branch is one commit that this command made for the same person and files, to be made anew: with
    the draft's message, or of no use as it conflicts with a newer tip."""
    alone = git.text("rev-list", "--count", commit, f"^{base}") == "1"
    if not alone or git.changed(f"{commit}^", commit) != git.changed(base, draft.tree):
        return False
    told = git.text("log", "-1", "--format=%an <%ae> %at%n%cn <%ce> %ct%n%B", commit)
    author, committer, message = told.split("\n", 2)
    # Who amends a commit is another committer of it, or a later one.
    made_here = author == committer and author.rpartition(" ")[0] == git.author()[0]
    return made_here and (message.strip() == draft.message.strip() or git.merged_tree(base, commit) is None)

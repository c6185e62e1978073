"""Model code on the deployed branch: main's folder taken over as a whole, by a commit that names main's."""

from __future__ import annotations

from collections.abc import Iterator

from gitops.repo import publish
from gitops.repo.git import Git
from gitops.repo.publish import Draft

from contract.errors import Refused

FOLDER = "model-src"
MAIN = "main"
TRAILER = "Main-Commit"


def imported(git: Git, base: str, source: str) -> Draft | None:
    """A commit on `base` with the folder as main's commit `source` has it; None where it has it already.

    Raises Refused when there is none, or `base` has a later one.
    """
    if not git.files(source, FOLDER):
        raise Refused(f"branch {MAIN}: no {FOLDER}/ in {source[:12]}; nothing to import")
    _require_newer(git, base, source)
    tree = git.tree_with_folder(base, FOLDER, source)
    if tree == git.tree(base):
        return None
    log = git.text("log", "-1", "--format=%s", source)
    return Draft(tree, f"Import model code: {log}\n\n{TRAILER}: {source}\n")


def _require_newer(git: Git, base: str, source: str) -> None:
    """Raises Refused when cicd has a later commit of main already: somebody else imported it."""
    last = git.text("log", "-1", "--format=%H", f"--grep=^{TRAILER}: ", base)
    for known in [*(git.trailers(last, TRAILER) if last else []), *_with_code_of(git, base, source)]:
        if known != source and git.commit(known) and git.is_ancestor(source, known):
            raise Refused(
                f"branch {MAIN}: {source[:12]} is older than {known[:12]}, which {publish.BRANCH} has already;"
                f" get the newer one with `git fetch {publish.REMOTE} {MAIN}`"
            )


def _with_code_of(git: Git, base: str, source: str) -> Iterator[str]:
    """The commits of main after `source` whose code is that of `base`: the trailer of an import may be lost."""
    heads = filter(git.commit, (f"refs/remotes/{publish.REMOTE}/{MAIN}", f"refs/heads/{MAIN}"))
    wanted = git.trees(base, FOLDER)
    for commit in git.text("rev-list", *heads, f"^{source}", "--", FOLDER).split():
        if git.trees(commit, FOLDER) == wanted:
            yield commit

"""Which commit a model's code comes from.

A model is made from five paths of model-src/: its own folder of models/, contract/, lifecycle/, packing/ and the
training lock. Its code commit is the last commit of `main` that changed one of them. The branch `cicd` receives
model-src/ by import commits with a trailer `Main-Commit: <sha>`; there the code commit is looked up from that commit of
main. Where an import has lost its trailer, as by a squash, the newest commit of main with the same code takes its
place.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from contract import digest, waiting
from contract.errors import Refused

TRAILER = "Main-Commit"
_MAIN = ("refs/remotes/origin/main", "refs/heads/main")


@dataclass(frozen=True)
class Code:
    commit: str
    """40 hex digits."""
    date: str
    """Its commit date in UTC, YYYY-MM-DD."""


def find(source: Path, model: str, *, draft: bool = False) -> Code:
    """The code commit of `model`, whose project is the folder `source` (model-src/ of a git clone).

    Raises Refused when `source` is in no git repository, when the clone is shallow, when no commit holds the model's
    code, when an imported commit of main is missing from the clone and, unless `draft`, when something under the
    model's paths is changed or untracked.
    """
    paths = made_from(model)
    try:
        git(source, "rev-parse", "--show-toplevel")
    except Refused as refused:
        raise Refused(
            f"{source}: the model's code commit is unknown: {refused.lines[0]}; train in a clone of the repository"
        ) from None
    if git(source, "rev-parse", "--is-shallow-repository") == "true":
        raise Refused(f"{source}: a shallow clone, which hides the model's code commit; run `git fetch --unshallow`")
    if not draft:
        _refuse_changes(source, paths)
    last = _last_change(source, "HEAD", paths)
    if not last:
        raise Refused(f"{source}: no commit has {', '.join(paths)}; commit the model's code first")
    imported = git(source, "log", "-1", f"--format=%(trailers:key={TRAILER},valueonly)", last).strip()
    # A trailer that stands twice: the last one counts, as git interpret-trailers has it.
    if main := imported.splitlines()[-1] if imported else _same_on_main(source, last, paths):
        try:
            main = git(source, "rev-parse", "--verify", "--end-of-options", f"{main}^{{commit}}")
        except Refused:
            raise Refused(
                f"{source}: commit {last[:12]} imports {main} of main, which is not in this clone;"
                " run `git fetch origin main`"
            ) from None
        last = _last_change(source, main, paths)
        if not last:
            raise Refused(f"{source}: commit {main} of main, named by a {TRAILER} trailer, has no {', '.join(paths)}")
    return Code(last, git(source, "show", "-s", "--format=%cd", "--date=format-local:%Y-%m-%d", last))


def made_from(model: str) -> list[str]:
    """What a model is made from, below model-src/."""
    return [f"models/{model}", "contract", "lifecycle", "packing", "requirements-train.txt"]


def is_code(path: str) -> bool:
    """Whether a file there is code, and not what the stages make, which no image has."""
    parts = path.split("/")
    return "__pycache__" not in parts and not (parts[0] == "models" and parts[2] in ("build", "data", "plots"))


def code_digest(files: Iterable[tuple[str, bytes]]) -> str:
    """One SHA-256 over code, given as (path below model-src/, bytes), whatever else is among the files."""
    return digest.version_digest((path, hashlib.sha256(text).hexdigest()) for path, text in files if is_code(path))


def code_digest_of(source: Path, model: str) -> str:
    """The same of the files in a folder, which need be in no repository."""
    places = [source / path for path in made_from(model)]
    files = [file for place in places for file in (place, *place.rglob("*")) if file.is_file()]
    return code_digest((file.relative_to(source).as_posix(), file.read_bytes()) for file in files)


def _same_on_main(source: Path, commit: str, paths: list[str]) -> str | None:
    """The newest commit of main, as this clone has it, whose code is that of a commit which main does not have."""
    listed = git(source, "for-each-ref", "--format=%(refname)", *_MAIN).split()
    if not listed and git(source, "rev-list", "-1", f"--grep=^{TRAILER}: ", commit):
        raise Refused(
            f"{source}: commit {commit[:12]} may be an import that has lost its trailer {TRAILER}, and main is not in"
            " this clone; run `git fetch origin +refs/heads/main:refs/remotes/origin/main`"
        )
    if not listed or any(not git(source, "rev-list", "-1", commit, f"^{ref}") for ref in listed):
        return None
    [wanted] = _trees(source, [commit], paths)
    candidates = git(source, "rev-list", *listed, "--", *paths).split()
    found = zip(candidates, _trees(source, candidates, paths), strict=True)
    return next((candidate for candidate, trees in found if trees == wanted), None)


def _trees(source: Path, commits: list[str], paths: list[str]) -> list[list[str]]:
    """What each commit has at these paths, by one process."""
    folder = git(source, "rev-parse", "--show-prefix")
    names = "".join(f"{commit}:{folder}{path}\n" for commit in commits for path in paths)
    lines = git(source, "cat-file", "--batch-check=%(objectname)", stdin=names.encode()).splitlines()
    # What is not there is named as it was asked for.
    found = [line.partition(":")[2] if line.endswith(" missing") else line for line in lines]
    return [found[start : start + len(paths)] for start in range(0, len(found), len(paths))]


def _last_change(source: Path, revision: str, paths: list[str]) -> str:
    return git(source, "log", "-1", "--format=%H", revision, "--", *paths)


def _refuse_changes(source: Path, paths: list[str]) -> None:
    # -z: no quoting. A rename is shown as two paths unless it is told apart, so renames are not looked for.
    status = git(source, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *paths)
    lines = [line for line in status.split("\0") if line]
    if lines:
        raise Refused(
            *[f"{line[3:]}: {'untracked' if line[:2] == '??' else 'changed'}, not committed" for line in lines],
            "commit the model's code first, or try it out with --draft (a draft cannot be uploaded)",
        )


def git(source: Path, *args: str, codes: Container[int] = (0,), stdin: bytes | None = None) -> str:
    """What git prints. Raises Refused with git's own words when it ends with another exit code, or with an error: of a
    file that it cannot read, `git grep` prints one and goes on."""
    # A hook or an alias that calls us sets these, which would point git at another repository.
    inherited = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")}
    done = waiting.git(["git"], args, source, inherited | {"LC_ALL": "C", "TZ": "UTC"}, stdin)
    if done.returncode not in codes or b"error: " in done.stderr:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise Refused(*[f"git {args[0]}: {line}" for line in words])
    return done.stdout.decode(errors="surrogateescape").rstrip("\n")

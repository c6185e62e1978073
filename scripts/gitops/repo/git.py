"""The one place that runs git."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from gitops.repo import mainline
from gitops.repo.mainline import Merge

from contract import temporary, waiting
from contract.errors import Refused

ZERO = "0" * 40
# A hook or an alias that calls a command sets these; they would point every call at another repository.
_FOREIGN = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX", "GIT_QUARANTINE_PATH", "GIT_WORK_TREE",
)  # fmt: skip
# Settings of the user that would change what git prints or writes here.
_SETTINGS = (
    "log.showSignature=false", "log.follow=false", "log.showRoot=true", "log.diffMerges=separate",
    "i18n.logOutputEncoding=UTF-8", "core.quotePath=false",
)  # fmt: skip

_CHANGE = "%H%x1f%cI%x1f%an"
_MERGE = "%H%x1f%P%x1f%ce%x1f%s"
_RAW = ("--raw", "--no-abbrev", "--no-renames", "-z")
ID = re.compile("[0-9a-f]{40}([0-9a-f]{24})?")
"""The full id of an object."""
_OF_FILES = ("100644", "100755", "120000")

# As many paths as go into one command.
_FEW = 200
_LOCK = re.compile(r"Unable to create '(?P<file>.+\.lock)': File exists")


class GitError(Refused):
    """git failed; the lines carry git's own words."""


@dataclass(frozen=True)
class Change:
    """A commit, and the files that it changed: of each the id of the blob that it left there, and of the one that was
    there before; None for no file."""

    commit: str
    date: str
    """In ISO 8601."""
    author: str
    files: Mapping[str, str | None]
    before: Mapping[str, str | None]


@dataclass(frozen=True)
class Stretch:
    """A part of a branch's mainline: the first parents from `start` on, until the merge `end`, which came upon another
    parent; until the first commit of all where there is none."""

    start: str
    end: Merge | None = None
    before: str = ""
    """The parent of `end` that the branch was at before."""

    @property
    def bounds(self) -> tuple[str, ...]:
        """The commits from `start` on, as `git log --first-parent` takes them."""
        return (self.start, f"^{self.end.commit}") if self.end else (self.start,)


# The first that merges without a working tree.
OLDEST = (2, 38)
TOO_OLD = f"older than {'.'.join(map(str, OLDEST))}, which cannot merge without a working tree; update it"


class Git:
    """The repository at `root`. Every method raises GitError when git fails."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # Of blobs, where a clone lacks some.
        self._here: set[str] = set()
        self._fetching = threading.Lock()
        self._stretches: dict[str, list[Stretch]] = {}
        inside = self._run(["rev-parse", "--show-toplevel"])
        if inside.returncode:
            said = _words(inside)
            if any("not a git repository" in line for line in said):
                raise Refused(f"{root}: not a git repository; clone one, or name it with --root")
            raise Refused(*[f"{root}: {line}" for line in said])
        top = Path(inside.stdout.decode().strip())
        if top != root.resolve():
            raise Refused(f"{root}: not the top of its git repository; use --root {top}")

    @cached_property
    def promisors(self) -> list[str]:
        """The remotes that have the blobs which this clone lacks, because it was made with `--filter`; else none."""
        listed = self._run(["config", "--type=bool", "--get-regexp", r"^remote\..*\.promisor$"]).stdout.decode()
        found = [line.rpartition(" ") for line in listed.splitlines()]
        return [key.removeprefix("remote.").removesuffix(".promisor") for key, _, value in found if value == "true"]

    def _call(
        self, args: list[str], stdin: bytes | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        # Where blobs are missing, whatever reads one asks a remote.
        return self._run(args, stdin, env, remote=bool(self.promisors))

    def _run(
        self,
        args: list[str],
        stdin: bytes | None = None,
        env: dict[str, str] | None = None,
        *,
        settings: Sequence[str] = (),
        remote: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        # A reference refs/replace/ID would show another object under an id.
        # And what only looks leaves no lock when it is killed.
        fixed = {"LC_ALL": "C", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_OPTIONAL_LOCKS": "0"}
        inherited = {k: v for k, v in os.environ.items() if k not in _FOREIGN}
        given = [word for setting in (*_SETTINGS, *settings) for word in ("-c", setting)]
        return waiting.git(["git", *given], args, self.root, inherited | fixed | (env or {}), stdin, remote=remote)

    def raw(self, *args: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> bytes:
        done = self._call(list(args), stdin, env)
        if done.returncode:
            lines = _words(done)
            raise GitError(*[f"git {args[0]}: {line}" for line in [*filter(None, map(self._locked, lines))] or lines])
        return done.stdout

    def _locked(self, line: str) -> str | None:
        """What to do about a lock of this repository, if one is why git failed. Nobody but a person can remove it: git
        holds a lock by the file alone, also while an editor is open."""
        if line.startswith("remote:") or not (match := _LOCK.search(line)):
            return None
        if running := _running(self.root):
            return f"{match['file']}: git runs here (process {', '.join(running)}); when it has ended, run this again"
        return f"{match['file']}: left by a git that was killed, none runs here; remove the file, then run this again"

    def text(self, *args: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> str:
        return self.raw(*args, stdin=stdin, env=env).decode(errors="surrogateescape").strip()

    def succeeds(self, *args: str) -> bool:
        return self._call(list(args)).returncode == 0

    def version(self) -> tuple[int, int]:
        """The first two numbers of git's own version."""
        major, minor = self.text("--version").split()[2].split(".")[:2]
        return int(major), int(minor)

    # Looking

    def commit(self, rev: str) -> str | None:
        """The full id of the commit that `rev` names, or None."""
        done = self._call(["rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}"])
        return done.stdout.decode().strip() or None

    def require_commit(self, rev: str, option: str) -> str:
        """The full id of the commit that `rev`, given by an option, names."""
        found = self.commit(rev)
        if found is None:
            raise Refused(f"{option} {rev}: no such commit in this clone; `git fetch` it")
        return found

    def branch(self) -> str | None:
        """The branch that is checked out, or None when HEAD is detached."""
        return self._call(["symbolic-ref", "--quiet", "--short", "HEAD"]).stdout.decode().strip() or None

    def show(self, rev: str, path: str) -> bytes | None:
        """The bytes of a file as a commit has them, without any conversion, or None if it has no such file."""
        done = self._call(["cat-file", "blob", f"{rev}:{path}"])
        if not done.returncode:
            return done.stdout
        listed = self._call(["ls-tree", rev, "--", path])
        if b" blob " in listed.stdout or (listed.returncode and self.commit(rev)):
            raise self._lost(f"{rev}:{path}", *_words(done))
        return None

    def _lost(self, name: str, *words: str) -> GitError:
        """What to do about a blob that should be here."""
        remedy = "`git fsck` shows what else is, and a new clone has all"
        if self.promisors:
            remedy = (
                f"the clone was made without all blobs, and {', '.join(self.promisors)} did not give it; check the"
                " network and the access to it, then run the command again"
            )
        return GitError(f"{name}: missing in this repository; {remedy}", *words)

    def show_all(self, names: Sequence[str]) -> list[bytes | None]:
        """The bytes of many files, each named as `REV:PATH`, by one process; None for each that is not there. Raises
        Refused for a name that git would take for two."""
        if broken := [name for name in names if "\n" in name]:
            raise Refused(f"{broken[0]!r}: a line break in a file's name; rename it")
        if self.promisors:
            self.fetch_missing(self._ids(names).values())
        found = list(self._batch(names))
        absent = [name for name, data in zip(names, found, strict=True) if data is None]
        if lost := [name for name in absent if name in self._ids(absent)]:
            raise self._lost(lost[0])
        return found

    def _ids(self, names: Sequence[str]) -> dict[str, str]:
        """The ids of the files among these, each named as `REV:PATH`."""
        revs = {name.partition(":")[0] for name in names}
        found = {f"{rev}:{path}": blob for rev in revs if self.commit(rev) for _, blob, path in self.entries(rev)}
        return {name: found[name] for name in names if name in found}

    def fetch_missing(self, ids: Iterable[str]) -> None:
        """Where this clone lacks blobs, gets those of these by one fetch, as git does for each that it reads alone."""
        if self.promisors:
            # What one thread fetches others need not.
            with self._fetching:
                self._fetch(self._missing(ids))

    def _fetch(self, missing: Sequence[str]) -> None:
        if not missing:
            return
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none")
        asked = "".join(f"{blob}\n" for blob in missing).encode()
        # Told what is here, a server leaves out what the commits that are here have.
        alone = ("fetch.negotiationAlgorithm=noop",)
        words: list[str] = []
        for remote in self.promisors:
            done = self._run(["fetch", *options, "--stdin", remote], asked, settings=alone, remote=True)
            if not done.returncode:
                self._here |= set(missing)
                return
            words += [f"git fetch: {line}" for line in _words(done)]
        raise self._lost(missing[0], *words)

    def _missing(self, ids: Iterable[str]) -> list[str]:
        """Those of these blobs that are not here, without asking a remote for them."""
        listed = [blob for blob in dict.fromkeys(ids) if blob not in self._here]
        if not listed:
            return []
        # It passes over what is not here, and fetches nothing.
        looks = ("rev-list", "--objects", "--no-walk", "--ignore-missing", "--missing=allow-any", "--stdin")
        there = set(self.text(*looks, stdin="".join(f"{blob}\n" for blob in listed).encode()).split())
        self._here |= there
        return [blob for blob in listed if blob not in there]

    def _batch(self, names: Sequence[str]) -> Iterator[bytes | None]:
        """The bytes of each of these blobs, None for what is missing or none. `git cat-file --batch` prints for each a
        line that ends with `missing` or with the size, and after a size the bytes and a line's end."""
        given = memoryview(self.raw("cat-file", "--batch", stdin="".join(f"{name}\n" for name in names).encode()))
        start = 0
        for name in names:
            # What is missing is named as it was asked for; all else has an id, a kind and a size.
            head = bytes(given[start : start + len(name.encode()) + 128]).partition(b"\n")[0]
            start += len(head) + 1
            if head == f"{name} missing".encode():
                yield None
                continue
            _, kind, size = head.split()
            yield bytes(given[start : start + int(size)]) if kind == b"blob" else None
            start += int(size) + 1

    def changes(self, rev: str, *paths: str, most: int | None = None) -> list[Change]:
        """The commits of the mainline up to `rev` that changed files under `paths`, newest first, and no more than
        `most`. A merge counts as one commit, with what it brought; what a merged branch had on its way does not."""
        found: list[Change] = []
        for stretch in self.stretches(rev):
            bounds = [] if most is None else [f"--max-count={most - len(found)}"]
            given = ("log", "--first-parent", "-m", *_RAW, f"--format={_CHANGE}")
            listed = self.raw(*given, *bounds, *stretch.bounds, "--", *paths).decode(errors="surrogateescape")
            found += _changes(f"{listed}\0")
            if most is not None and len(found) >= most:
                break
            if stretch.end:
                head = self.text("log", "-1", f"--format={_CHANGE}", stretch.end.commit)
                compared = ("diff-tree", "-r", *_RAW, stretch.before, stretch.end.commit)
                listed = self.raw(*compared, "--", *paths).decode(errors="surrogateescape")
                found += _changes(f"{head}\0{listed}\0") if listed else ()
        return found[:most]

    def line(self, rev: str) -> list[str]:
        """The commits that the branch was at up to `rev`, newest first: its mainline."""
        found: list[str] = []
        for stretch in self.stretches(rev):
            found += self.text("rev-list", "--first-parent", *stretch.bounds).split()
            found += [stretch.end.commit] if stretch.end else []
        return found

    def stretches(self, rev: str) -> list[Stretch]:
        """The mainline of the deployed branch up to `rev`, newest first, as gitops.repo.mainline defines it."""
        start = rev if ID.fullmatch(rev) else self.text("rev-parse", "--verify", f"{rev}^{{commit}}")
        if start not in self._stretches:
            seen = self._seen()
            found = [self._stretch(start, seen)]
            while found[-1].end:
                found.append(self._stretch(found[-1].before, seen))
            self._stretches[start] = found
        return self._stretches[start]

    def _stretch(self, start: str, seen: set[str]) -> Stretch:
        for merge in self._merges("--first-parent", "--merges", start):
            if (before := mainline.parent(merge, seen)) != merge.parents[0]:
                return Stretch(start, merge, before)
        return Stretch(start)

    def hidden_by(self, commit: str) -> str | None:
        """What the branch was before a commit, where that is a merge whose first parent is another."""
        [merge] = self._merges("--max-count=1", commit)
        before = mainline.parent(merge, self._seen()) if len(merge.parents) > 1 else None
        return before if before not in merge.parents[:1] else None

    def _merges(self, *asked: str) -> list[Merge]:
        listed = self.text("log", *asked, f"--format={_MERGE}")
        rows = (line.split("\x1f", 3) for line in filter(None, listed.split("\n")))
        return [Merge(commit, parents.split(), committer, subject) for commit, parents, committer, subject in rows]

    def _seen(self) -> set[str]:
        """The commits that this clone has seen at the tip of the remote's branch, as far as git still has them."""
        upstream = f"refs/remotes/{mainline.REMOTE}/{mainline.BRANCH}"
        listed = self._call(["log", "--walk-reflogs", "--format=%H", upstream, "--"])
        return set(listed.stdout.decode().split()) if not listed.returncode else set()

    def blobs(self, ids: Iterable[str]) -> dict[str, bytes]:
        """The bytes of these blobs, by one process. Raises GitError for one that is not there."""
        listed = list(dict.fromkeys(ids))
        self.fetch_missing(listed)
        found = dict(zip(listed, self._batch(listed) if listed else (), strict=True))
        if missing := [blob for blob, data in found.items() if data is None]:
            raise self._lost(missing[0])
        return {blob: data for blob, data in found.items() if data is not None}

    def files(self, rev: str, *paths: str) -> list[str]:
        return [p for p in self.text("ls-tree", "-r", "-z", "--name-only", rev, "--", *paths).split("\0") if p]

    def entries(self, rev: str, *paths: str) -> list[tuple[str, str, str]]:
        """(mode, id, path) of the files of a commit under `paths`; a commit of another repository is none."""
        listed = self.raw("ls-tree", "-r", "-z", rev, "--", *paths).decode(errors="surrogateescape")
        rows = [(*meta.split(), path) for meta, _, path in (row.partition("\t") for row in listed.split("\0")) if path]
        return [(mode, blob, path) for mode, kind, blob, path in rows if kind == "blob"]

    def trees(self, rev: str, *paths: str) -> list[str]:
        """What a commit has at these paths, a line each with its mode and its id."""
        return self.text("ls-tree", rev, "--", *paths).splitlines()

    def folders(self, rev: str) -> list[str]:
        """The folders at the top of a commit."""
        return self.text("ls-tree", "-d", "--name-only", "-z", rev).rstrip("\0").split("\0")

    def mentioning(self, rev: str, words: Sequence[bytes], *paths: str) -> list[str]:
        """The files of a commit under `paths` whose bytes have one of the words."""
        if self.promisors:
            self.fetch_missing(blob for _, blob, _ in self.entries(rev, *paths))
        asked = [part for word in words for part in ("-e", os.fsdecode(word))]
        done = self._call(["grep", "--text", "--fixed-strings", "--name-only", "-z", *asked, rev, "--", *paths])
        # Of a blob that it cannot read it prints an error, and goes on.
        if done.returncode > 1 or b"error: " in done.stderr:
            raise GitError(*[f"git grep: {line}" for line in _words(done)])
        found = done.stdout.decode(errors="surrogateescape").split("\0")
        return [name.removeprefix(f"{rev}:") for name in found if name]

    def changed(self, old: str, new: str | None = None) -> list[str]:
        """Files that differ between `old` and `new`, or between `old` and the working tree with untracked files."""
        names = self.text("diff", "--name-only", "--no-renames", "-z", old, *([new] if new else []))
        untracked = "" if new else self.text("ls-files", "--others", "--exclude-standard", "-z")
        return sorted({p for p in (names + "\0" + untracked).split("\0") if p})

    def renamed(self, old: str, new: str) -> dict[str, str]:
        """The former path of each file that was renamed between two commits."""
        words = self.raw("diff-tree", "-r", "-M", "--diff-filter=R", "-z", old, new)
        rows = words.decode(errors="surrogateescape").split("\0")
        return {rows[i + 2]: rows[i + 1] for i in range(0, len(rows) - 2, 3)}

    def submodules(self) -> list[str]:
        """The paths of the index at which a commit of another repository stands."""
        rows = self.text("ls-files", "--stage", "-z").split("\0")
        return [row.partition("\t")[2] for row in rows if row.startswith("160000 ")]

    def dirty(self, *paths: str) -> list[str]:
        """Changed and untracked files under `paths`."""
        listed = self.raw("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--", *paths)
        return [line[3:] for line in listed.decode(errors="surrogateescape").split("\0") if line]

    def is_committed(self, *paths: str) -> bool:
        """Whether everything under `paths` is as HEAD has it, and nothing else is there, be it ignored or not."""
        asked = ("--porcelain=v1", "-z", "--untracked-files=all", "--ignored=matching", "--no-renames")
        return not self.text("status", *asked, "--", *paths)

    def require_clean(self, *paths: str) -> None:
        """Raises Refused while there are uncommitted changes under `paths`: what is made now would be without them."""
        if changed := self.dirty(*paths):
            remedy = "commit it, or put it away with `git stash`"
            raise Refused(*[f"{path}: uncommitted change; {remedy}" for path in changed[:10]])

    def author(self) -> tuple[str, str]:
        """Who a commit made now would be by, as `Name <mail>`, and its time in UTC, as in ISO 8601."""
        who, seconds, _ = self.text("var", "GIT_AUTHOR_IDENT").rsplit(" ", 2)
        return who, datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def is_ancestor(self, old: str, new: str) -> bool:
        return self.succeeds("merge-base", "--is-ancestor", old, new)

    def merge_base(self, one: str, other: str) -> str | None:
        """The newest commit that two have in common, or None."""
        return self._call(["merge-base", one, other]).stdout.decode().strip() or None

    def tree(self, rev: str) -> str:
        """The id of a commit's tree."""
        return self.text("rev-parse", "--verify", f"{rev}^{{tree}}")

    def merged_tree(self, ours: str, theirs: str) -> str | None:
        """The id of the tree that a merge of two commits gives; None where they conflict, or share no history."""
        if not self.merge_base(ours, theirs):
            return None
        tree, conflicts = self.merged(ours, theirs)
        return None if conflicts else tree

    def contains(self, branch: str, commit: str) -> bool:
        """Whether all that a commit brings is part of a branch: as it is, or as a squash, a rebase or another merge of
        the same changes. Then merging it changed nothing at some commit of the branch's first parents since the two
        parted; at the newest it may conflict with what came later."""
        if self.is_ancestor(commit, branch):
            return True
        fork = self.merge_base(branch, commit)
        if not fork:
            return False
        paths = [f":(literal){path}" for path in self.changed(fork, commit)]
        if not paths:
            return True
        bounds = ["--", *paths] if len(paths) <= _FEW else []
        chain = self.text("log", "--first-parent", "--format=%H %T", branch, f"^{commit}", *bounds).splitlines()
        return any(self.merged(other, commit) == (tree, {}) for other, tree in map(str.split, chain))

    def dropped(self, remote: str, branch: str) -> str | None:
        """A commit of a local branch that this clone has seen at the tip of a remote's, which no longer has it."""
        upstream = f"refs/remotes/{remote}/{branch}"
        fork = self._call(["merge-base", "--fork-point", upstream, f"refs/heads/{branch}"]).stdout.decode().strip()
        return fork if fork and not self.is_ancestor(fork, upstream) else None

    def require_full_history(self) -> None:
        if self.text("rev-parse", "--is-shallow-repository") == "true":
            raise Refused(f"{self.root}: shallow clone, so history cannot be trusted; run `git fetch --unshallow`")

    def has_remote(self, name: str) -> bool:
        return name in self.text("remote").split()

    # Building commits without touching the user's index, branches or files

    @contextlib.contextmanager
    def _index(self) -> Iterator[dict[str, str]]:
        with temporary.folder("model-gitops-index-") as folder:
            yield {"GIT_INDEX_FILE": str(folder / "index")}

    def export(self, rev: str, target: Path, *paths: str) -> None:
        """Writes the files of a commit under `paths` into `target`, with the bytes that the commit has: a checkout by
        git would convert them as the .gitattributes of the working tree ask, which may be those of another commit."""
        files = [(mode, blob, target / path) for mode, blob, path in self.entries(rev, *paths)]
        self.fetch_missing(blob for _, blob, _ in files)
        for (mode, _, file), data in zip(files, self._batch([blob for _, blob, _ in files]), strict=True):
            if data is None:
                raise self._lost(f"{rev}:{file.relative_to(target)}")
            file.parent.mkdir(parents=True, exist_ok=True)
            if mode == "120000":
                file.symlink_to(os.fsdecode(data))
                continue
            file.write_bytes(data)
            if mode == "100755":
                file.chmod(0o755)

    def tree_with(self, base: str, files: Mapping[str, bytes | None]) -> str:
        """The id of the tree of commit `base` with these files' bytes replaced, or (None) removed; modes stay."""
        with self._index() as env:
            self.text("read-tree", base, env=env)
            gone = [path for path, data in files.items() if data is None]
            kept = {path: data for path, data in files.items() if data is not None}
            self.raw("update-index", "-z", "--force-remove", "--stdin", stdin=_listed(gone), env=env)
            rows = self.raw("ls-files", "--stage", "-z", "--", *kept, env=env).decode(errors="surrogateescape")
            modes = {path: meta.split(" ")[0] for meta, _, path in (row.partition("\t") for row in rows.split("\0"))}
            blobs = zip(kept, self.written(kept.values()), strict=True)
            new = (f"{modes.get(path, '100644')} {blob}\t{path}" for path, blob in blobs)
            self.raw("update-index", "-z", "--index-info", stdin=_listed(new), env=env)
            return self._write_tree(env)

    def tree_of(self, files: Mapping[str, tuple[str, str]]) -> str:
        """The id of the tree of these files, (mode, id) by path."""
        with self._index() as env:
            rows = (f"{mode} {blob}\t{path}" for path, (mode, blob) in files.items())
            self.raw("update-index", "-z", "--index-info", stdin=_listed(rows), env=env)
            return self._write_tree(env)

    def written(self, blobs: Collection[bytes]) -> list[str]:
        """The ids of blobs that are in the repository from now on."""
        with temporary.folder("model-gitops-blobs-") as folder:
            names = [str(folder / str(number)) for number, _ in enumerate(blobs)]
            for name, data in zip(names, blobs, strict=True):
                Path(name).write_bytes(data)
            listed = "".join(f"{name}\n" for name in names).encode(errors="surrogateescape")
            return self.text("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=listed).splitlines()

    def tree_with_folder(self, base: str, folder: str, source: str) -> str:
        """The id of the tree of commit `base` with `folder` replaced by that folder of commit `source`."""
        with self._index() as env:
            self.text("read-tree", base, env=env)
            listed = self.raw("ls-files", "-z", "--", folder, env=env)
            # Not `git rm`: it compares with the checkout, which has nothing to do with this index.
            self.text("update-index", "-z", "--force-remove", "--stdin", stdin=listed, env=env)
            self.text("read-tree", f"--prefix={folder}/", f"{source}:{folder}", env=env)
            return self._write_tree(env)

    def _write_tree(self, env: dict[str, str]) -> str:
        # Otherwise it would fetch every blob that is not here.
        return self.text("write-tree", *(["--missing-ok"] if self.promisors else []), env=env)

    def merged(self, ours: str, theirs: str) -> tuple[str, dict[str, set[int]]]:
        """The id of the tree that a merge of two commits gives, and the files that conflict, each with the stages that
        are there: 1 the common one, 2 ours, 3 theirs; 0 where a file stands in the way of a folder or of a link, which
        git then gives another name. Renames of files are followed, those of folders are not."""
        settings = ("merge.renames=true", "merge.directoryRenames=false", "merge.renormalize=false")
        done = self._run(
            ["merge-tree", "--write-tree", "-z", "--no-messages", ours, theirs],
            settings=settings, remote=bool(self.promisors),
        )  # fmt: skip
        if done.returncode == 129:
            raise Refused(f"git: {TOO_OLD}")
        if done.returncode not in (0, 1) or not done.stdout:
            raise GitError(*[f"git merge-tree: {line}" for line in _words(done)])
        tree, *rows = done.stdout.decode(errors="surrogateescape").rstrip("\0").split("\0")
        found: dict[str, set[int]] = {}
        for meta, _, path in (row.partition("\t") for row in rows):
            asked, aside, side = path.rpartition("~")
            moved = bool(aside) and side in (ours, theirs)
            found.setdefault(asked if moved else path, set()).update(
                {int(meta.split(" ")[2])} | ({0} if moved else set())
            )
        return tree, found

    def draft(self, tree: str, parent: str | None, message: str) -> str:
        """A commit that no branch is to have, and that is never signed; None for one without a parent."""
        return self.text("commit-tree", *(["-p", parent] if parent else []), tree, stdin=message.encode())

    def commit_tree(self, tree: str, parent: str, message: str, *merged: str) -> str:
        """A commit of `tree` on `parent`, which merges others where some are given; signed when the user's settings
        sign commits. No ref is moved."""
        sign = self._call(["config", "--type=bool", "commit.gpgsign"]).stdout.decode().strip() == "true"
        parents = [word for commit in (parent, *merged) for word in ("-p", commit)]
        text = message.encode(errors="surrogateescape")  # it may quote a message that is not UTF-8
        return self.text("commit-tree", *(["-S"] if sign else []), *parents, tree, stdin=text)

    def trailers(self, rev: str, key: str) -> list[str]:
        """The values of a trailer in a commit's message."""
        form = f"%(trailers:key={key},valueonly,only)"
        return [v for v in self.text("log", "-1", f"--format={form}", rev).splitlines() if v]

    # Publishing

    def fetch(self, remote: str, branch: str) -> None:
        """Updates what this clone knows of the remote's branch."""
        try:
            self.text("fetch", "--quiet", "--no-tags", remote, f"+refs/heads/{branch}:refs/remotes/{remote}/{branch}")
        except GitError as error:
            if any("couldn't find remote ref" in line for line in error.lines):
                raise Refused(
                    f"{remote}: no branch {branch} there; look at `git remote get-url {remote}`, a new fork gets its"
                    " branches by `make init`"
                ) from None
            raise

    def remote_tip(self, remote: str, branch: str) -> str | None:
        """The commit that the remote's branch has now, or None if there is no such branch."""
        return self.remote_tips(remote, branch).get(branch)

    def remote_tips(self, remote: str, *branches: str) -> dict[str, str]:
        """The commits that those of these branches have now which the remote has; a `*` stands for any name."""
        listed = self.text("ls-remote", remote, *(f"refs/heads/{branch}" for branch in branches)).splitlines()
        return {ref.removeprefix("refs/heads/"): commit for commit, _, ref in (line.partition("\t") for line in listed)}

    def push(self, remote: str, commit: str, branch: str, instead_of: str | None = None) -> None:
        """Pushes one commit to one branch; never forced, so it lands only on what it was built upon, or else in the
        place of the very commit `instead_of`."""
        lease = [f"--force-with-lease=refs/heads/{branch}:{instead_of}"] if instead_of else []
        self.text("push", "--quiet", *lease, remote, f"{commit}:refs/heads/{branch}")

    def checked_out_elsewhere(self, branch: str) -> Path | None:
        """Another worktree that has `branch` checked out; one whose folder is gone does not count."""
        for block in self.text("worktree", "list", "--porcelain").split("\n\n"):
            lines = dict(line.partition(" ")[::2] for line in block.splitlines())
            folder = Path(lines.get("worktree", ""))
            there = lines.get("branch") == f"refs/heads/{branch}" and "prunable" not in lines
            if there and folder.resolve() != self.root.resolve():
                return folder
        return None

    def advance(self, branch: str, old: str | None, new: str) -> None:
        """Moves a local branch from `old` to its descendant `new`, with the working tree if it is checked out."""
        if self.branch() == branch:
            with _uninterrupted():
                self.text("merge", "--quiet", "--ff-only", new)
        else:
            self.text("update-ref", f"refs/heads/{branch}", new, old or ZERO)

    def move(self, branch: str, old: str | None, new: str) -> None:
        """Moves a local branch from `old`, of which nothing is lost by that, to any `new`. Where it is checked out, the
        working tree follows; raises Refused while that has changes of tracked files, or is another one than this."""
        if old == new:
            return None
        if elsewhere := self.checked_out_elsewhere(branch):
            raise Refused(
                f"branch {branch}: checked out in {elsewhere}; move it there with `git reset --keep {new[:12]}`"
            )
        if old is None or self.branch() != branch or self.is_ancestor(old, new):
            return self.advance(branch, old, new)
        if not self.succeeds("diff", "--quiet", "HEAD"):
            raise Refused(f"branch {branch}: checked out with uncommitted changes; commit them, or `git stash` them")
        with _uninterrupted():
            self.text("reset", "--quiet", "--keep", new)
        return None


def _changes(listed: str) -> Iterator[Change]:
    """What `git log --raw -z` printed: of each commit the line of _CHANGE, and of each file its modes and ids, and its
    path, with a NUL after each."""
    head, files, before = "", dict[str, str | None](), dict[str, str | None]()
    words = iter(listed.split("\0"))
    for word in words:
        if word.lstrip("\n").startswith(":"):
            old_mode, mode, old, blob, _ = word.lstrip("\n:").split(" ")
            path = next(words)
            files[path] = blob if mode in _OF_FILES else None
            before[path] = old if old_mode in _OF_FILES else None
            continue
        if head:
            commit, date, author = head.split("\x1f", 2)
            yield Change(commit, date, author, files, before)
        head, files, before = word.lstrip("\n"), {}, {}


def _listed(rows: Iterable[str]) -> bytes:
    """What git reads with -z."""
    return "".join(f"{row}\0" for row in rows).encode(errors="surrogateescape")


def _words(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """The words of a git that failed, without blank lines."""
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines()]
    return [line for line in lines if line] or ["no message"]


def _running(root: Path) -> list[str]:
    """The processes of git in a folder or below it; wherever it runs, where the system does not tell the folders."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,comm="], capture_output=True, text=True).stdout
    gits = [pid for pid, name in (line.split(maxsplit=1) for line in listed.splitlines()) if name.startswith("git")]
    return [pid for pid in gits if _below(Path("/proc", pid), root)]


def _below(process: Path, root: Path) -> bool:
    if not process.parent.joinpath("self").exists():
        return True
    try:
        return (process / "cwd").readlink().is_relative_to(root.resolve())
    except OSError:  # it has ended, or is another user's
        return False


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C and the like back until the block is done, from git as well, which would stop halfway."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

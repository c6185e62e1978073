"""List the model versions that nothing needs any more, and take them away with --delete.

The replicas of the policy are pruned like the model bucket, and after it, so that nothing is copied to them again. A
version stays while it is younger than --days, while a release named it at some time in those days, in whatever
environment, app or canary, while a rollback of what runs would go back to it, and while a branch names it that is not
merged. What runs on `cicd` is looked up again right before a version goes. Its manifest goes first, so that from then
on nothing can release it; if it is named all the same, the manifest comes back.

Deleting needs the role ml-model-prune, which nobody else has. In the bucket of infra/models.yaml the bytes can be
brought back for the days that it keeps them.

  python scripts/prune_versions.py
  python scripts/prune_versions.py --bucket s3://mlops-eu --days 365 --json
  python scripts/prune_versions.py --days 365 --delete
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gitops import cli
from gitops.checks.infra import LEAST_DAYS
from gitops.manifests import yamledit
from gitops.models.s3 import Store, Stored, model_bucket
from gitops.releases import history, stack, withdrawn
from gitops.repo import layout, publish, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import read_policy

from contract.digest import MANIFEST
from contract.errors import Refused
from contract.uri import MODEL, VERSION, VersionURI
from contract.version import MANIFEST_LIMIT

_KEY = re.compile(rf"models/(?P<model>{MODEL})/(?P<version>{VERSION})/.+")


@dataclass(frozen=True)
class Unneeded:
    """A version that nothing names, or what an interrupted upload or deletion left of one."""

    uri: VersionURI
    keys: tuple[str, ...]
    size: int
    """Bytes of all its objects."""
    newest: str
    """When its last object was stored, as ISO 8601."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument(
        "--bucket", metavar="s3://BUCKET", help="one of the policy's buckets (default: all, the replicas last)"
    )
    parser.add_argument(
        "--days", type=int, default=365, help=f"for how long what nothing names stays ({LEAST_DAYS} or more)"
    )
    parser.add_argument("--delete", action="store_true", help="take them away; needs the role for it")
    return cli.run(prune, parser.parse_args(argv))


def prune(args: argparse.Namespace) -> None:
    if args.days < LEAST_DAYS:
        raise Refused(f"--days {args.days}: a version stays for {LEAST_DAYS} days at least; write that or more")
    git = Git(args.root)
    git.require_full_history()
    start = datetime.now(UTC) - timedelta(days=args.days)
    _renew(git)
    found, gone = list[Unneeded](), list[Unneeded]()
    for store in _stores(args):
        here = unneeded(git, store, start)
        found += here
        gone += [each for each in here if _take_away(git, store, each, start)] if args.delete else []
    rows = [{"bucket": each.uri.bucket, "model": each.uri.model, "version": each.uri.version, "objects": len(each.keys),
             "bytes": each.size, "stored": each.newest} for each in found]  # fmt: skip
    if args.json:
        cli.print_json({"unneeded": rows, "deleted": [str(each.uri) for each in gone]})
        return
    if rows:
        print(cli.table(rows))
    megabytes = sum(each.size for each in (gone if args.delete else found)) / 1e6
    what = f"took away {len(gone)} of" if args.delete else "--delete would take away"
    cli.say(f"{what} {len(found)} versions, {megabytes:.1f} MB, that nothing named for {args.days} days")


def _stores(args: argparse.Namespace) -> list[Store]:
    replicas = read_policy(args.root).replicas
    first = model_bucket(args.bucket, args.root)
    if args.bucket:
        return [Store(first.bucket, replicas.get(first.bucket))]
    return [first, *(Store(bucket, region) for bucket, region in replicas.items())]


def unneeded(git: Git, store: Store, start: datetime) -> list[Unneeded]:
    """The versions of a bucket that nothing has named since `start`."""
    groups: dict[VersionURI, list[Stored]] = {}
    for item in store.objects("models/"):
        if match := _KEY.fullmatch(item.key):
            groups.setdefault(VersionURI(store.bucket, match["model"], match["version"]), []).append(item)
    old = {uri: items for uri, items in groups.items() if max(item.modified for item in items) < start}
    named = set(_named(git, {uri.version for uri in old}, start)) if old else set()
    return [_unneeded(uri, items) for uri, items in sorted(old.items()) if uri.version not in named]


def _unneeded(uri: VersionURI, items: Sequence[Stored]) -> Unneeded:
    newest = max(item.modified for item in items).isoformat(timespec="seconds")
    return Unneeded(uri, tuple(item.key for item in items), sum(item.size for item in items), newest)


def _named(git: Git, versions: Collection[str], start: datetime) -> Iterator[str]:
    """Those of these versions that something needs; the same version of two models counts as one."""
    tip = publish.tip(git)
    yield from mentioned(history.texts_since(git, tip, start), versions)
    yield from _below(git, tip)
    yield from mentioned(_of_branches(git, versions), versions)


def mentioned(texts: Iterable[bytes], versions: Collection[str]) -> Iterator[str]:
    """The versions that some text names, be it with an escape of YAML."""
    words = re.compile(VERSION)
    for text in texts:
        plain = text.decode(errors="replace")
        if "\\" in plain:
            try:
                plain += repr(yamledit.load(text, "a release"))
            except Refused:
                yield from versions  # what it names cannot be told
        yield from (match[0] for match in words.finditer(plain))


def _below(git: Git, tip: str) -> Iterator[str]:
    """What a rollback of each release would go back to, which may have run long ago."""
    there = snapshot.at(git, tip)
    running = [item for item in history.all_at(git, tip) if item.released]
    ran = history.Ran(git, tip, there.policy, {item.app for item in running})
    bad = withdrawn.read(there.read(layout.WITHDRAWN))
    for item in running:
        yield from (below.version for below in stack.good(stack.below(ran(item.target), item), bad)[:1])


def _of_branches(git: Git, versions: Collection[str]) -> Iterator[bytes]:
    """The files in overlays/ that name one of the versions, of every branch that this clone knows."""
    tips = set(git.text("for-each-ref", "--format=%(objectname)", "refs/heads", "refs/remotes").split())
    words = [version.encode() for version in sorted(versions)]
    for commit in sorted(tips):
        there = snapshot.at(git, commit)
        files = there.mentioning(words, "overlays")
        yield from filter(None, git.show_all([f"{commit}:{file}" for file in files]))


def _renew(git: Git) -> None:
    """Every branch as the remote has it now, where there is one."""
    if git.has_remote(publish.REMOTE):
        publish.fetch(git, "*")


def _take_away(git: Git, store: Store, each: Unneeded, start: datetime) -> bool:
    """Whether the version went: not if it is named by now. Raises Refused when it was named while it went."""
    cli.progress(f"taking away {each.uri}")
    if _is_named(git, each, start):
        cli.say(f"{each.uri}: named meanwhile; it stays")
        return False
    manifest = store.read(f"{each.uri.prefix}{MANIFEST}", MANIFEST_LIMIT)
    if manifest is not None:
        store.delete(f"{each.uri.prefix}{MANIFEST}")
        if _is_named(git, each, start):
            store.add(f"{each.uri.prefix}{MANIFEST}", manifest, hashlib.sha256(manifest).hexdigest())
            raise Refused(f"{each.uri}: named while it was to go; its manifest is back, and nothing of it is gone")
    for key in each.keys:
        if not key.endswith(f"/{MANIFEST}"):
            store.delete(key)
    cli.progress("")
    return True


def _is_named(git: Git, each: Unneeded, start: datetime) -> bool:
    _renew(git)
    return each.uri.version in set(_named(git, {each.uri.version}, start))


if __name__ == "__main__":
    raise SystemExit(main())

"""Copy model versions to the replicas of the model bucket that the policy names.

Each object is read from the model bucket, its bytes compared with the manifest and the manifest with the releases that
name it, put only if its key is new there, and hashed again as it is stored. The manifest comes last: without it the
version does not exist there, so an interrupted copy is completed by running it again, and two at once make one version.
What is there with the same bytes stays, what is there with others is refused by name and never overwritten; once it is
known who wrote it, remove it there and run this again.

Without an option, what is released anywhere on cicd is copied to every replica. Endpoint and credentials are the
standard AWS ones. A replica that needs others has a profile in the AWS configuration that is called like its bucket.

  python scripts/replicate_models.py
  python scripts/replicate_models.py --model wine --version 2026-02-01-3f2a9c1b7d10 --to acme-models-us
  python scripts/replicate_models.py --all --dry-run
"""

from __future__ import annotations

import argparse
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from gitops import cli
from gitops.models import s3, signing, store
from gitops.models.s3 import Store, Unanswered
from gitops.models.signing import Signer
from gitops.releases import history, verification
from gitops.releases.release import Release
from gitops.repo import publish
from gitops.repo.git import Git
from gitops.repo.policy import POLICY_FILE, Policy, read_policy
from gitops.repo.snapshot import Snapshot

from contract import signature
from contract.errors import Refused
from contract.manifest import File, Manifest
from contract.uri import VERSION, VersionURI, parse_flavour
from contract.waiting import TooSlow


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--to", metavar="BUCKET", help="one replica (default: all of the policy's)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="the versions of this model")
    which.add_argument("--released", action="store_true", help="what is released anywhere on cicd (default)")
    which.add_argument("--all", action="store_true", help="every version in the model bucket")
    parser.add_argument("--version", help="this version of the model alone")
    args = parser.parse_args(argv)
    if args.version and not args.model:
        parser.error("--version: give its model too, with --model")
    if args.version and not re.fullmatch(VERSION, args.version):
        parser.error(f"--version {args.version!r}: not YYYY-MM-DD-DIGEST12, as list_versions.py prints it")
    return cli.run(replicate, args)


def replicate(args: argparse.Namespace) -> None:
    policy, git = read_policy(args.root), Git(args.root)
    replicas = _replicas(policy, args.to)
    if not replicas:
        cli.say(f"{POLICY_FILE} names no replicas; every environment takes its models from s3://{policy.model_bucket}")
    source, tip = Store(policy.model_bucket), publish.tip(git)
    named = verification.named(git, tip)
    signer = signing.asked(Snapshot(args.root))
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for uri in _chosen(args, source, git, tip) if replicas else ():
        for replica in tuple(replicas):
            try:
                rows.append(_copy(source, uri, replica, named, signer, dry_run=args.dry_run))
            except Refused as refused:
                faults += refused.lines
                if isinstance(refused, (Unanswered, TooSlow)):
                    # No other version would fare better there; where it is the model bucket, in no replica.
                    replicas.remove(replica)
                continue
            if not args.json:
                _tell(rows[-1])
    if args.json:
        cli.print_json(rows)
    if faults:
        raise Refused(*dict.fromkeys(faults))


def _replicas(policy: Policy, asked: str | None) -> list[Store]:
    if asked is not None and asked not in policy.replicas:
        known = ", ".join(policy.replicas) or "none"
        raise Refused(f"--to {asked!r}: no bucket of `replicas` in {POLICY_FILE}; those are {known}")
    return [s3.replica(policy, bucket) for bucket in ([asked] if asked else policy.replicas)]


def _chosen(args: argparse.Namespace, source: Store, git: Git, tip: str) -> list[VersionURI]:
    if args.version:
        return [VersionURI(source.bucket, args.model, args.version)]
    if args.model or args.all:
        found = store.list_versions(source, args.model)
        if args.model and not found:
            raise Refused(f"--model {args.model!r}: s3://{source.bucket} has no version of it; check the name")
        return found
    return sorted({parse_flavour(item.uri)[0] for item in history.all_at(git, tip) if item.released})


def _copy(
    source: Store,
    uri: VersionURI,
    replica: Store,
    named: Mapping[str, Sequence[Release]],
    signer: Signer | None,
    *,
    dry_run: bool,
) -> dict[str, Any]:
    """Copies what a replica lacks of a version, and returns what that was. Raises Refused for wrong bytes in either."""
    there = uri.at(replica.bucket)
    manifest = store.read_manifest(source, uri)
    if faults := verification.manifest_faults(uri, manifest, named):
        raise Refused(*faults)
    copied = store.is_copied(replica, uri, manifest)
    signatures = _signatures(source, uri, manifest, signer)
    if dry_run:
        absent = signatures.keys() - set(replica.keys(there.prefix))
        added = len(store.missing(replica, there, manifest)) + len(absent) + (not copied)
    else:
        added = store.add_version(
            replica,
            there,
            manifest,
            lambda file: _content(source, uri, file),
            lambda: _sign(replica, source, signatures),
        )
        # Somebody else may have been first.
        store.is_copied(replica, uri, manifest)
    return {"uri": str(uri), "replica": str(there), "added": added, "dry_run": dry_run}


@contextmanager
def _content(source: Store, uri: VersionURI, file: File) -> Iterator[BinaryIO]:
    """A file of a version. Raises Refused unless its bytes are those of the manifest."""
    # Without a name: nothing is left of it, however this process ends.
    with tempfile.TemporaryFile() as copy:
        if faults := store.file_fault(source, uri, file, copy):
            raise Refused(*faults)
        copy.seek(0)
        yield copy


def _signatures(source: Store, uri: VersionURI, manifest: Manifest, signer: Signer | None) -> dict[str, bytes]:
    """The signatures of a manifest, by key. Raises Refused where the one that the policy requires does not verify."""
    found = {}
    for key in source.keys(f"{uri.prefix}{signature.start(manifest.text)}"):
        found[key] = source.read(key, signature.LIMIT) or b""
        if signer and key == f"{uri.prefix}{signing.name(manifest.text, signer)}":
            signing.verify(manifest.text, found[key], signer, source.url(key))
    return found


def _sign(replica: Store, source: Store, signatures: Mapping[str, bytes]) -> int:
    """Adds the signatures that a replica lacks, and returns their number. Raises Refused where one is there with other
    bytes."""
    added = 0
    for key, signed in signatures.items():
        added += replica.add(key, signed, _sha256(signed))
        if (stored := replica.read(key, signature.LIMIT) or b"") != signed:
            raise Refused(
                f"{replica.url(key)}: sha256 {_sha256(stored)}, and {source.url(key)} has {_sha256(signed)};"
                " signatures are never overwritten: find out who wrote them, and remove the wrong one"
            )
    return added


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _tell(row: Mapping[str, Any]) -> None:
    what = "would copy" if row["dry_run"] else "copied"
    cli.say(f"{what} {row['added']} objects" if row["added"] else "complete already, every byte as in the manifest")
    print(row["replica"], flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

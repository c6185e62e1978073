"""Upload a packaged model as an immutable version and print its URI.

Every object is put only if its key is new, hashed again as it is stored, and the manifest comes last: without it the
version does not exist. What is there already with the same bytes is skipped, anything else refused, so an
interrupted upload is completed by running it again, and two uploads of one version end in one version. Files that are
a version already, trained in another run or from another commit, stay that version. Endpoint and credentials are the
standard AWS ones (AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_PROFILE, ...).

A signature is stored before the manifest: one that is made here with --sign-key or --sign-keyless, or, where the policy
names whose is asked for, one that lies beside the manifest (manifest.json.sig, manifest.json.sigstore.json).
With --expect, only the manifest with this SHA-256 is uploaded or signed, and only if its code commit is that of the
model's code that is checked out: files that come from another machine or job may have been replaced on the way.

  python scripts/upload_model.py --model wine --artifacts model-src/artifacts/wine --bucket s3://mlops-prod
  python scripts/upload_model.py --model wine --artifacts model-src/artifacts/wine \\
      --sign-key ~/.config/model-gitops/signing.key
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from gitops import cli
from gitops.models import s3, signing, store
from gitops.models.s3 import Store
from gitops.models.signing import Signer, Signing
from gitops.repo.policy import POLICY_FILE
from gitops.repo.snapshot import Snapshot

from contract.digest import MANIFEST
from contract.errors import Refused
from contract.manifest import Manifest
from contract.uri import VersionURI
from packing import lineage


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--artifacts", required=True, type=Path, metavar="DIR", help="the folder with manifest.json")
    parser.add_argument("--bucket", metavar="s3://BUCKET", help=f"default: the bucket of {POLICY_FILE}")
    signing.add_options(parser)
    return cli.run(upload, parser.parse_args(argv))


def upload(args: argparse.Namespace) -> None:
    bucket = s3.model_bucket(args.bucket, args.root)
    signer = signing.asked(Snapshot(args.root))
    manifest = store.read_artifacts(args.artifacts, args.model)
    if args.expect:
        require_provenance(manifest, args)
    planned = signing.planned(signer, args.sign_key, args.sign_keyless) or beside(args.artifacts, manifest, signer)
    uri, added = stored_version(bucket, manifest), 0
    if uri is None:
        uri = VersionURI(bucket.bucket, manifest.model, manifest.version)
        added = add_version(bucket, uri, manifest, args.artifacts, planned, dry_run=args.dry_run)
        cli.say(f"{'would upload' if args.dry_run else 'uploaded'} {added} objects")
    else:
        cli.say("these files are a version already, complete and unchanged")
    if (planned or signer) and not args.dry_run:
        added += settle_signature(bucket, uri, manifest, planned, signer)
    if args.json:
        cli.print_json({"uri": str(uri), "digest": manifest.digest, "added": added, "dry_run": args.dry_run})
    else:
        print(uri)


def require_provenance(manifest: Manifest, args: argparse.Namespace) -> None:
    """Raises Refused unless the manifest is the one that is expected, of the code that is checked out."""
    source = str(args.artifacts / MANIFEST)
    signing.require_expected(manifest, args.expect, source)
    code = lineage.find(args.root / "model-src", manifest.model)
    if manifest.code_commit != code.commit:
        raise Refused(
            f"{source}: code_commit: {manifest.code_commit}, but the code that is checked out is of {code.commit};"
            " train from this commit"
        )


def stored_version(bucket: Store, manifest: Manifest) -> VersionURI | None:
    """The complete version of the same digest that is in the bucket; its date is that of the commit that came first.

    The stored manifest wins: the same bytes were only trained again, in another run or from another commit.
    """
    for uri in store.list_versions(bucket, manifest.model):
        if uri.version[10:] != manifest.version[10:]:
            continue
        stored = store.read_manifest(bucket, uri)
        if stored.digest == manifest.digest:
            require_same(uri, stored, manifest)
            store.verify(bucket, uri, None)
            return uri
    return None


# Another run from another commit gives them anew, on another day, and the same model.
_OF_A_RUN = ("version", "code_commit", "mlflow_run")


def require_same(uri: VersionURI, stored: Manifest, manifest: Manifest) -> None:
    """Raises Refused, one line a field, when the stored manifest of the same files tells something else of them."""
    theirs, ours = json.loads(stored.text), json.loads(manifest.text)
    names = [name for name in {**theirs, **ours} if name not in _OF_A_RUN and theirs.get(name) != ours.get(name)]
    if names:
        why = "the same files have one manifest: find out which of the two is right; if it is this one, withdraw that"
        raise Refused(
            *[
                f"{uri}{MANIFEST}: {name}: {theirs.get(name)!r}, but this upload has {ours.get(name)!r}; {why}"
                " version and train anew"
                for name in names
            ]
        )


def beside(folder: Path, manifest: Manifest, signer: Signer | None) -> Signing | None:
    """The signature that lies beside the manifest, if one is asked for and there. Raises Refused if it is another."""
    if signer is None or not (path := folder / f"{MANIFEST}{signer.suffix}").is_file():
        return None
    signature = path.read_bytes()
    signing.verify(manifest.text, signature, signer, str(path))
    return Signing(signer, lambda _: signature)


def settle_signature(
    bucket: Store, uri: VersionURI, manifest: Manifest, planned: Signing | None, signer: Signer | None
) -> int:
    """Signs a version that is there already, if its manifest is this very one, and returns how many objects that added.

    The stored manifest wins, and with it its signature: one of another training run is not signed unseen. Raises
    Refused when a signature was to be made and the version has none, or has one that does not verify.
    """
    stored = store.read_manifest(bucket, uri)
    if planned and stored.text == manifest.text:
        added = store.add_signature(bucket, uri, stored, planned)
        cli.say(f"signed by {planned.signer}")
        return added
    try:
        store.require_signature(bucket, uri, stored, planned.signer if planned else signer)
    except signing.Unsigned as unsigned:
        if planned:
            raise Refused(
                f"{uri}{MANIFEST}: of another training run ({stored.mlflow_run}), and not signed by"
                f" {planned.signer}; it is not signed unseen: {signing.remedy(uri, planned.signer)}"
            ) from None
        cli.say(unsigned.lines[0])
    return 0


def add_version(
    bucket: Store, uri: VersionURI, manifest: Manifest, folder: Path, planned: Signing | None, *, dry_run: bool
) -> int:
    """Adds what is missing of a version, the manifest last, and returns how many objects that were."""
    if dry_run:
        return len(store.missing(bucket, uri, manifest)) + 1 + (planned is not None)
    added = store.add_version(
        bucket, uri, manifest, lambda file: (folder / file.path).open("rb"),
        lambda: store.add_signature(bucket, uri, manifest, planned) if planned else 0,
    )  # fmt: skip
    stored = store.read_manifest(bucket, uri)
    if stored.digest != manifest.digest:
        raise Refused(f"{uri}{MANIFEST}: digest: {stored.digest}, this version has {manifest.digest}")
    require_same(uri, stored, manifest)
    return added


if __name__ == "__main__":
    raise SystemExit(main())

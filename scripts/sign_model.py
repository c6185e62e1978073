"""Sign a model version that is in the bucket, after its every byte was verified.

Versions are signed when they are uploaded. This is for those that were there before signatures were asked for, and
for a new key. A signature vouches for what is in the manifest: look at it first. It is a new object; the
signatures by other keys stay.

  python scripts/sign_model.py --model-uri s3://BUCKET/models/wine/VERSION/ \\
      --sign-key ~/.config/model-gitops/signing.key
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gitops import cli
from gitops.models import signing, store
from gitops.models.s3 import Store
from gitops.repo.policy import POLICY_FILE
from gitops.repo.snapshot import Snapshot

from contract.digest import MANIFEST
from contract.errors import Refused
from contract.uri import parse_uri


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--model-uri", required=True, metavar="URI", help="the version, as list_versions.py prints it")
    signing.add_options(parser, required=True)
    return cli.run(sign, parser.parse_args(argv))


def sign(args: argparse.Namespace) -> None:
    uri = parse_uri(args.model_uri)
    signer = signing.asked(Snapshot(args.root))
    # With any key: before the policy asks for a new one, what runs has to be signed with it.
    planned = signing.planned(None if args.sign_key else signer, args.sign_key, args.sign_keyless)
    if planned is None:
        raise Refused(f"--sign-keyless: {POLICY_FILE} asks for no signature of an identity; add `signing:` there")
    bucket = Store(uri.bucket)
    manifest = store.verify(bucket, uri, None)
    signing.require_expected(manifest, args.expect, f"{uri}{MANIFEST}")
    cli.say(f"{uri.model} {uri.version}: code {manifest.code_commit[:12]}, MLflow run {manifest.mlflow_run[:12]}")
    for metric, value in manifest.metrics.items():
        cli.say(f"  {metric} {value}")
    added = 0 if args.dry_run else store.add_signature(bucket, uri, manifest, planned)
    verb = "would be signed" if args.dry_run else "signed" if added else "signed already"
    cli.say(f"{verb} by {planned.signer}")
    if signer is None or signer.identifier != planned.signer.identifier:
        cli.say(f"{POLICY_FILE} does not ask for this signature")
    signature = f"{uri}{signing.name(manifest.text, planned.signer)}"
    if args.json:
        cli.print_json({"uri": str(uri), "signature": signature, "added": added, "dry_run": args.dry_run})
    else:
        print(signature)


if __name__ == "__main__":
    raise SystemExit(main())

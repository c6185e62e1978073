"""Make the key that signs model versions, and ask for its signature in the policy.

The private key goes to a file outside the repository that only you can read, the public one into the repository. From
the commit of these changes on, bump_model.py, promote_model.py and rollback_model.py refuse a version that the key has
not signed: sign what is released with sign_model.py first. Nothing is overwritten; a private key that is there is used.
--rotate puts the public half of another key in the place of the policy's, for a pull request.

  python scripts/signing_key.py
  python scripts/signing_key.py --rotate --private-key ~/.config/model-gitops/signing-2.key
  python scripts/signing_key.py --private-key /mnt/usb/signing.key
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gitops import cli
from gitops.models import signing
from gitops.releases import writing
from gitops.repo.git import Git
from gitops.repo.policy import POLICY_FILE, SigningPolicy, parse_policy, read_policy

from contract import signature, temporary
from contract.errors import Refused

DEFAULT = Path("~/.config/model-gitops/signing.key")
STEPS = """\
Next:
  sign what runs, and what you may roll back to: python scripts/sign_model.py --model-uri URI --sign-key {private}
  let an app of our own service load signed versions only: in apps/APP/kustomization.yaml, below `components:`
      - ../../base/api/signed
  commit {public}, {policy} and that file
  sign every upload: python scripts/upload_model.py ... --sign-key {private}
"""
ROTATED = """\
Next, before {public} comes to cicd:
  sign what runs, and what you may roll back to, with the new key too (list_versions.py shows here what it has not
  signed): python scripts/sign_model.py --model-uri URI --sign-key {private}
  then commit {public} for a pull request to cicd
  sign uploads with the old key until that is merged, and from then on: upload_model.py ... --sign-key {private}
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True)
    parser.add_argument(
        "--private-key", type=Path, default=DEFAULT, metavar="PATH", help=f"where it is, or is to be ({DEFAULT})"
    )
    parser.add_argument("--rotate", action="store_true", help="put this key in the place of the policy's")
    return cli.run(make, parser.parse_args(argv))


def make(args: argparse.Namespace) -> None:
    git = Git(args.root)
    private = args.private_key.expanduser().absolute()
    if private.resolve().is_relative_to(args.root):
        raise Refused(f"--private-key {private}: in the repository; a private key never goes into Git")
    policy = read_policy(args.root)
    path = policy.signing.public_key if policy.signing else signing.PUBLIC_KEY
    if not path:
        raise Refused(f"{POLICY_FILE}: signing: asks for the signature of an identity; take that out first")
    public, there = args.root / path, private.exists()
    if args.rotate:
        require_other(public, private, path)
    else:
        require_own(public, private, path)
    text = with_signing((args.root / POLICY_FILE).read_bytes(), path)
    if args.dry_run:
        cli.say(f"would {'use' if there else 'make'} {private} and write {path} and {POLICY_FILE}")
        return
    # A private key that a killed run left is one too many.
    temporary.sweep_siblings(private.parent)
    if not there:
        write_private(private, signing.new_private_key())
        cli.say(f"made {private}; keep a copy of it where you keep secrets")
    writing.write_files(git, {path: signing.public_half(private).pem, POLICY_FILE: text})
    print((ROTATED if args.rotate else STEPS).format(private=private, public=path, policy=POLICY_FILE), end="")


def require_own(public: Path, private: Path, path: str) -> None:
    """Raises Refused for a public key that is not the half of this private one."""
    if not public.exists():
        return
    if not private.exists():
        raise Refused(
            f"{path}: there already, and {private} is not; name its private key, or put a new one in its place"
            " with --rotate"
        )
    if not _is_half(public, private, path):
        raise Refused(
            f"{path}: the public half of another key than {private}; name that one, or put this one in its place"
            " with --rotate"
        )


def require_other(public: Path, private: Path, path: str) -> None:
    """Raises Refused where there is no key to replace, or this one stands there already."""
    if not public.exists():
        raise Refused(f"--rotate: {path}: missing; leave the option out to make the first key")
    if private.exists() and _is_half(public, private, path):
        raise Refused(f"--rotate: {private} is the key of {path} already; name another file with --private-key")


def _is_half(public: Path, private: Path, path: str) -> bool:
    key = signature.public_key(public.read_bytes(), path)
    return key.identifier == signing.public_half(private).identifier


def with_signing(text: bytes, path: str) -> bytes:
    """The policy with a block at its end that names this public key; every other byte stays."""
    before = parse_policy(text)
    wanted = replace(before, signing=SigningPolicy(public_key=path))
    if before == wanted:
        return text
    end = b"\r\n" if b"\r\n" in text else b"\n"
    lines = (b"# Whose signature a version needs to be released.", b"signing:", b"  public_key: " + path.encode(), b"")
    added = text + (b"" if text.endswith(b"\n") else end) + end.join(lines)
    try:
        done = parse_policy(added) == wanted
    except Refused:
        done = False
    if not done:
        raise Refused(f"{POLICY_FILE}: no block can be added at its end; add `signing:` with `public_key: {path}`")
    return added


def write_private(path: Path, pem: bytes) -> None:
    """Makes the file, for its owner alone, whole or not at all. Raises FileExistsError if there is one meanwhile."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with temporary.sibling_file(path) as file:
        try:
            file.write(pem)
            file.flush()
            os.link(file.name, path)
        finally:
            Path(file.name).unlink()


if __name__ == "__main__":
    raise SystemExit(main())

"""Check every manifest: it renders, its schema is closed and complete, and the repository's rules hold.

Exit code 0 means that everything was checked and nothing found; a missing schema or tool is a failure.

  python scripts/validate.py
  python scripts/validate.py --changed-since origin/cicd    report only on overlays that a change can affect
  python scripts/validate.py --root ../other-checkout --json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gitops import cli, kubeconform, kustomize, layout, rules
from gitops.cli import Refused
from gitops.git import Git
from gitops.rules import ARGOCD, Repository


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument("--changed-since", metavar="REF", help="report only what the changes since this commit affect")
    return cli.run(validate, parser.parse_args(argv))


def validate(args: argparse.Namespace) -> int:
    policy = layout.read_policy(args.root)
    folders = [*layout.overlays(args.root, policy), ARGOCD]
    concerned = _concerned(args, folders) if args.changed_since else folders
    renders = {f: kustomize.objects(text) for f, text in kustomize.build_all(args.root, folders).items()}
    # The rules look at everything, because an object may clash with one of an overlay that did not change.
    found = rules.check(Repository(args.root, policy, renders))
    found += kubeconform.check({folder: renders[folder] for folder in concerned})
    reported = [finding for finding in found if not finding.folders or set(finding.folders) & set(concerned)]
    if args.json:
        cli.print_json([vars(finding) for finding in reported])
    for finding in reported:
        print(f"error: {finding}", file=sys.stderr)
    if not reported and not args.json:
        objects = sum(len(renders[folder]) for folder in concerned)
        print(f"{len(concerned)} renders with {objects} objects: schemas and {len(rules.RULES)} rules hold")
    return 1 if reported else 0


def _concerned(args: argparse.Namespace, folders: list[str]) -> list[str]:
    """The folders that a change can affect. The rules and schemas themselves are part of a change that touches them."""
    git = Git(args.root)
    base = git.commit(args.changed_since)
    if base is None:
        raise Refused(f"--changed-since {args.changed_since}: no such commit in this clone; `git fetch` it")
    changed = git.changed(base)
    if any(path.startswith(("scripts/", "tools/")) or path == layout.POLICY_FILE for path in changed):
        return folders
    return kustomize.readers(args.root, folders, changed)


if __name__ == "__main__":
    raise SystemExit(main())

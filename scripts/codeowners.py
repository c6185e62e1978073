"""Write .github/CODEOWNERS from the owners of overlays/promotion.yaml: who has to approve a change of which file.

python scripts/codeowners.py
python scripts/codeowners.py --check
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gitops import cli
from gitops.repo import codeowners
from gitops.repo.layout import CODEOWNERS
from gitops.repo.policy import POLICY_FILE, read_policy

from contract.errors import Refused


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True)
    parser.add_argument("--check", action="store_true", help="only tell whether the file is what the policy gives")
    return cli.run(write, parser.parse_args(argv))


def write(args: argparse.Namespace) -> None:
    text = codeowners.text(read_policy(args.root))
    file = args.root / CODEOWNERS
    found = file.read_text() if file.is_file() else ""
    if not text and not codeowners.is_made(found):
        raise Refused(f"{POLICY_FILE}: environments: no owners; nobody has to approve, and no file is made")
    if args.dry_run:
        print(text, end="")
    elif found == text:
        cli.say(f"{CODEOWNERS}: as {POLICY_FILE} gives it")
    elif args.check:
        raise Refused(f"{CODEOWNERS}: not what {POLICY_FILE} gives; run `python scripts/codeowners.py`")
    elif text:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        cli.say(f"wrote {CODEOWNERS}")
    else:
        file.unlink()
        cli.say(f"removed {CODEOWNERS}: {POLICY_FILE} names no owners")


if __name__ == "__main__":
    raise SystemExit(main())

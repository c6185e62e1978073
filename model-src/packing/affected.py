"""Which models a change can affect, in groups for jobs that train them.

A change of a model's own folder concerns that model, and each whose folder has its name in it. What all models share
concerns all; so does whatever is not known to concern none.

  python -m packing.affected --since COMMIT           as JSON, a group of names an entry: ["iris", "wine"]
  python -m packing.affected --most 100               all models, in at most 100 groups: ["diabetes iris", "wine"]
  python -m packing.affected --models "iris wine"     these
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from contract import command
from contract.errors import Refused
from packing.lineage import git

# By the layers in pyproject.toml, no model can import these, and no stage reads them.
_NO_MODELS = ("extras/", "skeletons/", "tests/", "Dockerfile", "README.md", "requirements-kubeflow.txt",
              "requirements-monitor.txt", "requirements-test.txt")  # fmt: skip
# Which Python trains, and how.
_WORKFLOWS = ".github/workflows/"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m packing.affected", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--since", default="", metavar="COMMIT", help="of this history or not; without it, all models")
    parser.add_argument("--models", default="", metavar="NAMES", help="these, whatever has changed")
    parser.add_argument("--most", type=int, default=256, help="how many groups at most (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.most < 1:
        parser.error(f"--most {args.most}: not above 0")
    return command.run(lambda: _print(args), "interrupted")


def _print(args: argparse.Namespace) -> None:
    source = Path.cwd()
    chosen = _named(source, args.models.split()) if args.models else affected(source, args.since)
    print(json.dumps(groups(chosen, args.most)))


def models(source: Path) -> list[str]:
    """All models of the project in `source`. Raises Refused for a name that no group could hold."""
    names = sorted(file.parent.name for file in source.glob("models/*/problem.yaml"))
    if wrong := [name for name in names if not re.fullmatch("[a-z0-9_-]+", name)]:
        raise Refused(f"models/{wrong[0]}: a name has lower-case letters, digits, - and _; rename the folder")
    return names


def _named(source: Path, names: Sequence[str]) -> list[str]:
    known = models(source)
    if unknown := [name for name in names if name not in known]:
        raise Refused(f"--models {unknown[0]}: no such model; there is {', '.join(known) or 'none'}")
    return sorted({*names})


def affected(source: Path, since: str) -> list[str]:
    """The models whose training may differ from that at commit `since`: all of them where that is empty or not here.
    `source` is model-src/ of a git clone, as HEAD has it. Raises Refused when git fails."""
    names = models(source)
    look = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{since}^{{commit}}")
    if not since or not (commit := git(source, *look, codes=(0, 1))):
        return names
    changed = _changed(source, commit)
    return names if changed is None else [name for name in names if name in _with_users(source, changed)]


def _changed(source: Path, commit: str) -> set[str] | None:
    """The folders of models that differ between `commit` and HEAD, None if what all share does."""
    inside = git(source, "rev-parse", "--show-prefix")
    listed = git(source, "diff-tree", "-r", "-z", "--name-only", "--no-renames", commit, "HEAD").split("\0")
    found = set()
    for path in filter(None, listed):
        if not path.startswith(inside):
            if path.startswith(_WORKFLOWS):
                return None
            continue
        match path.removeprefix(inside).split("/"):
            case ["models", name, _, *_]:
                found.add(name)
            case _ if not path.removeprefix(inside).startswith(_NO_MODELS):
                return None
    return found


def _with_users(source: Path, names: set[str]) -> set[str]:
    """With the models that have one of these names in a file, those that have one of theirs, and so on."""
    found, new = set(names), names
    while new:
        words = [word for name in sorted(new) for word in ("-e", name)]
        look = ("grep", "-z", "-a", "-w", "-F", "--name-only", "--full-name", *words, "HEAD", "--", "models")
        files = git(source, *look, codes=(0, 1))
        users = {path.partition("/models/")[2].partition("/")[0] for path in files.split("\0")}
        new = users - found - {""}
        found |= new
    return found


def groups(names: Sequence[str], most: int) -> list[str]:
    """The names in at most `most` groups that differ by one at most, each with spaces between them."""
    number = min(most, len(names))
    return [" ".join(names[at::number]) for at in range(number)]


if __name__ == "__main__":
    raise SystemExit(main())

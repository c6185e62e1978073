"""Find and run the commands of this repository: all of them in groups, with what each does, or one by its name.

A command can be written with or without `.py`, with dashes or underscores. It runs as `python scripts/COMMAND.py` does,
with the same Python, arguments and exit code.

  python scripts/run.py
  python scripts/run.py --json
  python scripts/run.py promote_model --app wine-sklearn --to staging
  python scripts/run.py promote-model --help
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
GROUPS = {
    "Models": (
        "new_model", "upload_model", "replicate_models", "list_versions", "signing_key", "sign_model", "sync_registry",
        "check_drift", "check_retrain", "prune_versions", "train_sagemaker",
    ),
    "Releases": (
        "bump_model", "promote_model", "rollback_model", "withdraw_version", "retire_app", "releases", "status",
        "deploy_stack", "deploy_sagemaker",
    ),
    "The repository": (
        "validate", "render", "add_kind", "cluster", "codeowners", "environment", "import_model_code", "init_fork",
        "update_template", "bootstrap", "stacks", "scan", "lock",
    ),
    "This machine": ("setup", "doctor", "demo", "serve_model", "local_s3", "local_cluster"),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    # What stands behind the command is the command's own.
    own = next((place for place, word in enumerate(words) if not word.startswith("-")), len(words))
    parser = argparse.ArgumentParser(
        usage="run.py [-h] [--json] | COMMAND [ARGS ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    args = parser.parse_args(words[:own])
    if own == len(words):
        print(json.dumps(listed(), indent=2) if args.json else shown())
        return 0
    if args.json:
        parser.error(f"--json before a command is for the list; write it behind {words[own]}")
    return start(words[own], words[own + 1 :])


def listed() -> list[dict[str, str]]:
    """The commands in the order of their groups, each with the first line of its docstring."""
    return [
        {"group": group, "command": name, "does": what(SCRIPTS / f"{name}.py")}
        for group, names in GROUPS.items()
        for name in names
    ]


def what(file: Path) -> str:
    # Importing it would need all that the command needs.
    return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]


def shown() -> str:
    commands = listed()
    width = max(len(each["command"]) for each in commands)
    blocks = []
    for group in GROUPS:
        lines = [f"  {each['command']:{width}}  {each['does']}" for each in commands if each["group"] == group]
        blocks.append("\n".join([group, *lines]))
    return "\n\n".join(blocks)


def start(word: str, args: Sequence[str]) -> int:
    """Becomes the command; returns 2 only when there is none of this name."""
    known = [name for names in GROUPS.values() for name in names]
    name = word.removesuffix(".py").replace("-", "_")
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}? `python scripts/run.py` lists all" if near else "see `python scripts/run.py`"
        print(f"error: {word}: no such command; {remedy}", file=sys.stderr)
        return 2
    os.execv(sys.executable, [sys.executable, str(SCRIPTS / f"{name}.py"), *args])


if __name__ == "__main__":
    raise SystemExit(main())

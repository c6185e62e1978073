"""Command-line conventions that every command keeps: exit codes, error lines, common options."""

from __future__ import annotations

import argparse
import gc
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import contract.command
from contract.errors import Refused

ROOT = Path(__file__).resolve().parents[2]


class _Parser(argparse.ArgumentParser):
    """Keeps the words of the command line, as `words`, for the commands that a message gives to run next."""

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        parsed = super().parse_args(words, namespace)
        parsed.words = words
        return parsed


def parser(doc: str | None, *, dry_run: bool = False, as_json: bool = False) -> argparse.ArgumentParser:
    """A parser that shows the module's docstring, examples included, as its help."""
    made = _Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--root", type=Path, default=ROOT, metavar="DIR", help="work on another checkout (default: this one)"
    )
    if dry_run:
        made.add_argument("--dry-run", action="store_true", help="show what would be done and change nothing")
    if as_json:
        made.add_argument("--json", action="store_true", help="print JSON")
    return made


def run(command: Callable[[argparse.Namespace], int | None], args: argparse.Namespace) -> int:
    """The exit code of `command`, as `contract.command.run` makes it."""

    def work() -> int | None:
        if not args.root.is_dir():
            raise Refused(f"--root {args.root}: not a folder")
        args.root = args.root.resolve()
        args.script = Path(inspect.getfile(command)).resolve()
        return command(args)

    # A command is over before what it leaves is worth looking for among all that it has read.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return contract.command.run(work, "interrupted; run the same command again to complete it")
    finally:
        if collecting:
            gc.enable()


def say(line: str) -> None:
    """A remark for the person at the terminal; stdout stays for results."""
    sys.stdout.flush()  # so that both come in order where they go to the same place
    print(line, file=sys.stderr, flush=True)


def progress(line: str) -> None:
    """Shows a step of long work on a terminal, and nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal keys as a plain table."""
    from tabulate import tabulate  # slow to import, and not there where serve_model.py runs

    return tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))

"""How every command ends: with 0 when it is done, 1 when it refused, 130 when it was interrupted. Errors are lines on
stderr, without a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from contract.errors import Refused


def run(work: Callable[[], int | None], interrupted: str) -> int:
    """The exit code: what `work` returns, nothing being 0, unless it is refused or interrupted. `interrupted` is what
    was left then; empty if the caller prints it."""
    try:
        code = work() or 0
        # What is still to be written fails here and not after the end, where nobody would catch it.
        print(end="", flush=True)
        return code
    except Refused as refused:
        print_errors(*refused.lines)
        return 1
    except BrokenPipeError:
        # Whoever read the output needs no more of it, as `head`; nor does the interpreter's own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print_errors(f"{place}{error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        if interrupted:
            print_errors(interrupted)
        return 130


def print_errors(*lines: str) -> None:
    for line in lines:
        print(f"error: {line}", file=sys.stderr)

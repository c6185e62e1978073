"""Send lines of this machine's journal to CloudWatch Logs: those of some units of systemd, and what systemd says of
them.

LOG_UNITS names the units, with blanks between them, and LOG_PROGRAMS other programs, by their names in the journal. The
lines go to LOG_STREAM, which is made in the log group LOG_GROUP. How far it came is kept in the file LOG_CURSOR: a
restart leaves no line out. While CloudWatch does not answer, the journal keeps them.

  LOG_UNITS="a.service b.service" LOG_PROGRAMS=boot LOG_GROUP=/ml/wine LOG_STREAM=i-0123456789abcdef0 \\
      LOG_CURSOR=/var/lib/log/cursor python -m serving.journal
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from storage.files import write_atomically

SECONDS = 5
"""Between two looks, and before another try."""
# PutLogEvents takes 1 MiB at most, in which each line counts 26 bytes more than it has.
LINES = 240
LONGEST = 1000
"""Characters of a line; UTF-8 has at most four bytes for one."""


def main(environment: Mapping[str, str] = os.environ) -> None:
    group, stream = environment["LOG_GROUP"], environment["LOG_STREAM"]
    matches = [*wanted(environment["LOG_UNITS"].split(), environment["LOG_PROGRAMS"].split())]
    cursor = Path(environment["LOG_CURSOR"])
    logs = boto3.client("logs", config=Config(retries={"mode": "standard", "max_attempts": 3}))
    waiting = threading.Event()
    while True:
        try:
            with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
                logs.create_log_stream(logGroupName=group, logStreamName=stream)
            while send(logs, group, stream, cursor, matches):
                pass
        except (BotoCoreError, ClientError) as error:
            print(f"not sent, trying again: {' '.join(str(error).split())}", flush=True)
        waiting.wait(SECONDS)


def wanted(units: Sequence[str], programs: Sequence[str]) -> Sequence[str]:
    """The entries to send, as journalctl(1) takes them: `+` stands between alternatives."""
    said, said_of = ([f"{field}={unit}" for unit in units] for field in ("_SYSTEMD_UNIT", "UNIT"))
    return [*said, "+", *said_of, "+", *(f"SYSLOG_IDENTIFIER={name}" for name in programs)]


def send(logs: Any, group: str, stream: str, cursor: Path, matches: Sequence[str]) -> bool:
    """Sends the next lines; False when there are none."""
    entries = read(cursor.read_text() if cursor.exists() else "", matches)
    if entries:
        # In the order of their times, which the journal need not have.
        events = sorted((event(each) for each in entries), key=lambda each: each["timestamp"])
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
        write_atomically(cursor, entries[-1]["__CURSOR"].encode())
    return bool(entries)


def read(cursor: str, matches: Sequence[str]) -> list[dict[str, Any]]:
    """The first entries after a cursor, or of the journal, as journalctl(1) has them in its format `json`."""
    after = [f"--after-cursor={cursor}"] if cursor else []
    command = ["journalctl", "--output=json", "--all", *after, *matches]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reading:
        assert reading.stdout
        found = [json.loads(line) for line in islice(reading.stdout, LINES)]
        reading.kill()
    return found


def event(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry as CloudWatch Logs takes it: with its time in milliseconds."""
    said = entry.get("MESSAGE") or " "
    # What is no UTF-8 comes as the numbers of its bytes.
    text = said if isinstance(said, str) else bytes(said).decode(errors="replace")
    # UNIT is of whom systemd speaks; a program gives itself a name.
    who = entry.get("UNIT") or entry.get("SYSLOG_IDENTIFIER", "")
    return {"timestamp": int(entry["__REALTIME_TIMESTAMP"]) // 1000, "message": f"{who}: {text[:LONGEST]}"}


if __name__ == "__main__":
    main()

"""serving.journal: what it sends, from where on, and that nothing is lost while nobody answers. `make test-vm` has a
real journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from serving import journal

MATCHES = journal.wanted(["a@1.service", "b.service"], ["boot"])


def entry(number: int, **changed: Any) -> dict[str, Any]:
    told = {"__CURSOR": f"c{number}", "__REALTIME_TIMESTAMP": f"{number}000500", "MESSAGE": f"line {number}"}
    return told | {"SYSLOG_IDENTIFIER": "a@1", "_SYSTEMD_UNIT": "a@1.service"} | changed


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a program in the place of journalctl has, a line each; it keeps what it was asked in `asked`."""
    program = tmp_path / "journalctl"
    program.write_text(
        '#!/bin/sh\nhere=$(dirname "$0"); echo "$@" >> "$here/asked"\n'
        'case "$3" in --after-cursor=*) exec sed "1,/${3#*=}\\"/d" "$here/lines";; *) exec cat "$here/lines";; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "lines"


@pytest.fixture
def logs() -> Iterator[tuple[Any, Stubber]]:
    client = boto3.client("logs", "eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stubber:
        yield client, stubber


def expect(stubber: Stubber, *events: tuple[int, str]) -> None:
    sent = [{"timestamp": time, "message": message} for time, message in events]
    stubber.add_response("put_log_events", {}, {"logGroupName": "g", "logStreamName": "s", "logEvents": sent})


def write(file: Path, *entries: dict[str, Any]) -> None:
    file.write_text("".join(f"{json.dumps(each)}\n" for each in entries))


def test_lines_are_sent_once_and_in_the_order_of_their_times(
    stored: Path, logs: tuple[Any, Stubber], tmp_path: Path
) -> None:
    client, stubber = logs
    cursor = tmp_path / "state/cursor"
    write(stored, entry(2), entry(1), entry(3))
    expect(stubber, (1000, "a@1: line 1"), (2000, "a@1: line 2"), (3000, "a@1: line 3"))

    assert journal.send(client, "g", "s", cursor, MATCHES)
    assert not journal.send(client, "g", "s", cursor, MATCHES)

    write(stored, entry(2), entry(1), entry(3), entry(4, UNIT="a@1.service", SYSLOG_IDENTIFIER="systemd"))
    expect(stubber, (4000, "a@1.service: line 4"))
    assert journal.send(client, "g", "s", cursor, MATCHES)
    stubber.assert_no_pending_responses()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == (
        "--output=json --all _SYSTEMD_UNIT=a@1.service _SYSTEMD_UNIT=b.service + UNIT=a@1.service UNIT=b.service"
        " + SYSLOG_IDENTIFIER=boot"
    )


def test_what_nobody_took_is_sent_again(stored: Path, logs: tuple[Any, Stubber], tmp_path: Path) -> None:
    client, stubber = logs
    write(stored, entry(1))
    stubber.add_client_error("put_log_events", "ServiceUnavailableException")
    with pytest.raises(ClientError):
        journal.send(client, "g", "s", tmp_path / "cursor", MATCHES)

    expect(stubber, (1000, "a@1: line 1"))
    assert journal.send(client, "g", "s", tmp_path / "cursor", MATCHES)


def test_much_is_sent_in_parts_that_cloudwatch_takes(stored: Path, logs: tuple[Any, Stubber], tmp_path: Path) -> None:
    client, stubber = logs
    entries = [entry(number, MESSAGE="\N{SNOWMAN}" * 2000) for number in range(1, journal.LINES + 2)]
    write(stored, *entries)
    expect(
        stubber, *((number * 1000, "a@1: " + "\N{SNOWMAN}" * journal.LONGEST) for number in range(1, journal.LINES + 1))
    )
    expect(stubber, ((journal.LINES + 1) * 1000, "a@1: " + "\N{SNOWMAN}" * journal.LONGEST))

    assert journal.send(client, "g", "s", tmp_path / "cursor", MATCHES)
    assert journal.send(client, "g", "s", tmp_path / "cursor", MATCHES)

    # With the name of a unit, and what CloudWatch adds to each.
    assert journal.LINES * (4 * journal.LONGEST + 256 + 26) <= 1 << 20


@pytest.mark.parametrize(
    ("message", "text"), [([104, 105, 255], "hi\N{REPLACEMENT CHARACTER}"), (None, " "), ("", " ")]
)
def test_what_is_no_text_is_sent_too(message: Any, text: str) -> None:
    assert journal.event(entry(1, MESSAGE=message))["message"] == f"a@1: {text}"

"""When Argo CD syncs nothing by itself, by the rules of its sync windows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gitops.repo import freeze
from gitops.repo.policy import Environment, Freeze, Policy

WEEKEND = Freeze("0 16 * * 5", "62h", "Europe/Dublin", "weekends")
NIGHT, MORNING = Freeze("0 22 * * *", "8h"), Freeze("0 6 * * MON-FRI", "90m")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("windows", "now", "end"),
    [
        # A Friday in winter, and the second on which the window opens and closes.
        ([WEEKEND], "2026-11-27T15:59:59Z", None),
        ([WEEKEND], "2026-11-27T16:00:00Z", None),
        ([WEEKEND], "2026-11-27T16:00:00.5Z", "2026-11-30T06:00:00Z"),
        ([WEEKEND], "2026-11-30T05:59:59Z", "2026-11-30T06:00:00Z"),
        ([WEEKEND], "2026-11-30T06:00:00Z", None),
        # In summer the same hours of the clock there are others of UTC, whatever zone the time is told in.
        ([WEEKEND], "2026-07-03T15:30:00Z", "2026-07-06T05:00:00Z"),
        ([WEEKEND], "2026-07-03T17:30:00+02:00", "2026-07-06T05:00:00Z"),
        # Over the night in which the clock is put back, and the one in which it is put forward.
        ([WEEKEND], "2026-10-24T12:00:00Z", "2026-10-26T06:00:00Z"),
        ([WEEKEND], "2026-03-28T12:00:00Z", "2026-03-30T05:00:00Z"),
        # The hour that comes twice freezes twice.
        ([Freeze("0 1 * * *", "30m", "Europe/Dublin")], "2026-10-25T00:10:00Z", "2026-10-25T01:30:00Z"),
        ([Freeze("0 1 * * *", "30m", "Europe/Dublin")], "2026-10-25T01:10:00Z", "2026-10-25T01:30:00Z"),
        # Several: the longest, and what follows without a pause.
        ([NIGHT, MORNING], "2026-11-26T23:00:00Z", "2026-11-27T07:30:00Z"),
        ([NIGHT, MORNING], "2026-11-27T23:00:00Z", "2026-11-28T06:00:00Z"),
        ([NIGHT, Freeze("0 20 * * *", "1h")], "2026-11-26T20:30:00Z", "2026-11-26T21:00:00Z"),
        ([NIGHT, Freeze("0 0 24 12 *", "240h")], "2026-12-24T23:00:00Z", "2027-01-03T06:00:00Z"),
        ([], "2026-11-26T23:00:00Z", None),
    ],
)
def test_a_window_is_open_from_its_start_for_its_duration(windows: list[Freeze], now: str, end: str | None) -> None:
    assert freeze.end(windows, at(now)) == (at(end) if end else None)


def test_windows_without_an_end_end_somewhen() -> None:
    now = at("2026-11-26T12:00:00Z")

    found = freeze.end([Freeze("*/30 * * * *", "45m")], now)

    assert found and found > now + timedelta(days=7)


def test_who_releases_into_a_freeze_is_told_until_when_and_what_a_person_can_do() -> None:
    frozen = Environment("eu", ("dev",), "ml-eu", freeze=(WEEKEND, NIGHT))
    policy = Policy("bucket", ("registry",), ("dev", "eu"), graph={"eu": frozen})
    now = at("2026-11-28T12:00:00Z").astimezone(UTC)

    assert list(freeze.told(policy, [("api", "dev"), ("api", "eu"), ("sk", "eu")], now)) == [
        "eu is frozen until 2026-11-30T06:00Z (weekends): until then Argo CD syncs nothing there by itself, and a"
        " person can, with `argocd app sync api-eu sk-eu`"
    ]

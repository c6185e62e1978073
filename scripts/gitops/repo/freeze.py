"""Freezes of the policy: when Argo CD changes nothing of an environment by itself."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from cronsim import CronSim

from gitops.repo.policy import Freeze, Policy, duration

# Of windows that go on without a pause, more than anybody waits for.
_MANY = 1000


def end(windows: Iterable[Freeze], now: datetime) -> datetime | None:
    """Until when these freeze, `now` having a time zone; None where none does. A window that begins when another ends
    goes on with it."""
    listed, found = list(windows), now
    for _ in range(_MANY):
        # What begins at that very moment is in force right after it.
        later = [ends for each in listed if (ends := _end(each, found + timedelta(seconds=found != now))) is not None]
        if not later or max(later) <= found:
            break
        found = max(later)
    return found if found != now else None


def _end(window: Freeze, now: datetime) -> datetime | None:
    """The end of a window that is open. As Argo CD has it, it is open while it began before, and less than its duration
    ago, by the clock of its time zone.
    Source: `SyncWindows.active` in pkg/apis/application/v1alpha1/types.go of Argo CD 3.6"""
    zone = zoneinfo.ZoneInfo(window.time_zone)
    here = now.astimezone(zone).replace(tzinfo=None, fold=0)
    start = next(CronSim(window.schedule, here, reverse=True), None)
    if start is None or (closes := start + duration(window.duration)) <= here:
        return None
    # An hour that comes twice in autumn ends for the second time, and one that spring leaves out is over by then.
    return max(closes.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))


def told(policy: Policy, places: Iterable[tuple[str, str]], now: datetime) -> Iterator[str]:
    """For each environment of these (app, environment) that is frozen: until when, why, and what a person can do."""
    apps: dict[str, list[str]] = {}
    for app, environment in dict.fromkeys(places):
        apps.setdefault(environment, []).append(f"{app}-{environment}")
    for environment, names in apps.items():
        if frozen := _words(policy, environment, now):
            yield (
                f"{frozen}: until then Argo CD syncs nothing there by itself, and a person can, with `argocd app sync"
                f" {' '.join(names)}`"
            )


def told_of_stacks(policy: Policy, places: Iterable[tuple[str, str]], now: datetime) -> Iterator[str]:
    """The same for each of these (app, environment) that is a Stack, of which Argo CD has nothing."""
    for app, environment in dict.fromkeys(places):
        if frozen := _words(policy, environment, now):
            command = f"python scripts/deploy_stack.py --app {app} --env {environment}"
            yield f"{frozen}: until then no workflow deploys there, and a person can, with `{command}`"


def _words(policy: Policy, environment: str, now: datetime) -> str:
    """Until when an environment is frozen, and why; empty where it is not."""
    windows = policy.at(environment).freeze
    if (until := end(windows, now)) is None:
        return ""
    reasons = [each.reason for each in windows if each.reason and _end(each, now)]
    why = f" ({', '.join(reasons)})" if reasons else ""
    return f"{environment} is frozen until {until:%Y-%m-%dT%H:%MZ}{why}"

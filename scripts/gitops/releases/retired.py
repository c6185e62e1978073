"""The record of retirements: a list in each environment, newest last, only ever added to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml

from gitops.manifests import yamledit

from contract.errors import Refused


def path(environment: str) -> str:
    return f"overlays/{environment}/retired.yaml"


def read(text: bytes | None, path: str) -> Counter[str]:
    """How often each app was retired from an environment."""
    return Counter(str(item["app"]) for item in _entries(text, path))


def last_reason(text: bytes | None, path: str, app: str) -> str | None:
    """Why an app was retired the last time, if it was."""
    return next((item.get("reason") for item in reversed(_entries(text, path)) if item["app"] == app), None)


def _entries(text: bytes | None, path: str) -> list[dict[str, Any]]:
    if text is None:
        return []
    data = yamledit.load(text, path)
    if not isinstance(data, list) or not all(isinstance(item, dict) and "app" in item for item in data):
        raise Refused(f"{path}: not a list of retirements with an `app` each; only retire_app.py writes it")
    return data


def add(text: bytes | None, entry: Mapping[str, str]) -> bytes:
    """The record with one entry more; what stands in it stays byte by byte."""
    start = text or b"# What was removed from this environment on purpose, by retire_app.py.\n"
    if not start.endswith(b"\n"):
        start += b"\n"
    return start + yaml.safe_dump([dict(entry)], sort_keys=False, allow_unicode=True).encode()

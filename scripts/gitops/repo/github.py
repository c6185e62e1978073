"""GitHub's REST API, version 2022-11-28, as far as the rules of a repository are read from it."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gitops.repo.git import Git
from gitops.repo.publish import REMOTE

from contract import waiting
from contract.errors import Refused

_ADDRESS = re.compile(
    r"(?:https?://(?:[^@/]+@)?|ssh://git@|git@)(?P<host>[^/:]+)(?::\d+)?[/:](?P<name>[^/]+/[^/]+?)(?:\.git)?/?"
)


@dataclass(frozen=True)
class GitHub:
    """A repository there, as OWNER/NAME, and what to ask it with."""

    name: str
    api: str
    token: str

    def get(self, path: str) -> Any:
        """What is at `path` below the repository, or None if there is no such thing, or none for this token.

        Raises Refused when there is no answer, or none in JSON.
        """
        url = f"{self.api}/repos/{self.name}{path}"
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        try:
            with (
                waiting.Limit(url, "check the network, then run the command again"),
                waiting.open_url(urllib.request.Request(url, headers=headers)) as answer,
            ):
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise Refused(f"{url}: {error.code} {error.reason}; {_remedy(error.code)}") from None
        except (OSError, ValueError) as error:
            raise Refused(f"{url}: no answer: {error}; try again") from None


def _remedy(code: int) -> str:
    return "the token has to read administration and actions there" if code in (401, 403) else "try again"


def repository(git: Git) -> str | None:
    """OWNER/NAME of the remote's repository, or None if that is not at GitHub."""
    if not git.has_remote(REMOTE):
        return None
    match = _ADDRESS.fullmatch(git.text("remote", "get-url", REMOTE))
    server = urlsplit(os.environ.get("GITHUB_SERVER_URL", "https://github.com")).hostname
    return match["name"] if match and match["host"] == server else None


def connect(name: str) -> GitHub | None:
    """With the token of the environment, by the names that Actions and `gh` use; None without one."""
    token = os.environ.get("GITHUB_TOKEN") or os.environ.get("GH_TOKEN")
    api = os.environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/")
    return GitHub(name, api, token) if token else None

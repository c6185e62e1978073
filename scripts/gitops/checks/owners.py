"""Who has to approve a change, and what automation may change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gitops.checks.framework import Finding, Repository, Rule
from gitops.releases import release_file
from gitops.repo import codeowners, layout, snapshot
from gitops.repo.git import Git
from gitops.repo.layout import CODEOWNERS
from gitops.repo.policy import POLICY_FILE, Policy

from contract.errors import Refused


def check_owners(repository: Repository) -> Iterator[Finding]:
    """Where the policy names owners, GitHub asks them and no others."""
    expected = codeowners.text(repository.policy)
    file = repository.root / CODEOWNERS
    found = file.read_text(errors="surrogateescape") if file.is_file() else None
    if (found or "") != expected and (expected or codeowners.is_made(found or "")):
        state = "missing" if found is None else f"not what {POLICY_FILE} gives"
        yield Finding("owners", CODEOWNERS, f"{state}; run `python scripts/codeowners.py`")


RULES: dict[str, Rule] = {"owners": check_owners}


def check_automation(git: Git, base: str, changed: Iterable[str], author: str) -> Iterator[Finding]:
    """The login that the policy of `base` names changes releases alone: each changed file has the very bytes that a
    command writes there for the release that it now names."""
    before, after = snapshot.at(git, base), snapshot.at(git, None)
    if not author or author.casefold() != before.policy.automation.casefold():
        return
    for path in changed:
        old, new = before.read(path), after.read(path)
        if old is None or new is None or not _is_release(before.policy, path, old, new):
            yield Finding(
                "automation",
                path,
                f"changed by {author}, which {POLICY_FILE} lets change the fields of releases alone; a person has to"
                " propose this",
            )


def _is_release(policy: Policy, path: str, old: bytes, new: bytes) -> bool:
    place = layout.place(path)
    if place is None or place[1] not in policy.environments or path not in layout.release_paths(*place):
        return False
    text = old
    try:
        for item in release_file.read_all({path: new}.get, *place):
            text = release_file.write(text, item)
    except Refused:
        return False
    return text == new

"""What the repository's promises need of GitHub: rules of the branches, code owners, environments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from gitops.repo.github import GitHub
from gitops.repo.layout import CODEOWNERS
from gitops.repo.policy import POLICY_FILE, Policy
from gitops.repo.publish import BRANCH

# The jobs of .github/workflows/ that decide on each branch. The names differ, as a check counts for a commit, whatever
# branch it was made for.
REQUIRED = {BRANCH: ("Judge", f"Checks for {BRANCH}"), "main": ("Checks for main",)}
_NEEDED = ("pull_request", "required_status_checks", "merge_queue", "non_fast_forward", "deletion")

Found = Iterator[tuple[str, str | None]]
"""What was looked at, and what to do about it if it is not as it should be."""


def examine(github: GitHub, root: Path, policy: Policy) -> Found:
    """Raises Refused when GitHub does not answer."""
    yield from _repository(github, policy)
    for branch, checks in REQUIRED.items():
        yield from _branch(github, branch, checks, policy)
    if policy.owners:
        yield from _owners(github)
    used = environments(root)
    # Those that a matrix names are there for apps that come to AWS by a workflow, and where no app does they are not.
    others = [name for name in policy.environments if name not in used and github.get(f"/environments/{name}")]
    for environment in (*used, *others):
        yield from _environment(github, environment)


def environments(root: Path) -> list[str]:
    """The names of the deployment environments that the jobs of the workflows use, but for what a matrix names."""
    names = set()
    for file in (root / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(file.read_bytes())["jobs"].values():
            used = job.get("environment")
            names |= {used["name"] if isinstance(used, dict) else used} - {None}
    return sorted(name for name in names if "${{" not in name)


def _repository(github: GitHub, policy: Policy) -> Found:
    found = github.get("") or {}
    default = found.get("default_branch")
    yield (
        f"default branch {BRANCH}",
        None if default == BRANCH else f"it is {default}; Settings, General: make {BRANCH} the default branch",
    )
    if policy.automation:
        allowed = found.get("allow_auto_merge")
        yield "auto-merge", None if allowed else "Settings, General: allow auto-merge, or use a token that may see it"


def _branch(github: GitHub, branch: str, checks: Sequence[str], policy: Policy) -> Found:
    rules = [rule for rule in github.get(f"/rules/branches/{branch}?per_page=100") or [] if rule["type"] in _NEEDED]
    protection = github.get(f"/branches/{branch}/protection") or {}
    bypasses = _bypasses(protection)
    by_rulesets = _wanted(branch, checks, policy, rules)
    # What somebody may pass by holds nothing. Where rulesets hold all, an older protection beside them may be anything.
    wanted = by_rulesets if bypasses else _wanted(branch, checks, policy, [*rules, *_as_rules(protection)])
    where = f"Settings, Rules, Rulesets, a ruleset of {branch}"
    for what, (there, remedy) in wanted.items():
        yield f"{branch}: {what}", None if there else f"{where}: {remedy}"
    if bypasses and not all(there for there, _ in by_rulesets.values()):
        yield f"{branch}: nobody bypasses the branch protection", f"Settings, Branches, {branch}: {bypasses}"
    if branch == BRANCH and not policy.owners:
        yield f"{branch}: nobody has to approve; {POLICY_FILE} names no owners", None
    for number in sorted({rule["ruleset_id"] for rule in rules}):
        yield _bypass(github, branch, number)


def _as_rules(protection: dict[str, Any]) -> list[dict[str, Any]]:
    """A classic branch protection as the rules that a ruleset would have for it.

    Source: https://docs.github.com/en/rest/branches/branch-protection?apiVersion=2022-11-28
    """
    if not protection:
        return []
    found: list[dict[str, Any]] = []
    if (reviews := protection.get("required_pull_request_reviews")) is not None:
        parameters = {
            "require_code_owner_review": reviews.get("require_code_owner_reviews"),
            "dismiss_stale_reviews_on_push": reviews.get("dismiss_stale_reviews"),
        }
        found.append({"type": "pull_request", "parameters": parameters})
    if (checks := protection.get("required_status_checks")) is not None:
        # -1 and null are any source.
        listed = [
            {"context": each["context"], "integration_id": max(each.get("app_id") or 0, 0)}
            for each in checks.get("checks", [])
        ]
        parameters = {"strict_required_status_checks_policy": checks.get("strict"), "required_status_checks": listed}
        found.append({"type": "required_status_checks", "parameters": parameters})
    for kind, field in (("non_fast_forward", "allow_force_pushes"), ("deletion", "allow_deletions")):
        if not protection.get(field, {}).get("enabled"):
            found.append({"type": kind})
    return found


def _bypasses(protection: dict[str, Any]) -> str:
    """What lets somebody pass by a classic branch protection, and how to end it; "" where nobody may."""
    if protection and not protection.get("enforce_admins", {}).get("enabled"):
        return "administrators may; choose `Do not allow bypassing the above settings`"
    allowed = (protection.get("required_pull_request_reviews") or {}).get("bypass_pull_request_allowances") or {}
    named = [
        str(each.get("login") or each.get("slug"))
        for kind in ("users", "teams", "apps")
        for each in allowed.get(kind, [])
    ]
    return f"take out of `Allow specified actors to bypass required pull requests`: {', '.join(named)}" if named else ""


Wanted = dict[str, tuple[bool, str]]
"""By what is wanted: whether it is there, and what to choose."""


def _wanted(branch: str, checks: Sequence[str], policy: Policy, rules: Sequence[dict[str, Any]]) -> Wanted:
    def any_of(kind: str, *parameters: str) -> bool:
        return any(
            rule["type"] == kind and all(rule.get("parameters", {}).get(name) for name in parameters) for rule in rules
        )

    wanted: Wanted = {
        "changes come by pull request": (any_of("pull_request"), "require a pull request before merging"),
        "is never forced": (any_of("non_fast_forward"), "block force pushes"),
        "is never deleted": (any_of("deletion"), "restrict deletions"),
    }
    if branch == BRANCH and policy.owners:
        parameters = ("require_code_owner_review", "dismiss_stale_reviews_on_push")
        wanted["code owners approve what is merged"] = (
            any_of("pull_request", *parameters),
            "require review from code owners, and dismiss stale approvals when new commits are pushed",
        )
    for name in checks:
        wanted[f"the check {name} is required"] = (
            any(_requires(rule, name) for rule in rules),
            f"require the status check {name!r} with GitHub Actions as its source",
        )
    wanted["checks are of the newest state"] = (
        any_of("merge_queue") or any_of("required_status_checks", "strict_required_status_checks_policy"),
        "require branches to be up to date before merging, or a merge queue",
    )
    return wanted


def _requires(rule: dict[str, Any], name: str) -> bool:
    """Without its source, whoever may write statuses could say that it has passed."""
    listed = rule.get("parameters", {}).get("required_status_checks", [])
    return any(check["context"] == name and check.get("integration_id") for check in listed)


def _bypass(github: GitHub, branch: str, number: int) -> tuple[str, str | None]:
    ruleset = github.get(f"/rulesets/{number}") or {}
    name, actors = ruleset.get("name", number), ruleset.get("bypass_actors")
    what = f"{branch}: nobody bypasses the ruleset {name}"
    if actors is None:
        return what, "this token cannot see the bypass list; use one that may write administration"
    kinds = ", ".join(f"{actor['actor_type']} {actor.get('actor_id')}" for actor in actors)
    return what, f"Settings, Rules, Rulesets, {name}: take out of the bypass list: {kinds}" if actors else None


def _owners(github: GitHub) -> Found:
    answer = github.get(f"/codeowners/errors?ref={BRANCH}")
    errors = answer["errors"] if answer else [{"line": 1, "message": f"{CODEOWNERS} is missing on {BRANCH}"}]
    first = " ".join(str(errors[0]["message"]).split()) if errors else ""
    remedy = f"line {errors[0]['line']}: {first}; an unknown owner owns nothing" if errors else None
    yield f"{CODEOWNERS}: all owners are known", remedy


def _environment(github: GitHub, name: str) -> Found:
    what = f"environment {name}: {BRANCH} alone deploys to it"
    where = f"Settings, Environments, {name}"
    found = github.get(f"/environments/{name}")
    if found is None:
        yield what, f"{where}: make it, with the deployment branch {BRANCH} alone"
        return
    branches: list[str] = []
    if (found.get("deployment_branch_policy") or {}).get("custom_branch_policies"):
        listed = github.get(f"/environments/{name}/deployment-branch-policies?per_page=100") or {}
        branches = [f"{each.get('type', 'branch')} {each['name']}" for each in listed.get("branch_policies", [])]
    there = ", ".join(branches) or "any branch, or any protected one"
    yield (
        what,
        None if branches == [f"branch {BRANCH}"] else f"{where}: deployment branches are {there}; select {BRANCH}",
    )

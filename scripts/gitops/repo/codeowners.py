"""Who has to approve a change of which file: GitHub's CODEOWNERS, made from the policy.

GitHub takes the file from the branch that a pull request goes to, and for each path the last line that matches
(docs.github.com, "About code owners").
"""

from __future__ import annotations

from gitops.repo.layout import FORK_OWNED, RELEASE_FILE
from gitops.repo.policy import POLICY_FILE, Policy

HEAD = f"""\
# Made by `python scripts/codeowners.py` from {POLICY_FILE}; of the lines that match a file, the last one counts.
"""


def text(policy: Policy) -> str:
    """The whole file; empty if the policy names nobody.

    What no line names belongs to the owners of the last environments: the engine, base/, apps/, argocd/ and the policy
    reach all of them. Where a line names several, GitHub asks each, and one of them approves.
    """
    if not policy.owners:
        return ""
    first, last = policy.first, _last(policy)
    lines = [("*", last)]
    lines += [(f"/{path}", _owners(policy, first)) for path in FORK_OWNED if path.startswith("model-src/")]
    lines += [(f"/overlays/{environment}/", _owners(policy, environment)) for environment in policy.environments]
    if policy.automation:
        # Nobody approves what the pipeline releases in the first environment; the checks alone decide.
        lines.append((f"/overlays/{first}/*/{RELEASE_FILE}", ()))
    return HEAD + "".join(" ".join([pattern, *owners]) + "\n" for pattern, owners in lines)


def is_made(found: str) -> bool:
    """Whether a file was made here, and not by hand by a team that names no owners in the policy."""
    return found.startswith(HEAD)


def _owners(policy: Policy, environment: str) -> tuple[str, ...]:
    return policy.owners.get(environment, _last(policy))


def _last(policy: Policy) -> tuple[str, ...]:
    """Those of the environments from which releases go nowhere, each once."""
    return tuple(dict.fromkeys(owner for name in policy.last for owner in policy.owners.get(name, ())))

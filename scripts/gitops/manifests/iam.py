"""Whether IAM lets a call through: the part of its evaluation that the policies in infra/ need.

By the IAM User Guide, "Policy evaluation logic" and "Condition operators", for a caller and a resource of one account:
an explicit denial wins, else one statement that allows the call is enough. What is not known here is never judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gitops.manifests.cloudformation import statements, texts
from gitops.manifests.objects import Object, mapping

from contract.errors import Refused

_KNOWN = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}


class Verdict(StrEnum):
    ALLOWED = "allowed"
    DENIED = "denied"
    """By a statement that says so."""
    NOT_ALLOWED = "not allowed"
    """By the want of one that allows it."""


@dataclass(frozen=True)
class Call:
    """One request: who asks, for what, of what, and what else is known of it."""

    action: str
    resource: str = "*"
    principal: str = ""
    """Of the caller, as ARN; of a federated one, that of the provider."""
    context: Mapping[str, str] = field(default_factory=dict)
    """Condition keys, in lower case, with one value each."""


def verdict(call: Call, identity: Iterable[Object], resource: Iterable[Object] = ()) -> Verdict:
    """What the caller's own policies and those of the resource make of a call. Raises Refused for an element or an
    operator that is not known here."""
    every = [(each, False) for policy in identity for each in statements(policy)]
    every += [(each, True) for policy in resource for each in statements(policy)]
    effects = {each["Effect"] for each, named in every if _applies(each, call, named)}
    if effects - {"Allow", "Deny"}:
        raise Refused(f"Effect: {', '.join(sorted(effects))}: write Allow or Deny")
    return Verdict.DENIED if "Deny" in effects else Verdict.ALLOWED if effects else Verdict.NOT_ALLOWED


def actions(policies: Iterable[Object]) -> Iterator[str]:
    """All that some statement of these policies allows, as it stands there."""
    for policy in policies:
        for each in statements(policy):
            yield from texts(each.get("Action")) if each.get("Effect") == "Allow" else ()


def like(pattern: str, value: str) -> bool:
    """Whether a value is what a pattern with `*` and `?` stands for."""
    parts = {"*": ".*", "?": "."}
    return bool(re.fullmatch("".join(parts.get(char, re.escape(char)) for char in pattern), value, re.DOTALL))


def _applies(statement: Object, call: Call, named: bool) -> bool:
    if unknown := sorted(statement.keys() - _KNOWN):
        raise Refused(f"{', '.join(unknown)}: not judged here; write the statement with {', '.join(sorted(_KNOWN))}")
    if "Resource" in statement and not any(like(each, call.resource) for each in texts(statement["Resource"])):
        return False
    if not any(like(each.lower(), call.action.lower()) for each in texts(statement.get("Action"))):
        return False
    return (not named or _is_named(statement.get("Principal"), call.principal)) and all(
        _holds(operator, key.lower(), texts(values), call.context)
        for operator, keys in mapping(statement.get("Condition")).items()
        for key, values in keys.items()
    )


def _is_named(principal: Any, caller: str) -> bool:
    """Whether a resource's policy speaks of this caller; an account stands for all that it lets call."""
    account = caller.split(":")[4] if caller.count(":") > 4 else ""
    named = (
        texts(principal)
        if isinstance(principal, str)
        else [one for each in mapping(principal).values() for one in texts(each)]
    )
    return any(each in ("*", caller, account, f"arn:aws:iam::{account}:root") for each in named)


def _arn_like(pattern: str, value: str) -> bool:
    parts, found = pattern.split(":", 5), value.split(":", 5)
    return len(parts) == len(found) == 6 and all(map(like, parts, found))


def _equal(wanted: str, value: str) -> bool:
    return wanted == value


def _same_truth(wanted: str, value: str) -> bool:
    return wanted.lower() == value.lower()


_OPERATORS: dict[str, tuple[Callable[[str, str], bool], bool]] = {
    # Whether a value fits, and whether the operator asks for the contrary.
    "StringEquals": (_equal, False),
    "StringNotEquals": (_equal, True),
    "StringLike": (like, False),
    "StringNotLike": (like, True),
    "ArnEquals": (_arn_like, False),
    "ArnLike": (_arn_like, False),
    "ArnNotEquals": (_arn_like, True),
    "ArnNotLike": (_arn_like, True),
    "Bool": (_same_truth, False),
}


def _holds(operator: str, key: str, wanted: list[str], context: Mapping[str, str]) -> bool:
    if any("${" in each for each in wanted):
        raise Refused(f"Condition: {operator}: {key}: a variable of a policy is not judged here; write the value")
    if operator == "Null":
        return any((key not in context) == (each.lower() == "true") for each in wanted)
    name = operator.removesuffix("IfExists")
    if name not in _OPERATORS:
        raise Refused(f"Condition: {operator}: not judged here; use one of {', '.join(_OPERATORS)}, Null")
    fits, contrary = _OPERATORS[name]
    if key not in context:
        return contrary or name != operator
    return any(fits(each, context[key]) for each in wanted) != contrary

"""Environments put into `overlays/promotion.yaml` and taken out of it, by bytes: what people wrote there stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gitops.manifests import yamledit
from gitops.manifests.yamledit import Named
from gitops.repo.policy import POLICY_FILE, parse_policy

from contract.errors import Refused

_LIST = ("environments",)
Entry = dict[str, Any]
After = dict[str, list[str]]


@dataclass(frozen=True)
class Edited:
    """The file with an environment more or less."""

    text: bytes
    moved: Mapping[str, Sequence[str]]
    """The other environments that come after something else than before, and what that is."""


def read(text: bytes) -> list[Entry]:
    """The environments as they are written, in order."""
    found: list[Entry] = yamledit.load(text, POLICY_FILE)["environments"]
    return found


def add(text: bytes, entry: Entry, before: Sequence[str]) -> Edited:
    """The policy with an environment that is written whole, `name` and `after` first, right below all that it comes
    after. Those of `before` then come after it, in the place of what it comes after itself. What is production stays.
    Raises Refused with the faults of the policy that would come of it."""
    name, entries = entry["name"], read(text)
    names, old = [each["name"] for each in entries], _after(entries)
    at = max([names.index(each) + 1 for each in entry["after"] if each in names], default=len(names))
    for other in before:
        if other not in names:
            raise Refused(f"--before {other}: no environment of {POLICY_FILE}, which has {', '.join(names)}")
        if names.index(other) < at:
            raise Refused(
                f"--before {other}: {POLICY_FILE} has it above {names[at - 1]}, which {name} comes after; a release"
                f" cannot come to {other} through both"
            )
    through = _above(old, entry["after"])
    new = {each: _through(after, through, [name]) if each in before else after for each, after in old.items()}
    changed = yamledit.add_entry(text, _LIST, at, _lines(entry), POLICY_FILE)
    changed = _joined(_marked(changed, text), new)
    wanted = [*names[:at], name, *names[at:]]
    return _checked(changed, wanted, new | {name: list(entry["after"])}, old)


def remove(text: bytes, name: str) -> Edited:
    """The policy without an environment, after which those that came after it come after what it came after itself.
    Raises Refused with the faults of the policy that would come of it."""
    entries = read(text)
    names, old = [each["name"] for each in entries], _after(entries)
    new = {
        each: _through(after, [name], old[name]) if name in after else after
        for each, after in old.items()
        if each != name
    }
    changed = yamledit.remove_entry(text, _LIST, names.index(name), POLICY_FILE)
    return _checked(_joined(changed, new), [each for each in names if each != name], new, old)


def _checked(text: bytes, names: Sequence[str], after: After, old: After) -> Edited:
    policy = parse_policy(text)
    found = {each: list(policy.after(each)) for each in policy.environments}
    if found != after or list(policy.environments) != list(names):
        raise Refused(f"{POLICY_FILE}: environments: not written a line or more for each field; write them so")
    return Edited(text, {name: after[name] for name in names if name in old and after[name] != old[name]})


def _after(entries: Sequence[Entry]) -> After:
    """What each comes after: where that is not written, the one that stands before it."""
    names = [each["name"] for each in entries]
    return {each["name"]: each.get("after", names[:at][-1:]) for at, each in enumerate(entries)}


def _above(after: After, names: Sequence[str]) -> list[str]:
    """These and all that they come after."""
    found: list[str] = []
    for name in names:
        found += [each for each in [name, *_above(after, after.get(name, []))] if each not in found]
    return found


def _through(after: Sequence[str], gone: Sequence[str], instead: Sequence[str]) -> list[str]:
    """Others in the place of those that are gone, at the end where none of those is there."""
    place = next((at for at, each in enumerate(after) if each in gone), len(after))
    behind = [each for each in after[place:] if each not in gone]
    return list(dict.fromkeys([*after[:place], *instead, *behind]))


def _joined(text: bytes, after: After) -> bytes:
    """The policy with what each comes after written where it is another than is written, or would be meant."""
    entries = read(text)
    for name, meant in _after(entries).items():
        if name not in after or after[name] == meant:
            continue
        if any("after" in each for each in entries if each["name"] == name):
            text = yamledit.set_list(text, (*_LIST, Named(name), "after"), after[name], POLICY_FILE)
        else:
            text = yamledit.add_field(text, (*_LIST, Named(name), "name"), f"after: {_flow(after[name])}", POLICY_FILE)
    return text


def _marked(text: bytes, before: bytes) -> bytes:
    """The policy with its production marked where that was the last environment, and it may be another now."""
    old, new = read(before), read(text)
    last = old[-1]["name"]
    if any("production" in each for each in old):
        return text
    if new[-1]["name"] == last and not any("production" in each for each in new):
        return text
    return yamledit.add_field(text, (*_LIST, Named(last), "name"), "production: true", POLICY_FILE)


def _lines(entry: Entry) -> list[str]:
    """An environment as the policy has it: a line for each field, and one for each freeze."""
    lines = []
    for field, value in entry.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{field}:", *(f"  - {_flow(each)}" for each in value)]
        else:
            lines.append(f"{field}: {_flow(value)}")
    return lines


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_flow(each)}' for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    return yamledit.scalar(value) if isinstance(value, str) else str(value).lower()

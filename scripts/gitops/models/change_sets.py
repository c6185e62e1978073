"""Stacks on AWS, which are changed by change sets alone: what one would change is told before anything is.

Source: "Updating stacks using change sets" and "Stack status codes" of the CloudFormation User Guide.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gitops.models import s3

from contract.errors import Refused

LARGEST = 51_200
"""Bytes of a template that is sent as it is."""
PAUSE, LONGEST = 3.0, 4 * 3600.0
"""Seconds between two looks, and after which the end of a change is no longer waited for: CloudFormation goes on."""
REVIEW = "REVIEW_IN_PROGRESS"
"""Of a stack that has nothing yet but change sets."""
_READY = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE")
_EMPTY = ("didn't contain changes", "No updates are to be performed")


@dataclass(frozen=True)
class Live:
    """A stack as it is on AWS."""

    name: str
    id: str
    status: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    protected: bool
    """Whether nobody can delete it."""

    @property
    def is_new(self) -> bool:
        return self.status == REVIEW

    @property
    def is_ready(self) -> bool:
        """Whether it is what it was told to be last, or before that, and nothing changes it."""
        return self.status in _READY


@dataclass(frozen=True)
class Change:
    """What a change set does to one resource."""

    action: str
    resource: str
    """Its logical ID."""
    type: str
    replacement: str = "-"
    """True, False or Conditional; `-` where it is no modification."""


@dataclass(frozen=True)
class Proposal:
    """A change set that CloudFormation has made of what it was given."""

    id: str
    stack: str
    """The ID of its stack."""
    changes: tuple[Change, ...] = ()
    """None where outputs or tags alone change."""
    empty: bool = False
    """Whether nothing would change, so that it cannot be executed."""


@dataclass(frozen=True)
class Outcome:
    """How a change ended."""

    status: str
    events: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Oldest first."""

    @property
    def is_done(self) -> bool:
        return self.status in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE")

    @property
    def fault(self) -> str:
        """The first thing that failed by itself, in CloudFormation's words."""
        failed = [each for each in self.events if str(each["ResourceStatus"]).endswith("_FAILED")]
        own = [each for each in failed if "cancelled" not in str(each.get("ResourceStatusReason", "")).lower()]
        for each in own or failed:
            reason = " ".join(str(each.get("ResourceStatusReason", "no reason is given")).split())
            return f"{each['LogicalResourceId']} ({each['ResourceType']}): {reason}"
        return "no event tells why"


def account(region: str) -> str:
    """The account of the credentials that are in use."""
    return str((s3.ask("sts", region, "get_caller_identity") or {}).get("Account"))


def require_account(wanted: str, region: str, environment: str) -> None:
    """Raises Refused where the credentials are those of another account than the environment's."""
    if (own := account(region)) != wanted:
        raise Refused(
            f"AWS: the credentials are of the account {own}, and {environment} is in {wanted}; take on a role there"
        )


class Stacks:
    """The stacks of one region. Methods raise Refused as `s3.call` does."""

    def __init__(self, region: str, role: str) -> None:
        """`role` is the ARN of the role that CloudFormation takes on: it goes on when the caller's credentials are
        over, and the caller itself need not be allowed what it does."""
        self.region, self._role = region, role
        self._client = s3.client("cloudformation", region)

    def _ask(self, operation: str, **given: Any) -> dict[str, Any] | None:
        return s3.call(self._client, operation, **given)

    def find(self, name: str) -> Live | None:
        """A stack by its name or its ID; None for one that is not there any more."""
        found = self._ask("describe_stacks", StackName=name)
        for each in (found or {}).get("Stacks", []):
            if each["StackStatus"] != "DELETE_COMPLETE":
                parameters = {
                    item["ParameterKey"]: item.get("ParameterValue", "") for item in each.get("Parameters", [])
                }
                tags = {item["Key"]: item["Value"] for item in each.get("Tags", [])}
                protected = bool(each.get("EnableTerminationProtection"))
                return Live(each["StackName"], each["StackId"], each["StackStatus"], parameters, tags, protected)
        return None

    def require_ready(self, live: Live | None) -> None:
        """Raises Refused with the remedy unless a stack can be changed now, or made."""
        if live is None or live.is_new or live.is_ready:
            return
        command = f"--stack-name {live.name} --region {self.region}"
        if live.status == "UPDATE_ROLLBACK_FAILED":
            remedy = (
                "CloudFormation could not go back to what ran before; mend what the events tell, then run `aws"
                f" cloudformation continue-update-rollback {command}`"
            )
        elif live.status.endswith("_IN_PROGRESS"):
            remedy = "another change is under way; when it is over, run the same command again"
        else:
            remedy = (
                "it could not be made, or not be deleted, and can only be deleted now; look at its events, run `aws"
                f" cloudformation delete-stack {command}`, then the same command again"
            )
        raise Refused(f"stack {live.name}: {live.status}: {remedy}")

    def propose(
        self,
        name: str,
        template: str,
        parameters: Mapping[str, str],
        tags: Mapping[str, str],
        capabilities: Sequence[str],
        *,
        new: bool,
    ) -> Proposal:
        """What would change. A stack that is not there gets nothing yet but the change set."""
        given = {
            "StackName": name,
            # Two at once are two.
            "ChangeSetName": f"change-{secrets.token_hex(6)}",
            "ChangeSetType": "CREATE" if new else "UPDATE",
            "TemplateBody": template,
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            "Capabilities": list(capabilities),
            "RoleARN": self._role,
        }
        made = self._ask("create_change_set", **given)
        assert made is not None, name  # CloudFormation has a change set for all, or refuses
        for _ in _looks(f"change set of {name}"):
            proposal = Proposal(made["Id"], made["StackId"])
            found = self._of("describe_change_set", proposal) or {}
            if found.get("Status") == "CREATE_COMPLETE":
                return replace(proposal, changes=tuple(self._changes(proposal, found)))
            if found.get("Status") == "FAILED":
                reason = " ".join(str(found.get("StatusReason", "")).split())
                if any(words in reason for words in _EMPTY):
                    return replace(proposal, empty=True)
                self.discard(proposal)
                raise Refused(f"stack {name}: CloudFormation can make no change set: {reason}; nothing has changed")
        raise AssertionError  # the looks end by a refusal

    def _of(self, operation: str, proposal: Proposal, **given: str) -> dict[str, Any] | None:
        """What is asked of a change set is allowed by its stack."""
        return self._ask(operation, StackName=proposal.stack, ChangeSetName=proposal.id, **given)

    def _changes(self, proposal: Proposal, found: Mapping[str, Any]) -> Iterator[Change]:
        while True:
            for each in found.get("Changes", []):
                if about := each.get("ResourceChange"):
                    yield Change(
                        about["Action"],
                        about["LogicalResourceId"],
                        about["ResourceType"],
                        about.get("Replacement", "-"),
                    )
            if not (token := found.get("NextToken")):
                return
            found = self._of("describe_change_set", proposal, NextToken=token) or {}

    def discard(self, proposal: Proposal) -> None:
        """Takes a change set back, and with the last one a stack that has nothing else."""
        self._of("delete_change_set", proposal)
        live = self.find(proposal.stack)
        if live and live.is_new:
            others = (self._ask("list_change_sets", StackName=live.id) or {}).get("Summaries", [])
            if not [each for each in others if each.get("ChangeSetId") != proposal.id]:
                self._ask("delete_stack", StackName=live.id, RoleARN=self._role)

    def execute(self, proposal: Proposal, tell: Callable[[str], None]) -> Outcome:
        """Lets CloudFormation do what it proposed, and waits for the end. Raises Refused where the stack changed since
        then: another change set was executed."""
        before = self._newest_event(proposal.stack)
        if self._of("execute_change_set", proposal) is None:
            raise Refused(
                f"stack {proposal.stack}: the change set is gone, as another one was executed meanwhile; run the same"
                " command again"
            )
        return self._followed(proposal.stack, before, tell)

    def delete(self, live: Live, tell: Callable[[str], None]) -> Outcome:
        before = self._newest_event(live.id)
        if live.protected:
            self.protect(live.name, protected=False)
        self._ask("delete_stack", StackName=live.id, RoleARN=self._role)
        return self._followed(live.id, before, tell)

    def protect(self, name: str, *, protected: bool) -> None:
        """Lets nobody delete a stack, or again anybody who may."""
        self._ask("update_termination_protection", StackName=name, EnableTerminationProtection=protected)

    def _newest_event(self, stack: str) -> str:
        found = (self._ask("describe_stack_events", StackName=stack) or {}).get("StackEvents", [])
        return str(found[0]["EventId"]) if found else ""

    def _events(self, stack: str, before: str) -> list[Mapping[str, Any]]:
        """What has happened since an event, oldest first."""
        events: list[Mapping[str, Any]] = []
        page = self._ask("describe_stack_events", StackName=stack) or {}
        while True:
            for each in page.get("StackEvents", []):
                if each["EventId"] == before:
                    return events[::-1]
                events.append(each)
            if not (token := page.get("NextToken")):
                return events[::-1]
            page = self._ask("describe_stack_events", StackName=stack, NextToken=token) or {}

    def _followed(self, stack: str, before: str, tell: Callable[[str], None]) -> Outcome:
        """Waits for the event by which the stack itself comes to an end: its status may be that of before for a
        moment."""
        told = 0
        for _ in _looks(f"stack {stack}"):
            events = self._events(stack, before)
            for each in events[told:]:
                tell(f"{each['ResourceStatus']} {each['LogicalResourceId']}")
            told = len(events)
            own = [str(each["ResourceStatus"]) for each in events if each.get("PhysicalResourceId") == stack]
            if own and not own[-1].endswith("_IN_PROGRESS"):
                return Outcome(own[-1], events)
        raise AssertionError  # the looks end by a refusal


def _looks(what: str) -> Iterator[None]:
    """One step for each look at something that takes its time. Raises Refused when that is too long."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        yield
        time.sleep(PAUSE)
    raise Refused(f"{what}: not at its end after {LONGEST:.0f} s; CloudFormation goes on, run the same command again")


def as_json(changes: Sequence[Change]) -> list[dict[str, str]]:
    return [asdict(each) for each in changes]

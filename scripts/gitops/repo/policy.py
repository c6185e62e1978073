"""The owner's policy: `overlays/promotion.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gitops.manifests import yamledit
from gitops.manifests.documents import schema_faults

from contract.errors import Refused

POLICY_FILE = "overlays/promotion.yaml"
_SCHEMA = Path(__file__).with_name("promotion.schema.json")


@dataclass(frozen=True)
class SigningPolicy:
    """Whose signature a version needs: that of a key, or that of an identity which an OpenID issuer vouches for."""

    public_key: str = ""
    """Its path in the repository."""
    identity: str = ""
    issuer: str = ""


@dataclass(frozen=True)
class Exposure:
    """Whom an environment lets in, and by which names."""

    hosts: tuple[str, ...] = ()
    """Domains: each of the environment's hosts is one of them or below one."""
    internet_facing: bool = False
    """Whether its load balancers may have public addresses."""


@dataclass(frozen=True)
class Policy:
    """`overlays/promotion.yaml`: the owner's values that checks need, and the order of environments."""

    model_bucket: str
    image_registries: tuple[str, ...]
    environments: tuple[str, ...]
    signing: SigningPolicy | None = None
    exposure: Mapping[str, Exposure] = field(default_factory=dict)
    """By environment."""
    ingress_classes: tuple[str, ...] = ("alb",)
    annotations: tuple[str, ...] = ()
    """Names that the owner allows on what lets callers in, beyond those that the rules know."""
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Who approves changes, as GitHub writes it (@user or @organisation/team), by environment; one that is not listed
    has the owners of the highest, which is the last."""
    automation: str = ""
    """The GitHub login whose pull requests may change releases and nothing else."""
    publish: str = ""
    """The option by which commands write to the deployed branch where none is given: commit, push, pull-request."""
    marked: tuple[str, ...] = ()
    """The environments that the policy calls production."""

    @property
    def production(self) -> tuple[str, ...]:
        """Where an image is named by its digest alone, in order; the last environment where the policy marks none."""
        return self.marked or self.environments[-1:]

    def owns(self, image: str) -> bool:
        """Whether an image is in one of the owner's registries."""
        return image.startswith(tuple(f"{registry}/" for registry in self.image_registries))

    def before(self, environment: str) -> str | None:
        """The environment that a release passes through before this one; None for the first."""
        position = self.environments.index(environment)
        return self.environments[position - 1] if position else None

    def environment_of(self, host: str) -> str | None:
        """The environment whose host this is: that of the longest domain that the host is or is below."""
        owners = {domain: name for name, each in self.exposure.items() for domain in each.hosts}
        fitting = [domain for domain in owners if f".{host}".endswith(f".{domain}")]
        return owners[max(fitting, key=len)] if fitting else None


def read_policy(root: Path) -> Policy:
    """Raises Refused with one line per fault of the file."""
    return parse_policy((root / POLICY_FILE).read_bytes() if (root / POLICY_FILE).is_file() else None)


def parse_policy(text: bytes | None) -> Policy:
    if text is None:
        raise Refused(f"{POLICY_FILE}: missing; it names the model bucket, the image registries and the environments")
    data = yamledit.load(text, POLICY_FILE)
    if faults := schema_faults(data, _SCHEMA):
        raise Refused(*[f"{POLICY_FILE}: {fault}" for fault in faults])
    names = tuple(environment["name"] for environment in data["environments"])
    if len(set(names)) != len(names):
        raise Refused(f"{POLICY_FILE}: environments: {', '.join(names)}: a name stands twice; list each once")
    if (signing := data.get("signing")) and {"public_key", "identity"} <= signing.keys():
        raise Refused(f"{POLICY_FILE}: signing: a public_key and an identity; a version is signed by one of them")
    owners = {each["name"]: tuple(each["owners"]) for each in data["environments"] if "owners" in each}
    if owners and names[-1] not in owners:
        raise Refused(
            f"{POLICY_FILE}: environments: {names[-1]}: no owners, and {next(iter(owners))} has some; name those of the"
            " highest environment too, who approve what reaches all of them"
        )
    asked = (
        SigningPolicy(*(signing.get(field, "") for field in ("public_key", "identity", "issuer"))) if signing else None
    )
    ingress = data.get("ingress", {})
    return Policy(
        data["model_bucket"], tuple(data["image_registries"]), names, asked, _exposure(data["environments"]),
        tuple(ingress.get("classes", Policy.ingress_classes)), tuple(ingress.get("annotations", ())),
        owners, data.get("automation", ""), data.get("publish", ""), _marked(data["environments"]),
    )  # fmt: skip


def _marked(environments: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    marked = tuple(each["name"] for each in environments if each.get("production"))
    if not marked and any("production" in each for each in environments):
        raise Refused(
            f"{POLICY_FILE}: environments: production: false, and true for none; write `production: true` for those in"
            " which images are named by digest"
        )
    return marked


def _exposure(environments: Sequence[Mapping[str, Any]]) -> dict[str, Exposure]:
    domains = [domain for each in environments for domain in each.get("hosts", ())]
    if twice := sorted({domain for domain in domains if domains.count(domain) > 1}):
        raise Refused(
            f"{POLICY_FILE}: environments: hosts: {', '.join(twice)} stands twice; a domain is of one of them"
        )
    return {
        each["name"]: Exposure(tuple(each.get("hosts", ())), each.get("internet_facing", False))
        for each in environments
        if each.keys() & {"hosts", "internet_facing"}
    }

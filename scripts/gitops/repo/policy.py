"""The owner's policy: `overlays/promotion.yaml`."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from cronsim import CronSim, CronSimError

from gitops.manifests import yamledit
from gitops.manifests.documents import schema_faults

from contract.errors import Refused

POLICY_FILE = "overlays/promotion.yaml"
_SCHEMA = Path(__file__).with_name("promotion.schema.json")
# What Argo CD calls the cluster that it runs in.
IN_CLUSTER = "in-cluster"
_NAMESPACE_PREFIX = "ml-"
# Of an entry, what makes of it more than the next in a line on this cluster.
_PLACED = {"after", "namespace", "cluster", "account", "region", "replica", "soak", "freeze"}
# Kubernetes' own, and those of what the platform runs.
_RESERVED = re.compile(
    r"default|argocd|cert-manager|external-(dns|secrets)|istio-system|(knative|kube)-.+|kserve|monitoring"
)


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
class Freeze:
    """A time in which Argo CD changes nothing by itself, as its sync windows have it."""

    schedule: str
    """When it begins, as five fields of cron."""
    duration: str
    """As Go writes it: `62h`, `1h30m`."""
    time_zone: str = "UTC"
    reason: str = ""


@dataclass(frozen=True)
class Environment:
    """One environment: how a release comes to it, and where it is."""

    name: str
    after: tuple[str, ...] = ()
    """Those that a release comes through, all of them, before it comes here; none for the first."""
    namespace: str = ""
    cluster: str = IN_CLUSTER
    """The name by which Argo CD knows its cluster."""
    account: str = ""
    region: str = ""
    replica: str = ""
    """The bucket from which its services take models, where it is not the one for all."""
    soak: timedelta = timedelta()
    """How long a release runs here before it may go on."""
    freeze: tuple[Freeze, ...] = ()


@dataclass(frozen=True)
class Policy:
    """`overlays/promotion.yaml`: the owner's values that checks need, and the graph of environments."""

    model_bucket: str
    image_registries: tuple[str, ...]
    environments: tuple[str, ...]
    """Their names; each stands behind those that it comes after."""
    signing: SigningPolicy | None = None
    exposure: Mapping[str, Exposure] = field(default_factory=dict)
    """By environment."""
    ingress_classes: tuple[str, ...] = ("alb",)
    annotations: tuple[str, ...] = ()
    """Names that the owner allows on what lets callers in, beyond those that the rules know."""
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Who approves changes, as GitHub writes it (@user or @organisation/team), by environment; one that is not listed
    has those of the last environments, from which releases go nowhere."""
    automation: str = ""
    """The GitHub login whose pull requests may change releases and nothing else."""
    publish: str = ""
    """The option by which commands write to the deployed branch where none is given: commit, push, pull-request."""
    marked: tuple[str, ...] = ()
    """The environments that the policy calls production."""
    graph: Mapping[str, Environment] = field(default_factory=dict)
    """By name; an environment that is not in there comes after the one that stands before it."""
    clusters: Mapping[str, str] = field(default_factory=dict)
    """Those beside the cluster of this Argo CD, by name: `hub`, where it serves them too, or `own`, where one runs in
    each."""
    replicas: Mapping[str, str] = field(default_factory=dict)
    """Buckets with copies of the models, and the region of each."""

    @property
    def first(self) -> str:
        """Where releases come in."""
        return self.environments[0]

    @property
    def production(self) -> tuple[str, ...]:
        """Where an image is named by its digest alone, in order; the last environment where the policy marks none."""
        return self.marked or self.environments[-1:]

    def owns(self, image: str) -> bool:
        """Whether an image is in one of the owner's registries."""
        return image.startswith(tuple(f"{registry}/" for registry in self.image_registries))

    @cached_property
    def _all(self) -> dict[str, Environment]:
        line = zip(self.environments, [(), *[(name,) for name in self.environments]], strict=False)
        return {name: self.graph.get(name) or Environment(name, before, _namespace(name)) for name, before in line}

    def at(self, environment: str) -> Environment:
        """How an environment of the policy is reached, and where it is."""
        return self._all[environment]

    def after(self, environment: str) -> tuple[str, ...]:
        """The environments that a release comes through, all of them, before it comes to this one; none for the
        first."""
        return self.at(environment).after

    def next(self, environment: str) -> tuple[str, ...]:
        """The environments that are reached from this one, in order."""
        return tuple(name for name in self.environments if environment in self.after(name))

    def beyond(self, environment: str) -> tuple[str, ...]:
        """All environments whose releases come through this one, in order."""
        found: set[str] = set()
        for name in self.environments:
            found |= {name} if {environment, *found} & set(self.after(name)) else set()
        return tuple(name for name in self.environments if name in found)

    def through(self, environment: str) -> set[str]:
        """All environments that a release comes through, from the first on, before it comes to this one."""
        found = set(self.after(environment))
        for name in reversed(self.environments):
            found |= set(self.after(name)) if name in found else set()
        return found

    @property
    def last(self) -> tuple[str, ...]:
        """The environments from which releases go nowhere, in order."""
        return tuple(name for name in self.environments if not self.next(name))

    def namespace(self, environment: str) -> str:
        """An environment's namespace; of one that is not in the policy, what it would be there."""
        return self.at(environment).namespace if environment in self.environments else _namespace(environment)

    def on(self, cluster: str) -> tuple[str, ...]:
        """The environments of a cluster, in order."""
        return tuple(name for name in self.environments if self.at(name).cluster == cluster)

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
    entries = data["environments"]
    names = tuple(environment["name"] for environment in entries)
    if (signing := data.get("signing")) and {"public_key", "identity"} <= signing.keys():
        raise Refused(f"{POLICY_FILE}: signing: a public_key and an identity; a version is signed by one of them")
    owners = {each["name"]: tuple(each["owners"]) for each in entries if "owners" in each}
    if owners and names[-1] not in owners:
        raise Refused(
            f"{POLICY_FILE}: environments: {names[-1]}: no owners, and {next(iter(owners))} has some; name those of the"
            " highest environment too, who approve what reaches all of them"
        )
    asked = (
        SigningPolicy(*(signing.get(field, "") for field in ("public_key", "identity", "issuer"))) if signing else None
    )
    ingress = data.get("ingress", {})
    graph = {each["name"]: _environment(each, names[:number]) for number, each in enumerate(entries)}
    clusters = {each["name"]: each.get("argocd", "hub") for each in data.get("clusters", ())}
    replicas = {each["bucket"]: each["region"] for each in data.get("replicas", ())}
    if faults := [*_twice(data), *_graph_faults(entries), *_place_faults(graph, clusters, replicas)]:
        raise Refused(*[f"{POLICY_FILE}: {fault}" for fault in faults])
    return Policy(
        data["model_bucket"], tuple(data["image_registries"]), names, asked, _exposure(entries),
        tuple(ingress.get("classes", Policy.ingress_classes)), tuple(ingress.get("annotations", ())),
        owners, data.get("automation", ""), data.get("publish", ""), _marked(entries),
        {each["name"]: graph[each["name"]] for each in entries if each.keys() & _PLACED}, clusters, replicas,
    )  # fmt: skip


def _namespace(environment: str) -> str:
    return f"{_NAMESPACE_PREFIX}{environment}"


def _environment(entry: Mapping[str, Any], earlier: Sequence[str]) -> Environment:
    name, windows = entry["name"], entry.get("freeze", ())
    return Environment(
        name, tuple(entry.get("after", earlier[-1:])), entry.get("namespace", _namespace(name)),
        entry.get("cluster", IN_CLUSTER), entry.get("account", ""), entry.get("region", ""), entry.get("replica", ""),
        duration(entry.get("soak", "")),
        tuple(Freeze(**{field: " ".join(value.split()) for field, value in window.items()}) for window in windows),
    )  # fmt: skip


def duration(text: str) -> timedelta:
    """What Go's `1h30m` is; no time for an empty text."""
    units = {"h": "hours", "m": "minutes"}
    return timedelta(**{units[unit]: int(number) for number, unit in re.findall(r"([0-9]+)([hm])", text)})


def written(time: timedelta) -> str:
    """The same as Go writes it, without seconds."""
    hours, minutes = divmod(int(time.total_seconds()) // 60, 60)
    return f"{hours}h{minutes}m" if hours and minutes else f"{hours}h" if hours else f"{minutes}m"


def _twice(data: Mapping[str, Any]) -> Iterator[str]:
    """Names that stand twice where each is of one thing."""
    for entry, key in (("environments", "name"), ("clusters", "name"), ("replicas", "bucket")):
        names = [each[key] for each in data.get(entry, ())]
        if len(set(names)) != len(names):
            yield f"{entry}: {', '.join(names)}: a name stands twice; list each once"
    if data["model_bucket"] in [each["bucket"] for each in data.get("replicas", ())]:
        yield f"replicas: {data['model_bucket']}: the model bucket itself; name buckets with copies of it"
    if IN_CLUSTER in [each["name"] for each in data.get("clusters", ())]:
        yield f"clusters: {IN_CLUSTER}: the one in which Argo CD runs; list the others only"


def _graph_faults(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What keeps a release from coming to each environment through those before it, from the first on."""
    names = [each["name"] for each in entries]
    after_all = {each["name"]: each.get("after", names[:at][-1:]) for at, each in enumerate(entries)}
    for name, after in [(each["name"], each["after"]) for each in entries if "after" in each]:
        where = f"environments: {name}: after"
        for other in after:
            if other not in names:
                yield f"{where}: {other!r}: no environment; the environments are {', '.join(names)}"
            elif names.index(other) < names.index(name):
                continue
            elif (way := _way(after_all, other, name)) is not None:
                yield f"{where}: a cycle, {' after '.join([name, *way])}; no release could reach any of them"
            else:
                yield f"{where}: {other} stands below; list {name} below all that it comes after"
        if name == names[0]:
            yield f"{where}: the first environment, where releases come in; remove the field"
        elif not after:
            yield f"{where}: empty, so that it is reached from nowhere; name the environments that it comes after"


def _way(after: Mapping[str, Sequence[str]], start: str, end: str) -> list[str] | None:
    """From one environment back to another by `after`, both included; None where there is no way."""
    ways = {start: [start]}
    left = [start]
    while left and end not in ways:
        name = left.pop()
        new = [other for other in after.get(name, ()) if other not in ways]
        ways |= {other: [*ways[name], other] for other in new}
        left += new
    return ways.get(end)


def _place_faults(
    graph: Mapping[str, Environment], clusters: Mapping[str, str], replicas: Mapping[str, str]
) -> Iterator[str]:
    """Where an environment cannot be."""
    places: dict[tuple[str, str], str] = {}
    for name, each in graph.items():
        where = f"environments: {name}"
        if each.cluster not in (IN_CLUSTER, *clusters):
            known = ", ".join((IN_CLUSTER, *clusters))
            yield f"{where}: cluster: {each.cluster!r}: no cluster of `clusters`; the clusters are {known}"
        if (other := places.setdefault((each.cluster, each.namespace), name)) != name:
            yield (
                f"{where}: namespace: {each.namespace}: that of {other} on the cluster {each.cluster} too; give it"
                " one of its own"
            )
        if len(each.namespace) > 63:
            yield f"{where}: namespace: {each.namespace}: longer than 63 characters; give it a shorter `namespace`"
        elif _RESERVED.fullmatch(each.namespace):
            yield f"{where}: namespace: {each.namespace}: the platform's own; give it another"
        if each.replica and each.replica not in replicas:
            yield f"{where}: replica: {each.replica}: no bucket of `replicas`; list it there with its region"
        for window in each.freeze:
            if fault := _schedule_fault(window.schedule):
                yield f"{where}: freeze: schedule: {window.schedule!r}: {fault}"
            if not _is_zone(window.time_zone):
                yield (
                    f"{where}: freeze: time_zone: {window.time_zone!r}: no time zone; write one such as Europe/Dublin"
                )


# Of a schedule, the days of the week that both CronSim and Argo CD's parser take, and for the same.
_DAY = "(?:[0-6]|SUN|MON|TUE|WED|THU|FRI|SAT)"
_WEEKDAYS = re.compile(rf"\*|{_DAY}(?:-{_DAY})?(?:,{_DAY}(?:-{_DAY})?)*", re.IGNORECASE)


def _schedule_fault(schedule: str) -> str | None:
    """What keeps a freeze from being what Argo CD makes of its five fields of cron.
    Source: https://pkg.go.dev/github.com/robfig/cron/v3, whose words for days are fewer than others'."""
    _, _, days, _, weekdays = schedule.split()
    if "*" not in (days, weekdays):
        return "names days of the month and of the week, of which each would do; write a window for each, with one `*`"
    if not _WEEKDAYS.fullmatch(weekdays) or "L" in days.upper():
        return "days are numbers, those of the week 0-6 or SUN-SAT, in lists and ranges, as Argo CD takes them"
    try:
        next(CronSim(schedule, datetime(2000, 1, 1)))
    except (CronSimError, StopIteration) as error:
        return f"no time of cron that ever comes ({error}); write five fields such as `0 16 * * 5`"
    return None


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


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

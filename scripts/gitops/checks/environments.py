"""Where a value names an environment: in the fields that carry such a name, and not in any word that is equal to it.

An environment may be called like a command, an app or a folder of Linux, so a bare word proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.manifests.objects import leaves
from gitops.repo.policy import POLICY_FILE, Policy

# Of a path, what its last field or variable is called, without the position in a list.
_KEY = re.compile(r"(?:env\[(?P<variable>[^]]+)\]\.value|(?P<field>[^.[\]/]+))(?:\[\d+\])*\Z")
_TELLS_ENVIRONMENT = r"(?i:(?<![a-z])(?:env|environment|stage))"
_TELLS_HOST = re.compile(r"(host(name)?s?|domain|endpoint|address|ur[il])\Z", re.IGNORECASE)
# What an ExternalSecret reads, and the paths that an Ingress takes.
_TELLS_PATH = re.compile(r"(remoteRef|extract)\.key\Z|\.http\.paths\[[^]]*\]\.path\Z")
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^/\s,;\"']*)(?P<path>[^\s,;\"']*)", re.IGNORECASE)
_ARN = re.compile(
    r"arn:[a-z-]+:(?P<service>[a-z0-9-]+):(?P<region>[a-z0-9-]*):(?P<account>[0-9]*):(?P<resource>[^\s,;\"']+)"
)
# Their hosts are the names of buckets.
_BUCKETS = ("gs", "s3", "s3a")
_HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+", re.IGNORECASE)


class Names:
    """Finds the names of a policy's environments. One may be a part of another, and the longest that fits counts:
    `pre-prod` is not `prod`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._bare = _words(policy.environments, "a-z0-9")
        # On different clusters several may have the same one.
        self._spaces: dict[str, list[str]] = {}
        for name in policy.environments:
            self._spaces.setdefault(policy.namespace(name), []).append(name)
        self._namespaces = _words(list(self._spaces), "a-z0-9")
        self._told = re.compile(rf"{_TELLS_ENVIRONMENT}=(?P<name>{_longest_first(policy.environments)})(?![\w.-])")
        # A bucket and a registry serve several environments, whatever their names and those of the models are.
        self._models = re.compile(rf"s3://{re.escape(policy.model_bucket)}/models/[^\s,;\"']*")
        self._shared = _words((policy.model_bucket, *policy.replicas, *policy.image_registries), "A-Za-z0-9.-")
        self._domains = [domain for each in policy.exposure.values() for domain in each.hosts]
        # Most values have nothing of the kind.
        self._any = re.compile(_longest_first((*policy.environments, *self._spaces, *self._domains)))

    def own_part(self, text: str) -> str:
        """A text without what all environments share: models, their bucket, and registries."""
        return self._shared.sub("", self._models.sub("", text))

    def words(self, text: str) -> list[str]:
        """The environments that a text which is made of names has."""
        return [match[1] for match in self._bare.finditer(text)]

    def told(self, path: str, value: str, own: re.Pattern[str] | None = None, environment: str = "") -> Iterator[str]:
        """The environments that a value names, by what it is and by its field, beside what is the app's `own`; the
        namespace of `environment` names no other that has the same on another cluster."""
        if not self._any.search(value):
            return
        text = self.own_part(value)
        text = own.sub("", text) if own else text
        field = _field(path)
        for match in self._namespaces.finditer(text):
            shared = self._spaces[match[1]]
            yield from () if environment in shared else shared
        yield from (match["name"] for match in self._told.finditer(f"{field}={text}"))
        for match in _ADDRESS.finditer(text):
            yield from self.words(f"{_remote(match['scheme'], match['host'])}{match['path']}")
        for match in _ARN.finditer(text):
            yield from self.words(match["resource"])
        if _TELLS_PATH.search(path):
            yield from self.words(text)
        for host in _HOST.findall(text):
            if _TELLS_HOST.search(field):
                yield from self.words(_without_top(host))
            yield from self._owner(host)

    def own(self, environment: str, app: str) -> re.Pattern[str]:
        """Finds what an app is called in an environment, whatever other environment its name reminds of."""
        pairs = [(environment, app), (self._policy.namespace(environment), app), (app, environment)]
        names = [f"{first}{joint}{second}" for first, second in pairs for joint in "-/"]
        return _words(names if app in self._policy.environments else [*names, app], "a-z0-9")

    def _owner(self, host: str) -> Iterator[str]:
        """Whose host it is, but where the domain has others below it, and so may have what all share."""
        fitting = [domain for domain in self._domains if f".{host}".endswith(f".{domain}")]
        domain = max(fitting, key=len, default="")
        if domain and not any(each.endswith(f".{domain}") for each in self._domains):
            yield str(self._policy.environment_of(host))


@dataclass(frozen=True)
class Place:
    """What an environment's values are made of, beside its name and its namespace."""

    domains: tuple[str, ...] = ()
    account: str = ""
    region: str = ""


class Moved(Names):
    """Puts one environment's values in the place of another's, in the fields that carry them: wherever `told` finds
    the name of the other, and its domains, its account and its region."""

    def __init__(self, policy: Policy, old: tuple[str, Place], new: tuple[str, Place], apps: Collection[str]) -> None:
        """`policy` has both."""
        super().__init__(policy)
        (self._old, self._from), (self._new, self._to) = old, new
        values = [(self._from.account, self._to.account), (self._from.region, self._to.region)]
        self._values = [(_value(each), instead) for each, instead in values if each and instead and each != instead]
        shared = "|".join([self._models.pattern, self._shared.pattern, rf"{re.escape(policy.model_bucket)}\.s3[.\w-]*"])
        # An app that is called like an environment is told from it by no name.
        named = [app for app in apps if app not in policy.environments and self.words(app)]
        own = f"|{_words(named, 'a-z0-9').pattern}" if named else ""
        self._kept = re.compile(f"{shared}{own}")

    def __call__(self, path: str, text: str) -> str:
        kept: list[str] = []

        def put_away(match: re.Match[str]) -> str:
            kept.append(self._elsewhere(match[0]))
            return chr(_PRIVATE + len(kept) - 1)

        text = self._kept.sub(put_away, text)
        for pattern, instead in self._values:
            text = pattern.sub(instead, text)
        text = self._renamed(path, text)
        for number, each in enumerate(kept):
            text = text.replace(chr(_PRIVATE + number), each)
        return text

    def _elsewhere(self, shared: str) -> str:
        """What all share; but of the registries that of the new place, where the policy has one there."""
        there = shared
        for pattern, instead in self._values:
            there = pattern.sub(instead, there)
        return there if there in self._policy.image_registries else shared

    def _renamed(self, path: str, text: str) -> str:
        field = _field(path)
        text = _HOST.sub(lambda match: self._host(match[0]), text)
        text = self._namespaces.sub(self._namespace, text)
        text = self._told.sub(self._replaced, f"{field}={text}").removeprefix(f"{field}=")
        text = _ADDRESS.sub(self._address, text)
        text = _ARN.sub(lambda match: match[0].removesuffix(match["resource"]) + self._named(match["resource"]), text)
        if _TELLS_PATH.search(path):
            text = self._named(text)
        if _TELLS_HOST.search(field):
            text = _HOST.sub(lambda match: self._named_host(match[0]), text)
        return text

    def _named(self, text: str) -> str:
        return self._bare.sub(self._replaced, text)

    def _replaced(self, match: re.Match[str]) -> str:
        return match[0].replace(match[1], self._new) if match[1] == self._old else match[0]

    def _namespace(self, match: re.Match[str]) -> str:
        old, new = self._policy.namespace(self._old), self._policy.namespace(self._new)
        return new if match[1] == old else match[0]

    def _host(self, host: str) -> str:
        """A host below the new environment's domain, where it is the old one's."""
        fitting = [domain for domain in self._domains if f".{host}".endswith(f".{domain}")]
        domain = max(fitting, key=len, default="")
        if domain not in self._from.domains or not self._to.domains:
            return host
        at = min(self._from.domains.index(domain), len(self._to.domains) - 1)
        return host.removesuffix(domain) + self._to.domains[at]

    def _named_host(self, host: str) -> str:
        """A host with the new name, but for its top-level domain and where it is of a domain of the policy."""
        if any(f".{host}".endswith(f".{domain}") for domain in self._domains):
            return host
        inner = _without_top(host)
        return self._named(inner) + host.removeprefix(inner)

    def _address(self, match: re.Match[str]) -> str:
        scheme, host, path = match["scheme"], match["host"], match["path"]
        named = self._named_host(host) if _remote(scheme, host) and "." in host else host
        if "." not in host and _remote(scheme, host):
            named = self._named(host)
        return f"{scheme}://{named}{self._named(path)}"


# Characters of Unicode for private use.
_PRIVATE = 0xF0000


def _field(path: str) -> str:
    """What the last field or variable of a path is called; empty where it has none."""
    key = _KEY.search(path)
    return (key["variable"] or key["field"]) if key else ""


def _value(value: str) -> re.Pattern[str]:
    """An account or a region by itself, or in the name of a zone, such as eu-west-1a."""
    return re.compile(rf"(?<![A-Za-z0-9-]){re.escape(value)}(?=[a-f]?(?![A-Za-z0-9-]))")


def _remote(scheme: str, host: str) -> str:
    """The part of an address that names its place; nothing for a Service of the app's own namespace."""
    return _without_top(host) if "." in host or scheme.lower() in _BUCKETS else ""


def _without_top(host: str) -> str:
    """A host without its top-level domain, which may be called `dev`, and its port."""
    name = host.rpartition("@")[2].partition(":")[0]
    return name.rpartition(".")[0] or name


def _longest_first(names: Sequence[str]) -> str:
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


def _words(names: Sequence[str], letters: str) -> re.Pattern[str]:
    """Finds any of these names where none of these letters is beside it, and the longest that fits."""
    return re.compile(rf"(?<![{letters}])({_longest_first(names)})(?![{letters}])")


def check_environment(repository: Repository) -> Iterator[Finding]:
    """Nothing in an environment's render names another environment: its namespace, roles, hosts, folders or secrets."""
    names = Names(repository.policy)
    for folder, environment, app, items in repository.overlays():
        own = names.own(environment, app)
        for item in items:
            for path, value in leaves(item).items():
                if path == "metadata.namespace" or not isinstance(value, str):
                    continue  # the namespace is a matter of the rule of namespaces
                told = names.told(path, value, own, environment)
                for name in [name for name in told if name != environment][:1]:
                    yield finding("environment", folder, item, f"{path}: {value!r} names {name} in {environment};"
                                  " an overlay has its own environment's values")  # fmt: skip


# Source: the patterns of regions in botocore's partitions.json.
_REGION = re.compile(
    r"(?<![A-Za-z0-9-])(?P<region>(?:af|ap|ca|cn|eu|il|me|mx|sa|us)(?:-gov|-iso[a-z]?)?"
    r"-(?:central|(?:north|south)(?:east|west)?|east|west)-[0-9])[a-f]?(?![A-Za-z0-9-])"
)
_AWS_HOST = re.compile(r"(?P<host>[a-z0-9.-]+\.amazonaws\.com(?:\.cn)?)(?:/(?P<account>[0-9]{12})(?![0-9]))?")
_ACCOUNT = re.compile(r"(?<![A-Za-z0-9])[0-9]{12}(?![A-Za-z0-9])")
_TELLS_ACCOUNT = re.compile(r"account_?(id)?\Z", re.IGNORECASE)
# Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
_ROLE = 64


def check_places(repository: Repository) -> Iterator[Finding]:
    """Where the policy gives an environment's account or region, what its renders name of AWS is there, or shared by
    all: roles, queues, hosts, zones, and the variables that lead to a region. No name of a role is too long for AWS."""
    policy, names = repository.policy, Names(repository.policy)
    for folder, environment, _, items in repository.overlays():
        there = policy.at(environment)
        for item in items:
            for path, value in leaves(item).items():
                if not isinstance(value, str) or not _of_aws(value):
                    continue
                for role in [role for role in _roles(value) if len(role) > _ROLE][:1]:
                    yield finding("places", folder, item, f"{path}: {role!r}: a role's name of {len(role)} characters,"
                                  f" and AWS has at most {_ROLE}; take a shorter one")  # fmt: skip
                text = names.own_part(value)
                for what, wanted, found in (
                    ("account", there.account, accounts(path, text)), ("region", there.region, regions(text)),
                ):  # fmt: skip
                    for other in [each for each in found if wanted and each != wanted][:1]:
                        yield finding("places", folder, item, f"{path}: {value!r}: the {what} {other} in {environment},"
                                      f" which {POLICY_FILE} puts into {wanted}; an overlay has its own environment's"
                                      " values")  # fmt: skip


def _of_aws(value: str) -> bool:
    """Whether a text may have what follows: most have no digit."""
    return any(each.isdigit() for each in value)


def _roles(value: str) -> list[str]:
    """The names of the roles that a text has, without their paths."""
    found = [match["resource"] for match in _ARN.finditer(value) if match["service"] == "iam"]
    return [resource.rpartition("/")[2] for resource in found if resource.startswith("role/")]


def accounts(path: str, text: str) -> list[str]:
    """The accounts of AWS that a value names."""
    found = [match["account"] for match in _ARN.finditer(text) if match["account"]]
    for match in _AWS_HOST.finditer(text):
        found += [*_ACCOUNT.findall(match["host"]), *filter(None, [match["account"]])]
    return found + (_ACCOUNT.findall(text) if _TELLS_ACCOUNT.search(_field(path)) else [])


def regions(text: str) -> list[str]:
    """The regions of AWS that a value names; folders of an address are called as their owner likes."""
    without = _ADDRESS.sub(lambda match: match[0].removesuffix(match["path"]), text)
    return [match["region"] for match in _REGION.finditer(without)]


RULES: dict[str, Rule] = {"environment": check_environment, "places": check_places}

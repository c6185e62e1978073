"""Where a value names an environment: in the fields that carry such a name, and not in any word that is equal to it.

An environment may be called like a command, an app or a folder of Linux, so a bare word proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.manifests.objects import leaves
from gitops.repo.policy import Policy

# Of a path, what its last field or variable is called, without the position in a list.
_KEY = re.compile(r"(?:env\[(?P<variable>[^]]+)\]\.value|(?P<field>[^.[\]/]+))(?:\[\d+\])*\Z")
_TELLS_ENVIRONMENT = r"(?i:(?<![a-z])(?:env|environment|stage))"
_TELLS_HOST = re.compile(r"(host(name)?s?|domain|endpoint|address|ur[il])\Z", re.IGNORECASE)
# What an ExternalSecret reads, and the paths that an Ingress takes.
_TELLS_PATH = re.compile(r"(remoteRef|extract)\.key\Z|\.http\.paths\[[^]]*\]\.path\Z")
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^/\s,;\"']*)(?P<path>[^\s,;\"']*)", re.IGNORECASE)
_ARN = re.compile(r"arn:[a-z-]+:[a-z0-9-]+:[a-z0-9-]*:[0-9]*:(?P<resource>[^\s,;\"']+)")
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

    def words(self, text: str) -> list[str]:
        """The environments that a text which is made of names has."""
        return [match[1] for match in self._bare.finditer(text)]

    def told(self, path: str, value: str, own: re.Pattern[str] | None = None, environment: str = "") -> Iterator[str]:
        """The environments that a value names, by what it is and by its field, beside what is the app's `own`; the
        namespace of `environment` names no other that has the same on another cluster."""
        if not self._any.search(value):
            return
        text = self._shared.sub("", self._models.sub("", value))
        text = own.sub("", text) if own else text
        key = _KEY.search(path)
        field = (key["variable"] or key["field"]) if key else ""
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


RULES: dict[str, Rule] = {"environment": check_environment}

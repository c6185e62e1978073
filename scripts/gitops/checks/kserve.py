"""What KServe's webhooks refuse, and what its controller never starts, of KServe 0.20.

Behind each rule stands the function of KServe that has it. Its validator is
https://github.com/kserve/kserve/blob/v0.20.0/pkg/apis/serving/v1beta1/inference_service_validation.go; it is not
built in here, as the validation of the built-in kinds is, for it brings the clients of three clouds along.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gitops.checks.framework import Finding, Repository, Rule, finding
from gitops.checks.serving import CLASS, MODE
from gitops.manifests import workloads
from gitops.manifests.closure import LOADER
from gitops.manifests.objects import KUSTOMIZATION, Object, at, listed, mapping, mappings
from gitops.programs import tools
from gitops.repo import layout

from contract.errors import Refused

Fault = tuple[str, str]
"""(path, what is wrong there)."""
_SERVER = "kserve-container"
_RUNTIMES_CHART = "kserve-runtime-configs"


def check_kserve(repository: Repository) -> Iterator[Finding]:
    """KServe takes every InferenceService and ServingRuntime: no webhook refuses it, what scales it is installed, and
    its serving runtime is there, and serves its format and its protocol."""
    clusters = {cluster: _Installed(repository, cluster) for cluster, _, _ in repository.clusters()}
    own: dict[str, dict[str, Object]] = {}
    for _, environment, _, items in repository.all_overlays():
        own[environment] = own.get(environment, {}) | _runtimes(items)
    for folder, environment, _, items in repository.overlays():
        there = clusters.get(repository.policy.at(environment).cluster)
        for item in items:
            faults: list[Fault] = []
            # What the platform has to have: it may be what a change takes away.
            missing: list[Fault] = []
            if workloads.is_inference_service(item):
                faults += _service(item)
                missing += there.faults(item, own[environment]) if there else []
            elif workloads.kind_of(item)[1] == "ServingRuntime":
                faults += _runtime(item)
            yield from (finding("kserve", folder, item, f"{path}: {words}") for path, words in faults)
            where = there.folders if there else ()
            yield from (finding("kserve", folder, item, f"{path}: {words}", *where) for path, words in missing)


class _Installed:
    """What a cluster has of what a service needs there."""

    def __init__(self, repository: Repository, cluster: str) -> None:
        items = repository.installed(cluster)
        self.folders = layout.brought(cluster)
        self._keda = any(_is_keda(item) for item in items)
        self._runtimes = _runtimes(items) | _stock(items)

    def faults(self, item: Object, own: dict[str, Object]) -> Iterator[Fault]:
        """Of a service in an environment that has runtimes of its own."""
        yield from _runtime_faults(item, self._runtimes | own, self.folders[0])
        if not self._keda and _class(item) == "keda":
            yield _no_keda(self.folders[0])


def _service(item: Object) -> Iterator[Fault]:
    name = str(at(item, "metadata", "name"))
    # validateInferenceServiceName
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield "metadata.name", f"{name!r}: KServe takes a lower-case letter, then letters, digits and dashes"
    # validateInferenceServiceAutoscaler
    if (value := _class(item)) not in (None, "hpa", "external", "keda", "none"):
        yield f"metadata.annotations.{CLASS}", f"{value!r}: not a class of KServe; write hpa, keda, external or none"
    yield from _server_name(item)
    for path, part in workloads.components(item):
        if isinstance(part, dict):
            yield from _implementations(path, part)
            yield from _bounds(path, part)
            yield from _blocked(path, part)
            yield from _several_nodes(item, path, part)
            if not path.startswith("spec.canary["):
                yield from _scaling(item, path, part)
    yield from _canaries(item)


def _class(item: Object) -> Any:
    return at(item, "metadata", "annotations", CLASS)


def _server_name(item: Object) -> Iterator[Fault]:
    """validatePredictor, validateCollocationStorageURI and ValidateConfidentialSpec."""
    predictor = at(item, "spec", "predictor")
    if at(predictor, "model", "name"):
        yield "spec.predictor.model.name", "KServe names this container itself; remove it"
    for container in mappings(at(predictor, "containers")):
        names = [variable.get("name") for variable in mappings(container.get("env"))]
        if container.get("name") == "transformer-container" and workloads.KSERVE_URI in names:
            path = f"spec.predictor.containers[transformer-container].env[{workloads.KSERVE_URI}]"
            yield path, "a transformer beside the predictor has no model of its own; remove it"
    secret = mapping(at(predictor, "model", "confidential"))
    key = secret.get("resourceId")
    if secret.get("enabled") and key and not re.fullmatch(r"kbs:///[\w.-]+/[\w.-]+/[\w.-]+", str(key), re.ASCII):
        yield "spec.predictor.model.confidential.resourceId", f"{key!r}: write kbs:///REPOSITORY/TYPE/TAG"


def _implementations(path: str, part: Mapping[str, Any]) -> Iterator[Fault]:
    """validateExactlyOneImplementation, by the GetImplementations of each kind of component; the rule `model-form` has
    the forms for single frameworks, and predictors without a model."""
    names = [each.get("name") for each in mappings(part.get("containers"))]
    if path.endswith(("transformer", "explainer")):
        if not names and not any(name in part for name in workloads.FRAMEWORKS):
            yield f"{path}.containers", "missing; KServe takes exactly one server"
    elif part.get("model") and _SERVER in names:
        yield f"{path}.containers[{_SERVER}]", "KServe's own name for the server of model; take another"


def _bounds(path: str, part: Mapping[str, Any]) -> Iterator[Fault]:
    """ComponentExtensionSpec.Validate and CustomPredictor.validateCustomProtocol."""
    least, most = part.get("minReplicas", 1), part.get("maxReplicas", 0)
    for field in ("minReplicas", "maxReplicas", "containerConcurrency"):
        if _number(part.get(field)) < 0:
            yield f"{path}.{field}", f"{part[field]}: below 0"
    if _number(least) > _number(most) > 0:
        yield f"{path}.minReplicas", f"{least}: more than maxReplicas, which is {most}"
    storage = at(part, "logger", "storage")
    if storage is not None and None in (at(storage, "path"), at(storage, "parameters"), at(storage, "key")):
        yield f"{path}.logger.storage", "KServe needs its path, parameters and key"
    if not part.get("model"):
        for variable in [each for container in mappings(part.get("containers"))[:1] for each in _variables(container)]:
            if variable.get("name") == "PROTOCOL" and variable.get("value") not in ("v1", "v2"):
                yield f"{path}.containers.env[PROTOCOL]", f"{variable.get('value')!r}: KServe takes v1 or v2"


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _variables(container: Any) -> list[dict[str, Any]]:
    return mappings(at(container, "env"))


def _blocked(path: str, part: Mapping[str, Any]) -> Iterator[Fault]:
    """ValidateBlockedEnvVars."""
    worker = mapping(part.get("workerSpec"))
    lists = {field: part.get(field) for field in ("containers", "initContainers")}
    found = [
        *((f"{path}.{name}", part[name]) for name in ("model", *workloads.FRAMEWORKS) if name in part),
        *((f"{path}.{field}[{each.get('name')}]", each) for field in lists for each in mappings(lists[field])),
        *((f"{path}.workerSpec.containers[{each.get('name')}]", each) for each in mappings(worker.get("containers"))),
    ]
    for where, container in found:
        if any(variable.get("name") == "PYTHONPATH" for variable in _variables(container)):
            yield f"{where}.env[PYTHONPATH]", "KServe does not allow this variable; remove it"


_SIZES = ("PIPELINE_PARALLEL_SIZE", "TENSOR_PARALLEL_SIZE")


def _several_nodes(item: Object, path: str, part: Mapping[str, Any]) -> Iterator[Fault]:
    """validateMultiNodeVariables."""
    worker, model = part.get("workerSpec"), part.get("model")
    if worker is None:
        return
    yield from _workers(f"{path}.workerSpec", worker)
    if model is None:
        return
    for variable in _variables(model):
        if variable.get("name") in _SIZES:
            yield f"{path}.model.env[{variable['name']}]", "write the size into workerSpec"
    scheme = str(at(model, "storageUri")).partition("://")[0]
    if scheme not in ("pvc", "oci"):
        message = f"{scheme!r}: KServe takes a model for several nodes from pvc:// or oci:// alone; remove workerSpec"
        yield f"{path}.model.storageUri", message
    if _class(item) != "none":
        yield f"metadata.annotations.{CLASS}", f"{_class(item)!r}: with workerSpec KServe takes none"


def _workers(path: str, worker: Any) -> Iterator[Fault]:
    if len(mappings(at(worker, "containers"))) > 1:
        yield f"{path}.containers", "KServe takes one container"
    for field in ("pipelineParallelSize", "tensorParallelSize"):
        if _number(at(worker, field) or 1) < 1 or at(worker, field) == 0:
            yield f"{path}.{field}", f"{at(worker, field)}: below 1"


def _scaling(item: Object, path: str, part: Mapping[str, Any]) -> Iterator[Fault]:
    """validateAutoScalingCompExtension."""
    annotations = mapping(at(item, "metadata", "annotations"))
    by_class = {"hpa": _hpa, "keda": _keda}.get(str(_class(item)))
    by_knative = _hpa if annotations.get("autoscaling.knative.dev/class") == "hpa.autoscaling.knative.dev" else _kpa
    # The rule `deployment-mode` has what is neither.
    how = {"Standard": by_class, "Knative": by_knative}.get(str(annotations.get(MODE)))
    return how(path, part) if how else iter(())


def _hpa(path: str, part: Mapping[str, Any]) -> Iterator[Fault]:
    """validateScalingHPACompExtension; the rule `deployment-mode` has scaleMetric."""
    target = part.get("scaleTarget")
    if target is not None and not 1 <= _number(target) <= 100:
        yield f"{path}.scaleTarget", f"{target}: a percentage of what is requested; write 1 to 100"
    for number, entry in enumerate(mappings(at(part, "autoScaling", "metrics"))):
        where = f"{path}.autoScaling.metrics[{number}]"
        if entry.get("type") != "Resource":
            yield f"{where}.type", f"{entry.get('type')!r}: the autoscaler hpa takes Resource"
        elif entry.get("resource") is None:
            yield f"{where}.resource", "missing"


def _kpa(path: str, part: Mapping[str, Any]) -> Iterator[Fault]:
    """validateScalingKPACompExtension."""
    metric = part.get("scaleMetric", "concurrency")
    if part.get("deploymentStrategy") is not None:
        yield f"{path}.deploymentStrategy", "only in the mode Standard; remove it"
    if metric not in ("concurrency", "rps"):
        yield f"{path}.scaleMetric", f"{metric!r}: Knative's autoscaler takes concurrency or rps"
    if metric == "rps" and _number(part.get("scaleTarget", 1)) < 1:
        yield f"{path}.scaleTarget", f"{part['scaleTarget']}: below 1"


_KEDA = {"Resource": "resource", "External": "external", "PodMetric": "podmetric"}
_VALUES = {"Utilization": "averageUtilization", "AverageValue": "averageValue", "Value": "value"}


def _keda(path: str, part: Mapping[str, Any]) -> Iterator[Fault]:
    """validateScalingKedaCompExtension."""
    if "scaleMetric" in part:
        yield f"{path}.scaleMetric", "the autoscaler keda does not take it; write autoScaling.metrics"
    for number, entry in enumerate(mappings(at(part, "autoScaling", "metrics"))):
        where, kind = f"{path}.autoScaling.metrics[{number}]", entry.get("type")
        if (field := _KEDA.get(str(kind))) is None:
            yield f"{where}.type", f"{kind!r}: the autoscaler keda takes {', '.join(_KEDA)}"
        elif entry.get(field) is None:
            yield f"{where}.{field}", f"missing; the type is {kind}"
        else:
            yield from _keda_metric(f"{where}.{field}", entry[field], kind == "Resource")


def _keda_metric(where: str, source: Any, of_resource: bool) -> Iterator[Fault]:
    target, name = mapping(at(source, "target")), at(source, "name")
    types = {"cpu": ("Utilization",), "memory": ("AverageValue", "Utilization")}
    if of_resource and name not in types:
        yield f"{where}.name", f"{name!r}: the autoscaler keda takes cpu or memory"
    elif of_resource and target.get("type") not in types[str(name)]:
        yield f"{where}.target.type", f"{target.get('type')!r}: of {name} it takes {' or '.join(types[str(name)])}"
    if not of_resource and not at(source, "metric", "query"):
        yield f"{where}.metric.query", "missing"
    if not of_resource and target.get("value") is None:
        yield f"{where}.target.value", "missing"
    # validateScaleTarget
    field = _VALUES.get(str(target.get("type")), "")
    if field and target.get(field) is None:
        yield f"{where}.target.{field}", f"missing; the type is {target['type']}"
    elif field == "averageUtilization" and not 1 <= _number(target[field]) <= 100:
        yield f"{where}.target.{field}", f"{target[field]}: a percentage; write 1 to 100"


def _canaries(item: Object) -> Iterator[Fault]:
    """validateCanarySpecs."""
    entries, stable = mappings(at(item, "spec", "canary")), mapping(at(item, "spec", "predictor"))
    if not entries:
        return
    if at(item, "metadata", "annotations", MODE) != "Standard":
        yield "spec.canary", "only in the mode Standard; for Knative write canaryTrafficPercent"
    shares = [_number(entry.get("trafficPercent")) for entry in entries]
    if sum(shares) > 100:
        yield "spec.canary", f"trafficPercent of all together is {sum(shares)}; more than 100"
    names = Counter(str(at(predictor, "name") or "") for _, predictor in workloads.canaries(item))
    for name, count in names.items():
        if not name:
            yield "spec.canary", "predictor.name: missing; each canary has its own"
        elif count > 1 or name == stable.get("name"):
            yield f"spec.canary[{name}].predictor.name", f"{name!r}: another predictor's name; each has its own"
    for path, predictor in workloads.canaries(item):
        for field in ("workerSpec", "maxReplicas", "scaleTarget", "scaleMetric", "autoScaling"):
            if at(predictor, field) not in (None, 0) or (field != "maxReplicas" and at(predictor, field) == 0):
                yield f"{path}.{field}", "a canary has a fixed number of pods, of minReplicas; remove it"
        least, of_stable = at(predictor, "minReplicas"), _number(stable.get("minReplicas", 1))
        if least is not None and _number(least) > of_stable:
            yield f"{path}.minReplicas", f"{least}: more than that of spec.predictor, which is {of_stable}"


def _is_keda(item: Object) -> bool:
    """Whether an Application of the platform brings KEDA, from its chart or from its repository."""
    source = mapping(at(item, "spec", "source"))
    return item.get("kind") == "Application" and any(
        re.search(r"(^|/)keda(\.git)?$", str(source.get(field, ""))) for field in ("chart", "repoURL")
    )


def _no_keda(platform: str) -> Fault:
    message = (
        f"keda: no KEDA in {platform}; add an Application of its chart to {platform}/{KUSTOMIZATION}, or write hpa"
    )
    return f"metadata.annotations.{CLASS}", message


def _runtimes(items: list[Object]) -> dict[str, Object]:
    """The serving runtimes of a render, by name."""
    kinds = ("ServingRuntime", "ClusterServingRuntime")
    return {str(at(item, "metadata", "name")): item for item in items if workloads.kind_of(item)[1] in kinds}


def _stock(platform: list[Object]) -> dict[str, Object]:
    """KServe's own runtimes, where an Application of the platform installs them."""
    installed = any(at(item, "spec", "source", "chart") == _RUNTIMES_CHART for item in platform)
    return _read(tools.SCHEMAS.path / "github.com/kserve/kserve/config/runtimes") if installed else {}


@cache
def _read(folder: Path) -> dict[str, Object]:
    """The runtimes of KServe's module. Raises Refused when it is not unpacked yet."""
    files = sorted(folder.glob("kserve-*.yaml"))
    if not files:
        raise Refused("the schemas are not unpacked yet: run `make setup`")
    return _runtimes([yaml.load(file.read_bytes(), LOADER) for file in files])


def _runtime_faults(item: Object, runtimes: Mapping[str, Object], platform: str) -> Iterator[Fault]:
    """Predictor.reconcileModel: what it answers is in the status of the service, which never gets ready."""
    for path, part in workloads.components(item):
        model = at(part, "model")
        if not isinstance(model, dict):
            continue
        path, name = f"{path}.model", None if model.get("runtime") is None else str(model["runtime"])
        fitting = [each for each in runtimes if not list(_unfit(path, model, each, runtimes[each]))]
        if name is None and not fitting:
            yield f"{path}.runtime", f"missing, and none fits; write one of {', '.join(sorted(runtimes)) or 'your own'}"
        elif name is not None and name not in runtimes:
            known = ", ".join(fitting) or "none that fits"
            message = f"{name!r}: no such serving runtime in this environment or {platform}; there is {known}"
            yield f"{path}.runtime", message
        elif name is not None:
            yield from _unfit(path, model, name, runtimes[name])


def _unfit(path: str, model: Mapping[str, Any], name: str, runtime: Object) -> Iterator[Fault]:
    """ModelSpec.RuntimeSupportsModel and ServingRuntimeSpec.IsProtocolVersionSupported."""
    spec, chosen = mapping(runtime.get("spec")), model.get("runtime") is not None
    if spec.get("disabled"):
        yield f"{path}.runtime", f"{name!r}: disabled; choose another"
    wanted = (at(model, "modelFormat", "name"), at(model, "modelFormat", "version"))
    served = [each for each in mappings(spec.get("supportedModelFormats")) if chosen or each.get("autoSelect")]
    pairs = [pair for each in served for pair in ((each.get("name"), None), (each.get("name"), each.get("version")))]
    if wanted not in pairs:
        shown = " ".join(str(word) for word in wanted if word is not None)
        known = ", ".join(sorted({str(each.get("name")) for each in served}))
        yield f"{path}.modelFormat", f"{shown}: the runtime {name} serves {known or 'no format'}"
    protocols, protocol = listed(spec.get("protocolVersions")), model.get("protocolVersion")
    # Where the runtime is chosen by the format, the protocol that is not written is v1.
    protocol = protocol if chosen or protocol else "v1"
    if protocol and protocols and protocol not in protocols:
        yield f"{path}.protocolVersion", f"{protocol}: the runtime {name} has {', '.join(map(str, protocols))}"


def _runtime(item: Object) -> Iterator[Fault]:
    """The webhook of serving runtimes, as far as it looks at one: validateModelFormatPrioritySame,
    validateMultiNodeSpec and validateBlockedEnvVars of pkg/webhook/admission/servingruntime."""
    spec = mapping(item.get("spec"))
    priorities: dict[str, set[int]] = {}
    for served in mappings(spec.get("supportedModelFormats")):
        if served.get("autoSelect") and served.get("priority") is not None:
            priorities.setdefault(str(served.get("name")), set()).add(_number(served["priority"]))
    for name, found in priorities.items():
        if len(found) > 1:
            yield "spec.supportedModelFormats", f"{name}: priorities {', '.join(map(str, sorted(found)))}; write one"
    yield from _blocked("spec", spec)
    if (worker := spec.get("workerSpec")) is not None:
        yield from _workers("spec.workerSpec", worker)


RULES: dict[str, Rule] = {"kserve": check_kserve}

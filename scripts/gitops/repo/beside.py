"""What runs beside the clusters, endpoints of SageMaker and services on instances, and the stacks that they need."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gitops.manifests import ack, stack, workloads
from gitops.manifests.cloudformation import Stack
from gitops.manifests.objects import Object, at, listed, mapping
from gitops.repo import values
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

Renders = Mapping[str, Sequence[Object]]
TRAINING = "train"
"""The repository of the image that training jobs run: `train_sagemaker.py --image REGISTRY/train@sha256:...`."""
REGISTRY = re.compile(r"(?P<account>[0-9]{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com")

_REPLICA = ("spec", "primaryContainer", "environment", "MODEL_REPLICA")


@dataclass(frozen=True)
class Apart:
    """One object of an environment that no cluster runs."""

    environment: str
    folder: str
    item: Object

    @property
    def app(self) -> str:
        return self.folder.split("/")[-1]


def models(renders: Renders) -> list[Apart]:
    """The models of SageMaker."""
    return list(_of(renders, ack.MODEL))


def instances(renders: Renders) -> list[Apart]:
    """The services on instances."""
    return list(_of(renders, (stack.GROUP, stack.KIND)))


def _of(renders: Renders, kind: tuple[str, str]) -> Iterator[Apart]:
    for folder, items in renders.items():
        if folder.startswith("overlays/"):
            yield from (Apart(folder.split("/")[1], folder, item) for item in items if workloads.kind_of(item) == kind)


def images(renders: Renders, registries: Sequence[str]) -> set[str]:
    """The repositories of images that models of SageMaker name in these registries."""
    named = [str(at(each.item, "spec", "primaryContainer", "image")) for each in models(renders)]
    return {
        re.split("[:@]", image.removeprefix(f"{registry}/"))[0]
        for image in named
        for registry in registries
        if image.startswith(f"{registry}/")
    }


def needed(tree: Snapshot, renders: Renders, repositories: Sequence[Stack], training: Sequence[Stack]) -> list[Stack]:
    """Each after those that it needs; `repositories` and `training` are the stacks of their images. Raises Refused
    where there are endpoints, and no registry from which SageMaker takes an image."""
    apart = [*models(renders), *instances(renders)]
    found = {each.environment: place(tree, each.environment) for each in apart}
    owner = values.find(tree, "account")
    # IAM is the same in all regions of an account.
    others = {account: region for account, region in found.values() if account != owner}
    return [
        *(Stack("github-provider", "provider", *where) for where in others.items()),
        *_endpoints(tree, renders, _arns(repositories), _arns(training)),
        *_instances(tree, renders),
    ]


def below(tree: Snapshot, renders: Renders, clusters: Sequence[Stack]) -> Iterator[Stack]:
    """The network and the certificate of instances where no cluster has brought them."""
    there = {(each.account, each.region) for each in clusters}
    found: dict[tuple[str, str], set[str]] = {}
    for each in instances(renders):
        if (where := place(tree, each.environment)) not in there:
            exposure = tree.policy.exposure.get(each.environment)
            found.setdefault(where, set()).update(exposure.hosts if exposure else ())
    for where, hosts in found.items():
        yield Stack("vm-network", "network", *where, {"Cluster": "vm", "Network": "10.0.0.0/16"})
        if domain := min(hosts, key=len, default=None):
            names = ",".join(f"*.{host}" for host in sorted(hosts))
            yield Stack("vm-domain", "domain", *where, {"Domain": domain, "Names": names})


def place(tree: Snapshot, environment: str) -> tuple[str, str]:
    """The account and the region of an environment."""
    return values.of_environment(tree, environment, "account"), values.of_environment(tree, environment, "region")


def _common(tree: Snapshot, environment: str) -> dict[str, str]:
    policy = tree.policy
    return {
        "Namespace": policy.namespace(environment),
        "Environment": environment,
        "Repository": values.repository(tree),
        "Bucket": policy.model_bucket,
    }


def _arns(repositories: Sequence[Stack]) -> str:
    return ",".join(
        f"arn:aws:ecr:{each.region}:{each.account}:repository/{each.parameters['Repository']}" for each in repositories
    )


def _endpoints(tree: Snapshot, renders: Renders, arns: str, training: str) -> Iterator[Stack]:
    found, bucket = models(renders), tree.policy.model_bucket
    if found and not arns:
        raise Refused(
            "overlays/promotion.yaml: image_registries: none is of ECR, and SageMaker takes images from nowhere else;"
            " add ACCOUNT.dkr.ecr.REGION.amazonaws.com"
        )
    if found:
        about = {"Repository": values.repository(tree), "Bucket": bucket, "Data": f"{bucket}/dvc/", "Images": training}
        yield Stack("sagemaker-training", "training", values.find(tree, "account"), values.find(tree, "region"), about)
    for name in dict.fromkeys(each.environment for each in found):
        common = _common(tree, name)
        usual = f"{bucket}/requests/{name}/"
        others = {folder for folder in _captured(renders, name) if not folder.startswith(usual)}
        told = {"Requests": ",".join([usual, *sorted(others)]), "Images": arns}
        # What is told of a replica takes its models from there.
        if any(at(each.item, *_REPLICA) for each in found if each.environment == name):
            told |= {"Bucket": tree.policy.at(name).replica}
        yield Stack(f"sagemaker-{name}", "sagemaker", *place(tree, name), common | told)
    for each in found:
        own = f"{tree.policy.namespace(each.environment)}-{each.app}"
        parameters = {"Endpoint": own} | _variant(renders[each.folder])
        yield Stack(f"{own}-alarms", "alarms", *place(tree, each.environment), parameters)


def _captured(renders: Renders, environment: str) -> Iterator[str]:
    """Where endpoints of an environment write what they were asked, as BUCKET/FOLDER/."""
    for each in _of(renders, ack.CONFIG):
        uri = at(each.item, "spec", "dataCaptureConfig", "destinationS3URI")
        if each.environment == environment and uri:
            yield f"{str(uri).removeprefix('s3://').rstrip('/')}/"


def _variant(items: Sequence[Object]) -> dict[str, str]:
    """That of an endpoint's configuration, where it has one."""
    for item in items:
        variants = listed(at(item, "spec", "productionVariants"))
        if workloads.kind_of(item) == ack.CONFIG and (name := at(mapping(next(iter(variants), {})), "variantName")):
            return {"Variant": str(name)}
    return {}


def _instances(tree: Snapshot, renders: Renders) -> Iterator[Stack]:
    groups: dict[str, list[Apart]] = {}
    for each in instances(renders):
        groups.setdefault(each.environment, []).append(each)
    for name, group in groups.items():
        common = _common(tree, name)
        told = {"Stacks": ",".join(sorted(f"{common['Namespace']}-{each.app}" for each in group))}
        for parameter, given in (("Images", "ImageId"), ("Zones", "HostedZone")):
            asked = {str(stack.parameters(each.item).get(given) or "") for each in group}
            told |= {parameter: ",".join(sorted(filter(None, asked)))} if any(asked) else {}
        yield Stack(f"vm-{name}", "vm-roles", *place(tree, name), common | told)


def reading(stacks: Sequence[Stack]) -> list[Stack]:
    """Those with a role that reads models in an environment's account."""
    return [each for each in stacks if "Bucket" in each.parameters and each.template != "training"]

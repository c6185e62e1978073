"""A stack of each template in infra/, for the tests that judge what it makes."""

from __future__ import annotations

from conftest import ROOT

from gitops.manifests.cloudformation import Stack
from gitops.manifests.objects import Object

FOLDER = ROOT / "infra"
ACCOUNT, REGION = "444455556666", "eu-central-1"
SERVICE = {
    "Cluster": "acme", "Role": "ml-dev-model-reader", "ServiceAccounts": "ml-dev:one,ml-dev:two",
    "Bucket": "acme-models", "Requests": "acme-models/requests/dev/",
}  # fmt: skip
STAGING = {
    "Namespace": "ml-staging", "Environment": "staging", "Repository": "acme/models", "Bucket": "acme-models",
}  # fmt: skip
IMAGES = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/wine-api"
PARAMETERS: dict[str, dict[str, str]] = {
    "addons": {"Cluster": "acme", "Domain": "domain", "Namespaces": "ml-dev,ml-staging", "Waf": "yes"},
    "alarms": {"Endpoint": "ml-staging-wine-sagemaker"},
    "batch": SERVICE | {
        "Role": "ml-dev-batch", "InputBucket": "acme-models", "InputFolder": "batch/dev/in/",
        "OutputBucket": "acme-models", "OutputFolder": "batch/dev/out/",
    },
    "cluster": {"Cluster": "acme", "Administrator": f"arn:aws:iam::{ACCOUNT}:role/a", "Callers": "203.0.113.0/24"},
    "domain": {"Domain": "ml.acme.com", "Names": "*.ml.acme.com"},
    "github": {"Repository": "acme/models", "Bucket": "acme-models", "Replicas": "acme-models-us,acme-models-ap"},
    "models": {"Bucket": "acme-models", "Accounts": "777788889999", "Source": "888899990000"},
    "network": {"Cluster": "acme", "Network": "10.20.0.0/16"},
    "reader": SERVICE,
    "provider": {},
    "sagemaker": STAGING | {"Requests": "acme-models/requests/staging/", "Images": IMAGES},
    "training": {
        "Repository": "acme/models", "Bucket": "acme-models", "Data": "acme-models/dvc/", "Images": IMAGES,
    },
    "vm": {
        "ModelUri": "s3://acme-models/models/wine/2026-01-01-0123456789ab/onnx/", "ModelDigest": f"sha256:{64 * 'a'}",
        "ModelManifest": f"sha256:{64 * 'b'}", "Service": f"s3://acme-models/services/{64 * 'c'}.tar.gz",
        "Vpc": "vpc-0123456789abcdef0", "Subnets": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
        "LoadBalancerSubnets": "subnet-0123456789abcdef2,subnet-0123456789abcdef3", "Callers": "10.20.0.0/16",
        "Certificate": f"arn:aws:acm:eu-central-1:{ACCOUNT}:certificate/01234567-89ab-cdef-0123-456789abcdef",
        "Host": "wine.ml.acme.com", "HostedZone": "Z0123456789ABCDEFGHIJ", "InstanceProfile": "ml-staging-vm",
    },
    "waf": {"Cluster": "acme"},
    "vm-roles": STAGING | {"Stacks": "ml-staging-wine-vm", "Zones": "Z0123456789ABCDEFGHIJ"},
    "registry": {"Repository": "wine-api", "Pullers": "777788889999"},
}  # fmt: skip


def stack(template: str, **parameters: str) -> Stack:
    return Stack(template, template, ACCOUNT, REGION, PARAMETERS[template] | parameters)


def model(app: str, environment: str, account: str = "111122223333", image: str = "unreleased") -> Object:
    """A model of SageMaker, as an overlay of it renders."""
    return {
        "apiVersion": "sagemaker.services.k8s.aws/v1alpha1",
        "kind": "Model",
        "metadata": {"name": f"{app}-1", "namespace": f"ml-{environment}"},
        "spec": {
            "modelName": f"ml-{environment}-{app}-1",
            "executionRoleARN": f"arn:aws:iam::{account}:role/ml-{environment}-sagemaker",
            "primaryContainer": {"image": image},
        },
    }


def configuration(app: str, environment: str, variant: str, captured: str) -> Object:
    return {
        "apiVersion": "sagemaker.services.k8s.aws/v1alpha1",
        "kind": "EndpointConfig",
        "metadata": {"name": f"{app}-1", "namespace": f"ml-{environment}"},
        "spec": {
            "productionVariants": [{"variantName": variant}],
            "dataCaptureConfig": {"destinationS3URI": captured},
        },
    }


def instances(app: str, environment: str, **parameters: str) -> Object:
    """A service on instances, as an overlay of it renders."""
    return {
        "apiVersion": "deploy.mlops/v1",
        "kind": "Stack",
        "metadata": {"name": app, "namespace": f"ml-{environment}"},
        "spec": {"parameters": {"InstanceProfile": f"ml-{environment}-vm"} | parameters},
    }

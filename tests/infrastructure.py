"""A stack of each template in infra/, for the tests that judge what it makes."""

from __future__ import annotations

from conftest import ROOT

from gitops.manifests.cloudformation import Stack

FOLDER = ROOT / "infra"
ACCOUNT, REGION = "444455556666", "eu-central-1"
SERVICE = {
    "Cluster": "acme", "Role": "ml-dev-model-reader", "ServiceAccounts": "ml-dev:one,ml-dev:two",
    "Bucket": "acme-models", "Requests": "acme-models/requests/dev/",
}  # fmt: skip
PARAMETERS = {
    "addons": {"Cluster": "acme", "Domain": "domain"},
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
    "vm": {
        "ModelUri": "s3://acme-models/models/wine/2026-01-01-0123456789ab/onnx/", "ModelDigest": f"sha256:{64 * 'a'}",
        "ModelManifest": f"sha256:{64 * 'b'}", "Service": f"s3://acme-models/services/{64 * 'c'}.tar.gz",
        "Vpc": "vpc-0123456789abcdef0", "Subnets": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
        "LoadBalancerSubnets": "subnet-0123456789abcdef2,subnet-0123456789abcdef3", "Callers": "10.20.0.0/16",
        "Certificate": f"arn:aws:acm:eu-central-1:{ACCOUNT}:certificate/01234567-89ab-cdef-0123-456789abcdef",
        "Host": "wine.ml.acme.com", "HostedZone": "Z0123456789ABCDEFGHIJ", "InstanceProfile": "ml-staging-vm",
    },
    "registry": {"Repository": "wine-api", "Pullers": "777788889999"},
}  # fmt: skip


def stack(template: str, **parameters: str) -> Stack:
    return Stack(template, template, ACCOUNT, REGION, PARAMETERS[template] | parameters)

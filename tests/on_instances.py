"""An app of the shape `vm` in a clone of the sample, as a team has it that knows its network, and archives of a
service."""

from __future__ import annotations

import hashlib

from conftest import BUCKET, S3, Checkout

from gitops.manifests import stack
from gitops.manifests.objects import Object

APP, ENVIRONMENTS = "lily-vm", ("dev", "staging", "prod")
STACK = ("--app", APP)
TEMPLATE = stack.FILE.read_text()
# What the skeleton leaves to be filled in, and a fork's network and certificate.
FILLED_IN = {
    "vpc-00000000000000000": "vpc-1a2b3c4d5e6f70819",
    "subnet-0000000000000000a,subnet-0000000000000000b": "subnet-1a2b3c4d5e6f7081a,subnet-1a2b3c4d5e6f7081b",
    "subnet-0000000000000000c,subnet-0000000000000000d": "subnet-1a2b3c4d5e6f7081c,subnet-1a2b3c4d5e6f7081d",
    "00000000-0000-0000-0000-000000000000": "1a2b3c4d-5e6f-7081-92a3-b4c5d6e7f809",
}


def instances(environment: str) -> str:
    """The file of an overlay with its own parameters."""
    return f"overlays/{environment}/{APP}/instances.yaml"


def add(checkout: Checkout) -> None:
    """Adds the app to the branch, unreleased."""
    made = checkout.run("new_model", "lily", "--shape", "vm", "--only", "app")
    assert made.code == 0, made.err
    for environment in ENVIRONMENTS:
        for old, new in FILLED_IN.items():
            checkout.replace(instances(environment), old, new)
    checkout.commit("Add the app", push=True)


def archive(s3: S3, content: str = "one") -> str:
    """The address of an archive of a service that is in the bucket, with made-up bytes."""
    data = f"service {content}".encode()
    key = f"services/{hashlib.sha256(data).hexdigest()}.tar.gz"
    s3.client.put_object(Bucket=BUCKET, Key=key, Body=data)
    return f"s3://{BUCKET}/{key}"


def parameters(item: Object) -> dict[str, str]:
    return dict(item["spec"]["parameters"])

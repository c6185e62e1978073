"""An app of the shape `sagemaker` in a clone of the sample."""

from __future__ import annotations

from collections.abc import Iterable

from conftest import Checkout

from gitops.manifests import ack, kustomize, workloads
from gitops.manifests.objects import Object

APP, ENVIRONMENTS = "lily-sagemaker", ("dev", "staging", "prod")
ASKED = ("--app", APP)
FILE = f"overlays/{{}}/{APP}/release.yaml"


def add(checkout: Checkout) -> None:
    """Adds the app to the branch, unreleased."""
    made = checkout.run("new_model", "lily", "--shape", "sagemaker", "--only", "app")
    assert made.code == 0, made.err
    checkout.commit("Add the app", push=True)


def rendered(checkout: Checkout, environment: str) -> list[Object]:
    return kustomize.rendered(checkout.root, f"overlays/{environment}/{APP}")


def one(items: Iterable[Object], kind: tuple[str, str] = ack.MODEL) -> Object:
    """The only object of a kind."""
    [found] = [item for item in items if workloads.kind_of(item) == kind]
    return found

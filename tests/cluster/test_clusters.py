"""Several clusters: one that the hub's Argo CD serves, and one with an Argo CD of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import IMAGE, Checkout, Version, make_checkout, package, wait_until

from gitops.cluster.control_plane import ControlPlane
from gitops.manifests import workloads
from gitops.manifests.objects import Object, at

from contract.errors import Refused

from .conftest import APPLICATION, DEPLOYMENT, World, create, uri

APP = "lily-api"
REGIONS = {"prod-eu": "eu", "prod-us": "us"}
READER = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def clusters(whole_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Production in two more clusters, from nothing: their control planes run, and nothing is handed over yet."""
    checkout = make_checkout(whole_template, tmp_path_factory.mktemp("clusters"))
    for command in (
        ("cluster", "add", "eu", "--argocd", "hub"),
        ("cluster", "add", "us", "--argocd", "own"),
        *(
            ("environment", "add", name, "--after", "staging", "--like", "prod", "--cluster", cluster, "--host",
             f"{cluster}.example.com")
            for name, cluster in REGIONS.items()
        ),
    ):  # fmt: skip
        done = checkout.run(*command, "--commit")
        assert done.code == 0, done.err
    plane = ControlPlane(checkout.root, checkout.root.parent / "state")
    try:
        plane.install()
        made = World(plane)
        made.pull()
        yield made
    finally:
        plane.down()


def test_both_are_handed_over_from_nothing(clusters: World) -> None:
    hub, us = clusters.plane, clusters.plane.others["us"]
    for options in ([], ["--cluster", "us"]):
        clusters.done("bootstrap", "--kubeconfig", hub.kubeconfig, "--wait", "120", *options)

    spaces = {"eu": "ml-prod-eu", "us": "ml-prod-us"}
    for name, space in spaces.items():
        there = hub.others[name].cluster
        wait_until(lambda: there.get("v1", "ResourceQuota", "environment", space) is not None, f"{space} is there", 60)  # noqa: B023
    assert {"environment-prod-eu", "platform-eu"} <= clusters.applications().keys()
    assert {item["metadata"]["name"] for item in us.cluster.list(*APPLICATION, "argocd")} == {
        "root",
        "environment-prod-us",
    }

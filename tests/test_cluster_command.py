"""Clusters beside the one in which Argo CD runs: added and removed by command, and what of them has to be there."""

from __future__ import annotations

from conftest import Checkout


def add(checkout: Checkout, name: str, *options: str) -> None:
    done = checkout.run("cluster", "add", name, *options, "--push")
    assert done.code == 0, done.err
    branch = f"cluster/add-{name}"
    checkout.merge(branch)


def test_a_cluster_is_added_in_either_way_and_is_valid_and_goes_without_a_trace(checkout: Checkout) -> None:
    before = checkout.git("rev-parse", "HEAD^{tree}")
    add(checkout, "eu", "--argocd", "hub", "--account", "444455556666", "--region", "eu-central-1")
    done = checkout.run("validate")
    assert done.code == 0, done.err
    add(checkout, "us", "--argocd", "own", "--region", "us-east-1")

    done = checkout.run("validate")

    assert done.code == 0, done.err
    for name in ("eu", "us"):
        assert checkout.run("cluster", "remove", name, "--push").code == 0
        checkout.merge(f"cluster/remove-{name}")
    assert checkout.git("rev-parse", "HEAD^{tree}") == before

"""Environments are added and removed by one command each, and the checks find nothing to mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Checkout, make_checkout


@pytest.fixture(scope="module")
def world(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make_checkout(template, tmp_path_factory.mktemp("environment"))


def changed(checkout: Checkout, *args: str) -> dict[str, object]:
    """Runs the command for a pull request, merges that, and asks every check of the result and of the change."""
    done = checkout.run("environment", *args, "--pull-request", "--json")
    assert done.code == 0, done.err
    told: dict[str, object] = json.loads(done.out)
    before = checkout.tip()
    checkout.merge(str(told["branch"]))
    for options in ((), ("--changed-since", before)):
        checked = checkout.run("validate", *options)
        assert (checked.code, checked.errors) == (0, [])
    return told


def test_one_is_added(world: Checkout) -> None:
    told = changed(world, "add", "perf", "--after", "staging", "--before", "prod")
    print(json.dumps(told, indent=2))
    print(world.git("show", "HEAD^2"))
    assert 0

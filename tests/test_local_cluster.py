"""local_cluster.py without a cluster: what it says when something is missing. With one: tests/cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Checkout

from gitops.cluster import control_plane
from gitops.cluster.control_plane import ORDER, PORTS, ControlPlane
from gitops.programs import tools
from gitops.repo.git import Git
from gitops.repo.remote import make_remote


def test_what_is_not_built_is_named_with_what_builds_it(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_GITOPS_CACHE", str(tmp_path / "cache"))

    done = checkout.run("local_cluster", "up", "--folder", tmp_path / "state")

    assert (done.code, done.errors) == (
        1, [f"kustomize {tools.KUSTOMIZE.version} is not built yet: run `python scripts/setup.py cluster`"],
    )  # fmt: skip
    assert not (tmp_path / "state").exists()


def test_nothing_runs_before_it_is_started_and_nothing_has_to_be_stopped(checkout: Checkout, tmp_path: Path) -> None:
    done = checkout.run("local_cluster", "status", "--json", "--folder", tmp_path / "state")
    down = checkout.run("local_cluster", "down", "--folder", tmp_path / "state")

    assert done.code == 1
    assert [row["state"] for row in json.loads(done.out)] == ["not running"] * len(ORDER)
    assert down.code == 0


def test_there_is_nothing_to_open_before_it_is_started(checkout: Checkout, tmp_path: Path) -> None:
    done = checkout.run("local_cluster", "ui", "--folder", tmp_path / "state")

    assert (done.code, done.errors) == (1, ["argocd-server: not running; run `make cluster`"])


def test_the_log_of_what_there_is_not_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    done = checkout.run("local_cluster", "logs", "kubelet", "--folder", tmp_path / "state")

    assert (done.code, done.errors) == (1, [f"kubelet: no such process; there are {', '.join(ORDER)}"])


def test_ports_are_chosen_once_and_again_when_something_else_has_taken_one(checkout: Checkout, tmp_path: Path) -> None:
    first = ControlPlane(checkout.root, tmp_path / "state").settings
    again = ControlPlane(checkout.root, tmp_path / "state").settings
    file = tmp_path / "state/settings.json"
    file.write_text(json.dumps(first | {"ports": first["ports"] | {"etcd": 1}}))  # nobody but root can listen there
    taken = ControlPlane(checkout.root, tmp_path / "state").settings
    fewer = first | {"ports": {"etcd": first["ports"]["etcd"]}}
    file.write_text(json.dumps(fewer))
    completed = ControlPlane(checkout.root, tmp_path / "state").settings

    assert again == first
    assert len(set(first["ports"].values())) == len(PORTS)
    assert taken["token"] == completed["token"] == first["token"]
    assert set(completed["ports"]) == set(PORTS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"made_by"', "settings.json: not what a control plane of this version keeps"),
        ("[]", "settings.json: not what a control plane of this version keeps"),
        ('{"token": "of a time before"}', "settings.json: not what a control plane of this version keeps"),
        ('{"made_by": {"etcd": "v3.5.0"}}', ": made by etcd v3.5.0, and this is another version"),
    ],
)
def test_a_state_that_cannot_be_gone_on_with_is_named_with_what_removes_it(
    text: str, said: str, checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_plane, "require_programs", lambda: None)
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "settings.json").write_text(text)

    done = checkout.run("local_cluster", "up", "--folder", folder)
    reset = checkout.run("local_cluster", "reset", "--folder", folder)

    remedy = f"`python scripts/local_cluster.py reset --folder {folder}` removes it"
    where = f"{folder}/{said}" if said.startswith("settings") else f"{folder}{said}"
    assert (done.code, done.errors) == (1, [f"{where}; {remedy}"])
    assert reset.code == 0
    assert not folder.exists()


def test_a_disk_without_room_is_named_before_anything_starts(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_plane, "require_programs", lambda: None)
    monkeypatch.setattr(control_plane, "ROOM_MB", 10**9)

    done = checkout.run("local_cluster", "up", "--folder", tmp_path / "state")

    [error] = done.errors
    assert done.code == 1
    assert error.startswith(f"{tmp_path}/state: ")
    assert error.endswith(" MB are free there, and a control plane wants 1000000000 MB; make room")
    assert list((tmp_path / "state").iterdir()) == []


def test_the_remote_has_the_checkouts_commit_and_an_argocd_that_watches_the_remote(
    checkout: Checkout, tmp_path: Path
) -> None:
    make_remote(checkout.root, tmp_path / "plane/remote.git", tmp_path / "plane/clone")

    git = Git(tmp_path / "plane/clone")
    head = checkout.git("rev-parse", "HEAD")
    assert git.commit("refs/remotes/origin/main") == git.commit("refs/remotes/origin/cicd^") == head
    changed = git.changed(head, "refs/remotes/origin/cicd")
    assert changed
    assert {path.split("/")[0] for path in changed} == {"argocd"}
    text = "".join((tmp_path / "plane/clone" / path).read_text() for path in changed)
    assert "https://github.com" not in text
    assert (tmp_path / "plane/remote.git").as_uri() in text
    assert Checkout(tmp_path / "plane/clone", tmp_path / "plane/remote.git").run("validate").code == 0

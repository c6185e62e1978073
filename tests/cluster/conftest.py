"""One control plane for the whole run, on which this very checkout has started itself."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import IMAGE, Checkout, Result, Version, git, package, run, wait_until

from gitops.cluster import installed, kube
from gitops.cluster.control_plane import INSTALLER, ControlPlane
from gitops.cluster.kube import Cluster
from gitops.manifests import workloads
from gitops.manifests.objects import Object, at, identity
from gitops.releases.release import Target
from gitops.repo import remote

APPLICATION = ("argoproj.io/v1alpha1", "Application")
SET = ("argoproj.io/v1alpha1", "ApplicationSet")
SERVICE = ("serving.kserve.io/v1beta1", "InferenceService")
DEPLOYMENT = ("apps/v1", "Deployment")
# What makes Applications, without what syncs them, and what takes the owners off what a deleted object has made.
MAKERS = ("redis", "argocd-repo-server", "argocd-server", "argocd-applicationset-controller")
CRON_JOB = ("batch/v1", "CronJob")
CONTROLLER = "argocd-application-controller"
FLAVOURS = {"lily-api": "onnx", "lily-batch": "onnx", "lily-sklearn": "sklearn"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cluster")


class World:
    """A control plane, a clone of the remote that its Argo CD watches, and what tests do with both."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.checkout = Checkout(plane.clone, plane.remote)
        self.cluster: Cluster = plane.cluster
        self.baseline = ""
        """The commit whose files the remote has again after the test."""

    @property
    def variables(self) -> dict[str, str]:
        """What leads S3 clients to the control plane's own server."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://{self.plane.address('s3')}",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local-secret",
            "AWS_REGION": "eu-west-1",
        }

    # Git

    def run(self, command: str, *args: str | Path) -> Result:
        return self.checkout.run(command, *args)

    def done(self, command: str, *args: str | Path) -> Result:
        """A command that has to succeed."""
        result = self.run(command, *args)
        assert result.code == 0, f"{command}: {result.err}"
        return result

    def pull(self) -> None:
        """Brings the clone to the remote's cicd, whatever a test left in it."""
        self.checkout.git("fetch", "-q", "origin")
        self.checkout.git("checkout", "-q", "-f", "-B", "cicd", "origin/cicd")
        self.checkout.git("clean", "-qfd")

    def force(self, message: str = "Forced") -> str:
        """Commits what was changed by hand to cicd and pushes it, past every check."""
        return self.checkout.commit(message, push=True)

    def restore(self, commit: str) -> None:
        """Brings the remote back to the files of a commit, by another commit, and Argo CD with it."""
        self.pull()
        git = self.checkout.git
        if git("rev-parse", "HEAD^{tree}") != git("rev-parse", f"{commit}^{{tree}}"):
            made = git("commit-tree", "-p", "HEAD", "-m", "As it was", f"{commit}^{{tree}}")
            git("push", "-q", "origin", f"{made}:refs/heads/cicd")
            self.pull()
            self.looked("root", made)

    def release(self, app: str, environment: str, version: Version) -> None:
        image = [] if app == "lily-sklearn" else ["--image", IMAGE]
        self.done("bump_model", "--app", app, "--env", environment, "--model-uri", version.uri, "--push", *image)
        self.pull()

    def promote(self, app: str, environment: str) -> None:
        told = json.loads(self.done("promote_model", "--app", app, "--to", environment, "--push", "--json").out)
        if told["branch"]:
            self.checkout.merge(told["branch"])
            self.pull()

    # The cluster

    def status(self, *args: str) -> Result:
        return self.run("status", "--kubeconfig", self.plane.kubeconfig, *args)

    def live(self, app: str, environment: str, seconds: int = 60) -> dict[str, Any]:
        """Waits until what Git has of an app is live, and returns its row."""
        done = self.status("--app", app, "--env", environment, "--refresh", "--wait", str(seconds), "--json")
        assert done.code == 0, done.err
        [row] = json.loads(done.out)["apps"]
        return dict(row)

    def application(self, name: str) -> dict[str, Any]:
        found = self.cluster.get(*APPLICATION, name, "argocd")
        assert found is not None, name
        return found

    def applications(self) -> dict[str, dict[str, Any]]:
        return {item["metadata"]["name"]: item for item in self.cluster.list(*APPLICATION, "argocd")}

    def refresh(self, *names: str) -> None:
        for name in names:
            change = {"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}}
            self.cluster.patch(*APPLICATION, name, "argocd", change)

    def synced_to(self, name: str, commit: str) -> bool:
        status = self.application(name).get("status", {})
        return bool(status.get("sync", {}).get("revision") == commit and "reconciledAt" in status)

    def looked(self, name: str, commit: str) -> None:
        """Waits until Argo CD has compared an Application with a commit."""

        def compared() -> bool:
            # A request that comes while Argo CD is looking already may be answered with what it saw before.
            self.refresh(name)
            return self.synced_to(name, commit)

        wait_until(compared, f"Argo CD compares {name} with {commit}", 60)

    def until_told(self, app: str, environment: str, told: Callable[[list[str]], bool], what: str) -> None:
        """Waits until status.py tells an app's faults. What Argo CD does again and again, it forgets in between."""

        def found() -> bool:
            done = self.status("--app", app, "--env", environment, "--refresh")
            return done.code == 1 and told(done.errors)

        wait_until(found, f"status tells {what} of {app} in {environment}", 60)

    def log(self, name: str) -> str:
        """All that a program has written."""
        return (self.plane.processes.folder / f"{name}.log").read_text(errors="replace")

    def applied(self, name: str, since: int) -> set[str]:
        """The kinds of what all syncs of an Application have applied since a place in the controller's log. Its status
        has the results of the last one alone: of none, if that came for what another one had done already."""
        result = rf'msg="Adding resource result, .* application={name} .*?\bkind=(\w+)'
        return set(re.findall(result, self.log(CONTROLLER)[since:]))

    def served(self, app: str, environment: str) -> str | None:
        """The model that the live object names."""
        kind = {"lily-api": DEPLOYMENT, "lily-batch": CRON_JOB, "lily-sklearn": SERVICE}[app]
        found = self.cluster.get(*kind, app, f"ml-{environment}")
        return next(iter(workloads.models(found or {}).values()), None)


def thaw(root: Path) -> None:
    """Commits a checkout without the freeze of production, in which Argo CD would sync nothing there on weekends."""
    for path, window in (
        ("overlays/promotion.yaml", r"    # [^\n]*\n    freeze:\n(      [^\n]*\n)+"),
        ("argocd/project-prod.yaml", r"  # [^\n]*\n  syncWindows:\n(    [^\n]*\n)+"),
    ):
        text, number = re.subn(window, "", (root / path).read_text())
        assert number == 1, path
        (root / path).write_text(text)
    git(root, "commit", "-qam", "Freeze nothing")


@pytest.fixture(scope="session")
def plane(
    whole_template: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    folder = tmp_path_factory.mktemp("control-plane")
    clone = ["git", "clone", "-q", "-b", "cicd", whole_template, folder / "checkout"]
    subprocess.run(clone, check=True, env=environment)
    thaw(folder / "checkout")
    made = ControlPlane(folder / "checkout", folder / "state")
    began = time.monotonic()
    try:
        made.up()
        print(f"\nready after {time.monotonic() - began:.0f} s")
        spaces = [f"ml-{environment}" for environment in ("dev", "staging", "prod")]
        for space in spaces:
            wait_until(
                lambda space=space: made.cluster.get("v1", "ResourceQuota", "environment", space) is not None,  # type: ignore[misc]
                f"Argo CD makes {space}",
                60,
            )
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def small(template: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A control plane that makes Applications and syncs none, and on which nothing of argocd/ is applied yet."""
    folder = tmp_path_factory.mktemp("small-plane")
    subprocess.run(["git", "clone", "-q", "-b", "cicd", template, folder / "checkout"], check=True, env=environment)
    made = ControlPlane(folder / "checkout", folder / "state")
    try:
        made.start("etcd", "kube-apiserver", "kube-controller-manager")
        objects = installed.argocd()
        kube.apply_all(made.cluster, objects, manager=INSTALLER)
        kube.await_kinds(made.cluster, objects)
        made.start(*MAKERS)
        remote.make_remote(made.root, made.remote, made.clone)
        yield World(made)
    finally:
        made.down()


@pytest.fixture
def world(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The control plane, whose remote has after a test what it had before."""
    made = World(plane)
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    made.pull()
    made.baseline = made.checkout.tip()
    yield made
    made.restore(made.baseline)


@pytest.fixture(scope="session")
def versions(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Version]:
    """Makes a version of some made-up bytes and uploads it, once for each word."""
    made: dict[str, Version] = {}

    def version(word: str) -> Version:
        if word not in made:
            made[word] = package(tmp_path_factory.mktemp("artifacts"), word)
            bucket = f"s3://{yaml.safe_load((plane.root / 'overlays/promotion.yaml').read_text())['model_bucket']}"
            done = run(
                "upload_model", "--root", plane.root, "--model", "lily", "--artifacts", made[word].folder,
                "--bucket", bucket,
            )  # fmt: skip
            assert done.code == 0, done.err
        return made[word]

    return version


@pytest.fixture
def released(world: World, versions: Callable[[str], Version]) -> Version:
    """A version that all apps run in every environment, live."""
    version = versions("one")
    if not runs_everywhere(world, version):
        for app in FLAVOURS:
            if (world.plane.clone / f"overlays/prod/{app}/hold.yaml").is_file():
                world.done("rollback_model", "--app", app, "--env", "prod", "--release-hold", "--push")
                world.pull()
            world.release(app, "dev", version)
            for environment in ("staging", "prod"):
                world.promote(app, environment)
    done = world.status("--refresh", "--wait", "90")
    assert done.code == 0, done.err
    world.baseline = world.checkout.tip()
    return version


def runs_everywhere(world: World, version: Version) -> bool:
    """Whether Git has it, as it does after the first test of a run."""
    rows = json.loads(world.done("releases", "--json").out)["releases"]
    held = list(world.plane.clone.glob("overlays/*/*/hold.yaml"))
    return not held and all(row["version"] == version.version for row in rows)


def create(cluster: Cluster, item: Object, *, dry_run: bool = False, unknown: str = "Strict") -> None:
    """Makes an object that is not there yet; `unknown` is what becomes of a field that its kind does not have.

    Raises Refused with the server's errors.
    """
    options: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
    validation = [("fieldValidation", unknown)]
    with cluster._translated(str(identity(item))):
        kind = cluster._kind(item["apiVersion"], item["kind"])
        kind.create(body=item, namespace=at(item, "metadata", "namespace"), query_params=validation, **options)


def uri(version: Version, app: str) -> str:
    return f"{version.uri}{FLAVOURS[app]}/"


def targets() -> list[Target]:
    return [Target(app, environment) for environment in ("dev", "staging", "prod") for app in FLAVOURS]

"""From a merge to the live object, in fleets of several sizes, and what else Argo CD and KServe do for large ones.

For each size it starts a control plane of its own on a fleet with so many releases, and takes these times:

  new       from the end of the push of the first release of every app until all are live
  one       from the end of the push of one bump to the live object, when nothing else is under way
  all       from the end of a push that changes every release until all are live, and until all are synced
  services  how long InferenceServices take that are all created at the same time, without Argo CD, after the last size

After each push Argo CD gets the event that GitHub sends, and has the settings of argocd/platform/fleet/.

  python tests/bench/merge_to_live.py
  python tests/bench/merge_to_live.py --apps 9 300 1000 9      an hour; the last 9 shows how the machine drifts
  python tests/bench/merge_to_live.py --apps 9 --merges 5 --services 0 --polled 3
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import re
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product
from pathlib import Path
from typing import Any

import fleet
import yaml

import conftest  # isort: skip
import push_event  # isort: skip
from gitops.cluster.control_plane import ControlPlane
from gitops.cluster.kube import Cluster
from gitops.manifests import kustomize, workloads
from gitops.manifests.objects import at
from gitops.programs import tools
from gitops.repo import layout

from contract.errors import Refused  # isort: skip

KINDS = {
    ("apps/v1", "Deployment"): "deployments", ("batch/v1", "CronJob"): "cronjobs",
    ("serving.kserve.io/v1beta1", "InferenceService"): "inferenceservices",
}  # fmt: skip
APPLICATIONS = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications"
CONTROLLERS = ("argocd-application-controller", "argocd-applicationset-controller-metrics")
WAITING = re.compile(r"^workqueue_(?:depth|unfinished_work_seconds)\{.*\} (.*)$", re.MULTILINE)
BUMPED = (fleet.name(1), "dev")
PATIENCE = 1800


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", type=int, nargs="+", default=[9, 100], help="Applications (%(default)s)")
    parser.add_argument("--merges", type=int, default=10, help="with a push event for argocd-server (%(default)s)")
    parser.add_argument("--both", type=int, default=0, help="with another for the ApplicationSets (%(default)s)")
    parser.add_argument("--polled", type=int, default=0, help="by polling, some minutes each (%(default)s)")
    parser.add_argument("--services", type=int, default=300, help="InferenceServices at once, after the last size")
    parser.add_argument("--plain", action="store_true", help="without the settings of argocd/platform/fleet/")
    args = parser.parse_args(argv)
    os.environ.update({} if args.plain else settings(conftest.SAMPLE))
    rows = []
    for number, size in enumerate(args.apps):
        rows.append({"Applications": str(size)})
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            last = number == len(args.apps) - 1
            for figures in measure(Path(folder), size, args, args.services if last else 0):
                # As they come: the larger sizes take half an hour.
                rows[-1] |= figures
                print(f"{size} Applications, load {os.getloadavg()[0]:.1f}: {figures}", flush=True)
    show(rows)
    return 0


def measure(work: Path, size: int, args: argparse.Namespace, services: int) -> Iterator[dict[str, str]]:
    os.environ.update(conftest.isolated(work))
    plane = ControlPlane(checkout(work, size), work / "state")
    try:
        plane.up()
        # What comes before the namespaces would be tried again and again.
        settled(plane, time.monotonic())
        first, _ = release(plane, size, 1)
        yield {"new, live s": seconds(first)}
        uris = versions(plane, work)
        # As README.md has it for a fleet, and with the controller of the ApplicationSets told too.
        for what, number, hooks in (
            ("one", args.merges, push_event.HOOKS[:1]),
            ("one, both told", args.both, push_event.HOOKS),
            ("one, polled", args.polled, ()),
        ):
            if number:
                yield merges(plane, uris, number, what, hooks)
        changed, synced = release(plane, size, 2)
        yield {"all, live s": seconds(changed), "all, synced s": seconds(synced)}
        if services:
            yield burst(plane, services)
    finally:
        plane.down()


def settings(root: Path) -> dict[str, str]:
    """The variables by which Argo CD's programs in a cluster get what argocd/platform/fleet/ sets."""
    patches = yaml.safe_load((root / layout.PLATFORM / "fleet/argocd-settings.yaml").read_text())
    maps = [yaml.safe_load(patch["value"]["patch"]) for patch in patches]
    values = {(item["metadata"]["name"], key): value for item in maps for key, value in item.get("data", {}).items()}
    variables = [variable for item in maps for each in workloads.containers(item) for variable in each.fields["env"]]
    found = {variable["name"]: variable["value"] for variable in variables}
    for item in kustomize.objects(kustomize.build(tools.ARGOCD.files / "manifests", "cluster-install")):
        for container in workloads.containers(item):
            for variable in container.fields.get("env") or []:
                source = at(variable, "valueFrom", "configMapKeyRef") or {}
                if value := values.get((source.get("name"), source.get("key"))):
                    found[variable["name"]] = value
    return found


def checkout(work: Path, size: int) -> Path:
    """A clone of a fleet with room for so many releases, and none yet."""
    bare = fleet.make(work, -(-size // len(fleet.ENVIRONMENTS)), 1)
    folder = work / "checkout"
    conftest.git(work, "clone", "-q", "-b", "main", str(bare), str(folder))
    quota = folder / "base/environment/resourcequota.yaml"
    text = re.sub(r"(cpu|memory|pods): \S+", r'\1: "1000000000000000"', quota.read_text())
    quota.write_text(text)
    conftest.git(folder, "commit", "-qam", "Room for a large fleet")
    return folder


def live(plane: ControlPlane, began: float, wanted: dict[tuple[str, str], str]) -> float:
    """Seconds until every live object names the model that is wanted of it."""
    return waited(began, lambda: all_in(models(plane.cluster), wanted), 1)


def all_in(found: dict[tuple[str, str], str], wanted: dict[tuple[str, str], str]) -> bool:
    return wanted.items() <= found.items()


def models(cluster: Cluster) -> dict[tuple[str, str], str]:
    found = {}
    for (api, kind), name in KINDS.items():
        for item in listed(cluster, f"/apis/{api}/{name}"):
            # A server leaves out of the items what the list as a whole has.
            uris = set(workloads.models({"apiVersion": api, "kind": kind} | item).values())
            if len(uris) == 1:
                app, space = item["metadata"]["name"], item["metadata"]["namespace"]
                found[app, space.removeprefix("ml-")] = uris.pop()
    return found


def listed(cluster: Cluster, path: str) -> list[dict[str, Any]]:
    """The objects below a path of the API: what Python's client makes of a thousand takes a core for seconds."""
    asked = cluster.api.param_serialize("GET", path, auth_settings=["BearerToken"])
    answer = cluster.api.call_api(*asked)
    return list(json.loads(answer.read())["items"])


def settled(plane: ControlPlane, began: float) -> float:
    """Seconds until Argo CD has synced every Application, and nothing is under way."""

    def done() -> bool:
        states = [item.get("status", {}) for item in listed(plane.cluster, APPLICATIONS)]
        return all(
            state.get("sync", {}).get("status") == "Synced"
            and state.get("operationState", {}).get("phase", "Succeeded") == "Succeeded"
            for state in states
        )

    return waited(began, done, 2)


def idle(plane: ControlPlane) -> bool:
    """Whether Argo CD's controllers have nothing to do."""
    texts = [urllib.request.urlopen(f"http://{plane.address(name)}/metrics", timeout=60).read() for name in CONTROLLERS]
    found = [WAITING.findall(text.decode()) for text in texts]
    assert all(found), "a controller tells nothing of its queues"
    return not any(float(value) for values in found for value in values)


def waited(began: float, done: Callable[[], bool], pause: float) -> float:
    while not done():
        if time.monotonic() > began + PATIENCE:
            raise SystemExit(f"not there after {PATIENCE} s")
        time.sleep(pause)
    return time.monotonic() - began


def versions(plane: ControlPlane, work: Path) -> list[str]:
    """The addresses of two versions in the control plane's S3."""
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": f"http://{plane.address('s3')}", "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local-secret", "AWS_REGION": "eu-west-1",
    }  # fmt: skip
    return [upload(plane, conftest.package(work / word, word)) for word in ("one", "two")]


def upload(plane: ControlPlane, made: conftest.Version) -> str:
    bucket = f"s3://{conftest.BUCKET}"
    done = conftest.run(
        "upload_model", "--root", plane.clone, "--model", "lily", "--artifacts", made.folder, "--bucket", bucket
    )  # fmt: skip
    assert done.code == 0, done.err
    return made.uri


def merges(plane: ControlPlane, uris: Sequence[str], number: int, what: str, hooks: Sequence[str]) -> dict[str, str]:
    times = [merge(plane, uris[at % 2], hooks) for at in range(number)]
    return {f"{what}, median s": seconds(statistics.median(times)), f"{what}, worst s": seconds(max(times))}


def merge(plane: ControlPlane, uri: str, hooks: Sequence[str]) -> float:
    """Seconds from the end of a push to the live object."""
    app, environment = BUMPED
    # What the fleet's creation, or the bump before, has left to do is no part of this one.
    waited(time.monotonic(), lambda: idle(plane), 1)
    before = push_event.tip(plane)
    done = conftest.run(
        "bump_model", "--root", plane.clone, "--app", app, "--env", environment, "--model-uri", uri, "--push"
    )  # fmt: skip
    assert done.code == 0, done.err
    began = time.monotonic()
    push_event.send(plane, before, push_event.tip(plane), hooks)

    def named() -> bool:
        found = plane.cluster.get("serving.kserve.io/v1beta1", "InferenceService", app, f"ml-{environment}")
        return bool(found) and found["spec"]["predictor"]["model"]["storageUri"] == f"{uri}sklearn/"

    took = waited(began, named, 0.02)
    settled(plane, began)
    return took


def release(plane: ControlPlane, size: int, number: int) -> tuple[float, float]:
    """Gives so many releases a version by one push. Seconds until all are live, and until all are synced."""
    conftest.git(plane.clone, "fetch", "-q", "origin")
    conftest.git(plane.clone, "checkout", "-q", "-f", "-B", "cicd", "origin/cicd")
    before = push_event.tip(plane)
    targets = islice(product(range(size), fleet.ENVIRONMENTS), size)
    wanted = {(fleet.name(at), env): write(plane, at, env, fleet.Named.drawn(number)) for at, env in targets}
    assert not wanted.items() & models(plane.cluster).items()
    conftest.git(plane.clone, "commit", "-qam", f"Release version {number} everywhere")
    conftest.git(plane.clone, "push", "-q", "origin", "cicd")
    began = time.monotonic()
    push_event.send(plane, before, push_event.tip(plane))
    return live(plane, began, wanted), settled(plane, began)


def write(plane: ControlPlane, number: int, environment: str, version: fleet.Named) -> str:
    """Writes a version into a release file, and returns the model's address in it."""
    path = f"overlays/{environment}/{fleet.name(number)}/release.yaml"
    unreleased = conftest.git(plane.clone, "show", f"origin/main:{path}") + "\n"
    text = fleet.released(unreleased.encode(), version, list(fleet.SHAPES.values())[number % len(fleet.SHAPES)])
    (plane.clone / path).write_bytes(text)
    [item] = kustomize.objects(text.decode())
    return str(next(iter(workloads.models(item).values())))


def burst(plane: ControlPlane, number: int) -> dict[str, str]:
    """InferenceServices that are all created at the same time, each by a connection of its own."""
    app, environment = BUMPED
    folder = f"overlays/{environment}/{app}"
    rendered = kustomize.objects(kustomize.build(plane.clone, folder))
    [service] = [item for item in rendered if item["kind"] == "InferenceService"]
    began = time.monotonic()
    with ThreadPoolExecutor(number) as pool:
        answers = list(pool.map(lambda at: created(plane.cluster, service, at), range(number)))
    faults = [words for _, words in answers if words]
    took = time.monotonic() - began

    def made() -> bool:
        names = {item["metadata"]["name"] for item in listed(plane.cluster, "/apis/apps/v1/deployments")}
        return {f"burst-{at:03d}-predictor" for at in range(number)} <= names

    return {
        "InferenceServices at once": str(number), "refused": str(len(faults)), "slowest answer s":
        seconds(max(each for each, _ in answers)), "all created s": seconds(took),
        "all with a Deployment s": "-" if faults else seconds(waited(began, made, 1)), "why": "; ".join(faults[:1]),
    }  # fmt: skip


def created(cluster: Cluster, service: dict[str, Any], at: int) -> tuple[float, str]:
    """Seconds until the server has answered, and its words if it refused."""
    item = copy.deepcopy(service)
    item["metadata"]["name"] = f"burst-{at:03d}"
    began = time.monotonic()
    try:
        cluster.apply(item)
    except Refused as refused:
        return time.monotonic() - began, str(refused)
    return time.monotonic() - began, ""


def seconds(value: float) -> str:
    return f"{value:.2f}"


def show(rows: Sequence[dict[str, str]]) -> None:
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print(f"| {' | '.join(columns)} |\n|{' ---: |' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row.get(name, '') for name in columns)} |")


if __name__ == "__main__":
    raise SystemExit(main())

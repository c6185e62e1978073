"""Show what runs: every release on cicd, with its state in Argo CD and in the cluster, and whether all agree.

An app is fine when Argo CD has seen the commit, is Synced and Healthy, the live object names the model and the image
that Git names, and every pod that is ready was started with them; of a batch, when its last run succeeded. Otherwise
the reason is named, and the exit code is 1. An app is looked up on the cluster of its environment, and its Application
where the Argo CD is that serves it; where a cluster is away, the apps of the others are shown all the same. Of a
service on instances no cluster has anything: CloudFormation is asked, with the credentials of the AWS variables.

  python scripts/status.py
  python scripts/status.py --env prod --watch
  python scripts/status.py --context admin@hub --context us=admin@us
  python scripts/status.py --app wine-api --refresh --wait 300    for CI: until what was merged is live, or why not
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from typing import Any

from gitops import cli
from gitops.checks import stacks
from gitops.cluster import clusters
from gitops.cluster.clusters import Clusters
from gitops.manifests import ack, closure, kustomize, stack, workloads
from gitops.manifests.objects import Object, at, mappings
from gitops.models import change_sets
from gitops.models.change_sets import Stacks
from gitops.releases import effect, hold, release, withdrawn
from gitops.repo import applications, layout, publish, snapshot
from gitops.repo.git import Git
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

APPLICATION = ("argoproj.io/v1alpha1", "Application")
SET = ("argoproj.io/v1alpha1", "ApplicationSet")
ARGOCD = "argocd"
# What keeps the pods of a released kind, or its instances on AWS: its kind, and what its name has behind the app's. A
# batch has none.
MADE = {
    "Deployment": ("apps/v1", "Deployment", ""),
    "StatefulSet": ("apps/v1", "StatefulSet", ""),
    "InferenceService": ("apps/v1", "Deployment", "-predictor"),
    "Model": (f"{ack.SAGEMAKER}/{ack.VERSION}", "Endpoint", ""),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument("--env", help="only this environment")
    parser.add_argument("--app", help="only this app")
    clusters.add_options(parser)
    parser.add_argument("--refresh", action="store_true", help="ask Argo CD to look at Git now, for what is not fine")
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="wait until all is fine, at most so long")
    parser.add_argument("--watch", action="store_true", help="show it again whenever it changes, until Ctrl-C")
    return cli.run(show, parser.parse_args(argv))


@dataclass(frozen=True)
class Row:
    """One app in one environment. `faults` is empty when all is fine."""

    environment: str
    app: str
    version: str
    sync: str
    health: str
    live: str
    image: str
    pods: str
    faults: list[str] = field(default_factory=list)
    hold: dict[str, str] | None = None
    """Who holds its release, since when and why."""
    away: bool = False
    """Whether a cluster that it is on did not answer, so that nothing is known of it."""


def show(args: argparse.Namespace) -> int:
    git = Git(args.root)
    git.require_full_history()
    if git.has_remote(publish.REMOTE):
        git.fetch(publish.REMOTE, publish.BRANCH)
    tip = publish.tip(git)
    there = clusters.asked(args, snapshot.at(git, tip).policy)
    look = partial(rows, git, tip, there, expected(git, tip, args))
    found = look()
    if args.refresh:
        refresh(there, found)
    if args.watch:
        return watch(look)
    end, again = time.monotonic() + (args.wait or 0), time.monotonic() + 2
    while any(row.faults for row in found) and time.monotonic() < end:
        time.sleep(0.2)
        if args.refresh and time.monotonic() > again:
            # A request that comes while Argo CD is looking already may be answered with what it saw before.
            refresh(there, found)
            again = time.monotonic() + 2
        found = look()
    if args.json:
        cli.print_json({"tip": tip, "apps": [asdict(row) for row in found]})
    else:
        print(cli.table(_shown(found)))
    for row in found:
        for fault in row.faults:
            print(f"error: {row.app} in {row.environment}: {fault}", file=sys.stderr)
    return 1 if any(row.faults for row in found) else 0


def watch(look: Callable[[], list[Row]]) -> int:
    before: list[Row] = []
    while True:
        if (found := look()) != before:
            print(f"\n{time.strftime('%H:%M:%S')}\n{cli.table(_shown(found))}", flush=True)
            for row in found:
                for fault in row.faults:
                    cli.say(f"{row.app} in {row.environment}: {fault}")
        before = found
        time.sleep(1)


def refresh(there: Clusters, found: Sequence[Row]) -> None:
    """Asks Argo CD to look at Git again for each app that is not fine: its Application, or the ApplicationSet that has
    yet to make it. What is fine has all that Git has for it, and each request costs Argo CD a comparison."""
    for row in found:
        if not row.faults or row.away:
            continue
        cluster = there.argocd(row.environment)
        asked = [(*APPLICATION, f"{row.app}-{row.environment}", "argocd.argoproj.io/refresh", "normal")]
        if not cluster.get(*asked[0][:3], ARGOCD):
            sets = [applications.set_name(row.environment, which) for which in applications.TEMPLATES]
            asked = [(*SET, name, "argocd.argoproj.io/application-set-refresh", "true") for name in sets]
        for api, kind, name, annotation, value in asked:
            cluster.patch(api, kind, name, ARGOCD, {"metadata": {"annotations": {annotation: value}}})


@dataclass(frozen=True)
class Expected:
    """One app in one environment as Git has it: the workload that serves its model, and the files of its render."""

    app: str
    environment: str
    workload: Object
    files: set[str]
    withdrawn: list[str]
    """What it runs that must run nowhere new, and why."""
    there: Snapshot
    """The commit."""
    hold: bytes | None = None


def expected(git: Git, tip: str, args: argparse.Namespace) -> list[Expected]:
    """What a commit wants of the apps that were asked for. Raises Refused when there is no such app."""
    found = []
    there = snapshot.at(git, tip)
    bad, holds = withdrawn.read(git.show(tip, layout.WITHDRAWN)), hold.all_at(git, tip)
    folders = [
        folder
        for folder in layout.overlays_of(there.deployed(), there.policy)
        if args.env in (None, folder.split("/")[1]) and args.app in (None, folder.split("/")[2])
    ]
    with there.copied(folders) as tree:
        for folder, items in kustomize.rendered_all(tree, folders).items():
            _, environment, app = folder.split("/")
            serving = [item for item in items if all(effect.declared(item))]
            files = closure.closure(tree, folder)
            found += [
                Expected(app, environment, item, files, faults, there, holds.get((app, environment)))
                for item in serving[:1]
                for faults in [withdrawn_faults(item, bad)]
            ]
    if not found:
        known = ", ".join(layout.apps_of(there.deployed()))
        raise Refused(f"no app of that name on {publish.BRANCH}; the apps are {known}")
    return found


def withdrawn_faults(workload: Object, bad: Mapping[str, str]) -> list[str]:
    keys = sorted({withdrawn.key(str(uri)) for uri in workloads.models(workload).values()} & bad.keys())
    return [f"{name} is withdrawn: {bad[name]}" for name in keys]


def rows(git: Git, tip: str, there: Clusters, wanted: Sequence[Expected]) -> list[Row]:
    """What the clusters have of each app now. Raises Refused where no cluster that was asked answers."""
    found: list[Row] = []
    # Most have synced the same commit.
    changed = cache(partial(git.changed, new=tip))
    away = there.away(item.environment for item in wanted if not stack.is_stack(item.workload))
    for item in wanted:
        held = None if item.hold is None else hold.has(item.hold)
        if stack.is_stack(item.workload):
            made = _of_aws(item)
            found.append(replace(made, faults=[*item.withdrawn, *made.faults], hold=held))
            continue
        if fault := next((away[name] for name in there.on(item.environment) if name in away), None):
            nothing = Row(
                item.environment, item.app, _version(item.workload), "-", "-", "-", "-", "-", [fault], away=True
            )
            found.append(nothing)
            continue
        seen = Seen.by(there, item.app, item.environment, item.workload)
        revision = str(at(seen.application, "status", "sync", "revision") or "")
        behind = not git.commit(revision) or not item.files.isdisjoint(changed(revision))
        made = row(item.app, item.environment, item.workload, seen, behind)
        found.append(replace(made, faults=[*item.withdrawn, *made.faults], hold=held))
    return found


def _of_aws(item: Expected) -> Row:
    """What CloudFormation has of a Stack, which no cluster has. What has no release is not asked for."""
    version, wanted = _version(item.workload), workloads.named(item.workload)
    unknown = Row(item.environment, item.app, version, "-", "-", "-", "-", "-")
    if version == release.UNRELEASED:
        return unknown
    name = stacks.named(item.workload)
    try:
        place = stacks.place(item.there, item.environment)
        change_sets.require_account(place.account, place.region, item.environment)
        live = Stacks(place.region, place.maker).find(name)
    except Refused as refused:
        return replace(unknown, faults=[f"what AWS has is not known: {refused.lines[0]}"], away=True)
    if live is None:
        command = f"python scripts/deploy_stack.py --app {item.app} --env {item.environment}"
        return replace(unknown, faults=[f"no stack {name} on AWS yet; `{command}` makes it"])
    here = {path: live.parameters.get(path.rpartition(".")[2]) for path in wanted}
    faults = [f"{path}: AWS has {here[path]}, Git has {value}" for path, value in wanted.items() if here[path] != value]
    sync, uri = "OutOfSync" if faults else "Synced", live.parameters.get(stack.URI, "")
    if not live.is_ready:
        faults.append(f"stack {name}: {live.status}")
    return replace(
        unknown, sync=sync, health=live.status, live=withdrawn.key(uri).rpartition(".")[2] or "-",
        image=release.short_image(live.parameters.get(stack.SERVICE)), faults=faults,
    )  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What the cluster has of one app."""

    application: Object | None
    live: Object | None
    deployment: Object | None
    """Or the endpoint of SageMaker."""
    pods: list[Object]
    events: list[Object]

    @classmethod
    def by(cls, there: Clusters, app: str, environment: str, wanted: Object) -> Seen:
        namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
        application = there.argocd(environment).get(*APPLICATION, f"{app}-{environment}", ARGOCD)
        cluster = there.live(environment)
        live = cluster.get(wanted["apiVersion"], wanted["kind"], name, namespace)
        made = MADE.get(wanted["kind"])
        # The name of what a release replaces is the release's.
        stays = app if workloads.kind_of(wanted) == ack.MODEL else name
        return cls(
            application,
            live,
            cluster.get(made[0], made[1], f"{stays}{made[2]}", namespace) if made else None,
            cluster.list("v1", "Pod", namespace, f"app.kubernetes.io/name={app}"),
            cluster.list("v1", "Event", namespace),
        )


def row(app: str, environment: str, wanted: Object, seen: Seen, behind: bool) -> Row:
    """What is wrong with an app: `wanted` is its workload as Git has it, `behind` whether Argo CD has yet to look at
    a commit that changes it."""
    version = _version(wanted)
    application = seen.application
    sync, health = (str(at(application, "status", field, "status") or "-") for field in ("sync", "health"))
    faults = list(_faults(version, wanted, seen, behind)) if version != release.UNRELEASED else _leftovers(seen)
    return Row(
        environment, app, version, sync, health, _version(seen.live) if seen.live else "-",
        release.short_image(_image(seen.live)), _pods(seen), faults,
    )  # fmt: skip


def _leftovers(seen: Seen) -> list[str]:
    """What has no release has nothing in the cluster."""
    return ["unreleased in Git, and there is an Application"] if seen.application else []


def _faults(version: str, wanted: Object, seen: Seen, behind: bool) -> Iterator[str]:
    if seen.application is None:
        yield "no Application yet; Argo CD has not looked at this commit, or its ApplicationSet fails"
        return
    yield from _argocd_faults(seen.application, behind)
    if seen.live is None:
        yield f"{wanted['kind']} {wanted['metadata']['name']} is not in the cluster"
        return
    named, live = workloads.named(wanted), workloads.named(seen.live)
    for path in sorted(named.keys() | live.keys()):
        if named.get(path) != live.get(path):
            yield f"{path}: the cluster has {live.get(path)}, Git has {named.get(path)}"
    if wanted["kind"] == "CronJob":
        # A run of the version before may end its work: what it writes names that version.
        yield from _run_faults(seen, seen.live)
        return
    for pod in seen.pods:
        if _is_ready(pod) and (others := _models(pod) - set(named.values())):
            yield f"pod {pod['metadata']['name']} still runs {', '.join(sorted(others))}"
    yield from _rollout_faults(seen)


def _argocd_faults(application: Object, behind: bool) -> Iterator[str]:
    status = application.get("status") or {}
    for condition in status.get("conditions") or []:
        if str(condition.get("type")).endswith("Error"):
            yield f"Argo CD: {condition['type']}: {_line(condition.get('message'))}"
    operation = status.get("operationState") or {}
    if operation.get("phase") in ("Failed", "Error"):
        yield f"Argo CD: sync {operation['phase']}: {_line(operation.get('message'))}"
    for result in at(operation, "syncResult", "resources") or []:
        if result.get("status") == "SyncFailed":
            yield f"Argo CD: {result.get('kind')} {result.get('name')}: {_line(result.get('message'))}"
    if behind:
        yield f"Argo CD has yet to look at this commit; it knows {str(at(status, 'sync', 'revision'))[:12]}"
    elif (sync := at(status, "sync", "status")) != "Synced" and not _only_superseded(mappings(status.get("resources"))):
        gone = [item for item in status.get("resources") or [] if item.get("requiresPruning")]
        names = ", ".join(f"{item.get('kind')} {item.get('name')}" for item in gone)
        yield f"Argo CD: {sync}" + (f": no longer in Git and not pruned: {names}" if gone else "")
    if (health := at(status, "health", "status")) != "Healthy":
        because = [
            f"{item.get('kind')} {item.get('name')}: {at(item, 'health', 'message')}"
            for item in status.get("resources") or []
            if at(item, "health", "status") not in (None, "Healthy") and at(item, "health", "message")
        ]
        yield f"Argo CD: {health}" + (f": {_line('; '.join(because))}" if because else "")


# What a generator of kustomize adds to a name, in the letters of its `encode`:
# https://github.com/kubernetes-sigs/kustomize/blob/api/v0.21.2/api/hasher/hasher.go
_HASHED = re.compile(r"(.+)-[2456789bcdfghkmt]{10}")


def _only_superseded(resources: Sequence[Object]) -> bool:
    """Whether all that is out of sync are generated ConfigMaps and Secrets that a newer one has taken the place of.
    Pods of the release before read them until the last one ends, and nothing reads them after."""
    there = {_generated(item) for item in resources if not item.get("requiresPruning")} - {None}
    out = [item for item in resources if item.get("requiresPruning") or item.get("status") == "OutOfSync"]
    return bool(out) and all(item.get("requiresPruning") and _generated(item) in there for item in out)


def _generated(item: Object) -> tuple[str, str] | None:
    """(kind, name without its hash) of what a generator has made."""
    match = _HASHED.fullmatch(str(item.get("name")))
    return (str(item["kind"]), match[1]) if match and item.get("kind") in ("ConfigMap", "Secret") else None


def _rollout_faults(seen: Seen) -> Iterator[str]:
    deployment = seen.deployment
    if deployment is None:
        yield f"no {MADE[seen.live['kind']][1] if seen.live else 'Deployment'} yet"
        return
    if deployment.get("kind") == "Endpoint":
        yield from _endpoint_faults(deployment)
        return
    status, wanted = deployment.get("status") or {}, int(at(deployment, "spec", "replicas") or 0)
    ready, updated = int(status.get("readyReplicas") or 0), int(status.get("updatedReplicas") or 0)
    if min(ready, updated) < wanted or status.get("observedGeneration") != at(deployment, "metadata", "generation"):
        yield f"{ready} of {wanted} pods are ready, {updated} of them new" + _why(seen)


def _endpoint_faults(endpoint: Object) -> Iterator[str]:
    """SageMaker takes the old configuration back by itself when an alarm goes off, and is in service then too."""
    status = endpoint.get("status") or {}
    if (found := status.get("endpointStatus")) != "InService":
        yield f"the endpoint is {found or 'not made yet'}" + (
            f": {_line(why)}" if (why := status.get("failureReason")) else ""
        )
    for condition in mappings(status.get("conditions")):
        if condition.get("type") == "ACK.Terminal" and condition.get("status") == "True":
            yield f"ACK: {_line(condition.get('message'))}"


def _run_faults(seen: Seen, cron_job: Object) -> Iterator[str]:
    """Argo CD calls a CronJob healthy whose runs have failed from the first on."""
    status = cron_job.get("status") or {}
    last, good = (str(status.get(name) or "") for name in ("lastScheduleTime", "lastSuccessfulTime"))
    # Times of this form are in order as texts.
    if last > good and not status.get("active"):
        never = "" if good else ", and none has ever succeeded"
        yield f"the run of {last} failed{never}" + _why(seen)


def _why(seen: Seen) -> str:
    """The newest warning about what makes the pods of an app, or about these: what keeps a pod from being made, or
    from ending well, is told nowhere else."""
    name = str(at(seen.deployment or seen.live, "metadata", "name"))
    warnings = [
        event
        for event in seen.events
        if event.get("type") == "Warning"
        and at(event, "involvedObject", "kind") in ("Deployment", "ReplicaSet", "StatefulSet", "CronJob", "Job", "Pod")
        and str(at(event, "involvedObject", "name")).startswith(name)
    ]
    newest = max(warnings, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime")), default=None)
    return f": {_line(newest.get('message'))}" if newest else ""


def _models(pod: Object) -> set[str]:
    """The models that a pod was started with: of our own service, and of KServe's storage initializer."""
    own = set(workloads.variables(pod, workloads.MODEL_URI).values())
    return own | {
        str(container.fields["args"][0])
        for container in workloads.containers(pod)
        if container.fields.get("name") == "storage-initializer" and container.fields.get("args")
    }


def _is_ready(pod: Object) -> bool:
    conditions = at(pod, "status", "conditions") or []
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return ready and not at(pod, "metadata", "deletionTimestamp")


def _version(item: Mapping[str, Any]) -> str:
    return str(at(item, "metadata", "annotations", f"{release.ANNOTATION}version") or "-")


def _image(item: Object | None) -> str | None:
    """The image of the container that serves the model; None where a serving runtime names it."""
    found = [each for each in workloads.containers(item or {}) if each.variable(workloads.MODEL_URI) is not None]
    return str(found[0].image) if found else None


def _pods(seen: Seen) -> str:
    """Of a service those that are ready and those that are wanted, of a batch those that run."""
    deployment = seen.deployment
    if seen.live and seen.live.get("kind") == "CronJob":
        return str(sum(at(pod, "status", "phase") == "Running" for pod in seen.pods))
    if deployment is None:
        return "-"
    if deployment.get("kind") == "Endpoint":
        variants = mappings(at(deployment, "status", "productionVariants"))
        sizes = [[each.get(f"{name}InstanceCount") or 0 for each in variants] for name in ("current", "desired")]
        # A serverless one has no instances.
        return "/".join(str(sum(each)) for each in sizes) if any(map(sum, sizes)) else "-"
    return f"{int(at(deployment, 'status', 'readyReplicas') or 0)}/{int(at(deployment, 'spec', 'replicas') or 0)}"


def _shown(rows: Sequence[Row]) -> list[dict[str, str]]:
    found, any_held = [], any(row.hold for row in rows)
    for row in rows:
        shown = asdict(row)
        del shown["away"]
        shown["fine"] = "no" if shown.pop("faults") else "yes"
        held = shown.pop("hold")
        found.append(shown | ({"held": _held(held)} if any_held else {}))
    return found


def _held(found: dict[str, str] | None) -> str:
    return "{reason} ({by}, {since})".format(**found) if found else "-"


def _line(text: Any) -> str:
    return " ".join(str(text).split())[:500]


if __name__ == "__main__":
    raise SystemExit(main())

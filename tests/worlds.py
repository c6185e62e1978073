"""Sequences of pull requests to a small repository: as data, in real Git, and what a plain model says of them.

A pull request is a list of trees, one a commit. A tree is what matters of a repository, as data. Time is in hours.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path

import yaml
from conftest import BUCKET, DUMPER, REGISTRY, git
from pytest import MonkeyPatch

from gitops.checks import transitions
from gitops.checks.framework import Repository
from gitops.manifests import kustomize
from gitops.manifests.objects import Object
from gitops.releases import effect, hold, judgement, withdrawn
from gitops.releases.judgement import Moment, Place, Proposal, State
from gitops.releases.release import UNRELEASED, UNRELEASED_URI, Release, Target
from gitops.repo import layout
from gitops.repo.git import Git
from gitops.repo.policy import Environment, Policy, parse_policy

ENVIRONMENTS = ("dev", "staging", "perf", "eu", "us")
MOST = 3
"""The longest soak."""
API, SK = "api", "sk"
PLACES: list[Place] = [(app, environment) for app in (API, SK) for environment in ENVIRONMENTS]
TARGETS = [Target(*place) for place in PLACES] + [Target(SK, environment, "next") for environment in ENVIRONMENTS]
ENGINE, FOLLOWER = "scripts/engine.py", layout.FOLLOWS_POLICY[0]
Content = tuple[int, int]
"""The numbers of a version and of an image; 0 is unreleased."""
Verdict = set[tuple[str, str]]
"""(rule, where) of what is refused."""


@dataclass(frozen=True)
class Graph:
    """The environments, those first that others come after, with those that each comes after, and its soak."""

    after: Mapping[str, tuple[str, ...]]
    soak: Mapping[str, int]

    @property
    def order(self) -> list[str]:
        return list(self.after)


def graph_of(seed: int) -> Graph:
    """A line where the seed is a multiple of 4."""
    chance = random.Random(seed)
    order = chance.sample(ENVIRONMENTS, len(ENVIRONMENTS))
    after: dict[str, tuple[str, ...]] = {order[0]: ()}
    for at, name in enumerate(order[1:], 1):
        chosen = chance.sample(order[:at], chance.randint(1, min(at, 3)))
        after[name] = tuple(sorted(chosen)) if seed % 4 else (order[at - 1],)
    return Graph(after, {name: chance.choice([0, 0, 1, MOST]) for name in order})


LINE = Graph({name: ENVIRONMENTS[:at][-1:] for at, name in enumerate(ENVIRONMENTS)}, dict.fromkeys(ENVIRONMENTS, 0))


@dataclass(frozen=True)
class Tree:
    runs: Mapping[Target, Content]
    graph: Graph = LINE
    holds: Mapping[Place, int] = field(default_factory=dict)
    sidecars: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Of the app API, by environment."""
    intruders: Mapping[str, int] = field(default_factory=dict)
    """Versions of a second Deployment in an overlay of API, by environment."""
    withdrawn: frozenset[int] = frozenset()
    engine: int = 0
    follower: int = 0

    def put(self, target: Target, content: Content) -> Tree:
        return replace(self, runs={**self.runs, target: content})

    def running(self, place: Place) -> bool:
        return self.runs[Target(*place)][0] > 0

    def at(self, place: Place) -> dict[Target, Content]:
        return {target: content for target, content in self.runs.items() if (target.app, target.environment) == place}


START = Tree({Target(*place): (0, 0) for place in PLACES})


# Pull requests, of steps that are legitimate or not as it comes


@dataclass(frozen=True)
class Step:
    """One commit: what it does, and numbers to choose with."""

    what: str
    target: int
    number: int
    other: int


Request = tuple[tuple[Step, ...], str, int]
"""The steps, how it is merged: `merge`, `squash` or `rebase`, or by a `pull` of what others pushed meanwhile, and how
long after the one before."""


def commits(base: Tree, steps: Sequence[Step], tips: Sequence[Tree]) -> list[Tree]:
    found = [base]
    for step in steps:
        found.append(STEPS[step.what](found[-1], step, base, tips))
    return found[1:]


def _release(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    target = TARGETS[step.target % len(TARGETS)]
    if target.canary and not tree.running((target.app, target.environment)):
        return tree
    return tree.put(target, (1 + step.number % 3, 1 + step.other % 2 if target.app == API else 0))


def _promote(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    app, environment = PLACES[step.target % len(PLACES)]
    after = tree.graph.after[environment] or (environment,)
    return tree.put(Target(app, environment), tree.runs[Target(app, after[step.number % len(after)])])


def _roll_back(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    place = PLACES[step.target % len(PLACES)]
    target = Target(*place)
    earlier = [tip.runs[target] for tip in tips if tip.runs[target] not in ((0, 0), tree.runs[target])]
    if not earlier:
        return tree
    new = tree.put(target, earlier[step.number % len(earlier)])
    return replace(new, holds={**tree.holds, place: len(tips) * 10 + step.other})


def _unhold(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    left = {place: number for place, number in tree.holds.items() if place != PLACES[step.target % len(PLACES)]}
    return replace(tree, holds=left)


def _restore(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    """Takes back what an earlier commit of the same pull request has released."""
    return replace(tree, runs=base.runs)


def _stop(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    target = TARGETS[step.target % len(TARGETS)]
    if target.canary:
        return replace(tree, runs={one: content for one, content in tree.runs.items() if one != target})
    # A canary beside what is unreleased is no state of a repository.
    return tree if len(tree.at((target.app, target.environment))) > 1 else tree.put(target, (0, 0))


def _withdraw(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    return replace(tree, withdrawn=tree.withdrawn | {1 + step.number % 3})


def _forget(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    return replace(tree, withdrawn=tree.withdrawn - {1 + step.number % 3})


def _reorder(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    return replace(tree, graph=graph_of(10 * step.number + step.other))


def _sidecar(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    environment = ENVIRONMENTS[step.target % len(ENVIRONMENTS)]
    changed = tree.sidecars.get(environment, frozenset()) ^ {step.number % 2}
    return replace(tree, sidecars={**tree.sidecars, environment: changed})


def _intrude(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    return replace(tree, intruders={ENVIRONMENTS[step.target % len(ENVIRONMENTS)]: 1 + step.number % 3})


def _engine(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    return replace(tree, engine=step.number)


def _follower(tree: Tree, step: Step, base: Tree, tips: Sequence[Tree]) -> Tree:
    return replace(tree, follower=step.number)


STEPS: dict[str, Callable[[Tree, Step, Tree, Sequence[Tree]], Tree]] = {
    "release": _release, "promote": _promote, "roll back": _roll_back, "unhold": _unhold, "restore": _restore,
    "stop": _stop, "withdraw": _withdraw, "forget": _forget, "reorder": _reorder, "sidecar": _sidecar,
    "intrude": _intrude, "engine": _engine, "follower": _follower,
}  # fmt: skip


# The plain model: it sees the tips of the branch, one after another, and what is asked


@dataclass
class Stay:
    """What came through an environment and stands, with its time there."""

    content: Content
    since: int
    until: int | None = None


class Model:
    def __init__(self, start: Tree = START) -> None:
        self.tips = [start]
        # By place, oldest first.
        self.good: dict[Place, list[Stay]] = {place: [Stay((0, 0), 0)] for place in PLACES}

    def rules(self, steps: Sequence[Tree], now: int = 0) -> set[str]:
        """The rules that a pull request breaks, at that time."""
        base, head = self.tips[-1], steps[-1]
        broken = {
            "order": any(not self._may(target, content) for target, content in _changed(base, head))
            or any(not self._may_beside(environment, name) for environment, name in _beside(head)),
            "soak": any(not self._soaked(target, content, now) for target, content in _changed(base, head)),
            "hold": any(
                head.holds.get(place) == number and head.at(place) != base.at(place)
                for place, number in base.holds.items()
            ),
            "withdrawn": not base.withdrawn <= head.withdrawn
            or any(
                content[0] in base.withdrawn | head.withdrawn and base.runs.get(target, (0, 0))[0] != content[0]
                for target, content in _changed(base, head)
            ),
            "intermediate": any(
                content not in (base.runs.get(target), head.runs.get(target))
                for before, after in itertools.pairwise([base, *steps])
                for target, content in _changed(before, after)
            ),
            "mixed": len(_parts(base, head)) > 1,
            "release": any(
                (number, 1) not in head.at((API, environment)).values()
                for environment, number in head.intruders.items()
            ),
        }
        return {rule for rule, found in broken.items() if found}

    def _may(self, target: Target, content: Content) -> bool:
        return self._was_here(target, content) or all(
            content in [stay.content for stay in self.good[target.app, name]] for name in self._after(target)
        )

    def _was_here(self, target: Target, content: Content) -> bool:
        return content in [tip.runs.get(one) for tip in self.tips for one in (target, replace(target, canary=None))]

    def _after(self, target: Target) -> tuple[str, ...]:
        return self.tips[-1].graph.after[target.environment]

    def _soaked(self, target: Target, content: Content, now: int) -> bool:
        soak = self.tips[-1].graph.soak
        return self._was_here(target, content) or all(
            (stay.until or now) - stay.since >= soak[name]
            for name in self._after(target)
            for stay in self.good[target.app, name]
            if stay.content == content
        )

    def _may_beside(self, environment: str, name: str) -> bool:
        base = self.tips[-1]
        after = base.graph.after[environment]
        return name in images(base, (API, environment)) or all(name in images(base, (API, place)) for place in after)

    def merge(self, head: Tree, now: int = 0) -> None:
        before = self.tips[-1]
        self.tips.append(head)
        for place, good in self.good.items():
            old, new = before.runs[Target(*place)], head.runs[Target(*place)]
            if new == old:
                continue
            good[-1].until = now
            there = [stay.content for stay in good]
            if new in there:
                del good[there.index(new) :]
            elif old != (0, 0) and head.holds.get(place) not in (None, before.holds.get(place)):
                del good[-1]
            good.append(Stay(new, now))


def _changed(before: Tree, after: Tree) -> Iterator[tuple[Target, Content]]:
    for target, content in after.runs.items():
        if content[0] and before.runs.get(target) != content:
            yield target, content


def _beside(head: Tree) -> Iterator[tuple[str, str]]:
    """The images that no release names."""
    for environment in ENVIRONMENTS:
        named = {image(content[1]) for content in head.at((API, environment)).values()}
        yield from ((environment, name) for name in images(head, (API, environment)) - named)


def images(tree: Tree, place: Place) -> frozenset[str]:
    """All that run."""
    app, environment = place
    if not tree.running(place):
        return frozenset()
    found = {image(content[1]) for content in tree.at(place).values() if content[1]}
    if app == API:
        found |= {sidecar(number) for number in tree.sidecars.get(environment, ())}
        found |= {image(1)} if environment in tree.intruders else set()
    return frozenset(found)


def _parts(base: Tree, head: Tree) -> set[str]:
    def released(tree: Tree) -> dict[Target, Content]:
        return {target: content for target, content in tree.runs.items() if content[0]}

    of_releases = [(released(tree), tree.holds, tree.withdrawn) for tree in (base, head)]
    found = {"releases"} if of_releases[0] != of_releases[1] else set()
    found |= {"policy"} if policy_of(base) != policy_of(head) else set()
    found |= {"engine"} if base.engine != head.engine else set()
    return found | ({"policy"} if base.follower != head.follower and base.engine == head.engine else set())


# As data


def version(number: int) -> str:
    return f"2026-01-0{number}-{str(number) * 12}"


def image(number: int) -> str:
    return f"{REGISTRY}/api@sha256:{str(number) * 64}"


def sidecar(number: int) -> str:
    return f"{REGISTRY}/sidecar:{number}"


def uri(number: int) -> str:
    return f"s3://{BUCKET}/models/lily/{version(number)}/onnx/" if number else UNRELEASED_URI


@cache
def release_of(target: Target, content: Content) -> Release:
    number, image_number = content
    values = [version(number), f"sha256:{str(number) * 64}", "c0de", "data", "run"] if number else [UNRELEASED] * 5
    named = (image(image_number) if number else UNRELEASED) if target.app == API else None
    file = layout.release_paths(target.app, target.environment)[0]
    return Release(
        target.app, target.environment, *values, uri=uri(number), image=named, canary=target.canary, file=file,
        manifest=f"sha256:{str(number) * 63}f" if number else UNRELEASED,
    )  # fmt: skip


@cache
def hold_of(place: Place, number: int) -> bytes:
    return hold.write(*place, hold.Hold(f"reason {number}", "Test <test@example.org>", "2026-02-01T12:00:00Z"))


def policy_of(tree: Tree) -> Policy:
    graph = {
        name: Environment(name, after, f"ml-{name}", soak=timedelta(hours=tree.graph.soak[name]))
        for name, after in tree.graph.after.items()
    }
    return Policy(BUCKET, (REGISTRY,), tuple(tree.graph.order), graph=graph)


def time_of(hour: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)


def key_of(number: int) -> str:
    return withdrawn.key(uri(number))


def state_of(tree: Tree) -> State:
    return State(
        {target: release_of(target, content) for target, content in tree.runs.items()},
        {place: hold_of(place, number) for place, number in tree.holds.items()},
        {place: images(tree, place) for place in PLACES if tree.running(place)},
        {key_of(number): "bad" for number in tree.withdrawn},
    )


def moments(history: Sequence[tuple[Tree, int]], target: Target) -> list[Moment]:
    place = target.app, target.environment
    found = []
    for tree, hour in history:
        content = tree.runs.get(target, (0, 0))
        held = hold_of(place, tree.holds[place]) if place in tree.holds else None
        found.append(Moment(release_of(target, content) if content[0] else None, held, time_of(hour)))
    return found


class Data:
    """The branch as the trees of its commits, and the pure verdict."""

    def __init__(self, start: Tree = START) -> None:
        self.history = [(start, 0)]

    def verdict(self, steps: Sequence[Tree], now: int) -> Verdict:
        base, head = self.history[-1][0], steps[-1]
        introduced = [
            ("0" * 40, release_of(target, content))
            for before, after in itertools.pairwise([base, *steps])
            for target, content in after.runs.items()
            if before.runs.get(target) != content
        ]
        paths = [ENGINE] if base.engine != head.engine else []
        paths += [FOLLOWER] if base.follower != head.follower else []
        ran = partial(moments, self.history)
        states = state_of(base), state_of(head)
        proposal = Proposal(policy_of(base), *states, ran, introduced, paths, policy_of(head), now=time_of(now))
        found = {(fault.rule, fault.where) for fault in judgement.judge(proposal)}
        for environment, number in head.intruders.items():
            found |= intrusions(head, environment, [intruder(environment, number)])
        return found

    def merge(self, steps: Sequence[Tree], how: str, now: int) -> None:
        self.history += [(tree, now) for tree in arrived(steps, how)]


def arrived(steps: Sequence[Tree], how: str) -> Sequence[Tree]:
    """What a merge leaves as tips of the branch."""
    return steps if how == "rebase" else steps[-1:]


def intrusions(tree: Tree, environment: str, items: Sequence[Object]) -> Verdict:
    releases = [release_of(target, content) for target, content in tree.at((API, environment)).items()]
    return {("release", layout.overlay(API, environment)) for _ in effect.unnamed(items, releases)}


def intruder(environment: str, number: int) -> Object:
    container = {"name": "api", "image": image(1), "env": [{"name": "MODEL_URI", "value": uri(number)}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "intruder", "namespace": f"ml-{environment}"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


# As files


def files_of(tree: Tree) -> dict[str, bytes]:
    policy = {
        "model_bucket": BUCKET,
        "image_registries": [REGISTRY],
        "environments": [
            {"name": name}
            | ({"after": list(after)} if after else {})
            | ({"soak": f"{tree.graph.soak[name]}h"} if tree.graph.soak[name] else {})
            for name, after in tree.graph.after.items()
        ],
    }
    record = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: model-withdrawn, namespace: argocd}\n"
    for number in sorted(tree.withdrawn):
        record = withdrawn.add(record, key_of(number), "bad")
    found = {
        "overlays/promotion.yaml": _yaml(policy),
        layout.WITHDRAWN: record,
        ENGINE: f"{tree.engine}\n".encode(),
        FOLLOWER: f"# {tree.follower}\n".encode(),
        "base/api/kustomization.yaml": b"resources: [deployment.yaml]\n",
        "base/api/deployment.yaml": _yaml(_deployment()),
        "base/sk/kustomization.yaml": b"resources: [service.yaml]\n",
        "base/sk/service.yaml": _yaml(_inference_service((0, 0), {})),
    }
    for app, environment in PLACES:
        folder = layout.overlay(app, environment)
        found |= {f"{folder}/{name}": text for name, text in _overlay(tree, app, environment).items()}
    return found


def _overlay(tree: Tree, app: str, environment: str) -> dict[str, bytes]:
    at = {target.canary: content for target, content in tree.at((app, environment)).items()}
    stable = at.pop(None)
    kustomization = {"namespace": f"ml-{environment}", "resources": [f"../../../base/{app}"]}
    patches = ["release.yaml"]
    found = {}
    if app == API:
        release = _released(_deployment(), release_of(Target(app, environment), stable))
        if numbers := tree.sidecars.get(environment):
            beside = _deployment()
            containers = [{"name": f"sidecar-{number}", "image": sidecar(number)} for number in sorted(numbers)]
            beside["spec"]["template"]["spec"]["containers"] = containers
            found["sidecars.yaml"] = _yaml(beside)
            patches.append("sidecars.yaml")
        if environment in tree.intruders:
            found["intruder.yaml"] = _yaml(intruder(environment, tree.intruders[environment]))
            kustomization["resources"].append("intruder.yaml")
    else:
        release = _inference_service(stable, at)
    if (app, environment) in tree.holds:
        found["hold.yaml"] = hold_of((app, environment), tree.holds[app, environment])
    kustomization["patches"] = [{"path": name} for name in patches]
    return found | {"release.yaml": _yaml(release), "kustomization.yaml": _yaml(kustomization)}


def _deployment() -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": API},
        "spec": {"template": {"spec": {"containers": []}}},
    }


def _annotations(item: Release) -> dict[str, str | None]:
    values = (item.version, item.digest, item.code_commit, item.data_digest, item.mlflow_run, item.manifest)
    names = ("version", "digest", "code-commit", "data-digest", "mlflow-run", "manifest")
    return {f"model.mlops/{name}": value for name, value in zip(names, values, strict=True)}


def _released(deployment: Object, item: Release) -> Object:
    deployment["metadata"]["annotations"] = _annotations(item)
    values = {"MODEL_URI": item.uri, "MODEL_DIGEST": item.digest, "MODEL_MANIFEST": item.manifest}
    variables = [{"name": name, "value": value} for name, value in values.items()]
    deployment["spec"]["template"]["spec"]["containers"] = [{"name": "api", "image": item.image, "env": variables}]
    return deployment


def _inference_service(stable: Content, others: Mapping[str | None, Content]) -> Object:
    item = release_of(Target(SK, "dev"), stable)
    made: Object = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": SK, "annotations": _annotations(item)},
        "spec": {"predictor": {"model": {"storageUri": item.uri}}},
    }
    entries = []
    for name, content in others.items():
        other = release_of(Target(SK, "dev", name), content)
        predictor = {"name": name, "annotations": _annotations(other), "model": {"storageUri": other.uri}}
        entries.append({"trafficPercent": 10, "predictor": predictor})
    return made | ({"spec": made["spec"] | {"canary": entries}} if entries else {})


def _yaml(data: object) -> bytes:
    return str(yaml.dump(data, Dumper=DUMPER, sort_keys=False)).encode()


@contextmanager
def _at(hour: int) -> Iterator[None]:
    """Lets git commit at that time."""
    with MonkeyPatch.context() as patch:
        patch.setenv("GIT_COMMITTER_DATE", time_of(hour).isoformat())
        yield


class Real:
    """The branch in a repository, and the verdict of validate.py's check of a change on it."""

    def __init__(self, folder: Path, cache: dict[tuple[str, ...], list[Object]], start: Tree = START) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.root, self._cache = folder, cache
        git(folder, "init", "-q", "-b", "cicd")
        self._written: dict[str, bytes] = {}
        with _at(0):
            self._commit(start)
        self.git = Git(folder)
        self.tip = start

    def _commit(self, tree: Tree) -> None:
        files = files_of(tree)
        for path in self._written.keys() - files.keys():
            (self.root / path).unlink()
        for path, text in files.items():
            if self._written.get(path) != text:
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                (self.root / path).write_bytes(text)
        self._written = files
        git(self.root, "add", "-A")
        git(self.root, "commit", "-q", "--allow-empty", "-m", "A change")

    def _renders(self, tree: Tree) -> dict[str, list[Object]]:
        """Those of a tree that is checked out, or was."""
        found = {}
        for app, environment in PLACES:
            folder = layout.overlay(app, environment)
            texts = [text.decode() for text in _overlay(tree, app, environment).values()]
            if (key := (folder, *texts)) not in self._cache:
                self._cache[key] = kustomize.rendered(self.root, folder)
            found[folder] = self._cache[key]
        return found

    def verdict(self, steps: Sequence[Tree], now: int) -> Verdict:
        before = self._renders(self.tip)
        git(self.root, "checkout", "-q", "-B", "pull", "cicd")
        with _at(now):
            for tree in steps:
                self._commit(tree)
        head = steps[-1]
        policy = parse_policy((self.root / "overlays/promotion.yaml").read_bytes())
        after = self._renders(head)
        base = git(self.root, "rev-parse", "cicd")
        there = Repository(self.root, policy, after)
        changed = self.git.changed(base)
        ran = transitions.ran_until(self.git, base, changed)
        findings = transitions.check(self.git, base, changed, there, before, ran, now=time_of(now))
        found = {(finding.rule, finding.where) for finding in findings}
        for environment in head.intruders:
            found |= intrusions(head, environment, after[layout.overlay(API, environment)])
        return found

    def merge(self, steps: Sequence[Tree], how: str, now: int) -> None:
        with _at(now):
            self._merge(how)
        self.tip = steps[-1]

    def _merge(self, how: str) -> None:
        git(self.root, "checkout", "-q", "cicd")
        if how == "rebase":
            git(self.root, "merge", "-q", "--ff-only", "pull")
        elif how == "squash":
            git(self.root, "merge", "-q", "--squash", "pull")
            git(self.root, "commit", "-q", "--allow-empty", "-m", "Squashed")
        elif how == "pull":
            git(self.root, "commit", "-q", "--allow-empty", "-m", "Of others")
            git(self.root, "checkout", "-q", "pull")
            git(self.root, "merge", "-q", "-m", "Merge branch 'cicd' of there", "cicd")
            git(self.root, "checkout", "-q", "-B", "cicd")
        else:
            git(self.root, "merge", "-q", "--no-ff", "-m", "Merge", "pull")

    def drop(self) -> None:
        """Leaves a pull request that is refused."""
        git(self.root, "checkout", "-q", "cicd")
        self._written = files_of(self.tip)

"""The corpus of what is right: apps as teams have them, one a file of tests/valid/, and pairs of them.

A file is a patch of a shape of the sample, by the kind that it changes, or objects beside it; its first line names it.
`NAME` in it is the app's name, and `REGISTRY` the sample's. `where: release` is of the release file itself, which
canaries stand in.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpus
import yaml
from conftest import DUMPER, REGISTRY, git, run

FOLDER = Path(__file__).parent / "valid"
ENVIRONMENT = "dev"
# The app of the sample that each kind is a part of.
SHAPES = {"CronJob": "lily-batch", "InferenceService": "lily-sklearn"}
OTHER = "lily-api"
# Of KEDA's chart, which the template leaves to those who need it.
KEDA = """apiVersion: argoproj.io/v1alpha1
kind: Application
metadata:
  name: keda
  namespace: argocd
spec:
  source:
    repoURL: https://kedacore.github.io/charts
    chart: keda
    targetRevision: 2.18.0
  destination:
    namespace: keda
"""
# What the apps are made of beside the sample's own kinds: those that have a schema, and those that a fork adds.
KINDS = (
    "ConfigMap", "PersistentVolumeClaim", "StatefulSet.apps", "Job.batch", "ExternalSecret.external-secrets.io",
    "SecretStore.external-secrets.io",
)  # fmt: skip
MONITORS = Path(__file__).parent / "kinds/monitors.yaml"


@dataclass(frozen=True)
class Part:
    """A file of tests/valid/."""

    name: str
    title: str
    data: dict[str, Any]

    @property
    def shape(self) -> str:
        return SHAPES.get(self.data["kind"], OTHER)


@dataclass(frozen=True)
class App:
    """An app of one of the sample's shapes with one part, or with two."""

    name: str
    parts: tuple[Part, ...]


def _read(file: Path) -> Part:
    text = file.read_text()
    return Part(file.stem, text.splitlines()[0].removeprefix("# "), yaml.safe_load(text))


PARTS = [_read(file) for file in sorted(FOLDER.glob("*.yaml"))]


def _pairs() -> list[tuple[Part, Part]]:
    """Parts of one shape that patch no list twice, nearest neighbours first."""
    pairs = [pair for pair in itertools.combinations(PARTS, 2) if pair[0].shape == pair[1].shape and _apart(*pair)]
    return sorted(pairs, key=lambda pair: (PARTS.index(pair[1]) - PARTS.index(pair[0]), pair[0].name))


def _apart(one: Part, other: Part) -> bool:
    """Whether the two set no field in common: which of the two holds then is not what is tried here."""
    fields = [_fields(part) for part in (one, other)]
    return one.data["kind"] != other.data["kind"] or not any(
        path[: len(said)] == said for here, there in itertools.permutations(fields) for said in here for path in there
    )


def _fields(part: Part) -> set[tuple[str, ...]]:
    """The fields that a patch sets; one with `$patch` sets all of its mapping."""
    paths = _leaves(part.data.get("patch"), ())
    return {path[:-1] if path[-1:] == ("$patch",) else path for path in paths}


def _leaves(value: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The paths of what is no mapping; a list's items go by their names, and without one the list is one field."""
    if isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value):
        value = {item["name"]: {key: item[key] for key in item if key != "name"} for item in value}
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _leaves(item, (*path, str(key)))]
    return [path]


def _apps() -> list[App]:
    """Each part alone, and pairs, two hundred in all."""
    chosen = [*((part,) for part in PARTS), *_pairs()][:200]
    return [App(f"valid-{at:03d}", tuple(parts)) for at, parts in enumerate(chosen)]


APPS = _apps()


def copy(manifests: Path, root: Path) -> None:
    """Makes the sample in a new folder, with all of the apps."""
    corpus.copy(manifests, root)
    write(root, APPS)


def write(root: Path, made: list[App], environments: Sequence[str] = (ENVIRONMENT,)) -> None:
    """Adds apps to a copy of the sample, in these environments."""
    for app in made:
        _write(root, app, environments)
    add_kinds(root, *environments)
    (root / "argocd/platform/addons/keda.yaml").write_text(KEDA)
    _insert(root / "argocd/platform/kustomization.yaml", "resources:\n", "  - addons/keda.yaml\n")
    _insert(root / "argocd/project-addons.yaml", "sourceRepos:\n", "    - https://kedacore.github.io/charts\n")
    target = "    - server: https://kubernetes.default.svc\n      namespace: keda\n"
    _insert(root / "argocd/project-addons.yaml", "destinations:\n", target)


def add_kinds(root: Path, *environments: str) -> None:
    """Lets environments have all kinds that the apps are made of."""
    if not (root / ".git").is_dir():
        git(root, "init", "-q")  # files are replaced from git's own folder
    may = [word for name in environments for word in ("--env", name)]
    named = [word for kind in KINDS for word in ("--kind", kind)]
    for given in (named, ["--crd", MONITORS, "--addon", "kube-prometheus-stack"]):
        done = run("add_kind", "--root", root, *given, *may)
        assert done.code == 0, done.err


def _insert(file: Path, after: str, text: str) -> None:
    file.write_text(file.read_text().replace(after, after + text, 1))


def _write(root: Path, app: App, environments: Sequence[str]) -> None:
    shape = app.parts[0].shape
    own, *overlays = [root / name for name in ("apps", *(f"overlays/{each}" for each in environments))]
    for folder in (own, *overlays):
        shutil.copytree(folder / shape, folder / app.name)
        for file in (folder / app.name).iterdir():
            file.write_text(file.read_text().replace(shape, app.name))
    for number, part in enumerate(app.parts):
        for folder in overlays if part.data.get("where") == "release" else [own]:
            _add(folder / app.name, part, number, app.name)


def _add(folder: Path, part: Part, number: int, name: str) -> None:
    """Adds a part to a kustomization, each in files of its own."""
    file = folder / "kustomization.yaml"
    data = yaml.safe_load(file.read_text())
    objects, patch = part.data.get("objects", []), part.data.get("patch")
    if objects:
        _dump(folder / f"beside-{number}.yaml", objects, name)
        data["resources"].append(f"beside-{number}.yaml")
    if patch and part.data.get("where") == "release":
        release = folder / "release.yaml"
        _dump(release, [_merged(yaml.safe_load(release.read_text()), patch)], name)
    elif patch:
        kind = part.data["kind"]
        version = {"CronJob": "batch/v1", "Deployment": "apps/v1"}.get(kind, "any/v1")
        metadata = {"name": "any"} | patch.get("metadata", {})
        _dump(
            folder / f"patch-{number}.yaml",
            [{"apiVersion": version, "kind": kind} | patch | {"metadata": metadata}],
            name,
        )
        data.setdefault("patches", []).append({"path": f"patch-{number}.yaml", "target": {"kind": kind}})
    if literals := part.data.get("generate"):
        data.setdefault("configMapGenerator", []).append({"name": f"{name}-settings", "literals": literals})
    file.write_text(yaml.dump(data, Dumper=DUMPER, sort_keys=False))


def _merged(value: Any, patch: Any) -> Any:
    """A value with a patch's in the place of its own, mapping by mapping."""
    if not isinstance(value, dict) or not isinstance(patch, dict):
        return patch
    return value | {key: _merged(value.get(key), item) for key, item in patch.items()}


def _dump(file: Path, items: list[Any], name: str) -> None:
    text = yaml.dump_all(items, Dumper=DUMPER, sort_keys=False)
    file.write_text(text.replace("REGISTRY", REGISTRY).replace("NAME", name))

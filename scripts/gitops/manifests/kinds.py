"""The kinds that a fork adds, in schemas/: a CustomResourceDefinition a file, named KIND.GROUP.yaml, and an index of
what brings each kind to the cluster and where its pods are. `scripts/add_kind.py` writes both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from gitops.manifests import ack, definitions, schemas, stack, yamledit
from gitops.manifests.definitions import Steps
from gitops.manifests.documents import schema_faults
from gitops.manifests.objects import Object

from contract.errors import Refused

FOLDER = "schemas"
INDEX = f"{FOLDER}/kinds.yaml"
HEAD = """\
# Made by `python scripts/add_kind.py`: what brings each kind to the cluster, and where its pods are.
"""
_BESIDE = (f"{FOLDER}/.gitattributes", f"{FOLDER}/README.md")
_SCHEMA = Path(__file__).with_name("kinds.schema.json")
# Rules look into objects of these groups, or Argo CD acts on them: their schemas are the engine's.
ENGINES = (stack.GROUP, "operator.knative.dev", "serving.kserve.io")
ENGINES_KINDS = (
    *(("argoproj.io", kind) for kind in ("Application", "ApplicationSet", "AppProject")),
    *ack.KINDS,
)
"""By group and kind, those of groups that have others too: Argo Rollouts shares that of Argo CD, and ACK has many."""


@dataclass(frozen=True)
class Kinds:
    """What is in schemas/, by KIND.GROUP. A kind of the engine has an entry and no definition."""

    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    definitions: Mapping[str, Object] = field(default_factory=dict)

    @cached_property
    def pods(self) -> dict[tuple[str, str], tuple[Steps, ...]]:
        """Where the kinds that a fork brings have the specs of their pods, by group and kind; most have none."""
        found = {}
        for name, entry in self.entries.items():
            kind, _, group = name.partition(".")
            if name in self.definitions or "pods" in entry:
                found[group, kind] = tuple(definitions.steps(path) for path in entry.get("pods", ()))
        return found


def path(name: str) -> str:
    """The file of a kind's definition."""
    return f"{FOLDER}/{name}.yaml"


def read(root: Path) -> Kinds:
    """What is in the folder of a checkout; nothing where there is none. Raises Refused with a line a fault."""
    return parse(files(root))


def files(root: Path) -> dict[str, bytes]:
    """The bytes of what is in there, by paths. Raises Refused for a link."""
    folder = root / FOLDER
    found = [folder, *sorted(folder.rglob("*"))] if folder.is_dir() or folder.is_symlink() else []
    for file in found:
        if file.is_symlink():
            where = file.relative_to(root).as_posix()
            raise Refused(f"{where}: a symbolic link to {file.readlink()}; put a file in its place")
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in found if file.is_file()}


def parse(files: Mapping[str, bytes]) -> Kinds:
    """The same, of the bytes of its files by their paths."""
    entries = listed(files)
    found: dict[str, Object] = {}
    faults: list[str] = []
    for file, data in files.items():
        if file == INDEX or file in _BESIDE:
            continue
        try:
            [definition] = definitions.read(data, file)
        except Refused as refused:
            faults += refused.lines
            continue
        except ValueError:
            faults.append(f"{file}: several definitions; `python scripts/add_kind.py` writes one a file")
            continue
        name = definitions.name(definition)
        found[name] = definition
        if file != path(name):
            faults.append(f"{file}: defines {name}, whose file is {path(name)}; keep that one alone")
        elif name not in entries:
            faults.append(f"{file}: {INDEX} has no entry of it; `{command(name, path(name))}` writes one")
    faults += [fault for name, entry in entries.items() for fault in _faults(name, entry, found.get(name))]
    if faults:
        raise Refused(*faults)
    return Kinds(entries, found)


def listed(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The entries of the index alone."""
    entries = yamledit.load(files[INDEX], INDEX) or {} if INDEX in files else {}
    if faults := schema_faults(entries, _SCHEMA):
        raise Refused(*[f"{INDEX}: {fault}" for fault in faults])
    return dict(entries)


def _faults(name: str, entry: Mapping[str, Any], definition: Object | None) -> list[str]:
    """What is wrong with an entry of the index."""
    where = f"{INDEX}: {name}"
    if definition is None:
        if entry.keys() - {"addon", "outside"}:
            return [f"{where}: no {path(name)}; `{command(name)}` adds it"]
        return []
    if is_engines(definition["spec"]["group"], definition["spec"]["names"]["kind"]):
        return [f"{where}: the template has its schema, of the version that it installs; take both out of {FOLDER}/"]
    pods = [definitions.steps(each) for each in entry.get("pods", ())]
    found = [
        f"{where}: pods: {'.'.join(each)}: no version of the kind has the spec of a pod there, with its containers;"
        " name others with --pod-spec, or take it out"
        for each in definitions.without_pod(definition, pods)
    ]
    if not found and (fields := definitions.running(definition, pods)):
        found.append(
            f"{where}: {', '.join(fields[:3])}: runs containers, or names an image or a model, and nobody would look"
            " there; name the path of each pod's spec with --pod-spec, such as spec.template.spec; a kind that names"
            " them elsewhere cannot be added"
        )
    return found


def command(name: str, file: str = "FILE") -> str:
    """How a kind is added."""
    return f"python scripts/add_kind.py --crd {file} --kind {name} --addon NAME"


def remedy(name: str, closed: Path) -> str:
    """What to do about a kind of which a folder of closed schemas has none; empty where none can be added."""
    kind, _, group = name.partition(".")
    known = is_engines(group, kind) or group in schemas.groups(closed)
    return "" if known else f"; to add one of your own: `{command(name)}`"


def is_engines(group: str, kind: str) -> bool:
    """Whether a custom kind's schema is the engine's, and no fork's."""
    return group in ENGINES or (group, kind) in ENGINES_KINDS


def text(definition: Object) -> bytes:
    """The file of a definition."""
    return yaml.safe_dump(definition, sort_keys=False, width=120, allow_unicode=True).encode()


def index(entries: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The index, by names."""
    named = {name: dict(entry) for name, entry in entries.items()}
    return (HEAD + yaml.safe_dump(named, width=120, allow_unicode=True)).encode()

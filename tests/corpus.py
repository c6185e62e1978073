"""The corpus of faults: edits of the repository, one a fixture, each with its catcher and what that has to say.

The first line of a fixture names its catcher: a rule of validate.py, `schema` for kubeconform with this repository's
schemas, `promotion` for the schema of promotion.yaml, or `kustomize`.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

import validate
from gitops.checks import kubeconform
from gitops.checks.framework import Finding, Repository
from gitops.manifests import closure, kustomize
from gitops.manifests.objects import Object
from gitops.repo import layout, policy
from gitops.repo.layout import ARGOCD, PLATFORM
from gitops.repo.policy import read_policy

from contract.errors import Refused

DEPLOYED = ("base", "apps", "overlays", "argocd")
# Where a catcher looks up what it checks with; kustomize is none of ours.
SCHEMAS = {"promotion": policy}
CATCHERS = (*validate.RULES, "schema", *SCHEMAS, "kustomize")


@dataclass(frozen=True)
class Fixture:
    """One edit, the catchers that it has, and what they say. `also` are those that say something without them."""

    name: str
    catchers: frozenset[str]
    title: str
    file: str
    errors: list[str]
    content: str | None
    old: str
    new: str
    also: list[str]
    beside: dict[str, str]
    """Texts of other files, by path, for an edit that names them or is in one of them."""

    @contextlib.contextmanager
    def applied(self, root: Path) -> Iterator[None]:
        """The repository with the edit, while the block runs."""
        with contextlib.ExitStack() as stack:
            for path, text in (self.beside | {self.file: self._edited(root / self.file)}).items():
                stack.enter_context(written(root / path, text))
            yield

    def _edited(self, file: Path) -> str:
        if self.content is not None:
            return self.content
        text = self.beside[self.file] if self.file in self.beside else file.read_text()
        assert text.count(self.old) == 1, f"{self.name}: {self.old!r} stands {text.count(self.old)} times"
        return text.replace(self.old, self.new)


@contextlib.contextmanager
def written(file: Path, text: str) -> Iterator[None]:
    """A file with another text, or one that was not there, while the block runs."""
    before = file.read_bytes() if file.is_file() else None
    made = [parent for parent in file.parents if not parent.is_dir()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    try:
        yield
    finally:
        if before is not None:
            file.write_bytes(before)
        else:
            file.unlink()
            for parent in made:
                parent.rmdir()


def read(file: Path) -> Fixture:
    text = file.read_text()
    catchers, _, title = text.splitlines()[0].removeprefix("# ").partition(": ")
    data: dict[str, Any] = yaml.load(text, yaml.CSafeLoader)
    edit = {"content": None, "old": "", "new": "", "also": [], "beside": {}} | {
        key: data[key] for key in data if key != "errors"
    }
    if isinstance(edit["beside"], str):
        edit["beside"] = _folder(BESIDE / edit["beside"])
    return Fixture(file.stem, frozenset(catchers.split(", ")), title, errors=data["errors"].splitlines(), **edit)


def _folder(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_text() for file in files}


BESIDE = Path(__file__).parent / "beside"
"""Files of several fixtures, which name their folder there: `vm` makes a batch of the sample a service on instances."""


FIXTURES = [read(file) for file in sorted((Path(__file__).parent / "invalid").glob("*.yaml"))]


def copy(source: Path, target: Path) -> None:
    """A checkout's manifests, for the edits, and the engine's templates beside them."""
    for name in DEPLOYED:
        shutil.copytree(source / name, target / name)
    shutil.copytree(Path(__file__).parents[1] / "infra", target / "infra")


@dataclass(frozen=True)
class Verdict:
    """What is said of an edit: by all catchers, and with those of the fixture switched off."""

    all: list[str]
    without: list[str]
    schema: list[str]
    """What kubeconform says by itself."""


def verdicts(root: Path, closed: Path | None = None) -> dict[str, Verdict]:
    """What the functions of which validate.py is made find for each fixture in a copy of the repository.

    An edit is rendered where closure() says that it can matter (tests/test_kustomize.py proves that it is right), and
    all objects of all fixtures go to kubeconform together: it spends its time on reading schemas, not on objects.
    """
    folders = layout.folders(root, read_policy(root))
    before = {folder: kustomize.objects(text) for folder, text in kustomize.build_all(root, folders).items()}
    found: dict[str, Verdict] = {}
    renders: dict[str, dict[str, list[Object]]] = {}
    parts: dict[str, Collection[str]] = {}
    objects = {}
    for fixture in FIXTURES:
        with fixture.applied(root):
            try:
                changes = _render(root, folders, fixture)
            except Refused as refused:
                found[fixture.name] = Verdict(list(refused.lines), _without_schema(root, folders, fixture), [])
                continue
        renders[fixture.name] = before | changes
        parts[fixture.name] = changes.keys()
        objects |= {f"{fixture.name}!{folder}": items for folder, items in changes.items()}
    schema: dict[str, list[Finding]] = {name: [] for name in renders}
    for finding in kubeconform.check(objects, closed):
        name, _, where = finding.where.partition("!")
        own = tuple(folder.partition("!")[2] for folder in finding.folders)
        schema[name].append(replace(finding, where=where, folders=own))
    for number, fixture in enumerate(FIXTURES):
        if fixture.name in renders:
            with fixture.applied(root):
                repository = Repository(root, read_policy(root), renders[fixture.name])
                told = validate.by_rules(repository)
                # Each rule on its own fixtures, and all of them on every third.
                asked = told.keys() & fixture.catchers if number % 3 else told.keys()
                _require_the_same_of_a_part(repository, {name: told[name] for name in asked}, parts[fixture.name])
            mine = schema[fixture.name]
            everything = validate.told(told, mine)
            # No rule asks what another has found, so those that are left are as they were.
            others = {name: findings for name, findings in told.items() if name not in fixture.catchers}
            without = validate.told(others, [] if "schema" in fixture.catchers else mine)
            found[fixture.name] = Verdict(*(list(map(str, listed)) for listed in (everything, without, mine)))
    return found


def _require_the_same_of_a_part(
    repository: Repository, told: Mapping[str, Sequence[Finding]], chosen: Collection[str]
) -> None:
    """Asked about what an edit can affect, rules find there what they find when they are asked about all."""
    if not {ARGOCD, PLATFORM}.isdisjoint(chosen):
        return  # then they are asked about all
    part = replace(repository, chosen=chosen)
    for name in told:
        here, there = (
            [each for each in found if not each.folders or not set(each.folders).isdisjoint(chosen)]
            for found in (validate.RULES[name](part), told[name])
        )
        assert here == there, name


def _render(root: Path, folders: list[str], fixture: Fixture) -> dict[str, list[Object]]:
    """The renders that an edit can change. Raises Refused where a file is refused before any rule is asked."""
    read_policy(root)
    changed = kustomize.build_all(root, closure.readers(root, folders, [fixture.file]))
    return {folder: kustomize.objects(text) for folder, text in changed.items()}


def _without_schema(root: Path, folders: list[str], fixture: Fixture) -> list[str]:
    with contextlib.ExitStack() as stack:
        for name in fixture.catchers & SCHEMAS.keys():
            stack.enter_context(mock.patch.object(SCHEMAS[name], "schema_faults", return_value=[]))
        try:
            _render(root, folders, fixture)
        except Refused as refused:
            return list(refused.lines)
    return []


def catcher(fixture: Fixture, line: str) -> str:
    """Which catcher a line is from; those before the rules do not say it in the line."""
    name = line.rpartition("[")[2].rstrip("]")
    return name if line.endswith("]") and name in CATCHERS else next(iter(fixture.catchers - set(validate.RULES)), "")

"""Rendering: plain kustomize, which files it reads, what is refused, and renders compared as objects."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import SAMPLE, Checkout
from hypothesis import given, settings
from hypothesis import strategies as st

from gitops.manifests import closure, kustomize
from gitops.manifests.objects import differences, identity, leaves
from gitops.programs import tools
from gitops.repo import layout, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import read_policy

from contract.errors import Refused

FOLDERS = [*layout.overlays(SAMPLE, read_policy(SAMPLE)), "argocd"]


def copy(source: Path, target: Path, files: set[str]) -> Path:
    """A folder with only these files of another."""
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target / name, follow_symlinks=False)
    return target


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def built(root: Path, folder: str) -> str | None:
    """What kustomize itself makes of a folder; None where it fails."""
    done = subprocess.run([tools.KUSTOMIZE.path, "build", folder], cwd=root, capture_output=True, text=True)
    return None if done.returncode else done.stdout


@pytest.mark.parametrize("folder", FOLDERS)
def test_plain_kustomize_renders_every_overlay_in_a_fresh_clone_without_a_warning(manifests: Path, folder: str) -> None:
    done = subprocess.run(
        [tools.KUSTOMIZE.path, "build", folder], cwd=manifests, env={}, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == kustomize.build(manifests, folder)
    assert kustomize.objects(done.stdout) == kustomize.rendered(manifests, folder)


ODD = """apiVersion: v1
kind: ConfigMap
metadata:
  name: odd
data:
  date: "2026-02-01"
  number: "1e3"
  merge: "<<"
  equal: "="
  word: "yes"
  none: "null"
  long: |
    two

    lines
  unicode: "\u00e9\U0001f600"
values: [1, 0, -7, 1.5, 0.1, 9007199254740993, 1000000, true, null, "", [], {}]
"""


def test_objects_are_those_of_the_text_whatever_their_values_are(tmp_path: Path) -> None:
    write(tmp_path, {"top/kustomization.yaml": "resources: [odd.yaml]\n", "top/odd.yaml": ODD})

    assert kustomize.rendered(tmp_path, "top") == kustomize.objects(kustomize.build(tmp_path, "top"))


# Which files a render reads


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_files_of_a_closure_are_all_that_a_render_needs(manifests: Path, tmp_path: Path, folder: str) -> None:
    alone = copy(manifests, tmp_path, closure.closure(manifests, folder))

    assert built(alone, folder) == built(manifests, folder)


# One environment stands for all: they are laid out alike.
@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder.startswith(("overlays/prod/", "argocd"))])
def test_a_render_needs_every_file_of_its_closure(manifests: Path, tmp_path: Path, folder: str) -> None:
    files = closure.closure(manifests, folder)
    alone = copy(manifests, tmp_path, files)
    whole = built(alone, folder)

    unread = []
    for name in files:
        (alone / name).rename(tmp_path / "aside")
        if built(alone, folder) == whole:
            unread.append(name)
        (tmp_path / "aside").rename(alone / name)

    assert unread == []


POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n    - name: a\n      image: a:1\n"
PATCH = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    of: patch\n"
OPERATIONS = '[{"op": "add", "path": "/metadata/labels", "value": {"of": "operations"}}]'
COMPONENT = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
REPLACEMENT = (
    "source: {kind: Pod, name: a, fieldPath: metadata.name}\n"
    "targets: [{select: {kind: Pod}, fieldPaths: [metadata.labels.of], options: {create: true}}]\n"
)


def plugin(kind: str, *fields: str) -> str:
    """The configuration of a generator or transformer that is part of kustomize."""
    return "\n".join(["apiVersion: builtin", f"kind: {kind}", "metadata: {name: a}", *fields])


PATCHER = plugin("PatchTransformer", "path: patch.yaml", "target: {kind: Pod}")
READ = {
    "component": (
        "components: [../part]",
        {"part/kustomization.yaml": f"{COMPONENT}patches: [{{path: patch.yaml}}]", "part/patch.yaml": PATCH},
    ),
    "base": (
        "resources: [pod.yaml, ../part]",
        {"part/kustomization.yaml": "nameSuffix: -b\nresources: [b.yaml]", "part/b.yaml": POD},
    ),
    "patch": ("patches: [{path: patch.yaml}]", {"top/patch.yaml": PATCH}),
    "operations": ("patches: [{path: patch.json, target: {kind: Pod}}]", {"top/patch.json": OPERATIONS}),
    "strategic merge": ("patchesStrategicMerge: [patch.yaml]", {"top/patch.yaml": PATCH}),
    "JSON 6902": (
        "patchesJson6902: [{path: patch.json, target: {version: v1, kind: Pod, name: a}}]",
        {"top/patch.json": OPERATIONS},
    ),
    "replacement": ("replacements: [{path: sub/replacement.yaml}]", {"top/sub/replacement.yaml": REPLACEMENT}),
    "configuration": (
        "labels: [{pairs: {of: a}, includeSelectors: true}]\nconfigurations: [config.yaml]",
        {"top/config.yaml": "commonLabels: [{kind: Pod, path: spec/nodeSelector, create: true}]"},
    ),
    "generated files": (
        "configMapGenerator: [{name: a, files: [plain.txt, key=sub/named.txt]}]",
        {"top/plain.txt": "a", "top/sub/named.txt": "b"},
    ),
    "generated variables": (
        "configMapGenerator: [{name: a, envs: [one.env], literals: [c=d]}, {name: b, env: two.env}]",
        {"top/one.env": "a=b", "top/two.env": "a=b"},
    ),
    "secret": ("secretGenerator: [{name: a, files: [key=a.txt]}]", {"top/a.txt": "a"}),
    "transformer": (
        "transformers: [t.yaml]",
        {
            "top/t.yaml": plugin(
                "LabelTransformer", "labels: {of: a}", "fieldSpecs: [{path: metadata/labels, create: true}]"
            )
        },
    ),
    "transformer with a file": ("transformers: [t.yaml]", {"top/t.yaml": PATCHER, "top/patch.yaml": PATCH}),
    "inline transformer with a file": (
        "transformers:\n  - |-\n" + "".join(f"    {line}\n" for line in PATCHER.splitlines()),
        {"top/patch.yaml": PATCH},
    ),
    "generator with a file": (
        "generators: [g.yaml]",
        {"top/g.yaml": plugin("ConfigMapGenerator", "files: [data/more.txt]"), "top/data/more.txt": "a"},
    ),
    "OpenAPI": ("openapi: {path: api.json}", {"top/api.json": '{"definitions": {}}'}),
}


@pytest.mark.parametrize(("field", "files"), READ.values(), ids=READ)
def test_a_closure_follows_every_field_that_names_files(tmp_path: Path, field: str, files: dict[str, str]) -> None:
    resources = "" if field.startswith("resources") else "resources: [pod.yaml]\n"
    write(tmp_path, {"top/kustomization.yaml": f"{resources}{field}\n", "top/pod.yaml": POD, **files})
    whole = kustomize.build(tmp_path, "top")

    assert closure.closure(tmp_path, "top") == {"top/kustomization.yaml", "top/pod.yaml", *files}
    for name in files:
        (tmp_path / name).rename(tmp_path / "aside")
        assert built(tmp_path, "top") != whole, name
        (tmp_path / "aside").rename(tmp_path / name)


def test_a_closure_has_links_and_what_they_lead_to(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"top/kustomization.yaml": "resources: [linked]\n", "part/kustomization.yaml": "resources: [pod.yaml]\n"},
    )
    write(tmp_path, {"part/pod.yaml": POD})
    (tmp_path / "top/linked").symlink_to("../part")

    assert kustomize.build(tmp_path, "top") == kustomize.build(tmp_path, "part")
    assert closure.closure(tmp_path, "top") == {
        "top/kustomization.yaml", "top/linked", "part/kustomization.yaml", "part/pod.yaml",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "folders"),
    [
        ("base/api/service.yaml", ["overlays/dev/lily-api", "overlays/staging/lily-api", "overlays/prod/lily-api"]),
        ("apps/lily-sklearn/runtime.yaml", [f"overlays/{e}/lily-sklearn" for e in ("dev", "staging", "prod")]),
        (
            "overlays/dev/shared/model-reader.yaml",
            [f"overlays/dev/{app}" for app in ("lily-api", "lily-batch", "lily-sklearn")],
        ),
        (
            "overlays/dev/shared/gone.yaml",
            [f"overlays/dev/{app}" for app in ("lily-api", "lily-batch", "lily-sklearn")],
        ),
        ("overlays/prod/environment/resourcequota.yaml", ["overlays/prod/environment"]),
        ("base/api/gone.yaml", ["overlays/dev/lily-api", "overlays/staging/lily-api", "overlays/prod/lily-api"]),
        ("argocd/root.yaml", ["argocd"]),
        ("overlays/promotion.yaml", []),
        ("README.md", []),
    ],
)
def test_the_readers_of_a_file_are_the_folders_that_render_with_it(
    manifests: Path, file: str, folders: list[str]
) -> None:
    assert closure.readers(manifests, FOLDERS, [file]) == folders


# What is refused


UNCHECKED = "of this repository; nothing else would be checked"
OUTSIDE = f"no file, or folder with a kustomization.yaml, {UNCHECKED}"


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ("resources: ['https://example.com/pod.yaml']", f"resources: 'https://example.com/pod.yaml': {OUTSIDE}"),
        ("resources: ['github.com/a/b//c?ref=v1']", f"resources: 'github.com/a/b//c?ref=v1': {OUTSIDE}"),
        ("resources: ['git@github.com:a/b.git']", f"resources: 'git@github.com:a/b.git': {OUTSIDE}"),
        ("bases: ['https://github.com/a/b']", f"bases: 'https://github.com/a/b': {OUTSIDE}"),
        ("components: ['ssh://git@github.com/a/b']", f"components: 'ssh://git@github.com/a/b': {OUTSIDE}"),
        ("patches: [{path: 'https://example.com/a.yaml'}]", f"patches: 'https://example.com/a.yaml': {OUTSIDE}"),
        ("openapi: {path: 'https://example.com/a.json'}", f"openapi: 'https://example.com/a.json': {OUTSIDE}"),
        ("configMapGenerator: [{files: ['b=https://c.d/e']}]", f"configMapGenerator: 'https://c.d/e': {OUTSIDE}"),
        ("resources: [../../elsewhere]", f"resources: '../../elsewhere': {OUTSIDE}"),
        ("resources: [../gone.yaml]", f"resources: '../gone.yaml': {OUTSIDE}"),
        ("resources: [../other]", f"resources: '../other': {OUTSIDE}"),
        ("transformers: [../other]", f"transformers: '../other': {OUTSIDE}"),
        ("transformers: ['https://github.com/a/b']", f"transformers: 'https://github.com/a/b': {OUTSIDE}"),
    ],
)  # fmt: skip
def test_what_a_kustomization_takes_from_elsewhere_is_refused(tmp_path: Path, field: str, error: str) -> None:
    """The folder `other` spells its file kustomization.yml, which kustomize takes and nothing else here does."""
    root = tmp_path / "root"
    write(root, {"top/kustomization.yaml": f"{field}\n", "other/kustomization.yml": "resources: [pod.yaml]\n"})
    write(root, {"part/kustomization.yaml": "resources: [pod.yaml]\n", "part/pod.yaml": POD, "other/pod.yaml": POD})
    write(tmp_path, {"elsewhere/kustomization.yaml": "resources: []\n"})

    with pytest.raises(Refused) as refused:
        kustomize.build(root, "top")

    assert refused.value.lines == (f"top/kustomization.yaml: {error}",)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"resources:\n  - [", "line 3: not YAML: did not find expected node content"),
        (b"a: \xff", "not YAML: invalid leading UTF-8 octet"),
    ],
)
def test_a_kustomization_that_is_not_yaml_is_refused(tmp_path: Path, text: bytes, error: str) -> None:
    (tmp_path / "kustomization.yaml").write_bytes(text)

    with pytest.raises(Refused) as refused:
        kustomize.build(tmp_path, ".")

    assert refused.value.lines == (f"kustomization.yaml: {error}",)


@pytest.mark.parametrize("text", ["", "[]", "text", "resources: text", "patches: {path: 1}", "configMapGenerator: [a]"])
def test_a_kustomization_of_another_shape_is_left_to_kustomize(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"top/kustomization.yaml": text})

    with pytest.raises(Refused):
        kustomize.build(tmp_path, "top")


def test_faults_of_all_folders_are_reported_each_with_its_folder_and_no_path_of_this_machine(
    manifests: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for name in ("base", "apps", "overlays", "argocd"):
        shutil.copytree(manifests / name, root / name)
    for file, old, new in (
        ("overlays/dev/lily-api/release.yaml", "name: lily-api", "name: lily-app"),
        ("overlays/prod/lily-api/kustomization.yaml", "path: /spec/rules/0/host", "path: /spec/rule/0/host"),
        ("base/environment/limitrange.yaml", "metadata:\n", "metadata\n"),
    ):
        (root / file).write_text((root / file).read_text().replace(old, new, 1))
    (root / "base/inference-service/serviceaccount.yaml").unlink()

    with pytest.raises(Refused) as refused:
        kustomize.build_all(root, FOLDERS)

    lines = refused.value.lines
    missing = f"base/inference-service/kustomization.yaml: resources: 'serviceaccount.yaml': {OUTSIDE}"
    assert not [line for line in lines if str(tmp_path) in line]
    assert [line.partition(": ")[0] for line in lines if line != missing] == [
        "base/environment/limitrange.yaml", "overlays/dev/lily-api", "overlays/prod/lily-api",
    ]  # fmt: skip
    assert lines.count(missing) == 1
    assert "overlays/dev/lily-api: no resource matches strategic merge patch" in lines[1]


# Comparing


def test_equal_and_merge_signs_are_text() -> None:
    assert kustomize.objects("a: =\nb: <<\n") == [{"a": "=", "b": "<<"}]


@pytest.mark.parametrize(
    ("version", "kind", "metadata", "shown"),
    [
        ("v1", "Pod", {"name": "a", "namespace": "b"}, "Pod b/a"),
        ("apps/v1", "Deployment", {"name": "a", "namespace": "b"}, "Deployment.apps b/a"),
        ("v1", "Namespace", {"name": "a"}, "Namespace a"),
    ],
)
def test_an_identity_is_written_as_kubectl_does(version: str, kind: str, metadata: Any, shown: str) -> None:
    assert str(identity({"apiVersion": version, "kind": kind, "metadata": metadata})) == shown


ONE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: a, labels: {b: "1"}}
spec:
  containers:
    - {name: x, image: i, ports: [{containerPort: 1}]}
    - {name: y, args: [p, q]}
---
apiVersion: v1
kind: Service
metadata: {name: s}
"""
SAME = """\
# Documents and keys in another order, other quotes, other layout.
kind: "Service"
apiVersion: v1
metadata:
  name: s
---
kind: Deployment
apiVersion: apps/v1
spec:
  containers:
  - image: 'i'
    name: x
    ports:
    - containerPort: 1
  - args:
    - p
    - q
    name: y
metadata:
  labels:
    b: '1'
  name: a
"""


def compare(before: str, after: str) -> list[tuple[str, str, Any, Any]]:
    found = differences(kustomize.objects(before), kustomize.objects(after))
    return [(str(d.identity), d.path, d.before, d.after) for d in found]


def test_order_quotes_and_layout_are_no_difference() -> None:
    assert compare(ONE, SAME) == []


@pytest.mark.parametrize(
    ("old", "new", "path", "before", "after"),
    [
        ("image: i", "image: j", "spec.containers[x].image", "i", "j"),
        ("[p, q]", "[p, r]", "spec.containers[y].args[1]", "q", "r"),
        ("[p, q]", "[p]", "spec.containers[y].args[1]", "q", None),
        ('b: "1"', "b: 1", "metadata.labels.b", "1", 1),
        ('{b: "1"}', "{b: null}", "metadata.labels.b", "1", None),
        ("containerPort: 1", "containerPort: 2", "spec.containers[x].ports[0].containerPort", 1, 2),
        ("apps/v1", "apps/v2", "apiVersion", "apps/v1", "apps/v2"),
        ("image: i, ", "image: i, args: [], ", "spec.containers[x].args", None, []),
        ("name: a, ", "name: a, uid: null, ", "metadata.uid", None, None),
    ],
)
def test_a_difference_names_the_object_the_field_and_both_values(
    old: str, new: str, path: str, before: Any, after: Any
) -> None:
    assert compare(ONE, ONE.replace(old, new)) == [("Deployment.apps a", path, before, after)]


def test_a_renamed_object_is_another_one() -> None:
    before, after = "kind: A\nmetadata: {name: a}\n", "kind: A\nmetadata: {name: b}\n"

    assert compare(before, after) == [
        ("A a", "kind", "A", None), ("A a", "metadata.name", "a", None),
        ("A b", "kind", None, "A"), ("A b", "metadata.name", None, "b"),
    ]  # fmt: skip


@pytest.mark.parametrize("names", [["a", "a"], ["a", None], ["a", 1], [{}, {}]])
def test_items_without_a_name_of_their_own_go_by_position(names: list[Any]) -> None:
    items = [{"name": name, "value": at} for at, name in enumerate(names)]

    assert {"[0].value", "[1].value"} <= leaves(items).keys()


def test_yaml_of_a_render_is_what_the_objects_say(manifests: Path) -> None:
    text = kustomize.build(manifests, "overlays/prod/lily-api")

    assert kustomize.objects(text) == list(yaml.safe_load_all(text))


# The program that renders and stays


def test_what_was_asked_before_changes_no_render(manifests: Path, tmp_path: Path) -> None:
    """Kustomize's library keeps the schema of a build for the process; a faulty build and one with a schema of its own
    come in between."""
    write(tmp_path, {
        "own/kustomization.yaml": "resources: [a.yaml]\nopenapi: {path: schema.json}\n",
        "own/schema.json": '{"definitions": {}}',
        "own/a.yaml": "apiVersion: example.com/v1\nkind: A\nmetadata: {name: a}\n",
        "faulty/kustomization.yaml": "resources: [b.yaml]\n",
        "faulty/b.yaml": "kind: [\n",
    })  # fmt: skip
    before = {folder: kustomize.build(manifests, folder) for folder in FOLDERS}
    assert kustomize.build(tmp_path, "own")
    with pytest.raises(Refused):
        kustomize.build(tmp_path, "faulty")

    assert {folder: kustomize.build(manifests, folder) for folder in reversed(FOLDERS)} == before


def test_a_program_that_was_stopped_is_started_again(manifests: Path) -> None:
    before = kustomize.build(manifests, FOLDERS[0])
    for process in psutil.Process().children():
        if process.name().startswith("manifests"):
            process.kill()
            process.wait()

    assert kustomize.build(manifests, FOLDERS[0]) == before


def test_a_fork_asks_a_program_of_its_own(manifests: Path) -> None:
    kustomize.build(manifests, FOLDERS[0])
    mine = [process.pid for process in psutil.Process().children()]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            kustomize.build(manifests, FOLDERS[1])
            started = [process.pid for process in psutil.Process().children()]
            code = 0 if started and not set(started) & set(mine) else 2
        finally:
            os._exit(code)

    assert os.waitpid(child, 0)[1] == 0
    assert kustomize.build(manifests, FOLDERS[0])


def test_the_program_has_the_versions_of_those_it_stands_for() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (tools.TOOLS / name / "go.mod").read_text()
        return dict(re.findall(r"^\s*(?:require )?(\S+) (v\S+)", text, re.M))

    both = pins("manifests")
    for library in ("sigs.k8s.io/kustomize/api", "sigs.k8s.io/kustomize/kyaml"):
        assert both[library] == pins("kustomize")[library]
    assert both["github.com/yannh/kubeconform"] == pins("kubeconform")["github.com/yannh/kubeconform"]


# Which renders a change can affect, told from Git


class Memory:
    """Files that are nowhere, for closures."""

    root = "/commit"

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.steps: dict[str, closure.Step | None] = {}
        self._files = files
        self._folders = {parent.as_posix() for path in files for parent in Path(path).parents}

    def isfile(self, path: str) -> bool:
        return path.removeprefix("/commit/") in self._files

    def isdir(self, path: str) -> bool:
        return path == self.root or path.removeprefix("/commit/") in self._folders

    def realpath(self, path: str) -> str:
        return path

    def read(self, path: str) -> bytes:
        return self._files[path.removeprefix("/commit/")]

    @property
    def kustomizations(self) -> list[str]:
        return [path for path in self._files if Path(path).name == "kustomization.yaml"]

    def mentioning(self, words: Iterable[bytes]) -> dict[str, bytes]:
        wanted = list(words)
        return {path: text for path, text in self._files.items() if any(word in text for word in wanted)}


PLACES = ("a", "a/b", "a/b/c", "d", "d/b", "d/e", "overlays/x", "overlays/y")
WORDS = [
    "r.yaml", "./r.yaml", "..", "../..", "../b", "../r.yaml", "b", "b/c", "../../d", "../../a/b", "../x", "../x/r.yaml",
    "../../d/e", "name=../b/r.yaml", "t.yaml", "../t.yaml", "c/../r.yaml", "../../d/b/../e/r.yaml",
]  # fmt: skip


def as_word(word: str, how: str) -> str:
    """A word as YAML can write it."""
    if how == "escaped":
        return '"' + "".join(f"\\x{ord(letter):02x}" for letter in word) + '"'
    return f'"files: [\\"{word}\\"]\\n"' if how == "inline" else json.dumps(word)


WAYS = ["plain", "plain", "escaped", "inline"]
TEXTS = st.builds(
    lambda words, encoding: ("resources:\n" + "".join(f"- {word}\n" for word in words)).encode(encoding),
    st.lists(st.builds(as_word, st.sampled_from(WORDS), st.sampled_from(WAYS)), max_size=2),
    st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16"]),
)  # fmt: skip
KUSTOMIZATIONS = st.dictionaries(
    st.sampled_from([f"{place}/kustomization.yaml" for place in PLACES]), TEXTS, min_size=4
)
OTHER = st.dictionaries(
    st.sampled_from([f"{place}/{name}" for place in PLACES for name in ("r.yaml", "t.yaml")]),
    TEXTS.map(lambda text: "kind: builtin\n".encode("utf-16" if text[:1] in b"\xff\xfe" else "utf-8") + text),
    min_size=4,
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(KUSTOMIZATIONS, OTHER, st.data())
def test_what_is_suspected_has_all_that_a_change_affects(
    kustomizations: dict[str, bytes], other: dict[str, bytes], data: st.DataObject
) -> None:
    files = Memory(kustomizations | other)
    changed = data.draw(st.sampled_from(sorted([*kustomizations, *other, "a/gone.yaml", "overlays/x/gone.yaml"])))
    try:
        affected = closure.readers(files, PLACES, [changed])
    except Refused:  # a text that is not YAML
        return

    assert set(affected) <= set(closure.suspects(files, PLACES, [changed]))


def test_few_are_suspected(checkout: Checkout) -> None:
    there = snapshot.at(Git(checkout.root), "HEAD").commit
    assert there is not None

    for folder in FOLDERS:
        assert closure.closure(there, folder) == closure.closure(checkout.root, folder)
    assert closure.suspects(there, FOLDERS, ["overlays/dev/lily-api/release.yaml"]) == [
        f"overlays/{environment}/lily-api" for environment in ("dev", "staging", "prod")
    ]


def test_what_was_foreseen_is_asked_of_git_no_more(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    there = snapshot.at(Git(checkout.root), "HEAD").commit
    assert there is not None
    changed = ["overlays/dev/lily-api/release.yaml"]

    closure.foresee(there, ["lily-api"])
    monkeypatch.setattr(Git, "mentioning", None)

    assert closure.suspects(there, FOLDERS, changed)


def test_what_a_render_reads_is_copied_alone(checkout: Checkout) -> None:
    for rev in ("HEAD", None):
        with snapshot.at(Git(checkout.root), rev).copied(["overlays/dev/lily-api"]) as tree:
            assert kustomize.build(tree, "overlays/dev/lily-api") == built(checkout.root, "overlays/dev/lily-api")
            assert not (tree / "overlays/prod").exists()


def test_a_link_makes_all_be_copied(checkout: Checkout) -> None:
    (checkout.root / "base/linked").symlink_to("api")
    write(checkout.root, {"overlays/dev/linked/kustomization.yaml": "resources: [../../../base/linked]\n"})
    checkout.commit("Link")

    for rev in ("HEAD", None):
        with snapshot.at(Git(checkout.root), rev).copied(["overlays/dev/linked"]) as tree:
            assert kustomize.build(tree, "overlays/dev/linked")
            assert (tree / "overlays/prod").exists()


def test_an_equals_sign_and_a_tag_of_somebodys_own_hide_no_file_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: A\n")
    (tmp_path / "kustomization.yaml").write_text("a: =\nb: !mine [=]\nc: !other {d: e}\nresources: [!file a.yaml]\n")

    assert closure.closure(tmp_path, ".") == {"a.yaml", "kustomization.yaml"}

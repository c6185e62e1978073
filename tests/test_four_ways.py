"""One model by every way of serving there is, each an app of its own: one command releases, promotes or rolls back all
of them in one commit, which changes their release files and, in what is rendered, only what a release says."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import BUCKET, REGISTRY, S3, SAMPLE, Checkout, Version, make_checkout, package, run

from gitops.manifests import kustomize
from gitops.manifests.objects import Object, identity, leaves
from gitops.releases import release_file
from gitops.releases.release import UNRELEASED, Release
from gitops.repo import layout

MODEL = "tulip"
SHAPES = sorted(folder.parent.name for folder in SAMPLE.glob(f"base/*/{layout.SKELETON}"))
APPS = [f"{MODEL}-{shape}" for shape in SHAPES]
# What a release calls its image where there is no container, by its content.
ARCHIVE = b"a service"
ARCHIVE_KEY = f"services/{hashlib.sha256(ARCHIVE).hexdigest()}.tar.gz"
IMAGES = {"vm": f"s3://{BUCKET}/{ARCHIVE_KEY}"}
WHY = ("--reason", "wrong answers for late tulips")


def image(app: str) -> str:
    return IMAGES.get(app.removeprefix(f"{MODEL}-"), f"{REGISTRY}/{app}@sha256:{'1' * 64}")


def releases(read: Callable[[str], bytes | None], environment: str) -> dict[str, Release]:
    return {app: release_file.read_all(read, app, environment)[0] for app in APPS}


def files(environment: str, name: str = layout.RELEASE_FILE) -> list[str]:
    return [f"{layout.overlay(app, environment)}/{name}" for app in APPS]


class Garden(Checkout):
    """A clone in which each shape has an app of the model."""

    def __init__(self, made: Checkout, versions: tuple[Version, Version]) -> None:
        super().__init__(made.root, made.remote)
        self.versions = versions

    def done(self, command: str, *args: str) -> str:
        """What a command printed that has to work; this clone then has what cicd has."""
        done = self.run(command, *args)
        assert done.code == 0, done.err
        self.git("fetch", "-q", "origin")
        self.git("checkout", "-q", "-B", "cicd", "origin/cicd")
        return done.out

    def promote(self, to: str, *more: str) -> str:
        """Promotes and merges; the commit before."""
        before = self.tip()
        told = json.loads(self.done("promote_model", "--model", MODEL, "--to", to, "--push", "--json", *more))
        self.merge(told["branch"])
        return before

    def bump_all(self, version: Version) -> None:
        """Releases in dev what is released there already, with the images that are there."""
        self.done("bump_model", "--model-uri", version.uri, "--push")

    def changed(self, before: str, after: str = "cicd") -> list[str]:
        return self.git("diff", "--name-only", before, after).split()

    def running(self, environment: str) -> dict[str, str]:
        return {app: item.version for app, item in releases(self.file, environment).items()}

    def file(self, path: str) -> bytes | None:
        return self.read(path) if (self.root / path).is_file() else None

    def renders(self, *environments: str) -> dict[str, list[Object]]:
        """The objects of every app of the repository, by overlay."""
        folders = [layout.overlay(app, name) for name in environments for app in layout.apps(self.root)]
        return {folder: kustomize.objects(kustomize.build(self.root, folder)) for folder in folders}


@pytest.fixture(scope="module")
def planted(template: Path, s3_server: S3, tmp_path_factory: pytest.TempPathFactory) -> Garden:
    """Two versions, of which dev runs the first in every app. Tests must not change it."""
    made = make_checkout(template, tmp_path_factory.mktemp("planted"))
    for shape in SHAPES:
        done = made.run("new_model", MODEL, "--shape", shape, "--only", "app")
        assert done.code == 0, done.err
    # What AWS has of an environment, which a skeleton cannot know.
    for file in made.root.glob(f"overlays/*/{MODEL}-*/*.yaml"):
        file.write_text(re.sub(r"(?<=[-/])0{8}", "0a1b2c3d", file.read_text()))
    made.commit("An app for every shape", push=True)
    one, two = (package(made.root.parent / name, name, MODEL) for name in ("one", "two"))
    return Garden(made, (one, two))


@pytest.fixture
def garden(planted: Garden, s3: S3, tmp_path: Path) -> Garden:
    made = Garden(make_checkout(planted.remote, tmp_path), planted.versions)
    for version in made.versions:
        s3.upload(version)
    s3.client.put_object(Bucket=BUCKET, Key=ARCHIVE_KEY, Body=ARCHIVE, ChecksumAlgorithm="SHA256")
    now = releases(made.file, "dev")
    asked = [f"{app}:dev={made.versions[0].uri}" + (f",{image(app)}" if now[app].image else "") for app in APPS]
    made.done("bump_model", *(word for text in asked for word in ("--release", text)), "--push")
    return made


def by_identity(objects: list[Object]) -> dict[str, Object]:
    return {str(identity(item)): item for item in objects}


def said_anew(objects: list[Object], old: bytes, new: bytes) -> dict[str, Object]:
    """These objects with every value of one release file in the place of that of another, and nothing else."""
    before, after = (leaves(yaml.safe_load(text)) for text in (old, new))
    assert before.keys() == after.keys()
    text = json.dumps(objects)
    for path in before:
        text = text.replace(str(before[path]), str(after[path]))
    return by_identity(json.loads(text))


def test_a_version_comes_to_every_way_of_serving_by_one_commit_and_is_taken_back_by_another(garden: Garden) -> None:
    two = garden.versions[1]
    assert garden.changed("cicd^") == files("dev")
    garden.promote("staging")
    garden.bump_all(two)
    assert garden.changed("cicd^") == files("dev")
    rendered = garden.renders("dev", "staging", "prod")
    texts = [garden.read(file) for file in files("staging")]

    before = garden.promote("staging")

    assert garden.changed(before) == files("staging")
    assert garden.git("rev-list", "--count", "--no-merges", f"{before}..cicd") == "1"
    assert garden.running("staging") == dict.fromkeys(APPS, two.version)
    expected = {folder: by_identity(objects) for folder, objects in rendered.items()}
    for file, text in zip(files("staging"), texts, strict=True):
        folder = file.rpartition("/")[0]
        expected[folder] = said_anew(rendered[folder], text, garden.read(file))
        assert expected[folder] != by_identity(rendered[folder])
    assert {folder: by_identity(objects) for folder, objects in garden.renders("dev", "staging", "prod").items()} == (
        expected
    )
    assert garden.run("validate", "--changed-since", before).errors == []

    promoted = garden.tip()
    garden.done("rollback_model", "--model", MODEL, "--env", "staging", *WHY, "--push")

    assert garden.git("rev-list", "--count", f"{promoted}..cicd") == "1"
    assert garden.changed(promoted) == sorted([*files("staging"), *files("staging", "hold.yaml")])
    # Byte by byte what was there.
    assert garden.changed(before) == files("staging", "hold.yaml")
    assert garden.renders("dev", "staging", "prod") == rendered
    assert garden.run("validate", "--changed-since", promoted).errors == []
    trailers = garden.git("log", "-1", "--format=%(trailers:only)").splitlines()
    assert [line for line in trailers if line.startswith("Release: ")] == [f"Release: {app} staging" for app in APPS]
    assert trailers[-2:] == [f"Rolled-Back-From: {two.version}", "Reason: wrong answers for late tulips"]


def test_a_rollback_by_model_that_is_asked_for_again_is_done(garden: Garden) -> None:
    garden.bump_all(garden.versions[1])
    # Somebody has begun.
    garden.done("rollback_model", "--app", APPS[0], "--env", "dev", *WHY, "--push")

    garden.done("rollback_model", "--model", MODEL, "--env", "dev", *WHY, "--push")

    assert garden.running("dev") == dict.fromkeys(APPS, garden.versions[0].version)
    assert [app for app in APPS if f"overlays/dev/{app}/hold.yaml" in garden.changed("cicd^")] == APPS[1:]
    before = garden.state()
    done = garden.run("rollback_model", "--model", MODEL, "--env", "dev", *WHY, "--push")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("nothing to change: rolled back and held for this reason already")
    assert garden.state() == before


def test_a_rollback_by_model_proposed_twice_is_one_branch(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    garden.bump_all(garden.versions[1])
    asked = ("rollback_model", "--model", MODEL, "--env", "dev", *WHY, "--pull-request")
    tips = []
    for day in ("2026-03-01", "2026-03-02"):  # which stands in the holds
        monkeypatch.setenv("GIT_AUTHOR_DATE", f"{day}T12:00:00Z")
        done = garden.run(*asked)
        assert done.code == 0, done.err
        [line] = garden.git("ls-remote", "origin", "rollback/*").splitlines()
        tips.append(line)

    assert f"rollback/dev/{len(APPS)}-apps-" in tips[0]
    assert tips[0] == tips[1]


def test_the_holds_of_a_model_are_released_by_one_commit(garden: Garden) -> None:
    garden.bump_all(garden.versions[1])
    garden.done("rollback_model", "--model", MODEL, "--env", "dev", *WHY, "--push")

    garden.done("rollback_model", "--model", MODEL, "--env", "dev", "--release-hold", "--push")

    assert garden.changed("cicd^") == files("dev", "hold.yaml")
    assert garden.git("log", "-1", "--format=%(trailers:only)").splitlines() == [
        f"Hold-Released: {app} dev" for app in APPS
    ]
    none = garden.run("rollback_model", "--model", MODEL, "--env", "dev", "--release-hold")
    assert none.errors == [f"--model {MODEL}: no app of it is held in dev"]
    garden.bump_all(garden.versions[1])
    assert garden.running("dev") == dict.fromkeys(APPS, garden.versions[1].version)


def test_what_a_model_does_not_run_alike_is_refused_as_a_whole(garden: Garden) -> None:
    one, two = garden.versions
    garden.promote("staging")
    garden.done("bump_model", "--app", APPS[0], "--env", "dev", "--model-uri", two.uri, "--push")
    before = garden.state()
    running = "; ".join(f"{app} in dev runs {two.version if app == APPS[0] else one.version}" for app in APPS)

    for asked in (("promote_model", "--to", "staging"), ("rollback_model", "--env", "dev", *WHY)):
        done = garden.run(*asked, "--model", MODEL, "--push")
        assert done.code == 1
        assert done.errors == [
            f"--model {MODEL}: its apps run different versions: {running}; name those that are meant with --app"
        ]
    # One that has nothing to go back to.
    done = garden.run("rollback_model", "--model", MODEL, "--env", "staging", *WHY, "--push")
    assert [line.partition(":")[0] for line in done.errors] == [f"overlays/staging/{APPS[0]}/release.yaml"]
    assert garden.state() == before


def test_one_app_that_is_held_or_one_byte_that_is_altered_stops_all(garden: Garden, s3: S3) -> None:
    garden.promote("staging")
    garden.bump_all(garden.versions[1])
    garden.promote("staging")
    garden.done("rollback_model", "--app", APPS[-1], "--env", "staging", *WHY, "--push")
    before = garden.state()

    held = garden.run("promote_model", "--model", MODEL, "--to", "staging", "--push")
    gone = f"{garden.versions[1].uri}onnx/model.onnx"
    s3.client.delete_object(Bucket=BUCKET, Key=gone.removeprefix(f"s3://{BUCKET}/"))
    missing = garden.run("promote_model", "--model", MODEL, "--to", "prod", "--push")

    assert (held.code, held.errors[0].partition(":")[0]) == (1, f"overlays/staging/{APPS[-1]}/hold.yaml")
    assert missing.code == 1
    assert garden.state() == before


def test_an_app_that_was_never_released_before_is_left_out(garden: Garden) -> None:
    garden.done("promote_model", "--app", APPS[0], "--to", "staging", "--push")
    [branch] = garden.git("ls-remote", "--heads", "origin", "promote/*").splitlines()
    garden.merge(branch.split("refs/heads/")[1])

    garden.promote("prod")

    assert garden.running("prod") == dict.fromkeys(APPS, UNRELEASED) | {APPS[0]: garden.versions[0].version}


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("promote_model", "--model", "rose", "--to", "staging"), "--model rose: no app of it is released there"),
        (("promote_model", "--model", MODEL, "--to", "dev"), "--to dev: the first environment; "),
        (("promote_model", "--model", MODEL, "--to", "qa"), "overlays/promotion.yaml: environments: no 'qa'; "),
        (("rollback_model", "--model", MODEL, "--env", "qa", *WHY), "overlays/promotion.yaml: environments: no 'qa'; "),
        (("rollback_model", "--model", MODEL, "--env", "prod", *WHY), f"--model {MODEL}: no app of it is released"),
    ],
)
def test_a_model_that_is_not_there_is_refused(garden: Garden, args: tuple[str, ...], line: str) -> None:
    before = garden.state()

    done = garden.run(*args)

    assert done.code == 1
    assert done.errors[0].startswith(line)
    assert garden.state() == before


@pytest.mark.parametrize(
    "args",
    [
        ("promote_model", "--to", "staging"),
        ("promote_model", "--model", MODEL, "--app", APPS[0], "--to", "staging"),
        ("rollback_model", "--env", "dev", *WHY),
        ("rollback_model", "--model", MODEL, "--env", "dev", *WHY, "--image", "registry.example.com/x:1"),
    ],
)
def test_wrong_usage_is_exit_2(args: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*args)

    assert ended.value.args == (2,)

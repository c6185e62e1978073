"""A release names its version's manifest: what was altered since is refused, and older releases still work."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import BUCKET, CODE_COMMIT, IMAGE, S3, Checkout, Version, make_checkout, package

from gitops.manifests import yamledit
from gitops.releases import release_file
from gitops.releases.release import Release, Target, make

from contract.digest import MANIFEST, version_digest
from contract.manifest import SIGNATURE
from contract.manifest import parse as parse_manifest

API, SKLEARN, BATCH = "lily-api", "lily-sklearn", "lily-batch"
FILE = "overlays/{}/{}/release.yaml"
PARAMETERS = "argocd/platform/admission/parameters.yaml"


def put(s3: S3, version: Version, data: dict[str, Any] | None = None) -> None:
    """Stores a version as a writer of the bucket would, whatever its manifest is."""
    files = {file.relative_to(version.folder): file for file in version.folder.rglob("*") if file.is_file()}
    for path, file in files.items():
        body = json.dumps(data, indent=2).encode() if data and file.name == MANIFEST else file.read_bytes()
        s3.client.put_object(Bucket=BUCKET, Key=f"models/lily/{version.version}/{path}", Body=body)


def bump(checkout: Checkout, app: str, version: Version, *options: str) -> Any:
    args = ("--app", app, "--env", "dev", "--model-uri", version.uri, "--push", *options)
    return checkout.run("bump_model", *args)


# Altered after the release


@pytest.fixture(scope="module")
def released(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A remote in which the API went from one version to the next in dev, and the stock server has the first one."""
    made = make_checkout(template, tmp_path_factory.mktemp("released"))
    one, two = (package(made.root.parent / name, name) for name in ("one", "two"))
    for app, version, flavour in ((API, one, "onnx"), (SKLEARN, one, "sklearn"), (API, two, "onnx")):
        write(made, Target(app, "dev"), version, flavour)
        made.commit(f"Release {app}", push=True)
    return made.remote


def write(checkout: Checkout, target: Target, version: Version, flavour: str, *, former: bool = False) -> None:
    """A release as a command writes it, or as one wrote it before releases named manifests."""
    file = FILE.format(target.environment, target.app)
    now = release_file.read(checkout.read(file), target, file)
    described = parse_manifest((version.folder / MANIFEST).read_bytes(), MANIFEST)
    new = make(now, f"{version.uri}{flavour}/", described, None if now.image is None else IMAGE)
    checkout.write(
        file, release_file.write(checkout.read(file), replace(new, manifest=None if former else new.manifest))
    )


CHANGES: dict[str, Any] = {
    "metrics": {"accuracy": 1.0}, "parameters": {"n_estimators": 7}, "code_commit": "a" * 40,
    "data_digest": f"sha256:{'a' * 64}", "evaluation_set_digest": f"sha256:{'a' * 64}", "mlflow_run": "a" * 32,
    "frameworks": {"python": "3.12.2"}, "draft": True, "schema": 1, "model": "rose",
    "version": "2026-02-02-000000000000", "digest": f"sha256:{'a' * 64}", "files": [], "signature": {},
    "more": 1,
}  # fmt: skip


@pytest.mark.parametrize("field", [*CHANGES, "labels", "size", "blanks"])
def test_a_manifest_that_was_altered_after_its_release_goes_nowhere(
    field: str, released: Path, tmp_path: Path, s3: S3
) -> None:
    checkout = make_checkout(released, tmp_path)
    version, second = (package(tmp_path / name, name) for name in ("one", "two"))
    put(s3, second)
    data = json.loads((version.folder / MANIFEST).read_text())
    if field == "labels":
        data["signature"]["outputs"][0]["labels"].reverse()
    elif field == "size":
        data["files"][0]["size"] += 1
    elif field != "blanks":
        data[field] = CHANGES[field]
    put(s3, version, data)
    if field == "blanks":
        key = f"models/lily/{version.version}/{MANIFEST}"
        s3.client.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(data).encode())
    before = checkout.state()

    done = [
        checkout.run("list_versions", "--model", "lily", "--verify"),
        bump(checkout, BATCH, version, "--image", IMAGE),
        checkout.run("promote_model", "--app", SKLEARN, "--to", "staging"),
        checkout.run("rollback_model", "--app", API, "--env", "dev", "--reason", "slow"),
    ]

    assert [each.code for each in done] == [1] * len(done), [each.err for each in done]
    assert not [line for each in done for line in each.errors if version.version not in line]
    assert checkout.state() == before
    # What is of a run and not of the files is no difference to an upload: the stored one stays.
    again = checkout.run("upload_model", "--model", "lily", "--artifacts", version.folder)
    assert again.code == (0 if field in ("code_commit", "mlflow_run", "blanks") else 1), again.err


def test_both_hashes_are_told(released: Path, tmp_path: Path, s3: S3) -> None:
    checkout = make_checkout(released, tmp_path)
    version = package(tmp_path / "one", "one")
    altered = version.data | {"metrics": {"accuracy": 1.0}}
    put(s3, version, altered)
    found = f"sha256:{hashlib.sha256(json.dumps(altered, indent=2).encode()).hexdigest()}"

    done = checkout.run("promote_model", "--app", SKLEARN, "--to", "staging")
    bumped = bump(checkout, BATCH, version, "--image", IMAGE)

    assert done.errors == [
        f"{FILE.format('dev', SKLEARN)}: manifest: {version.manifest}, but {version.uri}{MANIFEST} has {found};"
        " the manifest in the bucket is not the one that was released, do not release it again"
    ]
    assert bumped.errors == [
        f"{FILE.format('dev', BATCH)}: {version.version}: manifest {found}, but another release of it names"
        f" {version.manifest}; a version has one manifest, find out who wrote the other;"
        " withdraw the version and train anew if that cannot be told"
    ]


# Released before releases named manifests


def former_package(folder: Path, content: str) -> Version:
    """A version of schema 1, whose signature is in the manifest alone."""
    made = package(folder, content)
    (made.folder / SIGNATURE).unlink()
    files = [file for file in made.data["files"] if file["path"] != SIGNATURE]
    digest = version_digest((file["path"], file["sha256"]) for file in files)
    version = f"{made.version[:10]}-{digest[7:19]}"
    signature = {
        "inputs": [{"name": "sepal_length", "type": "float32"}], "outputs": {"labels": ["setosa", "versicolor"]},
    }  # fmt: skip
    data = made.data | {
        "schema": 1, "files": files, "digest": digest, "version": version, "signature": signature,
    }  # fmt: skip
    (made.folder / MANIFEST).write_text(json.dumps(data, indent=2))
    return Version(made.folder, version, digest, f"s3://{BUCKET}/models/lily/{version}/", data)


def without_manifests(checkout: Checkout) -> None:
    """Takes out of the repository what came with manifests in releases."""
    for path in checkout.git("ls-files", "overlays").split():
        text = checkout.read(path).decode()
        text = re.sub(r" *model\.mlops/manifest: .*\n", "", text)
        checkout.write(path, re.sub(r" *- name: MODEL_MANIFEST\n.*\n", "", text))
    checkout.replace(PARAMETERS, '  require-manifest: "true"\n', "")


@pytest.fixture(scope="module")
def former(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A remote with releases of the former form: two versions came to dev, and both to staging."""
    made = make_checkout(template, tmp_path_factory.mktemp("former"))
    without_manifests(made)
    made.commit("As it was", push=True)
    for name in ("one", "two"):
        version = former_package(made.root.parent / name, name)
        for environment in ("dev", "staging"):
            for app, flavour in ((API, "onnx"), (SKLEARN, "sklearn")):
                write(made, Target(app, environment), version, flavour, former=True)
            made.commit(f"Release {name} in {environment}", push=True)
    return made.remote


@pytest.fixture
def old(former: Path, tmp_path: Path, s3: S3) -> Iterator[tuple[Checkout, Version, Version]]:
    versions = [former_package(tmp_path / name, name) for name in ("one", "two")]
    for version in versions:
        put(s3, version)
    yield make_checkout(former, tmp_path), versions[0], versions[1]


def now(checkout: Checkout, app: str, environment: str) -> Release:
    file = FILE.format(environment, app)
    return release_file.read(checkout.git("show", f"origin/cicd:{file}").encode(), Target(app, environment), file)


def test_the_former_history_is_read_and_valid(old: tuple[Checkout, Version, Version]) -> None:
    checkout, first, second = old

    done = checkout.run("releases", "--app", API, "--env", "staging", "--json")
    rows = json.loads(done.out)["releases"]
    verified = checkout.run("list_versions", "--model", "lily", "--verify")

    assert [(row["version"], row["manifest"]) for row in rows] == [(second.version, None)], done.err
    assert (verified.code, checkout.run("validate").code) == (0, 0), verified.err
    assert first.version in verified.out


@pytest.mark.parametrize("app", [API, SKLEARN])
def test_a_rollback_adds_the_stored_manifests_hash(old: tuple[Checkout, Version, Version], app: str) -> None:
    checkout, first, second = old
    before = checkout.git("show", f"origin/cicd:{FILE.format('staging', app)}").splitlines()

    done = checkout.run("rollback_model", "--app", app, "--env", "staging", "--reason", "slow", "--push")

    file = FILE.format("staging", app)
    assert done.err.splitlines() == [
        f"pushed {checkout.tip()[:12]} to cicd at origin: roll back and hold {app} in staging, from {second.version} to"
        f" {first.version}",
        f"{file}: {first.version} was released without the SHA-256 of its manifest, which is now that of the stored"
        " one",
    ], done.err
    assert (now(checkout, app, "staging").version, now(checkout, app, "staging").manifest) == (
        first.version, first.manifest,
    )  # fmt: skip
    after = checkout.git("show", f"origin/cicd:{file}").splitlines()
    # Nothing but the values, the annotation and, for our own service, the variable.
    assert len(after) - len(before) == (3 if app == API else 1)
    assert checkout.run("validate", "--changed-since", "origin/cicd~1").code == 0


def test_a_bump_of_what_runs_and_a_promotion_of_it_add_the_hash(old: tuple[Checkout, Version, Version]) -> None:
    checkout, _, second = old

    bumped = bump(checkout, API, second)
    told = checkout.run("promote_model", "--app", API, "--to", "prod", "--push")

    assert bumped.code == 0, bumped.err
    assert now(checkout, API, "dev").manifest == second.manifest
    assert told.code == 0, told.err
    assert f"{FILE.format('staging', API)}: {second.version} was released without the SHA-256" in told.err
    checkout.merge(f"promote/prod/{API}-{second.version}-111111111111")
    assert now(checkout, API, "prod").manifest == second.manifest
    again = checkout.run("promote_model", "--app", API, "--to", "staging", "--push")
    assert again.code == 0, again.err
    checkout.merge(f"promote/staging/{API}-{second.version}-111111111111")
    assert now(checkout, API, "staging").manifest == second.manifest


def test_what_ran_there_may_come_back_in_its_former_form_and_loses_no_hash(
    old: tuple[Checkout, Version, Version],
) -> None:
    checkout, first, second = old
    base = checkout.git("rev-parse", "HEAD")

    # A `git revert` of the last release in staging.
    write(checkout, Target(API, "staging"), first, "onnx", former=True)
    checkout.commit("Revert")
    reverted = checkout.run("validate", "--changed-since", base)
    assert reverted.code == 0, reverted.err

    checkout.git("reset", "-q", "--hard", base)
    assert bump(checkout, API, second).code == 0
    checkout.git("pull", "-q")
    base = checkout.git("rev-parse", "HEAD")
    without = re.sub(r" *model\.mlops/manifest: .*\n", "", checkout.read(FILE.format("dev", API)).decode())
    checkout.write(FILE.format("dev", API), re.sub(r" *- name: MODEL_MANIFEST\n.*\n", "", without))
    checkout.commit("Forget")
    lost = checkout.run("validate", "--changed-since", base)
    assert lost.code == 1
    assert f"{second.version}: lost its manifest {second.manifest}; put the line back" in lost.err


def test_a_new_release_of_the_former_form_is_refused(old: tuple[Checkout, Version, Version]) -> None:
    checkout, first, _ = old
    base = checkout.git("rev-parse", "HEAD")
    write(checkout, Target(API, "prod"), first, "onnx", former=True)
    checkout.commit("By hand")

    done = checkout.run("validate", "--changed-since", base)

    assert f"{first.version}: names no manifest; only bump_model.py, promote_model.py and" in done.err
    assert done.code == 1


def test_admission_asks_for_it_in_a_later_merge_than_the_files(old: tuple[Checkout, Version, Version]) -> None:
    checkout, _, second = old
    asked = '  require-manifest: "true"\n  # Where an image is named'
    checkout.replace(PARAMETERS, "  # Where an image is named", asked)

    done = checkout.run("validate")

    assert done.code == 1
    wanted = "metadata.annotations.model.mlops/manifest: missing, and require-manifest"
    assert len([line for line in done.errors if wanted in line]) == 4
    for environment in ("dev", "staging"):
        for app, flavour in ((API, "onnx"), (SKLEARN, "sklearn")):
            write(checkout, Target(app, environment), second, flavour)
    assert checkout.run("validate").code == 0


def test_images_of_the_former_form_can_be_rolled_back_and_a_bump_tells_what_they_lack(
    old: tuple[Checkout, Version, Version], tmp_path: Path
) -> None:
    checkout, first, second = old
    kustomization = f"overlays/dev/{API}/kustomization.yaml"
    file = FILE.format("dev", API)
    released = release_file.read(checkout.read(file), Target(API, "dev"), file)
    name, _, digest = IMAGE.partition("@")
    values = dict(zip(("version", "digest", "code-commit", "data-digest", "mlflow-run", "uri"), (
        released.version, released.digest, CODE_COMMIT, released.data_digest, released.mlflow_run, released.uri,
    ), strict=True))  # fmt: skip
    carried = "".join(
        f"  - source:\n      kind: Deployment\n      fieldPath: metadata.annotations.[model.mlops/{field}]\n"
        f"    targets:\n      - select:\n          kind: Deployment\n        fieldPaths:\n"
        f"          - spec.template.spec.containers.[name=api].env.[name={variable}].value\n"
        for field, variable in (("uri", "MODEL_URI"), ("digest", "MODEL_DIGEST"))
    )
    checkout.git("rm", "-q", file)
    checkout.replace(kustomization, "  - path: release.yaml\n", "")
    checkout.write(
        kustomization,
        checkout.read(kustomization).decode() + "\ncommonAnnotations:\n"
        + "".join(f"  model.mlops/{name}: {value}\n" for name, value in values.items())
        + f"\nimages:\n  - name: unreleased\n    newName: {name}\n    digest: {digest}\n\nreplacements:\n{carried}",
    )  # fmt: skip
    checkout.commit("Keep it in images", push=True)

    bumped = bump(checkout, API, first)
    rolled = checkout.run("rollback_model", "--app", API, "--env", "dev", "--reason", "slow", "--push")

    assert bumped.errors == [
        f"{kustomization}: no {yamledit.show(('commonAnnotations', 'model.mlops/manifest'))}; add it, and the"
        " replacement that carries it to the container, by a pull request: CONTRIBUTING.md has both"
    ]
    assert rolled.code == 0, rolled.err
    assert first.uri in checkout.git("show", f"origin/cicd:{kustomization}")
    assert second.version in rolled.err

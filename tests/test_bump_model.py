from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import (
    BUCKET,
    IMAGE,
    REGISTRY,
    S3,
    Checkout,
    Version,
    in_folder,
    make_checkout,
    package,
    run,
    write_release,
)

from gitops.manifests import kustomize
from gitops.releases.release import Target

from contract.digest import version_digest

API = ("--app", "lily-api", "--env", "dev")
BATCH = ("--app", "lily-batch", "--env", "dev")
SKLEARN = ("--app", "lily-sklearn", "--env", "dev")
API_FILE = "overlays/dev/lily-api/release.yaml"
BATCH_FILE = "overlays/dev/lily-batch/release.yaml"
SKLEARN_FILE = "overlays/dev/lily-sklearn/release.yaml"
URI = f"s3://{BUCKET}/models/lily/2026-02-01-000000000000/"


@pytest.fixture
def second(tmp_path: Path, s3: S3, version: Version) -> Version:
    made = package(tmp_path / "second", "two")
    s3.upload(made)
    return made


@pytest.fixture(scope="module")
def kept(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make_checkout(template, tmp_path_factory.mktemp("kept"))


@pytest.fixture
def local(kept: Checkout) -> Checkout:
    """One checkout for all tests that push nothing, for each as if it were new."""
    kept.git("checkout", "-q", "-f", "-B", "cicd", "origin/cicd")
    kept.git("clean", "-fdq")
    return kept


def bump(checkout: Checkout, *args: str) -> None:
    done = checkout.run("bump_model", *args)
    assert done.code == 0, done.err


def refused(checkout: Checkout, *args: str) -> list[str]:
    """The errors of a bump that must be refused and change nothing."""
    before = checkout.state()
    done = checkout.run("bump_model", *args)
    assert (done.code, done.out) == (1, ""), done.err
    assert checkout.state() == before
    return done.errors


# What is written, and where


@pytest.mark.parametrize(
    ("args", "file"),
    [((*API, "--image", IMAGE), API_FILE), ((*BATCH, "--image", IMAGE), BATCH_FILE), (SKLEARN, SKLEARN_FILE)],
    ids=["api", "batch", "kserve"],
)
def test_without_commit_only_the_release_file_of_this_checkout_changes(
    local: Checkout, version: Version, args: tuple[str, ...], file: str
) -> None:
    before = local.state()

    done = local.run("bump_model", *args, "--model-uri", version.uri)

    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [
        f"edited {file}, not committed: release {version.version} as {args[1]} in dev",
        "next: " + in_folder(local.root, f"git commit -m 'Release {args[1]} in dev to {version.version}' -- {file}"),
    ]
    after = local.state()
    assert after["status"] == f"M {file}"
    assert {name for name in after if after[name] != before[name]} == {"status", "diff"}
    assert local.run("bump_model", *args, "--model-uri", version.uri).err.startswith("nothing to change")
    assert local.state() == after


def on_main(checkout: Checkout) -> None:
    checkout.git("checkout", "-q", "main")


def detached(checkout: Checkout) -> None:
    checkout.git("checkout", "-q", "--detach")


def on_a_branch_with_edits(checkout: Checkout) -> None:
    checkout.git("checkout", "-q", "-b", "topic", "origin/main")
    checkout.write("README.md", "edited\n")
    checkout.write("model-src/new.py", "staged\n")
    checkout.git("add", "model-src/new.py")
    checkout.write("untracked.txt", "untracked\n")


def on_cicd(checkout: Checkout) -> None:
    checkout.write("README.md", "edited\n")


@pytest.mark.parametrize("prepare", [on_main, detached, on_a_branch_with_edits, on_cicd])
def test_a_commit_goes_to_cicd_whatever_is_checked_out(
    local: Checkout, version: Version, prepare: Callable[[Checkout], None]
) -> None:
    prepare(local)
    head, status = local.git("rev-parse", "--abbrev-ref", "HEAD"), local.git("status", "--porcelain")
    remote = local.tip()

    done = local.run("bump_model", *API, "--model-uri", version.uri, "--image", IMAGE, "--commit")

    assert (done.code, done.out) == (0, f"{local.git('rev-parse', 'cicd')}\n")
    commit = local.git("rev-parse", "cicd")
    assert done.err.splitlines() == [
        f"committed {commit[:12]} to cicd here, not pushed: release {version.version} as lily-api in dev",
        f"next: {in_folder(local.root, 'git push origin cicd')}",
        "or, where cicd takes pull requests alone: python scripts/bump_model.py --root"
        f" {local.root} {' '.join(API)} --model-uri {version.uri} --image {IMAGE} --pull-request",
    ]
    assert local.git("rev-parse", "cicd^") == remote == local.tip()
    assert local.git("diff", "--name-only", "cicd^", "cicd") == API_FILE
    assert local.git("rev-parse", "--abbrev-ref", "HEAD") == head
    assert local.git("status", "--porcelain") == status
    followed = f"model.mlops/version: {version.version}" in local.read(API_FILE).decode()
    assert followed == (head == "cicd")


def test_a_push_lands_also_from_a_clone_without_a_local_cicd(checkout: Checkout, version: Version) -> None:
    checkout.git("checkout", "-q", "main")
    checkout.git("branch", "-qD", "cicd")
    base = checkout.tip()

    done = checkout.run("bump_model", *SKLEARN, "--model-uri", version.uri, "--push")

    assert (done.code, done.out) == (0, f"{checkout.tip()}\n")
    assert checkout.git("rev-parse", "origin/cicd^") == base
    assert checkout.git("branch", "--format=%(refname:short)") == "main"


@pytest.mark.parametrize("option", [(), ("--commit",), ("--push",)], ids=["checkout", "commit", "push"])
def test_a_dry_run_shows_and_changes_nothing(local: Checkout, version: Version, option: tuple[str, ...]) -> None:
    before = local.state()

    done = local.run("bump_model", *SKLEARN, "--model-uri", version.uri, "--dry-run", *option)

    assert (done.code, done.out, done.err) == (0, "", f"would release {version.version} as lily-sklearn in dev\n")
    assert local.state() == before


@pytest.mark.parametrize("option", [("--commit",), ("--dry-run", "--push")])
def test_json_tells_the_commit_and_the_releases(local: Checkout, version: Version, option: tuple[str, ...]) -> None:
    done = local.run("bump_model", *API, "--model-uri", version.uri, "--image", IMAGE, "--json", *option)

    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {
        "way": option[-1].removeprefix("--"),
        "branch": "cicd",
        "next": [in_folder(local.root, "git push origin cicd")] if option == ("--commit",) else [],
        "commit": local.git("rev-parse", "cicd") if option == ("--commit",) else None,
        "releases": [
            {
                "app": "lily-api",
                "environment": "dev",
                "version": version.version,
                "digest": version.digest,
                "code_commit": version.data["code_commit"],
                "data_digest": version.data["data_digest"],
                "mlflow_run": version.data["mlflow_run"],
                "uri": f"{version.uri}onnx/",
                "image": IMAGE,
                "canary": None,
                "manifest": version.manifest,
                "revision": "",
                "file": "overlays/dev/lily-api/release.yaml",
            }
        ],
        "dry_run": "--dry-run" in option,
    }


def test_several_releases_are_one_commit_with_a_block_of_trailers_each(local: Checkout, version: Version) -> None:
    both = ("--release", f"lily-sklearn:dev={version.uri}", "--release", f"lily-api:dev={version.uri},{IMAGE}")

    done = local.run("bump_model", *both, "--commit")

    assert (done.code, done.out) == (0, f"{local.git('rev-parse', 'cicd')}\n")
    assert local.git("rev-parse", "cicd^") == local.tip()
    assert local.git("diff", "--name-only", "cicd^", "cicd").split() == [API_FILE, SKLEARN_FILE]
    message = local.git("log", "-1", "--format=%B", "cicd")
    assert message.startswith(
        f"Release lily-sklearn in dev to {version.version} and 1 more\n\n"
        f"- lily-sklearn in dev: {version.uri}sklearn/\n- lily-api in dev: {version.uri}onnx/\n\n"
    )
    (local.root / ".git/message").write_text(message)
    block = [
        f"Model-Version: {version.version}",
        f"Model-Digest: {version.digest}",
        f"Model-Manifest: {version.manifest}",
        f"Code-Commit: {version.data['code_commit']}",
        f"Data-Digest: {version.data['data_digest']}",
        f"MLflow-Run: {version.data['mlflow_run']}",
    ]
    assert local.git("interpret-trailers", "--parse", ".git/message").splitlines() == [
        "Release: lily-sklearn dev", *block, "Release: lily-api dev", *block, f"Image: {IMAGE}",
    ]  # fmt: skip


def test_the_same_again_makes_no_commit(checkout: Checkout, version: Version) -> None:
    bump(checkout, *SKLEARN, "--model-uri", version.uri, "--push")
    before = checkout.state()

    done = checkout.run("bump_model", *SKLEARN, "--model-uri", version.uri, "--push")

    assert (done.code, done.out, done.err) == (0, "", "nothing to change: this is what is released already\n")
    assert checkout.state() == before


def test_what_was_committed_is_pushed_by_the_same_command_with_push(checkout: Checkout, version: Version) -> None:
    bump(checkout, *SKLEARN, "--model-uri", version.uri, "--commit")

    done = checkout.run("bump_model", *SKLEARN, "--model-uri", version.uri, "--push")

    assert done.code == 0
    assert done.err.splitlines()[0] == "pushed what cicd had here before"
    assert checkout.tip() == checkout.git("rev-parse", "cicd")


# Bytes


def as_comments(text: str) -> str:
    return text.replace("\n", "   # why not\n").replace("metadata:", "\n\n# what it is\nmetadata:")


def as_flow(text: str) -> str:
    data = text.split("metadata:\n")[0]
    return data + (
        "metadata: {name: lily-sklearn, annotations: {model.mlops/version: unreleased,\n"
        "  model.mlops/digest: 'unreleased', model.mlops/manifest: unreleased,\n"
        '  model.mlops/code-commit: "unreleased", model.mlops/data-digest: unreleased  ,\n'
        "  model.mlops/mlflow-run: unreleased}}\n"
        'spec: {predictor: {model: {"storageUri": s3://unreleased/}}}'
    )


STYLES: dict[str, Callable[[str], str]] = {
    "plain": str,
    "comments at line ends": as_comments,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "flow style": as_flow,
    "byte order mark and a document start": lambda text: f"\ufeff---\n{text}",
    "double quotes": lambda text: text.replace("unreleased\n", '"unreleased"\n'),
    "single quotes": lambda text: text.replace("unreleased\n", "'unreleased'\n"),
    "wide indents and no line end": lambda text: text.replace("  ", "     ").rstrip("\n"),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_bump_there_and_back_is_the_same_tree_and_each_changes_one_file(
    local: Checkout, version: Version, second: Version, style: str
) -> None:
    local.write(SKLEARN_FILE, STYLES[style](local.read(SKLEARN_FILE).decode()))
    write_release(local.root, Target("lily-sklearn", "dev"), version, "sklearn")
    local.commit(style)

    bump(local, *SKLEARN, "--model-uri", second.uri, "--commit")
    bump(local, *SKLEARN, "--model-uri", version.uri, "--commit")

    for commit in ("cicd", "cicd~1"):
        stat = local.git("diff", "--stat=200", f"{commit}^", commit).splitlines()
        assert [line.split("|")[0].strip() for line in stat[:-1]] == [SKLEARN_FILE]
    assert local.git("diff", "--stat", "cicd", "cicd~2") == ""


def test_a_list_that_is_not_indented_stays_so_and_the_image_stays_with_a_new_model(
    local: Checkout, version: Version, second: Version
) -> None:
    head, tail = local.read(API_FILE).decode().split("      containers:\n")
    flush = "".join(line.removeprefix("  ") for line in tail.splitlines(keepends=True))
    local.write(API_FILE, f"{head}      containers:\n{flush}")
    local.commit("Flush")
    bump(local, *API, "--model-uri", version.uri, "--image", IMAGE, "--commit")

    bump(local, *API, "--model-uri", second.uri, "--commit")

    changed = [line for line in local.git("diff", "-U0", "cicd^", "cicd").splitlines() if line.startswith("+ ")]
    assert [line.split()[1] for line in changed] == [
        "model.mlops/version:", "model.mlops/digest:", "model.mlops/manifest:", "value:", "value:", "value:",
    ]  # fmt: skip
    assert local.git("diff", "--stat", "cicd^", "cicd").splitlines()[-1].startswith(" 1 file changed")


@pytest.mark.parametrize("option", [(), ("--commit",)], ids=["checkout", "commit"])
def test_the_mode_of_the_file_stays(local: Checkout, version: Version, option: tuple[str, ...]) -> None:
    (local.root / SKLEARN_FILE).chmod(0o755)
    local.commit("Executable")

    bump(local, *SKLEARN, "--model-uri", version.uri, *option)

    local.git("add", "-A")
    assert local.git("ls-files", "--stage", SKLEARN_FILE).startswith("100755 ")


# Renders

ELSEWHERE = (
    "another file reads release.yaml, or copies a value from it, which only an annotation, a variable, an image or a"
    " label that nothing selects by can hold"
)


def copied_by_a_replacement(checkout: Checkout) -> list[str]:
    checkout.write(
        "overlays/dev/lily-api/kustomization.yaml",
        checkout.read("overlays/dev/lily-api/kustomization.yaml")
        + b"replacements:\n  - source: {kind: Deployment, fieldPath: 'metadata.annotations.[model.mlops/version]'}\n"
        b"    targets:\n      - select: {kind: Service}\n        fieldPaths: [spec.selector.version]\n"
        b"        options: {create: true}\n",
    )
    return [
        "overlays/dev/lily-api: Service ml-dev/lily-api: spec.selector.version: would change from 'unreleased'"
        f" to 'VERSION', which is no field of this release; {ELSEWHERE}"
    ]


def included_by_another_overlay(checkout: Checkout) -> list[str]:
    checkout.write("overlays/dev/copy/kustomization.yaml", "resources: [../lily-api]\n")
    return [
        "overlays/dev/copy: Deployment.apps ml-dev/lily-api: metadata.annotations.model.mlops/digest: would change from"
        f" 'unreleased' to 'DIGEST', which is no field of this release; {ELSEWHERE}"
    ]


def image_set_by_a_later_patch(checkout: Checkout) -> list[str]:
    checkout.write(
        "overlays/dev/lily-api/kustomization.yaml",
        checkout.read("overlays/dev/lily-api/kustomization.yaml")
        + b"images:\n  - {name: unreleased, newName: first}\n  - {name: REGISTRY/lily-api, newTag: mine}\n".replace(
            b"REGISTRY", REGISTRY.encode()
        ),
    )
    return [
        "overlays/dev/lily-api: Deployment.apps ml-dev/lily-api: spec.template.spec.containers[api].image: renders as"
        f" '{REGISTRY}/lily-api:mine', not '{IMAGE}'; another patch overrides the release"
    ]


def annotation_set_by_a_later_patch(checkout: Checkout) -> list[str]:
    checkout.replace(
        "overlays/dev/lily-api/kustomization.yaml",
        "  - path: release.yaml\n",
        "  - path: release.yaml\n  - patch: |-\n      apiVersion: apps/v1\n      kind: Deployment\n"
        "      metadata: {name: lily-api, annotations: {model.mlops/mlflow-run: mine}}\n",
    )
    return [
        "overlays/dev/lily-api: Deployment.apps ml-dev/lily-api: metadata.annotations.model.mlops/mlflow-run: renders"
        f" as 'mine', not '{'f' * 32}'; another patch overrides the release"
    ]


@pytest.mark.parametrize(
    "fault",
    [
        copied_by_a_replacement,
        included_by_another_overlay,
        image_set_by_a_later_patch,
        annotation_set_by_a_later_patch,
    ],
)
def test_a_release_that_reaches_too_far_or_not_at_all_is_refused(
    local: Checkout, version: Version, fault: Callable[[Checkout], list[str]]
) -> None:
    expected = [line.replace("VERSION", version.version).replace("DIGEST", version.digest) for line in fault(local)]
    local.commit()

    errors = refused(local, *API, "--model-uri", version.uri, "--image", IMAGE, "--push")

    assert set(expected) <= set(errors)
    assert all(line.startswith(expected[0].split(": ")[0]) for line in errors)


COPIES = """\
replacements:
  - source: {kind: Deployment, fieldPath: 'metadata.annotations.[model.mlops/version]'}
    targets:
      - select: {kind: Deployment}
        fieldPaths: [spec.template.metadata.labels.version, spec.template.metadata.annotations.version]
        options: {create: true}
      - select: {kind: Deployment}
        fieldPaths: ['spec.template.spec.containers.[name=api].env.[name=TELEMETRY].value']
        options: {delimiter: '=', index: 1}
"""
TELEMETRY = """\
  - patch: |-
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: lily-api}
      spec: {template: {spec: {containers: [{name: api, env: [{name: TELEMETRY, value: version=unreleased}]}]}}}
"""


def test_a_release_may_be_copied_to_what_people_and_telemetry_read(local: Checkout, version: Version) -> None:
    file = "overlays/dev/lily-api/kustomization.yaml"
    local.replace(file, "  - path: release.yaml\n", f"  - path: release.yaml\n{TELEMETRY}")
    local.write(file, local.read(file) + COPIES.encode())
    local.commit()
    assert local.run("validate").err == ""

    bump(local, *API, "--model-uri", version.uri, "--image", IMAGE, "--commit")

    local.git("checkout", "-q", "cicd")
    local.git("reset", "-q", "--hard", "cicd")
    text = kustomize.build(local.root, "overlays/dev/lily-api")
    assert f"        version: {version.version}\n" in text
    assert f"value: version={version.version}\n" in text
    assert local.run("validate").err == ""


# The form of the file


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "    model:\n      storageUri: s3://unreleased/\n",
            "    sklearn:\n      storageUri: s3://unreleased/\n",
            "spec.predictor.sklearn.storageUri: a change of it never reaches the running model under server-side apply;"
            " write spec.predictor.model.storageUri and spec.predictor.model.modelFormat.name: sklearn",
        ),
        (
            "    model:\n      storageUri: s3://unreleased/\n",
            "    storageUris:\n      - uri: s3://unreleased/\n",
            "spec.predictor.storageUris: one model per release; write spec.predictor.model.storageUri",
        ),
        (
            "storageUri: s3://unreleased/",
            "storageUri: &uri s3://unreleased/",
            "spec.predictor.model.storageUri: shares its value by the anchor &uri; write the value out",
        ),
        (
            "mlflow-run: unreleased",
            "mlflow-run: !!str unreleased",
            "metadata.annotations.model.mlops/mlflow-run: has the tag !!str; remove it",
        ),
        (
            "    model.mlops/digest: unreleased\n",
            "",
            "metadata.annotations.model.mlops/digest: missing; a release has this field",
        ),
    ],
    ids=["sklearn", "storageUris", "anchor", "tag", "missing"],
)
def test_a_release_file_that_cannot_be_written_is_refused_with_what_to_change(
    local: Checkout, version: Version, old: str, new: str, line: str
) -> None:
    local.replace(SKLEARN_FILE, old, new)
    local.commit()

    assert refused(local, *SKLEARN, "--model-uri", version.uri, "--commit") == [f"{SKLEARN_FILE}: {line}"]


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ((), "a symbolic link; put a file in its place, every release is written to its own"),
        (
            ("--commit",),
            "kind: None of None: a release is written for a Deployment, a StatefulSet, a CronJob, an"
            " InferenceService, a Model of SageMaker or a Stack",
        ),
    ],
    ids=["checkout", "commit"],
)
def test_a_link_in_the_place_of_the_file_is_refused(
    local: Checkout, version: Version, option: tuple[str, ...], line: str
) -> None:
    local.git("mv", SKLEARN_FILE, "overlays/dev/lily-sklearn/real.yaml")
    (local.root / SKLEARN_FILE).symlink_to("real.yaml")
    local.commit()

    assert refused(local, *SKLEARN, "--model-uri", version.uri, *option) == [f"{SKLEARN_FILE}: {line}"]


# Bad requests


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ("--app", "none", "--env", "dev", "--model-uri", URI),
            "apps/none: no such app; the apps are lily-api, lily-batch, lily-sklearn",
        ),
        (
            ("--app", "../lily-api", "--env", "dev", "--model-uri", URI),
            "apps/../lily-api: no such app; the apps are lily-api, lily-batch, lily-sklearn",
        ),
        (
            ("--app", "lily-api", "--env", "qa", "--model-uri", URI),
            "overlays/promotion.yaml: environments: no 'qa'; the environments are dev, staging, prod",
        ),
        (
            (*SKLEARN, "--model-uri", "s3://other/models/lily/2026-02-01-000000000000/"),
            "s3://other/models/lily/2026-02-01-000000000000/: bucket 'other'; overlays/promotion.yaml names the model"
            f" bucket '{BUCKET}'",
        ),
        (
            (*SKLEARN, "--model-uri", f"s3://{BUCKET}/models/wine/2026-02-01-000000000000/"),
            f"s3://{BUCKET}/models/wine/2026-02-01-000000000000/: a version of the model 'wine'; lily-sklearn serves"
            " 'lily'",
        ),
        (
            ("--release", f"lily-api:dev={URI}", "--release", f"lily-api:dev={URI}"),
            "--release: lily-api in dev: given twice; name each app and environment once",
        ),
    ],
)
def test_a_name_that_is_not_there_or_not_the_apps_is_refused(local: Checkout, args: tuple[str, ...], line: str) -> None:
    assert refused(local, *args, "--push") == [line]


@pytest.mark.parametrize(
    "uri",
    [
        "lily",
        f"s3://{BUCKET}",
        f"s3://{BUCKET}/models/lily/latest/",
        f"s3://{BUCKET}/models/lily/2026-02-01-000000000000/sklearn/",
        f"https://{BUCKET}/models/lily/2026-02-01-000000000000/",
        f"s3://{BUCKET}/models/lily/2026-02-01-00000000000G/",
        f"{URI}?versionId=1",
        f" {URI}",
    ],
)
def test_what_is_not_the_uri_of_a_version_is_refused(local: Checkout, uri: str) -> None:
    assert refused(local, *SKLEARN, "--model-uri", uri) == [
        f"{uri!r}: not the URI of a model version; it has the form s3://BUCKET/models/MODEL/YYYY-MM-DD-DIGEST12/,"
        " as upload_model.py and list_versions.py print it"
    ]


def test_a_version_that_is_not_there_is_refused(local: Checkout, s3: S3) -> None:
    line = f"{URI}: no such version in the bucket; `list_versions.py --model lily` lists what is there"

    assert refused(local, *SKLEARN, "--model-uri", URI) == [line]
    s3.client.put_object(Bucket=BUCKET, Key="models/lily/2026-02-01-000000000000/onnx/model.onnx", Body=b"no manifest")
    assert refused(local, *SKLEARN, "--model-uri", URI) == [line]


def test_a_version_whose_bytes_were_altered_is_refused_whatever_the_app_serves(
    local: Checkout, version: Version, s3: S3
) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=f"models/lily/{version.version}/onnx/model.onnx", Body=b"evil 123")

    [line] = refused(local, *SKLEARN, "--model-uri", version.uri)

    assert line.startswith(f"{version.uri}onnx/model.onnx: sha256 {hashlib.sha256(b'evil 123').hexdigest()}, the")
    assert line.endswith("do not release it")


def test_a_manifest_that_was_altered_is_refused_also_together_with_the_bytes(
    local: Checkout, version: Version, s3: S3
) -> None:
    prefix = f"models/lily/{version.version}/"
    data = json.loads(json.dumps(version.data))
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix}onnx/model.onnx", Body=b"evil 123")
    data["files"][0]["sha256"] = hashlib.sha256(b"evil 123").hexdigest()
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix}manifest.json", Body=json.dumps(data).encode())

    computed = version_digest((file["path"], file["sha256"]) for file in data["files"])
    assert refused(local, *SKLEARN, "--model-uri", version.uri) == [
        f"{version.uri}manifest.json: digest: {version.digest}, but the listed files give {computed}"
    ]
    data["digest"] = computed
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix}manifest.json", Body=json.dumps(data).encode())
    assert refused(local, *SKLEARN, "--model-uri", version.uri) == [
        f"{version.uri}manifest.json: version: {version.version} does not end in the first 12 digits of {computed}"
    ]


def test_a_version_without_the_folder_that_the_app_serves_is_refused(local: Checkout, tmp_path: Path, s3: S3) -> None:
    whole = package(tmp_path / "onnx alone")
    files = [file for file in whole.data["files"] if not file["path"].startswith("sklearn/")]
    digest = version_digest((file["path"], file["sha256"]) for file in files)
    name = f"2026-02-01-{digest.removeprefix('sha256:')[:12]}"
    (whole.folder / "sklearn/model.joblib").unlink()
    (whole.folder / "manifest.json").write_text(
        json.dumps(whole.data | {"files": files, "digest": digest, "version": name})
    )
    uri = s3.upload(whole)

    assert refused(local, *SKLEARN, "--model-uri", uri) == [
        f"{uri}: has no folder sklearn/, which the app serves; package that flavour too"
    ]


@pytest.mark.parametrize("env", ["staging", "prod"])
def test_an_environment_is_not_reached_past_the_one_before(local: Checkout, version: Version, env: str) -> None:
    before = {"staging": "dev", "prod": "staging"}[env]

    errors = refused(local, "--app", "lily-sklearn", "--env", env, "--model-uri", version.uri, "--push")

    assert errors == [
        f"overlays/{env}/lily-sklearn/release.yaml: {version.version} has never been released in {before},"
        f" which comes before {env}; release it there first, then run"
        f" `python scripts/promote_model.py --app lily-sklearn --to {env}`"
    ]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (API, f"{API_FILE}: no image yet; the first release of lily-api needs --image"),
        (
            (*SKLEARN, "--image", IMAGE),
            f"--image {IMAGE}: lily-sklearn runs a stock model server and has no image to set",
        ),
        (
            (*API, "--image", f"{REGISTRY}/lily-api:latest"),
            f"--image {REGISTRY}/lily-api:latest: name it as REGISTRY/NAME@sha256:DIGEST, REGISTRY/NAME:TAG or"
            " REGISTRY/NAME:TAG@sha256:DIGEST, and not by `latest` alone",
        ),
        (
            (*API, "--image", "docker.io/library/lily-api:1"),
            "--image docker.io/library/lily-api:1: not in one of the registries of overlays/promotion.yaml:"
            f" {REGISTRY}",
        ),
    ],
    ids=["none", "kserve", "latest", "foreign"],
)
def test_an_image_that_is_missing_or_must_not_be_is_refused(
    local: Checkout, version: Version, args: tuple[str, ...], line: str
) -> None:
    assert refused(local, *args, "--model-uri", version.uri, "--commit") == [line]


# Bad surroundings


@pytest.mark.parametrize("folder", ["base", "apps", "overlays", "argocd"])
def test_uncommitted_changes_of_what_is_deployed_are_refused(local: Checkout, folder: str) -> None:
    file = local.root / folder / "mine.yaml"
    file.write_text("mine")

    errors = refused(local, *SKLEARN, "--model-uri", URI, "--commit")

    file.unlink()
    assert errors == [f"{folder}/mine.yaml: uncommitted change; commit it, or put it away with `git stash`"]


def test_a_clone_without_the_remote_cannot_push(checkout: Checkout) -> None:
    checkout.git("remote", "remove", "origin")

    assert refused(checkout, *SKLEARN, "--model-uri", URI, "--push") == [
        "--push: no remote `origin`; add one with `git remote add origin URL`, or leave --push out"
    ]


def test_a_remote_that_is_away_or_lacks_cicd_is_refused(checkout: Checkout) -> None:
    checkout.git("push", "-q", "origin", "--delete", "cicd")
    assert refused(checkout, *SKLEARN, "--model-uri", URI, "--push") == [
        "origin: no branch cicd there; look at `git remote get-url origin`, a new fork gets its branches by `make init`"
    ]

    checkout.git("remote", "set-url", "origin", str(checkout.root / "none"))
    first, *_ = refused(checkout, *SKLEARN, "--model-uri", URI, "--push")
    assert first == f"git fetch: fatal: '{checkout.root / 'none'}' does not appear to be a git repository"


def test_a_clone_without_cicd_is_refused(checkout: Checkout) -> None:
    checkout.git("checkout", "-q", "main")
    checkout.git("branch", "-qD", "cicd")
    checkout.git("update-ref", "-d", "refs/remotes/origin/cicd")

    assert refused(checkout, *SKLEARN, "--model-uri", URI, "--commit") == [
        "branch cicd: not in this clone; fetch it with `git fetch origin cicd`, or start it with `make init`"
    ]


def test_without_credentials_nothing_is_released(local: Checkout, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    assert refused(local, *SKLEARN, "--model-uri", URI, "--push") == [
        f"{URI}manifest.json: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    ]


def test_a_bucket_that_is_away_is_refused(local: Checkout, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    [line] = refused(local, *SKLEARN, "--model-uri", URI, "--push")

    assert line.startswith(f"{URI}manifest.json: cannot be reached (")
    assert line.endswith("); check the network and AWS_ENDPOINT_URL_S3")


@pytest.mark.parametrize("option", [(), ("--push",)], ids=["checkout", "push"])
def test_a_shallow_clone_is_refused(local: Checkout, tmp_path: Path, option: tuple[str, ...]) -> None:
    local.git("clone", "-q", "--depth", "1", "-b", "cicd", f"file://{local.remote}", str(tmp_path / "shallow"))
    # What makes a clone shallow is a commit whose parent it lacks; the template has one commit alone.
    shallow = Checkout(tmp_path / "shallow", local.remote)
    (shallow.root / ".git/shallow").write_text(shallow.git("rev-parse", "HEAD") + "\n")

    assert refused(shallow, *SKLEARN, "--model-uri", URI, *option) == [
        f"{shallow.root}: shallow clone, so history cannot be trusted; run `git fetch --unshallow`"
    ]


def test_what_is_not_the_top_of_a_repository_is_refused(local: Checkout, tmp_path: Path) -> None:
    for root, line in (
        (tmp_path, f"{tmp_path}: not a git repository; clone one, or name it with --root"),
        (tmp_path / "none", f"--root {tmp_path / 'none'}: not a folder"),
        (
            local.root / "overlays",
            f"{local.root / 'overlays'}: not the top of its git repository; use --root {local.root}",
        ),
    ):
        done = run("bump_model", "--root", root, *SKLEARN, "--model-uri", URI)
        assert (done.code, done.out, done.errors) == (1, "", [line])


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--app", "lily-api"],
        ["--app", "lily-api", "--env", "dev"],
        [*SKLEARN, "--model-uri", URI, "--release", f"lily-api:dev={URI}"],
        ["--release", f"lily-api:dev={URI}", "--image", IMAGE],
        ["--release", "lily-api"],
        ["--release", f"lily-api={URI}"],
        ["--release", f"lily-api:dev={URI},"],
        [*SKLEARN, "--model-uri", URI, "--force"],
    ],
)
def test_wrong_usage_is_exit_2(args: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("bump_model", *args)

    assert ended.value.code == 2


def test_a_version_alone_is_released_for_every_app_of_its_model_that_needs_no_new_image(
    checkout: Checkout, s3: S3, tmp_path: Path
) -> None:
    first = package(tmp_path / "first")
    s3.upload(first)

    done = checkout.run("bump_model", "--model-uri", first.uri, "--push")

    assert done.code == 0, done.err
    assert done.err.splitlines() == [
        f"pushed {checkout.tip()[:12]} to cicd at origin: release {first.version} as lily-sklearn in dev"
    ]
    image = ("--app", "lily-api", "--env", "dev", "--image", IMAGE)
    assert checkout.run("bump_model", *image, "--model-uri", first.uri, "--push").code == 0
    second = package(tmp_path / "second", "two")
    s3.upload(second)
    done = checkout.run("bump_model", "--model-uri", second.uri, "--push")
    assert done.code == 0, done.err
    assert [line.split(" as ")[1] for line in done.err.splitlines()] == ["lily-api in dev", "lily-sklearn in dev"]


def test_a_version_alone_of_a_model_without_apps_changes_nothing(checkout: Checkout, s3: S3, tmp_path: Path) -> None:
    version = package(tmp_path / "prices", model="prices")
    s3.upload(version)
    before = checkout.state()

    done = checkout.run("bump_model", "--model-uri", version.uri, "--push")

    assert (done.code, done.out) == (0, ""), done.err
    assert done.err.startswith("no app of prices in dev can do without a new image\n")
    assert checkout.state() == before

"""What a release can be written into besides a service's own patch: a batch, canaries, `images:` of a kustomization."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import IMAGE, REGISTRY, ROOT, Checkout, Version, make_checkout, package, write_release

from gitops.manifests import kustomize
from gitops.releases.release import Target

SKLEARN, API, BATCH = ("--app", "lily-sklearn"), ("--app", "lily-api"), ("--app", "lily-batch")
FILE = "overlays/{}/lily-sklearn/release.yaml"
KUSTOMIZATION = "overlays/{}/lily-api/kustomization.yaml"


def example(name: str) -> str:
    """A block of CONTRIBUTING.md, said of the sample's model."""
    _, _, rest = (ROOT / "CONTRIBUTING.md").read_text().partition(f"<!-- {name} -->\n```yaml\n")
    return rest.partition("```\n")[0].replace("wine", "lily")


@pytest.fixture
def second(tmp_path: Path, s3: object) -> Version:
    made = package(tmp_path / "second", "two")
    assert s3.upload(made) == made.uri  # type: ignore[attr-defined]
    return made


# Batches


def test_a_batch_is_released_promoted_rolled_back_and_retired_like_a_service(
    checkout: Checkout, version: Version, second: Version
) -> None:
    for made in (version, second):
        bump(checkout, "dev", made, "--image", IMAGE, app=BATCH)
        told = checkout.run("promote_model", *BATCH, "--to", "staging", "--push", "--json")
        assert told.code == 0, told.err
        checkout.merge(json.loads(told.out)["branch"])
    [container] = batch(checkout, "staging")["containers"]
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert container["image"] == IMAGE
    assert (variables["MODEL_URI"], variables["MODEL_DIGEST"]) == (f"{second.uri}onnx/", second.digest)

    back = checkout.run("rollback_model", *BATCH, "--env", "staging", "--reason", "worse", "--push")
    rows = json.loads(checkout.run("releases", *BATCH, "--json").out)["releases"]
    listed = json.loads(checkout.run("list_versions", "--model", "lily", "--json").out)
    checkout.git("checkout", "-q", "-B", "cicd", "origin/cicd")
    retired = checkout.run("retire_app", *BATCH, "--env", "staging", "--reason", "no files come any more", "--push")
    before = checkout.tip()
    checkout.merge("retire/staging/lily-batch")

    assert back.code == retired.code == 0, back.err + retired.err
    assert [(row["version"], row["image"]) for row in rows] == [
        (second.version, IMAGE), (version.version, IMAGE), ("unreleased", "unreleased"),
    ]  # fmt: skip
    assert {item["version"]: item["runs_in"] for item in listed} == {
        version.version: ["lily-batch in staging"], second.version: ["lily-batch in dev"],
    }  # fmt: skip
    assert "- CronJob.batch ml-staging/lily-batch\n" in retired.out
    assert checkout.run("validate", "--changed-since", before).code == 0


def batch(checkout: Checkout, environment: str) -> dict[str, Any]:
    """The pod of a batch, as it is rendered."""
    [item] = [
        item
        for item in kustomize.objects(kustomize.build(checkout.root, f"overlays/{environment}/lily-batch"))
        if item["kind"] == "CronJob"
    ]
    pod: dict[str, Any] = item["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


def test_a_batch_never_slips_past_the_order_or_out_of_the_repository(checkout: Checkout, version: Version) -> None:
    write_release(checkout.root, Target("lily-batch", "prod"), version, "onnx", IMAGE)
    checkout.git("rm", "-qr", "overlays/dev/lily-batch")

    done = checkout.run("validate", "--changed-since", "origin/cicd")

    assert (done.code, done.errors) == (
        1,
        [
            f"overlays/prod/lily-batch/release.yaml: {version.version} has never been released in staging, which comes"
            " before prod; release it there first, then run"
            " `python scripts/promote_model.py --app lily-batch --to prod` [order]",
            "overlays/dev/lily-batch: CronJob.batch ml-dev/lily-batch is no longer rendered; to remove it on purpose,"
            " run `python scripts/retire_app.py --app lily-batch --env dev`, or where the app stays, add an entry for"
            " it to overlays/dev/retired.yaml [removal]",
        ],
    )


def test_a_batch_may_keep_its_release_in_images(checkout: Checkout, version: Version) -> None:
    kustomization = "overlays/dev/lily-batch/kustomization.yaml"
    checkout.git("rm", "-q", "overlays/dev/lily-batch/release.yaml")
    checkout.replace(kustomization, "  - path: release.yaml\n", "")
    kept = example("images").replace("kind: Deployment", "kind: CronJob").replace("[name=api]", "[name=batch]")
    kept = kept.replace("spec.template.", "spec.jobTemplate.spec.template.")
    checkout.write(kustomization, f"{checkout.read(kustomization).decode()}\n{kept}")
    checkout.commit(push=True)

    bump(checkout, "dev", version, "--image", IMAGE, app=BATCH)

    checkout.git("reset", "-q", "--hard", "origin/cicd")
    [container] = batch(checkout, "dev")["containers"]
    variables = {item["name"]: item.get("value") for item in container["env"]}
    assert container["image"] == IMAGE
    assert (variables["MODEL_URI"], variables["MODEL_DIGEST"]) == (f"{version.uri}onnx/", version.digest)
    assert variables["MODEL_MANIFEST"] == version.manifest
    assert checkout.run("validate").code == 0


# Canaries


def like(canary: str, text: str) -> str:
    """A canary with the values of the release beside it, by which it starts."""
    for field in re.findall(r"(model\.mlops/[a-z-]+|storageUri): ", canary):
        value = re.search(rf"{field}: (.*)", text)
        assert value
        canary = re.sub(rf"{field}: .*", f"{field}: {value[1]}", canary)
    return canary


@pytest.fixture(scope="module")
def with_canaries(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A remote in which every environment runs one version, and has a canary of the same."""
    made = make_checkout(template, tmp_path_factory.mktemp("canaries"))
    version = package(made.root.parent / "artifacts")
    for environment in ("dev", "staging", "prod"):
        write_release(made.root, Target("lily-sklearn", environment), version, "sklearn")
        text = made.read(FILE.format(environment)).decode()
        made.write(FILE.format(environment), text + like(example("canary"), text))
    made.commit("Release everywhere", push=True)
    return made.remote


@pytest.fixture
def canaries(with_canaries: Path, tmp_path: Path, version: Version) -> Checkout:
    return make_checkout(with_canaries, tmp_path)


def bump(checkout: Checkout, environment: str, version: Version, *options: str, app: tuple[str, ...] = SKLEARN) -> None:
    done = checkout.run("bump_model", *app, "--env", environment, "--model-uri", version.uri, "--push", *options)
    assert done.code == 0, done.err


def served(checkout: Checkout, environment: str, commit: str = "cicd") -> list[str]:
    """The URIs of what most callers get and of the canary."""
    spec = yaml.safe_load(checkout.git("show", f"{commit}:{FILE.format(environment)}"))["spec"]
    return [part["model"]["storageUri"] for part in (spec["predictor"], spec["canary"][0]["predictor"])]


def test_a_bump_of_a_canary_changes_its_lines_and_nothing_else(
    canaries: Checkout, version: Version, second: Version
) -> None:
    bump(canaries, "dev", second, "--canary", "next")

    assert served(canaries, "dev") == [f"{version.uri}sklearn/", f"{second.uri}sklearn/"]
    stat = canaries.git("diff", "--numstat", "cicd^", "cicd")
    assert stat == f"4\t4\t{FILE.format('dev')}"  # the lineage of both versions is the same
    body = canaries.git("log", "-1", "--format=%B", "cicd").splitlines()
    assert body[0] == f"Release lily-sklearn in dev, canary next to {second.version}"
    assert body[4:6] == ["Release: lily-sklearn dev", "Canary: next"]


def test_a_canary_and_what_most_callers_get_are_released_in_one_commit(
    canaries: Checkout, version: Version, second: Version
) -> None:
    done = canaries.run(
        "bump_model", "--release", f"lily-sklearn:dev={second.uri}", "--release", f"lily-sklearn:dev:next={second.uri}",
        "--commit", "--json",
    )  # fmt: skip

    assert done.code == 0, done.err
    assert [item["canary"] for item in json.loads(done.out)["releases"]] == [None, "next"]
    assert served(canaries, "dev") == [f"{second.uri}sklearn/"] * 2


def test_a_canary_there_and_back_is_the_same_tree(canaries: Checkout, version: Version, second: Version) -> None:
    before = canaries.git("rev-parse", "cicd^{tree}")

    bump(canaries, "dev", second, "--canary", "next")
    bump(canaries, "dev", version, "--canary", "next")

    assert canaries.git("rev-parse", "cicd^{tree}") == before


@pytest.mark.parametrize(
    ("app", "canary", "line"),
    [
        (
            "lily-sklearn",
            "other",
            f"{FILE.format('dev')}: spec.canary: no entry whose predictor.name is 'other'; the canaries are next,"
            " a pull request adds one",
        ),
        (
            "lily-api",
            "next",
            "overlays/dev/lily-api/release.yaml: kind: 'Deployment': no canary 'next'; only an InferenceService has"
            " canaries",
        ),
    ],
)
def test_a_canary_that_is_not_there_is_refused(
    canaries: Checkout, version: Version, app: str, canary: str, line: str
) -> None:
    before = canaries.state()

    done = canaries.run(
        "bump_model", "--app", app, "--env", "dev", "--canary", canary, "--model-uri", version.uri, "--push"
    )  # fmt: skip

    assert (done.code, done.errors) == (1, [line])
    assert canaries.state() == before


def test_what_an_environment_runs_is_promoted_to_a_canary_of_the_next_and_then_to_all(
    canaries: Checkout, version: Version, second: Version
) -> None:
    old, new = f"{version.uri}sklearn/", f"{second.uri}sklearn/"
    bump(canaries, "dev", second)

    for option, expected in ((("--canary", "next"), [old, new]), ((), [new, new])):
        done = canaries.run("promote_model", *SKLEARN, "--to", "staging", *option, "--push", "--json")
        assert done.code == 0, done.err
        told = json.loads(done.out)
        assert told["branch"] == f"promote/staging/lily-sklearn{'-next' if option else ''}-{second.version}"
        assert told["diff"].count("\n+") == 5  # the file's name, and four fields
        canaries.merge(told["branch"])
        assert served(canaries, "staging") == expected


def test_what_ran_as_a_canary_only_is_no_release_of_the_next_environment(
    canaries: Checkout, version: Version, second: Version
) -> None:
    bump(canaries, "dev", second, "--canary", "next")

    done = canaries.run(
        "bump_model", *SKLEARN, "--env", "staging", "--canary", "next", "--model-uri", second.uri, "--push"
    )  # fmt: skip

    assert (done.code, done.errors) == (
        1,
        [
            f"{FILE.format('staging')}: {second.version} has never been released in dev, which comes before staging;"
            " release it there first, then run"
            " `python scripts/promote_model.py --app lily-sklearn --to staging --canary next`"
        ],
    )


def test_a_pull_request_that_slips_a_canary_past_the_order_is_refused(
    canaries: Checkout, version: Version, second: Version
) -> None:
    write_release(canaries.root, Target("lily-sklearn", "prod", "next"), second, "sklearn")

    done = canaries.run("validate", "--changed-since", "origin/cicd")

    assert done.code == 1
    assert [line.rpartition(" [")[2] for line in done.errors] == ["order]"]
    assert f"{FILE.format('prod')}: {second.version} has never been released in staging" in done.errors[0]


def test_a_canary_is_rolled_back_by_itself_and_the_app_is_held(
    canaries: Checkout, version: Version, second: Version
) -> None:
    bump(canaries, "dev", second, "--canary", "next")
    rollback = ("rollback_model", *SKLEARN, "--env", "dev", "--canary", "next", "--reason", "worse", "--push")

    done = canaries.run(*rollback)
    again = canaries.run(*rollback)

    assert (done.code, again.code) == (0, 0), done.err
    assert served(canaries, "dev", "origin/cicd") == [f"{version.uri}sklearn/"] * 2
    assert "nothing to change" in again.err
    refused = canaries.run("bump_model", *SKLEARN, "--env", "dev", "--model-uri", second.uri, "--push")
    assert refused.code == 1
    assert "canary next: worse" in refused.errors[0]


def test_the_same_reason_for_the_app_and_for_its_canary_is_two_rollbacks(
    canaries: Checkout, version: Version, second: Version
) -> None:
    bump(canaries, "dev", second)
    bump(canaries, "dev", second, "--canary", "next")

    for option in ((), ("--canary", "next")):
        done = canaries.run("rollback_model", *SKLEARN, "--env", "dev", "--reason", "worse", "--push", *option)
        assert done.code == 0, done.err

    assert served(canaries, "dev", "origin/cicd") == [f"{version.uri}sklearn/"] * 2


def test_releases_lists_canaries_with_the_commit_that_brought_them(
    canaries: Checkout, version: Version, second: Version
) -> None:
    bump(canaries, "dev", second, "--canary", "next")

    done = canaries.run("releases", "--env", "dev", *SKLEARN, "--json")

    rows = json.loads(done.out)["releases"]
    assert [(row["canary"], row["version"]) for row in rows] == [(None, version.version), ("next", second.version)]
    assert rows[1]["commit"] == canaries.git("rev-parse", "cicd")
    assert "lily-sklearn (canary next)" in canaries.run("releases", "--env", "dev").out


def test_an_app_with_canaries_passes_every_check(canaries: Checkout) -> None:
    done = canaries.run("validate")

    assert (done.code, done.err) == (0, "")


# images: of a kustomization


def keep_in_images(checkout: Checkout, environment: str, field: str = "digest") -> None:
    """Moves the release of lily-api into the overlay's kustomization, as CONTRIBUTING.md tells it."""
    checkout.git("rm", "-q", f"overlays/{environment}/lily-api/release.yaml")
    checkout.replace(KUSTOMIZATION.format(environment), "  - path: release.yaml\n", "")
    text = checkout.read(KUSTOMIZATION.format(environment)).decode()
    added = example("images").replace("    digest: ", f"    {field}: ")
    checkout.write(KUSTOMIZATION.format(environment), f"{text}\n{added}")


def container(checkout: Checkout, folder: str, kind: str) -> tuple[str, dict[str, str]]:
    """The image and the variables of the container of the one object of a kind that a folder renders."""
    items = kustomize.objects(kustomize.build(checkout.root, folder))
    [item] = [item for item in items if item["kind"] == kind]
    [found] = item["spec"]["template"]["spec"]["containers"]
    return found["image"], {each["name"]: each.get("value") for each in found["env"]}


@pytest.fixture
def images(template: Path, tmp_path: Path, version: Version) -> Iterator[Checkout]:
    made = make_checkout(template, tmp_path)
    for environment in ("dev", "staging", "prod"):
        keep_in_images(made, environment)
    made.commit("Keep releases in images", push=True)
    yield made


def test_an_overlay_that_keeps_its_release_in_images_passes_every_check(images: Checkout) -> None:
    done = images.run("validate")

    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("field", "image"),
    [("digest", IMAGE), ("newTag", f"{REGISTRY}/lily-api:1.2.3"), ("newTag", IMAGE.replace("@", ":1.2.3@"))],
)
def test_a_bump_writes_the_image_and_the_model_into_the_kustomization(
    checkout: Checkout, version: Version, field: str, image: str
) -> None:
    keep_in_images(checkout, "dev", field)
    before = checkout.read(KUSTOMIZATION.format("dev")).decode()
    checkout.commit(push=True)

    done = checkout.run(
        "bump_model", *API, "--env", "dev", "--model-uri", version.uri, "--image", image, "--commit"
    )  # fmt: skip

    assert done.code == 0, done.err
    after = checkout.git("show", f"cicd:{KUSTOMIZATION.format('dev')}")
    data = yaml.safe_load(after)
    joint = "@" if field == "digest" else ":"
    assert data["images"] == [
        {"name": "unreleased", "newName": f"{REGISTRY}/lily-api", field: image.partition(joint)[2]}
    ]
    assert data["commonAnnotations"]["model.mlops/uri"] == f"{version.uri}onnx/"
    changed = [line for line, old in zip(after.splitlines(), before.splitlines(), strict=True) if line != old]
    assert len(changed) == 8
    checkout.git("checkout", "-q", "cicd")
    checkout.git("reset", "-q", "--hard", "cicd")
    rendered, variables = container(checkout, "overlays/dev/lily-api", "Deployment")
    assert rendered == image
    assert (variables["MODEL_URI"], variables["MODEL_DIGEST"]) == (f"{version.uri}onnx/", version.digest)
    assert checkout.run("validate").code == 0


def test_a_release_in_images_is_promoted_and_rolled_back_like_any_other(
    images: Checkout, version: Version, second: Version
) -> None:
    for made in (version, second):
        bump(images, "dev", made, "--image", IMAGE, app=API)
        told = images.run("promote_model", *API, "--to", "staging", "--push", "--json")
        assert told.code == 0, told.err
        images.merge(json.loads(told.out)["branch"])

    done = images.run("rollback_model", *API, "--env", "staging", "--reason", "worse", "--push")

    assert done.code == 0, done.err
    assert images.git("diff", "--name-only", "origin/cicd^", "origin/cicd").splitlines() == [
        "overlays/staging/lily-api/hold.yaml",
        KUSTOMIZATION.format("staging"),
    ]
    rows = json.loads(images.run("releases", *API, "--json").out)["releases"]
    assert [row["version"] for row in rows] == [second.version, version.version, "unreleased"]


def test_an_image_with_a_tag_and_a_digest_goes_all_the_way_whatever_files_name_it(
    checkout: Checkout, version: Version, second: Version
) -> None:
    keep_in_images(checkout, "staging")
    keep_in_images(checkout, "prod")
    checkout.replace(KUSTOMIZATION.format("prod"), "    digest: ", "    newTag: unreleased\n    digest: ")
    checkout.commit("Keep releases in images", push=True)
    image = IMAGE.replace("@", ":v1@")
    for made in (version, second):
        bump(checkout, "dev", made, "--image", image, app=API)
        for environment in ("staging", "prod"):
            told = checkout.run("promote_model", *API, "--to", environment, "--push", "--json")
            assert told.code == 0, told.err
            checkout.merge(json.loads(told.out)["branch"])

    done = checkout.run("rollback_model", *API, "--env", "prod", "--reason", "worse", "--push")

    assert done.code == 0, done.err
    rows = json.loads(checkout.run("releases", *API, "--json").out)["releases"]
    assert [(row["version"], row["image"]) for row in rows] == [
        (second.version, image),
        (second.version, IMAGE),
        (version.version, IMAGE),
    ]


def test_a_release_file_can_become_images_without_losing_its_history(
    checkout: Checkout, version: Version, second: Version
) -> None:
    for made in (version, second):
        bump(checkout, "dev", made, "--image", IMAGE, app=API)
    checkout.git("pull", "-q")
    keep_in_images(checkout, "dev")
    write_release(checkout.root, Target("lily-api", "dev"), second, "onnx", IMAGE)
    checkout.commit(push=True)

    done = checkout.run("rollback_model", *API, "--env", "dev", "--reason", "worse", "--push")

    assert done.code == 0, done.err
    assert f"{version.uri}onnx/" in checkout.git("show", f"origin/cicd:{KUSTOMIZATION.format('dev')}")


@pytest.mark.parametrize(
    ("old", "new", "image", "line"),
    [
        (
            "digest: unreleased\n\nrepl",
            "newTag: unreleased\n\nrepl",
            IMAGE,
            f"images[unreleased].newTag: {IMAGE} cannot be written as a newTag; name the image so, or put `digest` in"
            " the place of `newTag`",
        ),
        (
            "digest: unreleased\n\nrepl",
            "digests: unreleased\n\nrepl",
            IMAGE,
            "images[unreleased]: needs `digest`, `newTag` or both",
        ),
        (
            "images:\n",
            "images:\n  - name: proxy\n    newTag: '1'\n",
            IMAGE,
            "images: 2 entries; without a release.yaml beside it, it has exactly one, the image of the app",
        ),
        (
            "  model.mlops/uri: s3://unreleased/\n",
            "",
            IMAGE,
            "commonAnnotations.model.mlops/uri: missing; a release has this field",
        ),
    ],
)
def test_images_that_cannot_hold_the_release_are_refused(
    checkout: Checkout, version: Version, old: str, new: str, image: str, line: str
) -> None:
    keep_in_images(checkout, "dev")
    checkout.replace(KUSTOMIZATION.format("dev"), old, new)
    checkout.commit(push=True)

    done = checkout.run("bump_model", *API, "--env", "dev", "--model-uri", version.uri, "--image", image, "--push")

    assert (done.code, done.errors) == (1, [f"{KUSTOMIZATION.format('dev')}: {line}"])


def test_a_release_that_no_replacement_carries_to_the_container_is_refused(
    checkout: Checkout, version: Version
) -> None:
    keep_in_images(checkout, "dev")
    text = checkout.read(KUSTOMIZATION.format("dev")).decode()
    checkout.write(KUSTOMIZATION.format("dev"), text[: text.index("replacements:")])
    checkout.commit(push=True)

    done = checkout.run("bump_model", *API, "--env", "dev", "--model-uri", version.uri, "--image", IMAGE, "--push")

    where = "overlays/dev/lily-api: Deployment.apps ml-dev/lily-api: spec.template.spec.containers[api].env"
    assert (done.code, done.errors) == (
        1,
        [
            f"{where}[MODEL_URI].value: renders as 's3://unreleased/', not '{version.uri}onnx/';"
            " another patch overrides the release",
            f"{where}[MODEL_DIGEST].value: renders as 'unreleased', not '{version.digest}';"
            " another patch overrides the release",
            f"{where}[MODEL_MANIFEST].value: renders as None, not '{version.manifest}';"
            " another patch overrides the release",
            f"{where}[MODEL_MANIFEST].name: renders as None, not 'MODEL_MANIFEST'; another patch overrides the release",
        ],
    )


def test_an_overlay_with_neither_a_release_file_nor_images_is_refused(checkout: Checkout, version: Version) -> None:
    checkout.git("rm", "-q", "overlays/dev/lily-api/release.yaml")
    checkout.replace(KUSTOMIZATION.format("dev"), "  - path: release.yaml\n", "")
    checkout.commit(push=True)

    done = checkout.run("bump_model", *API, "--env", "dev", "--model-uri", version.uri, "--image", IMAGE, "--push")

    assert (done.code, done.errors) == (
        1,
        [
            "overlays/dev/lily-api/release.yaml: missing, and overlays/dev/lily-api/kustomization.yaml has no images;"
            " CONTRIBUTING.md tells where a release can be"
        ],
    )


# A StatefulSet


def stateful(checkout: Checkout, environments: Sequence[str] = ("dev", "staging", "prod")) -> None:
    """A shape of the team's own, made of the Deployment's, and an app of it."""
    shape = checkout.root / "base/stateful"
    shutil.copytree(checkout.root / "base/api", shape)
    (shape / "deployment.yaml").rename(shape / "statefulset.yaml")
    for file in shape.rglob("*.yaml"):
        text = file.read_text().replace("kind: Deployment", "kind: StatefulSet")
        text = text.replace("deployment.yaml", "statefulset.yaml")
        text = re.sub(r"  progressDeadlineSeconds: 300\n  strategy:\n(    .*\n)+", "  serviceName: api\n", text)
        text = text.replace("base/api", "base/stateful")
        named = "          - spec.selector.matchLabels.[app.kubernetes.io/name]\n          - spec.template.metadata"
        file.write_text(text.replace(named, f"          - spec.serviceName\n{named}"))
    for environment in environments:
        project = f"argocd/project-{environment}.yaml"
        kind = "    - group: apps\n      kind: Deployment\n"
        checkout.replace(project, kind, f"{kind}{kind.replace('Deployment', 'StatefulSet')}")
    checkout.commit("A shape with a state")
    made = checkout.run("new_model", "lily", "--only", "app", "--shape", "stateful", "--app", "lily-state")
    assert made.code == 0, made.err
    checkout.commit("An app with a state", push=True)


def test_a_stateful_set_is_released_promoted_and_retired_like_a_deployment(
    checkout: Checkout, version: Version
) -> None:
    stateful(checkout)
    assert checkout.run("validate").errors == []

    bump(checkout, "dev", version, "--image", IMAGE, app=("--app", "lily-state"))
    told = checkout.run("promote_model", "--app", "lily-state", "--to", "staging", "--push", "--json")

    assert told.code == 0, told.err
    checkout.merge(json.loads(told.out)["branch"])
    checkout.git("checkout", "-q", "cicd")
    checkout.git("reset", "-q", "--hard", "origin/cicd")
    rendered, variables = container(checkout, "overlays/staging/lily-state", "StatefulSet")
    assert (rendered, variables["MODEL_URI"]) == (IMAGE, f"{version.uri}onnx/")
    assert variables["REQUEST_LOG_URI"] == "s3://mlops-prod/requests/staging/"
    assert checkout.run("validate").errors == []
    checkout.git("rm", "-rq", "overlays/staging/lily-state")
    assert " is no longer rendered" in checkout.run("validate", "--changed-since", "HEAD").errors[0]

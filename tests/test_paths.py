"""What Argo CD would take from a repository is rendered and checked here, or refused: hostile paths and names."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SAMPLE, Checkout, Version, git

from gitops.checks import argocd, paths, sources
from gitops.checks.framework import Repository
from gitops.manifests import kustomize
from gitops.manifests.objects import Object
from gitops.repo import applications, layout
from gitops.repo.policy import POLICY_FILE, Policy, read_policy
from gitops.repo.snapshot import OnDisk

from contract.errors import Refused

POLICY = Policy("models", ("registry.example.com",), ("dev", "prod", "prod-eu"))
RELEASE = "kind: InferenceService\n"
IMAGES = "images:\n  - newName: a\n    newTag: b\n"
# What is legitimate: an app with a file of its own, one with images, an environment, and what its apps share.
GOOD = {
    f"overlays/{environment}/{path}": text
    for environment in POLICY.environments
    for path, text in {
        "lily-api/release.yaml": RELEASE,
        "lily-api/kustomization.yaml": "patches: [{path: release.yaml}]\ncomponents: [part, ../shared]\n",
        "lily-api/part/kustomization.yaml": "kind: Component\n",
        "lily-batch/kustomization.yaml": IMAGES,
        "environment/kustomization.yaml": "resources: [namespace.yaml]\n",
        "environment/namespace.yaml": "kind: Namespace\n",
        "shared/kustomization.yaml": "kind: Component\n",
        "retired.yaml": "- app: lily-sklearn\n",
    }.items()
} | {POLICY_FILE: ""}
# A release file where Argo CD may look for it, and nobody else does.
HOSTILE = (
    "overlays/default/pwn/x/release.yaml", "overlays/default/pwn/release.yaml", "overlays/release.yaml",
    "overlays/prod/release.yaml", "overlays/prod/pwn/release.yaml", "overlays/prod/lily-api/x/release.yaml",
    "overlays/prod/lily-api/x/y/z/release.yaml", "overlays/prod/lily-api/part/release.yaml",
    "overlays/prod/shared/release.yaml", "overlays/prod/shared/x/release.yaml",
    "overlays/prod/environment/release.yaml", "overlays/prod/environment/lily-api/release.yaml",
    "overlays/prod/shared/kustomization.yaml", "overlays/prod/environment/x/kustomization.yaml",
    "overlays/prod/pwn/x/kustomization.yaml", "overlays/prod/*/release.yaml", "overlays/prod/*/release.yaml/x",
    "overlays/prod/ /release.yaml", "overlays/prod/it's/release.yaml", 'overlays/prod/"/release.yaml',
    "overlays/prod/a;b/release.yaml", "overlays/prod/{{ .path }}/release.yaml", "overlays/prod/Lily-API/release.yaml",
    "overlays/prod/lily_api/release.yaml", "overlays/prod/-lily/release.yaml", "overlays/prod/.lily/release.yaml",
    "overlays/prod/lily./release.yaml", "overlays/prod/l\u0131ly/release.yaml", "overlays/prod/\udcff/release.yaml",
    "overlays/prod/a\nb/release.yaml", "overlays/prod/a\x1b[2J/release.yaml", "overlays/prod-eu-2/lily/release.yaml",
    "overlays/PROD/lily-api/release.yaml", "overlays/prod-e/u/release.yaml", "overlays/./.prod/a/release.yaml",
    "overlays/platform/a/release.yaml", "overlays/prod/release.yaml/release.yaml",
    "overlays/prod/kustomization.yaml/kustomization.yaml", "overlays/prod/environment.yaml/release.yaml",
)  # fmt: skip


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    write(root, GOOD)
    return root


def repository(root: Path, renders: dict[str, list[Object]] | None = None) -> Repository:
    folders = {folder: [] for folder in layout.overlays(root, POLICY)}  # type: dict[str, list[Object]]
    return Repository(root, POLICY, renders or folders)


def faults(root: Path) -> list[str]:
    return [found.where for found in paths.check_paths(repository(root))]


def listed(root: Path) -> set[str]:
    """The files that Argo CD would make Applications of, by its own words to git."""

    def files(pattern: str) -> set[str]:
        done = subprocess.run(
            ["git", "ls-files", "--full-name", "-z", "--cached", "--others", "--", pattern],
            cwd=root, capture_output=True, check=True,
        )  # fmt: skip
        return {os.fsdecode(name) for name in done.stdout.split(b"\0") if name}

    found = set()
    for environment in POLICY.environments:
        for generator in applications.application_set(POLICY, environment, "")["spec"]["generators"]:
            patterns = generator["git"].get("files", [])
            taken = set().union(*(files(each["path"]) for each in patterns if not each.get("exclude")))
            found |= taken.difference(*(files(each["path"]) for each in patterns if each.get("exclude")))
    return found


def test_what_is_legitimate_is_listed_once_and_has_no_fault(good: Path) -> None:
    git(good, "init", "-q")

    # Of the kustomizations, the selector takes those with images.
    names = [path for path in listed(good) if path.endswith(("release.yaml", "batch/kustomization.yaml"))]

    assert faults(good) == []
    apps = ("lily-api/release.yaml", "lily-batch/kustomization.yaml")
    assert set(names) == {f"overlays/{environment}/{app}" for environment in POLICY.environments for app in apps}


@pytest.mark.parametrize("path", HOSTILE, ids=ascii)
def test_a_release_that_lies_elsewhere_is_refused(good: Path, path: str) -> None:
    file = good / path
    before = file.read_text() if file.is_file() else None
    write(good, {path: IMAGES if path.endswith("kustomization.yaml") else RELEASE})
    try:
        found = faults(good)
    finally:
        file.unlink() if before is None else file.write_text(before)
        for parent in file.parents:
            if any(parent.iterdir()):
                break
            parent.rmdir()

    assert len(found) == 1
    assert found[0].isprintable()
    assert faults(good) == []


def test_what_argo_cd_lists_of_hostile_paths_is_refused_or_no_app(good: Path, tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    git(tmp_path, "init", "-q")
    legitimate = listed(tmp_path)
    for path in HOSTILE:
        if not (tmp_path / path).exists() and not any(parent.is_file() for parent in (tmp_path / path).parents):
            write(tmp_path, {path: RELEASE})

    refused = faults(tmp_path)

    more = listed(tmp_path) - legitimate
    assert len(more) > 10
    assert "overlays/prod/lily-api/x/release.yaml" not in more
    shown = {path: path if path.isprintable() else ascii(path)[1:-1] for path in more}
    assert [path for path, name in shown.items() if not any(f"{name}/".startswith(f"{r}/") for r in refused)] == []


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("overlays/prod/lily-api/more.yaml", "release.yaml"),
        ("overlays/prod/lily-v2", "lily-api"),
        ("overlays/live", "prod"),
        ("overlays/prod/lily-api/key", "/etc/passwd"),
        ("apps/lily-api", "../overlays"),
        ("base", "overlays"),
        ("argocd/gone.yaml", "nowhere"),
    ],
)
def test_a_link_is_refused(tmp_path: Path, link: str, target: str) -> None:
    write(tmp_path, GOOD)
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(target)

    with pytest.raises(Refused) as refused:
        sources.require(OnDisk(tmp_path))
    assert [line.partition(": ")[0] for line in refused.value.lines] == [link]


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {path: text for path, text in GOOD.items() if not path.startswith("overlays/prod/")})
    write(tmp_path, {"overlays/prod": "", "argocd": ""})

    assert faults(tmp_path) == ["argocd", "overlays/prod"]


def test_a_change_that_no_render_reads_is_reported_all_the_same(checkout: Checkout) -> None:
    places = [
        "argocd/aChart.yaml", "overlays/default/pwn/x/release.yaml",
        "overlays/prod/lily-api/.argocd-source.yaml", "overlays/prod/lily-api/x/release.yaml",
        "overlays/prod/shared/release.yaml",
    ]  # fmt: skip
    for path in places:
        checkout.write(path, "kind: anything\n")
    checkout.commit("Files that nothing reads")

    done = checkout.run("validate", "--changed-since", "HEAD^")

    assert done.code == 1
    assert [line.partition(": ")[0] for line in done.errors] == [p.replace("/pwn/x/release.yaml", "") for p in places]
    assert all(line.endswith("[paths]") for line in done.errors)


# Projects and Applications


@pytest.fixture(scope="module")
def rendered(manifests: Path) -> list[Object]:
    return kustomize.objects(kustomize.build(manifests, layout.ARGOCD))


def with_environments(root: Path, items: list[Object], *names: str) -> Repository:
    policy = read_policy(SAMPLE)
    return Repository(root, Policy(policy.model_bucket, policy.image_registries, names), {layout.ARGOCD: items})


@pytest.mark.parametrize("name", applications.PROJECTS)
def test_an_environment_with_the_name_of_another_project_is_refused(
    manifests: Path, rendered: list[Object], name: str
) -> None:
    found = list(map(str, argocd.check_projects(with_environments(manifests, rendered, name))))

    assert (
        f"overlays/promotion.yaml: environments: {name!r}: the name of another project of Argo CD; take another name"
        " [projects]"
    ) in found


@pytest.mark.parametrize("change", [{"namespaceResourceWhitelist": None}, {"namespaceResourceWhitelist": "all"}])
def test_a_project_that_lists_no_kinds_allows_every_kind_and_is_refused(
    manifests: Path, rendered: list[Object], change: Object
) -> None:
    items = [item | {"spec": item["spec"] | change} if item["metadata"]["name"] == "dev" else item for item in rendered]

    found = [str(each) for each in argocd.check_projects(with_environments(manifests, items, "dev"))]

    assert any("namespaceResourceWhitelist: missing, so that every kind is allowed" in line for line in found)


def test_two_apps_whose_applications_have_one_name_are_refused(good: Path) -> None:
    folders: dict[str, list[Object]] = {"overlays/prod-eu/lily": [], "overlays/eu/lily-prod": []}

    found = [str(each) for each in argocd.check_applications(Repository(good, POLICY, folders))]

    assert (
        "overlays/eu/lily-prod: its Application would be lily-prod-eu, which is that of overlays/prod-eu/lily too;"
        " give the app another name [applications]"
    ) in found


def test_an_environment_of_any_name_has_its_own_set(manifests: Path, rendered: list[Object]) -> None:
    url = "https://github.com/example-org/model-gitops.git"
    names = ("pre-prod", "prod-eu")
    others = [item for item in rendered if item["kind"] != "ApplicationSet"]
    policy = replace(POLICY, environments=names)
    sets = [item for name in names for item in applications.application_sets(policy, name, url)]

    assert list(argocd.check_applications(with_environments(manifests, [*others, *sets], *names))) == []
    swapped = [*sets[:2], sets[0] | {"metadata": sets[2]["metadata"]}, sets[3]]
    found = list(argocd.check_applications(with_environments(manifests, [*others, *swapped], *names)))
    assert {each.where for each in found} == {"argocd: ApplicationSet.argoproj.io argocd/apps-prod-eu"}


def test_an_add_on_with_the_rights_of_the_platform_is_refused(manifests: Path, rendered: list[Object]) -> None:
    [root] = [item for item in rendered if item["metadata"]["name"] == "root"]
    addon = root | {"metadata": {"name": "more", "namespace": "argocd"}}
    names = ("dev", "staging", "prod")
    known = with_environments(manifests, rendered, *names)
    found = argocd.check_applications(
        Repository(manifests, known.policy, {layout.ARGOCD: rendered, layout.PLATFORM: [addon]})
    )

    assert "argocd/platform: Application.argoproj.io argocd/more: spec.project: \"platform\"; write \"addons\"" in [
        f"{each.where}: {each.message}" for each in found
    ]  # fmt: skip


def test_a_folder_of_overlays_that_the_policy_does_not_name_is_refused(checkout: Checkout) -> None:
    checkout.git("mv", "overlays/staging", "overlays/prod-us")

    assert any(line.startswith("overlays/prod-us: no environment of") for line in checkout.run("validate").errors)


COMPONENT = """\
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
  - target: {kind: InferenceService}
    patch: |-
      - {op: add, path: /spec/predictor/nodeSelector, value: {gpu: "true"}}
"""


def test_a_folder_at_the_top_to_which_renders_lead_is_deployed_like_the_others(
    checkout: Checkout, version: Version
) -> None:
    app, overlay = ("--app", "lily-sklearn"), "overlays/{}/lily-sklearn/kustomization.yaml"
    checkout.write("components/gpu/kustomization.yaml", COMPONENT)
    checkout.write("unread/note.txt", "of no render\n")
    for environment in ("dev", "staging"):
        line = "components:\n"
        checkout.replace(overlay.format(environment), line, f"{line}  - ../../../components/gpu\n")
    paths = ".;../shared;/apps/lily-sklearn;/base"
    assert checkout.run("validate").errors == [
        f"overlays/{environment}/lily-sklearn: reads components/gpu, and Argo CD looks below {paths} alone; add"
        f" `;/components` to the end of manifest-generate-paths in argocd/applicationset-{environment}.yaml"
        " [generate-paths]"
        for environment in ("dev", "staging")
    ]
    for environment in ("dev", "staging"):
        checkout.replace(f"argocd/applicationset-{environment}.yaml", "};/base\n", "};/base;/components\n")
    assert checkout.run("validate").errors == []
    checkout.commit("Ask for a GPU", push=True)

    # What is made of it knows it.
    bumped = checkout.run("bump_model", *app, "--env", "dev", "--model-uri", version.uri, "--push")
    assert bumped.code == 0, bumped.err
    promoted = checkout.run("promote_model", *app, "--to", "staging", "--push", "--json")
    assert promoted.code == 0, promoted.err
    checkout.merge(json.loads(promoted.out)["branch"])
    checkout.git("checkout", "-q", "cicd")
    checkout.git("reset", "-q", "--hard", "origin/cicd")

    # A change of it is a change of what is deployed, and a release may come with it.
    checkout.replace("components/gpu/kustomization.yaml", 'gpu: "true"', 'gpu: "large"')
    shown = checkout.run("render", "--changed-since", "HEAD").out
    assert [line for line in shown.splitlines() if line.startswith("--- ")] == [
        "--- overlays/dev/lily-sklearn before",
        "--- overlays/staging/lily-sklearn before",
    ]
    checkout.write("overlays/dev/retired.yaml", "- app: lily-batch\n  reason: nobody asks it\n")
    assert checkout.run("validate", "--changed-since", "HEAD").errors == []
    assert checkout.run("bump_model", *app, "--env", "dev", "--model-uri", version.uri, "--commit").errors[0] == (
        "components/gpu/kustomization.yaml: uncommitted change; commit it, or put it away with `git stash`"
    )
    checkout.git("reset", "-q", "--hard", "HEAD")
    (checkout.root / "overlays/dev/retired.yaml").unlink()

    # What serves with it does not go without a record.
    checkout.git("rm", "-rq", "overlays/dev/lily-sklearn")
    checkout.git("rm", "-rq", "components")
    checkout.replace(overlay.format("staging"), "  - ../../../components/gpu\n", "")
    [error] = checkout.run("validate", "--changed-since", "HEAD").errors
    assert error.startswith("overlays/dev/lily-sklearn: InferenceService.serving.kserve.io ml-dev/lily-sklearn is no")
    checkout.git("reset", "-q", "--hard", "HEAD")
    retired = checkout.run("retire_app", *app, "--env", "staging", "--reason", "nobody asks it", "--push")
    assert retired.code == 0, retired.err

"""render.py: what Argo CD will apply, and how it differs from a commit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import SAMPLE, Checkout, make_checkout, run

import render
from gitops.manifests import kustomize
from gitops.releases import hold
from gitops.repo import layout
from gitops.repo.diff import reached
from gitops.repo.policy import POLICY_FILE, read_policy

FOLDERS = layout.folders(SAMPLE, read_policy(SAMPLE))
HOST = "overlays/prod/lily-api/kustomization.yaml"
HOST_DIFF = """\
--- overlays/prod/lily-api before
+++ overlays/prod/lily-api after
@@ -{line},5 +{line},5 @@
   ingressClassName: alb
   rules:
-  - host: lily-api.ml.example.com
+  - host: lily.ml.example.com
     http:
       paths:
"""


@pytest.fixture(scope="module")
def readonly(whole_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone that a test leaves as it found it."""
    return make_checkout(whole_template, tmp_path_factory.mktemp("readonly"))


def change_host(checkout: Checkout) -> str:
    """Changes one rendered line, and returns the diff of it."""
    lines = kustomize.build(checkout.root, "overlays/prod/lily-api").splitlines()
    checkout.replace(HOST, "lily-api.ml.example.com", "lily.ml.example.com")
    return HOST_DIFF.format(line=lines.index("  - host: lily-api.ml.example.com") - 1)


def test_everything_is_rendered_as_one_stream(manifests: Path) -> None:
    renders = kustomize.build_all(manifests, FOLDERS).values()

    done = run("render", "--root", manifests)

    assert done.out == "---\n".join(renders)
    assert len(list(yaml.safe_load_all(done.out))) == sum(len(kustomize.objects(text)) for text in renders)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("named", ["overlays/dev/lily-api", "overlays/dev/lily-api/"])
def test_one_overlay_is_what_kustomize_prints(manifests: Path, named: str) -> None:
    done = run("render", "--root", manifests, named)

    assert done.out == kustomize.build(manifests, "overlays/dev/lily-api")


def test_objects_as_json(manifests: Path) -> None:
    done = run("render", "--root", manifests, "--json", "argocd", "overlays/dev/environment")

    found = json.loads(done.out)
    assert list(found) == ["argocd", "overlays/dev/environment"]
    assert found["argocd"] == kustomize.objects(kustomize.build(manifests, "argocd"))


def test_a_file_for_each_overlay(manifests: Path, tmp_path: Path) -> None:
    done = run("render", "--root", manifests, "--out", tmp_path / "new/build")

    assert (done.code, done.out, done.err) == (0, "", f"{len(FOLDERS)} files in {tmp_path}/new/build\n")
    assert {file.name: file.read_text() for file in (tmp_path / "new/build").iterdir()} == {
        f"{folder.replace('/', '-')}.yaml": kustomize.build(manifests, folder) for folder in FOLDERS
    }


def test_a_folder_that_cannot_be_written_is_named(manifests: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = run("render", "--root", manifests, "argocd", "--out", tmp_path / "file")

    assert (done.code, done.out, done.errors) == (1, "", [f"{tmp_path}/file: File exists"])


def test_folders_that_render_nothing_are_refused(manifests: Path) -> None:
    done = run("render", "--root", manifests, "overlays/dev/wine", "argocd", "base")

    assert (done.code, done.out) == (1, "")
    assert done.errors == [
        f"{folder}: no kustomization.yaml there; the overlays are {', '.join(FOLDERS)}"
        for folder in ("overlays/dev/wine", "base")
    ]


@pytest.mark.parametrize(
    "args",
    [
        ["--markdown"],
        ["--out", "a", "--json"],
        ["--out", "a", "--changed-since", "b"],
        ["--json", "--changed-since", "b", "--markdown"],
        ["--reach"],
        ["--reach", "--changed-since", "b", "--markdown"],
    ],
)
def test_options_that_exclude_each_other_are_wrong_usage(args: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("render", *args)

    assert stopped.value.code == 2


# --changed-since


def test_no_change_is_no_difference(checkout: Checkout) -> None:
    checkout.replace(HOST, "namespace: ml-prod\n", "# A remark.\nnamespace: 'ml-prod'\n")

    assert checkout.run("render", "--changed-since", "HEAD").out == ""
    assert checkout.run("render", "--changed-since", "HEAD", "--json").out == "{}\n"
    assert checkout.run("render", "--changed-since", "HEAD", "--markdown").out == "No rendered manifest changes.\n"


def test_a_change_is_shown_where_it_is_rendered(checkout: Checkout) -> None:
    diff = change_host(checkout)

    assert checkout.run("render", "--changed-since", "HEAD").out == diff
    assert checkout.run("render", "--changed-since", "HEAD", "--reach").out == "reaches: prod\n"
    assert checkout.run("render", "--changed-since", "HEAD", "overlays/dev/lily-api").out == ""
    assert json.loads(checkout.run("render", "--changed-since", "HEAD", "--json").out) == {
        HOST.rpartition("/")[0]: diff
    }
    assert checkout.run("render", "--changed-since", "HEAD", "--markdown").out == (
        "1 rendered overlay changes.\n\nReaches: prod. The highest of them is **prod**.\n"
        f"\n### overlays/prod/lily-api\n\n```diff\n{diff}```\n"
    )


ALL = ["dev", "staging", "prod"]
HOST_IN_DEV = "overlays/dev/lily-api/kustomization.yaml"


@pytest.mark.parametrize(
    ("edits", "reaches"),
    [
        ([("README.md", "# ", "## ")], []),
        ([("scripts/render.py", "Print what", "Show what")], []),
        ([("base/api/service.yaml", "spec:\n", "# A remark.\nspec:\n")], []),
        ([(HOST_IN_DEV, "lily-api.dev", "lily.dev")], ["dev"]),
        ([(HOST, "lily-api.ml", "lily.ml"), (HOST_IN_DEV, "lily-api.dev", "lily.dev")], ["dev", "prod"]),
        ([("overlays/staging/shared/model-reader.yaml", '"true"', '"false"')], ["staging"]),
        ([("base/api/service.yaml", "port: 80\n", "port: 81\n")], ALL),
        ([("apps/lily-sklearn/runtime.yaml", "protocolVersion: v2", "protocolVersion: v1")], ALL),
        ([("argocd/project-dev.yaml", "kind: LimitRange", "kind: Secret")], ALL),
        ([("argocd/platform/argo-cd/argo-cd.yaml", "targetRevision: ", "targetRevision: 1")], ALL),
        ([(HOST, "lily-api.ml", "lily.ml"), (POLICY_FILE, "name: prod\n", "name: zero\n")], ["prod"]),
    ],
)  # fmt: skip
def test_what_a_change_reaches_is_computed_from_renders(
    readonly: Checkout, edits: list[tuple[str, str, str]], reaches: list[str]
) -> None:
    try:
        for path, old, new in edits:
            text = readonly.read(path).decode()
            assert old in text
            readonly.write(path, text.replace(old, new, 1))
        done = readonly.run("render", "--changed-since", "HEAD", "--reach", "--json")
    finally:
        readonly.git("checkout", "-q", "--", ".")

    assert json.loads(done.out) == {"reaches": reaches, "highest": reaches[-1] if reaches else None}


def test_an_environment_that_is_new_is_the_highest() -> None:
    assert reached(["overlays/new/a", "overlays/prod/a"], ("dev", "prod")) == ["prod", "new"]


def test_a_committed_change_of_a_base_is_shown_in_all_its_overlays(checkout: Checkout) -> None:
    checkout.replace("base/api/service.yaml", "port: 80\n", "port: 81\n")
    checkout.commit()

    done = checkout.run("render", "--changed-since", "HEAD^", "--markdown")

    assert done.out.startswith("3 rendered overlays change.\n")
    assert [line for line in done.out.splitlines() if line.startswith("### ")] == [
        "### overlays/dev/lily-api", "### overlays/staging/lily-api", "### overlays/prod/lily-api",
    ]  # fmt: skip
    assert done.out.count("\n-    port: 80\n+    port: 81\n") == 3


def test_a_new_overlay_is_all_new_and_a_removed_one_all_gone(checkout: Checkout) -> None:
    old = kustomize.build(checkout.root, "overlays/dev/lily-sklearn")
    (checkout.root / "overlays/dev/lily-sklearn").rename(checkout.root / "overlays/dev/lily-v2")

    found = json.loads(checkout.run("render", "--changed-since", "HEAD", "--json").out)

    count = len(old.splitlines())
    assert found == {
        "overlays/dev/lily-v2": "--- overlays/dev/lily-v2 before\n+++ overlays/dev/lily-v2 after\n"
        f"@@ -0,0 +1,{count} @@\n" + "".join(f"+{line}\n" for line in old.splitlines()),
        "overlays/dev/lily-sklearn": "--- overlays/dev/lily-sklearn before\n+++ overlays/dev/lily-sklearn after\n"
        f"@@ -1,{count} +0,0 @@\n" + "".join(f"-{line}\n" for line in old.splitlines()),
    }


def test_a_removed_overlay_can_be_asked_for(checkout: Checkout) -> None:
    shutil.rmtree(checkout.root / "overlays/dev/lily-sklearn")

    done = checkout.run("render", "--changed-since", "HEAD", "overlays/dev/lily-sklearn")

    assert done.code == 0
    assert done.out.startswith("--- overlays/dev/lily-sklearn before\n")


@pytest.mark.parametrize("broken", ["resources: [gone]\n", "resources: [\n"])
def test_the_repair_of_what_did_not_render_can_be_shown(checkout: Checkout, broken: str) -> None:
    whole = checkout.read(HOST)
    checkout.write(HOST, broken)
    checkout.commit()
    assert checkout.run("render", "--changed-since", "HEAD^").code == 1
    checkout.write(HOST, whole)

    done = checkout.run("render", "--changed-since", "HEAD")

    assert (done.code, done.err) == (0, "")
    assert f"\n-could not be rendered: {HOST}: " in done.out
    assert "\n+  name: lily-api\n" in done.out


def test_what_does_not_render_on_either_side_is_refused(checkout: Checkout) -> None:
    checkout.write(HOST, "resources: [\n")
    checkout.commit()
    checkout.write(HOST, "resources: [  # still\n")
    checkout.commit()

    done = checkout.run("render", "--changed-since", "HEAD~1")

    assert (done.code, done.out) == (1, "")
    assert done.errors == [f"{HOST}: line 2: not YAML: did not find expected node content"]


def test_an_unknown_commit_is_refused(checkout: Checkout) -> None:
    done = checkout.run("render", "--changed-since", "origin/nowhere")

    assert (done.code, done.out) == (1, "")
    assert done.errors == ["--changed-since origin/nowhere: no such commit in this clone; `git fetch` it"]


# Markdown


LINE = f"+{'ä' * 49}\n"


@pytest.mark.parametrize(("overlays", "lines"), [(1, 10_000), (40, 1_000), (3_000, 100)])
def test_a_summary_stays_below_what_github_shows(overlays: int, lines: int) -> None:
    text = render.markdown({f"overlays/dev/app-{at}": LINE * lines for at in range(overlays)})

    assert len(text.encode()) < 1 << 20
    assert text.count("\n```diff\n") == text.count("\n```\n") == overlays
    assert text.count("... cut here; `python scripts/render.py --changed-since` prints all of it\n") == overlays
    assert {line for line in text.splitlines() if line.startswith("+")} == {LINE.rstrip("\n")}


def test_a_diff_that_fits_is_whole() -> None:
    diff = LINE * (render.PART // len(LINE.encode()))

    assert render.markdown({"a": diff}) == f"1 rendered overlay changes.\n\n### a\n\n```diff\n{diff}```\n"
    assert "cut here" in render.markdown({"a": diff + LINE})


def test_a_summary_tells_what_is_held_and_what_is_no_longer(checkout: Checkout) -> None:
    held = hold.Hold("wrong answers", "Ann", "2026-02-03T04:05:06Z")
    for environment in ("dev", "staging"):
        checkout.write(hold.path("lily-api", environment), hold.write("lily-api", environment, held))
    checkout.commit()
    assert checkout.run("render", "--changed-since", "HEAD", "--markdown").out == "No rendered manifest changes.\n"
    (checkout.root / hold.path("lily-api", "dev")).unlink()
    checkout.replace("base/api/service.yaml", "port: 80\n", "port: 81\n")

    lines = checkout.run("render", "--changed-since", "HEAD", "--markdown").out.splitlines()

    assert [line for line in lines if line.startswith("Hold: ")] == [
        "Hold: lily-api in dev is no longer held.",
        "Hold: lily-api in staging is held by Ann since 2026-02-03T04:05:06Z: wrong answers; when that is settled, run"
        " `python scripts/rollback_model.py --app lily-api --env staging --release-hold`.",
    ]

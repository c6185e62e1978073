"""What validate.py asks of a change, as the check of a pull request calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import IMAGE, ROOT, S3, Checkout, Version, package

from gitops.releases import hold

API = "overlays/{}/lily-api/release.yaml"
PROD = "overlays/prod/lily-api"
DIGEST = "model.mlops/digest"


@pytest.fixture
def released(checkout: Checkout, version: Version) -> Checkout:
    """A clone whose cicd runs lily-api in dev."""
    done = checkout.run(
        "bump_model", "--app", "lily-api", "--env", "dev", "--model-uri", version.uri, "--image", IMAGE, "--push"
    )
    assert done.code == 0, done.err
    return checkout


def copy_release(checkout: Checkout, source: str, target: str) -> None:
    checkout.write(API.format(target), checkout.read(API.format(source)))


def errors(checkout: Checkout) -> list[str]:
    return checkout.run("validate", "--changed-since", "HEAD").errors


def test_a_release_may_go_to_the_next_environment(released: Checkout) -> None:
    copy_release(released, "dev", "staging")

    assert errors(released) == []


def test_a_release_may_not_skip_an_environment(released: Checkout, version: Version) -> None:
    copy_release(released, "dev", "prod")

    assert errors(released) == [
        f"{API.format('prod')}: {version.version} has never been released in staging, which comes before prod; release"
        " it there first, then run `python scripts/promote_model.py --app lily-api --to prod` [order]"
    ]


def test_two_environments_at_once_are_one_too_many(released: Checkout) -> None:
    copy_release(released, "dev", "staging")
    copy_release(released, "dev", "prod")

    [line] = errors(released)

    assert line.startswith(f"{API.format('prod')}: ")
    assert line.endswith("[order]")


def test_a_comment_in_a_release_file_is_no_release(released: Checkout) -> None:
    text = released.read(API.format("prod"))
    released.write(API.format("prod"), b"# ours\n" + text)

    assert errors(released) == []


def held(checkout: Checkout) -> bytes:
    text = hold.write("lily-api", "staging", hold.Hold("a reason", "Test <test@example.org>", "2026-02-01T12:00:00Z"))
    checkout.write(hold.path("lily-api", "staging"), text)
    checkout.commit()
    return text


def test_a_held_release_may_not_change_under_its_hold(released: Checkout) -> None:
    held(released)
    copy_release(released, "dev", "staging")

    assert errors(released) == [
        "overlays/staging/lily-api/hold.yaml: held by Test <test@example.org> since 2026-02-01T12:00:00Z: a reason;"
        " when that is settled, run"
        " `python scripts/rollback_model.py --app lily-api --env staging --release-hold` [hold]"
    ]


def removed(checkout: Checkout) -> None:
    (checkout.root / hold.path("lily-api", "staging")).unlink()


def set_anew(checkout: Checkout) -> None:
    checkout.replace(hold.path("lily-api", "staging"), "a reason", "another reason")


@pytest.mark.parametrize("settle", [removed, set_anew])
def test_a_release_may_change_together_with_its_hold(released: Checkout, settle: Callable[[Checkout], None]) -> None:
    held(released)
    copy_release(released, "dev", "staging")
    settle(released)

    assert errors(released) == []


def test_a_service_may_not_disappear_unrecorded(released: Checkout) -> None:
    """Nor together with its overlay, as an empty render would prune it."""
    released.write("overlays/dev/lily-api/kustomization.yaml", "resources: []\n")

    lines = errors(released)

    assert (
        "overlays/dev/lily-api: Deployment.apps ml-dev/lily-api is no longer rendered; to remove it on purpose, run"
        " `python scripts/retire_app.py --app lily-api --env dev`, or where the app stays, add an entry for it to"
        " overlays/dev/retired.yaml [removal]"
    ) in lines


# tests/test_serving.py has all that takes a service away; these two show that it is asked of a change.
OVERLAY = "overlays/dev/lily-api/kustomization.yaml"
NO_INGRESS = "  - path: release.yaml\n  - patch: |-\n      $patch: delete\n      apiVersion: networking.k8s.io/v1\n"
NO_INGRESS += "      kind: Ingress\n      metadata: {name: lily-api}\n"


def test_what_no_caller_reaches_any_more_needs_a_record(released: Checkout) -> None:
    released.write(OVERLAY, released.read(OVERLAY).decode().partition("  - target:\n")[0])
    released.replace(OVERLAY, "  - path: release.yaml\n", NO_INGRESS)

    [line] = errors(released)
    released.write("overlays/dev/retired.yaml", "- app: lily-api\n")

    assert line.startswith(
        "overlays/dev/lily-api: Deployment.apps ml-dev/lily-api is no longer reached by an Ingress (none leads to a"
        " Service of its pods); to remove it on purpose, run"
    )
    assert errors(released) == []


def test_what_serves_goes_on_serving_where_its_overlay_did_not_render_in_between(released: Checkout) -> None:
    """Argo CD leaves running what the overlay last rendered, however it was broken, and for how many commits."""
    whole = released.read(OVERLAY)
    for broken in (b"resources: [gone.yaml]\n", b"resources: [\n", None):
        if broken is None:
            (released.root / OVERLAY).unlink()
        else:
            released.write(OVERLAY, broken)
        released.commit()

        released.write(OVERLAY, "resources: []\n")
        dropped = errors(released)
        released.write(OVERLAY, whole)
        mended = errors(released)

        assert any(line.startswith("overlays/dev/lily-api: Deployment.apps ml-dev/lily-api is no longer rendered")
                   for line in dropped)  # fmt: skip
        assert mended == []


def test_a_part_that_no_overlay_could_read_hides_no_service(released: Checkout) -> None:
    """Nor does a merge: what was on its way there was never deployed."""
    base = "base/api/kustomization.yaml"
    whole = released.read(base)
    released.git("checkout", "-qb", "broken")
    released.write(base, "resources: [gone.yaml]\n")
    released.commit()
    released.write(OVERLAY, "resources: []\n")
    released.commit()
    released.write(OVERLAY, "resources: [../../../apps/lily-api]\n")
    released.commit()
    released.git("checkout", "-q", "cicd")
    released.git("merge", "-q", "--no-ff", "-m", "Merge", "broken")

    released.write(base, whole)
    released.write(OVERLAY, "resources: []\n")

    assert any("Deployment.apps ml-dev/lily-api is no longer rendered" in line for line in errors(released))


def test_what_the_api_server_would_refuse_to_change_is_refused(released: Checkout) -> None:
    patch = "  - target: {kind: Service}\n    patch: '- {op: add, path: /spec/clusterIP, value: None}'\n"
    released.replace(OVERLAY, "  - path: release.yaml\n", f"  - path: release.yaml\n{patch}")

    assert errors(released) == [
        "overlays/dev/lily-api: Service ml-dev/lily-api: spec.clusterIP: changed, which the API server refuses once the"
        " object is there; give the object another name, or retire the app and add it anew [immutable]"
    ]


def test_a_record_of_an_earlier_retirement_does_not_count(released: Checkout) -> None:
    released.write("overlays/dev/retired.yaml", "- app: lily-api\n")
    released.commit()
    released.git("rm", "-rq", "overlays/dev/lily-api")

    assert [line.rpartition("[")[2] for line in errors(released)] == ["removal]"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("app: lily-api\n", "not a list of retirements with an `app` each; only retire_app.py writes it"),
        ("- lily-api\n", "not a list of retirements with an `app` each; only retire_app.py writes it"),
        ("a: [\n", "line 2: not YAML: expected the node content, but found '<stream end>'"),
        ("- app: lily-api\n  since: 2026-13-01\n", "not YAML: month must be in 1..12"),
    ],
)
def test_a_record_that_is_none_is_refused(released: Checkout, text: str, fault: str) -> None:
    released.git("rm", "-rq", "overlays/dev/lily-api")
    released.write("overlays/dev/retired.yaml", text)

    assert errors(released) == [f"overlays/dev/retired.yaml: {fault}"]


# Ways around the order of environments


@pytest.fixture
def later(released: Checkout, tmp_path: Path, s3: S3) -> Version:
    """A version that nobody has released, while dev, staging and prod run the first one."""
    for source, target in (("dev", "staging"), ("staging", "prod")):
        copy_release(released, source, target)
        released.commit(f"Promote to {target}")
    return package(tmp_path / "later", "later")


def a_second_deployment(released: Checkout, version: Version) -> None:
    """That the Service selects, with all the fields that a release has."""
    item = beside(released)
    [now] = [variable["value"] for variable in containers(item)[0]["env"] if variable["name"] == "MODEL_URI"]
    text = yaml.safe_dump(item).replace(now.split("/")[-3], version.version)
    released.write(f"{PROD}/b.yaml", text.replace(item["metadata"]["annotations"][DIGEST], version.digest))


def beside(released: Checkout) -> dict[str, Any]:
    """A copy of the Deployment of prod, by another name."""
    listed = json.loads(released.run("render", PROD, "--json").out)[PROD]
    item: dict[str, Any] = next(item for item in listed if item["kind"] == "Deployment")
    item["metadata"]["name"] = "b"
    released.replace(f"{PROD}/kustomization.yaml", "resources:\n", "resources:\n  - b.yaml\n")
    return item


def containers(item: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = item["spec"]["template"]["spec"]["containers"]
    return found


def a_canary_in_a_patch_of_its_own(released: Checkout, version: Version) -> None:
    folder = "overlays/prod/lily-sklearn"
    fixture = yaml.safe_load((ROOT / "tests/invalid/canary-undeclared.yaml").read_text())
    service = yaml.safe_load(fixture["content"])
    [entry] = service["spec"]["canary"]
    entry["trafficPercent"] = 90
    values = {"version": version.version, "digest": version.digest, "code-commit": "c", "data-digest": "d"}
    entry["predictor"]["annotations"] = {f"model.mlops/{name}": value for name, value in values.items()}
    entry["predictor"]["model"]["storageUri"] = f"{version.uri}sklearn/"
    patch = {key: service[key] for key in ("apiVersion", "kind")} | {
        "metadata": {"name": "lily-sklearn"}, "spec": {"canary": [entry]},
    }  # fmt: skip
    released.write(f"{folder}/canary.yaml", yaml.safe_dump(patch))
    released.replace(
        f"{folder}/kustomization.yaml", "  - path: release.yaml", "  - path: release.yaml\n  - path: canary.yaml"
    )


def a_second_server_in_the_pod(released: Checkout, version: Version) -> None:
    """In the place of the first one, by the same name of the port."""
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "lily-api"},
        "spec": {"template": {"spec": {"containers": [
            {"name": "b", "image": IMAGE, "env": [{"name": "MODEL_URI", "value": f"{version.uri}onnx/"}]}
        ]}}},
    }  # fmt: skip
    released.write(f"{PROD}/b.yaml", yaml.safe_dump(patch))
    released.replace(f"{PROD}/kustomization.yaml", "  - path: release.yaml", "  - path: release.yaml\n  - path: b.yaml")


def another_image_for_the_model(released: Checkout, version: Version) -> None:
    """The released version in a second pod, with an image that is no release's."""
    text = yaml.safe_dump(beside(released))
    released.write(f"{PROD}/b.yaml", text.replace("1" * 64, "2" * 64))


@pytest.mark.parametrize(
    "way",
    [
        a_second_deployment, a_canary_in_a_patch_of_its_own, a_second_server_in_the_pod, another_image_for_the_model,
    ],
)  # fmt: skip
def test_nothing_runs_a_model_beside_the_release(
    released: Checkout, later: Version, way: Callable[[Checkout, Version], None]
) -> None:
    way(released, later)

    assert any(line.startswith("overlays/prod/") and line.endswith("[release]") for line in errors(released))


def test_a_change_is_judged_by_the_policy_before_it(released: Checkout) -> None:
    text = released.read("overlays/promotion.yaml").decode()
    before, _, prod = text.partition("  - name: prod\n")
    released.write("overlays/promotion.yaml", before.replace("ts:\n", f"ts:\n  - name: prod\n{prod}"))
    copy_release(released, "dev", "prod")

    found = [line.rpartition(" ")[2] for line in errors(released)]

    assert {"[order]", "[mixed]"} <= set(found)


def test_a_release_and_its_revert_are_no_way_into_the_history(released: Checkout) -> None:
    base = released.git("rev-parse", "HEAD")
    before = released.read(API.format("staging"))
    copy_release(released, "dev", "staging")
    tried = released.commit("Release in staging")
    released.write(API.format("staging"), before)
    released.commit("Take it back")

    [line] = released.run("validate", "--changed-since", base).errors

    assert line.startswith(f"{API.format('staging')}: ")
    assert f"released by commit {tried[:12]} and not by the end of this change" in line
    assert line.endswith("squash the commits into one [intermediate]")


def test_what_was_rolled_back_in_staging_does_not_go_to_prod(released: Checkout, version: Version) -> None:
    copy_release(released, "dev", "staging")
    released.commit("Promote to staging", push=True)
    released.write(API.format("staging"), released.git("show", f"HEAD^:{API.format('staging')}") + "\n")
    hold_text = hold.write("lily-api", "staging", hold.Hold("bad", "Test <test@example.org>", "2026-02-01T12:00:00Z"))
    released.write(hold.path("lily-api", "staging"), hold_text)
    released.commit("Roll back in staging", push=True)
    args = ("--app", "lily-api", "--env", "prod", "--model-uri", version.uri, "--image", IMAGE)

    copy_release(released, "dev", "prod")
    [line] = errors(released)
    released.git("checkout", "-q", ".")
    done = released.run("bump_model", *args, "--push")

    assert line == (
        f"{API.format('prod')}: {version.version} was taken back in staging, which comes before prod; release it there"
        " first again, if it is good after all, then run"
        " `python scripts/promote_model.py --app lily-api --to prod` [order]"
    )
    assert (done.code, done.errors) == (1, [line.removesuffix(" [order]")])


def test_a_change_is_judged_on_the_newest_base(released: Checkout) -> None:
    released.git("checkout", "-q", "-b", "topic", "HEAD^")

    assert released.run("validate", "--changed-since", "cicd").errors == [
        "--changed-since cicd: has commits that are not in this branch, and what is judged is what a merge would make;"
        " run `git merge cicd` first"
    ]


def test_what_a_change_of_the_quota_leaves_no_room_for_is_refused(checkout: Checkout) -> None:
    """The apps of the environment are as they were."""
    checkout.write("overlays/dev/environment/quota.yaml", yaml.safe_dump({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "environment"},
        "spec": {"hard": {"requests.memory": "256Mi"}},
    }))  # fmt: skip
    path = "overlays/dev/environment/kustomization.yaml"
    checkout.write(path, checkout.read(path) + b"\npatches:\n  - path: quota.yaml\n")

    found = [line for line in errors(checkout) if line.endswith("[kubernetes]")]

    assert found
    assert all(line.startswith("overlays/dev/lily-") and "256Mi" in line for line in found)


def test_the_serving_runtimes_of_services_are_not_taken_away(checkout: Checkout) -> None:
    checkout.replace("argocd/platform/addons/kustomization.yaml", "  - kserve-runtimes.yaml\n", "")

    found = [line for line in errors(checkout) if line.endswith("[kserve]")]

    assert [line.partition(": ")[0] for line in found] == [
        f"overlays/{environment}/lily-sklearn" for environment in ("dev", "staging", "prod")
    ]

"""What validate.py asks of a change, as the check of a pull request calls it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import IMAGE, Checkout, Version

from gitops.releases import hold

API = "overlays/{}/lily-api/release.yaml"


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

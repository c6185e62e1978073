from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import (
    BUCKET,
    IMAGE,
    S3,
    Checkout,
    Version,
    clone,
    git,
    hook,
    in_folder,
    make_checkout,
    merging,
    package,
    run,
    write_release,
)

from gitops.releases import release_file
from gitops.releases.release import Target

APP = ("--app", "lily-api")
FILE = "overlays/staging/lily-api/release.yaml"


@pytest.fixture(scope="module")
def released_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with a commit in which dev runs the version of the fixture `version` in both apps."""
    made = make_checkout(template, tmp_path_factory.mktemp("released"))
    version = package(made.root.parent / "artifacts")
    for app, flavour, image in (("lily-sklearn", "sklearn", None), ("lily-api", "onnx", IMAGE)):
        write_release(made.root, Target(app, "dev"), version, flavour, image)
    made.commit("Release in dev", push=True)
    return made.remote


@pytest.fixture
def released(released_template: Path, tmp_path: Path, version: Version) -> Checkout:
    return make_checkout(released_template, tmp_path)


def branch_of(version: Version, env: str = "staging", app: str = "lily-api") -> str:
    image = "" if app == "lily-sklearn" else f"-{'1' * 12}"
    return f"promote/{env}/{app}-{version.version}{image}"


def pushed(checkout: Checkout, branch: str, what: str) -> list[str]:
    """The messages of a promotion that was pushed."""
    commit = checkout.git("rev-parse", branch)
    return [
        f"pushed {commit[:12]} to {branch} at origin, not merged: promote {what}",
        f"next: open a pull request of {branch} to cicd and merge it",
        f"or, where cicd takes pushes: {merging(checkout.root, branch, commit)}",
    ]


def refused(checkout: Checkout, *args: str) -> list[str]:
    """The errors of a promotion that must be refused and change nothing."""
    before = checkout.state()
    done = checkout.run("promote_model", *args)
    assert (done.code, done.out) == (1, ""), done.err
    assert checkout.state() == before
    return done.errors


def test_a_promotion_is_a_branch_with_one_changed_file_and_its_rendered_difference_is_shown(
    released: Checkout, version: Version
) -> None:
    before = released.state()

    done = released.run("promote_model", *APP, "--to", "staging")

    branch = branch_of(version)
    assert done.code == 0
    assert done.err.splitlines() == [
        f"committed {released.git('rev-parse', branch)[:12]} to {branch} here, not pushed: promote {version.version} to"
        " lily-api in staging",
        f"next: {in_folder(released.root, f'git push origin {branch}')}",
    ]
    assert done.out.startswith("--- overlays/staging/lily-api before\n+++ overlays/staging/lily-api after\n")
    assert [line for line in done.out.splitlines() if line.startswith("+  ") and "model.mlops" not in line] == [
        f"+          value: {version.uri}onnx/",
        f"+          value: {version.digest}",
        f"+          value: {version.manifest}",
        f"+        image: {IMAGE}",
    ]
    assert released.git("rev-parse", f"{branch}^") == released.tip()
    assert released.git("diff", "--name-only", "cicd", branch) == FILE
    carried = released.git("show", f"{branch}:{FILE}")
    assert carried == released.git("show", "cicd:overlays/dev/lily-api/release.yaml")
    message = released.git("log", "-1", "--format=%B", branch).splitlines()
    assert message[0] == f"Promote lily-api in staging to {version.version}"
    assert message[-8:][0] == "Release: lily-api staging"
    assert message[-1] == f"Image: {IMAGE}"
    after = released.state()
    assert {name for name in after if after[name] != before[name]} == {"refs"}


def test_after_the_merge_the_next_environment_can_be_reached(released: Checkout, version: Version) -> None:
    for env in ("staging", "prod"):
        done = released.run("promote_model", *APP, "--to", env, "--push")
        branch = branch_of(version, env)
        assert done.err.splitlines() == pushed(released, branch, f"{version.version} to lily-api in {env}")
        assert git(released.remote, "rev-parse", branch) == released.git("rev-parse", branch)
        released.merge(branch)

    running = json.loads(released.run("releases", "--app", "lily-api", "--json").out)["releases"]
    assert [(row["environment"], row["version"], row["image"]) for row in running] == [
        (env, version.version, IMAGE) for env in ("dev", "staging", "prod")
    ]


def test_two_apps_are_one_branch_and_one_commit(released: Checkout, version: Version) -> None:
    both = ("--app", "lily-sklearn", "--app", "lily-api", "--app", "lily-sklearn")

    done = released.run("promote_model", *both, "--to", "staging", "--json")

    told = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert told["branch"].startswith("promote/staging/2-apps-")
    assert [row["app"] for row in told["releases"]] == ["lily-sklearn", "lily-api"]
    assert released.git("rev-parse", f"{told['branch']}^") == released.tip()
    assert released.git("diff", "--name-only", "cicd", told["branch"]).split() == [
        FILE,
        "overlays/staging/lily-sklearn/release.yaml",
    ]


def test_a_dry_run_shows_the_difference_and_makes_no_branch(released: Checkout, version: Version) -> None:
    before = released.state()

    done = released.run("promote_model", *APP, "--to", "staging", "--dry-run", "--push")

    what = f"would promote {version.version} to lily-api in staging, by the branch {branch_of(version)}"
    assert (done.code, done.err) == (0, f"{what}\n")
    assert f"+        image: {IMAGE}\n" in done.out
    assert released.state() == before


def test_what_runs_there_already_is_nothing_to_promote(released: Checkout, version: Version) -> None:
    assert released.run("promote_model", *APP, "--to", "staging", "--push").code == 0
    released.merge(branch_of(version))
    before = released.state()

    done = released.run("promote_model", *APP, "--to", "staging")
    told = json.loads(released.run("promote_model", *APP, "--to", "staging", "--json").out)

    assert (done.code, done.out, done.err) == (0, "", "nothing to change: staging runs this already\n")
    assert told == {
        "way": "branch", "branch": None, "commit": None, "next": [], "releases": [], "diff": "", "dry_run": False,
    }  # fmt: skip
    assert released.state() == before


# Asked for again


def test_the_same_twice_is_one_branch_also_when_other_apps_moved_on(
    released: Checkout, version: Version, tmp_path: Path, s3: S3
) -> None:
    assert released.run("promote_model", *APP, "--to", "staging", "--push").code == 0
    first = released.git("rev-parse", branch_of(version))
    second = package(tmp_path / "second", "two")
    s3.upload(second)
    sklearn = ("--app", "lily-sklearn", "--env", "dev", "--model-uri", second.uri)
    assert released.run("bump_model", *sklearn, "--push").code == 0
    before = released.state()

    done = released.run("promote_model", *APP, "--to", "staging", "--push")

    assert done.code == 0, done.err
    assert released.git("rev-parse", branch_of(version)) == first
    assert released.state() == before


def test_the_same_from_another_clone_is_the_branch_that_is_at_origin(
    released: Checkout, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = clone(released.remote, "other")
    assert released.run("promote_model", *APP, "--to", "staging", "--push").code == 0
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Another")

    done = other.run("promote_model", *APP, "--to", "staging", "--push")

    assert done.code == 0, done.err
    assert other.git("rev-parse", branch_of(version)) == released.git("rev-parse", branch_of(version))


@pytest.mark.parametrize(("place", "file"), [("here", FILE), ("here", "README.md"), ("origin", "README.md")])
def test_a_branch_of_that_name_with_other_content_is_left_to_a_person(
    released: Checkout, version: Version, place: str, file: str
) -> None:
    branch = branch_of(version)
    assert released.run("promote_model", *APP, "--to", "staging").code == 0
    released.git("checkout", "-q", branch)
    released.write(file, "something else")
    released.git("commit", "-qam", "Something else", "--amend")
    released.git("checkout", "-q", "cicd")
    drop = f"git branch -D {branch}"
    if place == "origin":
        released.git("push", "-q", "origin", branch)
        released.git("branch", "-qD", branch)
        drop = f"git push origin --delete {branch}"
    where = "at origin" if place == "origin" else "here"

    [line] = refused(released, *APP, "--to", "staging", "--push")

    assert line.startswith(f"branch {branch}: exists {where} with other content, by Test, 2")
    assert line.endswith(f", then merge it, or drop it with `{drop}`")


@pytest.mark.parametrize("author", ["Test", "Another"])
def test_a_branch_that_starts_from_another_release_than_runs_now_is_made_anew_by_who_made_it(
    released: Checkout, version: Version, author: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert released.run("promote_model", *APP, "--to", "staging", "--push").code == 0
    branch = branch_of(version)
    old = released.git("rev-parse", branch)
    released.replace(FILE, "code-commit: unreleased", "code-commit: another")
    released.commit("Another release", push=True)
    monkeypatch.setenv("GIT_AUTHOR_NAME", author)
    if author == "Another":
        [line] = refused(released, *APP, "--to", "staging", "--push")
        assert line.startswith(f"branch {branch}: exists at origin with other content, by Test, ")
        return

    done = released.run("promote_model", *APP, "--to", "staging", "--push")

    assert done.code == 0, done.err
    assert released.git("rev-parse", f"{branch}^") == released.tip()
    assert old != released.tip(branch) == released.git("rev-parse", branch)


def test_a_release_that_was_rolled_back_is_promoted_again_on_the_branch_that_was_merged(
    released: Checkout, version: Version, tmp_path: Path, s3: S3
) -> None:
    for content in ("one", "two"):
        made = package(tmp_path / content, content)
        s3.upload(made)
        assert released.run("bump_model", *APP, "--env", "dev", "--model-uri", made.uri, "--push").code == 0
        assert released.run("promote_model", *APP, "--to", "staging", "--push").code == 0
        released.merge(branch_of(made))
    at_staging = (*APP, "--env", "staging")
    assert released.run("rollback_model", *at_staging, "--reason", "a test", "--push").code == 0
    assert released.run("rollback_model", *at_staging, "--release-hold", "--push").code == 0

    done = released.run("promote_model", *APP, "--to", "staging", "--push")

    branch = branch_of(made)
    assert done.code == 0, done.err
    assert done.err.splitlines() == pushed(released, branch, f"{made.version} to lily-api in staging")
    assert git(released.remote, "rev-parse", branch) == released.git("rev-parse", branch)
    assert released.git("rev-parse", f"{branch}^") == released.tip()
    assert released.git("diff", "--name-only", "cicd", branch) == FILE


# A graph of environments


OTHER = IMAGE.replace("1" * 64, "2" * 64)
POLICY_FILE = "overlays/promotion.yaml"


@pytest.fixture(scope="module")
def graph_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with prod after dev and staging, which run the fixture's version with one image and another, both
    of which were in dev."""
    made = make_checkout(template, tmp_path_factory.mktemp("graph"))
    version = package(made.root.parent / "artifacts")
    made.replace(POLICY_FILE, "  - name: prod\n", "  - name: prod\n    after: [dev, staging]\n")
    for image, environments in ((IMAGE, ["dev", "staging"]), (OTHER, ["dev"])):
        for environment in environments:
            write_release(made.root, Target("lily-api", environment), version, "onnx", image)
        made.commit("Release", push=True)
    return made.remote


@pytest.fixture
def graph(graph_template: Path, tmp_path: Path, version: Version) -> Checkout:
    return make_checkout(graph_template, tmp_path)


TO_PROD = (*APP, "--to", "prod")


def test_where_those_before_run_different_releases_one_is_named(graph: Checkout, version: Version) -> None:
    assert refused(graph, *TO_PROD) == [
        f"--to prod: lily-api reaches it through environments that run different releases: dev runs {version.version}"
        f" with the image {OTHER}; staging runs {version.version} with the image {IMAGE}; name the one that is meant"
        " with --from, which must have come through dev and staging"
    ]
    assert refused(graph, *TO_PROD, "--from", "perf") == [
        "--from perf: prod does not come after it; releases come to prod through dev, staging"
    ]
    [line] = refused(graph, *TO_PROD, "--from", "dev")
    assert line.startswith(
        f"overlays/prod/lily-api/release.yaml: {version.version} with the image {OTHER} has never been released in"
        " staging, which comes before prod;"
    )

    done = graph.run("promote_model", *TO_PROD, "--from", "staging", "--push")

    assert done.code == 0, done.err
    branch = branch_of(version, "prod")
    assert done.err.splitlines() == pushed(graph, branch, f"{version.version} to lily-api in prod")
    carried = release_file.read_all({FILE: graph.git("show", f"cicd:{FILE}").encode()}.get, "lily-api", "staging")[0]
    file = "overlays/prod/lily-api/release.yaml"
    text = graph.git("show", f"{branch}:{file}").encode()
    assert release_file.read_all({file: text}.get, "lily-api", "prod")[0].same_as(carried)


def test_where_all_run_the_same_none_is_named(graph: Checkout, version: Version) -> None:
    assert graph.run("promote_model", *APP, "--to", "staging", "--push").code == 0
    graph.merge(branch_of(version).replace("1" * 12, "2" * 12))

    done = graph.run("promote_model", *TO_PROD, "--from", "dev")

    assert done.code == 0, done.err
    assert " already, not merged: " in graph.run("promote_model", *TO_PROD).err


def test_all_must_have_a_release_and_a_place_for_one(graph: Checkout, version: Version) -> None:
    graph.git("checkout", "-q", "cicd")
    text = graph.git("show", "HEAD~1^:overlays/staging/lily-api/release.yaml")
    graph.write(FILE, f"{text}\n")
    graph.commit("Take the release back", push=True)

    unreleased = f"{FILE}: unreleased; lily-api reaches prod through staging, release it there first"
    assert refused(graph, *TO_PROD) == [unreleased] == refused(graph, *TO_PROD, "--from", "staging")
    [line] = refused(graph, *TO_PROD, "--from", "dev")
    assert "has never been released in staging, which comes before prod" in line

    graph.git("rm", "-qr", "overlays/staging/lily-api")
    graph.commit("Take the app away", push=True)
    [line] = refused(graph, *TO_PROD)
    assert line.startswith(f"{FILE}: missing; lily-api has no overlay in staging, ")


def ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()


def test_a_release_waits_for_the_soak_of_where_it_runs(
    released: Checkout, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    released.replace(POLICY_FILE, "  - name: dev\n", "  - name: dev\n    soak: 30h\n")
    released.commit("Let releases run in dev", push=True)
    came = datetime.fromisoformat(released.git("show", "-s", "--format=%cI", "HEAD~1"))
    [line] = refused(released, *APP, "--to", "staging")
    since, then = (f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for time in (came, came + timedelta(hours=30)))
    assert line == (
        f"{FILE}: {version.version}: has run in dev since {since}, where a release runs for 30h before it comes to"
        f" staging; it may from {then} on"
    )

    # Another release comes and goes again, so that this one has come 29 and then 31 hours ago.
    for hours in (29, 31):
        for image in (OTHER, IMAGE):
            write_release(released.root, Target("lily-api", "dev"), version, "onnx", image)
            monkeypatch.setenv("GIT_COMMITTER_DATE", ago(hours))
            released.commit("Release", push=True)
        monkeypatch.delenv("GIT_COMMITTER_DATE")
        done = released.run("promote_model", *APP, "--to", "staging", "--dry-run")
        assert (done.code, "it may from" in done.err) == ((1, True) if hours < 30 else (0, False))


@pytest.mark.parametrize("window", ["'*/30 * * * *', duration: 1h", "'0 0 1 1 *', duration: 9999h, reason: audit"])
def test_who_promotes_into_a_freeze_is_told_so(released: Checkout, window: str) -> None:
    released.replace(POLICY_FILE, "name: staging\n", f"name: staging\n    freeze: [{{schedule: {window}}}]\n")
    released.commit("Freeze staging", push=True)

    done = released.run("promote_model", *APP, "--to", "staging")

    assert done.code == 0, done.err
    assert re.fullmatch(
        r"staging is frozen until \d{4}-\d\d-\d\dT\d\d:\d\dZ( \(audit\))?: until then Argo CD syncs nothing there by"
        " itself, and a person can, with `argocd app sync lily-api-staging`",
        done.err.splitlines()[-1],
    )


# Refused


def test_a_release_must_run_in_the_environment_before(released: Checkout) -> None:
    assert refused(released, *APP, "--to", "prod", "--push") == [
        "overlays/staging/lily-api/release.yaml: unreleased; lily-api reaches prod through staging,"
        " release it there first"
    ]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            (*APP, "--to", "dev"),
            "--to dev: the first environment; releases come to it by `python scripts/bump_model.py`",
        ),
        (
            (*APP, "--to", "qa"),
            "overlays/promotion.yaml: environments: no 'qa'; the environments are dev, staging, prod",
        ),
        (
            ("--app", "none", "--to", "staging"),
            "apps/none: no such app; the apps are lily-api, lily-batch, lily-sklearn",
        ),
        (
            (*APP, "--to", "staging"),
            "overlays/dev/lily-api/release.yaml: unreleased; lily-api reaches staging through dev,"
            " release it there first",
        ),
    ],
)
def test_what_is_not_there_cannot_be_promoted(checkout: Checkout, args: tuple[str, ...], line: str) -> None:
    assert refused(checkout, *args, "--push") == [line]


def test_bytes_that_were_altered_since_are_not_promoted(released: Checkout, version: Version, s3: S3) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=f"models/lily/{version.version}/sklearn/model.joblib", Body=b"evil bytes")

    [line] = refused(released, *APP, "--to", "staging", "--push")

    assert line.startswith(f"{version.uri}sklearn/model.joblib: sha256 ")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "DIGEST",
            f"sha256:{'0' * 64}",
            f"digest: sha256:{'0' * 64}, but URI has DIGEST; the version in the bucket is not the one that was"
            " released, do not release it again",
        ),
        (
            "URIonnx/",
            "s3://somewhere",
            "'s3://somewhere': not the folder of a model version; release one there with"
            " `python scripts/bump_model.py`",
        ),
    ],
)
def test_a_release_that_was_written_by_hand_is_not_carried_on(
    released: Checkout, version: Version, old: str, new: str, line: str
) -> None:
    def filled(text: str) -> str:
        return text.replace("URI", version.uri).replace("DIGEST", version.digest)

    file = "overlays/dev/lily-api/release.yaml"
    released.write(file, released.read(file).decode().replace(filled(old), new))
    released.commit(push=True)

    assert refused(released, *APP, "--to", "staging") == [f"{file}: {filled(line)}"]


def test_uncommitted_changes_no_remote_and_a_shallow_clone_are_refused(checkout: Checkout) -> None:
    checkout.write("overlays/dev/mine.yaml", "mine")
    assert refused(checkout, *APP, "--to", "staging") == [
        "overlays/dev/mine.yaml: uncommitted change; commit it, or put it away with `git stash`"
    ]
    checkout.git("clean", "-fdq")
    checkout.git("remote", "remove", "origin")
    assert refused(checkout, *APP, "--to", "staging", "--push") == [
        "--pull-request: no remote `origin`; add one with `git remote add origin URL`, or leave --pull-request out"
    ]
    (checkout.root / ".git/shallow").write_text(checkout.git("rev-parse", "HEAD") + "\n")
    assert refused(checkout, *APP, "--to", "staging") == [
        f"{checkout.root}: shallow clone, so history cannot be trusted; run `git fetch --unshallow`"
    ]


def test_a_pull_request_does_not_carry_commits_of_cicd_that_origin_lacks(released: Checkout, version: Version) -> None:
    released.write("README.md", "edited")
    own = released.commit()

    done = released.run("promote_model", *APP, "--to", "staging", "--push")

    assert done.code == 0, done.err
    assert done.err.splitlines()[0] == (
        f"warning: the local branch cicd at {own[:12]} has commits that origin/cicd lacks; this is made without them"
    )
    assert released.git("rev-parse", f"{branch_of(version)}^") == released.tip()
    assert released.git("rev-parse", "cicd") == own


def test_a_push_that_origin_refuses_leaves_no_branch_behind(released: Checkout) -> None:
    hook(released.remote, "pre-receive", "echo 'no such branches here'; exit 1")

    errors = refused(released, *APP, "--to", "staging", "--push")

    assert "git push: remote: no such branches here" in errors


@pytest.mark.parametrize("args", [[], [*APP], ["--to", "staging"], [*APP, "--to", "staging", "--force"]])
def test_wrong_usage_is_exit_2(args: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("promote_model", *args)

    assert ended.value.code == 2

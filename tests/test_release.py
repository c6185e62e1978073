from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from textwrap import indent

import pytest
import yaml
from conftest import IMAGE, REGISTRY, Checkout, git

from gitops.releases import history, hold, release, release_file
from gitops.releases.judgement import Moment
from gitops.releases.release import Release, Target
from gitops.repo import snapshot
from gitops.repo.git import Git
from gitops.repo.policy import Policy

from contract.errors import Refused

KINDS = (
    ": a release is written for a Deployment, a StatefulSet, a CronJob, an InferenceService, a Model of SageMaker or"
    " a Stack"
)
POLICY = Policy("mlops-prod", (REGISTRY,), ("dev", "staging", "prod"))
TARGET = Target("app", "dev")
NOBODY = Policy("", (), ())
FILE = "overlays/dev/app/release.yaml"
SERVICE = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: app
  annotations:
    model.mlops/version: unreleased
    model.mlops/digest: unreleased
    model.mlops/code-commit: unreleased
    model.mlops/data-digest: unreleased
    model.mlops/mlflow-run: unreleased
spec:
  predictor:
    model:
      storageUri: s3://unreleased/
"""
ANNOTATIONS = """\
  model.mlops/version: v1
  model.mlops/digest: sha256:1
  model.mlops/code-commit: c1
  model.mlops/data-digest: d1
  model.mlops/mlflow-run: r1
"""
DEPLOYMENT = f"""\
apiVersion: apps/v1
kind: Deployment
metadata:
  annotations:
{indent(ANNOTATIONS, "  ")}\
spec:
  template:
    spec:
      containers:
        - name: proxy
          image: proxy:1
        - name: api
          image: registry/api:1
          env:
            - name: MODEL_URI
              value: s3://bucket/models/lily/v1/onnx/
            - name: MODEL_DIGEST
              value: sha256:1
"""
CRON_JOB = (
    "apiVersion: batch/v1\nkind: CronJob\n"
    + DEPLOYMENT.partition("spec:\n")[0].partition("kind: Deployment\n")[2]
    + "spec:\n  jobTemplate:\n    spec:\n"
    + "".join(f"    {line}\n" for line in DEPLOYMENT.partition("spec:\n")[2].splitlines())
)


def numbered(number: int, environment: str = "dev") -> Release:
    """A release of an InferenceService whose every field has this number."""
    words = [f"{word}{number}" for word in ("version", "digest", "code", "data", "run")]
    file = f"overlays/{environment}/app/release.yaml"
    return Release("app", environment, *words, uri=f"s3://b/{number}/", image=None, file=file)


# The file


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind: Service\n", f"kind: 'Service' of None{KINDS}"),
        ("apiVersion: example.com/v1\nkind: Deployment\n", f"kind: 'Deployment' of 'example.com/v1'{KINDS}"),
        ("- kind: Deployment\n", f"kind: None of None{KINDS}"),
        ("just a text\n", f"kind: None of None{KINDS}"),
        (
            "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nspec: {predictor: {sklearn: {storageUri: s3://b/}}}\n",
            "spec.predictor.sklearn.storageUri: a change of it never reaches the running model under server-side apply;"
            " write spec.predictor.model.storageUri and spec.predictor.model.modelFormat.name: sklearn",
        ),
        (
            "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nspec: {predictor: {storageUris: [{uri: s3://b/}]}}\n",
            "spec.predictor.storageUris: one model per release; write spec.predictor.model.storageUri",
        ),
        (
            DEPLOYMENT.replace("MODEL_URI", "OTHER"),
            "spec.template.spec.containers: 0 containers with the variable MODEL_URI; a release sets it in exactly one",
        ),
        (
            CRON_JOB.replace("MODEL_URI", "OTHER"),
            "spec.jobTemplate.spec.template.spec.containers: 0 containers with the variable MODEL_URI; a release sets"
            " it in exactly one",
        ),
        (
            DEPLOYMENT.replace("image: proxy:1", "env: [{name: MODEL_URI, value: x}]"),
            "spec.template.spec.containers: 2 containers with the variable MODEL_URI; a release sets it in exactly one",
        ),
        (
            DEPLOYMENT.replace("value: sha256:1", "value: sha256:2"),
            "spec.template.spec.containers[api].env[MODEL_DIGEST].value: sha256:2 differs from the annotation sha256:1",
        ),
        (
            DEPLOYMENT.replace("    model.mlops/mlflow-run: r1\n", ""),
            "metadata.annotations.model.mlops/mlflow-run: missing; a release has this field",
        ),
        (
            SERVICE.replace("      storageUri: s3://unreleased/\n", "      {}\n"),
            "spec.predictor.model.storageUri: missing; a release has this field",
        ),
    ],
)
def test_a_file_that_is_no_release_is_refused_with_its_field(text: str, line: str) -> None:
    with pytest.raises(Refused) as refused:
        release_file.read(text.encode(), TARGET, FILE)

    assert refused.value.lines == (f"{FILE}: {line}",)


@pytest.mark.parametrize("value", ["text", "[]", "[text]", "{}", "null", "1"])
@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: apps/v1\nkind: Deployment\nspec: VALUE\n",
        "apiVersion: apps/v1\nkind: Deployment\nspec: {template: VALUE}\n",
        "apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: VALUE}}\n",
        "apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {containers: VALUE}}}\n",
        "apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {containers: [{name: api, env: VALUE}]}}}\n",
        "apiVersion: batch/v1\nkind: CronJob\nspec: VALUE\n",
        "apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: VALUE}\n",
        "apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {containers: VALUE}}}}}\n",
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nspec: VALUE\n",
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nspec: {predictor: VALUE}\n",
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nspec: {predictor: {model: VALUE}}\n",
    ],
)
def test_a_file_of_any_shape_is_refused_and_never_a_crash(text: str, value: str) -> None:
    with pytest.raises(Refused):
        release_file.read(text.replace("VALUE", value).encode(), TARGET, FILE)


@pytest.mark.parametrize("before", [DEPLOYMENT, CRON_JOB], ids=["Deployment", "CronJob"])
def test_what_is_written_is_what_is_read(before: str) -> None:
    new = replace(release_file.read(before.encode(), TARGET, FILE), version="v2", digest="sha256:2", image=IMAGE)

    text = release_file.write(before.encode(), new)

    assert release_file.read(text, TARGET, FILE) == new
    assert text.count(b"sha256:2") == 2
    assert b"image: proxy:1" in text


# Images


@pytest.mark.parametrize("name", [f"{REGISTRY}/a", f"{REGISTRY}/team/lily-api"])
@pytest.mark.parametrize("ending", [f"@sha256:{'a' * 64}", ":1.2.3", ":v1_b-2", f":v1@sha256:{'a' * 64}"])
def test_an_image_of_the_owners_registry_may_be_named_by_digest_or_tag(name: str, ending: str) -> None:
    release.require_image(f"{name}{ending}", POLICY)


@pytest.mark.parametrize(
    "image",
    ["", "api", f"{REGISTRY}/api", f"{REGISTRY}/api:latest", f"{REGISTRY}/api@sha256:abc", f"{REGISTRY}/api:1\n",
     f"{REGISTRY}/API:1", f"{REGISTRY}//api:1", f"{REGISTRY}/api:1@sha256:abc", f"{REGISTRY}/api@sha256:{'a' * 64}:1"],
)  # fmt: skip
def test_an_image_by_latest_or_by_no_fixed_name_is_refused(image: str) -> None:
    with pytest.raises(Refused) as refused:
        release.require_image(image, POLICY)

    assert refused.value.lines == (
        f"--image {image}: name it as REGISTRY/NAME@sha256:DIGEST, REGISTRY/NAME:TAG or"
        " REGISTRY/NAME:TAG@sha256:DIGEST, and not by `latest` alone",
    )


DIGEST, OTHER = (f"sha256:{letter * 64}" for letter in "ab")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (f"r/a:v1@{DIGEST}", f"r/a@{DIGEST}", True),
        (f"r:5000/a:v1@{DIGEST}", f"r:5000/a:v2@{DIGEST}", True),
        (f"r/a:v1@{DIGEST}", f"r/a:v1@{OTHER}", False),
        (f"r/a@{DIGEST}", f"r/b@{DIGEST}", False),
        ("r/a:v1", f"r/a:v1@{DIGEST}", False),
        ("r:5000/a:v1", "r/a:v1", False),
    ],
)
def test_a_release_is_the_digest_of_its_image_where_there_is_one(one: str, other: str, same: bool) -> None:
    first, second = (replace(numbered(1), image=image) for image in (one, other))

    assert (first == second, len({first, second}) == 1, first.same_as(second)) == (same, same, same)


ENTRY = f"""\
kind: Kustomization
commonAnnotations:
{ANNOTATIONS}\
  model.mlops/uri: s3://b/1/
images:
  - name: api
    newName: r:5000/a
"""
TAG, BOTH, BARE = "r:5000/b:v2", f"r:5000/b:v2@{DIGEST}", f"r:5000/b@{DIGEST}"
REFUSED = None


@pytest.mark.parametrize(
    ("fields", "image", "written"),
    [
        ("newTag: v1", TAG, "newTag: v2"),
        ("newTag: v1", BOTH, f"newTag: v2@{DIGEST}"),
        ("newTag: v1", BARE, REFUSED),
        (f"newTag: v1@{OTHER}", TAG, "newTag: v2"),
        (f"newTag: v1@{OTHER}", BOTH, f"newTag: v2@{DIGEST}"),
        (f"digest: {OTHER}", BARE, f"digest: {DIGEST}"),
        (f"digest: {OTHER}", BOTH, f"digest: {DIGEST}"),
        (f"digest: {OTHER}", TAG, REFUSED),
        (f"digest: {OTHER}\n    newTag: v1", BOTH, f"digest: {DIGEST}\n    newTag: v2"),
        (f"digest: {OTHER}\n    newTag: v1", BARE, f'digest: {DIGEST}\n    newTag: ""'),
        (f"digest: {OTHER}\n    newTag: v1", TAG, 'digest: ""\n    newTag: v2'),
        ('digest: ""\n    newTag: v1', BOTH, f"digest: {DIGEST}\n    newTag: v2"),
        ("digest: unreleased\n    newTag: unreleased", BOTH, f"digest: {DIGEST}\n    newTag: v2"),
    ],
)
def test_an_image_is_written_into_any_entry_that_kustomize_or_renovate_leaves(
    fields: str, image: str, written: str | None
) -> None:
    text = f"{ENTRY}    {fields}\n".encode()
    now = release_file.read(text, TARGET, FILE)
    new = replace(now, image=image)
    if written is None:
        with pytest.raises(Refused, match="cannot be written as a"):
            release_file.write(text, new)
        return

    after = release_file.write(text, new)

    assert after.decode() == ENTRY.replace("r:5000/a", "r:5000/b") + f"    {written}\n"
    assert release_file.read(after, TARGET, FILE) == new


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ("newTag: ''", "images[api].newTag: missing; a release has this field"),
        ("digest: ''\n    newTag: ''", "images[api].newTag: missing; a release has this field"),
        ("a: b", "images[api]: needs `digest`, `newTag` or both"),
    ],
)
def test_an_entry_without_an_image_is_refused(entry: str, line: str) -> None:
    with pytest.raises(Refused) as refused:
        release_file.read(f"{ENTRY}    {entry}\n".encode(), TARGET, FILE)

    assert refused.value.lines == (f"{FILE}: {line}",)


@pytest.mark.parametrize("image", ["docker.io/library/api:1", f"{REGISTRY}.evil.example/api:1", f"a{REGISTRY}/api:1"])
def test_an_image_of_another_registry_is_refused(image: str) -> None:
    with pytest.raises(Refused) as refused:
        release.require_image(image, POLICY)

    assert refused.value.lines == (
        f"--image {image}: not in one of the registries of overlays/promotion.yaml: {REGISTRY}",
    )


# Messages


def test_a_message_has_the_trailers_of_each_release_as_git_reads_them(plain: Checkout) -> None:
    both = [numbered(1), replace(numbered(2), app="other", image=IMAGE)]

    text = release.message("Release", both, {})

    (plain.root / "message").write_text(text)
    assert text.startswith(
        "Release app in dev to version1 and 1 more\n\n- app in dev: s3://b/1/\n- other in dev: s3://b/2/\n\n"
    )
    assert plain.git("interpret-trailers", "--parse", "message").splitlines() == [
        "Release: app dev",
        "Model-Version: version1",
        "Model-Digest: digest1",
        "Code-Commit: code1",
        "Data-Digest: data1",
        "MLflow-Run: run1",
        "Release: other dev",
        "Model-Version: version2",
        "Model-Digest: digest2",
        "Code-Commit: code2",
        "Data-Digest: data2",
        "MLflow-Run: run2",
        f"Image: {IMAGE}",
    ]


# History


@pytest.fixture
def ran(plain: Checkout) -> Checkout:
    """A repository in which release 1 of `app` ran in dev."""
    plain.write(FILE, SERVICE)
    plain.commit("unreleased")
    commit_release(plain, numbered(1))
    return plain


def commit_release(checkout: Checkout, new: Release) -> str:
    checkout.write(new.file, release_file.write(SERVICE.encode(), new))
    return checkout.commit(f"{new.environment} {new.version}")


def test_what_a_merged_branch_tried_on_its_way_never_ran(ran: Checkout) -> None:
    ran.git("checkout", "-q", "-b", "topic")
    for number in (2, 3):
        commit_release(ran, numbered(number))
    ran.git("checkout", "-q", "cicd")
    ran.git("merge", "-q", "--no-ff", "-m", "Merge", "topic")

    found = history.Ran(Git(ran.root), "cicd", NOBODY)(TARGET)

    assert found == [Moment(None), Moment(numbered(1)), Moment(numbered(3))]


def test_a_release_is_found_behind_many_later_comments(ran: Checkout) -> None:
    came = commit_release(ran, numbered(2))
    for number in range(20):
        ran.replace(FILE, "spec:\n", f"# comment {number}\nspec:\n")
        ran.commit("A comment")

    assert [change.commit for change in history.since(Git(ran.root), "cicd", [numbered(2)])] == [came]


def test_a_version_that_is_written_with_an_escape_is_named_too(ran: Checkout) -> None:
    commit_release(ran, numbered(2))
    ran.replace(FILE, "/version: version2", '/version: "version\\x32"')
    ran.commit("An escape")
    git = Git(ran.root)

    [written] = release_file.read_all(snapshot.at(git, "cicd").read, "app", "dev")
    assert written.version == "version2"
    assert history.naming(snapshot.at(git, "cicd"), ["version2"]) == {("app", "dev")}
    assert history.naming(snapshot.at(git, None), ["version2"]) == {("app", "dev")}


def test_a_release_runs_since_the_merge_that_brought_it_and_not_since_a_later_comment(ran: Checkout) -> None:
    ran.git("checkout", "-q", "-b", "topic")
    commit_release(ran, numbered(2))
    ran.git("checkout", "-q", "cicd")
    ran.git("merge", "-q", "--no-ff", "-m", "Merge", "topic")
    merge = ran.git("rev-parse", "HEAD")
    ran.replace(FILE, "spec:\n", "# the predictor\nspec:\n")
    ran.commit("A comment")

    arrived = history.since(Git(ran.root), "cicd", [numbered(2)])[0]

    assert arrived.commit == merge
    assert arrived.date == git(ran.root, "show", "-s", "--format=%cI", merge)
    assert arrived.author == "Test"


def test_a_release_that_came_back_runs_since_it_came_back(ran: Checkout) -> None:
    commit_release(ran, numbered(2))
    back = commit_release(ran, numbered(1))

    assert history.since(Git(ran.root), "cicd", [numbered(1)])[0].commit == back


def test_what_a_target_had_is_read_from_the_files_of_all_commits_oldest_first(ran: Checkout) -> None:
    path = hold.path("app", "dev")
    ran.write(path, "held")
    commit_release(ran, numbered(2))
    ran.write(FILE, "kind: Service\n")  # no release could be compared with it
    ran.commit()
    ran.git("rm", "-qr", "overlays/dev")
    ran.commit("Retire app from dev")

    found = history.Ran(Git(ran.root), "cicd", NOBODY)(TARGET)

    assert found == [Moment(None), Moment(numbered(1)), Moment(numbered(2), b"held"), Moment(None)]
    assert history.Ran(Git(ran.root), "cicd", replace(NOBODY, environments=("dev",)))(Target("app", "prod")) == []


def environments(checkout: Checkout, *names: str) -> None:
    listed = "".join(f"  - name: {name}\n" for name in names)
    text = f"model_bucket: mlops-prod\nimage_registries: [r.example.org]\nenvironments:\n{listed}"
    checkout.write("overlays/promotion.yaml", text)


def move(checkout: Checkout, old: str, new: str) -> None:
    (checkout.root / "overlays" / new).parent.mkdir(parents=True, exist_ok=True)
    checkout.git("mv", f"overlays/{old}", f"overlays/{new}")


Places = Sequence[tuple[str, str]]


@pytest.mark.parametrize(
    ("steps", "target", "found"),
    [
        # An environment gets another name: at once, or in the policy first, before it or behind it, and then the files.
        ([(["dev", "qa", "live"], [("prod/app", "live/app")])], ("app", "live"), [1, 2]),
        (
            [
                (["dev", "qa", "prod", "live"], []), ([], [("prod/app", "live/app")]), (["dev", "qa", "live"], []),
                (["dev", "qa", "perf", "live"], []),
            ],
            ("app", "live"),
            [1, 2],
        ),
        (
            [(["dev", "qa", "live", "prod"], [("prod/app", "live/app")]), (["dev", "qa", "live"], [])],
            ("app", "live"),
            [1, 2],
        ),
        # And another one after that.
        (
            [(["dev", "qa", "live"], [("prod/app", "live/app")]), (["dev", "qa", "last"], [("live/app", "last/app")])],
            ("app", "last"),
            [1, 2],
        ),
        # An app gets another name.
        ([([], [("prod/app", "prod/lily")])], ("lily", "prod"), [1, 2]),
        ([([], [("prod/app", "prod/lily"), ("dev/app", "dev/lily")])], ("lily", "dev"), [1, 2, 3]),
        # Both at once, or an environment that remains.
        ([(["dev", "qa", "live"], [("prod/app", "live/lily")])], ("lily", "live"), [2]),
        ([(["dev", "qa", "prod", "live"], [("prod/app", "live/app")])], ("app", "live"), [2]),
        # What ran in the first environment alone is nothing of the last one, though the first is taken away.
        ([(["qa", "live"], [("dev/app", "live/app")])], ("app", "live"), [3]),
        (
            [(["dev", "qa", "prod", "live"], [("dev/app", "live/app")]), (["qa", "prod", "live"], [])],
            ("app", "live"),
            [3],
        ),
        # One that was no environment.
        ([(["qa", "live"], []), ([], [("dev/app", "live/app")])], ("app", "live"), [3]),
    ],
)  # fmt: skip
def test_what_ran_before_a_place_was_moved_ran_there(
    ran: Checkout, steps: Sequence[tuple[list[str], Places]], target: tuple[str, str], found: list[int]
) -> None:
    environments(ran, "dev", "qa", "prod")
    for number, environment in ((1, "prod"), (2, "dev"), (2, "prod"), (3, "dev")):
        commit_release(ran, numbered(number, environment))
    order = ["dev", "qa", "prod"]
    for names, moves in steps:
        for old, new in moves:
            move(ran, old, new)
        if names:
            environments(ran, *names)
        order = names or order
        ran.commit("A step")

    moments = history.Ran(Git(ran.root), ran.git("rev-parse", "cicd"), replace(NOBODY, environments=tuple(order)))(
        Target(*target)
    )

    seen = dict.fromkeys((one.release.version, one.release.target) for one in moments if one.release)
    assert list(seen) == [(f"version{number}", Target(*target)) for number in found]


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        # The new name comes after no more than the old one did.
        ({"dev": [], "qa": ["dev"], "perf": ["dev"], "live": ["qa", "perf"]}, [1, 2]),
        ({"dev": [], "qa": ["dev"], "perf": ["qa"], "live": ["perf"]}, [1, 2]),
        ({"dev": [], "qa": ["dev"], "perf": ["dev"], "live": ["qa"]}, [1, 2]),
        # It comes after one more, directly or not.
        ({"dev": [], "qa": ["dev"], "perf": ["dev"], "new": ["dev"], "live": ["qa", "new"]}, [2]),
        ({"dev": [], "new": ["dev"], "qa": ["new"], "perf": ["dev"], "live": ["qa", "perf"]}, [2]),
    ],
)
def test_an_environment_of_a_graph_is_the_same_under_a_name_that_comes_after_no_more(
    ran: Checkout, graph: dict[str, list[str]], found: list[int]
) -> None:
    old = {"dev": [], "qa": ["dev"], "perf": ["dev"], "prod": ["qa", "perf"]}
    for number, names in ((1, old), (2, old), (2, graph)):
        entries = [{"name": name} | ({"after": after} if after else {}) for name, after in names.items()]
        policy = {"model_bucket": "mlops-prod", "image_registries": ["r.example.org"], "environments": entries}
        ran.write("overlays/promotion.yaml", yaml.safe_dump(policy))
        if names is graph:
            move(ran, "prod/app", "live/app")
            ran.commit("Another name")
        else:
            commit_release(ran, numbered(number, "prod"))

    moments = history.Ran(Git(ran.root), ran.git("rev-parse", "cicd"), snapshot.at(Git(ran.root), "cicd").policy)(
        Target("app", "live")
    )

    assert [one.release.version for one in moments if one.release] == [
        *(f"version{number}" for number in found),
        *(["version2"] if found == [1, 2] else []),
    ]
    assert all(one.since for one in moments)


def test_a_commit_whose_date_is_no_time_has_none(ran: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    # A year of five digits, and one after which nothing can be reckoned.
    for number, date in ((2, "@253402300800 +0000"), (3, "@253000000000 +0000")):
        monkeypatch.setenv("GIT_COMMITTER_DATE", date)
        commit_release(ran, numbered(number))

    times = [one.since for one in history.Ran(Git(ran.root), "cicd", NOBODY)(TARGET)]

    assert [time is None for time in times] == [False, False, True, True]


def test_what_commits_of_a_branch_release_is_what_none_of_their_parents_had(ran: Checkout) -> None:
    base = ran.git("rev-parse", "HEAD")
    ran.git("checkout", "-q", "-b", "topic")
    two = commit_release(ran, numbered(2))
    back = commit_release(ran, numbered(1))
    ran.git("checkout", "-q", "cicd")
    commit_release(ran, numbered(3))
    tip = ran.git("rev-parse", "HEAD")
    ran.git("merge", "-q", "--no-ff", "-m", "Merge", "topic")

    assert history.introduced(Git(ran.root), base, "topic") == [(back, numbered(1)), (two, numbered(2))]
    # That the merge has what both sides had is news to nobody, and what is on the branch already is not asked.
    assert history.introduced(Git(ran.root), tip, "cicd") == [(back, numbered(1)), (two, numbered(2))]


def test_a_branch_in_a_branch_hides_nothing(ran: Checkout) -> None:
    """Its merge has what was there before, so git would leave it out of the history of the file."""
    base = ran.git("rev-parse", "HEAD")
    ran.git("checkout", "-q", "-b", "topic")
    ran.write("README.md", "Ours.\n")
    ran.commit()
    ran.git("checkout", "-q", "-b", "inner", base)
    two = commit_release(ran, numbered(2))
    back = commit_release(ran, numbered(1))
    ran.git("checkout", "-q", "topic")
    ran.git("merge", "-q", "--no-ff", "-m", "Merge", "inner")

    assert history.introduced(Git(ran.root), base, "topic") == [(back, numbered(1)), (two, numbered(2))]


def test_a_name_that_git_quotes_is_refused_and_one_in_any_letters_is_read(ran: Checkout) -> None:
    base = ran.git("rev-parse", "HEAD")
    other = replace(numbered(2), app="\u00e4pp", file="overlays/dev/\u00e4pp/release.yaml")
    commit = commit_release(ran, other)
    assert history.introduced(Git(ran.root), base, "HEAD") == [(commit, other)]

    commit_release(ran, replace(other, file='overlays/dev/a"b/release.yaml'))
    with pytest.raises(Refused, match="no name that a file of a release can have"):
        history.introduced(Git(ran.root), base, "HEAD")


def test_a_canary_that_cannot_be_read_hides_no_release_beside_it(ran: Checkout) -> None:
    base = ran.git("rev-parse", "HEAD")
    text = release_file.write(SERVICE.encode(), numbered(2)).decode()
    ran.write(FILE, text + "  canary: [{predictor: {name: next, storageUris: []}}]\n")
    commit = ran.commit()

    assert history.introduced(Git(ran.root), base, "HEAD") == [(commit, numbered(2))]
    assert history.Ran(Git(ran.root), "HEAD", NOBODY)(TARGET)[-1] == Moment(numbered(2))


def test_what_ever_ran_is_known_of_apps_that_are_gone_and_not_of_what_a_merged_branch_tried(ran: Checkout) -> None:
    ran.git("checkout", "-q", "-b", "topic")
    for item in (numbered(2, "prod"), numbered(3, "prod")):
        commit_release(ran, item)
    ran.git("checkout", "-q", "cicd")
    ran.git("merge", "-q", "--no-ff", "-m", "Merge", "topic")
    ran.git("rm", "-qr", "overlays/prod")
    ran.commit("Retire app from prod")

    assert history.ever(Git(ran.root), "cicd") == {numbered(1), numbered(3, "prod")}


def test_a_file_that_was_no_release_once_hides_no_other_release(ran: Checkout) -> None:
    ran.write(FILE, "kind: Service\n")
    ran.commit()
    commit_release(ran, numbered(2))

    assert history.Ran(Git(ran.root), "cicd", NOBODY)(TARGET) == [
        Moment(None),
        Moment(numbered(1)),
        Moment(numbered(2)),
    ]

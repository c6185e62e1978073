"""Environments are added and removed by one command each, and the checks find nothing to mend."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import IMAGE, S3, Checkout, make_checkout, package

from gitops.checks import environments
from gitops.checks.environments import Place
from gitops.manifests import kustomize
from gitops.repo import codeowners, entries, layout, values
from gitops.repo.policy import parse_policy, read_policy
from gitops.repo.snapshot import OnDisk, Snapshot

from contract.errors import Refused

AMERICAN = ("--account", "444455556666", "--region", "us-east-1", "--host", "us.ml.example.com")
US = ("add", "prod-us", "--after", "staging", "--like", "prod", "--production", *AMERICAN)
REPLICAS = b"replicas:\n  - {bucket: mlops-us, region: us-east-1}\n"
PERF = ("add", "perf", "--after", "dev", "--before", "staging")


@pytest.fixture(scope="module")
def world(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make_checkout(template, tmp_path_factory.mktemp("environment"))


def changed(checkout: Checkout, *args: str, alone: bool = False) -> dict[str, Any]:
    """Runs the command for a pull request, merges that, and asks every check of the change, and of the result `alone`
    too. No render of another environment is another than before."""
    renders = rendered(checkout)
    done = checkout.run("environment", *args, "--pull-request", "--json")
    assert done.code == 0, done.err
    told: dict[str, Any] = json.loads(done.out)
    before = checkout.tip()
    checkout.merge(told["branch"])
    for options in (("--changed-since", before), *([()] if alone else [])):
        checked = checkout.run("validate", *options)
        assert (checked.code, checked.errors) == (0, [])
    after = rendered(checkout)
    assert {folder: after[folder] for folder in renders if folder in after} == {
        folder: items for folder, items in renders.items() if folder.split("/")[1] != told["environment"]
    }
    return told


def rendered(checkout: Checkout) -> dict[str, Any]:
    """What each overlay renders; of those whose files are as they were before, it is remembered."""
    return kustomize.once(OnDisk(checkout.root), layout.overlays(checkout.root, read_policy(checkout.root)))


def admitted(checkout: Checkout) -> str:
    return checkout.read("argocd/platform/admission/bindings.yaml").decode()


def test_two_are_added_and_one_is_removed(world: Checkout) -> None:
    told = changed(world, *US, alone=True)

    assert told["moved"] == []
    policy = read_policy(world.root)
    assert policy.environments == ("dev", "staging", "prod-us", "prod")
    assert (policy.production, policy.after("prod"), policy.next("staging")) == (
        ("prod-us", "prod"), ("staging",), ("prod-us", "prod"),
    )  # fmt: skip
    assert policy.at("prod-us").freeze == policy.at("prod").freeze
    assert admitted(world).count("[ml-dev, ml-staging, ml-prod-us, ml-prod]") == 4
    assert b'production-namespaces: "ml-prod-us ml-prod"\n' in world.read("argocd/platform/admission/parameters.yaml")
    role = "eks.amazonaws.com/role-arn: arn:aws:iam::444455556666:role/ml-prod-us-model-reader"
    assert f"overlays/prod-us/shared/model-reader.yaml: line 7: {role}" in told["guessed"]
    assert "overlays/prod-us/shared/kustomization.yaml: line 11: - AWS_REGION=us-east-1" in told["guessed"]
    assert "overlays/prod-us/lily-api/kustomization.yaml: line 19: value: lily-api.us.ml.example.com" in told["guessed"]

    told = changed(world, *PERF, alone=True)

    assert "overlays/promotion.yaml: line 13: hosts: [perf.ml.example.com]" in told["guessed"]
    assert told["moved"] == ["staging now comes after perf."]
    before = world.git("rev-parse", "HEAD^1")
    told = changed(world, "remove", "perf", alone=True)

    assert told["moved"] == ["staging now comes after dev."]
    assert world.git("diff", "--stat", before, "--", "overlays/dev", "argocd", "overlays/prod") == ""
    assert read_policy(world.root).after("staging") == ("dev",)


def test_then_a_release_goes_through_all_and_back_in_one_region(world: Checkout, tmp_path: Path, s3: S3) -> None:
    versions = [package(tmp_path / name, name) for name in ("one", "two")]
    app = ("--app", "lily-api")
    for version in versions:
        s3.upload(version)
        asked: tuple[str, ...] = ("bump_model", *app, "--env", "dev", "--model-uri", version.uri, "--image", IMAGE)
        for environment in ("staging", "prod-us", "prod", ""):
            done = world.run(*asked, "--commit")
            assert done.code == 0, done.err
            asked = ("promote_model", *app, "--to", environment)
            checked = world.run("validate", "--changed-since", "HEAD^")
            assert (checked.code, checked.errors) == (0, [])
        assert set(ran(world).values()) == {version.version}

    done = world.run("rollback_model", *app, "--env", "prod-us", "--reason", "wrong there", "--commit")

    assert done.code == 0, done.err
    one, two = (version.version for version in versions)
    assert ran(world) == {"dev": two, "staging": two, "prod-us": one, "prod": two}
    refused = world.run("environment", "remove", "prod-us")
    assert refused.errors == [
        f"overlays/prod-us/lily-api: {one} is released; retire it first: python scripts/retire_app.py --app lily-api"
        " --env prod-us --reason REASON"
    ]


def ran(checkout: Checkout) -> dict[str, str]:
    rows = json.loads(checkout.run("releases", "--json").out)["releases"]
    return {row["environment"]: row["version"] for row in rows if row["app"] == "lily-api"}


def test_what_was_retired_there_goes_with_it(world: Checkout) -> None:
    done = world.run("retire_app", "--app", "lily-api", "--env", "prod-us", "--reason", "one region", "--commit")
    assert done.code == 0, done.err
    world.git("push", "-q", "origin", "cicd")

    told = changed(world, "remove", "prod-us")

    assert "overlays/prod-us/retired.yaml" in told["files"]
    assert told["guessed"] == [
        "overlays/prod-us/retired.yaml: lily-api may still run; before this is merged: python scripts/retire_app.py"
        " --app lily-api --env prod-us --finish"
    ]
    assert ran(world).keys() == {"dev", "staging", "prod"}


@pytest.mark.parametrize("way", ["hub", "own"])
def test_one_is_added_on_another_cluster_and_taken_from_it(template: Path, tmp_path: Path, way: str) -> None:
    checkout = make_checkout(template, tmp_path)
    for text in ("dev", "staging", "prod"):
        checkout.replace("overlays/promotion.yaml", f"name: {text}\n", f'name: {text}\n    owners: ["@a/{text}"]\n')
    checkout.write(".github/CODEOWNERS", codeowners.text(read_policy(checkout.root)))
    checkout.commit("Owners")
    assert checkout.run("cluster", "add", "us", "--argocd", way, "--commit").code == 0
    checkout.git("reset", "-q", "--hard", "cicd")
    checkout.git("push", "-q", "origin", "cicd")
    folder = "argocd/clusters/us/argocd" if way == "own" else "argocd"

    told = changed(checkout, *US, "--cluster", "us")

    assert f"{folder}/project-prod-us.yaml" in told["files"]
    destination = "name: us" if way == "hub" else "server: https://kubernetes.default.svc"
    assert destination in checkout.read(f"{folder}/applicationset-prod-us.yaml").decode()
    assert b"[ml-prod-us]" in checkout.read("argocd/clusters/us/platform/admission/bindings.yaml")
    assert b"ml-prod-us" not in checkout.read("argocd/platform/admission/bindings.yaml")
    assert b"/overlays/prod-us/ @a/prod\n" in checkout.read(".github/CODEOWNERS")

    told = changed(checkout, "remove", "prod-us")

    assert f"{folder}/project-prod-us.yaml" in told["files"]
    assert b"prod-us" not in checkout.read(".github/CODEOWNERS")


# What is missing


@pytest.fixture(scope="module")
def whole(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout whose newest commit adds an environment."""
    checkout = make_checkout(template, tmp_path_factory.mktemp("pieces"))
    assert checkout.run("environment", *US, "--commit").code == 0
    checkout.git("reset", "-q", "--hard", "cicd")
    return checkout


KUSTOMIZATION = "argocd/kustomization.yaml"
ADMISSION = "argocd/platform/admission"
NO_NAMESPACE = (
    "argocd/platform: ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io model-images:"
    " spec.matchResources.namespaceSelector.matchExpressions[0].values[2]"
)


@pytest.mark.parametrize(
    ("gone", "old", "start", "remedy"),
    [
        (
            "argocd/applicationset-prod-us.yaml",
            "",
            f"{KUSTOMIZATION}: resources: 'applicationset-prod-us.yaml'",
            "no file",
        ),
        ("argocd/project-prod-us.yaml", "", f"{KUSTOMIZATION}: resources: 'project-prod-us.yaml'", "no file"),
        ("", KUSTOMIZATION, "argocd: no AppProject prod-us", "each environment of overlays/promotion.yaml has one"),
        ("", f"{ADMISSION}/bindings.yaml", NO_NAMESPACE, 'write "ml-prod-us"'),
        ("", f"{ADMISSION}/parameters.yaml", "argocd/platform: ConfigMap argocd/model-policy", '"ml-prod-us ml-prod"'),
        ("", "overlays/promotion.yaml", "overlays/prod-us: no environment", "add it there, or remove the folder"),
        ("overlays/prod-us/environment", "", "overlays/prod-us/environment: missing", "list base/environment there"),
        (
            "overlays/prod-us/shared",
            "",
            "overlays/prod-us/lily-api/kustomization.yaml: components: '../shared'",
            "no file",
        ),
        ("overlays/prod-us/lily-api/release.yaml", "", "overlays/prod-us/lily-api", "release.yaml"),
        ("overlays/prod-us", "", "overlays/prod-us/environment: missing", "list base/environment there"),
    ],
)
def test_a_piece_that_is_missing_is_named(whole: Checkout, gone: str, old: str, start: str, remedy: str) -> None:
    if gone:
        whole.git("rm", "-rq", gone)
    if old:
        whole.git("checkout", "-q", "HEAD^", "--", old)

    done = whole.run("validate")

    whole.git("reset", "-q", "--hard")
    assert done.code == 1
    assert [line for line in done.errors if line.startswith(start) and remedy in line], done.err


# What is refused


@pytest.fixture(scope="module")
def plain_world(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make_checkout(template, tmp_path_factory.mktemp("refused"))


LONG = "a-name-that-leaves-no-room-for-what-stands-behind-it"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ("add", "Prod-US", "--after", "dev"),
            "'Prod-US': no name for an environment; take small letters, digits and -, a letter first and no - last, at"
            " most 60, no word of YAML",
        ),
        (
            ("add", "null", "--after", "dev"),
            "'null': no name for an environment; take small letters, digits and -, a letter first and no - last, at"
            " most 60, no word of YAML",
        ),
        (
            ("add", "platform", "--after", "dev"),
            "'platform': the name of another project of Argo CD; take another name",
        ),
        (
            ("add", "perf", "--after", "qa"),
            "--after qa: no environment of overlays/promotion.yaml, which has dev, staging, prod",
        ),
        (
            ("add", "perf", "--after", "dev", "--like", "qa"),
            "--like qa: no environment of overlays/promotion.yaml, which has dev, staging, prod",
        ),
        (
            ("add", "perf", "--after", "dev", "--before", "qa"),
            "--before qa: no environment of overlays/promotion.yaml, which has dev, staging, prod",
        ),
        (
            ("add", "perf", "--after", "staging", "--before", "dev"),
            "--before dev: overlays/promotion.yaml has it above staging, which perf comes after; a release cannot come"
            " to dev through both",
        ),
        (
            ("add", "staging", "--after", "dev"),
            "overlays/promotion.yaml: environments: staging: there already, otherwise than asked; take another name",
        ),
        (
            ("add", "perf", "--after", "dev", "--namespace", "ml-prod"),
            "overlays/promotion.yaml: environments: prod: namespace: ml-prod: that of perf on the cluster in-cluster"
            " too; give it one of its own",
        ),
        (
            ("add", "perf", "--after", "dev", "--namespace", "kube-system"),
            "overlays/promotion.yaml: environments: perf: namespace: kube-system: the platform's own; give it another",
        ),
        (
            ("add", "perf", "--after", "dev", "--cluster", "us"),
            "overlays/promotion.yaml: environments: perf: cluster: 'us': no cluster of `clusters`; the clusters are"
            " in-cluster",
        ),
        (
            ("add", "perf", "--after", "dev", "--replica", "bucket-us"),
            "overlays/promotion.yaml: environments: perf: replica: bucket-us: no bucket of `replicas`; list it there"
            " with its region",
        ),
        (
            ("add", LONG, "--after", "dev"),
            f"overlays/{LONG}/lily-api: ServiceAccount ml-{LONG}/lily-api: metadata.annotations.eks.amazonaws.com/"
            f"role-arn: 'ml-{LONG}-model-reader': a role's name of 68 characters, and AWS has at most 64; take a"
            " shorter one [places]",
        ),
        (
            ("remove", "dev"),
            "overlays/promotion.yaml: environments: dev: the first, where releases come in; put another one before it,"
            " and then remove it",
        ),
        (
            ("remove", "prod"),
            "overlays/promotion.yaml: environments: prod: the only production; write `production: true` for another"
            " environment first",
        ),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_is_written(
    plain_world: Checkout, args: tuple[str, ...], line: str
) -> None:
    before = plain_world.state()

    done = plain_world.run("environment", *args)

    assert (done.code, done.errors[:1]) == (1, [line])
    assert plain_world.state() == before


@pytest.mark.parametrize(
    "args",
    [
        ("add", "perf"),
        ("remove", "prod", "--after", "dev"),
        ("add", "perf", "--after", "dev", "--finish"),
        ("move", "x"),
    ],
)
def test_wrong_usage_is_told(plain_world: Checkout, args: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match="2"):
        plain_world.run("environment", *args)


def test_the_same_again_is_one_branch_and_what_others_merged_is_under_it(template: Path, tmp_path: Path) -> None:
    checkout = make_checkout(template, tmp_path)
    canary = ("environment", "add", "canary", "--after", "staging", "--before", "prod", "--pull-request")
    assert checkout.run(*canary).code == 0
    before = checkout.state()

    again = checkout.run(*canary)

    assert (again.code, checkout.state()) == (0, before)
    assert checkout.run("environment", *PERF, "--dry-run").code == 0
    assert checkout.state() == before
    assert checkout.run("environment", *PERF, "--push").code == 0
    checkout.merge("environment/add-perf")
    assert checkout.run(*canary).code == 0
    checkout.merge("environment/add-canary")
    policy = read_policy(checkout.root)
    assert policy.environments == ("dev", "perf", "staging", "canary", "prod")
    assert [policy.after(name) for name in policy.environments] == [
        (), ("dev",), ("perf",), ("staging",), ("canary",),
    ]  # fmt: skip
    done = checkout.run(*canary)
    assert (done.code, done.err) == (0, "nothing to change: canary is as it would be made\n")


def test_two_applications_of_one_name_are_refused(whole: Checkout) -> None:
    for folder in ("apps", "overlays/dev"):
        shutil.copytree(whole.root / f"{folder}/lily-api", whole.root / f"{folder}/lily")
    for file in (whole.root / "apps/lily", whole.root / "overlays/dev/lily"):
        for path in file.rglob("*.yaml"):
            path.write_text(path.read_text().replace("lily-api", "lily"))
    whole.commit("Another app")
    assert whole.run("environment", "add", "new", "--after", "prod-us", "--commit").code == 0
    whole.git("reset", "-q", "--hard", "cicd")

    done = whole.run("environment", "add", "api-new", "--after", "dev")

    whole.git("checkout", "-q", "-B", "cicd", "cicd~2")
    assert done.errors == [
        "overlays/new/lily-api: its Application would be lily-api-new, which is that of overlays/api-new/lily too; give"
        " the app another name [applications]"
    ]


# The values of a copy


@pytest.mark.parametrize(
    ("where", "found"),
    [("prod", ["111122223333", "eu-west-1", "ml.example.com"]), ("prod-us", [*AMERICAN[1::2]])],
)
def test_a_new_app_gets_the_values_of_each_environment(whole: Checkout, where: str, found: list[str]) -> None:
    there = Snapshot(whole.root)

    assert [values.of_environment(there, where, name) for name in ("account", "region", "domain")] == found


PLACES = parse_policy(
    b"""\
model_bucket: models
image_registries:
  - 111122223333.dkr.ecr.eu-west-1.amazonaws.com
  - 444455556666.dkr.ecr.us-east-1.amazonaws.com
  - ghcr.io/x
environments:
  - name: dev
    hosts: [dev.example.com]
  - name: prod
    hosts: [ml.example.com]
  - name: prod-us
    hosts: [ml.example.us]
    account: "444455556666"
    region: us-east-1
"""
)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("namespace", "ml-prod", "ml-prod-us"),
        ("spec.rules[0].host", "a.ml.example.com", "a.ml.example.us"),
        ("spec.rules[0].host", "a.dev.example.com", "a.dev.example.com"),
        ("data.url", "https://db.prod.internal/x/prod", "https://db.prod-us.internal/x/prod-us"),
        ("data.url", "http://prod/x", "http://prod/x"),
        ("role", "arn:aws:iam::111122223333:role/ml-prod-reader", "arn:aws:iam::444455556666:role/ml-prod-us-reader"),
        ("queue", "arn:aws:sqs:eu-west-1:111122223333:q-prod", "arn:aws:sqs:us-east-1:444455556666:q-prod-us"),
        ("literals[0]", "AWS_REGION=eu-west-1", "AWS_REGION=us-east-1"),
        ("zone", "eu-west-1a", "us-east-1a"),
        ("literals[0]", "ENVIRONMENT=prod", "ENVIRONMENT=prod-us"),
        ("containers[a].env[STAGE].value", "prod", "prod-us"),
        ("containers[a].env[MODE].value", "prod", "prod"),
        ("containers[a].args[0]", "--prod", "--prod"),
        ("data.in", "s3://models/requests/prod/", "s3://models/requests/prod-us/"),
        ("data.model", "s3://models/models/prod/2026-02-01-1/", "s3://models/models/prod/2026-02-01-1/"),
        ("data.bucket", "models.s3.eu-west-1.amazonaws.com", "models.s3.eu-west-1.amazonaws.com"),
        (
            "image",
            "111122223333.dkr.ecr.eu-west-1.amazonaws.com/api:1",
            "444455556666.dkr.ecr.us-east-1.amazonaws.com/api:1",
        ),
        ("image", "ghcr.io/x/api:1", "ghcr.io/x/api:1"),
        ("remoteRef.key", "prod/db", "prod-us/db"),
        ("spec.rules[0].http.paths[0].path", "/prod/api", "/prod-us/api"),
        ("volumes[0].path", "/prod/api", "/prod/api"),
        ("text", "naïve 🙂 prod", "naïve 🙂 prod"),
        (
            "role",
            "arn:aws:iam::111122223333:role/ml-prod-prod-tools",
            "arn:aws:iam::444455556666:role/ml-prod-us-prod-tools",
        ),
    ],
)  # fmt: skip
def test_a_copy_has_its_own_values_in_the_fields_that_carry_them(path: str, old: str, new: str) -> None:
    there = Place(("ml.example.com",), "111122223333", "eu-west-1")
    own = Place(("ml.example.us",), "444455556666", "us-east-1")

    moved = environments.Moved(PLACES, ("prod", there), ("prod-us", own), ["prod-tools", "iris"])

    assert moved(path, old) == new


@pytest.mark.parametrize(
    ("path", "text", "accounts", "regions"),
    [
        ("role", "arn:aws:iam::111122223333:role/x", ["111122223333"], []),
        ("role", "arn:aws:iam::aws:policy/x", [], []),
        ("q", "arn:aws-cn:sqs:cn-north-1:111122223333:q", ["111122223333"], ["cn-north-1"]),
        ("q", "https://sqs.eu-west-1.amazonaws.com/111122223333/q", ["111122223333"], ["eu-west-1"]),
        ("host", "db.x1.us-gov-west-1.rds.amazonaws.com", [], ["us-gov-west-1"]),
        ("image", "111122223333.dkr.ecr.ap-southeast-2.amazonaws.com/a", ["111122223333"], ["ap-southeast-2"]),
        ("env[AWS_ACCOUNT_ID].value", "111122223333", ["111122223333"], []),
        ("env[STARTED].value", "202601010000", [], []),
        ("nodeSelector.topology.kubernetes.io/zone", "eu-west-1a", [], ["eu-west-1"]),
        ("text", "ml-api-1 my-eu-west-1-queue", [], []),
        ("uri", "s3://models/batch/eu-west-1/in/", [], []),
    ],
)
def test_a_value_names_accounts_and_regions(path: str, text: str, accounts: list[str], regions: list[str]) -> None:
    assert (environments.accounts(path, text), environments.regions(text)) == (accounts, regions)


# The policy's bytes

COMMENTED = b"""\
model_bucket: models   # one for all
image_registries: [ghcr.io/x]
environments:
# first
- {name: dev}   # where releases come in
# then
- name: staging
  owners:
    - "@a/b"   # who approves
# last
- name: prod
  owners: ["@a/b"]
clusters:
  - name: us
"""
ENTRY = {"name": "canary", "after": ["staging"], "owners": ["@a/b"], "account": "111122223333", "soak": "24h"}


def test_the_bytes_of_the_others_stay() -> None:
    edited = entries.add(COMMENTED, ENTRY, ["prod"])

    entry = b'- name: canary\n  after: [staging]\n  owners: ["@a/b"]\n  account: "111122223333"\n  soak: 24h\n'
    assert edited.text == COMMENTED.replace(b"# last\n", entry + b"# last\n")
    assert edited.moved == {"prod": ["canary"]}
    assert entries.remove(edited.text, "canary").text == COMMENTED
    without = entries.remove(COMMENTED, "staging")
    assert b"# then\n" not in without.text
    assert (b"# last\n- name: prod\n" in without.text, without.moved) == (True, {"prod": ["dev"]})


def test_what_is_production_stays_where_the_last_one_was_it() -> None:
    edited = entries.add(COMMENTED, {"name": "dr", "after": ["prod"], "owners": ["@a/b"]}, [])

    policy = parse_policy(edited.text)
    assert (policy.environments[-1], policy.production) == ("dr", ("prod",))


@pytest.mark.parametrize(
    ("old", "new"), [(b"\n", b"\r\n"), (b"model_bucket", b"\xef\xbb\xbfmodel_bucket")], ids=["crlf", "bom"]
)
def test_other_endings_and_marks_stay(old: bytes, new: bytes) -> None:
    text = COMMENTED.replace(old, new, -1 if old == b"\n" else 1)

    edited = entries.add(text, ENTRY, ["prod"])

    assert edited.text.count(new) > 0
    assert entries.remove(edited.text, "canary").text == text


@pytest.mark.parametrize(
    "text",
    [
        b"model_bucket: m\nimage_registries: [ghcr.io/x]\nenvironments: [{name: dev}, {name: staging}, {name: prod}]\n",
        b"model_bucket: m\nimage_registries: [ghcr.io/x]\nenvironments: &all\n  - name: dev\n  - name: staging\n",
    ],
)
def test_a_policy_in_one_line_or_shared_is_refused(text: bytes) -> None:
    with pytest.raises(Refused, match="environments"):
        entries.add(text, {"name": "canary", "after": ["staging"]}, [])


@pytest.mark.parametrize("way", ["hub", "own"])
def test_an_environment_reads_its_replica_where_its_cluster_can(checkout: Checkout, way: str) -> None:
    checkout.write("overlays/promotion.yaml", checkout.read("overlays/promotion.yaml") + REPLICAS)
    checkout.commit("Name a replica", push=True)
    there = ("add", "prod-us", "--after", "staging", "--like", "prod", "--region", "us-east-1", "--host",
             "us.ml.example.com", "--replica", "mlops-us")  # fmt: skip

    refused = checkout.run("environment", *there, "--dry-run")
    assert checkout.run("cluster", "add", "us", "--argocd", way, "--commit").code == 0
    checkout.git("push", "-q", "origin", "cicd")
    before = checkout.read("argocd/clusters/us/platform/kustomization.yaml")
    changed(checkout, *there, "--cluster", "us", alone=True)
    shared = checkout.read("overlays/prod-us/shared/kustomization.yaml")
    fetching = checkout.read("argocd/clusters/us/platform/kustomization.yaml")
    changed(checkout, "remove", "prod-us", alone=True)
    gone = checkout.read("argocd/clusters/us/platform/kustomization.yaml")
    changed(checkout, *there, "--cluster", "us", alone=True)

    assert refused.code == 1
    assert "prod-us mlops-us, prod mlops-prod; give these environments one replica" in refused.err
    assert b"  - ../../../base/environment/replica\n" in shared
    assert b"      - MODEL_REPLICA=mlops-us\n" in shared
    assert gone.rstrip() == before.rstrip()
    assert checkout.read("argocd/clusters/us/platform/kustomization.yaml").rstrip() == fetching.rstrip()

"""Where things are in the repository, and the policy file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import ROOT

import validate
from gitops.checks import admission, sources, transitions
from gitops.manifests import workloads
from gitops.repo import codeowners, layout
from gitops.repo.policy import Environment, Exposure, Freeze, Policy, SigningPolicy, parse_policy, read_policy

from contract.errors import Refused

GOOD = """\
model_bucket: mlops-prod
image_registries:
  - 111122223333.dkr.ecr.eu-west-1.amazonaws.com
  - ghcr.io/team
  - localhost:5000
environments:
  - name: dev
  - name: staging
  - name: prod
"""
POLICY = Policy(
    "mlops-prod",
    ("111122223333.dkr.ecr.eu-west-1.amazonaws.com", "ghcr.io/team", "localhost:5000"),
    ("dev", "staging", "prod"),
)


def refusal(call: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.lines


def test_what_a_fork_owns_is_written_for_those_who_update_it() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Take an update of the template\n")[2]
    owned, engine = section.partition("\nAll else is the engine")[::2]

    assert re.findall(r"`([^`]+)`", owned) == list(layout.FORK_OWNED)
    assert re.findall(r"`([^`]+)`", engine.splitlines()[0]) == list(layout.ENGINE_IN_FORK)


# The policy


@pytest.mark.parametrize(
    ("block", "signing"),
    [
        (
            "public_key: base/api/signed/model-signing.pub",
            SigningPolicy(public_key="base/api/signed/model-signing.pub"),
        ),
        (
            "{identity: 'https://github.com/a/b@refs/heads/cicd', issuer: 'https://c'}",
            SigningPolicy(identity="https://github.com/a/b@refs/heads/cicd", issuer="https://c"),
        ),
    ],
)
def test_a_policy_says_whose_signature_a_version_needs(block: str, signing: SigningPolicy) -> None:
    policy = parse_policy(f"{GOOD}signing:\n  {block}\n".encode())

    assert policy == replace(POLICY, signing=signing)


def test_a_policy_names_who_approves_and_what_releases_by_itself() -> None:
    text = GOOD.replace("- name: dev", "- name: dev\n    owners: ['@alice']").replace(
        "- name: prod", "- name: prod\n    owners: ['@acme/platform', '@bob']"
    )

    policy = parse_policy(f"{text}automation: acme-releases[bot]\n".encode())

    owners = {"dev": ("@alice",), "prod": ("@acme/platform", "@bob")}
    assert policy == replace(POLICY, owners=owners, automation="acme-releases[bot]")


def test_a_policy_is_read_in_its_order() -> None:
    assert parse_policy(GOOD.encode()) == POLICY
    assert [POLICY.after(environment) for environment in POLICY.environments] == [(), ("dev",), ("staging",)]


EXPOSED = GOOD.replace("name: dev\n", "name: dev\n    hosts: [dev.ml.com, dev.example.com]\n").replace(
    "name: prod\n", "name: prod\n    hosts: [ml.com]\n    internet_facing: true\n"
)


@pytest.mark.parametrize(
    ("host", "owner"),
    [
        ("a.ml.com", "prod"),
        ("ml.com", "prod"),
        ("a.b.ml.com", "prod"),
        ("a.dev.ml.com", "dev"),
        ("dev.ml.com", "dev"),
        ("a.dev.example.com", "dev"),
        ("mydev.ml.com", "prod"),
        ("xml.com", None),
        ("a.staging.example.com", None),
        ("com", None),
    ],
)
def test_a_host_is_of_the_environment_with_the_longest_domain_above_it(host: str, owner: str | None) -> None:
    assert parse_policy(EXPOSED.encode()).environment_of(host) == owner


def test_whom_an_environment_lets_in_is_for_the_owner_to_say() -> None:
    text = f"{EXPOSED}ingress: {{classes: [nginx], annotations: [nginx.ingress.kubernetes.io/proxy-body-size]}}\n"

    assert parse_policy(text.encode()) == replace(
        POLICY,
        exposure={"dev": Exposure(("dev.ml.com", "dev.example.com")), "prod": Exposure(("ml.com",), True)},
        ingress_classes=("nginx",),
        annotations=("nginx.ingress.kubernetes.io/proxy-body-size",),
    )


def test_what_contributing_shows_of_the_policy_is_one() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("<!-- exposure -->\n```yaml\n")[2].partition("```")[0]
    start = GOOD.partition("environments:")[0]

    policy = parse_policy(f"{start}{text}".encode())

    assert policy.exposure == {"prod": Exposure(("ml.example.com",), internet_facing=True)}
    assert (policy.ingress_classes, len(policy.annotations)) == (("nginx",), 1)


def test_the_graph_that_contributing_shows_is_one() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("<!-- graph -->\n```yaml\n")[2].partition("```")[0]

    policy = parse_policy(f"{GOOD.partition('environments:')[0]}{text}".encode())

    assert policy.last == policy.production == ("prod-eu", "prod-us")


def test_a_missing_policy_is_refused(tmp_path: Path) -> None:
    assert refusal(lambda: read_policy(tmp_path)) == (
        "overlays/promotion.yaml: missing; it names the model bucket, the image registries and the environments",
    )


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        ("model_bucket: mlops-prod\n", "", ["the whole file: 'model_bucket' is a required property"]),
        (
            "model_bucket:",
            "gates: none\nmodel_bucket:",
            ["the whole file: Additional properties are not allowed ('gates' was unexpected)"],
        ),
        (
            "- name: dev",
            "- name: dev\n    gate: none",
            ["environments.0: Additional properties are not allowed ('gate' was unexpected)"],
        ),
        (
            "model_bucket:",
            "signing: {public_key: key.pub, identity: me, issuer: 'https://c'}\nmodel_bucket:",
            ["signing: a public_key and an identity; a version is signed by one of them"],
        ),
        (
            "- name: dev\n  - name: staging",
            "- name: dev\n    hosts: [a.com, b.com]\n  - name: staging\n    hosts: [b.com]",
            ["environments: hosts: b.com stands twice; a domain is of one of them"],
        ),
        (
            "- name: dev",
            "- name: dev\n    hosts: []",
            ["environments.0.hosts: [] should be non-empty"],
        ),
        (
            "model_bucket:",
            "ingress: {class: [nginx]}\nmodel_bucket:",
            ["ingress: Additional properties are not allowed ('class' was unexpected)"],
        ),
        (
            "- name: dev",
            "- name: dev\n    owners: ['@alice']",
            [
                "environments: prod: no owners, and dev has some; name those of the highest environment too, who"
                " approve what reaches all of them"
            ],
        ),
        ("- name: dev", "- {}", ["environments.0: 'name' is a required property"]),
        ("- name: dev", "- dev", ["environments.0: 'dev' is not of type 'object'"]),
        (
            "name: dev",
            "name: Dev",
            [r"environments.0.name: 'Dev' does not match '^[a-z]([a-z0-9-]{0,58}[a-z0-9])?\\Z'"],
        ),
        (
            "staging",
            "dev",
            ["environments: dev, dev, prod: a name stands twice; list each once"],
        ),
        (
            "mlops-prod",
            "s3://mlops-prod",
            [r"model_bucket: 's3://mlops-prod' does not match '^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\\Z'"],
        ),
        (
            "mlops-prod",
            '"mlops-prod\\n"',
            [r"model_bucket: 'mlops-prod\n' does not match '^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\\Z'"],
        ),
        ("mlops-prod", "123", ["model_bucket: 123 is not of type 'string'"]),
        (
            "ghcr.io/team",
            "https://ghcr.io/",
            [
                "image_registries.1: 'https://ghcr.io/' does not match"
                r" '^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*\\Z'"
            ],
        ),
        (
            "model_bucket: mlops-prod",
            "model_bucket: M\nmodel_buckets: m",
            [
                "the whole file: Additional properties are not allowed ('model_buckets' was unexpected)",
                r"model_bucket: 'M' does not match '^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\\Z'",
            ],
        ),
        (GOOD, "dev\n", ["the whole file: 'dev' is not of type 'object'"]),
        (GOOD, "", ["0 documents; it must hold exactly one"]),
        (GOOD, "a: b: c\n", ["line 1: not YAML: mapping values are not allowed here"]),
        ("mlops-prod", "2026-13-01", ["not YAML: month must be in 1..12"]),
        (
            "model_bucket:",
            "model_bucket: other\nmodel_bucket:",
            ["line 2: key 'model_bucket' stands twice; remove one"],
        ),
    ],
)
def test_every_fault_of_the_policy_is_one_line(old: str, new: str, faults: list[str]) -> None:
    assert GOOD.count(old) == 1

    text = GOOD.replace(old, new).encode()

    assert refusal(lambda: parse_policy(text)) == tuple(f"overlays/promotion.yaml: {fault}" for fault in faults)


GRAPH = """\
model_bucket: mlops-prod
image_registries: [registry.example.com]
clusters:
  - name: us
    argocd: own
replicas:
  - {bucket: mlops-us, region: us-east-1}
environments:
  - name: dev
  - name: perf
    soak: 1h30m
  - name: canary
    after: [dev]
  - name: eu
    after: [perf, canary]
    namespace: models
  - name: us
    after: [perf, canary]
    cluster: us
    account: "111122223333"
    region: us-east-1
    namespace: models
    replica: mlops-us
    freeze:
      - {schedule: 0 16 * * 5, duration: 62h, time_zone: Europe/Dublin, reason: weekends}
"""


def test_environments_are_a_graph() -> None:
    policy = parse_policy(GRAPH.encode())

    assert {name: policy.after(name) for name in policy.environments} == {
        "dev": (), "perf": ("dev",), "canary": ("dev",), "eu": ("perf", "canary"), "us": ("perf", "canary"),
    }  # fmt: skip
    assert (policy.first, policy.last) == ("dev", ("eu", "us"))
    assert policy.next("dev") == ("perf", "canary")
    assert policy.beyond("perf") == ("eu", "us")
    assert (policy.through("dev"), policy.through("us")) == (set(), {"dev", "perf", "canary"})
    assert policy.at("perf").soak == timedelta(hours=1, minutes=30)
    assert policy.at("us") == Environment(
        "us", ("perf", "canary"), "models", "us", "111122223333", "us-east-1", "mlops-us",
        freeze=(Freeze("0 16 * * 5", "62h", "Europe/Dublin", "weekends"),),
    )  # fmt: skip
    assert (policy.clusters, policy.on("us")) == ({"us": "own"}, ("us",))
    assert [policy.namespace(name) for name in ("perf", "eu", "other")] == ["ml-perf", "models", "ml-other"]


def test_what_no_line_of_codeowners_names_belongs_to_the_owners_of_all_last_environments() -> None:
    owners = {"dev": ("@data",), "eu": ("@eu", "@both"), "us": ("@both", "@us")}
    policy = replace(parse_policy(GRAPH.encode()), owners=owners)

    lines = codeowners.text(policy).splitlines()

    assert lines[1] == "* @eu @both @us"
    assert lines[-5:] == [
        "/overlays/dev/ @data", "/overlays/perf/ @eu @both @us", "/overlays/canary/ @eu @both @us",
        "/overlays/eu/ @eu @both", "/overlays/us/ @both @us",
    ]  # fmt: skip
    alone = replace(policy, owners={"us": ("@us",)})
    assert codeowners.text(alone).splitlines()[-2:] == ["/overlays/eu/ @us", "/overlays/us/ @us"]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("after: [dev]", "after: [us]",
         "canary: after: a cycle, canary after us after canary; no release could reach any of them"),
        ("name: perf\n", "name: perf\n    after: [canary, perf]\n",
         "perf: after: canary stands below; list perf below all that it comes after\n"
         "perf: after: a cycle, perf after perf; no release could reach any of them"),
        ("after: [dev]", "after: [Dev]", None),
        ("after: [dev]", "after: [devel]",
         "canary: after: 'devel': no environment; the environments are dev, perf, canary, eu, us"),
        ("after: [dev]", "after: []",
         "canary: after: empty, so that it is reached from nowhere; name the environments that it comes after"),
        ("name: dev\n", "name: dev\n    after: []\n",
         "dev: after: the first environment, where releases come in; remove the field"),
        ("cluster: us", "cluster: usa",
         "us: cluster: 'usa': no cluster of `clusters`; the clusters are in-cluster, us"),
        ("cluster: us", "cluster: in-cluster",
         "us: namespace: models: that of eu on the cluster in-cluster too; give it one of its own"),
        ("[dev]", "[dev]\n    namespace: kube-system",
         "canary: namespace: kube-system: the platform's own; give it another"),
        ("name: canary", f"name: {'c' * 60}", None),
        ("replica: mlops-us", "replica: other",
         "us: replica: other: no bucket of `replicas`; list it there with its region"),
        ("Europe/Dublin", "Europe/Cork",
         "us: freeze: time_zone: 'Europe/Cork': no time zone; write one such as Europe/Dublin"),
        ("soak: 1h30m", "soak: 1d", None),
        ("0 16 * * 5", "0 16 13 * 5",
         "us: freeze: schedule: '0 16 13 * 5': names days of the month and of the week, of which each would do; write a"
         " window for each, with one `*`"),
        ("0 16 * * 5", "0 16 * * 7",
         "us: freeze: schedule: '0 16 * * 7': days are numbers, those of the week 0-6 or SUN-SAT, in lists and ranges,"
         " as Argo CD takes them"),
        ("0 16 * * 5", "0 16 L * *",
         "us: freeze: schedule: '0 16 L * *': days are numbers, those of the week 0-6 or SUN-SAT, in lists and ranges,"
         " as Argo CD takes them"),
        ("0 16 * * 5", "0 24 * * 5",
         "us: freeze: schedule: '0 24 * * 5': no time of cron that ever comes (Bad hour); write five fields such as"
         " `0 16 * * 5`"),
        ("0 16 * * 5", "0 0 30 2 *",
         "us: freeze: schedule: '0 0 30 2 *': no time of cron that ever comes (Bad day-of-month); write five fields"
         " such as `0 16 * * 5`"),
    ],
)  # fmt: skip
def test_a_graph_through_which_no_release_comes_is_refused(old: str, new: str, fault: str | None) -> None:
    assert GRAPH.count(old) == 1

    lines = refusal(lambda: parse_policy(GRAPH.replace(old, new).encode()))

    if fault is not None:
        wanted = [f"overlays/promotion.yaml: environments: {line}" for line in fault.splitlines()]
        assert list(lines) == wanted


def test_no_environment_or_registry_at_all_is_refused() -> None:
    text = b"model_bucket: mlops-prod\nimage_registries: []\nenvironments: []\n"

    assert refusal(lambda: parse_policy(text)) == (
        "overlays/promotion.yaml: environments: [] should be non-empty",
        "overlays/promotion.yaml: image_registries: [] should be non-empty",
    )


# Files and folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two apps, of which one is not in prod, and folders that are neither app nor overlay."""
    for path in (
        "apps/lily-api/kustomization.yaml",
        "apps/wine-api/kustomization.yaml",
        "apps/notes/README.md",
        "model-src/models/lily/problem.yaml",
        "model-src/packing/pack.py",
        "overlays/dev/environment/kustomization.yaml",
        "overlays/dev/lily-api/kustomization.yaml",
        "overlays/dev/lily-api/release.yaml",
        "overlays/dev/shared/kustomization.yaml",
        "overlays/dev/wine-api/kustomization.yaml",
        "overlays/dev/wine-api/release.yaml",
        "overlays/dev/notes/README.md",
        "overlays/prod/lily-api/kustomization.yaml",
        "overlays/prod/lily-api/release.yaml",
        "overlays/other/lily-api/kustomization.yaml",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    return tmp_path


def test_what_there_is_is_found(root: Path) -> None:
    assert layout.apps(root) == ["lily-api", "wine-api"]
    assert layout.models(root) == ["lily"]
    assert layout.overlays(root, POLICY) == [
        "overlays/dev/environment",
        "overlays/dev/lily-api",
        "overlays/dev/wine-api",
        "overlays/prod/lily-api",
    ]


@pytest.mark.parametrize(
    ("app", "env", "message"),
    [
        (
            "lily-api",
            "production",
            "overlays/promotion.yaml: environments: no 'production'; the environments are dev, staging, prod",
        ),
        ("lily-apy", "dev", "apps/lily-apy: no such app; the apps are lily-api, wine-api"),
        ("notes", "dev", "apps/notes: no such app; the apps are lily-api, wine-api"),
        (
            "wine-api",
            "prod",
            "overlays/prod/wine-api/release.yaml: missing; wine-api has no overlay in prod,"
            " CONTRIBUTING.md tells how to add one",
        ),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_those_that_are(app: str, env: str, message: str, root: Path) -> None:
    files = [file.relative_to(root).as_posix() for file in root.rglob("*.yaml")]
    assert refusal(lambda: layout.require_app(files, layout.apps(root), POLICY, app, env)) == (message,)


def test_an_app_with_an_overlay_is_accepted(root: Path) -> None:
    files = [file.relative_to(root).as_posix() for file in root.rglob("*.yaml")]
    layout.require_app(files, layout.apps(root), POLICY, "wine-api", "dev")


def test_the_threat_model_names_the_rules_policies_and_tests_that_there_are() -> None:
    promises = (ROOT / "docs/threat-model.md").read_text().split("## Promises")[1].split("\n## ")[0]
    cells = [line.split("|")[2:5] for line in promises.splitlines() if line.startswith("| ")][2:]
    rules, policies, tests = (
        {name for row in cells for name in re.findall("`([^`]+)`", row[column])} for column in range(3)
    )
    shipped = {line.split()[1] for line in (ROOT / admission.LOCK).read_text().splitlines()}

    of_a_change = {*transitions.RULES, transitions.PUSHED}
    assert of_a_change <= rules <= {*validate.RULES, *of_a_change, sources.RULE, "automation"}
    assert policies == shipped - {workloads.STORAGE_CONTAINER}
    assert [test for test in tests if not (ROOT / test).is_file()] == []
    assert all("tests/" in row[2] for row in cells)


@pytest.mark.parametrize(
    ("marks", "production"),
    [
        ({}, ("prod",)),
        ({"dev": "production: false", "prod": "production: true"}, ("prod",)),
        ({"staging": "production: true", "prod": "production: true"}, ("staging", "prod")),
        ({"staging": "production: true"}, ("staging",)),
    ],
)
def test_the_policy_says_what_is_production_and_without_a_word_the_last_is(
    marks: dict[str, str], production: tuple[str, ...]
) -> None:
    text = re.sub(r"- name: (\w+)", lambda m: f"{m[0]}\n    {marks.get(m[1], 'hosts: [' + m[1] + '.a.b]')}", GOOD)

    policy = parse_policy(text.encode())

    assert policy.production == production


def test_a_policy_by_which_nothing_is_production_is_refused() -> None:
    text = GOOD.replace("- name: prod", "- name: prod\n    production: false")

    assert refusal(lambda: parse_policy(text.encode())) == (
        "overlays/promotion.yaml: environments: production: false, and true for none; write `production: true` for"
        " those in which images are named by digest",
    )

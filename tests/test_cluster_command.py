"""Clusters beside the one in which Argo CD runs: added and removed by command, and what of them has to be there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Checkout, make_checkout

import validate
from gitops.checks import admission
from gitops.checks.framework import Repository
from gitops.manifests import closure, kustomize
from gitops.manifests.objects import KUSTOMIZATION, Object, at
from gitops.repo import applications, layout
from gitops.repo.layout import WITHDRAWN
from gitops.repo.policy import IN_CLUSTER, POLICY_FILE, parse_policy, read_policy

EU, US = "argocd/clusters/eu", "argocd/clusters/us"
HUB = ("--argocd", "hub", "--account", "444455556666", "--region", "eu-central-1")
OWN = ("--argocd", "own", "--region", "us-east-1")


def merged(checkout: Checkout, do: str, name: str, *options: str) -> None:
    done = checkout.run("cluster", do, name, *options, "--push")
    assert done.code == 0, done.err
    checkout.merge(f"cluster/{do}-{name}")


def validated(checkout: Checkout) -> None:
    done = checkout.run("validate")
    assert done.code == 0, done.err


def test_a_cluster_is_added_in_either_way_and_is_valid_and_goes_without_a_trace(checkout: Checkout) -> None:
    before = checkout.git("rev-parse", "HEAD^{tree}")
    for name, options in (("eu", HUB), ("us", OWN)):
        merged(checkout, "add", name, *options)
        validated(checkout)

    for name in ("eu", "us"):
        merged(checkout, "remove", name)

    assert checkout.git("rev-parse", "HEAD^{tree}") == before


# Three environments on three clusters, two of them with one namespace


def place(root: Path, text: str) -> None:
    """Gives the policy another text, and all that follows from it the form that it then has to have."""
    old, new = read_policy(root), parse_policy(text.encode())
    (root / POLICY_FILE).write_text(text)
    [url] = {line.split()[-1] for line in (root / "argocd/root.yaml").read_text().splitlines() if "repoURL" in line}
    for policy, is_new in ((old, False), (new, True)):
        for environment in policy.environments:
            sets = applications.set_files(policy, environment).values()
            for file in (*sets, applications.project_file(policy, environment)):
                lists = (root / file).with_name(KUSTOMIZATION)
                bare = lists.read_text().replace(f"  - {Path(file).name}\n", "")
                added = f"resources:\n  - {Path(file).name}\n"
                lists.write_text(bare.replace("resources:\n", added) if is_new else bare)
                (root / file).unlink(missing_ok=True)
    for environment in new.environments:
        for which, file in applications.set_files(new, environment).items():
            (root / file).write_text(applications.text(new, environment, url, which))
        (root / applications.project_file(new, environment)).write_text(
            applications.project_text(new, environment, url)
        )
    for cluster in (IN_CLUSTER, *new.clusters):
        (root / layout.bindings(cluster)).write_text(admission.bindings_text(new, cluster))
        file = root / layout.parameters(cluster)
        file.write_bytes(admission.parameters_text(file.read_bytes(), new, cluster))


SPREAD = """\
  - name: dev
    hosts: [dev.ml.example.com]
  - name: staging
    namespace: ml-models
    cluster: us
    hosts: [staging.ml.example.com]
  - name: prod
    namespace: ml-models
    cluster: eu
    hosts: [ml.example.com]
    production: true
    freeze:
      - schedule: 0 16 * * 5
        duration: 62h
"""


@pytest.fixture(scope="module")
def spread(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = make_checkout(template, tmp_path_factory.mktemp("spread"))
    for name, options in (("eu", HUB), ("us", OWN)):
        merged(checkout, "add", name, *options)
    text = checkout.read(POLICY_FILE).decode()
    head, tail = text.partition("environments:\n")[0], text.partition("clusters:\n")[2]
    for environment in ("staging", "prod"):
        for file in (checkout.root / "overlays" / environment).rglob("*.yaml"):
            file.write_text(file.read_text().replace(f"namespace: ml-{environment}", "namespace: ml-models"))
    place(checkout.root, f"{head}environments:\n{SPREAD}clusters:\n{tail}")
    checkout.commit("Spread the environments", push=True)
    return checkout


def test_environments_on_three_clusters_are_valid(spread: Checkout) -> None:
    validated(spread)


@pytest.fixture(scope="module")
def renders(spread: Checkout) -> dict[str, list[Object]]:
    folders = layout.folders(spread.root, read_policy(spread.root))
    return {folder: kustomize.rendered(spread.root, folder) for folder in folders}


def named(items: list[Object], kind: str) -> dict[str, Object]:
    return {str(at(item, "metadata", "name")): item for item in items if item["kind"] == kind}


def test_every_environment_is_applied_by_one_argo_cd_to_its_own_cluster(renders: dict[str, list[Object]]) -> None:
    hub, own = renders["argocd"], renders[f"{US}/argocd"]

    goals = {
        name: at(item, "spec", "template", "spec", "destination")
        for name, item in (named(hub, "ApplicationSet") | named(own, "ApplicationSet")).items()
    }
    assert goals == {
        f"{which}-{environment}": goal
        for which in ("apps", "sagemaker")
        for environment, goal in {
            "dev": {"server": applications.SERVER, "namespace": "ml-dev"},
            "staging": {"server": applications.SERVER, "namespace": "ml-models"},
            "prod": {"name": "eu", "namespace": "ml-models"},
        }.items()
    }
    assert set(named(own, "ApplicationSet")) == {"apps-staging", "sagemaker-staging"}
    assert set(named(own, "AppProject")) == {"addons", "default", "platform", "staging"}
    assert at(named(hub, "AppProject")["prod"], "spec", "destinations") == [{"name": "eu", "namespace": "ml-models"}]


def test_add_ons_are_called_in_every_cluster_as_in_the_first(renders: dict[str, list[Object]]) -> None:
    first = named(renders["argocd/platform"], "Application")
    served, own = named(renders[f"{EU}/addons"], "Application"), named(renders[f"{US}/platform"], "Application")

    assert own.keys() == first.keys()
    assert served.keys() == {f"{name}-eu" for name in first.keys() - {"argo-cd"}}
    for name, item in served.items():
        assert at(item, "spec", "destination", "name") == "eu"
        assert at(item, "spec", "source", "helm", "releaseName") == name.removesuffix("-eu")
    values = at(served["aws-load-balancer-controller-eu"], "spec", "source", "helm", "valuesObject")
    assert (values["clusterName"], values["region"]) == ("eu", "eu-central-1")
    assert "444455556666" in values["serviceAccount"]["annotations"]["eks.amazonaws.com/role-arn"]


PROD, STAGING = "argocd/project-prod.yaml", f"{US}/argocd/project-staging.yaml"
WINDOW = '"duration": "62h", "kind": "deny", "manualSync": true, "namespaces": ["ml-models"]'
# (file, what stands there, what stands there instead, the finding)
FAULTS = {
    "another cluster in a project": (
        PROD, "    - name: eu\n", f"    - server: {applications.SERVER}\n",
        'argocd: AppProject.argoproj.io argocd/prod: spec.destinations: [{"namespace": "ml-models", "server":'
        ' "https://kubernetes.default.svc"}]; write [{"name": "eu", "namespace": "ml-models"}] [projects]',
    ),
    "an environment of the hub's in a cluster's own": (
        STAGING, f"server: {applications.SERVER}", "name: eu",
        f'{US}/argocd: AppProject.argoproj.io argocd/staging: spec.destinations: [{{"name": "eu", "namespace":'
        ' "ml-models"}]; write [{"namespace": "ml-models", "server": "https://kubernetes.default.svc"}] [projects]',
    ),
    "a project that is missing": (
        f"{US}/argocd/{KUSTOMIZATION}", "  - project-staging.yaml\n", "",
        f"{US}/argocd: no AppProject staging; each environment of overlays/promotion.yaml has one, and so have addons,"
        " default, platform [projects]",
    ),
    "add-ons that reach an environment": (
        "argocd/project-addons.yaml", "    - name: eu\n      namespace: monitoring\n",
        "    - name: eu\n      namespace: monitoring\n    - name: eu\n      namespace: ml-models\n",
        'argocd: AppProject.argoproj.io argocd/addons: spec.destinations: {"name": "eu", "namespace": "ml-models"}: the'
        " namespace of prod, into which nothing but its own project leads; remove it [projects]",
    ),
    "add-ons that reach a cluster of another Argo CD": (
        "argocd/project-addons.yaml", "    - name: eu\n      namespace: monitoring\n",
        "    - name: eu\n      namespace: monitoring\n    - name: us\n      namespace: monitoring\n",
        'argocd: AppProject.argoproj.io argocd/addons: spec.destinations: {"name": "us", "namespace": "monitoring"}: no'
        ' cluster that this Argo CD serves; write {"server": "https://kubernetes.default.svc"} or {"name": "eu"}, or'
        " remove it [projects]",
    ),
    "a platform that may not go where it is": (
        "argocd/project-platform.yaml", "    - name: eu\n      namespace: argocd\n", "",
        f"{EU}/platform: ConfigMap argocd/model-policy: metadata.namespace: 'argocd': not in destinations of the"
        ' AppProject platform; Argo CD would refuse it; add {"name": "eu", "namespace": "argocd"} there, or write'
        " another namespace [projects]",
    ),
    "a freeze that the project lacks": (
        POLICY_FILE, "        duration: 62h\n", "        duration: 61h\n",
        f'argocd: AppProject.argoproj.io argocd/prod: spec.syncWindows: [{{{WINDOW}, "schedule": "0 16 * * 5",'
        ' "timeZone": "UTC"}]; `freeze` of prod in overlays/promotion.yaml gives'
        f' [{{{WINDOW.replace("62", "61")}, "schedule": "0 16 * * 5", "timeZone": "UTC"}}] [projects]',
    ),
    "a freeze that the policy lacks": (
        POLICY_FILE, "    freeze:\n      - schedule: 0 16 * * 5\n        duration: 62h\n", "",
        f'argocd: AppProject.argoproj.io argocd/prod: spec.syncWindows: [{{{WINDOW}, "schedule": "0 16 * * 5",'
        ' "timeZone": "UTC"}]; prod has no `freeze` in overlays/promotion.yaml; remove it, or write there'
        ' [{"duration": "62h", "schedule": "0 16 * * 5", "time_zone": "UTC"}] [projects]',
    ),
    "a cluster that nothing takes": (
        f"argocd/{KUSTOMIZATION}", "  - platform-eu.yaml\n", "",
        f"argocd: no Application platform-eu, so that nothing takes {EU}/platform; `python scripts/cluster.py add eu`"
        " writes it [applications]",
    ),
    "an Argo CD without a root": (
        f"{US}/argocd/{KUSTOMIZATION}", "  - root.yaml\n", "",
        f"{US}/argocd: no Application root, so that nothing takes {US}/argocd; `python scripts/cluster.py add us`"
        " writes it [applications]",
    ),
    "a root of another folder": (
        f"{US}/argocd/root.yaml", f"path: {US}/argocd", "path: argocd",
        f'{US}/argocd: Application.argoproj.io argocd/root: spec.source: {{"path": "argocd", "repoURL":'
        ' "https://github.com/example-org/model-gitops.git", "targetRevision": "cicd"}; write',
    ),
    "a platform on another cluster": (
        "argocd/platform-eu.yaml", "name: eu\n", f"server: {applications.SERVER}\n",
        'argocd: Application.argoproj.io argocd/platform-eu: spec.destination: {"namespace": "argocd", "server":'
        ' "https://kubernetes.default.svc"}; write {"name": "eu", "namespace": "argocd"} [applications]',
    ),
    "a set in another Argo CD": (
        f"{US}/argocd/{KUSTOMIZATION}", "  - applicationset-staging.yaml\n", "",
        f"{US}/argocd: no ApplicationSet.argoproj.io argocd/apps-staging; write it as"
        " scripts/gitops/repo/application-set.yaml has it [applications]",
    ),
    "a set for another cluster": (
        "argocd/applicationset-prod.yaml", "        name: eu\n", f"        server: {applications.SERVER}\n",
        "argocd: ApplicationSet.argoproj.io argocd/apps-prod: spec.template.spec.destination.name: null; write",
    ),
    "an add-on for another cluster": (
        f"{EU}/addons/{KUSTOMIZATION}", "        value: eu\n",
        "        value: in-cluster\n",
        f'{EU}/addons: Application.argoproj.io argocd/kserve-eu: spec.destination: {{"name": "in-cluster", "namespace":'
        ' "kserve"}; write {"name": "eu", "namespace": "kserve"} [applications]',
    ),
    "an add-on whose objects are called otherwise": (
        f"{EU}/addons/{KUSTOMIZATION}", "  - ../../../platform/served\n", "",
        f'{EU}/addons: Application.argoproj.io argocd/kserve-eu: spec.source.helm.releaseName: null; write "kserve"'
        " [applications]",
    ),
    "an add-on of no cluster": (
        f"{EU}/addons/{KUSTOMIZATION}", "nameSuffix: -eu\n", "nameSuffix: -e\n",
        f"{EU}/addons: Application.argoproj.io argocd/kserve-e: metadata.name: without the cluster's; write kserve-e-eu"
        " [applications]",
    ),
    "add-ons of two clusters with one name": (
        f"{EU}/addons/{KUSTOMIZATION}", "nameSuffix: -eu\n", "",
        f"{EU}/addons: Application.argoproj.io argocd/kserve: metadata.name: that of an Application of argocd/platform"
        " too; give one of them another name [applications]",
    ),
    "an Application where there is no Argo CD": (
        f"{EU}/platform/{KUSTOMIZATION}", "platform/storage\n", "platform/storage\n  - ../../../platform/addons\n",
        f"{EU}/platform: Application.argoproj.io argocd/kserve: kind: there is no Argo CD on this cluster, so that"
        f" nothing reads it; move it to {EU}/addons [applications]",
    ),
    "no policies": (
        f"{EU}/platform/{KUSTOMIZATION}", "  - ../../../platform/admission\n", "",
        f"{EU}/platform: ValidatingAdmissionPolicy.admissionregistration.k8s.io model-images: not rendered; list the"
        f" component argocd/platform/admission, which has it, in {EU}/platform/kustomization.yaml [admission]",
    ),
    "no list of withdrawn versions": (
        f"{EU}/platform/{KUSTOMIZATION}", "  - ../../../platform/admission\n", "",
        f"{WITHDRAWN}: not rendered as it is by {EU}/platform; argocd/platform/admission/kustomization.yaml lists it,"
        " and nothing else changes it [withdrawn-record]",
    ),
    "policies without bindings": (
        f"{US}/platform/{KUSTOMIZATION}", "  - admission/bindings.yaml\n", "",
        f"{US}/platform: ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io model-images: not rendered;"
        f" without it the policy holds nowhere; write it into {US}/platform/admission/bindings.yaml [admission]",
    ),
    "bindings for another namespace": (
        f"{US}/platform/admission/bindings.yaml", "  name: model-images\nspec:\n  policyName: model-images\n"
        "  validationActions: [Deny]\n", "  name: model-images\nspec:\n  policyName: model-images\n"
        "  validationActions: [Audit]\n",
        f"{US}/platform: ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io model-images:"
        ' spec.validationActions[0]: "Audit"; write "Deny" [admission]',
    ),
    "production elsewhere": (
        f"{EU}/platform/admission/parameters.yaml", "production-namespaces: ml-models", "production-namespaces: ml-dev",
        f'{EU}/platform: ConfigMap argocd/model-policy: data.production-namespaces: "ml-dev"; overlays/promotion.yaml'
        ' gives "ml-models" [admission]',
    ),
    "no container that compares models": (
        f"{US}/platform/{KUSTOMIZATION}", "  - ../../../platform/storage\n", "",
        f"{US}/platform: ClusterStorageContainer.serving.kserve.io verified: not rendered; list the component"
        f" argocd/platform/storage in {US}/platform/kustomization.yaml [admission]",
    ),
    "no model servers": (
        f"{EU}/addons/{KUSTOMIZATION}", "nameSuffix: -eu\n",
        "nameSuffix: -eu\n\nresources: []\n",
        "",
    ),
    "a render that reads what nobody watches": (
        "argocd/platform-eu.yaml", "manifest-generate-paths: .;/argocd/platform", "manifest-generate-paths: .",
        "argocd: Application.argoproj.io argocd/platform-eu:"
        " metadata.annotations.argocd.argoproj.io/manifest-generate-paths: '.' does not cover"
        f" argocd/platform/admission, read by {EU}/platform; add it [generate-paths]",
    ),
    "a setting of a cluster's own Argo CD": (
        f"{US}/platform/{KUSTOMIZATION}", "patches:\n",
        "patches:\n  - target: {kind: Application, name: argo-cd}\n    patch: |\n"
        "      - {op: add, path: /spec/source/kustomize/version, value: 'kustomize.version.v5'}\n",
        f"{US}/platform: Application.argoproj.io argocd/argo-cd: kustomize.version.v5: Argo CD would render otherwise"
        " than is checked here; remove it [settings]",
    ),
}  # fmt: skip
del FAULTS["no model servers"]


def found(checkout: Checkout, renders: dict[str, list[Object]], *changed: str) -> list[str]:
    """What the rules find in a checkout of which these files were changed."""
    policy = read_policy(checkout.root)
    folders = layout.folders(checkout.root, policy)
    again = {*closure.readers(checkout.root, folders, changed), *(set(folders) - renders.keys())}
    new = {folder: kustomize.rendered(checkout.root, folder) for folder in again}
    there = {folder: new.get(folder) or renders[folder] for folder in folders}
    told = validate.by_rules(Repository(checkout.root, policy, there))
    return [str(finding) for findings in told.values() for finding in findings]


@pytest.fixture
def edited(spread: Checkout) -> Iterator[Checkout]:
    yield spread
    spread.git("checkout", "-q", ".")
    spread.git("clean", "-qfd")


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_with_a_cluster_is_named(edited: Checkout, renders: dict[str, list[Object]], name: str) -> None:
    file, old, new, message = FAULTS[name]
    edited.replace(file, old, new)

    told = found(edited, renders, file)

    assert any(line.startswith(message) for line in told), "\n".join(told)


def test_nothing_is_wrong_before(edited: Checkout, renders: dict[str, list[Object]]) -> None:
    assert found(edited, renders) == []


def test_folders_of_clusters_and_the_policy_are_held_together(
    edited: Checkout, renders: dict[str, list[Object]]
) -> None:
    """A cluster folder that the policy does not list, one of the other way, and one that is missing."""
    for path in (
        "argocd/clusters/asia/platform/a.yaml",
        "argocd/clusters/a.yaml",
        f"{EU}/argocd/a.yaml",
        f"{US}/a.yaml",
    ):
        edited.write(path, "")
    (edited.root / US / "platform" / KUSTOMIZATION).unlink()

    told = [line for line in found(edited, renders, "argocd/clusters/a.yaml") if line.endswith("[paths]")]

    assert told == [
        "argocd/clusters/a.yaml: nothing but folders of clusters is here; move it, or remove it [paths]",
        "argocd/clusters/asia: no cluster of overlays/promotion.yaml, so that nothing renders it; its clusters are eu,"
        " us; `python scripts/cluster.py add asia` adds it there, or remove the folder [paths]",
        f"{EU}/argocd: nothing renders it; `argocd: hub` in overlays/promotion.yaml is a cluster with {EU}/addons and"
        f" {EU}/platform; remove it, or move it there [paths]",
        f"{US}/a.yaml: nothing renders it; `argocd: own` in overlays/promotion.yaml is a cluster with {US}/argocd and"
        f" {US}/platform; remove it, or move it there [paths]",
        f"{US}/platform: no {KUSTOMIZATION}, and overlays/promotion.yaml has the cluster; `python scripts/cluster.py"
        " add us` writes what is missing [paths]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("app", "name", "other"),
    [("platform", "eu", "argocd"), ("addons", "eu", "argocd"), ("kserve", "eu", f"{EU}/addons"), ("a-eu", "b", "")],
)
def test_no_two_applications_of_one_argo_cd_have_one_name(
    edited: Checkout, renders: dict[str, list[Object]], app: str, name: str, other: str
) -> None:
    """Environments `eu` and `b` beside `eu-b`, in which apps get names that others have."""
    text = edited.read(POLICY_FILE).decode()
    entries = "".join(f"  - name: {each}\n    after: [staging]\n" for each in ("eu", "b", "eu-b"))
    place(edited.root, text.replace("  - name: prod\n", f"{entries}  - name: prod\n    after: [staging]\n"))
    folders = [f"overlays/{name}/{app}", *(["overlays/eu-b/a"] if app == "a-eu" else [])]
    policy = read_policy(edited.root)
    there = {**renders, "argocd": kustomize.rendered(edited.root, "argocd"), **{folder: [] for folder in folders}}

    told = [str(each) for each in validate.RULES["applications"](Repository(edited.root, policy, there))]

    other = other or folders[0]
    assert told == [
        f"{folders[-1]}: its Application would be {app}-{name}, which is that of {other} too; give the app another name"
        " [applications]"
    ]


def test_the_same_name_in_two_argo_cds_is_no_fault(edited: Checkout, renders: dict[str, list[Object]]) -> None:
    policy = read_policy(edited.root)
    there = {**renders, "overlays/staging/platform": [], "overlays/prod/kserve": []}

    assert list(validate.RULES["applications"](Repository(edited.root, policy, there))) == []


def test_what_serves_on_one_cluster_is_missed_though_another_has_the_like(edited: Checkout) -> None:
    """Both have it in the namespace ml-models, by the same name."""
    edited.git("checkout", "-q", "-b", "fewer")
    edited.git("rm", "-rq", "overlays/prod/lily-api")
    edited.commit("Take an app away")

    done = edited.run("validate", "--changed-since", "cicd")

    edited.git("checkout", "-q", "cicd")
    assert done.code == 1
    assert any(
        line.startswith("overlays/prod/lily-api: Deployment.apps ml-models/lily-api is no") for line in done.errors
    )


def test_a_change_of_a_cluster_is_asked_about_what_runs_on_it(edited: Checkout) -> None:
    edited.git("checkout", "-q", "-b", "servers")
    gone = {"$patch": "delete", "apiVersion": "argoproj.io/v1alpha1", "kind": "Application"}
    patch = json.dumps(gone | {"metadata": {"name": "kserve-crds", "namespace": "argocd"}})
    edited.replace(f"{EU}/addons/{KUSTOMIZATION}", "patches:\n", f"patches:\n  - patch: '{patch}'\n")
    edited.commit("Take an add-on away")

    done = edited.run("validate", "--changed-since", "cicd")

    edited.git("checkout", "-q", "cicd")
    assert done.code == 1
    assert any(line.startswith("overlays/prod/lily-sklearn: ") and line.endswith("[kinds]") for line in done.errors)
    assert not any(line.startswith("overlays/staging/lily-sklearn: ") for line in done.errors)


def test_a_kind_is_allowed_by_the_argo_cd_and_the_admission_of_its_environment(edited: Checkout) -> None:
    done = edited.run("add_kind", "--kind", "SecretStore.external-secrets.io", "--env", "staging", "--env", "prod")

    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        f"{EU}/platform/admission/parameters.yaml", f"{US}/argocd/project-staging.yaml",
        f"{US}/platform/admission/parameters.yaml", "argocd/project-prod.yaml",
    ]  # fmt: skip
    validated(edited)


def test_render_and_the_history_know_the_folders_of_clusters(edited: Checkout) -> None:
    edited.git("checkout", "-q", "-b", "values")
    edited.replace(
        f"{EU}/addons/aws.yaml",
        "autoDiscovery:\n          clusterName: eu",
        "autoDiscovery:\n          clusterName: europe",
    )
    edited.commit("Call the cluster otherwise")

    done = edited.run("render", "--changed-since", "cicd")

    edited.git("checkout", "-q", "cicd")
    assert done.code == 0, done.err
    assert "+          clusterName: europe" in done.out
    assert f"{EU}/addons" in done.out


# The command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add", "EU"], "'EU': no name for a cluster; take small letters"),
        (["add", "in-cluster"], "'in-cluster': no name for a cluster"),
        (["add", "no"], "'no': no name for a cluster"),
        (["add", "a" * 61], "no name for a cluster"),
        (["add", "../up"], "'../up': no name for a cluster"),
        (["add", "asia", "--account", "12"], "--account 12: none of AWS; write one such as 444455556666"),
        (["add", "asia", "--region", "mars"], "--region mars: none of AWS; write one such as eu-central-1"),
        (["add", "eu", "--argocd", "own"], "--argocd own: overlays/promotion.yaml has the cluster eu with `argocd:"),
        (["remove", "eu"], "overlays/promotion.yaml: environments: prod: cluster: eu; retire what runs there"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_changes(edited: Checkout, words: list[str], message: str) -> None:
    before = edited.state()

    done = edited.run("cluster", *words)

    assert done.code == 1
    assert message in done.err
    assert edited.state() == before


def test_a_wrong_call_is_told_from_a_refusal(edited: Checkout) -> None:
    with pytest.raises(SystemExit) as error:
        edited.run("cluster", "remove", "eu", "--region", "eu-west-1")
    assert error.value.code == 2


def test_nothing_is_done_twice_and_what_is_missing_is_written_again(edited: Checkout) -> None:
    before = edited.state()
    again = edited.run("cluster", "add", "us", "--argocd", "own")
    assert (again.code, again.out) == (0, "")
    assert "nothing to change: us is as it has to be" in again.err
    assert edited.run("cluster", "remove", "asia").code == 0
    tried = edited.run("cluster", "add", "asia", "--dry-run")
    assert f"argocd/clusters/asia/platform/{KUSTOMIZATION}" in tried.out.splitlines()
    assert edited.state() == before
    edited.git("rm", "-q", f"{EU}/platform/{KUSTOMIZATION}", "argocd/addons-eu.yaml")
    edited.git("commit", "-qm", "Lose two files")

    done = edited.run("cluster", "add", "eu", *HUB, "--commit")

    assert done.out.splitlines()[:2] == ["argocd/addons-eu.yaml", f"{EU}/platform/{KUSTOMIZATION}"]
    assert edited.git("diff", "--stat", "origin/cicd", "cicd") == ""
    edited.git("reset", "-q", "--hard", "origin/cicd")
    edited.git("rm", "-q", f"{US}/argocd/platform.yaml")
    edited.git("commit", "-qm", "Lose a file of the other")

    done = edited.run("cluster", "add", "us", "--commit")

    assert "`python scripts/bootstrap.py --cluster us`" in done.err
    edited.git("reset", "-q", "--hard", "origin/cicd")


def test_an_app_keeps_its_name(checkout: Checkout) -> None:
    checkout.git("mv", "overlays/dev/lily-api", "overlays/dev/platform")
    checkout.commit("Call an app like what a cluster needs", push=True)

    done = checkout.run("cluster", "add", "dev")

    assert done.code == 1
    assert done.errors == [
        "overlays/dev/platform: its Application is platform-dev, as one of the cluster would be; take another name"
    ]

"""A fork's own kinds: added by one command, closed as all others, judged wherever they run something."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import IMAGE, ROOT, Checkout, make_checkout

import add_kind
from gitops.checks import kubeconform, sources
from gitops.cluster import installed
from gitops.manifests import definitions, kinds, schemas, workloads, yamledit
from gitops.programs import building, tools
from gitops.programs.building import Go
from gitops.repo import codeowners
from gitops.repo.policy import Policy
from gitops.repo.snapshot import OnDisk

from contract.errors import Refused

FILES = ROOT / "tests/kinds"
WIDGETS, RUNNERS = FILES / "widgets.yaml", FILES / "runners.yaml"
DEFINITIONS = [
    definition for file in (WIDGETS, RUNNERS) for definition in definitions.read(file.read_bytes(), file.name)
]
ADDON = ("--addon", "cert-manager")
WIDGET: dict[str, Any] = {
    "apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "a", "namespace": "ml-dev"},
    "spec": {"size": 1},
}  # fmt: skip
POD = "spec.template.spec"
WORKERS = "spec.workers.*.template.spec"


def with_spec(**fields: Any) -> dict[str, Any]:
    return WIDGET | {"spec": {"size": 1} | fields}


def runner(image: str, worker: str) -> dict[str, Any]:
    def pod(name: str, image: str) -> dict[str, Any]:
        safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        sizes = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
        return {
            "serviceAccountName": "lily-api", "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": name, "image": image, "resources": sizes, "securityContext": safe}],
        }  # fmt: skip

    workers = [{"name": "one", "template": {"spec": pod("b", worker)}}]
    labels = {"app.kubernetes.io/name": "lily-api", "app.kubernetes.io/part-of": "lily"}
    named = {"name": "lily-api", "namespace": "ml-dev", "labels": labels}
    spec = {"template": {"metadata": {"labels": labels}, "spec": pod("a", image)}, "workers": workers}
    return {"apiVersion": "example.org/v1", "kind": "Runner", "metadata": named, "spec": spec}


# What the schema and an API server, which tests/cluster/test_kinds.py asks, have to say of objects alike.
VALID = {
    "least": WIDGET,
    "another version": WIDGET | {"apiVersion": "example.org/v1beta1"},
    "all": with_spec(
        mode="slow", port="http", sign="=", labels={"a": "b"}, settings={"level": 1, "any": {"thing": [1]}},
        parts=[{"name": "abc"}], made={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "spec": {"text": "a"}},
    ),
    "a number in the place of a name": with_spec(port=80),
    "annotations": WIDGET | {"metadata": {"name": "a", "namespace": "ml-dev", "annotations": {"a": "b"}}},
    "one that makes pods": runner(IMAGE, IMAGE),
}  # fmt: skip
INVALID = {
    "a field that is not known": with_spec(sise=1),
    "one in a list": with_spec(parts=[{"name": "abc", "size": 1}]),
    "one of an embedded object": with_spec(made={"apiVersion": "v1", "kind": "A", "spec": {"txt": "a"}}),
    "an embedded object without a kind": with_spec(made={"apiVersion": "v1"}),
    "one that is missing": WIDGET | {"spec": {"mode": "fast"}},
    "no spec": {field: value for field, value in WIDGET.items() if field != "spec"},
    "the limit itself": with_spec(size=0),
    "another type": with_spec(size="1"),
    "a word that is not listed": with_spec(mode="fastest"),
    "neither number nor name": with_spec(port=[80]),
    "another type where any field may be": with_spec(settings={"level": "high"}),
    "a pattern": with_spec(parts=[{"name": "ABC"}]),
    "a field of metadata": WIDGET | {"metadata": {"name": "a", "namespace": "ml-dev", "anotations": {}}},
    "both of two": with_spec(never="a"),
    "a field of another version": WIDGET | {"apiVersion": "example.org/v1beta1", "spec": {"mode": "fast"}},
    "a version that is not served": WIDGET | {"apiVersion": "example.org/v1alpha1"},
}


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone for what is refused, which leaves it as it was."""
    return make_checkout(template, tmp_path_factory.mktemp("shared"))


def done(checkout: Checkout, *args: str | Path) -> str:
    result = checkout.run("add_kind", *args)
    assert result.code == 0, result.err
    return result.out


def errors(checkout: Checkout, *args: str | Path) -> list[str]:
    """What is refused, with nothing changed."""
    before = checkout.state()
    result = checkout.run("add_kind", *args)
    assert (result.code, result.out) == (1, "")
    assert checkout.state() == before
    return result.errors


def object_in(checkout: Checkout, item: dict[str, Any], environment: str = "dev") -> None:
    """Puts an object into what an app has in one environment."""
    folder = f"overlays/{environment}/lily-api"
    checkout.write(f"{folder}/extra.yaml", yaml.safe_dump(item))
    if "- extra.yaml" not in checkout.read(f"{folder}/kustomization.yaml").decode():
        checkout.replace(f"{folder}/kustomization.yaml", "resources:\n", "resources:\n  - extra.yaml\n")


# Adding


def test_one_command_adds_a_kind_to_all_that_asks_for_it(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    dry = done(checkout, "--crd", WIDGETS, *ADDON, "--env", "dev", "--dry-run")
    assert checkout.git("status", "--porcelain") == ""
    out = done(checkout, "--crd", WIDGETS, *ADDON, "--env", "dev")

    assert dry == out
    assert out.splitlines() == [
        "argocd/platform/admission/parameters.yaml", "argocd/project-dev.yaml", "schemas/Widget.example.org.yaml",
        "schemas/kinds.yaml",
    ]  # fmt: skip
    assert yaml.safe_load(checkout.read("schemas/kinds.yaml")) == {"Widget.example.org": {"addon": "cert-manager"}}
    changed = checkout.git("diff", "--unified=0", "--", "argocd").splitlines()
    assert [line for line in changed if line.startswith(("+ ", "- "))] == [
        "+    Widget.example.org", "+    - group: example.org", "+      kind: Widget",
    ]  # fmt: skip
    assert checkout.run("validate").errors == []
    object_in(checkout, WIDGET)
    parsed, parse = [], kinds.parse
    monkeypatch.setattr(kinds, "parse", lambda files: parsed.append(files) or parse(files))
    assert checkout.run("validate").errors == []
    assert len(parsed) == 1
    assert done(checkout, "--crd", WIDGETS, *ADDON, "--env", "dev") == ""


def test_a_definition_is_kept_without_what_a_cluster_adds(checkout: Checkout) -> None:
    done(checkout, "--crd", WIDGETS, "--outside", "the platform team's Terraform")

    made = yaml.safe_load(checkout.read("schemas/Widget.example.org.yaml"))
    assert made["metadata"] == {"name": "widgets.example.org"}
    assert "conversion" not in made["spec"]
    fields = made["spec"]["versions"][2]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert (fields["sign"]["default"], fields["since"]["default"]) == ("=", "2026-01-01")


def closed() -> Path:
    return schemas.folder(DEFINITIONS)


def test_its_objects_are_judged_as_the_api_would() -> None:
    found = kubeconform.check({name: [item] for name, item in (VALID | INVALID).items()}, closed())

    assert {finding.folders[0] for finding in found} == INVALID.keys()
    [message] = [finding.message for finding in found if finding.folders == ("a version that is not served",)]
    assert message == (
        "apiVersion: example.org/v1alpha1: no version of Widget.example.org that is served; write v1beta1 or v1"
    )


def test_a_pattern_that_python_does_not_have_is_kubeconforms_alone(tmp_path: Path) -> None:
    [definition] = definitions.read(WIDGETS.read_bytes(), "widgets.yaml")
    spec = definition["spec"]["versions"][2]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["parts"]["items"]["properties"]["name"]["pattern"] = r"^\pL+\z"

    found = kubeconform.check(
        {"a": [with_spec(parts=[{"name": "1"}])], "b": [with_spec(parts=[{"name": "a"}])]}, schemas.folder([definition])
    )

    assert [finding.folders for finding in found] == [("a",)]


def test_a_fork_has_a_newer_definition_of_an_add_ons_kind_and_leaves_the_engines_as_it_is() -> None:
    """The name in capitals is another kind in a file of the same name."""
    engine = schemas.folder()
    own = "cert-manager.io/certificate_v1.json"
    before = (engine / own).read_bytes()

    for kind in ("Certificate", "CERTIFICATE"):
        text = of_group("cert-manager.io", kind).replace("widgets", "certificates")
        made = schemas.folder(definitions.read(text.encode(), "crd.yaml"))

        assert json.loads((made / own).read_text())["properties"]["kind"] == {"const": kind}
        assert (made / "cert-manager.io/issuer_v1.json").read_bytes() == (
            engine / "cert-manager.io/issuer_v1.json"
        ).read_bytes()
    assert (engine / own).read_bytes() == before


def test_the_owners_of_the_highest_environment_approve_what_is_in_schemas() -> None:
    owners = {"dev": ("@dev",), "prod": ("@platform",)}
    policy = Policy("a", ("b",), ("dev", "prod"), owners=owners, automation="bot")

    first, *others = codeowners.text(policy).splitlines()[1:]

    assert first == "* @platform"
    assert not [line for line in others if line.startswith(("/schemas", "*"))]


def test_a_kind_that_has_a_schema_needs_no_more_than_its_name(checkout: Checkout) -> None:
    out = done(checkout, "--kind", "ExternalSecret.external-secrets.io", "--kind", "PersistentVolumeClaim", "--json")

    assert json.loads(out)["files"] == [f"argocd/project-{name}.yaml" for name in ("dev", "prod", "staging")]
    installs = installed.definitions(checkout.root)
    assert [definitions.name(each) for each in installs] == ["ExternalSecret.external-secrets.io"]
    secret = {"refreshInterval": "1h", "secretStoreRef": {"name": "a", "kind": "ClusterSecretStore"}}
    object_in(checkout, {
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "a"}, "spec": secret,
    })  # fmt: skip
    assert checkout.run("validate").errors == []


def test_a_kind_of_the_whole_cluster_is_the_platforms(checkout: Checkout) -> None:
    name = "ClusterIssuer.cert-manager.io"

    refused = checkout.run("add_kind", "--kind", name)
    assert (refused.code, refused.out) == (0, "")
    assert (
        f"{name}: of the whole cluster, so of no environment; --platform allows it in argocd/platform/" in refused.err
    )
    assert done(checkout, "--kind", name, "--platform") == "argocd/project-platform.yaml\n"
    allowed = yaml.safe_load(checkout.read("argocd/project-platform.yaml"))["spec"]["clusterResourceWhitelist"]
    assert allowed[-1] == {"group": "cert-manager.io", "kind": "ClusterIssuer"}
    assert checkout.run("validate").errors == []


FAKE_GO = """\
#!/bin/sh
mkdir -p "$GOMODCACHE/crds"
cp {files}/*.yaml "$GOMODCACHE/crds"
case "$4" in *@v0*) printf '{{\n  "Error": "%s: reading it: 404\\\\n\\\\tnot found"\n}}\n' "$4"; exit 1;; esac
echo "{{\\"Sum\\": \\"h1:of-$4\\", \\"Dir\\": \\"$GOMODCACHE\\"}}"
"""


def test_a_module_is_named_with_its_checksum(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the one step that needs a network, the Go toolchain from the package index."""
    made, program = closed(), tmp_path / "go"
    program.write_text(FAKE_GO.format(files=FILES))
    program.chmod(0o755)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/bin").symlink_to(tools.cache() / "bin")
    monkeypatch.setenv("MODEL_GITOPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(add_kind.schemas, "folder", lambda found: made)
    monkeypatch.setattr(building, "_toolchain", lambda work: Go(program, work))
    module = ("--module", "example.org/widgets@v1.2.3")

    done(checkout, *module, "--file", "crds/wid*.yaml", "--outside", "the platform team", "--env", "dev")

    assert yaml.safe_load(checkout.read("schemas/kinds.yaml")) == {
        "Widget.example.org": {
            "outside": "the platform team", "module": "example.org/widgets@v1.2.3",
            "sum": "h1:of-example.org/widgets@v1.2.3",
        }
    }  # fmt: skip
    done(checkout, "--kind", "Widget.example.org", *ADDON)
    assert yaml.safe_load(checkout.read("schemas/kinds.yaml")) == {
        "Widget.example.org": {"addon": "cert-manager", "module": module[1], "sum": f"h1:of-{module[1]}"}
    }
    done(checkout, "--crd", WIDGETS, "--outside", "the platform team")
    assert yaml.safe_load(checkout.read("schemas/kinds.yaml")) == {
        "Widget.example.org": {"outside": "the platform team"}
    }
    refused = checkout.run("add_kind", *module, "--file", "crds/none.yaml", *ADDON)
    assert refused.errors == ["example.org/widgets@v1.2.3: no file matches crds/none.yaml"]
    refused = checkout.run("add_kind", "--module", "example.org/widgets@v0.1.0", "--file", "a", *ADDON)
    assert refused.errors == [
        "example.org/widgets@v0.1.0: reading it: 404 not found; name another version, or give the file itself by --crd"
    ]
    assert sorted(file.name for file in (tmp_path / "cache").iterdir()) == ["bin", "build.lock"]


def test_a_killed_run_is_completed_by_the_next(checkout: Checkout) -> None:
    done(checkout, "--crd", WIDGETS, *ADDON)
    wanted = checkout.read("schemas/kinds.yaml")
    (checkout.root / "schemas/kinds.yaml").unlink()

    [refused] = checkout.run("validate").errors
    command = re.fullmatch(r"schemas/Widget.example.org.yaml: .*`python scripts/(\S+)\.py (.*)` writes one", refused)
    assert command
    args = command[2].replace("NAME", "cert-manager").replace("schemas/", f"{checkout.root}/schemas/").split()
    assert checkout.run(command[1], *args).code == 0
    assert checkout.read("schemas/kinds.yaml") == wanted


def test_what_is_told_of_an_add_on_that_is_gone_mends_it(checkout: Checkout) -> None:
    """For one kind after the other, as they are found."""
    checkout.replace("argocd/platform/addons/kustomization.yaml", "  - kserve-crds.yaml\n", "")
    said = [line for line in checkout.run("validate").errors if line.endswith("[kinds]")]
    commands = dict.fromkeys(command for line in said for command in re.findall(r"`python scripts/(.*)` \[", line))
    assert len(commands) == 2

    for command in commands:
        script, *words = command.replace("REASON", "'the platform team'").split(" ", 1)
        assert checkout.run(script.removesuffix(".py"), *shlex.split(words[0])).code == 0

    assert yaml.safe_load(checkout.read("schemas/kinds.yaml")) == {
        f"{kind}.serving.kserve.io": {"outside": "the platform team"}
        for kind in ("ClusterStorageContainer", "InferenceService")
    }
    assert checkout.run("validate").errors == []


# What is written by hand for platform engineers


def test_what_contributing_tells_of_a_kind_of_your_own_works(checkout: Checkout) -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Add a kind of your own\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    commands = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    files = {"widgets.yaml": str(WIDGETS), "runners.yaml": str(RUNNERS)}

    assert len(commands) == 6
    for command in commands:
        python, script, *words = shlex.split(command, comments=True)
        assert (python, script) == ("python", "scripts/add_kind.py")
        if "--module" not in words:  # that one needs the network
            done(checkout, *[files.get(word, word) for word in words])
    assert checkout.run("validate").errors == []


# Kinds that run something


def test_a_kind_that_runs_containers_is_let_in_with_the_places_of_its_pods(checkout: Checkout) -> None:
    [bare] = checkout.run("add_kind", "--crd", RUNNERS, *ADDON).errors
    [half] = checkout.run("add_kind", "--crd", RUNNERS, *ADDON, "--pod-spec", POD).errors
    [wrong] = checkout.run("add_kind", "--crd", RUNNERS, *ADDON, "--pod-spec", "spec.template").errors
    done(checkout, "--crd", RUNNERS, *ADDON, "--pod-spec", POD, "--pod-spec", WORKERS)
    done(checkout, "--kind", "Runner.example.org", "--outside", "the platform team")
    [fewer] = errors(checkout, "--kind", "Runner.example.org", "--pod-spec", POD)
    assert done(checkout, "--kind", "Runner.example.org", "--pod-spec", POD, "--pod-spec", WORKERS) == ""

    assert yaml.safe_load(checkout.read("schemas/kinds.yaml")) == {
        "Runner.example.org": {"outside": "the platform team", "pods": [POD, WORKERS]}
    }
    assert fewer == half
    found = "runs containers, or names an image or a model, and nobody would look there"
    assert bare.startswith(f"schemas/kinds.yaml: Runner.example.org: {POD}.containers, {WORKERS}.containers: {found}")
    assert half.startswith(f"schemas/kinds.yaml: Runner.example.org: {WORKERS}.containers: {found}")
    assert wrong == (
        "schemas/kinds.yaml: Runner.example.org: pods: spec.template: no version of the kind has the spec of a pod"
        " there, with its containers; name others with --pod-spec, or take it out"
    )
    object_in(checkout, runner(IMAGE, IMAGE))
    assert checkout.run("validate").errors == []
    object_in(checkout, runner("docker.io/someone/a:1.0", "docker.io/someone/b:1.0"))
    said = checkout.run("validate").errors
    assert [line.partition(": ")[2].partition(": from no registry")[0] for line in said] == [
        f"Runner.example.org ml-dev/lily-api: {POD}.containers[a].image: 'docker.io/someone/a:1.0'",
        "Runner.example.org ml-dev/lily-api: spec.workers[one].template.spec.containers[b].image:"
        " 'docker.io/someone/b:1.0'",
    ]


def test_what_a_declared_kind_has_elsewhere_is_refused_by_its_path(checkout: Checkout) -> None:
    done(checkout, "--crd", RUNNERS, *ADDON, "--pod-spec", POD, "--pod-spec", WORKERS)
    item = runner(IMAGE, IMAGE)
    item["spec"]["template"]["metadata"] = {"image": "a:1"}
    worker = item["spec"]["workers"][0]["template"]["spec"]
    worker |= {"overhead": {"image": "a:1"}, "serverImage": "a:1"}
    worker["containers"][0]["sideImage"] = "a:1"
    object_in(checkout, item)

    said = checkout.run("validate").errors
    inside = "spec.workers[one].template.spec"
    for path in (
        "spec.template.metadata.image", f"{inside}.overhead.image", f"{inside}.serverImage",
        f"{inside}.containers[b].sideImage",
    ):  # fmt: skip
        assert any(f"{path}: no rule looks there" in line for line in said)


def test_what_a_forks_kind_has_in_a_field_that_takes_any_is_found_by_its_name() -> None:
    found = kinds.parse({"schemas/kinds.yaml": ENTRY.encode(), "schemas/Widget.example.org.yaml": WIDGETS.read_bytes()})
    names = ("baseImage", "imageRef", "server_image", "serverImages", "modelURI", "sourceModelUri", "storageUri")
    telling = dict.fromkeys(names, "a:1")
    plain = {"imagined": "a", "imagePullPolicy": "a", "level": 1}
    values = {"source": {"helm": {"valuesObject": {"serverImage": "a:1"}}}}
    application = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {}, "spec": values}
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"nodeSelector": {"osImage": "a"}}}}}

    with workloads.declared(found.pods):
        assert list(workloads.unclaimed(with_spec(settings=plain | {"any": [telling]}))) == [
            f"spec.settings.any[0].{name}" for name in telling
        ]
        assert list(workloads.unclaimed(with_spec(labels={"agentImage": "a:1"}))) == ["spec.labels.agentImage"]
        assert [*workloads.unclaimed(application), *workloads.unclaimed(job)] == []
        assert not workloads.runs(WIDGET)


def test_metadata_of_a_declared_pod_makes_no_webhook_fetch_a_model(checkout: Checkout) -> None:
    done(checkout, "--crd", RUNNERS, *ADDON, "--pod-spec", POD, "--pod-spec", WORKERS)
    item = runner(IMAGE, IMAGE)
    told = {"internal.serving.kserve.io/storage-initializer-sourceuri": "s3://elsewhere/model/"}
    item["spec"]["workers"][0]["template"]["metadata"] = {"annotations": told, "labels": item["metadata"]["labels"]}
    object_in(checkout, item)

    said = checkout.run("validate").errors
    assert any("spec.workers.0.template.metadata.annotations.internal" in line and "[storage]" in line for line in said)
    assert {line.rpartition("[")[2] for line in said} == {"storage]", "metadata]"}


def test_a_model_of_a_declared_kind_has_no_release(checkout: Checkout) -> None:
    done(checkout, "--crd", RUNNERS, *ADDON, "--pod-spec", POD, "--pod-spec", WORKERS)
    item = runner(IMAGE, IMAGE)
    told = [{"name": "MODEL_URI", "value": "s3://elsewhere/model/"}]
    item["spec"]["workers"][0]["template"]["spec"]["containers"][0]["env"] = told
    object_in(checkout, item)

    assert any("env[MODEL_URI].value: has no release" in line for line in checkout.run("validate").errors)


# A change of schemas/


def test_a_newer_definition_judges_anew_what_did_not_change(checkout: Checkout, tmp_path: Path) -> None:
    done(checkout, "--crd", WIDGETS, *ADDON)
    object_in(checkout, with_spec(port=80))
    base = checkout.commit("A kind and an object")
    newer = tmp_path / "newer.yaml"
    newer.write_text(changed(lambda item: fields_of_spec(item).pop("port")))
    assert done(checkout, "--crd", newer, *ADDON) == "schemas/Widget.example.org.yaml\n"
    checkout.commit("Take a field out")

    [said] = checkout.run("validate", "--changed-since", base).errors

    assert "Widget.example.org ml-dev/a: spec: additional properties 'port' not allowed" in said


def test_what_a_commit_deploys_is_looked_into_whatever_a_change_takes_out(checkout: Checkout) -> None:
    before = checkout.git("rev-parse", "HEAD")
    done(checkout, "--crd", RUNNERS, *ADDON, "--pod-spec", POD, "--pod-spec", WORKERS)
    object_in(checkout, runner(IMAGE, IMAGE))
    base = checkout.commit("A kind that runs containers, and an object")
    checkout.git("checkout", "-q", before, "--", ".")
    checkout.git("rm", "-rq", "schemas", "overlays/dev/lily-api/extra.yaml")
    checkout.commit("Take both out")

    said = checkout.run("validate", "--changed-since", base).errors

    assert any("Runner.example.org ml-dev/lily-api" in line and line.endswith("[removal]") for line in said)


def test_a_change_of_schemas_takes_no_release_along(checkout: Checkout) -> None:
    base = checkout.git("rev-parse", "HEAD")
    done(checkout, "--crd", WIDGETS, *ADDON)
    checkout.write("overlays/dev/retired.yaml", "- {app: other, version: unreleased, reason: none, by: a, since: b}\n")
    checkout.commit("Two at once")

    said = checkout.run("validate", "--changed-since", base).errors

    assert any("changes together: the policy (schemas/" in line and line.endswith("[mixed]") for line in said)


def written(root: Path, files: dict[str, str]) -> list[str]:
    """The errors for these files in a checkout that has no others."""
    for path, text in files.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text)
    with pytest.raises(Refused) as refused:
        sources.require(OnDisk(root))
        kinds.read(root)
    return list(refused.value.lines)


ENTRY = "Widget.example.org: {addon: cert-manager}\n"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"schemas/kinds.yaml": "a: {}\n"}, "schemas/kinds.yaml: the whole file: 'a' does not match"),
        (
            {"schemas/kinds.yaml": "Widget.example.org: {addon: a, outside: of Git here}\n"},
            "schemas/kinds.yaml: Widget.example.org:",
        ),
        ({"schemas/a.txt": "a"}, "schemas/a.txt: kind: None of None, and not a CustomResourceDefinition of"),
        (
            {"schemas/kinds.yaml": ENTRY, "schemas/b.yaml": WIDGETS.read_text()},
            "schemas/b.yaml: defines Widget.example.org, whose file is schemas/Widget.example.org.yaml;",
        ),
        (
            {"schemas/Widget.example.org.yaml": WIDGETS.read_text()},
            "schemas/Widget.example.org.yaml: schemas/kinds.yaml has no entry of it;",
        ),
        (
            {"schemas/.gitattributes": "*.yaml filter=other\n"},
            "schemas/.gitattributes: line 1: filter=other: what is deployed would be another file",
        ),
        (
            {".gitattributes": "schemas/* ident\n"},
            ".gitattributes: line 1: ident: what is deployed would be another file",
        ),
    ],
)
def test_what_is_wrong_in_schemas_is_refused(tmp_path: Path, files: dict[str, str], said: str) -> None:
    assert any(line.startswith(said) for line in written(tmp_path, files))


def test_a_link_in_schemas_is_refused(tmp_path: Path) -> None:
    (tmp_path / "schemas").symlink_to(FILES)

    assert written(tmp_path, {}) == [f"schemas: a symbolic link to {FILES}; put a file in its place"]


# Bad input


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """The definition of widgets after a change."""
    [definition] = [copy.deepcopy(each) for each in yaml.load_all(WIDGETS.read_text(), definitions._Loader)]
    change(definition)
    return yaml.safe_dump(definition)


def fields_of_spec(definition: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = definition["spec"]["versions"][2]["schema"]["openAPIV3Schema"]
    found: dict[str, Any] = schema["properties"]["spec"]["properties"]
    return found


def in_spec(**fields: Any) -> str:
    return changed(lambda item: fields_of_spec(item).update(fields))


def fields(**inner: Any) -> dict[str, Any]:
    return {"type": "object", "properties": inner}


def pod_fields(**of_containers: Any) -> dict[str, Any]:
    """Fields of a pod's spec, with these of containers besides."""
    containers = {"type": "array", "items": fields(image={"type": "string"}, **of_containers)}
    return {"containers": containers, "volumes": {"type": "array", "items": fields(image=fields())}}


SPEC = "spec.versions[v1].schema.openAPIV3Schema.properties.spec"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("apiVersion: v1\nkind: Service\n", "kind: 'Service' of 'v1', and not a CustomResourceDefinition of"),
        ("", "kind: nothing, and not a CustomResourceDefinition of"),
        ("a: [", "not YAML:"),
        ("- 1\n", "kind: None of None, and not"),
        (WIDGETS.read_text().replace("  scope:", "  group: other.org\n  scope:"), "not YAML: key 'group' stands twice"),
        ("? [a]\n: b\n", "not YAML: while constructing a mapping"),
        ("a: &a 1\nb: *a\n", "*a: an alias; write out what it stands for"),
        ("[" * 5000 + "]" * 5000, ""),
        (" " * (definitions.LARGEST + 1), f"{definitions.LARGEST + 1} bytes, and at most {definitions.LARGEST} are"),
        (WIDGETS.read_text() + "---\nkind: Secret\n", "kind: 'Secret' of None, and not"),
        (in_spec(a={}), f"{SPEC}.properties.a.type: missing: not structural"),
        (in_spec(a={"type": "object", "$ref": "#/a"}), f"{SPEC}.properties.a.$ref: not structural"),
        (in_spec(a={"type": "array", "items": {}}), f"{SPEC}.properties.a.items.type: missing: not structural"),
        (in_spec(a=1), f"{SPEC}.properties.a: 1: no schema"),
        (
            in_spec(a={"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}),
            f"{SPEC}.properties.a.additionalProperties: beside properties: not structural",
        ),
        (
            in_spec(a={"type": "string", "anyOf": [{"type": "string"}]}),
            f"{SPEC}.properties.a.anyOf.type: not structural: it stands outside of anyOf",
        ),
        (
            changed(lambda item: item["metadata"].update(name="other")),
            "metadata.name: 'other'; API servers ask for 'widgets.example.org', PLURAL.GROUP",
        ),
        (changed(lambda item: item["spec"].update(scope="Both")), "spec.scope: 'Both'; it is Namespaced or Cluster"),
        (
            changed(lambda item: [each.update(served=False) for each in item["spec"]["versions"]]),
            "spec.versions: none of Widget.example.org is served",
        ),
        (
            changed(lambda item: item["spec"]["versions"][1].pop("schema")),
            "spec.versions[v1beta1].schema.openAPIV3Schema: missing, or not of type object",
        ),
        (
            changed(lambda item: item["spec"].pop("names")),
            "spec.names.kind: None; a definition has a name",
        ),
        (changed(lambda item: item["spec"].update(group="..")), "spec.group: '..'; a definition has a name there"),
    ],
)
def test_what_is_no_definition_is_refused(shared: Checkout, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "crd.yaml"
    file.write_text(text)

    first, *_ = errors(shared, "--crd", file, *ADDON)

    assert first.startswith(f"{file}: {said}")


def of_group(group: str, kind: str) -> str:
    return WIDGETS.read_text().replace("example.org", group).replace("kind: Widget,", f"kind: {kind},")


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (of_group("apps", "Widget"), ADDON, "Widget.apps: of a group of Kubernetes itself; take it out of schemas/"),
        (
            of_group("serving.kserve.io", "InferenceService"), ADDON,
            "schemas/kinds.yaml: InferenceService.serving.kserve.io: the template has its schema",
        ),
        (
            f"{WIDGETS.read_text()}---\n{in_spec(a={'type': 'string'})}", ADDON,
            "crd.yaml: defines Widget.example.org, and so does another definition, differently; name one of them",
        ),
        (
            WIDGETS.read_text(), ("--addon", "nobody"),
            "--addon nobody: no Application of argocd/platform/, which has ack-applicationautoscaling, ",
        ),
        (WIDGETS.read_text(), ("--outside", "none"), "schemas/kinds.yaml: Widget.example.org.outside: 'none' does not"),
        (WIDGETS.read_text(), (*ADDON, "--kind", "A.b"), "--kind A.b: not among what is there: Widget.example.org"),
        (WIDGETS.read_text(), (*ADDON, "--env", "qa"), "--env qa: no such environment of overlays/promotion.yaml: "),
        (in_spec(a={"type": "string", "min": 1}), ADDON, "schemas: CustomResourceDefinition.apiextensions.k8s.io"),
        (
            in_spec(baseImage={"type": "string"}), ADDON,
            "schemas/kinds.yaml: Widget.example.org: spec.baseImage: runs containers, or names an image or a model",
        ),
        (
            in_spec(**pod_fields(), baseImage={"type": "string"}), (*ADDON, "--pod-spec", "spec"),
            "schemas/kinds.yaml: Widget.example.org: spec.baseImage: runs containers, or names an image or a model",
        ),
        (
            in_spec(**pod_fields(sideImage={"type": "string"})), (*ADDON, "--pod-spec", "spec"),
            "schemas/kinds.yaml: Widget.example.org: spec.containers.*.sideImage: runs containers, or names an image",
        ),
        (
            in_spec(**pod_fields(), more=fields(**pod_fields())), (*ADDON, "--pod-spec", "spec"),
            "schemas/kinds.yaml: Widget.example.org: spec.more.containers, spec.more.volumes.*.image: runs containers",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_added_is_refused(
    shared: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, options: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("crd.yaml").write_text(text)

    first, *_ = errors(shared, "--crd", "crd.yaml", *options)

    assert first.startswith(said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--kind", "Widget.example.org"),
            "--kind Widget.example.org: no schema is known; `python scripts/add_kind.py",
        ),
        (("--kind", "Role.rbac.authorization.k8s.io"), "would let an environment do more than its project"),
        (("--kind", "Application.argoproj.io"), "would let an environment do more than its project"),
        (("--kind", "LLMInferenceService.serving.kserve.io"), "runs containers or serves models, and there are no"),
        (
            ("--kind", "ExternalSecret.external-secrets.io", "--pod-spec", POD),
            "--pod-spec: ExternalSecret.external-secrets.io: not in schemas/kinds.yaml; `python scripts/add_kind.py",
        ),
        (("--crd", "/nowhere.yaml", *ADDON), "--crd /nowhere.yaml: No such file or directory"),
        (
            ("--module", "example.org/a@latest", "--file", "*", *ADDON),
            "--module example.org/a@latest: not PATH@VERSION",
        ),
    ],
)
def test_what_nobody_can_allow_is_refused(shared: Checkout, options: tuple[str, ...], said: str) -> None:
    [line] = errors(shared, *options)

    assert said in line


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--crd", "a.yaml"),
        ("--crd", "a.yaml", "--addon", "a", "--outside", "b"),
        ("--crd", "a.yaml", "--module", "a@v1.0.0", "--file", "a", "--addon", "a"),
        ("--module", "a@v1.0.0", "--addon", "a"),
        ("--kind", "A.b", "--file", "a"),
    ],
)
def test_options_that_contradict_each_other_are_wrong_usage(options: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        add_kind.main(list(options))
    assert ended.value.code == 2


# Editing the lists


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("a:\n  - x: 1\n    y: b\n# end\n", "a:\n  - x: 1\n    y: b\n  - x: p\n    y: q\n# end\n"),
        ("a:\n- x: 1  # one\n- y: b # two", "a:\n- x: 1  # one\n- y: b # two\n- x: p\n  y: q\n"),
        ("a:\r\n  - x: 1\r\nb: 2\r\n", "a:\r\n  - x: 1\r\n  - x: p\r\n    y: q\r\nb: 2\r\n"),
    ],
)
def test_an_item_is_added_at_the_end_of_a_list(text: str, made: str) -> None:
    assert yamledit.add_item(text.encode(), ("a",), {"x": "p", "y": "q"}, "f").decode() == made


@pytest.mark.parametrize("text", ["a: []\n", "a: [{x: 1}]\n", "b: 1\n", "a:\n  - 1\n", "a: &a\n  - x: 1\nb: *a\n"])
def test_a_list_that_is_no_list_of_mappings_in_lines_is_left(text: str) -> None:
    with pytest.raises(Refused):
        yamledit.add_item(text.encode(), ("a",), {"x": "p"}, "f")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("a: >-\n  b\n  c\n# d\n", "a: >-\n  b\n  c\n  new\n# d\n"),
        ("a: >-\r\n  b\r\nc: d\r\n", "a: >-\r\n  b\r\n  new\r\nc: d\r\n"),
        ("a: >-\n  b", "a: >-\n  b\n  new"),
        ("a: b c\n", "a: b c new\n"),
        ('a: "b"\n', "a: b new\n"),
    ],
)
def test_a_word_is_added_at_the_end_of_words(text: str, made: str) -> None:
    done = yamledit.add_word(text.encode(), ("a",), "new", "f").decode()

    assert yaml.safe_load(done)["a"] == yaml.safe_load(made)["a"]
    assert done.replace('"', "") == made.replace('"', "")

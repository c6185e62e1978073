"""The commands in docs/ that are ours exist, and take the options that stand there; what pages compare and change is
what the repository has."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import socket
import subprocess
from pathlib import Path

import boto3
import pytest
import yaml
from botocore import xform_name
from conftest import POLICY, ROOT, SAMPLE, Checkout, listens, wait_until

from gitops.checks import kubeconform
from gitops.manifests.cloudformation import FOLDER
from gitops.programs import tools
from gitops.repo import layout

PAGES = sorted((ROOT / "docs").glob("*.md"))
COMMAND = re.compile(r"python scripts/(?P<name>\w+)\.py(?P<words>[^|>`\n]*)")
CALLS = [
    (page.name, match["name"], match["words"].strip())
    for page in PAGES
    for match in COMMAND.finditer(page.read_text())
    if "..." not in match["words"]
]


class Parsed(Exception):
    """The options were taken, and nothing was run."""


@pytest.mark.parametrize(
    ("page", "command", "words"), CALLS, ids=[f"{page}: {name} {words}" for page, name, words in CALLS]
)
def test_a_command_takes_the_options_that_a_page_has(
    page: str, command: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = argparse.ArgumentParser.parse_args

    def parse(parser: argparse.ArgumentParser, *given: object, **more: object) -> None:
        real(parser, *given, **more)  # type: ignore[call-overload]
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises((Parsed, SystemExit)) as ended:
        importlib.import_module(command).main(shlex.split(words))

    assert ended.type is Parsed or ended.value.args == (0,)


def test_what_a_page_names_of_the_repository_is_there() -> None:
    for page in PAGES:
        named = re.findall(r"`((?:tests|infra|scripts|docs|model-src|\.github)/[\w./-]+)`", page.read_text())
        assert [path for path in named if not (ROOT / path).exists()] == [], page
        # What a fork owns is there in the sample.
        owned = re.findall(r"`((?:base|argocd)/[\w./-]+)`", page.read_text())
        assert [path for path in owned if not (SAMPLE / path).exists()] == [], page


def test_a_page_refers_to_headings_and_pages_that_there_are() -> None:
    for page in PAGES:
        text = page.read_text()
        for file, heading in re.findall(r"`?((?:model-src/)?(?:README|CONTRIBUTING)\.md)`?, \"([^\"]+)\"", text):
            assert re.search(rf"^#+ {re.escape(heading)}$", (ROOT / file).read_text(), re.MULTILINE), (page, heading)
        for linked in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (page.parent / linked).is_file(), (page, linked)


def test_the_table_of_aws_has_every_template() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs/aws.md").read_text(), re.MULTILINE)

    assert sorted(rows) == sorted(file.stem for file in Path(ROOT / FOLDER).glob("*.yaml"))


# Which way to serve a model: docs/choose.md

CHOOSE = (ROOT / "docs/choose.md").read_text()
SHAPES = {folder.parent.name for folder in SAMPLE.glob(f"base/*/{layout.SKELETON}")}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(text: str, first: str) -> dict[str, list[str]]:
    """The rows of the table whose first heading this is, by their first cell."""
    lines = text[text.index(f"\n| {first} |") + 1 :].split("\n\n")[0].splitlines()
    return {row[0]: row[1:] for row in map(cells, lines[2:])}


def test_the_page_compares_the_shapes_that_there_are() -> None:
    ways = [name.strip("`") for name in table(CHOOSE, "shape")]
    made = re.findall(r"^python scripts/new_model\.py wine --shape ([\w-]+)$", CHOOSE, re.MULTILINE)
    sections = re.findall(r"^### .*`([\w-]+)`$", CHOOSE, re.MULTILINE)
    [heading] = re.findall(r"^\| \| (Kubernetes.*) \|$", CHOOSE, re.MULTILINE)

    assert set(ways) == SHAPES
    assert sorted(ways) == sorted(made) == sorted(sections)
    compared = [cell.partition("`")[2].strip("`") for cell in cells(heading)]
    assert sorted([*compared, "batch"]) == sorted(ways)
    lines = CHOOSE[CHOOSE.index(heading) :].split("\n\n")[0].splitlines()
    assert {len(cells(line)) for line in lines[2:]} == {1 + len(compared)}


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_command_of_a_way_makes_an_app(shape: str, checkout: Checkout) -> None:
    done = checkout.run("new_model", "wine", "--shape", shape, "--only", "app", "--dry-run")

    assert done.code == 0, done.err


def test_what_a_pod_asks_for_is_what_its_shape_has() -> None:
    words = {"100m": "a tenth of a core", "250m": "a quarter of a core", "192Mi": "192 MiB", "512Mi": "512 MiB"}
    for shape, file in (("api", "deployment"), ("inference-service", "inferenceservice")):
        text = (SAMPLE / f"base/{shape}/{file}.yaml").read_text()
        found = re.findall(r"requests:\s+cpu: (\S+)\s+memory: (\S+)", text)
        [section] = re.findall(rf"^### [^\n]*`{shape}`\n(.*?)(?=^### |\Z)", CHOOSE, re.MULTILINE | re.DOTALL)

        assert [f"A pod asks for {words[cpu]} and {words[memory]}" in section for cpu, memory in found] == [True]
        assert ("averageUtilization: 70" in (SAMPLE / "base/api/horizontalpodautoscaler.yaml").read_text()) == (
            "the shapes scale at 70 %" in CHOOSE
        )


def test_the_figures_of_the_page_are_those_of_the_readme_and_add_up() -> None:
    readme = (ROOT / "README.md").read_text()
    figures = table(CHOOSE, "what")
    apps = {row[0]: row[1:] for row in map(cells, readme.splitlines()) if row[0].startswith("one bump")}

    one = apps["one bump, `argocd-server` alone told, median"]
    assert figures["from a merge to the changed object in the cluster"][0] == one[0]
    assert figures["memory of Argo CD's controller with 1,000 apps"][0] in readme
    [cluster] = map(float, re.findall(r"EKS is \[(\S+) USD an hour\]", CHOOSE))
    [nat] = map(float, re.findall(r"a NAT gateway \[(\S+) USD an hour\]", CHOOSE))
    [month] = map(float, re.findall(r"before anything runs that is (\S+) USD a month", CHOOSE))
    gateways = (ROOT / "infra/network.yaml").read_text().count("AWS::EC2::NatGateway")
    assert (gateways, month) == (3, pytest.approx(730 * (cluster + gateways * nat)))


def test_the_commands_of_aws_have_operations_and_fields_that_there_are() -> None:
    known = boto3.client("pricing", region_name="us-east-1").meta.service_model
    calls = re.findall(r"^aws pricing ([\w-]+) (.*)$", CHOOSE, re.MULTILINE)

    assert calls
    for operation, options in calls:
        members = known.operation_model("".join(map(str.title, operation.split("-")))).input_shape.members
        fields = {xform_name(name, "-") for name in members}
        assert set(re.findall(r"--([\w-]+)", options)) <= fields | {"region"}
        for kind in re.findall(r"Type=(\w+)", options):
            assert kind in members["Filters"].member.members["Type"].enum


# A cluster on one machine: docs/local.md

LOCAL = (ROOT / "docs/local.md").read_text()


def block(mark: str) -> str:
    [text] = re.findall(rf"<!-- {re.escape(mark)} -->\n```yaml\n(.*?)```", LOCAL, re.DOTALL)
    return str(text)


def changed_for(environments: tuple[str, ...], checkout: Checkout) -> None:
    """Makes the changes that the page asks for."""
    platform = "argocd/platform/kustomization.yaml"
    checkout.replace(platform, "  - aws\n", "")
    checkout.write(platform, f"{checkout.read(platform).decode()}\n{block(f'file {platform}')}")
    shown = block("file overlays/dev/shared/kustomization.yaml")
    components, _, patches = shown.partition("\npatches:\n")
    for environment in environments:
        file = f"overlays/{environment}/shared/kustomization.yaml"
        variables, keys = components.removeprefix("components:\n").splitlines()
        checkout.replace(file, f"{variables}\n", f"{variables}\n{keys}\n")
        checkout.replace(file, "\npatches:\n", f"\npatches:\n{patches}")
    checkout.write(POLICY, checkout.read(POLICY).decode() + block(f"file {POLICY}"))
    checkout.commit("Run on a cluster without AWS")


def test_the_changes_for_a_cluster_without_aws_are_valid(checkout: Checkout) -> None:
    changed_for(("dev", "staging"), checkout)

    done = checkout.run("validate")

    assert done.errors == []
    assert "AWS_SECRET_ACCESS_KEY" in checkout.run("render", "overlays/staging/lily-api").out


def test_production_refuses_the_keys_of_a_cluster_for_learning(checkout: Checkout) -> None:
    changed_for(("dev", "staging", "prod"), checkout)

    done = checkout.run("validate")

    assert done.errors
    assert all(line.startswith("overlays/prod/") and line.endswith("[keys]") for line in done.errors)


def test_the_s3_server_of_the_page_is_the_one_of_the_tests_and_where_the_component_looks() -> None:
    items = list(yaml.safe_load_all(block("manifests")))
    component = (SAMPLE / "base/environment/keys/kustomization.yaml").read_text()
    [deployment] = [item for item in items if item["kind"] == "Deployment"]
    [server] = deployment["spec"]["template"]["spec"]["containers"]
    [port] = next(item["spec"]["ports"] for item in items if item["kind"] == "Service")

    assert [str(each) for each in kubeconform.check({"s3": items})] == []
    assert server["image"].endswith(f"/versitygw:{tools.VERSITYGW.version}")
    assert component.count("http://s3.s3.svc:7070") == 2
    assert f"serving.kserve.io/s3-endpoint=s3.s3.svc:{port['port']}" in LOCAL
    assert port["port"] == server["ports"][0]["containerPort"] == 7070
    local = (ROOT / "scripts/local_s3.py").read_text()
    assert all(f'"{word}"' in local for word in server["args"] if word.startswith("--"))


def test_the_s3_server_takes_the_arguments_of_the_page(tmp_path: Path, environment: dict[str, str]) -> None:
    [deployment] = [item for item in yaml.safe_load_all(block("manifests")) if item["kind"] == "Deployment"]
    [server] = deployment["spec"]["template"]["spec"]["containers"]
    [bucket] = deployment["spec"]["template"]["spec"]["initContainers"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    moved = {":7070": f"127.0.0.1:{port}"}
    words = [moved.get(word, word.replace("/data", str(tmp_path))) for word in server["args"]]
    subprocess.run([word.replace("/data", str(tmp_path)) for word in bucket["command"]], check=True)

    with subprocess.Popen(
        [tools.VERSITYGW.require(), *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: listens(port), "the S3 server listens")
            client = boto3.client(
                "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="eu-central-1",
                aws_access_key_id="local", aws_secret_access_key="local-secret",
            )  # fmt: skip
            assert [each["Name"] for each in client.list_buckets()["Buckets"]] == ["acme-models"]
        finally:
            process.kill()

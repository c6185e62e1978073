"""The demo as a new user runs it, on a model that the command has just made, and README.md, held to what it says by
the demo's clone."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import yaml
from conftest import BUCKET, IMAGE, ROOT, Checkout, copy_checkout, little, make_checkout, s3_running

import demo
import setup
from gitops.programs import tools

from contract.errors import Refused


def of_the_sample(text: str) -> str:
    """A text that speaks of the template's model, for the sample: the demo runs there, and its model is another."""
    names = re.findall(r"s3://[\w-]+/models/(\w+)/", (ROOT / "README.md").read_text())
    return text.replace(names[0], "lily") if names else text


README = of_the_sample((ROOT / "README.md").read_text())
# A fork may write another README.md; what it still quotes has to be true.
IS_THE_TEMPLATES = "\n## A walk through the demo's clone\n" in README
templates = pytest.mark.skipif(not IS_THE_TEMPLATES, reason="the fork has a README.md of its own")
BLOCK = re.compile(r"^<!-- (?P<mark>.+?) -->\n```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Tour:
    """A repository in which a model was made and `make demo` was run, and what both printed."""

    root: Path
    env: dict[str, str]
    told: str
    printed: str

    @property
    def versions(self) -> dict[str, str]:
        """What lily-sklearn runs at the demo's end, by environment."""
        return dict(re.findall(r"^(dev|prod) +lily-sklearn +(\S+)", self.printed, re.M))

    @property
    def clone(self) -> Path:
        return self.root / ".demo/clone"


def make(target: str, root: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", target],
        cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tour(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Tour:
    root = tmp_path_factory.mktemp("tour") / "model-gitops"
    root.mkdir()
    copy_checkout(root)
    told = make_the_model_anew(root, environment)
    # What `make demo` would install is installed already: the very environments in which the tests run.
    for folder in (".venv", "model-src/.venv"):
        (root / folder).symlink_to(ROOT / folder)
    # Variables of the user's that would lead the demo to other places, if it let them.
    env = environment | {"AWS_SESSION_TOKEN": "foreign", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = make("demo", root, env)
    assert done.returncode == 0, done.stdout
    return Tour(root, environment | {"PATH": f"{ROOT / '.venv/bin'}:{environment['PATH']}"}, told, done.stdout)


def make_the_model_anew(root: Path, environment: dict[str, str]) -> str:
    """Makes a repository of a folder whose model and its service come from the command, which printed this."""
    for path in ("model-src/models/lily", "apps/lily-api", *root.glob("overlays/*/lily-api")):
        shutil.rmtree(root / path)

    def call(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("git", "init", "-q", "-b", "main")
    call("git", "add", "-A")
    call("git", "commit", "-qm", "The template")
    told = call(ROOT / ".venv/bin/python", "scripts/new_model.py", "lily", "--shape", "api")
    params = root / "model-src/models/lily/params.yaml"
    params.write_bytes(little(params.read_bytes()))
    call("git", "add", "-A")
    call("git", "commit", "-qm", "Add the model lily")
    return told


def test_the_demo_ends_with_the_species_and_a_second_version_in_dev(tour: Tour) -> None:
    lines = tour.printed.splitlines()

    assert any(re.fullmatch(r"lily \S+ answers \[5\.3, 3\.5, 1\.4, 0\.2\] with setosa\.", line) for line in lines)
    assert "== What runs where, and where it came from" in lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-[0-9a-f]{12}", tour.versions["prod"])
    assert tour.versions["dev"] != tour.versions["prod"]
    assert "not built" in tour.printed


def test_the_demo_writes_nothing_outside_its_folder(tour: Tour) -> None:
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=tour.root, env=tour.env, capture_output=True, text=True
    )

    assert status.stdout == ""


def test_a_new_model_goes_the_way_that_its_command_prints_and_is_valid_then(
    tour: Tour, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo has trained it, uploaded it and asked it by the same commands; the release in dev is run as printed."""
    for command in ("dvc repro models/lily/dvc.yaml", "python -m lifecycle version lily"):
        assert f"  {command}\n" in tour.told
        assert f"$ {command}\n" in tour.printed
    upload = "python scripts/upload_model.py --model lily --artifacts model-src/artifacts/lily"
    assert f"  {upload}\n" in tour.told
    assert f"$ {upload} " in tour.printed
    [release] = re.findall(r"^  python scripts/bump_model\.py (.* --push)$", tour.told, re.M)
    assert release == "--app lily-api --env dev --model-uri URI --image IMAGE --push"
    uri = f"s3://{BUCKET}/models/lily/{tour.versions['dev']}/"
    checkout = make_checkout(tour.root / ".demo/remote.git", tmp_path)
    with s3_running(tour.root / ".demo/s3", environment) as s3:
        for name, value in s3.variables.items():
            monkeypatch.setenv(name, value)
        released = checkout.run("bump_model", *release.replace("URI", uri).replace("IMAGE", IMAGE).split())
    assert released.code == 0, released.err
    checkout.git("pull", "-q")

    for changed in ((), ("--changed-since", "HEAD^")):
        checked = checkout.run("validate", *changed)
        assert checked.code == 0, checked.err
    [deployment] = [
        item
        for item in yaml.safe_load_all(checkout.run("render", "overlays/dev/lily-api").out)
        if item["kind"] == "Deployment"
    ]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "MODEL_URI", "value": f"{uri}onnx/"} in container["env"]


def test_the_demo_ends_where_a_stored_model_was_altered(
    tour: Tour, tmp_path: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Its own step that uploads, which every run of it takes: a command that fails ends the demo."""
    data = Path(shutil.copytree(tour.root / ".demo/s3", tmp_path / "s3"))
    [file] = data.glob(f"buckets/{BUCKET}/models/lily/{tour.versions['dev']}/onnx/model.onnx")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with s3_running(data, environment) as s3:

        def ended() -> str:
            shell = demo.Shell(tour.clone, tour.root, tour.env | s3.variables)
            command = ("upload_model.py", "--model", "lily", "--artifacts", "model-src/artifacts/lily")
            with pytest.raises(Refused, match=r"^the demo ends here: `.*` failed with exit code 1$"):
                shell.script(*command)
            return capfd.readouterr().out

        assert "the stored bytes do not match the checksum they were stored with; the object is damaged" in ended()
        # The object and its checksum are altered at once, as a writer of the bucket can.
        client = boto3.client(
            "s3", endpoint_url=s3.url, aws_access_key_id="local", aws_secret_access_key="local-secret"
        )
        key = file.relative_to(s3.files).as_posix()
        client.put_object(Bucket=BUCKET, Key=key, Body=b"another model", ChecksumAlgorithm="SHA256")
        assert "versions are never overwritten: find out who wrote that object" in ended()


def test_the_readme_is_true(tour: Tour, environment: dict[str, str]) -> None:
    """Every command in it that is marked to be run is run in the demo's clone, in order, and prints what is quoted."""
    text = README
    for environment_name, quoted in dict(re.findall(r"^(dev|prod) +lily-sklearn +(\S+)", README, re.M)).items():
        text = text.replace(quoted, tour.versions[environment_name])
    subprocess.run(["git", "checkout", "-q", "cicd"], cwd=tour.clone, env=tour.env, check=True)
    printed, ran = "", 0
    with s3_running(tour.root / ".demo/s3", environment) as s3:
        for mark, _, block in BLOCK.findall(text):
            if mark.startswith("file "):
                assert (tour.root / mark.removeprefix("file ")).read_text() == block, mark
            elif mark in ("run", "run fails"):
                done = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", block],
                    cwd=tour.clone, env=tour.env | s3.variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    text=True,
                )  # fmt: skip
                assert (done.returncode != 0) == (mark == "run fails"), done.stdout
                printed, ran = masked(done.stdout), ran + 1
            elif mark == "output":
                assert printed == masked(block)
            elif mark == "output ends":
                assert printed.endswith(masked(block)), printed
            else:
                assert mark == "output of the demo"
                assert masked(block) in masked(tour.printed)

    assert ran >= 5 or not IS_THE_TEMPLATES


def masked(text: str) -> str:
    """Without what differs from run to run: commits, digests, times, and how wide a table's columns are."""
    for pattern, word in (
        (r"\d{4}-\d\d-\d\d-[0-9a-f]{12}", "VERSION"),
        (r"\d{4}-\d\d-\d\dT[0-9:]{8}\S{6}", "TIME"),
        (r"\b[0-9a-f]{12,64}\b", "HEX"),
        (r"-{3,}", "---"),
        (r" +$", ""),
        (r" {2,}", "  "),
    ):
        text = re.sub(pattern, word, text, flags=re.M)
    return text.strip()


@templates
def test_the_readme_names_only_folders_that_exist(whole_checkout: Checkout) -> None:
    for line in README.split("## The rooms")[1].split("```")[1].strip().splitlines():
        folder = re.sub(r"<\w+>", "*", line.split()[0])
        assert list(whole_checkout.root.glob(folder)), line


@templates
def test_the_readme_says_how_much_the_demo_fetches() -> None:
    profile = setup.PROFILES["demo"]
    parts = [*profile.environments, tools.UV, *profile.programs]
    megabytes = sum(part.fetch_mb for part in parts) + tools.TOOLCHAIN_MB
    minutes = sum(part.minutes for part in parts)

    assert f"fetches before it starts: {megabytes} MB and four minutes for `make demo`" in README
    assert 3 < minutes <= 4


@templates
def test_the_readme_says_how_much_a_control_plane_fetches() -> None:
    megabytes = sum(program.fetch_mb for program in tools.CLUSTER) + tools.TOOLCHAIN_MB
    minutes = sum(program.minutes for program in tools.CLUSTER)

    assert f"{round(megabytes, -1)} MB and {minutes + 0.4:.0f} minutes on two cores" in README

"""A model and an archive that are made as people make them, S3 with both, and machines that boot from there."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import BUCKET, MODELS, ROOT, S3, commit_template, copy_checkout, s3_running
from infrastructure import FOLDER, stack

from gitops.manifests import cloudformation

from contract import temporary
from contract.digest import MANIFEST
from contract.manifest import parse as parse_manifest

from .aws import API, METADATA, Aws, running
from .machine import Machine

MODEL_PYTHON = ROOT / "model-src/.venv/bin/python"
MODEL = MODELS["classification"]
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("vm")


@dataclass(frozen=True)
class Made:
    """What a release of a Stack names, and where it is stored."""

    parameters: Mapping[str, str]
    version: str
    data: Path
    """Of the S3 server."""


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """In memory, where an overlay can be written, and gone with these namespaces."""
    with temporary.folder("model-gitops-vm-") as made:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", made], check=True)
        yield made
        subprocess.run(["umount", "--lazy", made], check=True)


@pytest.fixture(scope="session")
def made(folder: Path, environment: dict[str, str]) -> Made:
    """A version that was trained and the archive of the service, both by the commands for it."""
    (folder / "made").mkdir()
    copy_checkout(folder / "made/work")
    commit_template(folder / "made", environment)
    clone, env = folder / "made/work", environment | {"PATH": f"{MODEL_PYTHON.parent}:{environment['PATH']}"}

    def done(*command: str | Path, where: Path = clone) -> str:
        return subprocess.run(command, cwd=where, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout

    source = clone / "model-src"
    done(MODEL_PYTHON, "-m", "dvc", "repro", f"models/{MODEL}/dvc.yaml", where=source)
    done("git", "add", f"model-src/models/{MODEL}")
    done("git", "commit", "-qm", "Train")
    done(MODEL_PYTHON, "-m", "lifecycle", "version", MODEL, where=source)
    text = (source / "artifacts" / MODEL / MANIFEST).read_bytes()
    manifest = parse_manifest(text, MANIFEST)
    with s3_running(folder / "s3", environment) as s3:
        env |= s3.variables
        upload = ["--model", MODEL, "--artifacts", source / "artifacts" / MODEL, "--bucket", f"s3://{BUCKET}"]
        uri = done(sys.executable, "scripts/upload_model.py", *upload).strip()
        # What is packed here runs here, which may have a newer glibc than an instance has.
        glibc = platform.libc_ver()[1]
        packed = done(
            sys.executable, "scripts/pack_service.py", "--bucket", f"s3://{BUCKET}", "--glibc", glibc, "--json"
        )
    parameters = {
        "ModelUri": f"{uri}onnx/", "ModelDigest": manifest.digest, "ModelManifest": manifest.sha256,
        "Service": json.loads(packed)["uri"],
    }  # fmt: skip
    shutil.rmtree(folder / "made")
    return Made(parameters, manifest.version, folder / "s3")


@pytest.fixture(scope="session")
def network(made: Made) -> None:
    """A network with nothing in it but this machine: what is fetched from now on comes from S3 here, or not at all."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(_NEW_NETWORK) == 0, os.strerror(ctypes.get_errno())
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{METADATA[0]}/32", "dev", "lo"], check=True)


@pytest.fixture
def s3(made: Made, network: None, environment: dict[str, str]) -> Iterator[S3]:
    with s3_running(made.data, environment) as server:
        yield server


@pytest.fixture
def aws(s3: S3) -> Iterator[Aws]:
    with running(Aws(s3.variables["AWS_ACCESS_KEY_ID"], s3.variables["AWS_SECRET_ACCESS_KEY"])) as stand_in:
        yield stand_in


def user_data(parameters: Mapping[str, str]) -> str:
    """The script that a launch template has with these parameters."""
    made = cloudformation.resources(cloudformation.read(FOLDER, "vm"), stack("vm", **parameters))
    return str(made["Launch"]["Properties"]["LaunchTemplateData"]["UserData"])


@pytest.fixture
def launch(folder: Path, s3: S3, aws: Aws) -> Iterator[Callable[..., Machine]]:
    """Starts a machine with the parameters of a stack."""
    with ExitStack() as stopping:

        def start(parameters: Mapping[str, str]) -> Machine:
            environment = {
                "AWS_ENDPOINT_URL": f"http://{API[0]}:{API[1]}",
                "AWS_ENDPOINT_URL_S3": s3.variables["AWS_ENDPOINT_URL_S3"],
            }
            programs = {"aws": ROOT / ".venv-aws/bin/aws"}
            machine = Machine(folder / "machine", user_data(parameters), environment, programs)
            stopping.callback(machine.end)
            machine.boot()
            return machine

        yield start


FIGURES: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in FIGURES:
        terminalreporter.write_line(line)

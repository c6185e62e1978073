"""The user data of an instance, run as it stands by a systemd of its own, on a root where it never ran."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import S3, wait_until

from .aws import INSTANCE, Aws
from .conftest import FIGURES, Made
from .machine import Machine

Launch = Callable[..., Machine]
URL = "http://127.0.0.1:5001"
SAMPLE = {"features": [5.3, 3.5, 1.4, 0.2]}
STACK = "vm"
SUCCESS, FAILURE = (STACK, "Group", INSTANCE, "SUCCESS"), (STACK, "Group", INSTANCE, "FAILURE")
WORKERS = [f"model-service@{number}.service" for number in (1, 2, 3, 4)]
LONGEST = 240
"""Seconds to wait for a boot, on a machine with other work."""


def predicted() -> dict[str, Any] | None:
    """What the service answers; None while it does not."""
    asked = urllib.request.Request(f"{URL}/predict", json.dumps(SAMPLE).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except OSError:
        return None


def wait(machine: Machine, condition: Callable[[], bool], what: str) -> None:
    try:
        wait_until(condition, what, LONGEST)
    except AssertionError:
        print(machine.journal())
        raise


def shown(machine: Machine, unit: str, name: str) -> str:
    return machine.run("systemctl", "show", "--value", f"--property={name}", unit).strip()


def started(launch: Launch, made: Made, aws: Aws) -> Machine:
    machine = launch(made.parameters)
    wait(machine, lambda: bool(aws.signals), "the instance signals")
    assert aws.signals == [SUCCESS], machine.journal()
    return machine


def test_an_instance_serves_what_the_stack_names(launch: Launch, made: Made, aws: Aws) -> None:
    began = time.monotonic()
    machine = launch(made.parameters)

    wait(machine, lambda: predicted() is not None, "the service answers")
    first = time.monotonic() - began
    wait(machine, lambda: bool(aws.signals), "the instance signals")

    answer = predicted()
    assert answer is not None
    assert (answer["prediction"], answer["model_version"]) == ("setosa", made.version)
    assert aws.signals == [SUCCESS]
    kilobytes = 0
    for unit in WORKERS:
        assert shown(machine, unit, "ActiveState") == "active"
        kilobytes += confined(machine, int(shown(machine, unit, "MainPID")))
    FIGURES.append(
        f"From the start of systemd to the first answer: {first:.1f} s; to the signal:"
        f" {time.monotonic() - began:.1f} s; {kilobytes / 4 / 1024:.0f} MiB a worker"
    )
    wait(machine, lambda: any(f"serving lily {made.version}" in line for line in aws.lines), "the log arrives")
    assert aws.streams == {("/ml/vm/vm", INSTANCE)}
    assert any(line.startswith("model-boot: serving ") for line in aws.lines)
    # All of them by the role's credentials, which only the metadata service gives.
    assert aws.roles == {"cloudformation", "elasticloadbalancing", "logs"}


def confined(machine: Machine, worker: int) -> int:
    """Checks that a worker has no right, and no code but that of the archive and of the system. Its memory, in KiB."""
    status = dict(
        line.split(":\t", 1) for line in machine.run("cat", f"/proc/{worker}/status").splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == 0
    assert status["Uid"].split()[0] != "0"
    maps = machine.run("cat", f"/proc/{worker}/maps").splitlines()
    files = {line.split(maxsplit=5)[5] for line in maps if len(line.split(maxsplit=5)) == 6 and "r-x" in line}
    foreign = {name for name in files if not name.startswith(("/opt/model-service/", "/usr/lib/", "["))}
    assert foreign == set()
    return int(status["VmRSS"].split()[0])


def test_a_worker_that_is_killed_is_started_again(launch: Launch, made: Made, aws: Aws) -> None:
    machine = started(launch, made, aws)

    machine.run("systemctl", "kill", "--signal=KILL", WORKERS[0])
    began = time.monotonic()
    answers = []

    def again() -> bool:
        answers.append(predicted())
        return shown(machine, WORKERS[0], "NRestarts") == "1" and shown(machine, WORKERS[0], "ActiveState") == "active"

    wait(machine, again, "the worker is back")

    FIGURES.append(f"A killed worker is back after {time.monotonic() - began:.1f} s")
    # The others answered, and the one that had not its model yet was not asked.
    assert all(answer and answer["model_version"] == made.version for answer in answers)


def test_after_a_reboot_it_serves_the_same_and_no_damaged_archive(launch: Launch, made: Made, aws: Aws) -> None:
    machine = started(launch, made, aws)

    began = time.monotonic()
    machine.reboot()
    wait(machine, lambda: predicted() is not None, "the service answers again")

    FIGURES.append(f"A reboot takes {time.monotonic() - began:.1f} s to the first answer")
    answer = predicted()
    assert answer and answer["model_version"] == made.version
    assert aws.signals == [SUCCESS]  # the user data did not run again

    [archive] = (machine.root / "var/lib/model-archive").iterdir()
    with archive.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damaged")
    machine.reboot()
    wait(machine, lambda: failed(machine, "model-archive.service"), "the archive is refused")
    assert {shown(machine, unit, "ActiveState") for unit in WORKERS} == {"inactive"}
    assert predicted() is None


def failed(machine: Machine, unit: str) -> bool:
    try:
        return shown(machine, unit, "ActiveState") == "failed"
    except (OSError, ValueError, IndexError):
        return False
    except Exception:  # while systemd begins, nobody can be asked
        return False


def other(text: str) -> str:
    return text[:-1] + ("0" if text[-1] != "0" else "1")


@pytest.mark.parametrize("name", ["ModelDigest", "ModelManifest"])
def test_a_model_with_another_digest_is_never_served(name: str, launch: Launch, made: Made, aws: Aws) -> None:
    machine = launch({**made.parameters, name: other(made.parameters[name])})

    wait(machine, lambda: bool(aws.signals), "the instance signals")

    assert aws.signals == [FAILURE], machine.journal()
    assert predicted() is None
    assert "manifest.json" in machine.run("journalctl", "--no-pager", "--unit=model-service@1.service")


def test_an_archive_with_other_bytes_is_never_unpacked(launch: Launch, made: Made, aws: Aws, s3: S3) -> None:
    key = made.parameters["Service"].partition("/services/")[2]
    wrong = f"{'0' * 64}.tar.gz"
    os.link(s3.files / "services" / key, s3.files / "services" / wrong)
    machine = launch({**made.parameters, "Service": made.parameters["Service"].replace(key, wrong)})

    wait(machine, lambda: bool(aws.signals), "the instance signals")

    assert aws.signals == [FAILURE], machine.journal()
    assert not (machine.root / "opt/model-service").exists()
    assert predicted() is None


def test_an_instance_without_its_archive_says_so_and_fails(launch: Launch, made: Made, aws: Aws) -> None:
    service = made.parameters["Service"].replace(".tar.gz", "")[:-64] + "1" * 64 + ".tar.gz"
    machine = launch({**made.parameters, "Service": service})

    wait(machine, lambda: bool(aws.signals), "the instance signals")

    assert aws.signals == [FAILURE], machine.journal()
    assert Path(service).name in machine.run("journalctl", "--no-pager", "--identifier=model-boot")

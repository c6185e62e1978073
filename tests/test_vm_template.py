"""infra/vm.yaml beyond what tests/test_infra.py asks of all templates: the user data, and how instances are replaced.

What the user data does is tried by `make test-vm`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from infrastructure import FOLDER, stack

from gitops.manifests import cloudformation
from gitops.manifests.objects import at

from contract.errors import Refused

LIMIT = 16384
"""Bytes of user data that EC2 takes, before they are encoded."""
LONGEST_PARAMETERS = {
    "ModelUri": f"s3://{'b' * 63}/models/{'m' * 63}/2026-01-01-0123456789ab/onnx/",
    "Service": f"s3://{'b' * 63}/services/{'c' * 64}.tar.gz",
}


def resources(**parameters: str) -> Mapping[str, Any]:
    return cloudformation.resources(cloudformation.read(FOLDER, "vm"), stack("vm", **parameters))


def user_data(**parameters: str) -> str:
    return str(at(resources(**parameters)["Launch"], "Properties", "LaunchTemplateData", "UserData"))


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "user-data"
    file.write_text(user_data())
    return file


def test_ec2_takes_the_user_data_however_long_the_names_are() -> None:
    assert len(user_data(**LONGEST_PARAMETERS).encode()) <= LIMIT


def test_shellcheck_finds_nothing_in_the_user_data(script: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")

    done = subprocess.run([shellcheck, "--norc", script], stdout=subprocess.PIPE, text=True)

    assert done.returncode == 0, done.stdout


def test_shellcheck_finds_what_is_wrong(script: Path) -> None:
    """It looks at the script, and not at an empty file."""
    script.write_text(script.read_text().replace('"$service" "$archive"', "$service $archive"))

    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), script], stdout=subprocess.PIPE, text=True)

    assert "SC2086" in done.stdout


def test_cloudformation_replaces_values_at_the_head_and_nothing_in_the_script() -> None:
    [joined] = at(cloudformation.read(FOLDER, "vm"), "Resources", "Launch", "Properties", "LaunchTemplateData",
                  "UserData").values()  # fmt: skip
    head, script = joined["Fn::Join"][1]

    assert set(re.findall(r"\$\{(\w+)\}", head["Fn::Sub"])) >= {"Service", "ModelUri", "ModelDigest", "ModelManifest"}
    assert isinstance(script, str)
    # Values come in quotes, and what they may be has none.
    assert all(re.fullmatch(r"#!/bin/bash|\w+='\$\{[\w:]+\}'", line) for line in head["Fn::Sub"].splitlines())


@pytest.mark.parametrize("value", ["s3://b/services/x'; id;'.tar.gz", f"s3://acme/models/{'c' * 64}.tar.gz"])
def test_a_value_that_would_end_the_quotes_is_no_parameter(value: str) -> None:
    with pytest.raises(Refused, match="parameter Service"):
        user_data(Service=value)


def test_the_service_and_its_workers_are_those_that_the_log_names(script: Path) -> None:
    text = script.read_text()

    [units] = re.findall(r"^LOG_UNITS=(.+)$", text, re.MULTILINE)
    workers = [f"model-service@{number}.service" for number in range(1, 5)]
    assert units.split() == ["model-archive.service", *workers]
    assert text.count("model-service@{1..4}") == 2
    assert re.findall(r"^PORT=(\d+)$", text, re.MULTILINE) == [str(resources()["Targets"]["Properties"]["Port"])]


def test_no_package_index_is_asked(script: Path) -> None:
    assert not re.findall(r"\b(pip|dnf|yum|rpm|apt|git|docker|npm|uv)\b", script.read_text())


def test_an_instance_waits_for_the_load_balancer_less_long_than_the_stack_waits_for_it(script: Path) -> None:
    group = resources()["Group"]
    pause = re.fullmatch(r"PT(\d+)M", at(group, "UpdatePolicy", "AutoScalingRollingUpdate", "PauseTime"))
    [seconds] = re.findall(r"SECONDS > (\d+)", script.read_text())

    assert pause
    assert int(seconds) < int(pause[1]) * 60
    assert at(group, "CreationPolicy", "ResourceSignal", "Timeout") == pause[0]
    assert "--logical-resource-id Group" in script.read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ModelUri", "s3://acme-models/models/wine/2026-02-01-abcdef012345/onnx/"),
        ("ModelDigest", f"sha256:{64 * 'd'}"),
        ("ModelManifest", f"sha256:{64 * 'e'}"),
        ("Service", f"s3://acme-models/services/{64 * 'f'}.tar.gz"),
    ],
)
def test_whatever_a_release_changes_the_launch_template_has_another_version(name: str, value: str) -> None:
    """And the group replaces its instances: they start from the version."""
    assert user_data(**{name: value}) != user_data()

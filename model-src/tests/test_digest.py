from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from contract.digest import hash_folder, version_digest
from contract.errors import Refused

# Of all who compute it: the container that fetches models for KServe, which stands alone, is tested with the same.
CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("digests.json").read_text())


def coreutils(folder: Path) -> str:
    """The digest as the documentation tells people to compute it."""
    command = (
        "find . -type f ! -path ./manifest.json ! -name '*.sig' ! -name '*.sigstore.json' -printf '%P\\n'"
        " | xargs -r sha256sum -- | LC_ALL=C sort | sha256sum"
    )
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    return "sha256:" + done.stdout.split()[0]


def of(folder: Path) -> str:
    return version_digest((file.path, file.sha256) for file in hash_folder(folder))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_digest_is_the_documented_one_and_what_coreutils_give(tmp_path: Path, case: dict[str, Any]) -> None:
    for path, text in case["files"].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(text.encode())

    assert of(tmp_path) == coreutils(tmp_path) == case["digest"]


def test_the_files_that_count_are_sorted_by_path(tmp_path: Path) -> None:
    for path in ("a/b", "a.b", "Z", "_", "manifest.json", "a/b.sig"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())

    assert [file.path for file in hash_folder(tmp_path)] == ["Z", "_", "a.b", "a/b"]


def test_coreutils_give_the_digest_of_a_trained_version(artifacts: Path) -> None:
    assert of(artifacts) == coreutils(artifacts)


@pytest.mark.parametrize("name", ["a b", "a\nb", "a\\b", "ä"])
def test_a_name_that_tools_write_differently_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()

    with pytest.raises(Refused, match="rename it"):
        hash_folder(tmp_path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")

    with pytest.raises(Refused, match="not a regular file"):
        hash_folder(tmp_path)

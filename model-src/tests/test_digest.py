from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from contract.digest import hash_folder, version_digest
from contract.errors import Refused


def coreutils(folder: Path) -> str:
    """The digest as the documentation tells people to compute it."""
    command = (
        "find . -type f ! -path ./manifest.json ! -name '*.sig' ! -name '*.sigstore.json' -printf '%P\\n'"
        " | xargs sha256sum | LC_ALL=C sort | sha256sum"
    )
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    return "sha256:" + done.stdout.split()[0]


def of(folder: Path) -> str:
    return version_digest((file.path, file.sha256) for file in hash_folder(folder))


def test_coreutils_give_the_same_digest(tmp_path: Path) -> None:
    """Names that sort differently by path, by locale and by hash, and files that do not count."""
    for path in ("a/b", "a.b", "a/c/d", "Z", "_", "manifest.json", "a/b.sig", "model.sigstore.json", "x/manifest.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())

    assert of(tmp_path) == coreutils(tmp_path)
    assert [file.path for file in hash_folder(tmp_path)] == ["Z", "_", "a.b", "a/b", "a/c/d", "x/manifest.json"]


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

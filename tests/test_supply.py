"""Every file that pins a version is one that Renovate updates, on the branch that takes it."""

from __future__ import annotations

import fnmatch
import re
import subprocess
from typing import Any

import pytest
import yaml
from conftest import ROOT

# JSON5 without comments at the start of a line is YAML in flow style.
CONFIG: dict[str, Any] = yaml.safe_load(
    re.sub(r"^\s*//.*$", "", (ROOT / ".github/renovate.json5").read_text(), flags=re.MULTILINE)
)
# Source: managerFilePatterns in lib/modules/manager/*/index.ts of Renovate 44.
DEFAULTS = {
    "dockerfile": r"(^|/|\.)[Dd]ockerfile$",
    "github-actions": r"^\.github/workflows/[^/]+\.ya?ml$",
    "gomod": r"(^|/)go\.mod$",
    "pep621": r"(^|/)pyproject\.toml$",
}
# What names a version of something from elsewhere, by the kind of file.
PINS = {
    r"(^|/)[^/]*[Dd]ockerfile[^/]*$": r"(?mi)^FROM ",
    r"^\.github/.+\.ya?ml$": r"(?m)uses: ",
    r"(^|/)go\.mod$": r"(?m)^module ",
    r"\.in$": r"==|(?m:^\w)",
    r"(^|/)pyproject\.toml$": r"(?m)^(dependencies|\[dependency-groups\])",
    r"^(argocd|base|apps|overlays)/.+\.ya?ml$": r"targetRevision: v?\d|(image:\s*|\s)[\w./-]+/[\w-]+:v?\d[\w.]*\s",
}


def patterns() -> list[str]:
    enabled = CONFIG["enabledManagers"]
    found = [pattern for manager, pattern in DEFAULTS.items() if manager in enabled]
    own = [CONFIG[manager] for manager in enabled if manager in CONFIG] + CONFIG["customManagers"]
    return found + [pattern.strip("/") for one in own for pattern in one["managerFilePatterns"]]


def covered(path: str) -> bool:
    ignored = any(fnmatch.fnmatch(path, pattern) for pattern in CONFIG["ignorePaths"])
    return not ignored and any(re.search(pattern, path) for pattern in patterns())


def pins(path: str, text: str) -> bool:
    return any(re.search(kind, path) and re.search(pin, text) for kind, pin in PINS.items())


def texts() -> dict[str, str]:
    """The engine's files, and those of the sample in the place of what a fork owns."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sample, owned = "tests/sample/", ("base/", "apps/", "overlays/", "argocd/", "model-src/models/", "tests/")
    files = {path: ROOT / path for path in listed.split("\0") if path and not path.startswith(owned)}
    files |= {
        path.removeprefix(sample): ROOT / path for path in listed.split("\0")
        if path.startswith(tuple(sample + folder for folder in owned))
    }  # fmt: skip
    kinds = "|".join(PINS)
    return {path: file.read_text() for path, file in files.items() if re.search(kinds, path) and file.is_file()}


def test_every_file_that_pins_a_version_is_updated() -> None:
    pinned = {path for path, text in texts().items() if pins(path, text)}

    assert {"model-src/Dockerfile", "tools/kustomize/go.mod", "tools/requirements.in"} <= pinned
    assert {path for path in pinned if not covered(path)} == set()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("docker/Dockerfile.gpu", "FROM python:3.12\n"),
        ("argocd/others/redis.yaml", "    targetRevision: 1.2.3\n"),
        ("base/api/sidecar.yaml", "        image: quay.io/some/proxy:v1.2\n"),
        (".github/actions/one/action.yml", "    - uses: actions/checkout@v6\n"),
        ("tools/new/packages.in", "some==1.0\n"),
    ],
)
def test_a_pinned_file_that_no_manager_takes_is_found(path: str, text: str) -> None:
    assert pins(path, text) and not covered(path)


def test_updates_go_to_the_branch_that_takes_the_files() -> None:
    off = [(rule["matchBaseBranches"], rule["matchFileNames"]) for rule in CONFIG["packageRules"] if "enabled" in rule]

    assert CONFIG["baseBranchPatterns"] == ["main", "cicd"]
    assert off == [(["main"], ["!model-src/**"]), (["cicd"], ["model-src/**"])]


def test_nothing_new_is_taken_at_once_and_nothing_unseen() -> None:
    [pinned] = [rule["matchManagers"] for rule in CONFIG["packageRules"] if rule.get("pinDigests")]

    assert (CONFIG["minimumReleaseAge"], CONFIG["automerge"]) == ("7 days", False)
    assert set(pinned) == {"dockerfile", "kubernetes", "github-actions"}


def test_the_threat_model_lists_the_images_that_no_digest_pins() -> None:
    files = [text for path, text in texts().items() if path.endswith(("Dockerfile", "platform/storage/container.yaml"))]
    images = [image for text in files for image in re.findall(r"(?m)^(?:FROM|\s+image:) (\S+)", text)]
    images = [image for image in images if "@sha256:" not in image]
    listed = (ROOT / "docs/threat-model.md").read_text().partition("## Not covered")[2]

    assert bool(images) == ("until Renovate's first pull requests pin the images" in listed)
    for image in images:
        assert (image.startswith("python:") and "base images" in listed) or image.partition(":")[0] in listed, image

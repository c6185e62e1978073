from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract import manifest
from contract.errors import Refused


def test_what_is_written_is_read_back(artifacts: Path, tmp_path: Path) -> None:
    text = (artifacts / "manifest.json").read_bytes()

    manifest.write(tmp_path, manifest.parse(text, "manifest.json"))

    assert (tmp_path / "manifest.json").read_bytes() == text
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def put(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        inner: Any = data
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("schema", to=2), "m.json: schema: Input should be 1, not 2"),
        (put("surprise", to=1), "m.json: surprise: Extra inputs are not permitted, not 1"),
        (lambda data: data.pop("draft"), "m.json: draft: Field required"),
        (put("draft", to="false"), "m.json: draft: Input should be a valid boolean, not 'false'"),
        (put("code_commit", to="abc"), "m.json: code_commit: String should match pattern"),
        (put("code_commit", to="a" * 40 + "\n"), "m.json: code_commit: String should match pattern"),
        (put("metrics", "accuracy", to=None), "m.json: metrics.accuracy: Input should be a valid number, not None"),
        (put("files", 0, "size", to=-1), "m.json: files[0].size: Input should be greater than or equal to 0, not -1"),
        (put("files", 0, "path", to="../x"), "m.json: files[0].path: String should match pattern"),
        (put("files", 0, "path", to="/x"), "m.json: files[0].path: String should match pattern"),
        (put("files", 0, "sha256", to="0" * 64), "but the listed files give sha256:"),
        (put("version", to="2026-02-01-000000000000"), "does not end in the first 12 digits"),
        (lambda data: data["files"].reverse(), "m.json: files: not sorted by path"),
        (lambda data: data["files"].insert(0, {"path": "a.sig", "sha256": "0" * 64, "size": 1}),
         "m.json: files: a.sig is never part of the digest"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_is_refused(artifacts: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    data = json.loads((artifacts / "manifest.json").read_bytes())
    change(data)

    with pytest.raises(Refused) as refused:
        manifest.parse(json.dumps(data).encode(), "m.json")

    assert message in str(refused.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff"])
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(Refused, match=r"m.json: "):
        manifest.parse(text, "m.json")

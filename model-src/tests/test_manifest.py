from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract import manifest
from contract.errors import Refused
from contract.manifest import Manifest


def test_what_is_written_is_read_back(artifacts: Path) -> None:
    text = (artifacts / "manifest.json").read_bytes()

    assert manifest.dump(manifest.parse(text, "manifest.json")) == text
    assert Manifest.model_validate(json.loads(text)).text == text


def test_the_bytes_that_were_parsed_are_kept(artifacts: Path) -> None:
    """A signature is one of these, in whatever way they are written."""
    text = json.dumps(json.loads((artifacts / "manifest.json").read_bytes()), indent=None).encode()

    assert manifest.parse(text, "manifest.json").text == text


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
        (put("schema", to=3), "m.json: schema: Input should be less than or equal to 2, not 3"),
        (put("schema", to=True), "m.json: schema: Input should be a valid integer, not True"),
        (put("schema", to=1), "m.json: signature.inputs[0].type: Field required"),
        (put("signature", "inputs", 0, "datatype", to="FP64"), "m.json: signature.inputs[0].datatype: Input should be"),
        (put("signature", "inputs", 0, "shape", to=[-1, 2]), "shape: [-1, 2] of sepal_length, not [-1, 1], the only"),
        (put("signature", "inputs", 0, "nullable", to=True), "m.json: signature: gives signature.json the sha256 "),
        (lambda data: data["signature"]["outputs"][0]["labels"].reverse(), "m.json: signature: gives signature.json "),
        (lambda data: next(file for file in data["files"] if file["path"] == "signature.json").update(size=1),
         "m.json: signature: gives signature.json the sha256 "),
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
        (put("files", 0, "size", to=8.0), "m.json: files[0].size: Input should be a valid integer, not 8.0"),
        (put("metrics", "accuracy", to=int("9" * 400)), "m.json: metrics.accuracy: Input should be a "),
        (put("signature", "outputs", 0, "name", to="label"), "m.json: signature.outputs[0]: Input tag 'label' found"),
        (put("signature", "outputs", to=[]), "m.json: signature.outputs: List should have at least 1 item"),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"{", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"\xff", "not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"\xef\xbb\xbf{}", "not JSON: Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)"),
        ("{}".encode("utf-16-le"), "not JSON: Expecting property name enclosed in double quotes: line 1 column 2"),
        (b"[" * 99999, "not JSON: nested too deeply"),
        (b'{"schema": 1, "schema": 1}', "not JSON: schema stands twice"),
        (b"[]", "Input should be an object, not []"),
    ],
)
def test_what_is_no_json_object_is_refused_in_one_line(text: bytes, message: str) -> None:
    with pytest.raises(Refused) as refused:
        manifest.parse(text, "m.json")

    (line,) = refused.value.lines
    assert line.startswith(f"m.json: {message}")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_number_that_is_none_is_refused_wherever_it_stands(artifacts: Path, number: str) -> None:
    data = json.loads((artifacts / "manifest.json").read_bytes())
    data["parameters"] = {"deep": [{"here": "NUMBER"}]}
    text = json.dumps(data).replace('"NUMBER"', number)

    with pytest.raises(Refused) as refused:
        manifest.parse(text.encode(), "m.json")

    assert refused.value.lines == (f"m.json: not JSON: {number} is not a finite number",)

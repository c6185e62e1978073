"""Model versions: their URIs, their digest and their manifests, which the model code writes and the commands read."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DATE, ROOT, package

from gitops.cli import Refused
from gitops.models import store, versions
from gitops.models.versions import File, VersionURI

URI = f"s3://mlops-prod/models/lily/{DATE}-3f2a9c1b7d10/"


def refusal(call: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.lines


# URIs


@pytest.mark.parametrize("text", [URI, URI.rstrip("/")])
def test_the_uri_of_a_version_is_read_with_or_without_its_last_slash(text: str) -> None:
    uri = versions.parse_uri(text)

    assert uri == VersionURI("mlops-prod", "lily", f"{DATE}-3f2a9c1b7d10")
    assert str(uri) == URI
    assert uri.flavour("onnx") == f"{URI}onnx/"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lily",
        URI.replace("s3://", "https://"),
        URI.replace("s3://", "S3://"),
        URI.replace("mlops-prod", "Mlops"),
        URI.replace("mlops-prod", "a"),
        URI.replace("lily", "Lily"),
        URI.replace("lily", "../lily"),
        URI.replace(DATE, "2026-2-1"),
        URI.replace("3f2a9c1b7d10", "3f2a9c1b7d1"),
        URI.replace("3f2a9c1b7d10", "3F2A9C1B7D10"),
        URI.replace("models/", "model/"),
        f"{URI}onnx/",
        f"{URI}/",
        f"{URI}\n",
        f" {URI}",
        f"s3://mlops-prod/models/lily/{DATE}-latest/",
    ],
)
def test_a_malformed_uri_is_refused(text: str) -> None:
    assert refusal(lambda: versions.parse_uri(text)) == (
        f"{text!r}: not the URI of a model version; it has the form"
        " s3://BUCKET/models/MODEL/YYYY-MM-DD-DIGEST12/, as upload_model.py and list_versions.py print it",
    )


# The digest


def test_the_digest_is_what_coreutils_compute(tmp_path: Path) -> None:
    # One file sorts differently by path than by hash, and differently in other locales.
    for number, path in enumerate(["onnx/model.onnx", "sklearn/model.joblib", "A.txt", "a-b/_c.0", "Z/z", "b"]):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(bytes([number]) * 3)
    for path in ("manifest.json", "onnx/model.onnx.sig", "manifest.json.sigstore.json"):
        (tmp_path / path).write_text("does not count")
    files = "$(find . -type f ! -path ./manifest.json ! -name '*.sig' ! -name '*.sigstore.json' | sed 's,^./,,')"

    shell = subprocess.run(
        ["sh", "-c", f"sha256sum {files} | LC_ALL=C sort | sha256sum"], cwd=tmp_path, capture_output=True, text=True
    )
    hashed = store.hash_files(tmp_path)

    assert versions.digest((file.path, file.sha256) for file in hashed) == f"sha256:{shell.stdout.split()[0]}"
    assert [file.path for file in hashed] == sorted(file.path for file in hashed)
    assert File("Z/z", hashlib.sha256(b"\x04\x04\x04").hexdigest(), 3) in hashed


# Manifests. The model code has a parser of its own, in an environment of its own: both must accept the same.


def listing(data: dict[str, Any], *paths: str) -> dict[str, Any]:
    """The manifest with other files, and with the digest and version that follow from them."""
    listed = [{"path": path, "sha256": hashlib.sha256(path.encode()).hexdigest(), "size": 1} for path in paths]
    digest = versions.digest((str(file["path"]), str(file["sha256"])) for file in listed)
    return data | {"files": listed, "digest": digest, "version": f"{DATE}-{digest[7:19]}"}


def put(data: dict[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    copied = json.loads(json.dumps(data))
    inner = copied
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = to
    return dict(copied)


def without(data: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


def good(data: dict[str, Any]) -> dict[str, str]:
    text = json.dumps(data)
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in {
        "as training writes it": data,
        "indented, with a newline at the end": json.dumps(data, indent=2) + "\n",
        "other spelling of numbers": text.replace("0.9556", "9.556e-1"),
        "an integer as a metric": put(data, "metrics", "trees", to=100),
        "no metrics, parameters or frameworks": data | {"metrics": {}, "parameters": {}, "frameworks": {}},
        "parameters of any shape": put(data, "parameters", "deep", to=[{"a": None}, True, "ü", 1.5]),
        "a draft": data | {"draft": True},
        "a dot file": listing(data, ".a", "b..c", "d/.e"),
        "an empty file": put(data, "files", 0, "size", to=0),
        "odd but plain names": listing(data, "-a", "A", "_", "a", "a-b/c", "a/b", "a_b"),
        "three labels": put(data, "signature", "outputs", "labels", to=["a", "b", "b"]),
    }.items()}  # fmt: skip


def bad(data: dict[str, Any]) -> dict[str, str]:
    text = json.dumps(data)
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in {
        "empty": "",
        "not JSON": "{",
        "two objects": text + text,
        "a list": [data],
        "nothing in it": {},
        "a byte order mark": "\ufeff" + text,
        "NaN": text.replace("0.9556", "NaN"),
        "a number beyond all floats": text.replace("0.9556", "1e999"),
        "an integer beyond all floats": text.replace("0.9556", "9" * 400),
        "deeper than any parser goes": text.replace("100", "[" * 9999 + "]" * 9999),
        "another schema": data | {"schema": 2},
        "the schema as a string": data | {"schema": "1"},
        "an unknown field": data | {"surprise": 1},
        **{f"without {name}": without(data, name) for name in data},
        **{f"{name} is null": data | {name: None} for name in data},
        "a model in capitals": data | {"model": "Lily"},
        "a model that leads elsewhere": data | {"model": "../lily"},
        "a model with a newline": data | {"model": "lily\n"},
        "a version without a date": data | {"version": data["version"][11:]},
        "a version with a newline": data | {"version": data["version"] + "\n"},
        "another digest's version": data | {"version": f"{DATE}-{'0' * 12}"},
        "a digest of no kind": data | {"digest": data["digest"][7:]},
        "another digest": data | {"digest": f"sha256:{'0' * 64}"},
        "no files": data | {"files": []},
        "files as a mapping": data | {"files": {}},
        "a file without a size": put(data, "files", 0, to=without(data["files"][0], "size")),
        "a file with more": put(data, "files", 0, "mode", to="0644"),
        "a negative size": put(data, "files", 0, "size", to=-1),
        "a size with a decimal": put(data, "files", 0, "size", to=8.0),
        "a size as a string": put(data, "files", 0, "size", to="8"),
        "a SHA-256 in capitals": put(data, "files", 0, "sha256", to="A" * 64),
        "another SHA-256": put(data, "files", 0, "sha256", to="a" * 64),
        "a file twice": data | {"files": [*data["files"], data["files"][1]]},
        "files not sorted": data | {"files": data["files"][::-1]},
        "the manifest as a file": listing(data, "a", "manifest.json"),
        "a signature as a file": listing(data, "a", "a.sig"),
        **{f"a path {path!r}": listing(data, path) for path in BAD_PATHS},
        "a metric as a string": put(data, "metrics", "accuracy", to="0.9"),
        "a metric as a boolean": put(data, "metrics", "accuracy", to=True),
        "parameters as a list": data | {"parameters": []},
        "no inputs": put(data, "signature", "inputs", to=[]),
        "an input without a name": put(data, "signature", "inputs", 0, "name", to=""),
        "an input of another type": put(data, "signature", "inputs", 0, "type", to="float64"),
        "an input with more": put(data, "signature", "inputs", 0, "shape", to=[1]),
        "one label": put(data, "signature", "outputs", "labels", to=["setosa"]),
        "labels that are numbers": put(data, "signature", "outputs", "labels", to=[0, 1]),
        "outputs with more": put(data, "signature", "outputs", "type", to="float32"),
        "a signature with more": put(data, "signature", "parameters", to=[]),
        "a code commit that is short": data | {"code_commit": "c0de"},
        "a code commit with a newline": data | {"code_commit": data["code_commit"] + "\n"},
        "a data digest of no kind": data | {"data_digest": "d" * 64},
        "an evaluation set digest that is short": data | {"evaluation_set_digest": "sha256:e"},
        "a run with hyphens": data | {"mlflow_run": "f" * 8 + "-" + "f" * 23},
        "a framework's version as a number": data | {"frameworks": {"python": 3.12}},
        "a draft as a string": data | {"draft": "no"},
    }.items()}  # fmt: skip


BAD_PATHS = ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "./a", "a/.", "a b", "a\n", "a\\b", "é", "a\x00"]
ASK_MODEL_CODE = """
import json, sys
from contract import manifest
from contract.errors import Refused
def accepts(text):
    try:
        manifest.parse(text.encode(), "manifest.json")
    except Refused:
        return False
    return True
print(json.dumps({name: accepts(text) for name, text in json.load(sys.stdin).items()}))
"""


def accepts(text: str) -> bool:
    try:
        versions.parse_manifest(text.encode(), "manifest.json")
    except Refused:
        return False
    return True


def test_the_commands_accept_and_refuse_the_same_manifests_as_the_model_code(tmp_path: Path) -> None:
    data = package(tmp_path).data
    table = good(data) | bad(data)

    done = subprocess.run(
        [ROOT / "model-src/.venv/bin/python", "-c", ASK_MODEL_CODE],
        cwd=ROOT / "model-src",
        input=json.dumps(table),
        capture_output=True,
        text=True,
    )

    assert done.stderr == ""
    assert json.loads(done.stdout) == {name: name in good(data) for name in table}
    assert {name: accepts(text) for name, text in table.items()} == {name: name in good(data) for name in table}


def faults(text: str | bytes) -> tuple[str, ...]:
    text = text if isinstance(text, bytes) else text.encode()
    return refusal(lambda: versions.parse_manifest(text, "manifest.json"))


def test_every_fault_of_a_manifest_is_a_line_that_names_the_file_and_the_field(tmp_path: Path) -> None:
    data = without(put(package(tmp_path).data, "files", 1, "size", to="8"), "draft") | {"model": "Lily", "more": 1}

    assert faults(json.dumps(data)) == (
        "manifest.json: the whole file: Additional properties are not allowed ('more' was unexpected)",
        "manifest.json: the whole file: 'draft' is a required property",
        "manifest.json: files.1.size: '8' is not of type 'integer'",
        "manifest.json: model: 'Lily' does not match '^[a-z0-9][a-z0-9-]*\\\\Z'",
    )


def test_a_manifest_that_does_not_agree_with_itself_is_refused(tmp_path: Path) -> None:
    data = package(tmp_path).data
    none = f"sha256:{'0' * 64}"

    assert faults(json.dumps(data | {"digest": none})) == (
        f"manifest.json: digest: {none}, but the listed files give {data['digest']}; the manifest was altered",
    )
    assert faults(json.dumps(data | {"version": f"{DATE}-{'0' * 12}"})) == (
        f"manifest.json: version: {DATE}-{'0' * 12} does not end in the first 12 digits of {data['digest']}",
    )
    assert faults(json.dumps(data | {"files": data["files"][::-1]})) == (
        "manifest.json: files: not sorted by path, or a path stands twice; package the model again",
    )
    assert faults(json.dumps(listing(data, "a", "a.sig"))) == (
        "manifest.json: files: a.sig is never part of the digest; package the model again",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"NaN", "NaN is not a finite number"),
        (b"-1e999", "-1e999 is not a finite number"),
        (b"[" * 99999, "nested too deeply"),
    ],
)
def test_what_is_not_json_is_refused_in_one_line(text: bytes, message: str) -> None:
    assert faults(text) == (f"manifest.json: not JSON: {message}",)

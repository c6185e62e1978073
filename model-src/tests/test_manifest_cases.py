"""Which manifests are one: a table of both, each differing in one thing from a good one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from contract import manifest
from contract.digest import version_digest
from contract.errors import Refused

DATE = "2026-02-01"


def listing(data: dict[str, Any], *paths: str) -> dict[str, Any]:
    """The manifest with other files, and with the digest and version that follow from them."""
    listed = [{"path": path, "sha256": hashlib.sha256(path.encode()).hexdigest(), "size": 1} for path in paths]
    digest = version_digest((str(file["path"]), str(file["sha256"])) for file in listed)
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
        "a later schema": data | {"schema": 3},
        "the schema as a boolean": data | {"schema": True},
        "the schema with a decimal": data | {"schema": 1.0},
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
        "outputs of both kinds": put(data, "signature", "outputs", "value", to="length"),
        "outputs of a kind and null": put(data, "signature", "outputs", "value", to=None),
        "outputs of no kind": put(data, "signature", "outputs", to={"value": None}),
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


DATA = listing(
    {
        "schema": 1,
        "model": "lily",
        "metrics": {"accuracy": 0.9556, "macro_f1": 0.955},
        "parameters": {"n_estimators": 100},
        "signature": {
            "inputs": [{"name": "sepal_length", "type": "float32"}],
            "outputs": {"labels": ["setosa", "versicolor"]},
        },
        "code_commit": "c0de" * 10,
        "data_digest": f"sha256:{'d' * 64}",
        "evaluation_set_digest": f"sha256:{'e' * 64}",
        "mlflow_run": "f" * 32,
        "frameworks": {"python": "3.12.1", "scikit-learn": "1.5.2"},
        "draft": False,
    },
    "onnx/model.onnx",
    "sklearn/model.joblib",
)


@pytest.mark.parametrize("text", good(DATA).values(), ids=good(DATA))
def test_a_good_manifest_is_read(text: str) -> None:
    manifest.parse(text.encode(), "manifest.json")


NOW = manifest.signature_of([("sepal_length", False)], ["setosa", "versicolor"])


def signed_files(data: dict[str, Any], text: bytes) -> dict[str, Any]:
    """The manifest as schema 2 has it, with these bytes as signature.json."""
    signature = {"path": "signature.json", "sha256": hashlib.sha256(text).hexdigest(), "size": len(text)}
    listed = [*data["files"], signature]
    digest = version_digest((str(file["path"]), str(file["sha256"])) for file in listed)
    changed = {"schema": 2, "files": sorted(listed, key=lambda file: str(file["path"])), "signature": NOW.model_dump()}
    return data | changed | {"digest": digest, "version": f"{DATE}-{digest[7:19]}"}


def test_both_schemas_give_the_same_signature_and_keep_their_bytes() -> None:
    texts = [json.dumps(data).encode() for data in (DATA, signed_files(DATA, manifest.dump_signature(NOW)))]

    former, now = (manifest.parse(text, "manifest.json") for text in texts)

    assert (former.format, now.format) == (1, 2)
    assert former.signature == now.signature == NOW
    assert [former.text, now.text] == texts
    with pytest.raises(AssertionError, match="only read"):
        manifest.dump(former)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATA | {"schema": 2, "signature": NOW.model_dump()}, "files: no signature.json, which versions of schema 2"),
        (signed_files(DATA, manifest.dump_signature(NOW)) | {"schema": 1, "signature": DATA["signature"]},
         "files: signature.json, which versions of schema 1 do not have"),
        (signed_files(DATA, manifest.dump_signature(NOW)[:-1]), "signature: gives signature.json the sha256 "),
        (signed_files(DATA, json.dumps(NOW.model_dump()).encode()), "signature: gives signature.json the sha256 "),
    ],
    ids=["no file", "the older schema over the same files", "another end", "another spelling"],
)  # fmt: skip
def test_a_signature_outside_the_digest_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=f"manifest.json: {message}"):
        manifest.parse(json.dumps(data).encode(), "manifest.json")


@pytest.mark.parametrize("text", bad(DATA).values(), ids=bad(DATA))
def test_a_bad_manifest_is_refused_by_lines_that_name_it(text: str) -> None:
    with pytest.raises(Refused) as refused:
        manifest.parse(text.encode(), "manifest.json")

    assert all(line.startswith("manifest.json: ") for line in refused.value.lines)

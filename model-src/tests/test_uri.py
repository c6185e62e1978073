from __future__ import annotations

from pathlib import Path

import pytest

from contract import uri
from contract.errors import Refused
from contract.uri import VersionURI

TEXT = "s3://mlops-prod/models/lily/2026-02-01-3f2a9c1b7d10/"
VERSION = VersionURI("mlops-prod", "lily", "2026-02-01-3f2a9c1b7d10")


@pytest.mark.parametrize("text", [TEXT, TEXT.rstrip("/")])
def test_the_uri_of_a_version_is_read_with_or_without_its_last_slash(text: str) -> None:
    assert uri.parse_uri(text) == VERSION
    assert (str(VERSION), VERSION.flavour("onnx")) == (TEXT, f"{TEXT}onnx/")


@pytest.mark.parametrize("text", [f"{TEXT}onnx/", f"{TEXT}onnx"])
def test_the_uri_of_a_flavour_is_read_with_or_without_its_last_slash(text: str) -> None:
    assert uri.parse_flavour(text) == (VERSION, "onnx")


@pytest.mark.parametrize(
    "text",
    [
        "", "lily", TEXT.replace("s3://", "https://"), TEXT.replace("mlops-prod", "a"), TEXT.replace("lily", "../lily"),
        TEXT.replace("2026-02-01", "2026-2-1"), TEXT.replace("7d10", "7D10"), TEXT.replace("models/", "model/"),
        f"{TEXT}/", f"{TEXT}\n", f" {TEXT}", f"{TEXT}onnx//", f"{TEXT}../", f"{TEXT}onnx/model.onnx",
    ],
)  # fmt: skip
def test_what_is_no_uri_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="not the URI of a model version; it has the form s3://BUCKET/models/MODEL/"):
        uri.parse_uri(text)
    with pytest.raises(Refused, match="not the URI of a flavour of a model version; it has the form s3://BUCKET/"):
        uri.parse_flavour(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("s3://bucket/a/b", ("bucket", "a/b/")), ("s3://bucket/a/", ("bucket", "a/")), ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")), ("a/b/", Path("a/b")), ("file:///a%20b/c", Path("/a b/c")),
    ],
)  # fmt: skip
def test_a_folder_is_in_a_bucket_or_here(text: str, found: tuple[str, str] | Path) -> None:
    assert uri.parse_folder(text) == found

"""manifest.json: what a model version is made of and where it comes from.

It is written last and read first: a version without one does not exist, and a reader believes none of it before the
files it lists give the digest it names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from packing import Refused
from packing.digest import MANIFEST, PATH, counts, version_digest
from packing.files import write_atomically

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}\Z")]
Kind = Literal["classification", "regression"]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\Z")]


class _Strict(BaseModel):
    # The regex engine is Python's because the pattern of a path looks ahead.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, regex_engine="python-re")


class File(_Strict):
    path: Annotated[str, Field(pattern=PATH)]
    sha256: Hex64
    size: Annotated[int, Field(ge=0)]
    """Bytes."""


class Input(_Strict):
    name: Annotated[str, Field(min_length=1)]
    type: Literal["float32"]
    nullable: bool = False
    """Whether a row may leave it out: null in a request, NaN in the model's input."""


class Outputs(_Strict):
    """A classifier has `labels`, a regression has a `value`."""

    labels: Annotated[list[str], Field(min_length=2)] | None = None
    """In the order of the model's probabilities."""
    value: Annotated[str, Field(min_length=1)] | None = None
    """What the number is that the model gives."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> Outputs:
        if (self.labels is None) == (self.value is None):
            raise ValueError("either labels, of a classifier, or the value of a regression")
        return self


class Signature(_Strict):
    inputs: Annotated[list[Input], Field(min_length=1)]
    """The columns of a row, in order."""
    outputs: Outputs


class Manifest(_Strict):
    format: Literal[1] = Field(alias="schema")
    model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
    version: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{12}\Z")]
    """UTC date of the code commit, then the first 12 hex digits of the digest."""
    digest: Digest
    files: Annotated[list[File], Field(min_length=1)]
    metrics: dict[str, FiniteFloat]
    parameters: dict[str, Any]
    signature: Signature
    code_commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}\Z")]
    data_digest: Digest
    """Of the data file's bytes."""
    evaluation_set_digest: Digest
    """Of the held-out rows as canonical CSV."""
    mlflow_run: Annotated[str, Field(pattern=r"^[0-9a-f]{32}\Z")]
    frameworks: dict[str, str]
    """Version of each library the files were made with, and of `python`."""
    draft: bool
    """Made from uncommitted code: for trying out, never to be uploaded."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Manifest:
        paths = [file.path for file in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("files: not sorted by path, or a path stands twice")
        if foreign := [path for path in paths if not counts(path)]:
            raise ValueError(f"files: {foreign[0]} is never part of the digest")
        computed = version_digest((file.path, file.sha256) for file in self.files)
        if computed != self.digest:
            raise ValueError(f"digest: {self.digest}, but the listed files give {computed}")
        if self.version != version_name(self.version[:10], self.digest):
            raise ValueError(f"version: {self.version} does not end in the first 12 digits of {self.digest}")
        return self

    @property
    def kind(self) -> Kind:
        return "classification" if self.signature.outputs.labels else "regression"

    def file(self, path: str) -> File | None:
        return next((file for file in self.files if file.path == path), None)


def version_name(date: str, digest: str) -> str:
    """`<YYYY-MM-DD>-<first 12 hex digits of the digest>`, from a UTC date in that form and `sha256:...`."""
    return f"{date}-{digest.removeprefix('sha256:')[:12]}"


def parse(text: bytes, source: str) -> Manifest:
    """Raises Refused, one line a fault and each naming `source` and the field, unless the manifest is complete, has
    no unknown field and agrees with itself: its files give its digest, and the digest its version."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise Refused(*faults(source, error)) from None


def faults(source: str, error: ValidationError) -> list[str]:
    """One line a fault: source, field, what is wrong."""
    lines = []
    for fault in error.errors(include_url=False):
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
        said = fault["msg"].removeprefix("Value error, ")
        shown = "" if fault["type"] in ("missing", "value_error", "json_invalid") else f", not {fault['input']!r:.80}"
        lines.append(f"{source}: {f'{field}: ' if field else ''}{said}{shown}")
    return lines


def write(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json into a version's folder, whole or not at all."""
    text = json.dumps(manifest.model_dump(mode="json", by_alias=True, exclude_none=True), indent=2, allow_nan=False)
    write_atomically(folder / MANIFEST, f"{text}\n".encode())

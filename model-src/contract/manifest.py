"""manifest.json: what a model version is made of and where it comes from.

It is written last and read first: a version without one does not exist, and a reader believes none of it before the
files it lists give the digest it names.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, PrivateAttr, model_validator

from contract import strict
from contract.digest import PATH, counts, version_digest
from contract.strict import Strict
from contract.uri import MODEL, VERSION

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}\Z")]
Kind = Literal["classification", "regression"]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\Z")]


class File(Strict):
    path: Annotated[str, Field(pattern=PATH)]
    sha256: Hex64
    size: Annotated[int, Field(ge=0)]
    """Bytes."""


class Input(Strict):
    name: Annotated[str, Field(min_length=1)]
    type: Literal["float32"]
    nullable: bool = False
    """Whether a row may leave it out: null in a request, NaN in the model's input."""


class Outputs(Strict):
    """A classifier has `labels`, a regression has a `value`."""

    labels: Annotated[list[str], Field(min_length=2)] | None = None
    """In the order of the model's probabilities."""
    value: Annotated[str, Field(min_length=1)] | None = None
    """What the number is that the model gives."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> Outputs:
        # A null beside the other one is a second spelling of the same, which other readers need not take for it.
        if len(self.model_fields_set) != 1 or (self.labels is None and self.value is None):
            raise ValueError("either labels, of a classifier, or the value of a regression")
        return self


class Signature(Strict):
    inputs: Annotated[list[Input], Field(min_length=1)]
    """The columns of a row, in order."""
    outputs: Outputs


class Manifest(Strict):
    # A next format is one more number here, and what it adds a field with a default: both can then be read.
    format: Literal[1] = Field(alias="schema")
    model: Annotated[str, Field(pattern=rf"^{MODEL}\Z")]
    version: Annotated[str, Field(pattern=rf"^{VERSION}\Z")]
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
    _text: bytes = PrivateAttr(b"")

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
    def text(self) -> bytes:
        """The bytes that it was parsed from, which signatures are made of; of a new one, those of dump()."""
        return self._text or dump(self)

    @property
    def sha256(self) -> str:
        """`sha256:` and 64 hex digits of its bytes: of all that it has, and not of the files alone as the digest is."""
        return f"sha256:{hashlib.sha256(self.text).hexdigest()}"

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
    parsed = strict.parse(Manifest, text, source)
    parsed._text = text
    return parsed


def dump(manifest: Manifest) -> bytes:
    """What is to be written as manifest.json."""
    data = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return f"{json.dumps(data, indent=2, allow_nan=False)}\n".encode()

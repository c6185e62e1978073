"""manifest.json: what a model version is made of and where it comes from.

It is written last and read first: a version without one does not exist, and a reader believes none of it before the
files it lists give the digest it names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, FiniteFloat, PrivateAttr, model_validator

from contract import strict
from contract.digest import PATH, counts, version_digest
from contract.strict import Strict
from contract.uri import MODEL, VERSION

SIGNATURE = "signature.json"
"""A file of every version of schema 2."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}\Z")]
Kind = Literal["classification", "regression"]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\Z")]


class File(Strict):
    path: Annotated[str, Field(pattern=PATH)]
    sha256: Hex64
    size: Annotated[int, Field(ge=0)]
    """Bytes."""


class Input(Strict):
    """One column of a row, as a tensor in the names of the Open Inference Protocol."""

    name: Annotated[str, Field(min_length=1)]
    datatype: Literal["FP32"]
    shape: Annotated[list[int], Field(min_length=2, max_length=2)]
    """[-1, 1]: any number of rows, one value in each."""
    nullable: bool
    """Whether a row may leave it out: null in a request, NaN in the model's input."""

    @model_validator(mode="after")
    def _is_served(self) -> Input:
        return _shaped(self, 1)


class Probabilities(Strict):
    """What a classifier gives."""

    name: Literal["probabilities"]
    datatype: Literal["FP32"]
    shape: Annotated[list[int], Field(min_length=2, max_length=2)]
    """[-1, number of labels]."""
    labels: Annotated[list[str], Field(min_length=2)]
    """In the order of the model's probabilities."""

    @model_validator(mode="after")
    def _is_served(self) -> Probabilities:
        return _shaped(self, len(self.labels))


class Value(Strict):
    """What a regression gives."""

    name: Literal["value"]
    datatype: Literal["FP32"]
    shape: Annotated[list[int], Field(min_length=2, max_length=2)]
    """[-1, 1]."""
    quantity: Annotated[str, Field(min_length=1)]
    """What the number is."""

    @model_validator(mode="after")
    def _is_served(self) -> Value:
        return _shaped(self, 1)


Tensor = TypeVar("Tensor", Input, Probabilities, Value)


def _shaped(tensor: Tensor, width: int) -> Tensor:
    if tensor.shape != [-1, width]:
        raise ValueError(f"shape: {tensor.shape} of {tensor.name}, not {[-1, width]}, the only one that is served")
    return tensor


class Signature(Strict):
    """What a model takes and gives, by the Open Inference Protocol's names of metadata.

    Source: https://github.com/kserve/open-inference-protocol
    """

    inputs: Annotated[list[Input], Field(min_length=1)]
    """The columns of a row, in order."""
    outputs: Annotated[
        list[Annotated[Probabilities | Value, Field(discriminator="name")]], Field(min_length=1, max_length=1)
    ]

    @property
    def names(self) -> list[str]:
        """The inputs', in order."""
        return [column.name for column in self.inputs]

    @property
    def labels(self) -> list[str]:
        """In the order of the model's probabilities; none for a regression."""
        (given,) = self.outputs
        return given.labels if isinstance(given, Probabilities) else []

    @property
    def quantity(self) -> str | None:
        """What number a regression gives; None for a classifier."""
        (given,) = self.outputs
        return given.quantity if isinstance(given, Value) else None


def signature_of(inputs: Iterable[tuple[str, bool]], labels: Sequence[str] = (), quantity: str = "") -> Signature:
    """The signature of a model that takes a number for each (name, nullable), and gives a probability for each label
    or, without labels, one number, the quantity."""
    columns = [Input(name=name, datatype="FP32", shape=[-1, 1], nullable=nullable) for name, nullable in inputs]
    if labels:
        shape = [-1, len(labels)]
        probabilities = Probabilities(name="probabilities", datatype="FP32", shape=shape, labels=list(labels))
        return Signature(inputs=columns, outputs=[probabilities])
    return Signature(inputs=columns, outputs=[Value(name="value", datatype="FP32", shape=[-1, 1], quantity=quantity)])


def dump_signature(signature: Signature) -> bytes:
    """What is to be written as signature.json: one spelling, so that equal signatures have equal bytes. Keys are
    sorted, there are no blanks, and what is not ASCII is escaped."""
    data = signature.model_dump(mode="json")
    return f"{json.dumps(data, sort_keys=True, separators=(',', ':'))}\n".encode()


class _Facts(Strict):
    """What manifests of every schema have."""

    model: Annotated[str, Field(pattern=rf"^{MODEL}\Z")]
    version: Annotated[str, Field(pattern=rf"^{VERSION}\Z")]
    """UTC date of the code commit, then the first 12 hex digits of the digest."""
    digest: Digest
    files: Annotated[list[File], Field(min_length=1)]
    metrics: dict[str, FiniteFloat]
    parameters: dict[str, Any]
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
    def _agrees_with_itself(self) -> Self:
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

    def file(self, path: str) -> File | None:
        return next((file for file in self.files if file.path == path), None)


class Manifest(_Facts):
    format: Literal[1, 2] = Field(alias="schema")
    """1 is only read; its signature is then in the form of 2."""
    signature: Signature
    """In schema 2, signature.json has it too, by which it is part of the digest."""
    _text: bytes = PrivateAttr(b"")

    @model_validator(mode="after")
    def _has_its_signature_among_its_files(self) -> Manifest:
        listed = self.file(SIGNATURE)
        if self.format == 1:
            # Otherwise whoever writes the older schema into a manifest could give the same files other answers.
            if listed:
                raise ValueError(f"files: {SIGNATURE}, which versions of schema 1 do not have; its schema is 2")
            return self
        if not listed:
            raise ValueError(f"files: no {SIGNATURE}, which versions of schema 2 have; make the version again")
        text = dump_signature(self.signature)
        sha256 = hashlib.sha256(text).hexdigest()
        if (sha256, len(text)) != (listed.sha256, listed.size):
            raise ValueError(
                f"signature: gives {SIGNATURE} the sha256 {sha256} of {len(text)} bytes, but files has"
                f" {listed.sha256} of {listed.size}; one of them was altered"
            )
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
        return "classification" if self.signature.labels else "regression"


class _FormerInput(Strict):
    name: Annotated[str, Field(min_length=1)]
    type: Literal["float32"]
    nullable: bool = False


class _FormerOutputs(Strict):
    labels: Annotated[list[str], Field(min_length=2)] | None = None
    value: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> _FormerOutputs:
        # A null beside the other one is a second spelling of the same, which other readers need not take for it.
        if len(self.model_fields_set) != 1 or (self.labels is None and self.value is None):
            raise ValueError("either labels, of a classifier, or the value of a regression")
        return self


class _FormerSignature(Strict):
    inputs: Annotated[list[_FormerInput], Field(min_length=1)]
    outputs: _FormerOutputs


class _Former(_Facts):
    """A manifest of schema 1, whose digest does not cover its signature."""

    format: Literal[1] = Field(alias="schema")
    signature: _FormerSignature

    @model_validator(mode="after")
    def _has_no_signature_among_its_files(self) -> _Former:
        self.translated()
        return self

    def translated(self) -> Manifest:
        inputs = [(column.name, column.nullable) for column in self.signature.inputs]
        outputs = self.signature.outputs
        given = signature_of(inputs, outputs.labels or (), outputs.value or "")
        return Manifest.model_validate(self.model_dump(by_alias=True) | {"signature": given.model_dump()})


class _Format(Strict):
    model_config = ConfigDict(extra="ignore")

    # Not a Literal, which takes true and 1.0 for 1.
    format: Annotated[int, Field(alias="schema", ge=1, le=2)]


def version_name(date: str, digest: str) -> str:
    """`<YYYY-MM-DD>-<first 12 hex digits of the digest>`, from a UTC date in that form and `sha256:...`."""
    return f"{date}-{digest.removeprefix('sha256:')[:12]}"


def parse(text: bytes, source: str) -> Manifest:
    """The manifest, with the signature in the form of schema 2 whatever its schema.

    Raises Refused, one line a fault and each naming `source` and the field, unless the manifest is complete, has
    no unknown field and agrees with itself: its files give its digest, and the digest its version."""
    if strict.parse(_Format, text, source).format == 1:
        parsed = strict.parse(_Former, text, source).translated()
    else:
        parsed = strict.parse(Manifest, text, source)
    parsed._text = text
    return parsed


def dump(manifest: Manifest) -> bytes:
    """What is to be written as manifest.json, in schema 2; one of schema 1 is what was read, in `text`."""
    assert manifest.format == 2, "schema 1 is only read"
    data = manifest.model_dump(mode="json", by_alias=True)
    return f"{json.dumps(data, indent=2, allow_nan=False)}\n".encode()

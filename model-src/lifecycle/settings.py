"""problem.yaml and params.yaml of a model, checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    PlainValidator,
    Tag,
    ValidationError,
    model_validator,
)

from contract.errors import Refused
from contract.manifest import Kind
from contract.strict import faults

# scikit-learn takes a seed of 32 bits.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]
MetricName = Literal["accuracy", "macro_f1", "mae", "rmse", "r2"]
METRICS: dict[Kind, tuple[MetricName, ...]] = {
    "classification": ("accuracy", "macro_f1"),
    "regression": ("mae", "rmse", "r2"),
}
SMALLER_IS_BETTER = ("mae", "rmse")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Metric(_Strict):
    """By which the model is judged."""

    name: MetricName
    at_least: FiniteFloat | None = None
    at_most: FiniteFloat | None = None
    tolerance: Annotated[FiniteFloat, Field(ge=0)]
    """How much worse than the version in production a new one may be, in the metric's own unit."""

    @model_validator(mode="after")
    def _has_the_right_limit(self) -> Metric:
        wanted = "at_most" if self.name in SMALLER_IS_BETTER else "at_least"
        given = [limit for limit in ("at_least", "at_most") if getattr(self, limit) is not None]
        if given != [wanted]:
            raise ValueError(f"{self.name} needs {wanted}, and no other limit")
        return self

    @property
    def limit(self) -> float:
        limit = self.at_most if self.at_least is None else self.at_least
        assert limit is not None
        return limit

    @property
    def words(self) -> str:
        return f"at {'most' if self.at_least is None else 'least'} {self.limit:g}"

    def gain(self, old: float, new: float) -> float:
        """How much better `new` is, in the metric's own unit; negative if it is worse."""
        return old - new if self.name in SMALLER_IS_BETTER else new - old

    def holds(self, value: float) -> bool:
        return self.gain(self.limit, value) >= 0


class Problem(_Strict):
    """What the model is for: read by the gates and written into the model card."""

    title: Text
    objective: Text
    owner: Text
    users: Text
    out_of_scope: Text
    constraints: list[Text]
    metric: Metric
    experiment: Text
    registered_as: Text
    example: list[FiniteFloat | None] | None = None
    """The features of a row, to be asked first."""


class Prepare(_Strict):
    test_size: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed


class Tune(_Strict):
    trials: Annotated[int, Field(ge=1, le=10_000)]
    folds: Annotated[int, Field(ge=2, le=100)]
    seed: Seed


class Train(_Strict):
    seed: Seed


class Evaluate(_Strict):
    resamples: Annotated[int, Field(ge=100, le=100_000)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    seed: Seed


def _number(value: Any) -> int | float:
    # A union of pydantic's would report a fault once for each of its members.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"a number is needed, not {value!r:.80}")
    return value


def _scalar(value: Any) -> bool | int | float | str | None:
    if value is None or isinstance(value, bool | str):
        return value
    return _number(value)


class Span(_Strict):
    """Numbers to choose from: whole ones if both ends are."""

    low: Annotated[int | float, PlainValidator(_number)]
    high: Annotated[int | float, PlainValidator(_number)]
    log: bool = False

    @model_validator(mode="after")
    def _is_a_span(self) -> Span:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low} is not above 0, which log needs")
        return self


def _form(values: Any) -> str:
    return "span" if isinstance(values, dict | Span) else "list" if isinstance(values, list) else "value"


Scalar = Annotated[bool | int | float | str | None, PlainValidator(_scalar)]
Values = Annotated[
    Annotated[Span, Tag("span")]
    | Annotated[list[Scalar], Field(min_length=1), Tag("list")]
    | Annotated[Scalar, Tag("value")],
    Discriminator(_form),
]
Space = dict[Text, Values]


class Params(_Strict):
    """What may be varied without changing code; params.yaml has what each is for."""

    data: dict[str, Any] = {}
    """The data stage's own."""
    prepare: Prepare
    tune: Tune
    families: Annotated[dict[Text, Space], Field(min_length=1)]
    """The families to choose from, each with its parameters: a value, a list of values or a span."""
    train: Train
    evaluate: Evaluate

    @model_validator(mode="after")
    def _tries_each_family(self) -> Params:
        if self.tune.trials < len(self.families):
            raise ValueError(
                f"tune.trials: {self.tune.trials} are too few to try each of {len(self.families)} families"
            )
        return self


_Read = TypeVar("_Read", bound=BaseModel)


def read(path: Path, form: type[_Read]) -> _Read:
    """Raises Refused, one line a fault, unless the YAML file has every field, of its type and in its range, and no
    other."""
    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; every model has one, see models/") from None
    except yaml.YAMLError as error:
        raise Refused(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return form.model_validate(values)
    except ValidationError as error:
        raise Refused(*faults(str(path), error)) from None

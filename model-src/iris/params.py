"""params.yaml, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from packing import Refused
from packing.manifest import faults


class Params(BaseModel):
    """What training may vary; params.yaml says what each is for."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    n_estimators: Annotated[int, Field(ge=1, le=1000)]
    max_depth: Annotated[int, Field(ge=1, le=64)] | None
    min_samples_leaf: Annotated[int, Field(ge=1)]
    min_variance: Annotated[FiniteFloat, Field(ge=0)]
    """Square centimetres."""
    test_size: Annotated[float, Field(gt=0, lt=1)]
    # scikit-learn takes a seed of 32 bits.
    seed: Annotated[int, Field(ge=0, lt=2**32)]


def read(path: Path) -> Params:
    """Raises Refused, one line a fault, unless the file is YAML with every parameter, of its type and in its range,
    and no other."""
    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; --params names the file, iris/params.yaml is the usual one") from None
    except yaml.YAMLError as error:
        raise Refused(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise Refused(*faults(str(path), error)) from None

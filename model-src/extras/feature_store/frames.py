"""What goes into the offline store and what comes out of it, as pandas frames.

The CSV has neither names nor times of flowers. So flower n is the n-th row, measured and labelled n minutes after
FIRST: made up, but the same for the same data.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from pandera.errors import SchemaError

from contract.errors import Refused
from lifecycle.model import Model
from skeletons.classification.schema import SCHEMA

# The skeleton's model without its families, which need scikit-learn.
MODEL = Model("flowers", "classification", "species", SCHEMA, families={}, slices={})
FEATURES, TARGET = MODEL.features, MODEL.target
FLOWER = "flower_id"
"""The join key: int64, from 1."""
TIME = "event_timestamp"
"""When the rest of the row became known, UTC. An entity frame of Feast has to call it so."""
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def measurements(data: pd.DataFrame) -> pd.DataFrame:
    """FLOWER, TIME and FEATURES (float64, centimetres), a row a flower of `data`, which has the columns of SCHEMA."""
    return _keys(len(data)).join(data[FEATURES])


def labels(data: pd.DataFrame) -> pd.DataFrame:
    """FLOWER, TIME and TARGET, a row a flower: what a person found out, and therefore no feature."""
    return _keys(len(data)).join(data[[TARGET]])


def corrected(known: pd.DataFrame, flower: int, at: datetime, changes: Mapping[str, float]) -> pd.DataFrame:
    """`known` measurements and one more row: those of `flower` with `changes`, known from `at` on.

    Nothing is overwritten, so that what was known earlier can still be asked for. Raises Refused when the flower or a
    measurement is unknown, a number breaks the schema's rules, or `at` is not later than what is known of the flower.
    """
    for name, value in changes.items():
        if name not in FEATURES:
            raise Refused(f"{name}: not a measurement; these are: {', '.join(FEATURES)}")
        column = SCHEMA.columns[name]
        try:
            column.validate(pd.DataFrame({name: [value]}))
        except SchemaError:
            rules = ", ".join(str(check.error) for check in column.checks)
            raise Refused(
                f"{name}: {value:g} is not {rules} (centimetres), as the schema of the flowers asks"
            ) from None
    rows = known[known[FLOWER] == flower]
    if rows.empty:
        raise Refused(f"flower {flower}: not in the offline store, which has 1 to {known[FLOWER].max()}")
    last = rows.loc[rows[TIME].idxmax()]
    # Of two rows with the same time, which one counts would be the store's choice.
    if at <= last[TIME]:
        raise Refused(
            f"flower {flower}: --at {at.isoformat()} is not later than the last row, {last[TIME].isoformat()}"
        )
    row = pd.DataFrame([{**last, **changes, TIME: pd.Timestamp(at)}]).astype(known.dtypes)
    return pd.concat([known, row], ignore_index=True)


def entities(labelled: pd.DataFrame, as_of: datetime | None) -> pd.DataFrame:
    """The left side of the point-in-time join: labels, each with the time up to which measurements count.

    That is the label's own time or, for all that were labelled by then, `as_of`. Raises Refused when none were.
    """
    if as_of is None:
        return labelled
    chosen = labelled[labelled[TIME] <= as_of]
    if chosen.empty:
        first = labelled[TIME].min().isoformat()
        raise Refused(f"--as-of {as_of.isoformat()}: no flower was labelled by then; the first was at {first}")
    return chosen.assign(**{TIME: pd.Timestamp(as_of).as_unit("us")})


def training(joined: pd.DataFrame) -> pd.DataFrame:
    """The columns of SCHEMA from the joined frame, in the order of the flowers whatever the order of the join.

    Raises Refused when a flower lacks a measurement at its time.
    """
    ordered = joined.sort_values(FLOWER)
    incomplete = ordered[ordered[FEATURES].isna().any(axis=1)]
    if not incomplete.empty:
        raise Refused(
            f"flower {incomplete[FLOWER].iloc[0]}: labelled before it was measured ({len(incomplete)} such flowers);"
            " load measurements of every labelled flower"
        )
    return ordered[[*SCHEMA.columns]]


def _keys(rows: int) -> pd.DataFrame:
    numbers = np.arange(1, rows + 1)
    times = pd.Timestamp(FIRST).as_unit("us") + pd.to_timedelta(numbers, unit="min").as_unit("us")
    return pd.DataFrame({FLOWER: numbers, TIME: times})

"""From validated data to the rows that are learned from and those that are held out."""

from __future__ import annotations

import pandas as pd
from sklearn.model_selection import train_test_split

from contract.errors import Refused
from lifecycle.model import Files, Model
from lifecycle.settings import Prepare


def split(data: pd.DataFrame, model: Model, params: Prepare) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and held-out rows; of a classifier's data, with the labels in the same proportions.

    Each distinct row is taken once: if one of two equal rows were held out and the other learned from, the evaluation
    would count a remembered answer as a learned one. Raises Refused when there are too few rows.
    """
    distinct = data.drop_duplicates(ignore_index=True)
    labels = distinct[model.target] if model.kind == "classification" else None
    try:
        train, held_out = train_test_split(
            distinct, test_size=params.test_size, random_state=params.seed, stratify=labels
        )
    except ValueError as error:
        raise Refused(
            f"{Files(model.name).params}: prepare.test_size: {params.test_size:g}: too few rows to hold out: {error}"
        ) from None
    return train, held_out

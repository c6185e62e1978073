"""What a row of the data is. To be written: the columns of your own data.

Those of the example are from B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least angle regression", Annals of
Statistics 32 (2004), as scikit-learn ships them, in their own units.
"""

from __future__ import annotations

import pandera.pandas as pa

from lifecycle import validation


def _number(description: str, unit: str, low: float, high: float, empty: float = 0) -> pa.Column:
    checks = [validation.between(low, high), *([validation.null_share(empty)] if empty else [])]
    return pa.Column(float, checks, nullable=bool(empty), coerce=True, description=description, metadata={"unit": unit})


SCHEMA = pa.DataFrameSchema(
    {
        "age": _number("age", "years", 18, 100),
        "sex": pa.Column(float, validation.one_of([1.0, 2.0]), coerce=True, description="sex, as the study coded it"),
        "bmi": _number("body mass index", "kg/m2", 10, 70, empty=0.1),
        "bp": _number("mean blood pressure", "mmHg", 40, 180, empty=0.1),
        "s1": _number("total serum cholesterol", "mg/dl", 50, 500, empty=0.1),
        "s2": _number("low-density lipoproteins", "mg/dl", 10, 400, empty=0.1),
        "s3": _number("high-density lipoproteins", "mg/dl", 5, 200, empty=0.1),
        "s4": _number("total cholesterol / HDL", "-", 0.5, 20, empty=0.1),
        "s5": _number("logarithm of serum triglycerides", "-", 1, 10, empty=0.1),
        "s6": _number("blood sugar", "mg/dl", 20, 400, empty=0.1),
        "progression": _number("progression of the disease a year later", "score", 1, 500),
    },
    checks=[validation.rows(at_least=200), validation.duplicates(at_most=0.02)],
    strict=True,
    ordered=True,
)

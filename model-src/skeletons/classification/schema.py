"""What a row of the data is. To be written: the columns of your own data.

Those of the example are R. A. Fisher's measurements, "The use of multiple measurements in taxonomic problems", Annals
of Eugenics 7 (1936), as scikit-learn ships them.
"""

from __future__ import annotations

import pandera.pandas as pa

from lifecycle import validation

SPECIES = ["setosa", "versicolor", "virginica"]


def _centimetres(description: str, low: float, high: float) -> pa.Column:
    return pa.Column(
        float, validation.between(low, high), coerce=True, description=description, metadata={"unit": "cm"}
    )


# Wider than any flower of the three species: a number beyond is a slip of the unit or of the decimal point.
SCHEMA = pa.DataFrameSchema(
    {
        "sepal_length": _centimetres("length of a sepal", 1, 15),
        "sepal_width": _centimetres("width of a sepal", 0.5, 10),
        "petal_length": _centimetres("length of a petal", 0.1, 15),
        "petal_width": _centimetres("width of a petal", 0.05, 10),
        "species": pa.Column(str, validation.one_of(SPECIES), description="species of the flower"),
    },
    # Measurements are rounded to a millimetre, so a few equal rows are different flowers.
    checks=[validation.rows(at_least=60), validation.duplicates(at_most=0.1)],
    strict=True,
    ordered=True,
)

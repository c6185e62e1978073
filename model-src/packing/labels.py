"""The one rule that turns probabilities into a label, used when packing and when serving."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Two runtimes add up the same trees in different orders: their probabilities agree to about 4e-7, so a plain argmax
# may answer differently where two classes tie. Within this distance of the best, classes count as tied.
TOLERANCE = 1e-5


def choose(probabilities: NDArray[np.floating]) -> NDArray[np.intp]:
    """The index of each row's label: the first class, in the model's order, whose probability is within TOLERANCE of
    the row's highest.

    `probabilities` has shape [rows, classes]; the answer has shape [rows].
    """
    best = probabilities.max(axis=1, keepdims=True)
    # argmax of booleans is the first True.
    chosen: NDArray[np.intp] = (probabilities >= best - TOLERANCE).argmax(axis=1)
    return chosen

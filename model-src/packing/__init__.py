"""How a trained model becomes an immutable model version.

Serving imports `manifest`, `digest` and `labels` from here, which therefore need nothing that trains a model.
"""

from __future__ import annotations


class Refused(Exception):
    """The request was understood and refused, or a check failed. Every argument is one complete line."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines

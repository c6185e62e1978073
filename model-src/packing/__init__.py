"""How a trained model becomes an immutable model version.

Serving imports `manifest`, `digest` and `labels` from here, which therefore need nothing that trains a model.
"""

from __future__ import annotations

import os

# Read when ONNX Runtime is imported, which would otherwise make an identifier of this machine and send what it counts.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class Refused(Exception):
    """The request was understood and refused, or a check failed. Every argument is one complete line."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines

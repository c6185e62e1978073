"""How a program refuses."""

from __future__ import annotations


class Refused(Exception):
    """The request was understood and refused, or a check failed. Every argument is one complete line."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines

"""What a new model starts from: for each kind, data that scikit-learn ships and the code that learns from it.

`NAME` stands for the model, so that the files are Python and YAML as they are here; `python scripts/new_model.py` in
the top folder writes them under a model's own name.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
KINDS = tuple(sorted(path.parent.name for path in _FOLDER.glob("*/problem.yaml")))
TO_BE_WRITTEN = "To be written"
"""Stands in each line of a new model that a person has to write."""


def render(kind: str, name: str) -> dict[str, bytes]:
    """The files of a new model, by their paths in its folder. Raises ValueError for a kind that is none of KINDS."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r}: no such kind; the kinds are {', '.join(KINDS)}")
    folder = _FOLDER / kind
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        .replace(b"NAMEModel", f"{name.capitalize()}Model".encode())
        .replace(b"NAME", name.encode())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }

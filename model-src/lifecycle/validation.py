"""Whether raw data may be learned from: its schema, and its distribution beside the one that was accepted last.

The schema is Pandera's. The distribution is compared by the population stability index over the fifths of the accepted
data, sum((new - old) * ln(new / old)) over the shares of rows in each fifth (or of each category); above 0.25 is
commonly taken for a shift that needs a person to look (N. Siddiqi, "Credit Risk Scorecards", 2006). Fifths, because
with 150 rows the index of two equal samples stays near 4 * 2/150, or 0.05.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from contract.errors import Refused
from lifecycle import tables
from lifecycle.model import Files, Model

PARTS = 5
LARGEST_SHIFT = 0.25
EXAMPLES = 3

# How the rules begin whose share of rows is counted here, because Pandera judges the column as a whole.
EMPTY = "empty"
DUPLICATES = "duplicates"


@dataclass(frozen=True)
class Fault:
    column: str
    """`-` for a fault of the table as a whole."""
    rule: str
    found: str
    share: str
    """Of the rows; `-` where no row by itself is at fault."""
    where: str
    """The first lines of the file that are at fault."""


def between(low: float, high: float) -> pa.Check:
    return pa.Check.in_range(low, high, error=f"from {low:g} to {high:g}")


def one_of(values: Sequence[str | float]) -> pa.Check:
    return pa.Check.isin(list(values), error=f"one of {', '.join(f'{value}' for value in values)}")


def null_share(at_most: float) -> pa.Check:
    """A check of a nullable column."""
    return pa.Check(
        lambda cells: bool(cells.isna().mean() <= at_most),
        error=f"{EMPTY} in at most {at_most:.0%} of the rows",
        ignore_na=False,
    )


def duplicates(at_most: float) -> pa.Check:
    """A check of the whole table: the share of rows that equal an earlier one in every column."""
    return pa.Check(
        lambda frame: bool(frame.duplicated().mean() <= at_most),
        error=f"{DUPLICATES} of at most {at_most:.0%} of the rows",
        ignore_na=False,
    )


def rows(at_least: int) -> pa.Check:
    """A check of the whole table."""
    return pa.Check(lambda frame: len(frame) >= at_least, error=f"at least {at_least} rows")


def read(path: Path, model: Model) -> tuple[pd.DataFrame, list[Fault]]:
    """The data as the schema has it, and every fault that it finds. Raises Refused when the file is not a table with
    the schema's columns."""
    raw = _cells(path, list(model.schema.columns))
    mistyped = list(_mistyped(raw, model))
    # A cell of the wrong type fails the other checks of its column for no reason of its own.
    typed = raw.drop(index=[line for fault in mistyped for line in fault[1]])
    faults = [_fault(raw, column, "a number", found) for column, found in mistyped]
    try:
        checked = model.schema.validate(typed, lazy=True)
    except SchemaErrors as error:
        faults += _faults(raw, typed, error.failure_cases)
    return (raw, faults) if faults else (checked.reset_index(drop=True), [])


def _cells(path: Path, columns: list[str]) -> pd.DataFrame:
    """Each cell as text, None where it is empty; the index is the line of the file."""
    expected = ",".join(columns)
    try:
        # pandas would take a field too many in every row for an index, and drop what follows a NUL.
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; `dvc pull` or the stage `generate` brings it") from None
    except UnicodeDecodeError as error:
        raise Refused(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not text.strip():
        raise Refused(f"{path}: empty; its first line has to be {expected}")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise Refused(f"{path}: line {line}: a NUL character, so not text; get the file again")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader)
        numbered = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise Refused(f"{path}: line {reader.line_num}: not CSV: {error}") from None
    if header != columns:
        raise Refused(f"{path}: line 1: the columns are {','.join(header)}, not {expected}")
    if not numbered:
        raise Refused(f"{path}: no rows below the header")
    if wrong := [(line, len(row)) for line, row in numbered if len(row) != len(columns)]:
        line, fields = wrong[0]
        more = f"; {len(wrong) - 1} more such lines" if len(wrong) > 1 else ""
        raise Refused(f"{path}: line {line}: {fields} fields, not {len(columns)}; correct or remove the row{more}")
    cells = [[cell or None for cell in row] for _, row in numbered]
    return pd.DataFrame(cells, index=[line for line, _ in numbered], columns=columns, dtype=object)


def _mistyped(raw: pd.DataFrame, model: Model) -> Iterator[tuple[str, list[int]]]:
    for name, column in model.schema.columns.items():
        if "float" in str(column.dtype):
            numbers = pd.to_numeric(raw[name], errors="coerce")
            wrong = ~np.isfinite(numbers) & raw[name].notna()
            if wrong.any():
                yield name, raw.index[wrong].tolist()


def _faults(raw: pd.DataFrame, typed: pd.DataFrame, cases: pd.DataFrame) -> Iterator[Fault]:
    for (column, rule), found in cases.groupby(["column", "check"], sort=False, dropna=False):
        whole = found["index"].isna().any()
        if whole and len(typed) < len(raw):
            # What holds for all rows cannot be judged by some of them.
            continue
        if rule.startswith(DUPLICATES):
            yield _fault(raw, "-", rule, typed.index[typed.duplicated()].tolist())
        elif rule == "not_nullable" or rule.startswith(EMPTY):
            at_fault = typed.index[typed[column].isna()].tolist()
            yield _fault(raw, column, f"not {EMPTY}" if rule == "not_nullable" else rule, at_fault)
        elif whole:
            yield Fault("-", rule, f"{len(raw)} rows", "-", "-")
        else:
            yield _fault(raw, column, rule, found["index"].tolist())


def _fault(raw: pd.DataFrame, column: str, rule: str, at_fault: list[int]) -> Fault:
    shown = sorted(at_fault)[:EXAMPLES]
    cells = [] if column == "-" else ["empty" if cell is None else str(cell) for cell in raw[column].loc[shown]]
    lines = ", ".join(map(str, shown))
    return Fault(
        column,
        rule,
        ", ".join(dict.fromkeys(cells)) or f"{len(at_fault)} rows",
        f"{len(at_fault) / len(raw):.1%}",
        f"line {lines}{', ...' if len(at_fault) > EXAMPLES else ''}",
    )


def describe(frame: pd.DataFrame) -> dict[str, Any]:
    """By column, what its distribution is compared by later: the shares of rows between edges, or of each category."""
    found: dict[str, Any] = {}
    for name, column in frame.items():
        if pd.api.types.is_numeric_dtype(column):
            quantiles = np.quantile(column.dropna(), np.linspace(0, 1, PARTS + 1)[1:-1])
            edges = sorted(set(quantiles.round(6).tolist()))
            found[str(name)] = {"edges": edges, "shares": _shares(column, edges)}
        else:
            found[str(name)] = {"categories": column.value_counts(normalize=True).round(6).sort_index().to_dict()}
    return found


def _shares(column: pd.Series[float], edges: list[float]) -> list[float]:
    # At an edge to the left of it: a value that many rows share is a part's last one.
    parts = np.searchsorted(edges, column.dropna(), side="left")
    counts = np.bincount(parts, minlength=len(edges) + 1)
    return [round(float(count / counts.sum()), 6) for count in counts]


def shift(old: list[float], new: list[float]) -> float:
    """The population stability index of two lists of shares. An empty part counts as a thousandth."""
    floored = [(max(a, 1e-3), max(b, 1e-3)) for a, b in zip(old, new, strict=True)]
    return math.fsum((b - a) * math.log(b / a) for a, b in floored)


def shifts(frame: pd.DataFrame, accepted: dict[str, Any]) -> dict[str, float]:
    """By column, how far the data is from what was accepted."""
    found = {}
    for name, known in accepted.items():
        if "edges" in known:
            found[name] = shift(known["shares"], _shares(frame[name], known["edges"]))
        else:
            new = frame[name].value_counts(normalize=True).to_dict()
            categories = sorted(known["categories"].keys() | new.keys())
            found[name] = shift(*([side.get(key, 0.0) for key in categories] for side in (known["categories"], new)))
    return found


def accepted(path: Path, model: Model) -> dict[str, Any]:
    """The distribution that a person has accepted. Raises Refused when there is none."""
    remedy = _remedy(model)
    try:
        known: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; {remedy}") from None
    except ValueError as error:
        raise Refused(f"{path}: not JSON: {error}; {remedy}") from None
    if list(known) != list(model.schema.columns):
        raise Refused(f"{path}: the columns are {', '.join(known)}, not those of the schema; {remedy}")
    return known


def _remedy(model: Model) -> str:
    return f"look at the data, then `python -m lifecycle accept {model.name}` and commit the file"


def validate(path: Path, accepted_file: Path, model: Model) -> dict[str, Any]:
    """What was checked, for validation.json. Raises Refused with a table of the faults if there is one."""
    frame, faults = read(path, model)
    found: dict[str, float] = {}
    if not faults:
        known = accepted(accepted_file, model)
        try:
            found = shifts(frame, known)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise Refused(f"{accepted_file}: not how these columns are described; {_remedy(model)}") from None
        faults = [
            Fault(
                name,
                f"distributed as accepted in {accepted_file}",
                f"index {index:.2f}, at most {LARGEST_SHIFT}",
                "-",
                "-",
            )
            for name, index in found.items()
            if index > LARGEST_SHIFT
        ]
    if faults:
        raise Refused(
            f"{path}: {len(faults)} rule{'s' if len(faults) > 1 else ''} broken in {len(frame)} rows;"
            " nothing is learned from this data:",
            *table(faults),
        )
    return {
        "rows": len(frame),
        "duplicates": int(frame.duplicated().sum()),
        "null_share": {name: float(share) for name, share in frame.isna().mean().items()},
        "shift": {name: round(index, 6) for name, index in found.items()},
        "data_digest": tables.digest(path.read_bytes()),
    }


def table(faults: list[Fault]) -> list[str]:
    """One line a fault below a header, in columns."""
    cells = [("column", "rule", "found", "share", "where"), *(tuple(asdict(fault).values()) for fault in faults)]
    widths = [max(len(row[position]) for row in cells) for position in range(5)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def dictionary(model: Model) -> str:
    """The data dictionary, in Markdown, from the schema."""
    lines = [
        f"# Data dictionary of {model.name}",
        "",
        f"Made from `{Files(model.name).schema}` by `python -m lifecycle validate {model.name}`.",
        "",
        "| column | meaning | unit | type | may be empty | values |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, column in model.schema.columns.items():
        role = " (predicted)" if name == model.target else ""
        unit = (column.metadata or {}).get("unit", "-")
        errors = [str(check.error) for check in column.checks]
        rules = [rule for rule in errors if not rule.startswith(EMPTY)]
        empty = [rule.removeprefix(f"{EMPTY} ") for rule in errors if rule.startswith(EMPTY)]
        kind = "number" if "float" in str(column.dtype) else "text"
        lines.append(
            f"| `{name}`{role} | {column.description} | {unit} | {kind} | {', '.join(empty) or 'no'} |"
            f" {', '.join(rules) or 'any'} |"
        )
    whole = [str(check.error) for check in model.schema.checks]
    return "\n".join([*lines, "", *(f"- {rule}" for rule in whole)]) + "\n"

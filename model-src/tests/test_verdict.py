"""The verdict of a check for drift, which the commands read that decide on training."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contract import verdict
from contract.errors import Refused
from contract.verdict import Verdict

DATA: dict[str, Any] = {
    "schema": 1, "environment": "prod", "app": "lily-api", "model": "lily", "version": "2026-02-01-0123456789ab",
    "digest": f"sha256:{'0' * 64}", "since": "2026-03-01T00:00:00Z", "until": "2026-03-02T00:00:00+00:00", "rows": 200,
    "reference_rows": 150, "malformed_lines": 0, "drifted": True, "drifted_columns": ["petal_width"], "columns": 5,
    "checks": [
        {"column": "petal_width", "of": "values", "test": "ks", "statistic": 0.5, "p_value": 0, "threshold": 0.001,
         "drifted": True}
    ],
    "quality": {"rows": 20, "metrics": {"accuracy": {"current": 1, "reference": 0.95}}},
}  # fmt: skip


def parse(**changed: Any) -> Verdict:
    return verdict.parse(json.dumps(DATA | changed).encode(), "v.json")


def test_what_is_written_is_read_back() -> None:
    found = parse()

    assert verdict.parse(found.model_dump_json(by_alias=True, indent=2).encode(), "v.json") == found
    assert found.quality and found.quality.metrics["accuracy"].current == 1


def test_a_verdict_may_have_no_environment_and_no_labels_and_say_more() -> None:
    assert parse(environment=None, app=None, quality=None, news=1).quality is None


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"schema": 2}, "v.json: schema: Input should be 1, not 2"),
        ({"model": None}, "v.json: model: Input should be a valid string, not None"),
        ({"columns": 0}, "v.json: columns: Input should be greater than or equal to 1, not 0"),
        ({"columns": 5.0}, "v.json: columns: Input should be a valid integer, not 5.0"),
        ({"columns": True}, "v.json: columns: Input should be a valid integer, not True"),
        ({"until": 1772409600}, "v.json: until: "),
        ({"until": "2026-03-02T00:00:00"}, "v.json: until: Input should have timezone info, "),
        ({"drifted_columns": [1]}, "v.json: drifted_columns[0]: Input should be a valid string, not 1"),
        ({"quality": {"rows": 0, "metrics": {}}}, "v.json: quality.rows: Input should be greater than or equal to 1"),
        ({"quality": {"rows": 1, "metrics": {"mae": {"current": "1", "reference": 1}}}},
         "v.json: quality.metrics.mae.current: Input should be a valid number, not '1'"),
        ({"quality": {"rows": 1, "metrics": {"mae": {"current": float("nan"), "reference": 1}}}},
         "v.json: not JSON: NaN is not a finite number"),
    ],
)  # fmt: skip
def test_a_wrong_verdict_is_refused(changed: dict[str, Any], line: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(**changed)

    assert refused.value.lines[0].startswith(line)


def test_what_is_missing_is_named() -> None:
    data = {name: value for name, value in DATA.items() if name != "drifted_columns"}

    with pytest.raises(Refused, match=r"^v.json: drifted_columns: Field required$"):
        verdict.parse(json.dumps(data).encode(), "v.json")

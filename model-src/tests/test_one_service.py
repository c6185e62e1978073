from __future__ import annotations

import re
from pathlib import Path

import pytest

from extras.bench import one_service


def test_the_bench_asks_a_service_that_it_starts(version: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert one_service.main([str(version), "--callers", "1", "2", "--seconds", "0.3"]) == 0

    first, one, two, memory, rows = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"first answer after [\d.]+ s, [\d.]+ s of a core", first)
    assert (one.split(":")[0], two.split(":")[0]) == ("1 callers", "2 callers")
    megabytes = re.fullmatch(r"memory: (\d+) MiB, at most (\d+) MiB", memory)
    assert megabytes and 20 < int(megabytes[1]) <= int(megabytes[2]) < 384  # the limit of a pod of base/api
    ratio = re.fullmatch(r"one row: ONNX Runtime \d+ µs, scikit-learn \d+ µs, (\d+) times", rows)
    assert ratio and int(ratio[1]) > 1


def test_the_bench_ends_where_the_service_does(version: Path) -> None:
    (version / "onnx/model.onnx").write_bytes(b"another model")

    with pytest.raises(SystemExit) as ended:
        one_service.main([str(version)])

    assert ended.value.code

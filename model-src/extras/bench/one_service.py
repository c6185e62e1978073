"""What one process of our service needs: processor time until it answers and for each answer, and memory; and the time
that scikit-learn takes for the same row.

Processor time hardly depends on what else the machine does; how many answers come in a second does, and the callers run
on the same cores. The version is one that was packaged for a model, by `make serve` or `python -m lifecycle version`.

  python -m extras.bench.one_service artifacts/iris
  python -m extras.bench.one_service artifacts/iris --callers 1 32 --seconds 10
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np

from packing import runtime

START_SECONDS = 60


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", type=Path, help="the folder of a packaged version")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 32], help="connections at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="for each number of them (%(default)s)")
    args = parser.parse_args(argv)
    row = first_row(args.version)
    with service(args.version, row) as (process, port, answered):
        print(f"first answer after {answered:.1f} s, {processor(process.pid):.1f} s of a core")
        for callers in args.callers:
            before = processor(process.pid)
            times = asyncio.run(ask(port, row, callers, args.seconds))
            own = (processor(process.pid) - before) / len(times)
            late = 1000 * np.quantile(times, 0.99)
            print(
                f"{callers} callers: {own * 1e3:.2f} ms of a core for each answer, so {1 / own:.0f} a second of a core;"
                f" {len(times) / args.seconds:.0f} a second came, 99 % of them within {late:.1f} ms"
            )
        print("memory: {VmRSS} MiB, at most {VmHWM} MiB".format(**memory(process.pid)))
    ours, theirs = predictions(args.version, row)
    print(f"one row: ONNX Runtime {ours * 1e6:.0f} µs, scikit-learn {theirs * 1e6:.0f} µs, {theirs / ours:.0f} times")
    return 0


def first_row(version: Path) -> list[float]:
    """The features of the first row of the version's own reference."""
    inputs = json.loads((version / "manifest.json").read_bytes())["signature"]["inputs"]
    cells = (version / "reference/reference.csv").read_text().splitlines()[1].split(",")
    return [float(cell) for cell in cells[: len(inputs)]]


def request(row: Sequence[float]) -> bytes:
    body = json.dumps({"features": row}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: local\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


@contextmanager
def service(version: Path, row: Sequence[float]) -> Iterator[tuple[subprocess.Popen[str], int, float]]:
    """The process of the service, its port, and the seconds from its start to its first answer."""
    manifest = (version / "manifest.json").read_bytes()
    env = os.environ | {
        "MODEL_URI": str(version.resolve() / "onnx"), "MODEL_DIGEST": json.loads(manifest)["digest"],
        "MODEL_MANIFEST": f"sha256:{hashlib.sha256(manifest).hexdigest()}", "PORT": "0", "DRAIN_SECONDS": "0",
    }  # fmt: skip
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "serving"], env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            listening = next((line for line in process.stderr if "listening on" in line), "")
            if not listening:
                sys.exit("the service ended before it listened")
            port = int(listening.rpartition(":")[2])
            asyncio.run(first_answer(port, row))
            yield process, port, time.perf_counter() - began
        finally:
            process.kill()


async def first_answer(port: int, row: Sequence[float]) -> None:
    """Asks until the answer is a prediction: before that the model is not there."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                status = await exchange(reader, writer, request(row))
            except (OSError, asyncio.IncompleteReadError):
                sys.exit("the service ended before it answered")
            writer.close()
            if status == 200:
                return


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytes) -> int:
    """The status of the answer, which is read to its end."""
    writer.write(asked)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


async def ask(port: int, row: Sequence[float], callers: int, seconds: float) -> list[float]:
    """How long each answer took, in seconds, where this many callers ask one after the other."""
    asked, times, end = request(row), list[float](), time.perf_counter() + seconds

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < end:
            if (status := await exchange(reader, writer, asked)) != 200:
                sys.exit(f"the service answers {status}")
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*[caller() for _ in range(callers)])
    return times


def memory(process: int) -> dict[str, int]:
    """In MiB, as Linux counts it."""
    lines = [line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines()]
    return {words[0].rstrip(":"): round(int(words[1]) / 1024) for words in lines if words[0] in ("VmRSS:", "VmHWM:")}


def processor(process: int) -> float:
    """The seconds of a core that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def predictions(version: Path, row: Sequence[float]) -> tuple[float, float]:
    """The seconds of a core that one row takes in ONNX Runtime and in scikit-learn, each the median of 200."""
    session = runtime.session((version / "onnx/model.onnx").read_bytes(), threads=1)
    name = session.get_inputs()[0].name
    model = joblib.load(version / "sklearn/model.joblib")
    ours = middle(lambda: session.run(None, {name: np.array([row], np.float32)}))
    return ours, middle(lambda: model.predict([row]))


def middle(call: Callable[[], object], times: int = 200) -> float:
    found = []
    for _ in range(times):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return statistics.median(found)


if __name__ == "__main__":
    sys.exit(main())

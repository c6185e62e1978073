"""Train and ask a model of the flowers with features from a feature store: Feast on its local provider.

load puts the rows of a CSV into the offline store, and materialize the latest of each flower into the online store.
training joins the labels with what was measured at their time, or as of another time, and writes the CSV that
training reads. ask gets a flower's features from the online store and asks the service with them, in the order of the
version's signature. correct adds a later measurement of a flower.

  python -m extras.feature_store load --data models/NAME/data/raw.csv
  python -m extras.feature_store training --out models/NAME/data/raw.csv
  python -m extras.feature_store materialize
  python -m extras.feature_store ask 1 --manifest artifacts/NAME/manifest.json
  python -m extras.feature_store correct 1 --at 2026-03-01T12:00Z petal_length=1.5
  python -m extras.feature_store training --out then.csv --as-of 2026-02-01T00:00Z
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from contract import command, waiting
from contract.errors import Refused
from storage.files import staged_folder, write_atomically

# What takes seconds to import is imported where it is used, so that --help and a refusal are quick.
if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureService, FeatureStore

    from contract.manifest import Manifest

HERE = Path(__file__).resolve().parent
OFFLINE = HERE / "data/offline"
SERVICE = "flowers"
MEASUREMENTS, LABELS = "measurements.parquet", "labels.parquet"


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)

    def work() -> None:
        # Feast reports on stdout, which is for the result.
        with contextlib.redirect_stdout(sys.stderr):
            result = _run(args)
        if result:
            print(result)

    return command.run(work, "interrupted")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extras.feature_store", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    load = commands.add_parser("load", help="a CSV's rows into the offline store, in place of what was there")
    load.add_argument("--data", type=Path, required=True, help="the data, with the columns of the skeleton")
    commands.add_parser("materialize", help="the latest measurements of each flower into the online store")
    training = commands.add_parser("training", help="write the CSV that training reads")
    training.add_argument("--out", type=Path, required=True, help="for example models/NAME/data/raw.csv")
    training.add_argument("--as-of", type=_time, metavar="TIME", help="what was known then, not when it was labelled")
    ask = commands.add_parser("ask", help="ask the service about a flower")
    ask.add_argument("flower", type=int)
    ask.add_argument("--url", default="http://127.0.0.1:5001", help="the service (%(default)s)")
    ask.add_argument("--manifest", type=Path, required=True,
                     help="of the version that is served, for example artifacts/NAME/manifest.json")  # fmt: skip
    correct = commands.add_parser("correct", help="add a later measurement of a flower to the offline store")
    correct.add_argument("flower", type=int)
    correct.add_argument("--at", type=_time, metavar="TIME", required=True, help="when it became known")
    correct.add_argument("changes", nargs="+", type=_change, metavar="MEASUREMENT=CENTIMETRES")
    return parser


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-02-01T12:00Z") from None
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone; add Z for UTC")
    return time


def _change(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a measurement and a number, such as petal_length=1.5"
        ) from None


def _run(args: argparse.Namespace) -> str:
    """What the command prints."""
    if args.command == "load":
        return load(args.data)
    if args.command == "materialize":
        return materialize()
    if args.command == "training":
        return training(args.out, args.as_of)
    if args.command == "correct":
        return correct(args.flower, args.at, dict(args.changes))
    return json.dumps(ask(args.flower, args.url, args.manifest))


def load(data_file: Path) -> str:
    store = _store()
    from extras.feature_store import definitions, frames
    from lifecycle import validation

    data, faults = validation.read(data_file, frames.MODEL)
    if faults:
        raise Refused(f"{data_file}: the schema of the flowers does not hold:", *validation.table(faults))
    # First, so that the online store never answers with what the offline store has no longer.
    store.teardown()
    with staged_folder(OFFLINE) as folder:
        (folder / MEASUREMENTS).write_bytes(_parquet(frames.measurements(data)))
        (folder / LABELS).write_bytes(_parquet(frames.labels(data)))
    store.apply([definitions.flower, definitions.measurements, definitions.flowers])
    print(f"loaded {len(data)} flowers of {data_file}", file=sys.stderr)
    return ""


def materialize() -> str:
    store = _store()
    from extras.feature_store.frames import TIME

    times = _offline(MEASUREMENTS)[TIME]
    _service(store)
    store.materialize(times.min().to_pydatetime(), times.max().to_pydatetime())
    return ""


def training(out: Path, as_of: datetime | None) -> str:
    store = _store()
    from extras.feature_store import frames
    from lifecycle import tables

    entities = frames.entities(_offline(LABELS), as_of)
    joined = store.get_historical_features(entities, _service(store)).to_df()
    data = frames.training(joined)
    tables.write(out, data)
    print(f"wrote {len(data)} rows", file=sys.stderr)
    return str(out)


def correct(flower: int, at: datetime, changes: Mapping[str, float]) -> str:
    from extras.feature_store import frames

    write_atomically(OFFLINE / MEASUREMENTS, _parquet(frames.corrected(_offline(MEASUREMENTS), flower, at, changes)))
    return ""


def ask(flower: int, url: str, manifest_file: Path) -> dict[str, object]:
    """The service's answer. Raises Refused when the store lacks a feature, or the service is away, serves another
    version than the manifest's or refuses."""
    store = _store()
    from contract import manifest

    described = manifest.parse(manifest_file.read_bytes(), str(manifest_file))
    known = online(store, [flower])
    row = in_order(described, {name: values[0] for name, values in known.items()}, flower)
    print(f"asking {url} with {row}", file=sys.stderr)
    answer = _post(f"{url.rstrip('/')}/predict", {"features": row})
    if answer.get("model_version") != described.version:
        raise Refused(
            f"{url}: serves {answer.get('model_version')}, but {manifest_file} is of"
            f" {described.version}; name the manifest of the version that is served with --manifest"
        )
    return answer


def online(store: FeatureStore, flowers: Sequence[int]) -> dict[str, list[float | None]]:
    """The online features of the flowers, by name; None where the store has none. The keys are the service's alone."""
    from extras.feature_store.frames import FLOWER

    found = store.get_online_features(_service(store), [{FLOWER: flower} for flower in flowers])
    return {name: values for name, values in found.to_dict().items() if name != FLOWER}


def in_order(described: Manifest, known: Mapping[str, float | None], flower: int) -> list[float]:
    """The row that the model takes: its signature's inputs, in order. Raises Refused, naming what is missing."""
    row = []
    for name in described.signature.names:
        if name not in known:
            raise Refused(
                f"{name}: an input of {described.version}, but no feature in the store; is it the right --manifest?"
            )
        value = known[name]
        if value is None:
            raise Refused(
                f"flower {flower}: no {name} in the online store; `python -m extras.feature_store materialize` fills it"
            )
        row.append(value)
    return row


def _post(url: str, body: object) -> dict[str, object]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with waiting.Limit(url, "is the service busy?"), waiting.open_url(request) as response:
            answer: dict[str, object] = json.load(response)
    except urllib.error.HTTPError as error:
        raise Refused(f"{url}: {error.code}: {error.read(500).decode(errors='replace')}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ValueError) as error:
        raise Refused(f"{url}: {error}; --url names the service, `python -m serving` starts it") from None
    return answer


def _store() -> FeatureStore:
    """Raises Refused where Feast is not installed."""
    try:
        from feast import FeatureStore
    except ModuleNotFoundError as error:
        if error.name != "feast":
            raise
        raise Refused(
            f"{sys.executable} lacks feast: install extras/feature_store/requirements.txt into an environment of"
            " its own, see README.md"
        ) from None
    return FeatureStore(repo_path=str(HERE))


def _service(store: FeatureStore) -> FeatureService:
    """Raises Refused when it is not registered."""
    from feast.errors import FeastObjectNotFoundException

    try:
        return store.get_feature_service(SERVICE)
    except FeastObjectNotFoundException:
        raise Refused(
            f"{SERVICE}: no such feature service is registered; `python -m extras.feature_store load` does it"
        ) from None


def _offline(name: str) -> pd.DataFrame:
    import pandas as pd

    if not (OFFLINE / name).exists():
        raise Refused(f"{OFFLINE / name}: missing; `python -m extras.feature_store load` makes it")
    return pd.read_parquet(OFFLINE / name)


def _parquet(frame: pd.DataFrame) -> bytes:
    content = io.BytesIO()
    frame.to_parquet(content, index=False)
    return content.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())

"""Train the iris model, evaluate it, record the run in MLflow and pack it as a model version.

Writes the version to --out, whole or not at all, and an evaluation report to --reports; prints the folder and the
version. The same commit and the same data give the same version. The code must be committed, because the version
names its commit; --draft trains uncommitted code for trying out, and the result cannot be uploaded.

MLflow writes to mlflow.db here, or to the server that MLFLOW_TRACKING_URI names.

  python -m iris.generate_data
  python -m iris.train
  python -m iris.train --data data/more.csv --draft
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from packing import Refused

# What takes seconds to import is imported where it is used, so that --help and a refusal are quick.
if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from iris.dataset import Dataset
    from iris.params import Params

MODEL = "iris"
TAGS = ("model", "version", "digest", "code_commit", "data_digest", "draft")
"""By which an MLflow run is found."""
SOURCE = Path(__file__).resolve().parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m iris.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("data/iris.csv"), help="the data (%(default)s)")
    add("--params", type=Path, default=Path("iris/params.yaml"), help="the parameters (%(default)s)")
    add("--out", type=Path, default=Path("artifacts/iris"), help="the version's folder (%(default)s)")
    add("--reports", type=Path, default=Path("reports/iris"), help="the report's folder (%(default)s)")
    add("--draft", action="store_true", help="train although the code is not committed")
    args = parser.parse_args(argv)
    try:
        version = train(args.data, args.params, args.out, args.reports, draft=args.draft)
    except Refused as refused:
        for line in refused.lines:
            print(f"error: {line}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; no version was written", file=sys.stderr)
        return 130
    print(args.out, version)
    return 0


def train(data_file: Path, params_file: Path, out: Path, reports: Path, *, draft: bool) -> str:
    """Trains and packs, and returns the version's name. Raises Refused, and then leaves `out` as it was."""
    from packing import lineage, pack

    pack.refuse_foreign(out)
    code = lineage.find(SOURCE, MODEL, draft=draft)

    from iris import dataset, params

    parameters = params.read(params_file)
    say(f"reading {data_file}")
    everything, data_digest = dataset.read(data_file)
    data = dataset.without_duplicates(everything)

    training, held_out = split(data, parameters)
    say(f"training on {len(training)} rows, {len(held_out)} held out")
    pipeline = build(parameters)
    try:
        pipeline.fit(training.features, training.species)
    except ValueError as error:
        # What the estimators themselves refuse, e.g. a min_variance that leaves no measurement.
        raise Refused(f"{params_file}: {' '.join(str(error).split())}") from None

    from iris import evaluation, tracking
    from packing import digest, files, manifest

    measured = evaluation.evaluate(pipeline, held_out)
    with files.staged_folder(out) as folder:
        say("packing: comparing ONNX with scikit-learn")
        parity = pack.write_flavours(folder, pipeline, data.features, held_out.features)
        hashed = digest.hash_folder(folder)
        version_digest = digest.version_digest((file.path, file.sha256) for file in hashed)
        version = manifest.version_name(code.date, version_digest)
        evaluation_set = dataset.to_csv(held_out)
        facts = {
            "model": MODEL,
            "version": version,
            "digest": version_digest,
            "code_commit": code.commit,
            "data_digest": data_digest,
            "evaluation_set_digest": dataset.digest(evaluation_set),
            "draft": draft,
            "duplicate_rows": len(everything) - len(data),
            "training_rows": len(training),
            "held_out_rows": len(held_out),
            "parity_rows": parity.rows,
            "parity_worst_error": parity.worst_error,
        }
        texts = {
            "report.json": evaluation.report_json(measured, facts),
            "report.md": evaluation.report_markdown(measured, facts),
            "evaluation_set.csv": evaluation_set.decode(),
            "feature_importance.csv": feature_importance(pipeline),
        }
        frameworks = pack.frameworks()
        say("recording the run in MLflow")
        run = tracking.record(
            pipeline,
            example=held_out.features[:2],
            params=parameters.model_dump(),
            metrics=measured.metrics,
            tags={name: str(facts[name]) for name in TAGS},
            texts=texts,
            requirements=[f"{name}=={frameworks[name]}" for name in ("scikit-learn", "numpy")],
            # The registry names only what could be deployed.
            registered_as=None if draft else tracking.REGISTERED_MODEL,
        )
        manifest.write(
            folder,
            manifest.Manifest(
                schema=1,
                model=MODEL,
                version=version,
                digest=version_digest,
                files=[manifest.File(**file._asdict()) for file in hashed],
                metrics=measured.metrics,
                parameters=parameters.model_dump(),
                signature=pack.signature(dataset.FEATURES, measured.species),
                code_commit=code.commit,
                data_digest=data_digest,
                evaluation_set_digest=dataset.digest(evaluation_set),
                mlflow_run=run,
                frameworks=frameworks,
                draft=draft,
            ),
        )
        for name, text in texts.items():
            files.write_atomically(reports / name, text.encode())
        # Training takes a while: somebody may have put something there meanwhile.
        pack.refuse_foreign(out)
    say(f"report in {reports}")
    return version


def split(data: Dataset, params: Params) -> tuple[Dataset, Dataset]:
    """Training and held-out rows, with the species in the same proportions. Raises Refused when one has too few."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    try:
        training, held_out = train_test_split(
            np.arange(len(data)), test_size=params.test_size, random_state=params.seed, stratify=data.species
        )
    except ValueError as error:
        raise Refused(f"the data has too few rows to hold out {params.test_size:g} of each species: {error}") from None
    return data.take(training), data.take(held_out)


def build(params: Params) -> Pipeline:
    """The pipeline, not yet fitted: measurements in centimetres, shape [rows, 4], to species."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_selection import VarianceThreshold
    from sklearn.pipeline import Pipeline

    return Pipeline(
        [
            # Features are only ever selected, never computed: trees compare float32 numbers, and arithmetic before
            # them (a scaler, a ratio) rounds differently in scikit-learn and in ONNX, which moves rows across
            # thresholds. A cast in an ONNX-only copy would hide that, but the copy would be another model than the
            # one evaluated. A forest gains nothing from scaling anyway.
            ("select", VarianceThreshold(params.min_variance)),
            (
                "forest",
                RandomForestClassifier(
                    n_estimators=params.n_estimators,
                    max_depth=params.max_depth,
                    min_samples_leaf=params.min_samples_leaf,
                    random_state=params.seed,
                    # Written into the joblib file: the number of this machine's cores must not change its bytes.
                    n_jobs=1,
                ),
            ),
        ]
    )


def feature_importance(pipeline: Pipeline) -> str:
    """CSV: how much each selected measurement lowers the impurity, as a share of 1, the largest first."""
    from iris.dataset import FEATURES

    names = pipeline[:-1].get_feature_names_out(FEATURES)
    shares = sorted(zip(pipeline[-1].feature_importances_.tolist(), names, strict=True), reverse=True)
    return "".join(["feature,importance\n", *(f"{name},{share!r}\n" for share, name in shares)])


def say(line: str) -> None:
    """A stage of the work, for the person at the terminal; stdout stays for the result."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

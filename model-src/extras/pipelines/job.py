"""A training job of SageMaker: every stage in one process, and then the files of a version with their manifest.

SageMaker writes what the job is asked for to input/config/hyperparameters.json below /opt/ml, and the raw data to
input/data/raw/. It stores what is in model/ as model.tar.gz, and output/data/ as output.tar.gz; of a job that fails it
shows output/failure. ML_FOLDER names another folder than /opt/ml, to try it out.

The version is the one that `dvc repro` and `python -m lifecycle version` make from the same commit and data, but for
the MLflow run, which is recorded at MLFLOW_TRACKING_URI, or goes with the job.
Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from contract import command, strict
from contract.errors import Refused
from contract.manifest import Digest
from contract.strict import Strict
from contract.uri import MODEL
from extras.pipelines import steps
from lifecycle import stages
from packing import lineage
from packing.lineage import Code

CHANNEL = "raw"
SHOWN = 1024
"""Characters of a failure that SageMaker shows."""


class Asked(Strict):
    """The hyperparameters, which SageMaker passes on as texts."""

    model: Annotated[str, Field(pattern=rf"^{MODEL}\Z")]
    code_commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}\Z")]
    date: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")]
    """Of that commit, in UTC."""
    code: Digest
    """`lineage.code_digest` of that commit."""
    data: Annotated[str, Field(pattern=r"^[0-9a-f]{32}\Z")]
    """The MD5 by which DVC knows the raw data."""


def main() -> int:
    ml = Path(os.environ.get("ML_FOLDER", "/opt/ml"))
    failure = ml / "output/failure"

    def work() -> None:
        try:
            run(ml)
        except Exception as error:
            lines = error.lines if isinstance(error, Refused) else (f"{type(error).__name__}: {error}",)
            failure.parent.mkdir(parents=True, exist_ok=True)
            failure.write_text("\n".join(lines)[:SHOWN])
            raise

    return command.run(work, "stopped; nothing was made")


def run(ml: Path) -> None:
    """Raises Refused when the job is asked for something else than this image and its data are, or a stage refuses."""
    stages.same_arithmetic()
    config = ml / "input/config/hyperparameters.json"
    asked = strict.parse(Asked, config.read_bytes(), str(config))
    found = lineage.code_digest_of(steps.SOURCE, asked.model)
    if found != asked.code:
        raise Refused(
            f"{asked.model}: the code in this image is {found}, and that of commit {asked.code_commit} is {asked.code};"
            " build the image from a clean checkout of that commit"
        )
    raw = _data(ml / "input/data" / CHANNEL, asked.data)
    # Imported here, because it takes seconds, and numpy has to come after same_arithmetic().
    from lifecycle import model, settings, versioning

    with steps.folder("job", asked.model, {"raw": str(raw)}, {}) as files:
        for name, stage in stages.STAGES.items():
            print(name, file=sys.stderr, flush=True)
            stage(asked.model)
        made, code = model.load(asked.model), Code(asked.code_commit, asked.date)
        problem, params = settings.read(files.problem, settings.Problem), settings.read(files.params, settings.Params)
        version = versioning.write(made, problem, params, code, _say, draft=False)
        shutil.copytree(files.version, ml / "model", dirs_exist_ok=True)
        shutil.copytree(files.reports, ml / "output/data", dirs_exist_ok=True)
    print(asked.model, version)


def _data(folder: Path, md5: str) -> Path:
    """The one file of the channel, once its bytes are those that DVC knows."""
    found = [file for file in folder.rglob("*") if file.is_file()]
    if len(found) != 1:
        raise Refused(f"{folder}: {len(found)} files, and the raw data is one")
    with found[0].open("rb") as file:
        has = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if has != md5:
        raise Refused(f"{found[0]}: md5 {has}, but dvc.lock has {md5}; `dvc push` stores what it has")
    return found[0]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

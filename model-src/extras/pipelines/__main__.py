"""The lifecycle as a Kubeflow pipeline: compiled for a cluster, or run on this machine without one.

python -m extras.pipelines compile wine --image registry.example.com/train@sha256:...
python -m extras.pipelines compile wine --image ... --loop --out wine.yaml
python -m extras.pipelines run wine
python -m extras.pipelines run wine --data flowers.csv --out /tmp/wine
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from contract import command, temporary
from contract.errors import Refused
from lifecycle.model import Files

# What takes seconds to import is imported where it is used, so that --help and a refusal are quick.


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m extras.pipelines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    compiling = commands.add_parser("compile", help="write the pipeline as Kubeflow takes it, and print its path")
    running = commands.add_parser("run", help="run it here, a process a component; print the package and its digest")
    for each in (compiling, running):
        each.add_argument("model", help="a folder of models/, for example wine")
    add = compiling.add_argument
    add("--image", required=True, help="what extras/pipelines/Dockerfile made, best by its digest: a tag may change")
    add("--loop", action="store_true", help="search each family in a component of its own; see pipeline.py")
    add("--out", type=Path, help="the file to write (reports/MODEL/kubeflow.yaml)")
    add = running.add_argument
    add("--data", type=Path, help="the raw data, a file (MODEL/data/raw.csv)")
    add("--out", type=Path, help="the folder that everything is written to (reports/MODEL/kubeflow)")
    args = parser.parse_args(argv)
    reports, raw = Files(args.model).reports, Files(args.model).raw

    def work() -> None:
        try:
            if args.command == "compile":
                print(compile_to(args.out or reports / "kubeflow.yaml", args.model, args.image, loop=args.loop))
            else:
                print(*run(args.model, args.data or raw, args.out or reports / "kubeflow"))
        except ModuleNotFoundError as error:
            if error.name != "kfp":
                raise
            raise Refused("kfp: not installed; `pip install --require-hashes -r requirements-kubeflow.txt`") from None

    return command.run(work, "interrupted; start it again")


def compile_to(out: Path, model: str, image: str, *, loop: bool) -> Path:
    """Writes the pipeline to `out`: the same bytes for the same commit. Raises Refused when there is no such model, or
    when `image` is no reference to an image."""
    from kfp import compiler

    from extras.pipelines import pipeline
    from storage.files import write_atomically

    if not re.fullmatch(r"[a-z0-9][\w.:/@-]*", image):
        raise Refused(f"--image {image!r}: not a reference to an image, such as registry.example.com/train@sha256:...")
    with temporary.folder("model-pipeline-") as folder:
        # The SDK takes the format from the name's end.
        file = folder / "pipeline.yaml"
        compiler.Compiler().compile(pipeline.build(model, image, loop=loop), str(file))
        write_atomically(out, file.read_bytes())
    return out


def run(model: str, data: Path, out: Path) -> tuple[Path, str]:
    """Runs every component in a process of this environment and returns the folder of the package and its digest.
    Everything is written below `out`; the search is recorded at MLFLOW_TRACKING_URI, or there too.

    Raises Refused when there is no such model or no such data, when MLflow is away, and when a stage refuses."""
    from kfp import local

    from extras.pipelines import pipeline
    from lifecycle import settings, tracking

    # The image is of no use here, but the SDK warns of one that does not sound like Python.
    built = pipeline.build(model, "python")
    experiment = settings.read(Files(model).problem, settings.Problem).experiment
    if not data.is_file():
        raise Refused(f"--data {data}: no such file; `dvc repro {Files(model).pipeline}` or `dvc pull` brings it")
    data, out = data.absolute(), out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    log = out / "log.txt"
    with temporary.folder(".run-", out) as folder, log.open("w") as file:
        # The SDK puts the source of each component into a new folder and leaves it there.
        os.environ["TMPDIR"] = str(folder)
        # Its cache of fonts.
        os.environ["MPLCONFIGDIR"] = str(folder)
        os.environ["MLFLOW_TRACKING_URI"] = _tracking_uri(out)
        # A database gives a new experiment a folder below the current one, and a component's is soon gone.
        with contextlib.chdir(out), tracking.experiment(experiment):
            pass
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(out), workspace_root=f"{folder}/shared")
        said = _Said(file)
        try:
            with contextlib.redirect_stdout(said):
                outputs = built(data=str(data)).outputs
        except RuntimeError:
            raise Refused(*(said.refused or [f"{model}: {said.task} failed; {log} has what it said"])) from None
    return Path(outputs["package"].path), str(outputs["digest"])


class _Said(io.TextIOBase):
    """Writes what the SDK and the components print into a file, and keeps what matters to the person who waits."""

    def __init__(self, file: TextIO) -> None:
        self._file, self.refused, self.task = file, list[str](), ""

    def write(self, text: str) -> int:
        if begun := re.search(r"Executing task \S*'([\w-]+)'", text):
            self.task = begun[1]
            print(self.task, file=sys.stderr, flush=True)
        elif text.startswith("error: "):
            self.refused.append(text.removeprefix("error: ").rstrip())
        return self._file.write(text)


def _tracking_uri(out: Path) -> str:
    """Components run in folders of their own, where a relative path would name another file."""
    scheme, slashes, path = (os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out}/mlflow.db").partition(":///")
    return f"{scheme}{slashes}{Path(path).absolute()}" if scheme == "sqlite" else f"{scheme}{slashes}{path}"


if __name__ == "__main__":
    raise SystemExit(main())

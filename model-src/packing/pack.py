"""The files of a model version, in the folder that is uploaded as it stands."""

from __future__ import annotations

import gzip
import io
import platform
import shutil
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract import manifest, strict
from contract.digest import MANIFEST, counts
from contract.errors import Refused
from packing import onnx_export
from packing.onnx_export import Parity

# Where each flavour of a version lies. Servers find their model by these names.
SKLEARN = Path("sklearn/model.joblib")
ONNX = Path("onnx/model.onnx")
SAGEMAKER = Path("sagemaker/model.tar.gz")
# The rows that the model was made from, with what it says of each unseen: later rows are compared with them.
REFERENCE = Path("reference/reference.csv")

FRAMEWORKS = ("scikit-learn", "numpy", "onnx", "onnxruntime", "skl2onnx", "joblib")


def refuse_foreign(target: Path) -> None:
    """Raises Refused unless `target` may be replaced: it is absent, empty, or holds a version and nothing else."""
    if not target.exists():
        return
    if not target.is_dir():
        raise Refused(f"{target}: a file, not a folder; move it away")
    found = {file.relative_to(target).as_posix() for file in target.rglob("*") if not file.is_dir()}
    if not found:
        return
    source = target / MANIFEST
    if MANIFEST not in found:
        raise Refused(f"{target}: not empty, and no model version ({MANIFEST} is missing); move it away")
    known = {file.path for file in manifest.parse(source.read_bytes(), str(source)).files}
    if foreign := sorted(path for path in found - known if counts(path)):
        raise Refused(f"{target / foreign[0]}: not part of the model version there; move it away")


def write_flavours(
    folder: Path, fitted: Path, pipeline: Any, data: NDArray[np.float64], evaluation: NDArray[np.float64]
) -> Parity:
    """Writes the model in every flavour into `folder`, once they are known to answer alike.

    `pipeline` is what the joblib file `fitted` holds. `data`, of shape [rows, inputs], gives the ranges of the rows
    that are made up to compare on; `evaluation`, of the same width, is compared on too. Raises Refused, and writes
    nothing, when the flavours disagree.
    """
    model = onnx_export.export(pipeline, data.shape[1])
    rows = np.vstack([evaluation, onnx_export.generated_rows(pipeline, data)])
    parity = onnx_export.check_parity(pipeline, model, rows)
    for path in (SKLEARN, ONNX):
        (folder / path).parent.mkdir()
    # Not dumped again: between the fields of a tree's node, a tree that was loaded has whatever was in memory.
    shutil.copyfile(fitted, folder / SKLEARN)
    (folder / ONNX).write_bytes(model)
    return parity


def write_signature(folder: Path, signature: manifest.Signature) -> None:
    """Writes what the model takes and gives, which makes it part of the version's digest."""
    (folder / manifest.SIGNATURE).write_bytes(manifest.dump_signature(signature))


def read_signature(folder: Path) -> manifest.Signature:
    """What write_signature() wrote. Raises Refused unless it is a signature."""
    file = folder / manifest.SIGNATURE
    return strict.parse(manifest.Signature, file.read_bytes(), str(file))


def write_sagemaker(folder: Path, signature: manifest.Signature) -> None:
    """Writes the model as SageMaker takes it: a tar file with the ONNX model, its signature and, in code/, what the
    container runs. The same bytes for the same model: no times, no owners."""
    code = Path(__file__).with_name("sagemaker")
    needed = "".join(f"{name}=={version(name)}\n" for name in ("numpy", "onnxruntime"))
    members = {
        "code/inference.py": (code / "inference.py").read_bytes(),
        "code/requirements.txt": needed.encode(),
        ONNX.name: (folder / ONNX).read_bytes(),
        manifest.SIGNATURE: manifest.dump_signature(signature),
    }
    (folder / SAGEMAKER).parent.mkdir()
    archived = io.BytesIO()
    with tarfile.open(fileobj=archived, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    (folder / SAGEMAKER).write_bytes(gzip.compress(archived.getvalue(), mtime=0))


def frameworks() -> dict[str, str]:
    """The versions that the files were made with; a server that reads them compares its own."""
    return {"python": platform.python_version()} | {name: version(name) for name in FRAMEWORKS}

"""What each fault of the corpus meets: kubeconform alone, kubeconform with the CRD of InferenceService that KServe
offers beside the full one and that takes any field of a spec, and all of validate.py.

python tests/bench/corpus_table.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import writers  # noqa: F401  it finds the modules of the tests

import conftest  # isort: skip
import corpus

from gitops.cli import table
from gitops.manifests import schemas
from gitops.programs import tools


def main(argv: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        work = Path(folder)
        conftest.copy_checkout(work / "checkout")
        (work / "root").mkdir()
        corpus.copy(work / "checkout", work / "root")
        ours = corpus.verdicts(work / "root")
        stock = corpus.verdicts(work / "root", minimal(work / "schemas"))
    rows = [
        {
            "fault": fixture.name,
            "catcher": ", ".join(sorted(fixture.catchers)),
            "kubeconform": mark(ours[fixture.name].schema),
            "with the minimal CRD": mark(stock[fixture.name].schema),
            "validate.py": mark(ours[fixture.name].all),
        }
        for fixture in corpus.FIXTURES
    ]
    found = {column: sum(row[column] == "found" for row in rows) for column in list(rows[0])[2:]}
    print(table(rows))
    print(f"\n{len(rows)} faults, found by " + ", ".join(f"{column} {number}" for column, number in found.items()))
    return 0


def mark(lines: Sequence[str]) -> str:
    return "found" if lines else "-"


def minimal(target: Path) -> Path:
    """The schemas with the stock definition of InferenceService in the place of the full one."""
    shutil.copytree(schemas.folder(), target)
    file = target / schemas.name("serving.kserve.io", "v1beta1", "InferenceService")
    metadata = json.loads(file.read_text())["properties"]["metadata"]
    stock = tools.SCHEMAS.path / "github.com/kserve/kserve/config/crd/minimal"
    for source in stock.glob("*.yaml"):
        for name, schema in schemas.of_definitions(source, metadata):
            (target / name).write_text(json.dumps(schema))
    return target


if __name__ == "__main__":
    raise SystemExit(main())

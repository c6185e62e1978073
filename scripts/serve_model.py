"""Try a model as it is in this folder: train it as a draft and serve it, without Git, S3 or Kubernetes.

Runs with the Python of model-src/.venv and serves until it is stopped; HOST and PORT choose another address.

  make serve
  PORT=5002 make serve
  model-src/.venv/bin/python scripts/serve_model.py diabetes
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "model-src"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="iris", help="a folder of model-src/models/ (%(default)s)")
    model = parser.parse_args(argv).model
    # DVC starts `python`: it has to be this one.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.chdir(SOURCE)
    for command in (
        ["dvc", "repro", "--quiet", f"models/{model}/dvc.yaml"],
        ["lifecycle", "version", model, "--draft"],
    ):
        if code := subprocess.run([sys.executable, "-m", *command], stdout=sys.stderr).returncode:
            return code
    version = SOURCE / "artifacts" / model
    described = json.loads((version / "manifest.json").read_text())
    reference = (version / "reference/reference.csv").read_text().splitlines()[1].split(",")
    row = [float(cell) if cell else None for cell in reference[: len(described["signature"]["inputs"])]]
    url = f"http://{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '5001')}"
    print(
        "try it from another terminal:\n"
        f"  curl {url}/predict -H 'Content-Type: application/json' -d '{json.dumps({'features': row})}'\n"
        f"or open {url}/docs; stop it with Ctrl-C",
        file=sys.stderr,
        flush=True,
    )
    env = os.environ | {"MODEL_URI": str(version / "onnx"), "MODEL_DIGEST": described["digest"]}
    os.execve(sys.executable, [sys.executable, "-m", "serving"], env)


if __name__ == "__main__":
    raise SystemExit(main())

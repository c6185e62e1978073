"""Try a model as it is in this folder: train it as a draft and serve it, without Git, S3 or Kubernetes.

Trains and serves with the Python of model-src/.venv, until it is stopped; HOST and PORT choose another address.

  make serve
  PORT=5002 make serve
  python scripts/serve_model.py wine
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence

from gitops import cli
from gitops.programs import model_python
from gitops.repo import layout

from contract.errors import Refused


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("model", nargs="?", help="a folder of model-src/models/ (default: the first)")
    return cli.run(serve, parser.parse_args(argv))


def serve(args: argparse.Namespace) -> int:
    python = model_python.find(args.root, model_python.MLFLOW)
    model = args.model or next(iter(layout.models(args.root)), None)
    if model is None:
        raise Refused("model-src/models: no model; make one with `python scripts/new_model.py NAME --only model`")
    # DVC starts `python`: it has to be this one.
    os.environ["PATH"] = f"{python.path.parent}{os.pathsep}{os.environ['PATH']}"
    os.chdir(python.source)
    pipeline = f"models/{model}/dvc.yaml"
    for command in (["dvc", "repro", "--quiet", pipeline], ["lifecycle", "version", model, "--draft"]):
        if code := subprocess.run([python.path, "-m", *command], stdout=sys.stderr).returncode:
            return code
    version = python.source / "artifacts" / model
    text = (version / "manifest.json").read_bytes()
    described = json.loads(text)
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
    env = os.environ | {
        "MODEL_URI": str(version / "onnx"),
        "MODEL_DIGEST": described["digest"],
        "MODEL_MANIFEST": f"sha256:{hashlib.sha256(text).hexdigest()}",
    }
    os.execve(python.path, [str(python.path), "-m", "serving"], env)


if __name__ == "__main__":
    raise SystemExit(main())

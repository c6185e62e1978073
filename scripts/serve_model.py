"""Try the iris model as it is in this folder: train it as a draft and serve it, without Git, S3 or Kubernetes.

Runs with the Python of model-src/.venv and serves until it is stopped; HOST and PORT choose another address.

  make serve
  PORT=5002 make serve
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
DATA, VERSION, REPORTS = "data/iris.csv", "artifacts/draft", "reports/draft"


def main(argv: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    os.chdir(SOURCE)
    for command in (
        ["iris.generate_data", "--out", DATA],
        ["iris.train", "--draft", "--data", DATA, "--out", VERSION, "--reports", REPORTS],
    ):
        if code := subprocess.run([sys.executable, "-m", *command], stdout=sys.stderr).returncode:
            return code
    digest = json.loads((SOURCE / VERSION / "manifest.json").read_text())["digest"]
    url = f"http://{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '5001')}"
    print(
        "try it from another terminal:\n"
        f"  curl {url}/predict -H 'Content-Type: application/json' -d '{{\"features\": [5.3, 3.5, 1.4, 0.2]}}'\n"
        f"or open {url}/docs; stop it with Ctrl-C",
        file=sys.stderr,
        flush=True,
    )
    env = os.environ | {"MODEL_URI": f"{VERSION}/onnx", "MODEL_DIGEST": digest}
    os.execve(sys.executable, [sys.executable, "-m", "serving"], env)


if __name__ == "__main__":
    raise SystemExit(main())

"""Make the locks again: hashed requirements files from the pyproject.toml files, for every supported Python.

Run it after a dependency was changed. Locks are made from the largest down, each one a constraint of the next, so that
whatever two of them name, they name in the same version. What is locked already stays unless --upgrade is
given. With --policies the engine's admission policies are locked, by their digests.

  .venv/bin/python scripts/lock.py
  .venv/bin/python scripts/lock.py --upgrade
  .venv/bin/python scripts/lock.py --policies
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# uv gives up an index that is silent, and not one that drips. This runs without the modules that have the other times.
SECONDS = 1200

# (folder of the project, its lock, what is locked, the larger lock that it is a part of)
LOCKS = (
    (".", "requirements-test.txt", ["pyproject.toml", "--group", "test"], None),
    (".", "requirements-cluster.txt", ["pyproject.toml", "--group", "cluster"], "requirements-test.txt"),
    (".", "requirements-scan.txt", ["pyproject.toml", "--group", "scan"], "requirements-test.txt"),
    (".", "requirements.txt", ["pyproject.toml"], "requirements-cluster.txt"),
    ("model-src", "requirements-test.txt", ["--group", "test"], None),
    ("model-src", "requirements-kubeflow.txt", ["--group", "kubeflow"], "requirements-test.txt"),
    ("model-src", "requirements-monitor.txt", ["--group", "monitor"], "requirements-test.txt"),
    ("model-src", "requirements-train.txt", ["--group", "train"], "requirements-test.txt"),
    ("model-src", "requirements-serve.txt", ["--group", "serve"], "requirements-train.txt"),
    ("model-src/extras/feature_store", "requirements.txt", ["requirements.in"], None),
    ("tools", "requirements.txt", ["requirements.in"], None),
    # The program that a machine image of Amazon Linux has.
    ("tools", "awscli/requirements.txt", ["awscli/requirements.in"], None),
    # The version that makes the locks.
    ("tools", "uv/requirements.txt", ["uv/requirements.in", "--no-deps"], "../requirements-test.txt"),
    ("tools", "redis/requirements.txt", ["redis/requirements.in", "--no-deps"], None),
    ("tools", "kserve-storage/requirements.txt", ["kserve-storage/requirements.in", "--no-deps"], None),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that are allowed")
    parser.add_argument("--policies", action="store_true", help="lock the admission policies and nothing else")
    args = parser.parse_args(argv)
    if args.policies:
        from gitops.checks import admission  # all else needs no package

        (ROOT / admission.LOCK).write_text(admission.lock(ROOT))
        return 0
    for folder, lock, sources, part_of in LOCKS:
        path = (Path(folder) / lock).as_posix()
        print(path, file=sys.stderr)
        constraint = ["--constraint", part_of] if part_of else []
        upgrade = ["--upgrade"] if args.upgrade else []
        command = [
            sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes",
            "--python-version", "3.11", "--output-file", lock, *upgrade, *constraint, *sources,
        ]  # fmt: skip
        env = os.environ | {"UV_CUSTOM_COMPILE_COMMAND": "python scripts/lock.py", "UV_PYTHON_DOWNLOADS": "never"}
        try:
            done = subprocess.run(command, cwd=ROOT / folder, env=env, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            print(f"error: {path}: no end after {SECONDS} s; is the package index reachable?", file=sys.stderr)
            return 1
        if done.returncode:
            print(f"error: {path}: could not be made, see above", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

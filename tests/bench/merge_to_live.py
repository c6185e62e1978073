"""From a merge to the live object: with a request to Argo CD to look now, and by its own polling.

Starts a control plane of its own, releases one of two versions again and again in dev, and takes the time from the
moment when the push has ended to the moment when the live object names the version.

  python tests/bench/merge_to_live.py
  python tests/bench/merge_to_live.py --merges 5 --polled 0
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import writers  # noqa: F401  it finds the modules of the tests

import conftest  # isort: skip
import status
from gitops.cli import table
from gitops.cluster.control_plane import ControlPlane


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--merges", type=int, default=20, help="with a refresh (%(default)s)")
    parser.add_argument("--polled", type=int, default=3, help="by polling, some minutes each (%(default)s)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        work = Path(folder)
        os.environ.update(conftest.isolated(work))
        conftest.copy_checkout(work / "checkout")
        for command in (["init", "-q", "-b", "cicd"], ["add", "-A"], ["commit", "-qm", "The checkout"]):
            subprocess.run(["git", *command], cwd=work / "checkout", check=True)
        plane = ControlPlane(work / "checkout", work / "state")
        try:
            measure(plane, work, args)
        finally:
            plane.down()
    return 0


def measure(plane: ControlPlane, work: Path, args: argparse.Namespace) -> None:
    began = time.monotonic()
    plane.up()
    print(f"the control plane was ready after {time.monotonic() - began:.0f} s")
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": f"http://{plane.address('s3')}", "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local-secret", "AWS_REGION": "eu-west-1",
    }  # fmt: skip
    uris = []
    for word in ("one", "two"):
        made = conftest.package(work / word, word)
        bucket = f"s3://{conftest.BUCKET}"
        done = conftest.run("upload_model", "--model", "lily", "--artifacts", made.folder, "--bucket", bucket)
        assert done.code == 0, done.err
        uris.append(made.uri)
    merge(plane, uris[0])
    wait(plane, uris[0], refresh=True)
    rows = []
    for how, count, refresh in (("refresh", args.merges, True), ("Argo CD's polling", args.polled, False)):
        times = []
        for number in range(count):
            uri = uris[(number + 1) % 2]
            merge(plane, uri)
            times.append(wait(plane, uri, refresh=refresh))
        if times:
            rows.append(
                {"how": how, "merges": count, "median s": f"{statistics.median(times):.2f}",
                 "worst s": f"{max(times):.2f}"}
            )  # fmt: skip
    print(table(rows))


def merge(plane: ControlPlane, uri: str) -> None:
    done = conftest.run(
        "bump_model", "--root", plane.clone, "--app", "lily-sklearn", "--env", "dev", "--model-uri", uri, "--push"
    )  # fmt: skip
    assert done.code == 0, done.err


def wait(plane: ControlPlane, uri: str, *, refresh: bool) -> float:
    """Seconds until the live object names the version."""
    began = asked = time.monotonic()
    if refresh:
        status.refresh(plane.cluster)
    while True:
        found = plane.cluster.get("serving.kserve.io/v1beta1", "InferenceService", "lily-sklearn", "ml-dev")
        if found and found["spec"]["predictor"]["model"]["storageUri"] == f"{uri}sklearn/":
            return time.monotonic() - began
        if refresh and time.monotonic() > asked + 2:
            status.refresh(plane.cluster)
            asked = time.monotonic()
        if time.monotonic() > began + 600:
            raise SystemExit(f"{uri}: not live after ten minutes")
        time.sleep(0.02)


if __name__ == "__main__":
    raise SystemExit(main())

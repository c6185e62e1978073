"""Many writers on one remote: bumps by this repository's command beside a naive pull, rebase and push.

Both kinds start from the same remote with one app a process, change the same file in the same way, and retry until
their change has landed or they give up. Prints how many landed and how long each took.

  python tests/bench/writers.py                        20 processes, 50 changes each, both kinds
  python tests/bench/writers.py --processes 4 --changes 5
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/guard"), str(ROOT / "scripts")]

import conftest  # noqa: E402

from gitops.cli import table  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--changes", type=int, default=50, help="changes of each process")
    args = parser.parse_args(argv)
    with ground() as (work, uris):
        template = make_template(work / "template", args.processes)
        rows = [
            measure(kind, call, template, work / kind, args, uris)
            for kind, call in (("bump_model.py", bump), ("pull --rebase, push", naive))
        ]
    print(table(rows))
    return 0


@contextlib.contextmanager
def ground() -> Iterator[tuple[Path, list[str]]]:
    """A folder to work in and the URIs of two versions, in an S3 server to which this process's environment leads."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        work = Path(folder)
        environment = conftest.isolated(work)
        with conftest.s3_running(work / "s3", environment) as s3:
            os.environ.update(environment | s3.variables)
            yield work, [s3.upload(conftest.package(work / word, word)) for word in ("one", "two")]


def make_template(folder: Path, apps: int) -> Path:
    """A bare repository with `apps` copies of lily-sklearn in dev."""
    conftest.copy_checkout(folder)
    for number in range(apps):
        for source in ("apps/lily-sklearn", "overlays/dev/lily-sklearn"):
            copy = Path(shutil.copytree(folder / source, folder / source.replace("lily-sklearn", name(number))))
            for file in copy.iterdir():
                file.write_text(file.read_text().replace("lily-sklearn", name(number)))
    for command in (["init", "-q", "-b", "cicd"], ["add", "-A"], ["commit", "-qm", "Many apps"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    bare = folder.with_suffix(".git")
    subprocess.run(["git", "clone", "-q", "--bare", folder, bare], check=True)
    return bare


def name(number: int) -> str:
    return f"app-{number:03d}"


def measure(
    kind: str, call: object, template: Path, work: Path, args: argparse.Namespace, uris: Sequence[str]
) -> dict[str, object]:
    remote = Path(shutil.copytree(template, work / "remote.git"))
    clones = []
    for number in range(args.processes):
        clones.append(work / name(number))
        subprocess.run(["git", "clone", "-q", remote, clones[-1]], check=True)
    before = int(conftest.git(remote, "rev-list", "--count", "cicd"))
    began = time.monotonic()
    with ThreadPoolExecutor(args.processes) as pool:
        times = list(pool.map(lambda n: call(clones[n], name(n), args.changes, uris), range(args.processes)))  # type: ignore[operator]
    wall = time.monotonic() - began
    landed = int(conftest.git(remote, "rev-list", "--count", "cicd")) - before
    merges = int(conftest.git(remote, "rev-list", "--count", "--merges", "cicd"))
    wanted = uris[(args.changes - 1) % 2].split("/")[-2]
    kept = sum(
        f"model.mlops/version: {wanted}" in conftest.git(remote, "show", f"cicd:overlays/dev/{name(n)}/release.yaml")
        for n in range(args.processes)
    )
    every = [one for listed in times for one in listed]
    return {
        "writer": kind,
        "asked": args.processes * args.changes,
        "said done": len(every),
        "landed": landed,
        "apps with their last version": kept,
        "merge commits": merges,
        "median s": f"{statistics.median(every):.2f}",
        "worst s": f"{max(every):.2f}",
        "all in s": f"{wall:.0f}",
    }


def bump(clone: Path, app: str, changes: int, uris: Sequence[str]) -> list[float]:
    """Seconds of every bump that was successful."""
    times = []
    for number in range(changes):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, ROOT / "scripts/bump_model.py", "--root", clone, "--app", app, "--env", "dev",
             "--model-uri", uris[number % 2], "--push"],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            print(f"{app}: {done.stderr}", file=sys.stderr)
        else:
            times.append(time.monotonic() - began)
    return times


def naive(clone: Path, app: str, changes: int, uris: Sequence[str]) -> list[float]:
    """The same edit by search and replace, with no check at all, tried as often as bump_model.py tries."""
    times = []
    file = clone / f"overlays/dev/{app}/release.yaml"
    versions = ["unreleased", *(uri.split("/")[-2] for uri in uris)]
    for number in range(changes):
        began = time.monotonic()
        text = file.read_text()
        for old in versions:
            text = text.replace(f"model.mlops/version: {old}\n", f"model.mlops/version: {versions[1 + number % 2]}\n")
        file.write_text(text)
        subprocess.run(["git", "commit", "-qam", f"Bump {app}"], cwd=clone, check=True)
        for attempt in range(20):
            pulled = subprocess.run(["git", "pull", "-q", "--rebase"], cwd=clone, capture_output=True)
            pushed = subprocess.run(["git", "push", "-q"], cwd=clone, capture_output=True)
            if pulled.returncode == pushed.returncode == 0:
                times.append(time.monotonic() - began)
                break
            time.sleep(random.uniform(0, min(0.05 * 2**attempt, 5)))
    return times


if __name__ == "__main__":
    raise SystemExit(main())

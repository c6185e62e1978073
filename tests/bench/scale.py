"""What one change costs in a large fleet beside a small one, by the same commands in turns in one run.

python tests/bench/scale.py
python tests/bench/scale.py --apps 3 100 --commits 100 1000 --runs 3
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import fleet
from writers import ROOT, ground

from conftest import git  # isort: skip

from contract.digest import MANIFEST  # isort: skip
from contract.manifest import parse  # isort: skip

Commands = dict[str, Callable[[int], list[str]]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", type=int, nargs="+", default=[3, 1000])
    parser.add_argument("--commits", type=int, nargs="+", default=[100, 10_000], help="releases in each history")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="these commands")
    args = parser.parse_args(argv)
    with ground() as (work, uris):
        versions = [named(work / word) for word in ("one", "two")]
        clones = {}
        for apps, commits in zip(args.apps, args.commits, strict=True):
            bare = fleet.make(work / f"fleet-{apps}", apps, commits, versions)
            subprocess.run(["git", "clone", "-q", "-b", "cicd", bare, work / f"clone-{apps}"], check=True)
            clones[apps] = work / f"clone-{apps}"
        found: dict[str, dict[int, list[float]]] = {}
        for number in range(args.runs):
            for what, (prepare, command) in commands(uris).items():
                if args.only and what not in args.only:
                    continue
                for apps, clone in clones.items():
                    prepare(clone, number)
                    took = timed(command(number), clone)
                    found.setdefault(what, {}).setdefault(apps, []).append(took)
    show(found)
    return 0


def named(folder: Path) -> fleet.Named:
    text = (folder / MANIFEST).read_bytes()
    manifest = parse(text, MANIFEST)
    return fleet.Named(manifest.version, manifest.digest, f"sha256:{hashlib.sha256(text).hexdigest()}")


def reset(clone: Path, _: int) -> None:
    git(clone, "fetch", "-q", "origin")
    git(clone, "reset", "-q", "--hard", "origin/cicd")


def changed(clone: Path, number: int) -> None:
    reset(clone, number)
    file = clone / f"overlays/dev/{fleet.name(1)}/kustomization.yaml"
    file.write_text(f"{file.read_text()}# {number}\n")
    git(clone, "commit", "-qam", "A change")


def commands(uris: Sequence[str]) -> dict[str, tuple[Callable[[Path, int], None], Callable[[int], list[str]]]]:
    """What is timed, and what is done before it each time."""
    app = ("--app", fleet.name(1))
    return {
        "releases.py": (reset, lambda n: ["releases.py"]),
        "releases.py --app": (reset, lambda n: ["releases.py", *app]),
        "list_versions.py": (reset, lambda n: ["list_versions.py", "--model", "lily"]),
        "bump_model.py": (
            reset,
            lambda n: ["bump_model.py", *app, "--env", "dev", "--model-uri", uris[0], "--commit"],
        ),
        "promote_model.py": (reset, lambda n: ["promote_model.py", *app, "--to", "prod", "--dry-run"]),
        "rollback_model.py": (reset, lambda n: ["rollback_model.py", *app, "--env", "dev", "--reason", "slow"]),
        "validate.py --changed-since": (changed, lambda n: ["validate.py", "--changed-since", "origin/cicd"]),
        "render.py --changed-since": (changed, lambda n: ["render.py", "--changed-since", "origin/cicd"]),
    }


def timed(command: list[str], clone: Path) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / command[0], "--root", clone, *command[1:]], capture_output=True, text=True
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return took


def show(found: dict[str, dict[int, list[float]]]) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    sizes = list(next(iter(found.values())))
    print("| command | " + " | ".join(f"{size} apps, s" for size in sizes) + " | ratio |")
    print("| --- |" + " ---: |" * (len(sizes) + 1))
    for what, times in found.items():
        medians = [statistics.median(times[size]) for size in sizes]
        print(f"| `{what}` | " + " | ".join(f"{median:.2f}" for median in medians), end="")
        print(f" | {medians[-1] / medians[0]:.1f} |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

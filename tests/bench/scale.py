"""What one change costs in fleets of several sizes, by the same commands in turns in one run.

python tests/bench/scale.py
python tests/bench/scale.py --apps 3 100 --commits 100 1000 --runs 3 --plot growth.svg
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fleet
from writers import ROOT, ground

from conftest import git  # isort: skip

from gitops.manifests import schemas
from gitops.programs import tools
from gitops.repo import layout
from gitops.repo.policy import read_policy

from contract.digest import MANIFEST  # isort: skip
from contract.manifest import parse  # isort: skip

Times = dict[str, dict[int, list[float]]]
LOOPED = 40
"""The overlays of the loops that start a program for each; the time of all is told from theirs."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", type=int, nargs="+", default=[3, 30, 300, 1000])
    parser.add_argument(
        "--commits", type=int, nargs="+", default=[100, 300, 3000, 10_000], help="releases in each history"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="these commands")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw how each grows, with matplotlib of model-src/")
    args = parser.parse_args(argv)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {_memory()}, Python {platform.python_version()}, {_git()}\n")
    with ground() as (work, uris):
        os.environ["MODEL_GITOPS_RENDERS"] = str(work / "renders.sqlite")
        versions = [named(work / word) for word in ("one", "two")]
        clones = {}
        for apps, commits in zip(args.apps, args.commits, strict=True):
            bare = fleet.make(work / f"fleet-{apps}", apps, commits, versions)
            subprocess.run(["git", "clone", "-q", "-b", "cicd", bare, work / f"clone-{apps}"], check=True)
            clones[apps] = work / f"clone-{apps}"
        found: Times = {}
        # Once before it counts, nothing remembered, and then in turns: what else the machine does meets all of them.
        for number in range(args.runs + 1):
            for what, (prepare, command) in commands(uris).items():
                for apps, clone in clones.items() if not args.only or what in args.only else ():
                    prepare(clone, number)
                    took = timed(command(number), clone)
                    if not number and what.startswith("validate"):
                        print(f"`{what}` in {apps} apps, the first time: {took:.2f} s", flush=True)
                    if number:
                        found.setdefault(what, {}).setdefault(apps, []).append(took)
        if found:
            show(found)
        if args.plot:
            draw(found, args.plot)
        if not args.only:
            floor(clones[args.apps[0]], uris, args.runs)
            many(clones[args.apps[-1]], args.apps[-1], uris[0])
            whole(clones[args.apps[-1]])
    return 0


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def _git() -> str:
    return subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def named(folder: Path) -> fleet.Named:
    text = (folder / MANIFEST).read_bytes()
    manifest = parse(text, MANIFEST)
    return fleet.Named(manifest.version, manifest.digest, f"sha256:{hashlib.sha256(text).hexdigest()}")


def reset(clone: Path, _: int) -> None:
    git(clone, "fetch", "-q", "origin")
    git(clone, "reset", "-q", "--hard", "origin/cicd")


def changed(clone: Path, number: int) -> None:
    """A release in dev that nothing else has."""
    reset(clone, number)
    path = f"overlays/dev/{fleet.name(1)}/release.yaml"
    text = git(clone, "show", f"origin/main:{path}").encode() + b"\n"
    (clone / path).write_bytes(fleet.released(text, fleet.Named.drawn(10**6 + number), "sklearn"))
    git(clone, "commit", "-qam", "A change")


Prepare, Command = Callable[[Path, int], None], Callable[[int], list[str]]


def commands(uris: Sequence[str]) -> dict[str, tuple[Prepare, Command]]:
    """What is timed, and what is done before it each time."""
    app = ("--app", fleet.name(1))
    bump = ["bump_model.py", *app, "--env", "dev", "--model-uri", uris[0], "--commit"]
    return {
        "releases.py": (reset, lambda n: ["releases.py"]),
        "releases.py --app": (reset, lambda n: ["releases.py", *app]),
        "list_versions.py": (reset, lambda n: ["list_versions.py", "--model", "lily"]),
        "bump_model.py": (reset, lambda n: bump),
        "promote_model.py": (reset, lambda n: ["promote_model.py", *app, "--to", "prod", "--dry-run"]),
        "rollback_model.py": (reset, lambda n: ["rollback_model.py", *app, "--env", "dev", "--reason", "slow"]),
        "validate.py --changed-since": (changed, lambda n: ["validate.py", "--changed-since", "origin/cicd"]),
        "render.py --changed-since": (changed, lambda n: ["render.py", "--changed-since", "origin/cicd"]),
    }


def timed(command: Sequence[str], clone: Path) -> float:
    with clock() as seconds:
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / command[0], "--root", clone, *command[1:]],
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return seconds[0]


@contextlib.contextmanager
def clock() -> Iterator[list[float]]:
    """Of the block, when it has ended."""
    found: list[float] = []
    began = time.perf_counter()
    yield found
    found.append(time.perf_counter() - began)


def show(found: Times) -> None:
    sizes = list(next(iter(found.values())))
    print("| command, median s | " + " | ".join(f"{size} apps" for size in sizes) + " | last / first |")
    print("| --- |" + " ---: |" * (len(sizes) + 1))
    for what, times in found.items():
        medians = [statistics.median(times[size]) for size in sizes]
        print(f"| `{what}` | " + " | ".join(f"{median:.2f}" for median in medians), end="")
        print(f" | {medians[-1] / medians[0]:.1f} |", flush=True)


_DRAW = """
import json, sys
import matplotlib
matplotlib.use("svg")
import matplotlib.pyplot as plot
figure, axes = plot.subplots(figsize=(8, 5), layout="constrained")
for what, points in json.load(sys.stdin).items():
    sizes, seconds = zip(*points)
    axes.plot(sizes, seconds, marker="o", label=what)
axes.set(xscale="log", yscale="log", xlabel="apps, each in three environments", ylabel="median, s")
marks = [0.25, 0.5, 1, 2, 4, 8]
axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
axes.set_yticks(marks, map(str, marks))
axes.minorticks_off()
axes.grid(alpha=0.3)
figure.legend(loc="outside right upper", frameon=False, fontsize="small")
figure.savefig(sys.argv[1])
"""


def draw(found: Times, file: Path) -> None:
    points = {
        what: [(size, statistics.median(seconds)) for size, seconds in times.items()] for what, times in found.items()
    }
    python = ROOT / "model-src/.venv/bin/python"
    subprocess.run([python, "-c", _DRAW, file.resolve()], input=json.dumps(points), text=True, check=True)
    print(f"\ndrawn in {file}")


def floor(clone: Path, uris: Sequence[str], runs: int) -> None:
    """A bump beside what it cannot do without: Python with what it imports, two renders, and git's part of a commit."""
    overlay = f"overlays/dev/{fleet.name(1)}"
    least = {
        "Python, imports": [sys.executable, "-c", "import sys; sys.path[:0] = sys.argv[1:]; import bump_model",
                            ROOT / "scripts", ROOT / "model-src"],
        "first render": [tools.KUSTOMIZE.require(), "build", overlay],
        "second render": [tools.KUSTOMIZE.require(), "build", overlay],
        "git commit": ["git", "commit", "-q", "--allow-empty", "-m", "Nothing"],
    }  # fmt: skip
    sums, bumps = [], []
    for number in range(runs):
        reset(clone, number)
        with clock() as seconds:
            for command in least.values():
                subprocess.run(command, cwd=clone, check=True, capture_output=True)
        sums.append(seconds[0])
        reset(clone, number)
        bumps.append(timed(commands(uris)["bump_model.py"][1](number), clone))
    one, other = statistics.median(bumps), statistics.median(sums)
    print(f"\nA bump in the smallest fleet: {one:.2f} s, its floor ({', '.join(least)}): {other:.2f} s;"
          f" {one / other:.1f} times", flush=True)  # fmt: skip


def many(clone: Path, apps: int, uri: str) -> None:
    """A release of every app in one commit, beside the renders before and after it."""
    reset(clone, 0)
    folders = [f"overlays/dev/{fleet.name(number)}" for number in range(apps)]
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[1:3]; from gitops.manifests import kustomize;"
        "root, folders = Path(sys.argv[3]), sys.stdin.read().split();"
        "[kustomize.rendered_all(root, folders) for _ in range(2)]"
    )
    command = [sys.executable, "-c", code, ROOT / "scripts", ROOT / "model-src", clone]
    with clock() as renders:
        subprocess.run(command, input="\n".join(folders), text=True, check=True)
    asked = [word for folder in folders for word in ("--release", f"{folder.split('/')[2]}:dev={uri}")]
    bumps = timed(["bump_model.py", *asked, "--commit"], clone)
    print(f"\n{apps} releases in one commit: {bumps:.1f} s, their {2 * apps} renders: {renders[0]:.1f} s;"
          f" {bumps / renders[0]:.1f} times", flush=True)  # fmt: skip


def whole(clone: Path) -> None:
    """All checks of everything, beside loops that start kustomize, and kubeconform with the same schemas."""
    reset(clone, 0)
    folders = layout.folders(clone, read_policy(clone))
    ours = timed(["validate.py"], clone)
    some = folders[:: max(1, len(folders) // LOOPED)]
    kustomize, kubeconform = tools.KUSTOMIZE.require(), tools.KUBECONFORM.require()
    check = [kubeconform, "-strict", "-schema-location", f"{schemas.folder()}/{schemas.LOCATION}", "-"]
    texts = []
    with clock() as builds:
        for folder in some:
            texts.append(
                subprocess.run([kustomize, "build", folder], cwd=clone, check=True, capture_output=True).stdout
            )
    with clock() as checks:
        for text in texts:
            subprocess.run(check, input=text, check=True, capture_output=True)
    share = len(folders) / len(some)
    with clock() as check_of_all:
        subprocess.run(check, input=b"---\n".join(texts * round(share)), check=True, capture_output=True)
    each, one = (builds[0] + checks[0]) * share, builds[0] * share + check_of_all[0]
    print(f"\nAll checks of {len(folders)} renders: {ours:.1f} s."
          f" Kustomize and kubeconform started for each, told from {len(some)}: {each:.0f} s, {each / ours:.1f} times;"
          f" kustomize for each and kubeconform once: {one:.0f} s, {one / ours:.1f} times", flush=True)  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())

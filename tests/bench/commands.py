"""What commands cost beside the tools that do a part of their work, side by side in one run.

python tests/bench/commands.py
python tests/bench/commands.py --runs 3 --apps 30
"""

from __future__ import annotations

import argparse
import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from writers import ROOT, ground, make_template, name

from conftest import copy_checkout  # isort: skip

from gitops.cli import table
from gitops.manifests import schemas
from gitops.programs import tools
from gitops.repo import layout
from gitops.repo.policy import read_policy


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--apps", type=int, default=300, help="how many releases in one commit")
    args = parser.parse_args(argv)
    with ground() as (work, uris):
        edits(work, uris, args.runs)
        commits(work, uris, args.apps)
        checks(work / "checkout", args.runs)
    return 0


def edits(work: Path, uris: Sequence[str], runs: int) -> None:
    """One cold edit of one release. bump_model.py also verifies every byte and compares renders; the others do not."""
    clone = cloned(make_template(work / "one-app", 1), work / "edits")
    release = clone / f"overlays/dev/{name(0)}/release.yaml"
    overlay = clone / f"overlays/dev/{name(0)}"
    bump = [sys.executable, ROOT / "scripts/bump_model.py", "--root", clone, "--app", name(0), "--env", "dev"]
    compare(
        f"One edit, {runs} runs",
        runs,
        {
            "kustomize edit set image": lambda n: call(
                [tools.KUSTOMIZE.require(), "edit", "set", "image", f"model=example.com/model:{n}"], overlay
            ),
            "yq": lambda n: call(
                [tools.YQ.require(), "-i", f'.spec.predictor.model.storageUri = "{uris[n % 2]}sklearn/"', release],
                clone,
            ),
            "bump_model.py": lambda n: call([*bump, "--model-uri", uris[n % 2]], clone),
        },
    )


def commits(work: Path, uris: Sequence[str], apps: int) -> None:
    """Many releases in one commit beside one."""
    template = make_template(work / "many-apps", apps)
    rows = []
    for count in (1, apps):
        clone = cloned(template, work / f"commits-{count}")
        releases = [word for n in range(count) for word in ("--release", f"{name(n)}:dev={uris[0]}")]
        command = [sys.executable, ROOT / "scripts/bump_model.py", "--root", clone, *releases, "--commit"]
        seconds = timed(functools.partial(call, command, clone))
        rows.append({"releases in one commit": count, "s": seconds, "ms a release": seconds / count * 1000})
    show("Commits", rows)


def checks(checkout: Path, runs: int) -> None:
    """The whole sample rendered and validated."""
    copy_checkout(checkout)
    folders = [*layout.overlays(checkout, read_policy(checkout)), "argocd"]
    location = f"{schemas.folder()}/{schemas.LOCATION}"

    def loop(_: int) -> None:
        for folder in folders:
            render = subprocess.run(
                [tools.KUSTOMIZE.require(), "build", folder], cwd=checkout, stdout=subprocess.PIPE, check=True
            )
            subprocess.run([tools.KUBECONFORM.require(), "-strict", "-schema-location", location, "-"],
                           input=render.stdout, check=True)  # fmt: skip

    compare(
        f"{len(folders)} renders checked, {runs} runs",
        runs,
        {
            "kustomize build | kubeconform, in a loop": loop,
            "validate.py": lambda _: call([sys.executable, ROOT / "scripts/validate.py", "--root", checkout], checkout),
        },
    )


def cloned(template: Path, target: Path) -> Path:
    call(["git", "clone", "-q", template, target], template)
    return target


def call(command: Sequence[str | Path], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr}")


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(title: str, runs: int, calls: dict[str, Callable[[int], None]]) -> None:
    """Runs the calls in turns, so that whatever else the machine does hits them alike."""
    times: dict[str, list[float]] = {what: [] for what in calls}
    for number in range(runs):
        for what, work in calls.items():
            times[what].append(timed(functools.partial(work, number)))
    first = statistics.median(next(iter(times.values())))
    show(title, [
        {"": what, "median s": statistics.median(listed), "worst s": max(listed),
         "ratio of medians": statistics.median(listed) / first}
        for what, listed in times.items()
    ])  # fmt: skip


def show(title: str, rows: Sequence[dict[str, object]]) -> None:
    shown = [{key: f"{v:.3g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows]
    print(f"\n{title}\n\n{table(shown)}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

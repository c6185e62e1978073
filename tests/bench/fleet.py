"""A repository of many apps with a history of many releases, in the shapes of the sample.

python tests/bench/fleet.py FOLDER --apps 1000 --commits 10000
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/guard"), str(ROOT / "scripts")]

import conftest  # noqa: E402

ENVIRONMENTS = ("dev", "staging", "prod")
SHAPES = {"lily-api": "onnx", "lily-sklearn": "sklearn", "lily-batch": "onnx"}


@dataclass(frozen=True)
class Named:
    """What a release file has of a version, and the image where there is one."""

    version: str
    digest: str
    manifest: str

    @classmethod
    def drawn(cls, number: int) -> Named:
        """A version that nothing stores."""
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        day = f"2025-{number // 28 % 12 + 1:02d}-{number % 28 + 1:02d}"
        return cls(f"{day}-{digest[:12]}", f"sha256:{digest}", f"sha256:{digest[::-1]}")


def name(number: int) -> str:
    return f"app-{number:04d}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--apps", type=int, default=1000)
    parser.add_argument("--commits", type=int, default=10_000)
    args = parser.parse_args(argv)
    print(make(args.folder, args.apps, args.commits))
    return 0


def make(folder: Path, apps: int, commits: int, last: Sequence[Named] = ()) -> Path:
    """A bare repository with `apps` apps in three environments, and `commits` releases after another on cicd, half of
    which come by a merge. The first three apps have had `last` everywhere in the end, prod but the last of them."""
    work = folder / "work"
    conftest.copy_checkout(work)
    files = dict(_files(work, apps))
    for path, text in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(text)
    for args in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "A fleet"], ["branch", "cicd"]):
        _git(work, *args)
    given = b"".join(_releases(files, apps, commits, last))
    _git(work, "fast-import", "--quiet", stdin=given)
    bare = folder / "fleet.git"
    _git(folder, "clone", "-q", "--bare", str(work), str(bare))
    _git(bare, "repack", "-adq")
    return bare


def _files(work: Path, apps: int) -> Iterator[tuple[str, bytes]]:
    for number in range(apps):
        like = list(SHAPES)[number % len(SHAPES)]
        for source in (f"apps/{like}", *(f"overlays/{environment}/{like}" for environment in ENVIRONMENTS)):
            for file in sorted((work / source).iterdir()):
                path = f"{source}/{file.name}".replace(like, name(number))
                yield path, file.read_bytes().replace(like.encode(), name(number).encode())


def _releases(files: dict[str, bytes], apps: int, commits: int, last: Sequence[Named]) -> Iterator[bytes]:
    """Commands of git fast-import. Source of the format: https://git-scm.com/docs/git-fast-import"""
    places = list(product(range(apps), ENVIRONMENTS))
    # Each app has versions of its own, the same in all environments.
    rounds = ((*places[at % len(places)], at // len(places)) for at in range(commits))
    given = [(number, environment, Named.drawn(turn * apps + number)) for number, environment, turn in rounds]
    given += [
        (*place, named)
        for named in last
        for place in product(range(min(apps, 3)), ENVIRONMENTS)
        if named != last[-1] or place[1] != ENVIRONMENTS[-1]
    ]
    seconds = 1_760_000_000
    for at, (number, environment, named) in enumerate(given):
        flavour = list(SHAPES.values())[number % len(SHAPES)]
        path = f"overlays/{environment}/{name(number)}/release.yaml"
        text = released(files[path], named, flavour)
        mark, first = 2 * at + 1, b"from refs/heads/cicd^0\n" if not at else b""
        body = b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(text), text)
        words = f"Release {name(number)} in {environment} to {named.version}".encode()
        who = b"committer Fleet <fleet@example.com> %d +0000\n" % (seconds + at)
        if at % 2:
            before = b":%d" % (mark - 2)
            yield b"commit refs/heads/side\nmark :%d\n%sdata %d\n%s\nfrom %s\n%s" % (
                mark, who, len(words), words, before, body,
            )  # fmt: skip
            yield b"commit refs/heads/cicd\nmark :%d\n%sdata %d\n%s\nfrom %s\nmerge :%d\n%s" % (
                mark + 1, who, len(words), words, before, mark, body,
            )  # fmt: skip
        else:
            yield b"commit refs/heads/cicd\nmark :%d\n%sdata %d\n%s\n%s%s" % (mark, who, len(words), words, first, body)
    yield b"reset refs/heads/side\nfrom 0000000000000000000000000000000000000000\n"


def released(text: bytes, named: Named, flavour: str) -> bytes:
    """A release file with this version."""
    values = {
        b"version: unreleased": f"version: {named.version}", b"/digest: unreleased": f"/digest: {named.digest}",
        b"/manifest: unreleased": f"/manifest: {named.manifest}",
        b"code-commit: unreleased": f"code-commit: {conftest.CODE_COMMIT}",
        b"data-digest: unreleased": f"data-digest: sha256:{'d' * 64}",
        b"mlflow-run: unreleased": f"mlflow-run: {'f' * 32}",
        b"s3://unreleased/": f"s3://{conftest.BUCKET}/models/lily/{named.version}/{flavour}/",
        b"image: unreleased": f"image: {conftest.IMAGE}",
    }  # fmt: skip
    for old, new in values.items():
        text = text.replace(old, new.encode())
    for variable, value in ((b"MODEL_DIGEST", named.digest), (b"MODEL_MANIFEST", named.manifest)):
        head, found, rest = text.partition(variable)
        if found:
            text = head + found + rest.replace(b"unreleased", value.encode(), 1)
    return text


def _git(folder: Path, *args: str, stdin: bytes | None = None) -> None:
    subprocess.run(["git", *args], cwd=folder, input=stdin, check=True)


if __name__ == "__main__":
    raise SystemExit(main())

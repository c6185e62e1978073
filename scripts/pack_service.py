"""Make the archive of the service that instances of EC2 boot from, store it in the model bucket and print its URI.

It has an interpreter, the wheels of model-src/requirements-serve.txt by their hashes, and the code that the image of
the service has, as the last commit has it. Its name is its SHA-256, it is stored only if it is new, and it is hashed
again as it is stored. Run it on Linux with the processor of the instances; what Amazon Linux 2023 could not load is
refused.

The interpreter is the one that runs this, or the one of --python. It has to be made for glibc 2.34 or older:
  uv python install 3.12 && python scripts/pack_service.py --python "$(uv python find --managed-python 3.12)"

  python scripts/pack_service.py --dry-run
  python scripts/bump_model.py --app wine-vm --env dev --image s3://mlops-prod/services/SHA256.tar.gz
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from gitops import cli
from gitops.models import s3
from gitops.models.s3 import Store
from gitops.programs import elf, service_archive
from gitops.programs.service_archive import About, Interpreter
from gitops.repo.git import Git
from gitops.repo.policy import POLICY_FILE

from contract import temporary
from contract.errors import Refused

FOLDER = "services"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--bucket", metavar="s3://BUCKET", help=f"default: the bucket of {POLICY_FILE}")
    parser.add_argument(
        "--python", default=sys.executable, metavar="PROGRAM", help="the Python to pack (default: this one)"
    )
    parser.add_argument(
        "--glibc", default="2.34", metavar="VERSION", help="of the instances' system (default: %(default)s)"
    )
    return cli.run(pack, parser.parse_args(argv))


def pack(args: argparse.Namespace) -> None:
    if platform.system() != "Linux":
        raise Refused(f"{platform.system()}: packs programs of Linux; run it there, or in a container")
    bucket = s3.model_bucket(args.bucket, args.root)
    system, python = _system(args.glibc), service_archive.interpreter(args.python)
    with temporary.folder("model-gitops-service-") as work:
        about = _code(args.root, work / "code", python)
        cli.say(f"packing Python {about.python} for {about.machine}, code of {about.code_commit[:12]}")
        service_archive.fill(work / "service", python, work / "code", about, system)
        archive = work / "service.tar.gz"
        service_archive.write(work / "service", archive)
        with archive.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        key, size = f"{FOLDER}/{sha256}.tar.gz", archive.stat().st_size
        added = False if args.dry_run else _store(bucket, key, archive, sha256)
    what = "would store" if args.dry_run else "stored" if added else "is stored already:"
    cli.say(f"{what} {size / 1e6:.0f} MB")
    uri = bucket.url(key)
    if args.json:
        cli.print_json({"uri": uri, "bytes": size, "added": added, "dry_run": args.dry_run} | asdict(about))
    else:
        print(uri)


def _system(glibc: str) -> elf.System:
    try:
        version = tuple(map(int, glibc.split(".")))
    except ValueError:
        raise Refused(f"--glibc {glibc}: no version; write it as 2.34") from None
    system = elf.AMAZON_LINUX_2023
    return replace(system, versions={**system.versions, "GLIBC": version})


def _code(root: Path, folder: Path, python: Interpreter) -> About:
    """Puts the service's code and its lock into a folder, as the last commit has them. Raises Refused where the working
    tree has others."""
    git = Git(root)
    image = git.show("HEAD", service_archive.IMAGE)
    if image is None:
        raise Refused(f"{service_archive.IMAGE}: not in the last commit; it tells what the service is made of")
    names = service_archive.code_files(image.decode())
    paths = [service_archive.LOCK, *(f"{service_archive.SOURCE}/{name}" for name in names)]
    git.require_clean(*paths)
    for path in paths:
        if not git.files("HEAD", path):
            raise Refused(f"{service_archive.IMAGE}: {path}: not in the last commit; commit it, or correct the name")
    git.export("HEAD", folder / "all", *paths)
    (folder / "all" / service_archive.SOURCE).rename(folder.with_name("only"))
    (folder / "all").rmdir()
    folder.rmdir()
    folder.with_name("only").rename(folder)
    lock = hashlib.sha256((folder / Path(service_archive.LOCK).name).read_bytes()).hexdigest()
    commit = git.text("log", "-1", "--format=%H", "HEAD", "--", *paths)
    return About(commit, lock, python.version, python.machine)


def _store(bucket: Store, key: str, archive: Path, sha256: str) -> bool:
    """Whether it was new. Raises Refused when what is stored has other bytes."""
    with archive.open("rb") as file:
        added = bucket.add(key, file, sha256)
    stored = bucket.sha256(key, archive.stat().st_size)
    if stored is None or stored[0] != sha256:
        raise Refused(
            f"{bucket.url(key)}: the stored bytes are not those of the archive; find out who wrote the object"
        )
    return added


if __name__ == "__main__":
    raise SystemExit(main())

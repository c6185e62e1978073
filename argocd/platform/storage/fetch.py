"""Fetch a model for a stock KServe server, and fail unless its bytes are those that were released.

Runs in KServe's own storage initializer image, so it needs nothing but Python and boto3. MODEL_DIGEST is the digest of
the version, from the pod's annotation. Nothing is left in the folder when anything is wrong: the server, which loads
whatever it finds there, does not start.

  MODEL_DIGEST=sha256:... python fetch.py s3://BUCKET/models/MODEL/VERSION/FLAVOUR/ FOLDER
"""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import boto3

URI = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<version>models/[^/]+/[^/]+/)(?P<flavour>[^/]+/)")


class Refused(Exception):
    pass


def fetch(uri: str, folder: Path, digest: str) -> None:
    match = URI.fullmatch(uri if uri.endswith("/") else f"{uri}/")
    if not match:
        raise Refused(f"{uri}: not the folder of a model version")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise Refused(f"MODEL_DIGEST: {digest!r}: no digest; the annotation model.mlops/digest of the pod names it")
    s3 = boto3.client("s3")

    def body(path: str):  # type: ignore[no-untyped-def]
        return s3.get_object(Bucket=match["bucket"], Key=match["version"] + path)["Body"]

    files = json.loads(body("manifest.json").read())["files"]
    lines = sorted(f"{file['sha256']}  {file['path']}\n" for file in files)
    found = "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
    if found != digest:
        raise Refused(f"{uri}: the manifest lists files of the digest {found}, and {digest} was released")
    wanted = [file for file in files if file["path"].startswith(match["flavour"])]
    if not wanted:
        raise Refused(f"{uri}: the version has no such folder")
    for file in wanted:
        target = folder / file["path"].removeprefix(match["flavour"])
        if not target.resolve().is_relative_to(folder.resolve()):
            raise Refused(f"{uri}: {file['path']}: leads out of the folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        sha256 = hashlib.sha256()
        with target.open("wb") as out:
            for chunk in body(file["path"]).iter_chunks(1 << 20):
                sha256.update(chunk)
                out.write(chunk)
        if sha256.hexdigest() != file["sha256"]:
            raise Refused(f"{uri}: {file['path']}: sha256 {sha256.hexdigest()}, and {file['sha256']} was released")
        print(f"{file['path']}: {file['sha256']}", flush=True)


def main(argv: list[str]) -> int:
    uri, folder = argv[0], Path(argv[1])
    try:
        fetch(uri, folder, os.environ.get("MODEL_DIGEST", ""))
    except Exception as error:  # whatever it is, nothing may be served
        for left in folder.iterdir() if folder.is_dir() else ():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

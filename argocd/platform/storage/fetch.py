"""Fetch a model for a stock KServe server, and fail unless its bytes are those that were released.

Runs in KServe's own storage initializer image, so it needs nothing but Python and boto3. MODEL_DIGEST is the digest of
the version and MODEL_MANIFEST the SHA-256 of its manifest, from the pod's annotations; releases of the former form
have no MODEL_MANIFEST. MODEL_REPLICA is the bucket to read in the place of the URI's, if there is one. Nothing is left
in the folder when anything is wrong: the server, which loads whatever it finds there, does not start.

  MODEL_DIGEST=sha256:... MODEL_MANIFEST=sha256:... python fetch.py s3://BUCKET/models/MODEL/VERSION/FLAVOUR/ FOLDER
"""

import hashlib
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import boto3
from botocore.config import Config

URI = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<version>models/(?P<model>[^/]+)/(?P<name>[^/]+)/)(?P<flavour>[^/]+/)")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
SHA256 = r"[0-9a-f]{64}"
NAMED = re.compile(f"sha256:{SHA256}")
PATH = re.compile(r"(?!.*(^|/)\.{1,2}(/|\Z))(?!.*//)[A-Za-z0-9._-][A-Za-z0-9._/-]*(?<!/)")
FIELDS = {
    "schema", "model", "version", "digest", "files", "metrics", "parameters", "signature", "code_commit",
    "data_digest", "evaluation_set_digest", "mlflow_run", "frameworks", "draft",
}  # fmt: skip
LIMIT = 1 << 20
"""Bytes of a manifest."""
WAIT = 60
"""Seconds without an answer, and those that an object may take beside what its size allows for."""
RATE = 100_000
"""Bytes a second. What is slower has ended, whether or not a byte comes now and then."""


class Refused(Exception):
    pass


def fetch(uri: str, folder: Path, digest: str, manifest: str, replica: str | None) -> None:
    match = URI.fullmatch(uri if uri.endswith("/") else f"{uri}/")
    if not match:
        raise Refused(f"{uri}: not the folder of a model version")
    if not NAMED.fullmatch(digest):
        raise Refused(f"MODEL_DIGEST: {digest!r}: no digest; the annotation model.mlops/digest of the pod names it")
    if manifest and not NAMED.fullmatch(manifest):
        raise Refused(f"MODEL_MANIFEST: {manifest!r}: no SHA-256; correct the pod's annotation model.mlops/manifest")
    bucket = match["bucket"]
    if replica is not None:
        # The digest binds the files, and not what a manifest of the former schema tells of them.
        if not manifest:
            raise Refused(f"MODEL_MANIFEST: missing, and MODEL_REPLICA is {replica!r}; release {uri} anew, with it")
        if not BUCKET.fullmatch(replica):
            raise Refused(f"MODEL_REPLICA: {replica!r}: no bucket; name the one to read in the place of {bucket}")
        uri, bucket = f"{uri} in {replica}", replica
    s3 = boto3.client("s3", config=Config(connect_timeout=5, read_timeout=WAIT))

    def chunks(path, size):  # type: ignore[no-untyped-def]
        """The object's bytes, one more than `size` at most."""
        _give_up_after(WAIT + size / RATE, f"{uri}: {path}: slower than {RATE} bytes a second")
        body = s3.get_object(Bucket=bucket, Key=match["version"] + path)["Body"]
        left = size + 1
        while left and (chunk := body.read(min(left, 1 << 20))):
            left -= len(chunk)
            yield chunk

    files = _files(b"".join(chunks("manifest.json", LIMIT)), match, digest, manifest)
    wanted = [file for file in files if file["path"].startswith(match["flavour"])]
    if not wanted:
        raise Refused(f"{uri}: the version has no such folder")
    for file in wanted:
        target = folder / file["path"].removeprefix(match["flavour"])
        target.parent.mkdir(parents=True, exist_ok=True)
        sha256, size = hashlib.sha256(), 0
        with target.open("wb") as out:
            for chunk in chunks(file["path"], file["size"]):
                size += len(chunk)
                if size > file["size"]:
                    raise Refused(f"{uri}: {file['path']}: larger than the {file['size']} bytes of the manifest")
                sha256.update(chunk)
                out.write(chunk)
        if size != file["size"] or sha256.hexdigest() != file["sha256"]:
            raise Refused(
                f"{uri}: {file['path']}: sha256 {sha256.hexdigest()} of {size} bytes, and {file['sha256']} of"
                f" {file['size']} was released"
            )
        print(f"{file['path']}: {file['sha256']}", flush=True)


def _files(text, match, digest, manifest):  # type: ignore[no-untyped-def]
    """The files that a version's manifest lists, once it is known to be the released version's."""
    found = "sha256:" + hashlib.sha256(text).hexdigest()
    if manifest and manifest != found:
        raise Refused(f"manifest.json: has the SHA-256 {found}, and {manifest} was released; it was altered")
    if len(text) > LIMIT:
        raise Refused(f"manifest.json: larger than {LIMIT} bytes")
    try:
        read = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise Refused(f"manifest.json: not JSON: {error}") from None
    _require(isinstance(read, dict) and read.keys() == FIELDS, f"its fields are not {', '.join(sorted(FIELDS))}")
    _require(type(read["schema"]) is int and read["schema"] in (1, 2), f"schema: {read['schema']!r}, not 1 or 2")
    files = read["files"]
    _require(isinstance(files, list) and all(map(_is_file, files)), "files: not each a path, a sha256 and a size")
    paths = [file["path"] for file in files]
    _require(paths == sorted(set(paths)), "files: not sorted by path, or a path stands twice")
    _require(
        ("signature.json" in paths) == (read["schema"] == 2), "files: signature.json is of schema 2, and only of it"
    )
    lines = sorted(f"{file['sha256']}  {file['path']}\n" for file in files)
    found = "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
    if found != digest:
        raise Refused(f"manifest.json: lists files of the digest {found}, and {digest} was released")
    named = (read["model"], read["version"], read["digest"])
    _require(named == (match["model"], match["name"], digest), f"is of {named}, not of {match[0]} and {digest}")
    return files


def _is_file(file):  # type: ignore[no-untyped-def]
    if not isinstance(file, dict) or file.keys() != {"path", "sha256", "size"}:
        return False
    path, sha256, size = file["path"], file["sha256"], file["size"]
    texts = isinstance(path, str) and PATH.fullmatch(path) and isinstance(sha256, str) and re.fullmatch(SHA256, sha256)
    return bool(texts) and type(size) is int and 0 <= size < 1 << 63


def _require(holds, fault):  # type: ignore[no-untyped-def]
    if not holds:
        raise Refused(f"manifest.json: {fault}")


def _once(pairs):  # type: ignore[no-untyped-def]
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a field stands twice")
    return dict(pairs)


def _finite(text):  # type: ignore[no-untyped-def]
    raise ValueError(f"{text} is not a number")


def _give_up_after(seconds, fault):  # type: ignore[no-untyped-def]
    def give_up(*_):  # type: ignore[no-untyped-def]
        raise Refused(fault)

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _empty(folder: Path) -> None:
    for left in folder.iterdir() if folder.is_dir() else ():
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def main(argv: list[str]) -> int:
    uri, folder = argv[0], Path(argv[1])
    try:
        _empty(folder)  # of what a try has left that was killed
        digest, manifest = (os.environ.get(name, "") for name in ("MODEL_DIGEST", "MODEL_MANIFEST"))
        fetch(uri, folder, digest, manifest, os.environ.get("MODEL_REPLICA"))
    except Exception as error:  # whatever it is, nothing may be served
        _empty(folder)
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""Train a model in a job of SageMaker, and fetch the version that it makes.

The job runs the stages of model-src/ from the image of extras/pipelines/Dockerfile (--target sagemaker), on the raw
data that dvc.lock names and `dvc push` has stored, with no network. It has the name of what it is made from, so that
the same is never trained twice: run again, this waits for the job that is there. The version is checked against the
commit and its own manifest before it is written to --out, and is the one that `dvc repro` and `python -m lifecycle
version` make here. upload_model.py uploads it. --reports also fetches what the job reports of it, such as the rows
that `python -m lifecycle compare` asks.

  python scripts/train_sagemaker.py --model wine --image REGISTRY/train@sha256:... --dry-run
  python scripts/train_sagemaker.py --model wine --image REGISTRY/train@sha256:... --wait
"""

from __future__ import annotations

import argparse
import configparser
import hashlib
import io
import re
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops import cli
from gitops.manifests import yamledit
from gitops.manifests.objects import at, mapping, mappings
from gitops.models import s3, sagemaker, store
from gitops.models.s3 import Store
from gitops.releases import release
from gitops.repo import snapshot, values
from gitops.repo.git import Git

from contract.digest import MANIFEST, PATH
from contract.errors import Refused
from contract.manifest import Manifest
from packing import lineage
from storage.files import staged_folder

FOLDER = "model-src"
ROLE, ENTRY = "ml-sagemaker-training", ("python", "-m", "extras.pipelines.job")
PLACE = "training"
"""The folder of the model bucket where jobs leave what they made."""
LIMIT = 1 << 30
"""Bytes of what a job has made, packed, and of each of its files."""


@dataclass(frozen=True)
class Job:
    name: str
    region: str
    bucket: str
    parameters: dict[str, Any]
    """Of CreateTrainingJob."""
    asked: dict[str, str]
    """The hyperparameters, as extras/pipelines/job.py reads them."""

    def made(self, name: str) -> str:
        """The key of what it made: its version is in model.tar.gz, its reports are in output.tar.gz."""
        return f"{PLACE}/{self.asked['model']}/{self.name}/output/{name}.tar.gz"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    add = parser.add_argument
    add("--model", required=True, help="the model's name")
    add("--image", required=True, help="the training image, by its digest")
    add("--instance-type", default="ml.m5.large", help="x86, as the digest depends on it (ml.m5.large)")
    add("--minutes", type=int, default=60, help="after which the job is stopped (60)")
    add("--attempt", type=int, default=1, metavar="N", help="train again what has failed, under a name of its own (1)")
    add("--wait", action="store_true", help="until the job is over, and fetch the version")
    add("--out", type=Path, metavar="DIR", help=f"where the version goes (default: {FOLDER}/artifacts/MODEL)")
    add("--reports", type=Path, metavar="DIR", help="where the reports go (default: nowhere)")
    return cli.run(train, parser.parse_args(argv))


def train(args: argparse.Namespace) -> None:
    job = plan(args)
    out = args.out or args.root / FOLDER / "artifacts" / args.model
    client = s3.client("sagemaker", job.region)
    found = s3.call(client, "describe_training_job", TrainingJobName=job.name)
    if found is None:
        cli.say(f"{'would start' if args.dry_run else 'start'} {job.name}")
        if not args.dry_run:
            s3.call(client, "create_training_job", **job.parameters)
            found = s3.call(client, "describe_training_job", TrainingJobName=job.name)
    elif (there := found.get("HyperParameters")) != job.asked:
        raise Refused(f"training job {job.name}: is of {there}, not of {job.asked}; give another --attempt")
    if found and args.wait and not args.dry_run:
        found = ended(client, job, args.minutes * 60)
    manifest = None
    if found and found["TrainingJobStatus"] == "Completed" and not args.dry_run:
        manifest = fetch(job, found, out)
        cli.say(f"{out}: {manifest.version}")
        if args.reports:
            fetch_reports(job, args.reports)
        upload = f"python scripts/upload_model.py --model {args.model} --artifacts {out} --expect {manifest.sha256}"
        cli.say(f"next: {upload}")
    status = found["TrainingJobStatus"] if found else "absent"
    if args.json:
        version = {"version": manifest.version, "manifest": manifest.sha256} if manifest else {}
        cli.print_json(
            {"job": job.name, "status": status, "request": job.parameters, "dry_run": args.dry_run} | version
        )
    elif status == "InProgress":
        cli.say(f"{job.name}: run the same command with --wait to fetch what it makes")


def plan(args: argparse.Namespace) -> Job:
    """The job for the code and the data that are checked out. Raises Refused unless both are committed."""
    git = Git(args.root)
    there = snapshot.head(git)
    release.require_image(args.image, there.policy)
    if "@sha256:" not in args.image:
        raise Refused(f"--image {args.image}: a tag may change; name it as REGISTRY/NAME@sha256:DIGEST")
    account, region = (values.find(there, name) for name in ("account", "region"))
    code, bucket = lineage.find(args.root / FOLDER, args.model), there.policy.model_bucket
    uri, md5 = data(git, args.model)
    asked = {
        "model": args.model, "code_commit": code.commit, "date": code.date,
        "code": code_digest(git, code.commit, args.model), "data": md5,
    }  # fmt: skip
    digest = hashlib.sha256("\n".join([*asked.values(), args.image]).encode()).hexdigest()
    attempt = f"-{args.attempt}" if args.attempt > 1 else ""
    name = f"ml-{args.model[:32].strip('-')}-{code.commit[:8]}-{digest[:8]}{attempt}"
    if not args.dry_run:
        sagemaker.require_account(region, account, args.model)
    parameters = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": args.image, "TrainingInputMode": "File", "ContainerEntrypoint": list(ENTRY),
        },
        "RoleArn": f"arn:aws:iam::{account}:role/{ROLE}",
        "HyperParameters": asked,
        "InputDataConfig": [
            {
                "ChannelName": "raw",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
        ],
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/{PLACE}/{args.model}/"},
        "ResourceConfig": {"InstanceType": args.instance_type, "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": args.minutes * 60},
        # Data comes in and a version goes out by SageMaker: what is trained talks to nobody.
        "EnableNetworkIsolation": True,
    }  # fmt: skip
    return Job(name, region, bucket, parameters, asked)


def code_digest(git: Git, commit: str, model: str) -> str:
    """`lineage.code_digest` of a commit."""
    entries = git.entries(commit, *(f"{FOLDER}/{path}" for path in lineage.made_from(model)))
    blobs = git.blobs(blob for _, blob, _ in entries)
    return lineage.code_digest((path.removeprefix(f"{FOLDER}/"), blobs[blob]) for _, blob, path in entries)


def data(git: Git, model: str) -> tuple[str, str]:
    """Where DVC has stored the raw data of a model, and its MD5. Raises Refused where the lock does not have it."""
    path, lock = f"models/{model}/data/raw.csv", f"{FOLDER}/models/{model}/dvc.lock"
    text, pointer = git.show("HEAD", lock), git.show("HEAD", f"{FOLDER}/{path}.dvc")
    read = mapping(yamledit.load(text, lock)) if text else {}
    outs = [each for stage in mapping(read.get("stages")).values() for each in mappings(at(stage, "outs"))]
    if pointer:
        # Data that no stage makes has a file of its own, whose paths are relative to it.
        given = mappings(at(yamledit.load(pointer, f"{path}.dvc"), "outs"))
        outs = [each | {"path": path} for each in given]
    md5 = next((str(each.get("md5")) for each in outs if each.get("path") == path), "")
    if not re.fullmatch("[0-9a-f]{32}", md5):
        raise Refused(f"{lock}: no md5 of {path}; run `dvc repro models/{model}/dvc.yaml` and commit its lock")
    config = configparser.ConfigParser()
    config.read_string((git.show("HEAD", f"{FOLDER}/.dvc/config") or b"").decode())
    remote = config.get("core", "remote", fallback="")
    url = config.get(f"'remote \"{remote}\"'", "url", fallback="").rstrip("/")
    if not url.startswith("s3://"):
        raise Refused(f"{FOLDER}/.dvc/config: remote {remote!r}: url {url!r}: not in S3, where a job could read it")
    return f"{url}/files/md5/{md5[:2]}/{md5[2:]}", md5


def ended(client: Any, job: Job, seconds: float) -> dict[str, Any]:
    """The job once it is over. Raises Refused when it failed."""
    # It is stopped in time; to start and to store takes some more.
    end = time.monotonic() + seconds + sagemaker.LONGEST
    while True:
        found = s3.call(client, "describe_training_job", TrainingJobName=job.name) or {}
        status = str(found.get("TrainingJobStatus"))
        cli.progress(f"{job.name}: {found.get('SecondaryStatus', status)}")
        if status not in ("InProgress", "Stopping") or time.monotonic() > end:
            cli.progress("")
            break
        time.sleep(sagemaker.POLL)
    if status != "Completed":
        raise Refused(
            f"training job {job.name}: {status}: {found.get('FailureReason', 'see its log in CloudWatch')}; when that"
            " is settled, run it again with another --attempt"
        )
    return found


def fetch(job: Job, found: Mapping[str, Any], out: Path) -> Manifest:
    """Writes the version that a job made to `out`, once it is known to be of this commit and this data."""
    uri, wanted = at(found, "ModelArtifacts", "S3ModelArtifacts"), Store(job.bucket).url(job.made("model"))
    if uri != wanted:
        raise Refused(f"training job {job.name}: what it made is in {uri}, not in {wanted}; nothing is read from there")
    with staged_folder(out.absolute()) as folder:
        unpack(job, "model", folder)
        manifest = store.read_artifacts(folder, job.asked["model"])
        told = {"code_commit": manifest.code_commit, "date": manifest.version[:10]}
        if faults := [name for name, value in told.items() if value != job.asked[name]]:
            raise Refused(*[f"{wanted}: {MANIFEST}: {name}: {told[name]}, not {job.asked[name]}" for name in faults])
    return manifest


def fetch_reports(job: Job, out: Path) -> None:
    """Writes what a job reports of its version to `out`. Raises Refused where it has left nothing that can be read."""
    with staged_folder(out.absolute()) as folder:
        unpack(job, "output", folder)


def unpack(job: Job, name: str, folder: Path) -> None:
    """Raises Refused for what is no tar of plain files."""
    bucket, key = Store(job.bucket), job.made(name)
    source, packed = bucket.url(key), bucket.read(key, LIMIT)
    if packed is None or len(packed) > LIMIT:
        raise Refused(f"{source}: {'missing' if packed is None else f'larger than {LIMIT} bytes'}; nothing was written")
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            for member in tar:
                path = member.name.removeprefix("./")
                if member.isdir():
                    continue
                if not member.isfile() or not re.match(PATH, path) or member.size > LIMIT:
                    raise Refused(f"{source}: {member.name!r:.80}: no plain file of a version; nothing was written")
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                (folder / path).write_bytes(content.read() if content else b"")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Refused(f"{source}: not a tar.gz that can be read: {error}") from None


if __name__ == "__main__":
    raise SystemExit(main())

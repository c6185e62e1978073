"""Run a real S3 server, versitygw with the model bucket in it, on this machine.

Prints the variables that point any S3 client at it, and runs until it is stopped. The data stays for the next run.

  python scripts/local_s3.py
  python scripts/local_s3.py --data /tmp/s3 --port 9000
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from gitops import cli
from gitops.programs import tools
from gitops.repo.policy import read_policy

from contract.errors import Refused

# Not a secret: the server is reached from this machine alone.
ACCESS, SECRET = "local", "local-secret"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="where to keep the data (default: .demo/s3)")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--region", default="eu-west-1", help="what clients must call its region (%(default)s)")
    return cli.run(serve, parser.parse_args(argv))


def serve(args: argparse.Namespace) -> None:
    try:
        program = tools.VERSITYGW.require()
    except tools.ToolError as error:
        raise Refused(str(error)) from None
    data: Path = (args.data or args.root / ".demo/s3").resolve()
    policy = read_policy(args.root)
    port = _port(args.port)
    # To this server every folder is a bucket.
    for bucket in (policy.model_bucket, *policy.replicas):
        (data / "buckets" / bucket).mkdir(parents=True, exist_ok=True)
    (data / "metadata").mkdir(exist_ok=True)
    variables = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": args.region,
    }
    for name, value in variables.items():
        print(f"export {name}={value}", flush=True)
    cli.say(f"s3://{policy.model_bucket} in {data}; stop it with Ctrl-C")
    # The server's own lines are not for whoever evaluates the lines above.
    os.dup2(2, 1)
    # In place of this process, so that whatever stops it stops the server.
    os.execv(program, [
        str(program), "--port", f"127.0.0.1:{port}", "--access", ACCESS, "--secret", SECRET, "--region", args.region,
        "--quiet", "posix", "--sidecar", str(data / "metadata"), str(data / "buckets"),
    ])  # fmt: skip


def _port(wanted: int) -> int:
    """The port to listen on; 0 stands for one that is free."""
    with socket.socket() as probe:
        # The server does the same: connections that ended a moment ago do not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except (OSError, OverflowError) as error:
            words = error.strerror if isinstance(error, OSError) else "not a port"
            raise Refused(f"--port {wanted}: {words}; choose another, or leave it out for one that is free") from None
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    raise SystemExit(main())

"""Stands in for what an instance asks of AWS beside S3: its metadata, CloudFormation, the load balancer and the log.

It keeps what the instance says. The load balancer's answer is that of a health check of its own.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

METADATA = ("169.254.169.254", 80)
API = ("127.0.0.1", 7001)
INSTANCE, ROLE, TOKEN = "i-0123456789abcdef0", "ml-dev-vm", "metadata-token"
HEALTH = "http://127.0.0.1:5001/readyz"


@dataclass
class Aws:
    """What was said to AWS."""

    access: str
    secret: str
    signals: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(stack, resource, instance, status)"""
    lines: list[str] = field(default_factory=list)
    """Of the log."""
    streams: set[tuple[str, str]] = field(default_factory=set)
    roles: set[str] = field(default_factory=set)
    """The services that were asked with the role's temporary credentials, by the scope of the signature."""


@contextmanager
def running(aws: Aws) -> Iterator[Aws]:
    with ExitStack() as stack:
        for address, handler in ((METADATA, _Metadata), (API, _Api)):
            server = stack.enter_context(ThreadingHTTPServer(address, type("Handler", (handler,), {"aws": aws})))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        yield aws


class _Handler(BaseHTTPRequestHandler):
    aws: Aws

    def say(self, status: int, body: str, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Metadata(_Handler):
    """IMDSv2: without a token it tells nothing."""

    def do_PUT(self) -> None:
        asked = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        if asked:
            self.send_response(200)
            self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "300")
            self.send_header("Content-Length", str(len(TOKEN)))
            self.end_headers()
            self.wfile.write(TOKEN.encode())
        else:
            self.say(400, "")

    def do_GET(self) -> None:
        credentials = {
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": self.aws.access, "SecretAccessKey": self.aws.secret, "Token": "session",
            "Expiration": "2099-01-01T00:00:00Z",
        }  # fmt: skip
        told = {
            "/latest/meta-data/instance-id": INSTANCE,
            "/latest/meta-data/iam/security-credentials/": ROLE,
            f"/latest/meta-data/iam/security-credentials/{ROLE}": json.dumps(credentials),
        }
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            self.say(401, "")
        elif self.path in told:
            self.say(200, told[self.path])
        else:
            self.say(404, "")


class _Api(_Handler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("X-Amz-Security-Token") == "session":
            self.aws.roles.add(self.headers["Authorization"].split("/")[3])
        if target := self.headers.get("X-Amz-Target"):
            self._log(target.partition(".")[2], json.loads(body))
            return
        asked = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        match asked["Action"]:
            case "SignalResource":
                names = ("StackName", "LogicalResourceId", "UniqueId", "Status")
                self.aws.signals.append(tuple(asked[name] for name in names))  # type: ignore[arg-type]
                self.say(200, "<SignalResourceResponse><ResponseMetadata/></SignalResourceResponse>", "text/xml")
            case "DescribeTargetHealth":
                state = "healthy" if _answers() else "unhealthy"
                self.say(200, _HEALTH.format(instance=asked["Targets.member.1.Id"], state=state), "text/xml")
            case other:
                self.say(
                    400,
                    f"<ErrorResponse><Error><Code>InvalidAction</Code><Message>{other}</Message></Error></ErrorResponse>",
                )

    def _log(self, action: str, asked: dict[str, Any]) -> None:
        stream = (asked["logGroupName"], asked["logStreamName"])
        if action == "CreateLogStream" and stream in self.aws.streams:
            self.say(400, json.dumps({"__type": "ResourceAlreadyExistsException"}), "application/x-amz-json-1.1")
            return
        self.aws.streams.add(stream)
        self.aws.lines += [event["message"] for event in asked.get("logEvents", [])]
        self.say(200, "{}", "application/x-amz-json-1.1")


_HEALTH = (
    "<DescribeTargetHealthResponse><DescribeTargetHealthResult><TargetHealthDescriptions><member><Target><Id>{instance}"
    "</Id></Target><TargetHealth><State>{state}</State></TargetHealth></member></TargetHealthDescriptions>"
    "</DescribeTargetHealthResult></DescribeTargetHealthResponse>"
)


def _answers() -> bool:
    try:
        with urllib.request.urlopen(HEALTH, timeout=5):
            return True
    except OSError:
        return False

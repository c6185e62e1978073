"""Serve one model version over HTTP.

MODEL_URI names the folder of its ONNX model and MODEL_DIGEST the digest that the version must have; a version that is
not exactly that is not served. With MODEL_PUBLIC_KEY, a public key or the path of one, only a version that was signed
with it is. With MODEL_MANIFEST, the SHA-256 of its manifest, MODEL_REPLICA may name the bucket to read in the place of
the URI's. Others: HOST (127.0.0.1), PORT (5001), DRAIN_SECONDS (5), REQUEST_LOG_URI (where to log predictions, nowhere
if empty), REQUEST_LOG_SAMPLE (the share of rows to log, 1), SHARED_PORT (0; with 1 several services listen on one port,
each once it has its model) and the standard AWS ones. systemd is told when it answers (sd_notify).

With `serve`, as SageMaker starts a container, it also answers GET /ping and POST /invocations, and PORT is 8080 unless
it is set.

  MODEL_URI=artifacts/wine/onnx MODEL_DIGEST=sha256:... python -m serving
  MODEL_URI=s3://mlops-prod/models/wine/2026-02-01-3f2a9c1b7d10/onnx/ MODEL_DIGEST=sha256:... python -m serving
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

import uvicorn

from contract import command
from contract.errors import Refused
from serving import model, request_log, settings
from serving.app import create_app
from serving.connection import Connection
from serving.state import State

# Where SageMaker asks a container, and says so nowhere else.
SAGEMAKER = {"PORT": "8080"}
# Requests under way get this long; with the drain it stays below the 30 seconds that Kubernetes gives a pod.
FINISH_SECONDS = 20
# Without a new connection for so long, there is none on its way.
QUIET_SECONDS = 0.05
# Callers who never stop opening connections are not waited for any longer.
TAKE_SECONDS = 1


class Server(uvicorn.Server):
    """uvicorn, except that SIGTERM first makes the service unready, and that stopping on it is no failure."""

    def __init__(self, config: uvicorn.Config, state: State, drain_seconds: float) -> None:
        super().__init__(config)
        self._state, self._drain_seconds = state, drain_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Only now: signals are handled from here on.
        for listening in sockets or []:
            host, port, *_ = listening.getsockname()
            say(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
        if self._state.model:
            tell_systemd()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._take_waiting(sockets or [])
        await super().shutdown(sockets)

    async def _take_waiting(self, sockets: list[socket.socket]) -> None:
        """Takes the connections that the kernel has accepted already: closing would reset them.

        Nobody is answered meanwhile, so that callers who wait for an answer open no others, and none is reset between
        the last one and the close.
        """
        waiting, deadline = list[socket.socket](), time.monotonic() + TAKE_SECONDS
        for listening in sockets:
            listening.settimeout(QUIET_SECONDS)
            with contextlib.suppress(TimeoutError):
                while time.monotonic() < deadline:
                    waiting.append(listening.accept()[0])
        for server in self.servers:
            server.close()
        for accepted in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self.config, self.server_state, self.lifespan.state), accepted
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM:
            self._state.stop()
            super().handle_exit(sig, frame)
        elif self._state.stopping.is_set():
            self.should_exit = True
        else:
            self._state.stop()
            drain = threading.Timer(self._drain_seconds, self.finish)
            drain.daemon = True
            drain.start()

    def finish(self) -> None:
        """Takes no new connection, finishes the requests under way, and returns from run()."""
        self.should_exit = True


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("serve", nargs="?", choices=["serve"], help="what SageMaker gives to every container")
    sagemaker = parser.parse_args(argv).serve is not None
    environment = SAGEMAKER | os.environ if sagemaker else os.environ
    return command.run(lambda: serve(settings.read(environment), sagemaker=sagemaker), "")


def serve(given: settings.Settings, *, sagemaker: bool = False) -> int:
    """Serves until it is told to stop. Raises Refused when the address is taken or the model can never be served."""
    state = State()

    def load() -> None:
        state.load(lambda: model.load(given.model), say)
        if state.model:
            described = state.model.manifest
            say(f"serving {described.model} {described.version}")

    if given.shared_port:
        # What comes to the port goes to any of those that listen: all of them have to answer.
        load()
        if state.failure:
            raise state.failure
    try:
        family = socket.AF_INET6 if ":" in given.host else socket.AF_INET
        address = (given.host, given.port)
        listening = socket.create_server(address, family=family, backlog=2048, reuse_port=given.shared_port)
    except OSError as error:
        raise Refused(
            f"HOST {given.host}, PORT {given.port}: {error.strerror}; set PORT to another if it is in use"
        ) from None
    log = None
    if given.request_log_uri:
        log = request_log.RequestLog(request_log.open_sink(given.request_log_uri), given.request_log_sample, say)
    config = uvicorn.Config(
        create_app(state, log, sagemaker=sagemaker),
        http=Connection,
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    server = Server(config, state, given.drain_seconds)

    def load_beside() -> None:
        load()
        if state.failure:
            server.finish()

    # Beside the server and not before it: while S3 is away the pod is alive, and shows why it is not ready.
    if not state.model:
        threading.Thread(target=load_beside, daemon=True).start()
    try:
        server.run([listening])
    finally:
        state.stop()
        if log:
            log.close()
    if state.failure:
        raise state.failure
    return 0


def tell_systemd() -> None:
    """That the service is ready, in the protocol of sd_notify(3), where systemd asks for it."""
    if name := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.sendto(b"READY=1", f"\0{name[1:]}" if name.startswith("@") else name)


def say(line: str) -> None:
    # In one piece: two threads write here, and print() writes the end of a line by itself.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())

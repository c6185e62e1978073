"""A server that takes and gives a byte now and then, on the loopback, for the tests of both projects."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

PAUSE = 0.02
"""Seconds between two bytes: any time-out of a single read is longer."""
OK = b"HTTP/1.1 200 OK\r\n"
LONG = OK + b"Content-Length: 1000000\r\n\r\n"

# What comes at once; after it, a byte now and then.
ANSWERS = {
    "the status line": b"HTTP/1.1 ",
    "a header": OK + b"X-Drip: ",
    "the body": LONG + b"<",
    "a body without a length": OK + b"\r\n<",
    "a body in chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n1",
}


class Dripping:
    """Answers every connection with `answer` and then drips, or passes it on to another server while `port` is set."""

    def __init__(self, answer: bytes, listening: socket.socket) -> None:
        self.answer, self.url = answer, f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.reads = True
        """Whether it reads what it is sent; if not, a byte now and then."""
        self.drop = b"a"
        """What comes now and then."""
        self.tls: ssl.SSLContext | None = None
        self.port: int | None = None
        self.accepted = 0
        self.open = 0
        self.over = threading.Event()
        self._listening, self._lock = listening, threading.Lock()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self._count(1)
        with connection, contextlib.suppress(OSError):
            if self.port:
                self._pass_on(connection, self.port)
            elif self.tls:
                with self.tls.wrap_socket(connection, server_side=True) as wrapped:
                    self._drip(wrapped)
            else:
                self._drip(connection)
        self._count(-1)

    def _count(self, more: int) -> None:
        with self._lock:
            self.open += more
            self.accepted += max(more, 0)

    def _drip(self, connection: socket.socket) -> None:
        if self.reads:
            threading.Thread(target=self._swallow, args=(connection, 1 << 16), daemon=True).start()
            connection.sendall(self.answer)
            while not self.over.wait(PAUSE):
                connection.sendall(self.drop)
        else:
            while not self.over.wait(PAUSE) and connection.recv(1):
                pass

    @staticmethod
    def _swallow(connection: socket.socket, size: int) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(size):
                pass

    def _pass_on(self, connection: socket.socket, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as there:
            back = threading.Thread(target=self._copy, args=(there, connection), daemon=True)
            back.start()
            self._copy(connection, there)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def dripping(answer: bytes, *, reads: bool = True) -> Iterator[Dripping]:
    with socket.socket() as listening:
        # What waits in the kernel is taken, as far as a client can see.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        server = Dripping(answer, listening)
        server.reads = reads
        threading.Thread(target=server.run, daemon=True).start()
        try:
            yield server
        finally:
            server.over.set()
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)

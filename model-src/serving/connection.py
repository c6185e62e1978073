"""What one connection may cost, and all of them together: uvicorn's, with limits on bytes, time and number.

A caller who is slow, or who sends without end, is cut off; it is never the others who pay. So when there are too many
connections, or they hold too many bytes, the one that has gone longest without an answer ends: whoever sends a request
in one go and reads the answer is never that one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT = 16 << 10
"""Bytes of a request's line, headers and trailers."""
REQUEST_LIMIT = 8 << 20
"""Bytes of a request as it is sent: with a body in chunks of one byte each it is several times its content."""
HELD_LIMIT = 32 << 20
"""Bytes of all requests that are larger than SMALL and have no answer yet."""
SMALL = 64 << 10
CONNECTIONS = 512
PIPELINED = 16
"""Requests that wait behind one another on a connection."""
EXCHANGE_SECONDS = 20
"""From the start of a connection, or the end of an answer, to the end of the next answer."""
LAST_SECONDS = 1
"""How long a connection without a request stays open when the service ends: one may be on its way."""


class TooLarge(Exception):
    pass


class Connection(HttpToolsProtocol):
    _in_head = False
    _head = 0
    _received = 0
    """Bytes of the request that has no answer yet."""
    _since = 0.0
    _timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        self._timer = self.loop.call_later(EXCHANGE_SECONDS, self._end_if_late)
        if len(self.connections) > CONNECTIONS:
            _end_oldest(self._all())

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._received += len(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._received > HEAD_LIMIT:
            self._refuse_head()
        elif self._received > REQUEST_LIMIT:
            self._end()
        elif self._received > SMALL:
            large = [each for each in self._all() if each._received > SMALL]
            if sum(each._received for each in large) > HELD_LIMIT:
                _end_oldest(large)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head, self._received = True, 0, 0

    def on_url(self, url: bytes) -> None:
        self._add_to_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # With the colon, the blank and the end of the line.
        self._add_to_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED:
            self._end()
            raise TooLarge

    def on_response_complete(self) -> None:
        self._since, self._received = self.loop.time(), 0
        super().on_response_complete()

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LAST_SECONDS, self._end_if_unasked)
        else:
            super().shutdown()

    def _all(self) -> list[Connection]:
        return [each for each in self.connections if isinstance(each, Connection)]

    def _add_to_head(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_LIMIT:
            self._refuse_head()
            raise TooLarge

    def _refuse_head(self) -> None:
        said = f"the request line and the headers have more than {HEAD_LIMIT} bytes".encode()
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
            b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said)
        )
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        # The parser takes TooLarge for a fault of the request, which has its answer already.
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _end_if_late(self) -> None:
        left = self._since + EXCHANGE_SECONDS - self.loop.time()
        if left > 0:
            self._timer = self.loop.call_later(left, self._end_if_late)
        else:
            self._end()

    def _end(self) -> None:
        # It is among the connections for a moment longer, and is not to be chosen a second time.
        self._since, self._received = math.inf, 0
        # Not closed, which waits for a caller to read what was written.
        self.transport.abort()

    def _end_if_unasked(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def _end_oldest(connections: Iterable[Connection]) -> None:
    min(connections, key=lambda each: each._since)._end()

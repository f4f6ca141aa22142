"""HTTP/1.1 at the level of bytes: just enough of it for a PDS, and every way to get it wrong.

A server framework answers correctly whatever one does; this network has to cut bodies, lie about lengths,
drip and hang, and to be so cheap that a benchmark measures its client. So HTTP is spoken here directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast
from urllib.parse import unquote_plus

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_MAX_HEAD = 65_536


@dataclass(slots=True)
class Request:
    """A request.

    Attributes:
        verb: GET, POST…
        path: decoded path, without the query.
        query: parameters; of repeated ones the last.
        head: request line and headers, as received.
        body: of a POST.
    """

    verb: str
    path: str
    query: dict[str, str]
    head: bytes
    body: bytes = b""

    def header(self, name: str) -> str:
        """Return a header's value, or ""."""
        start = self.head.lower().find(b"\r\n" + name.encode() + b":")
        if start < 0:
            return ""
        start += len(name) + 3
        return self.head[start : self.head.index(b"\r\n", start)].decode("latin-1").strip()


@dataclass(slots=True)
class Answer:
    """An answer and the manner of its delivery.

    Attributes:
        status: HTTP status; 0 sends nothing and, unless `hang`, resets the connection.
        body: as sent (compressed already, if it is).
        content_type: value of Content-Type; "" leaves it out.
        headers: further header lines, each ending in CRLF.
        delay: seconds before the first byte.
        length: Content-Length to claim instead of the true one.
        cut_after: bytes of the body after which the connection is closed; -1 is half of them, None sends all.
        drip: seconds over which the body is spread, in 50 pieces.
        hang: nothing more is ever sent, and the connection stays open.
        close: the connection is closed afterwards.
        stream: pieces, none of them empty, that are sent one by one as they are taken, instead of the body.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: list[bytes] = field(default_factory=list)
    delay: float = 0.0
    length: int | None = None
    cut_after: int | None = None
    drip: float = 0.0
    hang: bool = False
    close: bool = False
    stream: Iterator[bytes] | None = None

    def head(self) -> bytes:
        """Return the status line and headers."""
        kind = b"Content-Type: %b\r\n" % self.content_type.encode() if self.content_type else b""
        size = b"Content-Length: %d" % (len(self.body) if self.length is None else self.length)
        return b"HTTP/1.1 %d %b\r\n%b%b%b\r\n\r\n" % (
            self.status,
            _REASONS.get(self.status, b"Status"),
            kind,
            b"".join(self.headers),
            size if self.stream is None else b"Transfer-Encoding: chunked",
        )


Handler = Callable[[Request], Answer]


def parse_query(text: str) -> dict[str, str]:
    """Read a query string."""
    found: dict[str, str] = {}
    for pair in text.split("&") if text else ():
        name, _, value = pair.partition("=")
        found[name] = unquote_plus(value) if "%" in value or "+" in value else value
    return found


class HttpProtocol(asyncio.Protocol):
    """One connection.

    Args:
        handler: answers requests; it must not block.
        connections: where open connections are listed, so that a host can be taken down.
    """

    def __init__(self, handler: Handler, connections: set[HttpProtocol]) -> None:
        self._handler = handler
        self._connections = connections
        self._received = b""
        self._busy = False
        self._stream: Iterator[bytes] | None = None
        self._is_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the connection."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and what was still to be sent."""
        self._connections.discard(self)
        self._stream = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer the complete requests among what was received."""
        self._received = self._received + data if self._received else data
        self._proceed()

    def _proceed(self) -> None:
        while not self._busy and (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[: end + 4]
            request = self._parse(head)
            if request is None:
                self._send(Answer(400, b"bad request", "text/plain", close=True))
                return
            rest = end + 4
            if request.verb != "GET":
                rest += int(request.header("content-length") or 0)
                if len(self._received) < rest:
                    return
                request.body = self._received[end + 4 : rest]
            self._received = self._received[rest:]
            self._send(self._handler(request))
        if len(self._received) > _MAX_HEAD and b"\r\n\r\n" not in self._received:
            self.transport.abort()

    @staticmethod
    def _parse(head: bytes) -> Request | None:
        parts = head[: head.index(b"\r\n")].split(b" ")
        if len(parts) != 3:
            return None
        path, _, query = parts[1].decode("latin-1").partition("?")
        return Request(
            parts[0].decode("latin-1"), unquote_plus(path) if "%" in path else path, parse_query(query), head
        )

    def _send(self, answer: Answer) -> None:
        if answer.delay:
            self._later(answer.delay, lambda: self._deliver(answer))
        else:
            self._deliver(answer)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        def run() -> None:
            self._busy = False
            self._timer = None
            action()
            self._proceed()

        self._busy = True
        self._timer = asyncio.get_running_loop().call_later(seconds, run)

    def _deliver(self, answer: Answer) -> None:
        if answer.hang:
            self._busy = True
        elif answer.status == 0:
            self.transport.abort()
        elif answer.stream is not None:
            self.transport.write(answer.head())
            self._busy = True
            self._stream = answer.stream
            self._send_piece()
        elif answer.drip:
            self.transport.write(answer.head())
            self._drip(answer, 0, max(1, len(answer.body) // 50))
        else:
            body, cut = answer.body, answer.cut_after
            if cut is not None:
                body = body[: len(body) // 2 if cut < 0 else cut]
            self.transport.write(answer.head() + body)
            if answer.close or cut is not None:
                self.transport.close()

    def pause_writing(self) -> None:
        """Hold a stream until the client has read more of it."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Go on with a stream."""
        self._is_paused = False
        self._send_piece()

    def _send_piece(self) -> None:
        if self._stream is None or self._is_paused:
            return
        piece = next(self._stream, b"")
        self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))  # an empty chunk is the end
        if piece:
            if not self._is_paused:  # other connections have their turn
                asyncio.get_running_loop().call_soon(self._send_piece)
            return
        self._stream = None
        self._busy = False
        self._proceed()

    def _drip(self, answer: Answer, sent: int, piece: int) -> None:
        self.transport.write(answer.body[sent : sent + piece])
        if sent + piece < len(answer.body):
            self._later(answer.drip / 50, lambda: self._drip(answer, sent + piece, piece))

"""NATS over a plain socket, for reading much or reading promptly: what a client library takes would be measured too.

Blocking, and only what the bench needs: subscribe, publish, take messages. Not its business: what a message means.
"""

import re
import socket
import time
from collections.abc import Generator
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"name":"bench"}\r\n'
_MESSAGE = re.compile(rb"H?MSG \S+ \S+ (?:\S+ )??(?:(\d+) )?(\d+)\r\n")
"""`MSG subject sid [reply] size` or `HMSG subject sid [reply] header-size size`."""
_RECEIVE = 1024 * 1024


class Wire:
    """One connection to a nats-server without credentials. Use it as a context manager."""

    def __init__(self, url: str, seconds: float = 20) -> None:
        """`seconds`: for how long a read may bring nothing at all. Of several addresses the first. Raises OSError."""
        parts = urlsplit(url.partition(",")[0])
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 4222), timeout=seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._sids = 0
        self._socket.sendall(_CONNECT)
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def subscribe(self, subject: str) -> None:
        """Have the subject's messages sent here; the server knows of it when this returns."""
        self._sids += 1
        self._socket.sendall(b"SUB %b %d\r\n" % (subject.encode(), self._sids))
        self.flush()

    def publish(self, subject: str, body: bytes, reply: str = "") -> None:
        """Send one message. Raises OSError."""
        target = f"{subject} {reply}" if reply else subject
        self._socket.sendall(b"PUB %b %d\r\n%b\r\n" % (target.encode(), len(body), body))

    def flush(self) -> None:
        """Wait until the server has seen all that was sent. To be called before messages are expected."""
        self._socket.sendall(b"PING\r\n")
        while b"PONG\r\n" not in self._buffer:
            self._receive()
        self._buffer.clear()

    def messages(self) -> Generator[tuple[float, bytes, bytes]]:
        """Each message as it comes: when it was here (`time.perf_counter`), its headers, its body.

        Raises TimeoutError where nothing comes, ConnectionError where the server ends it or complains."""
        buffer, at = self._buffer, time.perf_counter()
        while True:
            done = 0
            while (end := buffer.find(b"\r\n", done)) >= 0:
                found = _MESSAGE.match(buffer, done)
                if found is None:
                    self._answer(bytes(buffer[done:end]))
                    done = end + 2
                    continue
                start, head, size = found.end(), int(found[1] or 0), int(found[2])
                if len(buffer) < start + size + 2:
                    break
                yield at, bytes(buffer[start : start + head]), bytes(buffer[start + head : start + size])
                done = start + size + 2
            del buffer[:done]
            self._receive()
            at = time.perf_counter()

    def _answer(self, line: bytes) -> None:
        if line == b"PING":
            self._socket.sendall(b"PONG\r\n")
        elif line.startswith(b"-ERR"):
            raise ConnectionError(line.decode(errors="replace"))

    def _receive(self) -> None:
        got = self._socket.recv(_RECEIVE)
        if not got:
            raise ConnectionError("nats-server has closed the connection")
        self._buffer += got

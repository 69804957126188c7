"""The HTTP protocol of uvicorn with a limit on the head of a request: its line and headers.

The parser collects what it is sent until a header ends, however long that takes: a client without any token could have
the process fill its memory. The same holds for what may follow a body in chunks. Not its business: bodies, which
`app.api.middleware.limits` bounds.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEAD = 64 * 1024
"""Bytes, and at most one read of the socket more. Other servers take 8 to 64 KiB."""

_REFUSAL = (
    b'{"type":"about:blank","title":"Request Header Fields Too Large","status":431,'
    b'"detail":"the request line and headers are larger than 65536 bytes"}'
)
_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/problem+json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_REFUSAL), _REFUSAL)
)


class BoundedHead(HttpToolsProtocol):
    """One connection. A head that is too large is answered with 431, and the connection ends."""

    _unused = 0
    """Bytes that came since the parser last had something whole: a head, a piece of a body, a request's end."""
    _whole = False

    def data_received(self, data: bytes) -> None:
        self._whole = False
        super().data_received(data)
        self._unused = 0 if self._whole else self._unused + len(data)
        if self._unused > MAX_HEAD and not self.transport.is_closing():
            earlier: RequestResponseCycle | None = self.cycle
            if earlier is None or earlier.response_complete:  # else its answer is under way
                self.transport.write(_ANSWER)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._whole = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._whole = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._whole = True
        super().on_message_complete()

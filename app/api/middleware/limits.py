"""How much a request may hold, counted before anything parses it.

A body or a query is parsed and validated in one go, on the event loop that the watchers share. That takes time for each
value, and makes an error for each wrong one. So values are counted first, in the bytes as they arrive, which takes a
few milliseconds for the largest body. The head of a request is limited in `cli/http_protocol.py`, parts of a body in
`api/schemas/base.py` and `values.py`, and the errors of an answer in `problems.py`.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.error_handlers import is_json
from app.api.problems import Problem, invalid
from app.domain.errors import FieldProblem
from app.domain.text import HALF, half_in

MAX_BODY = 1024 * 1024
"""Bytes. A watcher takes a few hundred; the largest pipeline is a quarter of this."""
MAX_VALUES = 20_000
"""Values in a body: each number, text, object and list, at any depth."""
MAX_PARAMETERS = 100
"""Parameters in a query; a call knows two at the most."""


class RequestLimits:
    """ASGI middleware that refuses a request that holds too much, and reads the body before the application does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope.get("query_string", b"").count(b"&") >= MAX_PARAMETERS:
            problem = Problem(414, "URI Too Long", f"the query has more than {MAX_PARAMETERS} parameters")
            await problem.response()(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
        else:
            await self._with_body(scope, receive, send)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0")
        body = bytearray()
        whole = announced.isdecimal() and len(announced) < 10 and int(announced) <= MAX_BODY
        more = whole
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client has disconnected
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY:
                whole = more = False
        problem = _json_problem(body) if whole and is_json(headers) else None
        if not whole:
            # The connection stays open: closed with the rest unread, it is reset before the client has the answer.
            problem = Problem(413, "Content Too Large", f"the body is larger than {MAX_BODY} bytes")
        if problem is not None:
            await problem.response()(scope, receive, send)
            return
        replay: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]
        await self.app(scope, lambda: _next(replay, receive), send)


async def _next(replay: list[Message], receive: Receive) -> Message:
    return replay.pop() if replay else await receive()


def _json_problem(body: bytearray) -> Problem | None:
    if b"\0" in body:  # UTF-16 and UTF-32, which Python's parser accepts, and `most_values` cannot count
        return Problem(400, "Bad Request", "the body is not JSON in UTF-8: it holds a NUL byte", kind="malformed")
    if most_values(body) > MAX_VALUES:
        detail = f"the body holds more than {MAX_VALUES} values, counting each number, text, list and object in it"
        return Problem(413, "Content Too Large", detail)
    half = half_in(bytes(body))
    return None if half is None else invalid([FieldProblem(half, HALF)])


def most_values(body: bytes | bytearray) -> int:
    """An upper bound of the values that a JSON text in UTF-8 holds, without parsing it."""
    openings = body.count(b",") + body.count(b"[") + body.count(b"{")
    if openings < MAX_VALUES:
        return openings + 1
    # Many of them may be within texts. Without escaped quotes, every other part between quotes is outside of texts.
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    quotes = bare.count(b'"')
    if quotes > 4 * MAX_VALUES:  # each value is one text at the most, and has one for its key
        return quotes // 4 + 1
    outside = b"".join(bare.split(b'"')[::2])
    return outside.count(b",") + outside.count(b"[") + outside.count(b"{") + 1

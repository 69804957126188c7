"""Headers that keep a browser from misusing an answer: no framing, no guessed types, nothing loaded or run.

A header that a call has set itself stays as it is: the page has a policy of its own (`routes/page.py`).
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
DATA = {"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}
"""Also on data: no cache keeps it, and opened by itself it loads and runs nothing."""
_DOCUMENTS = ("text/html", "text/css", "text/javascript", "image/", "font/")


class SecurityHeaders:
    """ASGI middleware that adds the headers above to what starts an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                document = headers.get("content-type", "").startswith(_DOCUMENTS)
                for name, value in (ALWAYS if document else ALWAYS | DATA).items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)

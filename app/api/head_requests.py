"""Every call that answers GET answers HEAD, which some probes use. The server leaves the body out."""

from starlette.types import ASGIApp, Receive, Scope, Send

_ASKED = "changewire.head"
"""In the scope of a GET that was a HEAD."""


class HeadAsGet:
    """ASGI middleware that passes a HEAD on as a GET."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = scope.get("method") == "HEAD"
        await self.app({**scope, "method": "GET", _ASKED: True} if head else scope, receive, send)


def is_head(scope: Scope) -> bool:
    """Whether the request was a HEAD: an answer without an end has to end for a HEAD."""
    return _ASKED in scope

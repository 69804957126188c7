"""An exception that no handler knows becomes a problem with an id, under which the log has the traceback."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.error_handlers import unexpected


class LastResort:
    """ASGI middleware that lets no exception out, unless the answer has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def watched_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except Exception as error:
            problem = unexpected(scope, error)
            if begun:
                raise
            await problem.response()(scope, receive, send)

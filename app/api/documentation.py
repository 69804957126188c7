"""The OpenAPI document, and the page that shows it.

The document is made at the first request, in a thread: that takes a tenth of a second, and the watchers on the event
loop would wait for it. Its content comes from `app/api/__init__.py`.
"""

import asyncio
import json

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

_DOCUMENT = "/openapi.json"


def install(app: FastAPI) -> None:
    """Add both to the application, which is made without FastAPI's own."""
    lock, content = asyncio.Lock(), b""

    def make() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()

    async def document(_request: Request) -> Response:
        nonlocal content
        async with lock:
            content = content or await asyncio.to_thread(make)
        return Response(content, media_type="application/json")

    async def page(request: Request) -> HTMLResponse:
        place = request.scope.get("root_path", "").rstrip("/") + _DOCUMENT
        return get_swagger_ui_html(openapi_url=place, title=f"{app.title} - Swagger UI")

    app.add_route(_DOCUMENT, document, include_in_schema=False)
    app.add_route("/docs", page, include_in_schema=False)

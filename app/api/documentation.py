"""The OpenAPI document. The page at `/docs` shows it (`routes/page.py`).

It is made at the first request, in a thread: that takes a tenth of a second, and the watchers on the event loop would
wait for it. Its content comes from `app/api/__init__.py`.
"""

import asyncio
import json

from fastapi import FastAPI, Request
from fastapi.responses import Response

_DOCUMENT = "/openapi.json"


def install(app: FastAPI) -> None:
    """Add it to the application, which is made without FastAPI's own."""
    lock, content = asyncio.Lock(), b""

    def make() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()

    async def document(_request: Request) -> Response:
        nonlocal content
        async with lock:
            content = content or await asyncio.to_thread(make)
        return Response(content, media_type="application/json")

    app.add_route(_DOCUMENT, document, include_in_schema=False)

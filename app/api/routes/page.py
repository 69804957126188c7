"""The pages at `/` and `/docs`: their files as they are in `app/api/page`, with headers of their own.

A file is read when it is asked for, and not kept: nothing here takes time at the start, or memory later. The headers of
every answer are set in `api/middleware/security_headers.py`.
"""

import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parent.parent / "page"
# img-src: the arrows and ticks of form controls are data: in pico.css and swagger-ui.css.
POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # cached, but validated: after an update nobody has half of the old page
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@router.get("/")
async def page(request: Request) -> Response:
    """The page itself."""
    return _file(request, "index.html")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The page that shows openapi.json."""
    return _file(request, "docs.html")


@router.get("/assets/{path:path}")
async def asset(request: Request, path: str) -> Response:
    """A file that the page consists of."""
    return _file(request, path)


@cache
def _files() -> dict[str, Path]:
    """The page's files by their paths in the folder. A request's path is looked up here and never reaches the file
    system, where not every text is a path, and dots lead to other folders."""
    return {file.relative_to(FOLDER).as_posix(): file for file in FOLDER.rglob("*") if file.suffix in _TYPES}


def _file(request: Request, path: str) -> Response:
    file = _files().get(path)
    if file is None:
        raise HTTPException(404)
    kind, content = _TYPES[file.suffix], file.read_bytes()
    tag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    headers = {**HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, "Content-Type": kind})

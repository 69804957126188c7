"""The calls that list, add, change and remove watchers. All they do is translate: what happens is the registry's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.types import Receive, Scope, Send

from app.api import preconditions
from app.api.preconditions import Expected, tagged
from app.api.problems import documented, invalid
from app.api.schemas import answers
from app.api.schemas.requests import Listing, NewWatcher, Position, Removal, Trial, WatcherShape
from app.control.registry import Registry
from app.domain.errors import FieldProblem, NotFound
from app.domain.status import WatcherView
from app.domain.watcher import name_problem

# For the documentation and its Authorize button; `auth.Authority` has decided before a call gets here.
_bearer = HTTPBearer(auto_error=False, description="An API token, if any are configured.")
CHANGES = [Security(_bearer)]

PIECE_BYTES = 32 * 1024
"""Of a list, before other tasks have their turn."""

router = APIRouter(tags=["watchers"])


async def registry_of(request: Request) -> Registry:
    registry: Registry = request.app.state.registry
    return registry


async def possible_name(name: str) -> str:
    """The name out of the path. One that no watcher can have is not found, and the answer says why."""
    problem = name_problem(name)
    if problem is not None:
        raise NotFound(f"there is no watcher with this name: a name {problem}")
    return name


Watchers = Annotated[Registry, Depends(registry_of)]
Name = Annotated[str, Depends(possible_name)]


@router.get("/watchers", response_model=list[answers.WatcherAnswer], responses=documented(422, 503))
async def list_watchers(registry: Watchers, query: Annotated[Listing, Query()]) -> Response:
    """List the watchers by name, all or those in one state."""
    views = await registry.watchers(query.state)
    return _Pieces(_in_pieces(views), media_type="application/json")


@router.post(
    "/watchers",
    status_code=201,
    response_model=answers.WatcherAnswer,
    dependencies=CHANGES,
    responses={
        200: {"model": answers.WatcherAnswer, "description": "With `dry_run`: what would be added."},
        **preconditions.tagged_answers(201),
        **documented(400, 401, 403, 409, 413, 415, 422, 503),
    },
)
async def add_watcher(registry: Watchers, body: NewWatcher, query: Annotated[Trial, Query()]) -> Response:
    """Add a watcher and start it, unless it is `paused`."""
    _refuse_name(body.name)
    view = await registry.add(
        body.to_watcher(), paused=body.paused, explicit_start=body.explicit_start, dry_run=query.dry_run
    )
    if query.dry_run:
        return JSONResponse(answers.watcher(view))
    return JSONResponse(answers.watcher(view), 201, {"Location": _location(body.name), **tagged(view)})


@router.get(
    "/watchers/{name}",
    response_model=answers.WatcherAnswer,
    responses={**preconditions.tagged_answers(200), **documented(404, 422, 503)},
)
async def get_watcher(registry: Watchers, name: Name) -> Response:
    """Get one watcher with all defaults filled in, and its status."""
    view = await registry.watcher(name)
    return JSONResponse(answers.watcher(view), headers=tagged(view))


@router.put(
    "/watchers/{name}",
    response_model=answers.WatcherAnswer,
    dependencies=CHANGES,
    responses={
        **preconditions.tagged_answers(200),
        201: {
            "model": answers.WatcherAnswer,
            "description": "There was no watcher with this name; it was added.",
            "headers": preconditions.ETAG,
        },
        **documented(400, 401, 403, 409, 412, 413, 415, 422, 503),
    },
)
async def put_watcher(
    registry: Watchers, name: str, body: WatcherShape, query: Annotated[Trial, Query()], expected: Expected
) -> Response:
    """Replace a watcher and restart it, or add it. Its position stays."""
    _refuse_name(name)
    if body.name not in ("", name):
        raise invalid([FieldProblem("name", f"differs from the name in the URL, {name}")])
    view, added = await registry.put(
        body.to_watcher(name),
        paused=body.paused,
        explicit_start=body.explicit_start,
        dry_run=query.dry_run,
        expected=expected,
    )
    if query.dry_run:
        return JSONResponse(answers.watcher(view))
    if added:
        return JSONResponse(answers.watcher(view), 201, {"Location": _location(name), **tagged(view)})
    return JSONResponse(answers.watcher(view), headers=tagged(view))


@router.delete(
    "/watchers/{name}",
    status_code=204,
    response_class=Response,
    dependencies=CHANGES,
    responses=documented(401, 403, 404, 409, 412, 422, 503),
)
async def remove_watcher(
    registry: Watchers, name: Name, query: Annotated[Removal, Query()], expected: Expected
) -> Response:
    """Stop a watcher and remove it. The stream is never deleted."""
    await registry.remove(name, delete_checkpoint=query.checkpoint == "delete", expected=expected)
    return Response(status_code=204)


@router.put(
    "/watchers/{name}/pause",
    status_code=202,
    response_model=answers.WatcherAnswer,
    dependencies=CHANGES,
    responses={**preconditions.tagged_answers(202), **documented(401, 403, 404, 409, 412, 422, 503)},
)
async def pause_watcher(registry: Watchers, name: Name, expected: Expected) -> Response:
    """Pause a watcher in every instance, until it is resumed. Pausing a paused watcher changes nothing."""
    view = await registry.pause(name, expected=expected)
    return JSONResponse(answers.watcher(view), 202, tagged(view))


@router.put(
    "/watchers/{name}/resume",
    status_code=202,
    response_model=answers.WatcherAnswer,
    dependencies=CHANGES,
    responses={**preconditions.tagged_answers(202), **documented(401, 403, 404, 409, 412, 422, 503)},
)
async def resume_watcher(registry: Watchers, name: Name, expected: Expected) -> Response:
    """Resume a paused or failed watcher from its position."""
    view = await registry.resume(name, expected=expected)
    return JSONResponse(answers.watcher(view), 202, tagged(view))


@router.post(
    "/watchers/{name}/restart",
    status_code=202,
    response_model=answers.WatcherAnswer,
    dependencies=CHANGES,
    responses={**preconditions.tagged_answers(202), **documented(401, 403, 404, 409, 412, 422, 503)},
)
async def restart_watcher(registry: Watchers, name: Name, expected: Expected) -> Response:
    """Stop and start a watcher's task. Resume a paused watcher instead."""
    view = await registry.restart(name, expected=expected)
    return JSONResponse(answers.watcher(view), 202, tagged(view))


@router.get(
    "/watchers/{name}/token",
    tags=["positions"],
    response_model=answers.TokenAnswer,
    responses=documented(404, 422, 503),
)
async def get_token(registry: Watchers, name: Name) -> Response:
    """Get a watcher's stored position."""
    return JSONResponse(answers.token(await registry.token(name)))


@router.put(
    "/watchers/{name}/token",
    tags=["positions"],
    response_model=answers.TokenAnswer,
    dependencies=CHANGES,
    responses=documented(400, 401, 403, 404, 409, 412, 413, 415, 422, 503),
)
async def set_token(registry: Watchers, name: Name, body: Position, expected: Expected) -> Response:
    """Move a paused or failed watcher, in a new epoch. Changes that were published before may be published again."""
    return JSONResponse(answers.token(await registry.set_token(name, body.to_start(), expected=expected)))


@router.delete(
    "/watchers/{name}/token",
    tags=["positions"],
    response_model=answers.TokenAnswer,
    dependencies=CHANGES,
    responses=documented(401, 403, 404, 409, 412, 422, 503),
)
async def reset_token(registry: Watchers, name: Name, expected: Expected) -> Response:
    """Move a paused or failed watcher back to its own `start`, in a new epoch."""
    return JSONResponse(answers.token(await registry.reset_token(name, expected=expected)))


class _Pieces(StreamingResponse):
    """Not watched for the client's end, which would take two tasks and an import: it has an end of its own."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self.stream_response(send)


async def _in_pieces(views: Sequence[WatcherView]) -> AsyncIterator[bytes]:
    """The list as JSON. Hundreds of watchers may have a large pipeline each: nobody waits until all are written."""
    piece = bytearray(b"[")
    for view in views:
        piece += (b"" if view is views[0] else b",") + JSONResponse(answers.watcher(view)).body
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
            await asyncio.sleep(0)  # what takes the piece may not wait for anything
    yield bytes(piece + b"]")


def _refuse_name(name: str) -> None:
    problem = name_problem(name)
    if problem is not None:
        raise invalid([FieldProblem("name", problem)])


def _location(name: str) -> str:
    return f"/watchers/{quote(name, safe='')}"

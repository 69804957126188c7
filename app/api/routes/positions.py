"""The calls that ask for a watcher's position, and move it."""

from fastapi import APIRouter

from app.api.answering import Answered, Call
from app.api.parameters import CHANGES, CurrentRegistry, Name
from app.api.preconditions import Expected
from app.api.problems import documented
from app.api.schemas.positions import Position, TokenAnswer

router = APIRouter(tags=["watchers", "positions"], route_class=Call)


@router.get(
    "/watchers/{name}/token",
    responses=documented(404, 422, 503),
)
async def get_token(registry: CurrentRegistry, name: Name) -> Answered[TokenAnswer]:
    """Get a watcher's stored position."""
    return Answered(TokenAnswer.of(await registry.token(name)))


@router.put(
    "/watchers/{name}/token",
    dependencies=CHANGES,
    responses=documented(400, 401, 403, 404, 409, 412, 413, 415, 422, 503),
)
async def set_token(registry: CurrentRegistry, name: Name, body: Position, expected: Expected) -> Answered[TokenAnswer]:
    """Move a paused or failed watcher, in a new epoch. Changes that were published before may be published again."""
    return Answered(TokenAnswer.of(await registry.set_token(name, body.to_start(), expected=expected)))


@router.delete(
    "/watchers/{name}/token",
    dependencies=CHANGES,
    responses=documented(401, 403, 404, 409, 412, 422, 503),
)
async def reset_token(registry: CurrentRegistry, name: Name, expected: Expected) -> Answered[TokenAnswer]:
    """Move a paused or failed watcher back to its own `start`, in a new epoch."""
    return Answered(TokenAnswer.of(await registry.reset_token(name, expected=expected)))

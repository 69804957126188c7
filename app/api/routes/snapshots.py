"""The calls that begin a watcher's snapshot, and cancel it. How far it came is in the watcher's status."""

from typing import Annotated

from fastapi import APIRouter, Body

from app.api.answering import Answered, Call
from app.api.parameters import CHANGES, CurrentRegistry, Name
from app.api.problems import documented
from app.api.schemas.snapshots import SnapshotAnswer, SnapshotWish

router = APIRouter(tags=["watchers", "snapshots"], route_class=Call)


@router.post(
    "/watchers/{name}/snapshot",
    status_code=202,
    dependencies=CHANGES,
    responses=documented(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def begin_snapshot(
    registry: CurrentRegistry, name: Name, body: Annotated[SnapshotWish | None, Body()] = None
) -> Answered[SnapshotAnswer]:
    """Publish the documents that exist: each as a message with the operation `snapshot`, once, at its exact place among
    the changes. A paused watcher takes the snapshot when it is resumed."""
    wish = body or SnapshotWish()
    begun = await registry.snapshots.begin(name, filter_=wish.filter, wanted=wish.collections)
    return Answered(SnapshotAnswer.of(begun), status=202)


@router.delete(
    "/watchers/{name}/snapshot",
    status_code=202,
    dependencies=CHANGES,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def cancel_snapshot(registry: CurrentRegistry, name: Name) -> Answered[SnapshotAnswer]:
    """Cancel the snapshot that is running. What is published stays; what is on its way may still be published."""
    return Answered(SnapshotAnswer.of(await registry.snapshots.cancel(name)), status=202)

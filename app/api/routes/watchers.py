"""The calls that list, add, change and remove watchers. They only translate; the registry decides."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import Response

from app.api import preconditions
from app.api.answering import Answered, AnsweredInPieces, Call
from app.api.others import CurrentOthers
from app.api.parameters import CHANGES, CurrentRegistry, Name, Silent
from app.api.preconditions import Expected, tagged
from app.api.problems import documented, invalid
from app.api.schemas.watchers import Additions, Listing, NewWatcher, Removal, Trial, WatcherAnswer, WatcherShape
from app.control.registry import Addition, Registry
from app.domain.errors import FieldProblem
from app.domain.names import name_problem

router = APIRouter(tags=["watchers"], route_class=Call)


@router.get("/watchers", responses=documented(422, 503))
async def list_watchers(
    request: Request, registry: CurrentRegistry, others: CurrentOthers, query: Annotated[Listing, Query()]
) -> AnsweredInPieces[WatcherAnswer]:
    """List the watchers of all instances by name, all or those in one state."""
    return AnsweredInPieces(await others.watchers(registry, query.state, request.scope))


@router.post(
    "/watchers",
    status_code=201,
    dependencies=CHANGES,
    responses={
        200: {"model": WatcherAnswer | list[WatcherAnswer], "description": "With `dry_run`: what would be added."},
        201: {"headers": preconditions.ETAG, "description": "What was added. `ETag` and `Location` for one watcher."},
        **documented(400, 401, 403, 409, 413, 415, 422, 503),
    },
)
async def add_watcher(
    registry: CurrentRegistry, body: Annotated[Additions, Body()], query: Annotated[Trial, Query()]
) -> Answered[WatcherAnswer | list[WatcherAnswer]]:
    """Add a watcher and start it, unless it is `paused`; or a list of up to 1000 of them, all or none.

    The answer has them in the same order. Errors name the place in the list: `[3].source.collection`."""
    if isinstance(body, list):
        return await _add_all(registry, body, dry_run=query.dry_run)
    view = await registry.add(
        body.to_watcher(), paused=body.paused, explicit_start=body.explicit_start, dry_run=query.dry_run
    )
    if query.dry_run:
        return Answered(WatcherAnswer.of(view))
    return Answered(WatcherAnswer.of(view), 201, {"Location": _location(body.name), **tagged(view)})


async def _add_all(
    registry: Registry, wanted: list[NewWatcher], *, dry_run: bool
) -> Answered[WatcherAnswer | list[WatcherAnswer]]:
    additions = [Addition(each.to_watcher(), each.paused, each.explicit_start) for each in wanted]
    views = await registry.add_all(additions, dry_run=dry_run)
    return Answered([WatcherAnswer.of(view) for view in views], 200 if dry_run else 201)


@router.get(
    "/watchers/{name}",
    responses={**preconditions.tagged_answers(200), **documented(404, 422, 503)},
)
async def get_watcher(
    registry: CurrentRegistry, others: CurrentOthers, silent: Silent, name: Name
) -> Answered[WatcherAnswer]:
    """Get one watcher with all defaults filled in, and its status."""
    view = await registry.watcher(name)
    answer = WatcherAnswer.of(view) if silent is None else others.unheard(view, silent)
    return Answered(answer, headers=tagged(view))


@router.put(
    "/watchers/{name}",
    dependencies=CHANGES,
    responses={
        **preconditions.tagged_answers(200),
        201: {
            "model": WatcherAnswer,
            "description": "There was no watcher with this name; it was added.",
            "headers": preconditions.ETAG,
        },
        **documented(400, 401, 403, 409, 412, 413, 415, 422, 503),
    },
)
async def put_watcher(
    registry: CurrentRegistry, name: str, body: WatcherShape, query: Annotated[Trial, Query()], expected: Expected
) -> Answered[WatcherAnswer]:
    """Replace a watcher and restart it, or add it. Its position stays."""
    watcher = body.to_watcher(name)
    unlike = name_problem(name) or (
        f"differs from the name in the URL, {name}" if body.name not in ("", name) else None
    )
    if unlike is not None:
        others = (each for each in registry.rules.problems(watcher) if each.field != "name")
        raise invalid([FieldProblem("name", unlike), *others])
    view, added = await registry.put(
        watcher,
        paused=body.paused,
        explicit_start=body.explicit_start,
        dry_run=query.dry_run,
        expected=expected,
    )
    if query.dry_run:
        return Answered(WatcherAnswer.of(view))
    if added:
        return Answered(WatcherAnswer.of(view), 201, {"Location": _location(name), **tagged(view)})
    return Answered(WatcherAnswer.of(view), headers=tagged(view))


@router.delete(
    "/watchers/{name}",
    status_code=204,
    response_class=Response,
    dependencies=CHANGES,
    responses=documented(401, 403, 404, 409, 412, 422, 503),
)
async def remove_watcher(
    registry: CurrentRegistry, name: Name, query: Annotated[Removal, Query()], expected: Expected
) -> Response:
    """Stop a watcher and remove it. The stream is never deleted."""
    await registry.remove(name, delete_checkpoint=query.checkpoint == "delete", expected=expected)
    return Response(status_code=204)


@router.put(
    "/watchers/{name}/pause",
    status_code=202,
    dependencies=CHANGES,
    responses={**preconditions.tagged_answers(202), **documented(401, 403, 404, 409, 412, 422, 503)},
)
async def pause_watcher(registry: CurrentRegistry, name: Name, expected: Expected) -> Answered[WatcherAnswer]:
    """Pause a watcher in every instance, until it is resumed. Pausing a paused watcher changes nothing."""
    view = await registry.pause(name, expected=expected)
    return Answered(WatcherAnswer.of(view), 202, tagged(view))


@router.put(
    "/watchers/{name}/resume",
    status_code=202,
    dependencies=CHANGES,
    responses={**preconditions.tagged_answers(202), **documented(401, 403, 404, 409, 412, 422, 503)},
)
async def resume_watcher(registry: CurrentRegistry, name: Name, expected: Expected) -> Answered[WatcherAnswer]:
    """Resume a paused or failed watcher from its position."""
    view = await registry.resume(name, expected=expected)
    return Answered(WatcherAnswer.of(view), 202, tagged(view))


@router.post(
    "/watchers/{name}/restart",
    status_code=202,
    dependencies=CHANGES,
    responses={**preconditions.tagged_answers(202), **documented(401, 403, 404, 409, 412, 422, 503)},
)
async def restart_watcher(registry: CurrentRegistry, name: Name, expected: Expected) -> Answered[WatcherAnswer]:
    """Stop and start a watcher's task. Resume a paused watcher instead."""
    view = await registry.restart(name, expected=expected)
    return Answered(WatcherAnswer.of(view), 202, tagged(view))


def _location(name: str) -> str:
    return f"/watchers/{quote(name, safe='')}"

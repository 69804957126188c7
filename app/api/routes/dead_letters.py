"""The calls about dead letters: changes that could not be published, set aside in the stream `<stream>-DLQ`."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from app.api.answering import Answered, Call
from app.api.parameters import CHANGES, NOT_CACHED, CurrentRegistry, Name
from app.api.problems import documented
from app.api.schemas.base import MAX_SEQUENCE
from app.api.schemas.dead_letters import SHOWN_BYTES, LettersAnswer, Page, ReplayAnswer, WholeLetterAnswer

router = APIRouter(tags=["dead letters"], route_class=Call)

Sequence = Annotated[int, Path(ge=1, le=MAX_SEQUENCE, description="Its place in the dead-letter stream.")]


@router.get(
    "/watchers/{name}/dead-letters",
    responses=documented(404, 409, 422, 503),
)
async def list_dead_letters(
    registry: CurrentRegistry, name: Name, query: Annotated[Page, Query()]
) -> Answered[LettersAnswer]:
    """List a watcher's dead letters, oldest first."""
    total, found = await registry.letters.page(name, after=query.after, limit=query.limit)
    return Answered(LettersAnswer.of(total, found, query.limit), headers=NOT_CACHED)


@router.get(
    "/watchers/{name}/dead-letters/{sequence}",
    responses=documented(404, 409, 422, 503),
)
async def get_dead_letter(registry: CurrentRegistry, name: Name, sequence: Sequence) -> Answered[WholeLetterAnswer]:
    """Get one dead letter with its event."""
    letter, body = await registry.letters.get(name, sequence, SHOWN_BYTES)
    return Answered(WholeLetterAnswer.whole(letter, body), headers=NOT_CACHED)


@router.post(
    "/watchers/{name}/dead-letters/{sequence}/replay",
    dependencies=CHANGES,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def replay_dead_letter(registry: CurrentRegistry, name: Name, sequence: Sequence) -> Answered[ReplayAnswer]:
    """Replay a dead letter: publish it after everything that is already published, then remove it. The watcher has to
    be RUNNING. You may repeat the call after a 503 or a lost answer: it is still published once."""
    return Answered(ReplayAnswer.of(await registry.letters.replay(name, sequence)))


@router.delete(
    "/watchers/{name}/dead-letters/{sequence}",
    status_code=204,
    response_class=Response,
    dependencies=CHANGES,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def delete_dead_letter(registry: CurrentRegistry, name: Name, sequence: Sequence) -> Response:
    """Delete a dead letter. Its change will not be on the stream."""
    await registry.letters.remove(name, sequence)
    return Response(status_code=204)

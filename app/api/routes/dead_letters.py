"""The calls about dead letters: changes that could not be published, set aside in the stream `<stream>-DLQ`."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse, Response

from app.api.problems import documented
from app.api.routes.status import NOT_CACHED
from app.api.routes.watchers import CHANGES, Name, Watchers
from app.api.schemas import answers
from app.api.schemas.requests import MAX_SEQUENCE, LetterPage

router = APIRouter(tags=["dead letters"])

Sequence = Annotated[int, Path(ge=1, le=MAX_SEQUENCE, description="Its place in the dead-letter stream.")]


@router.get(
    "/watchers/{name}/dead-letters",
    response_model=answers.LettersAnswer,
    responses=documented(404, 409, 422, 503),
)
async def list_dead_letters(registry: Watchers, name: Name, query: Annotated[LetterPage, Query()]) -> Response:
    """List a watcher's dead letters, oldest first."""
    total, found = await registry.letters.page(name, after=query.after, limit=query.limit)
    return JSONResponse(answers.letters(total, found, query.limit), headers=NOT_CACHED)


@router.get(
    "/watchers/{name}/dead-letters/{sequence}",
    response_model=answers.WholeLetterAnswer,
    responses=documented(404, 409, 422, 503),
)
async def get_dead_letter(registry: Watchers, name: Name, sequence: Sequence) -> Response:
    """Get one dead letter with its event."""
    letter, body = await registry.letters.get(name, sequence, answers.SHOWN_BYTES)
    content = orjson.dumps(answers.whole_letter(letter, body))
    return Response(content, headers=NOT_CACHED, media_type="application/json")


@router.post(
    "/watchers/{name}/dead-letters/{sequence}/replay",
    response_model=answers.ReplayAnswer,
    dependencies=CHANGES,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def replay_dead_letter(registry: Watchers, name: Name, sequence: Sequence) -> Response:
    """Replay a dead letter: publish it after everything that is already published, then remove it. The watcher has to
    be RUNNING in this instance. You may repeat the call after a 503 or a lost answer: it is still published once."""
    return JSONResponse(answers.replay(await registry.letters.replay(name, sequence)))


@router.delete(
    "/watchers/{name}/dead-letters/{sequence}",
    status_code=204,
    response_class=Response,
    dependencies=CHANGES,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def delete_dead_letter(registry: Watchers, name: Name, sequence: Sequence) -> Response:
    """Delete a dead letter. Its change will not be on the stream."""
    await registry.letters.remove(name, sequence)
    return Response(status_code=204)

"""How a call declares its answer, and sends it: once, in the type that it returns.

    @router.get("/watchers/{name}", ...)
    async def get_watcher(...) -> Answered[WatcherAnswer]:
        return Answered(WatcherAnswer.of(view))

`Call` reads the model out of that type for the OpenAPI document, and mypy sees that the call sends this model and no
other. So the document and the answer cannot differ. FastAPI's own way validates each answer against the model once
more. That takes longer than making it, and it turns a watcher stored by an earlier version into an error.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import GenericAlias
from typing import Any, Generic, TypeVar, get_args, get_origin

from fastapi.responses import Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from app.api.schemas.base import to_json

A = TypeVar("A")

PIECE_BYTES = 32 * 1024
"""Of a list; then other tasks have their turn."""


class Answered(Response, Generic[A]):
    """A response whose body is a model, or a list or an object of models."""

    media_type = "application/json"

    def __init__(self, answer: A, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(to_json(answer), status, headers)


class AnsweredInPieces(StreamingResponse, Generic[A]):
    """A response whose body is a list of models, each made when its turn comes. Some may be JSON already (bytes), or as
    another instance has made them.

    Hundreds of watchers may have a large pipeline each, and no other task has to wait until all are written."""

    media_type = "application/json"

    def __init__(self, answers: Iterable[A | Mapping[str, Any] | bytes]) -> None:
        super().__init__(_in_pieces(answers))

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        # Not watched for a client that disconnects, which takes two tasks and an import: the list ends by itself.
        await self.stream_response(send)


class Call(APIRoute):
    """A route whose response model is the one that its function says it returns."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options | {"response_model": _answer_of(endpoint)})


def _answer_of(endpoint: Callable[..., Any]) -> Any:
    """The model in `Answered[model]`; None for a call that answers something else, or nothing."""
    returned = inspect.signature(endpoint).return_annotation
    if get_origin(returned) is Answered:
        return get_args(returned)[0]
    return GenericAlias(list, get_args(returned)) if get_origin(returned) is AnsweredInPieces else None


async def _in_pieces(answers: Iterable[Any]) -> AsyncIterator[bytes]:
    piece, between = bytearray(b"["), b""
    for answer in answers:
        piece += between + to_json(answer)
        between = b","
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
            await asyncio.sleep(0)  # the server may take the piece without waiting
    yield bytes(piece + b"]")

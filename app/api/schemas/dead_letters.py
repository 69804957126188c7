"""The shapes of the calls about dead letters: a page of them, one with its event, and a replay."""

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import Field

from app.api.schemas.base import MAX_SEQUENCE, Answer, Query, Time, Token, Unparsed, moment, shown
from app.domain.dead_letters import DeadLetter, Replay

EventJson = bytes
"""An event as JSON text. The models have a field `bytes`."""
SHOWN_BYTES = 1024 * 1024
"""A larger event is not answered; the object store has it, or the dead-letter stream."""


class Page(Query):
    """The query of `GET /watchers/{name}/dead-letters`."""

    after: int = Field(default=0, ge=0, le=MAX_SEQUENCE, description="Begin after the dead letter with this sequence.")
    limit: int = Field(default=20, ge=1, le=100, description="The maximum number in one answer.")


class LetterAnswer(Answer):
    """A dead letter: a change that could not be published."""

    sequence: int
    """Its place in the dead-letter stream, which identifies it."""
    token: Token
    operation: str
    reason: str
    """`not_encodable`: the event cannot be written as JSON. `oversize`: its message is too large for the server."""
    error: str
    """The same in words."""
    time: Time
    """When it was set aside."""
    bytes: int
    """The event's size as BSON."""
    in_object_store: bool
    """Whether the event is in the object store, because no message can hold it."""
    document_key: Any
    """The key of the changed document. Null when it is not known."""
    reduced: list[str]
    """The fields that the event lacks, because MongoDB could not send it with them."""
    namespace: str | None
    """The collection, such as `shop.orders`, or a database alone for `dropDatabase`. Null where the watcher has one
    collection."""

    @staticmethod
    def of(letter: DeadLetter) -> "LetterAnswer":
        return LetterAnswer.model_construct(
            sequence=letter.sequence,
            token=letter.token,
            operation=letter.operation,
            reason=letter.reason,
            error=shown(letter.error),
            time=moment(letter.time),
            bytes=letter.size,
            in_object_store=letter.object is not None,
            document_key=None if letter.key is None else json.loads(letter.key),
            reduced=letter.reduced.split(", ") if letter.reduced else [],
            namespace=letter.namespace,
        )


class WholeLetterAnswer(Unparsed, LetterAnswer):
    """A dead letter with its event."""

    object: str | None
    """Where in the object store the event is, as `<bucket>/<name>`."""
    bson: str | None
    """The event as BSON in Base64. Null when it is larger than 1 MiB, or gone from the object store."""
    event: Any
    """The event as JSON. Null when it cannot be written as JSON, or is larger than 1 MiB."""

    @staticmethod
    def whole(letter: DeadLetter, body: EventJson | None) -> "WholeLetterAnswer":
        """`body` is the event as JSON, which is not parsed: it is answered as it would be in the message."""
        raw = letter.raw if letter.raw is not None and len(letter.raw) <= SHOWN_BYTES else None
        return WholeLetterAnswer.model_construct(
            **vars(LetterAnswer.of(letter)),
            object=letter.object,
            bson=None if raw is None else b64encode(raw).decode(),
            event=orjson.Fragment(body) if body is not None and len(body) <= SHOWN_BYTES else None,
        )


class LettersAnswer(Answer):
    """Dead letters, oldest first."""

    total: int
    """How many the watcher has."""
    dead_letters: list[LetterAnswer]
    after: int | None
    """The value of `after` for the next page. Null on the last page."""

    @staticmethod
    def of(total: int, found: Sequence[DeadLetter], limit: int) -> "LettersAnswer":
        return LettersAnswer.model_construct(
            total=total,
            dead_letters=[LetterAnswer.of(each) for each in found],
            after=found[-1].sequence if len(found) == limit else None,
        )


class ReplayAnswer(Answer):
    """A dead letter that was replayed."""

    token: Token
    stream_sequence: int
    """Its message's place on the watcher's stream."""
    message_id: str

    @staticmethod
    def of(replay: Replay) -> "ReplayAnswer":
        return ReplayAnswer.model_construct(token=replay.token, stream_sequence=replay.sequence, message_id=replay.id)

"""The shapes of the calls that look at a watcher's stream: what it is and holds, and a message that arrives."""

from typing import Annotated, Any

import orjson
from pydantic import Field

from app.api.schemas.base import Answer, Query, Time, Unparsed, moment, shown
from app.domain.streams import ConsumerFacts, StoredMessage, StreamFacts

SHOWN_BYTES = 64 * 1024
"""Of a larger message only the beginning is sent."""


class Following(Query):
    """The query of `GET /watchers/{name}/messages`."""

    last: int = Field(
        default=20, ge=0, le=100, description="How many of the messages already on the stream come first."
    )


class ConsumerAnswer(Answer):
    """A consumer of the stream."""

    name: str
    durable: bool
    filter_subjects: list[str]
    """Empty when it reads the whole stream."""
    delivered_sequence: int
    """The last message delivered to it; 0 before the first."""
    pending: int
    """Messages not delivered to it yet."""
    ack_pending: int
    """Messages delivered to it and not acknowledged."""
    redelivered: int

    @staticmethod
    def of(consumer: ConsumerFacts) -> "ConsumerAnswer":
        return ConsumerAnswer.model_construct(
            name=consumer.name,
            durable=consumer.durable,
            filter_subjects=list(consumer.filter_subjects),
            delivered_sequence=consumer.delivered_sequence,
            pending=consumer.pending,
            ack_pending=consumer.ack_pending,
            redelivered=consumer.redelivered,
        )


class StreamAnswer(Answer):
    """A watcher's stream: its settings, its content and its consumers."""

    name: str
    subjects: list[str]
    created: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    storage: str
    retention: str
    discard: str
    replicas: int
    max_age_seconds: float
    """0: messages do not expire."""
    max_bytes: int
    """-1: no limit."""
    max_messages: int
    """-1: no limit."""
    duplicate_window_seconds: float
    messages: int
    """In the whole stream, which may hold other subjects too."""
    bytes: int
    first_sequence: int
    last_sequence: int
    consumer_count: int
    consumers: list[ConsumerAnswer] | None
    """By name, at most 256. Null when the account may not list them."""
    consumers_why: str | None
    """Why they are not listed."""

    @staticmethod
    def of(stream: StreamFacts) -> "StreamAnswer":
        listed = stream.consumers
        return StreamAnswer.model_construct(
            name=stream.name,
            subjects=list(stream.subjects),
            created=stream.created,
            storage=stream.storage,
            retention=stream.retention,
            discard=stream.discard,
            replicas=stream.replicas,
            max_age_seconds=stream.max_age_seconds,
            max_bytes=stream.max_bytes,
            max_messages=stream.max_messages,
            duplicate_window_seconds=stream.duplicate_window_seconds,
            messages=stream.messages,
            bytes=stream.bytes,
            first_sequence=stream.first_sequence,
            last_sequence=stream.last_sequence,
            consumer_count=stream.consumer_count,
            consumers=None if listed is None else [ConsumerAnswer.of(each) for each in listed],
            consumers_why=shown(stream.consumers_why),
        )


class MessageEvent(Unparsed, Answer):
    """The data of an `event: message`."""

    sequence: int
    time: Time
    subject: str
    id: str | None
    """`Nats-Msg-Id`."""
    headers: dict[str, str]
    body: Any
    """The body as JSON, with each number as it is on the stream. A string when it is not JSON, or was cut."""
    bytes: int
    """The body's size."""
    note: str | None
    """Why the body is a string."""

    @staticmethod
    def of(message: StoredMessage) -> "MessageEvent":
        body, note = _body(message.body)
        return MessageEvent.model_construct(
            sequence=message.sequence,
            time=moment(message.time),
            subject=message.subject,
            id=message.headers.get("Nats-Msg-Id"),
            headers=dict(message.headers),
            body=body,
            bytes=len(message.body),
            note=note,
        )


def _body(body: bytes) -> tuple[Any, str | None]:
    if len(body) > SHOWN_BYTES:
        cut = body[:SHOWN_BYTES].decode("utf-8", "replace")
        return cut, f"cut: the first {SHOWN_BYTES} of {len(body)} bytes"
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace"), "not JSON"
    return orjson.Fragment(body), None

"""What the calls of `api/routes/streams.py` answer, as shapes for OpenAPI.

Answers are made without them, so that they are imported when somebody asks for the document, and not at the start.
"""

from typing import Annotated, Any

from pydantic import Field
from pydantic.json_schema import models_json_schema

from app.api.schemas.answers import Answer, Time
from app.domain.lifecycle import State


class HappeningAnswer(Answer):
    """A state that a watcher entered, or an error in that state."""

    state: State
    time: Time
    """When it occurred first."""
    reason: str | None
    count: int
    """How often it occurred in a row."""
    last_time: Time
    """When it occurred last."""


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


class MessageEvent(Answer):
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


def schemas() -> dict[str, Any]:
    """The components that `api/routes/streams.py` refers to."""
    models: list[Any] = [HappeningAnswer, StreamAnswer, MessageEvent]
    _, document = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    found: dict[str, Any] = document["$defs"]
    return found

"""A watcher's stream as people look at it: its settings and content, its consumers, and single messages.

Values only; times are seconds since 1970. Publishing has its own view of streams (`jetstream/streams.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ConsumerFacts:
    """A consumer of a stream. `pending`: messages not delivered yet; `ack_pending`: not acknowledged."""

    name: str
    durable: bool
    filter_subjects: tuple[str, ...]
    delivered_sequence: int
    """The last message delivered to it; 0 before the first."""
    pending: int
    ack_pending: int
    redelivered: int


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """A stream. Limits of -1 are none, a `max_age_seconds` of 0 too."""

    name: str
    subjects: tuple[str, ...]
    created: str
    storage: str
    retention: str
    discard: str
    replicas: int
    max_age_seconds: float
    max_bytes: int
    max_messages: int
    duplicate_window_seconds: float
    messages: int
    bytes: int
    first_sequence: int
    last_sequence: int
    consumer_count: int
    consumers: tuple[ConsumerFacts, ...] | None
    """The first of them, by name; None where they may not be listed."""
    consumers_why: str | None = None
    """Why they are not listed."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as it is on the stream."""

    sequence: int
    time: float
    subject: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Messages between two sequences that are not shown, because there were too many."""

    after: int
    before: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why no messages come at the moment."""

    reason: str


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing has happened for a while: a reason to send a sign of life."""


Seen = StoredMessage | Skipped | Trouble | Quiet
"""What comes while a stream is followed."""

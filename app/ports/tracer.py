"""What is traced: opening, reading, publishing and storing a position, in a span for each batch and none for an event.

Without a tracer nothing is wrapped, so tracing costs nothing where it is off (decision 0055).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from app.domain.watcher import Watcher
from app.ports.checkpoint_store import CheckpointStore
from app.ports.sink import EventSink
from app.ports.source import ChangeSource

SpanName = Literal["open", "read", "publish", "checkpoint"]


class Span(Protocol):
    """Something that began and has not ended, or has ended and is referred to."""

    @property
    def traceparent(self) -> str:
        """The span as the W3C header of this name has it: 55 characters."""

    def end(self, error: BaseException | None = None) -> None:
        """It has ended now, with this error if it failed. Never raises; the second call is ignored."""


class Tracing(Protocol):
    """Has what a run works with traced."""

    def of(
        self, watcher: Watcher, source: ChangeSource, sink: EventSink, checkpoints: CheckpointStore
    ) -> tuple[ChangeSource, EventSink, CheckpointStore]:
        """Return the same three, traced; asked once for each run."""


class Tracer(Protocol):
    """Takes spans, and sends them on in the background. Never raises, never waits, but in `close`."""

    def begin(
        self,
        name: SpanName,
        attributes: Mapping[str, str | int],
        *,
        parent: Span | None = None,
        links: Sequence[Span] = (),
        at: int | None = None,
    ) -> Span:
        """Begin a span, now or `at` nanoseconds since 1970. Without a parent it begins a trace."""

    async def close(self) -> None:
        """Send what has ended, within a few seconds, and stop. Nothing may begin afterwards."""

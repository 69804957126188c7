"""The publish modes behind one contract."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from app.domain.events import Change
from app.jetstream.publish.atomic import Atomic
from app.jetstream.publish.fast_ingest import FastIngest
from app.jetstream.publish.sender import Sender
from app.jetstream.publish.single import Single
from app.jetstream.publish.window import Window
from app.jetstream.streams import Mode


class PublishMode(Protocol):
    """One way to store changes after a sequence."""

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        """Store one change or more after sequence `fence`, all in order, and return the new last sequence.

        Raises as `ports.EventSink.publish`."""


@runtime_checkable
class Pipelined(PublishMode, Protocol):
    """One that may have several sends under way, as `ports.EventSink` says."""

    def send(self, changes: Sequence[Change], fence: int, *, more: bool) -> asyncio.Future[int]: ...
    async def ready(self, changes: Sequence[Change]) -> None: ...
    def settle(self) -> None: ...
    def close(self) -> None:
        """Give up what is under way. May be called twice."""


def publish_modes(sender: Sender) -> Mapping[Mode, PublishMode]:
    """Return every mode, over one sender."""
    return {
        "fast_ingest": FastIngest(sender),
        "atomic": Atomic(sender),
        "window": Window(sender),
        "single": Single(sender),
    }

"""The publish modes behind one contract."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from app.domain.events import Change
from app.jetstream.publish.atomic import Atomic
from app.jetstream.publish.sender import Sender
from app.jetstream.publish.single import Single
from app.jetstream.publish.window import Window
from app.jetstream.streams import Mode


class PublishMode(Protocol):
    """One way to store changes after a sequence."""

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        """Store one change or more after sequence `fence`, all in order, and return the new last sequence.

        Raises as `ports.EventSink.publish`."""


def publish_modes(sender: Sender) -> Mapping[Mode, PublishMode]:
    """Return every mode, over one sender."""
    return {"atomic": Atomic(sender), "window": Window(sender), "single": Single(sender)}

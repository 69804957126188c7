"""Changes one by one, each fenced and awaited before the next is sent."""

from collections.abc import Sequence

from app.domain.errors import ChangewireError, OutcomeUnknown, SinkUnavailable, StreamFull, StreamRefused
from app.domain.events import Change
from app.jetstream.publish.sender import Sender


class Single:
    """Publishes one message at a time."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        for stored, change in enumerate(changes):
            try:
                fence = await self._sender.store_one(change, fence)
            except (OutcomeUnknown, StreamRefused, SinkUnavailable) as error:
                meaning = cut_short(error, stored=stored, sequence=fence, count=len(changes))
                if meaning is error:
                    raise
                raise meaning from error
        return fence


def cut_short(error: ChangewireError, *, stored: int, sequence: int, count: int) -> ChangewireError:
    """Return what an error means for a batch of `count`, of which the first `stored` are acknowledged.

    Where the error speaks of the batch's end, it says how much of it is stored. A plain refusal promises that nothing
    is stored: after a first acknowledgement it becomes an unknown outcome."""
    if isinstance(error, OutcomeUnknown | StreamFull):
        error.stored, error.sequence = stored, sequence
        return error
    if stored == 0:
        return error
    unknown = OutcomeUnknown(f"only the first {stored} of {count} changes are stored: {error}")
    unknown.stored, unknown.sequence = stored, sequence
    unknown.__cause__ = error
    return unknown

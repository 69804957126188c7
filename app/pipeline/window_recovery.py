"""Places on the stream that another message may have taken from ours: kept until each is known to hold our change.

Without atomic batches a foreign message that lands within a window takes the place of one of ours, and those after it
pass. The acknowledgements show where that may be so, and the sink tells with the error. Such a place is *unsettled*.
Until every one is seen to hold our change, the position must not be trusted: not after an error, not after a crash, not
by another instance. So the places are stored beside the position before anything else is done.
"""

from app.domain.errors import OutcomeUnknown, PositionUndecidable
from app.domain.position import Checkpoint, OwnMessage
from app.domain.tokens import parse_message_id, token_of
from app.domain.watcher import Watcher
from app.pipeline.run_state import RunState
from app.ports import CheckpointStore, EventSink


class WindowRecovery:
    """One capture's unsettled places. Those that could not be stored yet are kept after the capture has ended."""

    def __init__(self, watcher: Watcher, sink: EventSink, checkpoints: CheckpointStore, run_state: RunState) -> None:
        self._watcher = watcher
        self._sink = sink
        self._checkpoints = checkpoints
        self._run_state = run_state

    def recall(self, checkpoint: Checkpoint | None) -> None:
        """Take up what is stored, by this process or another."""
        if checkpoint is not None:
            self._run_state.left_unsettled(checkpoint.unsettled)

    async def keep(self, error: OutcomeUnknown, epoch: int) -> None:
        """Store what an unknown outcome leaves unsettled. Raises StoreUnavailable, NotAuthorised."""
        found = [(sequence, parse_message_id(id_)) for sequence, id_ in error.unsettled]
        if found:
            self._run_state.left_unsettled(OwnMessage(sequence, id_) for sequence, id_ in found if id_ is not None)
            await self._checkpoints.keep_unsettled(self._run_state.unsettled, epoch)

    async def settle(self, epoch: int, end: int) -> None:
        """Look at every unsettled place, and forget it where it holds our change, or lies behind the stream's `end`:
        nothing is stored behind it then.

        Raises PositionUndecidable where one does not, and what the sink and the checkpoint store raise."""
        if not self._run_state.unsettled:
            return
        for place in self._run_state.unsettled:
            # What an earlier epoch left behind was settled by the move that ended it.
            if place.id.epoch == epoch and place.sequence <= end and not await self._sink.holds(place):
                space = self._watcher.space
                raise PositionUndecidable(
                    f"another program published to {space} while a window of changes was under way, and its message "
                    f"took the place of one of them on the stream (sequence {place.sequence}, change "
                    f"{token_of(place.id.position)}): the changes after it are there, it is not. Rewind the watcher to "
                    "the change before it, and keep others from these subjects"
                )
        await self._checkpoints.keep_unsettled((), epoch)
        self._run_state.settled()

"""A dead letter published after all: once, by the watcher itself, between two of its batches.

Its message is out of turn. So its id begins with the position that the watcher has reached, and ends with the change's
own token: any writer that reads the stream back after it goes on where the watcher was. Before it is published, a
receipt says where it is going to be, and a later attempt looks there first. The letter is removed last.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from app.domain.dead_letters import DeadLetter, Receipt, Replay, Replayed, brief, is_brief, judge
from app.domain.errors import (
    ChangewireError,
    Conflict,
    EventNotEncodable,
    NotFound,
    OutcomeUnknown,
    RegistryError,
    StreamFull,
    Unavailable,
)
from app.domain.events import Change
from app.domain.snapshot import HEADER, ROW_OPERATIONS
from app.domain.tokens import MessageId, RowPlace
from app.pipeline.batch_encoder import LEAST_POINTER
from app.pipeline.ledger import Ledger
from app.pipeline.publisher import Publisher
from app.pipeline.run import Run


class Replays:
    """One capture's replays. One at a time, and no publish of the capture's beside it."""

    def __init__(self, run: Run, ledger: Ledger, publisher: Publisher) -> None:
        self._watcher = run.watcher
        self._sink = run.ports.sink
        self._letters = run.ports.letters
        self._ledger = ledger
        self._publisher = publisher
        self._codec = run.shared.codec
        self._statistics = run.statistics

    async def replay(self, sequence: int) -> Replay:
        """Publish the letter with this sequence, and remove it.

        Raises NotFound, Conflict (it cannot be published, and stays), Unavailable (ask again), and as
        `Publisher.publish` what ends a capture."""
        await self._ledger.read_back((), None)
        with _letters_needed():
            letter = await self._letters.get(sequence)
            if letter is None:
                raise NotFound(f"{self._watcher.name} has no dead letter {sequence}")
            if is_brief(letter.token) and letter.raw is not None:
                letter = replace(letter, token=self._codec.identify(letter.raw)[0])
            receipt = await self._letters.receipt(letter.token)
        if letter.token > self._ledger.reached.token:
            raise Conflict("the watcher has been moved back and has not come to this change again yet; try again later")
        done = await self._look(receipt)
        if done is None:
            done = await self._publish(letter, receipt)
        with _letters_needed("it is published; that the letter is still there does no harm"):
            await self._letters.remove(letter)
            self._statistics.dead_letters = await self._letters.count()
        return done

    async def _look(self, receipt: Receipt | None) -> Replay | None:
        """Return the replay that a receipt tells of, where it is on the stream. Raises Conflict where nothing tells."""
        if receipt is None:
            return None
        following = await self._sink.following(receipt.fence)
        found = judge(receipt, following, self._ledger.reached.epoch)
        if found is Replayed.UNKNOWN:
            raise Conflict(
                f"a replay of this change was begun, and whether it is on the stream cannot be told any more: messages "
                f"after #{receipt.fence} are gone. Delete the dead letter where it was published"
            )
        return Replay(receipt.token, following.sequence, str(following.id)) if found is Replayed.THERE else None

    async def _publish(self, letter: DeadLetter, receipt: Receipt | None) -> Replay:
        reached, fence = self._ledger.reached, self._ledger.fence
        if await self._sink.published(MessageId(letter.token, reached.epoch)):
            raise Conflict(
                "the change has been published in its place since, by a watcher that was moved back or changed; the "
                "dead letter is of no use any more: delete it"
            )
        id_ = str(MessageId(reached.token, reached.epoch, brief(letter.token)))
        change = await self._message(letter, id_)
        wanted = Receipt(brief(letter.token), reached.epoch, fence, reached.stream_created or "")
        with _letters_needed():
            if receipt is not None and replace(receipt, sequence=0) != wanted:
                # Nothing is or will be where it says: it was missed, or the fence is of another kind by now.
                await self._letters.drop_receipt(receipt)
                receipt = None
            if receipt is None and not await self._letters.keep_receipt(wanted):
                raise Conflict("another instance is replaying this change at the same moment; look again")
        try:
            sequence = await self._publisher.publish_out_of_turn(replace(change, token=reached.token))
        except StreamFull as error:  # nothing of it is stored, and the watcher itself may have nothing to publish
            raise Unavailable(f"{error}; nothing was published") from error
        except OutcomeUnknown as error:
            await self._ledger.read_back((), error, out_of_turn=1)
            done = await self._look(wanted)
            if done is None:
                raise Unavailable(f"whether the replay is on the stream is not certain; ask again: {error}") from error
            return done
        return Replay(letter.token, sequence, id_)

    async def _message(self, letter: DeadLetter, id_: str) -> Change:
        """Make the message, a claim check where it has to be one. Raises Conflict, SinkUnavailable, StreamRefused."""
        sink = self._watcher.sink
        if letter.operation not in (*sink.operations, *ROW_OPERATIONS):
            raise Conflict(f"the watcher does not publish changes with the operation {letter.operation} (any more)")
        if letter.raw is None:
            raise Conflict(f"the event is not in the object store any more, or not whole: {letter.object}")
        try:
            change = replace(self._codec.encode(letter.raw, ""), id=id_)
            if self._watcher.subjects.names_sources:
                change.subject = self._watcher.subjects.subject(*self._codec.names(letter.raw), change.operation)
        except EventNotEncodable as error:
            raise Conflict(f"the change still cannot be published: {error}") from error
        row = RowPlace.parse(change.token)
        headers: tuple[tuple[str, str], ...] = () if row is None else ((HEADER, row.run),)
        if letter.reduced is not None:
            headers += (("Changewire-Reduced", letter.reduced),)
        change = replace(change, headers=headers)
        if not self._sink.too_large(change):
            return change
        room = self._sink.room(change)
        if (unusable := self._sink.unusable(change)) is not None:
            raise Conflict(f"the change still cannot be published: {unusable}; choose another sink.subject")
        if room < LEAST_POINTER:
            raise Conflict(
                f"the change cannot be published now: the message's id of {len(id_):,} characters, which holds the "
                "watcher's position, does not fit into its headers; try again when a later change has been published"
            )
        if sink.oversize != "claim_check":
            raise Conflict(
                f"the change still cannot be published: its message of {len(change.body):,} bytes is more than the "
                "NATS server takes (max_payload); raise that, or set sink.oversize to claim_check"
            )
        return await self._sink.claim_check(change, self._codec.reduce(letter.raw, room))


@contextmanager
def _letters_needed(so_far: str = "nothing was published") -> Iterator[None]:
    """Trouble with the dead letters is the request's, not the watcher's."""
    try:
        yield
    except RegistryError:
        raise
    except ChangewireError as error:
        raise Unavailable(f"{error} ({so_far})") from error

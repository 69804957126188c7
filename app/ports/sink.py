"""Where changes go: one watcher's subjects on its stream, and the fence that keeps them in order."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

from app.domain.dead_letters import Following
from app.domain.events import Change
from app.domain.position import OwnMessage, Tail
from app.domain.tokens import MessageId


class EventSink(Protocol):
    """One watcher's place on its stream. One writer at a time in this process; others may exist elsewhere."""

    @property
    def exclusive(self) -> bool:
        """Whether the stream carries this watcher's subjects alone, so that its last sequence is the fence."""

    @property
    def mode(self) -> Literal["fast_ingest", "atomic", "window", "single"]:
        """How changes are published: in a batch that stays open, in atomic batches, in a chained window of single
        messages, or one by one."""

    @property
    def slower(self) -> str | None:
        """Why changes are not published in the fastest mode, and what to do about it; None where they are."""

    @property
    def pipelined(self) -> bool:
        """Whether `send` may be used, which lets several batches be under way at once."""

    async def prepare(self, *, may_create: bool) -> None:
        """Find the stream, or create it; switch on what makes it faster where that is allowed.

        Raises SinkUnavailable, StreamRefused (absent while `may_create` is false), StreamUnsuitable (its subjects do
        not cover the watcher's; neither atomic batches nor a safe fallback), NotAuthorised."""

    async def tail(self, since: int = 0) -> Tail:
        """Read the stream's end from its leader; `exclusive` and `mode` may be others afterwards.

        Where it ends in messages of others, the watcher's own is searched for, back to sequence `since`: what is before
        is known. `unsearched` where that is too far.

        Raises SinkUnavailable, StreamRefused, NotAuthorised, StreamUnsuitable."""

    async def holds(self, message: OwnMessage) -> bool | None:
        """Look whether the stream has this message at its sequence: False for another one there, None for none.

        Asked of the leader. Raises SinkUnavailable, StreamRefused, NotAuthorised."""

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        """Store the changes after sequence `fence`, all in order, and return the new last sequence.

        At most `limits.max_batch` changes; a change that is `too_large` first needs `claim_check`.
        Raises FenceLost, SeenBefore, OutcomeUnknown: the changes may be stored, wholly or from the front on; read back,
        and look at what the error's `unsettled` name. What its `stored` counts is acknowledged already.
        Raises StreamFull: after its `stored`, nothing of them is stored; fewer may be taken, or the same ones later.
        Raises StreamRefused, SinkUnavailable, NotAuthorised: nothing of them is stored, or in the modes without atomic
        batches the first of them; the next opening finds them on the stream."""

    def send(self, changes: Sequence[Change], fence: int, *, more: bool) -> asyncio.Future[int]:
        """Send the changes behind those that are under way, after sequence `fence`, which those will leave.

        `ready` comes first, and a `settle` or another `send` follows where `more` says so. The future gives what
        `publish` returns or raises. The sends end in their order. Once one has failed, those after it end as well. They
        have failed too; or the one that failed may be stored, or another writer's messages have its place.
        Nothing else is published meanwhile. Never raises."""

    async def ready(self, changes: Sequence[Change]) -> None:
        """Wait until these changes may be sent behind those under way, or one of those has failed."""

    def settle(self) -> None:
        """Nothing follows after all: have what is under way acknowledged."""

    async def publish_singly(self, change: Change, fence: int) -> int:
        """Publish one change; where the duplicate window knows its id it counts as published.

        Returns the stream's last sequence as far as known: the new message's, or `fence` for a known one.
        Errors as `publish`."""

    @property
    def surely_fits(self) -> tuple[int, int]:
        """The bytes of a body, and of an id, below which no change without headers of its own is `too_large`.

        The quick answer for a whole batch."""

    def too_large(self, change: Change) -> bool:
        """Whether server or stream would refuse the message: body and headers together, or the headers alone, which
        hold the id. Or the change's own subject is `unusable`."""

    def unusable(self, change: Change) -> str | None:
        """Say in a part of a sentence why nothing can be published to the change's own subject; None where it can."""

    def room(self, change: Change) -> int:
        """Bytes that are left for a pointer's body in the message that takes this change's place; below 0: none."""

    async def following(self, sequence: int) -> Following:
        """Look at what comes after a sequence on the stream, asked of the leader.

        Raises SinkUnavailable, StreamRefused, NotAuthorised."""

    async def last_of_each(self, namespaces: Collection[str], since: int = 0) -> Mapping[str, OwnMessage]:
        """Find the last message of each of these collections, such as `shop.orders`, after sequence `since`.

        A collection is left out that has none there, or none among the last 50,000 messages. Asked of the leader.
        Raises SinkUnavailable, StreamRefused, NotAuthorised."""

    async def published(self, id_: MessageId) -> bool:
        """Look whether the stream has a message with this id in its place, by the order of the ids before and after.

        Asked of the leader. Raises SinkUnavailable, StreamRefused, NotAuthorised."""

    async def claim_check(self, change: Change, pointer: bytes) -> Change:
        """Store the body in the object store, under the token's name, and return the change that points to it.

        Idempotent. Raises SinkUnavailable, StreamRefused."""

    async def close(self) -> None:
        """Release what the sink holds. Never raises."""

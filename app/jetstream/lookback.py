"""The last message of ours on a stream, behind messages that are not."""

import asyncio

from app.domain.position import OwnMessage
from app.domain.subjects import covers
from app.domain.tokens import MessageId, parse_message_id
from app.domain.watcher import OPERATIONS, Watcher
from app.jetstream.stream_api import StreamApi
from app.jetstream.streams import Message, Stream

LOOK_BACK = 50_000
"""The most messages of the watcher's subjects that are read to find the last one of ours: about five seconds' worth."""
_BLOCK = 64
"""So many sequences are looked through first, and then twice as many each time."""
_AT_ONCE = 16
"""Requests under way together; more are no faster."""


async def look_back(
    api: StreamApi, watcher: Watcher, stream: Stream, last: Message, since: int = 0
) -> tuple[OwnMessage | None, int, bool]:
    """Find the last message of ours after sequence `since`, `last` being the last one in the watcher's subject space.

    Returns it, or one that is not after `since` or None; how many foreign ones behind it were seen; and whether the
    search was given up while one of ours might still be hidden (after `LOOK_BACK` foreign ones). Raises what
    `StreamApi` raises.
    """
    own = _own(last, watcher)
    if own is not None:
        return own, 0, False
    # The last foreign message on a subject of ours: below it one of ours may be hidden. A subject of ours that ends in
    # one of ours needs no search, and neither do all the others.
    hidden = last.sequence
    if "*" in watcher.space:
        hidden = 0
        for subject in sorted({watcher.subject(operation) for operation in (*OPERATIONS, "gap")}):
            found = await api.last(stream.name, subject)
            if found is None:
                continue
            mine = _own(found, watcher)
            if mine is None:
                hidden = max(hidden, found.sequence)
            elif own is None or mine.sequence > own.sequence:
                own = mine
    foreign, left, block = 1, LOOK_BACK, _BLOCK
    top = min(hidden, last.sequence - 1)
    floor = max(own.sequence if own else 0, int(stream.state["first_seq"]) - 1, since)
    while top > floor and left > 0:
        begin = max(floor, top - min(block, left))
        there = await _between(api, stream.name, watcher.space, begin, top)
        ours = [mine for mine in (_own(message, watcher) for message in there) if mine is not None]
        if ours:
            own = max(ours, key=lambda mine: mine.sequence)
            return own, foreign + sum(message.sequence > own.sequence for message in there), False
        foreign += len(there)
        left -= len(there)
        top, block = begin, block * 2
    return own, foreign, top > floor


async def find(api: StreamApi, watcher: Watcher, stream: Stream, wanted: MessageId) -> bool:
    """Look whether a message of ours is there, by halving: epochs and positions grow along the stream.

    Takes some twenty requests. Raises what `StreamApi` raises.
    """
    place = (wanted.epoch, wanted.position)
    low, high = int(stream.state["first_seq"]), int(stream.state["last_seq"]) + 1
    while low < high:
        middle = (low + high) // 2
        message = await _next_own(api, watcher, stream.name, middle, high)
        if message is None or (message.id.epoch, message.id.position) > place:
            high = middle
        elif message.id == wanted:
            return True
        else:  # before it, or a replay at the same position, which is behind it or long after
            if (message.id.epoch, message.id.position) == place:
                high = middle
            else:
                low = message.sequence + 1
    return False


async def _next_own(api: StreamApi, watcher: Watcher, name: str, sequence: int, end: int) -> OwnMessage | None:
    """Return the first message of ours from a sequence on and before `end`."""
    while (message := await api.next(name, watcher.space, sequence)) is not None and message.sequence < end:
        own = _own(message, watcher)
        if own is not None:
            return own
        sequence = message.sequence + 1
    return None


async def _between(api: StreamApi, name: str, space: str, begin: int, end: int) -> list[Message]:
    """Return the messages of the subject space after `begin` up to `end`, read in several places at once."""

    async def walk(sequence: int, end: int) -> list[Message]:
        there: list[Message] = []
        while sequence <= end:
            message = await api.next(name, space, sequence)
            if message is None or message.sequence > end:
                break
            if covers(space, message.subject):
                there.append(message)
            sequence = message.sequence + 1
        return there

    step = -(-(end - begin) // _AT_ONCE)
    walks = (walk(first, min(first + step - 1, end)) for first in range(begin + 1, end + 1, step))
    walked = await asyncio.gather(*walks, return_exceptions=True)  # so that none is left behind where one fails
    there: list[Message] = []
    for part in walked:
        if isinstance(part, BaseException):
            raise part
        there += part
    return there


def _own(message: Message, watcher: Watcher) -> OwnMessage | None:
    """The message as one of ours; None where it has no id of ours or tells of another collection, as do those of a
    watcher that had these subjects before or takes them from us now: its tokens are no positions of this one."""
    id_ = parse_message_id(message.id)
    if id_ is None or message.namespace not in (None, watcher.source.namespace):
        return None
    return OwnMessage(message.sequence, id_)

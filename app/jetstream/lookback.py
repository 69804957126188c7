"""Finding this watcher's last message on a stream where foreign messages came after it."""

import asyncio
from collections.abc import Collection

from app.domain.position import OwnMessage
from app.domain.snapshot import ROW_OPERATIONS
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
    """Find the last message of ours after sequence `since`, `last` being the last one that the watcher's subject filter
    matches.

    Returns it, or one that is not after `since` or None; how many foreign messages after it were seen; and whether
    the search was given up while one of ours might still be hidden (after `LOOK_BACK` foreign ones). Raises what
    `StreamApi` raises.
    """
    own = _own(last, watcher)
    if own is not None:
        return own, 0, False
    hidden = last.sequence
    if "*" in watcher.space:
        own, hidden = await _last_of_each_subject(api, watcher, stream.name)
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


async def _last_of_each_subject(api: StreamApi, watcher: Watcher, name: str) -> tuple[OwnMessage | None, int]:
    """Return the last message of ours that ends one of our subjects, and the last foreign one that ends another.

    Below that foreign message, one of ours may be hidden. A subject that ends in one of ours needs no search, nor does
    a subject that is not ours.
    """
    own, hidden = None, 0
    for subject in sorted({watcher.subject(operation) for operation in (*OPERATIONS, *ROW_OPERATIONS, "gap")}):
        found = await api.last(name, subject)
        if found is None:
            continue
        mine = _own(found, watcher)
        if mine is None:
            hidden = max(hidden, found.sequence)
        elif own is None or mine.sequence > own.sequence:
            own = mine
    return own, hidden


async def last_of_each(
    api: StreamApi, watcher: Watcher, stream: Stream, namespaces: Collection[str], since: int
) -> dict[str, OwnMessage]:
    """Find each collection's last message of ours after sequence `since`, in one search back from the stream's end.

    A collection is left out that has none there, or none among the last `LOOK_BACK` messages. Raises what `StreamApi`
    raises."""
    found: dict[str, OwnMessage] = {}
    wanted, left, block = set(namespaces), LOOK_BACK, _BLOCK
    top, floor = int(stream.state["last_seq"]), max(int(stream.state["first_seq"]) - 1, since)
    while top > floor and left > 0 and wanted:
        begin = max(floor, top - min(block, left))
        for message in await _between(api, stream.name, watcher.space, begin, top):
            own = _own(message, watcher)
            if own is not None and message.namespace in wanted:
                before = found.get(message.namespace)
                if before is None or before.sequence < own.sequence:
                    found[message.namespace] = own
        wanted -= found.keys()
        left -= top - begin
        top, block = begin, block * 2
    return found


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
        else:  # before it, or a replay at the same position, which comes at any time after it
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


async def _between(api: StreamApi, name: str, wanted: str, begin: int, end: int) -> list[Message]:
    """Return the messages that the subject filter matches after `begin` up to `end`, read in several places at once."""

    async def walk(sequence: int, end: int) -> list[Message]:
        there: list[Message] = []
        while sequence <= end:
            message = await api.next(name, wanted, sequence)
            if message is None or message.sequence > end:
                break
            if covers(wanted, message.subject):
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
    """The message as one of ours; None where it has no id of ours, or where it is of another collection. Another
    watcher may have had these subjects before, or take them now: its tokens are no positions of this one."""
    id_ = parse_message_id(message.id)
    if id_ is None or not watcher.source.may_have_had(message.namespace):
        return None
    return OwnMessage(message.sequence, id_)

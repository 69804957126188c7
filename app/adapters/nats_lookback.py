"""The last message of ours on a stream, behind messages that are not."""

from app.adapters.nats_streams import Message, Stream, StreamApi
from app.domain.position import OwnMessage
from app.domain.subjects import covers
from app.domain.tokens import parse_message_id
from app.domain.watcher import OPERATIONS, Watcher

LOOK_BACK = 100
"""The most messages that are read to find the last one of ours behind foreign ones."""


async def look_back(
    api: StreamApi, watcher: Watcher, stream: Stream, last: Message
) -> tuple[OwnMessage | None, int, bool]:
    """Find the last message of ours, `last` being the last one in the watcher's subject space.

    Returns it, how many foreign ones behind it were seen, and whether the search was given up while one of ours might
    still be hidden (after `LOOK_BACK` reads). Raises what `StreamApi` raises.
    """
    own = _own(last, watcher)
    if own is not None:
        return own, 0, False
    reads = LOOK_BACK
    # The last foreign message on a subject of ours: below it one of ours may be hidden. A subject of ours that ends in
    # one of ours needs no search, and neither do all the others.
    hidden = last.sequence
    if "*" in watcher.space:
        hidden = 0
        for subject in sorted({watcher.subject(operation) for operation in (*OPERATIONS, "gap")}):
            reads -= 1
            found = await api.last(stream.name, subject)
            if found is None:
                continue
            mine = _own(found, watcher)
            if mine is None:
                hidden = max(hidden, found.sequence)
            elif own is None or mine.sequence > own.sequence:
                own = mine
    foreign = 1
    floor = max(own.sequence if own else 0, int(stream.state["first_seq"]) - 1)
    for sequence in range(last.sequence - 1, floor, -1):
        if not reads:
            return own, foreign, hidden > floor
        reads -= 1
        message = await api.at(stream.name, sequence)
        if message is None or not covers(watcher.space, message.subject):
            continue
        mine = _own(message, watcher)
        if mine is not None:
            return mine, foreign, False
        foreign += 1
    return own, foreign, False


def _own(message: Message, watcher: Watcher) -> OwnMessage | None:
    """The message as one of ours; None where it has no id of ours or tells of another collection, as do those of a
    watcher that had these subjects before or takes them from us now: its tokens are no positions of this one."""
    id_ = parse_message_id(message.id)
    if id_ is None or message.namespace not in (None, watcher.source.namespace):
        return None
    return OwnMessage(message.sequence, id_)

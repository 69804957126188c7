"""Several entries of `connector.yaml` with one stream: how far each has got, and where their watcher goes on.

mongodb-nats-connector runs its entries side by side, so each entry has a position of its own, and their messages are on
the stream in no common order. Changewire reads them as one watcher, in MongoDB's order. Each entry keeps a place of its
own all the same, and what it holds always means one thing: **every change of this collection up to this token is
published.** Either program, and a watcher of the collection alone, may go on from it.

So the watcher goes on at the earliest of its entries' positions, and passes over what another entry is ahead of
(`ahead`). MongoDB accepts the token of an event only in a change stream that has the event. So a place holds one of its
own collection's, or the high-water mark before another's (`place_token`), and beside it the watcher's last message.

An entry's position is the latest that its place, its collection's last message on the stream, and this
process's memory tell. That is decided at each opening from what is stored, so a crash in the midst of it changes
nothing. Which messages are looked at, and in what order: `pipeline/entry_positions.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from app.domain.errors import HistoryLost, PositionUndecidable
from app.domain.position import Checkpoint, OwnMessage, Reached, Tail, recreation
from app.domain.tokens import collection_uuid, mark_of
from app.domain.watcher import Watcher

Ahead = tuple[tuple[str, str], ...]
"""Collections, such as `shop.orders`, and the token up to which the changes of each are published."""


def combined(parts: Sequence[Checkpoint | None], watcher: Watcher) -> Checkpoint | None:
    """Return the position of a watcher whose entries' places hold these; None where none holds any.

    It is the earliest of them, and has them as its `parts`."""
    told = [_of_stream(part, watcher.sink.stream) for part in _with_move(parts, watcher.name)]
    known = [part for part in told if part is not None]
    if not known:
        return None
    epochs = [part.epoch for part in known if part.epoch is not None]
    sequences = [part.sequence for part in known]
    return Checkpoint(
        token=min(map(_token, known)),
        epoch=max(epochs, default=None),
        sequence=min((one for one in sequences if one is not None), default=None) if None not in sequences else None,
        stream_created=known[0].stream_created if len({part.stream_created for part in known}) == 1 else None,
        updated_at=max((part.updated_at for part in known if part.updated_at is not None), default=None),
        unsettled=tuple(sorted({one for part in known for one in part.unsettled}, key=lambda one: one.sequence)),
        counted=False,
        native=True if all(part.native for part in known) else None,
        parts=tuple(told),
    )


def _with_move(parts: Sequence[Checkpoint | None], name: str) -> list[Checkpoint | None]:
    """Where a person has moved the watcher, and the process died before every place had the new position, the others
    have it too. It shows by the epoch, and by having no place on the stream yet."""
    latest = max((part.epoch or 0 for part in parts if part is not None), default=0)
    moved = [part for part in parts if part is not None and latest and part.epoch == latest and part.sequence is None]
    moved = [part for part in moved if part.watcher == name]
    if not moved:
        return list(parts)
    # In other places it is the mark before it. Their scope was not looked at: it is the watcher that was moved.
    there = replace(max(moved, key=lambda part: part.token), scope=None)
    return [
        there if part is None or part in moved or (part.epoch is not None and part.epoch < latest) else part
        for part in parts
    ]


def _of_stream(part: Checkpoint | None, stream: str) -> Checkpoint | None:
    """An entry that was on another stream has its position from there, and no place on this one."""
    if part is None or part.route is None or part.route.stream == stream:
        return part
    return replace(part, token=_token(part), sequence=None, stream_created=None, own=None)


def _token(part: Checkpoint) -> str:
    """Return the position that a place holds. The watcher's last message is of another entry perhaps, and not a token
    that this entry's place can hold; up to it all is published."""
    if part.own is None or part.own.id.epoch != part.epoch:
        return part.token
    return max(part.token, part.own.id.position)


def position_of(
    part: Checkpoint | None, message: OwnMessage | None, memory: Reached | None, namespace: str, *, shared: bool
) -> str | None:
    """Return how far one entry has got; None where nothing tells.

    `message` is its collection's last one on the stream, `memory` what this process remembers of the watcher, where
    that is of the last epoch. `shared`: another entry keeps its token in the same place. What mongodb-nats-connector
    stored there is the token of the one that was ahead, so a message says more.
    """
    epoch = (part.epoch or 0) if part is not None else 0
    seen = message.id.position if message is not None and message.id.epoch >= epoch else None
    known = [] if memory is None else [max(memory.token, dict(memory.ahead).get(namespace, ""))]
    if seen is not None:
        known.append(seen)
    if part is not None and not (shared and part.epoch is None and known):
        known.append(_token(part))
    return max(known, default=None)


def searched_until(parts: Sequence[Checkpoint | None], memory: Reached | None, tail: Tail) -> int:
    """Return the sequence up to which no message of any entry is news; 0 where that is not known."""
    known = memory.sequence if memory is not None and memory.stream_created == tail.created else None
    places = [part.sequence if part is not None and part.stream_created == tail.created else None for part in parts]
    return min(max(known or 0, place or 0) for place in places)


def check_stream(parts: Sequence[Checkpoint | None], memory: Reached | None, tail: Tail) -> bool:
    """Return whether the stream has lost its end, as far as the entries' positions tell.

    Raises HistoryLost where the stream was deleted and recreated."""
    known = [(part.stream_created, part.sequence) for part in parts if part is not None]
    if memory is not None:
        known.append((memory.stream_created, memory.sequence))
    if any(created not in (None, tail.created) for created, _ in known):
        raise HistoryLost(recreation(tail))
    return any(sequence is not None and sequence > tail.end for _, sequence in known)


def undecidable(namespace: str, tail: Tail) -> PositionUndecidable:
    """The stream lost its end, and has no message of this entry."""
    return PositionUndecidable(
        f"the stream lost its end (last sequence {tail.last_sequence}) and holds no message of {namespace} that tells "
        "how far it got; rewind the watcher to say where it continues"
    )


def ahead_of(token: str, positions: Mapping[str, str]) -> Ahead:
    """Return the entries whose position is later than `token`."""
    return tuple((namespace, position) for namespace, position in positions.items() if position > token)


def place_token(token: str, uuid: str | None) -> str | None:
    """Return what the place of a collection with this UUID holds where all up to `token` is published; None where that
    cannot be said."""
    return token if collection_uuid(token) in (None, uuid) else mark_of(token)

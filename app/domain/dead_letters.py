"""Dead letters: changes that cannot be published as they are, kept in a stream beside the watcher's own.

`<STREAM>-DLQ` has one subject per change, with at most one message: a letter that is stored again is found there. A
receipt on a subject beside it says where on the watcher's stream its replay was about to be put. After a crash, the
writer that takes the replay up again looks there first. This module decides from values;
`jetstream/dead_letter_queue.py` stores.
"""

import hashlib
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from app.domain.subjects import escape, overlap
from app.domain.tokens import MessageId

SUFFIX: Final = "-DLQ"
NOT_ENCODABLE: Final = "not_encodable"
OVERSIZE: Final = "oversize"

Reason = Literal["not_encodable", "oversize"]

LONGEST_NAME: Final = 512
"""A token names objects and subjects up to this length. It holds the document's key, which may be long, and a subject
of more than 4 kB ends the connection."""

LONGEST_HEADER: Final = 8192
"""A token stands in a header up to this length: NATS takes 64 KiB of headers, and `max_payload` in all."""


@dataclass(frozen=True, slots=True)
class Unpublishable:
    """A change on its way to the dead letters. `raw` is the whole event as BSON, `key` its document's key as JSON.

    `reduced` names the fields that `raw` lacks, where MongoDB could not send all of it. `namespace` is the collection,
    such as `shop.orders`, where the watcher reads more than one.
    """

    token: str
    operation: str
    reason: Reason
    error: str
    raw: bytes
    key: str | None = None
    reduced: tuple[str, ...] = ()
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it is stored. `sequence` is its place in the dead-letter stream, `size` the event's in bytes.

    `time` is seconds since 1970, `epoch` the watcher's when it was stored, `object` where the event is in the object
    store (`<bucket>/<name>`), None where the message itself holds it, `reduced` which fields it lacks. `raw` is the
    event, None where it was not asked for, or is unavailable. Of a very long `token` there is only what stands for it
    (`brief`); the event has all of it. `namespace` is as in `Unpublishable`.
    """

    sequence: int
    token: str
    operation: str
    reason: str
    error: str
    time: float
    size: int
    epoch: int
    key: str | None = None
    object: str | None = None
    reduced: str | None = None
    raw: bytes | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a replay is to be: the first message of the watcher's after sequence `fence`, on the stream that was
    `created` then. `sequence` is the receipt's own place, 0 before it is stored."""

    token: str
    epoch: int
    fence: int
    created: str
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Following:
    """What comes after a sequence on the watcher's stream.

    `id` is that of the first message there in the watcher's subjects (None: none, or one that is not ours), `there`
    whether there is one at all, and `whole` whether nothing after the sequence was ever removed, as far as the stream
    tells. `moved` says that the watcher's next message cannot get there any more.
    """

    created: str
    sequence: int = 0
    id: MessageId | None = None
    there: bool = False
    moved: bool = False
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay came to: the change's token, and its message on the watcher's stream."""

    token: str
    sequence: int
    id: str


class Replayed(Enum):
    """What became of a replay that a receipt tells of."""

    THERE = "its message is on the stream"
    OPEN = "nothing is there yet: it may still be put there"
    MISSED = "something else is there: it never can be"
    UNKNOWN = "what was there is gone"


def judge(receipt: Receipt, following: Following, epoch: int) -> Replayed:
    """Decide what became of a replay, from what comes after the receipt's fence.

    A later epoch, or a recreated stream, starts over: the change may be published there again.
    """
    if receipt.epoch != epoch or receipt.created != following.created:
        return Replayed.MISSED
    if following.id is not None and (following.id.epoch, following.id.original) == (epoch, receipt.token):
        return Replayed.THERE
    if not following.whole:
        return Replayed.UNKNOWN
    return Replayed.MISSED if following.moved else Replayed.OPEN


def letters_of(stream: str) -> str:
    """Return the name of a stream's dead-letter stream."""
    return stream + SUFFIX


def letters_space(stream: str) -> str:
    """Return the filter that covers every subject of the dead-letter stream: watcher, change, and what of it."""
    return f"{escape(letters_of(stream))}.*.*.*"


def meets_letters(space: str, stream: str) -> bool:
    """Tell whether a watcher's subjects are in the way of a stream's dead letters: NATS refuses a second stream with
    the same subjects, or they look like letters."""
    return overlap(space, letters_space(stream)) or space.partition(".")[0] == escape(letters_of(stream))


def letter_subject(stream: str, watcher: str, token: str, kind: str = "event") -> str:
    """Return the subject of one letter (`event`) or its receipt (`replay`); token `*` is those of all."""
    return f"{escape(letters_of(stream))}.{escape(watcher)}.{token if token == '*' else name_of(token)}.{kind}"


def name_of(token: str) -> str:
    """Return what names a change's object and subject: the token, or where that is too long its time and a hash.

    A row's place has a dot, which would end a part of a subject."""
    if len(token) <= LONGEST_NAME:
        return token.replace(".", "_")
    return f"{token[:18]}-{hashlib.sha256(token.encode()).hexdigest()}"


def brief(token: str) -> str:
    """Return what stands for a token in a header or a text: the token, or where that is too long its `name_of`."""
    return token if len(token) <= LONGEST_HEADER else name_of(token)


def is_brief(token: str) -> bool:
    """Tell whether this only stands for a token."""
    return "-" in token

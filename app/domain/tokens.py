"""Resume tokens and message ids: what they tell without asking a server.

A token here is always the `_data` string of MongoDB's resume token: upper-case hex of a KeyString. Two facts carry the
protocol: the first nine bytes hold the cluster time, and tokens of one deployment compare as strings in stream order.

A *position* is a token, or the place of a snapshot's row (`RowPlace`). Rows stand between two events, at a moment in
which nothing happened. So their places begin with that moment's token, and compare with tokens in the stream's order.
"""

import re
import struct
from dataclasses import dataclass

from app.domain.errors import TokenRefused

_TOKEN = re.compile(r"82[0-9A-Fa-f]{16,}")
_UUID = re.compile(r"5A1004([0-9A-Fa-f]{32})")


@dataclass(frozen=True, slots=True, order=True)
class ClusterTime:
    """A MongoDB timestamp: seconds since 1970 and a counter within that second."""

    seconds: int
    increment: int


def is_token(text: str) -> bool:
    """Tell whether `text` has the form of a resume token's `_data`."""
    return len(text) % 2 == 0 and _TOKEN.fullmatch(text) is not None


def cluster_time(position: str) -> ClusterTime:
    """Return the cluster time a token stands for, or that of a row's place.

    KeyString type byte 0x82 (timestamp), then two big-endian 32-bit words; verified on tokens of MongoDB 6.0.
    Raises TokenRefused where it has not that form.
    """
    token = token_of(position)
    if not is_token(token):
        raise TokenRefused("a resume token is the hexadecimal _data string that MongoDB issues, such as 8263B1…")
    seconds, increment = struct.unpack(">II", bytes.fromhex(token[2:18]))
    return ClusterTime(seconds, increment)


def collection_uuid(token: str) -> str | None:
    """Return the UUID (32 lower-case hex digits) of the collection an event's token belongs to.

    None for a high-water mark, the token of a moment in which nothing happened: it belongs to no collection.
    """
    found = _UUID.search(token, 18)
    return found.group(1).lower() if found else None


_MARKS = {"2B02": "29296E04", "2B04": "29296E1404"}
"""The rest of a high-water mark, by the version of the token's format."""


def mark_of(token: str) -> str | None:
    """Return the high-water mark of a token's cluster time, a position that every change stream can begin at.

    It is earlier than every event of that time. None for a version of the format that is not known."""
    version = token[18:22]
    return f"{token[:18]}{version}{_MARKS[version]}" if version in _MARKS else None


def mark_at(time: ClusterTime, like: str) -> str | None:
    """Return the high-water mark of a cluster time, in the version of the format that the position `like` has."""
    return mark_of(f"82{time.seconds:08X}{time.increment:08X}{like[18:22]}")


def mark_after(position: str) -> str | None:
    """Return the first high-water mark that is later than every event of a position's time; None as `mark_of`."""
    time = cluster_time(position)
    return mark_at(ClusterTime(time.seconds, time.increment + 1), position)


def moment_before(mark: str) -> ClusterTime:
    """Return the last cluster time before that of a high-water mark: what is read as of then has the effects of all
    events before the mark, and of none after it."""
    time = cluster_time(mark)
    if time.increment:
        return ClusterTime(time.seconds, time.increment - 1)
    return ClusterTime(time.seconds - 1, 2**32 - 1)


def is_mark(token: str) -> bool:
    """Whether a token that is no event's is a position that every change stream can begin at.

    That of a dropped database's invalidate is not one: it has no collection. Where the format's version is not known,
    it is taken for a mark."""
    return mark_of(token) in (None, token)


def same_event(token: str, other: str) -> bool:
    """Tell whether two tokens are one event's.

    After an upgrade MongoDB may write the token of an event that it has by another version of the format (1 up to
    MongoDB 6, 2 from 7 on). Cluster time and collection are the same then, and only the rest differs.
    """
    if token == other:
        return True
    versions = token[18:22], other[18:22]
    return (
        versions[0] != versions[1]
        and cluster_time(token) == cluster_time(other)
        and collection_uuid(token) == collection_uuid(other) is not None
    )


_ROW = re.compile(r"(82[0-9A-F]{20,}):(0|[1-9][0-9]*):s:([0-9a-f]{12}):([0-9]{8})\.([0-9]{6})")


@dataclass(frozen=True, slots=True)
class RowPlace:
    """The place of a snapshot's row: after the high-water mark `mark`, in a run's chunk. As a text it is the row's
    position and its `Nats-Msg-Id`.

    `run` is 12 hexadecimal digits, greater than those of the watcher's runs before. Rows of one mark and run compare
    by chunk and row: both have leading zeros.
    """

    mark: str
    epoch: int
    run: str
    chunk: int
    row: int

    def __str__(self) -> str:
        return f"{self.before}{self.row:06}"

    @property
    def before(self) -> str:
        """What the places of all rows of the chunk begin with: the rows' numbers follow, with six digits."""
        return f"{self.mark}:{self.epoch}:s:{self.run}:{self.chunk:08}."

    @classmethod
    def parse(cls, position: str) -> "RowPlace | None":
        """Read a row's place; None where it is a token."""
        found = _ROW.fullmatch(position)
        if found is None:
            return None
        mark, epoch, run, chunk, row = found.groups()
        return cls(mark, int(epoch), run, int(chunk), int(row))


def is_row(position: str) -> bool:
    """Tell whether a position is a row's place."""
    return ":" in position


def token_of(position: str) -> str:
    """Return the token that a change stream can be opened after to go on from a position."""
    return position.partition(":")[0]


@dataclass(frozen=True, slots=True)
class MessageId:
    """A `Nats-Msg-Id` of ours: the position it proves, the epoch it was published in.

    `original` is set on messages published out of turn (a gap marker, a replayed dead letter).
    """

    position: str
    epoch: int = 0
    original: str | None = None

    def __str__(self) -> str:
        row = is_row(self.position)
        if self.original is not None:
            return f"{self.position}{'' if row else f':{self.epoch}'}:r:{self.original}"
        return self.position if row else self.position + id_suffix(self.epoch)


def id_suffix(epoch: int) -> str:
    """Return what follows the token in a message id: nothing in epoch 0, so that ids are mongodb-nats-connector's."""
    return f":{epoch}" if epoch else ""


def parse_message_id(text: str | None) -> MessageId | None:
    """Read a `Nats-Msg-Id`; None where the message is not one of ours."""
    if not text:
        return None
    position, _, rest = text.partition(":")
    if not is_token(position):
        return None
    if not rest:
        return MessageId(position)
    epoch, _, tail = rest.partition(":")
    if not epoch.isdecimal():
        return None
    if not tail:
        return MessageId(position, int(epoch))
    if tail.startswith("s:"):
        row, out_of_turn, original = text.partition(":r:")
        return None if RowPlace.parse(row) is None else MessageId(row, int(epoch), original if out_of_turn else None)
    return MessageId(position, int(epoch), tail[2:]) if tail.startswith("r:") else None

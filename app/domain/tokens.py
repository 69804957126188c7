"""Resume tokens and message ids: what they tell without asking a server.

A token here is always the `_data` string of MongoDB's resume token: upper-case hex of a KeyString. Two facts carry the
protocol: the first nine bytes hold the cluster time, and tokens of one deployment compare as strings in stream order.
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


def cluster_time(token: str) -> ClusterTime:
    """Return the cluster time a token stands for.

    KeyString type byte 0x82 (timestamp), then two big-endian 32-bit words; verified on tokens of MongoDB 6.0.
    Raises TokenRefused where `token` has not that form.
    """
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


@dataclass(frozen=True, slots=True)
class MessageId:
    """A `Nats-Msg-Id` of ours: the position it proves, the epoch it was published in.

    `original` is set on messages published out of turn (a gap marker, a replayed dead letter).
    """

    position: str
    epoch: int = 0
    original: str | None = None

    def __str__(self) -> str:
        if self.original is not None:
            return f"{self.position}:{self.epoch}:r:{self.original}"
        return self.position + id_suffix(self.epoch)


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
    return MessageId(position, int(epoch), tail[2:]) if tail.startswith("r:") else None

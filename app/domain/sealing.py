"""How messages between instances are signed, taken apart and put together again.

A message is compressed and cut into parts that NATS takes. Each part is signed with the key that the instances share:

    HMAC-SHA256 (32) | version (1) | kind (1) | time in ms (8) | nonce (16) | about (16) | part (2) | parts (2) | data

The signature covers the subject too, so that a part counts only at the instance it was sent to. `nonce` is the
message's own, and `about` is the nonce of the question that an answer belongs to. A part is refused where its signature
is wrong, where it is older than `OLDEST_SECONDS`, or where it was heard before.

Values only: the caller has the clock.
"""

import hmac
import struct
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

OLDEST_SECONDS: Final = 10.0
"""How old a part may be, and how far in the future by the clock of another machine. So what was asked of a process that
was frozen is not begun long after the other instance has given up."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of a message, before it is compressed."""
MOST_PENDING: Final = 64
"""Messages of which some parts are still missing; then the oldest is given up."""
SMALL_BYTES: Final = 512
"""A message of so few bytes is not compressed."""
NONCE_BYTES: Final = 16
NOBODY: Final = bytes(NONCE_BYTES)
"""In place of a nonce: the message answers no other one."""

_VERSION: Final = 1
_FRAME: Final = struct.Struct(">BBQ16s16sHH")
_SIGNATURE_BYTES: Final = 32
OVERHEAD: Final = _SIGNATURE_BYTES + _FRAME.size
"""Bytes of a part besides its data."""
_PLAIN, _PACKED = b"\0", b"\1"


class Kind(IntEnum):
    """What a message is."""

    ASK = 0
    ANSWER = 1
    BUSY = 2
    """The instance answers as many requests as it does at once. It has not begun this one."""
    FAILED = 3
    """An error of Changewire itself; the other instance's log has it."""


class Refused(Exception):
    """A part that does not count; the words say why, and hold nothing of the part."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that has arrived whole."""

    kind: Kind
    nonce: bytes
    about: bytes
    data: bytes


@dataclass(slots=True)
class _Pending:
    parts: int
    found: dict[int, bytes] = field(default_factory=dict)


def seal(key: bytes, subject: str, message: Message, *, now: float, largest: int) -> list[bytes]:
    """Return a message as signed parts of at most `largest` bytes. Raises ValueError for one that is too large."""
    if len(message.data) > MOST_BYTES:
        raise ValueError(f"a message of {len(message.data):,} bytes is more than the {MOST_BYTES:,} that may be sent")
    room = largest - OVERHEAD
    if room < 1:
        raise ValueError(f"a NATS server that takes {largest} bytes carries no message between instances")
    small = len(message.data) <= SMALL_BYTES
    packed = _PLAIN + message.data if small else _PACKED + zlib.compress(message.data, 1)
    pieces = [packed[start : start + room] for start in range(0, len(packed), room)]
    if len(pieces) > 0xFFFF:
        raise ValueError(f"a message of {len(pieces):,} parts is more than can be counted")
    time = int(now * 1000)
    sealed = []
    for number, piece in enumerate(pieces):
        frame = _FRAME.pack(_VERSION, message.kind, time, message.nonce, message.about, number, len(pieces)) + piece
        sealed.append(_signature(key, subject, frame) + frame)
    return sealed


class Opener:
    """What one instance has heard: it puts parts together, and refuses those that do not count."""

    def __init__(self, started: float) -> None:
        """`started`: what was sent before that, by its own time, does not count: this process cannot know whether it
        was heard before."""
        self._started = int(started * 1000) / 1000  # as exact as what is sent
        self._pending: OrderedDict[bytes, _Pending] = OrderedDict()
        self._heard: OrderedDict[bytes, float] = OrderedDict()
        """The nonces of whole messages, and until when they are remembered."""

    def open(self, key: bytes, subject: str, sealed: bytes, *, now: float) -> Message | None:
        """Return the message that this part completes, None while others are missing. Raises Refused."""
        if len(sealed) < OVERHEAD:
            raise Refused("it is not signed")
        signature, frame = sealed[:_SIGNATURE_BYTES], sealed[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, _signature(key, subject, frame)):
            raise Refused("its signature is wrong: it comes from somebody who does not share this state database")
        version, kind, milliseconds, nonce, about, number, parts = _FRAME.unpack_from(frame)
        if version != _VERSION or kind not in iter(Kind):
            raise Refused("it comes from another version of Changewire")
        sent = milliseconds / 1000
        if abs(now - sent) > OLDEST_SECONDS:
            raise Refused(f"it is {now - sent:.0f} s old: it was repeated, or the clocks of the machines differ")
        if sent < self._started:
            raise Refused("it was sent before this instance started")
        self._forget(now)
        if nonce in self._heard:
            raise Refused("it was heard before")
        whole = self._collect(nonce, number, parts, frame[_FRAME.size :])
        if whole is None:
            return None
        self._heard[nonce] = now + 2 * OLDEST_SECONDS
        return Message(Kind(kind), nonce, about, _unpacked(whole))

    def _collect(self, nonce: bytes, number: int, parts: int, piece: bytes) -> bytes | None:
        pending = self._pending.setdefault(nonce, _Pending(parts))
        if number >= parts or parts != pending.parts or number in pending.found:
            raise Refused("a part of it was heard before")
        pending.found[number] = piece
        if len(pending.found) < parts:
            if len(self._pending) > MOST_PENDING:
                self._pending.popitem(last=False)
            return None
        del self._pending[nonce]
        return b"".join(pending.found[each] for each in range(parts))

    def _forget(self, now: float) -> None:
        while self._heard and next(iter(self._heard.values())) < now:
            self._heard.popitem(last=False)


def _signature(key: bytes, subject: str, frame: bytes) -> bytes:
    return hmac.digest(key, subject.encode() + b"\0" + frame, "sha256")


def _unpacked(packed: bytes) -> bytes:
    if packed[:1] == _PLAIN:
        return packed[1:]
    inflating = zlib.decompressobj()
    try:
        data = inflating.decompress(packed[1:], MOST_BYTES)
    except zlib.error as error:
        raise Refused("it cannot be unpacked") from error
    if not inflating.eof:
        raise Refused("it is larger than a message may be, or cut off")
    return data

"""What a stream's acknowledgements mean: one table from the server's error codes to the project's errors.

Codes are those of the server's `errors.json`. What is not in the table counts as an unknown outcome: reading back is
always right.
"""

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.domain.errors import (
    ChangewireError,
    FenceLost,
    MessageTooLarge,
    OutcomeUnknown,
    SeenBefore,
    StreamFull,
    StreamRefused,
)
from app.jetstream.connection import NO_RESPONDERS, Exchange

GRACE_SECONDS = 1.0
"""How long a window in which something went wrong waits for its other acknowledgements."""

_FENCE = (10071, 10164)
_SEEN = (10201,)
_REFUSED = {
    10054: "the message is larger than the stream's max_msg_size",
    10060: "the watcher's subjects belong to another stream",
    10109: "the stream is sealed",
    10174: "atomic publishing was switched off on the stream",
}
"""Errors after which nothing was stored, and what they mean."""
_FULL = {
    10002: "the account's storage is used up",
    10023: "the server has no room for it",
    10028: "the server's memory is used up",
    10047: "the server's storage is used up",
    10077: "the stream is full or cannot be written; let a consumer empty it, or raise its limits",
    10199: "the server takes no batch that large",
    10210: "the server has too many batches under way",
}
"""The same, where fewer messages may be taken."""
_HEADERS_TOO_LARGE = 10097
_LIMIT = re.compile(r"too large: (\d+)")
_NOBODY = "no stream takes the watcher's subjects at present: it was deleted, or has no leader"


@dataclass(frozen=True, slots=True)
class Ack:
    """A positive acknowledgement: the sequence of the message, or of the earlier one with the same id."""

    sequence: int
    duplicate: bool
    batch: str | None
    count: int


def read_ack(data: bytes | None) -> Ack:
    """Read an acknowledgement; None stands for "no responders".

    Raises FenceLost, SeenBefore, OutcomeUnknown, StreamFull, StreamRefused, MessageTooLarge.
    """
    if not data:
        raise OutcomeUnknown(_NOBODY)
    try:
        answer: dict[str, Any] = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise OutcomeUnknown("the stream's acknowledgement cannot be read") from error
    if "error" in answer:
        raise _translate(answer["error"])
    return Ack(
        int(answer.get("seq", 0)), bool(answer.get("duplicate")), answer.get("batch"), int(answer.get("count", 1))
    )


def _translate(error: dict[str, Any]) -> ChangewireError:
    code, words = int(error.get("err_code", 0)), str(error.get("description", ""))
    if code in _FENCE:
        return FenceLost(f"another message came first ({words})")
    if code in _SEEN:
        return SeenBefore(f"the stream has seen an id of the batch before ({words})")
    if code in _FULL:
        full = StreamFull(f"{_FULL[code]} ({words})")
        found = _LIMIT.search(words)
        full.limit = int(found.group(1)) if found else None
        return full
    if code == _HEADERS_TOO_LARGE:
        return MessageTooLarge(f"a message's headers exceed what NATS takes ({words})")
    if code in _REFUSED:
        return StreamRefused(f"{_REFUSED[code]} ({words})")
    return OutcomeUnknown(f"the stream answered: {words} ({code})")


class BatchAnswer(Exchange[bytes | None]):
    """The answer to an atomic batch: the commit's, or an early error on the first message."""

    def received(self, index: int, data: bytes, headers: bytes | None) -> None:
        if headers is not None and headers.startswith(NO_RESPONDERS):
            self.resolve(None)
        elif data or index:
            self.resolve(data)  # an empty answer to the first message says that the batch has begun


class WindowAnswers(Exchange[None]):
    """The answers to a window, one a message; resolved when all are there, or soon after one that is not good."""

    def __init__(self, subjects: Collection[str], count: int) -> None:
        super().__init__(subjects)
        self.replies: list[bytes | None] = [None] * count
        """None: nothing yet; empty: no responders."""
        self._left = count
        self._trouble = False

    def received(self, index: int, data: bytes, headers: bytes | None) -> None:  # noqa: ARG002
        if self.replies[index] is not None:
            return
        self.replies[index] = data
        self._left -= 1
        if not self._left:
            self.resolve(None)
        elif not self._trouble and not _is_good(data):
            self._trouble = True
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self.resolve, None)

    def good(self) -> list[bool]:
        """Tell for each message whether it was stored by this window, as far as is known."""
        return [_is_good(reply) for reply in self.replies]


def _is_good(reply: bytes | None) -> bool:
    return bool(reply) and b'"error"' not in reply and b'"duplicate"' not in reply  # type: ignore[operator]


def overtaken(good: Sequence[bool]) -> list[int]:
    """Return the messages of a window that were not acknowledged though a later one was.

    The later one expected a message exactly where this one should be. Whose it is has to be looked up.
    """
    last = max((index for index, fine in enumerate(good) if fine), default=-1)
    return [index for index in range(last) if not good[index]]

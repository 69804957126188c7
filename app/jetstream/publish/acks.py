"""What a stream acknowledges: the sequence of a message or batch, or a refusal (`errors.unstored`)."""

from dataclasses import dataclass
from typing import Any

import orjson

from app.domain.errors import OutcomeUnknown
from app.jetstream.errors import unstored

NOBODY = "no stream takes the watcher's subjects at present: it was deleted, or has no leader"


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
        raise OutcomeUnknown(NOBODY)
    try:
        answer: dict[str, Any] = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise OutcomeUnknown("the stream's acknowledgement cannot be read") from error
    if "error" in answer:
        raise unstored(answer["error"])
    return Ack(
        int(answer.get("seq", 0)), bool(answer.get("duplicate")), answer.get("batch"), int(answer.get("count", 1))
    )


def partly_stored(reason: Exception | str) -> OutcomeUnknown:
    """Return what it means that something went wrong after a part of the changes may have been stored."""
    unknown = OutcomeUnknown(f"only a part of the changes is stored: {reason}")
    unknown.__cause__ = reason if isinstance(reason, Exception) else None
    return unknown

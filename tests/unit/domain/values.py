"""Values that the tests of the protocol's decisions are made of: stream ends, stored positions, messages of ours."""

from typing import Any

from app.domain.position import Checkpoint, OwnMessage, Tail
from app.domain.tokens import MessageId
from tests.fakes import event_token

CREATED, LATER = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def tail(moment: int | None = None, *, epoch: int = 0, last: int = 10, space: int | None = None, **more: Any) -> Tail:
    own = None if moment is None else OwnMessage(last, MessageId(event_token(moment), epoch))
    return Tail(more.pop("created", CREATED), last, last if space is None else space, own, **more)


def checkpoint(
    moment: int, *, epoch: int | None = 0, sequence: int | None = 5, created: str | None = CREATED
) -> Checkpoint:
    return Checkpoint(event_token(moment), epoch, sequence, created)


def own(moment: int, sequence: int, epoch: int = 0) -> OwnMessage:
    return OwnMessage(sequence, MessageId(event_token(moment), epoch))

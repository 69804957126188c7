"""Changes as a window of single messages that are sent at once, each expecting the sequence of the one before.

A message that is lost stops all after it, since their fence is wrong then. But where a message of *somebody else*
lands in the place of a lost one, the fence of those after it is right, and they pass: on the stream, one of ours is
missing in the middle. An acknowledgement that is missing before one that is there shows such a place. Whose message
holds it has to be looked up (`pipeline/window_recovery.py`), so the error names the place.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence

from app.domain.errors import OutcomeUnknown, SeenBefore, SinkUnavailable, StreamRefused
from app.domain.events import Change
from app.jetstream import frames
from app.jetstream.exchange import Exchange
from app.jetstream.publish.acks import partly_stored, read_ack
from app.jetstream.publish.sender import Sender

GRACE_SECONDS = 1.0
"""How long a window in which something went wrong waits for its other acknowledgements."""

Replies = Sequence[bytes | None]
"""The reply to each message of a window. None: nothing yet; empty: no responders."""


class Window:
    """Publishes the first change alone, and the rest at once."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        fence = await self._sender.store_one(changes[0], fence)
        rest = changes[1:]
        if not rest:
            return fence
        answers = WindowAnswers(self._sender.subjects_of(rest), len(rest))

        def build(reply: str) -> Iterable[bytes]:
            return frames.window(rest, self._sender.subjects, reply, self._sender.stream, fence)

        failure: Exception | None = None
        try:
            await self._sender.send(answers, build, rest)
        except (OutcomeUnknown, SinkUnavailable) as error:
            failure = error
        unknown = what_is_unknown(answers.replies, rest, fence, failure)
        if unknown is not None:
            raise unknown
        return fence + len(rest)


class WindowAnswers(Exchange[None]):
    """The answers to a window, one a message; resolved when all are there, or soon after one that is not good."""

    def __init__(self, subjects: Collection[str], count: int) -> None:
        super().__init__(subjects)
        self.replies: list[bytes | None] = [None] * count
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


def what_is_unknown(
    replies: Replies, changes: Sequence[Change], fence: int, failure: Exception | None
) -> OutcomeUnknown | None:
    """Return what the replies to a window leave open; None where all of it is stored.

    `changes` were sent after sequence `fence`, and after one change that is acknowledged; `failure` is what ended the
    wait, if anything did. Raises MessageTooLarge."""
    good = [_is_good(reply) for reply in replies]
    if all(good):
        return None
    first = good.index(False)
    unknown = _first_fault(replies[first], failure)
    unknown.unsettled = tuple((fence + index + 1, changes[index].id) for index in overtaken(good))
    unknown.stored, unknown.sequence = 1 + first, fence + first
    return unknown


def overtaken(good: Sequence[bool]) -> list[int]:
    """Return the messages of a window that were not acknowledged though a later one was.

    The later one expected a message exactly where this one should be. Whose it is has to be looked up.
    """
    last = max((index for index, fine in enumerate(good) if fine), default=-1)
    return [index for index in range(last) if not good[index]]


def _first_fault(reply: bytes | None, failure: Exception | None) -> OutcomeUnknown:
    """Return what the first reply that is not good means, or that there is none. Raises MessageTooLarge."""
    try:
        if reply is not None:
            return SeenBefore(f"the stream has seen an id before, at sequence {read_ack(reply).sequence}")
    except OutcomeUnknown as error:
        return error
    except StreamRefused as error:
        failure = error
    return partly_stored(failure or "some are not acknowledged")


def _is_good(reply: bytes | None) -> bool:
    return bool(reply) and b'"error"' not in reply and b'"duplicate"' not in reply  # type: ignore[operator]

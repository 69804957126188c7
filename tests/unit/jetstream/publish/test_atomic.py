"""Replies to an atomic batch: the beginning's is no outcome, and a server without batches is found out."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar, cast

import pytest

from app.domain.errors import OutcomeUnknown
from app.domain.events import Change
from app.jetstream.exchange import NO_RESPONDERS
from app.jetstream.publish.acks import Ack
from app.jetstream.publish.atomic import Atomic, BatchAnswer, stored_whole
from app.jetstream.publish.sender import Sender
from tests.fakes import event_token


async def test_the_empty_reply_to_the_first_message_is_no_outcome() -> None:
    answer = BatchAnswer({"S.insert"})
    answer.received(0, b"", None)
    assert not answer.outcome.done()
    answer.received(4, b'{"seq":5}', None)
    assert await answer.outcome == b'{"seq":5}'


async def test_an_early_error_and_no_responders_are_outcomes() -> None:
    early, nobody = BatchAnswer({"S.insert"}), BatchAnswer({"S.insert"})
    early.received(0, b'{"error":{}}', None)
    nobody.received(0, b"", NO_RESPONDERS + b"\r\n\r\n")
    assert (await early.outcome, await nobody.outcome) == (b'{"error":{}}', None)


def test_only_an_acknowledgement_of_the_whole_batch_counts() -> None:
    assert stored_whole(Ack(9, False, "id-1", 3), "id-1", 3) == 9
    for ack in (Ack(9, False, None, 1), Ack(9, False, "id-1", 2), Ack(9, False, "id-2", 3)):
        with pytest.raises(OutcomeUnknown, match="older than"):
            stored_whole(ack, "id-1", 3)


class Sent:
    """A sender whose batches are acknowledged when the test says so."""

    stream = "S"
    subjects: ClassVar[dict[str, str]] = {"insert": "S.insert"}

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[bytes]] = []

    def fence(self, sequence: int) -> str:
        return f"Nats-Expected-Last-Sequence: {sequence}\r\n"

    def subjects_of(self, changes: Sequence[Change]) -> set[str]:
        return {"S.insert"}

    async def send(self, exchange: object, build: object, changes: Sequence[Change]) -> bytes:
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


def part(size: int) -> list[Change]:
    return [Change(event_token(moment), "insert", b"{}", 0.0, event_token(moment)) for moment in range(1, 1 + size)]


async def is_ready(atomic: Atomic, size: int) -> bool:
    """Whether a send of so many changes may follow, once all has been done that can be."""
    waiting = asyncio.ensure_future(atomic.ready(part(size)))
    for _ in range(5):
        await asyncio.sleep(0)
    ready = waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    return ready


async def test_two_batches_are_under_way_and_a_third_waits_for_the_first() -> None:
    atomic = Atomic(cast("Sender", sender := Sent()))
    first = atomic.send(part(20), 0, more=True)
    assert await is_ready(atomic, 20)
    second = atomic.send(part(20), 20, more=True)
    assert not await is_ready(atomic, 20)
    sender.answers[0].set_result(b'{"seq":20,"batch":"x","count":1}')
    assert await is_ready(atomic, 20), "one has ended, well or not"
    with pytest.raises(OutcomeUnknown):
        await first
    await atomic.close()
    assert second.cancelled()


async def test_few_changes_go_when_nothing_else_is_under_way_and_nothing_goes_beside_them() -> None:
    atomic = Atomic(cast("Sender", Sent()))
    assert await is_ready(atomic, 2)
    atomic.send(part(20), 0, more=True)
    assert not await is_ready(atomic, 2)
    assert await is_ready(atomic, 20)
    await atomic.close()
    assert await is_ready(atomic, 2)

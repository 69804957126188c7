"""Replies to an atomic batch: the beginning's is no outcome, and a server without batches is found out."""

import pytest

from app.domain.errors import OutcomeUnknown
from app.jetstream.exchange import NO_RESPONDERS
from app.jetstream.publish.acks import Ack
from app.jetstream.publish.atomic import BatchAnswer, stored_whole


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

"""A refusal that says nothing known: the dead-letter queue calls it passing, and never loses it."""

import json

import pytest

from app.domain.errors import StreamRefused
from app.domain.watcher import from_document
from app.jetstream.client import NatsOptions
from app.jetstream.connection import NatsConnection
from app.jetstream.dead_letter_queue import JetStreamDeadLetterQueue
from app.jetstream.errors import ApiError
from tests.contract.test_dead_letter_queue_contract import letter


class Refusing(NatsConnection):
    """A connection that is never made: every request is refused."""

    async def request(self, subject: str, payload: bytes = b"", *, seconds: float = 5.0) -> bytes:
        return json.dumps({"error": {"code": 500, "err_code": 10001, "description": "something else"}}).encode()


async def test_an_answer_without_a_known_meaning_is_passed_on() -> None:
    watcher = from_document({"name": "orders", "source": {"database": "shop", "collection": "orders"}})
    letters = JetStreamDeadLetterQueue(Refusing(NatsOptions(("nats://127.0.0.1:1",))), watcher)
    for asked in (letters.count(), letters.page(0, 1), letters.store(letter(1), 0)):
        with pytest.raises(StreamRefused, match="something else"):
            await asked
    with pytest.raises(ApiError):
        await letters.check()

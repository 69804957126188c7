"""A body that no message can hold, and the pointer to it."""

import os
from dataclasses import replace

from app.domain.buckets import stream_of
from app.domain.watcher import Watcher
from tests.nats_account import Account, changes, opened


async def test_a_claim_check_can_be_redeemed(nats: Account, watcher: Watcher) -> None:
    sink, fence = await opened(nats, watcher)
    body = os.urandom(2_500_000)
    change = replace(changes(1, 2)[0], body=body)
    pointer = await sink.claim_check(change, b'{"reduced":true}')
    await sink.publish([pointer], fence)
    name, _, object_ = pointer.headers[0][1].partition("/")
    assert stream_of(name) == watcher.sink.stream
    assert object_ == change.token
    store = await nats.connection.client().jetstream().object_store(name)
    assert (await store.get(object_)).data == body

"""Streams that refuse a batch: nearly full ones with a consumer that empties them, and servers that want small batches.

Real servers throughout; what is asserted is what the consumer received, or what the stream holds.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from app.devservers.servers import NatsServer
from tests.conftest import MakeNats
from tests.live import Live, until

USERS = """
authorization { users: [
  {user: admin, password: secret},
  {user: limited, password: secret, permissions: {publish: {deny: ["$JS.API.STREAM.UPDATE.>"]}}}
] }
"""
"""The second may not switch anything on: its watchers publish as the stream allows."""
MODES: dict[str, dict[str, Any]] = {
    "fast_ingest": {"allow_batched": True, "allow_direct": True},
    "atomic": {"allow_atomic": True},
    "window": {},
    "single": {"subjects": ["{0}.*", "else.{0}"]},
}


@asynccontextmanager
async def consumed(live: Live, *, pause: float = 0.0) -> AsyncIterator[list[str]]:
    """Take each message off the stream, as a worker does: the ids in the order of the stream."""
    taken: list[tuple[int, str]] = []
    seen: list[str] = []
    jetstream = live.streams.client.jetstream()
    subscription = await jetstream.pull_subscribe(f"{live.stream}.*", "worker", stream=live.stream)

    async def work() -> None:
        while True:
            try:
                batch = await subscription.fetch(40, timeout=0.2)
            except TimeoutError:  # nats-py's own, or on a busy machine a plain one
                continue
            for message in batch:
                taken.append((message.metadata.sequence.stream, (message.header or {})["Nats-Msg-Id"]))
                await message.ack()
            seen[:] = [id_ for _, id_ in sorted(taken)]
            await asyncio.sleep(pause)

    worker = asyncio.create_task(work())
    try:
        yield seen
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


async def all_taken(seen: list[str], count: int) -> None:
    await until(lambda: len(seen) >= count, seconds=60)
    tokens = [id_.partition(":")[0] for id_ in seen]
    assert len(set(tokens)) == len(tokens) == count, "some were published twice"
    assert tokens == sorted(tokens)


def backlog(live: Live, count: int, text: str = "") -> None:
    live.orders.insert_many([{"_id": number, "text": text} for number in range(count)])


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("limit", [{"max_msgs": 100}, {"max_bytes": 300_000}], ids=["messages", "bytes"])
async def test_a_work_queue_that_is_full_takes_what_its_consumer_makes_room_for(
    mongo_uri: str, make_nats: MakeNats, unique: str, mode: str, limit: dict[str, int]
) -> None:
    server = await make_nats(config=USERS)
    urls = {user: server.url.replace("//", f"//{user}:secret@") for user in ("admin", "limited")}
    async with Live(mongo_uri, urls["limited"], unique, look_at=(mongo_uri, urls["admin"])) as live:
        more = dict(MODES[mode])
        more["subjects"] = [each.format(live.stream) for each in more.get("subjects", ["{0}.*"])]
        await live.streams.create(live.stream, retention="workqueue", discard="new", **limit, **more)
        await live.add(paused=True)
        backlog(live, 1500, "x" * 400)
        async with consumed(live) as seen:
            await live.resume()
            await all_taken(seen, 1500)
        assert (await live.get("/watchers/orders/status"))["publish_mode"] == mode


async def test_an_interest_stream_that_is_full_takes_what_its_consumer_makes_room_for(live: Live) -> None:
    await live.streams.create(live.stream, retention="interest", discard="new", max_msgs=100)
    await live.add(paused=True)
    async with consumed(live, pause=0.05) as seen:
        backlog(live, 600)
        await live.resume()
        await all_taken(seen, 600)


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


async def test_a_full_stream_without_a_consumer_is_filled_to_the_brim_and_said_to_be_full(live: Live) -> None:
    await live.streams.create(live.stream, discard="new", max_msgs=130)
    await live.add(paused=True)
    backlog(live, 300)
    await live.call("PUT", "/watchers/orders/resume", 202)
    watcher = await live.reaches("RETRYING")
    assert "the stream is full" in watcher["status"]["reason"]
    assert "maximum messages exceeded" in watcher["status"]["reason"]
    assert len(await live.messages()) == 130
    # Kept over the openings: a batch that can only be refused is not sent again each time.
    await until(lambda: live.log.getvalue().count('"event": "watcher_retrying"') >= 3)
    sizes = [line for line in live.log.getvalue().splitlines() if '"event": "batch_refused"' in line]
    assert len(sizes) <= 6, sizes
    config = await live.streams.config(live.stream)
    await live.streams.api(f"STREAM.UPDATE.{live.stream}", {**(config or {}), "max_msgs": -1})
    await live.seen(*map(str, range(300)))


async def test_a_replay_onto_a_full_stream_is_refused_and_the_watcher_goes_on(live: Live) -> None:
    await live.add(sink={"oversize": "dead_letter"})
    live.insert(1)
    live.orders.insert_one({"_id": 2, "text": "x" * 1_200_000})
    live.insert(3)
    await live.seen("1", "3")
    path = "/watchers/orders/dead-letters"
    (letter,) = (await live.get(path))["dead_letters"]
    await live.put(sink={"oversize": "claim_check"})
    config = await live.streams.config(live.stream) or {}
    await live.streams.api(f"STREAM.UPDATE.{live.stream}", {**config, "discard": "new", "max_msgs": 2})
    said = await live.refused(503, "POST", f"{path}/{letter['sequence']}/replay")
    assert "the stream is full" in said
    assert (await live.get("/watchers/orders"))["status"]["state"] == "RUNNING"
    await live.streams.api(f"STREAM.UPDATE.{live.stream}", {**config, "discard": "new", "max_msgs": 3})
    await live.call("POST", f"{path}/{letter['sequence']}/replay", 200)
    await live.seen("1", "3", "2")


@pytest.mark.parametrize(
    "limits", ["max_msgs: 25", "max_msgs: 5", "max_inflight_per_stream: 1"], ids=["25", "5", "one at a time"]
)
async def test_a_server_that_wants_smaller_batches_gets_them(
    mongo_uri: str, make_nats: MakeNats, unique: str, limits: str
) -> None:
    server: NatsServer = await make_nats(jetstream_config=f"limits {{ batch {{ {limits} }} }}")
    async with Live(mongo_uri, server.url, unique) as live:
        await live.add(paused=True)
        if "inflight" in limits:  # somebody else has begun a batch, and says no more
            await live.streams.client.publish(
                f"{live.stream}.insert", b"", headers={"Nats-Batch-Id": "theirs", "Nats-Batch-Sequence": "1"}
            )
        backlog(live, 3000)
        await live.resume()

        async def there() -> bool:
            info: dict[str, Any] = await live.streams.api(f"STREAM.INFO.{live.stream}")
            return bool(info["state"]["messages"] >= 3000)

        await until(there, seconds=60)
        tokens = [message.token for message in await live.messages()]
        assert len(tokens) == len(set(tokens)) == 3000
        assert tokens == sorted(tokens)
        assert (await live.get("/watchers/orders/status"))["restarts"] == 0
        assert live.log.getvalue().count('"event": "batch_refused"') < 20

"""Messages that are gone when the service looks back: consumed from a work queue or by interest, or purged.

A consumer takes each message away as soon as it is there, and the duplicate window is a tenth of a second: nothing on
the stream tells what was published. The stream's last sequence still tells how much.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats.errors
import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from tests.live import Live
from tests.service import Message, Stage, Trap, assert_same, until

NANOSECONDS = 1_000_000_000
STRANGER = b'{"operationType": "stranger"}'


class Consumer:
    """Takes every message off the stream, and keeps it, by its sequence."""

    def __init__(self) -> None:
        self.taken: dict[int, Message] = {}

    def changes(self) -> list[Any]:
        return [self.taken[sequence].change for sequence in sorted(self.taken)]


@asynccontextmanager
async def consuming(stage: Stage, retention: str) -> AsyncIterator[Consumer]:
    """A stream of this retention, and a consumer on it."""
    client = await stage.nats()
    config = {
        "name": stage.stream, "subjects": [f"{stage.stream}.*"], "storage": "file", "retention": retention,
        "duplicate_window": NANOSECONDS // 10,
    }  # fmt: skip
    created = await client.request(f"$JS.API.STREAM.CREATE.{stage.stream}", json.dumps(config).encode(), timeout=10)
    answer = json.loads(created.data)
    assert "error" not in answer, answer
    jetstream = client.jetstream(timeout=5)
    durable = ConsumerConfig(durable_name="all", ack_policy=AckPolicy.EXPLICIT, ack_wait=30, max_ack_pending=10_000)
    reader = await jetstream.pull_subscribe("", durable="all", stream=stage.stream, config=durable)
    consumer = Consumer()

    async def take() -> None:
        while True:
            try:
                messages = await reader.fetch(200, timeout=0.5)
            except TimeoutError:
                continue
            except nats.errors.ConnectionClosedError:
                return
            for each in messages:
                consumer.taken[each.metadata.sequence.stream] = Message(
                    each.metadata.sequence.stream, each.subject, each.headers or {}, each.data
                )
                await each.ack()

    task = asyncio.create_task(take(), name="consumer")
    try:
        yield consumer
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("retention", "moment"),
    [
        ("workqueue", "after-publish"),
        ("workqueue", "before-read-back"),
        ("interest", "before-read-back"),
        ("interest", "before-checkpoint"),
    ],
)
async def test_what_was_consumed_before_its_checkpoint_is_not_published_again(
    stage: Stage, retention: str, moment: str
) -> None:
    async with consuming(stage, retention) as consumer:
        service = await stage.service(batch_size=50, trap=Trap(moment, 3)).start()
        await stage.add(service)
        async with stage.load():
            await service.trapped()
            await until(lambda: empty(stage), "the stream is empty")
            await asyncio.sleep(0.15)  # the duplicate window, of which nothing tells when it has passed
            await service.start()
        await until(lambda: len(consumer.taken) >= len(stage.written), "all is consumed")
        assert await service.terminate() == 0, service.log_tail()
        assert_same(stage.written, consumer.changes())


async def empty(stage: Stage) -> bool:
    return await stage.length() == 0


async def test_kills_double_nothing_though_all_is_consumed_at_once(stage: Stage) -> None:
    async with consuming(stage, "workqueue") as consumer:
        service = await stage.service(batch_size=50).start()
        await stage.add(service)
        async with stage.load(pause=0.02):
            for number in range(5):
                await service.until_state(stage.watcher, "RUNNING")
                await asyncio.sleep(0.06 * number)  # the random point
                service.kill()
                await asyncio.sleep(0.15)  # as above
                await service.start()
        await until(lambda: len(consumer.taken) >= len(stage.written), "all is consumed")
        assert await service.terminate() == 0, service.log_tail()
        assert_same(stage.written, consumer.changes())


async def test_somebody_elses_messages_are_never_counted_as_changes_once_they_were_seen(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add(sink={"duplicate_window_seconds": 0.1})
        live.insert(1)
        await live.seen("1")
        await live.streams.client.request(f"{live.stream}.insert", STRANGER, timeout=10)
        live.insert(2)
        await live.seen("1", "stranger None", "2")
        await live.pause()
        await live.streams.client.request(f"{live.stream}.insert", STRANGER, timeout=10)
        await live.streams.api(f"STREAM.PURGE.{live.stream}")
        live.insert(3)
        await live.resume()
        await live.seen("3")


async def test_a_replay_is_not_counted_as_a_change(stage: Stage) -> None:
    """The service dies with a dead letter's replay on the stream, and all that is there is purged."""
    service = await stage.service().start()
    await stage.add(service, oversize="dead_letter", duplicate_window_seconds=0.1)
    await stage.write(3)
    await stage.collection.insert_one({"_id": "big", "n": -1, "text": "x" * 1_200_000})
    path = f"/watchers/{stage.watcher}/dead-letters"

    async def listed() -> Any:
        return (await service.call("GET", path, status=200)).json()["dead_letters"]

    (letter,) = await until(listed, "the change is set aside")
    definition = stage.described(oversize="claim_check", duplicate_window_seconds=0.1)
    await service.call("PUT", f"/watchers/{stage.watcher}", definition, status=200)
    assert await service.terminate() == 0
    service.trap = Trap("before-removal")
    await service.start()
    await service.until_state(stage.watcher, "RUNNING")
    with pytest.raises(Exception, match=r"(?i)disconnected|read"):
        await service.call("POST", f"{path}/{letter['sequence']}/replay")
    await service.trapped()
    assert await stage.held() == 4
    await (await stage.nats()).request(f"$JS.API.STREAM.PURGE.{stage.stream}", b"", timeout=10)
    before = len(stage.written)
    await stage.write(5)
    service.trap = None
    await service.start()
    await stage.until_length(5)
    assert await service.terminate() == 0
    assert_same(stage.written[before:], [message.change for message in await stage.messages()])


async def test_of_two_instances_one_stands_by_and_takes_over_though_all_is_consumed_at_once(stage: Stage) -> None:
    """The one never sees a message of the other: only the count tells that somebody has published."""
    async with consuming(stage, "workqueue") as consumer:
        tuned: dict[str, Any] = {"standby_silence_seconds": 1, "reconcile_seconds": 0.5, "batch_size": 20}
        one, other = (  # of two registries: where they share one, only one of them runs the watcher
            stage.service(name, state_db=f"{stage.state_database}_{name}", **tuned) for name in ("one", "other")
        )
        await asyncio.gather(one.start(), other.start())
        for each in (one, other):
            await stage.add(each)
        states: dict[Any, str | None] = {}

        async def one_stands_by() -> bool:
            states.update({each: await each.state(stage.watcher) for each in (one, other)})
            return {*states.values()} == {"FENCED", "RUNNING"}

        async with stage.load(pause=0.02):
            await until(one_stands_by, "one of them is FENCED", within=40)
            until_now = len(consumer.taken)
            # So that the active one's position has been stored since.
            await until(lambda: len(consumer.taken) >= until_now + 1_000, "more is consumed", within=40)
            await until(one_stands_by, "one of them is FENCED", within=40)
            standby, active = sorted((one, other), key=lambda each: str(states[each]))
            active.kill()
            await standby.until_state(stage.watcher, "RUNNING", within=20)
        await until(lambda: len(consumer.taken) >= len(stage.written), "all is consumed", within=40)
        assert await standby.terminate() == 0, standby.log_tail()
        assert_same(stage.written, consumer.changes())

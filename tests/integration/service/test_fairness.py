"""Watchers that share a change stream do not wait for one of them: a hot one, a stuck one, one that has failed.

What is asserted is what arrives while the one is still held up, not how long that takes. Only the last test compares
latencies: with a hot collection and without, in rounds that take turns.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import pytest
from nats.aio.msg import Msg

from app.devservers.servers import NatsServer
from app.mongodb.feeds import sharing
from tests.faults.proxy import Link, Proxy
from tests.live import Live, until

OTHERS = ("a", "b", "c", "d")
ONE = "one"
"""The collection that something is the matter with."""
LARGE = "x" * 50_000
MANY = 800
"""Large documents: 40 MB, more than a watcher and its shared change stream hold."""
ROOM = 5
SLOW_BYTES_PER_SECOND = 6_000_000
ROUNDS, SAMPLES, SETTLED = 5, 12, 0.05
FACTOR = 20
"""How much longer the others may take beside a hot one: it shares two cores with them, and whatever else runs there."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "AGAIN_SECONDS", 0.5)


class Sharers:
    """Watchers on one shared change stream, each named as its collection."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.written = 0

    def collection(self, name: str) -> Any:
        return self.live.mongo[self.live.database][name]

    def stream(self, name: str) -> str:
        return f"{name}_{self.live.unique}".upper()

    async def add(self, *names: str, **sink: Any) -> None:
        for name in names:
            await self.live.add(name, **self.parts(name, **sink))

    def parts(self, name: str, **sink: Any) -> dict[str, Any]:
        """What tells a watcher from the others."""
        return {
            "source": {"collection": name},
            "sink": {"stream": self.stream(name), **sink},
            "checkpoint": {"database": f"tokens_{self.live.unique}", "collection": name},
        }

    async def shared(self, *names: str) -> None:
        """Wait until these run on the shared change stream."""

        async def all_do() -> bool:
            found = {each["name"]: each["status"] for each in await self.live.get("/watchers")}
            return all((found[name]["state"], found[name]["reads"]) == ("RUNNING", "shared") for name in names)

        await until(all_do, seconds=60)

    async def length(self, name: str) -> int:
        return int((await self.live.streams.api(f"STREAM.INFO.{self.stream(name)}"))["state"]["messages"])

    def write_large(self) -> None:
        """More than is held for the one, so that the shared change stream cannot wait for it."""
        self.collection(ONE).insert_many([{"_id": number, "text": LARGE} for number in range(MANY)])

    async def others_go_on(self) -> None:
        """Write to the others, and wait until each of these changes has arrived."""
        self.written += 1
        for name in OTHERS:
            self.collection(name).insert_one({"_id": self.written})

        async def arrived() -> bool:
            return all([await self.length(name) == self.written for name in OTHERS])

        await until(arrived, seconds=60)

    async def arrives(self, count: int) -> None:
        """Wait until the one has all that was written to it, once and in order."""

        async def there() -> bool:
            return await self.length(ONE) >= count

        await until(there, seconds=60)
        messages = await self.live.messages(self.stream(ONE))
        assert [message.body["documentKey"]["_id"] for message in messages] == list(range(count))


@asynccontextmanager
async def sharers(mongo_uri: str, nats_url: str, unique: str, **options: Any) -> AsyncIterator[Sharers]:
    async with Live(mongo_uri, nats_url, unique, **options) as live:
        yield Sharers(live)


async def test_the_others_arrive_while_a_hot_one_still_publishes_by_a_slow_connection(
    mongo_uri: str, own_nats: NatsServer, unique: str
) -> None:
    link = Link()
    proxy = Proxy(link, lambda: own_nats.port)
    await proxy.listen()
    nats_url = f"nats://127.0.0.1:{proxy.port}"
    try:
        async with sharers(mongo_uri, nats_url, unique, look_at=(mongo_uri, own_nats.url)) as them:
            await them.add(ONE, *OTHERS)
            await them.shared(ONE, *OTHERS)
            link.rate = SLOW_BYTES_PER_SECOND
            them.write_large()
            await them.others_go_on()
            assert await them.length(ONE) < MANY
            await them.others_go_on()
            link.heal()
            await them.arrives(MANY)
            await them.shared(ONE, *OTHERS)
    finally:
        await proxy.close()


async def test_the_others_go_on_while_the_stream_of_one_is_full_and_it_joins_them_again(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with sharers(mongo_uri, nats_url, unique) as them:
        stream = them.stream(ONE)
        await them.live.streams.create(stream, discard="new", max_bytes=ROOM * len(LARGE))
        await them.add(ONE, *OTHERS)
        await them.shared(ONE, *OTHERS)
        them.write_large()
        for _ in range(10):
            await them.others_go_on()
        assert await them.length(ONE) < ROOM
        config = await them.live.streams.config(stream)
        assert config is not None
        await them.live.streams.api(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": -1})
        await them.arrives(MANY)
        await them.shared(ONE, *OTHERS)


async def test_the_others_go_on_while_one_has_failed_and_it_joins_them_once_it_is_repaired(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with sharers(mongo_uri, nats_url, unique) as them:
        await them.add(ONE, oversize="fail")
        await them.add(*OTHERS)
        await them.shared(ONE, *OTHERS)
        them.collection(ONE).insert_one({"_id": 0, "text": "x" * 2_000_000})
        await them.live.reaches("FAILED", ONE)
        them.collection(ONE).insert_one({"_id": 1})
        for _ in range(5):
            await them.others_go_on()
        assert await them.length(ONE) == 0
        await them.shared(*OTHERS)
        await them.live.put(ONE, **them.parts(ONE, oversize="claim_check"))
        await them.arrives(2)
        await them.shared(ONE, *OTHERS)


async def test_the_latency_of_the_others_beside_a_hot_one_is_of_the_order_of_what_it_is_without(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with sharers(mongo_uri, nats_url, unique) as them:
        await them.add(ONE, *OTHERS)
        await them.shared(ONE, *OTHERS)
        client = them.live.streams.client
        arrived: asyncio.Queue[str] = asyncio.Queue()

        async def arrive(message: Msg) -> None:
            arrived.put_nowait(message.subject)

        for name in OTHERS:
            await client.subscribe(f"{them.stream(name)}.>", cb=arrive)

        async def worst() -> float:
            """The highest latency of some changes to the others, in seconds."""
            latencies = []
            for number in range(SAMPLES):
                name = OTHERS[number % len(OTHERS)]
                began = time.monotonic()
                await asyncio.to_thread(them.collection(name).insert_one, {})
                async with asyncio.timeout(60):
                    await arrived.get()
                latencies.append(time.monotonic() - began)
            return max(latencies)

        quiet, beside = [], []
        for _ in range(ROUNDS):
            quiet.append(await worst())
            async with _writing(them):
                beside.append(await worst())
        print(f"worst of {SAMPLES}, s: {quiet} without, {beside} with a hot one")
        assert median(beside) < FACTOR * max(median(quiet), SETTLED)


@asynccontextmanager
async def _writing(them: Sharers) -> AsyncIterator[None]:
    """Write to the one, without a pause."""
    over = False

    async def write() -> None:
        while not over:
            documents = [{"text": "x" * 1_000} for _ in range(200)]
            await asyncio.to_thread(them.collection(ONE).insert_many, documents)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write(), name="hot writer")
        yield
        over = True

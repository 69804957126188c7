"""Writing at a steady rate and noting when what was written arrives: both ends of a latency, in one process.

A thread inserts and notes when each insert is acknowledged, the event loop notes when a message arrives; both read one
clock. The two share Python's lock, but the writer sleeps or waits for mongod most of the time.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from nats.aio.msg import Msg
from pymongo.collection import Collection

from bench import workload
from bench.report import percentile
from bench.stage import Incomplete, Place, Stage

ARRIVE_SECONDS = 15


class Arrivals:
    """What arrived, and when (`time.perf_counter`)."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, bytes]] = []

    async def follow(self, stage: Stage, places: Sequence[Place]) -> None:
        """Note every message that the places' streams store from now on."""
        for place in places:
            await stage.follow(place, self._received)

    def _received(self, message: Msg) -> None:
        self.messages.append((time.perf_counter(), message.data))

    async def latencies(self, acknowledged: Sequence[float]) -> list[float]:
        """Milliseconds from the acknowledgement of insert k to the arrival of its message, for all of them.

        Raises Incomplete where one does not arrive, or arrives twice."""
        deadline = time.monotonic() + ARRIVE_SECONDS
        while len(self.messages) < len(acknowledged) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)
        numbers = list(workload.numbers_of(body for _, body in self.messages))
        if sorted(numbers) != list(range(len(acknowledged))):
            raise Incomplete(f"{len(self.messages):,} messages arrived for {len(acknowledged):,} inserts")
        arrived = dict(zip(numbers, (at for at, _ in self.messages), strict=True))
        return [(arrived[number] - at) * 1000 for number, at in enumerate(acknowledged)]


async def write_steadily(choose: Callable[[], Collection[dict[str, Any]]], count: int, rate: float) -> list[float]:
    """Insert orders 0 to `count`, each into the collection that `choose` says, and return when each was acknowledged.

    The pauses vary by half around the rate's, so that the writes do not fall into step with anything."""
    dice = random.Random(1)

    def insert() -> list[float]:
        acknowledged = []
        due = time.perf_counter()
        for number in range(count):
            document, collection = workload.order(number), choose()
            time.sleep(max(0.0, due - time.perf_counter()))
            collection.insert_one(document)
            acknowledged.append(time.perf_counter())
            due = max(due + dice.uniform(0.5, 1.5) / rate, acknowledged[-1] - 1)
        return acknowledged

    return await asyncio.to_thread(insert)


async def floor(stage: Stage, count: int, rate: float) -> list[float]:
    """What the harness itself and JetStream take, in ms: from a publish by this process to its arrival here."""
    place = stage.place("floor")
    await stage.create_stream(place)
    arrivals = Arrivals()
    await arrivals.follow(stage, [place])
    published = []
    for number in range(count):
        body = b'{"number": %d, "note": "%s"}' % (number, b"." * workload.BYTES)
        published.append(time.perf_counter())
        await stage.bus.publish(f"{place.stream}.insert", body)
        await stage.bus.flush()
        await asyncio.sleep(1 / rate)
    latencies = await arrivals.latencies(published)
    await stage.clear(place)
    return latencies


def percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the maximum, in ms."""
    return {
        "p50": percentile(latencies, 50),
        "p95": percentile(latencies, 95),
        "p99": percentile(latencies, 99),
        "max": max(latencies),
    }


def row(latencies: Sequence[float]) -> list[str]:
    return [f"{value:.1f}" for value in percentiles(latencies).values()]

"""What happens to some watchers of a crowd, while the others read on from the same shared change stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.crowd import HOT, Crowd, database_of
from tests.faults.hands import ROOM_MESSAGES, asked, bounded, stuck
from tests.faults.strikes import of
from tests.faults.testbed import stream_of

SOME = 6
"""So many watchers are paused at once."""
LARGE_BYTES = 100_000
LARGE_DOCUMENTS = 40
"""So many large documents are inserted at once, until more waits for one watcher than a shared change stream holds."""
SLOW_BYTES_PER_SECOND = 1_500_000
LARGE_SECONDS = 60.0
STRANGE = 3_000
"""Changes that nobody wants: enough of them for another filter."""


@of(Crowd)
@asynccontextmanager
async def paused(crowd: Crowd, draw: random.Random) -> AsyncIterator[str]:
    """Some watchers are paused, and have missed a lot when they are resumed. They catch up, and join the others."""
    names = crowd.some(draw, SOME)
    for name in names:
        await asked(crowd, "PUT", f"/watchers/{name}/pause", None, 202)
    crowd.lag.away = {stream_of(name) for name in names}
    for name in names:
        await crowd.writers.pour(name, draw.randint(1, 200))
    yield ", ".join(names)
    for name in names:
        await asked(crowd, "PUT", f"/watchers/{name}/resume", None, 202)
    await crowd.shared(names)
    crowd.lag.away = set()


@of(Crowd)
@asynccontextmanager
async def full(crowd: Crowd, draw: random.Random) -> AsyncIterator[str]:
    """One hot stream refuses everything for a while. The other watchers of its change stream go on."""
    name = draw.choice(HOT)
    stream = stream_of(name)
    state = (await crowd.nats.change(f"STREAM.INFO.{stream}"))["state"]
    before = await bounded(crowd, stream, discard="new", max_msgs=state["messages"] + ROOM_MESSAGES)
    await stuck(crowd, stream)
    crowd.lag.away = {stream}
    yield stream
    await crowd.recovered(f"while {stream} is full")
    await bounded(crowd, stream, **before)
    await crowd.shared([name])
    crowd.lag.away = set()


@of(Crowd)
@asynccontextmanager
async def let_go(crowd: Crowd, draw: random.Random) -> AsyncIterator[str]:
    """One collection gets more than NATS takes in time, until its watcher is let go. It comes back later."""
    name, before, link = draw.choice(HOT), crowd.let_go(), crowd.nats.link
    link.rate = SLOW_BYTES_PER_SECOND
    try:
        async with asyncio.timeout(LARGE_SECONDS):
            while crowd.let_go() == before:
                await crowd.writers.pour(name, LARGE_DOCUMENTS, size=LARGE_BYTES)
    except TimeoutError:
        raise AssertionError(f"the watcher of {name} was not let go") from None
    finally:
        link.heal()
    yield name
    await crowd.shared([name])


@of(Crowd)
@asynccontextmanager
async def visited(crowd: Crowd, draw: random.Random) -> AsyncIterator[str]:
    """Watchers are added while changes flow: beside one that is there, and of a collection that nobody watched. One
    stays, the other is removed."""
    places = [draw.choice(crowd.shared_ones), draw.choice(crowd.strangers)]
    visits = [await crowd.visit(place) for place in places]
    yield ", ".join(f"{visit.name} of {visit.collection}" for visit in visits)
    leaves = draw.choice(visits)
    await crowd.end_visit(leaves)
    await asked(crowd, "DELETE", f"/watchers/{leaves.name}", None, 204, 404)


@of(Crowd)
@asynccontextmanager
async def strangers(crowd: Crowd, draw: random.Random) -> AsyncIterator[str]:
    """Collections that nobody watches are written so much that the server is asked to leave them out. Then somebody
    does watch one."""
    name = draw.choice(crowd.strangers)
    for _ in range(2):
        await crowd.writers.pour(name, STRANGE)
    yield f"{name} of {database_of(name)}"
    await crowd.visit(name)

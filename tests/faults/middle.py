"""What strikes in the middle of a batch: the server has a part of it, and the rest is held back on its way.

Many documents are inserted at once. As soon as their batch is on its way, the connection is held between two halves of
a chunk (`proxy.Hold`). Only then something happens to the stream, to a server or to the service, and the rest follows.
Each fault comes for fast ingest (`r1`: a stream with one replica) and for atomic batches of which two are under way
(`r3`: with three).
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.faults.hands import asked, bounded, stuck
from tests.faults.proxy import Hold
from tests.faults.strikes import Strike
from tests.faults.testbed import FAST, MODES, WINDOW_SECONDS, Testbed, stream_of
from tests.service import until

POURED = 3_000
"""Documents that are inserted at once: several atomic batches, and more than two windows of a fast-ingest flow."""
EARLY, LATE, ANY = range(8), range(35, 60), range(60)
"""How many chunks of 16 kB go through before one is held. With the late ones a flow window is acknowledged already."""
READ_SECONDS = 0.5
"""While a first chunk is held so long, the service reads the other changes: their batch stays open without a pause."""
PATIENCE_SECONDS = 3.0
FORGOTTEN_SECONDS = 1.2 * WINDOW_SECONDS
"""The stream does not know the ids of what the other service has published any more."""
FOREIGN = (1, 1, 2, 3, 40)
"""How many messages of somebody else come in between."""
ROOM = 100
"""Messages that still fit onto a stream that becomes full."""


def open_batch(stream: str) -> re.Pattern[bytes]:
    """A message of a batch that is neither its first nor its last one, as it goes to the server."""
    subject = re.escape(stream.encode()) + rb"\.\w+"
    fast = rb"HPUB " + subject + rb" \S+\.1\.\$FI "
    atomic = rb"HPUB " + subject + rb" (?:\S+ )?\d+ \d+\r\nNATS/1\.0\r\n(?:[^\r]+\r\n)*?Nats-Batch-Id:"
    return re.compile(fast + b"|" + atomic)


@asynccontextmanager
async def in_the_middle(testbed: Testbed, name: str, draw: random.Random, chunks: range = ANY) -> AsyncIterator[Hold]:
    """For as long as the block lasts, the rest of a batch to a watcher's stream is held back. No other service runs the
    watcher: it would publish what is held back."""
    await testbed.publisher(name)
    link, pattern = testbed.nats.link, open_batch(stream_of(name))
    gate = link.hold = Hold(pattern)
    await _caught(testbed, name, gate, pour=True)
    await asyncio.sleep(READ_SECONDS)
    hold = link.hold = Hold(pattern, after=draw.choice(chunks))
    gate.let_go()
    await _caught(testbed, name, hold, pour=False)
    try:
        yield hold
    finally:
        hold.let_go()


async def _caught(testbed: Testbed, name: str, hold: Hold, *, pour: bool) -> None:
    """Wait until a connection is held; `pour` has documents inserted first, as it happens where none is held soon."""
    while not hold.held.is_set():
        if pour:
            await testbed.writers.pour(name, POURED)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await hold.held.wait()
        if not hold.held.is_set():
            hold.after, pour = 0, True


async def _reopened(testbed: Testbed, name: str) -> None:
    """Have the watcher look at its stream again, which chooses the mode: later faults are to meet the best one."""
    await testbed.publisher(name)
    await asked(testbed, "POST", f"/watchers/{name}/restart", None, 202)

    async def best() -> bool:
        states = [await each.status(name) for each in testbed.services]
        return any((one.get("state"), one.get("publish_mode")) == ("RUNNING", MODES[name]) for one in states)

    await until(best, f"{name} publishes by {MODES[name]} again", within=60)


def reset(name: str) -> Strike:
    """The connection is reset in the middle of a batch, early and late."""

    @asynccontextmanager
    async def strike(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
        for chunks in (EARLY, LATE):
            async with in_the_middle(testbed, name, draw, chunks) as hold:
                hold.reset = True
        yield f"two batches of {stream_of(name)}"

    return strike


def frozen(name: str) -> Strike:
    """The stream's server is frozen in the middle of a batch, for longer than it remembers one."""

    @asynccontextmanager
    async def strike(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
        stream = stream_of(name)
        leader = await testbed.nats.leader(stream)
        async with in_the_middle(testbed, name, draw):
            leader.freeze()
        yield f"{leader.name} of {stream}"
        leader.thaw()

    return strike


def zombie(name: str) -> Strike:
    """The active service is frozen in the middle of a batch until the other has taken over; then the rest arrives."""

    @asynccontextmanager
    async def strike(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
        async with in_the_middle(testbed, name, draw):
            active = await testbed.publisher(name)
            active.freeze()
            frozen = time.time()
            await until(lambda: testbed.runners(name), f"another service runs {name}", within=60)
            await until(lambda: testbed.lag.newest(stream_of(name)) > frozen, f"{name} goes on", within=60)
            await asyncio.sleep(FORGOTTEN_SECONDS)
        active.thaw()
        yield f"{active.name} in {stream_of(name)}"

    return strike


def foreign(name: str) -> Strike:
    """Messages of somebody else come to the watcher's subjects in the middle of a batch, early and late."""

    @asynccontextmanager
    async def strike(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
        counts = []
        for chunks in (EARLY, LATE):
            counts.append(draw.choice(FOREIGN))
            async with in_the_middle(testbed, name, draw, chunks):
                await testbed.disturb(name, counts[-1])
        yield f"{counts[0]} and {counts[1]} in {stream_of(name)}"
        await _reopened(testbed, name)

    return strike


def purged(name: str) -> Strike:
    """All messages of a stream are thrown away in the middle of a batch."""

    @asynccontextmanager
    async def strike(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
        stream = stream_of(name)
        async with in_the_middle(testbed, name, draw):
            await testbed.nats.change(f"STREAM.PURGE.{stream}", {})
        yield stream

    return strike


def full(name: str) -> Strike:
    """The stream reaches its limit of messages or bytes in the middle of a batch."""

    @asynccontextmanager
    async def strike(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
        stream = stream_of(name)
        async with in_the_middle(testbed, name, draw):
            state = (await testbed.nats.change(f"STREAM.INFO.{stream}"))["state"]
            each = state["bytes"] // max(1, state["messages"])
            limit = draw.choice((("max_msgs", state["messages"] + ROOM), ("max_bytes", state["bytes"] + ROOM * each)))
            before = await bounded(testbed, stream, discard="new", **dict([limit]))
        await stuck(testbed, stream)
        yield f"{stream}, {limit[0]}"
        await bounded(testbed, stream, **before)

    return strike


@asynccontextmanager
async def switched_off(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
    """Fast ingest is switched off for a stream in the middle of a batch, and on again."""
    stream = stream_of(FAST)
    async with in_the_middle(testbed, FAST, draw):
        before = await bounded(testbed, stream, allow_batched=False)
    yield stream
    await bounded(testbed, stream, **before)
    await _reopened(testbed, FAST)


@asynccontextmanager
async def replicated(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
    """A stream gets three replicas in the middle of a batch, another leader in that of the next, and one replica again
    in that of a third."""
    stream = stream_of(FAST)
    async with in_the_middle(testbed, FAST, draw):
        await bounded(testbed, stream, num_replicas=3)
    await until(lambda: _is_whole(testbed, stream), f"{stream} has three replicas", within=60)
    async with in_the_middle(testbed, FAST, draw):
        await testbed.nats.step_down(stream)
    yield stream
    await testbed.note_modes()
    async with in_the_middle(testbed, FAST, draw):
        await bounded(testbed, stream, num_replicas=1)
    await _reopened(testbed, FAST)


async def _is_whole(testbed: Testbed, stream: str) -> bool:
    info: dict[str, Any] = await testbed.nats.ask(f"STREAM.INFO.{stream}")
    others = (info.get("cluster") or {}).get("replicas") or []
    return len(others) == 2 and all(other.get("current") for other in others)

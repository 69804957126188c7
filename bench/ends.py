"""Both ends of a latency, held by the harness: a listener and a writer, each a process of its own.

So neither waits for the other's interpreter, nor for this one, which sleeps meanwhile. They read one clock.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.contenders import ROOT
from bench.listen import END
from bench.report import percentile
from bench.stage import Incomplete, Place, Stage
from bench.write import Steadily

ARRIVE_SECONDS = 30
SMALL_RATE = 200
"""Up to this rate one writer suffices: an insert takes one to two milliseconds, most of it mongod's journal."""
MOST_SINGLY = 1_000
WRITERS, GROUP = 8, 10
"""Beyond SMALL_RATE so many write at once, and beyond MOST_SINGLY so many documents at a time: single inserts would
take the processors that are measured."""
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
_LINE = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Written:
    """What a run of writers and its listener found: milliseconds, and what was really written a second."""

    latencies: list[float]
    rate: float
    seconds: float
    harness_cpu: float
    """Processor time of writers and listener, in parts of one processor."""


def ends_for(rate: float) -> tuple[int, int]:
    """How many write at once, and how many documents an insert has, for so many a second."""
    return (1 if rate <= SMALL_RATE else WRITERS, 1 if rate <= MOST_SINGLY else GROUP)


async def measure(
    stage: Stage,
    places: Sequence[Place],
    count: int,
    rate: float,
    *,
    begun: Callable[[], None] = lambda: None,
    into: Sequence[Place] = (),
) -> Written:
    """Insert `count` orders at `rate` into places at random, and time them from acknowledgement to arrival.

    `into` are the collections, where several are published to one of the `places`. `begun` is called
    once the writer is warm. Raises Incomplete where one does not arrive, or arrives twice."""
    targets = [[place.database, place.collection] for place in into or places]
    return await _measure(stage, places, Steadily(stage.mongo.uri, targets, count, rate, *ends_for(rate)), begun)


async def floor(stage: Stage, count: int, rate: float) -> Written:
    """What the two ends and JetStream take: from a publish to its arrival, with no service between."""
    place = stage.place("floor")
    await stage.create_stream(place)
    work = Steadily(stage.nats.url, [[f"{place.stream}.insert"]], count, rate)
    written = await _measure(stage, [place], work, lambda: None)
    await stage.clear([place])
    return written


async def _measure(stage: Stage, places: Sequence[Place], work: Steadily, begun: Callable[[], None]) -> Written:
    before = await stage.count(places)
    async with _listener(stage, places) as listener:
        writer = await _start(work.command())
        try:
            await _line(writer, b"begin")
            begun()
            told = await _told(writer)
        finally:
            _end(writer)
        await stage.until(places, before + work.count + work.warm, ARRIVE_SECONDS)
        await asyncio.sleep(0.2)
        await stage.bus.publish(listener.inbox, END)
        await stage.bus.flush()
        heard = await _told(listener.process)
    acknowledged, arrived = dict(told["acknowledged"]), dict(heard["arrived"])
    numbers = sorted(number for number, _ in heard["arrived"])
    if numbers != list(range(work.count + work.warm)):
        raise Incomplete(f"{len(numbers):,} messages arrived for {work.count + work.warm:,} inserts")
    seconds = max(acknowledged.values()) - min(acknowledged.values()) or 1.0
    return Written(
        latencies=[(arrived[number] - acknowledged[number]) * 1000 for number in range(work.count)],
        rate=work.count / seconds,
        seconds=seconds,
        harness_cpu=(heard["cpu"] + told["cpu"]) / seconds,
    )


@dataclass(frozen=True, slots=True)
class _Listener:
    process: asyncio.subprocess.Process
    inbox: str


@asynccontextmanager
async def _listener(stage: Stage, places: Sequence[Place]) -> AsyncIterator[_Listener]:
    inbox = stage.bus.new_inbox()
    process = await _start([sys.executable, "-m", "bench.listen", stage.nats.url, inbox])
    try:
        await _line(process, b"ready")
        for place in places:
            await stage.deliver(place, inbox)
        yield _Listener(process, inbox)
    finally:
        _end(process)
        await process.wait()


async def _start(command: Sequence[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, limit=_LINE
    )


async def _line(process: asyncio.subprocess.Process, line: bytes) -> None:
    assert process.stdout is not None
    if (await process.stdout.readline()).strip() != line:
        raise Incomplete(f"a process of the bench has ended before its {line.decode()!r}")


async def _told(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    said = await process.stdout.read()
    if await process.wait() != 0:
        raise Incomplete("a process of the bench has failed")
    return json.loads(said)


def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
_SHOWN = [*range(1, 90), *(90 + step / 10 for step in range(100)), *(100 - 1 / 10**power for power in (1.5, 2, 2.5, 3))]


def percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99, p99.9 and the maximum, in ms."""
    ordered = sorted(latencies)
    return {name: percentile(ordered, percent) for name, percent in PERCENTILES.items()}


def distribution(latencies: Sequence[float]) -> list[tuple[float, float]]:
    """[percent, ms] for a curve; as far out as there are values enough."""
    ordered = sorted(latencies)
    most = 100 * (1 - 1 / len(ordered))
    return [(float(each), percentile(ordered, each)) for each in _SHOWN if each <= most]


def row(latencies: Sequence[float]) -> list[str]:
    """The percentiles for a table; none that would be the maximum under another name."""
    figures = percentiles(latencies)
    return [
        "–" if name == "p99.9" and len(latencies) < 1000 else f"{figures[name]:.{1 if figures[name] >= 1 else 2}f}"
        for name in PERCENTILES
    ]
